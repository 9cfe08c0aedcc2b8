//! Stopping a node's control plane and starting it again, by moving manifests, with the proofs in between.

use std::time::{Duration, Instant};

use backup_cli::error::{CommandError, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::ui::Ui;
use backup_core::etcd::{Database, HashKv};
use backup_core::progress::Progress;
use backup_core::{Error, Kind};

use super::Node;
use crate::crash;
use crate::node::folders::Place;
use crate::node::manifest::Part;
use crate::node::point::Point;
use crate::node::serves::{self, Door};
use crate::restore::dir::DataDir;
use crate::restore::entry::Attempt;
use crate::restore::exchange;
use crate::restore::offline;
use crate::restore::plan::{AttemptId, By, Carried};
use crate::restore::step::Step;

/// The kubelet gives a pod 30 s to end by itself, and looks into its folder every 20 s where the kernel does not tell it.
const PATIENCE: Duration = Duration::from_secs(240);

const PAUSE: Duration = Duration::from_millis(100);

/// So long nothing may run before it counts as gone: a manifest that was put in place a moment ago may have been read, and what it starts comes
/// after it was moved out again.
const SETTLED: Duration = Duration::from_secs(3);

/// All of it.
const ALL: [Part; 4] = [
    Part::ApiServer,
    Part::ControllerManager,
    Part::Scheduler,
    Part::Etcd,
];

/// What goes first, so that nobody writes to etcd when it is stopped.
const WRITERS: [Part; 3] = [Part::ApiServer, Part::ControllerManager, Part::Scheduler];

impl Node {
    /// Moves the manifests out, for an attempt or for none, and waits until the processes are gone: etcd last.
    pub(super) async fn stop(
        &self,
        attempt: Option<&AttemptId>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let stopped = async {
            self.folders.raise(attempt)?;
            crash::here(Point::Fencing.name());
            for part in WRITERS {
                for manifest in self.found.of(part) {
                    self.folders.move_to(manifest, Place::Out)?;
                }
            }
            self.gone(&WRITERS, Duration::ZERO, progress).await?;
            crash::here(Point::Quiet.name());
            self.folders.move_to(&self.etcd, Place::Out)?;
            self.gone(&ALL, SETTLED, progress).await?;
            crash::here(Point::Fenced.name());
            Ok(())
        };
        or_interrupted(stopped).await
    }

    /// Waits until nothing of the control plane runs, right before the exchange: building may have taken its time.
    pub(super) async fn wait_until_gone(&self, progress: &dyn Progress) -> Result<()> {
        or_interrupted(self.gone(&ALL, Duration::ZERO, progress)).await
    }

    /// Waits until nothing of these parts has run for so long.
    async fn gone(
        &self,
        parts: &[Part],
        settled: Duration,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let mut since = Instant::now();
        let deadline = since + PATIENCE;
        loop {
            match self.sought.left(parts)? {
                Some(left) if Instant::now() > deadline => {
                    return Err(Error::other(format!(
                        "{left} still runs {} s after its manifest was moved out of {}",
                        PATIENCE.as_secs(),
                        self.folders.pods().display()
                    ))
                    .hint("see why the kubelet does not end it (journalctl -u kubelet), or stop it yourself, then the same command again"));
                }
                Some(left) => {
                    progress.step(&format!("waiting for the end of {left}"));
                    since = Instant::now();
                }
                None if since.elapsed() >= settled => return Ok(()),
                None => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Brings back etcd on the attempt's state, proves it, commits; then the rest. Gives what the user should know.
    pub(super) async fn start(
        &self,
        dir: &mut DataDir,
        id: &AttemptId,
        progress: &dyn Progress,
    ) -> Result<Vec<String>> {
        let started = async {
            let door = Door::of(&self.etcd)?;
            let attempt = dir.attempt(id)?.clone();
            let hash = self.expected(dir, &attempt, progress)?;
            if attempt.step != Step::Committed {
                dir.record(id, Step::Starting)?;
            }
            self.folders.move_to(&self.etcd, Place::In)?;
            crash::here(Point::Back.name());
            progress.step("waiting for etcd to serve the restored cluster");
            let notes = door.serves(&attempt.plan, hash).await?;
            if attempt.step != Step::Committed {
                dir.record(id, Step::Verified)?;
                dir.record(id, Step::Committed)?;
            }
            self.give_back()?;
            crash::here(Point::Returned.name());
            for manifest in self.found.of(Part::ApiServer) {
                progress.step("waiting for the API server to be ready");
                serves::ready(&manifest.ready_url()).await?;
            }
            self.folders.lower()?;
            Ok(notes)
        };
        or_interrupted(started).await.map_err(|e| {
            let error = e.into_error();
            let now = "the restored state is in place, and the control plane is not up yet; etcd's log is below /var/log/pods/kube-system_etcd-*";
            let hinted = match error.hint_text() {
                Some(_) => error,
                None => error.hint("the same command goes on, `etcd-launcher node rollback` goes back, `etcd-launcher node status` says where it stands"),
            };
            hinted.context(now).into()
        })
    }

    /// HashKV of the restored state at its revision, where no etcd can have run on it: one that did may have compacted that revision away.
    fn expected(
        &self,
        dir: &DataDir,
        attempt: &Attempt,
        progress: &dyn Progress,
    ) -> Result<Option<HashKv>, Error> {
        let is_out = self.folders.find()?.etcd_place() == Some(Place::Out);
        if !is_out || offline::found(dir, attempt)?.is_started {
            return Ok(None);
        }
        progress.step("hashing the restored state");
        let database = Database::open(&dir.member().join("snap").join("db"))?;
        database
            .hash_kv(Some(attempt.plan.target_revision), progress)
            .map(Some)
    }

    /// Moves all manifests back, etcd's first, and leaves the fence.
    pub(super) fn give_back(&self) -> Result<(), Error> {
        let out = self.folders.find()?;
        for manifest in out.lying(Place::Out).filter(|m| m.part == Part::Etcd) {
            self.folders.move_to(manifest, Place::In)?;
        }
        for manifest in out.lying(Place::Out).filter(|m| m.part != Part::Etcd) {
            self.folders.move_to(manifest, Place::In)?;
        }
        Ok(())
    }

    /// After an error before the exchange: the node becomes what it was found as. Says which state is in place.
    pub(super) fn undo(&self, ui: &Ui, was_fenced: bool, e: CommandError) -> CommandError {
        let (root, fence) = (self.data_dir.display(), self.folders.fence().display());
        let mut is_between = false;
        let carried = DataDir::take(&self.data_dir).and_then(|mut dir| {
            let is_ours = dir
                .attempts()
                .last()
                .is_some_and(|last| last.plan.by == By::Node);
            if !was_fenced && is_ours {
                exchange::give_up(&mut dir, &e.error().to_string());
            }
            let last = dir.attempts().last();
            is_between =
                last.is_some_and(|last| matches!(last.step, Step::Exchanging | Step::RollingBack));
            dir.carried()
        });
        let now = match carried {
            _ if is_between => format!(
                "the exchange was begun: the control plane stays stopped, its manifests are in {fence}, and `etcd-launcher node status` says what can be done"
            ),
            _ if was_fenced => format!(
                "the control plane stays stopped, as it was found: its manifests are in {fence}"
            ),
            Ok(Carried::Absent) => format!(
                "{root} is empty, and an etcd would begin an empty cluster there: the manifests stay in {fence}"
            ),
            Ok(carried) => match self.give_back().and_then(|()| self.folders.lower()) {
                Ok(()) => format!(
                    "nothing was changed: {root} holds {carried} as before, and the control plane's manifests are back"
                ),
                Err(failed) => {
                    ui.warn(&failed.to_string());
                    "the manifests are not all back: `etcd-launcher node start` puts them back"
                        .to_owned()
                }
            },
            Err(_) => format!("what {root} holds can not be read; the manifests stay in {fence}"),
        };
        e.into_error().context(now).into()
    }
}

/// Does it, until somebody interrupts.
async fn or_interrupted<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T> {
    tokio::select! {
        done = work => Ok(done?),
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted").into()),
    }
}
