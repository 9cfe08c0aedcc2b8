//! The acts of a member: each does one thing, and can be done again after any crash.

use std::time::Instant;

use backup_core::etcd::LiveDigest;
use backup_core::{Error, Kind, Result};

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
        let id: AttemptId = attempt.id.parse()?;
        if let Some(of) = kept::named(restore.text("backupName")) {
            match self.bring_kept(attempt, restore, &of).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(e) if e.kind() == Kind::Unreachable => return Err(e),
                Err(e) => return self.unfit(&sentence(&e)),
            }
        }
        let looking = fitness::look(
            &self.dir,
            self.member.args(),
            restore,
            &id,
            &self.hosting,
            &self.config.tools,
            self.progress,
        );
        let reference = restore.reference();
        let looked = tokio::select! {
            looked = looking => looked,
            () = moved_on(&self.hosting, &reference, attempt) => return Ok(()),
        };
        match looked {
            Ok(looked) => {
                self.rows.tell(|report| {
                    report.state = State::Fit;
                    report.message = "it can be restored".to_owned();
                    report.cluster_id.clone_from(&looked.cluster_id);
                    report.fit = Some(looked.fit.clone());
                });
                self.looked = Some((attempt.id.clone(), looked));
            }
            // Nobody answers now, but may later: that is no verdict.
            Err(e) if e.kind() == Kind::Unreachable => return Err(e),
            Err(e) => self.unfit(&sentence(&e))?,
        }
        Ok(())
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
            let reference = restore.reference();
            let id: AttemptId = attempt.id.parse()?;
            let publishing = kept::publish(
                &self.dir,
                self.member.args(),
                restore,
                (of, &id),
                &self.hosting,
                &self.config.tools,
                self.progress,
            );
            tokio::select! {
                published = publishing => published?,
                () = moved_on(&self.hosting, &reference, attempt) => {}
            }
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
        let restarted = self.looked.as_ref().is_none_or(|(id, _)| *id != attempt.id);
        if restarted {
            // Restarted since Preflight: it looks again.
            let Some(restore) = self.hosting.restore(&reference).await? else {
                return Ok(());
            };
            let looked = fitness::look(
                &self.dir,
                self.member.args(),
                &restore,
                &plan.attempt,
                &self.hosting,
                &self.config.tools,
                self.progress,
            )
            .await?;
            self.looked = Some((attempt.id.clone(), looked));
        }
        let Some((_, looked)) = &mut self.looked else {
            return Ok(());
        };
        let planned = attempt.snapshot.clone().unwrap_or_default();
        if looked.fit.snapshot.sha256 != planned.sha256 {
            return self.unfit("the snapshot is not the one that was planned with");
        }
        let hosting = self.hosting.clone();
        let building = prepare::prepare(&mut self.dir, &plan, &mut looked.work);
        let prepared = tokio::select! {
            prepared = building => prepared,
            () = moved_on(&hosting, &reference, attempt) => return Ok(()),
        };
        match prepared {
            Ok(Prepared::Proven) => {}
            Ok(Prepared::TargetTooLow(revision)) => {
                return self.unfit(&format!(
                    "revision {revision} of the snapshot is too near to the target"
                ));
            }
            Err(e) if e.kind() == Kind::Unreachable => return Err(e),
            Err(e) => {
                let text = sentence(&e);
                return self.unfit(&text);
            }
        }
        self.tell_built(attempt)
    }

    /// Says what was built, by looking at it.
    pub(super) fn tell_built(&mut self, attempt: &Attempt) -> Result<()> {
        self.progress.step("hashing the new state");
        let id: AttemptId = attempt.id.parse()?;
        let side = self.dir.side(&id).join("snap").join("db");
        let database = backup_core::etcd::Database::open(&side)?;
        let hash = database.hash_kv(Some(attempt.target_revision), self.progress)?;
        // Compared with the database when it was proven.
        let proven = self.dir.attempt(&id)?.snapshot.clone();
        let Some(Snapshot { content, .. }) = proven else {
            return Err(Error::other("the new state was never proven"));
        };
        let digest = LiveDigest {
            revision: attempt.target_revision,
            keys: content.keys,
            sha256: content.sha256,
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

    /// Reads the keys of the state that was replaced, for a later rollback to be held against. The control plane is back.
    pub(super) fn note_former(&mut self, id: &AttemptId) -> Result<()> {
        let Ok(known) = self.dir.attempt(id) else {
            return Ok(());
        };
        let is_noted = known.former.as_ref().is_none_or(|f| f.content.is_some());
        if known.step != member_step::Step::Committed || is_noted {
            return Ok(());
        }
        // What is damaged or gone is told when somebody wants it back.
        let Some(former) = proof::seen(&self.dir.side(id), self.progress)
            .ok()
            .and_then(|seen| seen.former)
        else {
            return Ok(());
        };
        self.dir.note_former(id, former)
    }

    pub(super) fn back(&mut self, attempt: &Attempt) -> Result<()> {
        let id: AttemptId = attempt.id.parse()?;
        // The one on the old database would refuse this one where the old state is back already.
        self.fence = None;
        let fence = Fence::take(&self.dir)?;
        exchange::back(&mut self.dir, &id, &fence)
    }

    pub(super) fn start_fenced(&mut self, attempt: &Attempt) -> Result<()> {
        if Instant::now() < self.again.0 {
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

    /// Usual listeners open on the id that stands and on nothing else.
    pub(super) fn start_usual(
        &mut self,
        world: Option<&World>,
        attempt: Option<&Attempt>,
    ) -> Result<()> {
        if Instant::now() < self.again.0 {
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
        let asked = async {
            let mut said = socket.status().await?;
            if said.alarms.iter().any(|alarm| alarm == "NOSPACE") {
                socket.disarm().await?;
                said = socket.status().await?;
            }
            let revision = socket.read().await?.max(said.revision);
            let members = socket.members().await?;
            let hash = socket.hash_kv(attempt.target_revision).await?;
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
