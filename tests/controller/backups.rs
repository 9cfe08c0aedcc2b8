//! Backups that are asked for with objects.

use std::time::Duration;

use harness::run::Signal;
use serde_json::{Value, json};

use super::{NAMESPACE, Served};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop, labels: {app: web}}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
";

/// As Velero documents it.
const DOCUMENTED: &str = "
apiVersion: velero.io/v1
kind: Backup
metadata:
  name: documented
  namespace: kubectl-backup
  annotations: {example.com/owner: somebody}
  labels: {team: shop}
spec:
  csiSnapshotTimeout: 10m
  itemOperationTimeout: 4h
  includedNamespaces: ['*']
  excludedNamespaces: [kube-node-lease]
  includedResources: ['*']
  excludedResources: [storageclasses.storage.k8s.io]
  orderedResources: {pods: mysql/mysql-cluster-replica-0}
  includeClusterResources: null
  labelSelector: {matchLabels: {app: web}}
  snapshotVolumes: null
  storageLocation: default
  ttl: 24h0m0s
  defaultVolumesToFsBackup: false
  hooks: {}
";

#[test]
fn veleros_command_makes_backups_and_looks_at_them() {
    let mut served = Served::start("controller-backups");
    served.apply(SHOP);
    let made = served
        .velero(&[
            "backup",
            "create",
            "b1",
            "--include-namespaces",
            "shop",
            "--wait",
        ])
        .ok();
    assert!(
        made.stdout.contains("completed with status: Completed"),
        "{}{}",
        made.stdout,
        served.log()
    );
    let listed = served.velero(&["backup", "get"]).ok().stdout;
    assert!(
        listed.contains("b1") && listed.contains("Completed") && listed.contains("default"),
        "{listed}"
    );
    let parts = [
        "Phase:  Completed",
        "shop/settings",
        "Storage Location:  default",
        "Total items to be backed up:",
        "TTL:  720h0m0s",
        "Backup Format Version:  1.1.0",
    ];
    served.is_described("backup", "b1", &parts);
    let file = served.home.join("b1.tar.gz");
    let download = [
        "backup",
        "download",
        "b1",
        "--output",
        file.to_str().unwrap(),
    ];
    served.velero(&download).ok();
    let stored = served
        .minio
        .get(&served.bucket, "main/backups/b1/b1.tar.gz");
    assert_eq!(std::fs::read(&file).unwrap(), stored);

    // The object says what the marker says, and nobody else's fields are touched.
    served.apply(DOCUMENTED);
    let object = served.ends("documented", "Completed");
    let marker = served
        .minio
        .get(&served.bucket, "main/backups/documented/velero-backup.json");
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    for field in [
        "startTimestamp",
        "completionTimestamp",
        "expiration",
        "formatVersion",
        "version",
        "progress",
        "phase",
    ] {
        assert_eq!(object["status"][field], marker["status"][field], "{field}");
    }
    let meta = &object["metadata"];
    assert_eq!(meta["annotations"]["example.com/owner"], "somebody");
    assert_eq!(
        meta["labels"],
        json!({"team": "shop", "velero.io/storage-location": "default"})
    );
    assert_eq!(marker["metadata"]["labels"], meta["labels"]);
    assert_eq!(
        meta["annotations"]["velero.io/source-cluster-k8s-gitversion"],
        marker["metadata"]["annotations"]["velero.io/source-cluster-k8s-gitversion"]
    );
    assert_eq!(
        object["spec"]["orderedResources"],
        json!({"pods": "mysql/mysql-cluster-replica-0"})
    );
    assert_eq!(object["spec"]["ttl"], "24h0m0s");
    let restored = served
        .velero(&["backup", "describe", "documented"])
        .ok()
        .stdout;
    assert!(restored.contains("TTL:  24h0m0s"), "{restored}");

    refused(&served);
    by_roles(&served);

    // A second default takes the first one's place; the older one's prefix is left as it is.
    served.location("second", "other", true);
    served.wait("backupstoragelocations/default", "no default", |object| {
        object["spec"]["default"] == false
    });
    served.wait("backupstoragelocations/second", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    served
        .velero(&[
            "backup",
            "create",
            "b2",
            "--include-namespaces",
            "shop",
            "--wait",
        ])
        .ok();
    assert_eq!(
        served.ends("b2", "Completed")["spec"]["storageLocation"],
        "second"
    );
    assert!(
        served
            .minio
            .try_get(&served.bucket, "other/backups/b2/velero-backup.json")
            .is_some()
    );

    let running = served.controller.take().unwrap();
    running.signal(Signal::TERM);
    let ended = running.wait(Duration::from_secs(60));
    assert!(
        !ended.stderr.contains(served.minio.secret_key()),
        "{}",
        ended.stderr
    );
    ended.code(0);
}

/// A Secret may hold a role and the keys it is taken with; it may name nothing that is the machine's.
fn by_roles(served: &Served) {
    let minio = served.minio;
    let arn = "arn:aws:iam::123456789012:role/backup";
    let keys = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
        minio.access_key(),
        minio.secret_key()
    );
    let role = format!(
        "{keys}[role]\nrole_arn={arn}\nsource_profile=default\nendpoint_url={}\n",
        minio.endpoint()
    );
    let token = format!("[role]\nrole_arn={arn}\nweb_identity_token_file=/etc/hostname\n");
    for (name, text) in [("role", role), ("token", token)] {
        let meta = json!({"name": name, "namespace": NAMESPACE});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"keys": text}});
        let location = json!({"apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": meta, "spec": {
            "provider": "aws",
            "objectStorage": {"bucket": served.bucket, "prefix": name},
            "credential": {"name": name, "key": "keys"},
            "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": minio.endpoint(), "profile": "role"},
        }});
        let both = json!({"apiVersion": "v1", "kind": "List", "items": [secret, location]});
        served.apply(&both.to_string());
    }
    served.wait("backupstoragelocations/role", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    served.wait("backupstoragelocations/token", "refused", |object| {
        let message = object["status"]["message"].as_str().unwrap_or_default();
        message.contains("web_identity_token_file") && message.contains("not the owner")
    });
}

