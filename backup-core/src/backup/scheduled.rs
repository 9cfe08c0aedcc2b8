//! Backups as Velero's objects and flags describe them: a Schedule of the cluster as the options of a backup, and ordered resources.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BackupOptions, EPHEMERAL_MOVERS};
use crate::api::{API_VERSION, BackupSpec, Schedule};
use crate::catalog::SCHEDULE_NAME;
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::name::Name;
use crate::schedule::{MOST_EVERY, Past, Schedule as Times};

/// Annotation of a Schedule: of its slots each so-and-so-many-th counts; ours.
pub const EVERY: &str = "kubectl-backup/every";

/// Annotation of a Schedule: so many good backups of it stay; ours.
pub const KEEP: &str = "kubectl-backup/keep";

/// An object of the API server's is not larger.
const LARGEST: usize = 4 << 20;

/// A Schedule of Velero's.
///
/// # Errors
/// `NotFound`, also where the cluster knows no such kind; the API server's.
pub async fn schedule(cluster: &Cluster, namespace: &str, name: &Name) -> Result<Schedule> {
    let path = format!("/apis/velero.io/v1/namespaces/{namespace}/schedules/{name}");
    let body = match cluster.get_bounded(&path, LARGEST).await {
        Ok(body) => body,
        Err(e) if e.is_not_found() => {
            return Err(Error::not_found(format!(
                "schedule {name} is not in namespace {namespace} of this cluster"
            ))
            .hint(format!(
                "Velero's schedules are meant: `kubectl -n {namespace} get schedules.velero.io`; --velero-namespace names another namespace"
            )));
        }
        Err(e) => {
            return Err(Error::from(e).context(format!("can not read schedule {namespace}/{name}")));
        }
    };
    serde_json::from_slice(&body).map_err(|e| {
        Error::corrupt(format!(
            "schedule {namespace}/{name} is not what it should be"
        ))
        .because(e)
    })
}

impl BackupOptions {
    /// The backup of a schedule, as Velero's `--from-schedule` makes it: its template is the spec, its labels and annotations go along. Labels and
    /// annotations that stand here already win.
    ///
    /// # Errors
    /// `Invalid`, for a template that can not be meant.
    pub fn follow(&mut self, schedule: &Schedule) -> Result<()> {
        let template = &schedule.spec.template;
        self.ask(template);
        let meta = &schedule.metadata;
        for (key, value) in schedule.labels_of_backups() {
            self.labels.entry(key).or_insert(value);
        }
        for (key, value) in schedule.annotations_of_backups() {
            self.annotations.entry(key).or_insert(value);
        }
        self.labels
            .insert(SCHEDULE_NAME.to_owned(), meta.name.clone());
        self.filter
            .validate()
            .map_err(|e| e.context(format!("schedule {} can not be followed", meta.name)))
    }

    /// Takes what a Backup's spec asks for, but for its time to live, its location and its policies.
    pub fn ask(&mut self, spec: &BackupSpec) {
        self.filter = Filter {
            skip_noise: self.filter.skip_noise,
            ..Filter::of(spec)
        };
        self.single_namespace = false;
        self.snapshot_volumes = self.snapshot_volumes.or(spec.snapshot_volumes);
        self.template = BackupSpec {
            hooks: spec.hooks.clone(),
            rest: spec.rest.clone(),
            ..BackupSpec::default()
        };
    }
}

/// The template's own where it has them, else the schedule's.
fn given(template: &Value, schedule: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    match template.as_object() {
        Some(own) => own
            .iter()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        None => schedule.clone(),
    }
}

impl Schedule {
    /// Labels of its backups, but for the one with its name.
    pub fn labels_of_backups(&self) -> BTreeMap<String, String> {
        given(self.own("labels"), &self.metadata.labels)
    }

    /// Annotations of its backups.
    pub fn annotations_of_backups(&self) -> BTreeMap<String, String> {
        let mut annotations = given(self.own("annotations"), &self.metadata.annotations);
        // What `kubectl apply` remembers of the schedule would be wrong of a backup.
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations
    }

    /// The Backup of this name as the object of a schedule asks for it. Annotations by which a controller finds its way are not handed on.
    pub fn backup(&self, object: &Value, name: &str) -> Value {
        let mut labels = self.labels_of_backups();
        labels.insert(SCHEDULE_NAME.to_owned(), self.metadata.name.clone());
        let mut annotations = self.annotations_of_backups();
        annotations.retain(|key, _| key == EPHEMERAL_MOVERS || !key.starts_with("kubectl-backup/"));
        let mut metadata = json!({
            "name": name, "namespace": self.metadata.namespace, "labels": labels, "annotations": annotations,
        });
        if self.spec.use_owner_references_in_backup == Some(true) {
            metadata["ownerReferences"] = json!([{
                "apiVersion": API_VERSION, "kind": "Schedule", "name": self.metadata.name,
                "uid": self.metadata.uid, "controller": true,
            }]);
        }
        json!({
            "apiVersion": API_VERSION, "kind": "Backup", "metadata": metadata, "spec": object["spec"]["template"],
        })
    }

