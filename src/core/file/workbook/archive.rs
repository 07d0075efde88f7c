//! A zip archive of XML, within bounds.
//!
//! What a part unpacks to is counted while it is unpacked; what a piece of XML (a tag, a text) may take is counted
//! while it is read. A part that is no XML, such as a picture, is unpacked once and counted as well: no reader that
//! mistakes it for a sheet then meets more than that.

use std::cell::Cell;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use quick_xml::events::{BytesStart, Event};
use zip::ZipArchive;
use zip::read::ZipFile;

use super::super::decoded::{Meter, is_too_long};
use super::{Content, failure_of, refused, spoiled};
use crate::error::Failure;

/// Bytes that may be read to learn what an archive holds: its directory is held in memory, at ten times its size.
const MOST_DIRECTORY: u64 = 2 * 1024 * 1024;
/// Parts of an archive. A workbook of a hundred sheets with drawings has a thousand.
const MOST_PARTS: usize = 10_000;
/// What all parts may unpack to. A sheet of a million rows and twenty columns is 800 MB of XML.
const MOST_UNPACKED: u64 = 2 * 1024 * 1024 * 1024;
/// What all parts that are not XML may unpack to.
const MOST_OTHER: u64 = 64 * 1024 * 1024;
/// Longest piece of XML. A cell holds 32,767 characters, which are six times as many bytes at worst.
const MOST_PIECE: usize = 1024 * 1024;

/// The file below an archive. While it is opened, no more than a directory may be read.
pub struct Guarded<'a> {
    content: &'a mut dyn Content,
    left: Rc<Cell<u64>>,
}

impl Read for Guarded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| {
            io::Error::other(spoiled("the directory of the archive is too large"))
        })?);
        Ok(read)
    }
}

impl Seek for Guarded<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.content.seek(to)
    }
}

pub struct Archive<'a> {
    zip: ZipArchive<Guarded<'a>>,
    unpacked: Rc<Cell<u64>>,
    other: u64,
}

pub fn is_ods(content: &mut dyn Content) -> Result<bool, Failure> {
    let archive = Archive::open(content)?;
    Ok(archive.names().iter().any(|name| name == "content.xml"))
}

impl<'a> Archive<'a> {
    pub fn open(content: &'a mut dyn Content) -> Result<Archive<'a>, Failure> {
        let left = Rc::new(Cell::new(MOST_DIRECTORY));
        let guarded = Guarded {
            content,
            left: left.clone(),
        };
        let zip = ZipArchive::new(guarded).map_err(zip_failure)?;
        left.set(u64::MAX);
        if zip.len() > MOST_PARTS {
            return Err(spoiled(format!(
                "the archive has more than {MOST_PARTS} parts"
            )));
        }
        Ok(Archive {
            zip,
            unpacked: Rc::new(Cell::new(MOST_UNPACKED)),
            other: MOST_OTHER,
        })
    }

    /// Lists the parts by position. A part whose name is no text has an empty name here.
    pub fn names(&self) -> Vec<String> {
        let names = self.zip.file_names();
        names
            .map(|name| name.map(|name| name.into_owned()).unwrap_or_default())
            .collect()
    }

    /// A part as XML.
    pub fn part(&mut self, position: usize) -> Result<Xml<'_, 'a>, Failure> {
        let file = self.zip.by_index(position).map_err(zip_failure)?;
        Ok(Xml::new(file, self.unpacked.clone()))
    }

    /// A part as XML; one that is none is unpacked and counted, and `None`.
    pub fn part_if_xml(&mut self, position: usize) -> Result<Option<Xml<'_, 'a>>, Failure> {
        let mut file = self.zip.by_index(position).map_err(zip_failure)?;
        let mut start = Vec::new();
        (&mut file)
            .take(256)
            .read_to_end(&mut start)
            .map_err(failure_of)?;
        let text = start
            .strip_prefix(b"\xEF\xBB\xBF")
            .unwrap_or(&start)
            .trim_ascii_start();
        if text.is_empty() || text.starts_with(b"<") || text.contains(&b'<') && start.contains(&0) {
            drop(file);
            let file = self.zip.by_index(position).map_err(zip_failure)?;
            return Ok(Some(Xml::new(file, self.unpacked.clone())));
        }
        let most = self.other.saturating_add(1);
        let unpacked = io::copy(&mut (&mut file).take(most), &mut io::sink());
        let unpacked = unpacked.map_err(failure_of)? + start.len() as u64;
        self.other = self
            .other
            .checked_sub(unpacked)
            .ok_or_else(|| spoiled("the pictures and other parts of the workbook are too large"))?;
        Ok(None)
    }
}

fn zip_failure(error: zip::result::ZipError) -> Failure {
    match error {
        zip::result::ZipError::Io(error) => failure_of(error),
        zip::result::ZipError::UnsupportedArchive(_) => {
            refused("the archive is encrypted, or its compression is not supported")
        }
        _ => refused("the archive is damaged or incomplete"),
    }
}

/// XML that comes out of an archive.
pub struct Xml<'z, 'c> {
    reader: quick_xml::Reader<BufReader<Unpacked<'z, 'c>>>,
    meter: Meter,
    buffer: Vec<u8>,
}

struct Unpacked<'z, 'c> {
    file: ZipFile<'z, Guarded<'c>>,
    meter: Meter,
    left: Rc<Cell<u64>>,
}

impl Read for Unpacked<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.meter.take(read)?;
        let left = self.left.get().checked_sub(read as u64);
        self.left.set(left.ok_or_else(|| {
            let most = MOST_UNPACKED / 1024 / 1024;
            io::Error::other(spoiled(format!(
                "the workbook unpacks to more than {most} MB"
            )))
        })?);
        Ok(read)
    }
}

