//! Snapshots that objects ask for: the controller of EtcdBackupConfigs. One launcher of the cluster does its work at a time.
//!
//! # Who
//! A launcher whose etcd serves and who holds the Lease `etcd-launcher-CLUSTER-snapshots`. The Lease spares work and fences nothing: a snapshot belongs
//! to whom the row of its slot names as `jobName`, `LAUNCHER/ATTEMPT`, and every status is written with the resourceVersion that was read. A
//! launcher that finds a row Running that it is not at work on takes it up, as the next attempt, and three of them at most: the launcher that
//! had it has ended, or does not reach the hosting API. Where both go on, the manifest is created once, and both write what it says.
//!
//! # What
//! Every few seconds: [`gather`] the configs of the namespace, [`plan`] each of them (pure), [`apply`], [`report`].
//!
//! - The newest slot that passed since the last row (or since the object was made) is due; slots that were missed are one. Without a schedule
//!   one snapshot is taken, and its row stays: it is what tells that it was.
//! - A slot whose destination can not be used gets a row that says why; one snapshot without a schedule waits for its destination.
//! - Nothing is taken while a restore has the cluster, nor taken or removed while it is paused; a snapshot that runs when a restore begins is given up.
//! - Removals are [`backup_core::retention`]'s, in a task of their own: a store that takes snapshots and refuses deletes fills up, and says so. A
//!   snapshot is removed only where its manifest names this config. Rows beyond the most that an object can hold go, and their snapshots stay.
//! - Of a config that is deleted all snapshots of its rows are removed where `deletionPolicy` is Delete; where that fails several times the object
//!   goes all the same, and an event says what stays. Otherwise there is no finalizer, and nothing waits.
//! - After a snapshot, once an hour, what dead runs left in the bucket is swept.
//!
//! Nothing here keeps a state of its own: what matters is in the objects and in the bucket.

mod apply;
mod gather;
mod plan;
mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::api::hosted::lease_name;
use backup_core::location::Location;
use backup_core::{Error, Kind, Result};
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::etcd_args::EtcdArgs;
use crate::health::Health;
use crate::run::condition::MANAGED_BY_KKP;
use crate::run::event::Tone;
use crate::run::hosting::Hosting;
use crate::run::kkp::Managed;
use crate::run::lease::{self, Turn};
use crate::run::pace::Pace;
use gather::Listed;
use plan::{Place, Plan, Plane, Seen};
use report::Reference;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(3);
/// A destination that can be used is looked at again after this, and one that can not a little sooner.
const FRESH: Duration = Duration::from_secs(60);
const UNUSABLE: Duration = Duration::from_secs(10);
/// A removal that failed is tried again after this.
const PAUSE: Duration = Duration::from_secs(60);
/// So often the snapshots of a deleted config are tried to be removed.
const TRIES: u32 = 3;
/// Between two sweeps of a destination.
const SWEEPS: Duration = Duration::from_secs(3600);

/// What all work needs.
pub(crate) struct Shared {
    me: String,
    args: EtcdArgs,
    hosting: Hosting,
    pace: Pace,
    said: Box<dyn Fn(&str) + Send + Sync>,
    one_at_a_time: Semaphore,
}

impl Shared {
    fn say(&self, text: &str) {
        (self.said)(text);
    }
}

/// The controller of a launcher.
pub(crate) struct Backups {
    shared: Arc<Shared>,
    health: Health,
    turn: Turn,
    known: HashMap<Reference, Known>,
    /// When a destination was last swept.
    swept: HashMap<String, Instant>,
    /// Whether KKP acts on the kinds, and when that was asked.
    kkp: Option<(Option<Managed>, Instant)>,
    told: String,
}

/// What this launcher remembers of a config between two looks; all of it may be lost.
#[derive(Default)]
struct Known {
    place: Option<(Place, Option<Location>, Instant)>,
    taking: Option<(JoinHandle<()>, watch::Sender<bool>)>,
    removing: Option<JoinHandle<usize>>,
    /// The last pass of removals left something.
    failed: Option<Instant>,
    tries: u32,
}

impl Known {
    fn is_taking(&self) -> bool {
        let taking = self.taking.as_ref();
        taking.is_some_and(|(task, _)| !task.is_finished())
    }
}

