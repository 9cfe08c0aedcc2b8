//! The claims that one mover fills, from their beginning to their end: what [`step`](super::step) says is done, one thing after the other, and looked at again.

mod mover;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::api::{Asking, Conflict, GOES, PAUSE, stopped};
use super::choose::Data;
use super::fill;
use super::objects::{self, Aim, Size};
use super::step::{Action, Awaited, Live, Step, step};
use super::until::Until;
use super::why::{begun_again, hint, kept_policy, too_long};
use crate::cluster::Cluster;
use crate::crypt::Identities;
use crate::error::{Error, Kind, Result};
use crate::location::Store;
use crate::mover::{Mover, Movers, Placement};

/// So many things are done for one claim before it is held to be an endless round.
const MOST: u32 = 200;

/// A claim that is held.
#[derive(Clone, Debug)]
pub(in super::super) struct Item {
    pub(in super::super) aim: Aim,
    pub(in super::super) data: Data,
    /// The claim as it would be created.
    pub(in super::super) body: Value,
    /// Volumes that an earlier run filled and kept for claims of this name: the claim's uid, and the volume.
    pub(in super::super) kept: Vec<(String, String)>,
}

impl Item {
    fn path(&self) -> String {
        format!("{}/{}", self.aim.namespace, self.aim.claim)
    }
}

/// What a group tells; claims by their place in the list of all.
#[derive(Debug)]
pub(in super::super) enum Word {
    /// It stands, or could not be made. `false`: an earlier run made it.
    Stands(usize, Result<bool>),
    /// Something begins.
    Step(String),
    /// Bytes that were brought.
    Bytes(u64),
    /// It is bound to its data, with what is to be said of that; or why not.
    Ended(usize, Result<Option<String>>),
}

/// What all groups have in common.
pub(in super::super) struct Shared {
    pub(in super::super) cluster: Cluster,
    pub(in super::super) store: Store,
    pub(in super::super) identities: Identities,
    pub(in super::super) movers: Movers,
    /// The id of this run.
    pub(in super::super) run: String,
    /// Groups whose volumes are made, at a time.
    pub(in super::super) making: Semaphore,
    /// Groups whose volumes are filled, at a time.
    pub(in super::super) filling: Semaphore,
    pub(in super::super) words: mpsc::UnboundedSender<Word>,
}

struct At {
    item: Item,
    /// In the list of all.
    place: usize,
    /// What stands on the volume that this run filled.
    filled: Option<String>,
    /// What is to be said although it is bound.
    said: Option<String>,
    /// This run made it.
    is_made: bool,
    /// The mover has it mounted, at this place.
    mounted: Option<usize>,
    /// It failed and is left as it is.
    is_over: bool,
}

/// The claims of one group at work.
pub(in super::super) struct Group {
    shared: Arc<Shared>,
    all: Vec<At>,
    placement: Placement,
    mover: Option<Mover>,
    /// The server was asked whether it would take its mover, and did not refuse.
    is_rehearsed: bool,
}

/// What a claim came to on the way.
enum Came {
    There,
    /// Its volume is made for the first pod that mounts the staging claim.
    WantsPod,
}

impl Group {
    pub(in super::super) fn new(
        shared: Arc<Shared>,
        items: Vec<(usize, Item)>,
        placement: Placement,
    ) -> Self {
        let all = items.into_iter().map(|(place, item)| At {
            item,
            place,
            filled: None,
            said: None,
            is_made: false,
            mounted: None,
            is_over: false,
        });
        Self {
            all: all.collect(),
            shared,
            placement,
            mover: None,
            is_rehearsed: false,
        }
    }

    /// Makes the claims, fills their volumes and has them bound. What comes of it is told.
    pub(in super::super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        {
            let _turn = shared.making.acquire().await;
            self.hold().await;
        }
        // A mover that has to wait for its turn makes room for others: its volumes are there.
        let mut turn = shared.filling.try_acquire().ok();
        if turn.is_none() {
            self.leave_to_settle().await;
            turn = shared.filling.acquire().await.ok();
        }
        self.fill().await;
        self.leave_to_settle().await;
        self.bind().await;
        drop(turn);
    }

