//! The records that an XLS is made of.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::super::archive::damaged;
use super::super::{Content, failure_of, refused, spoiled};
use crate::error::Failure;

/// Largest file: what it says of itself is held in memory. A full sheet of 65,536 rows and 256 columns has 235 MB, but
/// such a one was hardly ever written.
const LARGEST: u64 = 128 * 1024 * 1024;

/// Numbers of records.
pub mod kind {
    pub const FORMULA: u16 = 0x0006;
    pub const EOF: u16 = 0x000A;
    pub const DATE_MODE: u16 = 0x0022;
    pub const FILE_PASS: u16 = 0x002F;
    pub const CONTINUE: u16 = 0x003C;
    pub const COLUMN: u16 = 0x007D;
    pub const SHEET: u16 = 0x0085;
    pub const NUMBERS: u16 = 0x00BD;
    pub const RICH_TEXT: u16 = 0x00D6;
    pub const FORM: u16 = 0x00E0;
    pub const MERGED: u16 = 0x00E5;
    pub const TEXTS: u16 = 0x00FC;
    pub const TEXT_OF: u16 = 0x00FD;
    pub const NUMBER: u16 = 0x0203;
    pub const LABEL: u16 = 0x0204;
    pub const TRUTH: u16 = 0x0205;
    pub const STRING: u16 = 0x0207;
    pub const ROW: u16 = 0x0208;
    pub const PACKED: u16 = 0x027E;
    pub const FORMAT: u16 = 0x041E;
    pub const BEGIN: u16 = 0x0809;
}

pub struct Stream<'a> {
    records: BufReader<cfb::Stream<&'a mut dyn Content>>,
    /// The stream has so many bytes.
    pub size: u64,
    /// The stream lies in it: nothing can be read once it is dropped.
    _compound: cfb::CompoundFile<&'a mut dyn Content>,
}

/// One record of the stream.
pub struct Record {
    pub kind: u16,
    pub data: Vec<u8>,
}

impl Record {
    pub fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], Failure> {
        let bytes = self.data.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().ok_or_else(damaged)
    }

    pub fn u8(&self, at: usize) -> Result<u8, Failure> {
        self.bytes(at).map(|[byte]| byte)
    }

    pub fn u16(&self, at: usize) -> Result<u16, Failure> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    pub fn u32(&self, at: usize) -> Result<u32, Failure> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    pub fn double(&self, at: usize) -> Result<f64, Failure> {
        self.bytes(at).map(f64::from_le_bytes)
    }

    /// A text with its length in two bytes.
    pub fn text(&self, at: usize) -> Result<String, Failure> {
        let length = usize::from(self.u16(at)?);
        self.characters(at + 2, length)
    }

    /// Reads characters of one or two bytes each, as a flag in front of them says.
    pub fn characters(&self, at: usize, length: usize) -> Result<String, Failure> {
        let is_wide = self.u8(at)? & 1 != 0;
        let bytes = self.data.get(at + 1..).unwrap_or_default();
        decoded(bytes, length, is_wide).ok_or_else(damaged)
    }
}

pub fn decoded(bytes: &[u8], length: usize, is_wide: bool) -> Option<String> {
    if !is_wide {
        // The lower halves of UTF-16.
        return Some(
            bytes
                .get(..length)?
                .iter()
                .copied()
                .map(char::from)
                .collect(),
        );
    }
    let units = bytes.get(..length * 2)?.chunks_exact(2);
    let units = units.map(|unit| unit.try_into().map(u16::from_le_bytes).unwrap_or(0xFFFD));
    Some(
        char::decode_utf16(units)
            .map(|c| c.unwrap_or('\u{FFFD}'))
            .collect(),
    )
}

/// The next record. `None`: the stream is over.
fn next(stream: &mut Stream) -> Result<Option<Record>, Failure> {
    let mut head = [0; 4];
    match stream.records.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(failure_of(error)),
    }
    let [a, b, c, d] = head;
    let mut data = vec![0; usize::from(u16::from_le_bytes([c, d]))];
    stream
        .records
        .read_exact(&mut data)
        .map_err(|_| damaged())?;
    Ok(Some(Record {
        kind: u16::from_le_bytes([a, b]),
        data,
    }))
}

/// The records of a part of the stream, without those of parts within it (charts), as far as `visit` wants.
pub fn each(
    stream: &mut Stream,
    begin: u64,
    visit: &mut dyn FnMut(&Record) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let sought = stream.records.seek(SeekFrom::Start(begin));
    sought.map_err(|_| damaged())?;
    let mut depth = 0_u32;
    loop {
        let record = next(stream)?.ok_or_else(damaged)?;
        match record.kind {
            kind::BEGIN => {
                // 0x0600: BIFF8.
                if record.u16(0)? != 0x0600 {
                    return Err(refused(
                        "the workbook is from Excel 95 or older; save it as XLSX",
                    ));
                }
                depth += 1;
            }
            kind::EOF => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(());
                }
            }
            _ if depth == 0 => return Err(damaged()),
            _ if depth == 1 && !visit(&record)? => return Ok(()),
            _ => {}
        }
    }
}

pub fn open(content: &mut dyn Content) -> Result<Stream<'_>, Failure> {
    let size = content.seek(SeekFrom::End(0)).map_err(failure_of)?;
    if size > LARGEST {
        let most = LARGEST / 1024 / 1024;
        return Err(spoiled(format!(
            "the XLS workbook is larger than {most} MB; save it as XLSX"
        )));
    }
    content.rewind().map_err(failure_of)?;
    let mut compound = cfb::CompoundFile::open(content).map_err(|_| damaged())?;
    if compound.is_stream("/EncryptedPackage") {
        return Err(refused("the workbook is protected by a password"));
    }
    if !compound.is_stream("/Workbook") {
        let why = match compound.is_stream("/Book") {
            true => "the workbook is from Excel 95 or older; save it as XLSX",
            false => "the file is not a workbook",
        };
        return Err(refused(why));
    }
    let stream = compound.open_stream("/Workbook").map_err(|_| damaged())?;
    Ok(Stream {
        size: stream.len().min(size),
        records: BufReader::with_capacity(64 * 1024, stream),
        _compound: compound,
    })
}
