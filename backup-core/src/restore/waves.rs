//! Restores wave by wave: reads the archive in order, keeps a bounded number of objects in flight, settles them in order, and gives what failed
//! another chance when everything else stands.

mod again;
mod foundations;
mod holding;
mod rewiring;
mod settling;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::apply::{Applier, Done, Job, Known};
use super::bodies::Bodies;
use super::gather::{self, Resource, Survey};
use super::held::{self, Holding};
use super::journal::Journal;
use super::report::Record;
use super::target::{self, Seens};
use super::{Action, Step, order, plan, versions};
use crate::archive::read::{Archive, Object, Source};
use crate::archive::row::Row;
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::Filter;
use crate::progress::Progress;

/// Bytes of bodies in flight; a larger body travels alone.
const BYTES: usize = 24 << 20;
/// Up to so many objects of a resource are just created, instead of listing what is there.
const FEW: u64 = 50;

/// A task that ends with its handle.
struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    async fn wait(mut self) -> Result<T> {
        (&mut self.0)
            .await
            .map_err(|e| Error::other("a task of the restore broke off").because(e))
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Which object of the archive: enough to find it again.
#[derive(Clone, Debug)]
struct Ticket {
    resource: Arc<Resource>,
    frame: usize,
    /// Place among the wanted rows of the frame; nothing for an object that is not in the archive.
    position: Option<usize>,
    namespace: Option<String>,
    name: String,
    /// Its uid in the backup, where others name it as their owner.
    owner: Option<Uuid>,
    /// What of its data is in the backup and does not come back.
    lost: Option<String>,
    /// It is a claim whose data was to be saved, and is not: what became of it.
    failed: Option<String>,
    /// It is a claim whose data was never to be saved.
    is_unsaved: bool,
    /// What of its data would come back, in a plan.
    comes: Option<String>,
    bytes: u64,
}

struct Failure {
    ticket: Ticket,
    reason: String,
}

/// A restore at work, or a plan of one.
pub(super) struct Waves<'a, S> {
    pub(super) archive: &'a Archive<S>,
    pub(super) applier: Arc<Applier>,
    pub(super) filter: &'a Filter,
    pub(super) survey: &'a Survey,
    pub(super) served: Served,
    pub(super) record: Record,
    pub(super) journal: Option<Journal>,
    pub(super) progress: &'a dyn Progress,
    pub(super) show: Option<&'a mut (dyn FnMut(Step) + Send)>,
    pub(super) cancel: Option<watch::Receiver<bool>>,
    pub(super) concurrency: usize,
    /// An earlier run of this restore may have made objects.
    pub(super) resumed: bool,
    /// The data of volumes is asked for.
    pub(super) data_wanted: bool,
    /// The restore's name.
    pub(super) name: &'a str,
    /// Claims whose data comes back.
    pub(super) held: Arc<held::Found>,
    /// Who brings it; nobody in a plan.
    pub(super) holding: Option<Holding>,
    pub(super) state: State,
}

/// What is learned on the way.
#[derive(Default)]
pub(super) struct State {
    owners: HashMap<Uuid, Uuid>,
    failures: Vec<Failure>,
    /// Namespaces this run made: nothing of the backup can be in them yet.
    fresh: HashSet<String>,
    /// Namespaces that could not be made, and why.
    lost: HashMap<String, String>,
    /// Claims that were made and whose volumes are empty, for their data was never saved.
    pub(super) empty_claims: Vec<String>,
    /// Definitions this restore made.
    definitions: BTreeSet<String>,
    /// What a trial found it could make, as `resource name` and namespace, of the kinds that others can not be made without.
    planned: HashSet<(String, Option<String>)>,
    flight: VecDeque<(Ticket, Task<Result<Done>>)>,
    /// Claims whose data comes back and that are made last of their wave.
    waiting: Vec<(Ticket, Row)>,
    /// Those that were begun.
    begun: Vec<holding::Begun>,
    slots: Option<Arc<Semaphore>>,
    bytes: Option<Arc<Semaphore>>,
}

