//! The key file: one key per line, the current one first.
//!
//! It lies outside of the database, belongs to the server's user and to nobody else, and whatever is odd about it
//! is refused: a key that others can read is no key, and one that others can write is theirs. It is never created
//! by accident, because a new key in the place of a lost one hides that every credential is lost.
//!
//! The file is never written in place. It is created by linking a complete file to its name, so that of several
//! processes one wins and all read the winner's; it is changed by renaming a complete file over it, under a lock
//! that is on the file itself. A crash leaves either what was or what is to be, and perhaps a file whose name ends
//! in `.new`, which nobody reads.
//!
//! No message holds a path or a part of the file: tenants may see it.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::key::{Key, KeyId, Keyring};

/// Largest key file, in bytes: about a thousand keys. Larger: whatever file the setting names by mistake is read
/// into memory. Smaller: who rotates every day, and retires nothing, cannot any more.
pub const LARGEST_FILE: u64 = 64 * 1024;
/// How long a change waits for another one. Longer: a statement does not answer to a cancel meanwhile. Shorter:
/// a slow disk makes one of two changes fail, to be tried again.
const LOCK_WAIT: Duration = Duration::from_millis(900);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Why there are no keys to work with. No message holds the file's path or content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("there is no key file")]
    Missing,
    #[error("the key file is not a regular file")]
    NotAFile,
    #[error("the key file does not belong to the server's user")]
    ForeignOwner,
    #[error("other users may read the key file (mode {mode:04o})")]
    OpenToOthers { mode: u32 },
    #[error("the key file holds no key")]
    Empty,
    #[error("the key file is larger than {LARGEST_FILE} bytes")]
    TooLarge,
    #[error("line {line} of the key file is not a key")]
    NotAKey { line: usize },
    #[error("line {line} of the key file repeats a key")]
    DuplicateKey { line: usize },
    #[error("the key file cannot be opened by the server's user")]
    Denied,
    #[error("the key file's folder does not exist")]
    NoFolder,
    #[error("the key file's folder cannot be written by the server's user")]
    FolderNotWritable,
    #[error("another process is changing the key file")]
    Busy,
    #[error("key {id} is not in the key file")]
    UnknownKey { id: KeyId },
    #[error("key {id} is the current key")]
    CurrentKey { id: KeyId },
    #[error("the operating system gave no random bytes")]
    NoRandomness,
    #[error("the key file cannot be {what} (os error {errno})")]
    Io { what: &'static str, errno: i32 },
}

impl KeyError {
    /// The next action.
    pub fn hint(&self) -> &'static str {
        match self {
            KeyError::Missing => "Create a key, or restore the key file from its backup.",
            KeyError::NotAFile => "Name the file itself; symbolic links are not followed.",
            KeyError::ForeignOwner => "Run chown on it, to the user that the server runs as.",
            KeyError::OpenToOthers { .. } => {
                "Run chmod 0600 on it. If others may have read it, rotate the key."
            }
            KeyError::Empty | KeyError::TooLarge | KeyError::NotAKey { .. } => {
                "Restore the key file from its backup: one key per line, 32 bytes as hex or base64."
            }
            KeyError::DuplicateKey { .. } => "Remove the line.",
            KeyError::Denied => "Give the file and its folder to the user that the server runs as.",
            KeyError::NoFolder => {
                "Create the folder, with mode 0700, for the user that the server runs as."
            }
            KeyError::FolderNotWritable => {
                "Give the folder to the user that the server runs as, or name a file in another one by connector_service.key_file."
            }
            KeyError::Busy => "Try again.",
            KeyError::UnknownKey { .. } => "Compare with the ids of the keys in the key file.",
            KeyError::CurrentKey { .. } => "Rotate first: the current key cannot be retired.",
            KeyError::NoRandomness | KeyError::Io { .. } => {
                "Check the server's operating system and file system."
            }
        }
    }
}

/// Where a key file is, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    pub path: PathBuf,
    /// Whether there is a file, or one can be made.
    pub is_usable: bool,
}

/// Of several places the first where something of that name is, whatever it is: a file that cannot be read is an error, and
/// no reason to make another one. Where there is none, the first in whose folder a file can be made.
pub fn choose(places: Vec<PathBuf>) -> KeyPlace {
    let is_there = |path: &&PathBuf| fs::symlink_metadata(path).is_ok();
    let found = places.iter().find(is_there);
    let found = found.or_else(|| places.iter().find(|path| may_create(path)));
    KeyPlace {
        is_usable: found.is_some(),
        path: found.or(places.first()).cloned().unwrap_or_default(),
    }
}

/// Whether this process may make a file of that name.
fn may_create(path: &Path) -> bool {
    let Ok(folder) = CString::new(folder(path).as_os_str().as_bytes()) else {
        return false;
    };
    let (may, by) = (libc::W_OK | libc::X_OK, libc::AT_EACCESS);
    // SAFETY: a string that ends in NUL.
    unsafe { libc::faccessat(libc::AT_FDCWD, folder.as_ptr(), may, by) == 0 }
}

/// The home of the user that this process runs as, by the list of users.
pub fn home() -> Option<PathBuf> {
    // SAFETY: called by the only thread that asks for users; the entry is read before the next call.
    let home = unsafe {
        let user = libc::getpwuid(libc::geteuid()).as_ref()?;
        CStr::from_ptr(user.pw_dir.as_ref()?)
    };
    let home = PathBuf::from(OsStr::from_bytes(home.to_bytes()));
    // What has no home has "/", or a folder that is not there.
    (home.parent().is_some() && home.is_dir()).then_some(home)
}

