//! What can go wrong with a source, as data.
//!
//! A failure of a source is never an exception: it becomes a row in `sync_runs` with a stable code, a message
//! of our own words, and what happens next. Foreign text (bodies, URLs, a library's error text) never enters
//! a message, because that is how secrets reach logs.

use std::time::Duration;

/// Whether a later retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The failure is likely to pass by itself: the connector stays active and is retried later, with backoff.
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
    /// config, manifest or credentials are not valid
    InvalidConfig "invalid_config" Mend "Correct the connector's config or credentials.";
    /// the type is known, but this version has no source for it
    TypeNotAvailable "type_not_available" Mend "See connector_service_catalog() for the types that this version can sync.";
    /// a key of credentials that the source needs is not there
    CredentialsMissing "credentials_missing" Mend "Add the field: UPDATE connectors SET credentials = credentials || '{...}'.";
    /// the credentials are valid, but may not read this stream
    PermissionMissing "permission_missing" Mend "Give the credentials the permission to read the stream, or leave the stream out of config's \"streams\".";
    CredentialsRejected "credentials_rejected" Mend "Check the connector's credentials and what they are allowed to read.";
    NotFound "not_found" Mend "Check the names in the connector's config: the address, and the path, table or object.";
    /// any other 4xx: a retry of the same request cannot help
    RequestRefused "request_refused" Mend "Check the connector's config against the source's documentation.";
    /// 3xx: redirects are never followed, they would carry credentials to another place
    Redirected "redirected" Mend "Put the final URL into the connector's config; redirects are not followed.";
    RateLimited "rate_limited" Transient "Nothing to do: the next attempt waits as long as the vendor asked.";
    ServerError "server_error" Transient "Nothing to do: the request is retried later. If this lasts, ask whoever runs the server.";
    /// the address is not public and no administrator has listed it, or it belongs to the cloud's own services
    AddressNotAllowed "address_not_allowed" Mend "Call a public host, or let an administrator allow this one: ALTER SYSTEM SET connector_service.allowed_private_hosts = '...'; SELECT pg_reload_conf(); Write hosts, addresses or networks, without a port. The new value replaces the list, so repeat its entries.";
    /// the URL uses http, and no administrator has listed its host
    HttpsRequired "https_required" Mend "Use https (TLS for a database), or let an administrator allow the host: ALTER SYSTEM SET connector_service.allowed_private_hosts = '...'; SELECT pg_reload_conf(); Write hosts, addresses or networks, without a port. The new value replaces the list, so repeat its entries.";
    DnsFailed "dns_failed" Transient "Check the host name in config, and the name resolution of the database server.";
    ConnectFailed "connect_failed" Transient "Check that host and port are right, and that the database server can reach them.";
    ConnectTimeout "connect_timeout" Transient "Check host and port, and the firewalls between them and the database server.";
    TlsFailed "tls_failed" Mend "Check the certificate of the host and the trust roots of the database server.";
    /// the source sent nothing for `connector_service.read_timeout`
    ReadTimeout "read_timeout" Transient "Nothing to do: the request is retried later. If this lasts, raise connector_service.read_timeout.";
    /// the whole exchange took longer than `connector_service.request_timeout`
    RequestTimeout "request_timeout" Transient "Ask for smaller pages, or raise connector_service.request_timeout.";
    /// the body ended before it was complete
    TruncatedResponse "truncated_response" Transient "Nothing to do: the request is retried later. If this lasts, check the network to the source.";
    /// the body, after decompression, passed `connector_service.max_response_size`
    ResponseTooLarge "response_too_large" Mend "Ask for smaller pages, or raise connector_service.max_response_size.";
    /// the body does not decompress
    BadEncoding "bad_encoding" Transient "Nothing to do: the request is retried later. If this lasts, report it to the vendor.";
    /// the body is not JSON
    InvalidJson "invalid_json" Transient "Nothing to do: the request is retried later. If this lasts, check the URL in config: it has to answer with JSON.";
    /// JSON, but not of the shape that the stream has
    UnexpectedShape "unexpected_shape" Mend "Compare config with what the source sends: the record path, the key and the cursor.";
    /// the same page came twice: the source would never end
    RepeatedPage "repeated_page" Mend "Check the paginator in config: each page has to lead to another one.";
    /// `connector_service.max_pages` reached
    TooManyPages "too_many_pages" Mend "Check the paginator, or raise connector_service.max_pages.";
    /// the next page's address lies on another host: credentials are not sent there
    ForeignNextPage "foreign_next_page" Mend "Compare the URL in config with the address of the next page; credentials go to the host in config only.";
    /// a template could not be rendered
    TemplateFailed "template_failed" Mend "Correct the template in the connector's config.";
    /// an uploaded file is not what its name or config says, or ends too early; nothing of it is stored
    FileRefused "file_refused" Mend "Correct the file, or say in the connector's config how it is written; SELECT connector_service_sync() then tries again.";
    /// an uploaded file is larger than the limits allow; nothing of it is stored
    FileTooLarge "file_too_large" Mend "Split the file, or save the sheet as CSV.";
    /// another session has locked rows that the page needs: every connector would wait if the worker waited
    Locked "locked" Transient "Nothing to do: the run is retried later. If this lasts, end the transaction that holds the lock; see pg_locks and pg_stat_activity.";
    /// the page could not be stored
    StoreFailed "store_failed" Transient "See the server log for the statement that failed.";
    /// the key that the credentials are sealed with is not in the key file
    KeyMissing "key_missing" Mend "Put the key file back (connector_service.key_file), or give the credentials again.";
    /// the credentials belong to another connector, or were changed
    CredentialsNotOpened "credentials_not_opened" Mend "Give the connector's credentials again.";
    /// the worker ended while the run was going
    WorkerRestarted "worker_restarted" Transient "Nothing to do: the run continues after its last committed page.";
    /// a bug in connector_service
    Internal "internal" Transient "Please report this with the server log.";
}

/// The longest wait a vendor may ask for. Longer: a hostile answer stops a connector for good.
pub const LONGEST_REST: Duration = Duration::from_secs(24 * 60 * 60);

/// What a failure is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reach {
    /// One request, and so the stream that it was for.
    #[default]
    Stream,
    /// The connector's account: no stream can be read.
    Account,
}

/// One failure: a code, a message in our own words, and how long the vendor asked us to wait.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub retry_after: Option<Duration>,
    pub reach: Reach,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            retry_after: None,
            reach: Reach::Stream,
            status: None,
        }
    }

    /// The same failure, which no stream of the connector can get around.
    pub fn of_account(self) -> Self {
        Failure {
            reach: Reach::Account,
            ..self
        }
    }

    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait.map(|wait| wait.min(LONGEST_REST));
        self
    }
}
