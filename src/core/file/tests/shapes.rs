//! Files as programs of other people write them: what is above, below and beside the table, and what is no table at all.

use serde_json::{Value, json};

use super::{Came, read, refusal};

fn csv(text: &str) -> Came {
    read("csv", "x.csv", text.as_bytes(), json!({}))
}

#[test]
fn more_cells_than_headings_take_no_heading_away() {
    let rows = [
        json!({"id": "1", "amount": "5"}),
        json!({"id": "2", "amount": "6"}),
    ];
    for text in [
        "id,amount\n1,5,\n2,6,\n",
        "id,amount\n1,5,,\n2,6,,\n",
        "id,amount,\n1,5,\n2,6,\n",
    ] {
        let came: Vec<Value> = csv(text)
            .values()
            .into_iter()
            .map(|mut value| {
                value.as_object_mut().unwrap().remove("column_3");
                value
            })
            .collect();
        assert_eq!(came, rows, "{text}");
    }
    // All in words: nothing tells headings from values but their place.
    let came = csv("shop,town\nNord,Oslo,\nSüd,Roma,\n");
    assert_eq!(came.values()[0], json!({"shop": "Nord", "town": "Oslo"}));
    let came = csv("shop,town\nNord,Oslo,old\nSüd,Roma,new\n");
    assert_eq!(
        came.values()[1],
        json!({"shop": "Süd", "town": "Roma", "column_3": "new"})
    );
    // A note beside the data of most rows is a column of its own.
    let came = csv("id,amount\n1,5,paid\n2,6,late\n3,7\n");
    assert_eq!(
        came.values(),
        [
            json!({"id": "1", "amount": "5", "column_3": "paid"}),
            json!({"id": "2", "amount": "6", "column_3": "late"}),
            json!({"id": "3", "amount": "7"}),
        ]
    );
    assert!(
        came.notes
            .iter()
            .any(|note| note.contains("it is called \"column_3\"")),
        "{:?}",
        came.notes
    );
    // Beside one row it may be a value that was split, and the row is refused.
    let came = csv("id,name,amount\n1,Ada,5\n2,Bob, the other,6\n3,Cy,7\n");
    assert_eq!(came.values().len(), 2);
    assert_eq!(
        came.refusals(),
        [(
            "too_many_cells",
            "row 3: the row has 4 cells, but there are 3 headings"
        )]
    );
}

#[test]
fn the_names_of_rows_are_a_column_of_their_own() {
    // As write.csv() and write.table() of R write them.
    let with_heading = csv("\"\",\"mpg\",\"cyl\"\n\"Mazda RX4\",21,6\n\"Datsun 710\",22.8,4\n");
    let without = csv("\"mpg\",\"cyl\"\n\"Mazda RX4\",21,6\n\"Datsun 710\",22.8,4\n");
    let expected = [
        json!({"column_1": "Mazda RX4", "mpg": "21", "cyl": "6"}),
        json!({"column_1": "Datsun 710", "mpg": "22.8", "cyl": "4"}),
    ];
    assert_eq!(with_heading.values(), expected);
    assert_eq!(without.values(), expected);
    assert!(
        without.notes[0].contains("taken for the name of the row"),
        "{:?}",
        without.notes
    );
}

#[test]
fn a_decimal_comma_between_commas_is_refused() {
    for text in [
        "id,amount\n1,5,00\n2,6,50\n3,7,25\n",
        "day,amount,text\n2026-01-05,12,50,tea\n2026-01-06,3,00,cake\n",
    ] {
        let (code, words) = refusal("csv", "x.csv", text.as_bytes(), json!({}));
        assert!(
            code == "file_refused" && words.contains("split at a decimal comma"),
            "{words}"
        );
    }
    // Where most amounts are whole, the others are refused and never cut.
    let came = csv("id,amount\n1,5\n2,6,50\n3,7\n4,8\n5,9,10\n");
    let amounts = came
        .values()
        .into_iter()
        .map(|value| value["amount"].clone());
    assert_eq!(
        amounts.collect::<Vec<_>>(),
        [json!("5"), json!("7"), json!("8")]
    );
    assert_eq!(came.refusals().len(), 2);
}

