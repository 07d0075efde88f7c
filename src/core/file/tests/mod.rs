//! Files as people have them: read as they say, or refused with the place.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod dialects;
mod fuzz;
mod fuzz_workbooks;
mod hostile;
mod shapes;
mod spectrum;
mod texts;
mod workbooks;

use std::io::Cursor;

use serde_json::Value;

use super::layout::Layout;
use super::{Understanding, understand};
use crate::error::Failure;
use crate::json::RecordLimits;
use crate::record::{Record, Rejected};
use crate::secret::Credentials;
use crate::source::{self, Definition};

pub const LIMITS: RecordLimits = RecordLimits {
    bytes: 4 * 1024 * 1024,
    depth: 512,
    key: 1024,
};

pub fn layout(source: &str, config: Value) -> Result<Layout, Failure> {
    let definition = Definition {
        config,
        credentials: Credentials::default(),
        limits: LIMITS,
    };
    let reader = source::find(source)?.open(&definition)?;
    Ok(reader.layout().unwrap().clone())
}

/// What a file comes to.
#[derive(Default)]
pub struct Came {
    pub records: Vec<(String, Record)>,
    pub rejected: Vec<Rejected>,
    pub notes: Vec<String>,
    pub report: Value,
}

impl Came {
    pub fn values(&self) -> Vec<Value> {
        let values = self
            .records
            .iter()
            .map(|(_, record)| serde_json::from_slice(&record.json).unwrap());
        values.collect()
    }

    pub fn texts(&self) -> Vec<String> {
        let texts = self
            .records
            .iter()
            .map(|(_, record)| String::from_utf8(record.json.to_vec()).unwrap());
        texts.collect()
    }

    pub fn ids(&self) -> Vec<&str> {
        self.records
            .iter()
            .map(|(_, record)| record.id.as_str())
            .collect()
    }

    pub fn refusals(&self) -> Vec<(&str, &str)> {
        let refusals = self
            .rejected
            .iter()
            .map(|rejected| (rejected.reason.word(), rejected.detail.as_str()));
        refusals.collect()
    }
}

pub fn try_read(source: &str, name: &str, bytes: &[u8], config: Value) -> Result<Came, Failure> {
    let layout = layout(source, config)?;
    let content = &mut Cursor::new(bytes);
    let mut understood: Understanding = understand(content, name, &layout, LIMITS)?;
    let mut came = Came {
        notes: understood.notes.clone(),
        report: understood.report(),
        ..Came::default()
    };
    let mut rows = 0;
    let warning = understood.read(content, &layout, LIMITS, &mut |part| {
        rows += (part.records.len() + part.rejected.len()) as u64;
        assert_eq!(part.rows, rows);
        came.records.extend(
            part.records
                .into_iter()
                .map(|record| (part.stream.clone(), record)),
        );
        came.rejected.extend(part.rejected);
        Ok(true)
    })?;
    came.notes.extend(warning);
    Ok(came)
}

pub fn read(source: &str, name: &str, bytes: &[u8], config: Value) -> Came {
    try_read(source, name, bytes, config).unwrap_or_else(|failure| panic!("{name}: {failure}"))
}

/// The code and the words of a refusal.
pub fn refusal(source: &str, name: &str, bytes: &[u8], config: Value) -> (&'static str, String) {
    match try_read(source, name, bytes, config) {
        Ok(came) => panic!("{name} was read: {:?}", came.texts()),
        Err(failure) => (failure.code.word(), failure.message),
    }
}
