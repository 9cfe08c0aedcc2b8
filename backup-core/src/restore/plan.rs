//! Decides, without asking anybody, what is restored: by resource, by object, and by what an object's body says. Pure.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::order;
use super::volumes::Volumes;
use crate::archive::is_dns_label;
use crate::archive::row::Row;
use crate::discovery::ApiResource;
use crate::error::{Error, Result};
use crate::filter::{Filter, Verdict};

/// What Velero never restores: a cluster makes these itself, or they belong to the other cluster. Nor what would make a Velero there act
/// anew, for a restored object has no status: delete a backup, or copy volumes; and no handles of its snapshots, see [`is_handle`].
const NEVER: [(&str, &str); 18] = [
    ("nodes", "Node"),
    ("events", "Event"),
    ("events.events.k8s.io", "Event"),
    ("backups.velero.io", "Backup"),
    ("restores.velero.io", "Restore"),
    ("resticrepositories.velero.io", "ResticRepository"),
    ("backuprepositories.velero.io", "BackupRepository"),
    ("csinodes.storage.k8s.io", "CSINode"),
    ("volumeattachments.storage.k8s.io", "VolumeAttachment"),
    ("deletebackuprequests.velero.io", "DeleteBackupRequest"),
    ("downloadrequests.velero.io", "DownloadRequest"),
    ("serverstatusrequests.velero.io", "ServerStatusRequest"),
    ("podvolumebackups.velero.io", "PodVolumeBackup"),
    ("podvolumerestores.velero.io", "PodVolumeRestore"),
    ("datauploads.velero.io", "DataUpload"),
    ("datadownloads.velero.io", "DataDownload"),
    ("volumesnapshots.snapshot.storage.k8s.io", "VolumeSnapshot"),
    (
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "VolumeSnapshotContent",
    ),
];

/// Whether objects of this resource stand for snapshots that Velero took (it saves no others). Made as they are, they would take a snapshot
/// of the new and empty volume or, when they are deleted, delete the one that holds the data.
pub(super) fn is_handle(resource: &str) -> bool {
    matches!(
        resource,
        "volumesnapshots.snapshot.storage.k8s.io"
            | "volumesnapshotcontents.snapshot.storage.k8s.io"
            | "datauploads.velero.io"
    )
}

/// Whether objects of this resource are never restored.
pub(super) fn is_never(resource: &str) -> bool {
    NEVER.iter().any(|(name, _)| *name == resource)
}

/// Refuses a filter that asks by name for what is never restored, as Velero's FailedValidation does.
///
/// # Errors
/// `Invalid`, naming the resource.
pub(super) fn refuse_never(filter: &Filter) -> Result<()> {
    let asked = filter
        .resources
        .iter()
        .chain(&filter.cluster_resources)
        .chain(&filter.namespaced_resources)
        .filter(|pattern| !pattern.contains(['*', '?', '[']));
    for pattern in asked {
        let pattern = pattern.to_lowercase();
        for (resource, kind) in NEVER {
            let kind = kind.to_lowercase();
            let plural = resource.split('.').next().unwrap_or(resource);
            // Short plurals of Velero's kinds may mean another group's: only the full name is refused there.
            let short = !resource.ends_with(".velero.io") && (pattern == plural || pattern == kind);
            if pattern == resource || short {
                return Err(Error::invalid(format!("{resource} can not be restored"))
                    .hint("leave it out of the kinds to restore; a cluster, or Velero, makes these objects itself"));
            }
        }
    }
    Ok(())
}

/// What ConfigMaps with these labels ask Velero to do in every restore in whose target they stand.
const ASKS: [(&str, &str); 4] = [
    (
        "velero.io/change-storage-class",
        "for other storage classes",
    ),
    ("velero.io/change-image-name", "for other images"),
    (
        "velero.io/change-pvc-node-selector",
        "for other nodes of claims",
    ),
    ("velero.io/change-pvc-node", "for other nodes of claims"),
];

/// What a ConfigMap of these labels asks restores for.
pub(super) fn asks(labels: &BTreeMap<String, String>) -> Option<&'static str> {
    let asked = ASKS.iter().find(|(label, _)| labels.contains_key(*label));
    asked.map(|(_, what)| *what)
}

