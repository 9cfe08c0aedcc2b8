//! A claim that is made of a snapshot: the objects by which the driver finds it stand before the claim does, and go when it is bound.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::gather::CLAIMS;
use super::super::rewrite::Shaped;
use super::super::snapped::{Choice, Data};
use super::super::target::Metadata;
use super::{Action, Applier, Done, Job, Known, Stop};
use crate::backup::quantity;
use crate::error::{Error, Result};
use crate::snapshot::drive::never;
use crate::snapshot::pair::{self, Cleared, Pair, Waiting};

/// How long nothing may change where the driver is to make a volume, and where a pod is awaited that uses the claim.
const BINDS: Duration = Duration::from_secs(600);
const WAITS: Duration = Duration::from_secs(60);

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

/// A storage class is not larger.
const LARGEST: usize = 1 << 20;

/// A claim that was made of a snapshot.
#[derive(Clone, Debug)]
pub(in super::super) struct Made {
    /// Its namespace and name in the target.
    path: String,
    /// Its class waits for a pod that uses it.
    is_late: bool,
}

/// What comes of claims that were made of snapshots, a sentence each.
#[derive(Debug, Default)]
pub(in super::super) struct Unbound {
    /// Their data is not there.
    pub(in super::super) failed: Vec<String>,
    /// It comes with the first pod that uses them.
    pub(in super::super) late: Vec<String>,
    /// Objects that they needed are there still.
    pub(in super::super) left: Vec<String>,
}

impl Applier {
    /// Has a claim come from its snapshot, where it has one. What comes back is what becomes of one that is not made.
    pub(super) async fn source(
        &self,
        job: &Job,
        wanted: &mut Shaped<'_>,
    ) -> Result<Option<Done>, Stop> {
        if job.resource.name != CLAIMS {
            return Ok(None);
        }
        let row = &job.object.row;
        let Some(choice) = self.snapped.choice(row.namespace.as_deref(), &row.name) else {
            return Ok(None);
        };
        let stands = match job.known {
            Known::Absent | Known::Nowhere => None,
            _ => self.find(job).await?,
        };
        if let Some(live) = stands {
            let metadata = Metadata::read(&live);
            if metadata.is_of(&self.rewrite.restore, &wanted.uid) {
                self.awaits_again(job, choice, &live).await;
                return Ok(None);
            }
            let reason = "it stands, so its data was not restored: nothing is ever written into a claim that is not this restore's; delete the claim, or restore with --namespace-mappings";
            return Ok(Some(Done::new(Action::Failed, reason)));
        }
        let data = match choice {
            Choice::Make(data) => data,
            Choice::Refuse(why) => return Ok(Some(self.unmade(job, why))),
        };
        if self.is_dry() {
            wanted.changes.push(format!(
                "its data comes back from snapshot {}",
                data.snapshot.handle
            ));
            return Ok(None);
        }
        match self.sourced(job, wanted, data).await {
            Ok(()) => Ok(None),
            Err(e) => Ok(Some(self.unmade(job, &e.sentence()))),
        }
    }

    fn unmade(&self, job: &Job, why: &str) -> Done {
        let namespace = job.namespace.as_deref().unwrap_or_default();
        if !self.is_dry() {
            self.unheld.note(namespace, &job.name, why);
        }
        Done::new(
            Action::Failed,
            format!(
                "it was not made, for its data can not come back: {why}; the same command tries again, and --restore-volumes=false in a restore of another name makes it empty"
            ),
        )
    }

    /// One that a killed run of this restore made is awaited as if it were made now.
    async fn awaits_again(&self, job: &Job, choice: &Choice, live: &[u8]) {
        let Choice::Make(data) = choice else { return };
        let live: Value = serde_json::from_slice(live).unwrap_or_default();
        if live["status"]["phase"] == "Bound" {
            return;
        }
        let class = live["spec"]["storageClassName"].as_str();
        // Where that can not be told, nobody waits long for it.
        let is_late = match class.filter(|class| !class.is_empty()) {
            Some(class) => self
                .class(class, &data.snapshot.driver)
                .await
                .unwrap_or(true),
            None => false,
        };
        self.awaits(job, is_late);
    }

    fn awaits(&self, job: &Job, is_late: bool) {
        let namespace = job.namespace.as_deref().unwrap_or_default();
        let made = Made {
            path: format!("{namespace}/{}", job.name),
            is_late,
        };
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(made);
    }

    async fn sourced(&self, job: &Job, wanted: &mut Shaped<'_>, data: &Data) -> Result<()> {
        let namespace = job.namespace.as_deref().unwrap_or_default();
        let mut spec: Value = wanted.object.read("spec")?.unwrap_or_default();
        let is_late = match spec["storageClassName"].as_str() {
            Some(class) if !class.is_empty() => self.class(class, &data.snapshot.driver).await?,
            _ => false,
        };
        let pair = Pair {
            snapshot: &data.snapshot,
            restore: &self.rewrite.restore,
            namespace,
            claim: &job.name,
            mode: &data.mode,
        };
        let source = pair.make(&self.cluster, &never()).await?;
        for key in ["volumeName", "dataSourceRef", "selector"] {
            if let Some(spec) = spec.as_object_mut() {
                spec.remove(key);
            }
        }
        spec["dataSource"] = pair::data_source(&source.name);
        let asked = spec["resources"]["requests"]["storage"]
            .as_str()
            .and_then(quantity);
        #[expect(clippy::cast_precision_loss, reason = "a size to compare with")]
        let is_small = asked.is_none_or(|asked| asked < source.size as f64);
        if is_small && source.size > 0 {
            spec["resources"]["requests"]["storage"] = json!(source.size.to_string());
            wanted.changes.push(format!(
                "it asks for {} bytes, as its snapshot needs",
                source.size
            ));
        }
        wanted.object.set("spec", &spec)?;
        self.awaits(job, is_late);
        Ok(())
    }

