//! The objects of snapshots as they are sent, and what matters of them as they are read. Pure.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::API;
use crate::backup::{EXCLUDE_LABEL, quantity};
use crate::location::sha256;

/// The label with the run that made it.
pub(crate) const RUN: &str = "kubectl-backup/run";
/// The label with the digest of the location of that run's inventory.
pub(crate) const LOCATION: &str = "kubectl-backup/location";
/// The label of what a restore makes.
pub(crate) const RESTORE: &str = "kubectl-backup/restored-by";
/// The label of what removes a snapshot.
pub(crate) const EXPIRE: &str = "kubectl-backup/expires";
/// The annotation with the claim.
pub(crate) const CLAIM: &str = "kubectl-backup/claim";

/// The annotation with when somebody waited for it to go.
pub(crate) const TOUCHED: &str = "kubectl-backup/awaited-at";

/// The policy of a content whose snapshot stays when it goes.
pub(crate) const RETAIN: &str = "Retain";
/// That of one whose snapshot goes with it.
pub(crate) const DELETE: &str = "Delete";

/// By which the driver is asked before a content goes.
const FINALIZER: &str = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
/// By which the sidecar says that it asks the driver for a snapshot.
const BEING_CREATED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-created";
/// By which the sidecar learns that the content is to go, and not for the moment only.
const BEING_DELETED: &str = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

/// Whose an object is: the run, and the digest of the location that has its inventory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Whose {
    pub(crate) run: String,
    pub(crate) place: String,
}

impl Whose {
    /// What the names of its VolumeSnapshots begin with.
    pub(crate) fn prefix(&self) -> String {
        format!("backup-{}-", self.run)
    }

    fn labels(&self) -> Value {
        let mut all = labels(RUN, &self.run);
        all[LOCATION] = self.place.as_str().into();
        all
    }
}

/// What all objects of ours have in common.
fn labels(key: &str, value: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "kubectl-backup",
        "app.kubernetes.io/component": "snapshot",
        EXCLUDE_LABEL: "true",
        key: value,
    })
}

/// What finds them, in a query.
pub(crate) fn selector(key: &str) -> String {
    format!("app.kubernetes.io/name=kubectl-backup,app.kubernetes.io/component=snapshot,{key}")
}

/// A name that depends on all of these.
pub(crate) fn name(what: &str, of: &[&str]) -> String {
    format!("{what}-{}", &sha256(of.join("\n").as_bytes())[..16])
}

/// Whether it is such a name, of whatever.
pub(crate) fn is_name(what: &str, name: &str) -> bool {
    let digits = name
        .strip_prefix(what)
        .and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        digits.len() == 16 && digits.bytes().all(is_digit)
    })
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Asks for a snapshot of a claim.
pub(crate) fn wanted(at: &At, whose: &Whose, claim: &str, class: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "VolumeSnapshot",
        "metadata": {
            "name": at.name, "namespace": at.namespace,
            "labels": whose.labels(), "annotations": {CLAIM: claim},
        },
        "spec": {"volumeSnapshotClassName": class, "source": {"persistentVolumeClaimName": claim}},
    })
}

/// A snapshot that is known by its handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known<'a> {
    pub(crate) driver: &'a str,
    pub(crate) handle: &'a str,
    /// Where it still exists, and is of the driver.
    pub(crate) class: Option<&'a str>,
    /// `Filesystem` or `Block`, where it is known.
    pub(crate) mode: &'a str,
}

/// A content for it, which is for one VolumeSnapshot alone, and keeps it.
fn content(name: &str, of: &Known<'_>, reference: Value, labels: Value) -> Value {
    let mut content = json!({
        "apiVersion": API, "kind": "VolumeSnapshotContent",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "driver": of.driver, "deletionPolicy": RETAIN,
            "source": {"snapshotHandle": of.handle},
            "volumeSnapshotRef": reference,
        },
    });
    if let Some(class) = of.class {
        content["spec"]["volumeSnapshotClassName"] = class.into();
    }
    if matches!(of.mode, "Filesystem" | "Block") {
        content["spec"]["sourceVolumeMode"] = of.mode.into();
    }
    content
}

/// The VolumeSnapshot of which a claim of a restore is made. Its content has its name.
pub(crate) fn source(at: &At, of: &Known<'_>, restore: &str, claim: &str) -> Value {
    let mut snapshot = json!({
        "apiVersion": API, "kind": "VolumeSnapshot",
        "metadata": {
            "name": at.name, "namespace": at.namespace,
            "labels": labels(RESTORE, restore), "annotations": {CLAIM: claim},
        },
        "spec": {"source": {"volumeSnapshotContentName": at.name}},
    });
    if let Some(class) = of.class {
        snapshot["spec"]["volumeSnapshotClassName"] = class.into();
    }
    snapshot
}

