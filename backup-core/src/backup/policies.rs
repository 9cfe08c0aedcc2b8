//! Velero's resource policies: which volumes are saved how, and which kinds a backup takes or leaves. Pure but for reading the ConfigMap.
//!
//! The format is Velero's, version v1, with the checks that Velero makes: a key it does not know is refused, and the first of the
//! `volumePolicies` whose conditions all hold decides. Its `skip` and `custom` mean that this backup need not have the data, `fs-backup` asks for a copy of the files, and
//! `snapshot` for one in its storage. What a volume's own object would tell and nobody may read makes the answer unknown, never `skip`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::name::Name;
use crate::restore::rewriting::yaml;

/// A ConfigMap is not larger, nor is a file that holds one.
const LARGEST: usize = 2 << 20;

/// What Velero understands.
const VERSION: &str = "v1";

/// What a policy wants done with a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Action {
    /// Nothing.
    Skip,
    /// A copy of its files.
    FsBackup,
    /// A snapshot.
    Snapshot,
    /// Somebody else saves it.
    Custom,
}

/// Resource policies, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    volumes: Vec<(Conditions, Action)>,
    filter: Filter,
    /// The ConfigMap's name, where they came from one.
    config_map: Option<String>,
}

/// The answer for a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Do(Action),
    /// No policy is for it.
    Nothing,
    /// One may be, by what is not known of it.
    Unknown,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    version: String,
    volume_policies: Option<Vec<VolumePolicy>>,
    include_exclude_policy: Option<IncludeExclude>,
    cluster_scoped_filter_policy: Option<IgnoredAny>,
    namespaced_filter_policies: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VolumePolicy {
    conditions: Option<Conditions>,
    action: Act,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    #[serde(rename = "type")]
    action: Action,
    parameters: Option<BTreeMap<String, Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IncludeExclude {
    included_cluster_scoped_resources: Option<Vec<String>>,
    excluded_cluster_scoped_resources: Option<Vec<String>>,
    included_namespace_scoped_resources: Option<Vec<String>>,
    excluded_namespace_scoped_resources: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Conditions {
    capacity: Option<Capacity>,
    storage_class: Option<Vec<String>>,
    nfs: Option<Nfs>,
    csi: Option<Csi>,
    volume_types: Option<Vec<String>>,
    pvc_labels: Option<BTreeMap<String, String>>,
    pvc_phase: Option<Vec<String>>,
    pvc_volume_mode: Option<String>,
    pvc_access_modes: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Nfs {
    server: String,
    path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Csi {
    driver: String,
    volume_attributes: Option<BTreeMap<String, String>>,
}

/// From and to, in bytes; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "String")]
struct Capacity(f64, f64);

impl TryFrom<String> for Capacity {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let wrong = || format!("capacity {text:?} is not of the form \"10Gi,100Gi\"");
        let bound = |text: &str| match text.trim() {
            "" => Some(0.0),
            text => quantity(text),
        };
        let text = text.as_str();
        let (from, to) = match text {
            "" => (Some(0.0), Some(0.0)),
            text => {
                let (from, to) = text.split_once(',').ok_or_else(wrong)?;
                (bound(from), bound(to))
            }
        };
        let (Some(from), Some(to)) = (from, to) else {
            return Err(wrong());
        };
        if to < from && (from == 0.0 || to != 0.0) {
            return Err(format!("capacity {text:?} ends before it begins"));
        }
        Ok(Self(from, to))
    }
}

impl Capacity {
    fn has(self, bytes: f64) -> bool {
        let Self(from, to) = self;
        (from == 0.0 && to >= bytes)
            || (to == 0.0 && from <= bytes)
            || (from != 0.0 && to != 0.0 && from <= bytes && bytes <= to)
    }
}

/// What policies ask of a volume, from a PersistentVolume or from a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VolumeFacts {
    capacity: f64,
    storage_class: String,
    /// Server and path.
    nfs: Option<(String, String)>,
    /// Driver and attributes.
    csi: Option<(String, BTreeMap<String, String>)>,
    /// Velero's word for its source.
    pub(super) kind: &'static str,
}

/// What policies ask of a claim.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClaimFacts {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) phase: String,
    pub(super) volume_mode: String,
    pub(super) access_modes: Vec<String>,
    capacity: f64,
    pub(super) storage_class: String,
}

/// Sources of volumes in the order in which Velero looks for them: of PersistentVolumes, then those that only pods have.
const KINDS: [&str; 30] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flocker",
    "flexVolume",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "iscsi",
    "local",
    "nfs",
    "secret",
    "rbd",
    "downwardAPI",
    "configMap",
    "projected",
    "ephemeral",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "scaleIO",
    "storageOS",
    "vsphereVolume",
    "hostPath",
    "emptyDir",
    "image",
];

