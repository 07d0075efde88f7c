//! Runs a page from its top to its end, in a cluster of its own with a database `shop`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use connector_service_test::{Cluster, free_port, wait_until};
use postgres::Client;

use crate::output;
use crate::page::{Block, Page, Step};
use crate::session::{Place, Session};
use crate::vendor::{self, Fake};
use crate::{accepts, root, tell};

const DATABASE: &str = "shop";
/// The gateway's address in every page; the test has a port of its own.
const GATEWAY: &str = "127.0.0.1:8090";
/// The data directory in every page, which is Debian's.
const DATA: &str = "/var/lib/postgresql/15/main";
/// The second server of a page `<!-- with: another server -->`.
const ANOTHER: &str = "-h new.example.com";

/// In seconds; more than any page takes.
const LONGEST_PAGE: u64 = 60;

#[derive(Default)]
pub struct Count {
    pages: usize,
    /// By their language.
    ran: BTreeMap<String, usize>,
    compared: usize,
    not_run: usize,
}

impl Count {
    pub fn add(&mut self, other: &Count) {
        self.pages += other.pages;
        self.compared += other.compared;
        self.not_run += other.not_run;
        for (language, count) in &other.ran {
            *self.ran.entry(language.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ran: Vec<String> = self
            .ran
            .iter()
            .map(|(language, count)| format!("{count} {language}"))
            .collect();
        write!(
            f,
            "{} pages, blocks that ran or were checked: {}; outputs compared: {}; blocks not run: {}",
            self.pages,
            ran.join(", "),
            self.compared,
            self.not_run
        )
    }
}

/// What is counted, and what is wrong.
pub fn run(page: Page) -> (Count, Vec<String>) {
    let mut count = Count {
        pages: 1,
        ..Count::default()
    };
    let needs_server = page.blocks().any(|block| {
        block.not_run.is_none() && ["sql", "sh", "ini", "conf"].contains(&block.language.as_str())
    });
    let mut stage = needs_server.then(|| Stage::start(&page));
    let mut wrong = Vec::new();
    let mut accepted = Vec::new();
    for step in &page.steps {
        let block = match step {
            Step::Block(block) => block,
            Step::Hidden(file) => {
                if let Err(problem) = stage.as_mut().unwrap().hidden(file) {
                    wrong.push(format!("{}: {file}: {problem}", page.name));
                    break;
                }
                continue;
            }
        };
        let place = format!("{}:{}", page.name, block.line + 1);
        if let Some(reason) = &block.not_run {
            count.not_run += 1;
            tell(&format!("{place}: not run: {reason}"));
            continue;
        }
        let came = match check(block, stage.as_mut()) {
            Ok(came) => came,
            Err(problem) => {
                wrong.push(format!("{place}: {problem}"));
                // What follows builds on it.
                if block.is_command() {
                    break;
                }
                continue;
            }
        };
        *count.ran.entry(block.language.clone()).or_default() += 1;
        let Some(output) = &block.output else {
            continue;
        };
        count.compared += 1;
        if output::is_same(&output.text, &came) {
            continue;
        }
        let came = output::for_page(&output.text, &came);
        if accepts() {
            accepted.push((output, came));
        } else {
            wrong.push(format!(
                "{place}: the page shows\n{}\nand this came:\n{came}\n",
                output.text
            ));
        }
    }
    if !accepted.is_empty() {
        let mut lines = page.lines.clone();
        for (output, came) in accepted.into_iter().rev() {
            let blanks = " ".repeat(output.indent);
            let came = came.lines().map(|line| format!("{blanks}{line}"));
            let came: Vec<String> = came.map(|line| line.trim_end().to_owned()).collect();
            lines.splice(output.lines.clone(), came);
        }
        std::fs::write(root().join(&page.name), lines.join("\n") + "\n").unwrap();
    }
    (count, wrong)
}

/// Runs or reads a block; what it printed.
fn check(block: &Block, stage: Option<&mut Stage>) -> Result<String, String> {
    match block.language.as_str() {
        "sql" => stage.unwrap().sql(block),
        "sh" => stage.unwrap().shell(block),
        "ini" | "conf" => {
            let client = &mut stage.unwrap().client;
            settings(client, &block.text).map(|()| String::new())
        }
        "json" => serde_json::from_str::<serde_json::Value>(&block.text)
            .map(|_| String::new())
            .map_err(|error| format!("this is not JSON: {error}")),
        "yaml" => serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&block.text)
            .map(|_| String::new())
            .map_err(|error| format!("this is not YAML: {error}")),
        "text" if block.is_drawing => Ok(String::new()),
        "text" => Err("this output does not directly follow a block of sql or sh".into()),
        "" => Err("this block does not say its language".into()),
        other => Err(format!(
            "no test can check \"{other}\": mark the block with <!-- not run: the reason -->"
        )),
    }
}

/// Lines of postgresql.conf: each setting is known, and takes the value.
fn settings(client: &mut Client, text: &str) -> Result<(), String> {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("no setting: {line}"))?;
        let (name, value) = (name.trim(), value.trim().trim_matches('\''));
        let known = "SELECT count(*) FROM pg_settings WHERE name = $1";
        let known: i64 = client.query_one(known, &[&name]).unwrap().get(0);
        if known == 0 {
            return Err(format!("the setting {name} is not known"));
        }
        let value = value.replace('\'', "''");
        client
            .batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'"))
            .map_err(|error| format!("{line}: {}", error.as_db_error().unwrap().message()))?;
        client
            .batch_execute(&format!("ALTER SYSTEM RESET {name}"))
            .unwrap();
    }
    Ok(())
}

