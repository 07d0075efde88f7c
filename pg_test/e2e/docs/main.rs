//! README.md and docs/: every block of SQL and shell runs, every output that is shown is what comes, every link leads
//! somewhere, and docs/reference.md is what the installed extension says of itself.
//!
//! `DOCS_PAGE=docs/files.md` tries one page. `ACCEPT=1` writes what came into the pages, for a person to review.
//! How a page is written is explained in CONTRIBUTING.md, under "Writing documentation".
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod links;
mod map;
mod output;
mod page;
mod reference;
mod run;
mod session;
mod vendor;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use page::Page;
use run::Count;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn accepts() -> bool {
    std::env::var_os("ACCEPT").is_some()
}

/// The one page that `DOCS_PAGE` names.
fn chosen() -> Option<String> {
    std::env::var("DOCS_PAGE").ok()
}

/// All Markdown files below a folder, in order, as paths from the root of the tree.
fn markdown_below(folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            markdown_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") {
            let path = path.strip_prefix(root()).unwrap();
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// The pages whose blocks run.
fn pages() -> Vec<Page> {
    let mut names = vec!["README.md".to_owned()];
    markdown_below(&root().join("docs"), &mut names);
    names.retain(|name| chosen().is_none_or(|page| page == *name));
    assert!(!names.is_empty(), "there is no page {:?}", chosen());
    names.iter().map(|name| Page::read(&root(), name)).collect()
}

/// Written past the capture of a test's output, so that it is seen.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Pages that run at once: most of their time they wait.
const AT_ONCE: usize = 3;

#[test]
fn every_block_runs_and_shows_what_comes() {
    let waiting = Mutex::new(pages().into_iter());
    let next = || waiting.lock().unwrap().next();
    let done = Mutex::new((Count::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(page) = next() {
                    let (count, problems) = run::run(page);
                    let mut done = done.lock().unwrap();
                    done.0.add(&count);
                    done.1.extend(problems);
                }
            });
        }
    });
    let (total, mut wrong) = done.into_inner().unwrap();
    wrong.sort();
    tell(&format!("documentation: {total}"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut names: Vec<String> = pages().into_iter().map(|page| page.name).collect();
    if chosen().is_none() {
        names.extend(["CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned));
    }
    for name in names {
        wrong.extend(links::broken(&root(), &name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_is_what_the_extension_says() {
    if chosen().is_none_or(|page| page == reference::FILE) {
        reference::compare(&root());
    }
}

#[test]
fn troubleshooting_explains_every_error_code() {
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let missing: Vec<String> = reference::error_codes(&root())
        .into_iter()
        .map(|code| code.word)
        .filter(|word| !page.contains(&format!("`{word}`")))
        .collect();
    assert_eq!(missing, [""; 0], "not in docs/troubleshooting.md");
}

#[test]
fn the_front_page_is_short_and_no_line_is_long() {
    for page in pages() {
        let count = page.lines.len();
        assert!(
            page.name != "README.md" || count <= 150,
            "README.md has {count} lines"
        );
        if page.name == reference::FILE {
            continue;
        }
        // A row of a table cannot be broken, and an output is as it comes.
        let long = |line: &&str| line.chars().count() > 120 && !line.starts_with('|');
        let long: Vec<&str> = page.written_lines().filter(long).collect();
        assert_eq!(long, [""; 0], "{}: more than 120 characters", page.name);
    }
}

#[test]
fn the_map_of_contributing_is_the_tree() {
    map::compare(&root());
}
