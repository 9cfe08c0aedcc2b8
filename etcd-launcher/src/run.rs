//! `run`: the parent of etcd in its pod, and the restore of a hosted cluster. This page is the protocol; each module does a part of it.
//!
//! S is the StatefulSet of etcd, C its Cluster, R one EtcdRestore (one attempt for ever), V the voters of the old membership (from etcd or
//! its database; from arguments only where no data can be read at all), P the places of S that no voter has (below), M the members of the new
//! one, X a member of V or P that is not in M; old and new are cluster ids, read from the first record of a write-ahead log.
//!
//! # Rules everything else follows from
//! 1. **Exchange by directories** ([`act`], [`crate::restore`]). Forward only when the step is Swapping, `member` is what the plan says
//!    was there (old; or unreadable, or none: the disaster a restore is for) and the side is new, proven and durable. Backward only when the
//!    attempt is decided back, `member` is new and the side old. Anything else moves nothing and reports Stuck.
//! 2. **Usual listeners only on the id that stands** ([`keeper`]). etcd opens them only where the id in `member` is the annotation `cluster-id`
//!    of S (with the hosting API away: what the last decision allows), and where the log is this very member's. The new id is written to that annotation
//!    by the commit alone: nobody serves the new state before it, nobody the old one after it.
//! 3. **Sequences only rise** ([`memory`], [`startup`]). Each member remembers the last decision it saw, durably, before it acts. One with a lower
//!    sequence is not obeyed: the hosting API was set back. A report counts only with the attempt's id and the current sequence.
//! 4. **Outside effects are conditional** ([`hosting`], [`pause`]). Every write to S, C, a Deployment or R carries the resourceVersion that was
//!    read *before* R's step and sequence were looked at again; a conflict starts over. A coordinator that slept since Pausing can not
//!    scale to 0 after Completed: unpausing changed the version.
//! 5. **Delete only what is proven ours.** A side goes only where its log carries the attempt's new id and `member` another one; what is being built
//!    may always go. An old state goes only where its attempt is committed, its log carries the attempt's old id and `member` the id of another
//!    cluster, `--keep-states` newer ones are kept (one at least), it was replaced longer ago than `--keep-states-for`, and no EtcdRestore that
//!    has not ended asks for it (where these can not be listed, nothing goes): as a restore begins, and after it. What was put aside never goes.
//! 6. **No two clocks are compared** ([`coordinator`]). Stall, Lease and silence are measured by who waits, since it saw a change. `at` is for people.
//!
//! # Who is in M
//! More than half of V, and more than half of S: a majority of the old cluster is in M, so that what is left of it acknowledges nothing more and all
//! that it acknowledged is known; a majority of S is in M, so that no chain of restores shrinks a cluster to a minority. All voters that are there
//! take part, and of P the members without data: an earlier restore left them out, or they never started.
//! - P is known only where the arguments of all fit members name the same members, as many as S has replicas, and every voter is one of them by a
//!   peer URL. Otherwise S is being scaled, and the restore is refused.
//! - A member of P has proven, when its row says Fit, that its folder `member` is absent, that the data dir is its own (lock, name in [`memory`]), and that
//!   no attempt is open there. Its plan is made against "absent": with anything in its place later it is Stuck before it builds. It never voted
//!   in the cluster that stands, its new id comes from a random token, and it has no state but the one it builds: no etcd is started on two.
//! - A member that comes back with a state of another cluster than the one that stands does not join in Preflight ([`startup::joins`]): its state is
//!   put aside first, by the rule for a member without an attempt, and it joins without data. Where that rule does not hold it stays out, and its row
//!   says SetAside, with the reason.
//! - Who is not there for 60 s is left out, as any voter. It is put aside when it comes back, and in M of the next restore.
//! - A member of P that is Unfit is left out, with its reason; one of V forbids the restore.
//!
//! # Records
//! | where | what | written by |
//! |---|---|---|
//! | R.status.attempt | the decision, [`records::Attempt`] | the coordinator, PUT with resourceVersion |
//! | R.status.reports\[name\] | a member's row, [`records::Report`] | that member, PUT with resourceVersion; every 10 s at least |
//! | `D/.restore-decision` | the last decision seen, [`memory`] | the member, before each act |
//! | `D/.restore-journal` | how far its own directories are, [`crate::restore`] | the member, before each move |
//! | S `etcd-launcher/cluster-id` | the id that stands | first start; Planned where it is absent; the commit |
//! | S `etcd-launcher/bootstrapped` | names that ever started | each member, before its first start |
//! | S `etcd-launcher/outcome` | how the last attempt ended | the commit; Unpausing on the way back; members, where R is gone |
//! | S `etcd-launcher/target-revision` | the greatest target revision | with the outcome |
//! | C `etcd-launcher/active-restore` | the R that has the cluster | before Preflight, so that two can not plan |
//! | C `spec.pause`, `spec.pauseReason` | our pause is `etcd-launcher ATTEMPT` | Pausing, Unpausing |
//! | Deployment `former-replicas`, `attempt` | in one patch with `replicas: 0` | Pausing, Unpausing |
//! | Lease `etcd-launcher-C` | who coordinates: it spares work, and fences nothing | any launcher before Planned, then one of M |
//!
//! # Decisions ([`decide`])
//! First match wins; "all(s)" is: every member of M reports state s at this sequence.
//!
//! | step | guard | decision |
//! |---|---|---|
//! | any but an end | a row carries a higher sequence than R | none, ever |
//! | none | refused (below) | Failed |
//! | none | KKP acts on the kinds | nothing, as long as it does |
//! | none | C taken, or a member has an attempt open | wait |
//! | Preflight | a voter Unfit (also: nothing came from the store for 10 min, over all tries); or every row SetAside or Unfit for 60 s | end(failed), with the reasons |
//! | Preflight | members say what they keep, and no source is decided | Preflight again, with the source; or end(failed) where no majority keeps it |
//! | Preflight | each of V and P is Fit, or silent or SetAside for 60 s (who reports progress is waited for), or Unfit (P); and M is large enough | Planned: M, ids, token, T, order |
//! | Preflight | M would be too small, the others silent; S is being scaled; or 10 min without a change | end(failed) |
//! | Planned..Watching | R deleted, abort, a row of M Unfit, Stuck or NoData, 10 min (Watching 60 s) without a change | end(failed) |
//! | Planned | all(Built), the same everywhere and the same as the snapshot | finalizer; `cluster-id` := old where absent; Pausing |
//! | Pausing | all Deployments at 0 by this attempt, their pods gone, C paused | Watching |
//! | Watching | nobody wrote for 5 s between two linearizable reads; or no member of M has a leader | Stopping |
//! | Watching | somebody wrote | end(failed), naming the resource |
//! | Stopping..Starting | R deleted, abort, a row Unfit, Stuck, NoData or RolledBack, or no change for 60 s (Starting 5 min) | RollingBack |
//! | Stopping | all(Stopped), the greatest offline revision + 1e8 below T (after KILL the database lags its log) | Swapping; otherwise RollingBack |
//! | Swapping | all(Swapped), each the new id | Starting |
//! | Starting | all(Started): new id, a leader, exactly M, no alarm, revision at least T, HashKV at T as it was computed offline | **Committed**; where one differs RollingBack |
//! | Committed | S patched in one write: `cluster-id` := new, outcome committed, target revision | Restarting |
//! | Restarting | a majority of M serves, and each other one does, or is SetAside, Stuck, NoData or silent for 60 s, or 5 min without a change | Unpausing(committed), naming who does not |
//! | RollingBack | all of M RolledBack; or a majority of V serves old; or a majority did not serve before and is RolledBack | Unpausing(rolledBack) |
//! | Unpausing(o) | outcome written (where it is not committed), Deployments and pause put back, API server ready or 10 min passed | Completed, RolledBack, Failed |
//! | an end | | `active-restore` removed where it is ours, then the finalizer |
//!
//! end(failed) is Unpausing(failed) once a finalizer or a pause may be there, else Failed at once. It is written to R first and to S afterwards:
//! the other way round, a coordinator that slept between the two could leave "rolled back" on S beside a commit in R. After Committed no guard leads back.
//!
//! # A member ([`act`], [`keeper`], [`startup`])
//! | step | `member` / side | act |
//! |---|---|---|
//! | Preflight | any | etcd as usual, whatever a download takes; looks whether it fits: snapshot fetched, whole, of this cluster, versions, space, arguments |
//! | Planned | old / none | etcd as usual; builds, proves, syncs: Built |
//! | Pausing, Watching | old / new | etcd as usual |
//! | Stopping | old / new | stops (the last of the order when the others have, or after 30 s), locks the database, reads its revision: Stopped |
//! | Swapping | old / new | exchanges, the lock still held: Swapped |
//! | Starting | new / old | starts fenced, compares: Started |
//! | Committed | new / old | stays fenced |
//! | Restarting | new / old | opens when those before it in the order serve, or after its position times 60 s by its own clock |
//! | Unpausing(committed), Completed | new / old | serves; the spool goes, the old state stays, older ones go |
//! | RollingBack and every end that goes back | new / old | stops, exchanges back; then serves where it held data before: RolledBack |
//! | any | half of two renames | finishes towards what the step wants |
//! | Stopping..Starting | none | NoData: never rebuilt under an id that may have voted |
//! | Committed or later | not new | not started: SetAside |
//! | X, Stopping..Committed | | stopped; later set aside, or as usual where it went back and holds what stands |
//!
//! Fenced: every flag and variable that opens a client listener or compacts is taken away in every form; etcd listens on a unix socket, and /proc has to
//! show that it listens for TCP on peer and metrics ports alone. The launcher's death kills etcd ([`crate::commands::exec`]).
//!
//! Before etcd, in any second as after any crash:
//!
//! | situation | goes by |
//! |---|---|
//! | R there, its uid and attempt the remembered ones (or none is open) | R's decision |
//! | hosting API away, attempt open | the last decision; nothing new |
//! | R gone, S tells this attempt's outcome | that |
//! | R gone, S tells a later one's | closed where `member` is the id that stands, else back |
//! | R gone, no outcome | the members settle: committed where any remembers Committed or later, back where a majority answers and none does; written to S, whoever is first; all obey S |
//! | no attempt, `member` is the id that stands, or none stands yet | as usual |
//! | no attempt, `member` is another id | not started; put aside where a majority serves the id that stands |
//! | no attempt, no `member` | a new cluster only with `--new-cluster`, never by a name that started before, and only where none stands or this one's own |
//! | hosting API away, no attempt | as usual, unless a majority of launchers serves another id |
//!
//! # T
//! The target revision is above every mark (live headers, an offline revision + 1e8, the snapshot's, its manifest's, S, kept states) by 1e9, and at least
//! the time in milliseconds; below 2^53. All is compacted up to it: a watch from before gets 410 and lists anew.
//!
//! # Rollback ([`kept`])
//! A completed R is rolled back by another one whose `backupName` is `kept-ATTEMPT`: the state that R's attempt replaced, which every member of M keeps.
//! Exchanging it back would not do: clients have seen the revisions of the new state. In Preflight each member says how far the log of what it keeps
//! goes; the coordinator decides on the one that goes furthest (`attempt.source`), of all, or of a majority of that state's members once 60 s have
//! passed; that member applies its log in a copy, alone, compares it with what was noted of it, and brings it to the destination
//! as a snapshot of that name. From there on it is a restore like any other, and that snapshot stays.
//!
//! # Refused before anything is stopped ([`coordinator`], [`fitness`])
//! What names and objects can tell; a destination without the snapshot; a liveness or startup probe at a port of etcd's ([`probes`]); R lying in the very
//! etcd that it would replace; a later write that the API would not take, each of them rehearsed ([`rehearsal`]). Then by each member: arguments,
//! a log outside of the data dir, mounts in it, etcd's authentication, certificates that have expired, a learner, the snapshot's wholeness, cluster, version, size, and the room for it. Then by the plan: versions
//! or snapshots that differ, a StatefulSet that is being scaled.
//!
//! # What people see
//! R.status: phase, message, [`condition`]s (Restored, with the step as its reason; Waiting; MembersSetAside; ManagedByKKP), the rows; an [`event`] with each
//! decision. Where KKP acts on the kinds ([`kkp`]) nothing is admitted: a restore that is open already is finished, for that is the safe end of it.
//!
//! `kubectl backup etcd abort --force` stands in for the coordinator where no launcher renews the Lease: before commit only it writes the decision
//! RolledBack (Failed up to Watching) by compare-and-swap, then S's outcome, Deployments, C and finalizer. Members that come back obey it.
//!
//! # Not built
//! Repair of `cluster-id` on an S that was set back; a zombie of a rescheduled pod is kept off by the lock on the data dir alone; /state is plain HTTP; a
//! rollback needs the destination, even of one member; an API server with another `--etcd-prefix` than /registry is not recognised as the own one.

