//! Snapshots whose backup goes, or went: by the inventory of the location that made them, in the cluster that they are of, one after the other. What could not be done is told and tried again.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

use super::drive::{Api, never};
use super::expire::{DELETES, Expiry, Says};
use super::inventory::{self, Entry, Inventory, Listed, State};
use super::known::{About, Known};
use super::left::{self, is_alive};
use crate::catalog::store_time;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::layout::{BACKUPS, BackupKeys};
use crate::location::Store;
use crate::location::claim::has_marker;
use crate::name::Name;

/// No marker was seen for so long, at two looks at least: then the backup is gone.
const GONE_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Two see to the same ones.
const ANOTHER: &str = "another run removes it, or changed what is written down of it";

/// How it ends that something can not be read.
pub const WAY_OUT: &str = "`kubectl backup prune --drop-damaged` drops it where nobody can read it any more, and leaves the snapshots in their storage";

/// Who has them removed.
#[derive(Clone, Copy)]
pub struct Heirs<'a> {
    /// The cluster that is reached, and the uid of its kube-system.
    pub cluster: Option<(&'a Cluster, &'a str)>,
    /// What stops it.
    pub stop: Option<&'a watch::Receiver<bool>>,
}

impl Heirs<'_> {
    /// Whether this cluster is the one that is reached.
    pub(super) fn is_in(&self, cluster: &str) -> bool {
        self.cluster.is_some_and(|(_, uid)| uid == cluster)
    }
}

impl std::fmt::Debug for Heirs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heirs")
            .field("cluster", &self.cluster.map(|(_, uid)| uid))
            .finish()
    }
}

/// What became of the snapshots of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There were none that this location has to see to.
    None,
    /// So many were deleted.
    Gone(usize),
    /// They are of another cluster than the one that is reached: its uid, and what they are, `driver handle`.
    Elsewhere {
        /// The cluster.
        cluster: String,
        /// Driver and handle of each.
        snapshots: Vec<String>,
        /// Since when no marker of their backup was seen.
        missing: Option<Timestamp>,
    },
    /// Some are there still.
    Kept {
        /// Why, a sentence each.
        why: Vec<String>,
        /// What is gone already, a sentence.
        torn: Option<String>,
    },
}

impl Outcome {
    fn kept(why: String) -> Self {
        Self::Kept {
            why: vec![why],
            torn: None,
        }
    }
}

