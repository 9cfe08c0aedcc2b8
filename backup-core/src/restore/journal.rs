//! What a restore leaves of itself while it works: segments `restores/<name>/journal-NNNNNN.jsonl.zst`, the first of which tells what it is. The target
//! is the truth about what was restored; the journal tells which restore is unfinished, of which options, and what was done when.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Step;
use super::place::Place;
use crate::api::{Restore, RestoreSpec};
use crate::catalog::CLUSTER_UID;
use crate::error::{Error, Kind, Result};
use crate::layout::RestoreKeys;
use crate::location::Store;
use crate::name::Name;

/// What [`Header::format`] says.
pub const FORMAT: &str = "kubectl-backup.journal/1";
/// Annotation of the finished record with the digest of the options.
pub const ANNOTATION_OPTIONS: &str = "kubectl-backup/options-hash";
/// Annotation of the finished record with what was done with objects that existed, in our words: Velero's spec has two of them.
pub const ANNOTATION_POLICY: &str = "kubectl-backup/existing-resource-policy";
/// Annotation of the finished record, as [`Header::backup_uid`].
pub const ANNOTATION_BACKUP: &str = "kubectl-backup/backup-uid";
/// A run that wrote nothing for so many seconds, and has no mover, is over.
const QUIET: i64 = 600;
/// No segment that is read is larger, packed; the first is not larger as it is.
pub(super) const LARGEST: u64 = 1 << 20;
/// So much of a segment's text is read.
const LARGEST_TEXT: u64 = 16 << 20;
/// Segments whose lines about what was kept are read, and such lines.
const MOST_SEGMENTS: u32 = 1_000_000;
const MOST_SETTLED: usize = 1_000_000;
/// How old what is not yet written may become.
const EVERY: Duration = Duration::from_secs(2);

/// The first line of the first segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// [`FORMAT`]
    pub format: String,
    /// From which backup.
    pub backup: String,
    /// Digest of everything that decides what is restored, and where.
    pub options_hash: String,
    /// When it began.
    pub started: Timestamp,
    /// What was asked for.
    pub spec: RestoreSpec,
    /// By which snapshots of volumes name the backup; empty where the data of no volume is brought back. Nothing is an older version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_uid: Option<String>,
    /// The uid of the target's kube-system. Nothing is an older version's, or of who could not read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

impl Header {
    /// Reads it from the bytes of the first segment.
    ///
    /// # Errors
    /// `Corrupt`, when that is no journal, or one of a format we do not know.
    pub fn read(segment: &[u8]) -> Result<Self> {
        let bad = || Error::corrupt("the first segment is no journal of a restore that we know");
        let mut text = String::new();
        unpack(segment, LARGEST, &mut text).map_err(|e| bad().because(e))?;
        let header: Self = serde_json::from_str(text.lines().next().unwrap_or_default())
            .map_err(|e| bad().because(e))?;
        if header.format != FORMAT {
            return Err(bad().hint("a newer version of this program wrote it"));
        }
        Ok(header)
    }
}

/// From what a restore brings data, and whereto.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// As [`Header::backup_uid`].
    pub backup_uid: Option<String>,
    /// As [`Header::cluster`].
    pub cluster: Option<String>,
}

/// What the record of a restore says, or its journal where the record does not.
///
/// # Errors
/// The store's.
pub async fn origin(store: &Store, restore: &Restore) -> Result<Origin> {
    let says = |key: &str| restore.metadata.annotations.get(key).cloned();
    let of_record = Origin {
        backup_uid: says(ANNOTATION_BACKUP),
        cluster: says(CLUSTER_UID).filter(|uid| !uid.is_empty()),
    };
    if of_record.backup_uid.is_some() && of_record.cluster.is_some() {
        return Ok(of_record);
    }
    let name: Name = Name::foreign(&restore.metadata.name)?;
    let segment = store
        .find(&RestoreKeys::new(&name).journal(0), LARGEST)
        .await;
    let header = match segment {
        Ok(segment) => segment.and_then(|segment| Header::read(&segment).ok()),
        Err(e) if e.kind() == Kind::Corrupt => None,
        Err(e) => return Err(e),
    };
    let Some(header) = header else {
        return Ok(of_record);
    };
    Ok(Origin {
        backup_uid: of_record.backup_uid.or(header.backup_uid),
        cluster: of_record.cluster.or(header.cluster),
    })
}

