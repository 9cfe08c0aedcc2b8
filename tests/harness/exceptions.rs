//! What may differ between a state that was backed up and the state restored from it: every exception there is.
//!
//! A row names one field or one sort of object and says why. What no row names has to be equal. Rows come from what
//! Velero does and documents; a row is never added to make a test pass.

use serde_json::Value;

/// Resources that are never restored.
pub const NEVER_RESTORED: &[(&str, &str)] = &[
    ("nodes", "nodes join by themselves"),
    ("events", "the past of another object"),
    ("events.events.k8s.io", "the past of another object"),
    ("backups.velero.io", "synced from the bucket"),
    ("restores.velero.io", "belong to the cluster they ran in"),
    ("resticrepositories.velero.io", "made anew for each cluster"),
    ("backuprepositories.velero.io", "made anew for each cluster"),
    ("csinodes.storage.k8s.io", "made by a node's drivers"),
    (
        "volumeattachments.storage.k8s.io",
        "made when a volume is attached",
    ),
    ("componentstatuses", "a view that cannot be created"),
];

/// Objects that are not restored, or that every cluster has of its own and a restore leaves alone.
pub struct Object {
    pub resource: &'static str,
    pub fits: fn(&Value) -> bool,
    pub reason: &'static str,
}

pub const OBJECTS: &[Object] = &[
    Object {
        resource: "pods",
        fits: |pod| !pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_null(),
        reason: "a mirror pod is made by its node",
    },
    Object {
        resource: "pods",
        fits: |pod| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed",
        reason: "a pod that has ended would run again",
    },
    Object {
        resource: "jobs.batch",
        fits: |job| !job["status"]["completionTime"].is_null(),
        reason: "a job that has ended would run again",
    },
    Object {
        resource: "apiservices.apiregistration.k8s.io",
        fits: |service| {
            !service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"].is_null()
        },
        reason: "registered by the API server itself",
    },
    Object {
        resource: "secrets",
        fits: |secret| {
            let account = &secret["metadata"]["annotations"]["kubernetes.io/service-account.name"];
            secret["type"] == "kubernetes.io/service-account-token"
                && account
                    .as_str()
                    .is_some_and(|name| starts_with(secret, &format!("{name}-token-")))
        },
        reason: "a legacy token is made anew for its service account",
    },
    Object {
        resource: "configmaps",
        fits: |map| is_named(map, "kube-root-ca.crt"),
        reason: "exists in every namespace, with the cluster's own authority",
    },
    Object {
        resource: "configmaps",
        fits: |map| {
            is_named(map, "extension-apiserver-authentication")
                || is_named(map, "kube-apiserver-legacy-service-account-token-tracking")
        },
        reason: "exists in every cluster, with its own authority and dates",
    },
    Object {
        resource: "endpoints",
        fits: is_the_api,
        reason: "exists in every cluster, with its own address",
    },
    Object {
        resource: "endpointslices.discovery.k8s.io",
        fits: is_the_api,
        reason: "exists in every cluster, with its own address",
    },
    Object {
        resource: "services",
        fits: is_the_api,
        reason: "exists in every cluster, with its own port",
    },
    Object {
        resource: "endpointslices.discovery.k8s.io",
        fits: |slice| {
            let label = &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
            *label == "endpointslice-controller.k8s.io"
                || *label == "endpointslicemirroring-controller.k8s.io"
        },
        reason: "its controller deletes a slice that its service does not own by uid, and makes another",
    },
    Object {
        resource: "leases.coordination.k8s.io",
        fits: |lease| starts_with(lease, "apiserver-"),
        reason: "held by each cluster's API server",
    },
    Object {
        resource: "ipaddresses.networking.k8s.io",
        fits: |_| true,
        reason: "follows from the addresses of services, which are given out anew",
    },
];

/// What happens to a field on both sides before they are compared.
pub enum Change {
    /// It goes; `*` stands for every element of a list and every value of an object.
    Remove(&'static [&'static str]),
    /// Something that a path cannot say.
    With(fn(&mut Value)),
}

/// One field that may differ.
pub struct Field {
    /// `*` for every resource.
    pub resource: &'static str,
    /// Asked of the object as it was backed up; the row counts for both sides or for none.
    pub when: fn(&Value) -> bool,
    pub change: Change,
    pub reason: &'static str,
}

const fn field(
    resource: &'static str,
    path: &'static [&'static str],
    reason: &'static str,
) -> Field {
    Field {
        resource,
        when: |_| true,
        change: Change::Remove(path),
        reason,
    }
}