/// Asked before each snapshot: why it, and all that are there still, have to stay.
pub(crate) type Still<'a> = &'a (dyn Fn() -> BoxFuture<'a, Result<Option<String>>> + Sync);

impl Outcome {
    /// Why some are there still, where they are.
    pub fn stays(&self) -> Option<String> {
        match self {
            Self::None | Self::Gone(_) => None,
            Self::Elsewhere {
                cluster, snapshots, ..
            } => {
                let left = match snapshots.len() {
                    1 => "snapshot left".to_owned(),
                    many => format!("{many} snapshots left"),
                };
                Some(format!(
                    "{left} in cluster {cluster}: {} (remove the backup with a context of that cluster, or with `kubectl backup delete --force`)",
                    snapshots.join(", ")
                ))
            }
            Self::Kept { why, torn } => {
                let all: Vec<_> = why.iter().chain(torn).map(String::as_str).collect();
                Some(all.join("; "))
            }
        }
    }
}

impl About {
    /// Removes the snapshots of a backup that is about to go. As long as one is there the backup is to stay.
    ///
    /// # Errors
    /// The store's, and `Interrupted`.
    pub async fn expire(&self, store: &Store, heirs: Heirs<'_>) -> Result<Outcome> {
        self.expire_while(store, heirs, None).await
    }

    /// The same as long as nothing speaks for them.
    ///
    /// # Errors
    /// The store's, what is asked's, and `Interrupted`.
    pub(crate) async fn expire_while(
        &self,
        store: &Store,
        heirs: Heirs<'_>,
        still: Option<Still<'_>>,
    ) -> Result<Outcome> {
        let mut gone = 0;
        let (mut kept, mut half) = (Vec::new(), None);
        for one in &self.own {
            match all_of(store, one.clone(), heirs, still).await? {
                Outcome::None => {}
                Outcome::Gone(some) => gone += some,
                Outcome::Kept { why, torn } => {
                    kept.extend(why);
                    half = half.or(torn);
                }
                elsewhere @ Outcome::Elsewhere { .. } => return Ok(elsewhere),
            }
        }
        Ok(match (kept.is_empty(), gone) {
            (false, _) => Outcome::Kept {
                why: kept,
                torn: half,
            },
            (true, 0) => Outcome::None,
            (true, gone) => Outcome::Gone(gone),
        })
    }
}

/// Those of a backup that the location can read, whatever it names.
async fn of(store: &Store, name: &Name) -> Result<About> {
    Known::read(store)
        .await?
        .about(store, name, Some(&[]))
        .await
}

/// How many snapshots are known of a backup.
///
/// # Errors
/// The store's.
pub async fn count(store: &Store, name: &Name) -> Result<usize> {
    Ok(of(store, name).await?.count())
}

pub(super) fn elsewhere(one: &Inventory) -> Outcome {
    Outcome::Elsewhere {
        snapshots: one.standing().map(ToString::to_string).collect(),
        cluster: one.cluster.clone(),
        missing: one.missing,
    }
}

async fn all_of(
    store: &Store,
    mut one: Inventory,
    heirs: Heirs<'_>,
    still: Option<Still<'_>>,
) -> Result<Outcome> {
    if one.is_over() {
        return Ok(Outcome::None);
    }
    let here = heirs.cluster.filter(|(_, uid)| *uid == one.cluster);
    let Some((cluster, _)) = here else {
        return Ok(elsewhere(&one));
    };
    let never = never();
    let stop = heirs.stop.unwrap_or(&never);
    // What a run left that was killed right after its marker stands for the same snapshots.
    if one.state != State::Left
        && let Err(e) = abandoned(store, cluster, &one).await
    {
        return Ok(Outcome::kept(format!(
            "what its run left of snapshots could not be seen to: {}",
            e.sentence()
        )));
    }
    let (many, before) = (one.snapshots.len(), one.state);
    let mut stored = one.clone();
    let mut kept = Vec::new();
    let mut gone = 0;
    let mut silent = BTreeSet::new();
    // Each is written down until its backup is gone: what is left out is known to nobody any more.
    for at in 0..many {
        if one.snapshots[at].gone {
            continue;
        }
        if let Some(still) = still
            && let Some(why) = still().await?
        {
            kept.push(why);
            break;
        }
        let Entry { driver, handle, .. } = one.snapshots[at].clone();
        // Who waits for it keeps all others waiting.
        if silent.contains(&driver) {
            kept.push(format!(
                "snapshot {handle} of {driver}: not asked for, as that driver did not do another one in time"
            ));
            continue;
        }
        let began = Instant::now();
        match next(store, cluster, &mut one, &mut stored, at, stop).await {
            Ok(()) => {
                one.snapshots[at].gone = true;
                gone += 1;
            }
            Err(e) if e.kind() == Kind::Interrupted => {
                return Err(match torn(gone, many, before, stored.state) {
                    Some(torn) => Error::new(Kind::Interrupted, format!("it was stopped; {torn}")),
                    None => e,
                });
            }
            Err(e) => {
                if began.elapsed() >= DELETES {
                    silent.insert(driver.clone());
                }
                kept.push(format!("snapshot {handle} of {driver}: {}", e.sentence()));
            }
        }
    }
    // Where somebody else wrote it meanwhile, theirs stands.
    if one != stored {
        one.replace(store, &stored).await?;
    }
    if one.is_over() {
        return Ok(Outcome::Gone(gone));
    }
    Ok(Outcome::Kept {
        why: kept,
        torn: torn(gone, many, before, stored.state),
    })
}

/// What is gone already of snapshots of which some stay, in words.
fn torn(gone: usize, many: usize, before: State, now: State) -> Option<String> {
    let what = match (before, now) {
        (State::Expiring, _) => "some of its snapshots are deleted already, or may be".to_owned(),
        _ if gone > 0 => format!("{gone} of its {many} snapshots are deleted already"),
        (_, State::Expiring) => "a driver was told to delete one of its snapshots".to_owned(),
        _ => return None,
    };
    Some(format!(
        "{what}: the backup can not be restored whole any more"
    ))
}

/// Takes away the objects of a run that is dead, and leaves its snapshots.
async fn abandoned(store: &Store, cluster: &Cluster, one: &Inventory) -> Result<()> {
    let now = store_time(&store.outside()).await?;
    if is_alive(store, one, now).await? {
        return Err(Error::other("it may be at work still")
            .hint("try again when it has ended, or a quarter of an hour later"));
    }
    left::objects(&Api::new(cluster), one).await
}

/// Removes one of an inventory.
async fn next(
    store: &Store,
    cluster: &Cluster,
    one: &mut Inventory,
    stored: &mut Inventory,
    at: usize,
    stop: &watch::Receiver<bool>,
) -> Result<()> {
    let (expiry, says) = Expiry::begin(cluster, &one.snapshots[at], stop).await?;
    // The one that an attempt before this one had begun with is gone, then. Any other may be in a storage that is out of sight, or that this cluster never had.
    if says == Says::HasNot && !one.snapshots[at].going {
        let _ = expiry.withdraw(stop).await;
        return Err(Error::not_found("the driver has no such snapshot, and nobody here deleted it")
            .hint(format!("look whether this is the cluster and the storage that it is of; `kubectl backup delete {} --force` drops what is known of it", one.backup)));
    }
    // From here on some may be gone, and there is no way back.
    one.state = State::Expiring;
    one.snapshots[at].going = true;
    // The content is the other's as well, and stays.
    if !one.replace(store, stored).await? {
        return Err(Error::other(ANOTHER));
    }
    stored.clone_from(one);
    expiry.remove(stop).await
}

/// Drops what is known of the snapshots of a backup, and leaves these where they are: driver and handle of each come back.
///
/// # Errors
/// The store's.
pub async fn disown(store: &Store, name: &Name) -> Result<Vec<String>> {
    let mut dropped = Vec::new();
    for one in of(store, name).await?.own {
        if one.state == State::Sealed
            && is_alive(store, &one, store_time(&store.outside()).await?).await?
        {
            return Err(Error::other(
                "the run that made its snapshots may be at work still",
            ));
        }
        dropped.extend(one.standing().map(ToString::to_string));
        one.remove(store).await?;
    }
    Ok(dropped)
}

/// What became of snapshots whose backups are gone.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// By backup.
    pub told: Vec<(String, Outcome)>,
    /// What could not be looked at, a sentence each: any of it may have some.
    pub unread: Vec<String>,
}

