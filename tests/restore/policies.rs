//! What exists is recreated or applied to when asked, a server can be asked beforehand, and what the target lacks is said first.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::process::{Folder, PidSlot};
use harness::proxy::{Action, Match, Proxy};
use harness::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::place::{Place, gunzip, on};

const FROM: [&str; 4] = ["restore", "create", "--from-backup", "b"];
const RECREATE: &str = "--existing-resource-policy=recreate";

fn config_map(place: &Place, namespace: &str, name: &str) -> Value {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
    place.cluster.get_raw(&path)
}

/// An immutable ConfigMap that owns another, one that has a finalizer, one that stays the same, and a service.
fn objects(namespace: &str, value: &str) -> String {
    format!(
        "
apiVersion: v1
kind: ConfigMap
metadata: {{name: fixed, namespace: {namespace}}}
immutable: true
data: {{value: {value}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: held, namespace: {namespace}, finalizers: [example.com/hold]}}
data: {{value: {value}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: same, namespace: {namespace}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec: {{selector: {{app: {value}}}, ports: [{{port: 80}}]}}
"
    )
}

/// A backup of them, and a target where they differ.
fn differing(prefix: &str) -> (Place, String) {
    let place = Place::new();
    let namespace = place.cluster.create_namespace(prefix);
    place.cluster.apply(&objects(&namespace, "old"));
    place.run(&["create", "b", "-n", &namespace]).ok();
    let kubectl = |arguments: &[&str]| place.cluster.kubectl(arguments);
    kubectl(&["-n", &namespace, "delete", "configmap", "fixed"]);
    place.cluster.apply(&objects(&namespace, "new"));
    let uid = config_map(&place, &namespace, "fixed")["metadata"]["uid"].clone();
    place.cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: owned, namespace: {namespace}, ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: fixed, uid: {uid}}}]}}\n"));
    (place, namespace)
}

fn release(place: &Place, namespace: &str) {
    let none = r#"{"metadata":{"finalizers":null}}"#;
    let patch = ["patch", "configmap", "held", "--type=merge", "-p", none];
    place
        .cluster
        .kubectl(&[&["-n", namespace], &patch[..]].concat());
}

