//! Takes a snapshot of a live etcd: finds a member, passes its stream through hash, page walk and compression into a store or a file, and makes it
//! visible only when it is known to be whole. Whatever fails before that leaves nothing visible. Writes nothing to etcd.

mod file;
mod pipe;
mod publish;
mod queue;
mod sink;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::catalog;
use super::client::Access;
use super::client::survey::{Found, find_member};
use super::facts::{Alarm, Facts};
use super::hashkv::HashKv;
use super::manifest::{self, Compression, Data, Etcd, FORMAT, LARGEST, Manifest};
use super::sealed::{AGE, Encryption};
use super::stream::Walked;
use crate::error::{Error, Kind, Result};
use crate::layout::SnapshotKeys;
use crate::location::Store;
use crate::progress::Progress;
pub use file::{Origin, store};
use pipe::{How, Passed, pass};
use publish::{Begun, Stored};

/// Up to so many bytes in use, a member counts HashKV in well under a second; it can not commit meanwhile, and what is larger would be felt.
const HARMLESS: u64 = 256 << 20;

/// How long HashKV is waited for: it is a bonus.
const HASH_KV: Duration = Duration::from_secs(30);

/// How a snapshot is taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// The members' endpoints; the best of them is taken.
    pub endpoints: Vec<String>,
    /// How they are reached.
    pub access: Access,
    /// Take it even where no member sees a leader.
    pub without_quorum: bool,
    /// How it is stored.
    pub compression: Compression,
    /// For whom it is encrypted.
    pub encryption: Option<Encryption>,
    /// Where what a slow store does not take is kept, unnamed; without it a slow store ends the snapshot.
    pub spool: Option<PathBuf>,
    /// How long etcd may be held up by a slow store; without it a minute, or the time that 20 MB/s take.
    pub hold_limit: Option<Duration>,
    /// Whether the member is asked for its HashKV.
    pub hash_kv: AskHashKv,
    /// For the manifest: who asked for it.
    pub config: Option<String>,
    /// For the manifest: from when on it may be removed.
    pub expires_at: Option<Timestamp>,
    /// For the manifest: version of the API server.
    pub kubernetes_version: Option<String>,
    /// For the manifest: the greatest revision that is known to have been seen by anybody.
    pub target_revision: Option<i64>,
    /// For the manifest: program and version.
    pub tool: String,
}

impl Options {
    /// What is usual, from these endpoints.
    pub fn new(endpoints: Vec<String>, access: Access, tool: &str) -> Self {
        Self {
            endpoints,
            access,
            without_quorum: false,
            compression: Compression::Zstd,
            encryption: None,
            spool: None,
            hold_limit: None,
            hash_kv: AskHashKv::Harmless,
            config: None,
            expires_at: None,
            kubernetes_version: None,
            target_revision: None,
            tool: tool.to_owned(),
        }
    }
}

/// Whether the member is asked to count its HashKV at the snapshot's revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskHashKv {
    /// Where it has so little data that nobody notices.
    Harmless,
    /// In any case.
    Always,
    /// Never.
    Never,
}

/// Where a snapshot goes.
#[derive(Clone, Debug)]
pub enum Target {
    /// A location: data and manifest under the snapshot's own name.
    Snapshot {
        /// The location's objects.
        store: Store,
        /// The snapshot's keys.
        keys: SnapshotKeys,
    },
    /// One object without a manifest.
    Object {
        /// Where it lies.
        store: Store,
        /// Its key below the store's prefix.
        key: String,
    },
    /// A file without a manifest.
    File {
        /// Where it is to be.
        path: PathBuf,
        /// Whether it may take the place of one that is there.
        replace: bool,
    },
}

/// A snapshot that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What it is. In a location it stands beside the data; of an object or a file it is only told here, with an empty cluster and the
    /// file's name.
    pub manifest: Manifest,
    /// Whether a slow store made use of the spool.
    pub spooled: bool,
}