mod act;
pub(crate) mod condition;
mod coordinator;
mod decide;
mod door;
pub(crate) mod event;
mod fitness;
pub(crate) mod hosting;
mod http;
mod keeper;
mod kept;
pub(crate) mod kkp;
pub(crate) mod lease;
pub(crate) mod listening;
mod memory;
pub(crate) mod pace;
mod pause;
mod peers;
mod plan;
mod probes;
pub(crate) mod records;
mod rehearsal;
mod row;
mod startup;
mod step;
mod watch_writers;

#[cfg(test)]
pub(crate) use fitness::MORE_ROOM;
pub(crate) use fitness::Tools;
pub(crate) use kept::Keeping;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use backup_core::api::hosted;
use backup_core::progress::Progress;
use backup_core::{Error, Result};

use crate::backups::Backups;
use crate::etcd_args::EtcdArgs;
use crate::health::Health;
use crate::member::{self, Member};
use crate::restore::dir::DataDir;
use coordinator::{Coordinator, Seen, Whose};
use decide::Patience;
use hosting::{Hosting, Names};
use keeper::{Config, Keeper};
use lease::Turn;
use pace::Pace;
use peers::Peers;
use row::{Rows, Told};

/// All that `run` is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// etcd's own command line.
    pub(crate) etcd: EtcdArgs,
    /// Names of variables that etcd is given besides its own.
    pub(crate) etcd_env: Vec<String>,
    /// What things are called in the hosting API.
    pub(crate) names: Names,
    /// How to reach it; as a pod where there is none.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which pod this is; another one of the same member has another.
    pub(crate) pod_uid: String,
    /// Where probes and other launchers ask.
    pub(crate) listen: SocketAddr,
    /// `host:port` of other members' launchers, by name; the host of the peer URL and the own port for who is not in it.
    pub(crate) peers: BTreeMap<String, String>,
    /// A new empty cluster may be founded.
    pub(crate) new_cluster: bool,
    /// With what a new state is brought here.
    pub(crate) tools: Tools,
    /// How much of what restores replaced stays.
    pub(crate) keeping: Keeping,
    /// Fixed waits are shorter by so much; for tests.
    pub(crate) hurry: u32,
}

