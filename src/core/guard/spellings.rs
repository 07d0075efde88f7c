//! One host, this one, in the ways that a URL can spell it. Where a guard misses one, a listener here counts it.
//!
//! `SCHEME` and `PORT` are to be filled in. Nothing here leads anywhere else, whatever fails: the tests of the
//! fetch engine and those of a real server share this list, and neither may send a packet to a stranger.

/// Addresses: no name must be resolved.
pub const ADDRESSES: &[&str] = &[
    // Every radix, and fewer parts than four.
    "SCHEME://127.0.0.1:PORT",
    "SCHEME://127.1:PORT",
    "SCHEME://127.0.1:PORT",
    "SCHEME://127.00.000.0001:PORT",
    "SCHEME://127.0x1:PORT",
    "SCHEME://127.0.0x1:PORT",
    "SCHEME://0x7f.1:PORT",
    "SCHEME://0x7f.0.0.1:PORT",
    "SCHEME://0X7F.0x0.0X0.0x1:PORT",
    "SCHEME://0x0000007f.0x00.0x00.0x01:PORT",
    "SCHEME://0x7f000001:PORT",
    "SCHEME://0X7F000001:PORT",
    "SCHEME://0177.1:PORT",
    "SCHEME://0177.0.0.1:PORT",
    "SCHEME://0177.0x0.0.01:PORT",
    "SCHEME://000000177.00.00.0001:PORT",
    "SCHEME://017700000001:PORT",
    "SCHEME://2130706433:PORT",
    "SCHEME://127.255.255.254:PORT",
    "SCHEME://127.16777214:PORT",
    "SCHEME://2147483646:PORT",
    "SCHEME://0x7ffffffe:PORT",
    // Linux takes the unspecified address for this host.
    "SCHEME://0.0.0.0:PORT",
    "SCHEME://0:PORT",
    "SCHEME://0x0:PORT",
    "SCHEME://0.0:PORT",
    "SCHEME://00000000000:PORT",
    // With the dot of an absolute name.
    "SCHEME://127.0.0.1.:PORT",
    "SCHEME://127.1.:PORT",
    "SCHEME://0x7f.1.:PORT",
    "SCHEME://2130706433.:PORT",
    // Digits and dots that are mapped to plain ones.
    "SCHEME://１２７.０.０.１:PORT",
    "SCHEME://１27.0.0.1:PORT",
    "SCHEME://0ｘ7ｆ.1:PORT",
    "SCHEME://127。0。0。1:PORT",
    "SCHEME://127｡0｡0｡1:PORT",
    "SCHEME://127．0．0．1:PORT",
    "SCHEME://①②⑦.⓪.⓪.①:PORT",
    "SCHEME://⑫7.1:PORT",
    "SCHEME://𝟏𝟐𝟕.𝟎.𝟎.𝟏:PORT",
    "SCHEME://𝟷𝟸𝟽.𝟷:PORT",
    "SCHEME://¹²⁷.⁰.⁰.¹:PORT",
    "SCHEME://₁₂₇.₀.₀.₁:PORT",
    // Characters that are left out.
    "SCHEME://1\u{ad}27.0.0.1:PORT",
    "SCHEME://127.\u{200b}0.0.1:PORT",
    "SCHEME://127.0\t.0\n.1:PORT",
    " SCHEME://127.0.0.1:PORT ",
    // Percent signs.
    "SCHEME://%31%32%37.0.0.1:PORT",
    "SCHEME://127%2E0%2E0%2E1:PORT",
    "SCHEME://%30%78%37%66.1:PORT",
    "SCHEME://%EF%BC%91%EF%BC%92%EF%BC%97.1:PORT",
    // IPv6, and IPv4 within.
    "SCHEME://[::1]:PORT",
    "SCHEME://[0:0:0:0:0:0:0:1]:PORT",
    "SCHEME://[0000:0000:0000:0000:0000:0000:0000:0001]:PORT",
    "SCHEME://[::0:0:1]:PORT",
    "SCHEME://[::0.0.0.1]:PORT",
    "SCHEME://[::]:PORT",
    "SCHEME://[::ffff:127.0.0.1]:PORT",
    "SCHEME://[::FFFF:127.0.0.1]:PORT",
    "SCHEME://[::ffff:7f00:1]:PORT",
    "SCHEME://[0:0:0:0:0:ffff:7f00:0001]:PORT",
    "SCHEME://[::ffff:127.255.255.254]:PORT",
    "SCHEME://[::ffff:0.0.0.0]:PORT",
    // Another host is only seemingly named.
    "SCHEME://public.example@127.0.0.1:PORT",
    "SCHEME://public.example:443@127.0.0.1:PORT",
    "SCHEME://public.example%2F@127.0.0.1:PORT",
    "SCHEME://a:b@public.example@127.0.0.1:PORT",
    "SCHEME://@127.0.0.1:PORT",
    "SCHEME://127.0.0.1:PORT\\@public.example/",
    "SCHEME://127.0.0.1:PORT#@public.example/",
    "SCHEME://127.0.0.1:PORT?@public.example/",
    "SCHEME://127.0.0.1:PORT/@public.example/",
    "SCHEME://127.0.0.1:PORT\\.public.example/",
    // Slashes that are missing, too many, or turned round.
    "SCHEME:127.0.0.1:PORT",
    "SCHEME:/127.0.0.1:PORT",
    "SCHEME:///127.0.0.1:PORT",
    "SCHEME:\\\\127.0.0.1:PORT",
    "SCHEME:/\\/127.0.0.1:PORT",
    "S\tCHEME:\n//127.0.0.1:PORT",
];

/// The name that every system knows by itself.
pub const LOCALHOST: &[&str] = &[
    "SCHEME://localhost:PORT",
    "SCHEME://LOCALHOST:PORT",
    "SCHEME://LocalHost:PORT",
    "SCHEME://public.example@localhost:PORT",
    "SCHEME://localhost:PORT\\@public.example/",
    "SCHEME://ｌｏｃａｌｈｏｓｔ:PORT",
    "SCHEME://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT",
    "SCHEME://local\u{ad}host:PORT",
    "SCHEME://%6c%6f%63%61%6c%68%6f%73%74:PORT",
];
