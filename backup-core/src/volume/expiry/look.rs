//! Looks through the repositories of a cluster for what no backup names, and for space that may be freed. Two looks that are a day apart by the store's clock have to agree
//! before anything goes; a place that may not be this cluster's, or that does not say what its backups own, is left alone.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::sync::watch;

use super::forget::{Forgotten, listed};
use super::named::Named;
use super::note::{self, Orphans, Plan, Unnamed};
use super::{Outcome, is_of_all, is_stopped, reclaim_one, shown, stopped, unless_stopped, went};
use crate::catalog::store_time;
use crate::error::{Error, Kind, Result};
use crate::layout::{VOLUMES, VolumeKeys};
use crate::location::check::MOST_SECONDS;
use crate::location::guard::{self, Guard};
use crate::location::{Location, Store};
use crate::name::Name;
use crate::volume::key::Keyring;
use crate::volume::store::VolumeStore;

/// Unnamed snapshots that one look holds; what is beyond waits for the next one.
const MOST: usize = if cfg!(test) { 10 } else { 10_000 };

/// How to look.
pub struct Look<'a> {
    /// The time by this machine's clock.
    pub now: Timestamp,
    /// The machine's name, for claims.
    pub host: &'a str,
    /// Only tell.
    pub dry_run: bool,
    /// The uid of this cluster's kube-system, where it is known.
    pub cluster: Option<&'a str>,
    /// What opens repositories, so that their space can be freed.
    pub keyring: &'a Keyring<'a>,
    /// Once it says so no further repository is touched, and what is done in one ends with the next request.
    pub stopped: Option<&'a watch::Receiver<bool>>,
    /// Where the last look came to: those behind it are first, so that one which never ends keeps no other from its turn.
    pub came_to: Option<&'a Mutex<CameTo>>,
}

/// The repository that a look began with last.
pub type CameTo = Option<String>;

/// Repositories that are looked at at a time.
const AT_A_TIME: usize = 8;

/// Something to do in a repository.
struct Found {
    keys: VolumeKeys,
    unnamed: Option<Unnamed>,
    /// Whether a look before noted something.
    is_noted: bool,
    reclaim: bool,
}

/// What is known of owners when something is done.
struct Known {
    /// The store's.
    theirs: Timestamp,
    /// What backups own, and who is at work on one; nothing where not all is known of that.
    named: Option<Named>,
}

/// Looks through this cluster's repositories, and does what is to be done. Says what became of each in which there was something.
///
/// # Errors
/// Those of the store as a whole, and of listing what is there. What goes wrong with one backup or one repository is told of it.
pub async fn look(location: &Location, how: &Look<'_>) -> Result<Vec<Outcome>> {
    let store = location.store.outside();
    let Some(cluster) = how.cluster else {
        let all = store.folders(VOLUMES).await?;
        let why = "the uid of this cluster is not known, so that its repositories are not either";
        return Ok(skipped(!all.is_empty(), why));
    };
    // Most locations have none, and cost one question.
    let Ok(cluster) = cluster.parse::<Name>() else {
        return Ok(Vec::new());
    };
    match store.folders(&folder(&cluster)).await {
        Ok(all) if all.is_empty() => return Ok(Vec::new()),
        // Whoever may list backups alone prunes those.
        Err(e) if e.kind() == Kind::Forbidden => return Ok(skipped(true, &e.sentence())),
        all => drop(all?),
    }
    // Who only asks writes nothing.
    let theirs = match how.dry_run {
        true => how.now,
        false => store_time(&store).await?,
    };
    let apart = theirs.duration_since(how.now).abs();
    if apart.as_secs() > MOST_SECONDS {
        let why = format!(
            "the clocks of this machine and of {} differ by {} s",
            store.place(),
            apart.as_secs()
        );
        return Ok(skipped(true, &why));
    }
    look_at(location, how, &cluster, theirs).await
}

fn folder(cluster: &Name) -> String {
    format!("{VOLUMES}{cluster}/")
}

fn skipped(has_any: bool, why: &str) -> Vec<Outcome> {
    let told = has_any.then(|| Outcome::Skipped(why.to_owned()));
    told.into_iter().collect()
}

