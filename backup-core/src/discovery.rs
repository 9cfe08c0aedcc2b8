//! What an API server serves: preferred versions, scope, verbs, and which groups could not be asked.

use std::sync::Arc;

use futures::{StreamExt, stream};
use serde::Deserialize;

use crate::cluster::{Call, Cluster};
use crate::error::{Error, Result};

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
                format!("{root}/namespaces/{}/{}", escaped(namespace), self.plural)
            }
            _ => format!("{root}/{}", self.plural),
        }
    }

    /// The path of one object. Names are percent-encoded where a path needs it.
    pub fn object_path(&self, namespace: Option<&str>, name: &str) -> String {
        let mut path = self.path(namespace);
        path.push('/');
        path.push_str(&escaped(name));
        path
    }

    /// Whether it has this verb.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// A name as one segment of a path.
fn escaped(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes())
        .map(|part| part.replace('+', "%20"))
        .collect()
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

/// What aggregated discovery is asked for, newest form first; plain JSON is the old form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// How many documents of the old form are asked for at a time.
const AT_A_TIME: usize = 8;

/// Asks the server (aggregated discovery, with its traps checked; the old form where that is not served).
///
/// # Errors
/// When nothing at all could be asked; single groups become gaps.
pub async fn discover(cluster: &Cluster) -> Result<Served> {
    let (core, groups) = futures::join!(
        ask(cluster, "/api", Half::Core),
        ask(cluster, "/apis", Half::Groups)
    );
    let mut served = core.map_err(|e| unanswered(cluster, e))?;
    let groups = groups.map_err(|e| unanswered(cluster, e))?;
    served.all.extend(groups.all);
    served.gaps.extend(groups.gaps);
    // What was moved out of `extensions` is wanted from where it lives now.
    let (old, mut all): (Vec<_>, Vec<_>) = served
        .all
        .into_iter()
        .partition(|r| r.group == "extensions");
    all.extend(old);
    served.all = all;
    Ok(served)
}

fn unanswered(cluster: &Cluster, e: Error) -> Error {
    e.context(format!("can not learn what {} serves", cluster.server()))
}

/// The core group's half of discovery, and everybody else's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Core,
    Groups,
}

async fn ask(cluster: &Cluster, path: &str, half: Half) -> Result<Served> {
    let call = Call {
        accept: AGGREGATED,
        ..Call::get(path)
    };
    let body = match cluster.send(&call).await {
        // An old server may refuse what it does not know instead of passing over it.
        Err(e) if matches!(e.code, 400 | 406) => cluster.get(path).await?,
        answer => answer?,
    };
    // The server falls back to the old form by itself: only the answer's kind says which one it is.
    match kind_of(&body)?.as_str() {
        "APIGroupDiscoveryList" => aggregated(&body),
        "APIVersions" | "APIGroupList" => legacy(cluster, &body, half).await,
        other => Err(Error::other(format!(
            "{path} answered with {other:?} where a list of API groups was expected"
        ))),
    }
}

fn kind_of(body: &[u8]) -> Result<String> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(default)]
        kind: String,
    }
    Ok(read::<Kind>(body)?.kind)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| {
        Error::other("the server's list of API groups can not be understood").because(e)
    })
}

/// `null` as often stands for an empty list as nothing does.
fn list<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    d: D,
) -> std::result::Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct GroupDiscoveryList {
    #[serde(default, deserialize_with = "list")]
    items: Vec<GroupDiscovery>,
}

#[derive(Deserialize)]
struct GroupDiscovery {
    #[serde(default)]
    metadata: GroupName,
    #[serde(default, deserialize_with = "list")]
    versions: Vec<VersionDiscovery>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GroupName {
    name: String,
}

#[derive(Deserialize)]
struct VersionDiscovery {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default, deserialize_with = "list")]
    resources: Vec<ResourceDiscovery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    singular_resource: String,
    #[serde(default, deserialize_with = "list")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    short_names: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

