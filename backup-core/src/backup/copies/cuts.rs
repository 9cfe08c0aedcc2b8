//! The snapshots of a run: each is made by a task of its own, so that none is lost with who waits for it. What came of them is kept for the report; those that are in the backup lose
//! their objects when it stands, all others go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::super::choice::Copied;
use super::super::report::Log;
use super::lock;
use crate::cluster::Cluster;
use crate::error::{Error, Kind, Result};
use crate::layout::SNAPSHOT_NOTES;
use crate::location::Store;
use crate::records::copies::{CsiSnapshot, Hooks, Outcome};
use crate::snapshot::cut::{Cut, Wanted};
use crate::snapshot::inventory::{self, Inventory, State};
use crate::snapshot::left;
use crate::snapshot::objects::Whose;
use crate::snapshot::pair;

/// All snapshots of a run.
pub(in crate::backup) struct Cuts {
    cluster: Cluster,
    store: Store,
    /// The uid of kube-system, where it is known.
    identity: Option<String>,
    backup: String,
    uid: String,
    whose: Whose,
    timeout: Duration,
    stop: watch::Sender<bool>,
    /// Why none may be made, or that it is written down that some are.
    noted: Mutex<Option<Result<Inventory, String>>>,
    /// Those that were not begun with, for that they are made could not be written down, and why.
    unbegun: Mutex<Vec<(Wanted, String)>>,
    /// Each is here until it is done with: whoever waits for it may be dropped.
    under_way: tokio::sync::Mutex<Vec<UnderWay>>,
    /// Of each driver, whether it begins with what it is asked for; nothing as long as that is not known.
    begins: Mutex<BTreeMap<String, Begins>>,
    kept: Mutex<Vec<(Cut, CsiSnapshot)>>,
    /// Objects of one that failed are there still.
    is_left: AtomicBool,
    /// What no later run finds, in words.
    lost: Mutex<Vec<String>>,
}

/// What is known of a driver in this run.
type Begins = Arc<Mutex<Option<bool>>>;

struct UnderWay {
    wanted: Wanted,
    work: Stage,
}

/// How far one is.
enum Stage {
    Task(JoinHandle<(Cut, Result<CsiSnapshot>)>),
    /// It is looked at again, or removed.
    Made(Box<Cut>),
    Over,
}

impl UnderWay {
    /// Waits for its task, where that is not over; nothing where that broke off.
    async fn made(&mut self) -> Result<Result<CsiSnapshot>> {
        let Stage::Task(task) = &mut self.work else {
            return Ok(Err(Error::other("it is over already")));
        };
        match task.await {
            Ok((cut, made)) => {
                self.work = Stage::Made(Box::new(cut));
                Ok(made)
            }
            Err(e) => {
                self.work = Stage::Over;
                Err(Error::other("the work on its snapshot broke off").because(e))
            }
        }
    }

    fn is_at_work(&self) -> bool {
        matches!(self.work, Stage::Task(_))
    }

    /// Removes what was made.
    async fn remove(&mut self) -> Result<()> {
        let Stage::Made(cut) = &mut self.work else {
            return Ok(());
        };
        let removed = cut.remove().await;
        self.work = Stage::Over;
        removed
    }
}

/// Whose snapshots they are.
pub(super) struct Of<'a> {
    pub(super) identity: Option<&'a str>,
    pub(super) backup: &'a str,
    /// By which copies name the backup.
    pub(super) uid: &'a str,
    pub(super) run: &'a str,
    pub(super) timeout: Duration,
}

impl Cuts {
    /// None yet.
    pub(super) fn new(cluster: &Cluster, store: &Store, of: &Of<'_>) -> Self {
        Self {
            cluster: cluster.clone(),
            store: store.clone(),
            identity: of.identity.map(str::to_owned),
            backup: of.backup.to_owned(),
            uid: of.uid.to_owned(),
            whose: Whose {
                run: of.run.to_owned(),
                place: inventory::place(store),
            },
            timeout: of.timeout,
            stop: watch::Sender::new(false),
            noted: Mutex::default(),
            unbegun: Mutex::default(),
            under_way: tokio::sync::Mutex::default(),
            begins: Mutex::default(),
            kept: Mutex::default(),
            is_left: AtomicBool::new(false),
            lost: Mutex::default(),
        }
    }

