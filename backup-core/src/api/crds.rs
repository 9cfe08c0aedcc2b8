//! The CustomResourceDefinitions that the launcher needs: those of our kinds, derived from the Rust types, and Velero's BackupStorageLocation, which
//! is brought only where it is absent. Pure: nothing is applied here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

use super::{EtcdBackupConfig, EtcdRestore, HostedCluster};
use crate::error::{Error, Result};

/// The CRDs of the kinds that are ours, by name.
pub fn ours() -> Vec<CustomResourceDefinition> {
    vec![
        HostedCluster::crd(),
        EtcdBackupConfig::crd(),
        EtcdRestore::crd(),
    ]
}

/// Velero's BackupStorageLocation, written from its documentation: what we read is described, everything else is let through, so that a Velero that
/// is installed later can work with it. As Velero's own it has no status subresource.
///
/// # Errors
/// None in practice: the definition is fixed.
pub fn storage_location() -> Result<CustomResourceDefinition> {
    let text = |description: &str| json!({"type": "string", "description": description});
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let spec = json!({
        "type": "object",
        "description": "Where it is and how it is reached",
        "x-kubernetes-preserve-unknown-fields": true,
        "required": ["provider", "objectStorage"],
        "properties": {
            "provider": text("aws, gcp, azure or local"),
            "objectStorage": {
                "type": "object",
                "description": "Bucket, folder and CA",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["bucket"],
                "properties": {
                    "bucket": text("The bucket"),
                    "prefix": text("The folder in it"),
                    "caCert": {"type": "string", "format": "byte", "description": "A CA to trust, PEM"},
                },
            },
            "config": {
                "type": "object",
                "description": "The provider's settings, such as region, s3Url, s3ForcePathStyle, publicUrl",
                "additionalProperties": {"type": "string"},
            },
            "credential": {
                "type": "object",
                "description": "The key of a Secret in the same namespace that has the credentials",
                "x-kubernetes-preserve-unknown-fields": true,
                "required": ["key"],
                "properties": {"name": text("The Secret"), "key": text("The key in it")},
            },
            "default": {"type": "boolean", "description": "Whether it is used where none is named"},
            "accessMode": {
                "type": "string",
                "description": "Whether anything may be written",
                "enum": ["ReadWrite", "ReadOnly"],
            },
        },
    });
    let crd: Value = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "backupstoragelocations.velero.io", "labels": {"kubectl-backup/crd": "1"}},
        "spec": {
            "group": "velero.io",
            "scope": "Namespaced",
            "names": {
                "kind": "BackupStorageLocation",
                "listKind": "BackupStorageLocationList",
                "plural": "backupstoragelocations",
                "singular": "backupstoragelocation",
                "shortNames": ["bsl"],
            },
            "versions": [{
                "name": "v1",
                "served": true,
                "storage": true,
                "additionalPrinterColumns": [
                    column("Phase", "string", ".status.phase"),
                    column("Last Validated", "date", ".status.lastValidationTime"),
                    column("Age", "date", ".metadata.creationTimestamp"),
                    column("Default", "boolean", ".spec.default"),
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "BackupStorageLocation is a place for backups and snapshots",
                    "properties": {
                        "spec": spec,
                        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    },
                }},
            }],
        },
    });
    serde_json::from_value(crd).map_err(|e| {
        Error::other("the definition of BackupStorageLocation can not be made").because(e)
    })
}

#[cfg(test)]
mod tests {
    use super::super::hosted::{CRD_GENERATION, CRD_LABEL, Ownership, ownership};
    use super::*;

    fn all() -> Vec<CustomResourceDefinition> {
        let mut all = ours();
        all.push(storage_location().unwrap());
        all
    }

    #[test]
    fn our_definitions_are_known_as_ours_and_others_are_not() {
        for mut crd in all() {
            assert_eq!(ownership(&crd), Ownership::Ours(CRD_GENERATION));
            crd.metadata.labels.as_mut().unwrap().remove(CRD_LABEL);
            assert_eq!(ownership(&crd), Ownership::Foreign);
            let location = (
                "kubermatic.k8c.io/location".to_owned(),
                "master,seed".to_owned(),
            );
            crd.metadata.annotations = Some([location].into());
            assert_eq!(ownership(&crd), Ownership::Kkp);
        }
    }

    #[test]
    fn every_field_is_described() {
        fn visit(path: &str, schema: &Value, missing: &mut Vec<String>) {
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                if field["description"].as_str().unwrap_or_default().is_empty() {
                    missing.push(path.clone());
                }
                visit(&path, field, missing);
                visit(&path, &field["items"], missing);
                visit(&path, &field["additionalProperties"], missing);
            }
        }
        let mut missing = Vec::new();
        for crd in ours() {
            let crd = serde_json::to_value(crd).unwrap();
            let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            visit("", &schema["properties"]["spec"], &mut missing);
            visit("", &schema["properties"]["status"], &mut missing);
        }
        assert_eq!(missing, [""; 0]);
    }

    /// The server's rough check of a schedule, as a pattern.
    fn rough() -> regex_lite::Regex {
        let crd = serde_json::to_value(EtcdBackupConfig::crd()).unwrap();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let rule = &spec["properties"]["schedule"]["x-kubernetes-validations"][0]["rule"];
        let rule = rule.as_str().unwrap();
        let (_, pattern) = rule.split_once("self.matches('").unwrap();
        let pattern = pattern.strip_suffix("')").unwrap().replace(r"\\", r"\");
        let micro = pattern.replace(r"\u00b5", "\u{b5}");
        regex_lite::Regex::new(&micro.replace(r"\u03bc", "\u{3bc}")).unwrap()
    }

    #[test]
    fn what_a_schedule_can_be_the_server_lets_through() {
        let rough = rough();
        for text in [
            "0 1 * * *",
            "  @daily ",
            "@every .5h",
            "@every +90s",
            "@every 1h30m",
            "@every 5000000\u{b5}s",
            "CRON_TZ=Etc/GMT+5   */5 0-6,22 1,15 JAN-mar ?",
            "TZ=America/Port-au-Prince\t@hourly",
        ] {
            assert!(
                crate::schedule::Schedule::parse(text, None).is_ok(),
                "{text}"
            );
            assert!(rough.is_match(text), "{text}");
        }
        for text in [
            "daily",
            "@every",
            "@reboot",
            "0 1 * *",
            "* * * * * *",
            "a b c d e",
            "\u{1b}[2J",
        ] {
            assert!(!rough.is_match(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_schedule_that_is_understood_is_refused_by_the_server(text in "(@every |TZ=UTC )?[-0-9a-zA-Z*?/,.+@]{1,6}( [-0-9a-zA-Z*?/,]{1,5}){0,4}") {
            if crate::schedule::Schedule::parse(&text, None).is_ok() {
                proptest::prop_assert!(rough().is_match(&text), "{}", text);
            }
        }
    }
}
