//! Removing what is expired, too much of a schedule, or left by dead runs. What goes is decided from one reading of the bucket, which may take hours to act on:
//! so just before a backup goes all that spoke for it is asked for again. Each one goes as `remove` has it, under a claim.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Mutex, watch};

use super::keep::{self, Fate, Group, Id, Keep, Row};
use super::remove::{kept, remove_all};
use super::restores::being_restored;
use super::{AT_A_TIME, find_one, is_ours, is_there, read_all};
use crate::error::{Error, Kind, Result};
use crate::layout::{BACKUPS, BackupKeys, PROBES};
use crate::location::check::MOST_SECONDS;
use crate::location::claim::{self, Claim, Folder, Purpose, has_marker, is_stale, read_claim};
use crate::location::guard::{self, Guard};
use crate::location::{Location, Store};
use crate::name::Name;
use crate::retention::State;

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
    /// Looked at between two backups: no further one is touched once it says so.
    pub stopped: Option<&'a watch::Receiver<bool>>,
    /// Backups that somebody is deleting: they are left to him, and none goes for their sake.
    pub going: Option<Going<'a>>,
    /// Backups that somebody is about to restore: they stay.
    pub wanted: Option<Wanted<'a>>,
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
/// stand is said in [`keep`].
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
    let theirs = match store_time(&stores.plain).await {
        Ok(theirs) => theirs,
        // Who may only read may still ask what would go, by this machine's clock.
        Err(e) if dry_run && e.kind() == Kind::Forbidden => now,
        Err(e) => return Err(e),
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
    let mut counted: Vec<_> = rows.iter().map(|row| lengthened(row, longer)).collect();
    for row in &mut counted {
        if options.is_going(&row.id.name) {
            row.state = State::Open;
        }
    }
    let (fates, lost) = fates(&stores, &counted, keep, schedule, now.min(theirs)).await?;
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
    };
    let mut done = Vec::new();
    for id in ids {
        if options.stopped.is_some_and(|stopped| *stopped.borrow()) {
            break;
        }
        let fate = rows.remove(&id).zip(fates.get(&id).copied());
        match work.consider(&id, fate).await {
            Ok(Some(pruned)) => done.push(pruned),
            Ok(None) if lost.contains(&id) => {
                let why =
                    "its archive, its index or its key is not there, so that it does not count";
                done.push(Pruned::Kept(id.name, why.to_owned()));
            }
            Ok(None) => {}
            // One backup that can not be removed does not keep the others.
            Err(e) if matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) => return Err(e),
            Err(e) => done.push(Pruned::Failed(id.name, one_line(&e))),
        }
    }
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

/// A row with the later one of two expirations.
fn lengthened(row: &Row, longer: Option<Longer<'_>>) -> Row {
    let longer = longer.and_then(|Longer(asked)| asked(&row.id.name));
    Row {
        expiration: row
            .expiration
            .map(|end| longer.map_or(end, |longer| end.max(longer))),
        ..row.clone()
    }
}

/// The fates, and whose files are lost: such a one is counted as one that is not finished, for it can not be restored.
pub(super) async fn fates(
    stores: &Stores,
    rows: &[Row],
    keep: Keep<'_>,
    schedule: Option<&str>,
    now: Timestamp,
) -> Result<(BTreeMap<Id, Fate>, BTreeSet<Id>)> {
    let mut counted = rows.to_vec();
    let mut seen = BTreeSet::new();
    let mut lost = BTreeSet::new();
    loop {
        let fates = keep::fates(&counted, keep, schedule, now);
        let mut leaned = keep::leaned_on(&counted, &fates);
        leaned.retain(|id| seen.insert(id.clone()));
        if leaned.is_empty() {
            return Ok((fates, lost));
        }
        let leaned = counted.iter().filter(|row| leaned.contains(&row.id));
        let leaned: Vec<_> = leaned.map(|row| (row.id.clone(), row.apart)).collect();
        let whole = read_all(leaned, |(id, apart)| async move {
            let (store, keys) = (stores.of(id.encrypted), BackupKeys::new(&id.name));
            let whole = is_there(store, &keys.archive()).await?
                && is_there(store, &keys.index()).await?
                && has_key(stores, &id, apart).await?;
            Ok((id, whole))
        });
        for (id, whole) in whole.await? {
            if !whole {
                lost.insert(id);
            }
        }
        for row in counted.iter_mut().filter(|row| lost.contains(&row.id)) {
            row.state = State::Open;
        }
    }
}

