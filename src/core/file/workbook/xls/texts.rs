//! The texts of a workbook, which its cells name by their number.

use super::super::archive::damaged;
use super::super::spoiled;
use super::record::Record;
use crate::error::Failure;

/// How much memory the texts may take.
const MOST_TEXTS: usize = 64 * 1024 * 1024;

/// The texts of a workbook, which go on over the ends of records: in the middle of a text a record begins with how
/// wide its characters are from there on.
pub struct Texts {
    texts: Vec<String>,
    bytes: usize,
    /// These describe the text at hand: its characters, how many are to come, and how many bytes of formats follow.
    text: Vec<u16>,
    characters: usize,
    is_wide: bool,
    behind: usize,
    is_open: bool,
    /// The part of a head that did not fit into a record.
    left: Vec<u8>,
}

impl Texts {
    pub fn begin(record: &Record) -> Result<Texts, Failure> {
        let mut texts = Texts {
            texts: Vec::new(),
            bytes: 0,
            text: Vec::new(),
            characters: 0,
            is_wide: false,
            behind: 0,
            is_open: false,
            left: Vec::new(),
        };
        // How many there are is not believed.
        texts.take(record.data.get(8..).ok_or_else(damaged)?)?;
        Ok(texts)
    }

    pub fn go_on(&mut self, record: &Record) -> Result<(), Failure> {
        let mut data = record.data.as_slice();
        if self.characters > 0 {
            let (flags, rest) = data.split_first().ok_or_else(damaged)?;
            self.is_wide = flags & 1 != 0;
            data = rest;
        }
        self.take(data)
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Failure> {
        let mut all = std::mem::take(&mut self.left);
        all.extend_from_slice(data);
        let mut data = all.as_slice();
        while !data.is_empty() {
            if self.characters > 0 {
                let width = if self.is_wide { 2 } else { 1 };
                let here = self.characters.min(data.len() / width);
                if here == 0 {
                    return Err(damaged());
                }
                let (characters, rest) = data.split_at(here * width);
                self.text
                    .extend(characters.chunks_exact(width).map(|unit| match unit {
                        [low, high] => u16::from_le_bytes([*low, *high]),
                        [low, ..] => u16::from(*low),
                        [] => 0,
                    }));
                self.characters -= here;
                data = rest;
            } else if self.behind > 0 {
                let here = self.behind.min(data.len());
                self.behind -= here;
                data = data.split_at(here).1;
            } else {
                self.close()?;
                match self.open(data)? {
                    Some(rest) => data = rest,
                    None => {
                        self.left = data.to_vec();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the head of a text. `None`: it goes on in the next record.
    fn open<'a>(&mut self, data: &'a [u8]) -> Result<Option<&'a [u8]>, Failure> {
        let head = |at: usize, bytes: usize| data.get(at..at + bytes);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0_usize, |n, b| n << 8 | usize::from(*b))
        };
        let Some([a, b, flags]) = head(0, 3) else {
            return Ok(None);
        };
        let (mut at, mut behind) = (3, 0_usize);
        if flags & 8 != 0 {
            let Some(runs) = head(at, 2) else {
                return Ok(None);
            };
            behind += 4 * number(runs);
            at += 2;
        }
        if flags & 4 != 0 {
            let Some(bytes) = head(at, 4) else {
                return Ok(None);
            };
            behind += number(bytes);
            at += 4;
        }
        self.characters = number(&[*a, *b]);
        self.is_wide = flags & 1 != 0;
        self.behind = behind;
        self.is_open = true;
        Ok(data.get(at..))
    }

    fn close(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        let text = String::from_utf16_lossy(&self.text);
        self.text.clear();
        self.bytes += text.len() + size_of::<String>() + 16;
        if self.bytes > MOST_TEXTS {
            let most = MOST_TEXTS / 1024 / 1024;
            return Err(spoiled(format!(
                "the texts of the workbook are larger than {most} MB"
            )));
        }
        self.texts.push(text);
        Ok(())
    }

    pub fn end(mut self) -> Result<Vec<String>, Failure> {
        if self.characters > 0 {
            return Err(damaged());
        }
        self.close()?;
        Ok(self.texts)
    }
}