    fn tell(&self, word: Word) {
        // Nobody listens any more where the restore ended.
        let _ = self.shared.words.send(word);
    }

    fn places(&self) -> Vec<usize> {
        let all = self.all.iter().enumerate();
        all.filter(|(_, at)| !at.is_over)
            .map(|(at, _)| at)
            .collect()
    }

    fn stands(&mut self, at: usize, came: Result<()>) {
        let Some(one) = self.all.get_mut(at) else {
            return;
        };
        one.is_over |= came.is_err();
        let word = Word::Stands(one.place, came.map(|()| one.is_made));
        self.tell(word);
    }

    fn ended(&mut self, at: usize, came: Result<()>) {
        let Some(one) = self.all.get_mut(at) else {
            return;
        };
        one.is_over = true;
        let said = one.said.take();
        let word = Word::Ended(one.place, came.map(|()| said));
        self.tell(word);
    }

    /// Until every claim stands.
    async fn hold(&mut self) {
        let mut waiting = Vec::new();
        for at in self.places() {
            match self.drive(at, Until::Held).await {
                Ok(Came::There) => self.stands(at, Ok(())),
                Ok(Came::WantsPod) => waiting.push(at),
                Err(e) => self.not_made(at, e).await,
            }
        }
        if waiting.is_empty() {
            return;
        }
        if let Err(e) = self.ensure_mover().await.map_err(|e| self.or_stopped(e)) {
            for at in waiting {
                let again = Error::new(e.kind(), e.sentence());
                self.not_made(at, again).await;
            }
            return;
        }
        for at in waiting {
            match self.drive(at, Until::Held).await {
                Ok(Came::There) => self.stands(at, Ok(())),
                Ok(Came::WantsPod) => {
                    let why = "a pod has its volume mounted, and the claim is said to have none";
                    self.stands(at, Err(Error::other(why)));
                }
                Err(e) => self.not_made(at, e).await,
            }
        }
    }

    /// A claim does not come to be. Where the cluster refuses it, or its mover, the claim under which its volume was to be filled goes as well.
    async fn not_made(&mut self, at: usize, e: Error) {
        if matches!(e.kind(), Kind::Forbidden | Kind::Invalid) {
            // What can not be deleted is found by the next run, and by `restore delete`.
            let _ = self.take_back(at).await;
        }
        self.stands(at, Err(e));
    }

    /// Deletes the staging claim of a claim that does not stand, while nothing was brought into its volume.
    async fn take_back(&self, at: usize) -> Result<(), Conflict> {
        let live = self.look(at, Until::Held).await?;
        let is_begun = live.volume.as_ref().is_some_and(|volume| volume.is_begun);
        let is_unused = live.real.is_none()
            && !is_begun
            && matches!(
                step(&live),
                Step::Do(Action::Hold { .. }) | Step::Wait(Awaited::Provisioned)
            );
        let (true, Some(staging), Some(one)) = (is_unused, live.staging, self.all.get(at)) else {
            return Ok(());
        };
        let asking = Asking {
            cluster: &self.shared.cluster,
            aim: &one.item.aim,
        };
        let action = Action::Unstage { uid: staging.uid };
        let stop = self.shared.movers.stop();
        asking.act(&action, None, &stop).await
    }

    /// Until every volume is full, or failed.
    async fn fill(&mut self) {
        for at in self.places() {
            match self.drive(at, Until::Full).await {
                Ok(Came::There) => {}
                Ok(Came::WantsPod) => self.ended(at, Err(begun_again())),
                Err(e) => self.ended(at, Err(e)),
            }
        }
    }

