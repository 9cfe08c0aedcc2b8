//! The Job of a check, and what its pod's status says: pure. The pod may do nothing at the API server; of a location of the cluster it has the Secrets mounted
//! that the location names, and of another one nothing: its keys come over standard input.

use std::time::Duration;

use backup_core::api::BackupStorageLocation;
use serde_json::{Value, json};

use crate::install::{PART, labels};

/// The value of our label, by which what a killed run left is found.
pub(super) const CHECK: &str = "location-check";

/// Where Secrets are mounted, and what they are called there.
pub(super) const MOUNT: &str = "/location";
pub(super) const CREDENTIALS: &str = "credentials";
pub(super) const CA: &str = "ca";
pub(super) const CUSTOMER_KEY: &str = "customer-key";

/// The container.
pub(super) const CONTAINER: &str = "check";

/// A Job that nobody removes goes so long after its end.
const STAYS: u64 = 60;

/// What the cluster itself adds to the time of a check before it ends the pod.
const SPARE: Duration = Duration::from_secs(60);

/// Who looks for Jobs of dead runs.
pub(super) fn selector() -> String {
    format!("{PART}={CHECK}")
}

/// What the pod is to be like.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) image: &'a str,
    pub(super) timeout: Duration,
    /// Whose identity with the provider it has.
    pub(super) account: Option<&'a str>,
    /// As [`secrets`] gives them.
    pub(super) secrets: Vec<Value>,
}

/// The Secrets that an object of the cluster names, for a volume. `own` says that its credentials come along.
pub(super) fn secrets(location: &BackupStorageLocation, own: bool) -> Vec<Value> {
    let spec = &location.spec;
    let one = |name: &str, key: &str, path: &str, optional: bool| json!({"secret": {"name": name, "optional": optional, "items": [{"key": key, "path": path}]}});
    let mut all = Vec::new();
    match &spec.credential {
        _ if own => {}
        Some(named) => all.push(one(&named.name, &named.key, CREDENTIALS, false)),
        // As Velero's own installation has it.
        None => all.push(one("cloud-credentials", "cloud", CREDENTIALS, true)),
    }
    if let Some(named) = &spec.object_storage.ca_cert_ref {
        all.push(one(&named.name, &named.key, CA, false));
    }
    let key = spec.config.get("customerKeyEncryptionSecret");
    if let Some((name, key)) = key.and_then(|text| text.split_once('/')) {
        all.push(one(name, key, CUSTOMER_KEY, false));
    }
    all
}

/// The Job, as the strictest rules for pods allow it.
pub(super) fn job(wanted: &Wanted<'_>) -> Value {
    let labels = labels(CHECK);
    let within = format!("--within={}s", wanted.timeout.as_secs().max(1));
    let mut pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": CONTAINER,
            "image": wanted.image,
            "command": ["/kubectl-backup"],
            "args": ["location", "answer", within],
            "stdin": true,
            "stdinOnce": true,
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
        }],
    });
    if let Some(account) = wanted.account {
        pod["serviceAccountName"] = account.into();
    }
    if !wanted.secrets.is_empty() {
        pod["volumes"] = json!([{"name": "location", "projected": {"defaultMode": 0o440, "sources": wanted.secrets}}]);
        pod["containers"][0]["volumeMounts"] =
            json!([{"name": "location", "mountPath": MOUNT, "readOnly": true}]);
    }
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": wanted.name, "namespace": wanted.namespace, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": (wanted.timeout + SPARE).as_secs(),
            "ttlSecondsAfterFinished": STAYS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    })
}

/// Whether a Job of ours is a dead run's: it is over, or would be if it were not stuck.
pub(super) fn is_left(job: &Value, now: jiff::Timestamp) -> bool {
    let conditions = job["status"]["conditions"].as_array();
    let is_over = conditions.into_iter().flatten().any(|condition| {
        matches!(condition["type"].as_str(), Some("Complete" | "Failed"))
            && condition["status"] == "True"
    });
    let made = job["metadata"]["creationTimestamp"].as_str();
    let made = made.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let lives = job["spec"]["activeDeadlineSeconds"].as_i64().unwrap_or(0);
    let is_old = made.is_some_and(|made| now.as_second() - made.as_second() > lives + 300);
    is_over || is_old
}

