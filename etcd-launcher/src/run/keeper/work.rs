//! The acts of a member: each does one thing, and can be done again after any crash.

use std::time::Instant;

use backup_core::etcd::LiveDigest;
use backup_core::{Error, Kind, Result};

use super::beside::Beside;
use super::waits::Waits;
use super::{Keeper, moved_on, sentence};
use crate::restore::asked::Asked;
use crate::restore::entry::Snapshot;
use crate::restore::exchange;
use crate::restore::fence::Fence;
use crate::restore::ids::Peer;
use crate::restore::plan::{self as member_plan, AttemptId, By, Carried, Inputs, Purpose};
use crate::restore::prepare::{self, Prepared};
use crate::restore::proof;
use crate::restore::slots::Truth;
use crate::restore::step as member_step;
use crate::run::decide::Patience;
use crate::run::door::Socket;
use crate::run::fitness;
use crate::run::hosting::{RestoreView, SetView, World};
use crate::run::kept;
use crate::run::listening;
use crate::run::records::{Attempt, Data, Expected, Offline, Started, State, Step};

impl Keeper {
    pub(super) async fn check(&mut self, attempt: &Attempt, world: Option<&World>) -> Result<()> {
        let Some(restore) = world.and_then(|world| world.restore.as_ref()) else {
            return Ok(());
        };
        if self
            .looked
            .as_ref()
            .is_some_and(|(id, _)| *id == attempt.id)
        {
            return Ok(());
        }
        self.prune().await;
        self.waits.begin(attempt);
        self.rows.tell(|report| {
            // It was, a moment ago.
            if report.state == State::SetAside {
                report.state = State::Working;
            }
        });
        if let Some(of) = kept::named(restore.text("backupName")) {
            match self.bring_kept(attempt, restore, &of).await {
                Ok(true) => {}
                Ok(false) => {
                    // It waits for the others, and not for the store.
                    self.waits = Waits::new();
                    return Ok(());
                }
                Err(e) => return self.not_yet(e),
            }
        }
        match self.look(attempt, restore).await {
            Ok(None) => {}
            Ok(Some(looked)) => {
                self.rows.tell(|report| {
                    report.state = State::Fit;
                    report.message = "it can be restored".to_owned();
                    report.cluster_id.clone_from(&looked.cluster_id);
                    report.fit = Some(looked.fit.clone());
                });
                self.looked = Some((attempt.id.clone(), looked));
            }
            Err(e) => self.not_yet(e)?,
        }
        Ok(())
    }

    /// Looks whether it fits, with the snapshot at hand then; nothing where the decision became another one.
    async fn look(
        &mut self,
        attempt: &Attempt,
        restore: &RestoreView,
    ) -> Result<Option<fitness::Looked>> {
        let id: AttemptId = attempt.id.parse()?;
        let (args, reference) = (self.member.args().clone(), restore.reference());
        let looking = fitness::look(
            &self.dir,
            &args,
            restore,
            &id,
            &self.hosting,
            &self.config.tools,
            self.progress,
        );
        let beside = Beside::new(&mut self.member, &mut self.again, &self.health, &self.said);
        let over = moved_on(&self.hosting, &reference, attempt);
        beside.work(looking, over).await?.transpose()
    }

    /// Nobody answers now, but may later: that is no verdict, until nothing came for so long that nobody should wait any more.
    fn not_yet(&mut self, e: Error) -> Result<()> {
        if e.kind() != Kind::Unreachable {
            return self.unfit(&sentence(&e));
        }
        let (bytes, last) = self.rows.came();
        let waited = self.waits.failed(bytes, last, Instant::now());
        if waited < Patience::default().at(self.config.pace).stall {
            return Err(e);
        }
        self.unfit(&format!(
            "{}; it was tried again and again, and nothing came for {} s",
            sentence(&e),
            waited.as_secs()
        ))
    }

