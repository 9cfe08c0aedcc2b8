//! Objects in versions that the target does not prefer, or does not serve.

use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::process::Folder;
use serde_json::{Value, json};

use super::foreign::write;
use crate::place::{Archive, on};

/// A cluster of its own, for others would see kinds and versions come and go.
struct Own {
    cluster: Cluster,
    folder: Folder,
}

impl Own {
    fn run(&self, arguments: &[&str]) -> harness::run::Backup {
        let location = format!("file://{}", self.folder.path().display());
        on(&self.cluster, &location, arguments)
    }
}

/// A definition with these versions, of which the first is stored and `hidden` is not served.
fn definition(group: &str, versions: &[&str], hidden: &str) -> String {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            json!({"name": version, "served": *version != hidden, "storage": *version == versions[0],
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
        })
        .collect();
    let names = json!({"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("gadgets.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "conversion": {"strategy": "None"}, "names": names, "versions": versions}})
    .to_string()
}

/// Waits until discovery shows just these versions, the preferred one first.
fn await_versions(place: &Own, group: &str, versions: &[&str]) {
    harness::wait_for("the versions", Duration::from_secs(60), || {
        let answer = place.cluster.client().get(&format!("/apis/{group}"));
        let answer: Value = serde_json::from_slice(&answer.unwrap().body).unwrap_or_default();
        let served = answer["versions"].as_array().into_iter().flatten();
        let served: Vec<_> = served.map(|v| v["version"].as_str().unwrap()).collect();
        (served == versions).then_some(())
    });
}

fn gadget(group: &str, version: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": format!("{group}/{version}"), "kind": "Gadget", "spec": {"of": version},
        "metadata": {"name": name, "namespace": namespace}})
}

#[test]
fn objects_come_back_in_any_version_that_both_know_and_the_others_are_said_before() {
    let place = Own {
        cluster: Cluster::builder().controllers(Controllers::None).start(),
        folder: Folder::new("location"),
    };
    ours(&place);
    theirs(&place);
    along(&place.cluster);
}

/// A uid as servers make them.
fn uid(number: u64) -> String {
    format!("00000000-0000-0000-0000-{number:012}")
}

/// A definition that comes along and is changed will serve what the backup prefers: then nothing is lost with another version.
fn along(cluster: &Cluster) {
    let folder = Folder::new("location");
    let location = format!("file://{}", folder.path().display());
    let namespace = cluster.create_namespace("along");
    let group = format!("{namespace}.example.com");
    let pruning = |versions: &[(&str, &[&str])]| {
        let versions: Vec<Value> = versions
            .iter()
            .map(|(version, fields)| {
                let fields: serde_json::Map<_, _> = fields.iter().map(|f| ((*f).to_owned(), json!({"type": "string"}))).collect();
                let spec = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}});
                json!({"name": version, "served": true, "storage": *version == "v1", "schema": {"openAPIV3Schema": spec}})
            })
            .collect();
        let mut definition: Value = serde_json::from_str(&definition(&group, &["v1"], "")).unwrap();
        definition["spec"]["versions"] = versions.into();
        definition
    };
    let mut old: Vec<(String, Value)> = [("", "v3"), ("v3-preferredversion/", "v3"), ("v1/", "v1")]
        .into_iter()
        .map(|(folder, version)| {
            let path = format!("resources/gadgets.{group}/{folder}namespaces/{namespace}/one.json");
            let mut body = gadget(&group, version, &namespace, "one");
            body["metadata"]["uid"] = uid(1).into();
            body["spec"] = if version == "v3" {
                json!({"a": "1", "b": "2"})
            } else {
                json!({"a": "1"})
            };
            (path, body)
        })
        .collect();
    let mut along = pruning(&[("v1", &["a", "b"]), ("v3", &["a", "b"])]);
    along["metadata"]["uid"] = uid(2).into();
    let path = format!(
        "resources/customresourcedefinitions.apiextensions.k8s.io/cluster/gadgets.{group}.json"
    );
    old.push((path, along));
    write(&folder, &old, &[]);
    cluster.apply(&pruning(&[("v1", &["a"])]).to_string());
    harness::wait_for("the kind", Duration::from_secs(60), || {
        let path = format!("/apis/{group}/v1/gadgets");
        (cluster.client().get(&path).unwrap().status == 200).then_some(())
    });
    let update = [
        "restore",
        "create",
        "--from-backup",
        "old",
        "--existing-resource-policy=update",
    ];
    let run = on(cluster, &location, &update).ok();
    assert!(!run.stderr.contains("the backup prefers"), "{}", run.stderr);
    let path = format!("/apis/{group}/v3/namespaces/{namespace}/gadgets/one");
    assert_eq!(cluster.get_raw(&path)["spec"], json!({"a": "1", "b": "2"}));
}

