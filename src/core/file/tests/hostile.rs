//! Files made to hurt: refused with the place, and never held in memory.

use std::io::{Cursor, Write};

use serde_json::json;
use zip::write::SimpleFileOptions;

use super::{read, refusal};
use crate::fuzz::memory;

fn archive(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in parts {
        writer
            .start_file(*name, SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

const RELATIONSHIPS: &str = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;
const OF_WORKBOOK: &str = r#"<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>"#;
const WORKBOOK: &str = r#"<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="S" sheetId="1" r:id="rId1"/></sheets></workbook>"#;

/// A workbook with this in its sheet, and other parts.
fn workbook(rows: &str, others: &[(&str, &str)]) -> Vec<u8> {
    let sheet = format!(
        r#"<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><dimension ref="A1:XFD1048576"/><sheetData>{rows}</sheetData></worksheet>"#
    );
    let mut parts = vec![
        ("_rels/.rels", RELATIONSHIPS),
        ("xl/workbook.xml", WORKBOOK),
        ("xl/_rels/workbook.xml.rels", OF_WORKBOOK),
        ("xl/worksheets/sheet1.xml", sheet.as_str()),
    ];
    parts.extend(others);
    archive(&parts)
}

const ROWS: &str = r#"<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c><c r="B1" t="inlineStr"><is><t>b</t></is></c></row><row r="2"><c r="A2"><v>1</v></c><c r="B2"><v>2</v></c></row>"#;

fn ods(tables: &str) -> Vec<u8> {
    let content = format!(
        r#"<office:document-content xmlns:office="o" xmlns:table="t" xmlns:text="x"><office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body></office:document-content>"#
    );
    archive(&[
        ("mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
        ("content.xml", &content),
    ])
}

fn is_refused(name: &str, bytes: &[u8], code: &str, words: &str) {
    let (refused_as, said) = refusal("excel", name, bytes, json!({}));
    assert!(
        refused_as == code && said.contains(words),
        "{name}: {refused_as} {said}"
    );
}

#[test]
fn the_smallest_workbook_is_read() {
    let came = read("excel", "x.xlsx", &workbook(ROWS, &[]), json!({}));
    assert_eq!(came.values(), [json!({"a": 1, "b": 2})]);
}

#[test]
fn empty_cells_between_distant_cells_take_no_memory() {
    let far = format!(r#"{ROWS}<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>"#);
    is_refused(
        "x.xlsx",
        &workbook(&far, &[]),
        "file_too_large",
        "cell XFD1048576: at most 2000 columns",
    );
    let low = format!(r#"{ROWS}<row r="1048576"><c r="A1048576"><v>9</v></c></row>"#);
    let came = read("excel", "x.xlsx", &workbook(&low, &[]), json!({}));
    assert_eq!(came.values(), [json!({"a": 1, "b": 2}), json!({"a": 9})]);
    let beyond = format!(r#"{ROWS}<row r="4000000000"><c r="A4000000000"><v>9</v></c></row>"#);
    is_refused("x.xlsx", &workbook(&beyond, &[]), "file_refused", "");
    let backwards = format!(r#"{ROWS}<row r="1"><c r="A1"><v>9</v></c></row>"#);
    is_refused(
        "x.xlsx",
        &workbook(&backwards, &[]),
        "file_refused",
        "cell A1: the cell is at an impossible place",
    );
}

#[test]
fn counts_that_a_workbook_claims_are_not_trusted() {
    let texts = |attributes: &str, items: &str| format!(r#"<sst {attributes}>{items}</sst>"#);
    for attributes in [
        r#"count="4000000000" uniqueCount="4000000000""#,
        r#"uniqueCount='18446744073709551615'"#,
        r#"x=y uniqueCount="4000000000""#,
        r#"uniqueCount="1" uniqueCount="99999999999999999999999""#,
    ] {
        let forged = texts(attributes, "<si><t>a</t></si>");
        let book = workbook(ROWS, &[("xl/sharedStrings.xml", &forged)]);
        is_refused("x.xlsx", &book, "file_refused", "claims more texts");
    }
    let many = texts("", &"<si/>".repeat(1_100_000));
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &[("xl/sharedStrings.xml", &many)]),
        "file_too_large",
        "texts of the workbook",
    );
    let styles = format!(
        "<styleSheet><cellXfs>{}</cellXfs></styleSheet>",
        "<xf/>".repeat(300_000)
    );
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &[("xl/styles.xml", &styles)]),
        "file_too_large",
        "styles and lists",
    );
    // As a sheet it may be long, and is read as styles.
    let styles = format!(
        "<worksheet><sheetData/><cellXfs>{}</cellXfs></worksheet>",
        "<xf/>".repeat(300_000)
    );
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &[("xl/styles.xml", &styles)]),
        "file_refused",
        "damaged",
    );
}

#[test]
fn every_part_of_xml_has_a_size_limit() {
    let long = "a".repeat(2 * 1024 * 1024);
    let pieces = [
        format!("<row><c><v>{long}</v></c></row>"),
        format!("<!-- {long} -->"),
        format!("<row><c r=\"{long}\"><v>1</v></c></row>"),
        format!("<row><c r='<<<{long}'><v>1</v></c></row>"),
        format!("<![CDATA[{long}]]>"),
        format!("<?x {long}?>"),
        format!("<{long}/>"),
        format!("&{long};"),
    ];
    for piece in pieces {
        let (code, words) = refusal("excel", "x.xlsx", &workbook(&piece, &[]), json!({}));
        assert!(
            code == "file_too_large" || words.contains("damaged"),
            "{}: {code} {words}",
            piece.get(..12).unwrap()
        );
    }
}

#[test]
fn entities_are_refused() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><sst><si><t>&b;</t></si></sst>"#;
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &[("xl/sharedStrings.xml", bomb)]),
        "file_refused",
        "document type definition",
    );
    let outside = r#"<!DOCTYPE x SYSTEM "file:///etc/passwd"><sst><si><t>a</t></si></sst>"#;
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &[("xl/sharedStrings.xml", outside)]),
        "file_refused",
        "document type definition",
    );
}

