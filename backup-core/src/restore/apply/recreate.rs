//! `recreate`: an object that stands and differs becomes what the backup holds even in fields that no server lets change. What the server
//! takes as a change (asked with `dryRun=All`) is changed in place, as by `update`. Only what it calls invalid (422) is deleted and
//! created anew. Nothing may be lost by it, whenever this program, the store or the server dies:
//!
//! 1. Only the kinds of [`judge::RECREATED`] are ever deleted: those of which a server refuses some changes, and whose deletion takes nothing else along.
//!    Everything else can be changed in place and is, as by `update`: a namespace, a definition, a claim or a volume would take data along; a
//!    service its addresses and load balancer; a binding perhaps our own rights; what stands behind an object of a custom kind nobody here
//!    knows. So is an object with finalizers, for somebody does something when it goes, and might not; one that a controller owns, for
//!    that would make another at once; a token, for somebody works with it; a job that runs, for its pods would run on beside the new
//!    ones; and a pod with volumes that go with it. An object that does not differ is left alone.
//! 2. The create is rehearsed (`dryRun=All`) while the object stands. The server must have nothing against it but that the name is
//!    taken; else the object is left as it is, and has failed.
//! 3. The object is kept where the journal is, see [`super::super::kept`]. Only when that is durable, the delete is sent.
//! 4. The delete names uid and resourceVersion, so that it hits what was looked at and nothing else, and orphans what the object owns: the garbage
//!    collector takes its name off, and nobody goes with it. Where no garbage collector works the object would hang there for ever, so
//!    the first one of a run goes alone; if it hangs, no other is deleted. What the new one does not select any more is told. A delete
//!    whose answer was lost is asked about: an object that is on its way was deleted.
//! 5. When it is gone, the one of the backup is created. If the server refuses it now, the kept one is put back, and it has failed; if that
//!    is refused too, it is told with its key, and tried again with everything else that failed.
//!
//! Killed before 4, nothing has happened. Killed later, the same command finds nothing there and creates the object, or finds it
//! going and waits; refused, it puts back what was kept, if the restore is unfinished or ended with something missing. Killed after 5, the object
//! bears this restore's mark and is left alone. The journal says what is settled, a new object or the old one in its place: whoever removes that
//! one afterwards means it, and nothing is put back. What is under way when the user interrupts is brought to its end.

mod deletions;
mod exchange;
mod judge;

use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::super::patience::patiently;
use super::super::rewrite::{MANAGER, Rewrite, Shaped};
use super::super::target::{METADATA, Metadata};
use super::super::{Action, DryRun, merge};
use super::{Applier, Done, Job, Stop, manager};
use crate::cluster::{ApiError, Call};

pub(in super::super) use deletions::Deletions;
use deletions::Passage;
use exchange::Exchanged;
pub(in super::super) use judge::is_recreated;
use judge::{orphans, stays};

/// How long an object may take to go; a pod besides as long as it may take to end.
pub(super) const GOING: Duration = Duration::from_secs(120);

fn failed(reason: impl Into<String>) -> Done {
    Done::new(Action::Failed, reason).again()
}

impl Applier {
    /// Changes in place what can be; else deletes what stands and creates what the backup holds.
    pub(super) async fn recreate(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        shaped: &Shaped<'_>,
        wanted: &Shaped<'_>,
        live: &[u8],
    ) -> Result<Done, Stop> {
        let done = self
            .change_or_replace(job, rewrite, shaped, wanted, live)
            .await?;
        if done.action != Action::Recreated {
            return Ok(done);
        }
        Ok(match orphans(job, live, &wanted.object.to_vec()) {
            Some(told) => Done {
                reason: match done.reason.as_str() {
                    "" => told,
                    reason => format!("{reason}; {told}"),
                },
                ..done.warn()
            },
            None => done,
        })
    }