/// Takes a snapshot. `cancel` turning true gives it up, as long as it is not visible.
///
/// # Errors
/// `AlreadyExists` where the name is taken, by the end of the work as well as before it; `Unreachable`, `Unauthorized`, `Forbidden` of etcd or of
/// the store; `Corrupt` for a stream that is not whole; `Interrupted`. Nothing is visible then, but where the store did not answer when the
/// manifest was written: the message says so.
pub async fn take(
    options: &Options,
    target: &Target,
    mut cancel: watch::Receiver<bool>,
    progress: &dyn Progress,
) -> Result<Taken> {
    let run = uuid::Uuid::new_v4().simple().to_string();
    // Before the members are asked how far they are: what was acknowledged by now is in the snapshot.
    let created_at = now();
    let found = tokio::select! {
        biased;
        () = cancelled(&mut cancel) => return Err(interrupted()),
        found = prepare(options, target, progress) => found?,
    };
    let mut begun = tokio::select! {
        biased;
        () = cancelled(&mut cancel) => return Err(interrupted()),
        begun = Begun::new(target, &run, &options.compression, options.encryption.as_ref()) => begun?,
    };
    let work = async {
        let passed = stream(&found, &mut begun, options, progress).await?;
        knows_itself(&passed.walked, target, progress)?;
        let hash_kv = hash_kv(&found, &passed.walked.facts, options, progress).await;
        let facts = complete_facts(&found, &passed.walked).await?;
        Ok((passed, hash_kv, facts))
    };
    let worked = tokio::select! {
        biased;
        () = cancelled(&mut cancel) => Err(interrupted()),
        worked = work => worked,
    };
    let (passed, hash_kv, facts) = match worked {
        Ok(worked) => worked,
        Err(e) => return Err(begun.abort(e, progress).await),
    };
    progress.step("writing the last parts");
    let stored = begun.finish().await?;
    if *cancel.borrow() && stored.is_hidden() {
        stored.remove().await;
        return Err(interrupted());
    }
    let manifest = Manifest {
        config: options.config.clone(),
        expires_at: options.expires_at,
        hash_kv,
        kubernetes_version: options.kubernetes_version.clone(),
        target_revision: options.target_revision,
        ..describe(
            target,
            &stored,
            &options.compression,
            created_at,
            passed.snapshot,
            facts,
            found.etcd().await,
            &options.tool,
        )
    };
    let manifest = stored.publish(manifest).await?;
    Ok(Taken {
        manifest,
        spooled: passed.spooled,
    })
}

/// What is known of every snapshot.
#[expect(
    clippy::too_many_arguments,
    reason = "each is one part of the manifest"
)]
fn describe(
    target: &Target,
    stored: &Stored<'_>,
    compression: &Compression,
    created_at: Timestamp,
    snapshot: manifest::Snapshot,
    facts: Facts,
    etcd: Etcd,
    tool: &str,
) -> Manifest {
    let (cluster, name) = target.names();
    Manifest {
        format: FORMAT.to_owned(),
        cluster,
        name,
        config: None,
        created_at,
        expires_at: None,
        data: Data {
            file: stored.file(),
            sha256: stored.uploaded().sha256.clone(),
            bytes: stored.uploaded().bytes,
            compression: compression.clone(),
            encryption: stored.is_encrypted().then(|| AGE.to_owned()),
            key: stored.key_file(),
        },
        snapshot,
        facts,
        digest: None,
        hash_kv: None,
        etcd,
        kubernetes_version: None,
        target_revision: None,
        tool: tool.to_owned(),
        sealed: None,
        rest: serde_json::Map::new(),
    }
}

/// By the clock of this machine, as a manifest has it.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}

async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|stop| *stop).await.is_err() {
        // Nobody is left who could ask for it.
        std::future::pending::<()>().await;
    }
}

fn interrupted() -> Error {
    Error::new(Kind::Interrupted, "interrupted; there is no snapshot")
}

/// Whether the name is free, and the member to ask.
async fn prepare(options: &Options, target: &Target, progress: &dyn Progress) -> Result<Found> {
    progress.step("looking for a member of etcd");
    if let Some(spool) = options.spool.as_ref().filter(|spool| !spool.is_dir()) {
        return Err(
            Error::invalid(format!("the spool {} is no folder", spool.display()))
                .hint("make it, or name another one with --spool-dir"),
        );
    }
    target.must_be_free().await?;
    let found = find_member(&options.endpoints, &options.access, options.without_quorum).await?;
    for note in &found.notes {
        progress.warn(note);
    }
    Ok(found)
}

async fn stream(
    found: &Found,
    begun: &mut Begun<'_>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Passed> {
    let role = if found.status.leads() {
        "the leader"
    } else {
        "a follower"
    };
    progress.step(&format!("saving {} ({role})", found.connection.endpoint()));
    let mut messages = found.connection.snapshot().await?;
    let how = How {
        compression: &options.compression,
        spool: options.spool.as_deref(),
        hold_limit: options.hold_limit,
        progress,
    };
    let sealing = begun.sealing.take();
    let passed = pass(&mut messages, &mut begun.sink, &how, sealing).await?;
    let facts = &passed.walked.facts;
    // An etcd without a key is at revision 1, of which its database knows nothing.
    let ends = facts.revision.max(facts.scheduled_compact_revision).max(1);
    if ends < found.status.revision {
        return Err(Error::corrupt(format!(
            "the snapshot ends at revision {}, and the member had {} before it began",
            facts.revision, found.status.revision
        ))
        .hint("the member sent something else than its own data; look at its log"));
    }
    Ok(passed)
}