#[test]
fn an_archive_of_very_many_parts_is_refused() {
    let names: Vec<String> = (0..12_000)
        .map(|part| format!("xl/part{part}.xml"))
        .collect();
    let parts: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "<x/>")).collect();
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &parts),
        "file_too_large",
        "more than 10000 parts",
    );
    let names: Vec<String> = (0..60_000).map(|part| format!("{part}")).collect();
    let parts: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    is_refused(
        "x.xlsx",
        &archive(&parts),
        "file_too_large",
        "directory of the archive",
    );
}

#[test]
fn a_large_picture_is_accepted_and_a_zip_bomb_of_pictures_is_refused() {
    let picture = "\u{1}".repeat(5 * 1024 * 1024);
    assert_eq!(
        read(
            "excel",
            "x.xlsx",
            &workbook(ROWS, &[("xl/media/1.png", &picture)]),
            json!({})
        )
        .values()
        .len(),
        1
    );
    let bomb = "\u{1}".repeat(70 * 1024 * 1024);
    is_refused(
        "x.xlsx",
        &workbook(ROWS, &[("xl/media/1.png", &bomb)]),
        "file_too_large",
        "pictures",
    );
}

#[test]
fn repeated_cells_and_rows_are_bounded() {
    let cell = r#"<table:table-cell office:value-type="float" office:value="1"/>"#;
    let repeated = |columns: u64, rows: u64| {
        ods(&format!(
            r#"<table:table table:name="S"><table:table-row table:number-rows-repeated="{rows}"><table:table-cell office:value-type="float" office:value="1" table:number-columns-repeated="{columns}"/></table:table-row></table:table>"#
        ))
    };
    is_refused(
        "x.ods",
        &repeated(1_000, 1_000_000),
        "file_too_large",
        "repeated or merged cells",
    );
    is_refused(
        "x.ods",
        &repeated(16_384, 1),
        "file_too_large",
        "at most 2000 columns",
    );
    is_refused(
        "x.ods",
        &repeated(1, 99_999_999_999),
        "file_refused",
        "damaged",
    );
    assert_eq!(
        read("excel", "x.ods", &repeated(2, 3), json!({"header": false}))
            .values()
            .len(),
        3
    );
    let spaces = ods(&format!(
        r#"<table:table table:name="S"><table:table-row>{cell}<table:table-cell office:value-type="string"><text:p>{}</text:p></table:table-cell></table:table-row></table:table>"#,
        r#"<text:s text:c="4000000000"/>"#.repeat(40)
    ));
    is_refused("x.ods", &spaces, "file_too_large", "a cell is longer than");
    // What LibreOffice writes at the end of every sheet.
    let end = ods(&format!(
        r#"<table:table table:name="S"><table:table-row>{cell}</table:table-row><table:table-row>{cell}</table:table-row><table:table-row table:number-rows-repeated="1048574"><table:table-cell table:number-columns-repeated="16384"/></table:table-row></table:table>"#
    ));
    assert_eq!(
        read("excel", "x.ods", &end, json!({"header": false}))
            .values()
            .len(),
        2
    );
    let open = ods(r#"<table:table table:name="S"><table:table-row>"#);
    is_refused("x.ods", &open, "file_refused", "damaged");
}

#[test]
fn repeated_rows_of_repeated_cells_are_counted_by_their_product() {
    let cell = r#"<table:table-cell office:value-type="float" office:value="1"/>"#;
    let row = format!(
        r#"<table:table-row table:number-rows-repeated="4294967295">{}<table:table-cell office:value-type="float" office:value="1" table:number-columns-repeated="4294967295"/></table:table-row>"#,
        cell.repeat(2)
    );
    let book = ods(&format!(
        r#"<table:table table:name="S"><table:table-row>{cell}</table:table-row>{row}</table:table>"#
    ));
    is_refused("x.ods", &book, "file_too_large", "repeated or merged cells");
}

#[test]
fn hidden_rows_are_counted_without_visiting_each() {
    let began = std::time::Instant::now();
    let row = r#"<table:table-row table:visibility="collapse" table:number-rows-repeated="1048576"><table:table-cell office:value-type="float" office:value="1"/></table:table-row>"#;
    let sheet = |name: usize| format!(r#"<table:table table:name="S{name}">{row}</table:table>"#);
    let first = r#"<table:table table:name="S"><table:table-row><table:table-cell office:value-type="float" office:value="1"/></table:table-row></table:table>"#;
    let sheets: String = (0..3_000).map(sheet).collect();
    let book = ods(&format!("{first}{sheets}"));
    let came = read("excel", "x.ods", &book, json!({"header": false}));
    assert_eq!(came.values(), [json!({"column_1": 1})]);
    // Row by row it was three thousand million steps.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_date_cell_with_an_invalid_date_is_not_a_date() {
    let cell = |date: &str| {
        format!(
            r#"<table:table-row><table:table-cell office:value-type="date" office:date-value="{date}"/></table:table-row>"#
        )
    };
    let dates = [
        "2026-03-04",
        "2026-03-04T05:06:07.5",
        "2026-02-30",
        "20-not-date-at-all",
        "2026-03-04 or so",
        "--------------",
    ];
    let rows: String = dates.into_iter().map(cell).collect();
    let head = r#"<table:table-row><table:table-cell office:value-type="string"><text:p>d</text:p></table:table-cell></table:table-row>"#;
    let book = ods(&format!(
        r#"<table:table table:name="S">{head}{rows}</table:table>"#
    ));
    for (kind, expected) in [
        ("date", ["2026-03-04", "2026-03-04"]),
        (
            "timestamp",
            ["2026-03-04T00:00:00", "2026-03-04T05:06:07.5"],
        ),
    ] {
        let came = read(
            "excel",
            "x.ods",
            &book,
            json!({"header": 1, "columns": {"d": kind}}),
        );
        assert_eq!(came.values(), expected.map(|date| json!({"d": date})));
        assert_eq!(came.refusals().len(), 4, "{:?}", came.refusals());
    }
}

#[test]
fn a_duration_keeps_its_length() {
    let times = [
        ("PT13H45M30S", "13:45:30"),
        ("PT08H30M", "08:30:00"),
        ("P1DT2H0M0S", "26:00:00"),
        ("PT30S", "00:00:30"),
        ("-PT00H10M00S", "-00:10:00"),
        ("PT05H06M07.500S", "05:06:07.5"),
    ];
    let cell = |(time, _)| {
        format!(
            r#"<table:table-row><table:table-cell office:value-type="time" office:time-value="{time}"/></table:table-row>"#
        )
    };
    let rows: String = times.into_iter().map(cell).collect();
    let book = ods(&format!(
        r#"<table:table table:name="S">{rows}</table:table>"#
    ));
    let came = read("excel", "x.ods", &book, json!({"header": false}));
    assert_eq!(
        came.values(),
        times.map(|(_, time)| json!({"column_1": time}))
    );
}

#[test]
fn lists_of_very_many_parts_are_not_kept() {
    let list = |part: usize| {
        let padding = "i".repeat(100_000);
        let relation =
            |at: usize| format!(r#"<Relationship Id="{part}-{at}-{padding}" Target="x"/>"#);
        let relations: String = (0..20).map(relation).collect();
        format!("<Relationships>{relations}</Relationships>")
    };
    let parts: Vec<(String, String)> = (0..20)
        .map(|part| (format!("xl/{part}.rels"), list(part)))
        .collect();
    let parts: Vec<(&str, &str)> = parts
        .iter()
        .map(|(name, text)| (name.as_str(), text.as_str()))
        .collect();
    let book = workbook(ROWS, &parts);
    memory::within(32 * 1024 * 1024, || {
        is_refused("x.xlsx", &book, "file_too_large", "styles and lists");
    });
    // As sheets, each of which names a cell without a value.
    let sheet = format!(
        r#"<worksheet><sheetData><row><c r="{}"><f>1</f></c></row></sheetData></worksheet>"#,
        "A1-".repeat(300_000)
    );
    let names: Vec<String> = (0..60).map(|part| format!("xl/{part}.xml")).collect();
    let parts: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), sheet.as_str()))
        .collect();
    let book = workbook(ROWS, &parts);
    memory::within(32 * 1024 * 1024, || {
        assert_eq!(
            read("excel", "x.xlsx", &book, json!({})).values(),
            [json!({"a": 1, "b": 2})]
        );
    });
}