/// Refuses mappings that can not be meant: names that no namespace has, and two namespaces that are wanted and go to one.
///
/// # Errors
/// `Invalid`, naming them.
pub(super) fn refuse_mappings(filter: &Filter, mappings: &BTreeMap<String, String>) -> Result<()> {
    let mut taken = BTreeMap::new();
    let named = filter.named_namespaces().unwrap_or_default();
    let unmapped = named
        .iter()
        .filter(|name| !mappings.contains_key(*name))
        .map(|name| (name, name));
    for (old, new) in mappings.iter().chain(unmapped) {
        for name in [old, new] {
            if !is_dns_label(name) {
                return Err(Error::invalid(format!(
                    "namespace mapping {old}:{new}: {name:?} can not be the name of a namespace"
                ))
                .hint("write OLD:NEW, both of lower-case letters, digits and '-', at most 63 characters"));
            }
        }
        if !filter.namespace(old) {
            continue;
        }
        if let Some(other) = taken.insert(new, old) {
            return Err(shared(other, old, new));
        }
    }
    Ok(())
}

/// Two namespaces of the backup would become one.
pub(super) fn shared(one: &str, other: &str, target: &str) -> Error {
    Error::invalid(format!(
        "namespaces {one} and {other} would both be restored as {target}"
    ))
    .hint("map them to different namespaces, or restore them one after the other with --include-namespaces")
}

/// What of one API resource is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Whether the filter decides object by object; else only `related` counts.
    pub(super) by_filter: bool,
    /// Names of cluster-scoped objects that others need.
    pub(super) related: HashSet<String>,
    /// Whether a rule leaves it out: then it does not come along with others either.
    pub(super) excluded: bool,
}

impl Wanted {
    /// What the filter says of a resource before anything related is known.
    pub(super) fn of(filter: &Filter, resource: &ApiResource) -> Self {
        let verdict = filter.resource(resource);
        let chosen_namespaces = resource.group_resource() == order::NAMESPACES
            && verdict == Verdict::Related
            && filter.objects.is_empty()
            && filter.selectors.is_empty();
        Self {
            by_filter: verdict == Verdict::In || chosen_namespaces,
            related: HashSet::new(),
            excluded: matches!(verdict, Verdict::Out(_)),
        }
    }

    /// Whether this object is wanted.
    pub(super) fn has(&self, filter: &Filter, resource: &ApiResource, row: &Row) -> bool {
        if row.namespace.is_none() && self.related.contains(&row.name) {
            return true;
        }
        if !self.by_filter || !filter.labels(&row.labels) || !chosen(filter, row) {
            return false;
        }
        match &row.namespace {
            Some(namespace) => filter.namespace(namespace),
            None if resource.group_resource() == order::NAMESPACES => filter.namespace(&row.name),
            None => true,
        }
    }
}

/// Whether single objects were asked for and this is one: `ns/name`, or `name` of a cluster-scoped object; with chosen namespaces `name`
/// means an object of these too.
pub(super) fn chosen(filter: &Filter, row: &Row) -> bool {
    filter.objects.is_empty()
        || filter
            .objects
            .iter()
            .any(|object| names(filter, object, row))
}

/// Whether `object` (`ns/name` or `name`) means this row.
pub(super) fn names(filter: &Filter, object: &str, row: &Row) -> bool {
    match (object.split_once('/'), &row.namespace) {
        (Some((namespace, name)), Some(here)) => namespace == here && name == row.name,
        (None, None) => object == row.name,
        (None, Some(_)) => object == row.name && !filter.all_namespaces(),
        (Some(_), None) => false,
    }
}

/// Whether [`left_out`] has to look at objects of this resource.
pub(super) fn is_judged_by_body(resource: &str) -> bool {
    matches!(
        resource,
        "endpointslices.discovery.k8s.io"
            | "ipaddresses.networking.k8s.io"
            | "pods"
            | "jobs.batch"
            | "apiservices.apiregistration.k8s.io"
            | "secrets"
            | "persistentvolumes"
    )
}

/// Whether the cluster keeps its own object of this name where it has one: a live lease is somebody's heartbeat, and an old holder over
/// it would do harm.
pub(super) fn keeps_its_own(resource: &str, name: &str) -> bool {
    resource == "leases.coordination.k8s.io"
        || (resource == "configmaps" && name == "kube-root-ca.crt")
}