impl VolumeFacts {
    /// Of a PersistentVolume's spec, or of an entry of a pod's volumes.
    pub(super) fn of(spec: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let given = |kind: &&&str| {
            // The one whose name in the API is not Velero's.
            let key = if **kind == "storageOS" {
                "storageos"
            } else {
                kind
            };
            !spec[key].is_null()
        };
        let attributes = spec["csi"]["volumeAttributes"].as_object();
        let attributes = attributes.into_iter().flatten();
        Self {
            capacity: bytes(&spec["capacity"]["storage"]),
            storage_class: text(&spec["storageClassName"]),
            nfs: (!spec["nfs"].is_null())
                .then(|| (text(&spec["nfs"]["server"]), text(&spec["nfs"]["path"]))),
            csi: (!spec["csi"].is_null()).then(|| {
                let attributes = attributes.map(|(key, value)| (key.clone(), text(value)));
                (text(&spec["csi"]["driver"]), attributes.collect())
            }),
            kind: KINDS.iter().find(given).copied().unwrap_or_default(),
        }
    }
}

impl ClaimFacts {
    /// Of a PersistentVolumeClaim.
    pub(super) fn of(claim: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (spec, status) = (&claim["spec"], &claim["status"]);
        let labels = claim["metadata"]["labels"].as_object();
        let labels = labels.into_iter().flatten();
        let modes = spec["accessModes"].as_array();
        Self {
            labels: labels
                .map(|(key, value)| (key.clone(), text(value)))
                .collect(),
            phase: text(&status["phase"]),
            volume_mode: text(&spec["volumeMode"]),
            access_modes: modes.into_iter().flatten().map(text).collect(),
            capacity: bytes(&status["capacity"]["storage"]),
            storage_class: text(&spec["storageClassName"]),
        }
    }
}

/// What is known of a volume's own object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seen<'a> {
    /// All.
    Facts(&'a VolumeFacts),
    /// It could not be read.
    Unread,
}

