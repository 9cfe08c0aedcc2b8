//! What is done in the repositories of volumes: snapshots of backups that went are forgotten, what no backup names is looked for, space is freed. Whoever removes a backup notes here what it
//! owned.
//!
//! A copy waits for whoever is alone in a repository, and a pod that is held between its hooks waits with it. So nothing of this begins in a location in which a backup of this controller is at
//! work, or for which one came that may be in a moment; and a backup that is to begin has it stopped, which ends with the next request, before anything of it begins. What waited for a day is done
//! whoever is at work.
//!
//! What is owed is in memory alone: what a controller owed that died is found by the next one as orphans, a day later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backup_core::crypt::{Identities, Recipients};
use backup_core::error::Result;
use backup_core::location::Location;
use backup_core::location::guard::{self, Guard};
use backup_core::records::snapshots::Owned;
use backup_core::volume;
use backup_core::volume::expiry::{CameTo, Look};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::sync::watch;

use super::backups;
use super::desk::{Desk, Work};
use super::expiry::{is_same_place, is_usable, may_go_on, tell, told};
use super::keys::SecretKeys;
use super::locations;
use super::objects::{name, time, uid};
use crate::copies::Keys;

/// What waited so long goes on beside backups: else space would never come back where one is always at work.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// A backup that is asked for begins by then, or waits for its place: as long as it does it is in nobody's way.
const BEGINS: SignedDuration = SignedDuration::from_mins(1);

/// After a look that failed.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// A backup waits so long for what it has stopped: a store that does not answer keeps no backup of another one from being tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be done in the repositories of a location.
#[derive(Clone, Debug)]
pub(crate) struct Owed {
    /// The location as it was.
    object: Arc<Value>,
    /// What backups owned that went.
    files: Owned,
    /// Whether all are to be looked through.
    look: bool,
    /// Since when the first of it is owed.
    since: Timestamp,
    /// When a backup asked it to end.
    asked: Option<Instant>,
    /// A look that failed is tried again after this.
    not_before: Option<Timestamp>,
    /// Where the last look ended.
    came_to: CameTo,
}

impl Owed {
    /// Takes all that is to be done; what comes meanwhile is owed from now on.
    fn take(&mut self, now: Timestamp) -> Self {
        let taken = self.clone();
        (self.files, self.look) = (Owned::default(), false);
        self.since = now;
        taken
    }

    /// Puts back what was not come to: it is owed as long as before.
    fn put_back(&mut self, mut rest: Self) {
        if rest.is_any() {
            self.since = rest.since;
        }
        self.files.files.append(&mut rest.files.files);
        self.look |= rest.look;
        (self.not_before, self.came_to) = (rest.not_before, rest.came_to);
    }

    fn is_any(&self) -> bool {
        self.look || !self.files.files.is_empty()
    }

    /// Whether something is to be done by now.
    fn is_due(&self, now: Timestamp) -> bool {
        !self.files.files.is_empty() || self.may_look(now)
    }

    fn may_look(&self, now: Timestamp) -> bool {
        let is_over = |after: Timestamp| after <= now || after.duration_since(now) > AGAIN;
        self.look && self.not_before.is_none_or(is_over)
    }

    fn is_overdue(&self, now: Timestamp) -> bool {
        self.since > now || now.duration_since(self.since) >= LONGEST
    }
}

fn all(desk: &Desk) -> MutexGuard<'_, BTreeMap<String, Owed>> {
    desk.owed.lock().expect("nobody panics while holding it")
}

/// Notes what is to be done in the repositories of a location.
pub(crate) fn owe(desk: &Desk, object: &Arc<Value>, files: Owned, look: bool) {
    if files.files.is_empty() && !look {
        return;
    }
    let fresh = Owed {
        object: Arc::clone(object),
        files: Owned::default(),
        look: false,
        since: desk.now(),
        asked: None,
        not_before: None,
        came_to: None,
    };
    let mut all = all(desk);
    let owed = all.entry(uid(object).to_owned()).or_insert(fresh);
    if !is_same_place(&owed.object, Some(object)) {
        // What was owed lies in another bucket.
        owed.files = Owned::default();
    }
    owed.object = Arc::clone(object);
    owed.files.files.extend(files.files);
    owed.look |= look;
}

