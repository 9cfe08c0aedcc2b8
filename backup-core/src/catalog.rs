//! The backups and restores of a location, as the bucket shows them: list, read, delete, prune. Works without any cluster.

mod digests;
mod keep;
mod newest;
mod prune;
mod rekey;
mod remove;
mod restores;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::apart::Apart;
use crate::api::{Backup, Phase};
use crate::error::{Error, Kind, Result};
use crate::layout::{BACKUPS, BackupKeys};
use crate::location::Store;
use crate::location::claim::{Folder, describe, may_write};
use crate::name::Name;
use crate::records::{self, Data, Volume};

pub(crate) use digests::read_digests;
pub use digests::{Digests, Verified, verify_files};
pub use keep::Keep;
pub use newest::{Here, Maker, OfSchedule, made_by, of_schedule};
pub(crate) use prune::store_time;
pub use prune::{Going, Longer, PruneOptions, Pruned, Wanted, prune};
pub use rekey::rekey;
pub(crate) use rekey::replace_key;
pub use remove::{delete, delete_again, kept};
pub use restores::{
    RestoreFile, UNKNOWN, being_restored, delete_restore, get_restore, kept_by_restore,
    list_restores, read_restore_file,
};

/// Label with the schedule that a backup was made for; Velero's.
pub const SCHEDULE_NAME: &str = "velero.io/schedule-name";

/// Annotation with the uid of the cluster's kube-system; ours.
pub const CLUSTER_UID: &str = "kubectl-backup/cluster-uid";

/// Markers are read so many at a time.
const AT_A_TIME: usize = 16;

/// A marker is a few kilobytes; a long list of namespaces makes it longer.
pub(crate) const LARGEST_MARKER: u64 = 4 << 20;

/// A restore's file, packed.
const LARGEST_SIDE: u64 = 64 << 20;

/// A backup as the bucket shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The folder's name.
    pub name: Name,
    /// Its marker, decoded.
    pub backup: Backup,
    /// Its marker as written; of an encrypted one without its key, what stands of it in the clear.
    pub raw: Bytes,
    /// Whether it is an encrypted one.
    pub encrypted: bool,
}

impl Entry {
    /// Where its files are, to be listed and removed: of an encrypted one nothing can be read there.
    pub fn store(&self, store: &Store) -> Store {
        match self.encrypted {
            true => store.vault(None),
            false => store.clone(),
        }
    }

    /// The Secrets that stand apart from the rest of it, encrypted.
    ///
    /// # Errors
    /// `Corrupt`, where the marker says that there are some, and not what.
    pub fn apart(&self) -> Result<Option<Apart>> {
        match self.encrypted {
            true => Ok(None),
            false => Apart::of(&self.backup),
        }
    }

    /// Where the key of what is encrypted of it stands; nothing of a plain backup.
    ///
    /// # Errors
    /// As [`Entry::apart`].
    pub fn key_place(&self, store: &Store) -> Result<Option<KeyPlace>> {
        let keys = BackupKeys::new(&self.name);
        if self.encrypted {
            return Ok(Some(KeyPlace {
                store: store.vault(None),
                key: keys.key(),
                recipients: keys.recipients(),
            }));
        }
        Ok(self.apart()?.map(|_| KeyPlace {
            store: store.outside(),
            key: keys.secrets_key(),
            recipients: keys.secrets_recipients(),
        }))
    }
}

/// Where the key of an encrypted backup, or of a plain one's Secrets, stands.
#[derive(Clone)]
pub struct KeyPlace {
    /// As it stands in the bucket.
    pub store: Store,
    /// The key, encrypted for its recipients.
    pub key: String,
    /// Who they are, in short.
    pub recipients: String,
}

