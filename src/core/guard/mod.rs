//! The address guard: which addresses a connector may reach.
//!
//! Whoever may save a connector chooses a URL, and the database server calls it. Without a guard that is a way
//! into the network the server stands in: its own PostgreSQL, a router, the metadata service of the cloud, which
//! hands out credentials to whoever asks. So a connector reaches public addresses only, by https only, unless an
//! administrator lists a host or a network ([`Allowed`]). What belongs to the cloud itself is never reached.
//!
//! The one rule that makes this hold: **what is judged is what is connected to**. A check that looks a name up
//! and lets the client look it up again can be told two different things, so the judgement over names sits in
//! the resolver that the client itself uses (`fetch::resolver`), and one bad address spoils its whole answer.
//! A literal address never comes to a resolver, so it is judged before the request, as the parsed
//! [`url::Host`] and never as text: `127.1`, `0x7f.1`, `2130706433` and `①②⑦.1` are all the same host there.
//!
//! This module is the judgement: pure, without a socket. It is said when a connector is saved, as a warning, and
//! holds when it runs. It does not refuse the row, because the list belongs to a server and not to its data: a
//! dump must restore where the list is another one.

mod address;
mod allowed;
#[cfg(test)]
pub mod spellings;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use url::{Host, Url};

pub use self::allowed::{Allowed, BadEntry};
use crate::error::{Code, Failure};

/// Why a host is not called. No message tells what a name resolves to: that would let a tenant read the names of the
/// network inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the host is, or resolves to, an address that is not public")]
    NotPublic,
    #[error(
        "the host is, or resolves to, an address of the cloud's own services, which are never called"
    )]
    Cloud,
    #[error("the host may only be called with https")]
    Plain,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let code = match refusal {
            Refusal::NotPublic | Refusal::Cloud => Code::AddressNotAllowed,
            Refusal::Plain => Code::HttpsRequired,
        };
        Failure::new(code, refusal.to_string())
    }
}

/// Whether a request is not encrypted. Every scheme but https counts, so that none slips through.
pub fn is_plain(url: &Url) -> bool {
    url.scheme() != "https"
}

/// Checks a URL without resolving its name.
pub fn check_url(url: &Url, allowed: &Allowed) -> Result<(), Refusal> {
    let plain = is_plain(url);
    match url.host() {
        Some(Host::Ipv4(address)) => check(address.into(), false, plain, allowed),
        Some(Host::Ipv6(address)) => check(address.into(), false, plain, allowed),
        Some(Host::Domain(name)) if address::is_cloud_name(name) => Err(Refusal::Cloud),
        // Nothing that the name may resolve to would change it.
        Some(Host::Domain(name)) if plain && !allowed.has_name(name) && !allowed.has_networks() => {
            Err(Refusal::Plain)
        }
        Some(Host::Domain(_)) => Ok(()),
        None => Err(Refusal::NotPublic),
    }
}

/// Checks every address that a name resolved to, because the client may connect to any of them.
pub fn check_answer(
    name: &str,
    addresses: impl IntoIterator<Item = IpAddr>,
    plain: bool,
    allowed: &Allowed,
) -> Result<(), Refusal> {
    let named = allowed.has_name(name);
    addresses
        .into_iter()
        .try_for_each(|address| check(address, named, plain, allowed))
}

/// `named`: the address is what a listed name resolved to.
fn check(address: IpAddr, named: bool, plain: bool, allowed: &Allowed) -> Result<(), Refusal> {
    // `::ffff:10.0.0.1` goes out as IPv4.
    let address = address.to_canonical();
    if address::is_cloud(address) {
        Err(Refusal::Cloud)
    } else if named || allowed.has_address(address) {
        Ok(())
    } else if !address::is_public(address) {
        Err(Refusal::NotPublic)
    } else if plain {
        Err(Refusal::Plain)
    } else {
        Ok(())
    }
}
