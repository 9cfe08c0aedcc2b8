//! Gives restored objects their owners back: an old uid in an owner reference becomes the uid the owner has in the target.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::patience::{back_off, patiently};
use super::rewrite::MANAGER;
use super::target::{self, Metadata};
use crate::cluster::{ApiError, Call, Cluster};
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Result};
use crate::raw::RawObject;

/// Attempts after the first where somebody else changes the object meanwhile: about a quarter of a minute.
const ATTEMPTS: u32 = 8;

/// An owner's old uid, and the namespace it was looked for in.
type Asked = (String, Option<String>);

/// Old uids and what they are now.
pub(super) struct Owners {
    cluster: Cluster,
    served: Served,
    /// Value of the label of this restore.
    restore: String,
    known: HashMap<Uuid, Uuid>,
    /// Owners that are not part of this restore and were looked for.
    asked: Mutex<HashMap<Asked, Option<Uuid>>>,
}

/// An object whose owners come back.
pub(super) struct Child {
    pub(super) target: Arc<ApiResource>,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// Its uid in the backup.
    pub(super) uid: String,
    /// Its owner references in the backup, a JSON list.
    pub(super) references: String,
}

/// What came of one child.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rewired {
    /// Whether it was changed.
    pub(super) patched: bool,
    /// References that point to nothing in the target.
    pub(super) dropped: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    controller: Option<bool>,
}

impl Owners {
    pub(super) fn new(
        cluster: Cluster,
        served: Served,
        restore: String,
        known: HashMap<Uuid, Uuid>,
    ) -> Self {
        Self {
            cluster,
            served,
            restore,
            known,
            asked: Mutex::default(),
        }
    }

    /// Gives one object its owners back: read, add, write with its revision; again where somebody was faster.
    ///
    /// # Errors
    /// What the server refuses.
    pub(super) async fn rewire(&self, child: &Child) -> Result<Rewired> {
        let mut rewired = Rewired::default();
        let mut wanted = Vec::new();
        let mut uids = Vec::new();
        let references: Vec<&RawValue> = serde_json::from_str(&child.references)
            .map_err(|e| Error::corrupt("ownerReferences can not be read").because(e))?;
        for text in references {
            let reference: Reference = serde_json::from_str(text.get())
                .map_err(|e| Error::corrupt("an owner reference can not be read").because(e))?;
            match self.resolve(&reference, child.namespace.as_deref()).await? {
                Some(uid) => {
                    wanted.push((self.served_text(&reference, text.get())?, uid));
                    uids.push((reference.uid, uid));
                }
                None => rewired
                    .dropped
                    .push(format!("{}/{}", reference.kind, reference.name)),
            }
        }
        if wanted.is_empty() {
            return Ok(rewired);
        }
        let path = format!(
            "{}?fieldManager={MANAGER}",
            child
                .target
                .object_path(child.namespace.as_deref(), &child.name)
        );
        let mut attempt = 0;
        loop {
            let live = target::find_metadata(
                &self.cluster,
                &child.target,
                child.namespace.as_deref(),
                &child.name,
            )
            .await?;
            let Some(live) = live else { break };
            let metadata = Metadata::read(&live);
            if !metadata.is_of(&self.restore, &child.uid) {
                break;
            }
            let object = RawObject::from_slice(&live)?;
            let raw = object.get("metadata").unwrap_or("{}");
            let labels = relabel(raw, &uids)?;
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(text, uid)| (text.as_str(), *uid))
                .collect();
            let Some(list) = join(raw, &wanted)? else {
                break;
            };
            let list: &RawValue = serde_json::from_str(&list)
                .map_err(|e| Error::corrupt("ownerReferences can not be read").because(e))?;
            let mut patch = RawObject::default();
            let mut inner = RawObject::default();
            inner.set("resourceVersion", &json!(metadata.resource_version))?;
            inner.set("ownerReferences", &list)?;
            if !labels.is_empty() {
                inner.set("labels", &labels)?;
            }
            patch.set("metadata", &inner)?;
            let call = Call {
                accept: target::METADATA,
                ..Call::merge_patch(&path, patch.to_vec().into())
            };
            match patiently(|| self.cluster.send(&call)).await {
                Ok(_) => {
                    rewired.patched = true;
                    break;
                }
                Err(e) if e.is_conflict() && attempt < ATTEMPTS => {
                    attempt += 1;
                    back_off(attempt).await;
                }
                Err(e) if e.is_not_found() => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(rewired)
    }

    /// The owner's kind as the target serves it: in its own version, else in the one it prefers.
    fn api(&self, reference: &Reference) -> Option<&Arc<ApiResource>> {
        let (group, _) = reference.api_version.split_once('/').unwrap_or_default();
        let same = |api: &&Arc<ApiResource>| api.kind == reference.kind && api.group == group;
        let mut all = self.served.all.iter().filter(same);
        let exact = all
            .clone()
            .find(|api| api.api_version() == reference.api_version);
        exact.or_else(|| all.next())
    }

    /// A reference in a version that is served: a garbage collector looks for the owner in the version it is told.
    fn served_text(&self, reference: &Reference, text: &str) -> Result<String> {
        let served = self.api(reference).map(|api| api.api_version());
        let Some(version) = served.filter(|version| *version != reference.api_version) else {
            return Ok(text.to_owned());
        };
        let mut object = RawObject::parse(text)?;
        object.set("apiVersion", &version)?;
        as_text(&object)
    }

    /// The uid that an owner has now: as restored, or the one that still stands in the target, if it is the same object or was restored from it.
    async fn resolve(
        &self,
        reference: &Reference,
        namespace: Option<&str>,
    ) -> Result<Option<Uuid>, ApiError> {
        let Ok(old) = Uuid::parse_str(&reference.uid) else {
            return Ok(None);
        };
        if let Some(new) = self.known.get(&old) {
            return Ok(Some(*new));
        }
        let key = (reference.uid.clone(), namespace.map(str::to_owned));
        let asked = self
            .asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .copied();
        if let Some(known) = asked {
            return Ok(known);
        }
        let mut found = None;
        if let Some(api) = self.api(reference) {
            let namespace = namespace.filter(|_| api.namespaced);
            match target::find_metadata(&self.cluster, api, namespace, &reference.name).await {
                Ok(Some(live)) => {
                    let live = Metadata::read(&live);
                    if live.deletion_timestamp.is_none()
                        && (live.uid == reference.uid
                            || live.old_uid() == Some(reference.uid.as_str()))
                    {
                        found = Uuid::parse_str(&live.uid).ok();
                    }
                }
                Ok(None) => {}
                Err(e) if e.is_forbidden() => {}
                Err(e) => return Err(e),
            }
        }
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, found);
        Ok(found)
    }
}

