//! A hosted control plane, shown: on a real node its etcd, API server, controller manager and scheduler run as pods; a snapshot is taken, the cluster
//! is damaged, and etcd goes back to the snapshot below its launchers, with no pod deleted.
//!
//! The manifests are those of `manifests/etcd-launcher`, with images that are made here. Leaves nothing behind.

#![expect(clippy::print_stdout, reason = "the demo is a printed story")]
#![allow(clippy::unwrap_used, reason = "what is missing ends the demo")]

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use harness::node::{Image, Node, NodeOptions};
use harness::pki::{Authority, Identity, SigningKey};
use harness::process::Output;
use harness::run::{etcd_launcher, kubectl_backup};
use harness::{tools, wait_for};
use serde_json::{Value, json};

const NAMESPACE: &str = "cluster-xyz";
const MANIFESTS: [&str; 5] = [
    include_str!("../manifests/etcd-launcher/cluster.yaml"),
    include_str!("../manifests/etcd-launcher/rbac.yaml"),
    include_str!("../manifests/etcd-launcher/minio.yaml"),
    include_str!("../manifests/etcd-launcher/etcd.yaml"),
    include_str!("../manifests/etcd-launcher/control-plane.yaml"),
];
/// The administrator's kubeconfig of the hosted cluster, as a path inside the node.
const ADMIN: &str = "/var/lib/xyz/admin.conf";
const ACCESS_KEY: &str = "demo-access";
const SECRET_KEY: &str = "demo-secret-key";

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop}
data: {greeting: hello, colour: blue}
---
apiVersion: v1
kind: Secret
metadata: {name: card-processor, namespace: shop}
stringData: {token: not-a-real-one}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'localhost/web:1'}]}
";

fn main() {
    let began = Instant::now();
    if let Err(lacking) = Node::available() {
        println!("{lacking}");
        std::process::exit(1);
    }
    tell("A node comes up, as kubeadm makes one. It is to host another cluster, `xyz`.");
    let node = Node::start(NodeOptions::default().services(true));
    let plane = Plane::host(&node);

    tell(
        "etcd of three members below launchers, API server, controller manager and scheduler: all of them pods.",
    );
    plane.show(&["get", "pods,statefulsets,deployments", "-n", NAMESPACE]);
    tell("The hosted cluster is used: somebody opens a shop.");
    plane.hosted_apply(SHOP);
    plane.show_hosted(&["get", "namespaces"]);
    wait_for("pods of the shop", Duration::from_secs(120), || {
        let pods = plane.hosted(&["get", "pods", "-n", "shop", "-o", "name"]);
        (pods.stdout.lines().count() == 2).then_some(())
    });
    let before = plane.shop();

    tell("A snapshot is taken, of a follower, into the bucket; and a schedule takes more.");
    plane.backup(&[
        "snapshot",
        "before-the-damage",
        "--cluster",
        "xyz",
        "--destination",
        "s3",
        "--wait",
    ]);
    plane.backup(&[
        "schedule",
        "create",
        "daily",
        "--preset",
        "daily",
        "--cluster",
        "xyz",
        "--destination",
        "s3",
    ]);
    plane.backup(&["get", "--cluster", "xyz"]);
    let snapshot = plane.snapshot();

    tell("Disaster: the shop is deleted, and something is written that nobody should see again.");
    plane.show_hosted(&["delete", "namespace", "shop"]);
    plane.show_hosted(&["create", "namespace", "ransom-note"]);

    tell(
        "etcd goes back. Everything is proven beside the old state before anything stops; then the cluster is paused, changed over, and unpaused.",
    );
    let restoring = Instant::now();
    plane.backup(&[
        "restore",
        "create",
        "cluster-restore",
        "--from-snapshot",
        &snapshot,
        "--cluster",
        "xyz",
        "--yes",
        "--wait",
        "--timeout",
        "280s",
    ]);
    let took = restoring.elapsed();
    plane.backup(&["restore", "get", "--cluster", "xyz"]);

    tell("The shop is there, the note is not, and the hosted cluster works.");
    plane.wait_for_api();
    plane.show_hosted(&["get", "namespaces"]);
    let after = plane.shop();
    assert_eq!(before, after, "what was there is not what is there");
    let gone = plane.try_hosted(&["get", "namespace", "ransom-note"]);
    assert!(gone.stderr.contains("NotFound"), "{}", gone.stderr);
    plane.show_hosted(&["create", "configmap", "opened-again", "-n", "shop"]);
    tell("No pod was deleted for it: the members of etcd are the ones from before.");
    plane.show(&["get", "pods", "-n", NAMESPACE, "-l", "app=etcd"]);
    assert_eq!(plane.members, plane.member_uids(), "etcd's pods are others");
    tell(&format!(
        "{} objects of the shop, 0 missing, 0 different. The restore took {:.0} s, all of it {:.0} s.",
        before.len(),
        took.as_secs_f64(),
        began.elapsed().as_secs_f64()
    ));
}

