//! The one launcher that decides: admits a restore, asks [`decide`] what comes next, does the work that a step needs outside of the members, and
//! writes decisions by compare-and-swap. That it is one spares work only; two of them do no harm.

mod admit;
mod effects;
mod seen;
mod whose;

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::api::hosted;
use backup_core::{Error, Result};
use jiff::Timestamp;
use serde_json::Value;

use super::condition;
use super::decide::{self, Decision, Facts, Next, Patience, Unpaused, View};
use super::event::Tone;
use super::hosting::{Hosting, RestoreView, SetView, Written};
use super::keeper::{crash_at, sentence};
use super::lease::Turn;
use super::memory::RestoreRef;
use super::pace::{self, OFTEN, Pace};
use super::pause::{self, Still};
use super::peers::Peers;
use super::plan;
use super::records::{ABORT, Active, Attempt, Outcome, Report, State, Step};
use crate::etcd_args::EtcdArgs;
use crate::health::Health;
pub(crate) use seen::Seen;
use seen::since;
pub(crate) use whose::Whose;

/// Between two looks while there is nothing to coordinate.
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
    pub(crate) pace: Pace,
    pub(crate) patience: Patience,
    pub(crate) said: Box<dyn Fn(&str) + Send + Sync>,
    pub(crate) seen: Seen,
    pub(crate) whose: Whose,
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
            tokio::time::sleep(self.pace.of(pause)).await;
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
            Some(attempt) => attempt.may_be_decided_by(&self.me),
            None => self.may_admit().await,
        };
        if !self
            .turn
            .is_mine(&self.hosting.client, &self.hosting.names.namespace, may)
            .await?
        {
            return Ok(SELDOM);
        }
        if active.is_none() && self.is_kkps().await? {
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

    /// Whether this launcher may let a restore in: what is refused then is asked of its own etcd. One whose etcd does not run leaves that to others,
    /// where any other's does.
    async fn may_admit(&self) -> bool {
        self.health.report().serving || !self.peers.ask().await.values().any(|peer| peer.serving)
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
                self.message(restore, &message).await?;
                Ok(pace::between_looks(attempt.step()))
            }
            Decision::Do(work) => {
                crash_at(&format!("{work:?}:before"));
                self.work(work, restore, attempt).await?;
                crash_at(&format!("{work:?}:after"));
                Ok(pace::between_looks(attempt.step()))
            }
            Decision::Go(next) => {
                let mut decided = self.next(attempt, &next, &restore.reports);
                if next.step == Step::Pausing {
                    decided.former = Some(pause::former(&self.hosting).await?);
                }
                self.decide(restore, decided).await
            }
            Decision::Source(source) => {
                let next = Next {
                    step: Step::Preflight,
                    outcome: None,
                    message: format!("{source} brings the state from before to the destination"),
                };
                let decided = Attempt {
                    source,
                    ..self.next(attempt, &next, &restore.reports)
                };
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
                let absent = planned.absent.iter().map(|name| {
                    let row = restore.reports.get(name);
                    match row.filter(|row| row.attempt == attempt.id && !row.message.is_empty()) {
                        Some(row) => format!("{name} ({})", row.message),
                        None => name.clone(),
                    }
                });
                format!(
                    "the new state is built; left out: {}",
                    absent.collect::<Vec<_>>().join(", ")
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
            let step = decided.step();
            let tone = match step {
                Step::RollingBack | Step::RolledBack | Step::Failed => Tone::Warning,
                _ => Tone::Normal,
            };
            self.hosting
                .tell_event(&restore.reference(), tone, step.name(), &decided.message)
                .await;
            self.say(&format!(
                "restore {}: {}: {}",
                restore.reference().name,
                decided.step().name(),
                decided.message
            ));
            crash_at(&format!("{}:decided", decided.step().name()));
        }
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
                let is_restored = attempt.is_forward() && step.is_end();
                condition::set(
                    status,
                    condition::RESTORED,
                    is_restored,
                    step.name(),
                    &message,
                );
                if condition::message(Some(&Value::Object(status.clone())), condition::WAITING)
                    .is_some()
                {
                    condition::set(status, condition::WAITING, false, "ItsTurn", "");
                }
                status.insert("message".to_owned(), message.into());
                if step == Step::Completed {
                    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                    status.insert("restoreTime".to_owned(), now.into());
                }
            })
            .await
    }

    /// What is waited for, for people: no decision, and the sequence stays.
    async fn message(&mut self, restore: &RestoreView, message: &str) -> Result<()> {
        // Not more often than people read.
        if since(self.seen.stepped) < Duration::from_secs(3) {
            return Ok(());
        }
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
            replicas: set.as_ref().map_or(0, |set| set.replicas),
            set_gone: set.as_ref().is_none_or(|set| set.deleting),
            target_revision: set.as_ref().map_or(0, SetView::target_revision),
            touched: looked.as_ref().is_some_and(|seen| seen.touched),
            paused: looked.as_ref().is_some_and(|seen| seen.paused),
            pausing: looked.map(|seen| seen.waiting).unwrap_or_default(),
            watched: self.seen.watched.clone(),
            unpaused,
        })
    }
}

fn reference(active: &Active) -> RestoreRef {
    RestoreRef {
        namespace: active.namespace.clone(),
        name: active.name.clone(),
        uid: active.uid.clone(),
    }
}
