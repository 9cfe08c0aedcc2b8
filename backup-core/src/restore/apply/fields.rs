//! `apply`: the backup's fields are applied to the object that stands, by server-side apply. What others own and the backup lacks stays.
//! A field that somebody else owns with another value is a conflict: told with its owner, and nothing of the object is changed, unless asked to take it
//! over.
//!
//! The marks of this restore are written afterwards by a patch: the marks of an earlier restore may belong to whoever owned the object in that
//! backup, and would be a conflict on their own.

use serde_json::json;
use uuid::Uuid;

use super::super::merge;
use super::super::patience::patiently;
use super::super::rewrite::{ANNOTATION_UID, MANAGER, Shaped};
use super::super::target::METADATA;
use super::{Action, Applier, Done, Job, Stop};
use crate::cluster::Call;
use crate::raw::RawObject;

impl Applier {
    /// Applies the backup's fields.
    pub(super) async fn apply_fields(
        &self,
        job: &Job,
        plain: &Shaped<'_>,
        difference: &RawObject<'_>,
        uid: Option<Uuid>,
        force: bool,
    ) -> Result<Done, Stop> {
        if merge::only_removes(difference)? {
            return Ok(Done::new(Action::Skipped, "it has all that the backup holds").uid(uid));
        }
        let updated = Done::new(Action::Updated, "").uid(uid);
        if !self.sends() {
            return Ok(updated);
        }
        let forced = if force { "&force=true" } else { "&force=false" };
        let path = format!("{}{forced}", self.object_path(job, MANAGER));
        let call = Call {
            accept: METADATA,
            ..Call::apply(&path, plain.object.to_vec().into())
        };
        match patiently(|| self.cluster.send(&call)).await {
            Ok(_) => {}
            Err(e) if e.is_conflict() => {
                return Ok(Done::new(
                    Action::Failed,
                    format!("{e}; --force-conflicts takes these fields over"),
                )
                .uid(uid));
            }
            Err(e) => return Err(e.into()),
        }
        if self.tries() {
            return Ok(updated);
        }
        let marks = json!({"metadata": {
            "labels": self.labels(), "annotations": {ANNOTATION_UID: plain.uid}}});
        self.patch(job, marks.to_string().into_bytes()).await?;
        Ok(updated.mine())
    }
}
