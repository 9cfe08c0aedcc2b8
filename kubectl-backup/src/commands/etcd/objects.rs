//! Objects of the kinds of hosted control planes: list, get, create, change, delete. Knows paths and verbs, not what the objects mean.

use std::collections::BTreeMap;

use backup_core::cluster::{ApiError, Call, Cluster};
use backup_core::{Error, Kind};
use http::Method;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use backup_cli::error::{CommandError, Result};

/// Objects a page of a list holds.
const PAGE: usize = 500;

/// No answer about these kinds is larger.
const LARGEST: usize = 64 << 20;

/// A kind that these commands handle.
pub(crate) trait Hosted: Resource<DynamicType = ()> + Serialize + DeserializeOwned {}

impl<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned> Hosted for K {}

/// An object, and as the server sent it, with fields of newer programs.
#[derive(Clone, Debug)]
pub(crate) struct Object<K> {
    pub(crate) it: K,
    pub(crate) raw: Value,
}

impl<K: Hosted> Object<K> {
    pub(crate) fn read(raw: Value) -> Result<Self> {
        let it = serde_json::from_value(raw.clone()).map_err(|e| {
            let name = raw["metadata"]["name"].as_str().unwrap_or_default();
            Error::new(
                Kind::Corrupt,
                format!("{} {name:?} can not be read", K::kind(&())),
            )
            .because(e)
        })?;
        Ok(Self { it, raw })
    }

    pub(crate) fn name(&self) -> &str {
        self.it.meta().name.as_deref().unwrap_or_default()
    }

    pub(crate) fn namespace(&self) -> &str {
        self.it.meta().namespace.as_deref().unwrap_or_default()
    }

    /// `etcdrestore/name`
    pub(super) fn title(&self) -> String {
        title::<K>(self.name())
    }
}

/// `etcdrestore/name`
pub(super) fn title<K: Hosted>(name: &str) -> String {
    format!("{}/{name}", K::kind(&()).to_lowercase())
}

fn path<K: Hosted>(namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = format!("/apis/{}", K::api_version(&()));
    if let Some(namespace) = namespace {
        path.push_str(&format!("/namespaces/{namespace}"));
    }
    path.push_str(&format!("/{}", K::plural(&())));
    if let Some(name) = name {
        path.push_str(&format!("/{name}"));
    }
    path
}

/// A server that does not serve the kind says so in other words than one that has no such object.
fn refused<K: Hosted>(e: ApiError) -> CommandError {
    let unserved =
        e.reason.is_empty() || e.message.contains("could not find the requested resource");
    if e.is_not_found() && unserved {
        return Error::not_found(format!("this cluster does not have the kind {}", K::kind(&())))
            .hint("bring it with `etcd-launcher crds`; snapshots in a bucket are read without it, with --location")
            .into();
    }
    Error::from(e).into()
}

