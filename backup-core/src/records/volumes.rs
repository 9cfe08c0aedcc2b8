//! What a backup's side files tell of the data of its volumes: an entry a volume, with how it was saved, by what, and where. Where our own
//! [`copies`](super::copies) stand, they alone are believed. Else Velero's `volumeinfo` (it writes it since 1.13) comes first; what it does not tell comes from
//! the lists of PodVolumeBackups, of native snapshots and, up to 1.17, of CSI snapshots. Field names are Velero's and external-snapshotter's.
//!
//! The files are anybody's: each is bounded, in bytes and in entries, and one that can not be read is named and takes no other with it.

use std::collections::{HashMap, HashSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bounded::{self, Bounded};
use super::copies::{self, Copies, CsiSnapshot, FileCopy, Hooks, Outcome, Row};
use super::text_within;
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::name::Name;

/// No such file is larger, unpacked.
const LARGEST: u64 = 64 << 20;

/// A word of another tool that is shown is not longer.
const LONGEST: usize = 200;

/// A volume of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The claim's name; empty where a pod has the volume without one.
    pub pvc_name: String,
    /// The claim's namespace.
    pub pvc_namespace: String,
    /// The volume's name.
    pub pv_name: String,
    /// The pod by which its files were copied.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
    /// The pod's namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_namespace: String,
    /// The pod's name for the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_name: String,
    /// `NativeSnapshot`, `PodVolumeBackup`, `CSISnapshot`; empty where nothing was saved.
    pub backup_method: String,
    /// Whether the snapshot was moved to a repository (DataUpload).
    pub snapshot_data_moved: bool,
    /// Whether its data was left out.
    pub skipped: bool,
    /// Why.
    pub skipped_reason: String,
    /// `succeeded` or `failed`; of our own also `leftOut`, `notAsked` and `nothing`.
    pub result: String,
    /// The CSI driver, or what copied it: `kopia`, `restic`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub saved_by: String,
    /// The snapshot's name with the storage or in the repository.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub snapshot_handle: String,
    /// The repository, or the snapshot location or zone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub saved_in: String,
    /// The copy, where it is one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy: Option<Box<Ours>>,
    /// The snapshot, where it is one of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Box<CsiSnapshot>>,
}

/// What is known of a copy of ours, besides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ours {
    /// What hooks did around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Where it was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The rest.
    #[serde(flatten)]
    pub copy: FileCopy,
}

/// What became of a volume's data when the backup was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It is there.
    Saved,
    /// It was to be saved, and was not.
    Failed,
    /// The volume held nothing.
    Empty,
    /// It was not to be saved.
    LeftOut,
}

impl Volume {
    /// The claim, else the pod's volume, else the volume: `shop/data`.
    pub fn name(&self) -> String {
        let Self {
            pvc_namespace,
            pvc_name,
            pod_namespace,
            pod_name,
            ..
        } = self;
        shown(&if !pvc_name.is_empty() {
            format!("{pvc_namespace}/{pvc_name}")
        } else if !pod_name.is_empty() {
            format!("{pod_namespace}/{pod_name} {}", self.volume_name)
        } else {
            self.pv_name.clone()
        })
    }

    /// What became of its data.
    pub fn data(&self) -> Data {
        if !self.skipped && self.result == "failed" {
            return Data::Failed;
        }
        if self.skipped || self.backup_method.is_empty() {
            return Data::LeftOut;
        }
        // Velero notes a copy of nothing without a snapshot.
        let nothing = self.backup_method == "PodVolumeBackup"
            && self.result == "succeeded"
            && self.snapshot_handle.is_empty();
        if nothing { Data::Empty } else { Data::Saved }
    }

    /// How it was saved, by what and where: `as a CSI snapshot (CSISnapshot by ebs.csi.aws.com, snapshot snap-1)`.
    pub fn how(&self) -> String {
        let (what, method) = match self.backup_method.as_str() {
            _ if self.snapshot_data_moved => ("as a snapshot that was moved", "DataUpload"),
            method @ "NativeSnapshot" => ("as a snapshot of the storage provider", method),
            // Of ours there is but this way, and no more is known of one that failed.
            "" => return "as a copy of its files".to_owned(),
            method @ "PodVolumeBackup" => ("as a copy of its files", method),
            method @ "CSISnapshot" => ("as a CSI snapshot", method),
            other => return format!("by the method {:?}", shown(other)),
        };
        let mut how = format!("{what} ({method}");
        for (word, text) in [
            (" by ", &self.saved_by),
            (", snapshot ", &self.snapshot_handle),
            (", in ", &self.saved_in),
        ] {
            if !text.is_empty() {
                how.push_str(word);
                how.push_str(text);
            }
        }
        how.push(')');
        how
    }
}

