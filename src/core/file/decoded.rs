//! Decodes the bytes of a text into characters, chunk by chunk and within bounds.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::{Content, refused};

/// Bytes that are read and decoded at once.
pub const CHUNK: usize = 64 * 1024;

/// The row that is put behind the last one. No file holds a NUL that is not refused, and of all characters it alone can
/// be no delimiter.
pub const END: &str = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Facts about a text that are lost once it is split into rows.
#[derive(Default)]
pub struct Seen {
    /// The last byte.
    pub last: Cell<u8>,
    /// Whether the first line ends in "\r\n".
    pub is_crlf: Cell<bool>,
    has_lines: Cell<bool>,
}

impl Seen {
    fn note(&self, text: &[u8]) {
        if !self.has_lines.get()
            && let Some(at) = memchr::memchr(b'\n', text)
        {
            let before = at.checked_sub(1).and_then(|at| text.get(at).copied());
            let before = before.unwrap_or(self.last.get());
            self.is_crlf.set(before == b'\r');
            self.has_lines.set(true);
        }
        if let Some(last) = text.last() {
            self.last.set(*last);
        }
    }
}

/// Adds [`END`] after the last row.
pub struct Ended<R> {
    pub inner: R,
    pub seen: Rc<Seen>,
    /// What is still to be given of the end, from when the file is over.
    pub rest: Option<Vec<u8>>,
}

impl<R: Read> Read for Ended<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_none() {
            let read = self.inner.read(buffer)?;
            if read > 0 {
                self.seen.note(buffer.get(..read).unwrap_or_default());
                return Ok(read);
            }
            self.rest = Some(format!("\n{END}\n").into_bytes());
        }
        let rest = self.rest.get_or_insert_default();
        let mut given = rest.as_slice();
        let read = given.read(buffer)?;
        rest.drain(..read);
        Ok(read)
    }
}

/// How much may still be read before something of it has to come out.
#[derive(Clone)]
pub struct Meter {
    left: Rc<Cell<usize>>,
    most: usize,
}

impl Meter {
    pub fn new(most: usize) -> Meter {
        let most = most + 2 * CHUNK;
        Meter {
            left: Rc::new(Cell::new(most)),
            most,
        }
    }

    pub fn reset(&self) {
        self.left.set(self.most);
    }

    pub fn take(&self, bytes: usize) -> io::Result<()> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(io::Error::other(TooLong)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("too long")]
struct TooLong;

pub fn is_too_long(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

/// Text as UTF-8, without a byte order mark. UTF-8 itself is passed on unchanged: the reader behind it reports invalid
/// bytes with their place.
pub struct Decoded<'a> {
    content: &'a mut dyn Content,
    encoding: &'static Encoding,
    /// `None`: as it is.
    decoder: Option<encoding_rs::Decoder>,
    raw: Vec<u8>,
    /// Where what is not decoded yet begins in `raw`.
    from: usize,
    is_first: bool,
    is_over: bool,
    /// Whether the decoder has finished: it panics when it is called again.
    is_done: bool,
    lines: u64,
    /// All bytes so far, and the last of them.
    bytes: u64,
    last: u8,
}

impl<'a> Decoded<'a> {
    pub fn new(content: &'a mut dyn Content, encoding: &'static Encoding) -> Decoded<'a> {
        let is_utf_8 = encoding == UTF_8;
        Decoded {
            content,
            encoding,
            decoder: (!is_utf_8).then(|| encoding.new_decoder_with_bom_removal()),
            raw: Vec::new(),
            from: 0,
            is_first: true,
            is_over: false,
            is_done: false,
            lines: 0,
            bytes: 0,
            last: 0,
        }
    }

    /// Reads another chunk behind what is left of the one before.
    fn fill(&mut self) -> io::Result<()> {
        self.raw.drain(..self.from);
        self.from = 0;
        let most = CHUNK as u64;
        let read = (&mut *self.content).take(most).read_to_end(&mut self.raw)?;
        self.is_over = read == 0;
        self.bytes += read as u64;
        self.last = self.raw.last().copied().unwrap_or(self.last);
        Ok(())
    }

    /// Whether all that is wrong is one byte at the end of UTF-16: half of a line end, or what some program put behind it.
    fn is_odd_end(&self, is_wide: bool) -> bool {
        let is_at_end = self.is_over && self.from == self.raw.len();
        is_wide
            && is_at_end
            && self.bytes % 2 == 1
            && matches!(self.last, b'\n' | b'\r' | b' ' | 0x1A | 0)
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_done {
            return Ok(0);
        }
        loop {
            if self.from == self.raw.len() && !self.is_over {
                self.fill()?;
            }
            let mut left = self.raw.get(self.from..).unwrap_or_default();
            let Some(decoder) = &mut self.decoder else {
                if std::mem::take(&mut self.is_first) && left.starts_with(b"\xEF\xBB\xBF") {
                    self.from += 3;
                    continue;
                }
                let read = left.read(buffer)?;
                self.from += read;
                return Ok(read);
            };
            let encoding_is_wide = [UTF_16LE, UTF_16BE].contains(&self.encoding);
            let (result, taken, given) =
                decoder.decode_to_utf8_without_replacement(left, buffer, self.is_over);
            self.from += taken;
            let text = buffer.get(..given).unwrap_or_default();
            self.lines += memchr::memchr_iter(b'\n', text).count() as u64;
            if let DecoderResult::Malformed(..) = result {
                if self.is_odd_end(encoding_is_wide) {
                    self.is_done = true;
                    return Ok(given);
                }
                let (line, name) = (self.lines + 1, self.encoding.name());
                let message = format!("line {line}: the bytes are not valid {name}");
                return Err(io::Error::other(refused(message)));
            }
            self.is_done = self.is_over && result == DecoderResult::InputEmpty;
            if given > 0 || self.is_done {
                return Ok(given);
            }
            // A character longer than the buffer cannot be given, which no reader here has.
            if result == DecoderResult::OutputFull && buffer.len() < 4 {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            if result == DecoderResult::InputEmpty && !self.is_over {
                self.fill()?;
            }
        }
    }
}