impl<'z, 'c> Xml<'z, 'c> {
    fn new(file: ZipFile<'z, Guarded<'c>>, left: Rc<Cell<u64>>) -> Xml<'z, 'c> {
        let meter = Meter::new(MOST_PIECE);
        let unpacked = Unpacked {
            file,
            meter: meter.clone(),
            left,
        };
        let mut reader =
            quick_xml::Reader::from_reader(BufReader::with_capacity(64 * 1024, unpacked));
        let config = reader.config_mut();
        config.check_end_names = false;
        config.expand_empty_elements = true;
        Xml {
            reader,
            meter,
            buffer: Vec::new(),
        }
    }

    /// How many bytes were read.
    pub fn bytes(&self) -> u64 {
        self.reader.buffer_position()
    }

    /// The next part of the XML; [`Event::Eof`] at the end.
    pub fn next(&mut self) -> Result<Event<'_>, Failure> {
        self.buffer.clear();
        self.meter.reset();
        let event = self.reader.read_event_into(&mut self.buffer);
        match event {
            Ok(Event::DocType(_)) => Err(refused(
                "the workbook has a document type definition, which is not allowed",
            )),
            Ok(event) => Ok(event),
            Err(quick_xml::Error::Io(error)) if is_too_long(&error) => Err(spoiled(format!(
                "a part of the workbook's XML is longer than {MOST_PIECE} bytes"
            ))),
            Err(quick_xml::Error::Io(error)) => {
                let inner = error
                    .get_ref()
                    .and_then(|inner| inner.downcast_ref::<Failure>());
                Err(inner.cloned().unwrap_or_else(damaged))
            }
            Err(_) => Err(damaged()),
        }
    }
}

pub fn damaged() -> Failure {
    refused("the workbook is damaged or incomplete")
}

/// The text of an attribute by its name without a prefix.
pub fn attribute(element: &BytesStart, name: &str) -> Option<String> {
    let mut attributes = element.attributes();
    let found = attributes
        .with_checks(false)
        .flatten()
        .find(|attribute| attribute.key.local_name().as_ref() == name)?;
    let text = quick_xml::escape::unescape(&found.value).ok()?;
    Some(text.into_owned())
}