/// What can not be done ends with the reason, and the controller goes on.
fn refused(served: &Served) {
    let backup = |name: &str, spec: &str| {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {spec}}}"
        ));
    };
    let location = |name: &str, spec: &str| {
        served.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {spec}}}"
        ));
        served.wait(
            &format!("backupstoragelocations/{name}"),
            "unavailable",
            |object| object["status"]["phase"] == "Unavailable",
        )["status"]["message"]
            .to_string()
    };
    let endpoint = served.minio.endpoint();
    served.minio.put(&served.bucket, "dirty/photos/1", "x");
    for (name, spec, part) in [
        (
            "folder",
            "{provider: local, objectStorage: {bucket: /etc}}".to_owned(),
            "controller's machine",
        ),
        (
            "absent",
            format!(
                "{{provider: aws, objectStorage: {{bucket: no-such-bucket}}, config: {{s3Url: '{endpoint}'}}}}"
            ),
            "no-such-bucket",
        ),
        (
            "dirty",
            format!(
                "{{provider: aws, objectStorage: {{bucket: {}, prefix: dirty}}, config: {{s3Url: '{endpoint}'}}}}",
                served.bucket
            ),
            "photos",
        ),
        (
            "secretless",
            format!(
                "{{provider: aws, objectStorage: {{bucket: b}}, credential: {{name: none, key: k}}, config: {{s3Url: '{endpoint}'}}}}"
            ),
            "none",
        ),
    ] {
        let message = location(name, &spec);
        assert!(message.contains(part), "{name}: {message}");
    }
    for (name, spec, part) in [
        ("r1", "{storageLocation: nowhere}", "nowhere"),
        ("r2", "{storageLocation: dirty}", "Unavailable"),
        (
            "r3",
            "{includedResources: [pods], includedClusterScopedResources: [nodes]}",
            "can not be used together",
        ),
        ("r4", "{ttl: soon}", "soon"),
        (
            "r5",
            "{resourcePolicy: {kind: configmap, name: missing}}",
            "missing",
        ),
    ] {
        backup(name, spec);
        let object = served.ends(name, "FailedValidation");
        let why = object["status"]["validationErrors"].to_string();
        assert!(why.contains(part), "{name}: {why}");
        assert_eq!(
            served
                .minio
                .list(&served.bucket, &format!("main/backups/{name}/")),
            [""; 0]
        );
        // Velero's command stumbles over some of them in every list.
        served
            .cluster
            .kubectl(&["-n", NAMESPACE, "delete", "backups.velero.io", name]);
    }
    // A name that the bucket has already.
    served.minio.put(
        &served.bucket,
        "main/backups/taken/velero-backup.json",
        "{}",
    );
    backup("taken", "{includedNamespaces: [shop]}");
    let why = served.ends("taken", "Failed")["status"]["failureReason"].to_string();
    assert!(why.contains("taken"), "{why}");
    // A file that is not there: the request is answered all the same.
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DownloadRequest, metadata: {{name: d, namespace: {NAMESPACE}}}, spec: {{target: {{kind: BackupLog, name: never}}}}}}"
    ));
    let answered = served.wait("downloadrequests/d", "answered", |object| {
        object["status"]["phase"] == "Processed"
    });
    assert_eq!(answered["status"]["downloadURL"], Value::Null);
    assert!(
        answered["metadata"]["annotations"]["kubectl-backup/message"]
            .to_string()
            .contains("kubectl backup download"),
        "{answered}"
    );
}
