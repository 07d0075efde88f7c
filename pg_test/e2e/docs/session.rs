//! One psql and one bash for a page, so that what a block sets is there for the next.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longest time of a block.
const PATIENCE: Duration = Duration::from_secs(180);

/// Stands on a line of its own where the output of a block ends.
const END: &str = "~~ the block ends here ~~";

pub struct Session {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    count: usize,
}

/// Where the page's server is.
pub struct Place<'a> {
    pub folder: &'a Path,
    pub environment: Vec<(&'static str, String)>,
}

impl Session {
    /// psql as a person has it, with errors in the order in which they come. Without the CONTEXT of errors: it names lines
    /// of functions inside the extension.
    pub fn psql(place: &Place) -> Session {
        Session::start(place, "exec stdbuf -oL psql -X -v SHOW_CONTEXT=never 2>&1")
    }

    pub fn bash(place: &Place) -> Session {
        Session::start(place, "exec bash --noprofile --norc 2>&1")
    }

    fn start(place: &Place, command: &str) -> Session {
        let mut child = Command::new("bash")
            .args(["-c", command])
            .current_dir(place.folder)
            .envs(place.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Session {
            child,
            input,
            lines,
            count: 0,
        }
    }

    /// Runs statements and commands of psql; what it printed.
    pub fn sql(&mut self, text: &str) -> Result<String, String> {
        let commands = format!("{text}\n\\echo {END}\n");
        let shown = self.send(&commands)?;
        Ok(shown.0)
    }

    /// Runs a script; what it printed, and whether each of its commands succeeded.
    pub fn shell(&mut self, folder: &Path, text: &str) -> Result<(String, bool), String> {
        self.count += 1;
        let file = folder.join(format!(".block.{}.sh", self.count));
        std::fs::write(&file, text).unwrap();
        let commands = format!(
            "failed=0; trap 'failed=1' ERR; set -E; . {} </dev/null; trap - ERR; echo; echo '{END}' $failed\n",
            file.display()
        );
        let (shown, rest) = self.send(&commands)?;
        // The line break before the mark, in case that the output does not end with one.
        let shown = shown.strip_suffix('\n').unwrap_or(&shown).to_owned();
        Ok((shown, rest.trim() == "0"))
    }

    fn send(&mut self, commands: &str) -> Result<(String, String), String> {
        let sent = self.input.write_all(commands.as_bytes());
        sent.and_then(|()| self.input.flush())
            .map_err(|_| "the session has ended".to_owned())?;
        let deadline = Instant::now() + PATIENCE;
        let mut shown = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("not ready after {PATIENCE:?}:\n{shown}"));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the session ended:\n{shown}"));
                }
            };
            if let Some(rest) = line.strip_prefix(END) {
                return Ok((shown, rest.to_owned()));
            }
            shown += &line;
            shown.push('\n');
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
