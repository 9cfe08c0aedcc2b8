//! Movers that are one more container of somebody's pod, an ephemeral one: where that pod alone may have its volume (ReadWriteOncePod). What such a container is, and why there is
//! none; pure. None can be removed from its pod again: its program is told to end, and ends by itself where nobody tells it.

use serde_json::{Value, json};

use super::spec::{Beside, MOUNT, PROGRAM};
use crate::cluster::ApiError;
use crate::error::{Error, Result};

/// The variable with the name by which the program of an ephemeral container is spoken to: several may be in one network.
pub const NAME: &str = "KUBECTL_BACKUP_MOVER";

/// What their names begin with.
const PREFIX: &str = "backup-mover-";

/// A pod has so many of them at most: they stay in its object, which has a largest size.
const MOST: usize = 250;

/// A pod that gets one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Host {
    pub(crate) pod: String,
    pub(crate) uid: String,
    /// Its name for the volume.
    pub(crate) volume: String,
    pub(crate) beside: Beside,
}

/// A name that tells of which run it is.
pub(super) fn name(run: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let plain = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let run: String = run.chars().filter(plain).take(32).collect();
    format!("{PREFIX}{run}-{}", &random[..8])
}

/// What is added to the pod, if it still is that one, of the revision that was read.
pub(super) fn patch(host: &Host, version: &str, name: &str, image: &str) -> Value {
    let mut security = json!({
        // Whatever the pod says of all of its containers.
        "runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": false,
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let labels = host.beside.container_labels();
    if !labels.is_null() {
        security["seLinuxOptions"] = labels.clone();
    }
    json!({
        "metadata": {"uid": host.uid, "resourceVersion": version},
        "spec": {"ephemeralContainers": [{
            "name": name,
            "image": image,
            "command": [PROGRAM],
            "args": ["mover", "hold"],
            "env": [{"name": NAME, "value": name}],
            "securityContext": security,
            "volumeMounts": [{"name": host.volume, "mountPath": MOUNT, "readOnly": true}],
        }]},
    })
}

/// Whether this pod may get one more.
///
/// # Errors
/// Why it may not.
pub(super) fn may_get(pod: &Value, host: &Host) -> Result<()> {
    let name = &host.pod;
    let meta = &pod["metadata"];
    if meta["uid"] != host.uid.as_str() || !meta["deletionTimestamp"].is_null() {
        return Err(Error::other(format!(
            "pod {name}, which alone may have it, is gone or going"
        )));
    }
    let all = pod["spec"]["ephemeralContainers"].as_array();
    let names = all
        .into_iter()
        .flatten()
        .filter_map(|one| one["name"].as_str());
    if names.filter(|name| name.starts_with(PREFIX)).count() >= MOST {
        return Err(Error::other(format!(
            "pod {name} has had {MOST} ephemeral containers for its copies, and none can be removed from it"
        ))
        .hint("make the pod anew, with a restart of what makes it: then it begins without any"));
    }
    Ok(())
}

/// What can be done about one that was refused.
pub(super) fn refused(e: ApiError, pod: &str) -> Error {
    let hint = match e.message.as_str() {
        text if text.contains("cannot patch resource") => {
            "that needs the right to patch pods/ephemeralcontainers in its namespace"
        }
        text if text.contains("PodSecurity") => {
            "the namespace allows no container that reads the files of all owners (root with DAC_OVERRIDE): pod-security.kubernetes.io/enforce=baseline does; or leave the volume out"
        }
        _ if e.is_denied() => "an admission rule of the cluster refuses it",
        _ if e.is_conflict() => {
            "somebody changes the pod again and again: the next backup tries again"
        }
        _ => "",
    };
    let error = Error::from(e).context(format!("pod {pod} can not get an ephemeral container"));
    match hint {
        "" => error,
        hint => error.hint(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        let pod = json!({"spec": {"nodeName": "n1", "containers": [
            {"name": "db", "volumeMounts": [{"name": "files", "mountPath": "/x"}], "securityContext": {"seLinuxOptions": {"level": "s0:c9"}}},
        ]}});
        Host {
            pod: "db-0".into(),
            uid: "u".into(),
            volume: "files".into(),
            beside: Beside::of(&pod, "files").unwrap(),
        }
    }

    #[test]
    fn it_may_read_the_one_volume_of_its_pod_and_holds_nothing() {
        let patch = patch(&host(), "7", "backup-mover-r-1", "i:1");
        let seen = json!({"uid": "u", "resourceVersion": "7"});
        assert_eq!(patch["metadata"], seen);
        let all = patch["spec"]["ephemeralContainers"].as_array().unwrap();
        assert_eq!(all.len(), 1);
        let mounts = json!([{"name": "files", "mountPath": "/volumes/0", "readOnly": true}]);
        assert_eq!(all[0]["volumeMounts"], mounts);
        let environment = json!([{"name": NAME, "value": "backup-mover-r-1"}]);
        assert_eq!(all[0]["env"], environment);
        let security = &all[0]["securityContext"];
        let capabilities = json!({"drop": ["ALL"], "add": ["DAC_OVERRIDE"]});
        assert_eq!(security["capabilities"], capabilities);
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(security["runAsNonRoot"], false);
        assert_eq!(security["seLinuxOptions"]["level"], "s0:c9");
        // A server refuses one with these.
        for absent in ["resources", "ports", "livenessProbe", "lifecycle"] {
            assert_eq!(all[0][absent], Value::Null, "{absent}");
        }
    }

    #[test]
    fn its_name_tells_of_its_run_and_is_one_that_a_container_may_have() {
        let run = uuid::Uuid::new_v4().simple().to_string();
        let (first, second) = (name(&run), name(&run));
        assert!(first.contains(&run));
        assert_ne!(first, second);
        assert!(first.len() <= 63);
        assert!(name("O/x.y").starts_with("backup-mover-xy-"));
    }

    #[test]
    fn a_pod_that_is_another_one_or_going_or_had_many_gets_none() {
        let pod = |count: usize| {
            let one = |number: usize| json!({"name": format!("backup-mover-r-{number}")});
            let all: Vec<Value> = (0..count).map(one).collect();
            json!({"metadata": {"uid": "u"}, "spec": {"ephemeralContainers": all}})
        };
        assert!(may_get(&pod(0), &host()).is_ok());
        assert!(may_get(&pod(MOST - 1), &host()).is_ok());
        let refused = may_get(&pod(MOST), &host()).unwrap_err();
        assert!(refused.hint_text().unwrap().contains("restart"));
        let mut going = pod(0);
        going["metadata"]["deletionTimestamp"] = "2026-11-30T10:00:00Z".into();
        assert!(may_get(&going, &host()).is_err());
        let mut other = pod(0);
        other["metadata"]["uid"] = "v".into();
        assert!(may_get(&other, &host()).is_err());
    }

    #[test]
    fn what_is_lacking_is_named() {
        let hint = |message: &str| {
            let error = ApiError {
                code: 403,
                message: message.to_owned(),
                ..ApiError::default()
            };
            refused(error, "db-0").hint_text().unwrap().to_owned()
        };
        let right = "pods \"db-0\" is forbidden: User \"x\" cannot patch resource \"pods/ephemeralcontainers\" in API group \"\"";
        assert!(hint(right).contains("patch pods/ephemeralcontainers"));
        let strict = "pods \"db-0\" is forbidden: violates PodSecurity \"restricted:latest\"";
        assert!(hint(strict).contains("enforce=baseline"));
        assert!(hint("no").contains("admission"));
    }
}
