//! What stands in a backup's folder, and who says so: claims of others, the marker, files.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::store::{Entry, Store, is_absent};
use super::lease::{LOST, SOON};
use super::{ClaimFile, Purpose};
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::name::Name;

/// A claim that was not refreshed for so long, by the store's clock, is a dead run's.
pub const STALE: SignedDuration = SignedDuration::from_hours(1);

/// When the fence falls, what was sent just before may be under way so much longer.
pub(super) const UNDER_WAY: Duration = Duration::from_secs(60);

/// A claim is a few hundred bytes; uploads make it longer.
const LARGEST_CLAIM: u64 = 1 << 20;

/// Files in one backup's folder; Velero's have about a dozen.
const MOST_FILES: usize = 100_000;

/// What a folder holds besides one's own claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    /// Other runs' claims.
    pub claims: Vec<Entry>,
    /// The marker.
    pub marker: Option<Entry>,
    /// Everything else.
    pub files: Vec<Entry>,
    /// Our own claim.
    pub own: Option<Entry>,
}

impl Folder {
    /// Lists a folder; `own` is our claim's key, if there is one.
    pub(crate) async fn read(store: &Store, keys: &BackupKeys, own: &str) -> Result<Self> {
        let folder = keys.folder();
        let mut found = Self::default();
        for entry in store.entries(&folder, MOST_FILES).await? {
            if entry.key == own {
                found.own = Some(entry);
            } else if BackupKeys::claim_run(&entry.key[folder.len()..]).is_some() {
                found.claims.push(entry);
            } else if entry.key == keys.marker() {
                found.marker = Some(entry);
            } else {
                found.files.push(entry);
            }
        }
        Ok(found)
    }

    /// Takes out the claims of dead attempts of this owner.
    pub(crate) fn abandoned(&mut self, owner: &str, now: Timestamp) -> Vec<Entry> {
        let is_dead =
            |claim: &mut Entry| is_owned(claim, owner) && quiet(claim, now) > SOON.lost + UNDER_WAY;
        self.claims.extract_if(.., is_dead).collect()
    }

    /// When the last claim of this owner's attempts, dead or living, was refreshed.
    pub(crate) fn claimed_by(&self, owner: &str) -> Option<Timestamp> {
        let own = self.claims.iter().filter(|claim| is_owned(claim, owner));
        own.map(|claim| claim.modified).max()
    }

    /// Whether nothing is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty() && self.marker.is_none() && self.files.is_empty()
    }

    /// Claims that may be a living run's at this time of the store.
    pub(crate) fn live_claims(&self, now: Timestamp) -> impl Iterator<Item = &Entry> {
        self.claims
            .iter()
            .filter(move |claim| !is_stale(claim, now))
    }
}

/// Whether a claim's run may still write, at this time of the store: its own fence stops it, and what it sent just before may be under way a while longer.
pub(crate) fn may_write(claim: &Entry, now: Timestamp) -> bool {
    quiet(claim, now) <= LOST + UNDER_WAY
}

/// From when on a claim's run can not write any more, unless it is refreshed.
pub(crate) fn dead_from(claim: &Entry) -> Timestamp {
    let after = SignedDuration::try_from(LOST + UNDER_WAY).unwrap_or(STALE);
    claim
        .modified
        .saturating_add(after)
        .unwrap_or(claim.modified)
}

/// How long a claim was not refreshed.
fn quiet(claim: &Entry, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(claim.modified)).unwrap_or_default()
}

/// Whether a claim's run is dead, by the store's clock.
pub(crate) fn is_stale(claim: &Entry, now: Timestamp) -> bool {
    now.duration_since(claim.modified) > STALE
}

fn is_owned(claim: &Entry, owner: &str) -> bool {
    let file = claim.key.rsplit('/').next().unwrap_or_default();
    let run = BackupKeys::claim_run(file).and_then(|run| run.strip_prefix(owner));
    run.is_some_and(|rest| rest.starts_with('-'))
}

/// Reads a claim; a hostile or broken one is nothing.
pub(crate) async fn read_claim(store: &Store, key: &str) -> Result<Option<ClaimFile>> {
    match store.find(key, LARGEST_CLAIM).await {
        Ok(bytes) => Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())),
        Err(e) if e.kind() == Kind::Corrupt => Ok(None),
        Err(e) => Err(e),
    }
}

/// Why the folder can not be taken, if it can not.
pub(super) async fn obstacle(
    store: &Store,
    name: &Name,
    purpose: Purpose,
    found: &Folder,
    now: Timestamp,
) -> Result<Option<Error>> {
    if purpose == Purpose::Create && found.marker.is_some() {
        return Ok(Some(
            Error::new(Kind::AlreadyExists, format!("backup {name} exists already")).hint(format!(
                "choose another name, or remove it first: kubectl backup delete {name}"
            )),
        ));
    }
    // Two claims: one that lives counts for more.
    if let Some(live) = found.live_claims(now).next() {
        let quiet = now.duration_since(live.modified);
        let who = describe(store, live).await;
        let doing = match read_claim(store, &live.key)
            .await?
            .map(|claim| claim.purpose)
        {
            Some(Purpose::Create | Purpose::Begin) | None => "creating",
            Some(Purpose::Delete) => "deleting",
            Some(Purpose::Prune) => "pruning",
        };
        let error = Error::new(
            Kind::AlreadyExists,
            format!("another run is {doing} backup {name} right now ({who})"),
        );
        return Ok(Some(if quiet > SignedDuration::from_mins(10) {
            error.hint(format!(
                "it gave no sign of life for {} minutes; after 60 `kubectl backup prune` removes what it left",
                quiet.as_mins()
            ))
        } else {
            error.hint("wait for it, or choose another name")
        }));
    }
    if purpose == Purpose::Prune {
        return Ok(None);
    }
    if let Some(stale) = found.claims.first() {
        let who = describe(store, stale).await;
        return Ok(Some(
            Error::new(
                Kind::AlreadyExists,
                format!("a run that died left its claim on backup {name} ({who})"),
            )
            .hint("`kubectl backup prune` removes what dead runs left; or choose another name"),
        ));
    }
    if purpose == Purpose::Create
        && let Some(file) = found.files.first()
    {
        return Ok(Some(
            Error::new(
                Kind::AlreadyExists,
                format!(
                    "the folder of backup {name} holds files of no known run, such as {}",
                    file.key
                ),
            )
            .hint(
                "choose another name; another tool, such as a Velero server, may be writing there",
            ),
        ));
    }
    Ok(None)
}

/// `on node-1, since 2026-11-21T02:00:00Z, last sign of life ...`
pub(crate) async fn describe(store: &Store, claim: &Entry) -> String {
    let last = format!("last sign of life {:.0}", claim.modified);
    match read_claim(store, &claim.key).await {
        Ok(Some(file)) => {
            // Anybody may have written it: what is shown is short and plain.
            let host: String = file
                .host
                .chars()
                .filter(|c| c.is_ascii_graphic())
                .take(64)
                .collect();
            let host = if host.is_empty() {
                "an unknown host"
            } else {
                &host
            };
            match file.started {
                Some(started) => format!("on {host}, since {started:.0}, {last}"),
                None => format!("on {host}, {last}"),
            }
        }
        _ => last,
    }
}

/// Whether a marker stands.
pub(crate) async fn has_marker(store: &Store, keys: &BackupKeys) -> Result<bool> {
    match store.head(&keys.marker()).await {
        Ok(_) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}
