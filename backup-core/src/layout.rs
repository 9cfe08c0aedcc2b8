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

/// Folder of objects that are written to try a location, or to read its clock, and removed at once.
pub const PROBES: &str = "plugins/kubectl-backup/probes/";

/// Folder of the notes of post hooks that are owed to pods.
pub const HOOKS: &str = "plugins/kubectl-backup/hooks/";

/// What stands before [`BACKUPS`] where encrypted backups are.
pub const VAULT: &str = "plugins/kubectl-backup/";

/// Folder of all snapshots of etcd, with its slash: a folder per cluster in it, and in these one per snapshot.
pub const ETCD_SNAPSHOTS: &str = "plugins/etcd-launcher/";

/// Folder of the repositories of volumes, with its slash.
pub const VOLUMES: &str = "restic/";

const MARKER: &str = "velero-backup.json";
const KEY: &str = "key.age";
const RECIPIENTS: &str = "recipients.txt";
const SECRETS_ARCHIVE: &str = "secrets.tar.gz.age";
const SECRETS_INDEX: &str = "secrets.index.jsonl.zst.age";
const SECRETS_KEY: &str = "secrets.key.age";
const SECRETS_RECIPIENTS: &str = "secrets.recipients.txt";

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
            && (BackupKeys::claim_run(file).is_some() || BackupKeys::is_of_key(file))
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

/// The keys of one restore. Velero looks for no restores in a bucket: it reads its files there by the name of a Restore object in its cluster.
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

    /// Where the objects are kept that a restore deleted, with its slash.
    pub fn all_kept(&self) -> String {
        self.file("kept/")
    }

    /// Where the objects of one place in the target are kept that a restore deleted, with its slash; `place` is a digest.
    pub fn kept_folder(&self, place: &str) -> String {
        self.file(&format!("kept/{place}/"))
    }

    /// One of them, gzip JSON; `moment` is a time in milliseconds.
    pub fn kept(&self, place: &str, moment: u64) -> String {
        self.file(&format!("kept/{place}/{moment:015}.json.gz"))
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

/// The keys of the repositories of one volume: `restic/<cluster>/<namespace>/<claim's uid>/`, and beside each what belongs to it. A volume has a second one, `<uid>.2`,
/// where a writer could not open the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeKeys {
    folder: String,
    uid: Name,
    number: u32,
}

impl VolumeKeys {
    /// The keys of the first repository of the claim with this uid.
    ///
    /// # Errors
    /// `Invalid`, where one of them can not be a part of a key.
    pub fn new(cluster: &str, namespace: &str, uid: &str) -> crate::Result<Self> {
        let (cluster, namespace): (Name, Name) = (cluster.parse()?, namespace.parse()?);
        let uid: Name = uid.parse()?;
        if uid.as_str().contains('.') {
            return Err(crate::Error::invalid(format!("{uid} is no uid of a claim")));
        }
        Ok(Self {
            folder: format!("{VOLUMES}{cluster}/{namespace}/"),
            uid,
            number: 1,
        })
    }