/// Exports of banks and shops: what the first record is, and how many there are.
#[test]
fn the_headings_of_an_export_are_found_below_what_a_bank_puts_above_them() {
    let exports: [(&str, &str, Value, usize); 12] = [
        (
            "german, more above than below",
            "\"Umsätze Girokonto\";\"Zeitraum: 30 Tage\";\n\"Kontonummer:\";\"DE12 3456 7890 1234 5678 90 / Girokonto\";\n\"Von:\";\"01.10.2026\";\n\"Bis:\";\"31.10.2026\";\n\"Kontostand vom 31.10.2026:\";\"1.234,56 EUR\";\n\n\"Buchungstag\";\"Wertstellung\";\"Buchungstext\";\"Auftraggeber / Begünstigter\";\"Verwendungszweck\";\"Betrag (EUR)\";\n\"13.10.2026\";\"13.10.2026\";\"Lastschrift\";\"Stadtwerke\";\"Abschlag, Oktober\";\"-120,50\";\n",
            json!({"Buchungstag": "13.10.2026", "Wertstellung": "13.10.2026", "Buchungstext": "Lastschrift", "Auftraggeber / Begünstigter": "Stadtwerke", "Verwendungszweck": "Abschlag, Oktober", "Betrag (EUR)": "-120,50"}),
            1,
        ),
        (
            "german, each line filled up",
            "Umsatzanzeige;Datei erstellt am: 01.11.2026;;;\nIBAN;DE12 3456;;;\nKontoname;Extra-Konto;;;\nBank;ING;;;\nKunde;Ada Example;;;\nZeitraum;01.10.2026 - 31.10.2026;;;\nSaldo;2.000,00;EUR;;\n;;;;\nBuchung;Valuta;Auftraggeber/Empfänger;Betrag;Währung\n13.10.2026;13.10.2026;Kaffee Nord;-4,50;EUR\n14.10.2026;14.10.2026;Kundin Süd;99,00;EUR\n",
            json!({"Buchung": "13.10.2026", "Valuta": "13.10.2026", "Auftraggeber/Empfänger": "Kaffee Nord", "Betrag": "-4,50", "Währung": "EUR"}),
            2,
        ),
        (
            "german, two columns",
            "Konto:;Girokonto\nKontostand:;1.234,56 EUR\n\nDatum;Betrag\n13.10.2026;5,00\n14.10.2026;6,00\n",
            json!({"Datum": "13.10.2026", "Betrag": "5,00"}),
            2,
        ),
        (
            "british",
            "Account Name: ,Business Current\nAccount Balance: ,£1234.56\nAvailable Balance: ,£1000.00\n\nDate,Type,Description,Paid out,Paid in,Balance\n13 Oct 2026,Card,COFFEE SHOP,£4.50,,£1230.06\n14 Oct 2026,Transfer,CUSTOMER,,£99.00,£1329.06\n",
            json!({"Date": "13 Oct 2026", "Type": "Card", "Description": "COFFEE SHOP", "Paid out": "£4.50", "Paid in": "", "Balance": "£1230.06"}),
            2,
        ),
        (
            "american",
            "Description,,Summary Amt.\nBeginning balance as of 10/01/2026,,\"1,000.00\"\nTotal credits,,\"99.00\"\nTotal debits,,\"-4.50\"\nEnding balance as of 10/31/2026,,\"1,094.50\"\n\nDate,Description,Amount,Running Bal.\n10/01/2026,Beginning balance as of 10/01/2026,,\"1,000.00\"\n10/13/2026,\"COFFEE SHOP, NY\",\"-4.50\",\"995.50\"\n10/14/2026,CUSTOMER,\"99.00\",\"1,094.50\"\n",
            json!({"Date": "10/01/2026", "Description": "Beginning balance as of 10/01/2026", "Amount": "", "Running Bal.": "1,000.00"}),
            3,
        ),
        (
            "french",
            "Compte courant n° 00012345678;;;\nTitulaire : Ada Exemple;;;\nSolde au 31/10/2026;1 234,56 €;;\n;;;\nDate;Libellé;Débit euros;Crédit euros\n13/10/2026;CARTE CAFE NORD;-4,50;\n14/10/2026;VIREMENT CLIENT;;99,00\n",
            json!({"Date": "13/10/2026", "Libellé": "CARTE CAFE NORD", "Débit euros": "-4,50", "Crédit euros": ""}),
            2,
        ),
        (
            "brazilian",
            "Extrato de conta corrente;;;\nAgência:;1234;Conta:;56789-0\nPeríodo:;01/10/2026 a 31/10/2026;;\n\nData;Histórico;Valor (R$);Saldo (R$)\n13/10/2026;PIX ENVIADO;-1.234,50;8.765,50\n14/10/2026;PIX RECEBIDO;99,00;8.864,50\n",
            json!({"Data": "13/10/2026", "Histórico": "PIX ENVIADO", "Valor (R$)": "-1.234,50", "Saldo (R$)": "8.765,50"}),
            2,
        ),
        (
            "with a total below, which has a line end",
            "Report\nday,item,amount\n2026-01-05,tea,3.50\n2026-01-06,cake,4.00\nTotal,,7.50\n",
            json!({"day": "2026-01-05", "item": "tea", "amount": "3.50"}),
            3,
        ),
        (
            "a hint above",
            "sep=;\nDatum;Text;Betrag\n13.10.2026;a,b;1,5\n14.10.2026;c,d;2,5\n",
            json!({"Datum": "13.10.2026", "Text": "a,b", "Betrag": "1,5"}),
            2,
        ),
        (
            "years as headings",
            "Sales by year\nShop,2024,2025\nNord,10,20\nSüd,30,40\n",
            json!({"Shop": "Nord", "2024": "10", "2025": "20"}),
            2,
        ),
        (
            "a value that is missing in the first row",
            "shop,amount\nNord,n/a\nSüd,5\nOst,7\n",
            json!({"shop": "Nord", "amount": "n/a"}),
            3,
        ),
        (
            "no bookings at all",
            "Konto;DE12\nInhaber;Ada\nBank;Nord\nStand;heute\n\nBuchung;Valuta;Text;Partner;Zweck;Betrag\na;b;c;d;e;f\n",
            json!({"Buchung": "a", "Valuta": "b", "Text": "c", "Partner": "d", "Zweck": "e", "Betrag": "f"}),
            1,
        ),
    ];
    for (name, text, first, rows) in exports {
        for text in [text.to_owned(), text.replace('\n', "\r\n")] {
            let came = csv(&text);
            let mut value = came.values()[0].clone();
            let fields = value.as_object_mut().unwrap();
            fields.retain(|key, _| !key.starts_with("column_"));
            assert_eq!(value, first, "{name}");
            assert_eq!(came.values().len() + came.refusals().len(), rows, "{name}");
        }
    }
}