impl Keyring {
    /// Reads the key file; `None` where there is none.
    pub fn load(path: &Path) -> Result<Option<Keyring>, KeyError> {
        match open(path, OpenOptions::new().read(true)) {
            Ok(file) => read(&file).map(Some),
            Err(KeyError::Missing) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the key file with one key, unless there is one: then that is what is read.
    pub fn create(path: &Path) -> Result<Keyring, KeyError> {
        if let Some(keys) = Keyring::load(path)? {
            return Ok(keys);
        }
        let draft = Draft::write(path, &Keyring::single(Key::random()?))?;
        match fs::hard_link(&draft.0, path) {
            Ok(()) => {}
            // Another process was faster: a key is never replaced here.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("created")(error)),
        }
        drop(draft);
        sync_folder(path)?;
        Keyring::load(path)?.ok_or(KeyError::Missing)
    }

    /// Puts a new key in front. What is sealed with the older ones still opens.
    pub fn rotate(path: &Path) -> Result<Keyring, KeyError> {
        change(path, |keys| Ok(keys.rotated(Key::random()?)))
    }

    /// Drops an older key. What is still sealed with it is lost, so ask [`super::key_ids`] of every row first.
    pub fn retire(path: &Path, id: KeyId) -> Result<Keyring, KeyError> {
        change(path, |keys| keys.retired(id))
    }
}

/// Reads, changes and replaces the file, alone.
fn change(
    path: &Path,
    how: impl FnOnce(Keyring) -> Result<Keyring, KeyError>,
) -> Result<Keyring, KeyError> {
    let locked = lock(path)?;
    let keys = how(read(&locked)?)?;
    let draft = Draft::write(path, &keys)?;
    fs::rename(&draft.0, path).map_err(failed("replaced"))?;
    sync_folder(path)?;
    Ok(keys)
}

/// The file, locked, and still the one of that name: who waited may hold one that was replaced meanwhile.
fn lock(path: &Path) -> Result<File, KeyError> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        // Some network file systems lock only what is open for writing.
        let file = open(path, OpenOptions::new().read(true).write(true))?;
        match file.try_lock() {
            Ok(()) => {
                let ours = file.metadata().map_err(failed("read"))?;
                let named = fs::symlink_metadata(path).map_err(failed("read"))?;
                if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) {
                    return Ok(file);
                }
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(failed("locked")(error)),
        }
        if Instant::now() > until {
            return Err(KeyError::Busy);
        }
    }
}

/// Opens the file and checks what was opened: what a name stands for may change, an open file does not.
fn open(path: &Path, options: &mut OpenOptions) -> Result<File, KeyError> {
    // Without O_NONBLOCK a pipe of that name would be waited for.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file =
        options
            .custom_flags(flags)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP | libc::EISDIR | libc::ENXIO) => KeyError::NotAFile,
                Some(libc::ENOENT) => KeyError::Missing,
                Some(libc::ENOTDIR) => KeyError::NoFolder,
                Some(libc::EACCES | libc::EPERM) => KeyError::Denied,
                _ => failed("opened")(error),
            })?;
    let meta = file.metadata().map_err(failed("read"))?;
    if !meta.is_file() {
        return Err(KeyError::NotAFile);
    }
    // SAFETY: takes nothing, always succeeds.
    if meta.uid() != unsafe { libc::geteuid() } {
        return Err(KeyError::ForeignOwner);
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::OpenToOthers { mode });
    }
    Ok(file)
}

fn read(file: &File) -> Result<Keyring, KeyError> {
    let size = file.metadata().map_err(failed("read"))?.len();
    if size > LARGEST_FILE {
        return Err(KeyError::TooLarge);
    }
    // With room for all of it: a vector that grows leaves copies of itself behind.
    let room = usize::try_from(LARGEST_FILE + 1).unwrap_or_default();
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    let mut file = file.take(LARGEST_FILE + 1);
    file.read_to_end(&mut text).map_err(failed("read"))?;
    if text.len() >= room {
        return Err(KeyError::TooLarge);
    }
    Keyring::read(&text)
}

/// A complete file beside the key file, with a name of its own; removed when dropped.
struct Draft(PathBuf);

impl Draft {
    fn write(path: &Path, keys: &Keyring) -> Result<Draft, KeyError> {
        let text = keys.write();
        if text.len() as u64 > LARGEST_FILE {
            return Err(KeyError::TooLarge);
        }
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(|_| KeyError::NoRandomness)?;
        let mut name = OsString::from(path.as_os_str());
        name.push(format!(".{:016x}.new", u64::from_ne_bytes(unique)));
        let name = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let mut file = options.open(&name).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => KeyError::NoFolder,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                KeyError::FolderNotWritable
            }
            _ => failed("created")(error),
        })?;
        let draft = Draft(name);
        file.write_all(&text).map_err(failed("written"))?;
        file.sync_all().map_err(failed("written"))?;
        Ok(draft)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Gone already where it was renamed.
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a name last: without it a crash may leave a folder that has never heard of the file.
fn sync_folder(path: &Path) -> Result<(), KeyError> {
    let folder = File::open(folder(path)).map_err(failed("written"))?;
    folder.sync_all().map_err(failed("written"))
}

fn folder(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> KeyError {
    move |error| KeyError::Io {
        what,
        errno: error.raw_os_error().unwrap_or_default(),
    }
}
