//! The objects of a held claim, as they are sent and as they are read. Pure.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

use super::super::rewrite::LABEL_RESTORE;
use super::note::Note;
use super::step::{HeldFor, Owner, RETAIN, Real, Staging, Volume};
use crate::backup::{EXCLUDE_LABEL, quantity};

/// On a staging claim: the claim whose volume is filled under it.
pub(in super::super) const STAGING_OF: &str = "kubectl-backup/staging-of";
/// On a staging claim: the restore.
pub(in super::super) const RESTORE: &str = "kubectl-backup/restore";
/// On a claim and its staging claim: the snapshot whose files it gets.
pub(super) const SNAPSHOT: &str = "kubectl-backup/snapshot";
/// On a claim: the volume that it was made to name, which nothing else may have taken the place of.
pub(super) const MADE_FOR: &str = "kubectl-backup/volume";
/// On a claim: the uid of that volume, for another one may get its name.
pub(super) const MADE_FOR_UID: &str = "kubectl-backup/volume-uid";
/// On a claim and its staging claim: the uid of the backup.
pub(super) const BACKUP: &str = "kubectl-backup/backup-uid";
/// Annotations of claims that tell of one restore, and of no other one's.
pub(in super::super) const OF_ONE_RESTORE: [&str; 4] = [SNAPSHOT, MADE_FOR, MADE_FOR_UID, BACKUP];
/// On a volume that is kept meanwhile: the policy that it had.
pub(in super::super) const POLICY: &str = "kubectl-backup/reclaim-policy";
/// On a volume that is being filled, or was: under which staging claim, and by which run. What stands in a volume without it is somebody's.
pub(super) const FILLING: &str = "kubectl-backup/filling";
/// On a volume that was filled: for which claim.
pub(in super::super) const HELD_FOR: &str = "kubectl-backup/held-for";
/// How claims named their class before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// What would have the volume come from somewhere else.
const SOURCES: [&str; 2] = ["dataSource", "dataSourceRef"];
/// Which volumes that stand a claim may be bound to.
const SELECTOR: &str = "selector";
/// What is begun with this of annotations tells of another binding.
const BINDING: &str = "pv.kubernetes.io/";
const BOUND: &str = "pv.kubernetes.io/bind-completed";

/// Which restore fills which claim with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Aim {
    /// The restore's name.
    pub(in super::super) restore: String,
    /// Value of the label of what it makes.
    pub(in super::super) label: String,
    pub(in super::super) backup_uid: String,
    pub(in super::super) snapshot: String,
    /// The claim, in the target.
    pub(in super::super) namespace: String,
    pub(in super::super) claim: String,
}

impl Aim {
    /// The name of the staging claim.
    pub(in super::super) fn staging(&self) -> String {
        self.note("").staging()
    }

    /// What is written on its volume when that is full, for the real claim of this uid.
    pub(super) fn note(&self, real: &str) -> Note {
        Note {
            restore: self.restore.clone(),
            backup_uid: self.backup_uid.clone(),
            namespace: self.namespace.clone(),
            claim: self.claim.clone(),
            uid: real.to_owned(),
            snapshot: self.snapshot.clone(),
        }
    }

    fn held_for(&self, text: &str) -> HeldFor {
        match Note::read(text) {
            Some(note) if note == self.note(&note.uid) => HeldFor::Ours(note.uid),
            _ => HeldFor::Other(crate::pod::short(text)),
        }
    }
}

/// How large a volume has to be, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Size {
    /// What the saved one held, as Kubernetes writes it.
    pub(in super::super) capacity: String,
    /// Bytes that the files take.
    pub(in super::super) allocated: u64,
}

pub(super) fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    let found = path.iter().fold(value, |value, key| &value[*key]);
    found.as_str().unwrap_or_default()
}

pub(super) fn annotation<'v>(object: &'v Value, key: &str) -> &'v str {
    text(object, &["metadata", "annotations", key])
}

pub(super) fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// The policy that a volume had before it was to be kept, where one of Kubernetes' stands there: somebody may have changed it.
pub(super) fn former(volume: &Value) -> Option<String> {
    let former = annotation(volume, POLICY);
    matches!(former, RETAIN | "Delete" | "Recycle").then(|| former.to_owned())
}

pub(super) fn was_bound(claim: &Value) -> bool {
    matches!(claim["status"]["phase"].as_str(), Some("Bound" | "Lost"))
        || !claim["metadata"]["annotations"][BOUND].is_null()
}

