//! Stops the workers of a database for commands that need the database for themselves.
//!
//! DROP DATABASE, RENAME, SET TABLESPACE and CREATE DATABASE ... TEMPLATE fail while anybody is connected, and the worker
//! always is. A hook on utility commands stops it first. A block on the board keeps it from coming back until the command has
//! ended, in whatever way.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::pg_sys::NodeTag;
use pgrx::prelude::*;

use super::launcher::{Database, scan_databases};
use crate::board;
use crate::wait::Waiter;

/// How long a command waits for the workers to end. After that PostgreSQL raises its own error.
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

/// Every utility command of every session comes through here, so an ERROR must pass unchanged, with its constraint name and
/// position. Therefore there is no guard: an ERROR jumps over this frame, which owns nothing. Nothing here runs after the
/// command either: a block ends with the statement or its transaction, by callbacks that PostgreSQL calls after an ERROR too.
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
        prepare((*statement).utilityStmt, context);
        let run = match NEXT {
            Some(next) => next,
            None => plain::standard_ProcessUtility,
        };
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

/// Does what a command needs before it runs. This function has the guard: an ERROR that is raised while it waits becomes an
/// ERROR of the command, after everything that Rust owns was dropped.
#[pg_guard]
unsafe extern "C-unwind" fn prepare(
    statement: *mut pg_sys::Node,
    context: pg_sys::ProcessUtilityContext::Type,
) {
    // SAFETY: passes on what `process_utility` got.
    match unsafe { effect(statement) } {
        Effect::NeedsDatabase { name, needs } => {
            // SAFETY: plain variables of this process.
            let alone = context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
                && !unsafe { pg_sys::IsTransactionBlock() };
            if alone || !needs.alone {
                stop_workers(&name, needs);
            }
        }
        Effect::MayChangeExtension => board::wake_workers_at_commit(),
        Effect::None => {}
    }
}

enum Effect {
    None,
    /// The command fails while somebody is connected to this database.
    NeedsDatabase {
        name: String,
        needs: Needs,
    },
    /// The command may drop the extension, or change its version.
    MayChangeExtension,
}

/// What PostgreSQL requires of such a command. For a command that is refused anyway no worker is stopped.
#[derive(Clone, Copy)]
struct Needs {
    /// The command is refused within a transaction block or a function.
    alone: bool,
    /// The command is refused from within the database itself.
    elsewhere: bool,
}

/// # Safety
/// `statement` is a valid parse tree or null.
unsafe fn effect(statement: *mut pg_sys::Node) -> Effect {
    let needs = |name: *const std::ffi::c_char, alone: bool, elsewhere: bool| {
        if name.is_null() {
            return Effect::None;
        }
        // SAFETY: a string of the parse tree.
        let name = unsafe { CStr::from_ptr(name) };
        Effect::NeedsDatabase {
            name: name.to_string_lossy().into_owned(),
            needs: Needs { alone, elsewhere },
        }
    };
    // SAFETY: each cast follows the node's own tag.
    unsafe {
        let Some(node) = statement.as_ref() else {
            return Effect::None;
        };
        match node.type_ {
            NodeTag::T_DropdbStmt => {
                needs((*statement.cast::<pg_sys::DropdbStmt>()).dbname, true, true)
            }
            NodeTag::T_RenameStmt => {
                let rename = &*statement.cast::<pg_sys::RenameStmt>();
                match rename.renameType {
                    pg_sys::ObjectType::OBJECT_DATABASE => needs(rename.subname, false, true),
                    _ => Effect::None,
                }
            }
            NodeTag::T_AlterDatabaseStmt => {
                let alter = &*statement.cast::<pg_sys::AlterDatabaseStmt>();
                match option(alter.options, c"tablespace") {
                    Some(_) => needs(alter.dbname, true, true),
                    None => Effect::None,
                }
            }
            NodeTag::T_CreatedbStmt => {
                let create = &*statement.cast::<pg_sys::CreatedbStmt>();
                match option(create.options, c"template") {
                    Some(value) => needs(pg_sys::defGetString(value), true, false),
                    None => Effect::None,
                }
            }
            NodeTag::T_DropStmt => match (*statement.cast::<pg_sys::DropStmt>()).removeType {
                pg_sys::ObjectType::OBJECT_EXTENSION | pg_sys::ObjectType::OBJECT_SCHEMA => {
                    Effect::MayChangeExtension
                }
                _ => Effect::None,
            },
            NodeTag::T_DropOwnedStmt | NodeTag::T_AlterExtensionStmt => Effect::MayChangeExtension,
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

/// Ends the workers of a database and keeps them from coming back until the command has ended. Only for roles that may run such
/// a command: for any other role the command fails by itself.
fn stop_workers(name: &str, needs: Needs) {
    // SAFETY: a session is always in a transaction when it runs a utility command that reads catalogs.
    if !unsafe { pg_sys::IsTransactionState() } {
        return;
    }
    let Some(database) = scan_databases()
        .into_iter()
        .find(|d| d.name == name && may_alter(d))
    else {
        return;
    };
    // SAFETY: fixed for the life of a session.
    if needs.elsewhere && database.oid == unsafe { pg_sys::MyDatabaseId } {
        return;
    }
    board::block_workers(database.oid);
    board::wake_launcher_at_commit();
    let Ok(mut waiter) = Waiter::new() else {
        return;
    };
    let deadline = Instant::now() + LONGEST_WAIT;
    let mut signalled = Vec::new();
    loop {
        let workers = board::workers(database.oid);
        if workers.is_empty() || Instant::now() > deadline {
            return;
        }
        for (_, pid) in workers {
            if !signalled.contains(&pid) {
                // SAFETY: the pid of a process of this server, which takes SIGTERM as an order to end.
                unsafe { libc::kill(pid, libc::SIGTERM) };
                signalled.push(pid);
            }
        }
        pgrx::check_for_interrupts!();
        waiter.sleep(Duration::from_millis(10));
    }
}

fn may_alter(database: &Database) -> bool {
    // SAFETY: plain look-ups in caches of roles.
    unsafe { pg_sys::superuser() || pg_sys::has_privs_of_role(pg_sys::GetUserId(), database.owner) }
}
