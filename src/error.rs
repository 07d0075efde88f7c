//! Turns every error of this crate into what PostgreSQL shows: SQLSTATE, message, detail and hint. This happens only here.

use connector_service_core::error::Failure;
use connector_service_core::secret::{KeyError, SealError};
use connector_service_core::source::TYPES;
use connector_service_core::source::size::{DEEPEST, LARGEST_CONFIG, MOST_VALUES};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};
use uuid::Uuid;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Definition(#[from] Failure),
    #[error("connector type \"{0}\" is not known")]
    UnknownType(String),
    #[error("config is not a JSON object")]
    ConfigNotAnObject,
    /// The failure says which limit the config exceeds.
    #[error("{0}")]
    ConfigOverLimit(Failure),
    #[error("config is too large or nested too deep")]
    ConfigTooLarge,
    #[error("credentials is too large or nested too deep")]
    CredentialsTooLarge,
    /// The argument with this name must not be NULL.
    #[error("{0} is NULL")]
    Null(&'static str),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Holds the fingerprint of the key that should be there.
    #[error("the key file is missing")]
    KeyFileMissing(String),
    #[error("the key file does not contain the key of this database's credentials")]
    OtherKeyFile(String),
    /// The message does not repeat the text: somebody may have given the key itself instead of its id.
    #[error("the text is not a key id")]
    NoKeyId,
    #[error("key \"{0}\" is in use")]
    KeyInUse(String),
    #[error("connector \"{0}\" does not exist")]
    UnknownConnector(Uuid),
    /// Holds the name, and names that are like it.
    #[error("connector \"{0}\" does not exist")]
    UnknownName(String, Vec<String>),
    /// Holds the name, and the connectors that have it.
    #[error("more than one connector is named \"{0}\"")]
    ManyNamed(String, Vec<Uuid>),
    #[error("tenant \"{0}\" does not exist")]
    UnknownTenant(Uuid),
    /// Holds the table.
    #[error("permission denied to delete rows of {0}")]
    MayNotDelete(&'static str),
    /// Holds the connector and its type.
    #[error("connector \"{0}\" takes no files")]
    TakesNoFiles(Uuid, String),
    #[error("metric type \"{0}\" is not known")]
    UnknownMetricType(String),
    #[error("connector \"{0}\" is paused")]
    Paused(Uuid),
    /// Holds the bytes of the file, and the limit.
    #[error("the file has {0} bytes; at most {1} are allowed")]
    FileOverLimit(usize, usize),
    #[error("the name of the file is empty, too long or has control characters")]
    NoFileName,
    #[error("sync frequency \"{0}\" is not known, or has no schedule")]
    UnknownFrequency(String),
    #[error("{0}")]
    WrongSpan(&'static str),
    /// Holds the largest number of windows.
    #[error("more than {0} backfill windows would wait for this connector")]
    TooManyWindows(i64),
    #[error("connector \"{0}\" is being synced, or changed by another transaction")]
    Syncing(Uuid),
    /// Holds the stream, and the known streams.
    #[error("stream \"{0}\" has not been read yet")]
    UnknownStream(String, Vec<String>),
    #[error("a regular expression of a mapping has a back reference")]
    RefersBack(String),
    #[error("a path of a mapping has more than one \".**\"")]
    ManyDescents(String),
    #[error("facts and metrics can only be changed in a transaction that is READ COMMITTED")]
    Isolation,
    #[error("role \"{0}\" acts for no tenant")]
    NoTenant(String),
    #[error("role \"{0}\" is bound to more than one tenant")]
    ManyTenants(String),
    #[error("connector_service was not loaded when the server started")]
    NotPreloaded,
    #[error("the extension connector_service is not installed in this database")]
    NotInstalled,
    /// The run was cancelled, deleted or taken by another worker, so nothing may be written for it.
    #[error("run \"{0}\" no longer belongs to this worker")]
    Fenced(Uuid),
    /// The work was ended by its own alarm: `store::limited`, `store::Alarm`.
    #[error("it took longer than {0:?}")]
    TookTooLong(std::time::Duration),
    /// A unit of work of this tenant cannot be divided further and costs too much, for this reason.
    #[error("tenant \"{0}\": {1}")]
    Costly(Uuid, String),
    /// Raised deliberately to roll a trial back.
    #[error("trial rolled back")]
    RolledBack,
    /// An error raised by PostgreSQL, caught by `store::tx`.
    #[error("{message}")]
    Sql {
        code: PgSqlErrorCode,
        /// The SQLSTATE itself: `code` has only the ones of PostgreSQL's list.
        state: String,
        message: String,
    },
    #[error("unexpected result of a statement: {0}")]
    Spi(#[from] pgrx::spi::Error),
}

impl Error {
    /// Whether the same transaction may well succeed when tried again at once.
    pub fn is_momentary(&self) -> bool {
        matches!(
            self,
            Error::Sql {
                code: PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
                    | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                    | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
                    | PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                ..
            }
        )
    }

    /// Whether a person, or an alarm, ended the statement.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Error::Sql {
                code: PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                ..
            }
        )
    }

    /// Whether another session held a lock that this one waited for.
    pub fn is_about_a_lock(&self) -> bool {
        matches!(
            self,
            Error::Sql {
                code: PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                    | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
                ..
            }
        )
    }

    /// Whether the work cost more time or memory than it may.
    pub fn is_about_cost(&self) -> bool {
        match self {
            Error::TookTooLong(_) => true,
            // Exhausted shared memory has the same SQLSTATE, but no record caused it.
            Error::Sql { code, message, .. } => {
                *code == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY && message == "out of memory"
                    || *code == PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED
            }
            _ => false,
        }
    }

    /// Whether a row with the same key was there already.
    pub fn is_duplicate(&self) -> bool {
        matches!(
            self,
            Error::Sql {
                code: PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
                ..
            }
        )
    }

    /// Whether a value of the data is to blame: SQLSTATE class 22 and 23, program limits, and what a trigger
    /// of the user's own raises, in PostgreSQL's class for that or with a SQLSTATE of its own.
    pub fn is_about_data(&self) -> bool {
        let Error::Sql { code, state, .. } = self else {
            return false;
        };
        let is_of_others =
            *code == PgSqlErrorCode::ERRCODE_INTERNAL_ERROR && !state.starts_with("XX");
        is_of_others || matches!(state.get(..2), Some("22" | "23" | "54" | "P0"))
    }

    /// Whether PostgreSQL, or a trigger of the user's, refuses the statement and will refuse it again. False for errors that
    /// come from the state of the server: no space, no connections, a shutdown, a lock.
    pub fn is_refusal(&self) -> bool {
        let Error::Sql { state, .. } = self else {
            return false;
        };
        let is_of_server = matches!(state.get(..2), Some("40" | "53" | "57" | "58"));
        !is_of_server && !matches!(state.as_str(), "25006" | "55006" | "55P03")
    }

    /// What went wrong, on one line and cut to a length that fits a log or a row: a user's trigger may raise any text.
    pub fn one_line(&self) -> String {
        let message = self.to_string();
        let line = message.replace(|c: char| c.is_control(), " ");
        let line = match line.get(..line.floor_char_boundary(LONGEST_LINE)) {
            Some(cut) if cut.len() < line.len() => format!("{cut}..."),
            _ => line,
        };
        match self {
            Error::Sql { state, .. } => format!("{line} (SQLSTATE {state})"),
            _ => line,
        }
    }

    /// The SQLSTATE, to show it in a message.
    pub fn sqlstate(&self) -> String {
        match self {
            Error::Sql { state, .. } => state.clone(),
            Error::TookTooLong(_) | Error::Costly(..) => {
                sqlstate(PgSqlErrorCode::ERRCODE_QUERY_CANCELED)
            }
            _ => sqlstate(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR),
        }
    }
}

/// Longest part of a foreign message, in bytes. Longer: rows and log lines grow long. Shorter: a person misses the reason.
const LONGEST_LINE: usize = 400;

const KEY_FILE: &str = "Restore the file that contains this key, or add its lines to the current file; see connector_service.key_file.";

/// PostgreSQL packs the five characters into six bits each, the first one lowest.
fn sqlstate(code: PgSqlErrorCode) -> String {
    unpack(code as u32)
}

/// The five characters of a SQLSTATE.
pub fn unpack(bits: u32) -> String {
    (0..5)
        .map(|i| char::from(((bits >> (6 * i)) & 0x3F) as u8 + b'0'))
        .collect()
}

/// Longest message in bytes. Longer: a name of a megabyte would be logged whole. Shorter: messages that list known values are
/// cut.
const LONGEST_MESSAGE: usize = 2000;

/// A number with its noun, which takes an "s" unless the number is 1.
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

fn quoted<T: std::fmt::Display>(things: &[T]) -> String {
    let quoted: Vec<String> = things.iter().map(|thing| format!("\"{thing}\"")).collect();
    quoted.join(", ")
}

fn bounded(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE));
        message.push_str("...");
    }
    message
}