/// The same at this time of the store.
pub(super) async fn look_at(
    location: &Location,
    how: &Look<'_>,
    cluster: &Name,
    theirs: Timestamp,
) -> Result<Vec<Outcome>> {
    let store = &location.store.outside();
    // A location that Velero uses has no guard: there the path says whose it is.
    let whose = guard::read(location, how.cluster).await?;
    if !location.shared_with_velero && whose != Guard::Ours {
        let why = match whose {
            Guard::Other(other) => format!("the location is another cluster's ({other})"),
            _ => "no guard says that the location is this cluster's".to_owned(),
        };
        return Ok(skipped(true, &why));
    }
    let mut told = Vec::new();
    let over = || Outcome::Skipped("this was stopped before they were".to_owned());
    let Some(named) = unless_stopped(how.stopped, Named::read(store, theirs)).await else {
        return Ok(vec![over()]);
    };
    let mut named = Some(named?);
    if let Some(why) = named.as_ref().and_then(why_not) {
        told.push(why);
        named = None;
    }
    let gathered = gather(store, cluster, named.as_ref(), theirs, &mut told);
    let Some(found) = unless_stopped(how.stopped, gathered).await else {
        told.push(over());
        return Ok(told);
    };
    let mut found = found?;
    // Asked for after the snapshots were listed: whoever made one of them has its claim there, or has written all.
    if found.iter().any(|one| one.unnamed.is_some()) {
        let again = unless_stopped(how.stopped, Named::read(store, theirs)).await;
        let Some(again) = again else {
            told.push(over());
            return Ok(told);
        };
        let mut again = again?;
        if let Some(why) = why_not(&again) {
            told.push(why);
            named = None;
        } else {
            for one in &mut found {
                let unnamed = one.unnamed.take();
                one.unnamed = unnamed.and_then(|unnamed| still(unnamed, &one.keys, &again));
            }
            // Who was at work before and is not any more has perhaps written what this listing does not show.
            again
                .runs
                .extend(named.into_iter().flat_map(|before| before.runs));
            named = Some(again);
        }
    }
    let known = Known { theirs, named };
    let last = how.came_to.and_then(|at| lock(at).clone());
    go_on_after(last.as_deref(), &mut found);
    for one in found {
        if is_stopped(how.stopped) {
            told.push(stopped(&one.keys));
            continue;
        }
        let repository = shown(&one.keys);
        if let Some(at) = how.came_to {
            *lock(at) = Some(repository.clone());
        }
        match act(store, how, one, &known, &mut told).await {
            Err(e) if !is_of_all(&e) => told.push(failed(repository, &e)),
            done => done?,
        }
    }
    Ok(told)
}

fn lock(at: &Mutex<CameTo>) -> MutexGuard<'_, CameTo> {
    at.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In order, from the one behind this one on.
fn go_on_after(last: Option<&str>, found: &mut [Found]) {
    found.sort_by_key(|one| shown(&one.keys));
    if let Some(last) = last {
        let before = found.partition_point(|one| *shown(&one.keys) <= *last);
        found.rotate_left(before);
    }
}

/// What goes wrong with one repository keeps no other from its turn.
fn failed(repository: String, error: &Error) -> Outcome {
    let why = error.sentence();
    Outcome::Failed { repository, why }
}

/// Why nothing may be taken for unnamed.
fn why_not(named: &Named) -> Option<Outcome> {
    let nobody = || Outcome::Skipped("no backup is listed".to_owned());
    let unread = named.unread().map(Outcome::Blind);
    unread.or_else(|| (!named.any_stands).then(nobody))
}

/// What is still unnamed.
fn still(unnamed: Unnamed, keys: &VolumeKeys, named: &Named) -> Option<Unnamed> {
    match unnamed {
        Unnamed::Everything => (!named.has_repository(keys)).then_some(Unnamed::Everything),
        Unnamed::Snapshots(mut ids) => {
            ids.retain(|id| !named.has_snapshot(id));
            (!ids.is_empty()).then_some(Unnamed::Snapshots(ids))
        }
    }
}

/// The repositories in which there is something to do. Without knowing what is named, that is to free space.
async fn gather(
    store: &Store,
    cluster: &Name,
    named: Option<&Named>,
    theirs: Timestamp,
    told: &mut Vec<Outcome>,
) -> Result<Vec<Found>> {
    let (mut all, mut held) = (Vec::new(), 0);
    for namespace in store.folders(&folder(cluster)).await? {
        let Ok(namespace) = Name::foreign(&namespace) else {
            continue;
        };
        let inside = format!("{}{namespace}/", folder(cluster));
        let names = match store.folders(&inside).await {
            Err(e) if !is_of_all(&e) => {
                told.push(failed(inside.trim_end_matches('/').to_owned(), &e));
                continue;
            }
            names => names?,
        };
        let (mut keys, mut seen) = (Vec::new(), BTreeSet::new());
        for name in &names {
            let of = VolumeKeys::of_folder(cluster.as_str(), namespace.as_str(), name);
            keys.extend(of.filter(|keys| seen.insert(keys.repository())));
        }
        let mut looked = stream::iter(keys)
            .map(|keys| async move { (shown(&keys), one(store, keys, named, theirs).await) })
            .buffered(AT_A_TIME);
        while let Some((repository, found)) = looked.next().await {
            let found = match found {
                Err(e) if !is_of_all(&e) => {
                    told.push(failed(repository, &e));
                    continue;
                }
                found => found?,
            };
            let Some(mut found) = found else { continue };
            if let Some(Unnamed::Snapshots(ids)) = &mut found.unnamed {
                if held > 0 && held + ids.len() > MOST {
                    told.push(Outcome::Kept {
                        repository,
                        why: format!("one look holds {MOST} snapshots that no backup names; a later one comes to these"),
                    });
                    // What was noted of them stands.
                    (found.unnamed, found.is_noted) = (None, false);
                } else {
                    ids.truncate(MOST);
                    held += ids.len();
                }
            }
            all.push(found);
        }
    }
    Ok(all)
}