#[test]
fn a_cell_reference_beyond_all_numbers_is_refused() {
    for place in [
        "AAAAAAAAAAAA1",
        "FXSHRXX1",
        "A99999999999999999999",
        "XFDX1",
    ] {
        let row = format!(r#"{ROWS}<row r="3"><c r="{place}"><v>9</v></c></row>"#);
        is_refused("x.xlsx", &workbook(&row, &[]), "file_refused", "damaged");
    }
    for region in ["A1:XFDX1", "B5:A9", "A9:B5", "A1:A99999999999"] {
        let sheet = format!(
            r#"<worksheet><dimension ref="{region}"/><sheetData>{ROWS}</sheetData></worksheet>"#
        );
        let book = archive(&[
            ("_rels/.rels", RELATIONSHIPS),
            ("xl/workbook.xml", WORKBOOK),
            ("xl/_rels/workbook.xml.rels", OF_WORKBOOK),
            ("xl/worksheets/sheet1.xml", &sheet),
        ]);
        is_refused("x.xlsx", &book, "file_refused", "damaged");
    }
}

#[test]
fn two_lists_of_sheets_are_read_the_same_way_each_time() {
    let other = WORKBOOK.replace("rId1", "rId9");
    let sheet = r#"<worksheet><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c></row><row r="2" hidden="1"><c r="A2"><v>1</v></c></row><row r="3"><c r="A3"><v>2</v></c></row></sheetData></worksheet>"#;
    let book = archive(&[
        ("_rels/.rels", RELATIONSHIPS),
        ("xl/workbook.xml", WORKBOOK),
        ("xl/workbook.xmlx", &other),
        ("xl/_rels/workbook.xml.rels", OF_WORKBOOK),
        ("xl/worksheets/sheet1.xml", sheet),
    ]);
    for _ in 0..20 {
        let came = read("excel", "x.xlsx", &book, json!({"skip_hidden": true}));
        assert_eq!(came.values(), [json!({"a": 2})]);
    }
}

#[test]
fn overlapping_merged_regions_count_against_the_limit() {
    let cells: String = (1..=3_000)
        .map(|row| format!(r#"<row r="{row}"><c r="A{row}"><v>1</v></c></row>"#))
        .collect();
    let regions: String = (1..=3_000)
        .map(|row| format!(r#"<mergeCell ref="A{row}:BXX1048576"/>"#))
        .collect();
    let sheet = format!("<worksheet><sheetData>{cells}</sheetData>{regions}</worksheet>");
    let book = archive(&[
        ("_rels/.rels", RELATIONSHIPS),
        ("xl/workbook.xml", WORKBOOK),
        ("xl/_rels/workbook.xml.rels", OF_WORKBOOK),
        ("xl/worksheets/sheet1.xml", &sheet),
    ]);
    let config = json!({"header": false, "fill_merged": true});
    let (code, words) = refusal("excel", "x.xlsx", &book, config);
    assert!(
        code == "file_too_large" && words.contains("repeated or merged"),
        "{code} {words}"
    );
}

#[test]
fn overlapping_sheets_are_refused() {
    let begin = record(0x0809, &[0, 6, 5, 0]);
    let end = record(0x000A, &[]);
    let bound = |begin: usize| {
        record(
            0x0085,
            &[&(begin as u32).to_le_bytes()[..], &[0, 0, 1, 0, b'S']].concat(),
        )
    };
    let head = begin.len() + 9_000 * bound(0).len() + end.len();
    let bounds: Vec<u8> = (0..9_000).flat_map(|_| bound(head)).collect();
    // Each of them would remember these regions.
    let region: Vec<u8> = [0_u16, 9, 0, 9]
        .into_iter()
        .flat_map(u16::to_le_bytes)
        .collect();
    let regions = record(
        0x00E5,
        &[&1_000_u16.to_le_bytes()[..], &region.repeat(1_000)].concat(),
    );
    let book = compound(&[(
        "/Workbook",
        &[&begin[..], &bounds, &end, &begin, &regions.repeat(20), &end].concat(),
    )]);
    memory::within(32 * 1024 * 1024, || {
        is_refused("x.xls", &book, "file_refused", "damaged");
    });
}

/// A compound file with these streams.
fn compound(streams: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).unwrap();
    for (name, content) in streams {
        file.create_stream(name)
            .unwrap()
            .write_all(content)
            .unwrap();
    }
    file.into_inner().into_inner()
}

fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    [
        &kind.to_le_bytes()[..],
        &(data.len() as u16).to_le_bytes(),
        data,
    ]
    .concat()
}

#[test]
fn counts_that_an_xls_workbook_claims_are_not_trusted() {
    is_refused(
        "x.xlsx",
        &compound(&[("/EncryptedPackage", b"x"), ("/EncryptionInfo", b"y")]),
        "file_refused",
        "protected by a password",
    );
    is_refused(
        "x.xls",
        &compound(&[("/Book", b"x")]),
        "file_refused",
        "Excel 95",
    );
    is_refused(
        "x.doc",
        &compound(&[("/WordDocument", b"x")]),
        "file_refused",
        "not a workbook",
    );
    is_refused(
        "x.xls",
        &compound(&[("/Workbook", b"")]),
        "file_refused",
        "damaged",
    );
    let begin = record(0x0809, &[0, 6, 5, 0]);
    let end = record(0x000A, &[]);
    // Sheets that all begin at the same place, one of which says that it has 65,535 rows and columns.
    let mut sheet = vec![0, 0, 0, 0, 0, 0, 1, 0, b'S'];
    let head = begin.len() + 3 * (sheet.len() + 4) + end.len();
    sheet[..4].copy_from_slice(&(head as u32).to_le_bytes());
    let mut dimensions = vec![0; 14];
    dimensions[4..8].copy_from_slice(&[0xFF, 0xFF, 0, 0]);
    dimensions[10..12].copy_from_slice(&[0xFF, 0xFF]);
    let cell = |row: u16, column: u16, number: f64| {
        let mut cell = [row.to_le_bytes(), column.to_le_bytes(), [0, 0]].concat();
        cell.extend(number.to_le_bytes());
        record(0x0203, &cell)
    };
    let of = |cells: &[Vec<u8>]| {
        let parts = [
            begin.clone(),
            record(0x0085, &sheet),
            record(0x0085, &sheet),
            record(0x0085, &sheet),
            end.clone(),
        ];
        let sheet = [
            begin.clone(),
            record(0x0200, &dimensions),
            cells.concat(),
            end.clone(),
        ];
        compound(&[("/Workbook", &[parts.concat(), sheet.concat()].concat())])
    };
    let came = read(
        "excel",
        "x.xls",
        &of(&[cell(0, 0, 1.0), cell(65_535, 0, 2.5)]),
        json!({"header": false}),
    );
    assert_eq!(
        came.values(),
        [json!({"column_1": 1}), json!({"column_1": 2.5})]
    );
    is_refused(
        "x.xls",
        &of(&[cell(0, 0, 1.0), cell(1, 0xFFFF, 2.0)]),
        "file_too_large",
        "at most 2000 columns",
    );
    is_refused(
        "x.xls",
        &of(&[record(0x00FD, &[0, 0, 0, 0, 0, 0, 9, 9, 9, 9])]),
        "file_refused",
        "damaged",
    );
    is_refused(
        "x.xls",
        &of(&[record(0x0203, &[1])]),
        "file_refused",
        "damaged",
    );
}

#[test]
fn texts_that_continue_over_several_records_are_joined() {
    let begin = record(0x0809, &[0, 6, 5, 0]);
    let end = record(0x000A, &[]);
    // "Größe" in two halves of different width, then "b" with formats behind it that lie in the next record.
    let first = [&[2, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0][..], b"Gr\xF6"].concat();
    let second = [&[1, 0xDF, 0, b'e', 0][..], &[1, 0, 8, 1, 0, b'b', 0, 0]].concat();
    let texts = [
        record(0x00FC, &first),
        record(0x003C, &second),
        record(0x003C, &[0, 0]),
    ]
    .concat();
    let mut sheet = vec![0, 0, 0, 0, 0, 0, 1, 0, b'S'];
    let head = begin.len() + texts.len() + sheet.len() + 4 + end.len();
    sheet[..4].copy_from_slice(&(head as u32).to_le_bytes());
    let cell = |row: u8, text: u8| record(0x00FD, &[row, 0, 0, 0, 0, 0, text, 0, 0, 0]);
    let stream = [
        begin.clone(),
        texts,
        record(0x0085, &sheet),
        end.clone(),
        begin,
        cell(0, 0),
        cell(1, 1),
        end,
    ]
    .concat();
    let came = read(
        "excel",
        "x.xls",
        &compound(&[("/Workbook", &stream)]),
        json!({}),
    );
    assert_eq!(came.values(), [json!({"Größe": "b"})]);
}

#[test]
fn hostile_text_is_refused_with_its_line() {
    let text = |name: &str, bytes: &[u8], code: &str, words: &str| {
        let (refused_as, said) = refusal("csv", name, bytes, json!({}));
        assert!(
            refused_as == code && said.contains(words),
            "{name}: {refused_as} {said}"
        );
    };
    text(
        "quote.csv",
        b"a,b\n1,2\n3,\"four\n5,6\n",
        "file_refused",
        "line 3: a quoted value is not closed",
    );
    text(
        "quote.csv",
        b"a,b\r\n1,2\r\n3,\"four\r\n5,6\r\n",
        "file_refused",
        "line 3: a quoted value is not closed",
    );
    let open = [b"a,b\n1,\"".as_slice(), &vec![b'x'; 20 * 1024 * 1024]].concat();
    text(
        "open.csv",
        &open,
        "file_too_large",
        "line 2: the row is longer than 4194304 bytes",
    );
    // A row that is too long is passed over, up to where it is no row of any table.
    let note = |megabytes: usize| vec![b'x'; megabytes * 1024 * 1024];
    let field = [
        b"a,b\n1,".as_slice(),
        &note(20),
        b"\n2,y\n3,\"",
        &note(5),
        b"\n\"\"\"\n4,z\n",
    ]
    .concat();
    let came = read("csv", "field.csv", &field, json!({}));
    assert_eq!(
        came.values(),
        [json!({"a": "2", "b": "y"}), json!({"a": "4", "b": "z"})]
    );
    let why = |row| format!("row {row}: the row is longer than 4194304 bytes");
    let refused = |came: &super::Came, row: usize| came.refusals()[row].1.to_owned();
    assert_eq!(came.refusals().len(), 2);
    assert_eq!([refused(&came, 0), refused(&came, 1)], [why(2), why(4)]);
    assert!(
        came.rejected
            .iter()
            .all(|row| row.raw.len() < 80 * 1024 && row.reason.word() == "too_large")
    );
    text(
        "field.csv",
        &[b"a,b\n1,".as_slice(), &note(70), b"\n"].concat(),
        "file_too_large",
        "line 2: the row is longer than 4194304 bytes",
    );
    let line = [b"{\"a\": \"".as_slice(), &note(20), b"\"}\n{\"a\": 1}\n"].concat();
    let came = read("csv", "line.jsonl", &line, json!({}));
    assert_eq!(came.values(), [json!({"a": 1})]);
    assert_eq!(
        came.refusals(),
        [(
            "too_large",
            "row 1: the record is longer than 4194304 bytes"
        )]
    );
    text(
        "line.jsonl",
        &[b"{\"a\": \"".as_slice(), &note(70), b"\"}\n"].concat(),
        "file_too_large",
        "line 1: the line is longer than 4194304 bytes",
    );
    let list = [b"[{\"a\": \"".as_slice(), &note(20), b"\"}, {\"a\": 1}]"].concat();
    let came = read("csv", "list.json", &list, json!({}));
    assert_eq!(came.values(), [json!({"a": 1})]);
    assert_eq!(
        came.refusals(),
        [(
            "too_large",
            "row 1: the record is longer than 4194304 bytes"
        )]
    );
    text(
        "list.json",
        &[b"[{\"a\": \"".as_slice(), &note(70), b"\"}]"].concat(),
        "file_too_large",
        "the record is longer than 4194304 bytes",
    );
    let wide = format!("{}\n1\n", "c,".repeat(10_000));
    text(
        "wide.csv",
        wide.as_bytes(),
        "file_too_large",
        "row 1: the row has 10001 cells; at most 2000 are read",
    );
    let wide = format!("a,b\n{}{}\n", "1,2\n".repeat(200), "c,".repeat(10_000));
    text(
        "wide.csv",
        wide.as_bytes(),
        "file_too_large",
        "row 202: the row has 10001 cells",
    );
    text(
        "cut.csv",
        b"a,b,c\n1,2,3\n4,5",
        "file_refused",
        "line 3: the file ends in the middle of a row, after 2 of 3 cells",
    );
    text("empty.csv", b"\n\n", "file_refused", "the file is empty");
    text(
        "nul.csv",
        b"a,b\n1,2\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\n3,4\n",
        "file_refused",
        "NUL",
    );
    text(
        "heading.csv",
        format!("{},b\n1,2\n", "x".repeat(300)).as_bytes(),
        "file_refused",
        "column 1: the heading is longer than",
    );
}

#[test]
fn equal_headings_take_no_quadratic_time() {
    let began = std::time::Instant::now();
    let text = format!("{}a\n{}1\n", "a,".repeat(1_999), "1,".repeat(1_999));
    let came = read("csv", "x.csv", text.as_bytes(), json!({}));
    assert_eq!(came.values()[0]["a_2000"], "1");
    // Compared each with each, and for each name that is tried, it was half a minute.
    assert!(
        began.elapsed() < std::time::Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn the_last_line_of_json_needs_no_end_in_any_encoding() {
    for (encoding, text) in [
        (
            "utf-16le",
            "{\"a\": 1}\n{\"a\": 2}"
                .encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>(),
        ),
        ("windows-1252", b"{\"a\": 1}\n{\"a\": 2}".to_vec()),
        ("shift_jis", b"{\"a\": 1}\n{\"a\": 2}".to_vec()),
    ] {
        let came = read("csv", "x.jsonl", &text, json!({"encoding": encoding}));
        let expected = [json!({"a": 1}), json!({"a": 2})];
        assert_eq!(came.values(), expected, "{encoding}");
    }
}

#[test]
fn any_delimiter_that_config_accepts_separates_cells() {
    for delimiter in [" ", "e", "n", "\u{1}", "~"] {
        let text = format!("x{delimiter}y\n1{delimiter}2\n");
        let config = json!({"delimiter": delimiter});
        let came = read("csv", "x.csv", text.as_bytes(), config);
        assert_eq!(
            came.values(),
            [json!({"x": "1", "y": "2"})],
            "{delimiter:?}"
        );
    }
}

#[test]
fn a_nul_in_a_cell_rejects_only_its_row() {
    let came = read("csv", "x.csv", b"a,b\n1,2\n3,x\0y\n5,6\n", json!({}));
    assert_eq!(came.values().len(), 2);
    assert_eq!(
        came.refusals(),
        [(
            "nul_character",
            "row 3: it contains a NUL character, which cannot be stored as text"
        )]
    );
}

#[test]
fn a_formula_in_a_text_file_stays_text() {
    let came = read(
        "csv",
        "x.csv",
        b"a,b\n=1+1,\"=HYPERLINK(\"\"http://x\"\")\"\n@SUM(A1),+cmd|' /C calc'!A0\n",
        json!({}),
    );
    assert_eq!(
        came.values()[0],
        json!({"a": "=1+1", "b": "=HYPERLINK(\"http://x\")"})
    );
    assert_eq!(
        came.values()[1],
        json!({"a": "@SUM(A1)", "b": "+cmd|' /C calc'!A0"})
    );
}