/// The hosted control plane.
struct Plane<'a> {
    node: &'a Node,
    /// uids of the pods of etcd.
    members: Vec<String>,
}

impl<'a> Plane<'a> {
    /// Brings kinds, Secrets, images and manifests, and waits until all of it runs.
    fn host(node: &'a Node) -> Self {
        println!("$ etcd-launcher crds");
        print!(
            "{}",
            etcd_launcher(&["crds"])
                .kubeconfig(node.kubeconfig())
                .ok()
                .stdout
        );
        node.import_image(
            &Image::new("localhost/etcd-launcher:0.1.0")
                .program(tools::static_launcher(), "/etcd-launcher"),
        );
        node.import_image(
            &Image::new("localhost/minio:1")
                .busybox()
                .program(tools::path("minio"), "/usr/local/bin/minio"),
        );
        let (cluster, rest) = MANIFESTS.split_first().unwrap();
        node.apply(cluster);
        let (secrets, admin) = secrets();
        for (name, content) in secrets {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
                "stringData": content});
            node.apply(&secret.to_string());
        }
        for manifest in rest {
            node.apply(&with_images_of(node, manifest));
        }
        let address = "jsonpath={.spec.clusterIP}";
        let address = node.kubectl(&["-n", NAMESPACE, "get", "service/apiserver", "-o", address]);
        node.folder().write(
            ADMIN.trim_start_matches('/'),
            admin.replace("//apiserver:", &format!("//{}:", address.stdout)),
        );
        for part in [
            "deployment/minio",
            "statefulset/etcd",
            "deployment/apiserver",
            "deployment/controller-manager",
            "deployment/scheduler",
        ] {
            println!("$ kubectl rollout status {part}");
            let status =
                node.try_kubectl(&["-n", NAMESPACE, "rollout", "status", part, "--timeout=240s"]);
            if status.code != 0 {
                let pods = node
                    .try_kubectl(&["-n", NAMESPACE, "describe", "pods"])
                    .stdout;
                let logs =
                    node.try_kubectl(&["-n", NAMESPACE, "logs", part, "--all-pods", "--tail=40"]);
                panic!(
                    "{}\n{pods}\n{}{}\n{}",
                    status.stderr,
                    logs.stdout,
                    logs.stderr,
                    node.logs()
                );
            }
        }
        let mut plane = Self {
            node,
            members: Vec::new(),
        };
        plane.wait_for_api();
        plane.members = plane.member_uids();
        plane
    }

    fn member_uids(&self) -> Vec<String> {
        let pods = self.node.kubectl(&[
            "get",
            "pods",
            "-n",
            NAMESPACE,
            "-l",
            "app=etcd",
            "-o",
            "jsonpath={.items[*].metadata.uid}",
        ]);
        let mut uids: Vec<_> = pods.stdout.split(' ').map(str::to_owned).collect();
        uids.sort();
        uids
    }

    /// kubectl of the hosting cluster, as a user sees it.
    fn show(&self, arguments: &[&str]) {
        println!("$ kubectl {}", arguments.join(" "));
        print!("{}", self.node.kubectl(arguments).stdout);
    }

    /// `kubectl backup etcd`, against the hosting cluster.
    fn backup(&self, arguments: &[&str]) {
        println!("$ kubectl backup etcd {}", arguments.join(" "));
        let run = kubectl_backup(&[&["etcd"], arguments].concat())
            .kubeconfig(self.node.kubeconfig())
            .run();
        print!("{}{}", run.stderr, run.stdout);
        if run.code != 0 {
            let logs = self.node.try_kubectl(&[
                "logs",
                "-n",
                NAMESPACE,
                "-l",
                "app=etcd",
                "--prefix",
                "--tail=60",
                "-c",
                "etcd",
            ]);
            panic!("it ended with {}\n{}", run.code, logs.stdout);
        }
    }

    /// The name of the snapshot that was asked for.
    fn snapshot(&self) -> String {
        let name = self.node.kubectl(&[
            "get",
            "etcdbackupconfig",
            "-n",
            NAMESPACE,
            "before-the-damage",
            "-o",
            "jsonpath={.status.lastBackups[0].backupName}",
        ]);
        name.stdout.trim().to_owned()
    }

    fn try_hosted(&self, arguments: &[&str]) -> Output {
        let config = format!("--kubeconfig={ADMIN}");
        let before = ["kubectl", &config];
        self.node.run_inside(&[&before, arguments].concat())
    }

    fn hosted(&self, arguments: &[&str]) -> Output {
        self.try_hosted(arguments).ok()
    }

    fn show_hosted(&self, arguments: &[&str]) {
        println!("$ kubectl --context xyz {}", arguments.join(" "));
        print!("{}", self.hosted(arguments).stdout);
    }

    fn hosted_apply(&self, yaml: &str) {
        println!("$ kubectl --context xyz apply -f shop.yaml");
        let config = format!("--kubeconfig={ADMIN}");
        let apply = ["kubectl", &config, "apply", "--server-side", "-f", "-"];
        print!("{}", self.node.inside(&apply).stdin(yaml).ok().stdout);
    }

    fn wait_for_api(&self) {
        let deadline = Instant::now() + Duration::from_secs(240);
        loop {
            let asked = self.try_hosted(&["get", "--raw", "/readyz"]);
            if asked.code == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{}", asked.stderr);
            std::thread::sleep(Duration::from_millis(500));
        }
        wait_for(
            "service accounts of the hosted cluster",
            Duration::from_secs(120),
            || {
                let account =
                    self.try_hosted(&["get", "serviceaccount", "default", "-n", "default"]);
                (account.code == 0).then_some(())
            },
        );
    }

    /// What people made in the shop, as the API has it, uids and versions included.
    fn shop(&self) -> Vec<Value> {
        let mut found = Vec::new();
        for kind in ["configmaps", "secrets", "namespaces"] {
            let path = match kind {
                "namespaces" => "/api/v1/namespaces/shop".to_owned(),
                kind => format!("/api/v1/namespaces/shop/{kind}"),
            };
            let text = self.hosted(&["get", "--raw", &path]).stdout;
            let mut answer: Value = serde_json::from_str(&text).unwrap();
            match answer["items"].as_array_mut() {
                Some(items) => found.append(items),
                None => found.push(answer),
            }
        }
        found
    }
}

