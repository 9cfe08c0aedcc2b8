//! The one launcher that decides: admits a restore, asks [`decide`] what comes next, does the work that a step needs outside of the members, and
//! writes decisions by compare-and-swap. That it is one spares work only; two of them do no harm.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backup_core::api::hosted;
use backup_core::{Error, Kind, Result};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::decide::{self, Decision, Facts, Next, Patience, Unpaused, View, Watched, Work};
use super::hosting::{Hosting, RestoreView, SetView, Written};
use super::keeper::{crash_at, sentence};
use super::lease::Turn;
use super::memory::RestoreRef;
use super::pause::{self, Still};
use super::peers::Peers;
use super::plan;
use super::records::{
    ABORT, ACTIVE, Active, Attempt, CLUSTER_ID, EndRecord, FINALIZER, OUTCOME, Outcome, Report,
    State, Step, TARGET_REVISION,
};
use super::watch_writers;
use crate::etcd_args::EtcdArgs;
use crate::health::Health;

/// Between two looks.
const OFTEN: Duration = Duration::from_millis(700);
const SELDOM: Duration = Duration::from_secs(2);
/// etcd is watched for so long.
const WATCHED: Duration = Duration::from_secs(5);
/// The API server may take so long to get ready.
const API_SERVER: Duration = Duration::from_secs(600);

/// The coordinator of a launcher.
pub(crate) struct Coordinator {
    pub(crate) me: String,
    pub(crate) args: EtcdArgs,
    pub(crate) hosting: Hosting,
    pub(crate) peers: Peers,
    pub(crate) health: Health,
    pub(crate) turn: Turn,
    pub(crate) patience: Patience,
    pub(crate) said: Box<dyn Fn(&str) + Send + Sync>,
    pub(crate) seen: Seen,
}

/// What this launcher has seen of an attempt, and when, by its own clock.
#[derive(Default)]
pub(crate) struct Seen {
    attempt: String,
    since: Option<Instant>,
    sequence: i64,
    rows: BTreeMap<String, (Report, Instant)>,
    moved: Option<Instant>,
    stepped: Option<Instant>,
    watched: Watched,
    told: String,
}

impl Seen {
    fn look(&mut self, attempt: &Attempt, reports: &BTreeMap<String, Report>) {
        let now = Instant::now();
        if self.attempt != attempt.id {
            *self = Self {
                attempt: attempt.id.clone(),
                since: Some(now),
                told: std::mem::take(&mut self.told),
                ..Self::default()
            };
        }
        if self.sequence != attempt.sequence || self.stepped.is_none() {
            self.sequence = attempt.sequence;
            self.moved = Some(now);
            self.stepped = Some(now);
            self.watched = Watched::Unknown;
        }
        for (name, row) in reports {
            if row.attempt != attempt.id {
                continue;
            }
            match self.rows.get_mut(name) {
                Some((known, at)) if known == row => {
                    let _ = at;
                }
                Some((known, at)) => {
                    let without_time = |row: &Report| Report {
                        at: String::new(),
                        ..row.clone()
                    };
                    if without_time(known) != without_time(row) {
                        self.moved = Some(now);
                    }
                    *known = row.clone();
                    *at = now;
                }
                None => {
                    self.moved = Some(now);
                    self.rows.insert(name.clone(), (row.clone(), now));
                }
            }
        }
    }

    fn silent(&self) -> BTreeMap<String, Duration> {
        let rows = self.rows.iter();
        rows.map(|(name, (_, at))| (name.clone(), at.elapsed()))
            .collect()
    }
}

fn since(at: Option<Instant>) -> Duration {
    at.map_or(Duration::ZERO, |at| at.elapsed())
}

