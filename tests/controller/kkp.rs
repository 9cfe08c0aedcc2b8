//! Where KKP hosts the clusters: its ClusterBackupStorageLocations as locations, and restores of etcd that no launcher takes up.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::process::Folder;
use harness::run::{Backup, Run, kubectl_backup};
use serde_json::Value;

use super::{NAMESPACE, PATIENT, Served};
use crate::many::renamed;

/// Longer than a Lease may stand still, with all that a busy machine adds.
const A_MINUTE_AND_MORE: Duration = Duration::from_secs(240);

fn fixture(name: &str) -> String {
    std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fixtures")
            .join(name),
    )
    .unwrap()
}

/// A seed with KKP's kind of locations and ours of hosted control planes, its controller, and restores that wait there.
fn seed() -> Served {
    let mut seed = Served::without_controller("controller-kkp");
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for entry in std::fs::read_dir(crds).unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains(".kubermatic.") {
            seed.apply(&std::fs::read_to_string(entry.path()).unwrap());
        }
    }
    seed.apply(&fixture("kkp-cbsl.yaml"));
    for kind in ["etcdrestores", "clusters", "clusterbackupstoragelocations"] {
        let crd = format!("crd/{kind}.kubermatic.k8c.io");
        seed.cluster
            .kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=60s"]);
    }
    for name in ["alone", "living"] {
        seed.apply(&format!(
            "
{{apiVersion: v1, kind: Namespace, metadata: {{name: cluster-{name}}}}}
---
{{apiVersion: kubermatic.k8c.io/v1, kind: EtcdRestore, metadata: {{name: r, namespace: cluster-{name}}},
  spec: {{name: r, backupName: s, destination: s3, cluster: {{name: {name}}}}}}}
"
        ));
    }
    // A restore whose namespace is not its cluster's is nobody's to judge.
    seed.apply(
        "{apiVersion: kubermatic.k8c.io/v1, kind: EtcdRestore, metadata: {name: astray, namespace: cluster-alone},
  spec: {name: astray, backupName: s, destination: s3, cluster: {name: living}}}",
    );
    seed.apply("{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: etcd-launcher-living, namespace: cluster-living}, spec: {holderIdentity: etcd-0}}");
    seed.controller = Some(seed.call(&[]).spawn());
    seed
}

fn phase(seed: &Served, namespace: &str, name: &str) -> Value {
    let path = format!("/apis/kubermatic.k8c.io/v1/namespaces/{namespace}/etcdrestores/{name}");
    seed.cluster.get_raw(&path)["status"]["phase"].clone()
}

#[test]
fn on_a_seed_of_kkp_its_locations_are_used_and_restores_without_a_launcher_say_so() {
    let seed = seed();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // The launcher that lives.
        scope.spawn(|| {
            for number in 0.. {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let patch = format!(r#"{{"spec":{{"leaseTransitions":{number}}}}}"#);
                let lease = "lease/etcd-launcher-living";
                seed.cluster.try_kubectl(&[
                    "-n",
                    "cluster-living",
                    "patch",
                    lease,
                    "--type=merge",
                    "-p",
                    &patch,
                ]);
                std::thread::sleep(Duration::from_secs(3));
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            locations(&seed);
            harness::wait_for("the phase", A_MINUTE_AND_MORE, || {
                (phase(&seed, "cluster-alone", "r") == "EtcdLauncherNotEnabled").then_some(())
            });
            // Two more looks.
            std::thread::sleep(Duration::from_secs(25));
            assert_eq!(phase(&seed, "cluster-living", "r"), Value::Null);
            assert_eq!(phase(&seed, "cluster-alone", "astray"), Value::Null);
            assert!(
                seed.log()
                    .contains("no etcd-launcher is at work on cluster alone"),
                "{}",
                seed.log()
            );
        }));
        ended.store(true, Ordering::Relaxed);
        if let Err(why) = done {
            std::panic::resume_unwind(why);
        }
    });
}

