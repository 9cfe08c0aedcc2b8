//! An object's status, where it comes back: written through the status subresource of what was just created.

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;

use super::{Applier, Job, MANAGER, METADATA, Metadata, Shaped, patiently, target};
use crate::cluster::{ApiError, Call};
use crate::error::{Error, Result};
use crate::raw::RawObject;
use crate::restore::patience::back_off;

/// Attempts where a controller changes the object meanwhile.
const ATTEMPTS: u32 = 6;

impl Applier {
    /// Gives a created object the status it had in the backup, where that is wanted. What admission and controllers made of the object since stays,
    /// but for the status: with a status some kinds take annotations and finalizers as well, so the live object is what is sent.
    ///
    /// # Errors
    /// The server's: a kind without a status of its own takes none.
    pub(super) async fn give_status(
        &self,
        job: &Job,
        wanted: &Shaped<'_>,
        made: &Metadata,
    ) -> Result<(), ApiError> {
        let Some(status) = &wanted.status else {
            return Ok(());
        };
        let path = format!(
            "{}/status?fieldManager={MANAGER}",
            job.target.object_path(job.namespace.as_deref(), &job.name)
        );
        let mut attempt = 0;
        loop {
            let namespace = job.namespace.as_deref();
            let live = target::find(&self.cluster, &job.target, namespace, &job.name).await?;
            let Some(live) = live.filter(|live| Metadata::read(live).uid == made.uid) else {
                return Err(ApiError {
                    message: "it is gone, or another object has its name now".to_owned(),
                    ..ApiError::default()
                });
            };
            let body = body(&live, status).map_err(unreadable)?;
            let call = Call {
                method: Method::PUT,
                accept: METADATA,
                ..Call::post(&path, body)
            };
            match patiently(|| self.cluster.send(&call)).await {
                Ok(_) => return Ok(()),
                Err(e) if e.is_conflict() && attempt < ATTEMPTS => {
                    attempt += 1;
                    back_off(attempt).await;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// An object with another status; its revision is in it, so that nothing newer is written over.
fn body(object: &[u8], status: &str) -> Result<Bytes> {
    let mut object = RawObject::from_slice(object)?;
    let raw: &RawValue = serde_json::from_str(status)
        .map_err(|e| Error::corrupt("the status is no JSON").because(e))?;
    object.set("status", &raw)?;
    Ok(Bytes::from(object.to_vec()))
}

fn unreadable(e: Error) -> ApiError {
    ApiError {
        message: e.to_string(),
        ..ApiError::default()
    }
}
