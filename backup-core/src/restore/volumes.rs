//! Volumes whose data a backup has, in a form that is not restored here: told for every claim, and their volumes are never made on the
//! disks they had (in another cluster two would write to one disk). Velero's semantics: such claims are provisioned anew.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::{name::Name, records};

/// Namespace and name.
type Key = (String, String);

/// What became of the data when the backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Saved,
    Failed,
    /// There was none.
    Empty,
}

/// Data of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    /// How it is there.
    how: String,
    state: State,
}

impl Held {
    fn new(method: &str, moved: bool, failed: bool) -> Self {
        let how = match method {
            _ if moved => "as a snapshot that was moved (DataUpload)".to_owned(),
            "NativeSnapshot" => "as a snapshot of the storage provider (NativeSnapshot)".to_owned(),
            "PodVolumeBackup" => "as a copy of its files (PodVolumeBackup)".to_owned(),
            "CSISnapshot" => "as a CSI snapshot (CSISnapshot)".to_owned(),
            other => format!("by the method {other:?}"),
        };
        let state = if failed { State::Failed } else { State::Saved };
        Self { how, state }
    }

    fn is_in(&self) -> String {
        match self.state {
            State::Saved => format!("is in the backup {}", self.how),
            State::Failed => format!("was to be saved {}, which failed", self.how),
            State::Empty => format!("was looked at {}, and there was none", self.how),
        }
    }
}

/// What is known of the data of volumes.
#[derive(Clone, Debug, Default)]
pub(super) struct Volumes {
    claims: HashMap<Key, Held>,
    volumes: HashMap<String, Held>,
    /// Volumes of pods that have no claim, a sentence each.
    pods: HashMap<Key, Vec<String>>,
    /// Claims whose data was not saved at all, with the volume they were bound to, as far as it is known.
    unsaved: HashMap<Key, String>,
    /// Files that would tell and can not be read.
    pub(super) unread: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    pvc_name: String,
    pvc_namespace: String,
    pv_name: String,
    backup_method: String,
    snapshot_data_moved: bool,
    skipped: bool,
    result: String,
    pvb_info: Option<PodInfo>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodInfo {
    snapshot_handle: String,
    volume_name: String,
    pod_name: String,
    pod_namespace: String,
}

/// PodVolumeBackup, snapshot of a volume or VolumeSnapshot: the fields of all three.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    namespace: String,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    pod: Pod,
    volume: String,
    persistent_volume_name: String,
    source: Origin,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Origin {
    persistent_volume_claim_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    #[serde(rename = "snapshotID")]
    snapshot_id: String,
}

impl Volumes {
    /// Reads what the backup's files tell. One that can not be read is in `unread`.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn read(store: &Store, name: &Name) -> Result<Self> {
        let keys = BackupKeys::new(name);
        let (infos, copies, snapshots, csi) = (
            keys.volume_info(),
            keys.pod_volume_backups(),
            keys.volume_snapshots(),
            keys.csi_volume_snapshots(),
        );
        let (infos, copies, snapshots, csi) = futures::join!(
            list::<Info>(store, &infos),
            list::<Item>(store, &copies),
            list::<Item>(store, &snapshots),
            list::<Item>(store, &csi),
        );
        let mut volumes = Self::default();
        let infos = volumes.known(infos)?;
        let (copies, snapshots, csi) = (
            volumes.known(copies)?,
            volumes.known(snapshots)?,
            volumes.known(csi)?,
        );
        let mut told = HashSet::new();
        for info in infos {
            volumes.info(info, &mut told);
        }
        for copy in copies {
            volumes.copy(copy, &told);
        }
        for snapshot in snapshots {
            let failed = snapshot.status.phase == "Failed";
            let held = Held::new("NativeSnapshot", false, failed);
            volumes.volume(&snapshot.spec.persistent_volume_name, held);
        }
        for snapshot in csi {
            if let Some(claim) = snapshot.spec.source.persistent_volume_claim_name {
                let key = (snapshot.metadata.namespace, claim);
                volumes.claim(key, Held::new("CSISnapshot", false, false));
            }
        }
        Ok(volumes)
    }

    fn known<T>(&mut self, read: Result<Vec<T>>) -> Result<Vec<T>> {
        match read {
            Err(e) if e.kind() == Kind::Corrupt => {
                self.unread.push(format!(
                    "whether the backup has data of volumes can not be told: {e}"
                ));
                Ok(Vec::new())
            }
            read => read,
        }
    }

