//! From the bytes of a body to its text: how it is packed ([`packed`]), and in which characters it is written
//! ([`charset`]).
//!
//! What a sender says of its body is believed where the body does not say otherwise: a byte order mark and the magic bytes
//! of gzip stand in the body itself. Whatever grows does so in steps, within a bound.

mod charset;
mod packed;
#[cfg(test)]
mod tests;

pub use charset::to_utf8;
pub use packed::{Packing, Pieces, Unpacking, is_gzip, packings};

use bytes::{Bytes, BytesMut};

use crate::error::{Code, Failure};

/// Gzip within gzip that no header speaks of is opened this often. More: nobody does that. Fewer: a proxy that packs what
/// is packed already makes a body unreadable.
pub const MOST_LAYERS: usize = 4;

/// Why a body is not read any further.
pub fn too_large(limit: usize) -> Failure {
    let message = format!("the response body is larger than {limit} bytes");
    Failure::new(Code::ResponseTooLarge, message)
}

/// Opens a whole body that is small enough to be opened at once.
pub fn open(body: &Bytes, packings: Vec<Packing>, limit: usize) -> Result<Bytes, Failure> {
    let mut body = body.clone();
    for packing in packings.into_iter().rev() {
        let mut opened = BytesMut::new();
        let mut unpacking = Unpacking::new(packing, Pieces::of(body));
        while unpacking.step(&mut opened)? {
            if opened.len() > limit {
                return Err(too_large(limit));
            }
        }
        body = opened.freeze();
    }
    Ok(body)
}