#[test]
fn what_can_not_be_changed_is_recreated_when_asked_and_takes_nothing_along() {
    let (place, namespace) = differing("recreate");
    let of = |name: &str| config_map(&place, &namespace, name);
    let before = ["fixed", "held", "same"].map(of);
    let service = format!("/api/v1/namespaces/{namespace}/services/web");
    let uid = place.cluster.get_raw(&service)["metadata"]["uid"].clone();

    // Without a terminal it has to be said that it is meant.
    let refused = place.run(&FROM).arg(RECREATE).code(2);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    assert_eq!(of("fixed"), before[0]);
    assert!(
        place
            .run(&["restore", "get", "-o", "name"])
            .ok()
            .stdout
            .is_empty()
    );

    let plan = place.run(&FROM).args(&[RECREATE, "--dry-run=server"]).ok();
    let line = |name: &str| {
        plan.stdout
            .lines()
            .find(|line| line.contains(name))
            .unwrap_or_default()
            .to_owned()
    };
    assert!(line("fixed").contains("recreate"), "{}", plan.stdout);
    assert!(
        line("held").contains("update") && line("held").contains("finalizer"),
        "{}",
        plan.stdout
    );
    assert!(line("same").contains("skip"), "{}", plan.stdout);
    assert_eq!(of("fixed"), before[0]);

    let name = [
        "restore",
        "create",
        "r",
        "--from-backup",
        "b",
        RECREATE,
        "--yes",
    ];
    place.run(&name).ok();
    let after = ["fixed", "held", "same"].map(of);
    assert_eq!(after[0]["data"]["value"], "old");
    assert_ne!(after[0]["metadata"]["uid"], before[0]["metadata"]["uid"]);
    assert_eq!(after[1]["data"]["value"], "old");
    assert_eq!(after[1]["metadata"]["uid"], before[1]["metadata"]["uid"]);
    assert_eq!(after[2], before[2], "what is the same is not touched");
    let owned = of("owned");
    assert!(owned["metadata"]["deletionTimestamp"].is_null(), "{owned}");
    assert!(owned["metadata"]["ownerReferences"].is_null(), "{owned}");
    let live = place.cluster.get_raw(&service);
    assert_eq!(
        (&live["spec"]["selector"]["app"], &live["metadata"]["uid"]),
        (&json!("old"), &uid)
    );

    // What was deleted is kept, as an object that can be created.
    let kept = place.folder.join("restores/r/kept");
    let places: Vec<_> = fs::read_dir(&kept)
        .unwrap()
        .map(|place| place.unwrap().path())
        .collect();
    assert_eq!(places.len(), 1, "{places:?}");
    let file = fs::read_dir(&places[0])
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let body: Value = serde_json::from_str(&gunzip(&fs::read(file).unwrap())).unwrap();
    assert_eq!(body["data"]["value"], "new");
    place
        .cluster
        .apply(&body.to_string().replace("\"fixed\"", "\"again\""));

    place.run(&name).ok();
    assert_eq!(["fixed", "held", "same"].map(of), after, "twice is once");
    let record = place.run(&["restore", "describe", "r"]).ok().stdout;
    assert!(record.contains("recreate"), "{record}");
    let originals = "with 1 original of what it recreated";
    let asked = place.run(&["restore", "delete", "r"]).code(2).stderr;
    assert!(asked.contains(originals), "{asked}");
    let shown = place.run(&["restore", "delete", "r", "--dry-run"]).ok();
    assert!(shown.stdout.contains(originals), "{}", shown.stdout);
    assert!(kept.exists());
    let gone = place.run(&["restore", "delete", "r", "--yes"]).ok();
    assert!(gone.stdout.contains(originals), "{}", gone.stdout);
    assert!(!kept.exists());
    release(&place, &namespace);
}

#[test]
fn killed_while_it_recreates_the_same_command_brings_the_object_back() {
    for (what, method, after) in [
        ("before the delete", "DELETE", false),
        ("after the delete", "DELETE", true),
        ("after the create", "POST", true),
    ] {
        let (place, namespace) = differing("recreate-killed");
        let restore = || {
            place
                .run(&FROM)
                .args(&[RECREATE, "--yes", "--include-resources", "configmaps"])
        };
        let slot = Arc::new(PidSlot::default());
        let proxy = Proxy::start(&place.cluster.endpoint());
        let action = if after {
            Action::KillAfterForward(Arc::clone(&slot))
        } else {
            Action::Kill(Arc::clone(&slot))
        };
        let deleted = std::sync::atomic::AtomicBool::new(false);
        let when = Match::when(move |parts| {
            use std::sync::atomic::Ordering::SeqCst;
            let is_delete = parts.method == "DELETE";
            if is_delete {
                deleted.store(true, SeqCst);
            }
            match method {
                "DELETE" => is_delete,
                _ => {
                    parts.method == "POST"
                        && parts.path().ends_with("/configmaps")
                        && deleted.load(SeqCst)
                }
            }
        });
        proxy.nth(1, when, action);
        let through = place.cluster.token_kubeconfig(&proxy.url());
        let running = restore().kubeconfig(&through).spawn();
        running.killed_by(&slot);
        let killed = running.wait(Duration::from_secs(60));
        assert_ne!(killed.code, 0, "{what}: {}", killed.stderr);
        proxy.clear_rules();

        restore().ok();
        let fixed = config_map(&place, &namespace, "fixed");
        assert_eq!(fixed["data"]["value"], "old", "{what}");
        let owned = config_map(&place, &namespace, "owned");
        assert!(
            owned["metadata"]["deletionTimestamp"].is_null(),
            "{what}: {owned}"
        );
        let listed = place.run(&["restore", "get", "-o", "name"]).ok().stdout;
        assert_eq!(
            listed.lines().count(),
            1,
            "{what}: it is the same restore: {listed}"
        );
        release(&place, &namespace);
    }
}

