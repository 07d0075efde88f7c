//! A private PostgreSQL cluster in a temporary folder. Dropping the value stops and deletes it.
//!
//! `PG_CONFIG` names the server. PostgreSQL refuses to run as root, so root runs it as another user
//! (`PG_USER`, default postgres). With `KEEP=1` the folder stays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use postgres::{Client, NoTls};

use crate::wait_until;

pub struct Cluster {
    pub dir: PathBuf,
    pub port: u16,
    bin: PathBuf,
}

#[derive(Clone, Copy)]
pub enum Stop {
    Fast,
    Immediate,
}

/// Settings for a small and quick server: every test has one, and some are killed a hundred times. The fake vendors are
/// on this host.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = '64MB'
max_connections = 100
log_min_messages = info
log_line_prefix = '%m [%p] %d %b '
connector_service.allowed_private_hosts = '127.0.0.1'
";

impl Cluster {
    /// A started cluster whose server preloads the extension.
    pub fn start(settings: &str) -> Cluster {
        let cluster = Cluster::create();
        cluster.configure(&format!(
            "shared_preload_libraries = 'connector_service'\n{settings}"
        ));
        cluster.run();
        cluster
    }

    /// A cluster that is not started yet.
    pub fn create() -> Cluster {
        let cluster = Cluster::empty();
        let data = cluster.data();
        cluster.command(
            "initdb",
            &[
                "-D",
                path(&data),
                "-A",
                "trust",
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            ],
        );
        cluster.configure(SETTINGS);
        cluster.configure(&format!("port = {}", cluster.port));
        cluster
    }

    /// Returns a cluster that has a folder and a port, and no data yet.
    pub fn empty() -> Cluster {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "connector_service.{}.{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).expect("a temporary folder");
        let owner = format!("{}:", server_user());
        if is_root() {
            assert!(
                Command::new("chown")
                    .arg(&owner)
                    .arg(&dir)
                    .status()
                    .expect("chown")
                    .success()
            );
        }
        let config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into());
        let bin = Command::new(&config)
            .arg("--bindir")
            .output()
            .expect("pg_config");
        let bin = PathBuf::from(String::from_utf8(bin.stdout).expect("a path").trim());
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .expect("a free port")
            .local_addr()
            .expect("its address")
            .port();
        Cluster { dir, port, bin }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Returns the folder of PostgreSQL's programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Adds lines to the configuration.
    pub fn configure(&self, lines: &str) {
        let file = self.data().join("postgresql.conf");
        let before = std::fs::read_to_string(&file).expect("postgresql.conf");
        std::fs::write(&file, format!("{before}\n{lines}\n")).expect("postgresql.conf");
    }

    pub fn run(&self) {
        self.run_with(&[]);
    }

