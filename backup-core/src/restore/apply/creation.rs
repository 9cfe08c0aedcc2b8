//! The creation of one object, to its end: the status and the managers that a create can not bring.

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::super::order;
use super::super::patience::Absence;
use super::super::rewrite::{Managers, Rewrite, Shaped, UNFINISHED};
use super::super::target::{METADATA, Metadata};
use super::{Action, Applier, Done, Job, Known, Stop, recreate};
use crate::cluster::{ApiError, Call};

/// How long a namespace may take to go.
const TERMINATING: Duration = Duration::from_secs(600);

impl Applier {
    /// Sends a new object, as long as the server is away. `lost` is whether an answer may have been: nobody knows whether that one was
    /// carried out. Asked again, the server says AlreadyExists then, and the object tells whose it is.
    pub(super) async fn post(
        &self,
        job: &Job,
        query: &str,
        body: Bytes,
        lost: &mut bool,
    ) -> Result<Bytes, ApiError> {
        let path = format!("{}{query}", job.target.path(job.namespace.as_deref()));
        let mut absence = Absence::default();
        loop {
            let call = Call {
                accept: METADATA,
                ..Call::post(&path, body.clone())
            };
            match self.cluster.send(&call).await {
                Err(error) if absence.passes(&error).await => *lost = true,
                answer => return answer,
            }
        }
    }

    /// What an object is that was just made.
    pub(super) async fn made(&self, job: &Job, wanted: &Shaped<'_>, metadata: &Metadata) -> Done {
        if self.is_dry() {
            return Done::new(Action::Created, "");
        }
        let uid = Uuid::parse_str(&metadata.uid).ok();
        self.complete(job, wanted, metadata).await.uid(uid)
    }

    pub(super) async fn create(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        wanted: &Shaped<'_>,
    ) -> Result<Done, Stop> {
        let query = self.query(manager(wanted));
        let body = Bytes::from(wanted.object.to_vec());
        let mut lost = false;
        loop {
            let error = match self.post(job, &query, body.clone(), &mut lost).await {
                Ok(made) => return Ok(self.made(job, wanted, &Metadata::read(&made)).await),
                Err(error) => error,
            };
            // Admission is asked before the server looks whether the name is taken.
            let may_stand = error.is_already_exists()
                || (matches!(job.known, Known::Unasked) && matches!(error.code, 403 | 422));
            if !may_stand {
                return Err(error.into());
            }
            let live = match self.find(job).await {
                Ok(Some(live)) => live,
                Ok(None) => return Err(error.into()),
                Err(e) if e.is_forbidden() && job.resource.name == order::NAMESPACES => {
                    // Who may work in one namespace only: its objects will tell.
                    return Ok(Done::new(
                        Action::Skipped,
                        "it may not be read and is taken for granted",
                    ));
                }
                Err(e) => return Err(e.into()),
            };
            let metadata = Metadata::read(&live);
            if lost && metadata.is_of(&rewrite.restore, &wanted.uid) {
                return Ok(self.made(job, wanted, &metadata).await);
            }
            let patience = if job.resource.name == order::NAMESPACES {
                TERMINATING
            } else if self.kept.is_some() {
                // An earlier run may have deleted it.
                recreate::GOING
            } else {
                Duration::ZERO
            };
            if metadata.deletion_timestamp.is_some()
                && !self.is_dry()
                && self.gone(job, &metadata.uid, patience).await?
            {
                continue;
            }
            return self.stands(job, rewrite, wanted, &live).await;
        }
    }

    /// Waits until an object that is being deleted is gone.
    pub(super) async fn gone(
        &self,
        job: &Job,
        uid: &str,
        patience: Duration,
    ) -> Result<bool, Stop> {
        let until = tokio::time::Instant::now() + patience;
        let mut pause = Duration::from_millis(20);
        while tokio::time::Instant::now() < until {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
            match self.find(job).await? {
                Some(live) if Metadata::read(&live).uid == uid => {}
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// What a create leaves to do: the status, and last, for it marks the object as finished, who managed the fields.
    pub(super) async fn complete(&self, job: &Job, wanted: &Shaped<'_>, made: &Metadata) -> Done {
        let status = self.give_status(job, wanted, made).await;
        let done = self.give_managers(job, wanted).await;
        match status {
            Ok(()) => done,
            Err(e) => {
                let reason = match done.reason.as_str() {
                    "" => format!("created, but its status was not restored: {e}"),
                    reason => format!("{reason}; nor was its status: {e}"),
                };
                Done {
                    reason,
                    ..done.warn()
                }
            }
        }
    }

    /// Where several managed the fields, a create could not tell.
    pub(super) async fn give_managers(&self, job: &Job, wanted: &Shaped<'_>) -> Done {
        let created = Done::new(Action::Created, "");
        let Managers::Several(entries) = &wanted.managers else {
            return created;
        };
        let patch = format!("{{\"metadata\":{{\"managedFields\":{entries}}}}}");
        match self.patch(job, patch.into_bytes()).await {
            Ok(_) => created,
            Err(e) => Done {
                reason: format!("created, but its managed fields were not restored: {e}"),
                ..created.warn()
            },
        }
    }
}

/// In whose name an object is created: with several managers in nobody's, until they are given back.
pub(super) fn manager<'s>(wanted: &'s Shaped<'_>) -> &'s str {
    match &wanted.managers {
        Managers::One(manager) => manager,
        Managers::Several(_) => UNFINISHED,
    }
}
