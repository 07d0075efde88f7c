//! The four ways into Salesforce. All of them end with a token and the host of the org.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use url::Url;

use crate::error::{Code, Failure};
use crate::secret::Secret;
use crate::source::request::{below, verdict_by_status};
use crate::source::settings::{Settings, missing, site, wrong};
use crate::source::token::{self, USUAL};
use crate::source::{Access, Grant, Login, Request, Response, Rotated, Start, Verdict};

/// The last version that has the SOAP login.
const SOAP_VERSION: &str = "64.0";

/// How long an assertion is good; the vendor takes no more than about three minutes.
const ASSERTION_LIVES: TimeDelta = TimeDelta::seconds(170);

/// Hosts of orgs end with one of these.
const HOSTS: [&str; 4] = [
    ".salesforce.com",
    ".force.com",
    ".cloudforce.com",
    ".salesforce.mil",
];

/// The largest answer of the SOAP login that is looked into. Larger: a hostile one costs time. A real one has 2 KB.
const LARGEST_ANSWER: usize = 64 * 1024;

pub struct SalesforceLogin {
    host: Url,
    flow: Flow,
}

enum Flow {
    ClientCredentials {
        id: Secret,
        secret: Secret,
    },
    Jwt {
        id: Secret,
        user: String,
        audience: String,
        key: Box<RsaKeyPair>,
    },
    Refresh {
        id: Secret,
        secret: Option<Secret>,
        refresh: Secret,
    },
    /// The login by user name and password, which is legacy.
    Soap {
        user: Secret,
        /// The password, with the security token behind it.
        password: Secret,
    },
}

impl SalesforceLogin {
    pub fn read(settings: &Settings) -> Result<SalesforceLogin, Failure> {
        let sandbox = settings.truth("sandbox")?;
        let central = match sandbox {
            true => "https://test.salesforce.com",
            false => "https://login.salesforce.com",
        };
        // `acme`, `acme.my.salesforce.com` or the whole address.
        let domain = settings.place(&["domain", "my_domain", "instance_url"])?;
        let domain = domain.map(|domain| {
            site(&domain, ".my.salesforce.com")
                .map_err(|_| wrong("\"domain\" is not a name or an https address"))
        });
        let domain = domain.transpose()?;
        let elsewhere = settings.url("base_url")?;
        let own = elsewhere.clone().or(domain);
        let central_url = || crate::source::api::join(central, "");

        let id = settings.secret(&["client_id", "consumer_key"]);
        let secret = settings.secret(&["client_secret", "consumer_secret"]);
        let user = settings.secret(&["username", "user"]);
        let password = settings.secret(&["password"]);
        let key = settings.secret(&["private_key"]);
        let refresh = settings.secret(&["refresh_token"]);
        let (host, flow) = if let Some(key) = key {
            let flow = Flow::Jwt {
                id: id.ok_or_else(|| missing("client_id"))?,
                user: user.ok_or_else(|| missing("username"))?.text().into_owned(),
                // The login's own host, wherever the request goes.
                audience: central.to_owned(),
                key: Box::new(rsa_key(&key)?),
            };
            (own.map_or_else(central_url, Ok)?, flow)
        } else if let Some(refresh) = refresh {
            let id = id.ok_or_else(|| missing("client_id"))?;
            (
                own.map_or_else(central_url, Ok)?,
                Flow::Refresh {
                    id,
                    secret,
                    refresh,
                },
            )
        } else if let Some(password) = password {
            let user = user.ok_or_else(|| missing("username"))?;
            let token = settings.secret(&["security_token", "token"]);
            let token = token.as_ref().map_or(&[][..], Secret::expose);
            let password = Secret::new([password.expose(), token].concat());
            (
                own.map_or_else(central_url, Ok)?,
                Flow::Soap { user, password },
            )
        } else {
            let id = id.ok_or_else(|| missing("client_id"))?;
            let secret = secret.ok_or_else(|| missing("client_secret"))?;
            // login. and test. refuse this grant.
            let host = own.ok_or_else(|| missing("domain"))?;
            (host, Flow::ClientCredentials { id, secret })
        };
        Ok(SalesforceLogin { host, flow })
    }