/// Its content: for the VolumeSnapshot with this uid, and for no other one of its name.
pub(crate) fn sourced(at: &At, uid: &str, of: &Known<'_>, restore: &str, claim: &str) -> Value {
    let reference = json!({
        "apiVersion": API, "kind": "VolumeSnapshot", "namespace": at.namespace, "name": at.name, "uid": uid,
    });
    let mut content = content(&at.name, of, reference, labels(RESTORE, restore));
    content["metadata"]["annotations"] = json!({CLAIM: claim});
    content
}

/// The content with which a snapshot goes; it keeps it until it is told otherwise. Its VolumeSnapshot never exists, and has a name that nobody knows.
pub(crate) fn expiring(name: &str, of: &Known<'_>) -> Value {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let reference = json!({
        "apiVersion": API, "kind": "VolumeSnapshot", "namespace": "kube-system", "name": format!("{name}-{random}"),
    });
    let mut content = content(name, of, reference, labels(EXPIRE, "true"));
    // Without it the object would go at once, and the driver never be asked.
    content["metadata"]["finalizers"] = json!([FINALIZER]);
    content
}

/// Keeps the snapshot whatever becomes of its objects, and says whose it is.
pub(crate) fn retain(version: &str, whose: &Whose) -> Value {
    json!({
        "metadata": {"resourceVersion": version, "labels": whose.labels()},
        "spec": {"deletionPolicy": RETAIN},
    })
}

/// Has the snapshot go with its content.
pub(crate) fn discard(version: &str) -> Value {
    json!({"metadata": {"resourceVersion": version}, "spec": {"deletionPolicy": DELETE}})
}

/// Says what the snapshot controller says of a content whose VolumeSnapshot is being deleted.
pub(crate) fn mark(version: &str) -> Value {
    json!({"metadata": {"resourceVersion": version, "annotations": {BEING_DELETED: "yes"}}})
}

/// Changes a content so that the sidecar looks at it, and nothing else.
pub(crate) fn touch(version: &str, now: Timestamp) -> Value {
    json!({"metadata": {"resourceVersion": version, "annotations": {TOUCHED: now.to_string()}}})
}

fn text(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| !text.is_empty());
    text.map(str::to_owned)
}

fn word(value: &Value) -> Option<String> {
    text(&value["message"]).map(|text| crate::pod::short(&text))
}

/// A VolumeSnapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) is_going: bool,
    /// The content that its spec names, where it was made for one.
    pub(crate) source: Option<String>,
    /// The content that its status names.
    pub(crate) content: Option<String>,
    /// The moment it is of, once it is cut.
    pub(crate) cut: Option<Timestamp>,
    pub(crate) is_ready: bool,
    /// Bytes that a volume made of it has to hold.
    pub(crate) size: u64,
    /// The last thing that went wrong.
    pub(crate) error: Option<String>,
}

impl Snapshot {
    pub(crate) fn read(object: &Value) -> Self {
        let (meta, status) = (&object["metadata"], &object["status"]);
        let cut = status["creationTime"].as_str();
        let size = status["restoreSize"].as_str().and_then(quantity);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size in bytes"
        )]
        let size = size
            .filter(|size| *size >= 0.0)
            .map_or(0, |size| size as u64);
        Self {
            uid: text(&meta["uid"]).unwrap_or_default(),
            version: text(&meta["resourceVersion"]).unwrap_or_default(),
            is_going: !meta["deletionTimestamp"].is_null(),
            source: text(&object["spec"]["source"]["volumeSnapshotContentName"]),
            content: text(&status["boundVolumeSnapshotContentName"]),
            cut: cut.and_then(|cut| cut.parse().ok()),
            is_ready: status["readyToUse"] == true,
            size,
            error: word(&status["error"]),
        }
    }
}