fn request(claim: &Value) -> &str {
    text(claim, &["spec", "resources", "requests", "storage"])
}

/// The spec that both claims have in common: what it names, and what would fill it otherwise, goes.
fn spec(claim: &Value) -> Map<String, Value> {
    let mut spec = claim["spec"].as_object().cloned().unwrap_or_default();
    for key in SOURCES.iter().chain(&[SELECTOR, "volumeName"]) {
        spec.remove(*key);
    }
    let class = annotation(claim, CLASS);
    if !class.is_empty() {
        spec.insert("storageClassName".to_owned(), class.into());
    }
    spec
}

/// The claim under which the volume of `claim` (as it would be created) is filled.
pub(in super::super) fn staging(aim: &Aim, claim: &Value, size: &Size) -> Value {
    let mut spec = spec(claim);
    // Without it, it would be bound to volumes that this claim was kept from.
    if let Some(selector) = claim["spec"].get(SELECTOR) {
        spec.insert(SELECTOR.to_owned(), selector.clone());
    }
    let wanted = request(claim);
    let bytes = |text: &str| quantity(text).unwrap_or_default();
    let mut most = wanted.to_owned();
    if bytes(&size.capacity) > bytes(&most) {
        most.clone_from(&size.capacity);
    }
    // Only where nobody knows how large it was: what files take is no size of a volume.
    #[expect(clippy::cast_precision_loss, reason = "a size to compare with")]
    if size.capacity.is_empty() && size.allocated as f64 > bytes(&most) {
        most = size.allocated.to_string();
    }
    spec.insert(
        "resources".to_owned(),
        json!({"requests": {"storage": most}}),
    );
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": aim.staging(),
            "namespace": aim.namespace,
            "labels": {
                "app.kubernetes.io/name": "kubectl-backup",
                "app.kubernetes.io/component": "mover",
                EXCLUDE_LABEL: "true",
                LABEL_RESTORE: aim.label,
            },
            "annotations": {
                STAGING_OF: aim.claim,
                RESTORE: aim.restore,
                SNAPSHOT: aim.snapshot,
                BACKUP: aim.backup_uid,
            },
        },
        "spec": spec,
    })
}

/// The real claim, which names the volume that is filled for it.
pub(in super::super) fn real(aim: &Aim, claim: &Value, volume: &Value) -> Value {
    let mut spec = spec(claim);
    let name = text(volume, &["metadata", "name"]);
    spec.insert("volumeName".to_owned(), name.into());
    // As the staging claim got it, where the claim left it to the cluster.
    spec.insert(
        "storageClassName".to_owned(),
        text(volume, &["spec", "storageClassName"]).into(),
    );
    let has = text(volume, &["spec", "capacity", "storage"]);
    if let (Some(wanted), Some(there)) = (quantity(request(claim)), quantity(has))
        && wanted > there
    {
        spec.insert(
            "resources".to_owned(),
            json!({"requests": {"storage": has}}),
        );
    }
    let mut real = claim.clone();
    real["spec"] = Value::Object(spec);
    if let Some(annotations) = real["metadata"]["annotations"].as_object_mut() {
        annotations.retain(|key, _| key != CLASS && !key.starts_with(BINDING));
    }
    if !real["metadata"]["annotations"].is_object() {
        real["metadata"]["annotations"] = json!({});
    }
    let annotations = &mut real["metadata"]["annotations"];
    annotations[SNAPSHOT] = aim.snapshot.clone().into();
    annotations[MADE_FOR] = name.into();
    annotations[MADE_FOR_UID] = text(volume, &["metadata", "uid"]).into();
    annotations[BACKUP] = aim.backup_uid.clone().into();
    real
}

/// Keeps a volume, and says for whom.
pub(in super::super) fn retain(aim: &Aim, version: &str, real: &str, note: Option<&str>) -> Value {
    let mut patch = json!({
        "metadata": {"resourceVersion": version, "annotations": {HELD_FOR: aim.note(real).text()}},
        "spec": {"persistentVolumeReclaimPolicy": RETAIN},
    });
    if let Some(note) = note {
        patch["metadata"]["annotations"][POLICY] = note.into();
    }
    patch
}

/// What is written on a volume before a run fills it under a staging claim of this uid.
pub(super) fn filling(staging: &str, run: &str) -> String {
    format!("{staging}/{run}")
}