    /// Until every claim that is left is bound.
    async fn bind(&mut self) {
        for at in self.places() {
            let came = match self.drive(at, Until::Bound).await {
                Ok(Came::There) => Ok(()),
                Ok(Came::WantsPod) => Err(begun_again()),
                Err(e) => Err(e),
            };
            self.ended(at, came);
        }
    }

    async fn look(&self, at: usize, until: Until) -> Result<Live, Conflict> {
        let Some(one) = self.all.get(at) else {
            return Err(Conflict::Other(Error::other("a claim is lost")));
        };
        let mover = self.mover.as_ref().filter(|_| one.mounted.is_some());
        let asking = Asking {
            cluster: &self.shared.cluster,
            aim: &one.item.aim,
        };
        let live = asking
            .look(mover.map(Mover::uid), one.filled.as_deref())
            .await?;
        let real = live.real.as_ref().map_or("", |real| real.uid.as_str());
        let mut kept = one.item.kept.iter();
        let kept = kept.find(|(uid, _)| uid != real);
        Ok(Live {
            kept: kept.map(|(_, volume)| volume.clone()),
            has_mover: mover.is_some(),
            is_beginning: until == Until::Held,
            ..live
        })
    }

    /// Whatever fails once the restore was told to end fails by that: its movers go, and streams to them break.
    fn or_stopped(&self, e: Error) -> Error {
        match *self.shared.movers.stop().borrow() && e.kind() != Kind::Interrupted {
            true => stopped().because(e),
            false => e,
        }
    }

    /// Brings one claim as far as that.
    async fn drive(&mut self, at: usize, until: Until) -> Result<Came> {
        let came = self.bring(at, until).await;
        came.map_err(|e| self.or_stopped(e))
    }

    async fn bring(&mut self, at: usize, until: Until) -> Result<Came> {
        let stop = self.shared.movers.stop();
        let mut waited: Option<(Awaited, Instant)> = None;
        for _ in 0..MOST {
            if *stop.borrow() {
                return Err(stopped());
            }
            let live = match self.look(at, until).await {
                Ok(live) => live,
                Err(Conflict::Again) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(Conflict::Other(e)) => return Err(e),
            };
            let next = step(&live);
            if until.is_reached(&live, &next) {
                return Ok(Came::There);
            }
            match next {
                Step::Done => return Ok(Came::There),
                Step::Refuse(why) => return Err(self.refused(at, why)),
                Step::Wait(Awaited::Provisioned) if !live.has_mover => return Ok(Came::WantsPod),
                Step::Wait(awaited) => {
                    let since = match waited {
                        Some((before, since)) if before == awaited => since,
                        _ => Instant::now(),
                    };
                    waited = Some((awaited, since));
                    self.wait(at, until, (awaited, since), &next).await?;
                }
                Step::Do(action) => {
                    match self.act(at, &action).await {
                        Err(Conflict::Again) => tokio::time::sleep(PAUSE).await,
                        Err(Conflict::Other(e)) => return Err(e),
                        Ok(()) => {}
                    }
                    if let Some(one) = self.all.get_mut(at)
                        && matches!(action, Action::Hold { .. })
                    {
                        one.is_made = true;
                    }
                }
            }
        }
        let why = format!(
            "somebody changes it again and again: after {MOST} steps it is not where it should be"
        );
        Err(self.refused(at, why))
    }

    fn refused(&self, at: usize, why: String) -> Error {
        let restore = self.all.get(at).map(|one| one.item.aim.restore.as_str());
        Error::other(why).hint(hint(restore.unwrap_or_default()))
    }

    /// Looks now and then, until something else is next.
    async fn wait(
        &mut self,
        at: usize,
        until: Until,
        (awaited, since): (Awaited, Instant),
        next: &Step,
    ) -> Result<()> {
        let stop = self.shared.movers.stop();
        loop {
            if since.elapsed() >= GOES {
                return Err(too_long(awaited));
            }
            tokio::time::sleep(PAUSE).await;
            if *stop.borrow() {
                return Err(stopped());
            }
            match self.look(at, until).await {
                Ok(live) if step(&live) == *next => {}
                Ok(_) | Err(Conflict::Again) => return Ok(()),
                Err(Conflict::Other(e)) => return Err(e),
            }
        }
    }

