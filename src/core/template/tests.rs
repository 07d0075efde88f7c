#![allow(clippy::unwrap_used)]

mod fuzz;

use super::*;
use proptest::prelude::*;

fn context() -> Value {
    let data =
        serde_json::json!({"key": "k-1", "n": 12345678901234567_u64, "none": null, "list": [1, 2]});
    let now = "2026-03-31T12:00:00Z".parse().unwrap();
    let config = Value::from(minijinja::value::Serde(data));
    Value::from_pairs(macros(now).chain([("config", config)]))
}

fn text(source: &str) -> Result<Option<String>, Code> {
    let template =
        Template::new(source, "here", &["config"], Value::UNDEFINED).map_err(|f| f.code)?;
    template.text(&context()).map_err(|f| f.code)
}

#[test]
fn templates_render_as_manifests_expect() {
    for (source, expected) in [
        ("plain", Some("plain")),
        ("{{ config['key'] }}", Some("k-1")),
        ("{{ config.n }}", Some("12345678901234567")),
        ("a {{ config.key }} b", Some("a k-1 b")),
        ("{{ config['missing'] }}", None),
        ("{{ config['missing']['deeper'] }}", None),
        ("{{ config.none }}", None),
        ("{{ config.get('key', 'x') }}", Some("k-1")),
        ("{{ config.get('other', 'x') }}", Some("x")),
        ("{{ config['missing'] or 'fallback' }}", Some("fallback")),
        ("{{ config.missing | default('d') }}", Some("d")),
        ("{{ 'x' if config.key else 'y' }}", Some("x")),
        ("{% if config.key %}yes{% else %}no{% endif %}", Some("yes")),
        ("{{ config.list | length }}", Some("2")),
        (
            "a|b * c * it's {{ config.key }}",
            Some("a|b * c * it's k-1"),
        ),
        ("{{ {'a': {'b': 'c'}}['a']['b'] }}", Some("c")),
        ("{{- config.key -}}", Some("k-1")),
        ("{{ -1 }}", Some("-1")),
        ("{{ (config.list | length) * 50 + 1 }}", Some("101")),
        ("{{ config.list | last }}", Some("2")),
        ("{{ config.key.split('-')[0] }}", Some("k")),
        (
            "{{ now_utc().strftime('%Y-%m-%dT%H:%M:%SZ') }}",
            Some("2026-03-31T12:00:00Z"),
        ),
        ("{{ today_utc() }}", Some("2026-03-31")),
        ("{{ day_delta(-1, format='%Y-%m-%d') }}", Some("2026-03-30")),
        (
            "{{ format_datetime('2026-01-02', '%d.%m.%Y') }}",
            Some("02.01.2026"),
        ),
    ] {
        assert_eq!(text(source), Ok(expected.map(str::to_owned)), "{source}");
    }
}

#[test]
fn unknown_names_are_refused_when_the_template_is_saved() {
    for source in [
        "{{ response.next }}",
        "{{ config.x | tojson }}",
        "{{ config.x|indent(1000000000) }}",
        "{{ range(10) }}",
        "{{ 'a' * 70000 }}",
        "{{ [1] * 99999999 }}",
        "{{ ([1] * 99999999) | last }}",
        "{{ config.n * config.n }}",
        "it's {{ 'a' * 9999999 ~ 'b' * 9999999 }}",
        "{{ config.x is divisibleby(3) }}",
        "{{ config.key.replace('k', 'kk') }}",
        "{{ config.x if true else config.x.format(1) }}",
        "it's {{ config.x | hash }}",
        "{{ 'it\\'s' | hash }}",
        "{{ config['x'](1) }}",
        "{% for x in config %}{% endfor %}",
        "{% set x = 1 %}",
        "{{ config.x",
        "{{ }}",
    ] {
        assert_eq!(text(source), Err(Code::InvalidConfig), "{source}");
    }
    assert_eq!(
        text(&format!("{{{{ '{}' }}}}", "x".repeat(LONGEST_SOURCE))),
        Err(Code::InvalidConfig)
    );
}

#[test]
fn wrong_types_end_in_a_failure() {
    for source in ["{{ config.key + 1 }}", "{{ config.n / 0 }}"] {
        assert_eq!(text(source), Err(Code::TemplateFailed), "{source}");
    }
}