/// What pages take as given.
fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Hourly connectors sync at the full hour, and days end then: no page is to run across it.
fn away_from_the_full_hour() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let left = 3600 - now.as_secs() % 3600;
    if left < LONGEST_PAGE {
        std::thread::sleep(Duration::from_secs(left + 1));
    }
}

struct Stage {
    client: Client,
    psql: Session,
    bash: Session,
    folder: PathBuf,
    gateway: u16,
    /// What stands in a page, and what takes its place when it runs.
    replaced: Vec<(String, String)>,
    _fakes: Vec<Fake>,
    _another: Option<Cluster>,
    _cluster: Cluster,
}

impl Stage {
    fn start(page: &Page) -> Stage {
        away_from_the_full_hour();
        let fakes: Vec<Fake> = page
            .vendors
            .iter()
            .map(|name| vendor::start(name))
            .collect();
        let gateway = free_port();
        let mut replaced = vec![(GATEWAY.to_owned(), format!("127.0.0.1:{gateway}"))];
        for fake in &fakes {
            replaced.push((fake.url.clone(), fake.vendor.url()));
        }
        let settings = format!(
            "cron.database_name = '{DATABASE}'\ncron.host = '127.0.0.1'\ntimezone = 'UTC'\nwal_level = 'logical'"
        );
        let create = || {
            let cluster = Cluster::create();
            cluster.configure(&format!(
                "shared_preload_libraries = 'connector_service, pg_cron'\n{settings}"
            ));
            cluster
        };
        let cluster = create();
        replaced.push((DATA.to_owned(), cluster.data().display().to_string()));
        if page.has("gateway") {
            cluster.configure(&format!(
                "connector_service.gateway_listen = '{DATABASE}=127.0.0.1:{gateway}'"
            ));
        }
        cluster.run();
        let another = page.has("another server").then(|| {
            let another = create();
            another.run();
            let address = format!("-h 127.0.0.1 -p {}", another.port);
            replaced.push((ANOTHER.to_owned(), address));
            another
        });
        let mut postgres = cluster.client("postgres");
        let create = format!("CREATE DATABASE {DATABASE}");
        postgres.batch_execute(&create).unwrap();
        let mut client = cluster.client(DATABASE);
        // A page that creates the extension shows what that says.
        let creates = page.blocks().any(|block| {
            block.is_command()
                && block.not_run.is_none()
                && block.text.contains("CREATE EXTENSION connector_service")
        });
        if !creates {
            let create = "SET client_min_messages = 'error'; CREATE EXTENSION connector_service";
            client.batch_execute(create).unwrap();
        }
        if page.has("pg_cron") {
            client.batch_execute("CREATE EXTENSION pg_cron").unwrap();
        }
        let folder = cluster.dir.join("page");
        std::fs::create_dir(&folder).unwrap();
        let path = std::env::var("PATH").unwrap();
        let text = |text: &str| text.to_owned();
        let place = Place {
            folder: &folder,
            environment: vec![
                ("PGHOST", text("127.0.0.1")),
                ("PGPORT", cluster.port.to_string()),
                ("PGUSER", text("postgres")),
                ("PGDATABASE", text(DATABASE)),
                ("PGDATA", cluster.data().display().to_string()),
                ("PATH", format!("{}:{path}", cluster.bin().display())),
                ("PAGER", text("cat")),
                ("LC_ALL", text("C.UTF-8")),
                ("TZ", text("UTC")),
                ("HOME", folder.display().to_string()),
                // Where hidden shell finds what it shares with others.
                ("DOCS_FILES", files().display().to_string()),
            ],
        };
        let mut stage = Stage {
            client,
            psql: Session::psql(&place),
            bash: Session::bash(&place),
            folder: folder.clone(),
            gateway,
            replaced,
            _fakes: fakes,
            _another: another,
            _cluster: cluster,
        };
        if page.has("gateway") && !creates {
            stage.wait_for_gateway();
        }
        stage
    }

