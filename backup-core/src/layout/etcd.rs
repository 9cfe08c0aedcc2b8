//! The keys of one snapshot of etcd.

use super::ETCD_SNAPSHOTS;
use crate::name::Name;

/// The keys of one snapshot of etcd: `plugins/etcd-launcher/<cluster>/<snapshot>/`. A snapshot is what its manifest names; the manifest is
/// written last and create-only, removed first, and never written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotKeys {
    cluster: Name,
    name: Name,
}

impl SnapshotKeys {
    /// The keys of the snapshot of this name of this cluster.
    pub fn new(cluster: &Name, name: &Name) -> Self {
        Self {
            cluster: cluster.clone(),
            name: name.clone(),
        }
    }

    /// `plugins/etcd-launcher/<cluster>/`
    pub fn cluster_folder(cluster: &Name) -> String {
        format!("{ETCD_SNAPSHOTS}{cluster}/")
    }

    /// `plugins/etcd-launcher/<cluster>/<snapshot>/`
    pub fn folder(&self) -> String {
        format!("{ETCD_SNAPSHOTS}{}/{}/", self.cluster, self.name)
    }

    /// The cluster's name.
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// The snapshot's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// A file of this folder.
    pub fn file(&self, file: &str) -> String {
        format!("{ETCD_SNAPSHOTS}{}/{}/{file}", self.cluster, self.name)
    }

    /// The manifest: its existence is the snapshot's. Plain JSON, see [`crate::etcd::manifest`].
    pub fn manifest(&self) -> String {
        self.file("manifest.json")
    }

    /// The name of the database that a run writes, in the manifest's folder: of its own, so that two runs never write the same object.
    pub fn data_file(run: &str, compressed: bool, encrypted: bool) -> String {
        let (zst, age) = (
            if compressed { ".zst" } else { "" },
            if encrypted { ".age" } else { "" },
        );
        format!("{run}.db{zst}{age}")
    }

    /// The name of the file with a run's own key, encrypted for its recipients.
    pub fn key_file(run: &str) -> String {
        format!("{run}{RUN_KEY}")
    }

    /// The file beside a run's key that tells for whom it is encrypted; nothing where that is no name of such a key.
    pub fn recipients_file(key: &str) -> Option<String> {
        let run = key.strip_suffix(RUN_KEY).filter(|run| is_run(run))?;
        Some(format!("{run}{RUN_RECIPIENTS}"))
    }

    /// The name of the key beside an encrypted database, whatever it was called when it was brought elsewhere; nothing where it is not encrypted.
    pub fn key_beside(data: &str) -> Option<String> {
        let run = [".db.zst.age", ".db.age"]
            .iter()
            .find_map(|ending| data.strip_suffix(ending))?;
        Some(Self::key_file(run))
    }

    /// Whether this file name (without folder) is of a run's key, or says whom it is for.
    pub fn is_key(file: &str) -> bool {
        [RUN_KEY, RUN_RECIPIENTS]
            .iter()
            .any(|ending| file.strip_suffix(ending).is_some_and(is_run))
    }

    /// What a run notes before it sends the first part of its data file, so that `sweep` can abort the upload when the run died:
    /// `{"key", "id"}`. Removed when the run ends.
    pub fn upload(&self, run: &str) -> String {
        self.file(&format!("{run}{UPLOAD}"))
    }

    /// Whether this file name (without folder) is such a note.
    pub fn is_upload(file: &str) -> bool {
        file.strip_suffix(UPLOAD).is_some_and(is_run)
    }

    /// Whether this file name (without folder) is a run's data file, of any compression or encryption: `<run>.db` and what follows it.
    pub fn is_data(file: &str) -> bool {
        file.split_once('.').is_some_and(|(run, rest)| {
            is_run(run)
                && rest
                    .strip_prefix("db")
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}

const UPLOAD: &str = ".upload.json";
const RUN_KEY: &str = ".key.age";
const RUN_RECIPIENTS: &str = ".recipients.txt";

/// Run ids are UUIDs without dashes; only what carries one may be taken for a file that a run left.
fn is_run(run: &str) -> bool {
    run.len() == 32 && run.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