    /// The same of the repository with this number, from 1 on.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        Self {
            number: number.max(1),
            ..self.clone()
        }
    }

    /// Which one it is.
    pub fn number(&self) -> u32 {
        self.number
    }

    fn name(&self) -> String {
        let stem = format!("{}{}", self.folder, self.uid);
        match self.number {
            1 => stem,
            number => format!("{stem}.{number}"),
        }
    }

    /// The repository, with its slash.
    pub fn repository(&self) -> String {
        format!("{}/", self.name())
    }

    /// Its password in the clear.
    pub fn key(&self) -> String {
        format!("{}.key", self.name())
    }

    /// Its password, encrypted for the location's recipients.
    pub fn sealed_key(&self) -> String {
        format!("{}.key.age", self.name())
    }

    /// The claims of those at work in it, with the slash.
    pub fn claims(&self) -> String {
        format!("{}.claims/", self.name())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_with_a_run_id_are_taken_for_what_a_run_left() {
        let run = "0123456789abcdef0123456789abcdef";
        for data in [".db", ".db.zst", ".db.zst.age"] {
            assert!(SnapshotKeys::is_data(&format!("{run}{data}")), "{data}");
        }
        assert!(SnapshotKeys::is_data(&SnapshotKeys::data_file(
            run, true, false
        )));
        let (sealed, key) = (
            SnapshotKeys::data_file(run, true, true),
            SnapshotKeys::key_file(run),
        );
        assert!(SnapshotKeys::is_data(&sealed) && sealed.ends_with(".db.zst.age"));
        assert_eq!(SnapshotKeys::key_beside(&sealed), Some(key.clone()));
        assert_eq!(SnapshotKeys::key_beside(&format!("{run}.db.zst")), None);
        let renamed = SnapshotKeys::key_beside("my.db.zst.age");
        assert_eq!(renamed.as_deref(), Some("my.key.age"));
        let recipients = SnapshotKeys::recipients_file(&key).unwrap();
        assert!(SnapshotKeys::is_key(&key) && SnapshotKeys::is_key(&recipients));
        for other in ["key.age", "my.key.age", "manifest.json", &sealed] {
            assert!(!SnapshotKeys::is_key(other), "{other}");
            assert_eq!(SnapshotKeys::recipients_file(other), None, "{other}");
        }
        assert!(SnapshotKeys::is_upload(&format!("{run}.upload.json")));
        for other in [
            "manifest.json",
            "my.db.zst",
            "0123.db.zst",
            "0123456789abcdef0123456789abcdef.dbx",
            "0123456789abcdef0123456789abcdef",
            "0123456789abcdef0123456789abcdef.upload.json",
            "0123456789ABCDEF0123456789ABCDEF.db",
            ".upload.json",
        ] {
            assert!(!SnapshotKeys::is_data(other), "{other}");
        }
        assert!(!SnapshotKeys::is_upload("manifest.json"));
    }

    #[test]
    fn every_file_of_a_backup_has_one_place_in_a_vault_and_what_is_no_ones_has_none() {
        for (key, stands) in [
            ("backups/a/velero-backup.json", "backups/a/manifest.json"),
            ("backups/a/claim-1.json", "backups/a/claim-1.json"),
            ("backups/a/key.age", "backups/a/key.age"),
            ("backups/a/recipients.txt", "backups/a/recipients.txt"),
            ("backups/a/a.tar.gz", "backups/a/a.tar.gz.age"),
            ("backups/a/SHA256SUMS", "backups/a/SHA256SUMS.age"),
            ("backups/a/manifest.json", "backups/a/manifest.json.age"),
            (
                "backups/a/x/velero-backup.json",
                "backups/a/x/velero-backup.json.age",
            ),
        ] {
            let stands = format!("{VAULT}{stands}");
            assert_eq!(Sealed::of(key).key(), stands);
            assert_eq!(
                Sealed::back(&stands),
                Some((key.to_owned(), Sealed::of(key)))
            );
        }
        for odd in [
            "backups/a/velero-backup.json",
            "backups/a/velero-backup.json.age",
            "backups/a/claim-1.json.age",
            "backups/a/recipients.txt.age",
            "backups/a/other",
            "backups/a/key",
        ] {
            assert_eq!(Sealed::back(&format!("{VAULT}{odd}")), None, "{odd}");
        }
        assert!(!PROBES.starts_with(&format!("{VAULT}{BACKUPS}")));
    }

    #[test]
    fn only_the_two_files_of_secrets_in_a_backups_own_folder_are_opened_as_such() {
        let keys = BackupKeys::new(&"secrets".parse().unwrap());
        assert_eq!(keys.archive(), "backups/secrets/secrets.tar.gz");
        for sealed in [keys.secrets_archive(), keys.secrets_index()] {
            assert!(BackupKeys::is_sealed_secrets(&sealed), "{sealed}");
            assert!(keys.is_known(&sealed), "{sealed}");
        }
        for other in [
            keys.archive(),
            keys.secrets_key(),
            keys.secrets_recipients(),
            "backups/secrets.tar.gz.age".to_owned(),
            "backups/a/b/secrets.tar.gz.age".to_owned(),
            "restores/a/secrets.tar.gz.age".to_owned(),
        ] {
            assert!(!BackupKeys::is_sealed_secrets(&other), "{other}");
        }
    }

    #[test]
    fn the_keys_of_a_snapshot_lie_in_its_folder() {
        let (cluster, name) = ("zvc78xnnz7".parse().unwrap(), "daily.1".parse().unwrap());
        let keys = SnapshotKeys::new(&cluster, &name);
        assert_eq!(keys.folder(), "plugins/etcd-launcher/zvc78xnnz7/daily.1/");
        assert_eq!(
            keys.manifest(),
            "plugins/etcd-launcher/zvc78xnnz7/daily.1/manifest.json"
        );
        assert!(keys.upload("x").starts_with(&keys.folder()));
        assert!(
            keys.folder()
                .starts_with(&SnapshotKeys::cluster_folder(&cluster))
        );
        assert!(
            TOP_FOLDERS
                .iter()
                .any(|top| ETCD_SNAPSHOTS.starts_with(&format!("{top}/")))
        );
    }
}
