//! Runs over uploaded files.
//!
//! The bytes of a file are in a table, and only the main thread reads tables: whoever reads the file asks it for one
//! part after another. Reading is computation, and so it is done on a thread of its own, which ends when its run does.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};

use super::run::{Outbox, Run};
use super::{Event, FetchedPage, PartWanted, Previewed, What};
use crate::error::{Code, Failure};
use crate::file::layout::{Layout, Replaces};
use crate::file::{self, Part, Understanding};
use crate::json::RecordLimits;
use crate::record::{StreamState, Window};

/// A file that was uploaded, and how much of it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub name: String,
    pub bytes: u64,
    /// Bytes of each part but the last.
    pub part_bytes: u64,
    /// Rows that are stored, by the definition of then.
    pub rows: u64,
    pub definition: Option<String>,
    /// Whether all its rows are stored.
    pub is_stored: bool,
}

/// How far a page takes its upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadMark {
    /// Rows of the file up to and with this page.
    pub rows: u64,
    /// What rows are counted by; see [`Upload::definition`].
    pub definition: String,
    /// Which earlier files this one replaces; set with its last page.
    pub last: Option<Replaces>,
    /// Whether config names columns that identify a row.
    pub has_key: bool,
    /// For each record a hash of the row that it was made of, however that was read.
    pub origins: Vec<[u8; 16]>,
}

/// Larger files are read one after another, and so are all workbooks: each may take 100 MB of memory.
const LARGE: u64 = 4 * 1024 * 1024;

/// Parts that are kept: a zip archive is read from both ends.
const KEPT: usize = 4;

/// Ends the thread of a run that was ended.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Run<'_> {
    /// Stores a file, or previews it.
    pub async fn file(
        &self,
        upload: Upload,
        limits: RecordLimits,
        large: &Semaphore,
    ) -> Result<(), Failure> {
        let Some(layout) = self.reader.layout().cloned() else {
            return Err(Failure::new(
                Code::Internal,
                "the connector does not take files",
            ));
        };
        if upload.is_stored {
            return Ok(());
        }
        let is_small = upload.bytes < LARGE && layout.family == file::layout::Family::Text;
        let _turn = match is_small {
            true => None,
            false => large.acquire().await.ok(),
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let _ending = Ending(is_over.clone());
        let reading = Reading {
            run: self.run,
            outbox: self.outbox.clone(),
            is_over,
            layout,
            limits,
            window: Window {
                from: None,
                to: self.start.now,
            },
            definition: self.definition.clone(),
            upload,
        };
        let is_preview = self.is_preview;
        let read = tokio::task::spawn_blocking(move || match is_preview {
            true => reading.preview(),
            false => reading.store(),
        });
        read.await.unwrap_or_else(|_| {
            Err(Failure::new(
                Code::Internal,
                "the task that reads the file panicked",
            ))
        })
    }

    /// A check or preview without a file.
    pub async fn no_file(&self) {
        let what = "nothing to fetch: files come by connector_service_upload(); connector_service_preview_upload() is a dry run of one";
        let (run, what) = (self.run, What::Warning(what.to_owned()));
        self.outbox.send(Event { run, what }).await;
    }
}

struct Reading {
    run: uuid::Uuid,
    outbox: Outbox,
    is_over: Arc<AtomicBool>,
    layout: Layout,
    limits: RecordLimits,
    window: Window,
    definition: String,
    upload: Upload,
}

impl Reading {
    fn send(&self, what: What) -> Result<(), Failure> {
        if self.is_over.load(Ordering::Relaxed) {
            return Err(Failure::new(Code::Internal, "the run was ended"));
        }
        self.outbox.send_blocking(Event {
            run: self.run,
            what,
        });
        Ok(())
    }

    fn understand(&self, content: &mut Content) -> Result<Understanding, Failure> {
        let understood = file::understand(content, &self.upload.name, &self.layout, self.limits);
        understood.map_err(|failure| self.named(content.failed.take().unwrap_or(failure)))
    }

    fn named(&self, mut failure: Failure) -> Failure {
        let name: String = self.upload.name.chars().take(100).collect();
        failure.message = format!("file \"{name}\": {}", failure.message);
        failure
    }

    fn store(self) -> Result<(), Failure> {
        let content = &mut Content::new(&self);
        let mut understood = self.understand(content)?;
        for note in std::mem::take(&mut understood.notes) {
            self.send(What::Warning(note))?;
        }
        // What is counted by another definition is stored again: what is there already is not written.
        let is_same = self.upload.definition.as_ref() == Some(&self.definition);
        let stored = if is_same { self.upload.rows } else { 0 };
        // The last part is told by there being no other.
        let mut last_part: Option<Part> = None;
        let read = understood.read(content, &self.layout, self.limits, &mut |part| {
            if part.rows > stored
                && let Some(before) = last_part.replace(part)
            {
                self.send(What::Page(Box::new(self.page(before, false))))?;
            }
            Ok(true)
        });
        let warning =
            read.map_err(|failure| self.named(content.failed.take().unwrap_or(failure)))?;
        let mut last = last_part.map_or_else(|| self.nothing(stored), |part| self.page(part, true));
        last.warning = warning;
        self.send(What::Page(Box::new(last)))
    }

