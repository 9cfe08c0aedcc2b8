//! What claims, volumes and pods tell of a backup's volumes. What is done with a claim is decided in [`choice`](super::choice). Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policies::{Action, Answer, ClaimFacts, Policies, Seen, VolumeFacts};
use crate::records::copies::Pod as PodVolume;
use crate::snapshot::class;

/// A PersistentVolumeClaim, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claim {
    /// Its uid.
    pub(super) uid: String,
    /// The volume it is bound to; empty where it is not.
    pub(super) volume: String,
    /// How large it is to be, as Kubernetes writes it.
    pub(super) request: String,
    /// How large it is.
    pub(super) capacity: String,
    /// The VolumeSnapshotClass that it names; empty where it does not.
    pub(super) snapshot_class: String,
    /// What policies ask of it.
    pub(super) facts: ClaimFacts,
}

/// A PersistentVolume, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    /// `Delete` or `Retain`.
    reclaim_policy: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// Who made it: a CSI driver, or another provisioner.
    #[serde(skip)]
    pub(super) driver: String,
    /// What that calls it, where it is a CSI driver.
    #[serde(skip)]
    pub(super) handle: Option<String>,
    /// What policies ask of it, where there are any.
    #[serde(skip)]
    pub(super) facts: Option<Box<VolumeFacts>>,
}

/// What a pod refers to and asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its priority class.
    pub(super) priority_class: Option<String>,
    /// The claims it mounts.
    pub(super) claims: Vec<String>,
    /// The same and what it wants for each; of a pod that has ended none.
    pub(super) uses: Vec<(String, Uses)>,
    /// Volumes whose files it asks for and that are no claims, with what they are.
    pub(super) in_vain: Vec<(String, &'static str)>,
    /// Whether it has an annotation by which a Velero before 1.5 found the files of its volumes.
    pub(super) has_old_snapshots: bool,
    /// How many other volumes it has whose files are its own, and that are no claims.
    pub(super) unclaimed: u64,
}

/// How pods use a claim, and what they want to be done with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Uses {
    /// The first pod that asks for its files, else the first that uses it.
    pub(super) by: Option<PodVolume>,
    /// Whether one asks for its files.
    pub(super) asked: bool,
    /// Whether one wants them left out.
    pub(super) excluded: bool,
    /// Whether one uses it and does not want them left out.
    pub(super) not_excluded: bool,
}

impl Uses {
    /// Adds what other pods say.
    pub(super) fn merge(&mut self, other: Self) {
        let order = |uses: &Self| {
            let name = uses
                .by
                .as_ref()
                .map(|by| (by.name.clone(), by.volume.clone()));
            (!uses.asked, name)
        };
        if self.by.is_none() || (other.by.is_some() && order(&other) < order(self)) {
            self.by = other.by;
        }
        self.asked |= other.asked;
        self.excluded |= other.excluded;
        self.not_excluded |= other.not_excluded;
    }
}

/// The annotation that names volumes of a pod whose files are to be copied.
const VOLUMES: &str = "backup.velero.io/backup-volumes";

/// The one that names those that are to be left out where all are copied.
pub(super) const EXCLUDES: &str = "backup.velero.io/backup-volumes-excludes";

/// What the annotations begin with by which a Velero before 1.5 found the files of a pod's volumes: every Velero still goes by them where it finds no other copy.
const OLD_SNAPSHOTS: &str = "snapshot.velero.io/";

/// Volumes that hold what the cluster puts there, or the node: no backup copies them, whoever asks for all.
const NOT_ITS_OWN: [&str; 6] = [
    "hostPath",
    "secret",
    "configMap",
    "projected",
    "downwardAPI",
    "image",
];

/// Reads a claim; its labels only where there are policies that may ask for them.
pub(super) fn claim(text: &str, policies: bool) -> Claim {
    let object: Value = serde_json::from_str(text).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut facts = ClaimFacts::of(&object);
    if !policies {
        facts.labels.clear();
    }
    Claim {
        uid: text(&object["metadata"]["uid"]),
        volume: text(&spec["volumeName"]),
        request: text(&spec["resources"]["requests"]["storage"]),
        capacity: text(&status["capacity"]["storage"]),
        snapshot_class: text(&object["metadata"]["annotations"][class::CLASS]),
        facts,
    }
}