/// All backups with a marker, encrypted ones too, sorted by start, newest last. Folders without a marker are passed over; a marker that can not be read is a
/// warning.
///
/// # Errors
/// The store's.
pub async fn list(store: &Store) -> Result<(Vec<Entry>, Vec<String>)> {
    let (mut found, mut warnings) = list_one(store).await?;
    if !store.is_vault() {
        let (encrypted, more) = list_one(&store.vault(None)).await?;
        found.extend(encrypted);
        warnings.extend(more);
    }
    warnings.sort();
    found.sort_by(|a, b| {
        let start = |entry: &Entry| entry.backup.status.start_timestamp;
        start(a).cmp(&start(b)).then_with(|| a.name.cmp(&b.name))
    });
    Ok((found, warnings))
}

async fn list_one(store: &Store) -> Result<(Vec<Entry>, Vec<String>)> {
    let mut warnings = Vec::new();
    let mut names = Vec::new();
    for folder in store.folders(BACKUPS).await? {
        match Name::foreign(&folder) {
            Ok(name) => names.push(name),
            Err(e) => warnings.push(format!("{BACKUPS}{}: {e}", folder.escape_debug())),
        }
    }
    let mut found = Vec::new();
    let mut read = stream::iter(names)
        .map(|name| async move {
            let entry = find_one(store, &name).await;
            (name, entry)
        })
        .buffer_unordered(AT_A_TIME);
    while let Some((name, entry)) = read.next().await {
        match entry {
            Ok(Some(entry)) => found.push(entry),
            Ok(None) => {}
            Err(e) if e.kind() == Kind::Corrupt => warnings.push(format!("backup {name}: {e}")),
            Err(e) => return Err(e),
        }
    }
    Ok((found, warnings))
}

/// One backup, plain or encrypted; nothing where it has no marker.
///
/// # Errors
/// The store's; `Corrupt`, where the marker is none of this folder's.
pub async fn find(store: &Store, name: &Name) -> Result<Option<Entry>> {
    match find_one(store, name).await? {
        None if !store.is_vault() => find_one(&store.vault(None), name).await,
        found => Ok(found),
    }
}

/// One backup of this store alone, which holds plain ones or, as a vault, encrypted ones.
///
/// # Errors
/// As [`find`].
pub async fn find_here(store: &Store, name: &Name) -> Result<Option<Entry>> {
    find_one(store, name).await
}

async fn find_one(store: &Store, name: &Name) -> Result<Option<Entry>> {
    let key = BackupKeys::new(name).marker();
    let Some(raw) = store.find(&key, LARGEST_MARKER).await? else {
        return Ok(None);
    };
    let backup: Backup = serde_json::from_slice(&raw)
        .map_err(|e| Error::corrupt(format!("{key} is not a Backup: {e}")))?;
    if backup.kind != "Backup" || backup.metadata.name != name.as_str() {
        return Err(Error::corrupt(format!(
            "{key} is the {} {:?}, not this backup",
            backup.kind.escape_debug(),
            backup.metadata.name
        )));
    }
    Ok(Some(Entry {
        name: name.clone(),
        backup,
        raw,
        encrypted: store.is_vault(),
    }))
}

/// One backup.
///
/// # Errors
/// `NotFound`, with names that are like it as the hint.
pub async fn get(store: &Store, name: &Name) -> Result<Entry> {
    match find(store, name).await? {
        Some(entry) => Ok(entry),
        None => Err(absent(store, name).await),
    }
}

/// What a run left of itself, whose process is not heard of.
#[derive(Clone, Debug)]
pub struct Traces {
    /// The backup, if its marker stands and can be understood.
    pub entry: Option<Entry>,
    /// Whose claim it is that may still be a living run's.
    pub at_work: Option<String>,
}

/// What stands in a backup's folder. Claims are looked at first, by the store's clock: a run that ended before has its marker there.
///
/// # Errors
/// The store's.
pub async fn traces(store: &Store, name: &Name) -> Result<Traces> {
    let mut at_work = None;
    // A plain one's, or an encrypted one's.
    for store in [store.outside(), store.vault(None)] {
        let folder = Folder::read(&store, &BackupKeys::new(name), "").await?;
        if folder.claims.is_empty() {
            continue;
        }
        let now = store_time(&store).await?;
        if let Some(claim) = folder.claims.iter().find(|claim| may_write(claim, now)) {
            at_work = Some(describe(&store, claim).await);
        }
    }
    let entry = match find(store, name).await {
        Err(e) if e.kind() == Kind::Corrupt => None,
        read => read?,
    };
    Ok(Traces { entry, at_work })
}