fn one_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// What is known of the backups that stand and are ours. A marker that can not be read is of none.
pub(super) async fn rows(stores: &Stores, ids: &[Id]) -> Result<Vec<Row>> {
    let mut read = stream::iter(ids.to_vec())
        .map(|id| async move { find_one(stores.of(id.encrypted), &id.name).await })
        .buffer_unordered(AT_A_TIME);
    let mut rows = Vec::new();
    while let Some(entry) = read.next().await {
        match entry {
            Ok(entry) => rows.extend(entry.as_ref().and_then(Row::of)),
            // One that can not be read is nobody's, and does not keep the others.
            Err(e) if !matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) => {}
            Err(e) => return Err(e),
        }
    }
    // Of two of one second the name decides, every time alike.
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(rows)
}

/// Of each schedule and cluster as many as are kept, and without such a number the newest, of those that stay: when they are gone, so may not be what went
/// for their sake.
fn leaned(
    rows: &[Row],
    counted: &[Row],
    fates: &BTreeMap<Id, Fate>,
    keep: Keep<'_>,
) -> BTreeMap<Group, Vec<Row>> {
    let ids: BTreeSet<_> = keep::leaned_on(counted, fates).into_iter().collect();
    let mut leaned: BTreeMap<Group, Vec<Row>> = BTreeMap::new();
    for row in rows.iter().filter(|row| ids.contains(&row.id)) {
        if let Some(of) = &row.of {
            leaned.entry(of.clone()).or_default().push(row.clone());
        }
    }
    for ((schedule, _), group) in &mut leaned {
        // The good ones first, of these the newest.
        group.sort_by_key(|row| (row.state != State::Good, std::cmp::Reverse(row.started)));
        group.truncate(keep.of(schedule).unwrap_or(1).max(1));
    }
    leaned
}

/// What restores have begun to read, and when that was looked at.
struct Restoring {
    read: Instant,
    backups: BTreeMap<String, Name>,
}

impl Restoring {
    async fn read(store: &Store, now: Timestamp) -> Result<Self> {
        Ok(Self {
            read: Instant::now(),
            backups: being_restored(store, now).await?,
        })
    }
}

/// Whoever looks through a bucket for hours asks again what is being restored.
const RESTORES_FRESH: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 20 });

/// One run of prune.
struct Work<'a> {
    stores: &'a Stores,
    /// The time by the store's clock.
    theirs: Timestamp,
    /// For whose sake backups of each schedule go, as they were found.
    leaned: BTreeMap<Group, Vec<Row>>,
    restoring: Mutex<Restoring>,
    options: &'a PruneOptions<'a>,
    /// Whether Velero uses the location.
    shared: bool,
    /// Whether a guard says whose the location is.
    guarded: bool,
}

/// The time by the store's clock, from an object that is written and removed.
pub(crate) async fn store_time(store: &Store) -> Result<Timestamp> {
    let key = format!("{PROBES}clock-{}", uuid::Uuid::new_v4().simple());
    store.put(&key, "clock\n".into()).await?;
    let entry = store.head(&key).await;
    store.delete(&key).await?;
    Ok(entry?.modified)
}

