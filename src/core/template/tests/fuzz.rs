//! Templates made of what the language has, and of what it has not.

use super::*;
use crate::fuzz::{Random, damaged, each, grows_with_its_size, memory};

fn expression(random: &mut Random, depth: usize) -> String {
    let inner = |random: &mut Random| expression(random, depth.saturating_sub(1));
    if depth == 0 || random.percent(20) {
        return match random.below(9) {
            0 => random.edge().to_string(),
            1 => format!("-{}", random.edge()),
            2 => random.pick(&["1.5", "1e308", "0.0", "1e-320"]).to_owned(),
            3 => format!("'{}'", random.text(6).replace(['\'', '\\'], "")),
            4 => random
                .pick(&["true", "false", "none", "[]", "{}", "''"])
                .to_owned(),
            5 => random
                .pick(&[
                    "config",
                    "config.key",
                    "config['list']",
                    "config.n",
                    "config.none",
                    "config.missing.more",
                ])
                .to_owned(),
            6 => random
                .pick(&[
                    "now_utc()",
                    "today_utc()",
                    "day_delta(-3)",
                    "day_delta(9223372036854775807)",
                    "now_utc().strftime('%Y-%m')",
                    "now_utc().timestamp()",
                ])
                .to_owned(),
            7 => random.pick(&["parameters", "parameters.x"]).to_owned(),
            _ => random.word(5),
        };
    }
    let one = inner(random);
    let other = inner(random);
    match random.below(16) {
        0 | 1 => {
            let operator = random.pick(&[
                "+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in",
                "and", "or",
            ]);
            format!("{one} {operator} {other}")
        }
        2 => format!("({one} | int) * ({other} | float)"),
        3 => {
            let filter = random.pick(&[
                "default('x')",
                "int",
                "float",
                "length",
                "lower",
                "upper",
                "trim",
                "first",
                "last",
                "string",
                "list",
                "join('')",
                "replace('a', 'b')",
            ]);
            format!("({one}) | {filter}")
        }
        4 => format!("{one} if {other} else {one}"),
        5 => format!("({one})[{other}]"),
        6 => format!(
            "({one})[{}:{}:{}]",
            random.edge() as i64,
            random.few(3),
            random.edge() as i64
        ),
        7 => format!("[{one}, {other}]"),
        8 => format!("{{'a': {one}, {other}: 1}}"),
        9 => {
            let method = random.pick(&[
                "get('a')",
                "items()",
                "keys()",
                "values()",
                "split()",
                "split(',', 1)",
                "strip()",
                "lstrip('x')",
                "upper()",
                "startswith('a')",
                "endswith(('a', 'b'))",
                "strftime('%Q')",
                "isoformat()",
                "split('')",
            ]);
            format!("({one}).{method}")
        }
        10 => format!("not {one}"),
        11 => format!("-({one})"),
        12 => format!(
            "({one}) is {}",
            random.pick(&["defined", "undefined", "none", "string", "number", "odd"])
        ),
        13 => format!("format_datetime({one}, '%Y-%m-%dT%H:%M:%S.%f%z')"),
        14 => format!("day_delta({one}, format='%s')"),
        _ => format!("({one}, {other})"),
    }
}

fn source(random: &mut Random) -> String {
    let mut source = String::new();
    for _ in 0..=random.few(3) {
        let depth = random.between(0, 5);
        let expression = expression(random, depth);
        match random.below(5) {
            0 => source.push_str(&random.text(6)),
            1 => source.push_str(&format!(
                "{{% if {expression} %}}a{{% elif {expression} %}}b{{% else %}}c{{% endif %}}"
            )),
            _ => source.push_str(&format!("{{{{ {expression} }}}}")),
        }
    }
    source
}

/// What one template may hold while it is parsed and evaluated.
const ENOUGH: usize = 16 * 1024 * 1024;

fn try_it(source: &str) {
    let all = || {
        let template = Template::new(source, "here", &["config"], Value::UNDEFINED)?;
        let context = context();
        let text = template.text(&context);
        if let Ok(Some(text)) = &text {
            assert!(text.len() <= LONGEST_TEXT);
        }
        let _ = template.truth(&context);
        let _ = template.json(&context).map(|value| value.to_string());
        let again = template.text(&context);
        assert_eq!(text.as_ref().ok(), again.as_ref().ok(), "{source}");
        text
    };
    if let Err(failure) = memory::within(ENOUGH, all) {
        assert!(matches!(
            failure.code,
            Code::InvalidConfig | Code::TemplateFailed
        ));
        // What it says is of our own words and the names that are written there.
        assert!(failure.message.len() < 400 + source.len(), "{source}");
    }
}