fn location(seed: &Served, name: &str, secret: &str, project: &str) {
    let (bucket, endpoint) = (&seed.bucket, seed.minio.endpoint());
    seed.apply(&format!(
        r#"
apiVersion: kubermatic.k8c.io/v1
kind: ClusterBackupStorageLocation
metadata: {{name: {name}, namespace: kubermatic, labels: {{project-id: "{project}"}}}}
spec:
  provider: aws
  objectStorage: {{bucket: {bucket}, prefix: of-nobody}}
  credential: {{name: {secret}, key: cloud-credentials}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}"}}
"#
    ));
}

/// What KKP says of where its clusters are; the small kind of ours does not keep it.
fn addresses(seed: &Served, user: &Cluster) {
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/status/x-kubernetes-preserve-unknown-fields";
    let patch = format!(r#"[{{"op":"add","path":"{path}","value":true}}]"#);
    seed.cluster.kubectl(&[
        "patch",
        "crd",
        "clusters.kubermatic.k8c.io",
        "--type=json",
        "-p",
        &patch,
    ]);
    let kubeconfig = std::fs::read_to_string(user.kubeconfig()).unwrap();
    let (_, server) = kubeconfig.split_once("server: \"").unwrap();
    let (server, _) = server.split_once('"').unwrap();
    for (name, url) in [("abc", server), ("abd", "https://abd.example.com:6443")] {
        let patch = format!(r#"{{"status":{{"address":{{"url":"{url}"}}}}}}"#);
        let what = format!("clusters.kubermatic.k8c.io/{name}");
        harness::wait_for("the address", PATIENT, || {
            seed.cluster.kubectl(&[
                "patch",
                &what,
                "--subresource=status",
                "--type=merge",
                "-p",
                &patch,
            ]);
            let path = format!("/apis/kubermatic.k8c.io/v1/clusters/{name}");
            (seed.cluster.get_raw(&path)["status"]["address"]["url"] == url).then_some(())
        });
    }
}

fn locations(seed: &Served) {
    let minio = seed.minio;
    seed.apply(&format!(
        "
{{apiVersion: v1, kind: Namespace, metadata: {{name: kubermatic}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: keys, namespace: kubermatic}}, stringData: {{accessKeyId: {}, secretAccessKey: {}}}}}
---
{{apiVersion: v1, kind: Secret, metadata: {{name: others, namespace: kubermatic}}, stringData: {{ACCESS_KEY_ID: a, SECRET_ACCESS_KEY: b}}}}
---
{{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, metadata: {{name: abc, labels: {{project-id: p1}}}}, spec: {{}}}}
---
{{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, metadata: {{name: abd, labels: {{project-id: p1}}}}, spec: {{}}}}
---
{{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, metadata: {{name: xyz, labels: {{project-id: p2}}}}, spec: {{}}}}
",
        minio.access_key(),
        minio.secret_key()
    ));
    location(seed, "s3", "keys", "p1");
    location(seed, "secretless", "none", "p1");
    location(seed, "wrong", "others", "p1");
    let path = "/apis/kubermatic.k8c.io/v1/namespaces/kubermatic/clusterbackupstoragelocations/s3";
    let before = seed.cluster.get_raw(path);

    let user = Cluster::builder().controllers(Controllers::None).start();
    let home = Folder::new("kkp");
    addresses(seed, &user);
    let files: Vec<String> = [
        ("user", user.kubeconfig()),
        ("seed", seed.cluster.kubeconfig()),
        ("another", Cluster::shared().kubeconfig()),
    ]
    .into_iter()
    .map(|(name, file)| {
        let path = home.join(format!("{name}.yaml"));
        std::fs::write(&path, renamed(file, name)).unwrap();
        path.display().to_string()
    })
    .collect();
    let call = |context: &str, words: &[&str]| -> Backup {
        kubectl_backup(words)
            .args(&["--context", context])
            .home(home.path())
            .env("KUBECONFIG", files.join(":"))
    };
    let by_seed = ["--kkp-context", "seed", "--location", "s3/abc"];

    let made = call(
        "user",
        &[&["create", "b1", "-n", "default"][..], &by_seed].concat(),
    )
    .ok();
    assert!(made.stderr.contains("p1/abc"), "{}", made.stderr);
    let marker = "p1/abc/backups/b1/velero-backup.json";
    assert!(minio.try_get(&seed.bucket, marker).is_some());
    assert!(minio.list(&seed.bucket, "of-nobody").is_empty());
    // The day the cluster is gone, the seed is enough to look; and no other cluster gets into its folder.
    let listed = call("seed", &["get", "--location", "s3/abc"]).ok();
    assert!(listed.stdout.contains("b1"), "{}", listed.stdout);
    call("seed", &["get", "--location", "s3/gone"]).ok();
    let refused = |run: Run, part: &str| {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
        assert!(!run.stderr.contains(minio.secret_key()), "{}", run.stderr);
    };
    let create = ["create", "b2", "-n", "default"];
    // KKP knows another address for it; and where it knows none, the folder is the first one's.
    let other = [&create[..], &by_seed].concat();
    refused(call("another", &other).code(1), "read-only from here");
    let unknown = ["--kkp-context", "seed", "--location", "s3/gone"];
    let unknown = [&create[..], &unknown].concat();
    call("user", &unknown).ok();
    refused(
        call("another", &unknown).code(1),
        "holds the backups of another cluster",
    );
    for (context, words, code, part) in [
        (
            "seed",
            &[&create[..], &["--location", "s3/abc"]].concat()[..],
            1,
            "read-only from here",
        ),
        (
            "seed",
            &[&create[..], &by_seed].concat(),
            1,
            "read-only from here",
        ),
        // Nobody wrote there yet, and KKP says that this is another cluster.
        (
            "user",
            &[
                &create[..],
                &["--kkp-context", "seed", "--location", "s3/abd"],
            ]
            .concat(),
            1,
            "read-only from here",
        ),
        (
            "seed",
            &["install", "--location", "s3/abc"],
            1,
            "read-only from here",
        ),
        (
            "seed",
            &["get", "--location", "s3"],
            2,
            "--location s3/CLUSTER, of its project: abc, abd",
        ),
        (
            "seed",
            &["get", "--location", "s3/xyz"],
            1,
            "is not of project p1",
        ),
        ("seed", &["get", "--location", "s3/../p2"], 2, "not allowed"),
        (
            "seed",
            &["get", "--location", "secretless/abc"],
            1,
            "kubermatic/none",
        ),
        (
            "seed",
            &["get", "--location", "wrong/abc"],
            1,
            "has no usable accessKeyId",
        ),
        (
            "user",
            &["get", "--kkp-context", "seed"],
            2,
            "add --location NAME/CLUSTER",
        ),
        (
            "user",
            &["get", "--kkp-context", "seed", "--location", "x/abc"],
            1,
            "there are: s3, secretless, wrong",
        ),
        (
            "user",
            &["get", "--kkp-context", "another", "--location", "s3/abc"],
            1,
            "there is none",
        ),
        ("user", &["get", "--location", "s3/abc"], 1, "s3"),
    ] {
        refused(call(context, words).code(code), part);
    }

    // A controller in the user cluster gets a copy, as KKP gives one to Velero.
    let installed = call("user", &[&["install"][..], &by_seed].concat()).ok();
    assert!(!installed.stdout.contains(minio.secret_key()));
    let copy = user.get_raw(&format!(
        "/apis/velero.io/v1/namespaces/{NAMESPACE}/backupstoragelocations/s3"
    ));
    assert_eq!(copy["spec"]["objectStorage"]["prefix"], "p1/abc");
    let controller = kubectl_backup(&["controller"])
        .kubeconfig(user.kubeconfig())
        .spawn();
    harness::wait_for("the backup's object", PATIENT, || {
        let path = format!("/apis/velero.io/v1/namespaces/{NAMESPACE}/backups/b1");
        let answer = user.client().get(&path).ok()?;
        (answer.status == 200).then_some(())
    });
    drop(controller.kill());

    let after = seed.cluster.get_raw(path);
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
}
