//! What a backup has of the data of volumes. What `volumes.json` tells is believed where it stands, and what is saved there comes back (see [`super::held`]); what other tools saved is
//! told for every claim, and what failed for those that come back empty. Volumes whose data the backup has are never made on the disks they had (in another cluster two would write to one disk): such
//! claims are provisioned anew, as Velero does it.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::location::Store;
use crate::name::Name;
use crate::records::copies::{Copies, Outcome};
use crate::records::{self, Data, Volume};

use super::disks::Disks;

/// Namespace and name.
type Key = (String, String);

/// What is known of the data of volumes.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes {
    claims: HashMap<Key, Volume>,
    volumes: HashMap<String, Volume>,
    /// Volumes of pods that have no claim, a sentence each.
    pods: HashMap<Key, Vec<String>>,
    /// Claims whose data was not saved at all, with the volume they were bound to, as far as it is known.
    unsaved: HashMap<Key, String>,
    /// Files that would tell and can not be read.
    pub(super) unread: Vec<String>,
    /// What the backup itself says of the data of its claims, where that is to come back.
    pub(super) copies: Option<Copies>,
    /// The claims of which it says that it has it, and their uids in the archive, once those are known.
    pub(super) uids: HashMap<Key, String>,
    saved: HashSet<Key>,
    /// Their volumes.
    saved_volumes: HashSet<String>,
    /// Claims of which nothing was saved though it was to be, with what became of it in half a sentence.
    told: HashMap<Key, String>,
    /// On which disks a volume may be made again.
    pub(super) disks: Disks,
    /// The backup's own list can not be read: any claim's data may be in it.
    is_untold: bool,
}

/// A CSI snapshot, moved or not, of which no more is known.
fn csi(moved: bool) -> Volume {
    Volume {
        backup_method: "CSISnapshot".to_owned(),
        snapshot_data_moved: moved,
        ..Volume::default()
    }
}

/// How it is there, in half a sentence.
fn is_in(volume: &Volume) -> String {
    match volume.data() {
        Data::Failed => format!("was to be saved {}, which failed", volume.how()),
        _ => format!("is in the backup {}", volume.how()),
    }
}

/// The same, and who brings it back.
fn does_not_come(volume: &Volume) -> String {
    let who = match volume.data() {
        Data::Failed => "",
        _ if volume.copy.is_some() => {
            ", from which restic restores it and this command can not yet"
        }
        _ => ", from which Velero restores it and this command can not yet",
    };
    format!("{}{who}", is_in(volume))
}

