//! A private MariaDB in a temporary folder. Dropping the value stops it. Root needs no password from this host.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Value};
use tokio::runtime::Runtime;

use crate::cluster::as_server_user;
use crate::wait_until;

const SERVER: &str = "/usr/sbin/mariadbd";
const INSTALL: &str = "/usr/bin/mariadb-install-db";

pub struct MariaDb {
    pub dir: PathBuf,
    pub port: u16,
    server: Child,
    pid: i32,
}

/// A session; each call waits for its answer.
pub struct MariaDbClient {
    runtime: Runtime,
    conn: Conn,
}

impl MariaDb {
    /// `dir` belongs to the user that runs servers.
    pub fn start(dir: PathBuf, settings: &[&str]) -> MariaDb {
        let data = format!("--datadir={}/mariadb", dir.display());
        // Several are installed at once, and would meet in a common one.
        let scratch = format!("--tmpdir={}", dir.display());
        let log = std::fs::File::create(dir.join("mariadb.log")).expect("a log");
        let installed = as_server_user(INSTALL.as_ref())
            .args([
                "--no-defaults",
                &data,
                &scratch,
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(log.try_clone().expect("a log"))
            .status()
            .expect("mariadb-install-db");
        assert!(installed.success(), "{}", MariaDb::log(&dir));
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let mut command: Command = as_server_user(SERVER.as_ref());
        let server = command
            .args([
                "--no-defaults",
                &data,
                &scratch,
                "--bind-address=127.0.0.1",
                "--innodb-flush-log-at-trx-commit=0",
                // Since MariaDB 11.4 a server makes a certificate for itself. Settings that name one switch TLS on again.
                "--skip-ssl",
            ])
            .args([
                format!("--port={port}"),
                format!("--socket={}/mariadb.socket", dir.display()),
                format!("--pid-file={}/mariadb.pid", dir.display()),
            ])
            .args(settings)
            .current_dir("/")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("mariadbd");
        let pid = server.id() as i32;
        let mut server = MariaDb {
            dir,
            port,
            server,
            pid,
        };
        wait_until(60, "MariaDB lets in", || server.try_client("").ok());
        // Root's child is runuser: the server would outlive it.
        let pid = std::fs::read_to_string(server.dir.join("mariadb.pid")).expect("a process id");
        server.pid = pid.trim().parse().expect("a number");
        server
    }

    fn log(dir: &std::path::Path) -> String {
        std::fs::read_to_string(dir.join("mariadb.log")).unwrap_or_default()
    }

    pub fn client(&self, database: &str) -> MariaDbClient {
        self.try_client(database)
            .unwrap_or_else(|error| panic!("{error}\n{}", MariaDb::log(&self.dir)))
    }

    fn try_client(&self, database: &str) -> Result<MariaDbClient, mysql_async::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let options = OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.port)
            .user(Some("root"))
            .db_name(Some(database).filter(|name| !name.is_empty()))
            .prefer_socket(false);
        let conn = runtime.block_on(Conn::new(options))?;
        Ok(MariaDbClient { runtime, conn })
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        // SAFETY: the id of a process of our own.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ = self.server.wait();
    }
}

impl MariaDbClient {
    pub fn run(&mut self, sql: &str) {
        for statement in sql.split(";\n").filter(|text| !text.trim().is_empty()) {
            let run = self.conn.query_drop(statement);
            let result = self.runtime.block_on(run);
            result.unwrap_or_else(|error| panic!("{error}: {statement}"));
        }
    }

    /// Runs one statement; the error is the server's.
    pub fn try_run(&mut self, sql: &str) -> Result<(), String> {
        let run = self.conn.query_drop(sql);
        self.runtime
            .block_on(run)
            .map_err(|error| error.to_string())
    }

    /// Returns rows as text. NULL becomes an empty text.
    pub fn rows(&mut self, sql: &str) -> Vec<Vec<String>> {
        let rows: Result<Vec<mysql_async::Row>, _> = self.runtime.block_on(self.conn.query(sql));
        let text = |value: Value| match value {
            Value::NULL => String::new(),
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => other.as_sql(true),
        };
        let rows = rows.unwrap_or_else(|error| panic!("{error}: {sql}"));
        rows.into_iter()
            .map(|row| row.unwrap().into_iter().map(text).collect())
            .collect()
    }
}
