//! What of a failing statement may be logged.

use super::super::mention::{around_quotation, executed, may_hold_credentials};

#[test]
fn a_statement_that_writes_connectors_may_hold_credentials_however_it_is_written() {
    for statement in [
        "INSERT INTO connectors VALUES ('x')",
        "insert\ninto \"connectors\" (credentials) values ('{}')",
        "UPDATE public.Connectors SET credentials = '{",
        "WITH new AS (SELECT '{}') MERGE INTO app.connectors USING new ON true",
        "COPY connectors, line 1: \"a\tb\"",
        "SELECT credentials FROM connectors WHERE credentials @> '{}'",
        "DO $$ BEGIN INSERT INTO connectors VALUES (1); END $$",
        "PREPARE add AS INSERT INTO connectors VALUES ($1)",
        "SELECT Connector_Service_Reseal('a', 'b', '{}')",
        "PL/pgSQL function public.connector_service_connectors_before() line 44 at RAISE",
        "select connector_service_retire_key('0011')",
    ] {
        assert!(may_hold_credentials(statement.as_bytes()), "{statement}");
    }
    for statement in [
        "",
        "SELECT name FROM connectors WHERE status = 'error'",
        "DELETE FROM connectors WHERE connector_id = $1",
        "UPDATE my_connectors SET a = 1",
        "INSERT INTO connectors_of_mine VALUES (1)",
        "SELECT connector_service_sync('00000000-0000-4000-8000-000000000001')",
        "INSERT INTO fx_rates VALUES (1)",
    ] {
        assert!(!may_hold_credentials(statement.as_bytes()), "{statement}");
    }
}

#[test]
fn an_executed_prepared_statement_is_found_by_its_name() {
    for (statement, expected) in [
        ("EXECUTE add('{\"a\": 1}')", vec!["add"]),
        ("begin; execute  Add ;", vec!["add"]),
        ("EXECUTE \"Add It\"('x')", vec!["Add It"]),
        ("EXPLAIN EXECUTE add; EXECUTE sub", vec!["add", "sub"]),
        ("EXECUTE", vec![""]),
        ("SELECT executed, reexecute", vec![]),
    ] {
        let names: Vec<String> = executed(statement.as_bytes())
            .map(|name| {
                String::from_utf8_lossy(&name)
                    .trim_end_matches('\0')
                    .to_owned()
            })
            .collect();
        assert_eq!(names, expected, "{statement}");
    }
    let long = format!("EXECUTE {}", "n".repeat(100));
    let name = executed(long.as_bytes()).next().unwrap();
    assert_eq!((name[62], name[63]), (b'n', 0));
}

#[test]
fn a_message_keeps_its_sentence_and_the_names_of_the_schema() {
    let shown = |message: &str| {
        let names: [&[u8]; 3] = [b"connectors", b"", b"connectors_status_is_known"];
        match around_quotation(message.as_bytes(), &names) {
            None => message.to_owned(),
            Some((before, after)) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                format!("{}...{}", text(before), text(after))
            }
        }
    };
    for (message, expected) in [
        (
            "canceling statement due to user request",
            "canceling statement due to user request",
        ),
        (
            "new row for relation \"connectors\" violates check constraint \"connectors_status_is_known\"",
            "new row for relation \"connectors\" violates check constraint \"connectors_status_is_known\"",
        ),
        (
            "connector_id of connector \"00000000-0000-4000-8000-000000000001\" cannot be changed",
            "connector_id of connector \"00000000-0000-4000-8000-000000000001\" cannot be changed",
        ),
        (
            "syntax error at or near \"canary\"",
            "syntax error at or near ...",
        ),
        (
            "unterminated quoted string at or near \"'{\"a\": \"canary\"}\n)\" of it",
            "unterminated quoted string at or near ... of it",
        ),
        (
            "column \"canary\" of relation \"connectors\" does not exist",
            "column ... does not exist",
        ),
        ("an open quotation \"canary", "an open quotation ..."),
        ("Fehler bei »canary«", "Fehler bei ..."),
        (
            "erreur de syntaxe sur ou près de « canary »",
            "erreur de syntaxe sur ou près de ...",
        ),
        ("\"", "..."),
    ] {
        assert_eq!(shown(message), expected);
    }
}
