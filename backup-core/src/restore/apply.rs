//! Brings one object into the target: creates it, or does what the policy says with the one that stands there. Asked only to tell (`dry`), it
//! reads the same and changes nothing; asked to try, it sends everything with `dryRun=All`.

mod accounts;
mod claims;
mod creation;
mod fields;
mod recreate;
mod snapshots;
mod status;
mod trial;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::gather::{CLAIMS, Resource};
use super::held::{Found, Unheld};
use super::kept::Kept;
use super::patience::patiently;
use super::rewrite::{LABEL_BACKUP, LABEL_RESTORE, MANAGER, Rewrite, Shaped, Side};
use super::snapped::Snapped;
use super::target::{self, METADATA, Metadata, Seen};
use super::volumes::Volumes;
use super::{Action, DryRun, ExistingPolicy, merge, order, plan};
use crate::archive::read::Object;
use crate::cluster::{ApiError, Call, Cluster};
use crate::discovery::ApiResource;
use crate::error::{Error, Kind, Result};
use crate::hooks::restored::Made;

use claims::Naming;
pub(super) use claims::Promise;
use creation::manager;
pub(super) use recreate::{Deletions, is_recreated};

/// What is known of the target's object of that name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known {
    /// Nothing: a create will tell.
    Unasked,
    /// It was not there.
    Absent,
    /// Not even its namespace is there, in a dry run.
    Nowhere,
    /// It was there.
    There(Seen),
}

/// One object and where it goes.
pub(super) struct Job {
    pub(super) resource: Arc<Resource>,
    /// The target's resource.
    pub(super) target: Arc<ApiResource>,
    /// Namespace in the target.
    pub(super) namespace: Option<String>,
    /// Name in the target.
    pub(super) name: String,
    pub(super) object: Object,
    pub(super) known: Known,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) action: Action,
    pub(super) reason: String,
    /// Worth telling although the object is dealt with.
    pub(super) warning: bool,
    /// Worth another try when everything else stands.
    pub(super) again: bool,
    /// Its uid in the target, where it is known.
    pub(super) uid: Option<Uuid>,
    /// Whether this restore made it, now or in an earlier run.
    pub(super) mine: bool,
    /// What the server missed when it was tried, as `resource name`.
    pub(super) awaits: Option<String>,
    /// Whether it is a claim that names the volume it had in the backup.
    pub(super) names_volume: bool,
}

impl Done {
    pub(super) fn new(action: Action, reason: impl Into<String>) -> Self {
        Self {
            action,
            reason: reason.into(),
            warning: false,
            again: false,
            uid: None,
            mine: matches!(action, Action::Created | Action::Recreated),
            awaits: None,
            names_volume: false,
        }
    }

    fn warn(mut self) -> Self {
        self.warning = true;
        self
    }

    fn uid(mut self, uid: Option<Uuid>) -> Self {
        self.uid = uid;
        self
    }

    fn mine(mut self) -> Self {
        self.mine = true;
        self
    }

    /// Says what was changed because it was asked for, where the object was made or changed.
    fn rewritten(mut self, wanted: &Shaped<'_>) -> Self {
        let made = matches!(
            self.action,
            Action::Created | Action::Recreated | Action::Updated
        );
        if wanted.changes.is_empty() || !made {
            return self;
        }
        let changes = wanted.changes.join(", ");
        self.reason = match self.reason.as_str() {
            "" => changes,
            reason => format!("{changes}; {reason}"),
        };
        self
    }

    fn again(mut self) -> Self {
        self.again = true;
        self
    }
}

/// What all objects of a run share.
pub(super) struct Applier {
    pub(super) cluster: Cluster,
    pub(super) rewrite: Rewrite,
    pub(super) existing: ExistingPolicy,
    /// Nothing is to be changed.
    pub(super) dry: Option<DryRun>,
    /// What is deleted is kept there; nothing where nothing may be deleted.
    pub(super) kept: Option<Kept>,
    /// What was deleted so far.
    pub(super) deletions: Deletions,
    /// Volumes whose data the backup has.
    pub(super) volumes: Arc<Volumes>,
    /// Claims whose data comes back.
    pub(super) held: Arc<Found>,
    /// Those of them that could not be made.
    pub(super) unheld: Unheld,
    /// Claims whose data is a snapshot.
    pub(super) snapped: Arc<Snapped>,
    /// Those of them that were made.
    pub(super) sources: Mutex<Vec<snapshots::Made>>,
    /// Pods that were made and ask for hooks.
    pub(super) made: Made,
}

/// How a step ends early.
enum Stop {
    /// The object fails, the restore goes on.
    Api(ApiError),
    /// The restore can not go on.
    Fatal(Error),
}

