//! Every setting: its definition, and a typed reader. No secret is ever a setting.
//!
//! Only the main thread may read them; a run gets a copy of its limits when it is handed out.

use std::ffi::{CStr, CString, OsStr, c_char, c_void};
use std::fmt::Display;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use connector_service_core::fetch::Limits;
use connector_service_core::guard::Allowed;
use connector_service_core::json::RecordLimits;
use connector_service_core::secret::keyfile;
use connector_service_core::serve::Addresses;
use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum, pg_sys};
use uuid::Uuid;

#[derive(Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum Scheduler {
    #[name = c"auto"]
    Auto,
    #[name = c"pg_cron"]
    PgCron,
    #[name = c"worker"]
    Worker,
}

static MAX_CONCURRENT_SYNCS: GucSetting<i32> = GucSetting::<i32>::new(32);
static SYNC_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static RUN_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(90 * DAY);
static REQUEST_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(7 * DAY);
static QUARANTINE_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(365 * DAY);
static ALERT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(365 * DAY);
static RAW_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_SYNCS_PER_TENANT: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_SYNCS_PER_ACCOUNT: GucSetting<i32> = GucSetting::<i32>::new(8);
static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static READ_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static REQUEST_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(120_000);
static MAX_RESPONSE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(32 * 1024);
static MAX_UPLOAD_SIZE: GucSetting<i32> = GucSetting::<i32>::new(512 * 1024);
static MAX_RECORD_SIZE: GucSetting<i32> = GucSetting::<i32>::new(4 * 1024);
static MAX_PAGES: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static REQUEST_RETRIES: GucSetting<i32> = GucSetting::<i32>::new(4);
static RETRY_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(500);
static LONGEST_PAUSE: GucSetting<i32> = GucSetting::<i32>::new(30_000);
static ALLOWED_PRIVATE_HOSTS: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static SCHEDULER: GucSetting<Scheduler> = GucSetting::<Scheduler>::new(Scheduler::Auto);

static GATEWAY_LISTEN: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static GATEWAY_DATABASE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static GATEWAY_CERTIFICATE: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static GATEWAY_PRIVATE_KEY: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static GATEWAY_MAX_CONNECTIONS: GucSetting<i32> = GucSetting::<i32>::new(200);
static GATEWAY_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);

static TENANT_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);

/// A day in minutes, the unit of the retention settings.
const DAY: i32 = 24 * 60;

/// Deepest nesting of a stored record. Deeper: PostgreSQL's recursive functions over jsonb come near
/// max_stack_depth. Shallower: real documents would be turned away.
const MAX_DEPTH: usize = 512;

/// Longest vendor id in bytes. Longer: stream and id together no longer fit an index row (2,704 bytes).
const MAX_KEY: usize = 1024;

