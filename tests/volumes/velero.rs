//! What the real Velero makes of a backup with copies of files: it shows them, waits for none, makes the claims anew, and looks for nothing in its own repositories. What it leaves
//! of a backup that it deletes, a prune finds.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::cluster::Cluster;
use harness::run::kubectl_backup;
use harness::store::Minio;
use harness::velero::Velero;
use harness::wait_for;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::place::{is_bound, on};

const BUCKET: &str = "copies-to-velero";

const PATIENT: Duration = Duration::from_secs(120);

const SHOP: &str = "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: late}
provisioner: example.com/none
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: disk}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: late
  hostPath: {path: /nowhere}
  claimRef: {apiVersion: v1, kind: PersistentVolumeClaim, namespace: shop, name: data}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {accessModes: [ReadWriteOnce], storageClassName: late, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: waiting, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop}
spec:
  serviceAccountName: waiting
  containers: [{name: c, image: 'localhost/none:1', volumeMounts: [{name: v, mountPath: /data}]}]
  volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]
";

/// A side file in the bucket.
fn put(minio: &Minio, file: &str, list: &Value) {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(list.to_string().as_bytes()).unwrap();
    let key = format!("p/backups/ours/ours-{file}.json.gz");
    minio.put(BUCKET, &key, packed.finish().unwrap());
}

/// What a backup writes where the claim's files were copied: the library's own tests say that it writes this.
fn copied() -> (Value, Value) {
    let files: Value =
        serde_json::from_str(include_str!("../fixtures/copy-for-velero.json")).unwrap();
    (
        files["podvolumebackups"].clone(),
        files["volumeinfo"].clone(),
    )
}

/// No node runs a mover here: the two files that Velero reads of copies are put into the backup.
#[test]
fn velero_shows_a_copy_restores_its_claim_anew_and_forgets_it_without_a_look_into_a_repository() {
    let minio = Minio::shared();
    minio.bucket(BUCKET);
    let location = format!("s3://{BUCKET}/p?endpoint={}", minio.endpoint());
    let cluster = Cluster::start();
    cluster.apply(SHOP);
    is_bound(&cluster, "shop", "data");
    on(&cluster, &location, &["create", "ours"])
        .credentials_of(minio)
        .ok();
    drop(cluster);
    let (pods, infos) = copied();
    put(minio, "podvolumebackups", &pods);
    put(minio, "volumeinfo", &infos);
    for file in ["config", "snapshots/0123", "data/01/0123"] {
        minio.put(BUCKET, &format!("p/restic/c/shop/uid-data/{file}"), file);
    }
    let repository = minio.contents(BUCKET, "p/restic/c/");

    let target = Cluster::start();
    let often = ["--backup-sync-period=1s"];
    let velero = Velero::start(&target, minio, BUCKET, "p", &often, None);
    let own = owned(&target, minio);
    let objects = |kind: &str| {
        let path = format!("/apis/velero.io/v1/namespaces/velero/{kind}");
        target.get_raw(&path)["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    };
    let synced = wait_for("the PodVolumeBackup", PATIENT, || {
        objects("podvolumebackups").pop()
    });
    assert_eq!(synced["spec"]["pod"]["name"], "db");
    let backup = wait_for("the Backup", PATIENT, || objects("backups").pop());
    assert_eq!(
        synced["metadata"]["ownerReferences"][0]["uid"],
        backup["metadata"]["uid"]
    );
    let described = velero.cli(&["backup", "describe", "ours", "--details"]);
    let described = described.ok().stdout;
    let told = "shop/db: v (size: 1048576, incremental size: 512)";
    assert!(
        described.contains("Pod Volume Backups - kopia:") && described.contains(told),
        "{described}"
    );
    assert!(!described.contains("<error"), "{described}");

    velero.restore("r", "ours", &[]);
    let pod = target.get_raw("/api/v1/namespaces/shop/pods/db");
    assert_eq!(pod["spec"]["initContainers"], Value::Null);
    let claim = target.get_raw("/api/v1/namespaces/shop/persistentvolumeclaims/data");
    assert_eq!(claim["spec"]["volumeName"], Value::Null);
    let volumes = target.kubectl(&["get", "pv", "-o", "name"]).stdout;
    assert!(!volumes.contains("disk"), "{volumes}");
    assert!(objects("podvolumerestores").is_empty());

    // The backup that names a snapshot of this cluster's stands: nothing is to be done.
    let prune = || {
        let run = kubectl_backup(&["prune", "--yes"]).kubeconfig(target.kubeconfig());
        let run = run.ok();
        format!("{}{}", run.stdout, run.stderr)
    };
    let said = prune();
    assert!(!said.contains("no backup names"), "{said}");
    velero.cli(&["backup", "delete", "ours", "--confirm"]).ok();
    wait_for("the end of the backup", PATIENT, || {
        let requests = objects("deletebackuprequests");
        for request in &requests {
            let errors = request["status"]["errors"].as_array();
            assert!(errors.is_none_or(Vec::is_empty), "{request:#}");
        }
        let files = minio.list(BUCKET, "p/backups/ours");
        (objects("backups").is_empty() && files.is_empty()).then_some(())
    });
    assert!(objects("backuprepositories").is_empty());
    assert_eq!(minio.contents(BUCKET, "p/restic/c/"), repository);
    assert_eq!(minio.list(BUCKET, "p/kopia"), [""; 0]);

    // Velero looks for it in no repository; whoever prunes does.
    kubectl_backup(&["create", "kept", "-n", "shop"])
        .kubeconfig(target.kubeconfig())
        .ok();
    let said = prune();
    assert!(said.contains("1 snapshot that no backup names"), "{said}");
    let note = format!("{own}.orphans.json");
    let noted = minio.get(BUCKET, &note);
    let mut noted: Value = serde_json::from_slice(&noted).unwrap();
    let seen = &mut noted["sightings"][0]["seen"];
    let at: Timestamp = seen.as_str().unwrap().parse().unwrap();
    *seen = (at - SignedDuration::from_hours(25)).to_string().into();
    minio.put(BUCKET, &note, noted.to_string());
    let said = prune();
    assert!(said.contains("removed with its last 1 snapshot"), "{said}");
    assert_eq!(minio.list(BUCKET, &own), [""; 0]);
    assert_eq!(minio.contents(BUCKET, "p/restic/c/"), repository);
}

/// A snapshot in a repository of this cluster's that the backup names; where that stands. Velero's keys are where its installation has them.
fn owned(cluster: &Cluster, minio: &Minio) -> String {
    let keys = std::fs::read_to_string(minio.credentials_file()).unwrap();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud-credentials", "namespace": "velero"}, "stringData": {"cloud": keys}});
    cluster.apply(&secret.to_string());
    let path = "/api/v1/namespaces/kube-system";
    let uid = cluster.get_raw(path)["metadata"]["uid"].clone();
    let uid = uid.as_str().unwrap();
    let id = "ab".repeat(32);
    let own = format!("p/restic/{uid}/shop/uid-data");
    for file in ["config", &format!("snapshots/{id}"), "data/01/0123"] {
        minio.put(BUCKET, &format!("{own}/{file}"), file.to_owned());
    }
    let row = json!({"method": "files", "cluster": uid, "namespace": "shop", "claimUid": "uid-data", "repository": 1, "snapshot": id});
    let list = json!({"format": "kubectl-backup/snapshots/1", "snapshots": [row]});
    minio.put(BUCKET, "p/backups/ours/snapshots.json", list.to_string());
    own
}
