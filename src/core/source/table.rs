//! A vendor's table of streams: one row says all that is known of one.

use super::{About, Field, Stream, StreamAbout};
use crate::error::{Code, Failure};

pub trait Row: Sized + Sync + 'static {
    const ROWS: &'static [Self];

    fn about(&self) -> StreamAbout;

    fn ordered(&self) -> bool {
        false
    }

    fn whole(&self) -> bool {
        false
    }

    /// Whether the numbers stand without it: where nobody chose it and the credentials may not read it, it is left out
    /// with a warning.
    fn optional(&self) -> bool {
        false
    }

    fn stream(&self) -> Stream {
        Stream {
            name: self.about().name.to_owned(),
            ordered: self.ordered(),
            whole: self.whole(),
        }
    }
}

/// The row of an opened stream.
pub fn row<R: Row>(stream: &Stream) -> Result<&'static R, Failure> {
    let found = R::ROWS.iter().find(|row| row.about().name == stream.name);
    found.ok_or_else(|| Failure::new(Code::Internal, format!("no stream \"{}\"", stream.name)))
}

/// The catalogue entry of a vendor with this table.
pub fn about<R: Row>(
    kind: &'static str,
    credentials: &'static [Field],
    config: &'static [Field],
) -> About {
    About {
        kind,
        streams: R::ROWS.iter().map(Row::about).collect(),
        credentials,
        config,
        frequency: "hourly",
    }
}