/// A VolumeSnapshotContent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) version: String,
    pub(crate) is_going: bool,
    pub(crate) policy: String,
    pub(crate) driver: String,
    /// The driver's name for the snapshot, once the driver has told it or knows it.
    pub(crate) handle: Option<String>,
    /// The one that it was made for, where it was.
    pub(crate) of_handle: Option<String>,
    /// The driver's name for the volume that it was made of.
    pub(crate) volume: Option<String>,
    /// The moment of the snapshot as the driver says it.
    pub(crate) cut: Option<Timestamp>,
    /// When the object was made.
    pub(crate) created: Option<Timestamp>,
    /// The VolumeSnapshot it is bound to, or is for.
    pub(crate) of: Option<At>,
    /// The uid of that one, once they are bound.
    pub(crate) of_uid: Option<String>,
    /// Whose it is, by its labels.
    pub(crate) whose: Option<Whose>,
    /// The restore that made it, by all labels that it gives.
    pub(crate) restore: Option<String>,
    /// The sidecar was told that it is to go.
    pub(crate) is_marked: bool,
    /// The sidecar has begun with it.
    pub(crate) is_begun: bool,
    /// The sidecar waits for the driver's word on whether it was cut.
    pub(crate) is_being_created: bool,
    pub(crate) error: Option<String>,
}

impl Content {
    pub(crate) fn read(object: &Value) -> Self {
        let (meta, spec) = (&object["metadata"], &object["spec"]);
        let of = &spec["volumeSnapshotRef"];
        let is_being_created = meta["annotations"][BEING_CREATED].is_string();
        Self {
            name: text(&meta["name"]).unwrap_or_default(),
            uid: text(&meta["uid"]).unwrap_or_default(),
            version: text(&meta["resourceVersion"]).unwrap_or_default(),
            is_going: !meta["deletionTimestamp"].is_null(),
            policy: text(&spec["deletionPolicy"]).unwrap_or_default(),
            driver: text(&spec["driver"]).unwrap_or_default(),
            handle: text(&object["status"]["snapshotHandle"]),
            of_handle: text(&spec["source"]["snapshotHandle"]),
            volume: text(&spec["source"]["volumeHandle"]),
            cut: object["status"]["creationTime"]
                .as_i64()
                .and_then(|at| Timestamp::from_nanosecond(at.into()).ok()),
            created: meta["creationTimestamp"]
                .as_str()
                .and_then(|at| at.parse().ok()),
            of: text(&of["namespace"])
                .zip(text(&of["name"]))
                .map(|(namespace, name)| At { namespace, name }),
            of_uid: text(&of["uid"]),
            whose: text(&meta["labels"][RUN])
                .zip(text(&meta["labels"][LOCATION]))
                .map(|(run, place)| Whose { run, place }),
            restore: text(&meta["labels"][RESTORE]).filter(|restore| {
                let wanted = labels(RESTORE, restore);
                let mut wanted = wanted.as_object().into_iter().flatten();
                wanted.all(|(key, value)| meta["labels"][key] == *value)
            }),
            is_marked: meta["annotations"][BEING_DELETED].is_string(),
            is_begun: object["status"].is_object() || is_being_created,
            is_being_created,
            error: word(&object["status"]["error"]),
        }
    }

    /// Whether it is to go, and nothing that is known of it says why it does not.
    pub(crate) fn is_overdue(&self) -> bool {
        self.is_going && self.is_marked && self.handle.is_some() && !self.is_being_created
    }

    /// Whether it was made for a handle that was known.
    pub(crate) fn is_static(&self) -> bool {
        self.of_handle.is_some()
    }

    /// Whether it says of itself that it is this VolumeSnapshot's: what a VolumeSnapshot says of its content is anybody's word in that namespace.
    pub(crate) fn is_of(&self, at: &At, uid: &str) -> bool {
        self.of.as_ref() == Some(at) && self.of_uid.as_deref() == Some(uid)
    }

    /// Whether it is for this snapshot of the driver's.
    pub(crate) fn is_for(&self, driver: &str, handle: &str) -> bool {
        let its = self.of_handle.as_deref().or(self.handle.as_deref());
        self.driver == driver && its == Some(handle)
    }

    /// Whether the driver has another snapshot under this handle than the one of that moment. A driver that does not say when has every one (then the time is
    /// that of the question).
    pub(crate) fn is_another(&self, cut: Timestamp) -> bool {
        let Some((says, created)) = self.cut.zip(self.created) else {
            return false;
        };
        says < created && says.duration_since(cut).abs() > SignedDuration::from_secs(1)
    }

    /// The driver was asked for this handle and has none such: the words are external-snapshotter's.
    pub(crate) fn is_unknown(&self) -> bool {
        let says = |error: &String| error.contains("can not find snapshot for snapshotID");
        self.handle.is_none() && self.error.as_ref().is_some_and(says)
    }
}
