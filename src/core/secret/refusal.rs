//! Why credentials cannot be sealed or opened, and how much they may be.

use super::KeyId;

/// Most fields of one connector's credentials. More: one row costs that many ciphers for each save and each run.
/// Fewer: the vendors that want most have about ten.
pub const MOST_FIELDS: usize = 64;
/// Largest field, as text or as JSON, in bytes. Larger: a row of [`MOST_FIELDS`] is held several times while it is
/// saved. Smaller: a certificate with its chain and key does not fit.
pub const LARGEST_FIELD: usize = 64 * 1024;
/// Longest name of a field, in bytes. Longer: it stands in messages. Shorter: nothing is won.
pub const LONGEST_NAME: usize = 128;

/// Why credentials cannot be sealed or opened. Messages name fields and keys, never a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("credentials is not a JSON object")]
    NotAnObject,
    #[error("credentials has more than {MOST_FIELDS} fields")]
    TooMany,
    #[error("credentials has a field whose name is longer than {LONGEST_NAME} bytes")]
    NameTooLong,
    #[error("credential \"{field}\" is larger than {LARGEST_FIELD} bytes")]
    TooLarge { field: String },
    #[error("credential \"{field}\" is nested too deep")]
    TooDeep { field: String },
    /// a key that begins with `$`, in a place or of a shape that means nothing
    #[error("credential \"{field}\" has an unknown key that begins with \"$\"")]
    Mark { field: String },
    #[error("credential \"{field}\" cannot be sealed: there is no key")]
    NoKey { field: String },
    #[error("credential \"{field}\" is not sealed")]
    NotSealed { field: String },
    #[error("credential \"{field}\" is sealed in a format that this version does not know")]
    Malformed { field: String },
    #[error("credential \"{field}\" is sealed with key {key}, which is not in the key file")]
    KeyMissing { field: String, key: KeyId },
    /// sealed for another tenant, connector or field, or changed since
    #[error(
        "credential \"{field}\" was sealed for another tenant, connector or field, or was changed"
    )]
    NotHere { field: String },
    #[error("the box of credential \"{field}\" cannot be opened")]
    Box { field: String },
    /// one field's is not UTF-8; that of all is not a JSON object
    #[error("the box of credential \"{field}\" has the wrong content")]
    BoxContent { field: String },
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl SealError {
    /// The next action.
    pub fn hint(&self) -> &'static str {
        match self {
            SealError::NotAnObject => {
                "Give credentials as a JSON object, one field for each secret."
            }
            SealError::TooMany
            | SealError::NameTooLong
            | SealError::TooLarge { .. }
            | SealError::TooDeep { .. } => {
                "Keep in credentials only what is secret; the rest belongs in config."
            }
            SealError::Mark { .. } => {
                "A value is plain JSON, {\"$box\": \"<base64>\"}, or the {\"$sealed\": ...} of this row."
            }
            SealError::NoKey { .. } => "Create a key, or restore the key file from its backup.",
            SealError::NotSealed { .. }
            | SealError::Malformed { .. }
            | SealError::NotHere { .. } => "Give the credential again, in plain JSON or as a box.",
            SealError::KeyMissing { .. } => {
                "Restore the key file that has this key, or give the credential again."
            }
            SealError::Box { .. } => {
                "Make the box for the current public key, and give it as base64."
            }
            SealError::BoxContent { .. } => {
                "The box of one field holds its text in UTF-8; the box of all holds a JSON object."
            }
            SealError::NoRandomness => "Check the server's operating system.",
        }
    }
}
