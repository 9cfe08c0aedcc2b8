//! Every key in a bucket, below a location's prefix, and nothing else. Velero's names are its format 1.1.0; the others
//! are ours and Velero ignores them. A bucket never forgets: nothing here may change its meaning.

mod backup;
mod etcd;
mod restore;
#[cfg(test)]
mod tests;
mod volume;

pub use backup::BackupKeys;
pub use etcd::SnapshotKeys;
pub use restore::RestoreKeys;
pub use volume::VolumeKeys;

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

/// Folder of objects that are written to try a location, or to read its clock, and removed at once.
pub const PROBES: &str = "plugins/kubectl-backup/probes/";

/// Folder of the notes of post hooks that are owed to pods.
pub const HOOKS: &str = "plugins/kubectl-backup/hooks/";

/// Folder of the notes of runs that make snapshots of volumes in their storage.
pub const SNAPSHOT_NOTES: &str = "plugins/kubectl-backup/snapshots/";

/// What stands before [`BACKUPS`] where encrypted backups are.
pub const VAULT: &str = "plugins/kubectl-backup/";

/// Folder of all snapshots of etcd, with its slash: a folder per cluster in it, and in these one per snapshot.
pub const ETCD_SNAPSHOTS: &str = "plugins/etcd-launcher/";

/// Folder of the repositories of volumes, with its slash.
pub const VOLUMES: &str = "restic/";

const MARKER: &str = "velero-backup.json";
const KEY: &str = "key.age";
const RECIPIENTS: &str = "recipients.txt";

/// What a backup owns outside of its folder: whoever deletes it needs no key, so that it stands in the clear.
const SNAPSHOTS: &str = "snapshots.json";

/// What stands in a vault in the place of a backup's marker.
const MANIFEST: &str = "manifest.json";

/// Where a file of `backups/` stands in a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// The marker: a part in the clear, the whole encrypted in it.
    Manifest(String),
    /// As it is.
    Clear(String),
    /// Encrypted.
    Encrypted(String),
}

impl Sealed {
    /// Where a key of [`BACKUPS`] stands.
    pub fn of(key: &str) -> Self {
        let (folder, file) = key.rsplit_once('/').unwrap_or(("", key));
        let is_direct = folder.matches('/').count() == 1;
        if is_direct && file == MARKER {
            Self::Manifest(format!("{VAULT}{folder}/{MANIFEST}"))
        } else if is_direct
            && (BackupKeys::claim_run(file).is_some()
                || BackupKeys::is_of_key(file)
                || file == SNAPSHOTS)
        {
            Self::Clear(format!("{VAULT}{key}"))
        } else {
            Self::Encrypted(format!("{VAULT}{key}.age"))
        }
    }

    /// What stands there, by its key in the vault; nothing for what no backup of ours puts there.
    pub fn back(stands: &str) -> Option<(String, Self)> {
        let key = stands.strip_prefix(VAULT)?;
        let (folder, file) = key.rsplit_once('/')?;
        let key = match file.strip_suffix(".age") {
            _ if file == MANIFEST => format!("{folder}/{MARKER}"),
            Some(file) if !BackupKeys::is_of_key(&format!("{file}.age")) => {
                format!("{folder}/{file}")
            }
            _ => key.to_owned(),
        };
        let sealed = Self::of(&key);
        (sealed.key() == stands).then_some((key, sealed))
    }

    /// The key in the vault, below the location's prefix.
    pub fn key(&self) -> &str {
        match self {
            Self::Manifest(key) | Self::Clear(key) | Self::Encrypted(key) => key,
        }
    }
}