/// One look at all locations.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let now = desk.now();
    let objects = desk.locations.all();
    desk.stop_where(Work::Repositories, |before| {
        let now = objects.iter().find(|object| uid(object) == uid(before));
        !may_go_on(before, now.map(|now| &**now))
    });
    let places = locations::places(desk);
    for object in objects {
        let owed = all(desk)
            .get(uid(&object))
            .map(|owed| (owed.is_due(now), owed.is_overdue(now)));
        let Some((true, is_overdue)) = owed else {
            continue;
        };
        let is_due = is_overdue || !is_wanted(desk, name(&object));
        if is_due && is_usable(&places, &object) && desk.is_free_for(&object, Work::Repositories) {
            let place = name(&object).to_owned();
            // A backup that asked the last one to end has not asked this one.
            if let Some(owed) = all(desk).get_mut(uid(&object)) {
                owed.asked = None;
            }
            desk.begin_in(&object, Work::Repositories, &place, work);
        }
    }
}

/// Whether a backup is at work in a location, or is about to be: it has its turn first.
fn is_wanted(desk: &Desk, place: &str) -> bool {
    let now = desk.now();
    let all = || desk.backups.all();
    desk.is_at_work_in(Work::Backup, place) || all().iter().any(|one| comes(one, place, now))
}

/// Whether a backup was just asked for in this location, or in the default one, which may be it. By a clock that differs by more none was.
fn comes(backup: &Value, place: &str, now: Timestamp) -> bool {
    let of = backup["spec"]["storageLocation"].as_str();
    let created = time(backup, "/metadata/creationTimestamp");
    backups::is_new(backup)
        && of.is_none_or(|of| of.is_empty() || of == place)
        && created.is_some_and(|at| now.duration_since(at).abs() < BEGINS)
}

/// Whether a backup may begin in a location: whoever is alone in a repository there is asked to end, and awaited.
pub(crate) fn give_way(desk: &Desk, place: &str, backup: &str) -> bool {
    if !desk.is_at_work_in(Work::Repositories, place) {
        return true;
    }
    let now = desk.now();
    let at_work = desk.all_with(Work::Repositories);
    let mut all = all(desk);
    // One that was made anew under the name may owe something as well.
    let is_it = |owed: &&mut Owed| {
        name(&owed.object) == place && at_work.iter().any(|at| at == uid(&owed.object))
    };
    let Some(owed) = all.values_mut().find(is_it) else {
        return true;
    };
    if owed.is_overdue(now) {
        return true;
    }
    if owed.asked.is_none() {
        desk.ui.note(&format!(
            "backup {backup} waits until what is done in repositories of volumes of location {place} has stopped"
        ));
    }
    let asked = *owed.asked.get_or_insert_with(Instant::now);
    drop(all);
    desk.stop_where(Work::Repositories, |object| name(object) == place);
    asked.elapsed() >= PATIENCE
}

async fn work(desk: Arc<Desk>, object: Arc<Value>, stopped: watch::Receiver<bool>) -> Result<()> {
    let now = desk.now();
    let taken = all(&desk).get_mut(uid(&object)).map(|owed| owed.take(now));
    let Some(mut owed) = taken else {
        return Ok(());
    };
    let done = see_to(&desk, &object, &mut owed, &stopped).await;
    // What was not come to is owed still, as is what was noted meanwhile.
    let mut all = all(&desk);
    if let Some(now) = all.get_mut(uid(&object)) {
        now.put_back(owed);
        if !now.is_any() {
            all.remove(uid(&object));
        }
    }
    done
}