    /// In a rollback: whether the destination has the kept state as a snapshot. Until then this member says what it keeps, and brings it there
    /// where it is the one that all restore.
    async fn bring_kept(
        &mut self,
        attempt: &Attempt,
        restore: &RestoreView,
        of: &AttemptId,
    ) -> Result<bool> {
        if attempt.source.is_empty() && self.rows.has_kept() {
            return Ok(false);
        }
        if kept::is_published(&self.hosting, restore).await? {
            return Ok(true);
        }
        if attempt.source.is_empty() {
            let kept = kept::look(&self.dir, of, self.progress)?;
            self.rows.tell(|report| {
                report.kept = Some(kept);
                report.message = "waiting for the choice of the state that all restore".to_owned();
            });
        } else if attempt.source == self.config.name {
            let id: AttemptId = attempt.id.parse()?;
            let (args, reference) = (self.member.args().clone(), restore.reference());
            let publishing = kept::publish(
                &self.dir,
                &args,
                restore,
                (of, &id),
                &self.hosting,
                &self.config.tools,
                self.progress,
            );
            let beside = Beside::new(&mut self.member, &mut self.again, &self.health, &self.said);
            let over = moved_on(&self.hosting, &reference, attempt);
            beside.work(publishing, over).await?.transpose()?;
        } else {
            self.rows.tell(|report| {
                report.message = format!("waiting for the kept state of {}", attempt.source);
            });
        }
        Ok(false)
    }

    /// This member's part of the plan.
    pub(super) fn plan(&self, attempt: &Attempt) -> Result<member_plan::Plan> {
        let mine = attempt
            .member(&self.config.name)
            .ok_or_else(|| Error::other("this member is not in the plan"))?;
        let members: Vec<Peer> = attempt
            .members
            .iter()
            .map(|member| Peer {
                name: member.name.clone(),
                peer_urls: member.peer_urls.clone(),
            })
            .collect();
        let id: AttemptId = attempt.id.parse()?;
        let plan = member_plan::plan(Inputs {
            attempt: id,
            purpose: Purpose::Restore,
            by: By::Run,
            asked: Asked {
                snapshot: attempt.snapshot.clone().unwrap_or_default().source,
                name: mine.name.clone(),
                peer_urls: mine.peer_urls.clone(),
                members,
                token: Some(attempt.token.clone()),
                target_revision: Some(attempt.target_revision),
                another_cluster: false,
            },
            old: self.dir.carried()?,
            token: attempt.token.clone(),
            marks: Vec::new(),
            now_ms: 0,
        })?;
        if plan.cluster_id.to_string() != attempt.new_cluster_id {
            return Err(Error::other(format!(
                "the plan computes cluster {} here and {} there",
                plan.cluster_id, attempt.new_cluster_id
            )));
        }
        let old = match &plan.old {
            Carried::Cluster {
                cluster_id,
                member_id,
            } => (cluster_id.to_string(), member_id.to_string()),
            _ => (attempt.old_cluster_id.clone(), mine.old_member_id.clone()),
        };
        if old != (attempt.old_cluster_id.clone(), mine.old_member_id.clone()) {
            return Err(Error::other(
                "the data dir is not what it was when this was planned",
            ));
        }
        Ok(plan)
    }

    pub(super) async fn build(&mut self, attempt: &Attempt) -> Result<()> {
        let plan = self.plan(attempt)?;
        let reference = self.memory.now().restore.clone();
        self.waits.begin(attempt);
        let restarted = self.looked.as_ref().is_none_or(|(id, _)| *id != attempt.id);
        if restarted {
            // Restarted since Preflight: it looks again.
            let Some(restore) = self.hosting.restore(&reference).await? else {
                return Ok(());
            };
            match self.look(attempt, &restore).await {
                Ok(None) => return Ok(()),
                Ok(Some(looked)) => self.looked = Some((attempt.id.clone(), looked)),
                Err(e) => return self.not_yet(e),
            }
        }
        let Some((_, looked)) = &mut self.looked else {
            return Ok(());
        };
        let planned = attempt.snapshot.clone().unwrap_or_default();
        if looked.fit.snapshot.sha256 != planned.sha256 {
            return self.unfit("the snapshot is not the one that was planned with");
        }
        let building = prepare::prepare(&mut self.dir, &plan, &mut looked.work);
        let beside = Beside::new(&mut self.member, &mut self.again, &self.health, &self.said);
        let over = moved_on(&self.hosting, &reference, attempt);
        match beside.work(building, over).await?.transpose() {
            Ok(None) => Ok(()),
            Ok(Some(Prepared::Proven)) => self.tell_built(attempt, true),
            Ok(Some(Prepared::TargetTooLow(revision))) => self.unfit(&format!(
                "revision {revision} of the snapshot is too near to the target"
            )),
            Err(e) => self.not_yet(e),
        }
    }