/// The manifests name images of registries; the node has its own.
fn with_images_of(node: &Node, manifest: &str) -> String {
    let image = |line: &str| {
        let (indent, name) = line.split_once("image: ")?;
        let name = match name {
            name if name.contains("/etcd:") => node.etcd_image(),
            name if name.contains("/minio:") => "localhost/minio:1".to_owned(),
            name if name.starts_with("registry.k8s.io/") => {
                name.replace("registry.k8s.io/", "localhost/")
            }
            name => format!("localhost/{name}"),
        };
        Some(format!("{indent}image: {name}"))
    };
    let lines = manifest.lines();
    lines
        .map(|line| image(line).unwrap_or_else(|| line.to_owned()) + "\n")
        .collect()
}

/// What the manifests say their Secrets have, and the administrator's kubeconfig.
fn secrets() -> ([(&'static str, Value); 3], String) {
    let authority = Authority::new("xyz-ca");
    let etcd = Authority::new("xyz-etcd-ca");
    let short = ["etcd-0.etcd", "etcd-1.etcd", "etcd-2.etcd"];
    let long = short.map(|name| format!("{name}.{NAMESPACE}.svc"));
    let names = short.into_iter().chain(long.iter().map(String::as_str));
    let names: Vec<&str> = names.chain(["localhost", "127.0.0.1"]).collect();
    let member = etcd.peer("etcd", &names);
    let etcd_client = etcd.client("kube-apiserver", &[]);
    let service = format!("apiserver.{NAMESPACE}.svc");
    let server = authority.server(
        "kube-apiserver",
        &[
            "apiserver",
            &service,
            "kubernetes",
            "kubernetes.default.svc",
            "localhost",
            "127.0.0.1",
        ],
    );
    let keys = SigningKey::new();
    let kubeconfig = |user: &Identity| kubeconfig(&authority, user);
    let admin = authority.client("kubernetes-admin", &["system:masters"]);
    let admin = kubeconfig(&admin);
    let manager = authority.client("system:kube-controller-manager", &[]);
    let scheduler = authority.client("system:kube-scheduler", &[]);
    let secrets = [
        (
            "etcd-tls",
            json!({"ca.crt": etcd.certificate(), "tls.crt": member.certificate, "tls.key": member.key}),
        ),
        (
            "control-plane",
            json!({
                "ca.crt": authority.certificate(), "ca.key": authority.key(),
                "apiserver.crt": server.certificate, "apiserver.key": server.key,
                "sa.pub": keys.public, "sa.key": keys.private,
                "etcd-ca.crt": etcd.certificate(), "etcd-client.crt": etcd_client.certificate, "etcd-client.key": etcd_client.key,
                "controller-manager.conf": kubeconfig(&manager), "scheduler.conf": kubeconfig(&scheduler),
            }),
        ),
        (
            "s3-credentials",
            json!({
                "cloud": format!("[default]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"),
                "access-key": ACCESS_KEY, "secret-key": SECRET_KEY,
            }),
        ),
    ];
    (secrets, admin)
}

fn kubeconfig(authority: &Authority, user: &Identity) -> String {
    let encoded = |pem: &str| BASE64_STANDARD.encode(pem);
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "xyz",
        "clusters": [{"name": "xyz", "cluster": {"server": "https://apiserver:6443", "tls-server-name": "apiserver", "certificate-authority-data": encoded(authority.certificate())}}],
        "users": [{"name": "user", "user": {"client-certificate-data": encoded(&user.certificate), "client-key-data": encoded(&user.key)}}],
        "contexts": [{"name": "xyz", "context": {"cluster": "xyz", "user": "user"}}],
    })
    .to_string()
}

fn tell(text: &str) {
    println!("\n=== {text}");
}