#[test]
fn fields_are_applied_when_asked_and_a_conflict_names_the_other_manager() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("apply");
    let settings = |value: &str, manager: &str, extra: &str| {
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: {namespace}}}\ndata: {{colour: {value}{extra}}}\n"
        );
        let file = Folder::new("apply");
        let path = file.write("settings.yaml", text).display().to_string();
        let manager = format!("--field-manager={manager}");
        place.cluster.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            &manager,
            "-f",
            &path,
        ]);
    };
    settings("blue", "gardener", "");
    place.run(&["create", "b", "-n", &namespace]).ok();
    settings("red", "painter", "");
    settings("red", "builder", ", size: large");
    let restore = |arguments: &[&str]| {
        place
            .run(&FROM)
            .args(&[
                "--include-resources",
                "configmaps",
                "--existing-resource-policy=apply",
            ])
            .args(arguments)
    };
    for dry in [&["--dry-run=server"][..], &[]] {
        let run = restore(dry).code(3);
        let told = format!("{}{}", run.stdout, run.stderr);
        assert!(
            told.contains("painter") && told.contains(".data.colour"),
            "{told}"
        );
        assert!(told.contains("--force-conflicts"), "{told}");
    }
    let of = || config_map(&place, &namespace, "settings")["data"].clone();
    assert_eq!(of(), json!({"colour": "red", "size": "large"}));
    restore(&["--force-conflicts"]).ok();
    assert_eq!(of(), json!({"colour": "blue", "size": "large"}));
    // What has all that the backup holds is left alone.
    let before = config_map(&place, &namespace, "settings");
    restore(&["--force-conflicts", "-q"]).ok();
    assert_eq!(config_map(&place, &namespace, "settings"), before);
    let wrong = place.run(&FROM).arg("--force-conflicts").code(2);
    assert!(
        wrong.stderr.contains("--existing-resource-policy=apply"),
        "{}",
        wrong.stderr
    );
}

/// Every object with its revision, but for what the server itself keeps on writing.
fn revisions(cluster: &Cluster) -> Vec<(String, Value)> {
    let snapshot = Snapshot::of(cluster);
    let objects = snapshot.objects.iter();
    objects
        .filter(|(id, _)| !id.resource.starts_with("leases.") && !id.resource.starts_with("events"))
        .map(|(id, object)| {
            (
                id.to_string(),
                object["metadata"]["resourceVersion"].clone(),
            )
        })
        .collect()
}

#[test]
fn a_server_is_asked_what_it_would_refuse_and_nothing_at_all_is_written() {
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    let folder = Folder::new("location");
    let location = format!("file://{}", folder.path().display());
    let run = |arguments: &[&str]| on(&cluster, &location, arguments);
    cluster.kubectl(&["create", "namespace", "shop"]);
    cluster.kubectl(&["create", "namespace", "gone"]);
    cluster.kubectl(&["-n", "gone", "create", "configmap", "later"]);
    cluster.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: fixed, namespace: shop}
immutable: true
stringData: {a: old}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: denied, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: fine, namespace: shop}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, listKind: GadgetList}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
",
    );
    let gadgets = "/apis/example.com/v1/namespaces/shop/gadgets";
    harness::wait_for("the new kind", Duration::from_secs(30), || {
        (cluster.client().get(gadgets).unwrap().status == 200).then_some(())
    });
    cluster.apply(
        "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: one, namespace: shop}\n",
    );
    run(&["create", "b", "--include-cluster-resources=true"]).ok();

    for kind in ["configmap/denied", "configmap/fine", "secret/fixed"] {
        cluster.kubectl(&["-n", "shop", "delete", kind]);
    }
    cluster.kubectl(&["delete", "crd", "gadgets.example.com", "--wait=true"]);
    // Without controllers a namespace does not go by itself.
    cluster.kubectl(&["delete", "namespace", "gone", "--wait=false"]);
    cluster.kubectl(&["-n", "gone", "delete", "configmap", "later"]);
    let finalize = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"gone"},"spec":{"finalizers":[]}}"#;
    let file = folder
        .write("finalize.json", finalize)
        .display()
        .to_string();
    let path = "/api/v1/namespaces/gone/finalize";
    cluster.kubectl(&["replace", "--raw", path, "-f", &file]);
    fs::remove_file(file).unwrap();
    cluster.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: fixed, namespace: shop}
