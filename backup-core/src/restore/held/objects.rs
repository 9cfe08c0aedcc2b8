//! The objects of a held claim, as they are sent and as they are read. Pure.

use serde_json::{Map, Value, json};

use super::super::rewrite::LABEL_RESTORE;
use super::step::{HeldFor, Owner, RETAIN, Real, Staging, Volume};
use crate::backup::{EXCLUDE_LABEL, quantity};
use crate::location::sha256;

/// On a staging claim: the claim whose volume is filled under it.
pub(in super::super) const STAGING_OF: &str = "kubectl-backup/staging-of";
/// On a staging claim: the restore.
pub(in super::super) const RESTORE: &str = "kubectl-backup/restore";
/// On a claim and its staging claim: the snapshot whose files it gets.
pub(in super::super) const SNAPSHOT: &str = "kubectl-backup/snapshot";
/// On a volume that is kept meanwhile: the policy that it had.
pub(in super::super) const POLICY: &str = "kubectl-backup/reclaim-policy";
/// On a volume that was filled: for which claim.
pub(in super::super) const HELD_FOR: &str = "kubectl-backup/held-for";
/// How claims named their class before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// What would have the volume come from somewhere else.
const SOURCES: [&str; 3] = ["dataSource", "dataSourceRef", "selector"];
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
        let parts = [
            &self.restore,
            &self.backup_uid,
            &self.snapshot,
            &self.namespace,
            &self.claim,
        ];
        let digest = sha256(parts.map(String::as_str).join("\n").as_bytes());
        format!("restore-{}", &digest[..16])
    }

    /// What is written on its volume when that is full.
    fn held_for(&self, real: &str) -> String {
        format!(
            "{}/{}/{}/{real}/{}",
            self.restore, self.namespace, self.claim, self.snapshot
        )
    }

    fn read_held_for(&self, text: &str) -> HeldFor {
        let before = format!("{}/{}/{}/", self.restore, self.namespace, self.claim);
        let after = format!("/{}", self.snapshot);
        let uid = text
            .strip_prefix(&before)
            .and_then(|rest| rest.strip_suffix(&after))
            .filter(|uid| !uid.is_empty() && !uid.contains('/'));
        match uid {
            Some(uid) => HeldFor::Ours(uid.to_owned()),
            None => HeldFor::Other(crate::pod::short(text)),
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

fn text<'v>(value: &'v Value, path: &[&str]) -> &'v str {
    let found = path.iter().fold(value, |value, key| &value[*key]);
    found.as_str().unwrap_or_default()
}

fn annotation<'v>(object: &'v Value, key: &str) -> &'v str {
    text(object, &["metadata", "annotations", key])
}

fn is_going(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

fn request(claim: &Value) -> &str {
    text(claim, &["spec", "resources", "requests", "storage"])
}

/// The spec that both claims have in common: what it names, and what would fill it otherwise, goes.
fn spec(claim: &Value) -> Map<String, Value> {
    let mut spec = claim["spec"].as_object().cloned().unwrap_or_default();
    for key in SOURCES.iter().chain(&["volumeName"]) {
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
            },
        },
        "spec": spec,
    })
}

/// The real claim, which names the volume that is filled for it.
pub(in super::super) fn real(aim: &Aim, claim: &Value, volume: &Value) -> Value {
    let mut spec = spec(claim);
    spec.insert(
        "volumeName".to_owned(),
        text(volume, &["metadata", "name"]).into(),
    );
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
    real["metadata"]["annotations"][SNAPSHOT] = aim.snapshot.clone().into();
    real
}

/// Keeps a volume, and says for whom.
pub(in super::super) fn retain(aim: &Aim, version: &str, real: &str, note: Option<&str>) -> Value {
    let mut patch = json!({
        "metadata": {"resourceVersion": version, "annotations": {HELD_FOR: aim.held_for(real)}},
        "spec": {"persistentVolumeReclaimPolicy": RETAIN},
    });
    if let Some(note) = note {
        patch["metadata"]["annotations"][POLICY] = note.into();
    }
    patch
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
        "metadata": {"resourceVersion": version, "annotations": {HELD_FOR: null, POLICY: null}},
    });
    if let Some(former) = former {
        patch["spec"] = json!({"persistentVolumeReclaimPolicy": former});
    }
    patch
}