async fn see_to(
    desk: &Desk,
    object: &Value,
    owed: &mut Owed,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let place = name(object);
    let location = locations::open_named(desk, place).await?;
    let identity = desk.identity().await?;
    let whose = guard::read(&location, identity).await?;
    // What is another cluster's by now is its own business.
    if !is_same_place(&owed.object, Some(object)) || !matches!(whose, Guard::Ours | Guard::Open) {
        (owed.files, owed.look) = (Owned::default(), false);
        return Ok(());
    }
    let (files, stop) = (&mut owed.files, Some(stopped));
    for outcome in volume::expiry::forget(&location.store, files, &desk.host, stop).await {
        tell(desk, &outcome);
    }
    let now = desk.now();
    if !owed.may_look(now) || *stopped.borrow() {
        return Ok(());
    }
    let came_to = Mutex::new(owed.came_to.take());
    let looked = look(desk, &location, identity, stopped, &came_to).await;
    owed.came_to = came_to.into_inner().unwrap_or_else(PoisonError::into_inner);
    owed.look = looked.is_err() || *stopped.borrow();
    owed.not_before = looked.is_err().then(|| now + AGAIN);
    told(desk, place, looked);
    Ok(())
}

/// Looks through all of them. No location that Velero uses comes here.
async fn look(
    desk: &Desk,
    location: &Location,
    cluster: Option<&str>,
    stopped: &watch::Receiver<bool>,
    came_to: &Mutex<CameTo>,
) -> Result<()> {
    let keys = Keys {
        recipients: Recipients::of_location(&location.spec)?,
        passphrase: None,
        identities: Identities::default(),
        cache: Arc::new(SecretKeys::new(&desk.cluster, &desk.settings.namespace)),
    };
    let look = Look {
        now: desk.now(),
        host: &desk.host,
        dry_run: false,
        cluster,
        keyring: &keys.ring(),
        stopped: Some(stopped),
        came_to: Some(came_to),
    };
    for outcome in volume::expiry::look(location, &look).await? {
        tell(desk, &outcome);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_backup_that_comes_has_its_turn_first_and_one_that_waits_for_its_place_holds_up_nothing() {
        let now: Timestamp = "2026-12-01T00:10:00Z".parse().unwrap();
        let of = |phase: &str, location: Value, created: &str| json!({"metadata": {"creationTimestamp": format!("2026-12-01T00:{created}Z")}, "spec": {"storageLocation": location}, "status": {"phase": phase}});
        let comes = |backup: Value| comes(&backup, "main", now);
        for created in ["09:01", "10:59"] {
            assert!(comes(of("New", "main".into(), created)));
            assert!(comes(of("Queued", "main".into(), created)));
            assert!(comes(of("", Value::Null, created)));
            assert!(!comes(of("New", "other".into(), created)));
            assert!(!comes(of("Completed", "main".into(), created)));
        }
        for created in ["09:00", "11:00"] {
            assert!(!comes(of("Queued", "main".into(), created)), "{created}");
        }
    }

    #[test]
    fn what_is_owed_anew_during_a_pass_is_not_overdue_with_what_the_pass_did() {
        let began: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
        let mut owed = Owed {
            object: Arc::new(Value::Null),
            files: Owned::default(),
            look: true,
            since: began,
            asked: Some(Instant::now()),
            not_before: None,
            came_to: None,
        };
        let later = began + LONGEST;
        assert!(owed.is_overdue(later));
        let mut pass = owed.take(later);
        assert!(pass.is_any() && !owed.is_any());
        owed.look = true;
        pass.look = false;
        owed.put_back(pass.clone());
        assert!(owed.is_any() && !owed.is_overdue(later));
        // What was not come to waits as long as before.
        pass.look = true;
        pass.not_before = Some(later + AGAIN);
        owed.put_back(pass);
        assert!(owed.is_overdue(later));
        // A look that failed is owed, and not tried at once; also where the clock was set back.
        assert!(!owed.is_due(later) && owed.is_due(later + AGAIN) && owed.is_due(began));
    }
}