/// The volumes of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// An entry each; two for one claim where the files do not agree.
    pub list: Vec<Volume>,
    /// Files that would tell more and can not be read, a sentence each.
    pub unread: Vec<String>,
}

/// Reads what the files of a backup tell of volumes.
///
/// # Errors
/// The store's.
pub async fn volumes(store: &Store, name: &Name) -> Result<Volumes> {
    match copies::copies(store, name).await {
        Ok(Some(own)) => {
            return Ok(Volumes {
                list: own.rows.iter().map(|row| of_ours(&own, row)).collect(),
                unread: Vec::new(),
            });
        }
        Ok(None) => {}
        // Nothing takes its place: what others are told of our copies is less than what they are.
        Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
            return Ok(Volumes {
                list: Vec::new(),
                unread: vec![untold(&e)],
            });
        }
        Err(e) => return Err(e),
    }
    of_others(store, name).await
}

/// The same, but for the backup's own list: what is written for others of the data of volumes.
///
/// # Errors
/// The store's.
pub(crate) async fn of_others(store: &Store, name: &Name) -> Result<Volumes> {
    let keys = BackupKeys::new(name);
    let files = [
        keys.volume_info(),
        keys.pod_volume_backups(),
        keys.volume_snapshots(),
        keys.csi_volume_snapshots(),
        keys.csi_volume_snapshot_contents(),
    ];
    let (infos, copies, natives, snapshots, contents) = futures::join!(
        list::<Info>(store, &files[0]),
        list::<Copied>(store, &files[1]),
        list::<Native>(store, &files[2]),
        list::<Snapshot>(store, &files[3]),
        list::<Content>(store, &files[4]),
    );
    let mut unread = Vec::new();
    let mut merged = Merged::default();
    for info in known(&mut unread, infos)? {
        merged.push(info.volume());
    }
    for copy in known(&mut unread, copies)? {
        merged.copy(copy);
    }
    for native in known(&mut unread, natives)? {
        merged.native(native);
    }
    let mut handles = HashMap::new();
    for content in known(&mut unread, contents)? {
        let (of, status) = (content.spec.unwrap_or_default(), content.status);
        let to = of.volume_snapshot_ref.unwrap_or_default();
        let handle = status.unwrap_or_default().snapshot_handle;
        handles.insert((to.namespace, to.name), (of.driver, handle));
    }
    for snapshot in known(&mut unread, snapshots)? {
        merged.csi(snapshot, &mut handles);
    }
    Ok(Volumes {
        list: merged.list,
        unread,
    })
}

fn untold(e: &Error) -> String {
    format!(
        "whether the backup has data of volumes can not be told: {}",
        e.sentence()
    )
}

/// What our own row says of a claim.
fn of_ours(copies: &Copies, row: &Row) -> Volume {
    let volume = Volume {
        pvc_name: row.claim.clone(),
        pvc_namespace: row.namespace.clone(),
        pv_name: row.volume.clone(),
        ..Volume::default()
    };
    let (result, why) = match &row.outcome {
        Outcome::Saved(saved) => {
            let pod = saved.pod.clone();
            let place = copies.place(row).map(|keys| keys.repository());
            return Volume {
                pod_name: pod.as_ref().map(|pod| pod.name.clone()).unwrap_or_default(),
                pod_namespace: pod
                    .as_ref()
                    .map(|pod| pod.namespace.clone())
                    .unwrap_or_default(),
                volume_name: pod.map(|pod| pod.volume).unwrap_or_default(),
                backup_method: "PodVolumeBackup".to_owned(),
                result: "succeeded".to_owned(),
                saved_by: "kubectl-backup".to_owned(),
                snapshot_handle: saved.copy.snapshot.clone(),
                saved_in: place.unwrap_or_default(),
                copy: Some(Box::new(Ours {
                    hooks: saved.hooks,
                    node: saved.node.clone(),
                    copy: saved.copy.clone(),
                })),
                ..volume
            };
        }
        Outcome::Snapshot(snapshot) => {
            return Volume {
                backup_method: "CSISnapshot".to_owned(),
                result: "succeeded".to_owned(),
                saved_by: snapshot.driver.clone(),
                snapshot_handle: shown(&snapshot.handle),
                snapshot: Some(snapshot.clone()),
                ..volume
            };
        }
        Outcome::Failed(why) => ("failed", why),
        Outcome::LeftOut(why) => ("leftOut", why),
        Outcome::NotAsked(why) => ("notAsked", why),
        Outcome::Nothing(why) => ("nothing", why),
        // That it has no data is not known.
        Outcome::NotUnderstood(why) => ("failed", why),
    };
    Volume {
        result: result.to_owned(),
        skipped: result != "failed",
        skipped_reason: why.clone(),
        ..volume
    }
}

