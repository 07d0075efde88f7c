//! What can go wrong with a source, as data.
//!
//! A failure of a source is never an exception: it becomes a row in `sync_runs` with a stable code, a message
//! of our own words, and what happens next. Foreign text (bodies, URLs, a library's error text) never enters
//! a message, because that is how secrets reach logs.

use std::time::Duration;

/// Whether waiting can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Likely to pass by itself: the connector stays active and is tried again later, with backoff.
    Transient,
    /// A person must mend it: the connector goes to `error` and is only probed slowly.
    Mend,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident $word:literal $class:ident $hint:literal;)*) => {
        /// Every way a run can fail. The words are public: users match on `sync_runs.error_code`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The word stored in `sync_runs.error_code`.
            pub fn word(self) -> &'static str {
                match self { $(Code::$variant => $word,)* }
            }

            pub fn class(self) -> Class {
                match self { $(Code::$variant => Class::$class,)* }
            }

            /// The next action for the person who reads the run.
            pub fn hint(self) -> &'static str {
                match self { $(Code::$variant => $hint,)* }
            }
        }
    };
}

codes! {
    /// config, manifest or credentials do not make sense
    InvalidConfig "invalid_config" Mend "Correct config or credentials of the connector.";
    /// the type is known, but this version has no source for it
    TypeNotAvailable "type_not_available" Mend "See connector_service_catalog() for the types this version can sync.";
    /// a key of credentials that the source needs is not there
    CredentialsMissing "credentials_missing" Mend "Add the field: UPDATE connectors SET credentials = credentials || '{...}'.";
    /// credentials are good, and may not read this stream
    PermissionMissing "permission_missing" Mend "Let the credentials read the stream at the vendor, or leave it out of config.streams.";
    CredentialsRejected "credentials_rejected" Mend "Check the connector's credentials and what they are allowed to read.";
    NotFound "not_found" Mend "Check the names in the connector's config: the address, and the path, table or object.";
    /// any other 4xx: asking again the same way cannot help
    RequestRefused "request_refused" Mend "Check the connector's config against the vendor's documentation.";
    /// 3xx: redirects are never followed, they would carry credentials to another place
    Redirected "redirected" Mend "Configure the final URL; redirects are not followed.";
    RateLimited "rate_limited" Transient "Nothing to do: the next attempt waits as long as the vendor asked.";
    ServerError "server_error" Transient "Nothing to do unless it lasts: the vendor's server failed.";
    /// not public, and not listed by an administrator; or of the cloud's own services
    AddressNotAllowed "address_not_allowed" Mend "Only public addresses are called; an administrator can list others in connector_service.allowed_private_hosts.";
    /// http to a host that no administrator has listed
    HttpsRequired "https_required" Mend "Use https, or let an administrator list the host in connector_service.allowed_private_hosts.";
    DnsFailed "dns_failed" Transient "Check the host name in config and the server's name resolution.";
    ConnectFailed "connect_failed" Transient "Check that the host and port are right and reachable from the database server.";
    ConnectTimeout "connect_timeout" Transient "Check that the host is reachable from the database server.";
    TlsFailed "tls_failed" Mend "Check the certificate of the host and the trust roots of the database server.";
    /// nothing came for `connector_service.read_timeout`
    ReadTimeout "read_timeout" Transient "The vendor answered too slowly; see connector_service.read_timeout.";
    /// the whole exchange took longer than `connector_service.request_timeout`
    RequestTimeout "request_timeout" Transient "The vendor sent too slowly; see connector_service.request_timeout, or ask for smaller pages.";
    /// the body ended before it was complete
    TruncatedResponse "truncated_response" Transient "Nothing to do unless it lasts: the connection was cut.";
    /// the body, after decompression, passed `connector_service.max_response_size`
    ResponseTooLarge "response_too_large" Mend "Ask for smaller pages, or raise connector_service.max_response_size.";
    /// the body does not decompress
    BadEncoding "bad_encoding" Transient "Nothing to do unless it lasts: the body did not decompress.";
    /// the body is not JSON
    InvalidJson "invalid_json" Transient "The vendor did not send JSON; check the URL if it lasts.";
    /// JSON, but not of the shape that the stream has
    UnexpectedShape "unexpected_shape" Mend "Check the record path against what the vendor sends.";
    /// the same page came twice: the source would never end
    RepeatedPage "repeated_page" Mend "The source's paging does not advance; check the paginator in config.";
    /// `connector_service.max_pages` reached
    TooManyPages "too_many_pages" Mend "Check the paginator, or raise connector_service.max_pages.";
    /// the next page's address lies on another host: credentials are not sent there
    ForeignNextPage "foreign_next_page" Mend "The source points its next page to another host; credentials are not sent there.";
    /// a template could not be rendered
    TemplateFailed "template_failed" Mend "Correct the template in the connector's config.";
    /// an uploaded file is not what its name or config says, or ends too early; nothing of it is stored
    FileRefused "file_refused" Mend "Mend the file, or say in the connector's config how it is written; SELECT connector_service_sync() then tries again.";
    /// an uploaded file would take more than may be had; nothing of it is stored
    FileTooLarge "file_too_large" Mend "Split the file, or save the sheet as CSV.";
    /// another session has locked rows that a page is stored in: waiting for it would have everybody wait
    Locked "locked" Transient "Nothing to do unless it lasts: end the transaction that holds the lock; see pg_locks and pg_stat_activity.";
    /// the page could not be stored
    StoreFailed "store_failed" Transient "See the server log for the statement that failed.";
    /// the key that the credentials are sealed with is not in the key file
    KeyMissing "key_missing" Mend "Put the key file back (connector_service.key_file), or give the credentials again.";
    /// the credentials belong to another connector, or were changed
    CredentialsNotOpened "credentials_not_opened" Mend "Give the connector's credentials again.";
    /// the worker ended while the run was going
    WorkerRestarted "worker_restarted" Transient "Nothing to do: the run goes on where it was committed.";
    /// our fault
    Internal "internal" Transient "Please report this with the server log.";
}

/// The longest wait a vendor may ask for. Longer: a hostile answer stops a connector for good.
pub const LONGEST_REST: Duration = Duration::from_secs(24 * 60 * 60);

/// One failure: a code, a message in our own words, and how long the vendor asked us to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub retry_after: Option<Duration>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait.map(|wait| wait.min(LONGEST_REST));
        self
    }
}
