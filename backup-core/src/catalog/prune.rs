//! Removing what is expired, too much of a schedule, or left by dead runs. What goes is decided from one reading of the bucket ([`fates`]), which may take hours to act on:
//! so just before a backup goes all that spoke for it is asked for again ([`one`]). Each one goes as `remove` has it, under a claim.

pub(super) mod fates;
mod one;

use std::collections::BTreeMap;
use std::sync::PoisonError;

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};

use self::fates::{fates, leaned, lengthened, rows};
use self::one::{Restoring, Work};
use super::keep::{Id, Keep, Row};
use crate::error::{Error, Kind, Result};
use crate::layout::{BACKUPS, PROBES};
use crate::location::check::MOST_SECONDS;
use crate::location::guard::{self, Guard};
use crate::location::{Location, Store};
use crate::name::Name;
use crate::records::snapshots::Owned;
use crate::retention::State;
use crate::snapshot::heirs::Heirs;
use crate::snapshot::known::Known;
use crate::volume::expiry;

/// What prune did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// An expired backup of ours was removed.
    Expired(Name),
    /// A backup of ours was removed, for enough newer ones of its schedule stay.
    Beyond(Name),
    /// What a dead run left was removed.
    Stale(Name),
    /// A dead run's claim beside a backup that stands was removed.
    StaleClaim(Name),
    /// It was kept, and why.
    Kept(Name, String),
    /// It could not be looked at or removed, and why.
    Failed(Name, String),
    /// It was kept, for nobody would know any more of snapshots that it names, and why. That lasts until somebody says that it may go without them.
    Unknown(Name, String),
    /// What became of snapshots in the repository of a volume that backups had which went.
    Snapshots(expiry::Outcome),
    /// So many snapshots of volumes in their storage went, before their backup.
    InStorage(Name, usize),
}

/// How to prune.
#[derive(Clone, Copy, Debug)]
pub struct PruneOptions<'a> {
    /// The time by this machine's clock.
    pub now: Timestamp,
    /// The machine's name, for claims.
    pub host: &'a str,
    /// Only tell.
    pub dry_run: bool,
    /// How many good backups of each schedule stay.
    pub keep: Keep<'a>,
    /// Look at the backups of this schedule only.
    pub schedule: Option<&'a str>,
    /// The uid of this cluster's kube-system, where it is known. Where no guard tells whose a location is, as in one that Velero uses, other clusters'
    /// backups stay.
    pub cluster: Option<&'a str>,
    /// Other clusters' backups stay whatever a guard says.
    pub own_only: bool,
    /// Backups that are not expired before these times, whatever their markers say.
    pub longer: Option<Longer<'a>>,
    /// Once it says so no further backup is touched, and what is done in the repository of a volume ends with the next request.
    pub stopped: Option<&'a watch::Receiver<bool>>,
    /// Backups that somebody is deleting: they are left to him, and none goes for their sake.
    pub going: Option<Going<'a>>,
    /// Backups that somebody is about to restore: they stay.
    pub wanted: Option<Wanted<'a>>,
    /// Who has snapshots of volumes in their storage removed before their backup goes, which stays where one can not be. Without anybody they are orphans afterwards.
    pub heirs: Option<Heirs<'a>>,
    /// Where it is put what backups that went own in repositories of volumes, by one who forgets it later; else it is forgotten at the end.
    pub leaves: Option<&'a std::sync::Mutex<Owned>>,
}

impl PruneOptions<'_> {
    fn is_going(&self, name: &Name) -> bool {
        self.going.is_some_and(|Going(is_going)| is_going(name))
    }
}

/// Whether somebody is deleting a backup: asked when fates are decided, and again just before one goes for its sake.
#[derive(Clone, Copy)]
pub struct Going<'a>(pub &'a (dyn Fn(&Name) -> bool + Send + Sync));

impl std::fmt::Debug for Going<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Going")
    }
}

/// Which restore is to read a backup, or does: asked just before it goes.
#[derive(Clone, Copy)]
pub struct Wanted<'a>(pub &'a (dyn Fn(&Name) -> Option<String> + Send + Sync));

impl std::fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wanted")
    }
}

/// Until when a backup stays at least, where something says so: asked when fates are decided, and again just before a backup goes.
#[derive(Clone, Copy)]
pub struct Longer<'a>(pub &'a (dyn Fn(&Name) -> Option<Timestamp> + Send + Sync));

impl std::fmt::Debug for Longer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Longer")
    }
}