/// What there is to do in a repository.
async fn one(
    store: &Store,
    keys: VolumeKeys,
    named: Option<&Named>,
    theirs: Timestamp,
) -> Result<Option<Found>> {
    let is_unnamed = |id: &str| named.is_some_and(|named| !named.has_snapshot(id));
    let (ids, any) = listed(store, &keys, is_unnamed).await?;
    let unnamed = match (named, any) {
        (None, _) => None,
        // What a backup names is not gone because it is not listed.
        (Some(named), false) => (!named.has_repository(&keys)).then_some(Unnamed::Everything),
        (Some(_), true) if ids.is_empty() => None,
        (Some(_), true) => Some(Unnamed::Snapshots(ids.into_iter().collect())),
    };
    let due = note::due(store, &keys).await?;
    let is_noted = !Orphans::read(store, &keys).await?.is_empty();
    let reclaim = any && due.is_some_and(|after| after <= theirs);
    let is_any = unnamed.is_some() || reclaim || is_noted;
    Ok(is_any.then_some(Found {
        keys,
        unnamed,
        is_noted,
        reclaim,
    }))
}

async fn act(
    store: &Store,
    how: &Look<'_>,
    found: Found,
    known: &Known,
    told: &mut Vec<Outcome>,
) -> Result<()> {
    let Found {
        keys,
        unnamed,
        is_noted,
        mut reclaim,
    } = found;
    let (mut plan, mut may_go_whole) = (Plan::default(), false);
    if let Some(named) = &known.named
        && (is_noted || unnamed.is_some())
    {
        may_go_whole = !named.has_repository(&keys);
        let note = Orphans::read(store, &keys).await?;
        if let Some(unnamed) = unnamed {
            plan = note.plan(unnamed, known.theirs, &named.runs);
        }
        if !how.dry_run && plan.note != note {
            plan.note.write(store, &keys).await?;
        }
    }
    if let Some(after) = plan.after {
        told.push(Outcome::Noted {
            repository: shown(&keys),
            snapshots: plan.waiting,
            after,
        });
    }
    let goes = plan.clear || !plan.forget.is_empty();
    let gone = match how.dry_run {
        true => Ok(Forgotten {
            snapshots: plan.forget.len(),
            whole: plan.clear,
        }),
        false if goes => go(store, &keys, &plan, may_go_whole, how).await,
        false => Ok(Forgotten::default()),
    };
    match gone {
        Ok(gone) if gone.snapshots > 0 || gone.whole => {
            reclaim = !gone.whole;
            told.push(went(&keys, &gone));
        }
        Ok(_) => {}
        Err(e) if is_of_all(&e) => return Err(e),
        Err(e) => {
            reclaim &= e.kind() != Kind::Interrupted;
            told.push(Outcome::not_done(&keys, &e));
        }
    }
    match (reclaim, how.dry_run) {
        (false, _) => {}
        (true, true) => told.push(Outcome::Reclaimable {
            repository: shown(&keys),
        }),
        (true, false) => {
            told.push(reclaim_one(store, &keys, how.keyring, how.host, how.stopped).await);
        }
    }
    Ok(())
}

async fn go(
    store: &Store,
    keys: &VolumeKeys,
    plan: &Plan,
    may_go_whole: bool,
    how: &Look<'_>,
) -> Result<Forgotten> {
    let volume = VolumeStore::new(store, keys).until(how.stopped);
    if plan.clear {
        return volume.clear(keys.number(), how.host).await;
    }
    let expired = volume.expire(keys.number(), &plan.forget, may_go_whole, how.host);
    expired.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_goes_on_behind_the_repository_that_the_last_one_began_with() {
        let after = |last: Option<&str>| -> String {
            let found = |uid: &str| Found {
                keys: VolumeKeys::new("c", "n", uid).unwrap(),
                unnamed: None,
                is_noted: false,
                reclaim: true,
            };
            let mut all = ["b", "d", "a", "c"].map(found);
            go_on_after(last, &mut all);
            let uids = all.iter().map(|one| shown(&one.keys));
            uids.map(|path| path.chars().next_back().unwrap()).collect()
        };
        assert_eq!(after(None), "abcd");
        assert_eq!(after(Some("restic/c/n/b")), "cdab");
        assert_eq!(after(Some("restic/c/n/d")), "abcd");
        // It is gone.
        assert_eq!(after(Some("restic/c/n/bb")), "cdab");
    }
}
