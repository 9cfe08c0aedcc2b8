//! Volumes and what pods ask to be done with them. No volume data is saved yet: every claim is named, with the reason, in the form that
//! Velero's restore reads, and what was asked for is an error. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policies::{Action, Answer, ClaimFacts, Policies, Seen, VolumeFacts};

/// A PersistentVolumeClaim, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Claim {
    /// The volume it is bound to; empty where it is not.
    pub(super) volume: String,
    /// What policies ask of it, where there are any.
    facts: Option<Box<ClaimFacts>>,
}

/// A PersistentVolume, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Volume {
    /// `Delete` or `Retain`.
    reclaim_policy: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// What policies ask of it, where there are any.
    #[serde(skip)]
    facts: Option<Box<VolumeFacts>>,
}

/// What a pod refers to and asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its priority class.
    pub(super) priority_class: Option<String>,
    /// The claims it mounts.
    pub(super) claims: Vec<String>,
    /// What its annotations ask for, and policies of its own volumes.
    pub(super) asks: Vec<String>,
    /// Claims whose files its annotation asks for, where policies may say otherwise.
    pub(super) asked_claims: Vec<String>,
}

/// The annotation that names volumes of a pod.
const VOLUMES: &str = "backup.velero.io/backup-volumes";

/// What it asks for.
pub(super) const FILES: &str = "the files of its volumes";

/// Annotations that ask for something, and what it is.
const ASKS: [(&str, &str); 1] = [(VOLUMES, FILES)];

/// Why a claim's data is not there.
const REASON: &str = "data not saved: this backup holds objects only";

/// Why, where that is what was asked for.
const REASON_UNWANTED: &str = "data not saved: volumes were not wanted (snapshot-volumes=false)";

/// Why, where a resource policy says so; Velero's words.
const REASON_SKIPPED: &str = "skipped due to resource policy";

/// The same, where it leaves the data to somebody else.
const REASON_CUSTOM: &str = "left to another tool by resource policy (custom)";

/// What is done about the data of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// Nothing is said of it.
    Usual,
    /// It need not be there, and why.
    LeftOut(&'static str),
    /// A policy asks for it, in this way.
    Asked(&'static str),
    /// A policy may say something, and nobody can tell.
    Unknown,
}

/// Asks the policies.
pub(super) fn treatment(
    claim: &Claim,
    volumes: &BTreeMap<String, Volume>,
    policies: Option<&Policies>,
) -> Treatment {
    let Some(policies) = policies else {
        return Treatment::Usual;
    };
    let volume = match volumes.get(&claim.volume) {
        Some(Volume {
            facts: Some(facts), ..
        }) => Seen::Facts(facts),
        _ if claim.volume.is_empty() => Seen::Unbound,
        _ => Seen::Unread,
    };
    match policies.answer(volume, claim.facts.as_deref()) {
        Answer::Do(Action::Skip) => Treatment::LeftOut(REASON_SKIPPED),
        Answer::Do(Action::Custom) => Treatment::LeftOut(REASON_CUSTOM),
        Answer::Do(Action::FsBackup) => Treatment::Asked("a copy of its files (fs-backup)"),
        Answer::Do(Action::Snapshot) => Treatment::Asked("a snapshot"),
        Answer::Nothing => Treatment::Usual,
        Answer::Unknown => Treatment::Unknown,
    }
}

/// Reads a claim, with what policies ask of it.
pub(super) fn claim(text: &str, policies: bool) -> Claim {
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
        facts: policies
            .then(|| serde_json::from_str::<Value>(text).ok())
            .flatten()
            .map(|claim| Box::new(ClaimFacts::of(&claim))),
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
            facts: policies
                .then(|| serde_json::from_str::<Value>(text).ok())
                .flatten()
                .map(|volume| Box::new(VolumeFacts::of(&volume["spec"]))),
        },
    ))
}

/// Reads a pod.
pub(super) fn pod(text: &str, policies: Option<&Policies>) -> Pod {
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
    // A pod that has ended holds no volume.
    let ended = matches!(object.status.phase.as_str(), "Succeeded" | "Failed");
    let annotations = object.metadata.annotations.unwrap_or_default();
    let policies = policies.filter(|policies| !ended && policies.judges_volumes());
    let judged = policies.map(|policies| {
        let named = annotations.get(VOLUMES).map_or("", String::as_str);
        Judged::of(text, named, policies)
    });
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
            .filter(|(key, _)| match &judged {
                Some(judged) if *key == VOLUMES => judged.files,
                _ => asked(key),
            })
            .map(|(_, what)| (*what).to_owned())
            .collect(),
        asked_claims: judged.map(|judged| judged.claims).unwrap_or_default(),
    }
}

/// What is asked of a pod's volumes where policies have a say.
#[derive(Default)]
struct Judged {
    /// Files of volumes that are no claims.
    files: bool,
    /// Claims that the annotation names: for them the policies ask their volumes.
    claims: Vec<String>,
}

impl Judged {
    fn of(text: &str, named: &str, policies: &Policies) -> Self {
        let mut judged = Self::default();
        let mut named: Vec<&str> = named
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let pod: Value = serde_json::from_str(text).unwrap_or_default();
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let name = volume["name"].as_str().unwrap_or_default();
            let before = named.len();
            named.retain(|one| *one != name);
            let is_named = named.len() < before;
            match volume["persistentVolumeClaim"]["claimName"].as_str() {
                Some(claim) if is_named => judged.claims.push(claim.to_owned()),
                Some(_) => {}
                None => {
                    judged.files |=
                        match policies.answer(Seen::Facts(&VolumeFacts::of(volume)), None) {
                            Answer::Do(action) => action == Action::FsBackup,
                            Answer::Nothing | Answer::Unknown => is_named,
                        };
                }
            }
        }
        // Volumes that are not there are asked for in vain.
        judged.files |= !named.is_empty();
        judged
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
    policies: Option<&Policies>,
) -> Vec<VolumeInfo> {
    claims
        .iter()
        .map(|((namespace, name), claim)| VolumeInfo {
            pvc_name: name.clone(),
            pvc_namespace: namespace.clone(),
            pv_name: claim.volume.clone(),
            skipped: true,
            skipped_reason: match treatment(claim, volumes, policies) {
                Treatment::LeftOut(why) => why,
                _ if wanted == Some(false) => REASON_UNWANTED,
                _ => REASON,
            },
            pv_info: volumes.get(&claim.volume).cloned(),
        })
        .collect()
}