immutable: true
stringData: {a: new}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: none}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: \"object.metadata.name != 'denied'\", message: not this one}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: none}
spec: {policyName: none, validationActions: [Deny]}
",
    );
    harness::wait_for("the policy", Duration::from_secs(30), || {
        let path = "/api/v1/namespaces/shop/configmaps?dryRun=All";
        let answer = cluster
            .client()
            .post_json(path, r#"{"metadata":{"name":"denied"}}"#)
            .unwrap();
        (answer.status >= 400).then_some(())
    });

    let before = revisions(&cluster);
    let bucket = folder.path();
    let files = || {
        let mut names: Vec<_> = fs::read_dir(bucket)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let held = files();
    let trial = ["--existing-resource-policy=update", "--dry-run=server"];
    let shown = run(&FROM).args(&trial).code(3);
    let line = |name: &str| {
        let lines = shown.stdout.lines().filter(|line| line.contains(name));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert!(line(" fine ").contains("create"), "{}", shown.stdout);
    assert!(
        line(" denied ").contains("fail") && line(" denied ").contains("not this one"),
        "{}",
        shown.stdout
    );
    assert!(
        line(" fixed ").contains("fail") && line(" fixed ").contains("immutable"),
        "{}",
        shown.stdout
    );
    for (name, why) in [
        (" later ", "namespace does not exist yet"),
        (" one ", "definition does not exist yet"),
    ] {
        assert!(
            line(name).contains("untried") && line(name).contains(why),
            "{}",
            shown.stdout
        );
    }
    assert!(
        shown
            .stderr
            .contains("2 would fail, 2 can not be tried yet"),
        "{}",
        shown.stderr
    );
    let yaml = run(&FROM).args(&trial).args(&["-o", "yaml"]).code(3).stdout;
    assert!(
        yaml.contains("action: untried") && yaml.contains("action: failed"),
        "{yaml}"
    );
    assert_eq!(
        revisions(&cluster),
        before,
        "nothing in the cluster was written"
    );
    assert_eq!(files(), held, "nothing in the location was written");
}

#[test]
fn what_the_target_lacks_is_said_before_anything_is_changed() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("lacks");
    let class = |sort: &str| format!("{sort}-{namespace}");
    let (storage, ingress, priority) = (class("storage"), class("ingress"), class("priority"));
    cluster.apply(&format!(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {storage}}}
provisioner: example.com/none
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: {ingress}}}
spec: {{controller: example.com/none}}
---
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {{name: {priority}}}
value: 7
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data, namespace: {namespace}}}
spec: {{accessModes: [ReadWriteOnce], storageClassName: {storage}, resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {namespace}}}
spec:
  replicas: 0
  serviceName: db
  selector: {{matchLabels: {{app: db}}}}
  template: {{metadata: {{labels: {{app: db}}}}, spec: {{priorityClassName: {priority}, containers: [{{name: c, image: 'localhost/none:1'}}]}}}}
  volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], storageClassName: {storage}, resources: {{requests: {{storage: 1Mi}}}}}}}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: {namespace}}}
