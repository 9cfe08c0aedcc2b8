//! The kinds that the controller brings, and those that it leaves alone.

use harness::run::kubectl_backup;
use harness::velero;
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENT, SHOP, Served};

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

/// What `velero install` of 1.14.1 brings; where it is from: tests/fixtures/README.md.
const OLD: &str = include_str!("../fixtures/velero-1.14.1.json");

/// What makes definitions what they are, by name, as they stand in the cluster.
fn standing(served: &Served) -> Vec<(String, Value)> {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut all = served.cluster.get_raw(path);
    let all = all["items"].as_array_mut().unwrap().split_off(0);
    let of = |crd: &Value| {
        let meta = &crd["metadata"];
        let kept = ["uid", "generation", "labels", "annotations"];
        let meta: Vec<Value> = kept.iter().map(|key| meta[key].clone()).collect();
        json!([meta, crd["spec"]])
    };
    let name = |crd: &Value| crd["metadata"]["name"].as_str().unwrap().to_owned();
    all.iter()
        .filter(|crd| crd["spec"]["group"] == "velero.io")
        .map(|crd| (name(crd), of(crd)))
        .collect()
}

/// An object as a user writes it; with parts that no Velero of today knows, where the definitions know them.
fn asked(kind: &str, name: &str, spec: Value, is_newer: bool) -> Value {
    let mut object = json!({
        "apiVersion": "velero.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": {"example.com/mine": "yes"}},
        "spec": spec,
    });
    if is_newer {
        object["spec"]["newer"] = json!({"deep": "kept"});
    }
    object
}

/// Serves with these definitions: all kinds that a user writes, from their beginning to their end. What is of a newer Velero stays where the
/// definitions keep it, and the definitions stay what they are.
fn is_served_with(bucket: &str, definitions: &[Value], keeps_newer: bool) {
    let newer = |kind: &str, name: &str, spec: Value| asked(kind, name, spec, keeps_newer);
    let mut served = Served::without_controller(bucket);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": definitions});
    served.apply(&list.to_string());
    served.cluster_has_kinds();
    let before = standing(&served);
    assert_eq!(before.len(), definitions.len());
    let flags = ["--concurrent-backups", "1", "--backup-sync-period=1s"];
    served.controller = Some(served.call(&flags).spawn());
    served.location("default", "main", true);
    let kept = |object: &Value| {
        let newer = if keeps_newer {
            json!("kept")
        } else {
            Value::Null
        };
        assert_eq!(object["spec"]["newer"]["deep"], newer, "{object:#}");
        let mine = &object["metadata"]["annotations"]["example.com/mine"];
        assert_eq!(mine, "yes", "{object:#}");
    };
    let status = json!({"spec": {"newer": {"deep": "kept"}}, "status": {"newer": "kept"},
        "metadata": {"annotations": {"example.com/mine": "yes"}}});
    served.patch(
        "backupstoragelocations.velero.io",
        "default",
        &status.to_string(),
    );

    // All at once: they wait for each other, and an old definition knows no word for that.
    served.apply(SHOP);
    let wanted = || json!({"includedNamespaces": ["shop"]});
    let all = ["a", "b", "c"].map(|name| newer("Backup", name, wanted()).to_string());
    served.apply(&all.join("\n---\n"));
    for name in ["a", "b", "c"] {
        let backup = served.ends(name, "Completed");
        kept(&backup);
        // By what the controller finds its way with no schema but metadata's own.
        let annotations = &backup["metadata"]["annotations"];
        for key in ["kubectl-backup/run", "kubectl-backup/cluster-uid"] {
            assert!(annotations[key].is_string(), "{key}: {backup:#}");
        }
        assert!(backup["status"]["completionTimestamp"].is_string());
    }
    let marker = "main/backups/a/velero-backup.json";
    let marker: Value = serde_json::from_slice(&served.minio.get(&served.bucket, marker)).unwrap();
    kept(&marker);
    served.is_described("backup", "a", &["Phase:", "Completed"]);

    let mut schedule = newer("Schedule", "s", json!({"schedule": "@every 2s"}));
    schedule["spec"]["template"] = wanted();
    if keeps_newer {
        schedule["spec"]["template"]["newer"] = json!({"deep": "kept"});
    }
    served.apply(&schedule.to_string());
    let first = harness::wait_for("a backup of the schedule", PATIENT, || {
        served.backups_of("s").pop()
    });
    served.patch(
        "schedules.velero.io",
        "s",
        r#"{"spec":{"schedule":"@every 24h"}}"#,
    );
    let of_schedule = served.ends(&first, "Completed");
    let inherited = &of_schedule["spec"]["newer"]["deep"];
    assert_eq!(inherited.is_string(), keeps_newer, "{of_schedule:#}");
    let schedule = served.wait("schedules/s", "followed", |schedule| {
        schedule["status"]["phase"] == "Enabled" && schedule["status"]["lastBackup"].is_string()
    });
    kept(&schedule);

    let copy = json!({"backupName": "a", "namespaceMapping": {"shop": "copy"}});
    served.apply(&newer("Restore", "r", copy).to_string());
    kept(&served.wait("restores/r", "Completed", |restore| {
        restore["status"]["phase"] == "Completed"
    }));
    let copied = "/api/v1/namespaces/copy/configmaps/settings";
    assert_eq!(served.cluster.get_raw(copied)["data"], json!({"a": "b"}));
    served.is_described("restore", "r", &["Phase:", "Completed"]);

    // What is asked away goes; what lost its object gets it back out of the bucket, and says as much as before.
    served.velero(&["backup", "delete", "a", "--confirm"]).ok();
    served.goes("backups/a");
    served.goes("restores/r");
    assert_eq!(
        served.minio.list(&served.bucket, "main/backups/a/"),
        [""; 0]
    );
    served.kubectl(&["delete", "backups.velero.io", "b"]);
    let found = served.ends("b", "Completed");
    kept(&found);
    let location = served.wait(
        "backupstoragelocations/default",
        "looked at again",
        |location| location["status"]["lastSyncedTime"].is_string(),
    );
    kept(&location);
    assert_eq!(location["status"]["newer"].is_string(), keeps_newer);

    if keeps_newer {
        // What a newer Velero is at is its own.
        let mut theirs = newer("Backup", "theirs", wanted());
        theirs["status"] = json!({"phase": "Archived", "newer": "kept"});
        served.apply(&theirs.to_string());
        served.backup("after", "default");
        served.ends("after", "Completed");
        let left = served.object("backups/theirs").unwrap();
        assert_eq!(left["status"], theirs["status"]);
        assert_eq!(left["spec"], theirs["spec"]);
    }

    let installed = kubectl_backup(&["install"])
        .kubeconfig(served.cluster.kubeconfig())
        .ok();
    for crd in definitions {
        let name = crd["metadata"]["name"].as_str().unwrap();
        let line = format!("customresourcedefinition/{name} unchanged");
        assert!(installed.stdout.contains(&line), "{}", installed.stdout);
    }
    for ((name, now), (_, before)) in standing(&served).iter().zip(&before) {
        assert!(now == before, "{name} was changed");
    }
    assert_eq!(standing(&served).len(), before.len());
}