    /// Where to log in, and who: whose requests are counted together is not known before.
    pub fn account(&self) -> String {
        let host = self.host.host_str().unwrap_or_default();
        match &self.flow {
            Flow::Jwt { user, .. } => format!("salesforce {host} {user}"),
            Flow::Soap { user, .. } => format!("salesforce {host} {}", user.text()),
            Flow::ClientCredentials { id, .. } => format!("salesforce {host} {}", id.fingerprint()),
            Flow::Refresh { refresh, .. } => format!("salesforce {host} {}", refresh.fingerprint()),
        }
    }

    pub fn is_legacy(&self) -> bool {
        matches!(self.flow, Flow::Soap { .. })
    }

    /// The place that the vendor names: an org's own, or where the login itself was.
    fn checked_instance(&self, instance: Option<Url>) -> Result<Url, Failure> {
        let is_org = |url: &Url| {
            let host = url.host_str().unwrap_or_default();
            url.scheme() == "https" && HOSTS.iter().any(|end| host.ends_with(end))
        };
        let instance = instance.ok_or_else(|| {
            Failure::new(
                Code::UnexpectedShape,
                "the response to the login names no instance",
            )
        })?;
        if !is_org(&instance) && instance.origin() != self.host.origin() {
            return Err(Failure::new(
                Code::ForeignNextPage,
                "the response to the login names an instance that is not Salesforce's",
            ));
        }
        crate::source::api::join(&instance.origin().ascii_serialization(), "")
    }
}

fn rsa_key(pem: &Secret) -> Result<RsaKeyPair, Failure> {
    let unreadable =
        || wrong("credentials' \"private_key\" has to be an RSA key of at least 2048 bits in PEM");
    let pair = match PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| unreadable())? {
        PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()),
        _ => return Err(unreadable()),
    };
    pair.map_err(|_| unreadable())
}

