//! What an opened connector of any vendor has, and does in the same way as the others.

use serde_json::Value;

use super::reading::{self, Shape};
use super::settings::Settings;
use super::table::{self, Row};
use super::window::{Since, highest};
use super::{Account, Position, Response, Stream};
use crate::error::Failure;
use crate::json::{Found, RecordLimits};

pub struct Common {
    pub streams: Vec<Stream>,
    /// Whether config names the streams: then one that is missing at the vendor is a failure.
    pub is_chosen: bool,
    pub since: Since,
    pub account: Account,
    pub limits: RecordLimits,
}

impl Common {
    /// The pace of `account` is the usual one: config's goes before it.
    pub fn new(
        settings: &Settings,
        streams: Vec<Stream>,
        since: Since,
        account: Account,
    ) -> Result<Common, Failure> {
        let every = settings.pace(account.every)?;
        Ok(Common {
            streams,
            is_chosen: settings.is_chosen(),
            since,
            account: Account { every, ..account },
            limits: settings.limits,
        })
    }

    /// The records in a response.
    pub fn read(&self, at: &Position, got: &Response, shape: &Shape) -> Result<Found, Failure> {
        reading::read(&at.stream.name, got, shape, self.limits)
    }

    /// The greatest cursor value of the pass, once it has come past these stamps.
    pub fn high(&self, at: &Position, stamps: &[String]) -> Option<Value> {
        highest(at.high, stamps, at.window.to, self.since.read).0
    }

    /// Whether a stream that may not be read is no failure.
    pub fn is_left_out<R: Row>(&self, stream: &Stream) -> bool {
        !self.is_chosen && table::row::<R>(stream).is_ok_and(R::optional)
    }
}