    /// Whether a class waits for a pod. An error where its volumes are not this driver's.
    async fn class(&self, name: &str, driver: &str) -> Result<bool> {
        let path = format!("/apis/storage.k8s.io/v1/storageclasses/{name}");
        let class: Value = match self.cluster.get_bounded(&path, LARGEST).await {
            Ok(body) => serde_json::from_slice(&body).unwrap_or_default(),
            // What can not be asked is seen when the claim is to be bound.
            Err(e) if e.is_forbidden() || e.is_not_found() => return Ok(true),
            Err(e) => return Err(e.into()),
        };
        let provisioner = class["provisioner"].as_str().unwrap_or_default();
        if provisioner != driver {
            return Err(Error::other(format!(
                "its storage class {name} is of {provisioner}, and its snapshot of driver {driver}"
            ))
            .hint("map the storage class to one of that driver"));
        }
        Ok(class["volumeBindingMode"] == "WaitForFirstConsumer")
    }

    /// Waits until claims that are made of snapshots are bound, and takes away the objects that they needed for it.
    ///
    /// # Errors
    /// The server's.
    pub(in super::super) async fn bound(&self) -> Result<Unbound> {
        let made =
            std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner));
        let mut unbound = Unbound::default();
        if self.is_dry() || self.snapped.claims.is_empty() {
            return Ok(unbound);
        }
        let mut way = Way::default();
        let (due, late): (Vec<String>, Vec<String>) = loop {
            let restore = Some(self.rewrite.restore.as_str());
            let Cleared { waiting, left } =
                pair::clear(&self.cluster, restore, Timestamp::now()).await?;
            way.note(&waiting);
            let is_due = |path: &String| way.is_due(&made, path);
            let patience = match waiting.iter().any(|one| is_due(&one.path)) {
                true => BINDS,
                false => WAITS,
            };
            if waiting.is_empty() || way.since.elapsed() >= patience {
                unbound.left = left;
                break waiting.into_iter().map(|one| one.path).partition(is_due);
            }
            tokio::time::sleep(PAUSE).await;
        };
        unbound.failed.extend(due.iter().map(|path| format!(
            "claim {path} is not bound after {} s: no volume was made of its snapshot; look at its events; the same command goes on with it",
            BINDS.as_secs()
        )));
        unbound.late.extend(late.iter().map(|path| format!(
            "claim {path} gets its data when a pod uses it; until then its VolumeSnapshot stays, which the same command removes then, or the next backup"
        )));
        Ok(unbound)
    }
}

/// How far claims have come that wait: a set makes one pod after the other, so what counts is when something came last.
struct Way {
    since: Instant,
    /// So few waited once.
    least: usize,
    /// Those for which the driver was asked for a volume. It may ask back for another node, again and again.
    placed: BTreeSet<String>,
}

impl Default for Way {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            least: usize::MAX,
            placed: BTreeSet::new(),
        }
    }
}

impl Way {
    fn note(&mut self, waiting: &[Waiting]) {
        let before = (self.least, self.placed.len());
        self.least = self.least.min(waiting.len());
        let placed = waiting.iter().filter(|one| one.is_placed);
        self.placed.extend(placed.map(|one| one.path.clone()));
        if before != (self.least, self.placed.len()) {
            self.since = Instant::now();
        }
    }

    /// Whether the driver is to make its volume: the class binds at once, or a pod that uses it has got a node.
    fn is_due(&self, made: &[Made], path: &String) -> bool {
        let own = made.iter().find(|made| made.path == *path);
        self.placed.contains(path) || own.is_some_and(|made| !made.is_late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_awaited_anew_when_one_came_or_got_a_node_for_the_first_time() {
        let waiting = |all: &[(&str, bool)]| -> Vec<Waiting> {
            let one = |(path, is_placed): &(&str, bool)| Waiting {
                path: (*path).to_owned(),
                is_placed: *is_placed,
            };
            all.iter().map(one).collect()
        };
        let second = Duration::from_secs(1);
        let mut way = Way::default();
        way.note(&waiting(&[("s/a", false), ("s/b", false)]));
        let steps = [
            (waiting(&[("s/a", false), ("s/b", false)]), false),
            (waiting(&[("s/a", true), ("s/b", false)]), true),
            // The driver wants another node, and gets it.
            (waiting(&[("s/a", false), ("s/b", false)]), false),
            (waiting(&[("s/a", true), ("s/b", false)]), false),
            (waiting(&[("s/b", false)]), true),
        ];
        for (step, is_news) in steps {
            tokio::time::advance(second).await;
            way.note(&step);
            assert_eq!(way.since.elapsed() < second, is_news, "{step:?}");
        }
        let made = [("s/a", true), ("s/b", true), ("s/now", false)].map(|(path, is_late)| Made {
            path: path.into(),
            is_late,
        });
        let due = ["s/a", "s/b", "s/now", "s/other"].map(|path| way.is_due(&made, &path.into()));
        assert_eq!(due, [true, false, true, false]);
    }
}
