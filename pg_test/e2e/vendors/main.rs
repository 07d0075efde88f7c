//! Tests each vendor with a fake that follows the vendor's documentation. The fake refuses what the vendor would
//! refuse, changes while it is read, and keeps its own books. After every sync, each day's numbers must equal the
//! books, to the cent and in the tenant's time zone.

mod count;
mod erpnext;
mod judged;
mod look;
mod quickbooks;
mod salesforce;
mod shopify;
mod square;
mod stage;
mod stripe;
