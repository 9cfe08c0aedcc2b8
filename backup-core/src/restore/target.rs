//! What the target has: names and marks of existing objects by metadata-only lists, one object by a GET.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use serde::Deserialize;
use uuid::Uuid;

use super::patience::patiently;
use super::rewrite::{ANNOTATION_UID, LABEL_RESTORE, UNFINISHED};
use crate::cluster::{ApiError, Call, Cluster};
use crate::discovery::ApiResource;
use crate::error::{Error, Result as Outcome};

/// `Accept` of a list of metadata alone.
const LIST: &str =
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// `Accept` of one object's metadata alone.
pub(super) const METADATA: &str =
    "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// Objects per page: metadata is small.
const PAGE: usize = 1000;
/// Up to so many namespaces are listed one by one.
const FEW_NAMESPACES: usize = 8;

/// An object of the target, small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Its uid, where it is a UUID.
    pub(super) uid: Option<Uuid>,
    /// The uid in the backup of the object from which this restore made it, whole.
    pub(super) made_from: Option<Uuid>,
    /// It is being deleted.
    pub(super) going: bool,
}

impl Seen {
    /// Whether this restore made it of the object that had this uid in the backup.
    pub(super) fn is_made_from(&self, old: &str) -> bool {
        self.made_from.is_some() && self.made_from == Uuid::parse_str(old).ok()
    }
}

/// The objects of one resource, by a digest of namespace and name.
#[derive(Debug, Default)]
pub(super) struct Seens(HashMap<(u64, u64), Seen>);

impl Seens {
    /// What is there of this name.
    pub(super) fn get(&self, namespace: Option<&str>, name: &str) -> Option<Seen> {
        self.0.get(&key(namespace, name)).copied()
    }
}

fn key(namespace: Option<&str>, name: &str) -> (u64, u64) {
    let (mut a, mut b) = (DefaultHasher::new(), DefaultHasher::new());
    (namespace, name).hash(&mut a);
    (name, 0x5eed_u16, namespace).hash(&mut b);
    (a.finish(), b.finish())
}

/// Metadata, as far as a restore looks at it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    /// Its uid.
    pub(super) uid: String,
    /// Its revision.
    pub(super) resource_version: String,
    /// When it was asked to go.
    pub(super) deletion_timestamp: Option<String>,
    labels: Option<HashMap<String, String>>,
    annotations: Option<HashMap<String, String>>,
    managed_fields: Option<Vec<Managed>>,
}

/// Who owns some fields.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Managed {
    manager: String,
}

impl Metadata {
    /// Of an object's JSON.
    pub(super) fn read(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        serde_json::from_slice::<Object>(body).map_or_else(|_| Self::default(), |o| o.metadata)
    }

    /// Whether the restore of this label value made it of the object that had this uid in the backup. The label alone is not enough:
    /// controllers copy labels to what they make, and two objects of a backup may be meant to go to one place.
    pub(super) fn is_of(&self, restore: &str, old: &str) -> bool {
        let label = self.labels.as_ref().and_then(|l| l.get(LABEL_RESTORE));
        label.is_some_and(|label| label == restore) && self.old_uid() == Some(old)
    }

    /// Whether a run ended between the object's creation and the return of its managed fields.
    pub(super) fn is_unfinished(&self) -> bool {
        let entries = self.managed_fields.iter().flatten();
        entries.into_iter().any(|entry| entry.manager == UNFINISHED)
    }

    /// The uid it had in a backup.
    pub(super) fn old_uid(&self) -> Option<&str> {
        self.annotations
            .as_ref()?
            .get(ANNOTATION_UID)
            .map(String::as_str)
    }
}