    /// When its backups are due.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn times(&self) -> Result<Times> {
        Times::parse(&self.spec.schedule, None)
    }

    /// Of its slots each so-and-so-many-th counts.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn every(&self) -> Result<u32> {
        let every = self.number(EVERY, MOST_EVERY)?;
        Ok(every.unwrap_or(1))
    }

    /// How many good backups of it stay; nothing where their age alone counts.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn keep(&self) -> Result<Option<usize>> {
        let keep = self.number(KEEP, u32::MAX)?;
        Ok(keep.map(|keep| keep as usize))
    }

    fn number(&self, key: &str, most: u32) -> Result<Option<u32>> {
        let Some(text) = self.metadata.annotations.get(key) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(Error::invalid(format!(
                "the annotation {key} is {text:?} and not a number from 1 to {most}"
            ))),
        }
    }

    /// What its object tells of its past, and these slots of its backups.
    pub fn past(&self, slots: impl IntoIterator<Item = Timestamp>, now: Timestamp) -> Past {
        let taken = slots.into_iter().chain(self.status.last_backup);
        Past {
            created: self.metadata.creation_timestamp.unwrap_or(now),
            taken: taken.filter(|slot| *slot <= now).max(),
            skipped: self.status.last_skipped.filter(|slot| *slot <= now),
        }
    }

    fn own(&self, key: &str) -> &Value {
        let own = self.spec.template.rest.get("metadata");
        own.map_or(&Value::Null, |own| &own[key])
    }

    /// When a backup of it that is made now expires; nothing where Velero's default is meant.
    pub fn expires(&self, now: Timestamp) -> Option<Timestamp> {
        self.spec.template.expires(now)
    }

    /// The ConfigMap with its resource policies.
    ///
    /// # Errors
    /// `Invalid`, for a reference to something else.
    pub fn policies(&self) -> Result<Option<Name>> {
        let policies = self.spec.template.policies();
        policies.map_err(|e| {
            e.context(format!(
                "schedule {} can not be followed",
                self.metadata.name
            ))
        })
    }
}

impl BackupSpec {
    /// When a backup that is made now expires; nothing where Velero's default is meant.
    pub fn expires(&self, now: Timestamp) -> Option<Timestamp> {
        let ttl = self.ttl.filter(|ttl| !ttl.0.is_zero())?;
        now.checked_add(ttl.0).ok()
    }

    /// The ConfigMap with its resource policies.
    ///
    /// # Errors
    /// `Invalid`, for a reference to something else.
    pub fn policies(&self) -> Result<Option<Name>> {
        let Some(reference) = self.rest.get("resourcePolicy") else {
            return Ok(None);
        };
        if reference.is_null() {
            return Ok(None);
        }
        let text = |key: &str| reference[key].as_str().unwrap_or_default();
        if !text("kind").eq_ignore_ascii_case("configmap") {
            return Err(Error::invalid(format!(
                "resource policies stand in a {:?}, and only a ConfigMap can hold them",
                text("kind")
            )));
        }
        Name::foreign(text("name")).map(Some)
    }
}

