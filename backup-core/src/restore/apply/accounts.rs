//! Service accounts that stand.

use serde_json::Value;
use uuid::Uuid;

use super::super::rewrite::Shaped;
use super::{Action, Applier, Done, Job, Stop};
use crate::error::Result;
use crate::raw::RawObject;

impl Applier {
    /// Service accounts are made by the cluster before anybody restores them, so they are always merged: secrets, pull secrets, and the labels and
    /// annotations that are missing.
    pub(super) async fn join_account(
        &self,
        job: &Job,
        live: &Shaped<'_>,
        wanted: &Shaped<'_>,
        uid: Option<Uuid>,
    ) -> Result<Done, Stop> {
        let patch = join_account(&live.object, &wanted.object)?;
        if patch.is_empty() {
            return Ok(Done::new(Action::Skipped, "it exists and lacks nothing").uid(uid));
        }
        if self.sends() {
            self.patch(job, patch.to_vec()).await?;
        }
        Ok(Done::new(Action::Updated, "secrets, labels and annotations it lacked").uid(uid))
    }
}

/// What a live service account lacks of the backup's, as a merge patch.
fn join_account(live: &RawObject<'_>, wanted: &RawObject<'_>) -> Result<RawObject<'static>> {
    use serde_json::Map;
    let mut patch = RawObject::default();
    for key in ["secrets", "imagePullSecrets"] {
        let mut have: Vec<Value> = live.read(key)?.unwrap_or_default();
        let before = have.len();
        for item in wanted.read::<Vec<Value>>(key)?.unwrap_or_default() {
            if !have.iter().any(|other| other["name"] == item["name"]) {
                have.push(item);
            }
        }
        if have.len() > before {
            patch.set(key, &have)?;
        }
    }
    let have: Map<String, Value> = live.read("metadata")?.unwrap_or_default();
    let want: Map<String, Value> = wanted.read("metadata")?.unwrap_or_default();
    let mut metadata = Map::new();
    for key in ["labels", "annotations"] {
        let lacking: Map<String, Value> = want
            .get(key)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(name, _)| have.get(key).is_none_or(|h| h.get(name.as_str()).is_none()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !lacking.is_empty() {
            metadata.insert(key.to_owned(), Value::Object(lacking));
        }
    }
    if !metadata.is_empty() {
        patch.set("metadata", &metadata)?;
    }
    Ok(patch)
}
