//! What an address is: public, of the cloud, or neither.
//!
//! By IANA's registries of special-purpose addresses, and stricter than they are: what is reserved but said to
//! be "globally reachable" (anycast of protocols, relays) is no vendor. IPv6 is judged the other way round, by
//! what is public, so that a block given a meaning later is refused until then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Network {
    pub fn contains(self, other: IpAddr) -> bool {
        let differing = left_aligned(self.address) ^ left_aligned(other);
        self.address.is_ipv4() == other.is_ipv4()
            // A prefix of 0 shifts everything out, and what differs with it.
            && differing.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
    }

    /// Whether the address has bits beyond the prefix, which then mean nothing.
    pub fn has_stray_bits(self) -> bool {
        let stray = left_aligned(self.address).checked_shl(self.prefix.into());
        stray.unwrap_or(0) != 0
    }
}

fn left_aligned(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Network {
    let address = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    Network { address, prefix }
}

/// A network by the first four groups of its address and the last two, which is as much as any here needs.
const fn v6(first: [u16; 4], last: [u16; 2], prefix: u8) -> Network {
    let ([a, b, c, d], [g, h]) = (first, last);
    let address = IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, g, h));
    Network { address, prefix }
}

/// IPv4 that is not public.
const SPECIAL_V4: &[Network] = &[
    v4(0, 0, 0, 0, 8),       // this network; Linux takes 0.0.0.0 for this host
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // carriers' shared space
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link-local
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 88, 99, 0, 24),  // relays from 6to4, withdrawn
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, and broadcast
];

/// All that IPv6 has given out for the public so far.
const GLOBAL_V6: Network = v6([0x2000, 0, 0, 0], [0, 0], 3);

/// What is not public of it.
const SPECIAL_V6: &[Network] = &[
    v6([0x2001, 0, 0, 0], [0, 0], 23), // protocol assignments: Teredo, benchmarks, ORCHID
    v6([0x2001, 0xdb8, 0, 0], [0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0], [0, 0], 16), // 6to4
    v6([0x3fff, 0, 0, 0], [0, 0], 20), // documentation
];

/// The well-known prefix of NAT64. A server without IPv4 reaches every vendor without IPv6 through it.
const NAT64: Network = v6([0x64, 0xff9b, 0, 0], [0, 0], 96);

/// What a cloud offers to its own machines: it hands out credentials to whoever asks, so it is never called, listed
/// or not. No vendor is link-local, so that the whole of it is here, with most clouds' metadata.
const CLOUD: &[Network] = &[
    v4(169, 254, 0, 0, 16), // 169.254.169.254 nearly everywhere, 169.254.170.2 and .23 for containers at AWS
    v4(100, 100, 100, 200, 32), // Alibaba
    v4(168, 63, 129, 16, 32), // Azure's wire server, in the middle of public addresses
    v4(192, 0, 0, 192, 32), // Oracle, of old
    v6([0xfe80, 0, 0, 0], [0, 0], 10), // link-local
    v6([0xfd00, 0xec2, 0, 0], [0, 0], 32), // AWS: ::254 metadata, ::23 for containers
    v6([0xfd20, 0xce, 0, 0], [0, 0x254], 128), // Google
    v6([0xfd00, 0xc1, 0, 0], [0xa9fe, 0xa9fe], 128), // Oracle
    v6([0xfd00, 0x42, 0, 0], [0, 0x42], 128), // Scaleway
];

/// Names of the same. Each leads to one of the addresses above; here nobody is even asked.
const CLOUD_NAMES: &[&str] = &[
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.tencentyun.com",
];

pub fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    match address {
        IpAddr::V4(_) => !is_in(SPECIAL_V4, address),
        IpAddr::V6(v6) if NAT64.contains(address) => {
            embedded(v6).is_some_and(|v4| is_public(v4.into()))
        }
        IpAddr::V6(v6) => {
            GLOBAL_V6.contains(address) && !is_in(SPECIAL_V6, address) && embedded(v6).is_none()
        }
    }
}

pub fn is_cloud(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let inner = match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => embedded(v6),
    };
    is_in(CLOUD, address) || inner.is_some_and(|v4| is_in(CLOUD, v4.into()))
}

fn is_in(networks: &[Network], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// `name` as a URL has it: in lower case.
pub fn is_cloud_name(name: &str) -> bool {
    CLOUD_NAMES.contains(&name.strip_suffix('.').unwrap_or(name))
}

/// The IPv4 address that some translator or tunnel would take out of an IPv6 one. Mapped addresses are not here:
/// they are canonical IPv4 already.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = Ipv4Addr::from_bits(address.to_bits() as u32);
    match address.segments() {
        // NAT64, and NAT64 of the network's own as it is nearly always set up.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] | [0x64, 0xff9b, 1, ..] => Some(last),
        // IPv4-compatible and IPv4-translated.
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] => Some(last),
        // 6to4.
        [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        // Teredo has it with every bit turned round.
        [0x2001, 0, ..] => Some(Ipv4Addr::from_bits(!last.to_bits())),
        // ISATAP, below any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, _, _] => Some(last),
        _ => None,
    }
}
