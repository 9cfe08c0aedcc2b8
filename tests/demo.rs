//! The main job, shown: a cluster is filled, backed up to a folder, loses a namespace, gets it back, and is compared.
//!
//! Leaves nothing behind.

#![expect(clippy::print_stdout, reason = "the demo is a printed story")]

use std::time::Instant;

use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::load::Load;
use harness::process::Folder;
use harness::run::kubectl_backup;
use harness::snapshot::Snapshot;

const SHOP: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop, labels: {app: web}}
data: {greeting: hello, colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: card-processor, namespace: shop}
stringData: {token: not-a-real-one}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers: [{name: web, image: 'localhost/web:1', envFrom: [{configMapRef: {name: settings}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web-reads, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: web, namespace: shop}]
";

fn main() {
    let began = Instant::now();
    tell("A control plane comes up on loopback: etcd, kube-apiserver, kube-controller-manager.");
    let cluster = Cluster::start();
    let store = Folder::new("demo");
    let location = format!("file://{}", store.path().display());
    let run = |arguments: &[&str]| {
        println!("$ kubectl backup {}", arguments.join(" "));
        let run = kubectl_backup(arguments)
            .kubeconfig(cluster.kubeconfig())
            .env("KUBECTL_BACKUP_LOCATION", &location)
            .ok();
        print!("{}{}", run.stderr, run.stdout);
    };

    tell("It is filled: a small shop, and 1,000 objects around it.");
    cluster.kubectl(&["create", "namespace", "shop"]);
    cluster.apply(SHOP);
    let load = Load {
        prefix: "team".to_owned(),
        namespaces: 4,
        config_maps: 150,
        secrets: 50,
        deployments: 20,
        definitions: 2,
        custom_resources: 15,
        ..Load::default()
    };
    println!("{:?}", load.fill(&cluster.endpoint()).by_kind);
    let before = Snapshot::of(&cluster);

    tell("All of it is backed up to a folder.");
    run(&["create", "demo"]);
    run(&["get"]);
    run(&["verify", "demo"]);

    tell("Disaster: the shop's namespace is deleted.");
    println!("$ kubectl delete namespace shop");
    print!(
        "{}",
        cluster
            .kubectl(&["delete", "namespace", "shop", "--wait=true"])
            .stdout
    );

    tell("What would a restore do? Nothing is changed by asking.");
    run(&[
        "restore",
        "create",
        "--from-backup",
        "demo",
        "--include-namespaces",
        "shop",
        "--dry-run=client",
    ]);

    tell("It is restored.");
    run(&[
        "restore",
        "create",
        "--from-backup",
        "demo",
        "--include-namespaces",
        "shop",
    ]);
    run(&["restore", "get"]);

    let after = Snapshot::of(&cluster);
    let differences = compare(&before, &after, &Options::in_namespaces(&["shop"]));
    differences.assert_none();
    tell(&format!(
        "Compared with what was there before: {} objects of the shop, 0 missing, 0 different. {:.0} s in all.",
        differences.compared,
        began.elapsed().as_secs_f64()
    ));
}

fn tell(text: &str) {
    println!("\n=== {text}");
}