/// A backup of ours, into a target that serves other versions.
fn ours(place: &Own) {
    let namespace = place.cluster.create_namespace("versions");
    let group = format!("{namespace}.example.com");
    let path = format!("/apis/{group}/v3/namespaces/{namespace}/gadgets/one");
    place.cluster.apply(&definition(&group, &["v1", "v2"], ""));
    await_versions(place, &group, &["v2", "v1"]);
    place
        .cluster
        .apply(&gadget(&group, "v1", &namespace, "one").to_string());
    place.run(&["create", "b", "-n", &namespace]).ok();
    let archive = place.folder.join("backups/b/b.tar.gz");
    let saved = Archive::of(&std::fs::read(archive).unwrap());
    let saved = saved.object(&format!("gadgets.{group}"), &namespace, "one");
    assert_eq!(saved["apiVersion"], format!("{group}/v2"));

    // The target prefers a newer version, and still serves the one in the archive.
    place
        .cluster
        .apply(&definition(&group, &["v1", "v2", "v3"], ""));
    await_versions(place, &group, &["v3", "v2", "v1"]);
    let delete = || {
        let kind = format!("gadgets.{group}");
        place
            .cluster
            .kubectl(&["-n", &namespace, "delete", &kind, "one"]);
    };
    delete();
    let restore = [
        "restore",
        "create",
        "--from-backup",
        "b",
        "--include-resources",
    ];
    let kind = format!("gadgets.{group}");
    place.run(&restore).arg(&kind).ok();
    assert_eq!(place.cluster.get_raw(&path)["spec"]["of"], "v1");

    // It serves it no more.
    delete();
    place
        .cluster
        .apply(&definition(&group, &["v1", "v2", "v3"], "v2"));
    await_versions(place, &group, &["v3", "v1"]);
    let lack = format!(
        "the target lacks Version v2 of gadgets.{group}: the target serves v3, v1; needed by 1 object"
    );
    let asked = place.run(&restore).arg(&kind).code(2);
    assert!(asked.stderr.contains(&lack), "{}", asked.stderr);
    let plan = place
        .run(&restore)
        .args(&[&kind, "--dry-run=client"])
        .code(3);
    assert!(plan.stderr.contains("1 would fail"), "{}", plan.stderr);
    let done = place.run(&restore).args(&[&kind, "--yes"]).code(3);
    for part in [&lack, "1 failed", "as v2, the target serves v3, v1"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let missing = place.cluster.client().get(&path).unwrap();
    assert_eq!(missing.status, 404);
}

/// A backup of Velero's with several versions of an object, and with versions that servers have dropped.
fn theirs(place: &Own) {
    let namespace = place.cluster.create_namespace("old-versions");
    let group = format!("{namespace}.example.com");
    place.cluster.apply(&definition(&group, &["v1"], ""));
    await_versions(place, &group, &["v1"]);
    let mut objects: Vec<(String, Value)> = [
        ("", "v3"),
        ("v3-preferredversion/", "v3"),
        ("v2/", "v2"),
        ("v1/", "v1"),
    ]
    .into_iter()
    .map(|(folder, version)| {
        let path = format!("resources/gadgets.{group}/{folder}namespaces/{namespace}/one.json");
        let mut body = gadget(&group, version, &namespace, "one");
        body["metadata"]["uid"] = uid(1).into();
        (path, body)
    })
    .collect();
    let pods = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "localhost/none:1"}]}});
    for (resource, api_version, kind, name, spec) in [
        (
            "cronjobs.batch",
            "batch/v1beta1",
            "CronJob",
            "nightly",
            json!({"schedule": "0 0 1 1 *", "suspend": true, "jobTemplate": {"spec": {"template": pods}}}),
        ),
        (
            "horizontalpodautoscalers.autoscaling",
            "autoscaling/v2beta2",
            "HorizontalPodAutoscaler",
            "web",
            json!({"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]}),
        ),
        (
            "poddisruptionbudgets.policy",
            "policy/v1beta1",
            "PodDisruptionBudget",
            "web",
            json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}),
        ),
        (
            "poddisruptionbudgets.policy",
            "policy/v1beta1",
            "PodDisruptionBudget",
            "nobody",
            json!({"minAvailable": 1, "selector": {}}),
        ),
        (
            "ingresses.networking.k8s.io",
            "networking.k8s.io/v1beta1",
            "Ingress",
            "web",
            json!({"backend": {"serviceName": "web", "servicePort": 80}}),
        ),
        (
            "endpointslices.discovery.k8s.io",
            "discovery.k8s.io/v1beta1",
            "EndpointSlice",
            "web-x",
            Value::Null,
        ),
        (
            "jobs.batch",
            "batch/v1",
            "Job",
            "nightly-1",
            json!({"suspend": true, "template": pods}),
        ),
    ] {
        let mut body = json!({"apiVersion": api_version, "kind": kind, "spec": spec,
            "metadata": {"name": name, "namespace": namespace, "uid": uid(objects.len() as u64)}});
        match kind {
            // Its controller makes it anew.
            "EndpointSlice" => {
                let by = "endpointslice-controller.k8s.io";
                body["metadata"]["labels"] = json!({"endpointslice.kubernetes.io/managed-by": by});
            }
            "Job" => {
                body["metadata"]["ownerReferences"] = json!([{"apiVersion": "batch/v1beta1", "kind": "CronJob", "name": "nightly", "uid": uid(4)}]);
            }
            _ => {}
        }
        objects.push((
            format!("resources/{resource}/namespaces/{namespace}/{name}.json"),
            body,
        ));
    }
    write(&place.folder, &objects, &[]);
    place.run(&["verify", "old"]).ok();

    let restore = ["restore", "create", "r", "--from-backup", "old"];
    let asked = place.run(&restore).code(2);
    let lacks: Vec<_> = asked
        .stderr
        .lines()
        .filter(|line| line.starts_with("the target lacks"))
        .collect();
    assert_eq!(lacks.len(), 1, "{}", asked.stderr);
    assert!(
        lacks[0].contains("Version v1beta1 of ingresses.networking.k8s.io"),
        "{lacks:?}"
    );
    let done = place.run(&restore).arg("--yes").code(3);
    for part in [
        "5 created",
        "2 failed",
        "the backup prefers v3, which the target does not serve; its objects in the backup (1) count as v1",
        "PodDisruptionBudget",
        "every pod in policy/v1",
    ] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let get = |path: &str| place.cluster.get_raw(&path.replace("NS", &namespace));
    let gadget = get(&format!("/apis/{group}/v1/namespaces/NS/gadgets/one"));
    assert_eq!(gadget["spec"]["of"], "v1");
    assert_eq!(
        get("/apis/batch/v1/namespaces/NS/cronjobs/nightly")["spec"]["suspend"],
        true
    );
    let scaler = get("/apis/autoscaling/v2/namespaces/NS/horizontalpodautoscalers/web");
    assert_eq!(
        scaler["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        70
    );
    let budget = get("/apis/policy/v1/namespaces/NS/poddisruptionbudgets/web");
    assert_eq!(budget["spec"]["selector"]["matchLabels"]["app"], "web");
    let nightly = get("/apis/batch/v1/namespaces/NS/cronjobs/nightly");
    let job = get("/apis/batch/v1/namespaces/NS/jobs/nightly-1");
    let owner = &job["metadata"]["ownerReferences"][0];
    assert_eq!(owner["apiVersion"], "batch/v1", "{owner}");
    assert_eq!(owner["uid"], nightly["metadata"]["uid"]);
    // What came back in another version is not another object.
    let kind = format!("gadgets.{group}");
    let compare = ["diff", "old", "--include-resources"];
    place.run(&compare).arg(&kind).ok();
    let budgets = place.run(&compare).arg("poddisruptionbudgets").code(1);
    assert!(budgets.stdout.contains("nobody"), "{}", budgets.stdout);
    assert!(!budgets.stdout.contains("web"), "{}", budgets.stdout);
    // What was moved is told, and twice is once.
    let log = place.run(&["restore", "logs", "r"]).ok().stdout;
    assert!(log.contains("version batch/v1beta1 to batch/v1"), "{log}");
    let again = place.run(&restore).arg("--yes").code(3);
    assert!(again.stderr.contains("0 created"), "{}", again.stderr);
}
