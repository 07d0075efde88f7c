//! The role whose rights a statement has.

use std::ffi::CStr;

use pgrx::prelude::*;
use uuid::Uuid;

use super::{Db, read_uuid};
use crate::error::{Error, Result};
use crate::guc;

/// The role that owns the tables, and nothing else: see sql/install/95_access.sql.
const ENGINE: &CStr = c"connector_service_engine";

const APPLICATION: &CStr = c"connector_service_app";
const ADMINISTRATOR: &CStr = c"connector_service_admin";

/// Members may act for any tenant.
const APP: [&CStr; 2] = [APPLICATION, ADMINISTRATOR];

/// A role whose rights a statement has.
pub struct Caller(pg_sys::Oid);

/// The role that the running function was called by.
pub fn caller() -> Caller {
    // SAFETY: a plain variable of this process.
    Caller(unsafe { pg_sys::GetUserId() })
}

impl Caller {
    pub fn may_act(&self) -> bool {
        APP.iter().any(|role| {
            // SAFETY: inside a transaction; a look-up that finds nothing gives InvalidOid.
            unsafe {
                let role = pg_sys::get_role_oid(role.as_ptr(), true);
                role != pg_sys::InvalidOid && pg_sys::has_privs_of_role(self.0, role)
            }
        })
    }

    /// The name of the role, for messages.
    pub fn name(&self) -> String {
        // SAFETY: inside a transaction. NULL for a role that was dropped meanwhile.
        let name = unsafe { pg_sys::GetUserNameFromId(self.0, true) };
        if name.is_null() {
            return self.0.to_u32().to_string();
        }
        // SAFETY: a string of PostgreSQL's.
        unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned()
    }
}

/// The tenants that a role, or a role it is a member of, is bound to.
pub fn bound_to(db: &mut Db, caller: &Caller) -> Result<Vec<Uuid>> {
    let rows = db.run(
        "SELECT DISTINCT b.tenant_id FROM @extschema@.tenant_roles b JOIN pg_roles r ON r.rolname = b.role_name
         WHERE pg_has_role($1, r.oid, 'USAGE')",
        &[caller.0.into()],
    )?;
    (0..rows.count)
        .map(|row| Ok(read_uuid(rows.need(row, 1)?)))
        .collect()
}

/// Runs `work` with the rights of the engine. As within a SECURITY DEFINER function nothing can change the role meanwhile,
/// so triggers on our tables cannot return to the caller's rights.
pub fn as_engine<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    as_role(ENGINE, work)
}

/// Runs `work` with the rights of an administrator.
pub fn as_administrator<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    as_role(ADMINISTRATOR, work)
}

/// Runs `work` with the rights of an application that acts for a tenant, until the end of the transaction.
pub fn acting_for<T>(tenant: Uuid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    guc::act_for(Some(tenant), false);
    as_role(APPLICATION, work)
}

fn as_role<T>(role: &CStr, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: inside a transaction; a look-up that finds nothing gives InvalidOid.
    let role = unsafe { pg_sys::get_role_oid(role.as_ptr(), true) };
    if role == pg_sys::InvalidOid {
        // CREATE EXTENSION makes the roles, and DROP ROLE cannot remove one while there is a table.
        return Err(Error::NotInstalled);
    }
    as_role_of(role, work)
}

/// Runs `work` with the rights of this role, which exists.
pub fn as_role_of<T>(role: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (mut caller, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: plain variables of this process. After an ERROR the end of the (sub)transaction puts them back.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut caller, &mut context);
        let within = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(role, within);
    }
    let result = work();
    // SAFETY: as above. This also runs after an Err, which need not end the transaction.
    unsafe { pg_sys::SetUserIdAndSecContext(caller, context) };
    result
}