    /// Says what was built, by looking at it; at its keys again only where it was proven some time ago.
    pub(super) fn tell_built(&mut self, attempt: &Attempt, proven_now: bool) -> Result<()> {
        self.progress.step("hashing the new state");
        let id: AttemptId = attempt.id.parse()?;
        let side = self.dir.side(&id).join("snap").join("db");
        let database = backup_core::etcd::Database::open(&side)?;
        self.progress.expect_bytes(2 * database.bytes());
        let hash = database.hash_kv(Some(attempt.target_revision), self.progress)?;
        let digest = match self.dir.attempt(&id)?.snapshot.clone() {
            Some(Snapshot { content, .. }) if proven_now => LiveDigest {
                revision: attempt.target_revision,
                keys: content.keys,
                sha256: content.sha256,
            },
            _ => database.digest(None, self.progress)?,
        };
        self.rows.tell(|report| {
            report.state = State::Built;
            report.message = "the new state is built".to_owned();
            report.built = Some(Expected {
                digest,
                hash_kv_at_t: hash,
            });
        });
        Ok(())
    }

    pub(super) fn unfit(&mut self, why: &str) -> Result<()> {
        self.say(why);
        self.rows.tell(|report| {
            report.state = State::Unfit;
            why.clone_into(&mut report.message);
        });
        Ok(())
    }

    pub(super) fn hold(&mut self, attempt: &Attempt) -> Result<()> {
        let fence = Fence::take(&self.dir)?;
        let before = attempt
            .member(&self.config.name)
            .map(|mine| mine.before)
            .unwrap_or_default();
        let former = match (proof::glance(&self.dir.member()), before.data) {
            (Ok(former), _) => Some(former),
            (Err(e), Data::Old) if before.serving => return Err(e),
            (Err(_), _) => None,
        };
        let revision = former.as_ref().map_or(0, |former| former.revision);
        self.fence = Some(fence);
        self.rows
            .tell(|report| report.offline = Some(Offline { revision }));
        Ok(())
    }

    pub(super) fn exchange(&mut self, attempt: &Attempt) -> Result<()> {
        let id: AttemptId = attempt.id.parse()?;
        let known = self.dir.attempt(&id)?;
        if known.step == member_step::Step::Exchanged && self.dir.truth(known)? == Truth::After {
            return Ok(());
        }
        let fence = match self.fence.take() {
            Some(fence) => fence,
            None => Fence::take(&self.dir)?,
        };
        let former = proof::glance(&self.dir.member()).ok();
        let done = exchange::exchange(&mut self.dir, &id, &fence, former);
        self.fence = Some(fence);
        done
    }

    pub(super) fn back(&mut self, attempt: &Attempt) -> Result<()> {
        let id: AttemptId = attempt.id.parse()?;
        // The one on the old database would refuse this one where the old state is back already.
        self.fence = None;
        let fence = Fence::take(&self.dir)?;
        exchange::back(&mut self.dir, &id, &fence)
    }

    pub(super) fn start_fenced(&mut self, attempt: &Attempt) -> Result<()> {
        if Instant::now() < self.again.at {
            return Ok(());
        }
        let id: AttemptId = attempt.id.parse()?;
        let known = self.dir.attempt(&id)?.step;
        if attempt.step() == Step::Starting && known != member_step::Step::Starting {
            self.dir.record(&id, member_step::Step::Starting)?;
        }
        self.member.start_fenced(&attempt.initial_cluster())
    }

    pub(super) fn record_committed(&mut self, attempt: &Attempt) -> Result<()> {
        let id: AttemptId = attempt.id.parse()?;
        let known = self.dir.attempt(&id)?.step;
        if known != member_step::Step::Committed {
            self.dir.record(&id, member_step::Step::Committed)?;
        }
        Ok(())
    }

