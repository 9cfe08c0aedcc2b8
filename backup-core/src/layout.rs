//! Every key in a bucket, below a location's prefix, and nothing else. Velero's names are its format 1.1.0; the others
//! are ours and Velero ignores them. A bucket never forgets: nothing here may change its meaning.

use crate::name::Name;

/// Folders that may stand at the top: any other folder makes Velero call the location Unavailable.
pub const TOP_FOLDERS: [&str; 6] = [
    "backups", "restores", "restic", "kopia", "metadata", "plugins",
];

/// Identity of the cluster that may write, prune and delete here: a plain object.
pub const GUARD: &str = ".kubectl-backup.json";

/// Folder of all backups, with its slash.
pub const BACKUPS: &str = "backups/";

/// Folder of all restores, with its slash.
pub const RESTORES: &str = "restores/";

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
        self.file("velero-backup.json")
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

    /// Digests of every file but the claims.
    pub fn digests(&self) -> String {
        self.file("SHA256SUMS")
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
}

/// The keys of one restore.
#[derive(Clone, Debug)]
pub struct RestoreKeys {
    name: Name,
}

impl RestoreKeys {
    /// The keys of the restore of this name.
    pub fn new(name: &Name) -> Self {
        Self { name: name.clone() }
    }

    /// `restores/<name>/`
    pub fn folder(&self) -> String {
        format!("{RESTORES}{}/", self.name)
    }

    fn file(&self, file: &str) -> String {
        format!("{RESTORES}{}/{file}", self.name)
    }

    /// Our record of a finished restore: a velero.io/v1 Restore with its status, written last.
    pub fn marker(&self) -> String {
        self.file("velero-restore.json")
    }

    /// A segment of our journal.
    pub fn journal(&self, number: u32) -> String {
        self.file(&format!("journal-{number:06}.jsonl.zst"))
    }

    /// The log, gzip text.
    pub fn logs(&self) -> String {
        self.file(&format!("restore-{}-logs.gz", self.name))
    }

    /// `{"errors":R,"warnings":R}`, gzip JSON.
    pub fn results(&self) -> String {
        self.file(&format!("restore-{}-results.gz", self.name))
    }

    /// `{"<apiVersion>/<Kind>": ["ns/name(created)"]}`, gzip JSON.
    pub fn resource_list(&self) -> String {
        self.file(&format!("restore-{}-resource-list.json.gz", self.name))
    }

    /// Asynchronous operations of plugins, gzip JSON.
    pub fn item_operations(&self) -> String {
        self.file(&format!("restore-{}-itemoperations.json.gz", self.name))
    }

    /// Volumes, gzip JSON; Velero writes this one without `restore-`.
    pub fn volume_info(&self) -> String {
        self.file(&format!("{}-volumeinfo.json.gz", self.name))
    }
}