/// Drops what is written down of snapshots and that nobody can read any more, and leaves these where they are: the keys come back. What is not to be read for other reasons stays.
///
/// # Errors
/// The store's.
pub async fn drop_damaged(store: &Store, dry_run: bool) -> Result<Vec<String>> {
    let mut dropped = Vec::new();
    for (key, _) in inventory::list(store).await?.unread {
        if inventory::is_damaged(store, &key).await? {
            if !dry_run {
                store.outside().delete(&key).await?;
            }
            dropped.push(key);
        }
    }
    Ok(dropped)
}

/// Sees to snapshots whose backup somebody else removed: where two looks with a day between them, by the store's clock where no time is given (who only asks writes nothing, and goes by this machine's), found no marker they go.
///
/// # Errors
/// The store's, and `Interrupted`.
pub async fn orphans(
    store: &Store,
    heirs: Heirs<'_>,
    now: Option<Timestamp>,
    dry_run: bool,
) -> Result<Orphans> {
    let place = inventory::place(store);
    let Listed {
        mut all,
        unread,
        unlisted,
    } = inventory::list(store).await?;
    let mut orphans = Orphans::default();
    // Whoever may list backups alone removes those.
    let unlisted = unlisted.filter(|e| e.kind() != Kind::Forbidden);
    orphans.unread.extend(unlisted.map(|e| e.sentence()));
    orphans.unread.extend(
        unread
            .iter()
            .map(|(key, why)| format!("{key} can not be read: {why}")),
    );
    all.retain(|one| one.place == place && !matches!(one.state, State::Noted | State::Removing));
    if all.is_empty() || is_bare(store).await? {
        return Ok(orphans);
    }
    let now = match now {
        Some(now) => now,
        // The store's clock is seen on what is written.
        None if dry_run => Timestamp::now(),
        None => store_time(&store.outside()).await?,
    };
    for mut one in all {
        let read = one.clone();
        let Ok(name) = Name::foreign(&one.backup) else {
            continue;
        };
        let keys = BackupKeys::new(&name);
        let stands = has_marker(&store.outside(), &keys).await?
            || has_marker(&store.vault(None), &keys).await?;
        let is_lost = !stands && !is_alive(store, &one, now).await?;
        match (is_lost, one.missing) {
            (false, None) => continue,
            (false, Some(_)) => one.missing = None,
            (true, None) => one.missing = Some(now),
            (true, Some(since)) if now.duration_since(since) < GONE_FOR => continue,
            (true, Some(_)) => {
                let outcome = lost(store, one, heirs, dry_run).await?;
                if outcome != Outcome::None {
                    orphans.told.push((read.backup, outcome));
                }
                continue;
            }
        }
        if !dry_run {
            one.replace(store, &read).await?;
        }
    }
    Ok(orphans)
}

/// Removes the snapshots of a backup that is gone, and what is known of them.
async fn lost(store: &Store, one: Inventory, heirs: Heirs<'_>, dry_run: bool) -> Result<Outcome> {
    let outcome = match dry_run {
        false => all_of(store, one.clone(), heirs, None).await?,
        true if one.is_over() => Outcome::None,
        true if heirs.is_in(&one.cluster) => Outcome::Gone(one.standing().count()),
        true => elsewhere(&one),
    };
    if !dry_run && matches!(outcome, Outcome::None | Outcome::Gone(_)) {
        About::of(one).bury(store).await?;
    }
    Ok(outcome)
}

/// Whether the location shows no backup at all: that is no reason to think that all are gone.
async fn is_bare(store: &Store) -> Result<bool> {
    let plain = store.outside().folders(BACKUPS).await?;
    Ok(plain.is_empty() && store.vault(None).folders(BACKUPS).await?.is_empty())
}