/// Removes what is expired by both clocks, what is too much of a schedule, and what dead runs left. What goes and what stays of backups that
/// stand is said in [`super::keep`].
///
/// # Errors
/// Where the clocks differ by over 5 minutes, and the store's.
pub async fn prune(location: &Location, options: &PruneOptions<'_>) -> Result<Vec<Pruned>> {
    let PruneOptions {
        now,
        dry_run,
        keep,
        schedule,
        longer,
        ..
    } = *options;
    let stores = Stores {
        plain: location.store.outside(),
        vault: location.store.vault(None),
    };
    let mut ids = Vec::new();
    for encrypted in [false, true] {
        for folder in stores.of(encrypted).folders(BACKUPS).await? {
            let name = Name::foreign(&folder).ok();
            ids.extend(name.map(|name| Id { encrypted, name }));
        }
    }
    // The store's clock is seen on what is written. Who only asks what would go writes nothing, and goes by this machine's.
    let theirs = match dry_run {
        true => now,
        false => store_time(&stores.plain).await?,
    };
    let apart = theirs.duration_since(now).abs();
    if apart.as_secs() > MOST_SECONDS {
        return Err(Error::other(format!(
            "the clocks of this machine and of {} differ by {} s; nothing is pruned",
            stores.plain.place(),
            apart.as_secs()
        ))
        .hint("set both clocks by NTP, then run it again"));
    }
    let rows = rows(&stores, &ids).await?;
    let cuts = match options.heirs {
        Some(_) => Known::read(&stores.plain).await?,
        None => Known::default(),
    };
    let mut counted: Vec<_> = rows.iter().map(|row| lengthened(row, longer)).collect();
    for row in &mut counted {
        if options.is_going(&row.id.name) {
            row.state = State::Open;
        }
    }
    let (fates, lost) = fates(&stores, &counted, &cuts, keep, schedule, now.min(theirs)).await?;
    // For the sake of one that can not be restored nothing goes.
    let whole: Vec<_> = rows
        .iter()
        .filter(|row| !lost.contains(&row.id))
        .cloned()
        .collect();
    let leaned = leaned(&whole, &counted, &fates, keep);
    let mut rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    let of_schedule =
        |row: Option<&Row>| schedule.is_none_or(|meant| row.is_some_and(|row| row.is_of(meant)));
    ids.retain(|id| of_schedule(rows.get(id)) && !options.is_going(&id.name));
    let work = Work {
        stores: &stores,
        theirs,
        leaned,
        restoring: Mutex::new(Restoring::read(&stores.plain, theirs).await?),
        options,
        shared: location.shared_with_velero,
        guarded: guard::read(location, options.cluster).await? != Guard::Open,
        owned: Mutex::default(),
        cuts,
        told: Mutex::default(),
    };
    let mut done = Vec::new();
    for id in ids {
        if options.stopped.is_some_and(|stopped| *stopped.borrow()) {
            break;
        }
        let fate = rows.remove(&id).zip(fates.get(&id).copied());
        let considered = work.consider(&id, fate).await;
        done.append(&mut *work.told.lock().await);
        match considered {
            Ok(Some(pruned)) => done.push(pruned),
            Ok(None) if lost.contains(&id) => {
                let why = "its archive, its index, its key or a snapshot of it is not there, so that it does not count";
                done.push(Pruned::Kept(id.name, why.to_owned()));
            }
            Ok(None) => {}
            Err(e) if e.kind() == Kind::Interrupted => break,
            // One backup that can not be removed does not keep the others.
            Err(e) if matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) => return Err(e),
            Err(e) => done.push(Pruned::Failed(id.name, e.one_line())),
        }
    }
    let mut owned = work.owned.into_inner();
    let forgotten = match (dry_run, options.leaves) {
        (true, _) => expiry::would_forget(&owned),
        (false, Some(leaves)) => {
            let mut leaves = leaves.lock().unwrap_or_else(PoisonError::into_inner);
            leaves.files.append(&mut owned.files);
            Vec::new()
        }
        (false, None) => {
            expiry::forget(&stores.plain, &mut owned, options.host, options.stopped).await
        }
    };
    done.extend(forgotten.into_iter().map(Pruned::Snapshots));
    Ok(done)
}

/// Where the plain backups of a location are, and where its encrypted ones.
pub(super) struct Stores {
    pub(super) plain: Store,
    pub(super) vault: Store,
}

impl Stores {
    fn of(&self, encrypted: bool) -> &Store {
        match encrypted {
            true => &self.vault,
            false => &self.plain,
        }
    }
}

/// The time by the store's clock, from an object that is written and removed.
pub(crate) async fn store_time(store: &Store) -> Result<Timestamp> {
    let key = format!("{PROBES}clock-{}", uuid::Uuid::new_v4().simple());
    store.put(&key, "clock\n".into()).await?;
    let entry = store.head(&key).await;
    store.delete(&key).await?;
    Ok(entry?.modified)
}
