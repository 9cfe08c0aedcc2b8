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
    /// Gives a created object the status it had in the backup, where that is wanted. A controller that writes the object in between keeps what it
    /// wrote, but for the status.
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
        let mut body = body(&wanted.object.to_vec(), status, Some(made)).map_err(unreadable)?;
        let mut attempt = 0;
        loop {
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
                    let namespace = job.namespace.as_deref();
                    let live = target::find(&self.cluster, &job.target, namespace, &job.name);
                    let Some(live) = live.await? else {
                        return Err(e);
                    };
                    body = self::body(&live, status, None).map_err(unreadable)?;
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// An object with another status; of a created one the uid and the revision are set, so that nobody else's is written over.
fn body(object: &[u8], status: &str, made: Option<&Metadata>) -> Result<Bytes> {
    let mut object = RawObject::from_slice(object)?;
    let raw: &RawValue = serde_json::from_str(status)
        .map_err(|e| Error::corrupt("the status is no JSON").because(e))?;
    object.set("status", &raw)?;
    if let Some(made) = made {
        let text = object.get("metadata").unwrap_or("{}").to_owned();
        let mut metadata = RawObject::parse(&text)?;
        metadata.set("uid", &made.uid)?;
        metadata.set("resourceVersion", &made.resource_version)?;
        object.set("metadata", &metadata)?;
    }
    Ok(Bytes::from(object.to_vec()))
}

fn unreadable(e: Error) -> ApiError {
    ApiError {
        message: e.to_string(),
        ..ApiError::default()
    }
}