/// The owner references an object gets: those it has, and the wanted ones with their new uids that it lacks. An object that a controller has taken
/// meanwhile gets no second one. Nothing where nothing is to be added.
fn join(metadata: &str, wanted: &[(&str, Uuid)]) -> Result<Option<String>> {
    let corrupt = |e| Error::corrupt("ownerReferences of a live object can not be read").because(e);
    let metadata = RawObject::parse(metadata)?;
    let live: Vec<&RawValue> = metadata.read("ownerReferences")?.unwrap_or_default();
    let mut list: Vec<String> = Vec::new();
    let mut uids: Vec<String> = Vec::new();
    let mut controlled = false;
    for text in live {
        let reference: Reference = serde_json::from_str(text.get()).map_err(corrupt)?;
        controlled |= reference.controller == Some(true);
        uids.push(reference.uid);
        list.push(text.get().to_owned());
    }
    let before = list.len();
    for (text, uid) in wanted {
        let reference: Reference = serde_json::from_str(text).map_err(corrupt)?;
        let uid = uid.to_string();
        if uids.contains(&uid) || (controlled && reference.controller == Some(true)) {
            continue;
        }
        controlled |= reference.controller == Some(true);
        let mut object = RawObject::parse(text)?;
        object.set("uid", &uid)?;
        list.push(as_text(&object)?);
        uids.push(uid);
    }
    Ok((list.len() > before).then(|| format!("[{}]", list.join(","))))
}

fn as_text(object: &RawObject<'_>) -> Result<String> {
    String::from_utf8(object.to_vec())
        .map_err(|e| Error::corrupt("an owner reference is not text").because(e))
}

/// Labels that hold an owner's old uid, with the new one: a job's pods are its own only if their label says so.
fn relabel(metadata: &str, uids: &[(String, Uuid)]) -> Result<BTreeMap<String, String>> {
    let labels: Option<BTreeMap<String, String>> = RawObject::parse(metadata)?.read("labels")?;
    Ok(labels
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(key, value)| {
            let (_, new) = uids.iter().find(|(old, _)| *old == value)?;
            Some((key, new.to_string()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00000000-0000-0000-0000-00000000000a";
    const B: &str = "00000000-0000-0000-0000-00000000000b";

    fn joined(live: &str, wanted: &[(&str, &str)]) -> Option<String> {
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(text, uid)| (*text, Uuid::parse_str(uid).unwrap()))
            .collect();
        join(&format!(r#"{{"ownerReferences":{live}}}"#), &wanted).unwrap()
    }

    #[test]
    fn an_owner_comes_back_with_its_new_uid_and_everything_else_it_said() {
        let old = r#"{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"old","controller":true,"blockOwnerDeletion":true}"#;
        assert_eq!(
            joined("null", &[(old, A)]).unwrap(),
            format!("[{}]", old.replace("old", A))
        );
    }

    #[test]
    fn a_label_with_an_owners_old_uid_gets_the_new_one() {
        let uids = [("old".to_owned(), Uuid::parse_str(A).unwrap())];
        let labels = relabel(r#"{"labels":{"a":"b","controller-uid":"old"}}"#, &uids).unwrap();
        assert_eq!(
            labels,
            BTreeMap::from([("controller-uid".to_owned(), A.to_owned())])
        );
    }

    #[test]
    fn an_entry_already_there_is_kept_and_a_second_controller_is_never_added() {
        let live = format!(r#"[{{"kind":"ReplicaSet","uid":"{A}","controller":true}}]"#);
        let same = r#"{"kind":"ReplicaSet","uid":"old","controller":true}"#;
        assert_eq!(joined(&live, &[(same, A)]), None);
        assert_eq!(
            joined(&live, &[(same, B)]),
            None,
            "taken by another controller"
        );
        let plain = r#"{"kind":"ConfigMap","uid":"old"}"#;
        assert_eq!(
            joined(&live, &[(plain, B)]).unwrap(),
            format!(
                r#"[{{"kind":"ReplicaSet","uid":"{A}","controller":true}},{{"kind":"ConfigMap","uid":"{B}"}}]"#
            )
        );
        assert_eq!(
            joined("null", &[(same, A), (same, B)]).unwrap(),
            format!(r#"[{{"kind":"ReplicaSet","uid":"{A}","controller":true}}]"#),
        );
    }
}