    async fn change_or_replace(
        &self,
        job: &Job,
        rewrite: &Rewrite,
        shaped: &Shaped<'_>,
        wanted: &Shaped<'_>,
        live: &[u8],
    ) -> Result<Done, Stop> {
        let metadata = Metadata::read(live);
        if let Some(why) = stays(&job.resource.name, live)? {
            let uid = Uuid::parse_str(&metadata.uid).ok();
            return match self.update(job, shaped, wanted, uid).await {
                Ok(done) if done.action == Action::Updated => Ok(Done {
                    reason: format!("changed in place: {why}"),
                    ..done
                }),
                Ok(done) => Ok(Done {
                    reason: format!("{}; {why}", done.reason),
                    ..done
                }),
                Err(Stop::Api(e)) if !self.tries() => Ok(failed(format!("{e}; {why}"))),
                stopped => stopped,
            };
        }
        if self.dry == Some(DryRun::Client) {
            return Ok(Done::new(
                Action::Recreated,
                "unless the server lets it be changed in place",
            ));
        }
        match self.try_patch(job, shaped, wanted).await {
            Ok(()) => {
                let uid = Uuid::parse_str(&metadata.uid).ok();
                return self.update(job, shaped, wanted, uid).await;
            }
            Err(Stop::Api(e)) if e.code == 422 => {}
            Err(stopped) => return Err(stopped),
        }
        match self.rehearse(job, wanted).await {
            Ok(()) => {}
            Err(Stop::Api(e)) if !self.tries() => {
                return Ok(failed(format!(
                    "left as it is, for the one of the backup would be refused: {e}"
                )));
            }
            Err(stopped) => return Err(stopped),
        }
        if self.tries() {
            return match self.remove(job, &metadata).await {
                Ok(()) => Ok(Done::new(Action::Recreated, "")),
                Err(e) => Err(e.into()),
            };
        }
        let mut passage = self.deletions.passage.lock().await;
        match &*passage {
            Passage::Open => drop(passage),
            Passage::Blocked(other) => {
                return Ok(failed(format!(
                    "left as it is, for {other} was deleted and does not go: does the controller manager work?"
                )));
            }
            Passage::Untried => {
                let done = self.exchange(job, rewrite, wanted, live, &metadata).await;
                *passage = match &done {
                    Ok(Exchanged::Hangs(_)) => {
                        Passage::Blocked(format!("{} {}", job.resource.name, job.name))
                    }
                    Ok(Exchanged::Done(_)) => Passage::Open,
                    // Nothing was deleted.
                    Ok(Exchanged::Left(_)) | Err(_) => Passage::Untried,
                };
                return done.map(Exchanged::done);
            }
        }
        let done = self.exchange(job, rewrite, wanted, live, &metadata).await;
        done.map(Exchanged::done)
    }

    /// Whether the server would take it as a change of what stands.
    async fn try_patch(
        &self,
        job: &Job,
        live: &Shaped<'_>,
        wanted: &Shaped<'_>,
    ) -> Result<(), Stop> {
        let patch = Bytes::from(merge::diff(&live.object, &wanted.object)?.to_vec());
        let path = job.target.object_path(job.namespace.as_deref(), &job.name);
        let path = format!("{path}?fieldManager={MANAGER}&dryRun=All");
        let call = Call {
            accept: METADATA,
            ..Call::merge_patch(&path, patch)
        };
        patiently(|| self.cluster.send(&call)).await?;
        Ok(())
    }

    /// Whether the server would take it, were the name free.
    async fn rehearse(&self, job: &Job, wanted: &Shaped<'_>) -> Result<(), Stop> {
        let query = format!(
            "?fieldManager={}&dryRun=All",
            url::form_urlencoded::byte_serialize(manager(wanted).as_bytes()).collect::<String>()
        );
        let body = Bytes::from(wanted.object.to_vec());
        match self.post(job, &query, body, &mut false).await {
            Err(e) if e.is_already_exists() => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => Err(Stop::Api(ApiError {
                code: 404,
                message: "it went meanwhile".to_owned(),
                ..ApiError::default()
            })),
        }
    }
}