    fn info(&mut self, info: Info, told: &mut HashSet<(String, String, String)>) {
        let pod = info.pvb_info.unwrap_or_default();
        if !pod.pod_name.is_empty() {
            told.insert((
                pod.pod_namespace.clone(),
                pod.pod_name.clone(),
                pod.volume_name.clone(),
            ));
        }
        if info.skipped || info.backup_method.is_empty() {
            if !info.pvc_name.is_empty() {
                let key = (info.pvc_namespace, info.pvc_name);
                self.unsaved.insert(key, info.pv_name);
            }
            return;
        }
        let failed = info.result == "failed";
        let mut held = Held::new(&info.backup_method, info.snapshot_data_moved, failed);
        if info.backup_method == "PodVolumeBackup" && !failed && pod.snapshot_handle.is_empty() {
            held.state = State::Empty;
        }
        self.volume(&info.pv_name, held.clone());
        if !info.pvc_name.is_empty() {
            self.claim((info.pvc_namespace, info.pvc_name), held);
        } else if !pod.pod_name.is_empty() {
            self.pod((pod.pod_namespace, pod.pod_name), &pod.volume_name, &held);
        }
    }

    fn copy(&mut self, copy: Item, told: &HashSet<(String, String, String)>) {
        let Pod { namespace, name } = copy.spec.pod;
        if told.contains(&(namespace.clone(), name.clone(), copy.spec.volume.clone())) {
            return;
        }
        let mut held = Held::new("PodVolumeBackup", false, copy.status.phase == "Failed");
        if copy.status.phase == "Completed" && copy.status.snapshot_id.is_empty() {
            held.state = State::Empty;
        }
        let mut annotations = copy.metadata.annotations.unwrap_or_default();
        match annotations.remove("velero.io/pvc-name") {
            Some(claim) => self.claim((namespace, claim), held),
            None => self.pod((namespace, name), &copy.spec.volume, &held),
        }
    }

    fn claim(&mut self, key: Key, held: Held) {
        self.claims.entry(key).or_insert(held);
    }

    fn volume(&mut self, name: &str, held: Held) {
        if !name.is_empty() {
            self.volumes.entry(name.to_owned()).or_insert(held);
        }
    }

    fn pod(&mut self, key: Key, volume: &str, held: &Held) {
        if held.state != State::Empty {
            self.pods.entry(key).or_default().push(format!(
                "the data of its volume {volume:?} {}, from which it can not be restored yet: the volume is empty",
                held.is_in()
            ));
        }
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
        if let Some(bound) = self.unsaved.get_mut(&key)
            && bound.is_empty()
        {
            bound.clone_from(&volume);
        }
        let held = if let Some(held) = self.volumes.get(&volume) {
            held.clone()
        } else if has("velero.io/data-upload-name") {
            Held::new("CSISnapshot", true, false)
        } else if has("velero.io/volume-snapshot-name") {
            Held::new("CSISnapshot", false, false)
        } else {
            return Ok(());
        };
        self.volume(&volume, held.clone());
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
            "persistentvolumeclaims" if !self.claims.is_empty() => {
                let held = self.claims.get(&key())?;
                (held.state != State::Empty).then(|| {
                    format!(
                        "its data {}, from which it can not be restored yet: the volume is provisioned anew and empty",
                        held.is_in()
                    )
                })
            }
            "pods" if !self.pods.is_empty() => Some(self.pods.get(&key())?.join("; ")),
            _ => None,
        }
    }

    /// Whether a claim that is made comes back empty, because its data was never saved and its volume is not kept.
    pub(super) fn is_empty(&self, namespace: &str, name: &str, kept: &HashSet<String>) -> bool {
        self.unsaved
            .get(&(namespace.to_owned(), name.to_owned()))
            .is_some_and(|volume| !volume.is_empty() && !kept.contains(volume))
    }

    /// Why a volume is not restored as it is, for where its data lives; with the claim it is promised to.
    pub(super) fn elsewhere(&self, volume: &str, claim: (&str, &str)) -> Option<String> {
        let claim = (claim.0.to_owned(), claim.1.to_owned());
        let held = self
            .volumes
            .get(volume)
            .or_else(|| self.claims.get(&claim))?;
        Some(format!(
            "its data {}, so it is not made on the disk it had; its claim is provisioned anew",
            held.is_in()
        ))
    }
}

async fn list<T: DeserializeOwned>(store: &Store, key: &str) -> Result<Vec<T>> {
    let text = records::text(store, key).await?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    // Go writes an empty list as `null`.
    serde_json::from_slice::<Option<Vec<T>>>(&text)
        .map(Option::unwrap_or_default)
        .map_err(|e| Error::corrupt(format!("{key} is not what it should be")).because(e))
}
