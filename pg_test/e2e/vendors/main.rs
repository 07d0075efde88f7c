//! Each vendor, as its documentation describes it: a fake that answers by the vendor's rules, refuses what the vendor
//! would refuse, changes while it is read, and keeps books of its own. After every sync the day's numbers must be
//! what the books say, to the cent and in the tenant's time zone.

mod erpnext;
mod look;
mod quickbooks;
mod salesforce;
mod shopify;
mod square;
mod stage;
mod stripe;
