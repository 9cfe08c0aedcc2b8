//! Movers of a restore: they have all claims of a pod, may write, and stand where that pod can be. What comes over their streams they bring into a volume.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Value, json};

use super::run::{Mover, Movers};
use super::spec::{self, Wanted};
use super::streams::{Program, waits_in};
use crate::backup::quantity;
use crate::error::{Error, Result};

/// What it takes to give every file its owner, mode, attributes and kind; a pod of the level `baseline` may have these.
const CAPABILITIES: [&str; 6] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "MKNOD",
    "SETFCAP",
];

/// What a mover asks for, and may use, at least: processors in thousandths, memory in bytes.
const REQUEST: (u64, u64) = (10, 64 << 20);
const LIMIT: (u64, u64) = (2000, 512 << 20);

/// Pieces that wait to be sent: a volume is large, and nobody asks.
const GOING: usize = 16;

/// Where a pod may run and what it asks for: a volume that is made for the first pod that uses it has to be made where this one can be, also for its size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Placement {
    /// Parts of a pod's spec: `nodeSelector`, `tolerations`, and of `affinity` what nodes have to be.
    spec: Value,
    /// Of `securityContext`, the labels of SELinux and how they are changed.
    labels: Value,
    /// The labels of the container that mounts the most.
    container: Value,
    /// Processors, in thousandths.
    cpu: u64,
    /// Memory in bytes.
    memory: u64,
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a conversion of this kind stays within its bounds"
)]
fn whole(number: f64) -> u64 {
    number.ceil() as u64
}

impl Placement {
    /// Of a pod's spec.
    pub(crate) fn of(pod: &Value) -> Self {
        let mut spec = json!({});
        for key in ["nodeSelector", "tolerations"] {
            if !pod[key].is_null() {
                spec[key] = pod[key].clone();
            }
        }
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let needed = &pod["affinity"]["nodeAffinity"][required];
        if !needed.is_null() {
            spec["affinity"] = json!({"nodeAffinity": {required: needed}});
        }
        let mut labels = json!({});
        for key in ["seLinuxOptions", "seLinuxChangePolicy"] {
            if !pod["securityContext"][key].is_null() {
                labels[key] = pod["securityContext"][key].clone();
            }
        }
        let mounting =
            array(&pod["containers"]).max_by_key(|one| array(&one["volumeMounts"]).count());
        let container = mounting.map_or(
            &Value::Null,
            |one| &one["securityContext"]["seLinuxOptions"],
        );
        let sum = |key: &str| -> f64 {
            let asked = array(&pod["containers"]);
            let asked = asked.filter_map(|one| one["resources"]["requests"][key].as_str());
            asked
                .filter_map(quantity)
                .filter(|asked| *asked > 0.0)
                .sum()
        };
        Self {
            spec,
            labels,
            container: container.clone(),
            cpu: whole(sum("cpu") * 1000.0),
            memory: whole(sum("memory")),
        }
    }

    /// The same without what the pod asks for: where the volume is does not depend on where there is room for it.
    pub(crate) fn without_requests(&self) -> Self {
        Self {
            cpu: 0,
            memory: 0,
            ..self.clone()
        }
    }
}

/// Where the claim with this number is mounted.
fn mount(number: usize) -> String {
    format!("/volumes/{number}")
}

/// The pod that fills these claims.
fn pod(wanted: &Wanted<'_>, claims: &[String], placement: &Placement) -> Value {
    let mut pod = spec::pod(wanted);
    let numbered = || claims.iter().enumerate();
    let volumes: Vec<Value> = numbered()
        .map(|(number, claim)| json!({"name": format!("volume-{number}"), "persistentVolumeClaim": {"claimName": claim}}))
        .collect();
    let mounts: Vec<Value> = numbered()
        .map(|(number, _)| json!({"name": format!("volume-{number}"), "mountPath": mount(number)}))
        .collect();
    let spec = &mut pod["spec"];
    spec["volumes"] = volumes.into();
    for (key, value) in placement.spec.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    for (key, value) in placement.labels.as_object().into_iter().flatten() {
        spec["securityContext"][key] = value.clone();
    }
    let container = &mut spec["containers"][0];
    container["volumeMounts"] = mounts.into();
    container["securityContext"]["capabilities"]["add"] = json!(CAPABILITIES);
    if !placement.container.is_null() {
        container["securityContext"]["seLinuxOptions"] = placement.container.clone();
    }
    let (cpu, memory) = (
        placement.cpu.max(REQUEST.0),
        placement.memory.max(REQUEST.1),
    );
    container["resources"] = json!({
        "requests": {"cpu": format!("{cpu}m"), "memory": memory.to_string()},
        "limits": {"cpu": format!("{}m", cpu.max(LIMIT.0)), "memory": memory.max(LIMIT.1).to_string()},
    });
    pod
}

impl Movers {
    /// Whether the server would refuse a mover for a claim, wherever its volume is; nothing is made.
    ///
    /// # Errors
    /// Its refusal.
    pub(crate) async fn rehearse_for(
        &self,
        namespace: &str,
        claim: &str,
        placement: &Placement,
    ) -> Result<()> {
        let (claims, placement) = ([claim.to_owned()], placement.without_requests());
        let build = |wanted: &Wanted<'_>| pod(wanted, &claims, &placement);
        self.rehearse_as(namespace, claim, build).await
    }

