//! Reads the setting that says where each database's gateway listens.

use std::net::SocketAddr;
use std::str::FromStr;

/// `127.0.0.1:8090` for one database, whichever it is, or `shop=127.0.0.1:8090, books=[::1]:8091` by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    every: Option<SocketAddr>,
    named: Vec<(String, SocketAddr)>,
}

impl Addresses {
    /// The address that names this database; `None`: there is none.
    pub fn named(&self, database: &str) -> Option<SocketAddr> {
        let named = self.named.iter().find(|(name, _)| name == database);
        named.map(|(_, address)| *address)
    }

    /// The address that names no database. The gateway of one database can listen there, of those that no address names.
    pub fn unnamed(&self) -> Option<SocketAddr> {
        self.every
    }
}

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Addresses, String> {
        let mut addresses = Addresses::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            // A name may hold the sign, an address does not.
            let (name, address) = match part.rsplit_once('=') {
                Some((name, address)) => (Some(name.trim()), address.trim()),
                None => (None, part),
            };
            let address: SocketAddr = address.parse().map_err(|_| {
                format!("\"{address}\" is not an address with a port, such as 127.0.0.1:8080")
            })?;
            if address.port() == 0 {
                return Err(format!("\"{address}\" has port 0; name a fixed port"));
            }
            let is_taken = |taken: &SocketAddr| *taken == address;
            let mut taken = addresses.named.iter().map(|(_, taken)| taken);
            if addresses.every.as_ref().is_some_and(is_taken) || taken.any(is_taken) {
                return Err(format!(
                    "{address} is there twice; each database needs an address of its own"
                ));
            }
            match name {
                None if addresses.every.is_none() => addresses.every = Some(address),
                None => return Err("only one address may be without a database".into()),
                Some(name) if addresses.named.iter().any(|(known, _)| known == name) => {
                    return Err(format!("database \"{name}\" has two addresses"));
                }
                Some(name) => addresses.named.push((name.to_owned(), address)),
            }
        }
        Ok(addresses)
    }
}
