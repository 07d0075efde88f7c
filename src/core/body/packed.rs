//! Bodies that are packed, by gzip or deflate: in members, in layers, with a header that says so or without one.

use std::collections::VecDeque;
use std::io::{self, BufRead, ErrorKind, Read};

use bytes::{Buf, Bytes, BytesMut};
use flate2::bufread::GzDecoder;
use flate2::{Decompress, FlushDecompress, Status};

use super::MOST_LAYERS;
use crate::error::{Code, Failure};

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    /// With the header of zlib, as the standard has it, or without one, as some servers do.
    Deflate,
}

/// What nobody has asked for, and nothing here opens.
const OTHERS: [&str; 12] = [
    "br",
    "bzip2",
    "compress",
    "dcb",
    "dcz",
    "exi",
    "lz4",
    "lzma",
    "snappy",
    "x-compress",
    "xz",
    "zstd",
];

/// The layers that `Content-Encoding` names, in the order they were put on. A word that packs nothing, such as `identity`
/// or the name of a charset, is no layer.
pub fn packings<'a>(values: impl Iterator<Item = &'a str>) -> Result<Vec<Packing>, Failure> {
    let mut packings = Vec::new();
    for word in values.flat_map(|value| value.split(',')) {
        let word = word.split(';').next().unwrap_or_default().trim();
        let word = word.trim_matches('"').to_ascii_lowercase();
        match word.as_str() {
            "gzip" | "x-gzip" => packings.push(Packing::Gzip),
            "deflate" | "x-deflate" => packings.push(Packing::Deflate),
            other if OTHERS.contains(&other) => {
                let message = "the response body is compressed in a way that was not asked for";
                return Err(Failure::new(Code::BadEncoding, message));
            }
            _ => {}
        }
    }
    if packings.len() > MOST_LAYERS {
        let message = format!("the response body is compressed more than {MOST_LAYERS} times");
        return Err(Failure::new(Code::BadEncoding, message));
    }
    Ok(packings)
}

/// Whether a body is gzip by its first bytes. No text begins with them.
pub fn is_gzip(body: &[u8]) -> bool {
    body.starts_with(b"\x1F\x8B\x08")
}

/// Size of a piece. Larger: more is kept of what has been read. Smaller: more pieces.
const PIECE_BYTES: usize = 256 * 1024;

/// A packed body in pieces, each of which is given back as soon as it is read.
#[derive(Default)]
pub struct Pieces {
    full: VecDeque<Bytes>,
    last: BytesMut,
    size: usize,
}