/// Fields every restore resets, in every object.
pub const FIELD_RESETS: &[Field] = &[
    field("*", &["metadata", "uid"], "given out by the API server"),
    field(
        "*",
        &["metadata", "resourceVersion"],
        "given out by the API server",
    ),
    field(
        "*",
        &["metadata", "generation"],
        "counted by the API server",
    ),
    field(
        "*",
        &["metadata", "creationTimestamp"],
        "set by the API server",
    ),
    field(
        "*",
        &["metadata", "deletionTimestamp"],
        "what was being deleted is so no longer",
    ),
    field(
        "*",
        &["metadata", "deletionGracePeriodSeconds"],
        "what was being deleted is so no longer",
    ),
    field(
        "*",
        &["metadata", "generateName"],
        "the name is known by now",
    ),
    field("*", &["metadata", "selfLink"], "set by the API server"),
    field(
        "*",
        &["metadata", "labels", "velero.io/backup-name"],
        "added by the restore",
    ),
    field(
        "*",
        &["metadata", "labels", "velero.io/restore-name"],
        "added by the restore",
    ),
    field(
        "*",
        &["metadata", "annotations", "kubectl-backup/uid"],
        "added by our restore: the uid it had, by which a restore that was killed goes on",
    ),
    field(
        "*",
        &["metadata", "ownerReferences", "*", "uid"],
        "follows the owner's new uid",
    ),
];

/// What may differ in the record of who wrote which field.
pub const MANAGED_FIELDS: Field = Field {
    resource: "*",
    when: |_| true,
    change: Change::With(as_written_by_people),
    reason: "times are new, controllers write again what is theirs, the order follows from the times, and somebody owns the restore's own labels and annotation",
};

/// In its place where the record is not to be compared.
pub const NO_MANAGED_FIELDS: Field = field(
    "*",
    &["metadata", "managedFields"],
    "the record names the one who restored",
);

/// Unless owners are to be compared: Velero drops them for good.
pub const OWNERS: Field = field(
    "*",
    &["metadata", "ownerReferences"],
    "dropped by the restore",
);

/// Unless the status is to be compared: it is restored on request only.
pub const STATUS: Field = field("*", &["status"], "made anew by controllers");

/// Fields that single kinds lose or get when they are restored.
pub const ITEM_ACTIONS: &[Field] = &[
    field(
        "namespaces",
        &["metadata", "managedFields"],
        "a namespace is made before its own turn, by whoever restores",
    ),
    Field {
        resource: "services",
        when: has_address,
        change: Change::Remove(&["spec", "clusterIP"]),
        reason: "given out anew, unless the service has none on purpose",
    },
    Field {
        resource: "services",
        when: has_address,
        change: Change::Remove(&["spec", "clusterIPs"]),
        reason: "given out anew, unless the service has none on purpose",
    },
    Field {
        resource: "services",
        when: |service| !has_explicit(service, "nodePort"),
        change: Change::Remove(&["spec", "ports", "*", "nodePort"]),
        reason: "given out anew, unless its author chose it",
    },
    Field {
        resource: "services",
        when: |service| !has_explicit(service, "healthCheckNodePort"),
        change: Change::Remove(&["spec", "healthCheckNodePort"]),
        reason: "given out anew, unless its author chose it",
    },
    field(
        "jobs.batch",
        &["spec", "selector", "matchLabels", "controller-uid"],
        "the job's new uid",
    ),
    field(
        "jobs.batch",
        &[
            "spec",
            "selector",
            "matchLabels",
            "batch.kubernetes.io/controller-uid",
        ],
        "the job's new uid",
    ),
    field(
        "jobs.batch",
        &["spec", "template", "metadata", "labels", "controller-uid"],
        "the job's new uid",
    ),
    field(
        "jobs.batch",
        &[
            "spec",
            "template",
            "metadata",
            "labels",
            "batch.kubernetes.io/controller-uid",
        ],
        "the job's new uid",
    ),
    field(
        "jobs.batch",
        &["metadata", "labels", "controller-uid"],
        "the job's new uid",
    ),
    field(
        "jobs.batch",
        &["metadata", "labels", "batch.kubernetes.io/controller-uid"],
        "the job's new uid",
    ),
    field("pods", &["spec", "nodeName"], "scheduled anew"),
    field("pods", &["spec", "priority"], "computed from the class"),
    Field {
        resource: "pods",
        when: |_| true,
        change: Change::With(without_token_volumes),
        reason: "the token's volume is added anew at admission, with a name of its own",
    },
    field(
        "persistentvolumeclaims",
        &["metadata", "annotations", "pv.kubernetes.io/bind-completed"],
        "bound anew",
    ),
    field(
        "persistentvolumeclaims",
        &[
            "metadata",
            "annotations",
            "pv.kubernetes.io/bound-by-controller",
        ],
        "bound anew",
    ),
    field(
        "persistentvolumeclaims",
        &[
            "metadata",
            "annotations",
            "volume.kubernetes.io/storage-provisioner",
        ],
        "provisioned anew",
    ),
    field(
        "persistentvolumeclaims",
        &[
            "metadata",
            "annotations",
            "volume.beta.kubernetes.io/storage-provisioner",
        ],
        "provisioned anew",
    ),
    field(
        "persistentvolumeclaims",
        &[
            "metadata",
            "annotations",
            "volume.kubernetes.io/selected-node",
        ],
        "scheduled anew",
    ),
    field(
        "persistentvolumes",
        &["spec", "claimRef", "uid"],
        "the claim's new uid",
    ),
    field(
        "persistentvolumes",
        &["spec", "claimRef", "resourceVersion"],
        "the claim's new version",
    ),
    Field {
        resource: "secrets",
        when: |secret| secret["type"] == "kubernetes.io/service-account-token",
        change: Change::Remove(&[
            "metadata",
            "annotations",
            "kubernetes.io/service-account.uid",
        ]),
        reason: "the account's new uid",
    },
    Field {
        resource: "secrets",
        when: |secret| secret["type"] == "kubernetes.io/service-account-token",
        change: Change::Remove(&["data", "token"]),
        reason: "signed anew",
    },
    Field {
        resource: "secrets",
        when: |secret| secret["type"] == "kubernetes.io/service-account-token",
        change: Change::Remove(&["data", "ca.crt"]),
        reason: "the new cluster's authority",
    },
    Field {
        resource: "serviceaccounts",
        when: |_| true,
        change: Change::With(without_token_references),
        reason: "references to legacy tokens go with them",
    },
];

