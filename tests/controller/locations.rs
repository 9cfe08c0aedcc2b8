//! Locations by Velero's command, Velero's objects with every documented field, and words that are misspelled.

use harness::store::Minio;
use serde_json::{Value, json};

use super::{NAMESPACE, PROBES, Served};

/// Every documented field of a location.
fn location(served: &Served, tls: &Minio) -> String {
    let (bucket, endpoint) = (&served.bucket, tls.endpoint());
    format!(
        r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: documented, namespace: {NAMESPACE}}}
spec:
  backupSyncPeriod: 2m0s
  validationFrequency: 1s
  provider: aws
  accessMode: ReadWrite
  default: false
  objectStorage:
    bucket: {bucket}
    prefix: documented
    caCertRef: {{name: storage-ca, key: ca-bundle.crt}}
  credential: {{name: cloud-credentials, key: cloud}}
  config:
    region: us-east-1
    profile: default
    s3ForcePathStyle: "true"
    s3Url: "{endpoint}"
    insecureSkipTLSVerify: "false"
    checksumAlgorithm: ""
"#
    )
}

/// Every documented field of a backup's spec but those of the filters, of which there are two sorts.
const SPEC: &str = "
csiSnapshotTimeout: 10m
itemOperationTimeout: 4h
resourcePolicy: {kind: configmap, name: policy}
includedNamespaces: ['*']
excludedNamespaces: [kube-node-lease]
orderedResources:
  pods: mysql/mysql-cluster-replica-0,mysql/mysql-cluster-source-0
  persistentvolumes: pvc-87ae0832
snapshotVolumes: null
storageLocation: documented
volumeSnapshotLocations: [primary, secondary]
ttl: 24h0m0s
defaultVolumesToFsBackup: true
snapshotMoveData: true
datamover: velero
uploaderConfig: {parallelFilesUpload: 10}
";

const OLD_FILTERS: &str = "
includedResources: ['*']
excludedResources: [storageclasses.storage.k8s.io]
includeClusterResources: null
labelSelector: {matchLabels: {app: web, component: server}}
";

const NEW_FILTERS: &str = "
includedNamespaceScopedResources: [configmaps]
excludedNamespaceScopedResources: [secrets]
includedClusterScopedResources: [namespaces]
excludedClusterScopedResources: [storageclasses.storage.k8s.io]
orLabelSelectors:
- matchLabels: {app: web}
- matchLabels: {app: data}
";

const HOOKS: &str = "
hooks:
  resources:
  - name: my-hook
    includedNamespaces: ['*']
    excludedNamespaces: [some-namespace]
    includedResources: [pods]
    excludedResources: []
    labelSelector: {matchLabels: {app: web}}
    pre: [{exec: {container: c, command: [/bin/uname, -a], onError: Fail, timeout: 10s}}]
    post: [{exec: {container: c, command: [/bin/uname, -a], onError: Continue, timeout: 10s}}]
";

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop, labels: {app: web, component: server}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: policy, namespace: kubectl-backup}
data:
  policy.yaml: |
    version: v1
    volumePolicies:
    - conditions: {capacity: '100Gi,200Gi'}
      action: {type: skip}
";

fn indented(lines: &str, by: &str) -> String {
    let lines = lines.lines().filter(|line| !line.is_empty());
    lines.map(|line| format!("{by}{line}\n")).collect()
}

fn backup(name: &str, parts: &[&str]) -> String {
    let spec = indented(&parts.concat(), "  ");
    format!(
        "apiVersion: velero.io/v1\nkind: Backup\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\nspec:\n{spec}"
    )
}