impl Work<'_> {
    /// Whether a backup is this cluster's, where no guard says so of all. One that does not say whose it is counts as its own only where no Velero of
    /// another one can have put it.
    fn is_own(&self, row: &Row) -> bool {
        match (&row.cluster, self.options.cluster) {
            (Some(made_by), Some(own)) => made_by == own,
            (Some(_), None) => false,
            (None, _) => !self.shared,
        }
    }

    /// Why one that was to go stays for now: a restore reads it, or those for whose sake it goes changed since the look began.
    async fn unripe(&self, name: &Name, row: Option<&Row>) -> Result<Option<String>> {
        let mut restoring = self.restoring.lock().await;
        if restoring.read.elapsed() > RESTORES_FRESH {
            // What is of the store's future is not quiet.
            *restoring = Restoring::read(&self.stores.plain, self.theirs).await?;
        }
        let begun = restoring.backups.get(name.as_str()).map(Name::to_string);
        drop(restoring);
        if let Some(restore) = begun {
            return Ok(Some(format!(
                "restore {restore} has begun to read it and is not finished"
            )));
        }
        if let Some(restore) = self.options.wanted.and_then(|Wanted(by)| by(name)) {
            return Ok(Some(format!("restore {restore} is to read it")));
        }
        let of = row.and_then(|row| row.of.as_ref());
        let leaned = of.and_then(|of| self.leaned.get(of));
        for other in leaned.into_iter().flatten() {
            if self.options.is_going(&other.id.name)
                || !still_stands(self.stores, other).await?
                || !has_key(self.stores, &other.id, other.apart).await?
            {
                return Ok(Some(format!(
                    "{} of its schedule, for whose sake it was to go, went or was written anew just now; the next look decides",
                    other.id.name
                )));
            }
        }
        Ok(None)
    }

    async fn consider(&self, id: &Id, fate: Option<(Row, Fate)>) -> Result<Option<Pruned>> {
        let Self {
            stores,
            theirs,
            options,
            ..
        } = *self;
        let (store, name) = (stores.of(id.encrypted), &id.name);
        let keys = BackupKeys::new(name);
        // Looked at without a claim first: a claim beside a living run would disturb it.
        let folder = Folder::read(store, &keys, "").await?;
        if let Some(live) = folder.live_claims(theirs).next() {
            let quiet = theirs.duration_since(live.modified);
            if quiet < SignedDuration::from_mins(10) {
                return Ok(None);
            }
            return Ok(Some(Pruned::Kept(
                name.clone(),
                format!(
                    "a run claims it that gave no sign of life for {} minutes; after 60 it counts as dead",
                    quiet.as_mins()
                ),
            )));
        }
        let stale = !folder.claims.is_empty();
        let mut fate = fate.filter(|_| folder.marker.is_some());
        if let Some((row, _)) = &fate
            && !still_stands(stores, row).await?
        {
            fate = None;
        }
        let goes = match &fate {
            Some((row, Fate::Last)) if !stale => {
                let schedule = row.of.as_ref().map_or("", |(schedule, _)| schedule);
                return Ok(Some(Pruned::Kept(
                    name.clone(),
                    format!("it is expired, and the newest good backup of schedule {schedule}"),
                )));
            }
            Some((row, fate @ (Fate::Expired | Fate::Beyond))) => Some((row, *fate)),
            Some((_, Fate::Last)) | None => None,
        };
        if !stale && goes.is_none() {
            return Ok(None);
        }
        if let Some((_, fate)) = goes {
            let why = match fate {
                Fate::Beyond => "enough newer ones stay",
                Fate::Expired | Fate::Last => "it is expired",
            };
            let keep = |what: String| {
                let why = format!("{why}, and {what}");
                Ok(Some(Pruned::Kept(name.clone(), why)))
            };
            if let Some((row, _)) = goes
                && (!self.guarded || options.own_only)
                && !self.is_own(row)
            {
                return keep("not known to be this cluster's".to_owned());
            }
            if let Some(why) = self.unripe(name, goes.map(|(row, _)| row)).await? {
                return keep(why);
            }
            match kept(store, name).await {
                // Its room is not freed by hiding it, and who locks backups wants to find them.
                Ok(kept) if kept.is_locked(theirs) => {
                    return keep(format!("the bucket has it {kept}"));
                }
                Ok(_) => {}
                Err(e) => {
                    let why = format!(
                        "{why}, and the bucket does not tell whether it is locked: {}",
                        one_line(&e)
                    );
                    return Ok(Some(Pruned::Failed(name.clone(), why)));
                }
            }
        }
        if let Some((row, Fate::Expired)) = goes
            && let Some(end) = lengthened(row, options.longer).expiration
            && end >= options.now.min(theirs)
        {
            // Somebody moved it while others were looked at.
            return Ok(None);
        }
        let outcome = |marker: bool| match (goes, marker) {
            (Some((_, Fate::Beyond)), _) => Pruned::Beyond(name.clone()),
            (Some(_), _) => Pruned::Expired(name.clone()),
            (None, true) => Pruned::StaleClaim(name.clone()),
            (None, false) => Pruned::Stale(name.clone()),
        };
        if options.dry_run {
            return Ok(Some(outcome(folder.marker.is_some())));
        }
        let claim = match Claim::take(store, name, Purpose::Prune, options.host).await {
            Ok(claim) => claim,
            Err(e) if e.kind() == Kind::AlreadyExists => {
                return Ok(Some(Pruned::Kept(name.clone(), one_line(&e))));
            }
            Err(e) => return Err(e),
        };
        let left = match dead_claims(store, &claim, name, goes.is_some()).await {
            Ok(left) => left,
            Err(e) => {
                claim.withdraw().await;
                return Err(e);
            }
        };
        if let Some((row, _)) = goes {
            // Read again under the claim: the marker may be another's by now.
            if claim.found().marker.is_some() && !still_stands(stores, row).await? {
                claim.withdraw().await;
                return Ok(Some(Pruned::Kept(
                    name.clone(),
                    "it was written anew".to_owned(),
                )));
            }
            remove_all(claim, name).await?;
            return Ok(Some(outcome(true)));
        }
        let marker = claim.found().marker.is_some();
        claim.release().await;
        Ok(Some(match left {
            Some(left) => Pruned::Kept(name.clone(), left),
            None => outcome(marker),
        }))
    }
}

