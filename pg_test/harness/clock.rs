//! A server's wall clock that a test moves.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use chrono::{DateTime, Utc};

use crate::Cluster;

/// Adds the offset in a file to the wall clock of a process. The clocks that measure durations stay as they are.
///
/// Not libfaketime: while a process waits it hears the real time, and PostgreSQL up to 15 starts its workers from a signal
/// handler while it waits, whose whole life is then in the present.
const MOVED_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *moved;

__attribute__((constructor)) static void find(void) {
    const char *name = getenv("MOVED_CLOCK");
    int file = name ? open(name, O_RDONLY) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *moved, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) moved = found;
    if (file >= 0) close(file);
}
int clock_gettime(clockid_t id, struct timespec *t) {
    int result = syscall(SYS_clock_gettime, id, t);
    if (result == 0 && moved && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long all = t->tv_sec * 1000000000LL + t->tv_nsec + *moved;
        t->tv_sec = all / 1000000000;
        t->tv_nsec = all % 1000000000;
    }
    return result;
}
int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    t->tv_sec = now.tv_sec;
    t->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *t) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (t) *t = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The wall clock of one server.
pub struct MovedClock {
    file: File,
    environment: [(&'static str, String); 2],
}

impl MovedClock {
    pub fn new(dir: &Path) -> MovedClock {
        let [source, library, file] = ["clock.c", "clock.so", "clock"]
            .map(|name| dir.join(name).to_str().expect("a moved clock").to_owned());
        std::fs::write(&source, MOVED_CLOCK).expect("a moved clock");
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
        let options = ["-shared", "-fPIC", "-Wall", "-o", &library, &source];
        let compiled = Command::new(compiler)
            .args(options)
            .status()
            .expect("a moved clock");
        assert!(compiled.success());
        MovedClock {
            file: File::create(&file).expect("a moved clock"),
            environment: [("LD_PRELOAD", library), ("MOVED_CLOCK", file)],
        }
    }

    /// Sets the clock to this moment; it runs on from there.
    pub fn set(&self, to: DateTime<Utc>) {
        let moved = (to - Utc::now()).num_nanoseconds().expect("a moved clock");
        self.file
            .write_all_at(&moved.to_ne_bytes(), 0)
            .expect("a moved clock");
    }

    /// Starts the server with this clock.
    pub fn start(&self, cluster: &Cluster) {
        let [preload, file] = &self.environment;
        cluster.run_with(&[(preload.0, &preload.1), (file.0, &file.1)]);
    }
}