    /// Sees to what dead runs left, and writes down that this one makes some. What could not be done comes back, a sentence each.
    pub(super) async fn prepare(&self) -> Vec<String> {
        let Some(identity) = &self.identity else {
            return Vec::new();
        };
        let told = left::clear(&self.cluster, &self.store, identity).await;
        let mut told = told.unwrap_or_else(|e| {
            let why = e.sentence();
            vec![format!(
                "what dead runs left of snapshots could not be seen to: {why}"
            )]
        });
        // Of restores whose claims are bound by now: who may not see them has made none.
        if let Ok(cleared) = pair::clear(&self.cluster, None, Timestamp::now()).await {
            told.extend(cleared.left);
        }
        let of = (self.backup.as_str(), self.uid.as_str());
        let noted = Inventory::new(&self.store, identity, of, &self.whose.run);
        let written = noted.put(&self.store).await;
        *lock(&self.noted) = Some(written.map(|()| noted).map_err(|e| e.sentence()));
        told
    }

    fn noted(&self) -> Result<Inventory> {
        match &*lock(&self.noted) {
            Some(Ok(noted)) => Ok(noted.clone()),
            Some(Err(why)) => {
                let text = format!("no snapshot may be made that is not written down first: {why}");
                Err(Error::other(text))
            }
            None => Err(Error::other(
                "that snapshots are made was not written down in the location",
            )),
        }
    }

    /// Begins with these, and waits until each is cut or failed.
    pub(super) async fn cut(&self, all: Vec<Wanted>, hooks: Hooks) {
        let mut cut = Vec::new();
        let mut under_way = self.under_way.lock().await;
        for wanted in all {
            if let Err(e) = self.noted() {
                lock(&self.unbegun).push((wanted, e.sentence()));
                continue;
            }
            let stop = self.stop.subscribe();
            let begins = Arc::clone(lock(&self.begins).entry(wanted.driver.clone()).or_default());
            let is_asked = wanted.is_asked;
            let mut one = Cut::new(
                &self.cluster,
                &self.whose,
                wanted.clone(),
                self.timeout,
                stop,
            );
            let (tell, told) = oneshot::channel();
            let task = tokio::spawn(async move {
                let made = made(&mut one, is_asked, &begins).await;
                // Nobody waits any more where the backup is stopped.
                let _ = tell.send(());
                let kept = match made {
                    Ok(()) => one.keep(hooks).await,
                    Err(e) => Err(e),
                };
                (one, kept)
            });
            under_way.push(UnderWay {
                wanted,
                work: Stage::Task(task),
            });
            cut.push(told);
        }
        drop(under_way);
        join_all(cut).await;
    }

    /// Waits until all can be used, and looks whether they are kept still; those that failed are removed.
    pub(in crate::backup) async fn finish(&self, log: &Log) -> Copied {
        let mut under_way = self.under_way.lock().await;
        let all = under_way.iter_mut().map(|one| async move {
            let key = (one.wanted.namespace.clone(), one.wanted.claim.clone());
            let made = self.finished(one, log).await;
            (key, made)
        });
        let mut all: Copied = join_all(all).await.into_iter().collect();
        under_way.clear();
        drop(under_way);
        for (wanted, why) in std::mem::take(&mut *lock(&self.unbegun)) {
            let outcome = match wanted.is_asked {
                true => Err(why),
                false => Ok(Outcome::NotAsked(format!("nobody asked for it: {why}"))),
            };
            all.insert((wanted.namespace, wanted.claim), outcome);
        }
        all
    }