    fn page(&self, part: Part, is_last: bool) -> FetchedPage {
        FetchedPage {
            stream: part.stream,
            records: part.records,
            rejected: part.rejected,
            deleted_with: None,
            deleted: Vec::new(),
            count: None,
            warning: None,
            all: None,
            part: None,
            state: StreamState::default(),
            upload: Some(UploadMark {
                rows: part.rows,
                definition: self.definition.clone(),
                last: is_last.then_some(self.layout.replaces),
                has_key: self.layout.has_key(),
                origins: part.origins,
            }),
            window: self.window,
            bytes: part.bytes,
            budget: Default::default(),
        }
    }

    /// The last page of a file whose rows are all stored.
    fn nothing(&self, rows: u64) -> FetchedPage {
        let part = Part {
            stream: self.layout.stream.clone(),
            records: Vec::new(),
            rejected: Vec::new(),
            origins: Vec::new(),
            rows,
            bytes: 0,
        };
        self.page(part, true)
    }

    /// The first part of each table, and how the file was understood.
    fn preview(self) -> Result<(), Failure> {
        let content = &mut Content::new(&self);
        let looked = self.preview_tables(content);
        if let Err(failure) = &looked {
            let result = Err(failure.clone());
            self.send(What::Previewed(Box::new(Previewed {
                stream: self.layout.stream.clone(),
                understood: None,
                result,
            })))?;
        }
        looked
    }

    fn preview_tables(&self, content: &mut Content) -> Result<(), Failure> {
        let mut understood = self.understand(content)?;
        for note in &understood.notes {
            self.send(What::Warning(note.clone()))?;
        }
        let (report, summaries) = (understood.report(), understood.summaries());
        let mut shown = Vec::new();
        let read = understood.read(content, &self.layout, self.limits, &mut |part| {
            if !shown.contains(&part.stream) {
                shown.push(part.stream.clone());
                let summary = summaries.iter().find(|(stream, _)| *stream == part.stream);
                let summary = summary.map(|(_, summary)| summary.clone());
                self.send(What::Previewed(Box::new(Previewed {
                    stream: part.stream.clone(),
                    understood: Some((summary.unwrap_or_default(), report.clone())),
                    result: Ok(Some(self.page(part, false))),
                })))?;
            }
            Ok(shown.len() < summaries.len().max(1))
        });
        read.map_err(|failure| self.named(content.failed.take().unwrap_or(failure)))?;
        if shown.is_empty() {
            // A file without a row is reported as one.
            let summary = summaries.into_iter().next().map(|(_, summary)| summary);
            self.send(What::Previewed(Box::new(Previewed {
                stream: self.layout.stream.clone(),
                understood: Some((
                    summary.unwrap_or_else(|| "the file has no rows".into()),
                    report,
                )),
                result: Ok(Some(self.nothing(0))),
            })))?;
        }
        Ok(())
    }
}

/// The bytes of a file, fetched as they are wanted.
struct Content<'a> {
    reading: &'a Reading,
    at: u64,
    /// Those used last are at the end.
    parts: Vec<(u64, Bytes)>,
    /// Why a part could not be read. It is no fault of the file, whatever its reader reports.
    failed: Option<Failure>,
}

impl<'a> Content<'a> {
    fn new(reading: &'a Reading) -> Content<'a> {
        Content {
            reading,
            at: 0,
            parts: Vec::new(),
            failed: None,
        }
    }

    fn part(&mut self, number: u64) -> Result<Bytes, Failure> {
        if let Some(at) = self.parts.iter().position(|(kept, _)| *kept == number) {
            let kept = self.parts.remove(at);
            let bytes = kept.1.clone();
            self.parts.push(kept);
            return Ok(bytes);
        }
        let (reply, answer) = oneshot::channel();
        self.reading
            .send(What::Part(PartWanted { number, reply }))?;
        let bytes = answer.blocking_recv().ok().flatten().unwrap_or_default();
        let size = self.reading.upload.part_bytes;
        let awaited = size.min(self.reading.upload.bytes.saturating_sub(number * size));
        if bytes.len() as u64 != awaited {
            let message = "a part of the file could not be read from the database";
            return Err(Failure::new(Code::StoreFailed, message));
        }
        if self.parts.len() >= KEPT {
            self.parts.remove(0);
        }
        self.parts.push((number, bytes.clone()));
        Ok(bytes)
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.reading.upload.bytes || buffer.is_empty() {
            return Ok(0);
        }
        let size = self.reading.upload.part_bytes.max(1);
        let part = self.part(self.at / size);
        let part = part.map_err(|failure| {
            self.failed = Some(failure.clone());
            io::Error::other(failure)
        })?;
        let from = (self.at % size) as usize;
        let read = part.get(from..).unwrap_or_default().read(buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Content<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.reading.upload.bytes.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}