/// Objects of a namespace, or of all, by namespace and name.
pub(crate) async fn list<K: Hosted>(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Object<K>>> {
    let all = list_raw::<K>(cluster, namespace).await?;
    let mut objects: Vec<_> = all
        .into_iter()
        .map(Object::<K>::read)
        .collect::<Result<_>>()?;
    objects.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
    Ok(objects)
}

/// The same as the server sent them, whatever they are.
pub(crate) async fn list_raw<K: Hosted>(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Value>> {
    let path = path::<K>(namespace, None);
    let mut objects = Vec::new();
    let mut token = String::new();
    loop {
        let page = format!("{path}?limit={PAGE}{token}");
        let body = cluster.get_bounded(&page, LARGEST).await;
        let mut page: Value = decode(&body.map_err(|e| forbidden_everywhere::<K>(e, namespace))?)?;
        if let Value::Array(items) = page["items"].take() {
            objects.extend(items);
        }
        match page["metadata"]["continue"].as_str() {
            None | Some("") => return Ok(objects),
            // Tokens are of letters that a URL takes.
            Some(next) => token = format!("&continue={next}"),
        }
    }
}

/// Who may look into one namespace is told to name it.
fn forbidden_everywhere<K: Hosted>(e: ApiError, namespace: Option<&str>) -> CommandError {
    if e.is_forbidden() && namespace.is_none() {
        return Error::from(e)
            .hint("name a control plane with --cluster, or a namespace with -n")
            .into();
    }
    refused::<K>(e)
}

fn decode(body: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(body)
        .map_err(|e| Error::other("the API server's answer is no JSON").because(e))?)
}

/// One object.
pub(crate) async fn get<K: Hosted>(
    cluster: &Cluster,
    namespace: Option<&str>,
    name: &str,
) -> Result<Object<K>> {
    let body = cluster.get(&path::<K>(namespace, Some(name))).await;
    Object::read(decode(&body.map_err(refused::<K>)?)?)
}

/// Makes an object; a field that the kind does not have is an error.
pub(super) async fn create<K: Hosted>(cluster: &Cluster, object: &K) -> Result<Object<K>> {
    let path = format!(
        "{}?fieldValidation=Strict&fieldManager=kubectl-backup",
        path::<K>(object.meta().namespace.as_deref(), None)
    );
    let body = serde_json::to_vec(object)
        .map_err(|e| Error::other("the object can not be written").because(e))?;
    match cluster.send(&Call::post(&path, body.into())).await {
        Ok(answer) => Object::read(decode(&answer)?),
        Err(e) => Err(refused::<K>(e)),
    }
}

/// Sets annotations; with a version, only where the object still has it.
pub(super) async fn annotate<K: Hosted>(
    cluster: &Cluster,
    object: &Object<K>,
    annotations: BTreeMap<&str, &str>,
) -> Result<Object<K>> {
    let path = format!(
        "{}?fieldManager=kubectl-backup",
        path::<K>(Some(object.namespace()), Some(object.name()))
    );
    // The uid: not another object of the same name.
    let patch =
        serde_json::json!({"metadata": {"uid": object.it.meta().uid, "annotations": annotations}});
    let call = Call::merge_patch(&path, patch.to_string().into());
    match cluster.send(&call).await {
        Ok(answer) => Object::read(decode(&answer)?),
        Err(e) => Err(refused::<K>(e)),
    }
}

/// What became of a write that goes through only where nothing came in between.
pub(crate) enum Written {
    /// It was written.
    Yes,
    /// Somebody else wrote in between.
    Conflict,
}

/// Writes a status where the object is still the one that was read.
pub(super) async fn replace_status<K: Hosted>(
    cluster: &Cluster,
    object: &Object<K>,
    status: &impl Serialize,
) -> Result<Written> {
    let mut body = object.raw.clone();
    body["status"] = serde_json::to_value(status)
        .map_err(|e| Error::other("the status can not be written").because(e))?;
    let path = format!(
        "{}/status?fieldManager=kubectl-backup",
        path::<K>(Some(object.namespace()), Some(object.name()))
    );
    let call = Call {
        method: Method::PUT,
        content_type: "application/json",
        body: body.to_string().into(),
        // With the version that was read, a second one changes nothing.
        ..Call::get(&path)
    };
    match cluster.send(&call).await {
        Ok(_) => Ok(Written::Yes),
        Err(e) if e.is_conflict() => Ok(Written::Conflict),
        Err(e) => Err(refused::<K>(e)),
    }
}

/// Deletes the object that was looked at, and no other one of its name.
pub(super) async fn delete<K: Hosted>(cluster: &Cluster, object: &Object<K>) -> Result<()> {
    let path = path::<K>(Some(object.namespace()), Some(object.name()));
    let options = serde_json::json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "preconditions": {"uid": object.it.meta().uid},
    });
    let call = Call {
        method: Method::DELETE,
        content_type: "application/json",
        body: options.to_string().into(),
        ..Call::get(&path)
    };
    match cluster.send(&call).await {
        Ok(_) => Ok(()),
        Err(e) => Err(refused::<K>(e)),
    }
}

/// Name and namespace of an object to be made.
pub(super) fn meta(namespace: &str, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ObjectMeta::default()
    }
}
