//! Everything of `connector_service` that does not need PostgreSQL.
//!
//! This is a crate, not a module, so that nothing that runs on a network thread can name `pgrx`: only the
//! worker's main thread may call PostgreSQL, and here the compiler holds that rule.
//!
//! Data flows one way: a [`source`] says what to request and reads what came, [`fetch`] does every risky
//! thing once (time-outs, limits, retries, threads) and calls nobody whom the [`guard`] refuses, and what leaves
//! is a [`record::Page`].

pub mod body;
pub mod count;
pub mod datetime;
pub mod error;
pub mod fetch;
pub mod file;
#[cfg(test)]
mod fuzz;
pub mod guard;
pub mod json;
pub mod jsonpath;
pub mod logged;
pub mod mapping;
pub mod money;
pub mod record;
pub mod secret;
pub mod serve;
pub mod similar;
pub mod source;
pub mod template;
mod threads;
