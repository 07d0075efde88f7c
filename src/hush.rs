//! Keeps failing statements that may hold credentials out of the server's log.
//!
//! By default PostgreSQL logs the statement of every error, and the statement that saves a connector contains its credentials.
//! It may fail by a trigger or constraint, a typing mistake, a time-out, or a deadlock that somebody else reports. The log
//! then gets the error without the texts that repeat the statement: STATEMENT, DETAIL, CONTEXT, QUERY, and what the message
//! quotes. The client gets all of them: it sent the statement.
//!
//! Statements that an administrator wants to be logged (`log_statement` and the like) are logged; the doctor reports that.
//!
//! Whether a message is about credentials is decided by the names in its texts ([`mention`]). That needs no catalog, so it
//! also works in a failed transaction, in the postmaster, and in a session that has called nothing of this extension.

use std::ffi::{CStr, c_char};
use std::ptr;

use connector_service_core::secret::mention::{self, around_quotation, may_hold_credentials};
use pgrx::prelude::*;

static mut NEXT: pg_sys::emit_log_hook_type = None;

/// The text of a message for the log. It is static, because no memory is allocated while an error is being reported.
static mut MESSAGE: [u8; LONGEST_MESSAGE] = [0; LONGEST_MESSAGE];

/// Longest message in bytes, with its final NUL. Longer: only quotations are that long. Shorter: our own messages are cut.
const LONGEST_MESSAGE: usize = 1024;

const HIDDEN: &CStr = c"Hidden, because the statement may hold credentials. The client was told.";

pub fn install() {
    // SAFETY: while libraries are loaded one after the other, by the only thread.
    unsafe {
        NEXT = pg_sys::emit_log_hook;
        pg_sys::emit_log_hook = Some(emit_log);
    }
}

/// The plain C functions: pgrx's own declarations of them catch and rebuild every ERROR, in the midst of which we are.
mod plain {
    use pgrx::pg_sys;
    use std::ffi::c_char;
    unsafe extern "C-unwind" {
        pub fn EmitErrorReport();
        pub fn FetchPreparedStatement(
            name: *const c_char,
            raise: bool,
        ) -> *mut pg_sys::PreparedStatement;
    }
}

/// Every message that any process logs comes through here. There is no guard, because nothing here raises or panics; what
/// is called may raise for want of memory, and jumps over this frame, which owns nothing.
unsafe extern "C-unwind" fn emit_log(error: *mut pg_sys::ErrorData) {
    // SAFETY: PostgreSQL hands over the message that it is about to log: the topmost one of its own, which lives until it is
    // done with it. NEXT was written before there was any message.
    unsafe {
        let Some(message) = error.as_mut() else {
            return;
        };
        // A message that hides its statement is a log of statements, or is the one emitted below.
        if message.hide_stmt || !is_about_credentials(message) {
            if let Some(next) = NEXT {
                next(error);
            }
            return;
        }
        let texts = [
            message.message,
            message.detail,
            message.detail_log,
            message.context,
            message.internalquery,
        ];
        let (to_client, hides_context) = (message.output_to_client, message.hide_ctx);
        // A message that is only for the log quotes a statement only in its detail.
        let is_for_log =
            [pg_sys::LOG, pg_sys::LOG_SERVER_ONLY].contains(&message.elevel.cast_unsigned());
        if !is_for_log {
            message.message = without_quotations(message);
        }
        if !(message.detail.is_null() && message.detail_log.is_null()) {
            message.detail = HIDDEN.as_ptr().cast_mut();
        }
        message.detail_log = ptr::null_mut();
        message.context = ptr::null_mut();
        message.internalquery = ptr::null_mut();
        message.hide_stmt = true;
        message.hide_ctx = true;
        message.output_to_client = false;
        // Only for the log. The message comes through this hook again, so that other libraries' hooks see what the log gets.
        plain::EmitErrorReport();

        // From here on the message is only for the client.
        [
            message.message,
            message.detail,
            message.detail_log,
            message.context,
            message.internalquery,
        ] = texts;
        message.hide_stmt = false;
        message.hide_ctx = hides_context;
        message.output_to_client = to_client;
        message.output_to_server = false;
    }
}

/// # Safety
/// Called by the main thread, for a message that is being logged.
unsafe fn is_about_credentials(message: &pg_sys::ErrorData) -> bool {
    // SAFETY: strings of PostgreSQL's, or NULL.
    unsafe {
        let statement = bytes(pg_sys::debug_query_string);
        bytes(message.table_name) == mention::TABLE
            || may_hold_credentials(bytes(message.context))
            || may_hold_credentials(bytes(message.detail))
            || may_hold_credentials(bytes(message.detail_log))
            || may_hold_credentials(bytes(message.internalquery))
            || may_hold_credentials(statement)
            || mention::executed(statement).any(|name| is_prepared_about_credentials(&name))
    }
}

/// Whether the prepared statement with this name may hold credentials.
///
/// # Safety
/// Called by the main thread.
unsafe fn is_prepared_about_credentials(name: &mention::Name) -> bool {
    // SAFETY: ends in NUL. Looks into a table of this session's, and raises nothing.
    unsafe {
        plain::FetchPreparedStatement(name.as_ptr().cast(), false)
            .as_ref()
            .and_then(|prepared| prepared.plansource.as_ref())
            .is_some_and(|source| may_hold_credentials(bytes(source.query_string)))
    }
}

/// The message with "..." instead of what it quotes, unless that is the name of an object, or an id.
///
/// # Safety
/// Called by the main thread. What is returned is valid until the next call.
unsafe fn without_quotations(message: &pg_sys::ErrorData) -> *mut c_char {
    // SAFETY: strings of PostgreSQL's, or NULL.
    let quotation = unsafe {
        let names = [
            mention::TABLE,
            bytes(message.schema_name),
            bytes(message.table_name),
            bytes(message.column_name),
            bytes(message.datatype_name),
            bytes(message.constraint_name),
        ];
        around_quotation(bytes(message.message), &names)
    };
    let Some((before, after)) = quotation else {
        return message.message;
    };
    // SAFETY: the main thread's own, and nobody has a reference to it.
    let place = unsafe { &mut *ptr::addr_of_mut!(MESSAGE) };
    place.fill(0);
    let sentence = before.iter().chain(b"\"...\"").chain(after);
    for (to, from) in place.iter_mut().take(LONGEST_MESSAGE - 1).zip(sentence) {
        *to = *from;
    }
    place.as_mut_ptr().cast()
}

/// # Safety
/// A string of C's that outlives what is returned, or NULL.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    if text.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_bytes()
}