impl From<ApiError> for Stop {
    fn from(e: ApiError) -> Self {
        // A server that is gone, or does not know us any more, fails every object to come.
        if e.code == 401 || (e.code == 0 && e.kind == Some(Kind::Unreachable)) {
            Self::Fatal(e.into())
        } else {
            Self::Api(e)
        }
    }
}

impl From<Error> for Stop {
    fn from(e: Error) -> Self {
        Self::Fatal(e)
    }
}

impl Applier {
    /// Does it.
    ///
    /// # Errors
    /// Only what ends the whole restore: a server that is gone, credentials that expired.
    pub(super) async fn process(&self, job: &Job) -> Result<Done> {
        match self.attempt(job).await {
            Ok(done) => Ok(done),
            Err(Stop::Fatal(e)) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => {
                Ok(Done::new(Action::Failed, e.to_string()))
            }
            Err(Stop::Fatal(e)) => Err(e),
            Err(Stop::Api(e)) if self.tries() => Ok(trial::refused(&e)),
            Err(Stop::Api(e)) => Ok(Done::new(Action::Failed, e.to_string()).again()),
        }
    }

    async fn attempt(&self, job: &Job) -> Result<Done, Stop> {
        let row = &job.object.row;
        if let Some(reason) = plan::left_out(&job.resource.name, &job.object.body, &self.volumes)? {
            return Ok(Done::new(Action::Skipped, reason));
        }
        if let Known::There(seen) = job.known
            && seen.is_made_from(&row.uid)
        {
            return Ok(restored_before(seen.uid));
        }
        if !job.target.can("create") {
            return Ok(Done::new(
                Action::Skipped,
                "the target's API has no way to create it",
            ));
        }
        let shaped = self
            .rewrite
            .shape(&job.resource.name, &job.object.body, Side::Backup)?;
        // The server would take the body's word for the name, and everything else here goes by the row's.
        if shaped.name != row.name || shaped.namespace != row.namespace.as_deref().unwrap_or("") {
            return Ok(Done::new(
                Action::Failed,
                format!(
                    "the archive holds another object under this name: {:?} of namespace {:?}",
                    shaped.name, shaped.namespace
                ),
            ));
        }
        let version = job.target.api_version();
        let had: String = shaped.object.read("apiVersion")?.unwrap_or_default();
        if had != version {
            let reason = format!("the archive holds it as {had}, and the target is sent {version}");
            return Ok(Done::new(Action::Failed, reason));
        }
        if job.resource.name != CLAIMS && !self.unheld.is_empty() {
            let object = serde_json::from_slice(&shaped.object.to_vec())
                .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
            if let Some(why) = self.unheld.keeps(&object) {
                return Ok(Done::new(Action::Failed, why));
            }
        }
        let asks = job.resource.name == "pods"
            && (self.rewrite.hooks).may_ask(shaped.object.get("metadata").unwrap_or("{}"));
        let bound = self.binding(job).await?;
        let (rewrite, mut wanted) = match &bound.rewrite {
            Some(rewrite) => {
                let body = &job.object.body;
                (
                    rewrite,
                    rewrite.shape(&job.resource.name, body, Side::Backup)?,
                )
            }
            None => (&self.rewrite, shaped),
        };
        rewrite.stamp(&mut wanted)?;
        if let Some(done) = self.source(job, &mut wanted).await? {
            return Ok(done);
        }
        let done = match job.known {
            Known::Nowhere if self.tries() => Ok(Done::new(
                Action::Untried,
                "its namespace does not exist yet",
            )),
            Known::Absent | Known::Unasked if self.sends() => {
                self.create(job, rewrite, &wanted).await
            }
            Known::Absent | Known::Nowhere => Ok(Done::new(Action::Created, "")),
            _ => match self.find(job).await? {
                Some(live) => self.stands(job, rewrite, &wanted, &live).await,
                None if self.sends() => self.create(job, rewrite, &wanted).await,
                None => Ok(Done::new(Action::Created, "")),
            },
        };
        let done = match done {
            Err(Stop::Api(refused)) => self.put_back_earlier(job, &wanted, refused).await,
            done => done,
        }?;
        self.settle_earlier(job, &done).await;
        if asks && !self.is_dry() && matches!(done.action, Action::Created | Action::Recreated) {
            let namespace = job.namespace.as_deref().unwrap_or_default();
            self.made.note(namespace, &job.name);
        }
        let naming = Naming::of(job, &wanted);
        let warning = bound.warning.or(naming.waits);
        let mut done = match warning {
            Some(warning) if done.action == Action::Created => Done {
                reason: warning,
                ..done.warn()
            },
            _ => done,
        };
        done.names_volume = naming.names_volume;
        Ok(done.rewritten(&wanted))
    }