/// A restore that was begun earlier.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Earlier {
    pub(super) name: Name,
    pub(super) options_hash: String,
    pub(super) started: Timestamp,
    /// What was asked for, with what the target's ConfigMaps said when it began.
    pub(super) spec: RestoreSpec,
    /// When it finished, if it did.
    pub(super) finished: Option<Timestamp>,
    /// Whether nothing was missing then.
    pub(super) whole: bool,
}

/// What is known of a restore of this name, wherever its journal is.
///
/// # Errors
/// As [`Place::earlier`].
pub(super) async fn earlier(places: &[Place], name: &Name) -> Result<Option<Earlier>> {
    for place in places {
        if let Some(earlier) = place.earlier(name).await? {
            return Ok(Some(earlier));
        }
    }
    Ok(None)
}

/// The newest unfinished restore of equal options.
///
/// # Errors
/// The store's; what is no journal is passed over.
pub(super) async fn unfinished(places: &[Place], options_hash: &str) -> Result<Option<Earlier>> {
    let mut newest: Option<Earlier> = None;
    for place in places {
        for name in place.unfinished().await? {
            let earlier = match place.earlier(&name).await {
                // What is no journal of ours is no restore to go on with.
                Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::AlreadyExists) => continue,
                earlier => earlier?,
            };
            if let Some(earlier) = earlier
                && earlier.options_hash == options_hash
                && newest.as_ref().is_none_or(|n| n.started < earlier.started)
            {
                newest = Some(earlier);
            }
        }
    }
    Ok(newest)
}

/// Two restores that begin in one second may make the same name.
pub(super) fn taken_just_now(name: &Name) -> Error {
    Error::new(
        Kind::AlreadyExists,
        format!("another restore took the name {name} just now"),
    )
    .hint("give the command again")
}

/// The line with which a run begins that goes on with an earlier one.
#[derive(Serialize)]
struct Resumed {
    resumed: Timestamp,
}

/// How far a restore's last run came, as its files tell by the store's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastRun {
    /// It ended: its record was written after it wrote to its journal.
    pub is_finished: bool,
    /// When it wrote to its journal last.
    pub written: Option<Timestamp>,
}

impl LastRun {
    /// Whether it may be at work: it did not end, and wrote not long ago.
    pub fn may_be_at_work(&self, now: Timestamp) -> bool {
        let age = |written: Timestamp| now.duration_since(written).as_secs();
        !self.is_finished && self.written.is_some_and(|written| age(written) < QUIET)
    }
}

/// How the last run of a restore ended, or did not.
///
/// # Errors
/// The store's.
pub async fn last_run(store: &Store, name: &Name) -> Result<LastRun> {
    let keys = RestoreKeys::new(name);
    let (mut marker, mut written) = (None, None);
    let mut files = store.list(&keys.folder());
    while let Some(file) = files.try_next().await? {
        if file.key == keys.marker() {
            marker = Some(file.modified);
        } else if file.key.contains("/journal-") {
            written = written.max(Some(file.modified));
        }
    }
    Ok(LastRun {
        is_finished: marker.is_some() && marker >= written,
        written,
    })
}

/// A line about something kept.
#[derive(Serialize, Deserialize)]
struct Settled {
    settled: String,
}

/// What a journal says is settled. A segment that can not be read says nothing: then more is put back, and nothing is lost.
///
/// # Errors
/// The store's.
pub(super) async fn settled(place: &Place, keys: &RestoreKeys) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    for number in 1..MOST_SEGMENTS {
        let segment = match place.find_within(&keys.journal(number), LARGEST).await {
            Err(e) if e.kind() == Kind::Corrupt => continue,
            segment => segment?,
        };
        let Some(segment) = segment else { break };
        let mut text = String::new();
        if unpack(&segment, LARGEST_TEXT, &mut text).is_err() {
            continue;
        }
        let lines = text.lines().filter(|line| line.contains("\"settled\""));
        let lines = lines.filter_map(|line| serde_json::from_str::<Settled>(line).ok());
        found.extend(lines.map(|line| line.settled));
        if found.len() > MOST_SETTLED {
            break;
        }
    }
    Ok(found)
}

/// A segment's text, at most so many bytes.
fn unpack(segment: &[u8], most: u64, text: &mut String) -> std::io::Result<usize> {
    use std::io::Read as _;
    zstd::Decoder::new(segment).and_then(|d| d.take(most).read_to_string(text))
}

