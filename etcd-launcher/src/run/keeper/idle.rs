//! A member without a decision to obey: etcd as usual on the id that stands, the founding of a cluster, and the end of an attempt whose restore is
//! gone.

use std::time::Instant;

use backup_core::{Error, Result};
use serde_json::json;

use super::Keeper;
use crate::member;
use crate::restore::exchange;
use crate::restore::fence::Fence;
use crate::restore::ids;
use crate::restore::plan::Carried;
use crate::run::condition;
use crate::run::door;
use crate::run::event::Tone;
use crate::run::fitness;
use crate::run::hosting::{SetView, World, Written};
use crate::run::memory::RestoreRef;
use crate::run::records::{BOOTSTRAPPED, CLUSTER_ID, EndRecord, OUTCOME, Outcome};
use crate::run::startup::{self, Idle, Standing};

/// What the name of a state begins with that was put aside.
const ASIDE: &str = ".aside-";

impl Keeper {
    /// The restore is gone, and nobody wrote down how it ended: the members do.
    pub(super) async fn settle(&mut self, world: Option<&World>) -> Result<()> {
        let Some(mine) = self.memory.now().open().cloned() else {
            return Ok(());
        };
        let Some(set) = world.and_then(|world| world.set.as_ref()) else {
            self.say("the restore and the StatefulSet are gone: waiting");
            return Ok(());
        };
        let answers = self.peers.ask().await;
        let voters = mine.voters.len().max(mine.members.len()).max(1);
        let Some(outcome) = startup::settle(&mine, answers.values(), voters) else {
            self.say("the restore is gone: waiting for the other members to agree on how it ended");
            return Ok(());
        };
        let stands = match outcome {
            Outcome::Committed => mine.new_cluster_id.clone(),
            _ => mine.old_cluster_id.clone(),
        };
        let record = EndRecord {
            attempt: mine.id.clone(),
            restore: self.memory.now().restore.name.clone(),
            uid: self.memory.now().restore.uid.clone(),
            outcome: Some(outcome),
            cluster_id: stands.clone(),
        };
        let text = serde_json::to_string(&record)
            .map_err(|e| Error::other("can not write the outcome").because(e))?;
        let mut annotations = json!({ OUTCOME: text });
        if outcome == Outcome::Committed {
            annotations[CLUSTER_ID] = stands.into();
        }
        // Whoever is first decides; the next look obeys what stands.
        self.hosting.annotate_set(set, annotations).await?;
        self.say(&format!(
            "the restore is gone: it ended {outcome:?}, as the members remember it"
        ));
        Ok(())
    }