    /// Starts the server with additional environment variables.
    pub fn run_with(&self, environment: &[(&str, &str)]) {
        let log = self.dir.join("log");
        let data = self.data();
        let arguments = ["-D", path(&data), "-l", path(&log), "-w", "-s", "start"];
        let (ok, output) = self.try_command_with(environment, "pg_ctl", &arguments);
        assert!(ok, "pg_ctl failed:\n{output}\n{}", self.log_tail());
    }

    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        self.command(
            "pg_ctl",
            &["-D", path(&self.data()), "-w", "-s", "-m", mode, "stop"],
        );
    }

    /// Has the worker killed at a place of `src/fault.rs`, when it passes it for the `passes`th time.
    pub fn arm(&self, place: &str, passes: usize) {
        let file = self.dir.join("armed");
        std::fs::write(&file, format!("{place} {passes}")).expect("a file");
        let fault = self.data().join("connector_service.fault");
        let names = [&file, &fault].map(|path| path.to_str().expect("UTF-8"));
        self.command("/bin/cp", &names);
    }

    /// A certificate for 127.0.0.1 that signs itself, with its key, where servers look for theirs.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        let [key, certificate] = ["server.key", "server.crt"].map(|name| self.data().join(name));
        let request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
        let mut arguments: Vec<&str> = request.split(' ').collect();
        arguments.extend(["-keyout", path(&key), "-out", path(&certificate)]);
        self.command("/usr/bin/openssl", &arguments);
        (key, certificate)
    }

    /// Runs one of PostgreSQL's programs as the server's user and returns what it printed.
    pub fn command(&self, program: &str, arguments: &[&str]) -> String {
        let (ok, output) = self.try_command(program, arguments);
        assert!(ok, "{program} failed:\n{output}\n{}", self.log_tail());
        output
    }

    pub fn try_command(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        self.try_command_with(&[], program, arguments)
    }

    fn try_command_with(
        &self,
        environment: &[(&str, &str)],
        program: &str,
        arguments: &[&str],
    ) -> (bool, String) {
        let program = self.bin.join(program);
        let mut command = as_server_user(&program);
        // pg_ctl's server inherits the pipes of `output()`, which would then never end.
        let captured = std::env::temp_dir().join(format!(
            "connector_service.out.{}.{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let file = std::fs::File::create(&captured).expect("a temporary file");
        command
            .args(arguments)
            .current_dir("/")
            .env("LC_ALL", "C.UTF-8")
            .envs(environment.iter().copied());
        command
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file);
        let status = command.status().expect("a program of PostgreSQL");
        let output = std::fs::read_to_string(&captured).unwrap_or_default();
        let _ = std::fs::remove_file(&captured);
        (status.success(), output)
    }

    /// What psql shows of a script that has to run to its end, unaligned and without headings.
    pub fn script(&self, database: &str, sql: &str) -> String {
        let file = self.dir.join("script.sql");
        std::fs::write(&file, sql).expect("a file");
        let (url, stop) = (self.url(database), "ON_ERROR_STOP=1");
        let arguments = ["-X", "-At", "-v", stop, "-d", &url, "-f", path(&file)];
        self.command("psql", &arguments)
    }

    pub fn client(&self, database: &str) -> Client {
        self.try_client(database)
            .unwrap_or_else(|error| panic!("cannot connect: {error}\n{}", self.log_tail()))
    }

    pub fn try_client(&self, database: &str) -> Result<Client, postgres::Error> {
        Client::connect(&self.url(database), NoTls)
    }

    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// Connects as another role than the superuser.
    pub fn client_as(&self, role: &str, database: &str) -> Client {
        Client::connect(&self.url_as(role, database), NoTls)
            .unwrap_or_else(|error| panic!("cannot connect as {role}: {error}"))
    }

    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user={role} dbname={database} connect_timeout=5",
            self.port
        )
    }

    /// Waits until the server accepts connections again after a crash.
    pub fn wait_ready(&self) -> Client {
        self.wait_ready_in("postgres")
    }

    pub fn wait_ready_in(&self, database: &str) -> Client {
        wait_until(30, "the server accepts connections", || {
            let mut client = self.try_client(database).ok()?;
            client.simple_query("SELECT 1").ok()?;
            Some(client)
        })
    }

    /// A new database with the extension, and a connection to it.
    pub fn database(&self, name: &str) -> Client {
        self.client("postgres")
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("CREATE DATABASE");
        let mut client = self.client(name);
        client
            .batch_execute("CREATE EXTENSION connector_service")
            .expect("CREATE EXTENSION");
        client
    }

    /// The process id of a database's sync worker.
    pub fn worker(&self, database: &str) -> Option<i32> {
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'connector_service sync worker' AND datname = $1";
        self.try_client("postgres")
            .ok()?
            .query_opt(sql, &[&database])
            .ok()?
            .map(|row| row.get(0))
    }

    pub fn wait_worker(&self, database: &str) -> i32 {
        wait_until(20, "the database has a sync worker", || {
            self.worker(database)
        })
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines
            .get(lines.len().saturating_sub(30)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the end of the server's log, {}\n{}",
                self.dir.display(),
                self.log_tail()
            );
        }
        if self.data().join("postmaster.pid").exists() {
            self.try_command(
                "pg_ctl",
                &[
                    "-D",
                    path(&self.data()),
                    "-w",
                    "-s",
                    "-m",
                    "immediate",
                    "stop",
                ],
            );
        }
        if std::env::var_os("KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn is_root() -> bool {
    // SAFETY: asks the kernel who we are.
    unsafe { libc::geteuid() == 0 }
}

/// Returns a command that runs as the servers' user, because PostgreSQL refuses to run as root.
pub fn as_server_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", &server_user(), "--"]).arg(program);
    command
}

fn server_user() -> String {
    std::env::var("PG_USER").unwrap_or_else(|_| "postgres".into())
}