    /// That it was committed while this member was away, where its new state is in place.
    pub(super) fn note_committed(&mut self, attempt: &Attempt) -> Result<()> {
        use member_step::Step as At;
        let id: AttemptId = attempt.id.parse()?;
        let Ok(known) = self.dir.attempt(&id) else {
            return Ok(());
        };
        let is_open = (At::Exchanged..At::Committed).contains(&known.step);
        if is_open && self.dir.truth(known)? == Truth::After {
            self.record_committed(attempt)?;
        }
        Ok(())
    }

    /// Usual listeners open on the id that stands and on nothing else.
    pub(super) fn start_usual(
        &mut self,
        world: Option<&World>,
        attempt: Option<&Attempt>,
    ) -> Result<()> {
        if Instant::now() < self.again.at {
            return Ok(());
        }
        let Carried::Cluster {
            cluster_id,
            member_id,
        } = self.dir.carried()?
        else {
            return Err(Error::other(
                "there is no state that etcd could be started on",
            ));
        };
        let (cluster_id, member_id) = (cluster_id.to_string(), member_id.to_string());
        let stands = world
            .and_then(|world| world.set.as_ref())
            .map_or("", SetView::cluster_id);
        if !stands.is_empty() && stands != cluster_id {
            return Err(Error::other(format!(
                "cluster {stands} stands, and the data dir holds cluster {cluster_id}: etcd is not started"
            )));
        }
        if let Some(attempt) = attempt
            && let Some(mine) = attempt.member(&self.config.name)
        {
            let wanted = if cluster_id == attempt.new_cluster_id {
                &mine.new_member_id
            } else {
                &mine.old_member_id
            };
            if *wanted != member_id && !wanted.is_empty() {
                return Err(Error::other(format!(
                    "the data dir is of member {member_id}, and this is {wanted}: etcd is not started"
                )));
            }
            if cluster_id == attempt.new_cluster_id {
                if !attempt.is_forward() {
                    return Err(Error::other(
                        "the new state is not opened before it is committed",
                    ));
                }
                self.record_committed(attempt)?;
            }
        }
        self.fence = None;
        self.member.start_usual()
    }

    /// Compares the fenced etcd with the plan.
    pub(super) async fn verify(&mut self, attempt: &Attempt) -> Result<()> {
        let socket = Socket(self.member.socket());
        // A second hash would only keep this member from the next decision.
        let hashed = self.rows.started();
        let asked = async {
            let mut said = socket.status().await?;
            if said.alarms.iter().any(|alarm| alarm == "NOSPACE") {
                socket.disarm().await?;
                said = socket.status().await?;
            }
            let revision = socket.read().await?.max(said.revision);
            let members = socket.members().await?;
            let hash = match hashed {
                Some(started) => started.hash_kv_at_t,
                None => socket.hash_kv(attempt.target_revision).await?,
            };
            Ok::<_, Error>((said, revision, members, hash))
        };
        let (said, revision, mut members, hash) = asked
            .await
            .map_err(|e| e.context("the restored etcd does not answer yet"))?;
        members.sort();
        let open = listening::ports(self.member.pid().unwrap_or(0))
            .map_err(|e| Error::other("can not tell where etcd listens").because(e))?;
        let allowed = self.member.args().ports_that_are_no_clients();
        if let Some(port) = open.iter().find(|port| !allowed.contains(port)) {
            self.rows.tell(|report| {
                report.state = State::Unfit;
                report.message = format!("the fenced etcd listens on port {port}");
            });
            return Ok(());
        }
        let id: AttemptId = attempt.id.parse()?;
        if self.dir.attempt(&id)?.step == member_step::Step::Starting {
            self.dir.record(&id, member_step::Step::Verified)?;
        }
        self.rows.tell(|report| {
            report.state = State::Started;
            report.message = "the new state runs, out of reach".to_owned();
            report.started = Some(Started {
                cluster_id: said.cluster_id.clone(),
                leader: said.has_leader(),
                members,
                alarms: said.alarms.clone(),
                revision,
                hash_kv_at_t: hash,
            });
        });
        Ok(())
    }
}