    pub(super) async fn idle(&mut self, world: Option<&World>) -> Result<()> {
        let carried = self.dir.carried()?;
        let set = world.and_then(|world| world.set.as_ref());
        let stands = world.map(|_| set.map_or("", SetView::cluster_id));
        let id = carried.cluster().map(|id| id.to_string());
        let serving = self.member.listening() == Some(member::Listening::Usual);
        self.health.tell(|health| {
            health.cluster_id.clone_from(&id);
            health.serving = serving;
        });
        if serving {
            self.health
                .tell(|health| "etcd runs as usual".clone_into(&mut health.message));
            // One that was started a moment ago has written no log yet: it is of no other cluster for that.
            let other = |stands: &str| {
                let own = id.as_deref();
                !stands.is_empty() && own.is_some_and(|own| own != stands)
            };
            if !stands.is_some_and(other) {
                self.note_former().await?;
                return self.serving(set, id.as_deref()).await;
            }
            self.say("another cluster stands now: etcd is stopped");
            self.member.stop().await?;
        } else if self.member.listening().is_some() {
            self.member.stop().await?;
        }
        // Fine where it has nothing to recover; needed where a launcher was killed in the middle of a rename.
        if let Ok(fence) = Fence::take(&self.dir) {
            exchange::recover(&mut self.dir, &fence)?;
        }
        let cluster =
            ids::parse_cluster(&self.member.args().initial_cluster_text()).unwrap_or_default();
        let new_id = ids::cluster_id(&cluster, self.member.args().token()).to_string();
        let agrees = match (stands, id.as_deref()) {
            (Some(stands), Some(id)) => stands.is_empty() || stands == id,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let peers: Vec<String> = if agrees {
            Vec::new()
        } else {
            let answers = self.peers.ask().await;
            answers
                .into_values()
                .filter(|peer| peer.serving)
                .filter_map(|peer| peer.cluster_id)
                .collect()
        };
        let bootstrapped = set.is_some_and(|set| {
            let names = set.annotations.get(BOOTSTRAPPED).map_or("", String::as_str);
            names.split(',').any(|name| name == self.config.name)
        });
        let standing = Standing {
            carried: &carried,
            stands: if set.is_none() && id.is_none() {
                None
            } else {
                stands
            },
            peers: &peers,
            voters: cluster.len().max(1),
            new_cluster: self.config.new_cluster,
            bootstrapped,
            new_id: &new_id,
        };
        let duty = match (&carried, fitness::check_log(self.member.args())) {
            // What lies there is only half of a state, and an empty one would come to lie in two places.
            (Carried::Absent | Carried::Unreadable { .. }, Err(e)) => {
                Idle::Stay(format!("{}: etcd is not started", e.sentence()))
            }
            _ => startup::idle(&standing),
        };
        match duty {
            Idle::Run => self.start_usual(world, None),
            Idle::Bootstrap => {
                let Some(set) = set else { return Ok(()) };
                if self.bootstrap(set).await? == Written::Yes && Instant::now() >= self.again.at {
                    self.say("a new empty cluster is founded");
                    self.member.start_usual()?;
                }
                Ok(())
            }
            Idle::Stay(why) => {
                let why = self.set_aside(set).await?.unwrap_or(why);
                self.say(&why);
                self.health.tell(|health| health.message = why);
                Ok(())
            }
            Idle::Aside(why) => {
                let to = self.dir.root().join(format!(
                    "{ASIDE}{}-{}",
                    id.unwrap_or_default(),
                    jiff::Timestamp::now().as_second()
                ));
                std::fs::rename(self.dir.member(), &to)
                    .map_err(|e| Error::other("can not put the state aside").because(e))?;
                self.say(&format!("{why}; its state is put aside: {}", to.display()));
                Ok(())
            }
        }
    }

    /// Where this member's state was put aside, and nothing is in its place: says so, for people, and on the restore that ended last.
    async fn set_aside(&self, set: Option<&SetView>) -> Result<Option<String>> {
        let root = self.dir.root();
        if self.dir.carried()? != Carried::Absent {
            return Ok(None);
        }
        let told = |e| Error::other(format!("can not read {}", root.display())).because(e);
        let mut aside: Vec<_> = std::fs::read_dir(root)
            .map_err(told)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(ASIDE))
            .collect();
        aside.sort();
        let Some(newest) = aside.pop() else {
            return Ok(None);
        };
        let why = format!(
            "member {} holds another cluster than the one that stands, and is not started: its state is kept at {}",
            self.config.name,
            root.join(newest).display()
        );
        if let Some(end) = set.and_then(SetView::end) {
            let restore = RestoreRef {
                namespace: self.hosting.names.namespace.clone(),
                name: end.restore,
                uid: end.uid,
            };
            self.tell_set_aside(&restore, &why).await?;
        }
        Ok(Some(format!("MemberSetAside: {why}")))
    }

    async fn tell_set_aside(&self, restore: &RestoreRef, why: &str) -> Result<()> {
        let Some(found) = self.hosting.restore(restore).await? else {
            return Ok(());
        };
        let known = condition::message(found.object.data.get("status"), condition::SET_ASIDE);
        if known.is_some_and(|known| known.contains(why)) {
            return Ok(());
        }
        let message = known.map_or_else(|| why.to_owned(), |known| format!("{known}; {why}"));
        let written = self
            .hosting
            .write_status(&found, |status| {
                condition::set(
                    status,
                    condition::SET_ASIDE,
                    true,
                    "AnotherCluster",
                    &message,
                );
            })
            .await?;
        if written == Written::Yes {
            self.hosting
                .tell_event(restore, Tone::Warning, "MemberSetAside", why)
                .await;
        }
        Ok(())
    }

    /// Its own name goes onto the StatefulSet before its first start, so that it never starts empty again.
    pub(super) async fn bootstrap(&self, set: &SetView) -> Result<Written> {
        let names = set
            .annotations
            .get(BOOTSTRAPPED)
            .cloned()
            .unwrap_or_default();
        let names = if names.is_empty() {
            self.config.name.clone()
        } else {
            format!("{names},{}", self.config.name)
        };
        self.hosting
            .annotate_set(set, json!({ BOOTSTRAPPED: names }))
            .await
    }

    /// What is written down once the cluster serves.
    pub(super) async fn serving(&mut self, set: Option<&SetView>, id: Option<&str>) -> Result<()> {
        let (Some(set), Some(id)) = (set, id) else {
            return Ok(());
        };
        let names = set
            .annotations
            .get(BOOTSTRAPPED)
            .cloned()
            .unwrap_or_default();
        let known = names.split(',').any(|name| name == self.config.name);
        let stands = !set.cluster_id().is_empty();
        if known && stands {
            return Ok(());
        }
        if door::usual_read(self.member.args()).await.is_err() {
            return Ok(());
        }
        self.again.serves();
        if !known {
            self.bootstrap(set).await?;
        } else {
            self.hosting
                .annotate_set(set, json!({ CLUSTER_ID: id }))
                .await?;
        }
        Ok(())
    }
}