/// The journal of the run at work.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) place: Place,
    pub(super) keys: RestoreKeys,
    next: u32,
    pending: Vec<u8>,
    written: Instant,
    /// Why a segment could not be written; the restore goes on, for the target itself tells what was restored.
    pub(super) trouble: Option<String>,
}

impl Journal {
    /// Begins one, or goes on with it.
    ///
    /// # Errors
    /// When the header can not be written; `AlreadyExists`, when another run began one of that name.
    pub(super) async fn open(
        place: Place,
        name: &Name,
        header: &Header,
        resumed: bool,
    ) -> Result<Self> {
        let keys = RestoreKeys::new(name);
        let mut journal = Self {
            next: 0,
            pending: Vec::new(),
            written: Instant::now(),
            trouble: None,
            place,
            keys,
        };
        if resumed {
            journal.next = journal
                .place
                .list(&journal.keys.folder())
                .await?
                .iter()
                .filter_map(|key| {
                    let number = key.rsplit_once("/journal-")?.1.strip_suffix(".jsonl.zst")?;
                    number.parse::<u32>().ok()
                })
                .map(|number| number.saturating_add(1))
                .max()
                .unwrap_or(0);
        }
        if journal.next > 0 {
            // Whoever looks sees that the restore is at work again, though an older record says that it ended.
            journal.line(&Resumed {
                resumed: Timestamp::now(),
            })?;
            let segment = journal.segment()?;
            let key = journal.keys.journal(journal.next);
            journal.place.put(&key, segment).await?;
            journal.next += 1;
        }
        if journal.next == 0 {
            journal.line(header)?;
            let segment = journal.segment()?;
            if !journal
                .place
                .begin(&journal.keys.journal(0), segment)
                .await?
            {
                return Err(taken_just_now(name));
            }
            journal.next = 1;
        }
        Ok(journal)
    }