/// Velero's `--ordered-resources`: `pods=ns/a,ns/b;persistentvolumeclaims=ns/c`, as `spec.orderedResources` holds it.
///
/// # Errors
/// `Invalid`, for what Velero refuses.
pub fn ordered_resources(text: &str) -> Result<BTreeMap<String, String>> {
    text.split(';')
        .map(|entry| {
            let parts: Vec<&str> = entry.split('=').collect();
            let names = |list: &str| -> Vec<String> {
                let names = list
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                names.map(str::to_owned).collect()
            };
            match parts[..] {
                [kind, list] if !kind.trim().is_empty() && !names(list).is_empty() => {
                    Ok((kind.trim().to_owned(), names(list).join(",")))
                }
                _ => Err(
                    Error::invalid(format!("{entry:?} is no order of resources")).hint(
                        "write KIND=NAMESPACE/NAME,NAMESPACE/NAME, several with semicolons between",
                    ),
                ),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ordered_resources_are_read_as_velero_reads_them() {
        let map =
            ordered_resources(" pods = ns1/p1, ns1/p2,;persistentvolumeclaims=ns1/c").unwrap();
        assert_eq!(map["pods"], "ns1/p1,ns1/p2");
        assert_eq!(map["persistentvolumeclaims"], "ns1/c");
        for bad in ["", "pods", "pods=", "=a", "pods=,", "pods=a=b", "pods=a;"] {
            assert!(ordered_resources(bad).is_err(), "{bad:?}");
        }
    }

    fn options() -> BackupOptions {
        BackupOptions {
            name: "x".parse().unwrap(),
            filter: Filter::default(),
            single_namespace: false,
            expires: None,
            labels: [("a".to_owned(), "flag".to_owned())].into(),
            annotations: BTreeMap::new(),
            snapshot_volumes: None,
            policies: None,
            copies: None,
            template: BackupSpec::default(),
            exact: true,
            host: String::new(),
            process: crate::hooks::Process::default(),
            now: "2026-11-21T02:00:00Z".parse().unwrap(),
        }
    }

    fn schedule(template: Value) -> Schedule {
        serde_json::from_value(
            json!({"metadata": {"name": "nightly", "labels": {"a": "schedule", "b": "schedule"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "c": "d"}},
            "spec": {"schedule": "@daily", "template": template}}),
        )
        .unwrap()
    }

    #[test]
    fn a_schedules_template_is_the_spec_and_its_labels_go_along() {
        let mut followed = options();
        let nightly = schedule(
            json!({"includedNamespaces": ["shop"], "excludedNamespaces": null, "labelSelector": {"matchLabels": {"app": "web"}},
            "includeClusterResources": false, "snapshotVolumes": false, "ttl": "48h0m0s", "orderedResources": {"pods": "a/b"},
            "hooks": {"resources": [{"name": "h"}]}, "csiSnapshotTimeout": "10m0s", "resourcePolicy": {"kind": "ConfigMap", "name": "p"}}),
        );
        followed.follow(&nightly).unwrap();
        assert_eq!(followed.filter.namespaces, ["shop"]);
        assert_eq!(followed.filter.include_cluster_resources, Some(false));
        assert_eq!(followed.filter.selectors.len(), 1);
        assert_eq!(followed.snapshot_volumes, Some(false));
        let labels: Vec<_> = followed
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            labels,
            ["a=flag", "b=schedule", "velero.io/schedule-name=nightly"]
        );
        assert_eq!(
            followed.annotations,
            [("c".to_owned(), "d".to_owned())].into()
        );
        assert_eq!(followed.template.hooks["resources"][0]["name"], "h");
        assert_eq!(followed.template.rest["orderedResources"]["pods"], "a/b");
        assert_eq!(nightly.policies().unwrap().unwrap().as_str(), "p");
        let expires = nightly.expires(followed.now).unwrap();
        assert_eq!(expires.to_string(), "2026-11-23T02:00:00Z");

        let own = schedule(
            json!({"metadata": {"labels": {"e": "f"}}, "defaultVolumesToFsBackup": true, "ttl": "0s"}),
        );
        let mut followed = options();
        followed.follow(&own).unwrap();
        assert_eq!(followed.labels["e"], "f");
        assert!(!followed.labels.contains_key("b"));
        assert!(followed.copies_by_default());
        assert_eq!(own.expires(followed.now), None);
        assert_eq!(own.policies().unwrap(), None);
    }

    #[test]
    fn a_schedules_backup_has_its_labels_and_owner_and_no_annotation_that_is_the_controllers_own() {
        let object = json!({"metadata": {"name": "s", "namespace": "n", "uid": "u", "labels": {"a": "b"},
            "annotations": {"c": "d", KEEP: "3", EVERY: "2", EPHEMERAL_MOVERS: "true"}},
            "spec": {"schedule": "@weekly", "useOwnerReferencesInBackup": true, "template": {"ttl": "1h", "newer": 1}}});
        let schedule: Schedule = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(
            schedule.backup(&object, "s-1"),
            json!({"apiVersion": "velero.io/v1", "kind": "Backup",
                "metadata": {"name": "s-1", "namespace": "n", "labels": {"a": "b", "velero.io/schedule-name": "s"},
                    "annotations": {"c": "d", EPHEMERAL_MOVERS: "true"},
                    "ownerReferences": [{"apiVersion": "velero.io/v1", "kind": "Schedule", "name": "s", "uid": "u", "controller": true}]},
                "spec": {"ttl": "1h", "newer": 1}})
        );
        assert_eq!(schedule.every().unwrap(), 2);
        assert_eq!(schedule.keep().unwrap(), Some(3));
        for text in ["0", "13", "two", "", "-1"] {
            let mut odd = schedule.clone();
            odd.metadata
                .annotations
                .insert(EVERY.to_owned(), text.to_owned());
            assert!(
                odd.every().unwrap_err().to_string().contains(EVERY),
                "{text}"
            );
        }
    }

    #[test]
    fn a_template_that_can_not_be_meant_is_refused() {
        for template in [
            json!({"includedResources": ["pods"], "includedClusterScopedResources": ["nodes"]}),
            json!({"includedNamespaces": ["Not/one"]}),
        ] {
            let refused = options().follow(&schedule(template)).unwrap_err();
            assert!(
                refused.to_string().contains("schedule nightly"),
                "{refused}"
            );
        }
        let other = schedule(json!({"resourcePolicy": {"kind": "Secret", "name": "p"}}));
        assert!(other.policies().is_err());
    }
}
