//! What the target lacks of what a restore needs, said before anything is changed. Pure: [`look`] gathers, this decides. What this restore
//! brings itself is not lacking. What can not be told (a list that is forbidden) is not held to be lacking, but a note says so.

pub(super) mod look;
mod rights;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::versions;
use crate::discovery::{ApiResource, Served};

/// Names of one sort that are told apart; what comes after is not looked at. So many also are named of one lack.
const MOST: usize = 1000;
/// No name of a class is longer.
const LONGEST: usize = 253;

/// One thing that the target lacks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lack {
    /// `StorageClass`, `IngressClass`, `PriorityClass`, `RuntimeClass`, `API`, `Version`, `NodePort`, `Permission`, `PersistentVolume`
    pub kind: String,
    /// Which.
    pub name: String,
    /// For what it is needed, and what is there instead.
    pub reason: String,
}

impl Lack {
    /// Whether single objects need it, which may stand already.
    fn is_of_objects(&self) -> bool {
        self.kind.ends_with("Class") || self.kind == "NodePort"
    }
}

impl std::fmt::Display for Lack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.name, self.reason)
    }
}

/// What was found before a restore.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) lacks: Vec<Lack>,
    /// What could not be told.
    pub(super) notes: Vec<String>,
}

/// Who needs something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    first: String,
    count: u64,
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.count {
            0 | 1 => write!(f, "needed by {}", self.first),
            n => write!(f, "needed by {} and {} more", self.first, n - 1),
        }
    }
}

/// Names of one sort, each with who needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted(BTreeMap<String, Need>);

impl Wanted {
    fn add(&mut self, name: &str, object: &str) {
        let full = self.0.len() >= MOST && !self.0.contains_key(name);
        if full || name.len() > LONGEST {
            return;
        }
        let need = self.0.entry(name.to_owned()).or_insert_with(|| Need {
            first: object.to_owned(),
            count: 0,
        });
        need.count += 1;
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the wanted objects need, after they were rewritten.
#[derive(Clone, Debug, Default)]
pub(super) struct Needs {
    storage: Wanted,
    /// Classes that a mapping names and nobody has.
    mapped: Wanted,
    /// Claims that name no class: the target's default one.
    default_storage: Option<Need>,
    ingress: Wanted,
    priority: Wanted,
    runtime: Wanted,
    balancer: Wanted,
    /// Fixed node ports, with the service as `namespace/name`.
    ports: BTreeMap<u16, String>,
    /// Storage classes of volumes that come along and are free: claims are bound to them, whether the class is there or not.
    of_volumes: BTreeSet<String>,
    /// Claims to which volumes that come along are promised.
    promised: BTreeSet<String>,
}

/// What the target has of it; nothing where it could not be asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Has {
    pub(super) storage: Option<BTreeSet<String>>,
    pub(super) default_storage: bool,
    pub(super) ingress: Option<BTreeSet<String>>,
    pub(super) priority: Option<BTreeSet<String>>,
    pub(super) runtime: Option<BTreeSet<String>>,
    pub(super) services: Option<Services>,
    /// The range of node ports, where the server tells it.
    pub(super) range: Option<(u16, u16)>,
}

/// What the services of the target have taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    /// Node ports, with the service as `namespace/name`.
    pub(super) ports: BTreeMap<u16, String>,
    /// Classes of load balancers that gave somebody an address.
    pub(super) balancers: BTreeSet<String>,
}

impl Services {
    /// Learns from one service of the target.
    pub(super) fn learn(&mut self, service: &Value) {
        let metadata = &service["metadata"];
        // Its ports are free when it is gone.
        if !metadata["deletionTimestamp"].is_null() {
            return;
        }
        let path = format!(
            "{}/{}",
            metadata["namespace"].as_str().unwrap_or_default(),
            metadata["name"].as_str().unwrap_or_default()
        );
        for port in node_ports(&service["spec"]) {
            self.ports.insert(port, path.clone());
        }
        let ingress = &service["status"]["loadBalancer"]["ingress"];
        if let Some(class) = service["spec"]["loadBalancerClass"].as_str()
            && ingress.as_array().is_some_and(|list| !list.is_empty())
            && self.balancers.len() < MOST
        {
            self.balancers.insert(class.to_owned());
        }
    }
}

/// An API resource of which objects are wanted.
#[derive(Clone, Debug)]
pub(super) struct Kind<'k> {
    pub(super) api: &'k ApiResource,
    pub(super) count: u64,
    /// What the definition that comes along serves.
    pub(super) defined: Option<Vec<String>>,
    /// A definition that comes along changes the one that stands.
    pub(super) redefined: bool,
}

/// Names of classes that come along.
pub(super) type Brought = BTreeMap<&'static str, BTreeSet<String>>;