    async fn find(&self, job: &Job) -> Result<Option<Bytes>, ApiError> {
        target::find(
            &self.cluster,
            &job.target,
            job.namespace.as_deref(),
            &job.name,
        )
        .await
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// Whether everything is only tried.
    pub(super) fn tries(&self) -> bool {
        self.dry == Some(DryRun::Server)
    }

    /// Whether requests that change something are sent, and be it as a trial.
    fn sends(&self) -> bool {
        self.dry != Some(DryRun::Client)
    }

    /// The query of a request that changes something.
    fn query(&self, manager: &str) -> String {
        let manager: String = url::form_urlencoded::byte_serialize(manager.as_bytes()).collect();
        let trial = if self.tries() { "&dryRun=All" } else { "" };
        format!("?fieldManager={manager}{trial}")
    }

    async fn patch(&self, job: &Job, patch: Vec<u8>) -> Result<Bytes, ApiError> {
        let path = self.object_path(job, MANAGER);
        let call = Call {
            accept: METADATA,
            ..Call::merge_patch(&path, patch.into())
        };
        patiently(|| self.cluster.send(&call)).await
    }

    /// Where the object is changed.
    fn object_path(&self, job: &Job, manager: &str) -> String {
        let path = job.target.object_path(job.namespace.as_deref(), &job.name);
        format!("{path}{}", self.query(manager))
    }

    /// An object of that name stands in the target.
    async fn stands(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        wanted: &Shaped<'_>,
        live: &[u8],
    ) -> Result<Done, Stop> {
        let metadata = Metadata::read(live);
        let uid = Uuid::parse_str(&metadata.uid).ok();
        if metadata.deletion_timestamp.is_some() {
            if self.is_dry() && job.resource.name == order::NAMESPACES {
                return Ok(Done::new(
                    Action::Created,
                    "once the one that is being deleted is gone",
                ));
            }
            return Ok(
                Done::new(Action::Failed, "an object of that name is being deleted").again(),
            );
        }
        if metadata.is_of(&rewrite.restore, &wanted.uid) {
            if metadata.is_unfinished() && !self.is_dry() {
                return Ok(self.complete(job, wanted, &metadata).await.uid(uid));
            }
            return Ok(restored_before(uid));
        }
        let skipped = |reason: &str| Done::new(Action::Skipped, reason).uid(uid);
        let shaped = rewrite.shape(&job.resource.name, live, Side::Live)?;
        let plain = rewrite.shape(&job.resource.name, &job.object.body, Side::Backup)?;
        let difference = merge::diff(&shaped.object, &plain.object)?;
        if difference.is_empty() {
            return Ok(skipped("it exists and is the same"));
        }
        if job.resource.name == "serviceaccounts" {
            return self.join_account(job, &shaped, &plain, uid).await;
        }
        if plan::keeps_its_own(&job.resource.name, &job.name) {
            return Ok(skipped("the cluster keeps its own"));
        }
        match self.existing {
            ExistingPolicy::None => {
                Ok(skipped("it exists and differs from the one in the backup").warn())
            }
            ExistingPolicy::Update => self.update(job, &shaped, wanted, uid).await,
            ExistingPolicy::Recreate => self.recreate(job, rewrite, &shaped, wanted, live).await,
            ExistingPolicy::Apply { force } => {
                self.apply_fields(job, &plain, &difference, uid, force)
                    .await
            }
        }
    }

    /// The backup's fields over the live object's; where the server refuses, its labels alone, as Velero does: that is a failure all the same,
    /// for what was asked for is not there.
    async fn update(
        &self,
        job: &Job,
        live: &Shaped<'_>,
        wanted: &Shaped<'_>,
        uid: Option<Uuid>,
    ) -> Result<Done, Stop> {
        let updated = Done::new(Action::Updated, "").uid(uid);
        if !self.sends() {
            return Ok(updated);
        }
        let patch = merge::diff(&live.object, &wanted.object)?;
        let Err(error) = self.patch(job, patch.to_vec()).await else {
            return Ok(updated.mine());
        };
        if error.code == 0 || error.code == 401 || self.tries() {
            return Err(error.into());
        }
        let labels = json!({"metadata": {"labels": self.labels()}});
        match self.patch(job, labels.to_string().into_bytes()).await {
            Ok(_) => {
                let reason = format!("only its labels were updated: {error}");
                Ok(Done::new(Action::Failed, reason).uid(uid).again())
            }
            Err(_) => Err(error.into()),
        }
    }

    /// The labels that tell whence an object is.
    fn labels(&self) -> Value {
        json!({LABEL_BACKUP: self.rewrite.backup, LABEL_RESTORE: self.rewrite.restore})
    }
}

fn restored_before(uid: Option<Uuid>) -> Done {
    Done::new(Action::Skipped, "this restore made it in an earlier run")
        .uid(uid)
        .mine()
}