impl Coordinator {
    /// Coordinates whenever it is its turn; never ends.
    pub(crate) async fn coordinate(mut self) {
        loop {
            let pause = match self.once().await {
                Ok(pause) => pause,
                Err(e) => {
                    self.say(&sentence(&e));
                    SELDOM
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn say(&mut self, text: &str) {
        if self.seen.told != text {
            text.clone_into(&mut self.seen.told);
            (self.said)(text);
        }
    }

    async fn once(&mut self) -> Result<Duration> {
        let cluster = self.hosting.cluster().await?;
        let active = cluster.as_ref().and_then(|cluster| cluster.active.clone());
        let restore = match &active {
            Some(active) => self.hosting.restore(&reference(active)).await?,
            None => None,
        };
        let may = match restore
            .as_ref()
            .and_then(|restore| restore.attempt.as_ref())
        {
            Some(attempt) if attempt.step() > Step::Preflight && !attempt.members.is_empty() => {
                attempt.member(&self.me).is_some()
            }
            _ => true,
        };
        if !self.turn.is_mine(&self.hosting, may).await? {
            return Ok(SELDOM);
        }
        match (active, restore) {
            (Some(active), Some(restore)) => match &restore.attempt {
                Some(_) => self.go_on(&restore).await,
                None => self.begin(&restore, &active).await,
            },
            (Some(active), None) => self.forget(&active).await,
            (None, _) => self.admit().await,
        }
    }

    /// Looks for a restore that waits, and takes the cluster for it.
    async fn admit(&mut self) -> Result<Duration> {
        for restore in self.hosting.all_restores().await? {
            let at_end = restore
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.step().is_end());
            if at_end && restore.has_finalizer() {
                self.release(&restore).await?;
            }
            let phase = restore.phase();
            if at_end
                || restore.is_deleting()
                || restore.cluster() != self.hosting.names.cluster
                || matches!(phase, "Completed" | "Failed" | "RolledBack")
            {
                continue;
            }
            if restore.attempt.is_some() {
                // Its claim was taken away by somebody: it is taken again.
                let id = restore
                    .attempt
                    .as_ref()
                    .map(|a| a.id.clone())
                    .unwrap_or_default();
                self.take(&restore, &id).await?;
                return Ok(OFTEN);
            }
            if let Some(why) = self.refused(&restore).await? {
                self.refuse(&restore, &why).await?;
                continue;
            }
            // A member that has not put the last attempt away yet would obey two.
            let answers = self.peers.ask().await;
            if let Some(peer) = answers.values().find(|peer| peer.attempt.is_some()) {
                self.tell(
                    &restore,
                    &format!("waiting for member {} to end another restore", peer.name),
                )
                .await?;
                return Ok(SELDOM);
            }
            if self.health.report().attempt.is_some() {
                return Ok(SELDOM);
            }
            self.take(&restore, &uuid::Uuid::new_v4().to_string())
                .await?;
            return Ok(OFTEN);
        }
        Ok(SELDOM)
    }

    async fn take(&mut self, restore: &RestoreView, attempt: &str) -> Result<()> {
        let Some(cluster) = self.hosting.cluster().await? else {
            return Ok(());
        };
        if cluster.active.is_some() {
            return Ok(());
        }
        let wanted = restore.reference();
        let active = Active {
            namespace: wanted.namespace,
            name: wanted.name,
            uid: wanted.uid,
            attempt: attempt.to_owned(),
        };
        let patch = json!({"metadata": {"annotations": {ACTIVE: active.to_string()}}});
        self.hosting.patch_cluster(&cluster, patch).await?;
        Ok(())
    }

    /// What can be said before anybody looks at a snapshot.
    async fn refused(&self, restore: &RestoreView) -> Result<Option<String>> {
        let names = &self.hosting.names;
        let Some(cluster) = self.hosting.cluster().await? else {
            return Ok(Some(format!("Cluster {} is not there", names.cluster)));
        };
        let namespace = restore.reference().namespace;
        if cluster.namespace != namespace {
            return Ok(Some(format!(
                "cluster {} lives in namespace {}, and this restore in {namespace}: apply it there",
                names.cluster, cluster.namespace
            )));
        }
        if let Err(e) = backup_core::etcd::names::check(restore.text("backupName")) {
            return Ok(Some(sentence(&e)));
        }
        if let Some(first) = names.control_plane.first()
            && self.hosting.deployment(first).await?.is_none()
        {
            return Ok(Some(format!(
                "Deployment {first} is not there: nobody could be paused"
            )));
        }
        let Some(set) = self.hosting.set().await? else {
            return Ok(Some(format!("StatefulSet {} is not there", names.set)));
        };
        if set.deleting {
            return Ok(Some(format!("StatefulSet {} is being deleted", names.set)));
        }
        let wanted = crate::destination::Wanted {
            namespace: &namespace,
            destination: restore.text("destination"),
            secret: restore.text("backupDownloadCredentialsSecret"),
        };
        let found = async {
            let location = crate::destination::open(&self.hosting.client, &wanted).await?;
            crate::destination::find(&location, &names.cluster, restore.text("backupName")).await
        };
        match found.await {
            Ok(_) => Ok(None),
            Err(e) if e.kind() == Kind::Unreachable => Err(e),
            Err(e) => Ok(Some(sentence(&e))),
        }
    }

    async fn refuse(&mut self, restore: &RestoreView, why: &str) -> Result<()> {
        self.say(&format!("restore {}: {why}", restore.reference().name));
        let attempt = Attempt {
            id: uuid::Uuid::new_v4().to_string(),
            sequence: 1,
            step: Some(Step::Failed),
            outcome: Some(Outcome::Failed),
            message: why.to_owned(),
            decided_by: self.me.clone(),
            decided_at: Timestamp::now().to_string(),
            ..Attempt::default()
        };
        self.write(restore, &attempt).await.map(|_| ())
    }

    async fn tell(&mut self, restore: &RestoreView, message: &str) -> Result<()> {
        let old = restore
            .object
            .data
            .pointer("/status/message")
            .and_then(Value::as_str);
        if old == Some(message) {
            return Ok(());
        }
        let message = message.to_owned();
        self.hosting
            .write_status(restore, |status| {
                status.insert("message".to_owned(), message.into());
            })
            .await
            .map(|_| ())
    }

    async fn begin(&mut self, restore: &RestoreView, active: &Active) -> Result<Duration> {
        if restore.is_deleting() {
            return self.forget(active).await;
        }
        let attempt = Attempt {
            id: active.attempt.clone(),
            sequence: 1,
            step: Some(Step::Preflight),
            message: "every member looks whether it can be restored".to_owned(),
            decided_by: self.me.clone(),
            decided_at: Timestamp::now().to_string(),
            ..Attempt::default()
        };
        self.write(restore, &attempt).await?;
        Ok(OFTEN)
    }

    /// The cluster is taken by a restore that is gone: the members settle how it ended, then all is put back.
    async fn forget(&mut self, active: &Active) -> Result<Duration> {
        let answers = self.peers.ask().await;
        let busy = |attempt: &Option<String>| attempt.as_deref() == Some(active.attempt.as_str());
        if busy(&self.health.report().attempt) || answers.values().any(|peer| busy(&peer.attempt)) {
            return Ok(OFTEN);
        }
        let former = BTreeMap::new();
        let unpaused = pause::unpause(
            &self.hosting,
            &active.attempt,
            &former,
            true,
            &Still::Always,
        )
        .await?;
        if unpaused == Unpaused::No {
            return Ok(OFTEN);
        }
        if let Some(cluster) = self.hosting.cluster().await?
            && cluster.active.as_ref() == Some(active)
        {
            let patch = json!({"metadata": {"annotations": {ACTIVE: Value::Null}}});
            self.hosting.patch_cluster(&cluster, patch).await?;
            self.say(&format!(
                "restore {} is gone: the cluster is free again",
                active.name
            ));
        }
        Ok(OFTEN)
    }

    async fn go_on(&mut self, restore: &RestoreView) -> Result<Duration> {
        let Some(attempt) = &restore.attempt else {
            return Ok(OFTEN);
        };
        self.seen.look(attempt, &restore.reports);
        let facts = self.facts(restore, attempt).await?;
        let abort = restore
            .object
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|annotations| {
                [ABORT, hosted::ABORT]
                    .iter()
                    .any(|name| annotations.contains_key(*name))
            });
        let silent = self.seen.silent();
        let view = View {
            attempt,
            reports: &restore.reports,
            silent: &silent,
            watched_for: since(self.seen.since),
            stalled: since(self.seen.moved),
            leaving: restore.is_deleting() || abort,
            facts: &facts,
            patience: self.patience,
        };
        match decide::decide(&view) {
            Decision::Wait(message) => {
                if attempt.step().is_end() {
                    return Ok(SELDOM);
                }
                self.message(restore, attempt, &message).await?;
                Ok(OFTEN)
            }
            Decision::Do(work) => {
                crash_at(&format!("{work:?}:before"));
                self.work(work, restore, attempt, &facts).await?;
                crash_at(&format!("{work:?}:after"));
                Ok(OFTEN)
            }
            Decision::Go(next) => {
                let mut decided = self.next(attempt, &next, &restore.reports);
                if next.step == Step::Pausing {
                    decided.former = Some(pause::former(&self.hosting).await?);
                }
                self.decide(restore, decided).await
            }
            Decision::Plan(membership) => {
                let planned = self.plan(restore, attempt, &membership, &facts);
                match planned {
                    Ok(planned) => self.decide(restore, planned).await,
                    Err(e) => {
                        let failed = Next {
                            step: Step::Failed,
                            outcome: Some(Outcome::Failed),
                            message: sentence(&e),
                        };
                        let failed = self.next(attempt, &failed, &restore.reports);
                        self.decide(restore, failed).await
                    }
                }
            }
        }
    }

    fn plan(
        &self,
        restore: &RestoreView,
        attempt: &Attempt,
        membership: &plan::Membership,
        facts: &Facts,
    ) -> Result<Attempt> {
        let fit: BTreeMap<&str, &Report> = restore
            .reports
            .iter()
            .filter(|(_, row)| {
                row.attempt == attempt.id
                    && row.sequence == attempt.sequence
                    && row.state == State::Fit
            })
            .map(|(name, row)| (name.as_str(), row))
            .collect();
        let planned = plan::plan(&plan::Inputs {
            attempt,
            membership,
            fit: &fit,
            token: format!("restore-{}", uuid::Uuid::new_v4()),
            marks: vec![facts.target_revision],
            now_ms: Timestamp::now().as_millisecond(),
        })?;
        let next = Next {
            step: Step::Planned,
            outcome: None,
            message: if planned.absent.is_empty() {
                "every member builds the new state beside the old one".to_owned()
            } else {
                format!(
                    "the new state is built; left out: {}",
                    planned.absent.join(", ")
                )
            },
        };
        Ok(self.next(&planned, &next, &restore.reports))
    }

    /// The attempt with the next step.
    fn next(&self, attempt: &Attempt, next: &Next, reports: &BTreeMap<String, Report>) -> Attempt {
        let mut decided = Attempt {
            sequence: attempt.sequence + 1,
            step: Some(next.step),
            outcome: next.outcome.or(attempt.outcome),
            message: next.message.clone(),
            decided_by: self.me.clone(),
            decided_at: Timestamp::now().to_string(),
            ..attempt.clone()
        };
        if next.step == Step::Pausing {
            decided.expected = attempt
                .members
                .first()
                .and_then(|first| reports.get(&first.name).and_then(|row| row.built.clone()));
        }
        decided
    }

    async fn decide(&mut self, restore: &RestoreView, decided: Attempt) -> Result<Duration> {
        crash_at(&format!("{}:undecided", decided.step().name()));
        if self.write(restore, &decided).await? == Written::Yes {
            self.say(&format!(
                "restore {}: {}: {}",
                restore.reference().name,
                decided.step().name(),
                decided.message
            ));
        }
        crash_at(&format!("{}:decided", decided.step().name()));
        Ok(Duration::from_millis(100))
    }

    async fn write(&self, restore: &RestoreView, attempt: &Attempt) -> Result<Written> {
        let value = serde_json::to_value(attempt)
            .map_err(|e| Error::other("can not write a decision").because(e))?;
        let step = attempt.step();
        let phase = step.phase(attempt.outcome);
        let message = attempt.message.clone();
        self.hosting
            .write_status(restore, |status| {
                status.insert("attempt".to_owned(), value);
                // Going back keeps the phase it had, and only the end says otherwise.
                status.insert("phase".to_owned(), phase.into());
                status.insert("message".to_owned(), message.into());
                if step == Step::Completed {
                    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                    status.insert("restoreTime".to_owned(), now.into());
                }
            })
            .await
    }

    /// What is waited for, for people: no decision, and the sequence stays.
    async fn message(
        &mut self,
        restore: &RestoreView,
        attempt: &Attempt,
        message: &str,
    ) -> Result<()> {
        // Not more often than people read.
        if since(self.seen.stepped) < Duration::from_secs(3) {
            return Ok(());
        }
        let _ = attempt;
        self.tell(restore, message).await
    }

    async fn facts(&self, restore: &RestoreView, attempt: &Attempt) -> Result<Facts> {
        let set = self.hosting.set().await?;
        let cluster = self.hosting.cluster().await?;
        let mine = Active {
            namespace: restore.reference().namespace,
            name: restore.reference().name,
            uid: restore.reference().uid,
            attempt: attempt.id.clone(),
        };
        let step = attempt.step();
        let looked = match step {
            Step::Planned | Step::Pausing | Step::Watching | Step::Unpausing => {
                Some(pause::look(&self.hosting, attempt, step == Step::Pausing).await?)
            }
            _ => None,
        };
        let mut unpaused = Unpaused::No;
        if step == Step::Unpausing && looked.as_ref().is_some_and(|seen| !seen.touched) {
            let former = attempt.former.clone().unwrap_or_default().replicas;
            let ended = since(self.seen.stepped) >= API_SERVER;
            unpaused =
                pause::unpause(&self.hosting, &attempt.id, &former, ended, &Still::Always).await?;
        }
        Ok(Facts {
            active: cluster.as_ref().and_then(|cluster| cluster.active.as_ref()) == Some(&mine),
            finalizer: restore.has_finalizer(),
            cluster_id: set
                .as_ref()
                .map(SetView::cluster_id)
                .unwrap_or_default()
                .to_owned(),
            end: set
                .as_ref()
                .and_then(SetView::end)
                .filter(|end| end.attempt == attempt.id),
            set_gone: set.as_ref().is_none_or(|set| set.deleting),
            target_revision: set.as_ref().map_or(0, SetView::target_revision),
            touched: looked.as_ref().is_some_and(|seen| seen.touched),
            paused: looked.as_ref().is_some_and(|seen| seen.paused),
            pausing: looked.map(|seen| seen.waiting).unwrap_or_default(),
            watched: self.seen.watched.clone(),
            unpaused,
        })
    }

    async fn work(
        &mut self,
        work: Work,
        restore: &RestoreView,
        attempt: &Attempt,
        facts: &Facts,
    ) -> Result<()> {
        let still = Still::While {
            hosting: Box::new(self.hosting.clone()),
            restore: restore.reference(),
            attempt: Box::new(attempt.clone()),
        };
        match work {
            Work::Finalizer => {
                let mut finalizers = restore
                    .object
                    .metadata
                    .finalizers
                    .clone()
                    .unwrap_or_default();
                finalizers.push(FINALIZER.to_owned());
                self.hosting
                    .patch_restore(restore, json!({ "finalizers": finalizers }))
                    .await?;
            }
            Work::Standing => {
                if let Some(set) = self.hosting.set().await?
                    && set.cluster_id().is_empty()
                    && still.stands().await?
                {
                    let annotations = json!({CLUSTER_ID: attempt.old_cluster_id});
                    self.hosting.annotate_set(&set, annotations).await?;
                }
            }
            Work::Pause => pause::pause(&self.hosting, attempt, &still).await?,
            Work::Watch => match watch_writers::watch(&self.args, WATCHED).await {
                Ok(watched) => {
                    // What was seen belongs to this decision, and to no later one.
                    if self.seen.sequence == attempt.sequence {
                        self.seen.watched = watched;
                    }
                }
                Err(e) => {
                    self.say(&sentence(&e));
                }
            },
            Work::Commit => {
                if let Some(set) = self.hosting.set().await?
                    && set.end().is_none_or(|end| end.attempt != attempt.id)
                    && still.stands().await?
                {
                    let mark = set.target_revision().max(attempt.target_revision);
                    let annotations = json!({
                        CLUSTER_ID: attempt.new_cluster_id,
                        OUTCOME: record(restore, attempt, Outcome::Committed)?,
                        TARGET_REVISION: mark.to_string(),
                    });
                    self.hosting.annotate_set(&set, annotations).await?;
                }
            }
            Work::RecordBack => {
                if let Some(set) = self.hosting.set().await?
                    && set.end().is_none_or(|end| end.attempt != attempt.id)
                    && still.stands().await?
                {
                    let annotations = json!({
                        OUTCOME: record(restore, attempt, Outcome::RolledBack)?,
                        TARGET_REVISION: set.target_revision().max(attempt.target_revision).to_string(),
                    });
                    self.hosting.annotate_set(&set, annotations).await?;
                }
            }
            Work::Unpause => {
                let former = attempt.former.clone().unwrap_or_default().replicas;
                let ended = since(self.seen.stepped) >= API_SERVER;
                pause::unpause(&self.hosting, &attempt.id, &former, ended, &still).await?;
            }
            Work::Release => self.release(restore).await?,
        }
        let _ = facts;
        Ok(())
    }

    /// The cluster is let go, then the restore; each where it is still held.
    async fn release(&self, restore: &RestoreView) -> Result<()> {
        let reference = restore.reference();
        if let Some(cluster) = self.hosting.cluster().await?
            && cluster
                .active
                .as_ref()
                .is_some_and(|active| active.uid == reference.uid)
        {
            let patch = json!({"metadata": {"annotations": {ACTIVE: Value::Null}}});
            if self.hosting.patch_cluster(&cluster, patch).await? == Written::Conflict {
                return Ok(());
            }
        }
        if restore.has_finalizer() {
            let mut finalizers = restore
                .object
                .metadata
                .finalizers
                .clone()
                .unwrap_or_default();
            finalizers.retain(|name| name != FINALIZER);
            self.hosting
                .patch_restore(restore, json!({ "finalizers": finalizers }))
                .await?;
        }
        Ok(())
    }
}

fn reference(active: &Active) -> RestoreRef {
    RestoreRef {
        namespace: active.namespace.clone(),
        name: active.name.clone(),
        uid: active.uid.clone(),
    }
}

fn record(restore: &RestoreView, attempt: &Attempt, outcome: Outcome) -> Result<String> {
    let record = EndRecord {
        attempt: attempt.id.clone(),
        restore: restore.reference().name,
        uid: restore.reference().uid,
        outcome: Some(outcome),
        cluster_id: match outcome {
            Outcome::Committed => attempt.new_cluster_id.clone(),
            _ => attempt.old_cluster_id.clone(),
        },
    };
    serde_json::to_string(&record).map_err(|e| Error::other("can not write the outcome").because(e))
}
