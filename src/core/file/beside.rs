//! Rows of a text that have more cells than there are headings: a name in front of each row, a column without a heading, or
//! numbers that were split at their comma.

use std::collections::HashSet;

use super::headings::is_value;
use super::refused;
use super::row::Row;
use crate::error::Failure;

/// Gives the cells beside the headings headings of their own, which are empty, if most rows have such cells. Where few
/// have, a cell may be shifted by a delimiter that is part of a value, and each of these rows is refused.
pub fn beside(
    first: &[Row],
    header: u64,
    names: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let headings = names.len();
    let rows = first
        .iter()
        .filter(|row| row.number > header && !row.is_blank() && !row.is_cut);
    let rows: Vec<Vec<&str>> = rows
        .map(|row| {
            row.iter()
                .take(row.extent())
                .map(|(_, text)| text.trim())
                .collect()
        })
        .collect();
    let wide: Vec<&Vec<&str>> = rows.iter().filter(|row| row.len() > headings).collect();
    if wide.len() * 2 <= rows.len() {
        return Ok(());
    }
    check_decimals(&wide, header)?;
    let has_one_more = wide.len() == rows.len() && rows.iter().all(|row| row.len() == headings + 1);
    let firsts: HashSet<&str> = rows.iter().filter_map(|row| row.first().copied()).collect();
    let are_names = firsts.len() == rows.len() && !firsts.contains("");
    let are_values = rows
        .iter()
        .all(|row| row.last().is_some_and(|text| is_value(text)));
    if has_one_more && are_names && are_values {
        names.insert(0, String::new());
        notes.push(
            "each row has one cell more than there are headings; the first one is taken for the name of the row, as R writes it. If it is not, set \"headings\" in config".to_owned(),
        );
        return Ok(());
    }
    // Some of these may be numbers that were split.
    let is_digit = |row: &&&Vec<&str>| {
        let beside = row.get(headings).and_then(|text| text.bytes().next());
        beside.is_some_and(|byte| byte.is_ascii_digit())
    };
    if wide.len() < rows.len() && wide.iter().any(|row| is_digit(&row)) {
        return Ok(());
    }
    let widest = wide.iter().map(|row| row.len()).max().unwrap_or(headings);
    names.resize(widest, String::new());
    Ok(())
}

/// Refuses a table in which a decimal comma seems to split numbers: `1,5,00` below two headings.
fn check_decimals(wide: &[&Vec<&str>], header: u64) -> Result<(), Failure> {
    let is_whole = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or(text);
        (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let are_cents = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let width = wide.iter().map(|row| row.len()).min().unwrap_or(0);
    let is_split = (1..width).any(|at| {
        wide.iter().all(|row| {
            let (before, here) = (row.get(at - 1), row.get(at));
            before.is_some_and(|text| is_whole(text)) && here.is_some_and(|text| are_cents(text))
        })
    });
    match is_split {
        false => Ok(()),
        true => Err(refused(format!(
            "the rows below the headings in line {header} have more cells than there are headings, and numbers seem to be split at a decimal comma; export the file with another delimiter or with quotes. If they are not split, set \"headings\" in config",
        ))),
    }
}