impl Backups {
    /// For one launcher.
    pub(crate) fn new(
        me: &str,
        args: EtcdArgs,
        hosting: Hosting,
        health: Health,
        pace: Pace,
        said: Box<dyn Fn(&str) + Send + Sync>,
    ) -> Self {
        let name = format!("{}-snapshots", lease_name(&hosting.names.cluster));
        Self {
            turn: Turn::new(name, me, lease::times(pace)),
            shared: Arc::new(Shared {
                me: me.to_owned(),
                args,
                hosting,
                pace,
                said,
                one_at_a_time: Semaphore::new(1),
            }),
            health,
            known: HashMap::new(),
            swept: HashMap::new(),
            kkp: None,
            told: String::new(),
        }
    }

    /// Works whenever it is its turn; never ends.
    pub(crate) async fn work(mut self) {
        let pause = self.shared.pace.of(LOOK).max(Duration::from_millis(300));
        loop {
            if let Err(e) = self.look().await {
                self.say_once(&e.sentence());
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn say_once(&mut self, text: &str) {
        if self.told != text {
            text.clone_into(&mut self.told);
            self.shared.say(text);
        }
    }

    async fn look(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let serves = self.health.report().serving;
        if !self
            .turn
            .is_mine(
                &shared.hosting.client,
                &shared.hosting.names.namespace,
                serves,
            )
            .await?
        {
            return Ok(());
        }
        let configs = gather::configs(&shared.hosting, &|text| shared.say(text)).await?;
        let here: Vec<_> = configs
            .iter()
            .map(|one| Reference::of(&one.config))
            .collect();
        // A snapshot of an object that is gone goes on: it stays in the store.
        self.known
            .retain(|whose, known| here.contains(whose) || known.is_taking());
        if configs.is_empty() {
            return Ok(());
        }
        if let Some(managed) = self.managed().await? {
            return self.leave_to_kkp(&managed, &configs).await;
        }
        let plane = gather::plane(&shared.hosting).await?;
        let mut failed = None;
        for one in &configs {
            if let Err(e) = self.one(one, &plane).await {
                failed = failed.or(Some(e));
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn managed(&mut self) -> Result<Option<Managed>> {
        let pace = self.shared.pace;
        self.kkp
            .take_if(|(_, asked)| asked.elapsed() >= pace.of(FRESH));
        if self.kkp.is_none() {
            let managed = self.shared.hosting.managed_by_kkp().await?;
            self.kkp = Some((managed, Instant::now()));
        }
        Ok(self.kkp.as_ref().and_then(|(managed, _)| managed.clone()))
    }

    /// Two controllers of one kind would undo each other's: KKP's goes before, and what is KKP's is not even written to.
    async fn leave_to_kkp(&mut self, managed: &Managed, configs: &[Listed]) -> Result<()> {
        let note = format!(
            "{MANAGED_BY_KKP}: {}; snapshots are left to KKP",
            managed.why
        );
        self.say_once(&note);
        if managed.kinds_are_ours {
            for one in configs {
                report::managed_by_kkp(&self.shared.hosting, &one.config, &note).await?;
            }
        }
        Ok(())
    }

    async fn one(&mut self, listed: &Listed, plane: &Plane) -> Result<()> {
        let (shared, config) = (self.shared.clone(), &listed.config);
        let whose = Reference::of(config);
        let known = self.known.entry(whose.clone()).or_default();
        let removed = settle(known).await;
        known.place.take_if(|place| is_old(place, shared.pace));
        if known.place.is_none() {
            let (place, location) = gather::place(&shared.hosting, config).await;
            known.place = Some((place, location, Instant::now()));
        }
        let (place, location) = match &known.place {
            Some((place, location, _)) => (place.clone(), location.clone()),
            None => (Place::Unknown, None),
        };
        let planned = plan::plan(&Seen {
            config,
            unknown: &listed.unknown,
            plane,
            place: &place,
            taking: known.is_taking(),
            now: Timestamp::now(),
        });
        if planned.cancel
            && let Some((_, cancel)) = &known.taking
        {
            // It may be over already.
            let _ = cancel.send(true);
        }
        if config.metadata.deletion_timestamp.is_some() {
            known.tries += u32::from(removed.is_some_and(|left| left > 0));
            return let_go(&shared, known, listed, planned, &place, location).await;
        }
        report::finalizer(&shared.hosting, config, planned.finalizer).await?;
        report::tell(&shared.hosting, config, &planned).await?;
        for name in &planned.leave {
            let note = format!(
                "snapshot {name} can not be removed and is left in the store: there are too many such rows"
            );
            report::event(
                &shared.hosting,
                &whose,
                Tone::Warning,
                "SnapshotLeft",
                &note,
            )
            .await;
        }
        if let Some((due, why)) = &planned.fail {
            apply::pass(&shared, &whose, due, why).await;
        }
        let sweep = planned.take.is_some() && {
            let last = self.swept.get(&config.spec.destination);
            last.is_none_or(|last| last.elapsed() >= shared.pace.of(SWEEPS))
        };
        if sweep {
            self.swept
                .insert(config.spec.destination.clone(), Instant::now());
        }
        begin(&shared, known, &whose, planned, location, sweep);
        Ok(())
    }
}

fn is_old((place, _, at): &(Place, Option<Location>, Instant), pace: Pace) -> bool {
    let fresh = if *place == Place::Ready {
        FRESH
    } else {
        UNUSABLE
    };
    at.elapsed() >= pace.of(fresh)
}

/// Takes note of work that ended; how many removals a pass left.
async fn settle(known: &mut Known) -> Option<usize> {
    if known.taking.is_some() && !known.is_taking() {
        known.taking = None;
    }
    let removing = known.removing.take_if(|task| task.is_finished())?;
    let left = removing.await.unwrap_or(1);
    known.failed = (left > 0).then(Instant::now);
    Some(left)
}

/// Starts what was planned, in tasks of their own: a look waits for no store.
fn begin(
    shared: &Arc<Shared>,
    known: &mut Known,
    whose: &Reference,
    planned: Plan,
    location: Option<Location>,
    sweep: bool,
) {
    if let (Some(due), Some(location)) = (planned.take, location.clone()) {
        let (cancel, cancelled) = watch::channel(false);
        let (shared, whose) = (shared.clone(), whose.clone());
        let task = tokio::spawn(async move {
            let swept = location.clone();
            apply::snapshot(shared.clone(), whose, due, location, cancelled).await;
            if sweep {
                apply::sweep(&shared, &swept).await;
            }
        });
        known.taking = Some((task, cancel));
    }
    let waits = known
        .failed
        .is_some_and(|at| at.elapsed() < shared.pace.of(PAUSE));
    if !planned.remove.is_empty() && known.removing.is_none() && !waits {
        let location = location.ok_or_else(|| no_place(known));
        let task = apply::remove(shared.clone(), whose.clone(), planned.remove, location);
        known.removing = Some(tokio::spawn(task));
    }
}

fn no_place(known: &Known) -> Error {
    match &known.place {
        Some((Place::Unusable(why), ..)) => Error::invalid(why.clone()),
        _ => Error::new(Kind::Unreachable, "the destination is not known yet"),
    }
}

/// A config that is being deleted: its snapshots first, where they go with it; a store that does not do its part holds nobody.
async fn let_go(
    shared: &Arc<Shared>,
    known: &mut Known,
    listed: &Listed,
    planned: Plan,
    place: &Place,
    location: Option<Location>,
) -> Result<()> {
    let config = &listed.config;
    let whose = Reference::of(config);
    if known.is_taking() {
        // It was told to end; what it has made by then is in the rows.
        return Ok(());
    }
    if planned.remove.is_empty() || known.tries >= TRIES {
        if !planned.remove.is_empty() {
            let why = match place {
                Place::Unusable(why) => format!(": {why}"),
                _ => String::new(),
            };
            let note = format!(
                "the object goes, and these snapshots stay in destination {:?}, for they could not be removed{why}: {}",
                config.spec.destination,
                planned.remove.join(", ")
            );
            shared.say(&note);
            report::event(
                &shared.hosting,
                &whose,
                Tone::Warning,
                "SnapshotsLeft",
                &note,
            )
            .await;
        }
        return report::finalizer(&shared.hosting, config, false).await;
    }
    begin(shared, known, &whose, planned, location, false);
    Ok(())
}