fn assertion(
    id: &Secret,
    user: &str,
    audience: &str,
    key: &RsaKeyPair,
    now: DateTime<Utc>,
) -> Result<String, Failure> {
    let claims = json!({
        "iss": id.text(),
        "sub": user,
        "aud": audience,
        "exp": (now + ASSERTION_LIVES).timestamp(),
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({"alg": "RS256"})), encode(&claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .map_err(|_| Failure::new(Code::Internal, "the assertion could not be signed"))?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn escaped(text: &Secret) -> String {
    text.text()
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

impl Login for SalesforceLogin {
    fn request(&self, start: Start, refresh: Option<&Secret>) -> Result<Request, Failure> {
        let url = below(&self.host, &["services", "oauth2", "token"]);
        let form = |pairs: &[(&str, &str)]| Ok(Request::post_form(url.clone(), pairs));
        match &self.flow {
            Flow::ClientCredentials { id, secret } => form(&[
                ("grant_type", "client_credentials"),
                ("client_id", &id.text()),
                ("client_secret", &secret.text()),
            ]),
            Flow::Jwt {
                id,
                user,
                audience,
                key,
            } => form(&[
                ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                ("assertion", &assertion(id, user, audience, key, start.now)?),
            ]),
            Flow::Refresh {
                id,
                secret,
                refresh: own,
            } => {
                let (id, token) = (id.text(), refresh.unwrap_or(own).text());
                let mut pairs = vec![
                    ("grant_type", "refresh_token"),
                    ("client_id", id.as_ref()),
                    ("refresh_token", token.as_ref()),
                ];
                let secret = secret.as_ref().map(Secret::text);
                pairs.extend(
                    secret
                        .as_ref()
                        .map(|secret| ("client_secret", secret.as_ref())),
                );
                form(&pairs)
            }
            Flow::Soap { user, password } => {
                let url = below(&self.host, &["services", "Soap", "u", SOAP_VERSION]);
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"utf-8\"?><env:Envelope xmlns:env=\"http://schemas.xmlsoap.org/soap/envelope/\"><env:Body><n1:login xmlns:n1=\"urn:partner.soap.sforce.com\"><n1:username>{}</n1:username><n1:password>{}</n1:password></n1:login></env:Body></env:Envelope>",
                    escaped(user),
                    escaped(password)
                );
                Ok(Request::post(url, "text/xml; charset=UTF-8", body)
                    .header("SOAPAction", "login"))
            }
        }
    }

    fn granted(
        &self,
        _start: Start,
        refresh: Option<&Secret>,
        got: &Response,
    ) -> Result<Grant, Failure> {
        if let Flow::Soap { .. } = self.flow {
            return self.soap(got);
        }
        let answer = token::answer(got, &USUAL)?;
        let instance = answer
            .fields
            .fields()
            .get("instance_url")
            .and_then(Value::as_str);
        let base = self.checked_instance(instance.and_then(|text| Url::parse(text).ok()))?;
        Ok(answer.grant(self.sent(refresh), Some(base)))
    }

    fn spends(&self) -> bool {
        self.sent(None).is_some()
    }

    fn rotated(&self, _: Start, refresh: Option<&Secret>, got: &Response) -> Option<Rotated> {
        token::rotated_in(got, &USUAL, self.sent(refresh))
    }
}

impl SalesforceLogin {
    /// The refresh token that a request shows, where it shows one.
    fn sent<'a>(&'a self, refresh: Option<&'a Secret>) -> Option<&'a Secret> {
        match &self.flow {
            Flow::Refresh { refresh: own, .. } => Some(refresh.unwrap_or(own)),
            _ => None,
        }
    }

    /// A refusal comes with HTTP 500, and trying again locks the user.
    fn soap(&self, got: &Response) -> Result<Grant, Failure> {
        let text = std::str::from_utf8(&got.body).ok();
        let text = text.filter(|text| text.len() <= LARGEST_ANSWER);
        let document = text.and_then(|text| roxmltree::Document::parse(text).ok());
        let field = |name: &str| {
            let mut nodes = document.as_ref()?.descendants();
            let node = nodes.find(|node| node.tag_name().name() == name)?;
            node.text().filter(|text| !text.is_empty())
        };
        if let Some(code) = field("exceptionCode") {
            let fail = |code, message: &str| Err(Failure::new(code, message));
            // The codes that a person can do something about; none of the vendor's text is repeated.
            return match code.rsplit(':').next().unwrap_or_default() {
                "REQUEST_LIMIT_EXCEEDED" => {
                    fail(Code::RateLimited, "the org has used up its API call limit")
                }
                "SERVER_UNAVAILABLE" => fail(
                    Code::ServerError,
                    "the login is not available at the moment",
                ),
                "UNSUPPORTED_API_VERSION" | "API_DISABLED_FOR_ORG" => fail(
                    Code::CredentialsRejected,
                    "login by user name and password is switched off for this org; use client credentials",
                ),
                "PASSWORD_LOCKOUT" => fail(Code::CredentialsRejected, "the user is locked out"),
                "INVALID_LOGIN" => fail(
                    Code::CredentialsRejected,
                    "user name, password or security token is wrong, or the user is locked out",
                ),
                _ => fail(Code::CredentialsRejected, "the login was refused"),
            };
        }
        match verdict_by_status(got) {
            Verdict::Fail(failure) | Verdict::Retry(failure) => return Err(failure),
            _ => {}
        }
        let strange = || {
            Failure::new(
                Code::UnexpectedShape,
                "the response to the login cannot be read",
            )
        };
        let token = field("sessionId").ok_or_else(strange)?;
        let server = field("serverUrl").and_then(|text| Url::parse(text).ok());
        Ok(Grant {
            access: Access {
                token: Secret::new(token.as_bytes().to_vec()),
                base: Some(self.checked_instance(server)?),
            },
            lives: None,
            rotated: None,
        })
    }
}