/// Runs until it is told to end, then stops etcd. What should be known on the way is given to `said`.
///
/// # Errors
/// What keeps it from beginning at all.
pub(crate) async fn run(
    settings: Settings,
    said: impl Fn(&str) + Clone + Send + Sync + 'static,
    interrupted: impl Future<Output = bool>,
) -> Result<()> {
    let name = settings.etcd.name().to_owned();
    let data_dir = settings.etcd.data_dir();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .map_err(|e| Error::other(format!("can not make {}", data_dir.display())).because(e))?;
    let dir = DataDir::take(&data_dir)?;

    let health = Health::new(&name);
    let bound = health.serve(settings.listen).await?;
    let hosting = Hosting::connect(settings.kubeconfig.as_deref(), settings.names.clone()).await?;
    let peers = Peers(peers(&settings, bound.port())?);
    let pace = Pace::new(settings.hurry);
    let rows = Rows::new(&name, health.clone(), pace);
    // As long as the process; what is restored with it lives in several tasks.
    let progress: &'static dyn Progress = Box::leak(Box::new(Told::new(rows.clone())));

    tokio::spawn(rows.clone().keep_written(hosting.clone()));
    let coordinator = Coordinator {
        me: name.clone(),
        args: settings.etcd.clone(),
        hosting: hosting.clone(),
        peers: peers.clone(),
        health: health.clone(),
        turn: Turn::new(
            hosted::lease_name(&settings.names.cluster),
            &name,
            lease::times(pace),
        ),
        pace,
        patience: Patience::default().at(pace),
        said: Box::new(said.clone()),
        seen: Seen::default(),
        whose: Whose::default(),
    };
    tokio::spawn(coordinator.coordinate());
    let backups = Backups::new(
        &name,
        settings.etcd.clone(),
        hosting.clone(),
        health.clone(),
        pace,
        Box::new(said.clone()),
    );
    tokio::spawn(backups.work());

    let config = Config {
        name,
        pod_uid: settings.pod_uid,
        new_cluster: settings.new_cluster,
        tools: settings.tools,
        keeping: settings.keeping,
        pace,
    };
    let names = std::env::vars_os().map(|(name, _)| name);
    if let Some(told) = member::withheld(names, &settings.etcd_env) {
        said(&told);
    }
    let member = Member::new(settings.etcd, settings.etcd_env);
    let keeper = Keeper::new(
        config,
        dir,
        member,
        hosting,
        peers,
        rows,
        health,
        progress,
        Box::new(said),
    )?;
    let (end, ended) = tokio::sync::watch::channel(false);
    let keeping = keeper.keep(ended);
    tokio::pin!(keeping);
    tokio::select! {
        kept = &mut keeping => return kept,
        _ = interrupted => {}
    }
    let _ = end.send(true);
    keeping.await
}

/// Where the launchers of the other members are.
fn peers(settings: &Settings, port: u16) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, url) in settings.etcd.initial_cluster()? {
        if name == settings.etcd.name() {
            continue;
        }
        let host = url
            .split_once("://")
            .and_then(|(_, rest)| rest.rsplit_once(':'))
            .map_or(url.as_str(), |(host, _)| host);
        found
            .entry(name)
            .or_insert_with(|| format!("{host}:{port}"));
    }
    found.extend(settings.peers.clone());
    found.remove(settings.etcd.name());
    Ok(found)
}