#[test]
fn the_step_of_a_slice_is_a_small_number() {
    for source in [
        "{{ 'abc'[::-9223372036854775807 - 1] }}",
        "{{ [1, 2][::-9223372036854775808] }}",
        "{{ config.list[::config.n] }}",
        "{{ 'abc'[::9223372036854775807] }}",
    ] {
        assert_eq!(text(source), Err(Code::InvalidConfig), "{source}");
    }
    for (source, expected) in [
        ("{{ 'abc'[::-1] }}", "cba"),
        ("{{ 'abc'[::2] }}", "ac"),
        ("{{ 'abc'[1:] }}", "bc"),
    ] {
        assert_eq!(text(source), Ok(Some(expected.to_owned())), "{source}");
    }
}

#[test]
fn truth_follows_the_rules_of_manifests() {
    let truth = |source: &str| {
        Template::new(source, "here", &["config"], Value::UNDEFINED)
            .unwrap()
            .truth(&context())
            .unwrap()
    };
    for source in [
        "{{ config.key }}",
        "{{ not config.missing }}",
        "{{ 1 == 1 }}",
        "x",
    ] {
        assert!(truth(source), "{source}");
    }
    for source in [
        "{{ config.missing }}",
        "{{ 'False' }}",
        "{{ [] }}",
        "{{ 0 }}",
        "false",
        " {{ config.none }} ",
    ] {
        assert!(!truth(source), "{source}");
    }
}

proptest! {
    #[test]
    fn no_template_makes_it_panic(inner in "[a-z0-9'\"|.()\\[\\] +~*%-]{0,40}", around in "\\PC{0,5}") {
        for source in [format!("{{{{{inner}}}}}"), format!("{around}{{{{ {inner} }}}}"), format!("{{%{inner}%}}")] {
            let _ = text(&source);
        }
    }
}

#[test]
fn a_template_knows_which_names_and_keys_it_reads() {
    for (source, word, looks) in [
        ("{{ response.next }}", "data", false),
        ("{{ response['next'] }}", "data", false),
        ("{{ response.get('next', '') }}", "data", false),
        ("{{ response.data[-1].id }}", "data", true),
        ("{{ not response }}", "data", true),
        ("{{ response | length }}", "data", true),
        ("{{ response[config.key] }}", "data", true),
        ("{{ response.get(config.key) }}", "data", true),
        ("{{ response.values() }}", "data", true),
    ] {
        let template = Template::new(source, "here", &["config", "response"], Value::UNDEFINED);
        let template = template.unwrap();
        assert_eq!(template.mentions("response", word), looks, "{source}");
    }
}

#[test]
fn large_values_do_not_grow_without_end() {
    let long = Value::from("x".repeat(10 * LONGEST_TEXT));
    let list = Value::from(vec![1; 10 * FUEL as usize]);
    let context = Value::from_pairs([("long", long), ("list", list)]);
    for source in [
        "{{ long }}",
        "{{ long ~ long }}",
        "{{ long }}{{ long }}{{ long }}",
        "{{ long.split('') | length }}",
        "{{ ''.split(long) | length }}",
        "{{ list }}",
        "{{ list | string }}",
        "a {{ list }}",
    ] {
        let template = Template::new(source, "here", &["long", "list"], Value::UNDEFINED);
        let failure = template.unwrap().text(&context).unwrap_err();
        assert_eq!(failure.code, Code::TemplateFailed, "{source}");
    }
}

#[test]
fn text_that_spells_a_literal_becomes_its_value_in_json() {
    let json = |source: &str| {
        let template = Template::new(source, "here", &["config"], Value::UNDEFINED);
        template.unwrap().json(&context()).unwrap()
    };
    for (source, value) in [
        ("7", serde_json::json!("7")),
        ("{{ config.n }}", serde_json::json!(12345678901234567_u64)),
        ("{{ config.list }}", serde_json::json!([1, 2])),
        ("{{ '7' }}", serde_json::json!("7")),
        (
            "[{{ config.n }}]",
            serde_json::json!([12345678901234567_u64]),
        ),
        (
            "{% if config.key %}True{% endif %}",
            serde_json::json!(true),
        ),
        ("since {{ config.key }}", serde_json::json!("since k-1")),
        ("{{ config.missing }}", serde_json::json!(null)),
    ] {
        assert_eq!(json(source), value, "{source}");
    }
}
