//! Objects that controllers make, change and remove by themselves: on a cluster that lives they differ from every backup, and what they
//! are made from is compared anyway. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::archive::row::Row;
use crate::error::{Error, Result};

const ENDPOINTS: &str = "endpoints";
const LEASES: &str = "leases.coordination.k8s.io";

/// How the controller of Endpoints marks its own: since Kubernetes 1.33 with the label, before with the annotation.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const TRIGGERED: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Whether an object of this row may be one of them: then its body decides.
pub(super) fn may_be(resource: &str, row: &Row) -> bool {
    matches!(resource, ENDPOINTS | LEASES) || !row.owners.is_empty()
}

/// Whether this object is one: it has a controller, as the pods of a ReplicaSet have, or is the work of one.
///
/// # Errors
/// `Corrupt`, when the body is no Kubernetes object.
pub(super) fn is(resource: &str, body: &[u8]) -> Result<bool> {
    let body: Peek = serde_json::from_slice(body)
        .map_err(|e| Error::corrupt("not a Kubernetes object").because(e))?;
    let meta = body.metadata;
    Ok(match resource {
        LEASES => true,
        ENDPOINTS => !meta.labels[MANAGED_BY].is_null() || !meta.annotations[TRIGGERED].is_null(),
        _ => false,
    } || meta
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner["controller"] == true))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Peek {
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    labels: Value,
    annotations: Value,
    owner_references: Option<Vec<Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_controller_makes_is_known_by_its_owner_or_by_its_mark() {
        for (resource, body, made) in [
            (
                "pods",
                r#"{"metadata":{"ownerReferences":[{"controller":true}]}}"#,
                true,
            ),
            (
                "pods",
                r#"{"metadata":{"ownerReferences":[{"controller":false}]}}"#,
                false,
            ),
            ("pods", r#"{"metadata":{"ownerReferences":null}}"#, false),
            (
                "configmaps",
                r#"{"metadata":{"labels":{"endpoints.kubernetes.io/managed-by":"x"}}}"#,
                false,
            ),
            (
                "endpoints",
                r#"{"metadata":{"labels":{"endpoints.kubernetes.io/managed-by":"x"}}}"#,
                true,
            ),
            (
                "endpoints",
                r#"{"metadata":{"annotations":{"endpoints.kubernetes.io/last-change-trigger-time":"t"}}}"#,
                true,
            ),
            ("endpoints", r#"{"metadata":{}}"#, false),
            ("leases.coordination.k8s.io", r#"{"metadata":{}}"#, true),
        ] {
            assert_eq!(
                is(resource, body.as_bytes()).unwrap(),
                made,
                "{resource} {body}"
            );
        }
        assert!(is("pods", b"7").is_err());
    }
}
