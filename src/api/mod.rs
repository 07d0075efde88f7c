//! What SQL can call: thin functions, one file per noun. No SQL text and no judgement here.

// pgrx wants its own, large, error type.
#![allow(clippy::result_large_err)]

mod access;
mod catalog;
mod definition;
mod document;
mod fact;
mod lock;
mod mapping;
mod run;
mod secret;
mod status;
mod upload;

use crate::board;
use crate::error::{Error, Result};

/// Functions that need the worker say so when there can be none.
fn need_worker() -> Result<()> {
    if board::is_installed() {
        Ok(())
    } else {
        Err(Error::NotPreloaded)
    }
}