impl Conditions {
    /// Whether all hold; nothing where that depends on what is not known.
    fn hold(&self, volume: Seen<'_>, claim: Option<&ClaimFacts>) -> Option<bool> {
        // A claim tells the size and the class of the volume that it is bound to.
        let guessed = VolumeFacts {
            capacity: claim.map_or(0.0, |claim| claim.capacity),
            storage_class: claim
                .map(|claim| claim.storage_class.clone())
                .unwrap_or_default(),
            ..VolumeFacts::default()
        };
        let (facts, known) = match volume {
            Seen::Facts(facts) => (facts, true),
            Seen::Unread => (&guessed, false),
        };
        let list = |wanted: &Option<Vec<String>>, value: &str| {
            wanted.as_ref().is_none_or(|list| {
                list.is_empty() || (!value.is_empty() && list.iter().any(|one| one == value))
            })
        };
        let none = ClaimFacts::default();
        let claim = claim.unwrap_or(&none);
        let labels = self.pvc_labels.iter().flatten();
        let sorted = |modes: &[String]| {
            let mut modes = modes.to_vec();
            modes.sort();
            modes.dedup();
            modes
        };
        let of_claim = labels
            .clone()
            .all(|(key, value)| claim.labels.get(key) == Some(value))
            && list(&self.pvc_phase, &claim.phase)
            && self
                .pvc_volume_mode
                .as_ref()
                .is_none_or(|mode| mode.is_empty() || *mode == claim.volume_mode)
            && self.pvc_access_modes.as_ref().is_none_or(|modes| {
                modes.is_empty()
                    || (modes.len() == claim.access_modes.len()
                        && sorted(modes) == sorted(&claim.access_modes))
            });
        if !of_claim
            || !self.capacity.unwrap_or_default().has(facts.capacity)
            || !list(&self.storage_class, &facts.storage_class)
        {
            return Some(false);
        }
        let types = self
            .volume_types
            .as_ref()
            .is_some_and(|types| !types.is_empty());
        if !known && (self.nfs.is_some() || self.csi.is_some() || types) {
            return None;
        }
        let nfs = self.nfs.as_ref().is_none_or(|wanted| {
            facts.nfs.as_ref().is_some_and(|(server, path)| {
                (wanted.server.is_empty() || wanted.server == *server)
                    && (wanted.path.is_empty() || wanted.path == *path)
            })
        });
        let csi = self.csi.as_ref().is_none_or(|wanted| {
            facts.csi.as_ref().is_some_and(|(driver, attributes)| {
                let mut all = wanted.volume_attributes.iter().flatten();
                wanted.driver.is_empty()
                    || (wanted.driver == *driver
                        && all.all(|(key, value)| attributes.get(key) == Some(value)))
            })
        });
        Some(nfs && csi && list(&self.volume_types, facts.kind))
    }

    fn check(&self) -> Result<()> {
        let csi = self.csi.as_ref();
        if csi.is_some_and(|csi| csi.driver.is_empty() && csi.volume_attributes.is_some()) {
            return Err(Error::invalid(
                "a condition on csi volumeAttributes names no driver",
            ));
        }
        Ok(())
    }
}

