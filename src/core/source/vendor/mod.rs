//! One folder a vendor: its streams, its logins, its webhooks. A vendor uses what is in [`crate::source`], and never
//! another vendor.

pub mod erpnext;
pub mod quickbooks;
pub mod salesforce;
pub mod shopify;
pub mod square;
pub mod stripe;