pub(super) const STORAGE: &str = "storageclasses.storage.k8s.io";
pub(super) const INGRESS: &str = "ingressclasses.networking.k8s.io";
pub(super) const PRIORITY: &str = "priorityclasses.scheduling.k8s.io";
pub(super) const RUNTIME: &str = "runtimeclasses.node.k8s.io";

impl Needs {
    /// Learns from one rewritten object; `object` is its `namespace/name`.
    pub(super) fn learn(&mut self, resource: &str, object: &str, body: &Value) {
        let named = |kind: &str| format!("{kind} {object}");
        let spec = &body["spec"];
        match resource {
            // Its claim alone is bound to it.
            "persistentvolumes" if !spec["claimRef"].is_null() => {
                let claim = &spec["claimRef"];
                let of = |key: &str| claim[key].as_str().unwrap_or_default();
                let path = format!("{}/{}", of("namespace"), of("name"));
                if path.len() <= 2 * LONGEST && self.promised.len() < MOST * 10 {
                    self.promised.insert(path);
                }
            }
            "persistentvolumes" => {
                if let Some(class) = class(body)
                    && class.len() <= LONGEST
                    && self.of_volumes.len() < MOST
                {
                    self.of_volumes.insert(class.to_owned());
                }
            }
            "persistentvolumeclaims" if self.promised.contains(object) => {}
            "persistentvolumeclaims" => self.claim(body, &named(resource)),
            "services" => self.service(spec, object),
            "ingresses.networking.k8s.io" => {
                if let Some(class) = spec["ingressClassName"].as_str() {
                    self.ingress.add(class, &named(resource));
                }
            }
            "pods" => self.pod(spec, &named(resource)),
            "cronjobs.batch" => {
                self.pod(
                    &spec["jobTemplate"]["spec"]["template"]["spec"],
                    &named(resource),
                );
            }
            _ => {
                self.pod(&spec["template"]["spec"], &named(resource));
                for claim in spec["volumeClaimTemplates"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    self.claim(claim, &named(resource));
                }
            }
        }
    }

    /// Learns from one object that is not made, because a mapping gives it one of the classes that are `missing`.
    pub(super) fn mapped(
        &mut self,
        resource: &str,
        object: &str,
        body: &Value,
        missing: &BTreeSet<String>,
    ) {
        let templates = body["spec"]["volumeClaimTemplates"].as_array();
        let classes = templates
            .into_iter()
            .flatten()
            .chain([body])
            .filter_map(class);
        for class in classes.filter(|class| missing.contains(*class)) {
            self.mapped.add(class, &format!("{resource} {object}"));
        }
    }

    fn claim(&mut self, claim: &Value, object: &str) {
        let spec = &claim["spec"];
        // Bound to a volume by its name, it is not asked for its class.
        if spec["volumeName"]
            .as_str()
            .is_some_and(|name| !name.is_empty())
        {
            return;
        }
        match class(claim) {
            Some("") => {}
            Some(class) => self.storage.add(class, object),
            None => {
                let need = self.default_storage.get_or_insert_with(|| Need {
                    first: object.to_owned(),
                    count: 0,
                });
                need.count += 1;
            }
        }
    }

    fn pod(&mut self, spec: &Value, object: &str) {
        for (field, wanted) in [
            ("priorityClassName", &mut self.priority),
            ("runtimeClassName", &mut self.runtime),
        ] {
            if let Some(class) = spec[field].as_str().filter(|class| !class.is_empty()) {
                wanted.add(class, object);
            }
        }
    }

    fn service(&mut self, spec: &Value, object: &str) {
        if let Some(class) = spec["loadBalancerClass"].as_str() {
            self.balancer.add(class, &format!("services {object}"));
        }
        for port in node_ports(spec) {
            if self.ports.len() < MOST * 10 {
                self.ports.entry(port).or_insert_with(|| object.to_owned());
            }
        }
    }

    /// Whether the services of the target have to be looked at.
    pub(super) fn asks_services(&self) -> bool {
        !self.ports.is_empty() || !self.balancer.is_empty()
    }

    /// Whether there are fixed node ports.
    pub(super) fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Which lists of classes of the target have to be looked at.
    pub(super) fn classes(&self) -> Vec<&'static str> {
        let storage = !self.storage.is_empty() || self.default_storage.is_some();
        [
            (STORAGE, storage),
            (INGRESS, !self.ingress.is_empty()),
            (PRIORITY, !self.priority.is_empty()),
            (RUNTIME, !self.runtime.is_empty()),
        ]
        .into_iter()
        .filter_map(|(resource, asked)| asked.then_some(resource))
        .collect()
    }
}

