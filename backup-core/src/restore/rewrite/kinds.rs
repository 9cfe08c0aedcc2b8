//! What each kind needs on its way into a cluster: Velero's item actions. Pure.

use std::collections::HashSet;

use serde_json::Value;

use super::{Rewrite, Side, drop_keys, edit, edit_each, edit_or_make};
use crate::error::Result;
use crate::raw::RawObject;

/// What `kubectl apply` remembers.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The binding of a claim to its volume, and what was done for it.
const BINDING: [&str; 7] = [
    "pv.kubernetes.io/bind-completed",
    "pv.kubernetes.io/bound-by-controller",
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/selected-node",
    "velero.io/volume-snapshot-name",
    "velero.io/data-upload-name",
];
const CONTROLLER_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];

/// Does what the resource's kind needs; most need nothing.
pub(super) fn act(
    rewrite: &Rewrite,
    resource: &str,
    object: &mut RawObject<'_>,
    side: Side,
) -> Result<()> {
    match resource {
        "services" => service(rewrite, object),
        "jobs.batch" => job(object),
        "pods" => pod(object),
        "persistentvolumeclaims" => claim(rewrite, object),
        "persistentvolumes" => volume(rewrite, object, side),
        "rolebindings.rbac.authorization.k8s.io"
        | "clusterrolebindings.rbac.authorization.k8s.io" => {
            edit_each(object, "subjects", |subject| {
                rewrite.map(subject, "namespace", side)?;
                Ok(true)
            })
        }
        "secrets" => secret(object),
        "serviceaccounts" => service_account(object),
        "customresourcedefinitions.apiextensions.k8s.io" => definition(object),
        "validatingwebhookconfigurations.admissionregistration.k8s.io"
        | "mutatingwebhookconfigurations.admissionregistration.k8s.io" => webhooks(object),
        _ => Ok(()),
    }
}

/// Addresses are given out anew unless the service is headless. Node ports too, unless somebody asked for just these: named in
/// what `kubectl apply` remembers or, without that, owned by a manager of the field.
fn service(rewrite: &Rewrite, object: &mut RawObject<'_>) -> Result<()> {
    let explicit = if rewrite.preserve_node_ports {
        None
    } else {
        Some(ExplicitPorts::of(object)?)
    };
    edit(object, "spec", |spec| {
        if spec.get("clusterIP") != Some("\"None\"") {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        let Some(explicit) = &explicit else {
            return Ok(());
        };
        if !explicit.health_check {
            spec.remove("healthCheckNodePort");
        }
        if spec.get("type") == Some("\"ExternalName\"") {
            return Ok(());
        }
        edit_each(spec, "ports", |port| {
            if !explicit.has(port)? {
                port.remove("nodePort");
            }
            Ok(true)
        })
    })
}

/// Which ports of a service somebody asked for.
#[derive(Default)]
struct ExplicitPorts {
    applied: bool,
    names: HashSet<String>,
    numbers: HashSet<u64>,
    keys: HashSet<String>,
    health_check: bool,
}

impl ExplicitPorts {
    fn of(object: &RawObject<'_>) -> Result<Self> {
        let mut found = Self::default();
        let metadata: Value = object.read("metadata")?.unwrap_or_default();
        if let Some(text) = metadata["annotations"][LAST_APPLIED].as_str()
            && let Ok(applied) = serde_json::from_str::<Value>(text)
        {
            found.applied = true;
            let spec = &applied["spec"];
            found.health_check = number(&spec["healthCheckNodePort"]).is_some();
            for port in spec["ports"].as_array().into_iter().flatten() {
                match (number(&port["nodePort"]), port["name"].as_str()) {
                    (Some(_), Some(name)) => drop(found.names.insert(name.to_owned())),
                    (Some(node_port), None) => drop(found.numbers.insert(node_port)),
                    (None, _) => {}
                }
            }
        }
        for entry in metadata["managedFields"].as_array().into_iter().flatten() {
            let spec = &entry["fieldsV1"]["f:spec"];
            found.health_check |= !spec["f:healthCheckNodePort"].is_null();
            for (key, fields) in spec["f:ports"].as_object().into_iter().flatten() {
                if !fields["f:nodePort"].is_null() {
                    found.keys.insert(key.clone());
                }
            }
        }
        Ok(found)
    }

    fn has(&self, port: &RawObject<'_>) -> Result<bool> {
        let name: String = port.read("name")?.unwrap_or_default();
        if !self.applied {
            let number: u64 = port.read("port")?.unwrap_or_default();
            let protocol: String = port.read("protocol")?.unwrap_or_else(|| "TCP".to_owned());
            let key = format!("k:{{\"port\":{number},\"protocol\":\"{protocol}\"}}");
            return Ok(self.keys.contains(&key));
        }
        Ok(if name.is_empty() {
            port.read("nodePort")?
                .is_some_and(|n| self.numbers.contains(&n))
        } else {
            self.names.contains(&name)
        })
    }
}

/// A number over 0, or one written as text.
fn number(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|n| *n > 0)
}

/// The selector of the old uid would match nothing.
fn job(object: &mut RawObject<'_>) -> Result<()> {
    edit(object, "spec", |spec| {
        edit(spec, "selector", |selector| {
            drop_keys(selector, "matchLabels", &CONTROLLER_UID)
        })?;
        edit(spec, "template", |template| {
            edit(template, "metadata", |metadata| {
                drop_keys(metadata, "labels", &CONTROLLER_UID)
            })
        })
    })
}

/// What Velero puts first into a pod whose files it restores: it waits for a file that only that restore writes.
const WAITS: [&str; 2] = ["restore-wait", "restic-wait"];