    fn wait_for_gateway(&mut self) {
        wait_until(30, "the gateway listens", || {
            TcpStream::connect(("127.0.0.1", self.gateway)).ok()
        });
    }

    fn real(&self, text: &str) -> String {
        let pairs = self.replaced.iter();
        pairs.fold(text.to_owned(), |text, (shown, real)| {
            text.replace(shown, real)
        })
    }

    fn shown(&self, text: &str) -> String {
        let host = |url: &str| url.split("//").last().unwrap_or_default().to_owned();
        let pairs = self.replaced.iter();
        pairs.fold(text.to_owned(), |text, (shown, real)| {
            text.replace(real, shown).replace(&host(real), &host(shown))
        })
    }

    fn sql(&mut self, block: &Block) -> Result<String, String> {
        let came = self.psql.sql(&self.real(&block.text))?;
        if block.text.contains("gateway_listen") && block.text.contains("pg_reload_conf") {
            self.wait_for_gateway();
        }
        let failed = came.lines().any(|line| {
            line.starts_with("ERROR:")
                || line.contains("FATAL:")
                || line.starts_with("invalid command")
        });
        self.judge(block, &came, failed)
    }

    fn shell(&mut self, block: &Block) -> Result<String, String> {
        let (came, ok) = self.bash.shell(&self.folder, &self.real(&block.text))?;
        self.judge(block, &came, !ok)
    }

    /// A block may fail only where the page shows how.
    fn judge(&self, block: &Block, came: &str, failed: bool) -> Result<String, String> {
        let came = self.shown(came);
        if failed && block.output.is_none() {
            return Err(format!("the block failed:\n{came}"));
        }
        Ok(came)
    }

    /// Runs a file of pg_test/docs, which has to succeed.
    fn hidden(&mut self, file: &str) -> Result<(), String> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(file);
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let text = self.real(&text);
        let (came, failed) = if file.ends_with(".sql") {
            let came = self.psql.sql(&text)?;
            let failed = came.lines().any(|line| line.starts_with("ERROR:"));
            (came, failed)
        } else {
            let (came, ok) = self.bash.shell(&self.folder, &text)?;
            (came, !ok)
        };
        if failed { Err(came) } else { Ok(()) }
    }
}
