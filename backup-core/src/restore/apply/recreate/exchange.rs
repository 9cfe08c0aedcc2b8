//! The deletion of an object and the creation of the one in its place, or the return of the old one: steps 3 to 5 of the page of [`super`].

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

use super::super::super::Action;
use super::super::super::patience::{back_off, patiently};
use super::super::super::rewrite::{MANAGER, Rewrite, Shaped};
use super::super::super::target::Metadata;
use super::super::{Applier, Done, Job, Stop, manager};
use super::failed;
use super::judge::patience;
use crate::cluster::{ApiError, Call};
use crate::error::{Error, Result};

/// Attempts to have the one or the other where both are refused: about a quarter of a minute.
const ATTEMPTS: u32 = 8;

impl Applier {
    /// Sends the delete of just this object.
    pub(super) async fn remove(&self, job: &Job, metadata: &Metadata) -> Result<(), ApiError> {
        let mut options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan",
            "preconditions": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        });
        if self.tries() {
            options["dryRun"] = json!(["All"]);
        }
        let path = job.target.object_path(job.namespace.as_deref(), &job.name);
        let call = Call::delete(&path, options.to_string().into());
        patiently(|| self.cluster.send(&call)).await.map(drop)
    }

    /// Whether the object of this uid was deleted, be it gone or on its way.
    async fn is_going(&self, job: &Job, uid: &str) -> Result<bool, Stop> {
        let Some(live) = self.find(job).await? else {
            return Ok(true);
        };
        let live = Metadata::read(&live);
        Ok(live.uid == uid && live.deletion_timestamp.is_some())
    }

    /// Keeps it, deletes it, creates the other.
    pub(super) async fn exchange(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        wanted: &Shaped<'_>,
        live: &[u8],
        metadata: &Metadata,
    ) -> Result<Exchanged, Stop> {
        let Some(kept) = &self.kept else {
            return Err(Error::other("a restore that keeps nothing may delete nothing").into());
        };
        let key = match kept.keep(job, live).await {
            Ok(key) => key,
            Err(e) => {
                return Ok(Exchanged::Left(failed(format!(
                    "left as it is, for it could not be kept before its deletion: {}",
                    e.sentence()
                ))));
            }
        };
        match self.remove(job, metadata).await {
            Ok(()) => {}
            Err(e) if e.is_not_found() => {}
            // The answer to a delete may have been lost, and an object on its way has another revision.
            Err(e) if e.is_conflict() && self.is_going(job, &metadata.uid).await? => {}
            Err(e) if e.is_conflict() => {
                kept.forget(&key).await;
                return Ok(Exchanged::Left(failed(
                    "left as it is, for somebody changed it meanwhile",
                )));
            }
            Err(e) => {
                // What the server refused was not done.
                if (400..500).contains(&e.code) {
                    kept.forget(&key).await;
                }
                return Err(e.into());
            }
        }
        self.deletions.deleted(job);
        if !self.gone(job, &metadata.uid, patience(live)).await? {
            let done = failed(format!(
                "it was deleted and does not go; the same command creates the other one when it is gone. It is kept as {}",
                kept.shown(&key)
            ));
            let orphans = self.find(job).await?.is_some_and(|live| orphaning(&live));
            return Ok(if orphans {
                Exchanged::Hangs(done)
            } else {
                Exchanged::Done(done)
            });
        }
        let mut lost = false;
        let query = self.query(manager(wanted));
        let body = Bytes::from(wanted.object.to_vec());
        let made = match self.post(job, &query, body, &mut lost).await {
            Ok(made) => Some(Metadata::read(&made)),
            Err(e) if lost && e.is_already_exists() => self
                .find(job)
                .await?
                .map(|live| Metadata::read(&live))
                .filter(|live| live.is_of(&rewrite.restore, &wanted.uid)),
            Err(e) if e.is_already_exists() => None,
            Err(e) => {
                let done = match Stop::from(e) {
                    Stop::Api(e) => self.put_back(job, wanted, e, &key).await?,
                    fatal => return Err(fatal),
                };
                return Ok(Exchanged::Done(done));
            }
        };
        self.deletions.settle(job, &key);
        Ok(Exchanged::Done(match made {
            Some(metadata) => Done {
                action: Action::Recreated,
                ..self.made(job, wanted, &metadata).await
            },
            None => failed(format!(
                "somebody made another one as soon as it was deleted; the one that stood is kept as {}",
                kept.shown(&key)
            )),
        }))
    }

    /// What a refused create is, where an object was deleted for it.
    pub(in super::super) async fn put_back_earlier(
        &self,
        job: &Job,
        wanted: &Shaped<'_>,
        refused: ApiError,
    ) -> Result<Done, Stop> {
        let Some(kept) = &self.kept else {
            return Err(refused.into());
        };
        let missing = self.deletions.is_missing(job);
        if !missing && self.deletions.earlier.is_none() {
            return Err(refused.into());
        }
        match Stop::from(refused.clone()) {
            Stop::Api(_) => {}
            fatal => return Err(fatal),
        }
        if !matches!(self.find(job).await, Ok(None)) {
            return Err(refused.into());
        }
        let key = match kept.newest_key(job).await {
            Ok(Some(key)) => key,
            Ok(None) => return Err(refused.into()),
            Err(e) => {
                return Ok(failed(format!(
                    "{refused}; and whether one is kept that stood there before can not be told: {}",
                    e.sentence()
                )));
            }
        };
        // What an earlier run brought back went since, and not by this restore.
        if !missing && self.deletions.was_settled(kept, &key).await {
            return Err(refused.into());
        }
        self.put_back(job, wanted, refused, &key).await
    }

    /// Where an earlier run left an object missing and its place is taken now, nothing is owed any more.
    pub(in super::super) async fn settle_earlier(&self, job: &Job, done: &Done) {
        let (Some(kept), Some(_)) = (&self.kept, &self.deletions.earlier) else {
            return;
        };
        if matches!(done.action, Action::Failed | Action::Untried) {
            return;
        }
        if let Some(key) = self.deletions.owed(kept, job).await {
            self.deletions.settle(job, &key);
        }
    }

    /// Puts back what was kept, because the other was refused. Where that is refused too, both are tried in turn for a while: a quota is
    /// counted a little later.
    async fn put_back(
        &self,
        job: &Job,
        wanted: &Shaped<'_>,
        refused: ApiError,
        key: &str,
    ) -> Result<Done, Stop> {
        let Some(kept) = &self.kept else {
            return Err(refused.into());
        };
        let before = match kept.read(job, key).await {
            Ok(Some(before)) => before,
            Ok(None) => return Err(refused.into()),
            Err(e) => {
                return Ok(failed(format!(
                    "it is missing now: it was deleted, the one of the backup was refused ({refused}), and the kept one can not be read: {}",
                    e.sentence()
                )));
            }
        };
        let anew = Bytes::from(wanted.object.to_vec());
        let mut also = ApiError::default();
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                back_off(attempt).await;
                let query = self.query(manager(wanted));
                match self.post(job, &query, anew.clone(), &mut false).await {
                    Ok(made) => {
                        self.deletions.settle(job, key);
                        return Ok(Done {
                            action: Action::Recreated,
                            ..self.made(job, wanted, &Metadata::read(&made)).await
                        });
                    }
                    Err(e) => match Stop::from(e) {
                        Stop::Api(_) => {}
                        fatal => return Err(fatal),
                    },
                }
            }
            match self
                .post(job, &self.query(MANAGER), before.clone(), &mut false)
                .await
            {
                Ok(_) => {
                    self.deletions.settle(job, key);
                    return Ok(failed(format!(
                        "the one of the backup was refused, and the one that stood was put back: {refused}"
                    )));
                }
                Err(e) if e.is_already_exists() => {
                    self.deletions.settle(job, key);
                    return Err(refused.into());
                }
                Err(e) => match Stop::from(e) {
                    Stop::Api(e) => also = e,
                    fatal => return Err(fatal),
                },
            }
        }
        Ok(failed(format!(
            "it is missing now: it was deleted, the one of the backup was refused ({refused}), and so was the one that stood ({also}). \
             The same command tries again; by hand: gunzip -c FILE | kubectl create -f - with the file {}",
            kept.shown(key)
        )))
    }
}

/// How an exchange ended.
pub(super) enum Exchanged {
    /// Nothing was deleted.
    Left(Done),
    /// It was deleted, and goes on.
    Done(Done),
    /// It was deleted, and nobody takes its name off what it owns.
    Hangs(Done),
}

impl Exchanged {
    pub(super) fn done(self) -> Done {
        match self {
            Self::Left(done) | Self::Done(done) | Self::Hangs(done) => done,
        }
    }
}

/// Whether an object waits for the garbage collector.
fn orphaning(live: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(default)]
        finalizers: Option<Vec<String>>,
    }
    serde_json::from_slice::<Object>(live).is_ok_and(|object| {
        let finalizers = object.metadata.finalizers.iter().flatten();
        finalizers.into_iter().any(|name| name == "orphan")
    })
}