    async fn act(&mut self, at: usize, action: &Action) -> Result<(), Conflict> {
        if matches!(action, Action::Stage) {
            self.rehearse(at).await?;
        }
        let Some(one) = self.all.get(at) else {
            return Ok(());
        };
        let asking = Asking {
            cluster: &self.shared.cluster,
            aim: &one.item.aim,
        };
        let stop = self.shared.movers.stop();
        let mover = self.mover.as_ref().filter(|_| one.mounted.is_some());
        let mover = mover.map(Mover::uid);
        match action {
            Action::Stage => {
                let size = Size {
                    capacity: one.item.data.capacity.clone(),
                    allocated: one.item.data.copy.allocated.unwrap_or_default(),
                };
                let claim = objects::staging(&one.item.aim, &one.item.body, &size);
                let doing = "the claim under which its volume would be filled could not be made";
                let made = asking.create(&claim).await;
                made.map_err(|e| Conflict::of(e, doing))?;
            }
            Action::Hold { volume } => asking.hold(&one.item.body, volume).await?,
            Action::Fill => self.fill_one(at).await?,
            Action::Leave => self.leave().await?,
            Action::Evict => {
                asking.act(action, mover, &stop).await?;
                // Whoever had it may have written to it.
                if let Some(one) = self.all.get_mut(at) {
                    one.filled = None;
                }
            }
            Action::PutBack {
                volume,
                former: None,
                ..
            } => {
                asking.act(action, mover, &stop).await?;
                let kept = kept_policy(volume);
                if let Some(one) = self.all.get_mut(at) {
                    let said = one.said.take().map(|said| format!("{said}; "));
                    one.said = Some(said.unwrap_or_default() + &kept);
                }
            }
            _ => asking.act(action, mover, &stop).await?,
        }
        Ok(())
    }

    async fn fill_one(&mut self, at: usize) -> Result<(), Conflict> {
        let is_mounted = |group: &Self| group.all.get(at).and_then(|one| one.mounted);
        let is_there = self.mover.as_ref().is_some_and(Mover::is_there);
        if !is_there || is_mounted(self).is_none() {
            self.ensure_mover().await?;
            // What else has it is seen before anything is written.
            return Ok(());
        }
        let (Some(mover), Some(number), Some(one)) =
            (&self.mover, is_mounted(self), self.all.get(at))
        else {
            return Err(Conflict::Again);
        };
        let asking = Asking {
            cluster: &self.shared.cluster,
            aim: &one.item.aim,
        };
        let volume = asking.staged().await?;
        if !volume.is_begun {
            // Never over what somebody else has put there.
            fill::is_empty(mover, number).await?;
        }
        let filling = asking.begin(&volume, &self.shared.run).await?;
        self.tell(Word::Step(format!(
            "restoring the data of claim {} ({} files)",
            one.item.path(),
            one.item.data.copy.files
        )));
        let words = self.shared.words.clone();
        let how = (number, volume.is_begun);
        let sent = fill::send(&self.shared, mover, how, &one.item.data, words).await?;
        // Nobody else is to have it while it is looked at.
        let others = asking.mounting(&one.item.aim.staging()).await?;
        if others.iter().any(|pod| pod.uid != mover.uid()) {
            return Err(Conflict::Again);
        }
        let said = fill::look(mover, number, sent).await?;
        if let Some(one) = self.all.get_mut(at) {
            one.filled = Some(filling);
            one.said = said;
        }
        Ok(())
    }
}

/// Between two looks of whoever waits for a group.
pub(in super::super) const OFTEN: Duration = Duration::from_millis(200);
