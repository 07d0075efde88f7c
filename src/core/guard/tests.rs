#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::address::{is_cloud, is_cloud_name, is_public};
use super::*;

fn allowed(list: &str) -> Allowed {
    list.parse().unwrap()
}

fn judge(url: &str, list: &str) -> Result<(), Refusal> {
    check_url(&Url::parse(url).unwrap(), &allowed(list))
}

#[test]
fn special_networks_are_not_public_from_first_to_last_address() {
    for (first, last) in [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("127.0.0.0", "127.255.255.255"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.0.2.0", "192.0.2.255"),
        ("192.88.99.0", "192.88.99.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("198.51.100.0", "198.51.100.255"),
        ("203.0.113.0", "203.0.113.255"),
        ("224.0.0.0", "255.255.255.255"),
        ("::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ("4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    ] {
        let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
        assert!(!is_public(first), "{first}");
        assert!(!is_public(last), "{last}");
        // The ranges' neighbours are public, but where another range begins.
        let (before, after) = match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(z)) => (
                a.to_bits()
                    .checked_sub(1)
                    .map(|v| Ipv4Addr::from_bits(v).into()),
                z.to_bits()
                    .checked_add(1)
                    .map(|v| Ipv4Addr::from_bits(v).into()),
            ),
            (IpAddr::V6(a), IpAddr::V6(z)) => (
                a.to_bits()
                    .checked_sub(1)
                    .map(|v| Ipv6Addr::from_bits(v).into()),
                z.to_bits()
                    .checked_add(1)
                    .map(|v| Ipv6Addr::from_bits(v).into()),
            ),
            _ => unreachable!(),
        };
        for neighbour in [before, after].into_iter().flatten() {
            let neighbour: IpAddr = neighbour;
            let is_next_range = ["2001::", "::"].map(|a| a.parse::<IpAddr>().unwrap());
            if !is_next_range.contains(&neighbour) {
                assert!(is_public(neighbour), "{neighbour}");
            }
        }
    }
}

#[test]
fn addresses_that_embed_ipv4_are_checked_as_ipv4_or_refused() {
    for (address, public) in [
        ("::ffff:8.8.8.8", true),
        ("::ffff:10.0.0.1", false),
        ("::ffff:127.0.0.1", false),
        ("64:ff9b::8.8.8.8", true),
        ("64:ff9b::10.0.0.1", false),
        ("64:ff9b::127.0.0.1", false),
        ("64:ff9b::169.254.169.254", false),
        ("64:ff9b:1::8.8.8.8", false),
        ("::8.8.8.8", false),
        ("::ffff:0:8.8.8.8", false),
        ("2002:808:808::1", false),
        ("2002:7f00:1::", false),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", false),
        ("2a00:1450::5efe:8.8.8.8", false),
        ("2a00:1450::200:5efe:10.0.0.1", false),
        ("2a00:1450:4001:829::200e", true),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", true),
        ("fc00::1", false),
        ("fd12:3456:789a::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
        ("100::1", false),
        ("5f00::1", false),
    ] {
        assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
    }
}

/// What a cloud tells its own machines, and where.
const CLOUDS: &[&str] = &[
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.0.23",
    "169.254.42.42",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fe80::a9fe:a9fe",
    "::ffff:169.254.169.254",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b::168.63.129.16",
    "64:ff9b:1::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001:db8::5efe:169.254.169.254",
];

#[test]
fn cloud_service_addresses_are_never_called_even_if_listed() {
    for address in CLOUDS {
        let address: IpAddr = address.parse().unwrap();
        assert!(is_cloud(address), "{address}");
        let lists = [
            "",
            "0.0.0.0/0, ::/0",
            "trusted.example",
            &address.to_string(),
        ];
        for list in lists {
            for plain in [false, true] {
                let answer = check_answer("trusted.example", [address], plain, &allowed(list));
                assert_eq!(answer, Err(Refusal::Cloud), "{address} with \"{list}\"");
            }
        }
        let host = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let url = format!("http://{host}/latest/meta-data/");
        assert_eq!(judge(&url, "0.0.0.0/0, ::/0"), Err(Refusal::Cloud), "{url}");
    }
    for url in [
        "http://metadata.google.internal/computeMetadata/v1/",
        "https://METADATA.google.internal./",
        "http://metadata/",
        "http://metadata.goog/",
        "http://instance-data/latest/",
        "http://instance-data.ec2.internal/",
        "http://metadata.tencentyun.com/",
        "http://ｍｅｔａｄａｔａ.google.internal/",
        // In other spellings of the address.
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
        "http://[::ffff:a9fe:a9fe]/",
    ] {
        let list = "0.0.0.0/0, ::/0, metadata, metadata.google.internal, metadata.goog";
        assert_eq!(judge(url, list), Err(Refusal::Cloud), "{url}");
    }
    assert!(!is_cloud_name("metadata.example.com"));
}

#[test]
fn only_https_to_public_addresses_needs_no_list() {
    assert_eq!(judge("https://8.8.8.8/", ""), Ok(()));
    assert_eq!(judge("http://8.8.8.8/", ""), Err(Refusal::Plain));
    assert_eq!(judge("https://10.0.0.1/", ""), Err(Refusal::NotPublic));
    assert_eq!(judge("http://10.0.0.1/", ""), Err(Refusal::NotPublic));
    assert_eq!(judge("https://shop.example/", ""), Ok(()));
    assert_eq!(judge("http://shop.example/", ""), Err(Refusal::Plain));
    // What is neither is no way round: it counts as http, and has no client.
    for url in ["gopher://8.8.8.8/", "ftp://shop.example/", "ws://8.8.8.8/"] {
        assert!(judge(url, "").is_err(), "{url}");
    }
    for url in ["file:///etc/passwd", "data:text/plain,x", "unix:/run/x"] {
        assert_eq!(judge(url, "0.0.0.0/0"), Err(Refusal::NotPublic), "{url}");
    }
}

#[test]
fn a_listed_host_may_be_called_with_http() {
    let list = "10.1.2.3, 192.168.0.0/16, fd12:3456::/32, ERP.intern., bücher.example";
    for (url, expected) in [
        ("http://10.1.2.3:8080/", Ok(())),
        ("http://10.0x010203/", Ok(())),
        ("http://[::ffff:10.1.2.3]/", Ok(())),
        ("http://10.1.2.4/", Err(Refusal::NotPublic)),
        ("https://192.168.255.255/", Ok(())),
        ("https://192.169.0.0/", Ok(())),
        ("http://192.169.0.0/", Err(Refusal::Plain)),
        ("http://[fd12:3456::1]/", Ok(())),
        ("https://[fd12:3457::1]/", Err(Refusal::NotPublic)),
        ("http://erp.intern/", Ok(())),
        ("http://ERP.INTERN./", Ok(())),
        ("http://xn--bcher-kva.example/", Ok(())),
        // It may yet resolve to what is listed.
        ("http://other.intern/", Ok(())),
    ] {
        assert_eq!(judge(url, list), expected, "{url}");
    }
    let answer = |name: &str, address: &str, plain| {
        check_answer(name, [address.parse().unwrap()], plain, &allowed(list))
    };
    assert_eq!(answer("erp.intern.", "10.9.9.9", true), Ok(()));
    assert_eq!(answer("erp.intern", "8.8.8.8", true), Ok(()));
    assert_eq!(
        answer("x.erp.intern", "10.9.9.9", false),
        Err(Refusal::NotPublic)
    );
    assert_eq!(answer("other.intern", "192.168.1.1", true), Ok(()));
    assert_eq!(
        answer("other.intern", "10.9.9.9", true),
        Err(Refusal::NotPublic)
    );
    assert_eq!(answer("other.intern", "8.8.8.8", true), Err(Refusal::Plain));
    assert_eq!(answer("other.intern", "8.8.8.8", false), Ok(()));
}

#[test]
fn a_list_with_one_bad_entry_is_refused() {
    for list in ["", " ", ",", " a , ,b,"] {
        assert!(list.parse::<Allowed>().is_ok(), "{list}");
    }
    for spelled in [
        "127.0.0.1",
        "127.1",
        "0x7f000001",
        "::ffff:127.0.0.1",
        "[::ffff:7f00:1]",
    ] {
        assert_eq!(allowed(spelled), allowed("127.0.0.1/32"), "{spelled}");
    }
    assert_eq!(allowed("[::1]"), allowed("::1/128"));
    for entry in [
        "*",
        "*.intern",
        "a..b",
        ".intern",
        "a b",
        "a:80",
        "127.0.0.1:80",
        "http://a",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/-1",
        "10.0.0.0/",
        "10.0.0/8",
        "intern/8",
        "::ffff:10.0.0.0/104",
        "256.1.1.1",
        "user@intern",
        "[::1",
        "fe80::1%eth0",
        "a;b",
    ] {
        let refused = format!("10.0.0.1, {entry}").parse::<Allowed>();
        assert_eq!(refused, Err(BadEntry::Unreadable(entry.into())), "{entry}");
    }
    for entry in ["10.0.0.1/8", "192.168.1.0/16", "fd00::1/8"] {
        assert_eq!(
            entry.parse::<Allowed>(),
            Err(BadEntry::StrayBits(entry.into()))
        );
    }
}

/// The judgement over IPv4 once more, by what the standard library knows of it.
fn is_special(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_096))]

    #[test]
    fn ipv4_is_public_or_special(bits: u32, first in prop::sample::select(vec![0u8, 10, 100, 127, 169, 172, 192, 198, 203, 224, 240, 255])) {
        for v4 in [Ipv4Addr::from_bits(bits), Ipv4Addr::from_bits(bits & 0x00ff_ffff | u32::from(first) << 24)] {
            prop_assert_eq!(is_public(v4.into()), !is_special(v4));
            prop_assert_eq!(is_public(v4.to_ipv6_mapped().into()), !is_special(v4));
        }
    }

    #[test]
    fn ipv6_is_public_only_within_2000(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits);
        let [first, ..] = v6.segments();
        if is_public(v6.into()) {
            prop_assert_eq!(first >> 13, 1);
            prop_assert!(first != 0x2002);
        }
    }

    #[test]
    fn one_bad_address_refuses_the_whole_answer(count in 1usize..200, at: prop::sample::Index, bad in prop::sample::select(vec!["10.0.0.1", "127.0.0.1", "::1", "fd00::1", "169.254.169.254"])) {
        let bad: IpAddr = bad.parse().unwrap();
        let mut answer = vec![IpAddr::from(Ipv4Addr::new(8, 8, 8, 8)); count];
        let none = Allowed::default();
        prop_assert_eq!(check_answer("shop.example", answer.clone(), false, &none), Ok(()));
        answer.insert(at.index(count + 1), bad);
        prop_assert!(check_answer("shop.example", answer, false, &none).is_err());
    }

    #[test]
    fn a_network_contains_the_addresses_of_its_prefix(bits: u32, prefix in 0u8..=32, other: u32) {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let list = format!("{}/{prefix}", Ipv4Addr::from_bits(bits & mask));
        let within = Ipv4Addr::from_bits(bits & mask | other & !mask);
        prop_assert!(allowed(&list).has_address(within.into()));
        let other = Ipv4Addr::from_bits(other);
        prop_assert_eq!(allowed(&list).has_address(other.into()), (bits ^ other.to_bits()) & mask == 0);
        prop_assert!(prefix == 0 || !allowed(&list).has_address("::1".parse().unwrap()));
    }

    #[test]
    fn nothing_makes_the_list_panic(list in ".{0,60}") {
        let _ = list.parse::<Allowed>();
    }
}
