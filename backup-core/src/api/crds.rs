//! The CustomResourceDefinitions that launcher and controller need: those of our kinds, derived from the Rust types, and Velero's, which are
//! brought only where they are absent. Pure: nothing is applied here.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use super::hosted::{CRD_GENERATION, CRD_LABEL};
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

/// Velero's kinds as `velero install --crds-only` of 1.18.3 brings them, one a line, without descriptions, labels and annotations.
const VELERO: &str = include_str!("velero.json");

/// The CRDs of all kinds of Velero's, marked as ours; each is brought only where it is absent. As Velero's own they have no status subresource. They lack
/// Velero's label, by which `velero uninstall` finds what it removes.
///
/// # Errors
/// None in practice: the definitions are fixed.
pub fn velero() -> Result<Vec<CustomResourceDefinition>> {
    let mut crds: Vec<CustomResourceDefinition> = serde_json::from_str(VELERO).map_err(|e| {
        Error::other("the definitions of Velero's kinds can not be read").because(e)
    })?;
    for crd in &mut crds {
        crd.metadata.labels = Some([(CRD_LABEL.to_owned(), CRD_GENERATION.to_string())].into());
    }
    Ok(crds)
}

/// The one of BackupStorageLocation alone.
///
/// # Errors
/// As [`velero`].
pub fn storage_location() -> Result<CustomResourceDefinition> {
    let mut crds = velero()?.into_iter();
    crds.find(|crd| crd.spec.names.kind == "BackupStorageLocation")
        .ok_or_else(|| Error::other("there is no definition of BackupStorageLocation"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::hosted::{Ownership, ownership};
    use super::*;

    fn all() -> Vec<CustomResourceDefinition> {
        let mut all = ours();
        all.extend(velero().unwrap());
        assert_eq!(all.len(), 3 + 13);
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
