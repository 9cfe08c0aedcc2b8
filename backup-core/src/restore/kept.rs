//! What a restore deletes it keeps before: the object that stands, in `restores/<name>/kept/<place>/<moment>.json.gz`, or below the user's own
//! folder where the location takes no writes or asks for signatures. `<place>` is the first 32 hex digits of the SHA-256 of `resource namespace name` (of the
//! target, with a space after each, the namespace empty where there is none), `<moment>` the milliseconds since 1970 in 15 digits: the
//! greatest is what stood there last.
//!
//! The file is the object's JSON as it was served, without its status and without what a server refuses of a new one: in its metadata
//! `resourceVersion`, `uid`, `creationTimestamp`, `generation`, `selfLink`, `managedFields`; elsewhere what a restore takes from its kind too. So `gunzip -c FILE | kubectl create -f -` puts it back by hand. It is durable before
//! the delete is sent. Nothing removes it but the removal of the restore's record: it is also how a user finds what was there before.
//!
//! This module writes and reads these files. When something is deleted or put back is [`super::apply`]'s matter.

use std::collections::HashMap;
use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::apply::Job;
use super::place::Place;
use super::report;
use super::rewrite::{self, Rewrite, Side};
use crate::error::{Error, Result};
use crate::layout::RestoreKeys;
use crate::raw::RawObject;

/// No object is larger, packed; and none is larger as it is.
const LARGEST_FILE: u64 = 8 << 20;
const LARGEST_OBJECT: u64 = 64 << 20;

/// What a server sets, and a new object must not bring.
const SET_BY_SERVER: [&str; 6] = [
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "generation",
    "selfLink",
    "managedFields",
];

/// Where one restore keeps them.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) keys: RestoreKeys,
}

impl Kept {
    /// Keeps a live object; when this returns, it is durable. Gives back its key.
    ///
    /// # Errors
    /// The store's; `Corrupt`, when the body is no object.
    pub(super) async fn keep(&self, job: &Job, live: &[u8]) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        // A clock that goes behind must not make it the older one.
        let newest = self.newest_key(job).await?;
        let newest = newest.as_deref().and_then(moment);
        let moment = newest.map_or(now, |newest| now.max(newest.saturating_add(1)));
        let key = self.keys.kept(&digest(job), moment);
        self.place
            .put(&key, report::gzip(&anew(&job.resource.name, live)?)?)
            .await?;
        Ok(key)
    }

    /// Where a key is, for people.
    pub(super) fn shown(&self, key: &str) -> String {
        match &self.place {
            Place::Store(store) => format!("{}/{key}", store.place()),
            Place::Folder(folder) => folder.join(key).display().to_string(),
        }
    }

    /// The key of what was deleted last of this place.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn newest_key(&self, job: &Job) -> Result<Option<String>> {
        let folder = self.keys.kept_folder(&digest(job));
        Ok(self.place.list(&folder).await?.into_iter().max())
    }

    /// The newest key of every place, by the place's digest.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn all(&self) -> Result<HashMap<String, String>> {
        let mut all = HashMap::new();
        let mut keys = self.place.list(&self.keys.all_kept()).await?;
        keys.sort();
        for key in keys {
            if let Some(place) = key.rsplit('/').nth(1) {
                all.insert(place.to_owned(), key);
            }
        }
        Ok(all)
    }

    /// Removes what was kept for a deletion that did not come.
    pub(super) async fn forget(&self, key: &str) {
        // One too many is no harm.
        let _ = self.place.remove(key).await;
    }

    /// What is kept there.
    ///
    /// # Errors
    /// The store's; `Corrupt`, when it is no object, or another one.
    pub(super) async fn read(&self, job: &Job, key: &str) -> Result<Option<Bytes>> {
        let Some(packed) = self.place.find_within(key, LARGEST_FILE).await? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        GzDecoder::new(&packed[..])
            .take(LARGEST_OBJECT)
            .read_to_end(&mut text)
            .map_err(|e| Error::corrupt(format!("{key} is no gzip file")).because(e))?;
        let object = RawObject::from_slice(&text)
            .map_err(|e| e.context(format!("{key} can not be read")))?;
        let metadata = RawObject::parse(object.get("metadata").unwrap_or("{}"))?;
        let is = |key: &str, wanted: Option<&str>| matches!(metadata.read::<String>(key), Ok(text) if text.as_deref() == wanted);
        // Whoever may write the bucket could put another object in the place of this one.
        if !(is("name", Some(&job.name)) && is("namespace", job.namespace.as_deref())) {
            return Err(Error::corrupt(format!("{key} holds another object")));
        }
        Ok(Some(text.into()))
    }
}

/// The moment of a key.
fn moment(key: &str) -> Option<u64> {
    let (_, file) = key.rsplit_once('/')?;
    file.strip_suffix(".json.gz")?.parse().ok()
}

pub(super) fn digest(job: &Job) -> String {
    let namespace = job.namespace.as_deref().unwrap_or_default();
    let text = format!("{} {namespace} {} ", job.resource.name, job.name);
    let mut digest = rewrite::sha256(text.as_bytes());
    digest.truncate(32);
    digest
}

/// The object as one that can be created.
fn anew(resource: &str, live: &[u8]) -> Result<Vec<u8>> {
    let original = RawObject::from_slice(live)?;
    let Some(metadata) = original.get("metadata") else {
        return Err(Error::corrupt("not a Kubernetes object"));
    };
    let mut metadata = RawObject::parse(metadata)?;
    for key in SET_BY_SERVER {
        metadata.remove(key);
    }
    let mut object = Rewrite::default().shape(resource, live, Side::Live)?.object;
    object.set("metadata", &metadata)?;
    Ok(object.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_can_be_created_again_as_it_stood() {
        let live = br#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"name":"j","namespace":"n","uid":"u","resourceVersion":"7",
            "creationTimestamp":"2026-01-01T00:00:00Z","generation":1,"managedFields":[],"labels":{"velero.io/restore-name":"before"},
            "ownerReferences":[{"kind":"ConfigMap","name":"o","uid":"v"}]},
            "spec":{"selector":{"matchLabels":{"controller-uid":"u"}},"template":{"metadata":{"labels":{"controller-uid":"u","a":"b"}}}},"status":{"active":1}}"#;
        let anew: serde_json::Value =
            serde_json::from_slice(&anew("jobs.batch", live).unwrap()).unwrap();
        assert_eq!(
            anew["metadata"],
            serde_json::json!({"name": "j", "namespace": "n", "labels": {"velero.io/restore-name": "before"},
                "ownerReferences": [{"kind": "ConfigMap", "name": "o", "uid": "v"}]})
        );
        // The server makes these of the new uid.
        assert!(
            !anew["spec"].to_string().contains("controller-uid"),
            "{anew}"
        );
        assert!(anew["status"].is_null());
        assert!(super::anew("configmaps", b"{}").is_err());
    }
}