    /// Notes a step.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn note(&mut self, step: &Step) -> Result<()> {
        self.line(step)
    }

    /// Notes that what was kept as `key` is owed to nobody: another object, or the same one, is in its place.
    ///
    /// # Errors
    /// Never in practice.
    pub(super) fn settle(&mut self, key: String) -> Result<()> {
        self.line(&Settled { settled: key })
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.pending, value)
            .map_err(|e| Error::other("a line of the journal can not be written").because(e))?;
        self.pending.push(b'\n');
        Ok(())
    }

    fn segment(&mut self) -> Result<Bytes> {
        let packed = zstd::encode_all(self.pending.as_slice(), 1)
            .map_err(|e| Error::other("a segment of the journal can not be packed").because(e))?;
        self.pending.clear();
        self.written = Instant::now();
        Ok(packed.into())
    }

    /// Writes what is pending, when it is time or when told to.
    pub(super) async fn flush(&mut self, now: bool) {
        if self.pending.is_empty() || !(now || self.written.elapsed() >= EVERY) {
            return;
        }
        let key = self.keys.journal(self.next);
        let result = match self.segment() {
            Ok(segment) => self.place.put(&key, segment).await,
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => self.next += 1,
            Err(e) => self.trouble = Some(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(hash: &str, started: &str) -> Header {
        Header {
            format: FORMAT.into(),
            backup: "b".into(),
            options_hash: hash.into(),
            started: started.parse().unwrap(),
            spec: RestoreSpec::default(),
            backup_uid: Some("b-uid".into()),
            cluster: Some("c-uid".into()),
        }
    }

    #[tokio::test]
    async fn a_run_that_goes_on_with_one_that_ended_is_seen_to_be_at_work() {
        let store = Store::in_memory();
        let name: Name = "r".parse().unwrap();
        let keys = RestoreKeys::new(&name);
        let place = Place::Store(store.clone());
        let header = header("h", "2026-01-01T00:00:00Z");
        let begin = async |resumed| {
            Journal::open(place.clone(), &name, &header, resumed)
                .await
                .unwrap();
            let now = Timestamp::now();
            (last_run(&store, &name).await.unwrap(), now)
        };
        let (run, now) = begin(false).await;
        assert!(!run.is_finished && run.may_be_at_work(now));
        let later = now + Duration::from_secs(601);
        assert!(!run.may_be_at_work(later), "it was killed");
        tokio::time::sleep(Duration::from_millis(20)).await;
        store.put(&keys.marker(), "{}".into()).await.unwrap();
        let run = last_run(&store, &name).await.unwrap();
        assert!(run.is_finished && !run.may_be_at_work(now));
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (run, now) = begin(true).await;
        assert!(!run.is_finished && run.may_be_at_work(now));
    }

    #[tokio::test]
    async fn backup_and_cluster_of_a_restore_are_told_by_its_record_or_by_its_journal() {
        let store = Store::in_memory();
        let name: Name = "r".parse().unwrap();
        let mut record = Restore::default();
        record.metadata.name = "r".into();
        let told = async |record: &Restore| origin(&store, record).await.unwrap();
        let is = |backup: Option<&str>, cluster: Option<&str>| Origin {
            backup_uid: backup.map(str::to_owned),
            cluster: cluster.map(str::to_owned),
        };
        assert_eq!(told(&record).await, Origin::default());
        let now = header("h", "2026-01-01T00:00:00Z");
        let before = Header {
            backup_uid: None,
            cluster: None,
            ..now.clone()
        };
        let place = Place::Store(store.clone());
        for (header, origin) in [
            (before, Origin::default()),
            (now, is(Some("b-uid"), Some("c-uid"))),
        ] {
            let key = RestoreKeys::new(&name).journal(0);
            store.delete(&key).await.unwrap();
            Journal::open(place.clone(), &name, &header, false)
                .await
                .unwrap();
            assert_eq!(told(&record).await, origin);
        }
        let annotations = &mut record.metadata.annotations;
        annotations.insert(ANNOTATION_BACKUP.to_owned(), String::new());
        assert_eq!(
            told(&record).await,
            is(Some(""), Some("c-uid")),
            "it brought no data"
        );
        let annotations = &mut record.metadata.annotations;
        annotations.insert(CLUSTER_UID.to_owned(), "d-uid".to_owned());
        assert_eq!(told(&record).await, is(Some(""), Some("d-uid")));
    }

    #[tokio::test]
    async fn an_unfinished_restore_of_equal_options_is_found_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().to_owned());
        for (name, hash, started) in [
            ("old", "h", "2026-01-01T00:00:00Z"),
            ("new", "h", "2026-01-02T00:00:00Z"),
            ("other", "x", "2026-01-03T00:00:00Z"),
            ("done", "h", "2026-01-04T00:00:00Z"),
        ] {
            let name: Name = name.parse().unwrap();
            Journal::open(place.clone(), &name, &header(hash, started), false)
                .await
                .unwrap();
        }
        let done: Name = "done".parse().unwrap();
        let mut record = Restore::default();
        record.status.completion_timestamp = Some("2026-01-04T01:00:00Z".parse().unwrap());
        let marker = serde_json::to_vec(&record).unwrap();
        place
            .put(&RestoreKeys::new(&done).marker(), marker.into())
            .await
            .unwrap();
        let places = [place.clone()];
        let found = unfinished(&places, "h").await.unwrap().unwrap();
        assert_eq!(found.name.as_str(), "new");
        assert!(unfinished(&places, "y").await.unwrap().is_none());
        let done = earlier(&places, &done).await.unwrap().unwrap();
        assert!(done.finished.is_some());

        let mut journal = Journal::open(
            place.clone(),
            &found.name,
            &header("h", "2026-01-02T00:00:00Z"),
            true,
        )
        .await
        .unwrap();
        journal
            .note(&Step {
                kind: "v1/Pod".into(),
                namespace: None,
                name: "p".into(),
                action: super::super::Action::Created,
                reason: String::new(),
            })
            .unwrap();
        journal.flush(false).await;
        assert_eq!(journal.next, 2, "segments are written every 2 s");
        journal.flush(true).await;
        assert_eq!(journal.next, 3);
        assert!(
            place
                .find("restores/new/journal-000002.jsonl.zst")
                .await
                .unwrap()
                .is_some()
        );
    }

    #[tokio::test]
    async fn a_folder_of_another_tool_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Folder(folder.path().to_owned());
        place
            .put("restores/r/restore-r-results.gz", Bytes::from_static(b"x"))
            .await
            .unwrap();
        let error = earlier(&[place], &"r".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyExists);
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        assert!(Header::read(b"x").is_err());
        let packed = zstd::encode_all(&br#"{"format":"other"}"#[..], 1).unwrap();
        assert!(Header::read(&packed).is_err());
    }
}