/// Why there is no such backup, as helpfully as a listing allows.
async fn absent(store: &Store, name: &Name) -> Error {
    let keys = BackupKeys::new(name);
    let error = Error::not_found(format!("backup {name} not found in {}", store.place()));
    if let Ok(left) = store.entries(&keys.folder(), 1000).await
        && !left.is_empty()
    {
        return Error::not_found(format!(
            "backup {name} is not complete: its folder has files but no marker"
        ))
        .hint("a run is writing or deleting it right now, or died; `kubectl backup prune` removes what dead runs left");
    }
    let Ok(folders) = store.folders(BACKUPS).await else {
        return error;
    };
    near("backups", name.as_str(), &folders).map_or_else(
        || error.hint("`kubectl backup get` lists what is there"),
        |hint| Error::not_found(format!("backup {name} not found in {}", store.place())).hint(hint),
    )
}

/// Names like the one that was asked for.
pub(crate) fn near(what: &str, name: &str, names: &[String]) -> Option<String> {
    if names.is_empty() {
        return Some(format!("this location has no {what} yet"));
    }
    let mut like: Vec<(usize, &String)> = names
        .iter()
        .filter(|other| Name::foreign(other).is_ok())
        .filter_map(|other| {
            let far = distance(name, other);
            let alike = far <= name.len().max(3) / 3
                || (name.len() >= 3 && (other.contains(name) || name.contains(other.as_str())));
            alike.then_some((far, other))
        })
        .collect();
    like.sort();
    like.truncate(3);
    if like.is_empty() {
        return None;
    }
    let like: Vec<&str> = like.iter().map(|(_, name)| name.as_str()).collect();
    Some(format!("did you mean {}", like.join(", ")))
}

/// Edits from one name to the other.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = cost.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Whether we wrote the backup and it has its index. An index alone says nothing: a run of ours may have died, and Velero taken the name.
///
/// # Errors
/// The store's.
pub async fn is_ours(store: &Store, entry: &Entry) -> Result<bool> {
    if !names_us(&entry.backup) {
        return Ok(false);
    }
    is_there(store, &BackupKeys::new(&entry.name).index()).await
}