#[test]
fn the_end_of_a_file_may_be_a_total_or_an_old_mark() {
    let table = "day,item,amount\n2026-01-05,tea,3\n2026-01-06,cake,8\n";
    for end in [
        "Total,11",
        "Summe:,11",
        "\u{1A}",
        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "\u{1A}\u{1A}\r\n",
        "2026-01-07,tea,1\u{1A}",
    ] {
        let came = csv(&format!("{table}{end}"));
        assert_eq!(came.values()[..2], csv(table).values(), "{end:?}");
        let last = came.values().last().unwrap().clone();
        assert!(!last.to_string().contains("\\u001a"), "{last}");
    }
    // A total in any language: the setting is named, and reads it.
    let text = format!("{table}Razem,11");
    let (code, words) = refusal("csv", "x.csv", text.as_bytes(), json!({}));
    assert!(
        code == "file_refused" && words.contains("set config's \"footer\" to 1"),
        "{words}"
    );
    let came = read("csv", "x.csv", text.as_bytes(), json!({"footer": 1}));
    assert_eq!(came.values(), csv(table).values());
    // Lines of JSON end in the same ways.
    for end in ["\u{1A}", "\n\u{1A}", "\n\0\0\0"] {
        let came = read(
            "csv",
            "x.jsonl",
            format!("{{\"a\": 1}}{end}").as_bytes(),
            json!({}),
        );
        assert_eq!(came.values(), [json!({"a": 1})], "{end:?}");
    }
}