impl Pieces {
    pub fn of(body: Bytes) -> Pieces {
        Pieces {
            size: body.len(),
            full: VecDeque::from([body]),
            last: BytesMut::new(),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.size += bytes.len();
        self.last.extend_from_slice(bytes);
        if self.last.len() >= PIECE_BYTES {
            self.full.push_back(self.last.split().freeze());
        }
    }

    /// How much is left.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What is left, in one piece.
    pub fn join(mut self) -> Bytes {
        if self.full.is_empty() {
            return self.last.freeze();
        }
        let mut whole = BytesMut::with_capacity(self.size);
        while let Some(piece) = self.full.pop_front() {
            whole.extend_from_slice(&piece);
        }
        whole.extend_from_slice(&self.last);
        whole.freeze()
    }

    fn first(&mut self) -> &[u8] {
        while self.full.front().is_some_and(Bytes::is_empty) {
            self.full.pop_front();
        }
        if self.full.is_empty() && !self.last.is_empty() {
            self.full.push_back(self.last.split().freeze());
        }
        self.full.front().map_or(&[], Bytes::as_ref)
    }

    fn skip(&mut self, count: usize) {
        if let Some(piece) = self.full.front_mut() {
            let count = count.min(piece.len());
            piece.advance(count);
            self.size -= count;
        }
    }

    /// The first two bytes, zero where there are none.
    fn magic(&self) -> [u8; 2] {
        let mut bytes = self.full.iter().flatten().chain(&self.last);
        [(); 2].map(|()| bytes.next().copied().unwrap_or_default())
    }

    /// Skips what some senders put behind a member.
    fn skip_padding(&mut self) {
        loop {
            let first = self.first();
            let count = first
                .iter()
                .take_while(|byte| **byte == 0 || byte.is_ascii_whitespace())
                .count();
            if count == 0 {
                return;
            }
            self.skip(count);
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.first().read(buffer)?;
        self.skip(count);
        Ok(count)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.first())
    }

    fn consume(&mut self, count: usize) {
        self.skip(count);
    }
}

/// Bytes that one step brings at most. More: one step takes longer, and a small body may pass its bound by more. Fewer:
/// more steps.
pub const STEP_BYTES: usize = 64 * 1024;

/// A layer that is being opened.
pub struct Unpacking {
    layer: Option<Layer>,
    buffer: Box<[u8]>,
}

enum Layer {
    Gzip(Box<GzDecoder<Pieces>>),
    Deflate(Box<Decompress>, Pieces),
}

impl Unpacking {
    pub fn new(packing: Packing, pieces: Pieces) -> Unpacking {
        let magic = pieces.magic();
        let layer = match packing {
            _ if magic == [0x1F, 0x8B] => Layer::Gzip(Box::new(GzDecoder::new(pieces))),
            Packing::Gzip => Layer::Gzip(Box::new(GzDecoder::new(pieces))),
            Packing::Deflate => {
                let [method, flags] = magic;
                let check = u16::from_be_bytes(magic) % 31;
                let is_zlib = method & 0x0F == 8 && method >> 4 <= 7 && check == 0 && flags != 0;
                Layer::Deflate(Box::new(Decompress::new(is_zlib)), pieces)
            }
        };
        Unpacking {
            layer: Some(layer),
            buffer: vec![0; STEP_BYTES].into_boxed_slice(),
        }
    }

    /// Adds up to [`STEP_BYTES`] to what is opened already. False: there is no more.
    pub fn step(&mut self, to: &mut BytesMut) -> Result<bool, Failure> {
        let (layer, count) = match self.layer.take() {
            None => return Ok(false),
            Some(Layer::Gzip(decoder)) => member(decoder, &mut self.buffer)?,
            Some(Layer::Deflate(inflate, pieces)) => deflated(inflate, pieces, &mut self.buffer)?,
        };
        self.layer = layer;
        to.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
        Ok(self.layer.is_some())
    }
}

type Step = Result<(Option<Layer>, usize), Failure>;

/// A part of a member of gzip; where it ends, the next one follows.
fn member(mut decoder: Box<GzDecoder<Pieces>>, buffer: &mut [u8]) -> Step {
    let count = decoder.read(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => cut(),
        _ => unsound(),
    })?;
    if count > 0 {
        return Ok((Some(Layer::Gzip(decoder)), count));
    }
    let mut rest = decoder.into_inner();
    rest.skip_padding();
    match rest.first().first() {
        None => Ok((None, 0)),
        Some(0x1F) => Ok((Some(Layer::Gzip(Box::new(GzDecoder::new(rest)))), 0)),
        Some(_) => Err(unsound()),
    }
}

fn deflated(mut inflate: Box<Decompress>, mut pieces: Pieces, buffer: &mut [u8]) -> Step {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    let input = pieces.first();
    let is_over = input.is_empty();
    let status = inflate.decompress(input, buffer, FlushDecompress::None);
    let status = status.map_err(|_| unsound())?;
    let taken = inflate.total_in() - before_in;
    let count = (inflate.total_out() - before_out) as usize;
    pieces.skip(taken as usize);
    match status {
        Status::StreamEnd => Ok((None, count)),
        _ if is_over && count == 0 => Err(cut()),
        _ => Ok((Some(Layer::Deflate(inflate, pieces)), count)),
    }
}

fn cut() -> Failure {
    let message = "the compressed response body breaks off";
    Failure::new(Code::TruncatedResponse, message)
}

fn unsound() -> Failure {
    Failure::new(Code::BadEncoding, "the response body does not decompress")
}
