//! What an API server serves: preferred versions, scope, verbs, and which groups could not be asked.

use std::sync::Arc;

use crate::cluster::Cluster;
use crate::error::Result;

/// One API resource in one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiResource {
    /// `apps`; empty for the core group.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `deployments`
    pub plural: String,
    /// `Deployment`
    pub kind: String,
    /// `deployment`; may be empty.
    pub singular: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// `get`, `list`, ...
    pub verbs: Vec<String>,
}

impl ApiResource {
    /// `deployments.apps`, `pods`
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `apps/v1`, `v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of its collection, in a namespace or over all of them.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace {
            Some(namespace) if self.namespaced => {
                format!("{root}/namespaces/{namespace}/{}", self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    /// The path of one object. Names are percent-encoded where a path needs it.
    pub fn object_path(&self, namespace: Option<&str>, name: &str) -> String {
        let mut path = self.path(namespace);
        path.push('/');
        path.extend(
            url::form_urlencoded::byte_serialize(name.as_bytes())
                .map(|part| part.replace('+', "%20")),
        );
        path
    }

    /// Whether it has this verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// A group (or one of its versions) that could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// `metrics.k8s.io`
    pub group: String,
    /// `v1beta1`, where it is known.
    pub version: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// What a server serves.
#[derive(Clone, Debug, Default)]
pub struct Served {
    /// Every resource in every served version, the preferred version of a group first.
    pub all: Vec<Arc<ApiResource>>,
    /// Groups that could not be asked.
    pub gaps: Vec<Gap>,
}

impl Served {
    /// Each resource once, in its preferred version.
    pub fn preferred(&self) -> Vec<Arc<ApiResource>> {
        let mut seen = std::collections::HashSet::new();
        self.all
            .iter()
            .filter(|r| seen.insert((r.group.clone(), r.plural.clone())))
            .cloned()
            .collect()
    }
}

/// Asks the server (aggregated discovery, with its traps checked; the old form where that is not served).
///
/// # Errors
/// When nothing at all could be asked; single groups become gaps.
pub async fn discover(cluster: &Cluster) -> Result<Served> {
    let _ = cluster;
    todo!()
}