/// Why this object is not restored, for what its body says, or for where a volume's data lives.
///
/// # Errors
/// `Corrupt`, when the body is no Kubernetes object.
pub(super) fn left_out(resource: &str, body: &[u8], volumes: &Volumes) -> Result<Option<String>> {
    if !is_judged_by_body(resource) {
        return Ok(None);
    }
    let body: Peek = serde_json::from_slice(body)
        .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
    let claim = |key: &str| body.spec["claimRef"][key].as_str().unwrap_or_default();
    if resource == "persistentvolumes"
        && let Some(reason) =
            volumes.elsewhere(&body.metadata.name, (claim("namespace"), claim("name")))
    {
        return Ok(Some(reason));
    }
    let annotation = |key: &str| body.metadata.annotations[key].as_str();
    Ok(match resource {
        "pods" if annotation("kubernetes.io/config.mirror").is_some() => {
            Some("a mirror of a static pod, which its node makes".to_owned())
        }
        "pods" => match body.status["phase"].as_str() {
            Some(phase @ ("Succeeded" | "Failed")) => Some(format!("its pod has ended ({phase})")),
            _ => None,
        },
        "jobs.batch" if !body.status["completionTime"].is_null() => Some("the job has completed".to_owned()),
        "apiservices.apiregistration.k8s.io"
            if !body.metadata.labels["kube-aggregator.kubernetes.io/automanaged"].is_null() =>
        {
            Some("the API server registers it itself".to_owned())
        }
        "secrets" if body.kind == "kubernetes.io/service-account-token" => {
            annotation("kubernetes.io/service-account.name")
                .filter(|account| body.metadata.name.starts_with(&format!("{account}-token-")))
                .map(|account| format!("a token that the cluster makes for service account {account}"))
        }
        // Restored, they would send traffic to addresses of old pods until the controller removes them, and be restored again by every run.
        "endpointslices.discovery.k8s.io"
            if body.metadata.labels["endpointslice.kubernetes.io/managed-by"]
                .as_str()
                .is_some_and(|by| by.ends_with("-controller.k8s.io")) =>
        {
            Some("its controller makes it for its service".to_owned())
        }
        // Restored, it would keep an address from others until a controller removes it.
        "ipaddresses.networking.k8s.io" if body.spec["parentRef"]["resource"] == "services" => {
            Some("the API server makes it with its service".to_owned())
        }
        "persistentvolumes" if body.spec["persistentVolumeReclaimPolicy"] == "Delete" => {
            Some("its data is not in the backup and its reclaim policy is Delete; its claim is provisioned anew".to_owned())
        }
        "persistentvolumes" => volumes.disks.refuse(&body.metadata.name, &body.spec),
        _ => None,
    })
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Peek {
    metadata: PeekMeta,
    spec: Value,
    status: Value,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PeekMeta {
    name: String,
    labels: Value,
    annotations: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_makes_itself_is_left_out() {
        let out = |resource: &str, body: &str| {
            left_out(resource, body.as_bytes(), &Volumes::default())
                .unwrap()
                .is_some()
        };
        assert!(out(
            "pods",
            r#"{"metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}}}"#
        ));
        assert!(out("pods", r#"{"status":{"phase":"Succeeded"}}"#));
        assert!(out("pods", r#"{"status":{"phase":"Failed"}}"#));
        assert!(!out(
            "pods",
            r#"{"metadata":{"annotations":null},"status":{"phase":"Running"}}"#
        ));
        assert!(out(
            "jobs.batch",
            r#"{"status":{"completionTime":"2026-01-01T00:00:00Z"}}"#
        ));
        assert!(!out("jobs.batch", r#"{"status":{"completionTime":null}}"#));
        assert!(out(
            "apiservices.apiregistration.k8s.io",
            r#"{"metadata":{"labels":{"kube-aggregator.kubernetes.io/automanaged":"onstart"}}}"#
        ));
        let token = |name: &str| {
            format!(
                r#"{{"metadata":{{"name":"{name}","annotations":{{"kubernetes.io/service-account.name":"sa"}}}},"type":"kubernetes.io/service-account-token"}}"#
            )
        };
        assert!(out("secrets", &token("sa-token-x7k")));
        assert!(!out("secrets", &token("mine")));
        assert!(out(
            "persistentvolumes",
            r#"{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}"#
        ));
        assert!(!out(
            "persistentvolumes",
            r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#
        ));
        let slice = r#"{"metadata":{"labels":{"endpointslice.kubernetes.io/managed-by":"BY"}}}"#;
        let by = |by: &str| slice.replace("BY", by);
        assert!(out(
            "endpointslices.discovery.k8s.io",
            &by("endpointslice-controller.k8s.io")
        ));
        assert!(!out("endpointslices.discovery.k8s.io", &by("me")));
        assert!(out(
            "ipaddresses.networking.k8s.io",
            r#"{"spec":{"parentRef":{"resource":"services","name":"s"}}}"#
        ));
        assert!(!out("configmaps", "{}"));
    }

    #[test]
    fn asking_by_name_for_what_is_never_restored_is_refused() {
        let filter = |kind: &str| Filter {
            resources: vec![kind.to_owned()],
            ..Filter::default()
        };
        for kind in [
            "nodes",
            "Node",
            "events",
            "events.events.k8s.io",
            "backups.velero.io",
        ] {
            assert!(refuse_never(&filter(kind)).is_err(), "{kind}");
        }
        for kind in ["*", "pods", "backups", "backups.postgresql.example.com"] {
            assert!(refuse_never(&filter(kind)).is_ok(), "{kind}");
        }
    }
}
