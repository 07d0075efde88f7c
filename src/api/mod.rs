//! The functions that SQL can call: thin, one file per noun. They contain no SQL text and take no decisions.

// pgrx wants its own, large, error type.
#![allow(clippy::result_large_err)]

mod access;
mod catalog;
mod count;
mod definition;
mod delete;
mod document;
mod fact;
mod lock;
mod mapping;
mod named;
mod restore;
mod run;
mod secret;
mod status;
mod upload;

use crate::board;
use crate::error::{Error, Result};

/// Fails where the library was not preloaded, so that no worker can run.
fn need_worker() -> Result<()> {
    if board::is_installed() {
        Ok(())
    } else {
        Err(Error::NotPreloaded)
    }
}
