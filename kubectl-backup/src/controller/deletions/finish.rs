//! The end of a backup that goes: its snapshots in their storage, its files, its restores, and its object last. Decides nothing but what changed meanwhile.

use backup_core::error::Result;
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::{Kind, catalog, records};
use serde_json::Value;
use tokio::sync::watch;

use super::cuts;
use super::refusals::{Not, not_restored, restores_of, unknown};
use super::{owner, place_of, still_ours};
use crate::controller::desk::Desk;
use crate::controller::objects::{name, uid};
use crate::controller::repositories;

/// Removes the files, where there are any, then the restores, then the Backup.
pub(super) async fn finish(
    desk: &Desk,
    backup: &Value,
    location: Option<&Location>,
    stopped: &watch::Receiver<bool>,
) -> Result<(), Not> {
    let title = name(backup);
    still_ours(stopped)?;
    if let Some(location) = location {
        let (store, name) = (&location.store, Name::foreign(title)?);
        // What can not be read, or went with an attempt before, is found as an orphan.
        let owned = records::snapshots::owned(store, &name).await;
        let cuts = cuts::about(location, &name).await?;
        // Without a marker they were seen to before.
        if let Some(lacks) = cuts.lacks()
            && catalog::find(store, &name).await?.is_some()
        {
            return Err(unknown(&name, &lacks));
        }
        cuts::announce(desk, backup, &cuts).await?;
        cuts::remove(desk, location, &cuts, &name, stopped).await?;
        // That may have taken an hour.
        if catalog::find(store, &name).await?.is_some()
            && let Err(not) = not_restored(desk, location, &name).await
        {
            return Err(not.into_error().into());
        }
        catalog::delete_again(store, &name, &desk.host, &owner(uid(backup))).await?;
        // It is gone: what stays of this is found by whoever looks for orphans.
        let _ = cuts.bury(store).await;
        if let Some(object) = desk.locations.get(place_of(backup)) {
            repositories::owe(desk, &object, owned.unwrap_or_default(), false);
        }
    }
    for restore in restores_of(desk, title) {
        still_ours(stopped)?;
        if let Some(location) = location {
            remove_restore(location, name(&restore), title).await?;
        }
        desk.restores.delete(&restore).await?;
    }
    if let Some(backup) = desk.backups.read(backup).await? {
        desk.backups.delete(&backup).await?;
    }
    desk.ui.note(&match location {
        Some(_) => format!("backup {title} is deleted"),
        None => format!("the object of backup {title} is removed; it had nothing in a bucket"),
    });
    Ok(())
}

/// Removes the record of a restore, where it is one of this backup.
async fn remove_restore(location: &Location, restore: &str, backup: &str) -> Result<()> {
    let restore = Name::foreign(restore)?;
    match catalog::get_restore(&location.store, &restore).await {
        Ok(record) if record.spec.backup_name == backup => {
            catalog::delete_restore(&location.store, &restore).await
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == Kind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}