/// A file that is not what it should be is noted; what is the store's own goes up.
fn known<T>(unread: &mut Vec<String>, read: Result<Vec<T>>) -> Result<Vec<T>> {
    match read {
        Err(e) if e.kind() == Kind::Corrupt => {
            unread.push(untold(&e));
            Ok(Vec::new())
        }
        read => read,
    }
}

/// What is known so far, and of whom.
#[derive(Default)]
struct Merged {
    list: Vec<Volume>,
    claims: HashSet<(String, String)>,
    volumes: HashMap<String, usize>,
    pods: HashMap<(String, String, String), usize>,
}

impl Merged {
    fn push(&mut self, volume: Volume) {
        let at = self.list.len();
        if !volume.backup_method.is_empty() {
            let claim = (volume.pvc_namespace.clone(), volume.pvc_name.clone());
            self.claims.insert(claim);
            if !volume.pv_name.is_empty() {
                self.volumes.entry(volume.pv_name.clone()).or_insert(at);
            }
        }
        if !volume.pod_name.is_empty() {
            let pod = (
                volume.pod_namespace.clone(),
                volume.pod_name.clone(),
                volume.volume_name.clone(),
            );
            self.pods.entry(pod).or_insert(at);
        }
        self.list.push(volume);
    }

    fn copy(&mut self, copy: Copied) {
        let (meta, spec) = (
            copy.metadata.unwrap_or_default(),
            copy.spec.unwrap_or_default(),
        );
        let status = copy.status.unwrap_or_default();
        let pod = spec.pod.unwrap_or_default();
        let saved_in = shown(&spec.repo_identifier);
        let key = (pod.namespace.clone(), pod.name.clone(), spec.volume.clone());
        if let Some(told) = self.pods.get(&key).and_then(|at| self.list.get_mut(*at)) {
            if told.saved_in.is_empty() {
                told.saved_in = saved_in;
            }
            return;
        }
        let annotations = meta.annotations.unwrap_or_default();
        let claim = annotations.claim.unwrap_or_default();
        self.push(Volume {
            pvc_namespace: if claim.is_empty() {
                String::new()
            } else {
                pod.namespace.clone()
            },
            pvc_name: claim,
            pod_name: pod.name,
            pod_namespace: pod.namespace,
            volume_name: spec.volume,
            backup_method: "PodVolumeBackup".to_owned(),
            result: outcome(&status.phase),
            saved_by: shown(&spec.uploader_type),
            snapshot_handle: shown(&status.snapshot_id),
            saved_in,
            ..Volume::default()
        });
    }

    fn native(&mut self, native: Native) {
        let (spec, status) = (
            native.spec.unwrap_or_default(),
            native.status.unwrap_or_default(),
        );
        let told = self.volumes.get(&spec.persistent_volume_name);
        if let Some(told) = told.and_then(|at| self.list.get_mut(*at)) {
            if told.backup_method == "NativeSnapshot" && told.saved_in.is_empty() {
                told.saved_in = shown(&spec.location);
            }
            return;
        }
        self.push(Volume {
            pv_name: spec.persistent_volume_name,
            backup_method: "NativeSnapshot".to_owned(),
            result: outcome(&status.phase),
            snapshot_handle: shown(&status.provider_snapshot_id),
            saved_in: shown(&spec.location),
            ..Volume::default()
        });
    }

    fn csi(
        &mut self,
        snapshot: Snapshot,
        handles: &mut HashMap<(String, String), (String, String)>,
    ) {
        let meta = snapshot.metadata.unwrap_or_default();
        let source = snapshot.spec.unwrap_or_default().source.unwrap_or_default();
        let claim = (
            meta.namespace.clone(),
            source.persistent_volume_claim_name.unwrap_or_default(),
        );
        if claim.1.is_empty() || self.claims.contains(&claim) {
            return;
        }
        let handle = handles.remove(&(meta.namespace, meta.name));
        let (driver, handle) = handle.unwrap_or_default();
        self.push(Volume {
            pvc_namespace: claim.0,
            pvc_name: claim.1,
            backup_method: "CSISnapshot".to_owned(),
            saved_by: shown(&driver),
            snapshot_handle: shown(&handle),
            ..Volume::default()
        });
    }
}