impl Real {
    pub(in super::super) fn read(claim: &Value, aim: &Aim) -> Self {
        let label = text(claim, &["metadata", "labels", LABEL_RESTORE]);
        let is_bound = claim["status"]["phase"] == "Bound";
        Self {
            uid: text(claim, &["metadata", "uid"]).to_owned(),
            is_going: is_going(claim),
            is_ours: label == aim.label && annotation(claim, SNAPSHOT) == aim.snapshot,
            volume: text(claim, &["spec", "volumeName"]).to_owned(),
            was_bound: is_bound
                || claim["status"]["phase"] == "Lost"
                || !claim["metadata"]["annotations"][BOUND].is_null(),
            is_bound,
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
        // Whoever changed it wrote no policy of Kubernetes.
        let former = Some(annotation(volume, POLICY))
            .filter(|policy| matches!(*policy, RETAIN | "Delete" | "Recycle"));
        Self {
            name: text(volume, &["metadata", "name"]).to_owned(),
            version: text(volume, &["metadata", "resourceVersion"]).to_owned(),
            is_going: is_going(volume),
            owner,
            held_for: (!held_for.is_empty()).then(|| aim.read_held_for(held_for)),
            policy: text(volume, &["spec", "persistentVolumeReclaimPolicy"]).to_owned(),
            former: former.map(str::to_owned),
            is_bound: volume["status"]["phase"] == "Bound",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aim() -> Aim {
        Aim {
            restore: "again".into(),
            label: "again".into(),
            backup_uid: "b-uid".into(),
            snapshot: "5".repeat(64),
            namespace: "copy".into(),
            claim: "data".into(),
        }
    }

    fn claim() -> Value {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "data", "namespace": "copy",
                "labels": {"app": "db", LABEL_RESTORE: "again"},
                "annotations": {
                    "mine": "stays", CLASS: "slow", BOUND: "yes", "pv.kubernetes.io/bound-by-controller": "yes",
                },
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "volumeName": "old",
                "selector": {"matchLabels": {"a": "b"}},
                "dataSource": {"kind": "VolumeSnapshot", "name": "s"},
                "dataSourceRef": {"kind": "VolumeSnapshot", "name": "s"},
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    }

    fn volume() -> Value {
        json!({
            "metadata": {"name": "pvc-1", "resourceVersion": "12"},
            "spec": {
                "capacity": {"storage": "1Gi"}, "storageClassName": "fast",
                "persistentVolumeReclaimPolicy": "Delete",
                "claimRef": {"namespace": "copy", "name": aim().staging(), "uid": "s-uid", "resourceVersion": "3"},
            },
            "status": {"phase": "Bound"},
        })
    }

    #[test]
    fn a_staging_claim_wants_an_empty_volume_that_is_large_enough() {
        let size = |capacity: &str, allocated| Size {
            capacity: capacity.into(),
            allocated,
        };
        let of = |size: &Size| staging(&aim(), &claim(), size);
        let made = of(&size("", 0));
        let name = made["metadata"]["name"].as_str().unwrap();
        assert_eq!((name.len(), &name[..8]), (24, "restore-"));
        assert_eq!(made["metadata"]["namespace"], "copy");
        for key in ["volumeName", "selector", "dataSource", "dataSourceRef"] {
            assert!(made["spec"][key].is_null(), "{key}");
        }
        assert_eq!(made["spec"]["storageClassName"], "slow");
        assert_eq!(made["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        assert_eq!(
            made["metadata"]["annotations"].as_object().unwrap().len(),
            3
        );
        assert_eq!(
            made["metadata"]["labels"]["app"],
            Value::Null,
            "no service finds it"
        );
        assert_eq!(made["metadata"]["labels"][EXCLUDE_LABEL], "true");
        for (size, wanted) in [
            (size("", 0), "1Gi"),
            (size("512Mi", 5 << 30), "1Gi"),
            (size("2Gi", 0), "2Gi"),
            (size("", 5 << 30), "5368709120"),
            (size("no size", 0), "1Gi"),
        ] {
            assert_eq!(request(&of(&size)), wanted);
        }
        let read = Staging::read(&made, &aim());
        assert!(read.is_ours && read.volume.is_none());
        for other in [
            Aim {
                snapshot: "6".repeat(64),
                ..aim()
            },
            Aim {
                restore: "other".into(),
                ..aim()
            },
            Aim {
                claim: "log".into(),
                ..aim()
            },
        ] {
            assert!(!Staging::read(&made, &other).is_ours);
            assert_ne!(other.staging(), aim().staging());
        }
    }

    #[test]
    fn the_real_claim_names_its_volume_and_nothing_else_fills_it() {
        let made = real(&aim(), &claim(), &volume());
        let spec = json!({
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem", "volumeName": "pvc-1",
            "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}},
        });
        assert_eq!(made["spec"], spec);
        let annotations = json!({"mine": "stays", SNAPSHOT: aim().snapshot});
        assert_eq!(made["metadata"]["annotations"], annotations);
        let mut small = volume();
        small["spec"]["capacity"]["storage"] = "900Mi".into();
        assert_eq!(request(&real(&aim(), &claim(), &small)), "900Mi");
        let read = Real::read(&made, &aim());
        assert!(read.is_ours && !read.was_bound && !read.is_bound);
        assert_eq!(read.volume, "pvc-1");
        let mut other = made.clone();
        other["metadata"]["labels"][LABEL_RESTORE] = "other".into();
        assert!(!Real::read(&other, &aim()).is_ours);
        let mut bound = made;
        bound["metadata"]["annotations"][BOUND] = "yes".into();
        assert!(Real::read(&bound, &aim()).was_bound);
        assert!(Real::read(&json!({"status": {"phase": "Lost"}}), &aim()).was_bound);
    }

    #[test]
    fn what_is_written_on_a_volume_is_read_again() {
        let read = |volume: &Value, real: Option<&Real>| Volume::read(volume, &aim(), real);
        let mut live = volume();
        let before = read(&live, None);
        assert_eq!(before.owner, Owner::Staging("s-uid".into()));
        assert_eq!((before.held_for, before.former), (None, None));
        let patch = retain(&aim(), "12", "r-uid", Some("Delete"));
        assert_eq!(patch["metadata"]["resourceVersion"], "12");
        live["metadata"]["annotations"] = patch["metadata"]["annotations"].clone();
        live["spec"]["persistentVolumeReclaimPolicy"] =
            patch["spec"]["persistentVolumeReclaimPolicy"].clone();
        let after = read(&live, None);
        assert_eq!(after.held_for, Some(HeldFor::Ours("r-uid".into())));
        assert_eq!(
            (after.policy.as_str(), after.former.as_deref()),
            (RETAIN, Some("Delete"))
        );
        let again = retain(&aim(), "13", "r-uid", None);
        assert!(again["metadata"]["annotations"][POLICY].is_null());
        let another = Aim {
            claim: "log".into(),
            ..aim()
        };
        assert!(matches!(
            Volume::read(&live, &another, None).held_for,
            Some(HeldFor::Other(_))
        ));
        live["metadata"]["annotations"][POLICY] = "whatever".into();
        assert_eq!(read(&live, None).former, None);
    }

    #[test]
    fn a_volume_is_given_to_one_claim_by_its_uid() {
        let patch = bind(&aim(), "12", "r-uid");
        let claim = &patch["spec"]["claimRef"];
        assert_eq!(
            (&claim["uid"], &claim["name"]),
            (&json!("r-uid"), &json!("data"))
        );
        assert!(claim.as_object().unwrap().contains_key("resourceVersion"));
        let mut live = volume();
        live["spec"]["claimRef"] = claim.clone();
        let stands = Real {
            uid: "r-uid".into(),
            is_going: false,
            is_ours: true,
            volume: "pvc-1".into(),
            was_bound: false,
            is_bound: false,
        };
        assert_eq!(
            Volume::read(&live, &aim(), Some(&stands)).owner,
            Owner::Real
        );
        let other = Real {
            uid: "x".into(),
            ..stands.clone()
        };
        assert!(matches!(
            Volume::read(&live, &aim(), Some(&other)).owner,
            Owner::Other(_)
        ));
        live["spec"]["claimRef"]["uid"] = "".into();
        assert!(matches!(
            Volume::read(&live, &aim(), Some(&stands)).owner,
            Owner::Other(_)
        ));
        live["spec"]["claimRef"] = Value::Null;
        assert_eq!(
            Volume::read(&live, &aim(), Some(&stands)).owner,
            Owner::Nobody
        );
        let back = put_back("14", Some("Delete"));
        assert_eq!(back["spec"]["persistentVolumeReclaimPolicy"], "Delete");
        assert!(
            back["metadata"]["annotations"]
                .as_object()
                .unwrap()
                .values()
                .all(Value::is_null)
        );
        assert!(put_back("14", None)["spec"].is_null());
    }
}