impl Volumes {
    /// Reads what the backup's files tell. One that can not be read is in `unread`.
    ///
    /// # Errors
    /// The store's; and where the data is `wanted`, when the list of it can not be read: then nobody knows which claims have some.
    pub(super) async fn read(store: &Store, name: &Name, wanted: bool) -> Result<Self> {
        let mut volumes = Self::default();
        match records::copies::copies(store, name).await {
            Ok(None) => {}
            Ok(Some(copies)) => return Ok(Self::of(copies, wanted)),
            Err(e) if !wanted && matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
                volumes.unread.push(e.sentence());
                volumes.is_untold = true;
            }
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
                return Err(e.hint("with --restore-volumes=false the objects are restored, and claims come back empty"));
            }
            Err(e) => return Err(e),
        }
        let records::Volumes { list, unread } = records::of_others(store, name).await?;
        volumes.unread.extend(unread);
        for volume in list {
            volumes.take(volume);
        }
        Ok(volumes)
    }

    /// By the backup's own list.
    fn of(copies: Copies, wanted: bool) -> Self {
        let mut volumes = Self::default();
        for row in &copies.rows {
            let key = (row.namespace.clone(), row.claim.clone());
            match &row.outcome {
                Outcome::Saved(_) | Outcome::Snapshot(_) | Outcome::NotUnderstood(_) => {
                    volumes.saved.insert(key);
                    if !row.volume.is_empty() {
                        volumes.saved_volumes.insert(row.volume.clone());
                    }
                }
                Outcome::Failed(why) => {
                    let told = format!("was to be saved, which failed: {why}");
                    volumes.told.insert(key, told);
                }
                Outcome::LeftOut(_) | Outcome::NotAsked(_) => {
                    volumes.unsaved.insert(key, row.volume.clone());
                }
                Outcome::Nothing(_) => {}
            }
        }
        if wanted {
            volumes.copies = Some(copies);
        }
        volumes
    }

    fn take(&mut self, volume: Volume) {
        let claim = (volume.pvc_namespace.clone(), volume.pvc_name.clone());
        // What failed here has left nothing, and says so by naming no method.
        let failed = volume.data() == Data::Failed && volume.backup_method.is_empty();
        if failed || volume.data() == Data::LeftOut {
            if !volume.pvc_name.is_empty() {
                self.unsaved.insert(claim, volume.pv_name);
            }
            return;
        }
        self.volume(&volume.pv_name, &volume);
        if !volume.pvc_name.is_empty() {
            self.claim(claim, volume);
        } else if !volume.pod_name.is_empty() {
            self.pod(&volume);
        }
    }

    fn claim(&mut self, key: Key, held: Volume) {
        self.claims.entry(key).or_insert(held);
    }

    fn volume(&mut self, name: &str, held: &Volume) {
        if !name.is_empty() && !self.volumes.contains_key(name) {
            self.volumes.insert(name.to_owned(), held.clone());
        }
    }

    fn pod(&mut self, held: &Volume) {
        if held.data() != Data::Empty {
            let key = (held.pod_namespace.clone(), held.pod_name.clone());
            self.pods.entry(key).or_default().push(format!(
                "the data of its volume {:?} {}: the volume is empty",
                held.volume_name,
                does_not_come(held)
            ));
        }
    }

    /// Learns what the object of a snapshot in the archive tells: a VolumeSnapshot that Velero took of a claim, or a DataUpload.
    pub(super) fn learn_snapshot(&mut self, body: &[u8]) -> Result<()> {
        #[derive(Deserialize)]
        struct Object {
            kind: String,
            metadata: Metadata,
            #[serde(default)]
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            namespace: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            source: Option<Source>,
            #[serde(rename = "sourceNamespace")]
            namespace: String,
            #[serde(rename = "sourcePVC")]
            claim: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Source {
            #[serde(rename = "persistentVolumeClaimName")]
            claim: Option<String>,
        }
        let object: Object = serde_json::from_slice(body)
            .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
        let moved = object.kind == "DataUpload";
        let key = if moved {
            (object.spec.namespace, object.spec.claim)
        } else {
            let claim = object.spec.source.and_then(|source| source.claim);
            (object.metadata.namespace, claim.unwrap_or_default())
        };
        if !key.1.is_empty() {
            self.claim(key, csi(moved));
        }
        Ok(())
    }

    /// Learns what a claim's own body tells: the volume it is bound to, and what Velero's plugins wrote into the backup's copy of it.
    pub(super) fn learn(&mut self, body: &[u8]) -> Result<()> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
            #[serde(default)]
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            namespace: String,
            name: String,
            #[serde(default)]
            uid: String,
            #[serde(default)]
            annotations: Option<HashMap<String, String>>,
        }
        #[derive(Default, Deserialize)]
        struct Spec {
            #[serde(default, rename = "volumeName")]
            volume: Option<String>,
        }
        let object: Object = serde_json::from_slice(body)
            .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
        let has = |key: &str| {
            let annotations = object.metadata.annotations.iter();
            annotations.flatten().any(|(name, _)| name == key)
        };
        let volume = object.spec.volume.unwrap_or_default();
        let key = (
            object.metadata.namespace.clone(),
            object.metadata.name.clone(),
        );
        if self.saved.contains(&key) {
            self.uids.insert(key, object.metadata.uid);
            return Ok(());
        }
        if let Some(bound) = self.unsaved.get_mut(&key)
            && bound.is_empty()
        {
            bound.clone_from(&volume);
        }
        let held = if let Some(held) = self.volumes.get(&volume) {
            held.clone()
        } else if has("velero.io/data-upload-name") {
            csi(true)
        } else if has("velero.io/volume-snapshot-name") {
            csi(false)
        } else {
            return Ok(());
        };
        self.volume(&volume, &held);
        self.claim((object.metadata.namespace, object.metadata.name), held);
        Ok(())
    }

    /// What of an object's data is in the backup and does not come back, where it is a claim or a pod.
    pub(super) fn lost(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<String> {
        let key = || (namespace.unwrap_or_default().to_owned(), name.to_owned());
        match resource {
            "persistentvolumeclaims" if self.saved.contains(&key()) => self.copies.is_none().then(|| {
                "its data is in the backup and is not asked for: the volume is provisioned anew and empty".to_owned()
            }),
            "persistentvolumeclaims" if !self.claims.is_empty() => {
                let held = self.claims.get(&key())?;
                (held.data() != Data::Empty).then(|| {
                    format!(
                        "its data {}: the volume is provisioned anew and empty",
                        does_not_come(held)
                    )
                })
            }
            "pods" if !self.pods.is_empty() => Some(self.pods.get(&key())?.join("; ")),
            _ => None,
        }
    }

    /// What became of a claim's data that was to be saved, and is not; the claim is empty where it does not name the volume that it had.
    pub(super) fn failed(&self, namespace: &str, name: &str) -> Option<&str> {
        let told = self.told.get(&(namespace.to_owned(), name.to_owned()));
        told.map(String::as_str)
    }

    /// Whether a claim's data was never to be saved: it is empty as well where it does not name that volume.
    pub(super) fn is_unsaved(&self, namespace: &str, name: &str) -> bool {
        self.unsaved
            .get(&(namespace.to_owned(), name.to_owned()))
            .is_some_and(|volume| !volume.is_empty())
    }

    /// Why a volume is not restored as it is, for where its data lives; with the claim it is promised to.
    pub(super) fn elsewhere(&self, volume: &str, claim: (&str, &str)) -> Option<String> {
        let claim = (claim.0.to_owned(), claim.1.to_owned());
        if self.saved_volumes.contains(volume) || self.saved.contains(&claim) {
            return Some(
                "its data is in the backup as a copy of its files, so it is not made on the disk it had; its claim is provisioned anew"
                    .to_owned(),
            );
        }
        let held = self.volumes.get(volume).or_else(|| self.claims.get(&claim));
        let Some(held) = held else {
            // Two clusters would write to one disk, should the backup have a copy after all.
            return (self.is_untold && !claim.1.is_empty()).then(|| {
                "whether its data is in the backup can not be told, so it is not made on the disk it had; its claim is provisioned anew"
                    .to_owned()
            });
        };
        Some(format!(
            "its data {}, so it is not made on the disk it had; its claim is provisioned anew",
            is_in(held)
        ))
    }
}
