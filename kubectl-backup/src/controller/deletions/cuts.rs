//! A backup's snapshots in their storage: whether one went already, and their removal. Other clusters' are left to them.

use backup_cli::output::counted;
use backup_core::catalog::Entry;
use backup_core::error::{Error, Result};
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::snapshot::heirs::{self, Heirs};
use backup_core::snapshot::known::{About, Known};
use backup_core::{Kind, records};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::still_ours;
use crate::controller::desk::Desk;
use crate::controller::objects::{annotation, bounded};

/// The annotation of a Backup whose snapshots in their storage were to go: written before the first of them does.
const CUTS_GO: &str = "kubectl-backup/snapshots-go";

/// The snapshots of a backup are waited for, until this is dropped.
struct Waits<'a> {
    desk: &'a Desk,
    backup: &'a Name,
}

impl<'a> Waits<'a> {
    fn on(desk: &'a Desk, backup: &'a Name) -> Self {
        let waits = Self { desk, backup };
        waits.note(true);
        waits
    }

    fn note(&self, is_so: bool) {
        if let Some(waits) = self.desk.deleting().get_mut(self.backup.as_str()) {
            *waits = is_so;
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// Whether snapshots of it in their storage went, or may have: then there is no way back.
pub(super) async fn is_half_gone(
    location: &Location,
    backup: &Value,
    entry: &Entry,
) -> Result<bool> {
    let cuts = about(location, &entry.name).await?;
    // Where it can not be read any more what was written down of them, they were to go.
    let is_unread = annotation(backup, CUTS_GO).is_some() && cuts.lacks().is_some();
    Ok(is_unread || cuts.is_torn(entry.backup.status.start_timestamp))
}

/// What is known of the snapshots of a backup in their storage.
pub(super) async fn about(location: &Location, backup: &Name) -> Result<About> {
    let store = &location.store;
    let owned = match records::snapshots::owned(store, backup).await {
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => None,
        owned => Some(owned?),
    };
    let names = owned.as_ref().map(|owned| &owned.cuts[..]);
    Known::read(store).await?.about(store, backup, names).await
}

/// Writes at the Backup that they go, where it has any.
pub(super) async fn announce(desk: &Desk, backup: &Value, cuts: &About) -> Result<()> {
    if cuts.count() > 0 && annotation(backup, CUTS_GO).is_none() {
        let goes = json!({"metadata": {"annotations": {CUTS_GO: "true"}}});
        desk.backups.patch(backup, goes).await?;
    }
    Ok(())
}

/// Removes the snapshots of a backup in their storage. Those of another cluster are left to it, for there is no way back any more.
pub(super) async fn remove(
    desk: &Desk,
    location: &Location,
    cuts: &About,
    backup: &Name,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let _waits = Waits::on(desk, backup);
    let heirs = heirs(desk, Some(stopped)).await?;
    let outcome = cuts.expire(&location.store, heirs).await?;
    still_ours(stopped)?;
    match (&outcome, outcome.stays()) {
        (heirs::Outcome::Kept { .. }, Some(why)) => Err(Error::other(why)),
        (_, Some(why)) => {
            desk.ui.warn(&bounded(&format!("backup {backup}: {why}")));
            Ok(())
        }
        (heirs::Outcome::Gone(many), None) => {
            let many = counted(*many as u64, "snapshot");
            desk.ui.note(&format!("{many} of backup {backup}: deleted"));
            Ok(())
        }
        (_, None) => Ok(()),
    }
}

pub(super) async fn heirs<'a>(
    desk: &'a Desk,
    stop: Option<&'a watch::Receiver<bool>>,
) -> Result<Heirs<'a>> {
    let identity = desk.identity().await?;
    Ok(Heirs {
        cluster: identity.map(|uid| (&desk.cluster, uid)),
        stop,
    })
}