/// Whether a run of this restore began to fill it under the staging claim of this uid: what stands there is its own.
pub(super) fn is_begun(volume: &Value, staging: &str) -> bool {
    let rest = annotation(volume, FILLING).strip_prefix(staging);
    !staging.is_empty() && rest.is_some_and(|rest| rest.starts_with('/'))
}

/// Writes that on a volume of this revision.
pub(super) fn begin(version: &str, filling: &str) -> Value {
    json!({"metadata": {"resourceVersion": version, "annotations": {FILLING: filling}}})
}

/// Gives a volume to the real claim of this uid.
pub(in super::super) fn bind(aim: &Aim, version: &str, real: &str) -> Value {
    json!({
        "metadata": {"resourceVersion": version},
        "spec": {"claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "namespace": aim.namespace, "name": aim.claim, "uid": real,
            "resourceVersion": null, "fieldPath": null,
        }},
    })
}

/// Gives a volume its policy back, where it is known, and takes away what was written on it.
pub(in super::super) fn put_back(version: &str, former: Option<&str>) -> Value {
    let mut patch = json!({
        "metadata": {"resourceVersion": version, "annotations": {HELD_FOR: null, POLICY: null, FILLING: null}},
    });
    if let Some(former) = former {
        patch["spec"] = json!({"persistentVolumeReclaimPolicy": former});
    }
    patch
}

impl Real {
    pub(in super::super) fn read(claim: &Value, aim: &Aim) -> Self {
        let label = text(claim, &["metadata", "labels", LABEL_RESTORE]);
        let made_for = annotation(claim, MADE_FOR);
        let made_for_uid = annotation(claim, MADE_FOR_UID);
        Self {
            uid: text(claim, &["metadata", "uid"]).to_owned(),
            is_going: is_going(claim),
            // Which volume is the one of a claim that does not say it is not known: it is left alone.
            is_ours: label == aim.label
                && annotation(claim, SNAPSHOT) == aim.snapshot
                && !made_for.is_empty()
                && !made_for_uid.is_empty(),
            made_for: made_for.to_owned(),
            made_for_uid: made_for_uid.to_owned(),
            volume: text(claim, &["spec", "volumeName"]).to_owned(),
            was_bound: was_bound(claim),
            is_bound: claim["status"]["phase"] == "Bound",
        }
    }
}

impl Staging {
    pub(in super::super) fn read(claim: &Value, aim: &Aim) -> Self {
        let is_ours = [
            (STAGING_OF, &aim.claim),
            (RESTORE, &aim.restore),
            (SNAPSHOT, &aim.snapshot),
        ];
        let bound = text(claim, &["spec", "volumeName"]);
        let is_bound = claim["status"]["phase"] != "Pending" && !bound.is_empty();
        Self {
            uid: text(claim, &["metadata", "uid"]).to_owned(),
            is_going: is_going(claim),
            is_ours: is_ours
                .iter()
                .all(|(key, value)| annotation(claim, key) == value.as_str()),
            volume: is_bound.then(|| bound.to_owned()),
        }
    }
}

impl Volume {
    pub(in super::super) fn read(volume: &Value, aim: &Aim, real: Option<&Real>) -> Self {
        let claim = &volume["spec"]["claimRef"];
        let of = |key: &str| claim[key].as_str().unwrap_or_default();
        let is_here = of("namespace") == aim.namespace;
        let owner = match of("uid") {
            _ if claim.is_null() => Owner::Nobody,
            uid if is_here && of("name") == aim.staging() && !uid.is_empty() => {
                Owner::Staging(uid.to_owned())
            }
            uid if is_here
                && of("name") == aim.claim
                && real.is_some_and(|real| !uid.is_empty() && real.uid == uid) =>
            {
                Owner::Real
            }
            _ => Owner::Other(format!("claim {}/{}", of("namespace"), of("name"))),
        };
        let held_for = annotation(volume, HELD_FOR);
        Self {
            name: text(volume, &["metadata", "name"]).to_owned(),
            uid: text(volume, &["metadata", "uid"]).to_owned(),
            version: text(volume, &["metadata", "resourceVersion"]).to_owned(),
            is_going: is_going(volume),
            owner,
            is_begun: !annotation(volume, FILLING).is_empty(),
            held_for: (!held_for.is_empty()).then(|| aim.held_for(held_for)),
            policy: text(volume, &["spec", "persistentVolumeReclaimPolicy"]).to_owned(),
            former: former(volume),
            is_bound: volume["status"]["phase"] == "Bound",
        }
    }
}