/// Its node may not exist, its priority comes from its class, and legacy tokens are mounted anew. Ephemeral containers
/// can not be created with a pod. What waited for an earlier restore of Velero's would wait for ever.
fn pod(object: &mut RawObject<'_>) -> Result<()> {
    edit(object, "spec", |spec| {
        spec.remove("nodeName");
        spec.remove("priority");
        spec.remove("ephemeralContainers");
        let waits = spec
            .get("initContainers")
            .is_some_and(|text| WAITS.iter().any(|name| text.contains(name)));
        if waits {
            edit_each(spec, "initContainers", |container| {
                let name: String = container.read("name")?.unwrap_or_default();
                Ok(!WAITS.contains(&name.as_str()))
            })?;
        }
        let account: String = spec
            .read("serviceAccountName")?
            .filter(|name: &String| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned());
        let prefix = format!("{account}-token-");
        let stays = |item: &mut RawObject<'_>| {
            Ok(!item
                .read::<String>("name")?
                .unwrap_or_default()
                .starts_with(&prefix))
        };
        if !spec
            .get("volumes")
            .is_some_and(|text| text.contains(&prefix))
        {
            return Ok(());
        }
        edit_each(spec, "volumes", stays)?;
        for containers in ["containers", "initContainers"] {
            edit_each(spec, containers, |container| {
                edit_each(container, "volumeMounts", stays)?;
                Ok(true)
            })?;
        }
        Ok(())
    })
}

/// What the snapshot controller puts on a claim while a snapshot is made of it, and takes off nowhere else.
const BEING_SNAPSHOTTED: &str = "snapshot.storage.kubernetes.io/pvc-as-source-protection";

/// A claim whose volume does not come back is provisioned anew: it names no volume, and no source that may be gone. Its selector stays where no provisioner made its
/// volume: without it a volume that is somebody else's would do.
fn claim(rewrite: &Rewrite, object: &mut RawObject<'_>) -> Result<()> {
    let mut was_provisioned = false;
    edit(object, "metadata", |metadata| {
        let annotations = metadata.get("annotations").unwrap_or_default();
        was_provisioned = annotations.contains("storage-provisioner\"");
        drop_keys(metadata, "annotations", &BINDING)?;
        let mut kept: Vec<String> = metadata.read("finalizers")?.unwrap_or_default();
        let many = kept.len();
        kept.retain(|finalizer| finalizer != BEING_SNAPSHOTTED);
        if kept.len() < many {
            metadata.set("finalizers", &kept)?;
        }
        Ok(())
    })?;
    edit(object, "spec", |spec| {
        let volume: String = spec.read("volumeName")?.unwrap_or_default();
        if volume.is_empty() || rewrite.kept_volumes.contains(&volume) {
            return Ok(());
        }
        for key in ["volumeName", "dataSource", "dataSourceRef"] {
            spec.remove(key);
        }
        if was_provisioned {
            spec.remove("selector");
        }
        Ok(())
    })
}

/// The claim it is bound to gets a new uid.
fn volume(rewrite: &Rewrite, object: &mut RawObject<'_>, side: Side) -> Result<()> {
    edit(object, "metadata", |metadata| {
        drop_keys(metadata, "annotations", &BINDING[..2])
    })?;
    edit(object, "spec", |spec| {
        edit(spec, "claimRef", |claim| {
            claim.remove("uid");
            claim.remove("resourceVersion");
            rewrite.map(claim, "namespace", side)
        })
    })
}

/// A service account's token is made anew for its new uid.
fn secret(object: &mut RawObject<'_>) -> Result<()> {
    if object.get("type") != Some("\"kubernetes.io/service-account-token\"") {
        return Ok(());
    }
    edit(object, "metadata", |metadata| {
        drop_keys(
            metadata,
            "annotations",
            &["kubernetes.io/service-account.uid"],
        )
    })?;
    edit(object, "data", |data| {
        data.remove("token");
        data.remove("ca.crt");
        Ok(())
    })
}

/// Legacy token secrets are not restored.
fn service_account(object: &mut RawObject<'_>) -> Result<()> {
    let mut name = String::new();
    edit(object, "metadata", |metadata| {
        name = metadata.read("name")?.unwrap_or_default();
        Ok(())
    })?;
    let prefix = format!("{name}-token-");
    let mut left = 0;
    edit_each(object, "secrets", |secret| {
        let stays = !secret
            .read::<String>("name")?
            .unwrap_or_default()
            .starts_with(&prefix);
        left += usize::from(stays);
        Ok(stays)
    })?;
    if left == 0 {
        object.remove("secrets");
    }
    Ok(())
}

/// `preserveUnknownFields: true` can not be created in v1; the schema says the same.
fn definition(object: &mut RawObject<'_>) -> Result<()> {
    if object.get("apiVersion") != Some("\"apiextensions.k8s.io/v1\"") {
        return Ok(());
    }
    edit(object, "spec", |spec| {
        if spec.get("preserveUnknownFields") != Some("true") {
            return Ok(());
        }
        spec.set("preserveUnknownFields", &false)?;
        edit_each(spec, "versions", |version| {
            edit_or_make(version, "schema", |schema| {
                edit_or_make(schema, "openAPIV3Schema", |root| {
                    root.set("x-kubernetes-preserve-unknown-fields", &true)
                })
            })?;
            Ok(true)
        })
    })
}

/// v1 takes no webhook whose side effects are unknown.
fn webhooks(object: &mut RawObject<'_>) -> Result<()> {
    if object.get("apiVersion") != Some("\"admissionregistration.k8s.io/v1\"") {
        return Ok(());
    }
    edit_each(object, "webhooks", |webhook| {
        if !matches!(
            webhook.get("sideEffects"),
            Some("\"None\"" | "\"NoneOnDryRun\"")
        ) {
            webhook.set("sideEffects", &"None")?;
        }
        Ok(true)
    })
}