async fn is_there(store: &Store, key: &str) -> Result<bool> {
    match store.head(key).await {
        Ok(_) => Ok(true),
        Err(e) if crate::location::store::is_absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether the marker says that we wrote the backup, whatever is left of its files.
pub fn names_us(backup: &Backup) -> bool {
    let annotations = &backup.metadata.annotations;
    annotations
        .keys()
        .any(|key| key.starts_with("kubectl-backup/"))
}

/// Whether the marker is another tool's that says of itself that it will be written again: Velero puts it down before volumes are done.
pub fn is_at_work(backup: &Backup) -> bool {
    let last = match &backup.status.phase {
        Phase::Completed | Phase::PartiallyFailed | Phase::Failed | Phase::FailedValidation => true,
        // A deletion that died halfway is finished by deleting again.
        Phase::Deleting => true,
        Phase::New | Phase::InProgress | Phase::Other(_) => false,
    };
    !last && !names_us(backup)
}

/// The copies of volumes' files that a backup of ours has in repositories, in a sentence: they stay when it goes, and do not come along with a copy of it. Nothing where it has none.
///
/// # Errors
/// The store's; `Corrupt` and `Invalid`, where the file that tells can not be read.
pub async fn copies_elsewhere(store: &Store, name: &Name) -> Result<Option<String>> {
    let Some(copies) = records::copies::copies(store, name).await? else {
        return Ok(None);
    };
    let mut places = Vec::new();
    for row in copies.rows.iter().filter(|row| row.saved().is_some()) {
        places.push(copies.place(row)?.repository());
    }
    // A claim has one snapshot in a backup, and a repository of its own.
    Ok(match places.len() {
        0 => None,
        1 => Some(format!(
            "1 snapshot of a volume stays in its repository{}",
            some_of(places)
        )),
        n => Some(format!(
            "{n} snapshots of volumes stay in their repositories{}",
            some_of(places)
        )),
    })
}

/// The snapshots of volumes that a backup of ours has in their storage, in a sentence: a copy of it names them, and they go with the original. Nothing where it has none.
///
/// # Errors
/// As [`copies_elsewhere`].
pub async fn snapshots_elsewhere(store: &Store, name: &Name) -> Result<Option<String>> {
    let Some(copies) = records::copies::copies(store, name).await? else {
        return Ok(None);
    };
    let many = copies
        .rows
        .iter()
        .filter(|row| row.snapshot().is_some())
        .count();
    let cluster = copies.cluster.unwrap_or_default();
    let what = match many {
        0 => return Ok(None),
        1 => "1 snapshot of a volume is".to_owned(),
        many => format!("{many} snapshots of volumes are"),
    };
    Ok(Some(format!(
        "{what} in the storage of cluster {cluster}, and goes when the original is deleted: the copy can not bring it back then"
    )))
}

/// What a Velero backup's deletion would leave elsewhere (volume snapshots, pod volume backups, CSI), a sentence each.
///
/// # Errors
/// The store's; `Corrupt`, when one of the files that would tell can not be read.
pub async fn leaks(store: &Store, name: &Name) -> Result<Vec<String>> {
    let records::Volumes { list, unread } = records::volumes(store, name).await?;
    if let Some(unread) = unread.into_iter().next() {
        return Err(Error::corrupt(unread));
    }
    // Ours are told in their own way, and of one that failed there is nothing.
    let held = |volume: &&Volume| {
        let is_held = matches!(volume.data(), Data::Saved | Data::Failed);
        is_held
            && volume.copy.is_none()
            && volume.snapshot.is_none()
            && !volume.backup_method.is_empty()
    };
    let mut sorts: [Vec<String>; 5] = Default::default();
    for volume in list.iter().filter(held) {
        let (sort, name) = match volume.backup_method.as_str() {
            _ if volume.snapshot_data_moved => (3, volume.name()),
            "NativeSnapshot" => (0, volume.snapshot_handle.clone()),
            "PodVolumeBackup" => (1, volume.name()),
            "CSISnapshot" => (2, volume.snapshot_handle.clone()),
            _ => (4, volume.name()),
        };
        sorts[sort].push(name);
    }
    let told = [
        "volume snapshots stay with the storage provider",
        "file-level copies of volumes stay in the repository (kopia/ or restic/)",
        "CSI snapshots stay with the storage system",
        "volumes' data that was moved stays in the repository (kopia/)",
        "volumes' data that was saved in another way stays where it is",
    ];
    Ok(sorts
        .into_iter()
        .zip(told)
        .filter(|(names, _)| !names.is_empty())
        .map(|(names, told)| format!("{} {told}{}", names.len(), some_of(names)))
        .collect())
}

/// A few names, in brackets.
fn some_of(mut names: Vec<String>) -> String {
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    let more = names.len().saturating_sub(5);
    names.truncate(5);
    match (names.is_empty(), more) {
        (true, _) => String::new(),
        (false, 0) => format!(" ({})", names.join(", ")),
        (false, more) => format!(" ({} and {more} more)", names.join(", ")),
    }
}

/// Reads objects side by side, in the order given.
async fn read_all<T, O, F, Fut>(items: Vec<T>, read: F) -> Result<Vec<O>>
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<O>>,
{
    stream::iter(items)
        .map(read)
        .buffered(AT_A_TIME)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests;