impl Policies {
    /// Reads them from YAML.
    ///
    /// # Errors
    /// `Invalid`, saying what Velero would refuse.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > LARGEST {
            return Err(Error::invalid(format!(
                "resource policies are larger than {} MiB",
                LARGEST >> 20
            )));
        }
        let file: File = yaml(text).map_err(|e| e.context("resource policies can not be read"))?;
        if file.version != VERSION {
            return Err(Error::invalid(format!(
                "resource policies are of version {:?}, and {VERSION} is known",
                file.version
            )));
        }
        for (given, what) in [
            (
                &file.cluster_scoped_filter_policy,
                "clusterScopedFilterPolicy",
            ),
            (&file.namespaced_filter_policies, "namespacedFilterPolicies"),
        ] {
            if given.is_some() {
                return Err(Error::invalid(format!(
                    "resource policies hold {what}, which is newer than Velero 1.18 and not done here"
                ))
                .hint("say what is meant with the flags for namespaces, kinds and labels"));
            }
        }
        let mut volumes = Vec::new();
        for policy in file.volume_policies.unwrap_or_default() {
            let conditions = policy.conditions.unwrap_or_default();
            conditions.check()?;
            for key in ["dataMover", "snapshotClass"] {
                let given = policy.action.parameters.as_ref();
                if policy.action.action != Action::Snapshot
                    && given.is_some_and(|given| given.contains_key(key))
                {
                    return Err(Error::invalid(format!(
                        "the parameter {key:?} is for the action \"snapshot\" alone"
                    )));
                }
            }
            volumes.push((conditions, policy.action.action));
        }
        let filter = match file.include_exclude_policy {
            Some(policy) => policy.filter()?,
            None => Filter::default(),
        };
        Ok(Self {
            volumes,
            filter,
            config_map: None,
        })
    }

    /// Reads a file that holds them, or the ConfigMap that does.
    ///
    /// # Errors
    /// As [`Policies::parse`].
    pub fn of_file(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            kind: Option<String>,
        }
        if text.len() <= LARGEST && yaml::<Kind>(text)?.kind.as_deref() == Some("ConfigMap") {
            return Self::of_config_map("ConfigMap", &yaml(text)?);
        }
        Self::parse(text)
    }

    /// Reads a ConfigMap of the cluster.
    ///
    /// # Errors
    /// `NotFound`; as [`Policies::parse`].
    pub async fn read(cluster: &Cluster, namespace: &str, name: &Name) -> Result<Self> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let title = format!("ConfigMap {namespace}/{name}");
        let body = match cluster.get_bounded(&path, LARGEST).await {
            Ok(body) => body,
            Err(e) if e.is_not_found() => {
                return Err(Error::not_found(format!(
                    "{title} with resource policies is not there"
                ))
                .hint("Velero keeps them in its own namespace: --velero-namespace names it"));
            }
            Err(e) => return Err(Error::from(e).context(format!("{title} can not be read"))),
        };
        let map: Value = serde_json::from_slice(&body)
            .map_err(|e| Error::corrupt(format!("{title} is no ConfigMap")).because(e))?;
        let policies = Self::of_config_map(&title, &map)?;
        Ok(Self {
            config_map: Some(name.to_string()),
            ..policies
        })
    }

    fn of_config_map(title: &str, map: &Value) -> Result<Self> {
        let data: Vec<&Value> = map["data"]
            .as_object()
            .into_iter()
            .flat_map(|data| data.values())
            .collect();
        match data[..] {
            [Value::String(text)] => Self::parse(text).map_err(|e| e.context(title)),
            _ => Err(Error::invalid(format!(
                "{title} has {} entries where resource policies are one",
                data.len()
            ))),
        }
    }

    /// The ConfigMap's name, where they came from one.
    pub fn config_map(&self) -> Option<&str> {
        self.config_map.as_deref()
    }

    /// Whether kinds are chosen.
    pub(super) fn chooses_kinds(&self) -> bool {
        self.filter.is_new_style()
    }

    /// Kinds to take and to leave; weaker than a backup's own.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether volumes are spoken of.
    pub(super) fn judges_volumes(&self) -> bool {
        !self.volumes.is_empty()
    }

    /// What is to be done with a volume.
    pub(super) fn answer(&self, volume: Seen<'_>, claim: Option<&ClaimFacts>) -> Answer {
        for (conditions, action) in &self.volumes {
            match conditions.hold(volume, claim) {
                Some(true) => return Answer::Do(*action),
                Some(false) => {}
                None => return Answer::Unknown,
            }
        }
        Answer::Nothing
    }
}

impl IncludeExclude {
    fn filter(self) -> Result<Filter> {
        let filter = Filter {
            cluster_resources: self.included_cluster_scoped_resources.unwrap_or_default(),
            not_cluster_resources: self.excluded_cluster_scoped_resources.unwrap_or_default(),
            namespaced_resources: self.included_namespace_scoped_resources.unwrap_or_default(),
            not_namespaced_resources: self.excluded_namespace_scoped_resources.unwrap_or_default(),
            ..Filter::default()
        };
        let lists = [
            &filter.cluster_resources,
            &filter.not_cluster_resources,
            &filter.namespaced_resources,
            &filter.not_namespaced_resources,
        ];
        if lists.into_iter().flatten().any(|kind| kind == "*") {
            return Err(Error::invalid(
                "includeExcludePolicy holds \"*\", which it can not",
            ));
        }
        filter
            .validate()
            .map_err(|e| e.context("includeExcludePolicy"))?;
        Ok(filter)
    }
}

fn bytes(value: &Value) -> f64 {
    value.as_str().and_then(quantity).unwrap_or_default()
}

/// A quantity as Kubernetes writes it (`10Gi`, `1.5T`, `1e9`), in units.
pub(crate) fn quantity(text: &str) -> Option<f64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-'))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let times = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => f64::from(1 << 20),
        "Gi" => f64::from(1 << 30),
        "Ti" => 1024_f64.powi(4),
        "Pi" => 1024_f64.powi(5),
        "Ei" => 1024_f64.powi(6),
        exponent => 10_f64.powi(
            exponent
                .strip_prefix(['e', 'E'])?
                .parse::<i8>()
                .ok()?
                .into(),
        ),
    };
    Some(number * times)
}

#[cfg(test)]
mod tests;
