//! Requests that are let in by a token.

use connector_service_core::serve::{Answer, Ask, Token};
use pgrx::PgSqlErrorCode;
use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::store::token::{self, Grant, Scope};
use crate::store::{Db, access, connector, installation, key, limited, read};
use crate::{activity, board, guc, trouble};

pub fn answer(what: &Ask) -> Answer {
    let _doing = activity::doing(named(what));
    let answered = match what {
        Ask::Ready => return ready(),
        // Stored elsewhere, many at once.
        Ask::Webhook(_) => return Answer::not_found(),
        Ask::Prometheus(token) => work(*token, Scope::Read, |db, grant| {
            if grant.tenant.is_some() {
                return Ok(forbidden());
            }
            let text = access::as_administrator(|| read::prometheus(db))?;
            Ok(Answer::samples(text))
        }),
        Ask::Metrics(token, asked) => work(*token, Scope::Read, |db, grant| {
            if !opens(grant, asked.tenant) {
                return Ok(forbidden());
            }
            let kind = asked.metric_type.as_deref();
            let after = asked.after.as_ref();
            let after = after.map(|(day, kind)| (*day, kind.as_str()));
            let days = (asked.from, asked.to);
            read::check_period(db, asked.tenant, kind, days)?;
            let page = access::acting_for(asked.tenant, || {
                read::metrics(db, asked.tenant, kind, days, after, asked.limit)
            })?;
            Ok(match page {
                Some(page) => Answer::json(200, page),
                None => Answer::refusal(
                    413,
                    "too_large",
                    "the page is too large; give a smaller limit",
                ),
            })
        }),
        Ask::MayUpload(token) => work(*token, Scope::App, |_, _| Ok(Answer::json(200, "{}"))),
        Ask::Tenants(token) => work(*token, Scope::Read, |db, grant| {
            let tenants = read::tenants(db, grant.tenant)?;
            let scope = grant.scope.word();
            let body = format!(r#"{{"tenants": {tenants}, "scope": "{scope}"}}"#);
            Ok(Answer::json(200, body))
        }),
        Ask::Overview(token, tenant) => work(*token, Scope::Read, |db, grant| {
            if !opens(grant, *tenant) {
                return Ok(forbidden());
            }
            let body = access::acting_for(*tenant, || read::overview(db, *tenant))?;
            Ok(Answer::json(200, body))
        }),
        Ask::Resolve(token, alert) => work(*token, Scope::App, |db, grant| {
            let tenant = read::tenant_of_alert(db, *alert)?;
            let Some(tenant) = tenant.filter(|tenant| opens(grant, *tenant)) else {
                return Ok(unknown("alert"));
            };
            let is_resolved = access::acting_for(tenant, || read::resolve(db, *alert))?;
            Ok(match is_resolved {
                true => Answer::json(200, r#"{"resolved": true}"#),
                false => unknown("open alert"),
            })
        }),
        Ask::Replay(token, connector) => work(*token, Scope::App, |db, grant| {
            let Some(tenant) = tenant_of(db, grant, *connector)? else {
                return Ok(unknown("connector"));
            };
            let replayed = access::acting_for(tenant, || read::replay(db, *connector))?;
            Ok(Answer::json(200, json!({"replayed": replayed}).to_string()))
        }),
        Ask::Sync(token, connector) => work(*token, Scope::App, |db, grant| {
            let Some(tenant) = tenant_of(db, grant, *connector)? else {
                return Ok(unknown("connector"));
            };
            let run = access::acting_for(tenant, || read::sync(db, *connector))?;
            Ok(match run {
                Some(run) => {
                    let body = json!({"connector_id": connector, "run_id": run});
                    Answer::json(202, body.to_string())
                }
                None => Answer::refusal(
                    409,
                    "not_queued",
                    "the connector is paused, takes only files or webhooks, or is being changed by another transaction",
                ),
            })
        }),
        Ask::Upload(token, upload) => work(*token, Scope::App, |db, grant| {
            let Some(tenant) = tenant_of(db, grant, upload.connector)? else {
                return Ok(unknown("connector"));
            };
            let run = access::acting_for(tenant, || {
                read::upload(db, upload.connector, &upload.file, &upload.body)
            })?;
            let body = json!({"connector_id": upload.connector, "run_id": run});
            Ok(Answer::json(202, body.to_string()))
        }),
    };
    match answered {
        Ok(answer) => {
            trouble::over(COULD_NOT_ANSWER);
            answer
        }
        Err(error) => refusal(&error),
    }
}

const COULD_NOT_ANSWER: &str = "gateway could not answer a request";

/// What is done for a request, for pg_stat_activity.
fn named(what: &Ask) -> &'static str {
    match what {
        Ask::Ready => "checking whether the gateway is ready",
        Ask::Webhook(_) => "storing a webhook",
        Ask::Prometheus(_) => "reading samples for Prometheus",
        Ask::Metrics(..) => "reading metrics",
        Ask::MayUpload(_) => "checking the token of an upload",
        Ask::Tenants(_) => "reading tenants",
        Ask::Overview(..) => "reading an overview",
        Ask::Resolve(..) => "resolving an alert",
        Ask::Replay(..) => "replaying a connector's quarantine",
        Ask::Sync(..) => "queueing a sync",
        Ask::Upload(..) => "storing a file",
    }
}

/// Runs `work` in a transaction for whoever has the token, if it opens that much.
fn work(
    token: Token,
    needed: Scope,
    work: impl FnOnce(&mut Db, Grant) -> Result<Answer>,
) -> Result<Answer> {
    limited(guc::gateway_timeout(), |db| {
        match token::find(db, token.0)? {
            None => Ok(Answer::unauthorized()),
            Some(grant) if grant.scope < needed => Ok(forbidden()),
            Some(grant) => work(db, grant),
        }
    })
}

fn opens(grant: Grant, tenant: Uuid) -> bool {
    grant.tenant.is_none_or(|own| own == tenant)
}

/// The tenant of a connector that the token opens.
fn tenant_of(db: &mut Db, grant: Grant, connector: Uuid) -> Result<Option<Uuid>> {
    let tenant = connector::tenant(db, connector)?;
    Ok(tenant.filter(|tenant| opens(grant, *tenant)))
}

fn forbidden() -> Answer {
    Answer::refusal(403, "forbidden", "the token does not allow this")
}

fn unknown(what: &str) -> Answer {
    let message = format!("no such {what}, or the token does not allow access to it");
    Answer::refusal(404, "not_found", &message)
}

/// What an error means to who asked. What PostgreSQL says of a value of theirs is theirs to read; anything else is not.
fn refusal(error: &Error) -> Answer {
    let Error::Sql { code, message, .. } = error else {
        trouble::trouble(COULD_NOT_ANSWER, error);
        return Answer::refusal(
            500,
            "internal",
            "the request failed; the server's log says why",
        );
    };
    let refuse = |status, word| Answer::refusal(status, word, message);
    match *code {
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
        | PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED => refuse(400, "bad_request"),
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => forbidden(),
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT => refuse(404, "not_found"),
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => refuse(409, "wrong_state"),
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED => refuse(413, "too_large"),
        PgSqlErrorCode::ERRCODE_QUERY_CANCELED => Answer::refusal(
            504,
            "timeout",
            "the request took too long, and was rolled back",
        ),
        _ if error.is_momentary() => Answer::busy(1),
        _ => {
            trouble::trouble(COULD_NOT_ANSWER, error);
            Answer::refusal(
                500,
                "internal",
                "the request failed; the server's log says why",
            )
        }
    }
}

/// Whether requests would be processed.
fn ready() -> Answer {
    let problems = limited(guc::gateway_timeout(), |db| {
        let installation = installation::look(db)?;
        let mut problems = Vec::new();
        let library = env!("CARGO_PKG_VERSION");
        if installation.version != library {
            problems.push(format!(
                "the library is version {library}, the installed SQL is version {}",
                installation.version
            ));
        }
        problems.extend(installation.held);
        if let Err(error) = key::load(db) {
            problems.push(error.to_string());
        }
        // SAFETY: fixed for the life of a process.
        let database = unsafe { pgrx::pg_sys::MyDatabaseId };
        if board::sync_workers(database).is_empty() {
            problems.push("no sync worker runs".to_owned());
        }
        Ok(problems)
    });
    let problems = problems.unwrap_or_else(|error| vec![error.to_string()]);
    let body = json!({"ready": problems.is_empty(), "problems": problems}).to_string();
    Answer::json(if problems.is_empty() { 200 } else { 503 }, body)
}