/// What the target has of a resource: everywhere, or in these namespaces where they are few or the list of all is refused. Nothing where it
/// may not be listed.
///
/// # Errors
/// That the server is gone, or does not know us.
pub(super) async fn look_in(
    cluster: &Cluster,
    api: &ApiResource,
    namespaces: &BTreeSet<String>,
    restore: &str,
) -> Outcome<Option<Seens>> {
    let mut seens = Seens::default();
    if !api.namespaced || namespaces.len() > FEW_NAMESPACES {
        match look(cluster, api, None, restore, &mut seens).await {
            Ok(()) => return Ok(Some(seens)),
            Err(e) if e.code == 0 || e.code == 401 => return Err(Error::from(e)),
            Err(_) if !api.namespaced => return Ok(None),
            Err(_) => {}
        }
    }
    for namespace in namespaces {
        match look(cluster, api, Some(namespace), restore, &mut seens).await {
            Ok(()) => {}
            Err(e) if e.code == 0 || e.code == 401 => return Err(Error::from(e)),
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(seens))
}

/// Lists a resource's objects, in one namespace or everywhere.
///
/// # Errors
/// The server's. A list that expired half-way is begun again, a few times.
pub(super) async fn look(
    cluster: &Cluster,
    api: &ApiResource,
    namespace: Option<&str>,
    restore: &str,
    into: &mut Seens,
) -> Result<(), ApiError> {
    let mut expired = 0;
    let mut token = String::new();
    loop {
        let path = format!("{}?limit={PAGE}{token}", api.path(namespace));
        let call = Call {
            accept: LIST,
            ..Call::get(&path)
        };
        let body = match patiently(|| cluster.send(&call)).await {
            Ok(body) => body,
            Err(e) if e.is_expired() && expired < 3 => {
                expired += 1;
                token.clear();
                continue;
            }
            Err(e) => return Err(e),
        };
        match read_page(&body, restore, into)? {
            Some(next) => token = format!("&continue={next}"),
            None => return Ok(()),
        }
    }
}

fn read_page(body: &[u8], restore: &str, into: &mut Seens) -> Result<Option<String>, ApiError> {
    #[derive(Deserialize)]
    struct Page<'a> {
        // Go writes an empty list as null.
        #[serde(borrow, default)]
        items: Option<Vec<Item<'a>>>,
        #[serde(default)]
        metadata: ListMeta,
    }
    #[derive(Default, Deserialize)]
    struct ListMeta {
        #[serde(default, rename = "continue")]
        next: Option<String>,
    }
    #[derive(Deserialize)]
    struct Item<'a> {
        #[serde(borrow)]
        metadata: Meta<'a>,
    }
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(borrow, default)]
        namespace: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        uid: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        labels: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
        #[serde(borrow, default)]
        annotations: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
        #[serde(default, rename = "managedFields")]
        managed_fields: Option<Vec<Managed>>,
        #[serde(default, rename = "deletionTimestamp")]
        deletion_timestamp: Option<serde::de::IgnoredAny>,
    }
    let page: Page<'_> = serde_json::from_slice(body).map_err(|e| ApiError {
        message: format!("a list can not be read: {e}"),
        ..ApiError::default()
    })?;
    for Item { metadata } in page.items.unwrap_or_default() {
        let labelled = metadata
            .labels
            .is_some_and(|l| l.get(LABEL_RESTORE).is_some_and(|value| value == restore));
        let finished = !metadata
            .managed_fields
            .iter()
            .flatten()
            .any(|entry| entry.manager == UNFINISHED);
        let made_from = metadata
            .annotations
            .filter(|_| labelled && finished && metadata.deletion_timestamp.is_none())
            .and_then(|a| Uuid::parse_str(a.get(ANNOTATION_UID)?).ok());
        let namespace = metadata.namespace.filter(|n| !n.is_empty());
        let seen = Seen {
            uid: metadata.uid.and_then(|uid| Uuid::parse_str(&uid).ok()),
            made_from,
            going: metadata.deletion_timestamp.is_some(),
        };
        into.0
            .insert(key(namespace.as_deref(), &metadata.name), seen);
    }
    Ok(page
        .metadata
        .next
        .filter(|next| !next.is_empty())
        .map(|next| url::form_urlencoded::byte_serialize(next.as_bytes()).collect()))
}

/// One object, whole; nothing where it is absent.
///
/// # Errors
/// The server's, but for NotFound.
pub(super) async fn find(
    cluster: &Cluster,
    api: &ApiResource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Bytes>, ApiError> {
    let path = api.object_path(namespace, name);
    absent(patiently(|| cluster.get(&path)).await)
}

/// One object's metadata, as an object of its own; nothing where it is absent.
///
/// # Errors
/// The server's, but for NotFound.
pub(super) async fn find_metadata(
    cluster: &Cluster,
    api: &ApiResource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Bytes>, ApiError> {
    let path = api.object_path(namespace, name);
    let call = Call {
        accept: METADATA,
        ..Call::get(&path)
    };
    absent(patiently(|| cluster.send(&call)).await)
}

fn absent(answer: Result<Bytes, ApiError>) -> Result<Option<Bytes>, ApiError> {
    match answer {
        Ok(body) => Ok(Some(body)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}
