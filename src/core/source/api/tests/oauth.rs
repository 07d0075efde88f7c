use std::time::Duration;

use super::*;
use crate::secret::Secret;
use crate::source::Access;

fn oauth(also: Value) -> Value {
    let mut authenticator = json!({
        "type": "OAuthAuthenticator", "token_refresh_endpoint": "https://login.example.com/token",
        "client_id": "{{ config['client_id'] }}", "client_secret": "{{ config['client_secret'] }}",
        "refresh_token": "{{ config['refresh_token'] }}"
    });
    for (key, value) in also.as_object().unwrap() {
        authenticator[key] = value.clone();
    }
    shop_with("/definitions/requester/authenticator", authenticator)
}

fn open_with(manifest: Value, credentials: Value) -> Box<dyn Reader> {
    let definition = Definition {
        credentials: credentials.into(),
        ..definition(manifest)
    };
    Api.open(&definition)
        .unwrap_or_else(|failure| panic!("{failure}"))
}

fn flat() -> Value {
    json!({"client_id": "id", "client_secret": "s&cret", "refresh_token": "first"})
}

fn body(request: &Request) -> &str {
    std::str::from_utf8(request.body.as_ref().unwrap()).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.into())
}

fn answer(status: u16, body: &Value) -> Response {
    Response {
        status,
        headers: vec![],
        body: Bytes::from(body.to_string()),
    }
}

#[test]
fn a_token_is_asked_for_as_the_manifest_says() {
    let reader = open_with(oauth(json!({})), flat());
    let login = reader.login().unwrap();
    let request = login.request(start(), None).unwrap();
    assert_eq!(request.url.as_str(), "https://login.example.com/token");
    assert_eq!(
        body(&request),
        "grant_type=refresh_token&client_id=id&client_secret=s%26cret&refresh_token=first"
    );
    // What took its place earlier in the run goes before it.
    let request = login.request(start(), Some(&secret("second"))).unwrap();
    assert!(body(&request).ends_with("&refresh_token=second"));

    let reader = open_with(
        oauth(json!({
            "grant_type": "client_credentials", "client_id_name": "app", "scopes": ["read", "{{ config['shop'] }}"],
            "refresh_request_body": {"audience": "{{ config['shop'] }}"},
            "refresh_request_headers": {"Content-Type": "application/json", "X-Id": "{{ config['client_id'] }}"}
        })),
        flat(),
    );
    let request = reader.login().unwrap().request(start(), None).unwrap();
    let said: Value = serde_json::from_str(body(&request)).unwrap();
    assert_eq!(
        said,
        json!({"grant_type": "client_credentials", "app": "id", "client_secret": "s&cret", "scope": "read acme", "audience": "acme"})
    );
    assert!(request.headers.contains(&("X-Id".into(), "id".into())));
}

fn access(text: &str) -> Access {
    Access {
        token: secret(text),
        base: None,
    }
}

#[test]
fn a_token_opens_the_streams() {
    let pass = Pass::new(oauth(json!({})), None);
    let token = access("opens");
    let at = Position {
        access: Some(&token),
        ..pass.at()
    };
    let request = pass.reader.request(&at).unwrap();
    let is_it =
        |(name, value): &(String, String)| name == "Authorization" && value == "Bearer opens";
    assert_eq!(
        request
            .headers
            .iter()
            .filter(|header| is_it(header))
            .count(),
        1
    );
    // No other authenticator logs in.
    assert!(open(shop()).login().is_none());
}

#[test]
fn an_answer_gives_a_token_and_perhaps_another_refresh_token() {
    let reader = open_with(oauth(json!({})), flat());
    let login = reader.login().unwrap();
    let read = |refresh: Option<&Secret>, body: Value| {
        login.granted(start(), refresh, &answer(200, &body))
    };
    for (expires, lives) in [
        (json!(3600), Some(3600)),
        (json!("3600"), Some(3600)),
        (json!(null), None),
        (json!(-1), None),
        (json!("soon"), None),
    ] {
        let grant = read(None, json!({"access_token": "a", "expires_in": expires})).unwrap();
        assert_eq!(grant.access, access("a"));
        assert_eq!(grant.lives, lives.map(Duration::from_secs), "{expires}");
        assert!(grant.rotated.is_none());
    }
    let rotated = |refresh: Option<&Secret>, new: &str| {
        let grant = read(refresh, json!({"access_token": "a", "refresh_token": new})).unwrap();
        grant.rotated.map(|r| (r.path, r.old, r.new))
    };
    let path = vec!["refresh_token".to_owned()];
    assert_eq!(rotated(None, "first"), None);
    assert_eq!(rotated(None, ""), None);
    assert_eq!(
        rotated(None, "second"),
        Some((path.clone(), secret("first"), secret("second")))
    );
    let second = secret("second");
    assert_eq!(rotated(Some(&second), "second"), None);
    assert_eq!(
        rotated(Some(&second), "third"),
        Some((path, secret("second"), secret("third")))
    );
}

