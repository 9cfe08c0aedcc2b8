//! Volumes and what pods ask to be done with them. No volume data is saved yet: every claim is named, with the reason, in the form that
//! Velero's restore reads, and what was asked for is an error. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A PersistentVolumeClaim, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Claim {
    /// The volume it is bound to; empty where it is not.
    pub(super) volume: String,
}

/// A PersistentVolume, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    /// `Delete` or `Retain`.
    reclaim_policy: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
}

/// What a pod refers to and asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its priority class.
    pub(super) priority_class: Option<String>,
    /// The claims it mounts.
    pub(super) claims: Vec<String>,
    /// What its annotations ask for.
    pub(super) asks: Vec<String>,
}

/// Annotations that ask for something, and what it is.
const ASKS: [(&str, &str); 4] = [
    (
        "backup.velero.io/backup-volumes",
        "the files of its volumes",
    ),
    ("hook.backup.velero.io/command", "a backup hook"),
    (
        "pre.hook.backup.velero.io/command",
        "a hook before the backup",
    ),
    (
        "post.hook.backup.velero.io/command",
        "a hook after the backup",
    ),
];

/// Why a claim's data is not there.
const REASON: &str = "data not saved: this backup holds objects only";

/// Why, where that is what was asked for.
const REASON_UNWANTED: &str = "data not saved: volumes were not wanted (snapshot-volumes=false)";

/// Reads a claim.
pub(super) fn claim(text: &str) -> Claim {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        volume_name: Option<String>,
    }
    Claim {
        volume: serde_json::from_str::<Object>(text)
            .ok()
            .and_then(|object| object.spec.volume_name)
            .unwrap_or_default(),
    }
}

/// Reads a volume.
pub(super) fn volume(name: &str, text: &str) -> Option<(String, Volume)> {
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
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        persistent_volume_reclaim_policy: String,
    }
    let object: Object = serde_json::from_str(text).ok()?;
    Some((
        name.to_owned(),
        Volume {
            reclaim_policy: object.spec.persistent_volume_reclaim_policy,
            labels: object.metadata.labels.unwrap_or_default(),
        },
    ))
}

/// Reads a pod.
pub(super) fn pod(text: &str) -> Pod {
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
        annotations: Option<BTreeMap<String, String>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Spec {
        priority_class_name: Option<String>,
        volumes: Option<Vec<PodVolume>>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct PodVolume {
        persistent_volume_claim: Option<ClaimRef>,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct ClaimRef {
        claim_name: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        phase: String,
    }
    let Ok(object) = serde_json::from_str::<Object>(text) else {
        return Pod::default();
    };
    // A pod that has ended runs no hooks and holds no volume.
    let ended = matches!(object.status.phase.as_str(), "Succeeded" | "Failed");
    let annotations = object.metadata.annotations.unwrap_or_default();
    let asked = |key: &str| !ended && annotations.get(key).is_some_and(|v| !v.trim().is_empty());
    Pod {
        priority_class: object
            .spec
            .priority_class_name
            .filter(|name| !name.is_empty()),
        claims: object
            .spec
            .volumes
            .unwrap_or_default()
            .into_iter()
            .filter_map(|volume| volume.persistent_volume_claim)
            .map(|claim| claim.claim_name)
            .collect(),
        asks: ASKS
            .iter()
            .filter(|(key, _)| asked(key))
            .map(|(_, what)| (*what).to_owned())
            .collect(),
    }
}

/// An entry of `<name>-volumeinfo.json.gz`, as Velero writes it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VolumeInfo {
    pvc_name: String,
    pvc_namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pv_name: String,
    skipped: bool,
    skipped_reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pv_info: Option<Volume>,
}

/// An entry for every claim.
pub(super) fn infos(
    claims: &BTreeMap<(String, String), Claim>,
    volumes: &BTreeMap<String, Volume>,
    wanted: Option<bool>,
) -> Vec<VolumeInfo> {
    claims
        .iter()
        .map(|((namespace, name), claim)| VolumeInfo {
            pvc_name: name.clone(),
            pvc_namespace: namespace.clone(),
            pv_name: claim.volume.clone(),
            skipped: true,
            skipped_reason: if wanted == Some(false) {
                REASON_UNWANTED
            } else {
                REASON
            },
            pv_info: volumes.get(&claim.volume).cloned(),
        })
        .collect()
}
