//! `gateway_tokens`: the tokens that the gateway accepts.

use uuid::Uuid;

use super::{Db, read_uuid};
use crate::error::Result;

/// What a token gives access to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// `None`: every tenant.
    pub tenant: Option<Uuid>,
    pub scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Read,
    App,
}

impl Scope {
    pub fn word(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::App => "app",
        }
    }
}

/// Looks a token up by its hash. `None`: there is no such token, or it has expired.
pub fn find(db: &mut Db, hash: [u8; 32]) -> Result<Option<Grant>> {
    let rows = db.run(
        "SELECT tenant_id, scope, coalesce(last_used_at < now() - interval '1 hour', true) FROM @extschema@.gateway_tokens
         WHERE token_hash = $1 AND (expires_at IS NULL OR expires_at > now())",
        &[hash.as_slice().into()],
    )?;
    if rows.count == 0 {
        return Ok(None);
    }
    let scope: String = rows.need(0, 2)?;
    let grant = Grant {
        tenant: rows.get(0, 1)?.map(read_uuid),
        scope: match scope.as_str() {
            "app" => Scope::App,
            _ => Scope::Read,
        },
    };
    if rows.need(0, 3)? {
        db.run(
            "UPDATE @extschema@.gateway_tokens SET last_used_at = now() WHERE token_hash = $1",
            &[hash.as_slice().into()],
        )?;
    }
    Ok(Some(grant))
}
