//! DownloadRequests: an address by which a file of a backup or restore can be read for ten minutes. Whoever may create one may read that file, and
//! whoever may read one can too while it lasts: so they go as soon as they are over.

use std::sync::Arc;
use std::time::Duration;

use backup_core::error::{Error, Result};
use backup_core::layout::{BackupKeys, RestoreKeys};
use backup_core::name::Name;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::Desk;
use super::locations;
use super::objects::{bounded, name, time};
use super::{requests, sealed};

/// How long an address works.
const LASTS: Duration = Duration::from_secs(600);

/// The annotation that says why there is no address: the kind has no field for it.
const MESSAGE: &str = "kubectl-backup/message";

/// One look at all requests.
pub(crate) fn turn(desk: &Arc<Desk>) {
    requests::turn(desk, |desk| &desk.downloads, is_over, answer);
}

/// Whether its address is over. The end was written by this clock: how the API server's goes does not count.
fn is_over(object: &Value, now: Timestamp) -> bool {
    time(object, "/status/expiration").is_none_or(|end| end < now)
}

async fn answer(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let expiration = desk.now().checked_add(LASTS).unwrap_or(Timestamp::MAX);
    let mut status = json!({"phase": "Processed", "expiration": format!("{expiration:.0}")});
    let mut annotations = json!({});
    match sign(&desk, &object).await {
        Ok(url) => status["downloadURL"] = url.into(),
        Err(e) if e.kind() == backup_core::Kind::Unreachable => return Err(e),
        Err(e) => {
            let why = format!(
                "{}; `kubectl backup download` and `kubectl backup logs` read the location themselves",
                bounded(&e.sentence())
            );
            desk.ui
                .warn(&format!("download request {}: {why}", name(&object)));
            annotations = json!({MESSAGE: why});
        }
    }
    let patch = json!({"metadata": {"annotations": annotations}, "status": status});
    desk.downloads.decide(&object, patch).await.map(drop)
}

/// The address.
async fn sign(desk: &Desk, object: &Value) -> Result<String> {
    let target = &object["spec"]["target"];
    let text = |key: &str| target[key].as_str().unwrap_or_default();
    let wanted = Name::foreign(text("name"))?;
    let (key, of_backup) = key(text("kind"), &wanted)?;
    let backup = if of_backup {
        wanted
    } else {
        let restore = desk
            .restores
            .get(wanted.as_str())
            .ok_or_else(|| Error::not_found(format!("restore {wanted} is not there")))?;
        Name::foreign(restore["spec"]["backupName"].as_str().unwrap_or_default())?
    };
    let absent = || Error::not_found(format!("backup {backup} is not there"));
    let found = desk.backups.get(backup.as_str()).ok_or_else(absent)?;
    if of_backup && sealed::is_encrypted(&found) {
        return Err(Error::invalid(format!(
            "backup {backup} is encrypted: what an address gives could not be read"
        )));
    }
    let location = found["spec"]["storageLocation"]
        .as_str()
        .unwrap_or_default();
    let mut location = locations::named(desk, location)?;
    // Whoever asks does so from outside, as a rule.
    let config = &mut location.spec.config;
    if let Some(public) = config.remove("publicUrl").filter(|url| !url.is_empty()) {
        config.insert("s3Url".to_owned(), public);
    }
    let location = locations::open(desk, location).await?;
    let signed = location.store.signed(&key, LASTS).await?;
    signed.ok_or_else(|| Error::invalid(format!("{} signs no addresses", location.store.place())))
}

/// Where a file lies, and whether it is a backup's.
fn key(kind: &str, name: &Name) -> Result<(String, bool)> {
    let (backup, restore) = (BackupKeys::new(name), RestoreKeys::new(name));
    Ok(match kind {
        "BackupLog" => (backup.logs(), true),
        "BackupContents" => (backup.archive(), true),
        "BackupVolumeSnapshots" => (backup.volume_snapshots(), true),
        "BackupItemOperations" => (backup.item_operations(), true),
        "BackupResourceList" => (backup.resource_list(), true),
        "BackupResults" => (backup.results(), true),
        "BackupVolumeInfos" => (backup.volume_info(), true),
        "CSIBackupVolumeSnapshots" => (backup.csi_volume_snapshots(), true),
        "CSIBackupVolumeSnapshotContents" => (backup.csi_volume_snapshot_contents(), true),
        "RestoreLog" => (restore.logs(), false),
        "RestoreResults" => (restore.results(), false),
        "RestoreResourceList" => (restore.resource_list(), false),
        "RestoreItemOperations" => (restore.item_operations(), false),
        "RestoreVolumeInfo" => (restore.volume_info(), false),
        _ => {
            return Err(Error::invalid(format!(
                "{kind:?} is no kind of file that is known"
            )));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_over_when_its_address_is() {
        let now: Timestamp = "2026-11-21T02:10:01Z".parse().unwrap();
        let request = |expiration: Option<&str>| json!({"status": {"expiration": expiration}});
        assert!(is_over(&request(None), now));
        assert!(!is_over(&request(Some("2026-11-21T02:10:02Z")), now));
        assert!(is_over(&request(Some("2026-11-21T02:10:00Z")), now));
    }

    #[test]
    fn every_kind_of_veleros_definition_has_a_key_and_others_are_refused() {
        let crds = backup_core::api::crds::velero().unwrap();
        let crd = crds
            .iter()
            .find(|crd| crd.spec.names.kind == "DownloadRequest")
            .unwrap();
        let crd = serde_json::to_value(crd).unwrap();
        let kinds = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            ["properties"]["target"]["properties"]["kind"]["enum"];
        let name: Name = "b".parse().unwrap();
        for kind in kinds.as_array().unwrap() {
            let (key, of_backup) = key(kind.as_str().unwrap(), &name).unwrap();
            let folder = if of_backup {
                "backups/b/"
            } else {
                "restores/b/"
            };
            assert!(key.starts_with(folder), "{kind}");
        }
        assert!(key("Secrets", &name).is_err());
    }
}