/// Whether the backup is what it was when its fate was decided, and ours with all that makes it so.
async fn still_stands(stores: &Stores, row: &Row) -> Result<bool> {
    let store = stores.of(row.id.encrypted);
    let entry = match find_one(store, &row.id.name).await {
        Err(e) if e.kind() == Kind::Corrupt => return Ok(false),
        entry => entry?,
    };
    match entry {
        Some(entry) if Row::of(&entry).as_ref() == Some(row) => is_ours(store, &entry).await,
        _ => Ok(false),
    }
}

/// Whether the files are there without which nobody opens what is encrypted of a backup, whoever has the identity: a lost key is all that is lost with it.
async fn has_key(stores: &Stores, id: &Id, apart: bool) -> Result<bool> {
    let (store, keys) = (stores.of(id.encrypted), BackupKeys::new(&id.name));
    if id.encrypted {
        return is_there(store, &keys.key()).await;
    }
    if !apart {
        return Ok(true);
    }
    for key in [
        keys.secrets_key(),
        keys.secrets_archive(),
        keys.secrets_index(),
    ] {
        if !is_there(store, &key).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes dead runs' claims. Where a marker stands, those alone; else first what the runs wrote. Tells what it left, if anything.
async fn dead_claims(
    store: &Store,
    claim: &Claim,
    name: &Name,
    expired: bool,
) -> Result<Option<String>> {
    let keys = claim.keys();
    let folder = keys.folder();
    let found = claim.found();
    let dead: Vec<_> = found
        .claims
        .iter()
        .filter(|other| is_stale(other, claim.taken_at()))
        .collect();
    let mut deleting = false;
    for other in &dead {
        let Some(file) = read_claim(store, &other.key).await? else {
            continue;
        };
        deleting |= file.purpose != Purpose::Create;
        for upload in file.uploads {
            // A claim is anybody's: only uploads into this folder are looked at.
            if upload.key.starts_with(&folder) {
                claim::abort(store, &upload).await?;
            }
        }
    }
    let mut left = None;
    if found.marker.is_none() && !dead.is_empty() {
        // A dead create's own files; a dead delete meant all of them.
        let (ours, others): (Vec<_>, Vec<_>) = found
            .files
            .iter()
            .partition(|file| deleting || keys.is_known(&file.key));
        claim.confirm_beside(&dead).await?;
        if has_marker(store, keys).await? {
            return Err(Error::other(format!("backup {name} got a marker just now")));
        }
        for file in ours {
            claim.remove(&file.key).await?;
        }
        if let Some(other) = others.first() {
            left = Some(format!(
                "{} is no file of ours; what the dead run left beside it is removed",
                other.key
            ));
        }
    }
    for other in dead {
        claim.remove(&other.key).await?;
    }
    if !expired && found.marker.is_none() {
        claim.sweep().await?;
    }
    Ok(left)
}
