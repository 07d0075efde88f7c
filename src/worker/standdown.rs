//! Out of the way: commands that need a database for themselves find its worker gone.
//!
//! DROP DATABASE, RENAME, SET TABLESPACE and CREATE DATABASE ... TEMPLATE fail while anybody is connected, and
//! the worker always is. A hook on utility commands sends it away first and keeps it away until the command
//! has ended, however it ends.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys::NodeTag;
use pgrx::prelude::*;

use super::launcher::{Database, scan_databases};
use crate::board;
use crate::wait::Waiter;

/// How long a command waits for the worker to be gone; then PostgreSQL's own error says that it is not.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

static mut NEXT: pg_sys::ProcessUtility_hook_type = None;

pub fn install() {
    // SAFETY: in the postmaster, while libraries are loaded one after the other.
    unsafe {
        NEXT = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(process_utility);
    }
}

/// The plain C function: pgrx's own declaration of it catches and rebuilds every ERROR.
mod plain {
    use pgrx::pg_sys;
    unsafe extern "C-unwind" {
        pub fn standard_ProcessUtility(
            statement: *mut pg_sys::PlannedStmt,
            query: *const std::ffi::c_char,
            read_only_tree: bool,
            context: pg_sys::ProcessUtilityContext::Type,
            params: pg_sys::ParamListInfo,
            environment: *mut pg_sys::QueryEnvironment,
            destination: *mut pg_sys::DestReceiver,
            completion: *mut pg_sys::QueryCompletion,
        );
    }
}

/// Every utility command of every session comes through here, so an ERROR must pass as it is, with its
/// constraint name and position. There is no guard for that reason: what may raise jumps over this frame, which
/// owns nothing.
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn process_utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: PostgreSQL hands over a valid statement, and what it handed over is passed on. NEXT is written
    // once, before any session exists.
    unsafe {
        let held = prepare((*statement).utilityStmt);
        let run = match NEXT {
            Some(next) => next,
            None => plain::standard_ProcessUtility,
        };
        if held {
            PgTryBuilder::new(std::panic::AssertUnwindSafe(|| {
                pg_sys::submodules::ffi::pg_guard_ffi_boundary(|| {
                    run(
                        statement,
                        query,
                        read_only_tree,
                        context,
                        params,
                        environment,
                        destination,
                        completion,
                    );
                });
            }))
            .finally(board::release_holds)
            .execute();
        } else {
            run(
                statement,
                query,
                read_only_tree,
                context,
                params,
                environment,
                destination,
                completion,
            );
        }
    }
}

/// Does what a command needs before it runs; true if the hold on a database has to be released after it.
#[pg_guard]
unsafe extern "C-unwind" fn prepare(statement: *mut pg_sys::Node) -> bool {
    // SAFETY: passes on what `process_utility` got.
    match unsafe { effect(statement) } {
        Effect::NeedsDatabase(name) => send_worker_away(&name),
        Effect::MayChangeExtension => {
            board::wake_at_commit();
            false
        }
        Effect::None => false,
    }
}

enum Effect {
    None,
    /// The command fails while somebody is connected to this database.
    NeedsDatabase(String),
    MayChangeExtension,
}

/// # Safety
/// `statement` is a valid parse tree or null.
unsafe fn effect(statement: *mut pg_sys::Node) -> Effect {
    let text = |name: *const std::ffi::c_char| {
        (!name.is_null()).then(|| {
            // SAFETY: a string of the parse tree.
            unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned()
        })
    };
    let needs = |name: Option<String>| name.map_or(Effect::None, Effect::NeedsDatabase);
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        let Some(node) = statement.as_ref() else {
            return Effect::None;
        };
        match node.type_ {
            NodeTag::T_DropdbStmt => needs(text((*statement.cast::<pg_sys::DropdbStmt>()).dbname)),
            NodeTag::T_RenameStmt => {
                let rename = &*statement.cast::<pg_sys::RenameStmt>();
                if rename.renameType == pg_sys::ObjectType::OBJECT_DATABASE {
                    needs(text(rename.subname))
                } else {
                    Effect::None
                }
            }
            NodeTag::T_AlterDatabaseStmt => {
                let alter = &*statement.cast::<pg_sys::AlterDatabaseStmt>();
                match option(alter.options, c"tablespace") {
                    Some(_) => needs(text(alter.dbname)),
                    None => Effect::None,
                }
            }
            NodeTag::T_CreatedbStmt => {
                let create = &*statement.cast::<pg_sys::CreatedbStmt>();
                needs(
                    option(create.options, c"template")
                        .and_then(|value| text(pg_sys::defGetString(value))),
                )
            }
            NodeTag::T_DropStmt | NodeTag::T_DropOwnedStmt | NodeTag::T_AlterExtensionStmt => {
                Effect::MayChangeExtension
            }
            _ => Effect::None,
        }
    }
}

/// # Safety
/// `options` is a list of `DefElem` or null.
unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: elements of a list of this type.
    unsafe {
        let list = options.as_ref()?;
        (0..usize::try_from(list.length).unwrap_or(0))
            .map(|i| (*list.elements.add(i)).ptr_value.cast::<pg_sys::DefElem>())
            .find(|element| {
                CStr::from_ptr((**element).defname) == name && !(**element).arg.is_null()
            })
    }
}

/// Ends the worker of a database and keeps it from coming back; true if it has to be released again. Only for
/// those who may carry such a command out: everybody else's fails by itself.
fn send_worker_away(name: &str) -> bool {
    // SAFETY: a session is always in a transaction when it runs a utility command that reads catalogs.
    if !unsafe { pg_sys::IsTransactionState() } {
        return false;
    }
    let Some(database) = scan_databases()
        .into_iter()
        .find(|d| d.name == name && may_command(d))
    else {
        return false;
    };
    board::hold(database.oid);
    board::look_around_at_commit();
    let Ok(mut waiter) = Waiter::new() else {
        return true;
    };
    let deadline = Instant::now() + LONGEST_WAIT;
    let mut told = Vec::new();
    loop {
        let workers = board::workers(database.oid);
        if workers.is_empty() {
            break;
        }
        for (_, pid) in workers {
            if !told.contains(&pid) {
                // SAFETY: the pid of a process of this server, which takes SIGTERM as an order to end.
                unsafe { libc::kill(pid, libc::SIGTERM) };
                told.push(pid);
            }
        }
        if Instant::now() > deadline {
            break;
        }
        pgrx::check_for_interrupts!();
        waiter.sleep(Duration::from_millis(10));
    }
    true
}

fn may_command(database: &Database) -> bool {
    // SAFETY: plain look-ups in caches of roles.
    unsafe { pg_sys::superuser() || pg_sys::has_privs_of_role(pg_sys::GetUserId(), database.owner) }
}