/// The pod of a Job, of these: the one that the cluster made for it. Anybody may give a pod its label.
pub(super) fn own<'p>(pods: &'p [Value], job: &str) -> Option<&'p Value> {
    let is_its = |owner: &Value| {
        owner["controller"] == true && owner["kind"] == "Job" && owner["uid"] == job
    };
    let owners = |pod: &'p Value| pod["metadata"]["ownerReferences"].as_array();
    let is_own = |pod: &&'p Value| owners(pod).is_some_and(|all| all.iter().any(is_its));
    pods.iter().find(is_own).filter(|_| !job.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pod_holds_no_key_and_names_the_secrets_of_its_location_alone() {
        let location: BackupStorageLocation = serde_json::from_value(json!({
            "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": "x"},
            "spec": {
                "provider": "aws", "credential": {"name": "a", "key": "cloud"}, "config": {"customerKeyEncryptionSecret": "b/key"},
                "objectStorage": {"bucket": "b", "caCertRef": {"name": "c", "key": "ca.crt"}},
            },
        }))
        .unwrap();
        let names = |secrets: &[Value]| {
            let name = |one: &Value| one["secret"]["name"].as_str().unwrap().to_owned();
            secrets.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(&secrets(&location, false)), ["a", "c", "b"]);
        assert_eq!(names(&secrets(&location, true)), ["c", "b"]);
        let mut plain = location;
        plain.spec = backup_core::api::BackupStorageLocationSpec::default();
        let mounted = secrets(&plain, false);
        assert_eq!(names(&mounted), ["cloud-credentials"]);
        assert_eq!(mounted[0]["secret"]["optional"], true);
        let job = job(&Wanted {
            name: "n",
            namespace: "ns",
            image: "i",
            timeout: Duration::from_secs(120),
            account: None,
            secrets: Vec::new(),
        });
        assert_eq!(job["spec"]["activeDeadlineSeconds"], 180);
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["volumes"], Value::Null);
        assert_eq!(pod["containers"][0]["env"], Value::Null);
        assert_eq!(pod["automountServiceAccountToken"], false);
    }

    #[test]
    fn keys_go_to_the_pod_of_the_job_and_to_none_that_bears_its_label() {
        let pod = |name: &str, owners: Value| json!({"metadata": {"name": name, "labels": {"job-name": "check"}, "ownerReferences": owners}});
        let owner = |uid: &str, controller: bool| json!([{"kind": "Job", "name": "check", "uid": uid, "controller": controller}]);
        let mut pods = vec![
            pod("bare", Value::Null),
            pod("anothers", owner("v", true)),
            pod("no-controller", owner("u", false)),
        ];
        assert_eq!(own(&pods, "u"), None);
        pods.push(pod("its", owner("u", true)));
        assert_eq!(own(&pods, "u").unwrap()["metadata"]["name"], "its");
        pods.push(pod("none", owner("", true)));
        assert_eq!(own(&pods, ""), None);
    }

    #[test]
    fn jobs_of_dead_runs_are_told_from_those_at_work() {
        let made = "2026-11-29T10:00:00Z";
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let job = |status: Value| json!({"metadata": {"creationTimestamp": made}, "spec": {"activeDeadlineSeconds": 180}, "status": status});
        let works = job(json!({"active": 1}));
        assert!(!is_left(&works, at("2026-11-29T10:02:00Z")));
        assert!(is_left(&works, at("2026-11-29T10:20:00Z")));
        let over = job(json!({"conditions": [{"type": "Failed", "status": "True"}]}));
        assert!(is_left(&over, at("2026-11-29T10:00:10Z")));
    }
}