#[test]
fn veleros_command_makes_locations_and_its_documented_objects_work() {
    let served = Served::start_with("controller-locations", &["--backup-sync-period=1s"]);
    let velero = |arguments: &[&str]| served.velero(arguments).ok().stdout;
    let config =
        |endpoint: &str| format!("region=us-east-1,s3ForcePathStyle=true,s3Url={endpoint}");
    let create = |name: &str, endpoint: &str, more: &[&str]| {
        let config = config(endpoint);
        let fixed = [
            "backup-location",
            "create",
            name,
            "--provider=aws",
            "--validation-frequency=1s",
            "--bucket",
            &served.bucket,
            "--config",
            &config,
        ];
        velero(&[&fixed, more].concat());
    };
    let is = |name: &str, phase: &str| {
        served.wait(&format!("backupstoragelocations/{name}"), phase, |object| {
            object["status"]["phase"] == phase
        })
    };
    served.apply(SHOP);

    let endpoint = served.minio.endpoint();
    velero(&["backup-location", "set", "default", "--default=false"]);
    create(
        "more",
        endpoint,
        &[
            "--prefix=more",
            "--credential=cloud-credentials=cloud",
            "--backup-sync-period=1s",
            "--labels=team=shop",
            "--default",
        ],
    );
    is("more", "Available");
    let listed = velero(&["backup-location", "get"]);
    for part in ["more", &format!("{}/more", served.bucket), "ReadWrite"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let make = |name: &str| {
        velero(&[
            "backup",
            "create",
            name,
            "--include-namespaces=shop",
            "--wait",
        ]);
        served.ends(name, "Completed")["spec"]["storageLocation"].clone()
    };
    assert_eq!(make("one"), "more");
    velero(&["backup-location", "set", "more", "--default=false"]);
    velero(&["backup-location", "set", "default", "--default"]);
    served.wait("backupstoragelocations/more", "no default", |object| {
        object["spec"]["default"] != true
    });
    assert_eq!(make("two"), "default");

    // A key that is not there, then one that is.
    create(
        "keyless",
        endpoint,
        &["--prefix=keyless", "--credential=none=cloud"],
    );
    let message = is("keyless", "Unavailable")["status"]["message"].to_string();
    assert!(message.contains("none"), "{message}");
    velero(&[
        "backup-location",
        "set",
        "keyless",
        "--credential=cloud-credentials=cloud",
    ]);
    is("keyless", "Available");

    // An authority that is not known, then one that is.
    let tls = Minio::start_tls();
    tls.bucket(&served.bucket);
    create(
        "secure",
        tls.endpoint(),
        &["--credential=cloud-credentials=cloud"],
    );
    is("secure", "Unavailable");
    let ca = tls.ca_file().unwrap().to_str().unwrap();
    velero(&["backup-location", "set", "secure", "--cacert", ca]);
    is("secure", "Available");

    // With the location its objects go, and nothing of the bucket.
    // But for those of a check that is at work.
    let in_more = || {
        let mut keys = served.minio.list(&served.bucket, "more/");
        keys.retain(|key| !key.contains(PROBES));
        keys
    };
    let files = in_more();
    let told = velero(&["backup-location", "delete", "more", "--confirm"]);
    assert!(told.contains("deleted successfully"), "{told}");
    served.goes("backupstoragelocations/more");
    served.goes("backups/one");
    assert_eq!(in_more(), files);

    // Who may only read finds what is there, and neither writes nor deletes.
    create(
        "reader",
        endpoint,
        &[
            "--prefix=more",
            "--credential=cloud-credentials=cloud",
            "--access-mode=ReadOnly",
        ],
    );
    // A look that was at work when the other location went may have made its object once more; that goes too.
    served.wait("backups/one", "found in reader", |found| {
        found["spec"]["storageLocation"] == "reader"
    });
    velero(&["backup", "create", "three", "--storage-location=reader"]);
    let refused = served.ends("three", "FailedValidation");
    assert!(
        refused["status"]["validationErrors"]
            .to_string()
            .contains("read-only mode")
    );
    velero(&["backup", "delete", "one", "--confirm"]);
    let request = |title: &str, is_so: fn(&Value) -> bool| {
        let found = harness::wait_for(title, super::PATIENT, || {
            let list = served.object("deletebackuprequests").unwrap();
            let mut all = list["items"].as_array().unwrap().iter();
            all.find(|request| is_so(request)).cloned()
        });
        found["status"]["errors"].to_string()
    };
    let why = request("a refusal", |request| {
        request["status"]["phase"] == "Processed"
    });
    assert!(why.contains("read-only mode"), "{why}");
    assert_eq!(in_more(), files);

    documented(&served, &tls);
    misspelled(&served);
}

/// Objects that say all that Velero documents.
fn documented(served: &Served, tls: &Minio) {
    let ca = format!(
        "--from-file=ca-bundle.crt={}",
        tls.ca_file().unwrap().display()
    );
    served.cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "create",
        "secret",
        "generic",
        "storage-ca",
        &ca,
    ]);
    let yaml = location(served, tls);
    served.apply(&yaml);
    served.wait("backupstoragelocations/documented", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    served.apply(&backup("old-filters", &[SPEC, OLD_FILTERS]));
    served.apply(&backup("new-filters", &[SPEC, NEW_FILTERS]));
    served.apply(&backup("with-hooks", &[SPEC, OLD_FILTERS, HOOKS]));
    for name in ["old-filters", "new-filters", "with-hooks"] {
        let ended = served.ends(name, "Completed");
        assert_eq!(
            ended["status"]["progress"]["itemsBackedUp"]
                .as_u64()
                .map(|n| n > 0),
            Some(true)
        );
        let spec = &ended["spec"];
        assert_eq!(spec["uploaderConfig"], json!({"parallelFilesUpload": 10}));
        assert_eq!(
            spec["volumeSnapshotLocations"],
            json!(["primary", "secondary"])
        );
        assert_eq!(spec["csiSnapshotTimeout"], "10m");
    }
    // No pod is there to run them.
    let ended = served.ends("with-hooks", "Completed");
    assert_eq!(ended["spec"]["hooks"]["resources"][0]["name"], "my-hook");
    assert!(ended["status"]["hookStatus"].is_null(), "{ended:#}");

    let template = indented(&[SPEC, NEW_FILTERS].concat(), "    ");
    served.apply(&format!(
        "
apiVersion: velero.io/v1
kind: Schedule
metadata: {{name: documented, namespace: {NAMESPACE}, labels: {{not: copied}}}}
spec:
  paused: false
  skipImmediately: true
  schedule: 0 7 * * *
  useOwnerReferencesInBackup: true
  template:
    metadata: {{labels: {{labelname: somelabelvalue}}}}
{template}"
    ));
    let schedule = served.wait("schedules/documented", "followed", |object| {
        object["status"]["phase"] == "Enabled" && object["status"]["lastSkipped"].is_string()
    });
    assert_eq!(schedule["spec"]["skipImmediately"], false);
    served
        .velero(&[
            "backup",
            "create",
            "asked",
            "--from-schedule",
            "documented",
            "--wait",
        ])
        .ok();
    let asked = served.ends("asked", "Completed");
    let labels = &asked["metadata"]["labels"];
    assert_eq!(labels["labelname"], "somelabelvalue");
    assert_eq!(labels["not"], Value::Null);
}