pub fn define() {
    let int = |name, short, long, setting, min, max, flags| {
        GucRegistry::define_int_guc(
            name,
            short,
            long,
            setting,
            min,
            max,
            GucContext::Sighup,
            flags,
        );
    };
    let none = GucFlags::default();
    let ms = GucFlags::UNIT_MS;
    let kb = GucFlags::UNIT_KB;
    int(
        c"connector_service.max_concurrent_syncs",
        c"How many connectors one database syncs at once.",
        c"More connectors wait in the queue.",
        &MAX_CONCURRENT_SYNCS,
        1,
        1000,
        none,
    );
    int(
        c"connector_service.sync_workers",
        c"How many processes sync one database.",
        c"Each tenant belongs to one worker, and max_concurrent_syncs applies to each worker. Raise it for many tenants, where one core is not enough.",
        &SYNC_WORKERS,
        1,
        MOST_WORKERS,
        none,
    );
    let min = GucFlags::UNIT_MIN;
    int(
        c"connector_service.run_retention",
        c"How long runs that ended are kept.",
        c"0: they are kept forever. The last run of a connector is always kept.",
        &RUN_RETENTION,
        0,
        i32::MAX,
        min,
    );
    int(
        c"connector_service.request_retention",
        c"How long the requests of runs are kept in sync_requests.",
        c"0: as long as their runs.",
        &REQUEST_RETENTION,
        0,
        i32::MAX,
        min,
    );
    int(
        c"connector_service.quarantine_retention",
        c"How long quarantined records are kept after they were last seen.",
        c"0: they are kept forever.",
        &QUARANTINE_RETENTION,
        0,
        i32::MAX,
        min,
    );
    int(
        c"connector_service.alert_retention",
        c"How long alerts are kept after they were resolved.",
        c"0: they are kept forever. Open alerts are always kept.",
        &ALERT_RETENTION,
        0,
        i32::MAX,
        min,
    );
    int(
        c"connector_service.raw_retention",
        c"How long the JSON of a record is kept after its latest version was stored.",
        c"0: it is kept forever. Facts and metrics stay. raw_retention in the config of a connector comes before it.",
        &RAW_RETENTION,
        0,
        i32::MAX,
        min,
    );
    int(
        c"connector_service.max_syncs_per_tenant",
        c"How many connectors of one tenant are synced at once.",
        c"0: half of max_concurrent_syncs in a database with several tenants, so that a tenant whose sources hang does not hold up the others.",
        &MAX_SYNCS_PER_TENANT,
        0,
        1000,
        none,
    );
    int(
        c"connector_service.max_syncs_per_account",
        c"How many syncs of one account at a vendor, or of one host, run at once.",
        c"Each tenant is counted by itself: accounts of two tenants are never the same.",
        &MAX_SYNCS_PER_ACCOUNT,
        1,
        1000,
        none,
    );
    int(
        c"connector_service.connect_timeout",
        c"Longest wait for a connection to a source.",
        c"Covers name resolution, TCP and TLS.",
        &CONNECT_TIMEOUT,
        10,
        600_000,
        ms,
    );
    int(
        c"connector_service.read_timeout",
        c"Longest time without data from a source, before and within a response.",
        c"",
        &READ_TIMEOUT,
        10,
        3_600_000,
        ms,
    );
    int(
        c"connector_service.request_timeout",
        c"Longest time for one request and its whole response.",
        c"Ends a request whose source sends data, but too slowly.",
        &REQUEST_TIMEOUT,
        10,
        86_400_000,
        ms,
    );
    int(
        c"connector_service.max_response_size",
        c"Largest response body, after decompression.",
        c"The worker holds at most two bodies of more than 1 MB at once.",
        &MAX_RESPONSE_SIZE,
        64,
        262_144,
        kb,
    );
    int(
        c"connector_service.max_upload_size",
        c"Largest file that can be uploaded.",
        c"The file is kept in the database until its rows are stored.",
        &MAX_UPLOAD_SIZE,
        64,
        1_000_000,
        kb,
    );
    int(
        c"connector_service.max_record_size",
        c"Largest record that is stored; a larger one goes to the quarantine.",
        c"",
        &MAX_RECORD_SIZE,
        1,
        65_536,
        kb,
    );
    int(
        c"connector_service.max_pages",
        c"Most pages that one run reads of one stream.",
        c"Stops a source whose paging never ends.",
        &MAX_PAGES,
        1,
        i32::MAX,
        none,
    );
    int(
        c"connector_service.request_retries",
        c"How often a failed request is retried within a run.",
        c"After the last retry the run fails. The connector is retried later by itself.",
        &REQUEST_RETRIES,
        0,
        20,
        none,
    );
    int(
        c"connector_service.retry_pause",
        c"Pause before the first retry of a request.",
        c"The pause doubles with every retry, with jitter.",
        &RETRY_PAUSE,
        1,
        60_000,
        ms,
    );
    int(
        c"connector_service.longest_pause",
        c"Longest pause within a run.",
        c"If a source asks for a longer pause, the run goes back to the queue until the pause is over.",
        &LONGEST_PAUSE,
        0,
        3_600_000,
        ms,
    );
    int(
        c"connector_service.gateway_max_connections",
        c"Most connections to the gateway of a database at once.",
        c"A new connection may replace one that has not sent a whole request. Read when the gateway starts.",
        &GATEWAY_MAX_CONNECTIONS,
        1,
        10_000,
        none,
    );
    int(
        c"connector_service.gateway_timeout",
        c"Longest time to receive the head of a request to the gateway, to receive its body, and to answer it.",
        c"Read when the gateway starts.",
        &GATEWAY_TIMEOUT,
        100,
        600_000,
        ms,
    );
    for (name, short, setting) in [
        (
            c"connector_service.gateway_certificate",
            c"File with the certificate of the gateway and its chain, in PEM.",
            &GATEWAY_CERTIFICATE,
        ),
        (
            c"connector_service.gateway_private_key",
            c"File with the private key of the gateway's certificate, in PEM.",
            &GATEWAY_PRIVATE_KEY,
        ),
    ] {
        GucRegistry::define_string_guc(
            name,
            short,
            c"Without certificate and key the gateway speaks plain HTTP. Both files are read again when the configuration is reloaded.",
            setting,
            GucContext::Sighup,
            GucFlags::SUPERUSER_ONLY,
        );
    }
    GucRegistry::define_enum_guc(
        c"connector_service.scheduler",
        c"What queues connectors that are due.",
        c"auto: pg_cron for the frequencies that it has jobs for in the database, else the sync worker. New, resumed, corrected and failed connectors are the sync worker's.",
        &SCHEDULER,
        GucContext::Sighup,
        none,
    );
    GucRegistry::define_string_guc(
        c"connector_service.gateway_database",
        c"The database whose gateway listens at the address that names no database.",
        c"Empty: of the databases that have the extension, the one that was created first.",
        &GATEWAY_DATABASE,
        GucContext::Sighup,
        none,
    );
    // SAFETY: the hook is guarded against panics.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"connector_service.allowed_private_hosts",
            c"Hosts that connectors may call although they are not public, also over http.",
            c"Host names, addresses and networks, separated by commas.",
            &ALLOWED_PRIVATE_HOSTS,
            GucContext::Sighup,
            // The list shows what is in the internal network.
            GucFlags::SUPERUSER_ONLY,
            Some(check_allowed_private_hosts),
            None,
            None,
        );
        GucRegistry::define_string_guc_with_hooks(
            c"connector_service.gateway_listen",
            c"Where the HTTP gateway listens: address:port or database=address:port, separated by commas.",
            c"Empty: there is no gateway. An address without a database is for one database: see connector_service.gateway_database.",
            &GATEWAY_LISTEN,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_gateway_listen),
            None,
            None,
        );
    }
    define_tenant_id();
}

