//! The key file, and the keys that this database's credentials are sealed with.
//!
//! `installation` has the fingerprint of the database's key. A key file without this key belongs to another server, or replaced
//! a lost file. Nothing is sealed or opened then, and restoring the right file is enough.

use std::path::PathBuf;

use connector_service_core::secret::keyfile::{self, KeyPlace};
use connector_service_core::secret::{KeyError, KeyId, Keyring};

use super::Db;
use crate::error::{Error, Result};
use crate::{board, guc};

/// The keys of this server. `None`: there is no key file, and this database has not needed one yet.
pub fn load(db: &mut Db) -> Result<Option<Keyring>> {
    let keys = Keyring::load(&path()?)?;
    let Some(known) = known(db)? else {
        return Ok(keys);
    };
    match keys {
        None => Err(Error::KeyFileMissing(known.to_string())),
        Some(keys) if keys.find(known).is_none() => Err(Error::OtherKeyFile(known.to_string())),
        some => Ok(some),
    }
}

/// Whether the file has the keys that credentials of this database are sealed with, or could be made. A restored database has
/// credentials, and does not know yet which key of this server it uses. Returns whether there is a file.
pub fn check(db: &mut Db) -> Result<bool> {
    let keys = load(db)?;
    let sealed = sealed_with(db)?;
    let Some(keys) = keys else {
        return match sealed.into_iter().next() {
            Some(id) => Err(Error::KeyFileMissing(id)),
            None if !place()?.is_usable => Err(KeyError::FolderNotWritable.into()),
            None => Ok(false),
        };
    };
    let is_there = |id: &String| id.parse().is_ok_and(|id: KeyId| keys.find(id).is_some());
    match sealed.into_iter().find(|id| !is_there(id)) {
        Some(id) => Err(Error::OtherKeyFile(id)),
        None => Ok(true),
    }
}

/// The keys to seal with. The first credential of a server creates the key file. If something is sealed already, no file is
/// created: there was a key, and it must be found.
pub fn for_sealing(db: &mut Db) -> Result<Keyring> {
    let keys = match load(db)? {
        Some(keys) => keys,
        None => match sealed_with(db)?.first() {
            Some(id) => return Err(Error::KeyFileMissing(id.clone())),
            None => Keyring::create(&path()?)?,
        },
    };
    if known(db)?.is_none() {
        remember(db, &keys)?;
    }
    Ok(keys)
}

/// Adds a new key at the front of the file.
pub fn rotate(db: &mut Db) -> Result<Keyring> {
    for_sealing(db)?;
    let keys = Keyring::rotate(&path()?)?;
    remember(db, &keys)?;
    Ok(keys)
}

/// Deletes a key from the file, if no credential of this database is sealed with it.
pub fn retire(db: &mut Db, id: &str) -> Result<()> {
    let id: KeyId = id.parse().map_err(|_| Error::NoKeyId)?;
    // Against sessions that read the file before and store a sealed credential later.
    db.run(
        "LOCK TABLE @extschema@.connectors IN SHARE ROW EXCLUSIVE MODE",
        &[],
    )?;
    if sealed_with(db)?.contains(&id.to_string()) {
        return Err(Error::KeyInUse(id.to_string()));
    }
    let keys = Keyring::retire(&path()?, id)?;
    remember(db, &keys)
}

/// Where the key file is, or will be.
pub fn place() -> Result<KeyPlace> {
    if !board::is_installed() {
        return Err(Error::NotPreloaded);
    }
    Ok(keyfile::choose(guc::key_files()))
}

fn path() -> Result<PathBuf> {
    Ok(place()?.path)
}

/// The fingerprint of the key that this database expects in the key file.
fn known(db: &mut Db) -> Result<Option<KeyId>> {
    let rows = db.run("SELECT i.key_id FROM @extschema@.installation i", &[])?;
    Ok(rows.get::<String>(0, 1)?.and_then(|id| id.parse().ok()))
}

fn remember(db: &mut Db, keys: &Keyring) -> Result<()> {
    db.run(
        "UPDATE @extschema@.installation SET key_id = $1 WHERE key_id IS DISTINCT FROM $1",
        &[keys.current().id().to_string().into()],
    )?;
    Ok(())
}

/// The ids of all keys that credentials of this database are sealed with.
fn sealed_with(db: &mut Db) -> Result<Vec<String>> {
    let rows = db.run(
        "SELECT k.key_id FROM @extschema@.connector_service_keys() k",
        &[],
    )?;
    (0..rows.count).map(|row| rows.need(row, 1)).collect()
}
