//! The object of a mover's pod: pure. It may read everything of the one claim that it has, and do nothing else: no account, no capability but that.

use serde_json::{Value, json};

/// The container.
pub(crate) const CONTAINER: &str = "mover";

/// Where the volume is mounted in it.
pub(super) const MOUNT: &str = "/volumes/0";

/// The program in its image.
pub(super) const PROGRAM: &str = "/kubectl-backup";

/// The annotation with the name of the claim.
const CLAIM: &str = "kubectl-backup/claim";

/// The label with the run that made it.
const RUN: &str = "kubectl-backup/run";

/// What its pod is to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) namespace: &'a str,
    pub(super) claim: &'a str,
    /// The run that makes it.
    pub(super) run: &'a str,
    pub(super) image: &'a str,
    /// The pod that has the volume already; else the scheduler finds a node.
    pub(super) beside: Option<&'a Beside>,
}

/// What a mover takes over from the pod that uses its volume.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Beside {
    /// Where that pod is.
    pub(crate) node: String,
    /// What of the node's taints it stands.
    tolerations: Vec<Value>,
    /// Its labels of SELinux, and those of its container: with others the volume could not be mounted twice, or would be labelled anew.
    labels: Value,
    change: Value,
    container: Value,
}

impl Beside {
    /// Of a pod that is on a node, and its name for the volume.
    pub(crate) fn of(pod: &Value, volume: &str) -> Option<Self> {
        let spec = &pod["spec"];
        let node = spec["nodeName"].as_str().filter(|node| !node.is_empty())?;
        let mounts = |container: &Value| {
            let all = container["volumeMounts"].as_array();
            all.is_some_and(|all| all.iter().any(|mount| mount["name"] == volume))
        };
        let containers = spec["containers"].as_array();
        let container = containers.and_then(|all| all.iter().find(|one| mounts(one)));
        Some(Self {
            node: node.to_owned(),
            tolerations: spec["tolerations"].as_array().cloned().unwrap_or_default(),
            labels: spec["securityContext"]["seLinuxOptions"].clone(),
            change: spec["securityContext"]["seLinuxChangePolicy"].clone(),
            container: container.map_or(Value::Null, |one| {
                one["securityContext"]["seLinuxOptions"].clone()
            }),
        })
    }

    /// The labels of SELinux of the container that mounts it; null where it says none.
    pub(super) fn container_labels(&self) -> &Value {
        &self.container
    }
}

/// The pod that reads a claim.
pub(super) fn pod(wanted: &Wanted<'_>) -> Value {
    let mut spec = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": CONTAINER,
            "image": wanted.image,
            "command": [PROGRAM],
            "args": ["mover", "hold"],
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                // Files of all owners are read, and nothing more.
                "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]},
            },
            "volumeMounts": [{"name": "volume", "mountPath": MOUNT, "readOnly": true}],
        }],
        "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": wanted.claim, "readOnly": true}}],
    });
    if let Some(beside) = wanted.beside {
        // The volume is there and may be nowhere else: whatever the scheduler would say of the node does not matter. A node that dies is left, as that pod leaves it.
        spec["nodeName"] = beside.node.as_str().into();
        let mut tolerations = vec![json!({"operator": "Exists", "effect": "NoSchedule"})];
        tolerations.extend(beside.tolerations.iter().cloned());
        spec["tolerations"] = tolerations.into();
        if !beside.labels.is_null() {
            spec["securityContext"]["seLinuxOptions"] = beside.labels.clone();
        }
        if !beside.change.is_null() {
            spec["securityContext"]["seLinuxChangePolicy"] = beside.change.clone();
        }
        if !beside.container.is_null() {
            spec["containers"][0]["securityContext"]["seLinuxOptions"] = beside.container.clone();
        }
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": wanted.name,
            "namespace": wanted.namespace,
            "labels": {
                "app.kubernetes.io/name": "kubectl-backup",
                "app.kubernetes.io/component": CONTAINER,
                RUN: wanted.run,
                crate::backup::EXCLUDE_LABEL: "true",
            },
            "annotations": {
                CLAIM: wanted.claim,
                "sidecar.istio.io/inject": "false",
                "linkerd.io/inject": "disabled",
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
            },
        },
        "spec": spec,
    })
}