fn aggregated(body: &[u8]) -> Result<Served> {
    let mut served = Served::default();
    for group in read::<GroupDiscoveryList>(body)?.items {
        let name = group.metadata.name;
        for version in group.versions {
            if version.freshness == "Stale" {
                served.gaps.push(Gap {
                    group: name.clone(),
                    version: version.version.clone(),
                    reason: "the API server has lost touch with the server of this group (its discovery is stale)"
                        .to_owned(),
                });
            }
            for resource in version.resources {
                let kind = resource.response_kind.map(|k| k.kind).unwrap_or_default();
                // A parent that exists for its subresources only has no verbs, and often no kind.
                if kind.is_empty() || resource.verbs.is_empty() {
                    continue;
                }
                served.add(ApiResource {
                    group: name.clone(),
                    version: version.version.clone(),
                    plural: resource.resource,
                    kind,
                    singular: resource.singular_resource,
                    short_names: resource.short_names,
                    namespaced: resource.scope == "Namespaced",
                    verbs: resource.verbs,
                });
            }
        }
    }
    Ok(served)
}

#[derive(Deserialize)]
struct Versions {
    #[serde(default, deserialize_with = "list")]
    versions: Vec<String>,
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default, deserialize_with = "list")]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    #[serde(default, deserialize_with = "list")]
    versions: Vec<GroupVersion>,
    #[serde(default)]
    preferred_version: Option<GroupVersion>,
}

#[derive(Clone, Deserialize)]
struct GroupVersion {
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default, deserialize_with = "list")]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    kind: String,
    #[serde(default, deserialize_with = "list")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "list")]
    short_names: Vec<String>,
}

async fn legacy(cluster: &Cluster, body: &[u8], half: Half) -> Result<Served> {
    let versions = match half {
        Half::Core => read::<Versions>(body)?
            .versions
            .into_iter()
            .map(|version| (String::new(), version))
            .collect(),
        Half::Groups => legacy_versions(read::<GroupList>(body)?),
    };
    let answers = stream::iter(versions)
        .map(|(group, version)| async move {
            let path = if group.is_empty() {
                format!("/api/{version}")
            } else {
                format!("/apis/{group}/{version}")
            };
            let answer = match cluster.get(&path).await {
                Ok(body) => read::<ResourceList>(&body),
                Err(e) => Err(e.into()),
            };
            (group, version, answer)
        })
        .buffered(AT_A_TIME)
        .collect::<Vec<_>>()
        .await;
    let mut served = Served::default();
    for (group, version, answer) in answers {
        match answer {
            Ok(list) => {
                for resource in list.resources {
                    if resource.name.contains('/') || resource.verbs.is_empty() {
                        continue;
                    }
                    served.add(ApiResource {
                        group: group.clone(),
                        version: version.clone(),
                        plural: resource.name,
                        kind: resource.kind,
                        singular: resource.singular_name,
                        short_names: resource.short_names,
                        namespaced: resource.namespaced,
                        verbs: resource.verbs,
                    });
                }
            }
            Err(e) => served.gaps.push(Gap {
                group,
                version,
                reason: e.to_string(),
            }),
        }
    }
    Ok(served)
}

/// Each group's versions, the preferred one first.
fn legacy_versions(groups: GroupList) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for group in groups.groups {
        let preferred = group.preferred_version.map(|v| v.version);
        let rest = group.versions.into_iter().map(|v| v.version);
        let mut seen = Vec::new();
        for version in preferred.into_iter().chain(rest) {
            if !version.is_empty() && !seen.contains(&version) {
                all.push((group.name.clone(), version.clone()));
                seen.push(version);
            }
        }
    }
    all
}

impl Served {
    /// Takes a resource in, unless its names could lead a path astray: they end up in URLs and in archive entries.
    fn add(&mut self, resource: ApiResource) {
        let sound = |text: &str| {
            !text.is_empty()
                && text.len() <= 253
                && !text.starts_with('.')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        if sound(&resource.plural)
            && sound(&resource.version)
            && (resource.group.is_empty() || sound(&resource.group))
        {
            self.all.push(Arc::new(resource));
        } else {
            self.gaps.push(Gap {
                group: resource.group.clone(),
                version: resource.version.clone(),
                reason: format!(
                    "the server names a resource {:?} that can not be asked for",
                    resource.plural
                ),
            });
        }
    }
}

#[cfg(test)]
mod tests;