    /// Makes one for these claims of a namespace and waits until it runs: then they have their volumes.
    ///
    /// # Errors
    /// Why there is none; then no pod stays.
    pub(crate) async fn start_for(
        &self,
        namespace: &str,
        claims: &[String],
        placement: &Placement,
    ) -> Result<Mover> {
        let first = claims.first();
        let first = first.ok_or_else(|| Error::other("a mover was asked for, and no claim"))?;
        let (claims, placement) = (claims.to_vec(), placement.clone());
        self.start_as(namespace, first, None, move |wanted| {
            pod(wanted, &claims, &placement)
        })
        .await
    }
}

impl Mover {
    /// Begins to fill the claim with this number, which has to be empty; with `over_own` what stands there of an earlier attempt goes.
    ///
    /// # Errors
    /// A program that can not be started.
    pub(crate) async fn receive(&self, number: usize, over_own: bool) -> Result<Program> {
        let path = mount(number);
        let arguments: &[&str] = match over_own {
            true => &["receive", "--over-own", path.as_str()],
            false => &["receive", path.as_str()],
        };
        let (going, waiting) = tokio::sync::mpsc::channel(GOING);
        let owes = Arc::new(std::sync::OnceLock::new());
        // Set once, here.
        let _ = owes.set(waits_in(&going));
        self.program_with(
            arguments,
            Some((going, waiting)),
            owes,
            Arc::new(AtomicU64::new(0)),
        )
        .await
    }

    /// Lists the claim with this number.
    ///
    /// # Errors
    /// A program that can not be started.
    pub(crate) async fn list(&self, number: usize) -> Result<Program> {
        let path = mount(number);
        self.program_with(
            &["list", path.as_str()],
            None,
            Arc::default(),
            Arc::default(),
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(claims: &[&str], of: &Value) -> Value {
        let claims: Vec<String> = claims.iter().map(|claim| (*claim).to_owned()).collect();
        let wanted = Wanted {
            name: "backup-mover-1",
            namespace: "shop",
            claim: claims[0].as_str(),
            run: "r",
            image: "i:1",
            beside: None,
        };
        pod(&wanted, &claims, &Placement::of(of))
    }

    #[test]
    fn it_may_write_to_its_claims_and_has_what_files_need_and_no_more() {
        let pod = made(&["a", "b"], &json!({}));
        let spec = &pod["spec"];
        let volumes = json!([
            {"name": "volume-0", "persistentVolumeClaim": {"claimName": "a"}},
            {"name": "volume-1", "persistentVolumeClaim": {"claimName": "b"}},
        ]);
        assert_eq!(spec["volumes"], volumes);
        let container = &spec["containers"][0];
        let mounts = json!([
            {"name": "volume-0", "mountPath": "/volumes/0"}, {"name": "volume-1", "mountPath": "/volumes/1"},
        ]);
        assert_eq!(container["volumeMounts"], mounts);
        let security = &container["securityContext"];
        assert_eq!(
            security["capabilities"],
            json!({"drop": ["ALL"], "add": CAPABILITIES})
        );
        assert_eq!(security["allowPrivilegeEscalation"], false);
        assert_eq!(security["readOnlyRootFilesystem"], true);
        assert_eq!(spec["automountServiceAccountToken"], false);
        assert_eq!(spec["nodeName"], Value::Null);
        assert_eq!(
            container["resources"]["limits"]["memory"],
            (512 << 20).to_string()
        );
    }

    #[test]
    fn it_stands_where_the_pod_can_be_that_uses_them_and_asks_for_as_much() {
        let of = json!({
            "nodeName": "old",
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "db", "operator": "Exists"}],
            "affinity": {
                "podAntiAffinity": {"x": "y"},
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []},
                    "preferredDuringSchedulingIgnoredDuringExecution": [],
                },
            },
            "securityContext": {"seLinuxOptions": {"level": "s0:c1"}, "fsGroup": 5, "runAsUser": 7},
            "containers": [
                {"resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}},
                {"resources": {"requests": {"cpu": "2", "memory": "512Mi"}},
                    "volumeMounts": [{"name": "v"}], "securityContext": {"seLinuxOptions": {"level": "s0:c2"}}},
            ],
        });
        let pod = made(&["a"], &of);
        let spec = &pod["spec"];
        assert_eq!(spec["nodeSelector"], of["nodeSelector"]);
        assert_eq!(spec["tolerations"], of["tolerations"]);
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}});
        assert_eq!(spec["affinity"], affinity);
        assert_eq!(spec["nodeName"], Value::Null);
        let security = &spec["securityContext"];
        assert_eq!(security["seLinuxOptions"]["level"], "s0:c1");
        assert_eq!(
            (&security["fsGroup"], &security["runAsUser"]),
            (&Value::Null, &json!(0))
        );
        let container = &spec["containers"][0];
        assert_eq!(
            container["securityContext"]["seLinuxOptions"]["level"],
            "s0:c2"
        );
        let resources = json!({
            "requests": {"cpu": "2250m", "memory": (1536_u64 << 20).to_string()},
            "limits": {"cpu": "2250m", "memory": (1536_u64 << 20).to_string()},
        });
        assert_eq!(container["resources"], resources);
    }
}
