//! The whole state of a cluster as its API tells it: every object of every kind that can be listed.
//!
//! It leaves nothing out and changes nothing; what may differ between two states is for the comparison to say.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::http_client::{Client, Endpoint};

/// Which object: resources are written as kubectl does, `deployments.apps`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectId {
    pub resource: String,
    /// Empty for what belongs to the whole cluster.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(
            f,
            "{} {}{slash}{}",
            self.resource, self.namespace, self.name
        )
    }
}

/// Every object of a cluster at about one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub objects: BTreeMap<ObjectId, Value>,
}

impl Snapshot {
    pub fn of(cluster: &Cluster) -> Self {
        Self::of_endpoint(&cluster.endpoint())
    }

    pub fn of_endpoint(endpoint: &Endpoint) -> Self {
        let mut client = endpoint.client();
        let mut objects = BTreeMap::new();
        for (path, resource) in listable(&mut client) {
            list(&mut client, &path, |object| {
                let text = |field: &str| {
                    object["metadata"][field]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                };
                let id = ObjectId {
                    resource: resource.clone(),
                    namespace: text("namespace"),
                    name: text("name"),
                };
                objects.insert(id, object);
            });
        }
        Self { objects }
    }

    /// The resources of which there is at least one object.
    pub fn resources(&self) -> Vec<&str> {
        let mut found: Vec<_> = self.objects.keys().map(|id| id.resource.as_str()).collect();
        found.dedup();
        found
    }

    pub fn of_resource<'a>(
        &'a self,
        resource: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectId, &'a Value)> {
        self.objects
            .iter()
            .filter(move |(id, _)| id.resource == resource)
    }

    /// An object that is there; fails the test where it is not.
    #[track_caller]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> &Value {
        let id = ObjectId {
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.objects.get(&id).unwrap_or_else(|| panic!("no {id}"))
    }
}

fn get(client: &mut Client, path: &str) -> Value {
    let answer = client
        .get(path)
        .unwrap_or_else(|error| panic!("GET {path}: {error}"));
    assert!(
        answer.is_success(),
        "GET {path}: {} {}",
        answer.status,
        answer.text()
    );
    answer.json()
}

/// The list's path and the name of everything that can be listed, each group in its preferred version.
fn listable(client: &mut Client) -> Vec<(String, String)> {
    let mut versions = vec![("/api/v1".to_owned(), String::new())];
    for group in get(client, "/apis")["groups"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let group = group["name"].as_str().unwrap();
        versions.push((format!("/apis/{version}"), format!(".{group}")));
    }
    let mut found = Vec::new();
    for (path, suffix) in versions {
        for resource in get(client, &path)["resources"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let name = resource["name"].as_str().unwrap();
            let verbs = resource["verbs"].as_array();
            let can_list = verbs.is_some_and(|verbs| verbs.iter().any(|verb| verb == "list"));
            if can_list && !name.contains('/') {
                found.push((format!("{path}/{name}"), format!("{name}{suffix}")));
            }
        }
    }
    found
}

fn list(client: &mut Client, path: &str, mut each: impl FnMut(Value)) {
    let mut next = String::new();
    loop {
        let mut page = get(client, &format!("{path}?limit=1000&continue={next}"));
        if let Some(items) = page["items"].as_array_mut() {
            items.drain(..).for_each(&mut each);
        }
        match page["metadata"]["continue"].as_str() {
            Some(token) if !token.is_empty() => next = token.to_owned(),
            _ => return,
        }
    }
}
