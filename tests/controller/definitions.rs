//! The kinds that the controller brings, and those that it leaves alone.

use harness::velero;
use serde_json::Value;

use super::Served;

/// A schema without its descriptions.
fn bare(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .filter(|(key, value)| *key != "description" || !value.is_string())
                .map(|(key, value)| {
                    let value = match (key.as_str(), value) {
                        // A field may have that name.
                        ("properties", Value::Object(fields)) => Value::Object(
                            fields
                                .iter()
                                .map(|(name, field)| (name.clone(), bare(field)))
                                .collect(),
                        ),
                        _ => bare(value),
                    };
                    (key.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => items.iter().map(bare).collect(),
        other => other.clone(),
    }
}

/// What makes a kind: names, scope, and of each version its schema, columns and subresources.
fn kind(crd: &Value) -> Value {
    let spec = &crd["spec"];
    let versions: Vec<Value> = spec["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| {
            let mut version = version.clone();
            let of = |key: &str| version["schema"]["openAPIV3Schema"][key].clone();
            assert!(of("properties").is_object());
            version["schema"] = bare(&version["schema"]);
            for column in version["additionalPrinterColumns"]
                .as_array_mut()
                .into_iter()
                .flatten()
            {
                column.as_object_mut().unwrap().remove("description");
            }
            version
        })
        .collect();
    serde_json::json!({"group": spec["group"], "scope": spec["scope"], "names": spec["names"], "versions": versions})
}

#[test]
fn veleros_kinds_are_brought_as_velero_has_them_and_its_own_are_never_changed() {
    let mut served = Served::without_controller("controller-kinds");
    let theirs = velero::definitions(&served.home);
    let theirs = theirs["items"].as_array().unwrap();
    assert!(theirs.len() >= 13);
    // One of Velero's is there, an older one without the newest phases.
    let mut older = theirs
        .iter()
        .find(|crd| crd["metadata"]["name"] == "backups.velero.io")
        .unwrap()
        .clone();
    let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let phases = &mut schema["properties"]["status"]["properties"]["phase"]["enum"];
    let phases = phases.as_array_mut().unwrap();
    phases.retain(|phase| phase != "Queued" && phase != "ReadyToStart");
    served.apply(&older.to_string());
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let before = served.cluster.get_raw(&format!("{path}/backups.velero.io"));
    served.controller = Some(served.call(&["--concurrent-backups", "1"]).spawn());
    served.cluster_has_kinds();
    served.location("default", "main", true);
    for crd in theirs {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let ours = served.cluster.get_raw(&format!("{path}/{name}"));
        if name == "backups.velero.io" {
            for field in [
                "/spec",
                "/metadata/uid",
                "/metadata/generation",
                "/metadata/labels",
            ] {
                assert!(
                    ours.pointer(field) == before.pointer(field),
                    "{name}{field}"
                );
            }
            continue;
        }
        assert_eq!(ours["metadata"]["labels"]["kubectl-backup/crd"], "1");
        // By it `velero uninstall` finds what it removes.
        assert_eq!(ours["metadata"]["labels"]["component"], Value::Null);
        let (ours, theirs) = (kind(&ours), kind(crd));
        assert!(ours == theirs, "{name}: {ours:#}");
    }
    // With the older kind, too, backups wait for each other and are made.
    for backup in ["a", "b", "c"] {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {backup}, namespace: kubectl-backup}}, spec: {{includedNamespaces: [default]}}}}"
        ));
    }
    for backup in ["a", "b", "c"] {
        served.ends(backup, "Completed");
    }

    // Where it can not serve, it says so and ends.
    let refused = served.call(&["--namespace", "absent"]).code(1);
    let hint = "kubectl create namespace absent";
    assert!(refused.stderr.contains(hint), "{}", refused.stderr);
    served.apply(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: velero, namespace: default}
spec:
  replicas: 1
  selector: {matchLabels: {deploy: velero}}
  template:
    metadata: {labels: {deploy: velero}}
    spec: {containers: [{name: velero, image: "localhost/velero:stub"}]}
"#,
    );
    let refused = served.call(&["--namespace", "default"]).code(1);
    let says = "a Velero serves namespace default already";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
    served.call(&["--concurrent-backups", "0"]).code(2);
}