/// Reads a volume, with what policies ask of it.
pub(super) fn volume(name: &str, text: &str, policies: bool) -> Option<(String, Volume)> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Meta {
        #[serde(default)]
        labels: Option<BTreeMap<String, String>>,
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        persistent_volume_reclaim_policy: String,
        csi: Option<Csi>,
    }
    #[derive(Deserialize)]
    struct Csi {
        driver: String,
        #[serde(default, rename = "volumeHandle")]
        handle: String,
    }
    let object: Object = serde_json::from_str(text).ok()?;
    let mut annotations = object.metadata.annotations.unwrap_or_default();
    let handle = object.spec.csi.as_ref().map(|csi| csi.handle.clone());
    let driver = match object.spec.csi {
        Some(csi) => Some(csi.driver),
        None => annotations.remove("pv.kubernetes.io/provisioned-by"),
    };
    Some((
        name.to_owned(),
        Volume {
            reclaim_policy: object.spec.persistent_volume_reclaim_policy,
            labels: object.metadata.labels.unwrap_or_default(),
            driver: driver.unwrap_or_default(),
            handle,
            facts: policies
                .then(|| serde_json::from_str::<Value>(text).ok())
                .flatten()
                .map(|volume| Box::new(VolumeFacts::of(&volume["spec"]))),
        },
    ))
}

/// Reads a pod.
pub(super) fn pod(namespace: &str, text: &str, policies: Option<&Policies>) -> Pod {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        metadata: Meta,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Meta {
        name: String,
        uid: String,
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        priority_class_name: Option<String>,
        volumes: Option<Vec<Value>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        phase: String,
    }
    let Ok(object) = serde_json::from_str::<Object>(text) else {
        return Pod::default();
    };
    // A pod that has ended holds no volume.
    let ended = matches!(object.status.phase.as_str(), "Succeeded" | "Failed");
    let Meta {
        name,
        uid,
        annotations,
    } = object.metadata;
    let annotations = annotations.unwrap_or_default();
    let named = |key: &str| {
        let list = annotations.get(key).map_or("", String::as_str);
        let names = list.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .collect::<BTreeSet<_>>()
    };
    let (mut asked, excluded) = (named(VOLUMES), named(EXCLUDES));
    let policies = policies.filter(|policies| policies.judges_volumes());
    let mut pod = Pod {
        priority_class: object
            .spec
            .priority_class_name
            .filter(|name| !name.is_empty()),
        has_old_snapshots: annotations.keys().any(|key| key.starts_with(OLD_SNAPSHOTS)),
        ..Pod::default()
    };
    for volume in object.spec.volumes.iter().flatten() {
        let called = volume["name"].as_str().unwrap_or_default();
        let is_asked = asked.remove(called);
        // A claim that is made for a pod is called after both.
        let claim = match volume["persistentVolumeClaim"]["claimName"].as_str() {
            Some(claim) => Some(claim.to_owned()),
            None if volume["ephemeral"].is_object() => Some(format!("{name}-{called}")),
            None => None,
        };
        if let Some(claim) = claim {
            if !ended {
                let is_excluded = excluded.contains(called);
                let by = PodVolume {
                    namespace: namespace.to_owned(),
                    name: name.clone(),
                    uid: uid.clone(),
                    volume: called.to_owned(),
                };
                let uses = Uses {
                    by: Some(by),
                    asked: is_asked,
                    excluded: is_excluded,
                    not_excluded: !is_excluded,
                };
                pod.uses.push((claim.clone(), uses));
            }
            pod.claims.push(claim);
            continue;
        }
        if ended {
            continue;
        }
        let facts = VolumeFacts::of(volume);
        let answer = policies.map(|policies| policies.answer(Seen::Facts(&facts), None));
        let is_asked = match answer {
            Some(Answer::Do(action)) => action == Action::FsBackup,
            _ => is_asked,
        };
        if is_asked {
            pod.in_vain.push((called.to_owned(), facts.kind));
        } else if !excluded.contains(called)
            && !NOT_ITS_OWN.contains(&facts.kind)
            && !matches!(answer, Some(Answer::Do(_)))
        {
            pod.unclaimed += 1;
        }
    }
    if !ended {
        let absent = asked.into_iter().map(|name| (name.to_owned(), ""));
        pod.in_vain.extend(absent);
    }
    pod
}