#[test]
fn a_refresh_token_is_replaced_in_its_own_place_or_where_the_manifest_says() {
    let nested = json!({"credentials": {"refresh_token": "first", "client_id": "id"}, "client_id": "id", "client_secret": "s"});
    let template = json!({"refresh_token": "{{ config['credentials']['refresh_token'] }}"});
    let path = |also: Value, credentials: Value| {
        let reader = open_with(oauth(also), credentials);
        let got = answer(
            200,
            &json!({"access_token": "a", "refresh_token": "second", "rt": "third"}),
        );
        let grant = reader.login().unwrap().granted(start(), None, &got);
        grant.map(|grant| grant.rotated.map(|r| (r.path.join("."), r.new)))
    };
    let found = |place: &str, new: &str| Ok(Some((place.to_owned(), secret(new))));
    assert_eq!(
        path(template.clone(), nested.clone()),
        found("credentials.refresh_token", "second")
    );
    let mut updater = template;
    updater["refresh_token_updater"] = json!({"refresh_token_name": "rt", "refresh_token_config_path": ["credentials", "kept"], "access_token_config_path": ["x"]});
    assert_eq!(path(updater, nested), found("credentials.kept", "third"));
    // It stands nowhere in credentials, or twice: the run says so before it does anything else.
    for (also, credentials) in [
        (json!({"refresh_token": "fixed"}), flat()),
        (
            json!({}),
            json!({"refresh_token": "first", "other": "first"}),
        ),
    ] {
        let failure = path(also, credentials).unwrap_err();
        assert!(
            failure.message.contains("refresh_token_config_path"),
            "{failure}"
        );
    }
}

#[test]
fn a_response_without_a_token_has_its_own_code_and_is_not_repeated() {
    let reader = open_with(oauth(json!({})), flat());
    let echo = json!({"error": "invalid_grant", "error_description": "s&cret first"});
    for (got, code) in [
        (answer(400, &echo), Code::CredentialsRejected),
        (answer(401, &echo), Code::CredentialsRejected),
        (answer(403, &echo), Code::CredentialsRejected),
        (answer(302, &echo), Code::Redirected),
        (answer(429, &echo), Code::RateLimited),
        (answer(503, &echo), Code::ServerError),
        (answer(200, &echo), Code::CredentialsRejected),
        (answer(200, &json!(["s&cret"])), Code::UnexpectedShape),
        (
            answer(200, &json!({"access_token": ""})),
            Code::UnexpectedShape,
        ),
        (
            answer(200, &json!({"access_token": 7})),
            Code::UnexpectedShape,
        ),
        (
            Response {
                body: Bytes::from_static(b"<html>s&cret"),
                ..answer(200, &echo)
            },
            Code::InvalidJson,
        ),
    ] {
        let failure = reader
            .login()
            .unwrap()
            .granted(start(), None, &got)
            .unwrap_err();
        assert_eq!(failure.code, code, "{failure}");
        assert!(
            !failure.message.contains("cret") && !failure.message.contains("first"),
            "{failure}"
        );
    }
}

#[test]
fn an_impossible_login_is_refused_when_it_is_saved() {
    for (also, message) in [
        (
            json!({"token_refresh_endpoint": null}),
            "token_refresh_endpoint",
        ),
        (
            json!({"token_refresh_endpoint": "ftp://login.example.com"}),
            "is not an http or https URL",
        ),
        (
            json!({"token_refresh_endpoint": "https://u:p@login.example.com"}),
            "is not an http or https URL",
        ),
        (
            json!({"token_refresh_endpoint": "https://{{ config['api_key'] }}.example.com"}),
            "may not depend on credentials",
        ),
        (json!({"refresh_token": null}), "refresh_token"),
        (
            json!({"use_profile_assertion": true}),
            "use_profile_assertion",
        ),
        (
            json!({"token_expiry_date_format": "%Y"}),
            "token_expiry_date_format",
        ),
    ] {
        let refused = refused(oauth(also.clone()));
        assert!(refused.contains(message), "{also}: {refused}");
    }
    let mut two = oauth(json!({}));
    let mut second = two["streams"][0].clone();
    second["name"] = json!("items");
    second["retriever"]["requester"] = two["definitions"]["requester"].clone();
    two["streams"].as_array_mut().unwrap().push(second);
    let defined = open_with(two.clone(), flat());
    assert!(defined.login().is_some());
    two["streams"][1]["retriever"]["requester"]["authenticator"]["client_id"] = json!("another");
    assert!(refused(two).contains("a connector logs in once"));
}