    async fn finished(&self, one: &mut UnderWay, log: &Log) -> Result<Outcome, String> {
        let name = format!("{}/{}", one.wanted.namespace, one.wanted.claim);
        let made = match one.made().await {
            Ok(made) => made,
            Err(e) => {
                self.is_left.store(true, Ordering::Relaxed);
                return Err(e.sentence());
            }
        };
        let made = match (&mut one.work, made) {
            (Stage::Made(cut), Ok(snapshot)) => {
                cut.confirm(&snapshot.handle).await.map(|()| snapshot)
            }
            (_, made) => made,
        };
        match made {
            Ok(snapshot) => {
                let text = format!(
                    "volume {name}: snapshot {} of driver {}, by class {}, cut at {:.0}",
                    snapshot.handle, snapshot.driver, snapshot.class, snapshot.cut
                );
                log.line("info", &text);
                if let Stage::Made(cut) = std::mem::replace(&mut one.work, Stage::Over) {
                    lock(&self.kept).push((*cut, snapshot.clone()));
                }
                Ok(Outcome::Snapshot(Box::new(snapshot)))
            }
            Err(e) => {
                let why = e.sentence();
                let text = format!("volume {name}: no snapshot was made: {why}");
                log.line("error", &text);
                if let Err(e) = one.remove().await {
                    self.is_left.store(true, Ordering::Relaxed);
                    log.line("warning", &left_to_the_next(&name, &e));
                }
                Err(why)
            }
        }
    }

    /// Writes down all handles, before the backup names them: from now on none of them goes because of one look. Where that can not be, none of them is in the backup: each is refused by name,
    /// and removed.
    ///
    /// # Errors
    /// Where the store answers nobody: then there is no backup.
    pub(in crate::backup) async fn seal(&self, copied: &mut Copied, log: &Log) -> Result<()> {
        let Err(e) = self.write_down().await else {
            return Ok(());
        };
        if matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) {
            return Err(e);
        }
        let why = e.sentence();
        let is_known = self.noted().is_ok();
        let mut under_way = self.under_way.lock().await;
        let mut handles = Vec::new();
        for (cut, snapshot) in std::mem::take(&mut *lock(&self.kept)) {
            let why = format!("its snapshot {} is removed again: {why}", snapshot.handle);
            let text = format!("volume {}: no snapshot was made: {why}", cut.name());
            log.line("error", &text);
            copied.insert(cut.claim(), Err(why));
            handles.push((snapshot.driver, snapshot.handle, cut.object()));
            under_way.push(UnderWay {
                wanted: cut.wanted().clone(),
                work: Stage::Made(Box::new(cut)),
            });
        }
        let all = under_way.iter_mut().zip(handles);
        let removed = all.map(|(one, (driver, handle, object))| async move {
            let name = format!("{}/{}", one.wanted.namespace, one.wanted.claim);
            let Err(e) = one.remove().await else { return };
            self.is_left.store(true, Ordering::Relaxed);
            let text = match is_known {
                true => left_to_the_next(&name, &e),
                false => left_for_ever(
                    &format!("snapshot {handle} of {driver}, of volume {name},"),
                    &object,
                    &e,
                ),
            };
            log.line("warning", &text);
            if !is_known {
                lock(&self.lost).push(text);
            }
        });
        join_all(removed).await;
        under_way.clear();
        Ok(())
    }

    async fn write_down(&self) -> Result<()> {
        let all: Vec<CsiSnapshot> = lock(&self.kept)
            .iter()
            .map(|(_, one)| one.clone())
            .collect();
        if all.is_empty() {
            return Ok(());
        }
        let mut noted = self.noted()?;
        // Who took the run for dead has written so before it removed anything.
        let there = noted.again(&self.store).await;
        if there.as_ref().ok().and_then(Option::as_ref) != Some(&noted) {
            let why = match there {
                Err(e) => e.context("what was written down of them can not be read again"),
                Ok(_) => Error::other("what was written down of them is not there as it was"),
            };
            // It is somebody else's by now: nothing is written over it, and it is not taken away.
            *lock(&self.noted) = Some(Err(why.sentence()));
            return Err(why.hint(format!(
                "look who writes to {SNAPSHOT_NOTES}{}.json in the location, remove it, and make another backup",
                self.whose.run
            )));
        }
        let names = !self.store.is_vault();
        all.iter().for_each(|snapshot| noted.add(snapshot, names));
        noted.state = State::Sealed;
        noted.put(&self.store).await?;
        *lock(&self.noted) = Some(Ok(noted));
        Ok(())
    }

    /// The backup stands: objects go, snapshots stay. What is left to the next run comes back, a sentence each.
    pub(in crate::backup) async fn leave(&self) -> Vec<String> {
        let kept = std::mem::take(&mut *lock(&self.kept));
        let left = kept.into_iter().map(|(mut cut, _)| async move {
            let done = cut.leave().await;
            done.err().map(|e| left_to_the_next(&cut.name(), &e))
        });
        let left = join_all(left).await.into_iter().flatten().collect();
        self.end(left).await
    }

    /// There is no backup: all of it goes.
    pub(in crate::backup) async fn settle(&self) -> Vec<String> {
        self.stop.send_replace(true);
        // What is sealed stays, whoever looks: that it is taken away is said before it is.
        if let Ok(sealed) = self.noted()
            && sealed.state == State::Sealed
        {
            let mut going = sealed.clone();
            going.state = State::Removing;
            if !matches!(going.replace(&self.store, &sealed).await, Ok(true)) {
                return vec![
                    "the snapshots of this run are written down as a backup's and stay: a prune removes them a day later".to_owned(),
                ];
            }
            *lock(&self.noted) = Some(Ok(going));
        }
        let mut under_way = self.under_way.lock().await;
        let kept = std::mem::take(&mut *lock(&self.kept));
        let mut all: Vec<Cut> = kept.into_iter().map(|(cut, _)| cut).collect();
        for mut one in under_way.drain(..) {
            if one.is_at_work() && one.made().await.is_err() {
                self.is_left.store(true, Ordering::Relaxed);
            }
            if let Stage::Made(cut) = one.work {
                all.push(*cut);
            }
        }
        drop(under_way);
        let is_known = self.noted().is_ok();
        let left = all.into_iter().map(|mut cut| async move {
            let e = cut.remove().await.err()?;
            Some(match is_known {
                true => left_to_the_next(&cut.name(), &e),
                false => {
                    let what = format!("the snapshot of volume {}", cut.name());
                    left_for_ever(&what, &cut.object(), &e)
                }
            })
        });
        let left = join_all(left).await.into_iter().flatten().collect();
        self.end(left).await
    }

    /// Says in the location how far it is, where nothing is left in the cluster.
    async fn end(&self, mut left: Vec<String>) -> Vec<String> {
        left.append(&mut lock(&self.lost));
        let Ok(mut noted) = self.noted() else {
            return left;
        };
        if !left.is_empty() || self.is_left.load(Ordering::Relaxed) {
            return left;
        }
        let written = match noted.state {
            State::Sealed => {
                noted.state = State::Left;
                noted.put(&self.store).await
            }
            _ => noted.remove(&self.store).await,
        };
        if let Err(e) = written {
            left.push(format!(
                "what is written down of this run's snapshots is seen to by the next run: {}",
                e.sentence()
            ));
        }
        left
    }
}