/// The tenant that an application acts for. Only [`act_for`] sets it, and the grants of the SQL function decide who may call
/// that. A function is used, because PostgreSQL 14 has no privilege to SET a parameter.
fn define_tenant_id() {
    GucRegistry::define_string_guc(
        TENANT_ID_NAME,
        c"Tenant whose rows an application sees; set by connector_service_act_for().",
        c"",
        &TENANT_ID,
        GucContext::Suset,
        GucFlags::default(),
    );
}

const TENANT_ID_NAME: &CStr = c"connector_service.tenant_id";

/// The tenant that the application acts for. `None` also for a value that is not a UUID.
pub fn acting_for() -> Option<Uuid> {
    TENANT_ID.get()?.to_str().ok()?.parse().ok()
}

pub fn act_for(tenant: Option<Uuid>, session: bool) {
    let value = tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
    let value = CString::new(value).unwrap_or_default();
    let action = if session {
        pg_sys::GucAction::GUC_ACTION_SET
    } else {
        pg_sys::GucAction::GUC_ACTION_LOCAL
    };
    // SAFETY: both strings live for the call. With a superuser's rights, for this one setting.
    unsafe {
        pg_sys::set_config_option(
            TENANT_ID_NAME.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Defines the settings that can be set only when the server starts, so only where the library is preloaded.
pub fn define_at_start() {
    GucRegistry::define_string_guc(
        c"connector_service.key_file",
        c"File with the keys that credentials are sealed with.",
        c"The first credential creates it. Default: beside the data directory, with its name and the suffix .connector_service.key; where the server cannot write there, in the home of its user, or else inside the data directory.",
        &KEY_FILE,
        GucContext::Postmaster,
        GucFlags::SUPERUSER_ONLY,
    );
}

/// The places where the key file may be, the best one first: where the setting says; else beside the data directory, in the
/// home of the server's user, or inside the data directory. The last one is the last resort, because a base backup then
/// contains the key together with the credentials that it seals.
pub fn key_files() -> Vec<PathBuf> {
    if let Some(file) = path(&KEY_FILE) {
        return vec![file];
    }
    // SAFETY: set when the server starts, and never changed.
    let data = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    let data = OsStr::from_bytes(data.to_bytes());
    let mut beside = data.to_owned();
    beside.push(".connector_service.key");
    let inside = PathBuf::from(data).join("connector_service.key");
    // SAFETY: read from the control file when the server starts.
    let server = unsafe { pg_sys::GetSystemIdentifier() };
    let home = keyfile::home().filter(|home| !home.starts_with(data));
    // Several servers of one user each have a file.
    let at_home = home.map(|home| home.join(format!(".connector_service.{server}.key")));
    [Some(PathBuf::from(beside)), at_home, Some(inside)]
        .into_iter()
        .flatten()
        .collect()
}

/// Whether a file is in the data directory, which a base backup copies.
pub fn is_in_data_directory(file: &Path) -> bool {
    // SAFETY: as above.
    let data = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    // A relative path begins in the data directory.
    let file = Path::new(OsStr::from_bytes(data.to_bytes())).join(file);
    let above = |part: Component| part == Component::ParentDir;
    file.starts_with(OsStr::from_bytes(data.to_bytes())) && !file.components().any(above)
}

/// The file that a setting names, if it names one.
fn path(setting: &GucSetting<Option<CString>>) -> Option<PathBuf> {
    let file = setting.get().filter(|file| !file.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(file.as_bytes())))
}

/// Refuses a list that cannot be parsed. A reload then keeps the old list, and a start leaves it empty.
#[pg_guard]
unsafe extern "C-unwind" fn check_allowed_private_hosts(
    newval: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: PostgreSQL gives the place of a string, or of NULL.
    unsafe { check::<Allowed>(*newval) }
}

#[pg_guard]
unsafe extern "C-unwind" fn check_gateway_listen(
    newval: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as above.
    unsafe { check::<Addresses>(*newval) }
}

/// Whether a value can be parsed. The reason why not becomes the detail of PostgreSQL's error.
///
/// # Safety
/// `value` is a string or NULL.
unsafe fn check<T: FromStr<Err: Display>>(value: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    let text = unsafe { (!value.is_null()).then(|| CStr::from_ptr(value)) };
    let wrong = match text.unwrap_or_default().to_str() {
        Ok(text) => match text.parse::<T>() {
            Ok(_) => return true,
            Err(error) => error.to_string(),
        },
        Err(_) => "the list is not UTF-8".to_owned(),
    };
    if let Ok(detail) = CString::new(wrong) {
        // SAFETY: what the macro GUC_check_errdetail() does; the context is emptied once the error was reported.
        unsafe {
            pg_sys::GUC_check_errdetail_string =
                pg_sys::MemoryContextStrdup(pg_sys::ErrorContext, detail.as_ptr());
        }
    }
    false
}

/// The parsed list of a setting. Values that cannot be parsed were refused before; here they would give an empty list.
fn list<T: FromStr + Default>(setting: &GucSetting<Option<CString>>) -> T {
    let list = setting.get();
    let list = list.as_deref().and_then(|list| list.to_str().ok());
    list.and_then(|list| list.parse().ok()).unwrap_or_default()
}

/// Where the gateways of databases listen.
pub fn gateway_listen() -> Addresses {
    list(&GATEWAY_LISTEN)
}

/// The database whose gateway has the address that names none. `None`: the launcher chooses.
pub fn gateway_database() -> Option<String> {
    let name = GATEWAY_DATABASE.get()?;
    let name = name.to_str().ok().map(str::trim)?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Where the gateway of a database listens, if it has one.
pub struct Listens {
    pub at: SocketAddr,
    /// Whether the address names no database, so that only one database can have it.
    pub is_shared: bool,
}

/// Where a gateway of this database may listen.
pub fn gateway_of(database: &str) -> Option<Listens> {
    let addresses = gateway_listen();
    if let Some(at) = addresses.named(database) {
        return Some(Listens {
            at,
            is_shared: false,
        });
    }
    let is_it = gateway_database().is_none_or(|chosen| chosen == database);
    let at = addresses.unnamed().filter(|_| is_it)?;
    Some(Listens {
        at,
        is_shared: true,
    })
}

/// The files of the gateway's certificate and key.
pub fn gateway_identity() -> (Option<PathBuf>, Option<PathBuf>) {
    (path(&GATEWAY_CERTIFICATE), path(&GATEWAY_PRIVATE_KEY))
}

pub fn gateway_max_connections() -> usize {
    whole(&GATEWAY_MAX_CONNECTIONS)
}

pub fn gateway_timeout() -> Duration {
    Duration::from_millis(whole(&GATEWAY_TIMEOUT) as u64)
}

/// Largest file that the gateway takes. The gateway holds it in memory as a whole, and PostgreSQL holds its parts again.
pub fn gateway_max_upload() -> usize {
    max_upload_size().min(64 * 1024 * 1024)
}

pub fn max_concurrent_syncs() -> usize {
    whole(&MAX_CONCURRENT_SYNCS)
}

/// Most sync workers of one database. Each is a process, in every database.
pub const MOST_WORKERS: i32 = 16;

pub fn sync_workers() -> i32 {
    SYNC_WORKERS.get()
}

/// How long runs, their requests, quarantined records and alerts are kept; `None`: for ever.
pub struct Retention {
    pub runs: Option<Duration>,
    pub requests: Option<Duration>,
    pub quarantine: Option<Duration>,
    pub alerts: Option<Duration>,
    /// The JSON of records.
    pub raw: Option<Duration>,
}

pub fn retention() -> Retention {
    let kept = |setting| match whole(setting) as u64 {
        0 => None,
        minutes => Some(Duration::from_secs(minutes * 60)),
    };
    Retention {
        runs: kept(&RUN_RETENTION),
        requests: kept(&REQUEST_RETENTION),
        quarantine: kept(&QUARANTINE_RETENTION),
        alerts: kept(&ALERT_RETENTION),
        raw: kept(&RAW_RETENTION),
    }
}

/// The limit of syncs for each tenant. `None`: it follows from the number of tenants.
pub fn max_syncs_per_tenant() -> Option<usize> {
    Some(whole(&MAX_SYNCS_PER_TENANT)).filter(|most| *most > 0)
}

/// Most backfills, and most uploads, that run at once: they are not urgent, and leave room for syncs.
pub fn max_backfills() -> usize {
    max_concurrent_syncs().div_ceil(4)
}

pub fn max_upload_size() -> usize {
    whole(&MAX_UPLOAD_SIZE) * 1024
}

pub fn scheduler() -> Scheduler {
    SCHEDULER.get()
}

pub fn limits() -> Limits {
    let ms = |setting| Duration::from_millis(whole(setting) as u64);
    Limits {
        connect_timeout: ms(&CONNECT_TIMEOUT),
        read_timeout: ms(&READ_TIMEOUT),
        request_timeout: ms(&REQUEST_TIMEOUT),
        response_bytes: whole(&MAX_RESPONSE_SIZE) * 1024,
        retries: whole(&REQUEST_RETRIES) as u32,
        retry_pause: ms(&RETRY_PAUSE),
        longest_pause: ms(&LONGEST_PAUSE),
        pages: whole(&MAX_PAGES) as u64,
        syncs_of_account: whole(&MAX_SYNCS_PER_ACCOUNT),
    }
}

/// The hosts that connectors may call although they are not public.
pub fn allowed_private_hosts() -> Arc<Allowed> {
    Arc::new(list(&ALLOWED_PRIVATE_HOSTS))
}

pub fn record_limits() -> RecordLimits {
    RecordLimits {
        bytes: whole(&MAX_RECORD_SIZE) * 1024,
        depth: MAX_DEPTH,
        key: MAX_KEY,
    }
}

/// A setting as a number; the definitions allow no negative value.
fn whole(setting: &GucSetting<i32>) -> usize {
    usize::try_from(setting.get()).unwrap_or(0)
}
