//! The list that an administrator keeps: host names, addresses and networks.
//!
//! A listed name may resolve to anything, so its zone must be in good hands; a listed network may be reached by
//! whatever name. Both may be called without TLS. There are no wildcards and no ports: a zone of names that all
//! lie inside is better listed as the network they lie in, and a port is no boundary to a host that is trusted.

use std::net::IpAddr;
use std::str::FromStr;

use url::Host;

use super::address::Network;

/// The default is empty: public addresses only, by https.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// As a URL has them: lower case, punycode; without a dot at the end.
    names: Vec<String>,
    networks: Vec<Network>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    #[error("\"{0}\" is not a host name, an address or a network")]
    Unreadable(String),
    #[error("network \"{0}\" has bits set to the right of its prefix")]
    StrayBits(String),
}

impl FromStr for Allowed {
    type Err = BadEntry;

    /// Entries between commas: `erp.intern, 10.1.2.3, 192.168.0.0/16, fd12:3456::/32`.
    fn from_str(list: &str) -> Result<Allowed, BadEntry> {
        let mut allowed = Allowed::default();
        for entry in list.split(',').map(str::trim) {
            if !entry.is_empty() {
                allowed.add(entry)?;
            }
        }
        Ok(allowed)
    }
}

impl Allowed {
    fn add(&mut self, entry: &str) -> Result<(), BadEntry> {
        let unreadable = || BadEntry::Unreadable(entry.to_owned());
        if let Some((address, prefix)) = entry.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| unreadable())?;
            let prefix = prefix.parse().map_err(|_| unreadable())?;
            // A network of mapped addresses would never match: they are judged as the IPv4 that they are.
            if prefix > width(address) || address != address.to_canonical() {
                return Err(unreadable());
            }
            let network = Network { address, prefix };
            if network.has_stray_bits() {
                return Err(BadEntry::StrayBits(entry.to_owned()));
            }
            self.networks.push(network);
            return Ok(());
        }
        let host: IpAddr = match entry.parse() {
            Ok(address) => address,
            Err(_) => match Host::parse(entry).map_err(|_| unreadable())? {
                Host::Ipv4(address) => address.into(),
                Host::Ipv6(address) => address.into(),
                Host::Domain(name) => {
                    let name = name.strip_suffix('.').unwrap_or(&name);
                    if !is_host_name(name) {
                        return Err(unreadable());
                    }
                    self.names.push(name.to_owned());
                    return Ok(());
                }
            },
        };
        let address = host.to_canonical();
        let prefix = width(address);
        self.networks.push(Network { address, prefix });
        Ok(())
    }

    /// `name` as a URL has it: in lower case, perhaps with a dot at its end.
    pub fn has_name(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        self.names.iter().any(|listed| listed == name)
    }

    pub fn has_address(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|n| n.contains(address))
    }

    pub fn has_networks(&self) -> bool {
        !self.networks.is_empty()
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// What a URL takes for a host is wider: `*.intern` would be a name there, and never match.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        !label.is_empty() && label.bytes().all(letter)
    };
    name.split('.').all(is_label)
}