/// Asks for one and waits until it is cut. Pods that are made quiet for one that nobody asks for do not wait long for a driver that does nothing, and not again.
async fn made(one: &mut Cut, is_asked: bool, begins: &Mutex<Option<bool>>) -> Result<()> {
    let nobody = || {
        Error::other("nobody has begun to make the snapshot")
            .hint("is there a snapshot-controller, and a csi-snapshotter beside the driver? --snapshot-volumes=false makes none")
    };
    let known = *lock(begins);
    if !is_asked && known == Some(false) {
        return Err(nobody());
    }
    one.ask().await?;
    if !is_asked && known.is_none() {
        let is_begun = one.is_begun().await;
        // One that is at work on others comes to this one.
        let is_at_work = *lock(begins).get_or_insert(is_begun);
        if is_begun {
            *lock(begins) = Some(true);
        } else if !is_at_work {
            return Err(nobody());
        }
    }
    one.cut().await
}

fn left_to_the_next(name: &str, e: &Error) -> String {
    format!(
        "the objects of the snapshot of volume {name} are left to the next run: {}",
        e.sentence()
    )
}

/// Later runs go by the inventory, and it can not be read.
fn left_for_ever(what: &str, object: &str, e: &Error) -> String {
    format!(
        "{what} is left for ever: {} (delete {object} with kubectl, after setting its content's deletionPolicy to Delete)",
        e.sentence()
    )
}

#[cfg(test)]
mod tests;