#[test]
fn any_template_is_rendered_or_refused() {
    each("templates", |random| {
        let source = source(random);
        match random.percent(50) {
            true => try_it(&source),
            false => {
                let other = self::source(random);
                let damaged = damaged(random, source.as_bytes(), other.as_bytes());
                try_it(&String::from_utf8_lossy(&damaged));
            }
        }
    });
}

#[test]
fn text_without_a_template_stays_unchanged() {
    each("plain texts", |random| {
        let text = random.text(40);
        if text.contains("{{") || text.contains("{%") || text.contains("{#") {
            return;
        }
        let template = Template::new(&text, "here", &[], Value::UNDEFINED).unwrap();
        assert_eq!(
            template.text(&context()).unwrap().as_deref(),
            Some(text.as_str())
        );
        // As a value of its own, too.
        if !text.contains(['\'', '\\', '}', '%', '#']) && !text.is_empty() {
            let quoted = format!("{{{{ '{text}' }}}}");
            let template = Template::new(&quoted, "here", &[], Value::UNDEFINED).unwrap();
            assert_eq!(
                template.text(&context()).unwrap().as_deref(),
                Some(text.as_str())
            );
        }
    });
}

#[test]
fn sums_are_those_of_arithmetic() {
    each("sums in templates", |random| {
        let (one, other) = (random.edge() as i64 >> 1, random.edge() as i64 >> 1);
        for (sign, result) in [
            ("+", i128::from(one) + i128::from(other)),
            ("-", i128::from(one) - i128::from(other)),
            ("*", i128::from(one) * i128::from(other)),
        ] {
            let source = format!("{{{{ ({one}) {sign} ({other}) }}}}");
            let template = Template::new(&source, "here", &[], Value::UNDEFINED).unwrap();
            if let Ok(text) = template.text(&context()) {
                assert_eq!(text, Some(result.to_string()), "{source}");
            }
        }
    });
}

#[test]
fn no_template_nests_deeper_than_the_stack() {
    let fill = |open: &str, middle: &str, close: &str| {
        let times = (LONGEST_SOURCE - 40 - middle.len()) / (open.len() + close.len());
        [&open.repeat(times), middle, &close.repeat(times)].concat()
    };
    for (open, middle, close) in [
        ("(", "1", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("not ", "1", ""),
        ("-", "1", ""),
        ("", "config", ".a"),
        ("", "config", "[1]"),
        ("", "config", "[1:]"),
        ("", "config", ".get(1)"),
        ("", "1", "+1"),
        ("", "1", "~1"),
        ("1**", "1", ""),
        ("", "1", "**1"),
        ("", "1", " and 1"),
        ("", "1", " or 1"),
        ("", "1", "<1"),
        ("", "1", " in 1"),
        ("", "1", " is none"),
        ("", "1", "|int"),
        ("", "1", " if 1 else 1"),
        ("1 if 1 else ", "1", ""),
        ("now_utc(", "1", ")"),
        ("(1,", "1", ")"),
    ] {
        let expression = fill(open, middle, close);
        try_it(&format!("{{{{ {expression} }}}}"));
        try_it(&format!("a{{{{ {expression} }}}}"));
        try_it(&format!("{{% if {expression} %}}a{{% endif %}}"));
    }
    for (open, close) in [
        ("{% if 1 %}", "{% endif %}"),
        ("{% if 1 %}{% else %}", "{% endif %}"),
        ("{% if 1 %}a{% elif 1 %}", "{% endif %}"),
    ] {
        try_it(&fill(open, "a", close));
        try_it(&fill(open, "a", ""));
    }
    try_it(&format!(
        "{{% if 1 %}}{}{{% endif %}}",
        "{% elif 1 %}".repeat(1_300)
    ));
    try_it(&"{{1}}".repeat(3_000));
}

#[test]
fn no_template_takes_longer_than_its_size_says() {
    for (name, piece) in [
        ("sums", "+1"),
        ("names", "~config.key"),
        ("lists", "+[1,2]"),
    ] {
        let make = |size: usize| format!("{{{{ 1{} }}}}", piece.repeat(size));
        grows_with_its_size(name, 60, make, |source| try_it(source));
    }
    grows_with_its_size(
        "expressions",
        400,
        |size| "{{1}}".repeat(size),
        |source| try_it(source),
    );
}