#[test]
fn a_json_document_is_its_records_however_it_is_laid_out() {
    let list = json!([{"id": 1, "n": [1, {"x": "]},{"}]}, {"id": 2, "s": "a\"\\"}]);
    let expected = list.as_array().unwrap().clone();
    let line = list.to_string();
    let pretty = serde_json::to_string_pretty(&list).unwrap();
    let wrapped = json!({"meta": {"data": [0], "next": null}, "data": list, "more": "}"});
    let nested = json!({"result": {"count": 2, "items": list}, "items": [{"id": 9}]});
    let objects = "{\n  \"id\": 1,\n  \"n\": [1, {\"x\": \"]},{\"}]\n}\n{\n  \"id\": 2,\n  \"s\": \"a\\\"\\\\\"\n}\n";
    let lines: String = expected
        .iter()
        .map(|record| format!("{record}\n"))
        .collect();
    let files = [
        ("x.json", line.clone(), json!({})),
        ("x.json", pretty.clone(), json!({})),
        ("x.json", format!("\u{FEFF}\n {pretty}\n\n"), json!({})),
        ("x.csv", line.clone(), json!({})),
        ("x.txt", pretty.clone(), json!({})),
        ("x", line.clone(), json!({"format": "json"})),
        ("x.json", objects.to_owned(), json!({})),
        ("x.json", lines.clone(), json!({})),
        ("x.txt", lines, json!({})),
        ("x.json", wrapped.to_string(), json!({"records": "data"})),
        (
            "x.json",
            serde_json::to_string_pretty(&wrapped).unwrap(),
            json!({"records": "$.data"}),
        ),
        (
            "x.json",
            nested.to_string(),
            json!({"records": "result.items"}),
        ),
    ];
    for (name, text, config) in files {
        let came = read("csv", name, text.as_bytes(), config.clone());
        assert_eq!(came.values(), expected, "{name} {config} {text}");
        assert!(came.rejected.is_empty());
        let utf_16: Vec<u8> = format!("\u{FEFF}{}", text.trim_start_matches('\u{FEFF}'))
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(
            read("csv", name, &utf_16, config).values(),
            expected,
            "{name} in UTF-16"
        );
    }
    // With a key, and exact numbers.
    let came = read(
        "csv",
        "x.json",
        b"[{\"id\": 7, \"n\": 1.10}]",
        json!({"key": "id"}),
    );
    assert_eq!(
        (came.ids(), came.texts()),
        (vec!["rows/7"], vec![r#"{"id": 7, "n": 1.10}"#.to_owned()])
    );
    let came = read(
        "csv",
        "one.json",
        b"{\"id\": 7, \"tags\": [\"a\"]}",
        json!({}),
    );
    assert_eq!(came.values().len(), 1);
}

#[test]
fn a_json_document_that_is_not_understood_is_refused_with_what_to_do() {
    let refused = [
        (
            "{\"data\": [{\"id\": 1}], \"page\": {\"errors\": [{\"a\": 1}]}}",
            json!({}),
            "file_refused",
            "the lists \"data\", \"page.errors\"; set config's \"records\"",
        ),
        (
            "{\"data\": [{\"id\": 1}]}",
            json!({"records": "items"}),
            "invalid_config",
            "no list is there; the document has \"data\"",
        ),
        (
            "{\"a\": {\"b\": [{}]}, \"b\": 1, \"c\": [{}]}",
            json!({"records": "a.c"}),
            "invalid_config",
            "no list is there",
        ),
        (
            "[{\"id\": 1}]",
            json!({"records": "data"}),
            "invalid_config",
            "the document is a list",
        ),
        (
            "[{\"id\": 1}",
            json!({}),
            "file_refused",
            "the file ends in the middle",
        ),
        (
            "[{\"id\": 1}\n{\"id\": 2}]",
            json!({}),
            "file_refused",
            "line 2: the JSON cannot be read: there is no comma",
        ),
        (
            "[{\"id\": 1}] x",
            json!({}),
            "file_refused",
            "something follows",
        ),
        (
            "[{\"id\": 1},,{\"id\": 2}]",
            json!({}),
            "file_refused",
            "a record is missing",
        ),
        (
            "id,amount\n1,2\n",
            json!({}),
            "file_refused",
            "neither a list nor an object",
        ),
    ];
    for (text, config, code, words) in refused {
        let (refused_as, said) = refusal("csv", "x.json", text.as_bytes(), config);
        assert!(
            refused_as == code && said.contains(words),
            "{text}: {refused_as} {said}"
        );
    }
    // One record that is damaged costs one.
    let came = read(
        "csv",
        "x.json",
        b"[{\"id\": 1}, {\"id\": tru}, {\"id\": 3}]",
        json!({}),
    );
    assert_eq!(came.values().len(), 2);
    assert_eq!(
        came.refusals(),
        [("invalid_json", "row 2: it is not valid JSON")]
    );
}

#[test]
fn what_is_no_table_is_refused_with_what_it_is() {
    let page =
        "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body>a,b\n1,2</body></html>";
    let utf_16: Vec<u8> = format!("\u{FEFF}{page}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let documents: [(&str, &[u8], &str); 9] = [
        ("export.csv", page.as_bytes(), "web page (HTML)"),
        (
            "export.csv",
            b"\xEF\xBB\xBF\r\n  <html lang=\"en\">",
            "web page (HTML)",
        ),
        ("export.json", b"<html>", "web page (HTML)"),
        (
            "export.csv",
            b"<table border=1><tr><td>a</td></tr></table>",
            "saved as CSV or XLSX",
        ),
        (
            "export.csv",
            b"<?xml version=\"1.0\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\">",
            "web page (HTML)",
        ),
        (
            "export.csv",
            b"<?xml version=\"1.0\"?>\n<?mso-application progid=\"Excel.Sheet\"?><Workbook>",
            "is XML",
        ),
        ("export.csv", &utf_16, "web page (HTML)"),
        ("export.csv", b"%PDF-1.7\n", "is a PDF"),
        (
            "export.csv",
            b"MIME-Version: 1.0\nX-Document-Type: Workbook\n",
            "saved web page",
        ),
    ];
    for (name, bytes, words) in documents {
        for source in ["csv", "excel"] {
            let (code, said) = refusal(source, name, bytes, json!({}));
            assert!(
                code == "file_refused" && said.contains(words),
                "{source}: {said}"
            );
        }
    }
    // A heading in angle brackets is one.
    let came = csv("<id>,<table>\n1,2\n");
    assert_eq!(came.values(), [json!({"<id>": "1", "<table>": "2"})]);
}

#[test]
fn one_column_is_not_split_at_its_commas() {
    let values = |text: &str, config: Value| {
        let came = read("csv", "x.csv", text.as_bytes(), config);
        came.values()
    };
    let amounts = |of: &[&str]| {
        of.iter()
            .map(|amount| json!({"amount": amount}))
            .collect::<Vec<_>>()
    };
    for (text, expected) in [
        ("amount\n1,50\n2,75\n", amounts(&["1,50", "2,75"])),
        (
            "amount\n-1.234,50 €\n2,75\n",
            amounts(&["-1.234,50 €", "2,75"]),
        ),
        ("amount\n1,234\n2,345\n", amounts(&["1,234", "2,345"])),
        ("amount\n\"1,50\"\n2,75\n", amounts(&["1,50", "2,75"])),
    ] {
        assert_eq!(values(text, json!({})), expected, "{text}");
    }
    let declared = json!({"columns": {"amount": {"type": "number", "decimal": ","}}});
    assert_eq!(
        values("amount\n1,50\n", declared),
        [json!({"amount": 1.50})]
    );
    // Two columns stay two.
    assert_eq!(
        values("a,b\n1,50\n2,75\n", json!({})),
        [json!({"a": "1", "b": "50"}), json!({"a": "2", "b": "75"})]
    );
}

#[test]
fn a_line_that_names_the_delimiter_is_no_record() {
    for (hint, delimiter) in [
        ("sep=\t", '\t'),
        ("sep=;", ';'),
        ("SEP=,", ','),
        ("\"sep=;\"", ';'),
        ("sep=|", '|'),
    ] {
        for header in [json!(false), json!(true)] {
            let end = if header == json!(true) { "a\tb\n" } else { "" }
                .replace('\t', &delimiter.to_string());
            let text = format!("{hint}\r\n{end}1{delimiter}2\r\n3{delimiter}4\r\n");
            let came = read("csv", "x.csv", text.as_bytes(), json!({"header": header}));
            assert_eq!(came.values().len(), 2, "{text:?}");
        }
    }
}

#[test]
fn what_config_names_escapes_delimiters_and_quotes() {
    let config = || json!({"escape": "\\", "null_values": ["\\N"]});
    for (text, expected) in [
        ("a,b\n1,x\\,y\n", json!({"a": "1", "b": "x,y"})),
        (
            "a,b\n1,\"say \\\"x\\\", then\"\n",
            json!({"a": "1", "b": "say \"x\", then"}),
        ),
        (
            "a,b\n\\N,C:\\\\dir\\file\n",
            json!({"a": null, "b": "C:\\dir\\file"}),
        ),
        (
            "a,b\n1,two\\\nlines\n",
            json!({"a": "1", "b": "two\nlines"}),
        ),
        (
            "a,b\n1,\"doubled \"\" too\"\n",
            json!({"a": "1", "b": "doubled \" too"}),
        ),
        ("a,b\n1,end\\", json!({"a": "1", "b": "end\\"})),
    ] {
        let came = read("csv", "x.csv", text.as_bytes(), config());
        assert_eq!(came.values(), [expected], "{text}");
    }
    // Across the ends of the buffers.
    let rows: String = (0..60_000)
        .map(|row| format!("{row};a\\;b\\\\\n"))
        .collect();
    let came = read("csv", "x.csv", format!("n;t\n{rows}").as_bytes(), config());
    assert_eq!(came.values().len(), 60_000);
    assert!(came.values().iter().all(|value| value["t"] == "a;b\\"));
    for wrong in [json!("ab"), json!("x"), json!(1)] {
        assert!(super::layout("csv", json!({"escape": wrong})).is_err());
    }
}

#[test]
fn rows_that_go_on_with_an_order_do_not_take_its_total_away() {
    let text = "Name,Email,Total,Lineitem name,Lineitem price\n\
        #1001,a@example.com,30.00,tea,10.00\n#1001,a@example.com,,cake,20.00\n#1001,,,bread,0.00\n\
        #1002,b@example.com,5.00,tea,5.00\n#1003,c@example.com,7.00,tea,7.00\n#1003,,,cup,0.00\n";
    let came = read(
        "csv",
        "orders.csv",
        text.as_bytes(),
        json!({"key": "Name", "columns": {"Total": "number"}}),
    );
    let totals: Vec<(Value, Value)> = came
        .values()
        .into_iter()
        .map(|value| (value["Name"].clone(), value["Total"].clone()))
        .collect();
    let of = |name: &str, total: f64| (json!(name), json!(total));
    assert_eq!(
        totals,
        [of("#1001", 30.0), of("#1002", 5.0), of("#1003", 7.0)]
    );
    assert!(
        came.notes
            .iter()
            .any(|note| note.starts_with("3 rows have the key of the row above them")),
        "{:?}",
        came.notes
    );
    // By a longer key each is a record.
    let came = read(
        "csv",
        "orders.csv",
        text.as_bytes(),
        json!({"key": ["Name", "Lineitem name"]}),
    );
    assert_eq!(came.values().len(), 6);
    // A later row that says as much replaces the earlier one, and one that says more does.
    let came = read(
        "csv",
        "x.csv",
        b"id,n,m\n1,a,x\n1,b,y\n2,c,\n2,c,z\n",
        json!({"key": "id"}),
    );
    assert_eq!(came.values().len(), 4);
}

#[test]
fn the_text_of_a_row_tells_it_however_it_is_read() {
    let text = "day,amount\n2026-01-05,2.50\n2026-01-05,2.50\n2026-01-06,3\n";
    let origins = |text: &str, config: Value| {
        let layout = super::layout("csv", config).unwrap();
        let content = &mut std::io::Cursor::new(text.as_bytes());
        let mut understood = super::understand(content, "x.csv", &layout, super::LIMITS).unwrap();
        let mut all = Vec::new();
        let read = understood.read(content, &layout, super::LIMITS, &mut |part| {
            assert_eq!(part.origins.len(), part.records.len());
            all.extend(part.origins);
            Ok(true)
        });
        read.unwrap();
        all.sort_unstable();
        all
    };
    let plain = origins(text, json!({}));
    assert_eq!(plain.len(), 3);
    assert_eq!(
        plain,
        origins(
            text,
            json!({"columns": {"amount": "number", "day": "date"}})
        )
    );
    assert_eq!(plain, origins(text, json!({"key": ["day", "amount"]})));
    assert_eq!(
        plain,
        origins(
            "2026-01-06,3\n2026-01-05,2.50\n2026-01-05,2.50\n",
            json!({"header": false})
        )
    );
    // Of a row that is refused there is none.
    assert_eq!(
        origins("a,b\n1,x\n2,3\n", json!({"columns": {"b": "number"}})).len(),
        1
    );
}