/// Warns of a failure that is not an error yet, but that every run will have.
pub fn warning_of(failure: &Failure) -> ErrorReport {
    let message = bounded(format!("syncs of this connector will fail: {failure}"));
    ErrorReport::new(PgSqlErrorCode::ERRCODE_WARNING, message, function_name!())
        .set_hint(failure.code.hint())
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> ErrorReport {
        let message = bounded(error.to_string());
        let report = |code| ErrorReport::new(code, message, function_name!());
        match error {
            Error::Definition(failure) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_hint(failure.code.hint()),
            Error::UnknownType(_) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_detail(format!("Known types: {}.", TYPES.join(", ")))
                .set_hint("connector_service_catalog() describes each type."),
            Error::ConfigNotAnObject => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE),
            Error::ConfigOverLimit(_) | Error::ConfigTooLarge => {
                report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                    .set_detail(format!(
                        "A config has at most {LARGEST_CONFIG} bytes, {MOST_VALUES} values and {DEEPEST} levels."
                    ))
                    .set_hint("Leave out what the source does not need, such as the schemas of a manifest, or split the connector into several.")
            }
            Error::CredentialsTooLarge => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_hint("Keep only secrets in credentials, and everything else in config."),
            Error::Null(_) => report(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED),
            Error::Seal(error) => report(match error {
                SealError::NotHere { .. } => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                SealError::NoKey { .. } | SealError::KeyMissing { .. } => {
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
                }
                SealError::NoRandomness => PgSqlErrorCode::ERRCODE_SYSTEM_ERROR,
                _ => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            })
            .set_hint(error.hint()),
            Error::Key(error) => report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                .set_hint(error.hint()),
            Error::KeyFileMissing(id) => {
                report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                    .set_detail(format!("Credentials are sealed with key {id}."))
                    .set_hint(KEY_FILE)
            }
            Error::OtherKeyFile(id) => {
                report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                    .set_detail(format!("Credentials are sealed with key {id}, which is not in the file."))
                    .set_hint(KEY_FILE)
            }
            Error::NoKeyId => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_hint("connector_service_keys() lists the ids of the keys in use."),
            Error::KeyInUse(_) => report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                .set_detail("Credentials of this database are sealed with it.")
                .set_hint("Seal them with a new key first: CALL connector_service_rotate_key();"),
            Error::UnknownConnector(_) => report(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT)
                .set_hint("Take a connector_id from the table connectors."),
            Error::UnknownName(_, like) => report(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT).set_hint(match like.is_empty() {
                true => "Take a name or a connector_id from the table connectors.".to_owned(),
                false => format!("Did you mean {}?", bounded(quoted(&like))),
            }),
            Error::ManyNamed(_, connectors) => report(PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION)
                .set_detail(bounded(format!("They are {}.", quoted(&connectors))))
                .set_hint("Give the connector_id; the table connectors tells whose each is."),
            Error::UnknownTenant(_) => report(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT)
                .set_hint("Take a tenant_id from the table tenants."),
            Error::MayNotDelete(_) => report(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE)
                .set_hint("Who may write the connectors of a tenant may do this: an administrator, an application, or the tenant's own role."),
            Error::TakesNoFiles(_, source) => {
                report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                    .set_detail(format!("Its type is {source}."))
                    .set_hint("Only connectors of type csv and excel take files.")
            }
            Error::UnknownMetricType(_) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_detail("Known metric types: costs, inventory, refunds, revenue, staffing, and the measures of the tenant.")
                .set_hint("Give refunds for the part of costs that was paid back to customers, and costs for all of them."),
            Error::Paused(_) => report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                .set_hint("Set its status to active first."),
            Error::FileOverLimit(..) => {
                report(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
                    .set_hint("Split the file, or raise connector_service.max_upload_size.")
            }
            Error::NoFileName => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_hint("Give a name such as sales.csv. A later file with the same name corrects this one."),
            Error::UnknownFrequency(_) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_detail("Frequencies with a schedule: daily, hourly, weekly.")
                .set_hint("Leave p_frequency out to queue connectors of all frequencies."),
            Error::WrongSpan(_) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_hint("Give a start, a later end and a step, such as '2024-01-01', '2025-01-01', '7 days'."),
            Error::TooManyWindows(_) => report(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED)
                .set_hint("Give a longer p_step, such as '7 days', or wait until queued windows have ended."),
            Error::Syncing(_) => report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                .set_hint("Wait for the run with connector_service_sync_wait(), or end it with connector_service_cancel(). Then try again."),
            Error::UnknownStream(_, known) => report(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT)
                .set_detail(match known.is_empty() {
                    true => "No stream of this connector has been read.".to_owned(),
                    false => format!("Streams of this connector that have been read: {}.", known.join(", ")),
                })
                .set_hint("Give one of these streams, or sync the connector first."),
            Error::RefersBack(path) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_detail(format!("A back reference can take hours on a text of a few dozen characters. The path is: {path}"))
                .set_hint("Write the pattern without \\1 to \\9, or compare in a filter of its own."),
            Error::ManyDescents(path) => report(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE)
                .set_detail(format!("Each \".**\" visits all values below every value, so two of them can take very long. One in items_path counts for every other path. The path is: {path}"))
                .set_hint("Name the keys on the way, such as $.lines[*].price."),
            Error::Isolation => report(PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION)
                .set_detail("They are summed from what is committed when their lock is taken.")
                .set_hint("Use READ COMMITTED for statements that change records, mappings, exchange rates or tenants."),
            Error::NoTenant(_) => report(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE)
                .set_detail("Every row belongs to a tenant, and only this tenant sees it.")
                .set_hint("A member of connector_service_app names the tenant in the same transaction: SELECT connector_service_act_for('<tenant>'). For any other role, an administrator adds a row to tenant_roles."),
            Error::ManyTenants(_) => report(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE)
                .set_detail("Rows of tenant_roles count for the role itself and for each role that it is a member of.")
                .set_hint("An administrator must leave only one of these rows in tenant_roles."),
            Error::NotPreloaded => report(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE)
                .set_detail("No worker runs, so nothing is synced.")
                .set_hint(
                    "Add connector_service to shared_preload_libraries and restart the server.",
                ),
            Error::NotInstalled => report(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT)
                .set_hint("CREATE EXTENSION connector_service;"),
            Error::Sql { code, .. } => report(code),
            Error::TookTooLong(_) | Error::Costly(..) => report(PgSqlErrorCode::ERRCODE_QUERY_CANCELED),
            Error::Fenced(_) | Error::RolledBack | Error::Spi(_) => {
                report(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR)
                    .set_hint("Please report this with the server log.")
            }
        }
    }
}