/// The storage class of a claim or volume.
fn class(body: &Value) -> Option<&str> {
    let annotations = &body["metadata"]["annotations"];
    body["spec"]["storageClassName"]
        .as_str()
        .or_else(|| annotations["volume.beta.kubernetes.io/storage-class"].as_str())
}

/// The node ports that a service's spec fixes.
pub(super) fn node_ports(spec: &Value) -> impl Iterator<Item = u16> {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let health = &spec["healthCheckNodePort"];
    ports
        .map(|port| &port["nodePort"])
        .chain([health])
        .filter_map(|port| u16::try_from(port.as_u64()?).ok())
        .filter(|port| *port > 0)
}

/// What the target lacks.
pub(super) fn decide(
    needs: &Needs,
    has: &Has,
    brought: &Brought,
    kinds: &[Kind<'_>],
    served: &Served,
) -> Found {
    let mut found = Found::default();
    for kind in kinds {
        found.lacks.extend(unserved(kind, served));
    }
    for (name, need) in &needs.mapped.0 {
        found.lacks.push(Lack {
            kind: "StorageClass".to_owned(),
            name: name.clone(),
            reason: format!("a mapping of storage classes names it; {need}"),
        });
    }
    let none = BTreeSet::new();
    for (sort, resource, wanted, there) in [
        ("StorageClass", STORAGE, &needs.storage, &has.storage),
        ("IngressClass", INGRESS, &needs.ingress, &has.ingress),
        ("PriorityClass", PRIORITY, &needs.priority, &has.priority),
        ("RuntimeClass", RUNTIME, &needs.runtime, &has.runtime),
    ] {
        let brought = brought.get(resource).unwrap_or(&none);
        for (name, need) in &wanted.0 {
            let volumes = resource == STORAGE && needs.of_volumes.contains(name);
            if brought.contains(name) || volumes {
                continue;
            }
            match there {
                Some(there) if there.contains(name) => {}
                Some(_) => found.lacks.push(Lack {
                    kind: sort.to_owned(),
                    name: name.clone(),
                    reason: need.to_string(),
                }),
                None => found.notes.push(format!(
                    "whether the target has {sort} {name} can not be told; {need}"
                )),
            }
        }
    }
    if let Some(need) = &needs.default_storage
        && has.storage.is_some()
        && !has.default_storage
        && brought.get(STORAGE).is_none_or(BTreeSet::is_empty)
    {
        found.lacks.push(Lack {
            kind: "StorageClass".to_owned(),
            name: "(default)".to_owned(),
            reason: format!("no class of the target is the default one; {need}"),
        });
    }
    if let Some(services) = &has.services {
        for (name, need) in &needs.balancer.0 {
            if !services.balancers.contains(name) {
                found.notes.push(format!(
                    "nothing in the target is seen to serve load-balancer class {name}; {need}"
                ));
            }
        }
    }
    for (port, service) in &needs.ports {
        let out = has
            .range
            .filter(|(first, last)| !(*first..=*last).contains(port))
            .map(|(first, last)| format!("out of the target's range {first}-{last}"));
        let taken = has
            .services
            .as_ref()
            .and_then(|services| services.ports.get(port))
            .filter(|other| *other != service)
            .map(|other| format!("taken by services {other}"));
        if let Some(why) = out.or(taken) {
            found.lacks.push(Lack {
                kind: "NodePort".to_owned(),
                name: port.to_string(),
                reason: format!("{why}; needed by services {service}"),
            });
        }
    }
    found
}

fn unserved(kind: &Kind<'_>, served: &Served) -> Option<Lack> {
    let api = kind.api;
    if versions::target(api, served).is_some() {
        return None;
    }
    let versions = versions::served(api, served);
    let versions: Vec<&str> = versions.map(|other| other.version.as_str()).collect();
    if let Some(defined) = &kind.defined
        && (versions.is_empty() || kind.redefined)
        && (defined.is_empty() || defined.contains(&api.version))
    {
        return None;
    }
    let objects = match kind.count {
        1 => "1 object".to_owned(),
        n => format!("{n} objects"),
    };
    if !versions.is_empty() {
        return Some(Lack {
            kind: "Version".to_owned(),
            name: format!("{} of {}", api.version, api.group_resource()),
            reason: format!(
                "the target serves {}; needed by {objects}",
                versions.join(", ")
            ),
        });
    }
    let gap = served.gaps.iter().find(|gap| gap.group == api.group);
    Some(Lack {
        kind: "API".to_owned(),
        name: api.group_resource(),
        reason: match gap {
            Some(gap) => format!(
                "it could not be asked for ({}); needed by {objects}",
                gap.reason
            ),
            None => format!(
                "the target does not serve it, and its definition does not come along; needed by {objects}"
            ),
        },
    })
}
