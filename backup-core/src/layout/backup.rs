//! The keys of one backup.

use super::{BACKUPS, KEY, MARKER, RECIPIENTS, SNAPSHOTS};
use crate::name::Name;

const SECRETS_ARCHIVE: &str = "secrets.tar.gz.age";
const SECRETS_INDEX: &str = "secrets.index.jsonl.zst.age";
const SECRETS_KEY: &str = "secrets.key.age";
const SECRETS_RECIPIENTS: &str = "secrets.recipients.txt";

/// The keys of one backup.
#[derive(Clone, Debug)]
pub struct BackupKeys {
    name: Name,
}

impl BackupKeys {
    /// The keys of the backup of this name.
    pub fn new(name: &Name) -> Self {
        Self { name: name.clone() }
    }

    /// The backup's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// `backups/<name>/`
    pub fn folder(&self) -> String {
        format!("{BACKUPS}{}/", self.name)
    }

    fn file(&self, file: &str) -> String {
        format!("{BACKUPS}{}/{file}", self.name)
    }

    fn side(&self, suffix: &str) -> String {
        format!("{BACKUPS}{0}/{0}{suffix}", self.name)
    }

    /// The marker: its existence is the backup's. Plain JSON.
    pub fn marker(&self) -> String {
        self.file(MARKER)
    }

    /// The claim of one run.
    pub fn claim(&self, run: &str) -> String {
        self.file(&format!("claim-{run}.json"))
    }

    /// Whether this file name (without folder) is a claim, and of which run.
    pub fn claim_run(file: &str) -> Option<&str> {
        file.strip_prefix("claim-")?
            .strip_suffix(".json")
            .filter(|run| !run.is_empty() && !run.contains('/'))
    }

    /// The archive, Velero's format.
    pub fn archive(&self) -> String {
        self.side(".tar.gz")
    }

    /// Our index of the archive.
    pub fn index(&self) -> String {
        self.file("index.jsonl.zst")
    }

    /// The key of an encrypted backup, encrypted for its recipients.
    pub fn key(&self) -> String {
        self.file(KEY)
    }

    /// Who they are, in short.
    pub fn recipients(&self) -> String {
        self.file(RECIPIENTS)
    }

    /// The Secrets of a plain backup whose Secrets alone are encrypted: an archive like the other, sealed.
    pub fn secrets_archive(&self) -> String {
        self.file(SECRETS_ARCHIVE)
    }

    /// The index of that archive, sealed.
    pub fn secrets_index(&self) -> String {
        self.file(SECRETS_INDEX)
    }

    /// The key of both, encrypted for its recipients.
    pub fn secrets_key(&self) -> String {
        self.file(SECRETS_KEY)
    }

    /// Who they are, in short.
    pub fn secrets_recipients(&self) -> String {
        self.file(SECRETS_RECIPIENTS)
    }

    /// Whether this key (below the prefix) is a file with sealed Secrets of a plain backup.
    pub fn is_sealed_secrets(key: &str) -> bool {
        key.strip_prefix(BACKUPS)
            .and_then(|rest| rest.split_once('/'))
            .is_some_and(|(_, file)| file == SECRETS_ARCHIVE || file == SECRETS_INDEX)
    }

    /// Whether this file (without folder) is written anew when the recipients of a plain backup's Secrets change: no digest of it is kept.
    pub fn is_of_secrets_key(file: &str) -> bool {
        file == SECRETS_KEY || file == SECRETS_RECIPIENTS
    }

    /// Whether this file (without folder) stands beside an encrypted backup's files and is none of them.
    pub fn is_of_key(file: &str) -> bool {
        file == KEY || file == RECIPIENTS
    }

    /// Whether this key (below the prefix) is a file that a backup of ours consists of.
    pub fn is_known(&self, key: &str) -> bool {
        [
            self.key(),
            self.recipients(),
            self.secrets_archive(),
            self.secrets_index(),
            self.secrets_key(),
            self.secrets_recipients(),
            self.marker(),
            self.archive(),
            self.index(),
            self.digests(),
            self.signature(),
            self.logs(),
            self.results(),
            self.resource_list(),
            self.volumes(),
            self.snapshots(),
            self.volume_info(),
            self.volume_snapshots(),
            self.pod_volume_backups(),
            self.item_operations(),
        ]
        .iter()
        .any(|known| known == key)
    }

    /// Digests of every file but the claims.
    pub fn digests(&self) -> String {
        self.file("SHA256SUMS")
    }

    /// The Ed25519 signature of the exact bytes of the digests' file: 64 bytes and nothing else, absent where nobody signs.
    pub fn signature(&self) -> String {
        self.file("SHA256SUMS.sig")
    }

    /// The log, gzip text.
    pub fn logs(&self) -> String {
        self.side("-logs.gz")
    }

    /// `{"errors":R,"warnings":R}`, gzip JSON.
    pub fn results(&self) -> String {
        self.side("-results.gz")
    }

    /// `{"<apiVersion>/<Kind>": ["ns/name"]}`, gzip JSON.
    pub fn resource_list(&self) -> String {
        self.side("-resource-list.json.gz")
    }

    /// An entry per PVC, gzip JSON.
    pub fn volume_info(&self) -> String {
        self.side("-volumeinfo.json.gz")
    }

    /// Our row per claim: what became of its data, and where a copy is. JSON, see [`crate::records::copies`].
    pub fn volumes(&self) -> String {
        self.file("volumes.json")
    }

    /// What it owns outside of its folder, in the clear in an encrypted backup too. JSON, see [`crate::records::snapshots`].
    pub fn snapshots(&self) -> String {
        self.file(SNAPSHOTS)
    }

    /// Native snapshots, gzip JSON.
    pub fn volume_snapshots(&self) -> String {
        self.side("-volumesnapshots.json.gz")
    }

    /// PodVolumeBackups, gzip JSON.
    pub fn pod_volume_backups(&self) -> String {
        self.side("-podvolumebackups.json.gz")
    }

    /// Asynchronous operations of plugins, gzip JSON.
    pub fn item_operations(&self) -> String {
        self.side("-itemoperations.json.gz")
    }

    /// CSI snapshots as written by Velero up to 1.17, read only.
    pub fn csi_volume_snapshots(&self) -> String {
        self.side("-csi-volumesnapshots.json.gz")
    }

    /// What these snapshots are bound to, read only as well.
    pub fn csi_volume_snapshot_contents(&self) -> String {
        self.side("-csi-volumesnapshotcontents.json.gz")
    }
}