/// A manifest that names the wrong revision would be worse than none.
fn knows_itself(walked: &Walked, target: &Target, progress: &dyn Progress) -> Result<()> {
    if !walked
        .missed
        .iter()
        .any(|bucket| ["key", "meta"].contains(bucket))
    {
        return Ok(());
    }
    let what = "the database has pages that can not be read in passing, so its revision is not known for certain";
    if matches!(target, Target::Snapshot { .. }) {
        return Err(Error::other(what)
            .hint("save it into a file, where `etcd-launcher describe` reads it again"));
    }
    progress.warn(what);
    Ok(())
}

/// The member's own HashKV, where it is to be asked. Not to have it is no failure.
async fn hash_kv(
    found: &Found,
    facts: &Facts,
    options: &Options,
    progress: &dyn Progress,
) -> Option<HashKv> {
    let ask = match options.hash_kv {
        AskHashKv::Never => false,
        AskHashKv::Always => true,
        AskHashKv::Harmless => found.status.bytes_in_use <= HARMLESS,
    };
    if !ask || facts.revision < 1 {
        return None;
    }
    progress.step("asking the member for its HashKV");
    match found.connection.hash_kv(facts.revision, HASH_KV).await {
        Ok(hash) => Some(hash),
        // Compacted since, or a member that does not say: a later check goes by the digest.
        Err(e) if options.hash_kv == AskHashKv::Always => {
            progress.warn(&format!("the manifest has no HashKV: {e}"));
            None
        }
        Err(_) => None,
    }
}

/// The file's facts, and the member's word for what the stream did not show.
async fn complete_facts(found: &Found, walked: &Walked) -> Result<Facts> {
    let mut facts = walked.facts.clone();
    if walked.missed.contains(&"members") {
        facts.members = found.connection.members().await?;
    }
    if walked.missed.contains(&"alarm") {
        let alarms = found.status.alarms.iter();
        facts.alarms = alarms
            .map(|(member, kind)| Alarm {
                member: format!("{member:x}"),
                kind: kind.clone(),
            })
            .collect();
    }
    Ok(facts)
}

impl Found {
    async fn etcd(&self) -> Etcd {
        let status = &self.status;
        let id = format!("{:x}", status.member_id);
        // A name is a comfort; the id tells.
        let members = self.connection.members().await.unwrap_or_default();
        Etcd {
            version: status.version.clone(),
            cluster_id: format!("{:x}", status.cluster_id),
            member_name: members
                .into_iter()
                .find(|member| member.id == id)
                .map(|member| member.name)
                .unwrap_or_default(),
            member_id: id,
            endpoint: self.connection.endpoint().to_owned(),
            leader: status.leads(),
        }
    }
}

impl Target {
    async fn must_be_free(&self) -> Result<()> {
        match self {
            Self::Snapshot { store, keys } => {
                if store.find(&keys.manifest(), LARGEST).await?.is_some() {
                    return Err(catalog::taken(keys));
                }
                Ok(())
            }
            Self::Object { store, key } => match store.head(key).await {
                Ok(_) => Err(Error::new(
                    Kind::AlreadyExists,
                    format!("{key} in {} exists already", store.place()),
                )
                .hint("name another object")),
                Err(e) if crate::location::store::is_absent(&e) => Ok(()),
                Err(e) => Err(e),
            },
            Self::File {
                path,
                replace: false,
            } if path.symlink_metadata().is_ok() => Err(sink::exists(path)),
            Self::File { .. } => Ok(()),
        }
    }

    /// The cluster's and the snapshot's name, as the manifest has them.
    fn names(&self) -> (String, String) {
        match self {
            Self::Snapshot { keys, .. } => (keys.cluster().to_string(), keys.name().to_string()),
            Self::Object { key, .. } => {
                let name = key.rsplit('/').next().unwrap_or(key);
                (String::new(), name.to_owned())
            }
            Self::File { path, .. } => {
                let name = path.file_name().unwrap_or_default();
                (String::new(), name.to_string_lossy().into_owned())
            }
        }
    }
}

/// Why a stage of the work ended early.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It failed.
    Own(Error),
    /// One beside it did, and tells why.
    Neighbours,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}
