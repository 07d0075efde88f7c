use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use proptest::prelude::*;

use super::*;

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let name = format!("connector_service_{}", Uuid::new_v4());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("key")
    }

    /// Writes the file as a person would.
    fn write(&self, text: impl AsRef<[u8]>, mode: u32) -> PathBuf {
        let file = self.file();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        file
    }

    fn names(&self) -> Vec<String> {
        let entry = |entry: Result<fs::DirEntry, _>| entry.unwrap().file_name();
        let names = fs::read_dir(&self.0).unwrap().map(entry);
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ids(ring: &Keyring) -> Vec<KeyId> {
    ring.keys().map(Key::id).collect()
}

fn is_root() -> bool {
    // SAFETY: takes nothing, always succeeds.
    unsafe { libc::geteuid() == 0 }
}

fn refused(file: &Path) -> KeyError {
    Keyring::load(file).unwrap_err()
}

/// What every thread did at once.
fn at_once<T: Send>(threads: usize, act: impl Fn() -> T + Sync) -> Vec<T> {
    let start = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        let act = || {
            start.wait();
            act()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(act)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn a_key_file_is_created_once_and_closed_to_others() {
    let folder = Folder::new();
    assert_eq!(
        Keyring::load(&folder.file()).map(|ring| ring.is_none()),
        Ok(true)
    );
    let created = Keyring::create(&folder.file()).unwrap();
    let mode = fs::metadata(folder.file()).unwrap().mode() & 0o7777;
    assert_eq!((mode, folder.names()), (0o600, vec!["key".to_owned()]));
    let again = Keyring::create(&folder.file()).unwrap();
    let loaded = Keyring::load(&folder.file()).unwrap().unwrap();
    assert_eq!((ids(&again), ids(&loaded)), (ids(&created), ids(&created)));
    assert_eq!(ids(&created).len(), 1);
}

#[test]
fn concurrent_creations_end_with_one_key() {
    for _ in 0..8 {
        let folder = Folder::new();
        let file = folder.file();
        let created = at_once(16, || ids(&Keyring::create(&file).unwrap()));
        assert_eq!(created, vec![created[0].clone(); 16]);
        assert_eq!(folder.names(), vec!["key"]);
    }
}

#[test]
fn concurrent_rotations_lose_no_key() {
    let folder = Folder::new();
    let file = folder.file();
    let first = Keyring::create(&file).unwrap().current().id();
    let rotate = || loop {
        match Keyring::rotate(&file) {
            Ok(ring) => return ring.current().id(),
            Err(error) => assert_eq!(error, KeyError::Busy),
        }
    };
    let mut expected = at_once(12, rotate);
    expected.push(first);
    let kept = ids(&Keyring::load(&file).unwrap().unwrap());
    assert_eq!((kept.len(), kept.last()), (13, Some(&first)));
    let sorted = |mut ids: Vec<KeyId>| {
        ids.sort();
        ids
    };
    assert_eq!(sorted(kept), sorted(expected));
    assert_eq!(folder.names(), vec!["key"]);
}

#[test]
fn an_older_key_can_be_retired_and_the_current_one_cannot() {
    let folder = Folder::new();
    let file = folder.file();
    assert_eq!(Keyring::rotate(&file).unwrap_err(), KeyError::Missing);
    let first = Keyring::create(&file).unwrap().current().id();
    let error = KeyError::CurrentKey { id: first };
    assert_eq!(Keyring::retire(&file, first).unwrap_err(), error);
    let second = Keyring::rotate(&file).unwrap().current().id();
    let third = Keyring::rotate(&file).unwrap().current().id();
    let left = Keyring::retire(&file, second).unwrap();
    assert_eq!(ids(&left), vec![third, first]);
    assert_eq!(
        ids(&Keyring::load(&file).unwrap().unwrap()),
        vec![third, first]
    );
    let error = KeyError::UnknownKey { id: second };
    assert_eq!(Keyring::retire(&file, second).unwrap_err(), error);
}

#[test]
fn only_one_process_at_a_time_changes_the_key_file() {
    let folder = Folder::new();
    let file = folder.file();
    Keyring::create(&file).unwrap();
    let held = fs::File::open(&file).unwrap();
    held.lock().unwrap();
    assert_eq!(Keyring::rotate(&file).unwrap_err(), KeyError::Busy);
    drop(held);
    assert!(Keyring::rotate(&file).is_ok());
}

#[test]
fn a_key_file_is_read_in_every_spelling_that_people_use() {
    let folder = Folder::new();
    let hex: String = "0123456789abcdef".repeat(4);
    let other = STANDARD.encode([7; 32]);
    let third = STANDARD_NO_PAD.encode([8; 32]);
    let text = format!("# keys\n\n  {}\r\n{other}\n \t{third}", hex.to_uppercase());
    let ring = Keyring::load(&folder.write(text, 0o400)).unwrap().unwrap();
    let first: Vec<u8> = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef].repeat(4);
    let first = Key::new(Secret::new(first)).unwrap();
    assert_eq!(ids(&ring), vec![first.id(), key(7).id(), key(8).id()]);
    let written = Keyring::read(&ring.write()).unwrap();
    assert_eq!(ids(&written), ids(&ring));
}

#[test]
fn the_id_of_a_key_reveals_nothing_and_never_changes() {
    // SHA-256 of "connector_service key id v1", a NUL and the key: rows name it, so it is a promise.
    assert_eq!(key(7).id().to_string(), "583b248a15e570e3");
    assert_eq!(key(7).id().to_string().parse(), Ok(key(7).id()));
    for text in [
        "",
        "0123",
        "0123456789ABCDEF",
        "0123456789abcdefg",
        "0123456789abcdé",
    ] {
        assert!(text.parse::<KeyId>().is_err(), "{text}");
    }
}

#[test]
fn every_fault_of_a_key_file_has_its_own_error() {
    let folder = Folder::new();
    let sound = format!("{}\n", "ab".repeat(32));
    for mode in [0o640, 0o620, 0o604, 0o602, 0o601, 0o666] {
        let error = KeyError::OpenToOthers { mode };
        assert_eq!(refused(&folder.write(&sound, mode)), error);
        assert_eq!(Keyring::rotate(&folder.file()).unwrap_err(), error);
        assert_eq!(Keyring::create(&folder.file()).unwrap_err(), error);
    }
    for empty in ["", "\n\n", "# only a comment"] {
        assert_eq!(refused(&folder.write(empty, 0o600)), KeyError::Empty);
    }
    let not_a_key = |line| KeyError::NotAKey { line };
    for (text, line) in [
        ("secret".to_owned(), 1),
        ("# keys\n".to_owned() + &"ab".repeat(31), 2),
        (sound.clone() + &"ab".repeat(33), 2),
        ("xy".repeat(32), 1),
        (STANDARD.encode([1; 31]), 1),
        (STANDARD.encode([1; 33]), 1),
        ("é".repeat(32), 1),
        ("-".repeat(43), 1),
    ] {
        assert_eq!(
            refused(&folder.write(&text, 0o600)),
            not_a_key(line),
            "{text}"
        );
    }
    assert_eq!(refused(&folder.write(b"\xFF\0", 0o600)), not_a_key(1));
    let twice = format!("{sound}{}", STANDARD.encode([0xab; 32]));
    let error = KeyError::DuplicateKey { line: 2 };
    assert_eq!(refused(&folder.write(twice, 0o600)), error);
    let large = "#".repeat(keyfile::LARGEST_FILE as usize + 1);
    assert_eq!(refused(&folder.write(large, 0o600)), KeyError::TooLarge);
}

#[test]
fn a_file_that_is_not_a_key_file_is_refused() {
    let folder = Folder::new();
    let target = folder.0.join("target");
    fs::write(&target, "ab".repeat(32)).unwrap();
    symlink(&target, folder.file()).unwrap();
    assert_eq!(refused(&folder.file()), KeyError::NotAFile);
    assert_eq!(
        Keyring::rotate(&folder.file()).unwrap_err(),
        KeyError::NotAFile
    );
    assert_eq!(
        Keyring::create(&folder.file()).unwrap_err(),
        KeyError::NotAFile
    );
    fs::remove_file(folder.file()).unwrap();
    // One that leads nowhere is not a missing file either: creating must not follow it.
    symlink(folder.0.join("nowhere"), folder.file()).unwrap();
    assert_eq!(refused(&folder.file()), KeyError::NotAFile);
    assert_eq!(
        Keyring::create(&folder.file()).unwrap_err(),
        KeyError::NotAFile
    );
    assert_eq!(refused(&folder.0), KeyError::NotAFile);
    assert_eq!(Keyring::rotate(&folder.0).unwrap_err(), KeyError::NotAFile);
    let pipe = folder.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    assert_eq!(refused(&pipe), KeyError::NotAFile);

    // Somebody else's: root can give a file away, anybody else has root's to look at.
    let foreign = if is_root() {
        let file = folder.0.join("foreign");
        fs::write(&file, "ab".repeat(32)).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(65_534), None).unwrap();
        file
    } else {
        "/etc/passwd".into()
    };
    assert_eq!(refused(&foreign), KeyError::ForeignOwner);
}

#[test]
fn a_folder_that_is_missing_or_closed_is_named() {
    let folder = Folder::new();
    let missing = folder.0.join("missing").join("key");
    assert_eq!(Keyring::load(&missing).map(|ring| ring.is_none()), Ok(true));
    assert_eq!(Keyring::create(&missing).unwrap_err(), KeyError::NoFolder);
    fs::write(folder.file(), "").unwrap();
    let below = folder.file().join("key");
    assert_eq!(Keyring::create(&below).unwrap_err(), KeyError::NoFolder);
    fs::remove_file(folder.file()).unwrap();
    if !is_root() {
        fs::set_permissions(&folder.0, Permissions::from_mode(0o500)).unwrap();
        let error = KeyError::FolderNotWritable;
        assert_eq!(Keyring::create(&folder.file()).unwrap_err(), error);
    }
}

proptest! {
    #[test]
    fn no_text_of_a_key_file_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Keyring::read(&text);
    }

    #[test]
    fn no_text_of_a_key_id_panics(text in ".*") {
        let _ = text.parse::<KeyId>();
    }
}

#[test]
fn an_existing_key_file_is_preferred_to_a_better_place() {
    use super::super::keyfile::choose;
    let (first, second) = (Folder::new(), Folder::new());
    let nowhere = first.0.join("missing").join("key");
    let places = vec![nowhere.clone(), first.file(), second.file()];
    // The first in whose folder a file can be made.
    let chosen = choose(places.clone());
    assert_eq!((&chosen.path, chosen.is_usable), (&first.file(), true));
    Keyring::create(&second.file()).unwrap();
    assert_eq!(choose(places.clone()).path, second.file());
    // Whatever is there of that name: what cannot be read is no reason to make another key.
    symlink("/nowhere", first.file()).unwrap();
    assert_eq!(choose(places).path, first.file());
    let chosen = choose(vec![nowhere.clone()]);
    assert_eq!((chosen.path, chosen.is_usable), (nowhere, false));
    if !is_root() {
        fs::set_permissions(&second.0, Permissions::from_mode(0o500)).unwrap();
        let fresh = second.0.join("other");
        assert!(!choose(vec![fresh]).is_usable);
    }
}