/// What is not spelled as the kinds have it.
fn misspelled(served: &Served) {
    let yaml = backup(
        "misspelled",
        &["includeNamespaces: [shop]\nstorageLocation: default\n"],
    );
    let file = served.home.join("misspelled.yaml");
    std::fs::write(&file, &yaml).unwrap();
    let file = file.to_str().unwrap();
    let refused = served.cluster.try_kubectl(&["apply", "-f", file]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("spec.includeNamespaces"),
        "{}",
        refused.stderr
    );
    assert!(served.object("backups/misspelled").is_none());
    // Who does not want to be kept from it is warned by the API server, and has all namespaces in his backup.
    let warned = served
        .cluster
        .try_kubectl(&["apply", "--validate=warn", "-f", file])
        .ok();
    assert!(
        warned.stderr.contains("spec.includeNamespaces"),
        "{}",
        warned.stderr
    );
    let made = served.ends("misspelled", "Completed");
    assert_eq!(made["spec"]["includeNamespaces"], Value::Null);

    for (name, spec, part) in [
        (
            "mixed",
            "includedResources: [pods]\nincludedNamespaceScopedResources: [pods]\n",
            "together",
        ),
        ("nowhere", "storageLocation: nowhere\n", "nowhere"),
    ] {
        served.apply(&backup(name, &[spec]));
        let refused = served.ends(name, "FailedValidation");
        let why = refused["status"]["validationErrors"].to_string();
        assert!(why.contains(part), "{name}: {why}");
        let told = harness::wait_for("its event", super::PATIENT, || {
            let events = served
                .cluster
                .get_raw(&format!("/api/v1/namespaces/{NAMESPACE}/events"));
            let is_of_it = |event: &&Value| {
                event["involvedObject"]["name"] == name && event["reason"] == "FailedValidation"
            };
            let told = events["items"].as_array()?.iter().find(is_of_it)?;
            Some(told["message"].to_string())
        });
        assert!(told.contains(part), "{name}: {told}");
    }
    for (name, spec) in [
        (
            "mode",
            "{provider: aws, accessMode: Sometimes, objectStorage: {bucket: b}}",
        ),
        ("bucketless", "{provider: aws, objectStorage: {}}"),
    ] {
        let yaml = format!(
            "{{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {spec}}}"
        );
        let file = served.home.join("location.yaml");
        std::fs::write(&file, yaml).unwrap();
        let refused = served
            .cluster
            .try_kubectl(&["apply", "-f", file.to_str().unwrap()]);
        assert_ne!(refused.code, 0, "{name}");
    }
    served
        .velero(&[
            "backup",
            "create",
            "after",
            "--include-namespaces=shop",
            "--wait",
        ])
        .ok();
    served.ends("after", "Completed");
}