/// The run of a mover, by its labels; nothing of another pod.
pub(crate) fn run_of(pod: &Value) -> Option<&str> {
    let labels = &pod["metadata"]["labels"];
    let is_mover = labels["app.kubernetes.io/name"] == "kubectl-backup"
        && labels["app.kubernetes.io/component"] == CONTAINER;
    labels[RUN].as_str().filter(|_| is_mover)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(beside: Option<&Beside>) -> Value {
        pod(&Wanted {
            name: "backup-mover-1",
            namespace: "shop",
            claim: "data",
            run: "r",
            image: "i:1",
            beside,
        })
    }

    #[test]
    fn a_mover_may_read_its_one_claim_and_nothing_else() {
        let pod = made(None);
        let spec = &pod["spec"];
        let read_only = json!([{"name": "volume", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}]);
        assert_eq!(spec["volumes"], read_only);
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["enableServiceLinks"], false);
        assert_eq!(spec["restartPolicy"], "Never");
        for absent in [
            "hostNetwork",
            "hostPID",
            "serviceAccountName",
            "nodeName",
            "tolerations",
        ] {
            assert_eq!(spec[absent], Value::Null, "{absent}");
        }
        let all = spec["containers"].as_array().unwrap();
        assert_eq!(all.len(), 1);
        let mounts = json!([{"name": "volume", "mountPath": "/volumes/0", "readOnly": true}]);
        assert_eq!(all[0]["volumeMounts"], mounts);
        assert_eq!(all[0]["env"], Value::Null);
        assert_eq!(
            all[0]["resources"]["limits"],
            json!({"cpu": "2", "memory": "512Mi"})
        );
        assert_eq!(spec["terminationGracePeriodSeconds"], 1);
        let security = &all[0]["securityContext"];
        let capabilities = json!({"drop": ["ALL"], "add": ["DAC_OVERRIDE"]});
        assert_eq!(security["capabilities"], capabilities);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(
            spec["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
    }

    #[test]
    fn a_mover_is_known_by_its_labels_belongs_to_nobody_and_is_in_no_backup() {
        let pod = made(None);
        let meta = &pod["metadata"];
        assert_eq!(meta["ownerReferences"], Value::Null);
        assert_eq!(meta["labels"]["velero.io/exclude-from-backup"], "true");
        assert_eq!(meta["labels"]["kubectl-backup/run"], "r");
        assert_eq!(meta["annotations"]["kubectl-backup/claim"], "data");
        assert_eq!(meta["annotations"]["sidecar.istio.io/inject"], "false");
        assert_eq!(meta["annotations"]["linkerd.io/inject"], "disabled");
        assert_eq!(run_of(&pod), Some("r"));
        let mut other = pod.clone();
        other["metadata"]["labels"]["app.kubernetes.io/component"] = "etcd".into();
        assert_eq!(run_of(&other), None);
    }

    #[test]
    fn beside_a_pod_it_is_on_the_node_of_that_with_its_tolerations_and_labels() {
        let app = json!({"spec": {
            "nodeName": "n1",
            "tolerations": [{"key": "db", "operator": "Exists"}],
            "securityContext": {"runAsUser": 5, "seLinuxOptions": {"level": "s0:c1"}, "seLinuxChangePolicy": "MountOption"},
            "containers": [
                {"name": "a", "securityContext": {"seLinuxOptions": {"level": "s0:c8"}}},
                {"name": "b", "volumeMounts": [{"name": "files", "mountPath": "/x"}], "securityContext": {"seLinuxOptions": {"level": "s0:c9"}}},
            ],
        }});
        let beside = Beside::of(&app, "files").unwrap();
        let spec = &made(Some(&beside))["spec"];
        assert_eq!(spec["nodeName"], "n1");
        let tolerations = json!([{"operator": "Exists", "effect": "NoSchedule"}, {"key": "db", "operator": "Exists"}]);
        assert_eq!(spec["tolerations"], tolerations);
        let whole = &spec["securityContext"];
        assert_eq!(whole["seLinuxOptions"]["level"], "s0:c1");
        assert_eq!(whole["seLinuxChangePolicy"], "MountOption");
        assert_eq!(whole["runAsUser"], 0);
        let own = &spec["containers"][0]["securityContext"];
        assert_eq!(own["seLinuxOptions"]["level"], "s0:c9");
        assert_eq!(own["allowPrivilegeEscalation"], false);
        assert!(Beside::of(&json!({"spec": {}}), "files").is_none());
    }
}