impl<S: Source> Waves<'_, S> {
    /// Everything, in order.
    ///
    /// # Errors
    /// What ends the restore as a whole; what was restored until then stands.
    pub(super) async fn run(&mut self) -> Result<()> {
        let result = self.everything().await;
        // What is under way may have deleted an object, and has yet to create it.
        while result.is_err() && !self.state.flight.is_empty() {
            let _ = self.settle_first().await;
        }
        result
    }

    async fn everything(&mut self) -> Result<()> {
        self.state.slots = Some(Arc::new(Semaphore::new(self.concurrency.max(1))));
        self.state.bytes = Some(Arc::new(Semaphore::new(BYTES)));
        let survey = self.survey;
        let waves: BTreeSet<u8> = survey
            .resources
            .iter()
            .map(|r| r.place.wave)
            .chain([order::WAVE_NAMESPACES])
            .collect();
        for wave in waves.iter().filter(|w| **w != order::WAVE_ADMISSION) {
            self.wave(*wave).await?;
        }
        self.again().await?;
        if !self.applier.is_dry() {
            self.owners().await?;
        }
        if waves.contains(&order::WAVE_ADMISSION) {
            self.wave(order::WAVE_ADMISSION).await?;
            self.again().await?;
        }
        Ok(())
    }

    async fn wave(&mut self, wave: u8) -> Result<()> {
        let survey = self.survey;
        let resources: Vec<_> = survey
            .resources
            .iter()
            .filter(|r| r.place.wave == wave)
            .cloned()
            .collect();
        if let Some(first) = resources.first() {
            let more = match resources.len() {
                1 => String::new(),
                n => format!(" and {} more kinds", n - 1),
            };
            self.progress
                .step(&format!("restoring {}{more}", first.api.plural));
        }
        let mut looks = VecDeque::from(self.look(&resources).await?);
        for resource in &resources {
            let look = looks.pop_front().flatten();
            for frame in &resource.frames {
                let rows = gather::rows(self.archive, self.filter, resource, *frame).await?;
                let rows = rows.into_iter().enumerate().collect();
                self.feed(resource, *frame, rows, look.as_ref()).await?;
            }
        }
        self.drain().await?;
        self.hold().await?;
        match wave {
            order::WAVE_CRDS => self.defined().await,
            order::WAVE_NAMESPACES => self.plain_namespaces().await,
            _ => Ok(()),
        }
    }

    /// What the target has of these resources; nothing where creating tells it as cheaply, or where it may not be listed.
    // Exclusive, so that the future may move between threads though the plan's receiver may not be shared.
    async fn look(&mut self, resources: &[Arc<Resource>]) -> Result<Vec<Option<Seens>>> {
        let few = if self.resumed { FEW / 5 } else { FEW };
        let futures: Vec<_> = resources
            .iter()
            .map(|resource| {
                let target = self.target(resource).filter(|_| resource.count > few);
                let namespaces: BTreeSet<String> = resource
                    .namespaces
                    .iter()
                    .map(|n| self.applier.rewrite.namespace(n).to_owned())
                    .filter(|n| !self.state.fresh.contains(n))
                    .collect();
                let cluster = self.applier.cluster.clone();
                let restore = self.applier.rewrite.restore.clone();
                async move {
                    let Some(target) = target else {
                        return Ok(None);
                    };
                    target::look_in(&cluster, &target, &namespaces, &restore).await
                }
            })
            .collect();
        futures::stream::iter(futures)
            .buffered(8)
            .try_collect()
            .await
    }

    /// The target's resource to which objects are sent, where it serves a version that fits.
    fn target(&self, resource: &Resource) -> Option<Arc<ApiResource>> {
        versions::target(&resource.api, &self.served).cloned()
    }

    /// Why objects of a resource can not be made in the target; nothing where a definition of this restore will serve it.
    fn unserved(&self, resource: &Resource) -> Option<String> {
        let served = versions::served(&resource.api, &self.served);
        let versions: Vec<&str> = served.map(|api| api.version.as_str()).collect();
        if self.applier.is_dry() && self.state.definitions.contains(&resource.name) {
            return None;
        }
        let gap = self
            .served
            .gaps
            .iter()
            .find(|gap| gap.group == resource.api.group);
        Some(match (versions.as_slice(), gap) {
            ([], Some(gap)) => format!(
                "the target could not be asked for {}: {}",
                resource.api.group, gap.reason
            ),
            ([], None) => format!("the target does not serve {}", resource.name),
            (versions, _) => format!(
                "the backup holds {} as {}, the target serves {}",
                resource.name,
                resource.api.version,
                versions.join(", ")
            ),
        })
    }

    /// Starts these rows (with their places) of a frame; settles older ones on the way.
    async fn feed(
        &mut self,
        resource: &Arc<Resource>,
        frame: usize,
        rows: Vec<(usize, Row)>,
        look: Option<&Seens>,
    ) -> Result<()> {
        let target = self.target(resource);
        let mut todo = VecDeque::with_capacity(rows.len());
        let mut bodies = Vec::with_capacity(rows.len());
        let mut judged = Vec::new();
        for (position, row) in rows {
            let ticket = self.ticket(resource, frame, Some(position), &row);
            let lost = ticket
                .namespace
                .as_ref()
                .and_then(|n| Some(format!("namespace {n}: {}", self.state.lost.get(n)?)));
            if let Some(reason) = lost {
                self.settle(&ticket, failed(reason)).await?;
                continue;
            }
            let Some((ticket, row)) = self.or_held(ticket, row).await? else {
                continue;
            };
            let Some(target) = &target else {
                if plan::is_judged_by_body(&resource.name) {
                    judged.push((ticket, row));
                    continue;
                }
                let done = self.without_version(resource);
                self.settle(&ticket, done).await?;
                continue;
            };
            let known = self.known(&ticket, look);
            if let Known::There(seen) = known
                && seen.is_made_from(&row.uid)
            {
                let mut done = Done::new(Action::Skipped, "this restore made it in an earlier run");
                (done.uid, done.mine) = (seen.uid, true);
                self.settle(&ticket, done).await?;
                continue;
            }
            bodies.push(row);
            todo.push_back((ticket, target.clone(), known));
        }
        self.judge(resource, judged).await?;
        let mut bodies = Bodies::new(self.archive, bodies);
        while let Some((ticket, target, known)) = todo.pop_front() {
            let Some((_, object)) = bodies.next().await else {
                return Err(Error::other("the restore lost count of its objects"));
            };
            let object = match object {
                Ok(object) => object,
                Err(e) if e.kind() == Kind::Corrupt => {
                    let done = Done::new(Action::Failed, format!("the archive is damaged: {e}"));
                    self.settle(&ticket, done).await?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            self.start(ticket, target, known, object).await?;
        }
        Ok(())
    }

    /// What becomes of an object of a resource that the target does not serve, or does not serve yet.
    fn without_version(&self, resource: &Resource) -> Done {
        match self.unserved(resource) {
            Some(reason) => failed(reason),
            None if self.applier.tries() => {
                Done::new(Action::Untried, "its definition does not exist yet")
            }
            None => Done::new(Action::Created, "once its definition is restored"),
        }
    }

    /// Settles objects of a resource that the target does not serve: those that are not restored anyway lack nothing.
    async fn judge(&mut self, resource: &Resource, judged: Vec<(Ticket, Row)>) -> Result<()> {
        let (tickets, rows): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
        let mut bodies = Bodies::new(self.archive, rows);
        for ticket in tickets {
            let Some((_, object)) = bodies.next().await else {
                return Err(Error::other("the restore lost count of its objects"));
            };
            let volumes = &self.survey.volumes;
            let out = object.and_then(|o| plan::left_out(&resource.name, &o.body, volumes));
            let done = match out {
                Ok(Some(reason)) => Done::new(Action::Skipped, reason),
                Err(e) if e.kind() != Kind::Corrupt => return Err(e),
                Ok(None) | Err(_) => self.without_version(resource),
            };
            self.settle(&ticket, done).await?;
        }
        Ok(())
    }

    fn ticket(
        &self,
        resource: &Arc<Resource>,
        frame: usize,
        position: Option<usize>,
        row: &Row,
    ) -> Ticket {
        let rewrite = &self.applier.rewrite;
        let volumes = &self.survey.volumes;
        let is_claim = resource.name == gather::CLAIMS;
        let namespace = row.namespace.as_deref().unwrap_or_default();
        let name = if resource.name == order::NAMESPACES {
            rewrite.namespace(&row.name)
        } else {
            &row.name
        };
        Ticket {
            resource: resource.clone(),
            frame,
            position,
            namespace: row
                .namespace
                .as_deref()
                .map(|n| rewrite.namespace(n).to_owned()),
            name: name.to_owned(),
            owner: Uuid::parse_str(&row.uid)
                .ok()
                .filter(|uid| self.survey.owners.contains(uid)),
            lost: volumes.lost(&resource.name, row.namespace.as_deref(), &row.name),
            failed: volumes
                .failed(namespace, &row.name)
                .filter(|_| is_claim)
                .map(str::to_owned),
            is_unsaved: is_claim && volumes.is_unsaved(namespace, &row.name),
            comes: self.comes(resource, row),
            bytes: row.length,
        }
    }

    fn known(&self, ticket: &Ticket, look: Option<&Seens>) -> Known {
        if ticket
            .namespace
            .as_ref()
            .is_some_and(|n| self.state.fresh.contains(n))
        {
            return if self.applier.is_dry() {
                Known::Nowhere
            } else {
                Known::Absent
            };
        }
        match look.map(|seens| seens.get(ticket.namespace.as_deref(), &ticket.name)) {
            None => Known::Unasked,
            Some(None) => Known::Absent,
            Some(Some(seen)) => Known::There(seen),
        }
    }

    async fn start(
        &mut self,
        ticket: Ticket,
        target: Arc<ApiResource>,
        known: Known,
        object: Object,
    ) -> Result<()> {
        if self.cancel.as_ref().is_some_and(|stop| *stop.borrow()) {
            return Err(Error::new(Kind::Interrupted, "the restore was stopped")
                .hint("the same command goes on with it"));
        }
        while self.state.flight.len() >= self.concurrency.max(1) * 4 {
            self.settle_first().await?;
        }
        let (Some(slots), Some(bytes)) = (&self.state.slots, &self.state.bytes) else {
            return Err(Error::other("the restore was not begun"));
        };
        // Rewriting takes about as much again.
        let weight = u32::try_from((object.body.len() * 2).clamp(1, BYTES)).unwrap_or(u32::MAX);
        let closed = |e| Error::other("the restore has ended").because(e);
        let room = bytes
            .clone()
            .acquire_many_owned(weight)
            .await
            .map_err(closed)?;
        let slot = slots.clone().acquire_owned().await.map_err(closed)?;
        let applier = self.applier.clone();
        let job = Job {
            resource: ticket.resource.clone(),
            target,
            namespace: ticket.namespace.clone(),
            name: ticket.name.clone(),
            object,
            known,
        };
        let task = Task(tokio::spawn(async move {
            let done = applier.process(&job).await;
            drop((job, room, slot));
            done
        }));
        self.state.flight.push_back((ticket, task));
        Ok(())
    }

    async fn settle_first(&mut self) -> Result<()> {
        if let Some((ticket, task)) = self.state.flight.pop_front() {
            let done = task.wait().await??;
            self.settle(&ticket, done).await?;
        }
        self.heed().await
    }

    async fn drain(&mut self) -> Result<()> {
        while !self.state.flight.is_empty() {
            self.settle_first().await?;
        }
        Ok(())
    }
}

fn failed(reason: String) -> Done {
    Done {
        again: true,
        ..Done::new(Action::Failed, reason)
    }
}