#[test]
fn with_the_kinds_of_velero_1_14_everything_is_served_and_they_stay_as_they_are() {
    let old: Vec<Value> = serde_json::from_str(OLD).unwrap();
    assert_eq!(old.len(), 13);
    is_served_with("controller-kinds-old", &old, false);
}

#[test]
fn with_kinds_of_a_velero_to_come_everything_is_served_and_what_is_not_known_stays() {
    let home = harness::process::Folder::new("velero");
    let mut all = velero::definitions(&home)["items"]
        .as_array()
        .unwrap()
        .clone();
    for crd in &mut all {
        crd["metadata"]["labels"]["example.com/generation"] = "next".into();
        let versions = crd["spec"]["versions"].as_array_mut().unwrap();
        let is_v1 = versions.iter().any(|version| version["name"] == "v1");
        for version in versions.iter_mut() {
            let schema = &mut version["schema"]["openAPIV3Schema"]["properties"];
            for part in ["spec", "status"] {
                if !schema[part].is_object() {
                    continue;
                }
                let fields = &mut schema[part]["properties"];
                fields["newer"] = match part {
                    "spec" => json!({"type": "object", "properties": {"deep": {"type": "string"}}}),
                    _ => json!({"type": "string"}),
                };
                if let Some(phases) = fields.pointer_mut("/phase/enum") {
                    phases.as_array_mut().unwrap().push("Archived".into());
                }
                let added = fields["newer"].clone();
                if let Some(template) = fields.pointer_mut("/template/properties") {
                    template["newer"] = added;
                }
            }
        }
        // The next version is the one that is stored, and the one that discovery names first.
        if is_v1 {
            let mut next = versions[0].clone();
            next["name"] = "v2".into();
            versions[0]["storage"] = false.into();
            versions.push(next);
        }
    }
    is_served_with("controller-kinds-new", &all, true);
}