spec: {{ingressClassName: {ingress}, defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {namespace}}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80}}]}}
"
    ));
    let service = format!("/api/v1/namespaces/{namespace}/services/web");
    let port = cluster.get_raw(&service)["spec"]["ports"][0]["nodePort"].to_string();
    place
        .run(&["create", "b", "--include-namespaces", &namespace])
        .ok();
    place
        .run(&[
            "create",
            "whole",
            "--include-namespaces",
            &namespace,
            "--include-cluster-resources=true",
        ])
        .ok();
    let delete = |what: &[&str]| cluster.kubectl(&[&["delete", "--wait=true"], what].concat());
    delete(&["namespace", &namespace]);
    delete(&["storageclass", &storage]);
    delete(&["ingressclass", &ingress]);
    delete(&["priorityclass", &priority]);
    let other = cluster.create_namespace("taker");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: taker, namespace: {other}}}\nspec: {{type: NodePort, ports: [{{port: 80, nodePort: {port}}}]}}\n"
    ));

    let lacks = [
        format!(
            "the target lacks StorageClass {storage}: needed by persistentvolumeclaims {namespace}/data and 1 more"
        ),
        format!("the target lacks IngressClass {ingress}: needed by"),
        format!("the target lacks PriorityClass {priority}: needed by"),
        format!("the target lacks NodePort {port}: taken by services {other}/taker"),
    ];
    let keep = "--preserve-nodeports";
    let plan = place.run(&FROM).args(&[keep, "--dry-run=client"]).ok();
    let refused = place.run(&FROM).arg(keep).code(2);
    for (lack, text) in lacks
        .iter()
        .flat_map(|lack| [(lack, &plan.stderr), (lack, &refused.stderr)])
    {
        assert!(text.contains(lack), "{lack}: {text}");
    }
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    let gone = cluster.try_kubectl(&["get", "namespace", &namespace]);
    assert_ne!(gone.code, 0, "nothing was changed");
    assert!(!place.folder.join("restores").exists());

    // What the restore brings itself is not lacking.
    let only = [
        "--include-resources",
        "persistentvolumeclaims,statefulsets,storageclasses,priorityclasses",
        "--include-cluster-resources=true",
    ];
    let whole = [
        "restore",
        "create",
        "--from-backup",
        "whole",
        "--dry-run=client",
    ];
    let brought = place.run(&whole).args(&only).ok();
    assert!(
        !brought.stderr.contains("the target lacks"),
        "{}",
        brought.stderr
    );

    // With --yes it does what it can.
    let done = place.run(&FROM).args(&[keep, "--yes"]).code(3);
    assert!(done.stderr.contains(&lacks[0]), "{}", done.stderr);
    assert!(
        done.stderr.contains("1 failed") && done.stderr.contains(&port),
        "{}",
        done.stderr
    );
    cluster.get_raw(&format!(
        "/apis/apps/v1/namespaces/{namespace}/statefulsets/db"
    ));

    // What stands needs nothing any more.
    let standing = "persistentvolumeclaims,statefulsets,ingresses";
    let again = place.run(&FROM).args(&["--include-resources", standing]);
    let again = again.ok().stderr;
    assert!(!again.contains("the target lacks"), "{again}");

    // Nothing lacking, nothing asked; and whose rights do not reach is told which.
    let name = format!("restorer-of-{namespace}");
    let user = cluster.user(&name, &[]);
    let user_flag = format!("--user={name}");
    cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "rolebinding",
        "view",
        "--clusterrole=view",
        &user_flag,
    ]);
    cluster.kubectl(&["-n", &namespace, "delete", "statefulset", "db"]);
    let mine = [
        "--include-resources",
        "statefulsets,services",
        "--include-cluster-resources=false",
    ];
    let refused = place.run(&FROM).args(&mine).kubeconfig(&user).code(2);
    let lack = format!("the target lacks Permission create statefulsets.apps in {namespace}");
    assert!(refused.stderr.contains(&lack), "{}", refused.stderr);
    cluster.kubectl(&[
        "-n",
        &namespace,
        "create",
        "rolebinding",
        "edit",
        "--clusterrole=edit",
        &user_flag,
    ]);
    harness::wait_for("the right", Duration::from_secs(30), || {
        let asked = [
            "-n",
            &namespace,
            "auth",
            "can-i",
            "create",
            "statefulsets.apps",
            "--as",
            &name,
        ];
        (cluster.try_kubectl(&asked).code == 0).then_some(())
    });
    place.run(&FROM).args(&mine).kubeconfig(&user).ok();
    cluster.get_raw(&format!(
        "/apis/apps/v1/namespaces/{namespace}/statefulsets/db"
    ));
}