/// `succeeded` and `failed` for the phases of Velero's objects; nothing for one that was not done.
fn outcome(phase: &str) -> String {
    match phase {
        "Completed" => "succeeded",
        "Failed" | "Canceled" => "failed",
        _ => "",
    }
    .to_owned()
}

/// A word of another tool, fit to be shown.
fn shown(text: &str) -> String {
    bounded::shown(text, LONGEST)
}

/// An entry of `volumeinfo`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Info {
    pvc_name: String,
    pvc_namespace: String,
    pv_name: String,
    backup_method: String,
    snapshot_data_moved: bool,
    skipped: bool,
    skipped_reason: String,
    result: String,
    csi_snapshot_info: Option<Detail>,
    snapshot_data_movement_info: Option<Detail>,
    native_snapshot_info: Option<Detail>,
    pvb_info: Option<Detail>,
}

/// What is said of one way of saving: the fields of all four.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Detail {
    snapshot_handle: String,
    driver: String,
    uploader_type: String,
    data_mover: String,
    #[serde(rename = "volumeAZ")]
    volume_zone: String,
    volume_name: String,
    pod_name: String,
    pod_namespace: String,
}

impl Info {
    fn volume(self) -> Volume {
        let pod = self.pvb_info.unwrap_or_default();
        let (pod_name, pod_namespace, volume_name) = (
            pod.pod_name.clone(),
            pod.pod_namespace.clone(),
            pod.volume_name.clone(),
        );
        let (how, by) = match self.backup_method.as_str() {
            _ if self.snapshot_data_moved => {
                let how = self.snapshot_data_movement_info.unwrap_or_default();
                let by = if how.uploader_type.is_empty() {
                    how.data_mover.clone()
                } else {
                    how.uploader_type.clone()
                };
                (how, by)
            }
            "NativeSnapshot" => (self.native_snapshot_info.unwrap_or_default(), String::new()),
            "PodVolumeBackup" => {
                let by = pod.uploader_type.clone();
                (pod, by)
            }
            _ => {
                let how = self.csi_snapshot_info.unwrap_or_default();
                let by = how.driver.clone();
                (how, by)
            }
        };
        Volume {
            pvc_name: self.pvc_name,
            pvc_namespace: self.pvc_namespace,
            pv_name: self.pv_name,
            pod_name,
            pod_namespace,
            volume_name,
            backup_method: self.backup_method,
            snapshot_data_moved: self.snapshot_data_moved,
            skipped: self.skipped,
            skipped_reason: self.skipped_reason,
            result: self.result,
            saved_by: shown(&by),
            snapshot_handle: shown(&how.snapshot_handle),
            saved_in: shown(&how.volume_zone),
            copy: None,
            snapshot: None,
        }
    }
}

/// A PodVolumeBackup.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Copied {
    metadata: Option<Meta>,
    spec: Option<CopiedSpec>,
    status: Option<CopiedStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    namespace: String,
    name: String,
    annotations: Option<Annotations>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "velero.io/pvc-name")]
    claim: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CopiedSpec {
    pod: Option<Reference>,
    volume: String,
    repo_identifier: String,
    uploader_type: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reference {
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CopiedStatus {
    phase: String,
    #[serde(rename = "snapshotID")]
    snapshot_id: String,
}

/// A snapshot that a plugin took from the storage provider.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Native {
    spec: Option<NativeSpec>,
    status: Option<NativeStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NativeSpec {
    location: String,
    persistent_volume_name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NativeStatus {
    phase: String,
    #[serde(rename = "providerSnapshotID")]
    provider_snapshot_id: String,
}

/// A VolumeSnapshot of snapshot.storage.k8s.io/v1.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Snapshot {
    metadata: Option<Meta>,
    spec: Option<SnapshotSpec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SnapshotSpec {
    source: Option<SnapshotSource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SnapshotSource {
    persistent_volume_claim_name: Option<String>,
}

/// A VolumeSnapshotContent of snapshot.storage.k8s.io/v1.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Content {
    spec: Option<ContentSpec>,
    status: Option<ContentStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContentSpec {
    driver: String,
    volume_snapshot_ref: Option<Reference>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContentStatus {
    snapshot_handle: String,
}

async fn list<T: DeserializeOwned>(store: &Store, key: &str) -> Result<Vec<T>> {
    let text = text_within(store, key, LARGEST).await?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_slice::<Bounded<T>>(&text)
        .map(|list| list.0)
        .map_err(|e| Error::corrupt(format!("{key} is not what it should be: {e}")))
}

#[cfg(test)]
mod tests;
