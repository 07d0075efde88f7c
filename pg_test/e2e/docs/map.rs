//! The map of CONTRIBUTING.md: it names nothing that is not there, and leaves out nothing that a person looks for.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Folders whose own folders all stand in the map.
const WHOLE: [&str; 4] = ["src", "src/core", "pg_test", "pg_test/e2e"];

/// Deeper than any name stands: a line that goes on with the description of the one before.
const DESCRIPTION: usize = 10;

/// The paths that the map names, without a slash at the end.
fn named(text: &str) -> Vec<String> {
    let block = text.split("## The map").nth(1).unwrap();
    let block = block.split("```").nth(1).unwrap();
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut named = Vec::new();
    for line in block.lines().skip(1).filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        if indent >= DESCRIPTION {
            continue;
        }
        above.retain(|(depth, _)| *depth < indent);
        let folder = above.last().map_or("", |(_, path)| path).to_owned();
        let names = line.trim().split("  ").next().unwrap_or_default();
        for name in names.split(' ') {
            let path = format!("{folder}{name}");
            if name.ends_with('/') {
                above.push((indent, path.clone()));
            }
            named.push(path.trim_end_matches('/').to_owned());
        }
    }
    named
}

/// Every file of the tree and every folder, as git knows them.
fn tree(root: &Path) -> (BTreeSet<String>, BTreeSet<String>) {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(listed.status.success(), "git ls-files");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: BTreeSet<String> = listed
        .lines()
        .filter(|file| root.join(file).exists())
        .map(str::to_owned)
        .collect();
    let mut folders = BTreeSet::new();
    for file in &files {
        let mut path = Path::new(file);
        while let Some(parent) = path.parent().filter(|parent| *parent != Path::new("")) {
            folders.insert(parent.to_str().unwrap().to_owned());
            path = parent;
        }
    }
    (files, folders)
}

pub fn compare(root: &Path) {
    let text = std::fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let named = named(&text);
    let (files, folders) = tree(root);
    let is_there = |path: &&String| files.contains(*path) || folders.contains(*path);
    let gone: Vec<&String> = named.iter().filter(|path| !is_there(path)).collect();
    let top = |path: &&String| !path.contains('/');
    let within = |path: &&String| {
        let parent = Path::new(path).parent().and_then(Path::to_str);
        WHOLE.contains(&parent.unwrap_or_default())
    };
    let wanted = files.iter().filter(top);
    let wanted = wanted.chain(folders.iter().filter(|path| top(path) || within(path)));
    let missing: Vec<&String> = wanted.filter(|path| !named.contains(path)).collect();
    assert!(
        gone.is_empty() && missing.is_empty(),
        "the map of CONTRIBUTING.md names what is not there: {gone:?}; and leaves out: {missing:?}"
    );
}