fn is_named(object: &Value, name: &str) -> bool {
    object["metadata"]["name"] == name
}

fn starts_with(object: &Value, start: &str) -> bool {
    object["metadata"]["name"]
        .as_str()
        .is_some_and(|name| name.starts_with(start))
}

fn is_the_api(object: &Value) -> bool {
    object["metadata"]["namespace"] == "default" && is_named(object, "kubernetes")
}

fn has_address(service: &Value) -> bool {
    service["spec"]["clusterIP"] != "None"
}

/// Whether a port was chosen by a person: it is in what they applied, or their tool is on record for it.
fn has_explicit(service: &Value, what: &str) -> bool {
    let annotations = &service["metadata"]["annotations"];
    let applied = &annotations["kubectl.kubernetes.io/last-applied-configuration"];
    let managed = service["metadata"]["managedFields"].to_string();
    applied
        .as_str()
        .is_some_and(|applied| applied.contains(&format!("\"{what}\"")))
        || managed.contains(&format!("\"f:{what}\""))
}

/// The entries that no controller wrote and that are not about the status, without their times, in an order of ours.
fn as_written_by_people(object: &mut Value) {
    const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-apiserver"];
    let entries = object.pointer_mut("/metadata/managedFields");
    let Some(entries) = entries.and_then(Value::as_array_mut) else {
        return;
    };
    entries.retain(|entry| {
        entry["subresource"].is_null() && !CONTROLLERS.iter().any(|name| entry["manager"] == *name)
    });
    for entry in entries.iter_mut() {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
        forget_the_restores_own(&mut entry["fieldsV1"]);
    }
    entries.retain(|entry| entry["fieldsV1"] != serde_json::json!({}));
    entries.sort_by_key(Value::to_string);
    if entries.is_empty() {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.remove("managedFields");
    }
}

/// Drops what a restore adds from one owner's fields, and what is empty without it.
fn forget_the_restores_own(fields: &mut Value) {
    let Some(metadata) = fields.get_mut("f:metadata").and_then(Value::as_object_mut) else {
        return;
    };
    for (map, keys) in [
        (
            "f:labels",
            &["f:velero.io/backup-name", "f:velero.io/restore-name"] as &[_],
        ),
        ("f:annotations", &["f:kubectl-backup/uid"]),
    ] {
        let Some(owned) = metadata.get_mut(map).and_then(Value::as_object_mut) else {
            continue;
        };
        for key in keys {
            owned.remove(*key);
        }
        // "." is the map itself.
        if owned.keys().all(|key| key == ".") {
            metadata.remove(map);
        }
    }
    // Owners are named by uid, and those are new.
    metadata.remove("f:ownerReferences");
    if metadata.is_empty() {
        fields.as_object_mut().unwrap().remove("f:metadata");
    }
}

fn without_token_volumes(pod: &mut Value) {
    let is_token = |named: &Value| {
        named["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let Some(spec) = pod["spec"].as_object_mut() else {
        return;
    };
    if let Some(volumes) = spec.get_mut("volumes").and_then(Value::as_array_mut) {
        volumes.retain(|volume| !is_token(volume));
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec
            .get_mut(list)
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(mounts) = container
                .get_mut("volumeMounts")
                .and_then(Value::as_array_mut)
            {
                mounts.retain(|mount| !is_token(mount));
            }
        }
    }
}

fn without_token_references(account: &mut Value) {
    let start = format!(
        "{}-token-",
        account["metadata"]["name"].as_str().unwrap_or_default()
    );
    if let Some(secrets) = account.get_mut("secrets").and_then(Value::as_array_mut) {
        secrets.retain(|secret| {
            !secret["name"]
                .as_str()
                .is_some_and(|name| name.starts_with(&start))
        });
    }
}
