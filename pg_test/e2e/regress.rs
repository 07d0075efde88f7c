//! Tests what a psql user types and sees, with PostgreSQL's own pg_regress over `pg_test/regress`.
//!
//! A case is a file in `sql` and one of the same name in `expected`. With `ACCEPT=1` what came becomes what is
//! expected.

use std::path::Path;
use std::process::Command;

use connector_service_test::*;

#[test]
fn psql_shows_the_expected_output() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("regress");
    let mut names: Vec<String> = std::fs::read_dir(cases.join("sql"))
        .unwrap()
        .map(|file| {
            file.unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    names.sort();
    assert!(!names.is_empty());

    // Each case sees a database as the one before it left it, so none leaves anything behind.
    // CREATE EXTENSION says where the key is: at the same place in every run.
    let cluster = Cluster::start("connector_service.key_file = '../key'");
    cluster.database("regress");
    // The server's user may not be allowed to read the checkout.
    let work = cluster.dir.join("regress");
    cluster.command("/bin/mkdir", &[work.to_str().unwrap()]);
    for folder in ["sql", "expected"] {
        copy(&cases.join(folder), &work.join(folder));
    }
    // pg_regress gives up where there is nothing to compare with.
    for name in &names {
        let file = work.join("expected").join(format!("{name}.out"));
        let expected = std::fs::read(&file).unwrap_or_default();
        std::fs::write(&file, expected).unwrap();
    }
    let pgxs = Command::new(std::env::var("PG_CONFIG").unwrap_or_else(|_| "pg_config".into()))
        .arg("--pgxs")
        .output()
        .unwrap();
    let pgxs = String::from_utf8(pgxs.stdout).unwrap();
    let program = Path::new(pgxs.trim()).with_file_name("../test/regress/pg_regress");
    let port = format!("--port={}", cluster.port);
    let inputdir = format!("--inputdir={}", work.display());
    let outputdir = format!("--outputdir={}", work.display());
    let mut arguments = vec![
        "--use-existing",
        "--dbname=regress",
        "--host=127.0.0.1",
        "--user=postgres",
        &port,
        &inputdir,
        &outputdir,
    ];
    let bindir = format!("--bindir={}", cluster.bin().display());
    arguments.push(&bindir);
    arguments.extend(names.iter().map(String::as_str));
    let (ok, output) = cluster.try_command(program.to_str().unwrap(), &arguments);
    println!("{output}");
    if std::env::var_os("ACCEPT").is_some() {
        for file in names.iter().map(|name| format!("{name}.out")) {
            std::fs::copy(
                work.join("results").join(&file),
                cases.join("expected").join(&file),
            )
            .unwrap();
        }
        return;
    }
    let differences = std::fs::read_to_string(work.join("regression.diffs")).unwrap_or_default();
    assert!(ok, "{output}\n{differences}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
