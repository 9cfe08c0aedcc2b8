//! The real Velero reads what we write, and we read what it writes: nothing missing, nothing different.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::compare::{Options, compare};
use harness::load::Load;
use harness::process::Folder;
use harness::snapshot::Snapshot;
use harness::store::Minio;
use harness::velero::Velero;

use crate::place::{gunzip, on};

/// Definitions, webhooks, policies and workloads as other projects install them, and objects of the new kinds. The files of the folder
/// `KUBECTL_BACKUP_MANIFESTS`, where it is set, come on top.
pub(crate) fn install_like_other_projects(cluster: &Cluster) {
    cluster.apply(crate::restore::whole::CLUSTER);
    if let Some(folder) = std::env::var_os("KUBECTL_BACKUP_MANIFESTS") {
        for file in std::fs::read_dir(folder).unwrap() {
            cluster.apply(&std::fs::read_to_string(file.unwrap().path()).unwrap());
        }
    }
    for plural in ["issuers", "certificates"] {
        harness::wait_for("the new kinds", Duration::from_secs(30), || {
            let answer = cluster
                .client()
                .get(&format!("/apis/pki.example.com/v1/{plural}"))
                .unwrap();
            (answer.status == 200).then_some(())
        });
    }
    cluster.apply(include_str!("fixtures/custom.yaml"));
    cluster.kubectl(&[
        "-n",
        "platform",
        "patch",
        "certificates.pki.example.com",
        "web",
        "--subresource=status",
        "--type=merge",
        "-p",
        r#"{"status":{"ready":true}}"#,
    ]);
}

fn source() -> Cluster {
    let cluster = Cluster::start();
    install_like_other_projects(&cluster);
    Load {
        namespaces: 2,
        config_maps: 30,
        secrets: 10,
        deployments: 5,
        definitions: 2,
        custom_resources: 8,
        ..Load::default()
    }
    .fill(&cluster.endpoint());
    cluster
}

/// What Velero's own objects are in a cluster is no part of the comparison.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.without_namespaces.push("velero".to_owned());
    for kind in [
        "backups",
        "restores",
        "backupstoragelocations",
        "downloadrequests",
        "serverstatusrequests",
        "backuprepositories",
        "deletebackuprequests",
    ] {
        options.without_resources.push(format!("{kind}.velero.io"));
    }
    options
}

/// The state of a cluster without the definitions that Velero brought.
pub(crate) fn without_velero(cluster: &Cluster) -> Snapshot {
    let mut state = Snapshot::of(cluster);
    state.objects.retain(|id, _| {
        id.resource != "customresourcedefinitions.apiextensions.k8s.io"
            || !id.name.ends_with(".velero.io")
    });
    state
}

fn velero_reads_ours(features: Option<&'static str>) {
    let minio = Minio::shared();
    let prefix = if features.is_some() {
        "versions"
    } else {
        "plain"
    };
    let bucket = minio.bucket("ours-to-velero");
    let location = format!("s3://{bucket}/{prefix}?endpoint={}", minio.endpoint());
    let cluster = source();
    let before = Snapshot::of(&cluster);
    on(&cluster, &location, &["create", "ours"])
        .credentials_of(minio)
        .ok();
    drop(cluster);

    let target = Cluster::start();
    let velero = Velero::start(&target, minio, bucket, prefix, &[], features);
    velero.sync("ours");
    let listed = velero.cli(&["backup", "get"]).ok().stdout;
    assert!(
        listed.contains("ours") && listed.contains("Completed"),
        "{listed}"
    );
    let described = velero
        .cli(&["backup", "describe", "ours", "--details"])
        .ok()
        .stdout;
    assert!(
        described.contains("platform/settings") && described.contains("Phase:"),
        "{described}"
    );
    assert!(!described.contains("<error"), "{described}");
    let logs = velero.cli(&["backup", "logs", "ours"]).ok().stdout;
    assert!(logs.contains("level=info"), "{logs}");
    let download = target.folder().join("ours.tar.gz");
    velero
        .cli(&[
            "backup",
            "download",
            "ours",
            "--output",
            download.to_str().unwrap(),
        ])
        .ok();
    assert_eq!(
        std::fs::read(download).unwrap(),
        minio.get(bucket, &format!("{prefix}/backups/ours/ours.tar.gz"))
    );
    velero.restore("r", "ours", &[]);
    compare(&before, &without_velero(&target), &options()).assert_none();
}

#[test]
fn velero_lists_describes_downloads_and_restores_ours() {
    velero_reads_ours(None);
}

#[test]
fn velero_restores_ours_by_versions_too() {
    velero_reads_ours(Some("EnableAPIGroupVersions"));
}

#[test]
fn we_list_describe_and_restore_veleros() {
    let minio = Minio::shared();
    let bucket = minio.bucket("velero-to-ours");
    let location = format!("s3://{bucket}/p?endpoint={}", minio.endpoint());
    let cluster = source();
    let mut velero = Velero::start(&cluster, minio, bucket, "p", &[], None);
    let before = Snapshot::of(&cluster);
    velero.back_up("theirs", &["--include-cluster-resources=true"]);
    velero.stop();
    drop(velero);
    let run = |arguments: &[&str]| on(&cluster, &location, arguments).credentials_of(minio);
    let listed = run(&["get"]).ok().stdout;
    assert!(
        listed.contains("theirs") && listed.contains("Completed"),
        "{listed}"
    );
    let described = run(&["describe", "theirs", "--details"]).ok().stdout;
    assert!(described.contains("platform/settings"), "{described}");
    assert!(run(&["logs", "theirs"]).ok().stdout.contains("level=info"));
    let object = run(&["contents", "theirs", "configmaps", "platform/settings"])
        .ok()
        .stdout;
    assert!(object.contains("binaryData"), "{object}");
    run(&["verify", "theirs"]).ok();
    // A copy is the same bytes, the marker among them.
    let folder = Folder::new("copy");
    let second = format!("file://{}", folder.path().display());
    run(&["copy", "theirs", "--to", &second]).ok();
    let keys = minio.list(bucket, "p/backups/theirs");
    assert!(keys.len() > 5, "{keys:?}");
    for key in keys {
        let copy = std::fs::read(folder.join(key.strip_prefix("p/").unwrap()));
        assert!(copy.unwrap() == minio.get(bucket, &key), "{key}");
    }
    on(&cluster, &second, &["verify", "theirs"]).ok();

    let target = Cluster::start();
    on(
        &target,
        &location,
        &["restore", "create", "r", "--from-backup", "theirs"],
    )
    .credentials_of(minio)
    .ok();
    compare(&before, &Snapshot::of(&target), &options()).assert_none();
    // Velero sees the record of our restore as one of its own would look.
    let results = minio.get(bucket, "p/restores/r/restore-r-results.gz");
    assert!(gunzip(&results).contains("errors"));
}

/// What a restore is to change, and an object for each way of changing it.
const CHANGED: &str = r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: example.com/none
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: shop}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {storageClassName: slow, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {initContainers: [{name: i, image: 'docker.io/init:1'}], containers: [{name: c, image: 'docker.io/db:1'}]}}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: slow, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      tolerations: [{key: a, operator: Exists}]
      containers:
      - {name: one, image: 'docker.io/one:1', ports: [{containerPort: 80}], env: [{name: A, value: '1'}, {name: B, value: '2'}, {name: C, value: '3'}]}
      - {name: two, image: 'docker.io/two:1', args: [a, b]}
      - {name: three, image: 'other/three:1'}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: cron, namespace: shop}
spec: {schedule: '0 0 1 1 *', suspend: true, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'docker.io/cron:1'}]}}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: typed, namespace: shop, labels: {app: web}}
data: {url: 'https://prod', size: '1', gone: x}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: tested, namespace: shop}
data: {url: 'https://prod'}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: shop, annotations: {velero.io/restore-status: 'true'}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{name: a, port: 80}, {name: b, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: back, namespace: shop}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: shop}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: velero}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: classes, namespace: velero, labels: {velero.io/plugin-config: '', velero.io/change-storage-class: RestoreItemAction}}
data: {slow: fast, none: other}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: images, namespace: velero, labels: {velero.io/plugin-config: '', velero.io/change-image-name: RestoreItemAction}}
data: {a: 'docker.io , mirror.example.com:5000', odd: no comma}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: rules, namespace: velero}
data:
  rules.yaml: |
    version: v1
    resourceModifierRules:
    - conditions:
        groupResource: deployments.apps
        resourceNameRegex: "^w.b$"
        namespaces: [shop]
        matches: [{path: /spec/replicas, value: "3"}, {path: /metadata/labels/app, value: web}]
      patches:
      - {operation: test, path: /spec/template/spec/containers/0/name, value: one}
      - {operation: replace, path: /spec/replicas, value: "2"}
      - {operation: add, path: /spec/template/spec/containers/0/env/-1, value: '{"name": "D", "value": "4"}'}
      - {operation: add, path: /metadata/labels/example.com~1team, value: "\"7\""}
      - {operation: copy, from: /spec/template/metadata/labels/app, path: /metadata/labels/copied}
      - {operation: move, from: /spec/template/spec/containers/1/args, path: /spec/template/spec/containers/1/command}
      - {operation: remove, path: /spec/template/spec/tolerations/0}
    - conditions: {groupResource: "deployments.*", matches: [{path: /spec/replicas, value: "3"}]}
      strategicPatches:
      - patchData: |
          spec:
            template:
              spec:
                containers:
                - {name: new, image: "new:1"}
                - name: one
                  env: [{name: B, value: changed}, {name: Z, value: "26"}, {name: A, $patch: delete}]
                - {name: three, $patch: delete}
                nodeSelector: {disk: ssd}
    - conditions: {groupResource: deployments.apps, matches: [{path: /spec/replicas, value: "2"}]}
      patches: [{operation: replace, path: /spec/replicas, value: "9"}]
    - conditions: {groupResource: configmaps, labelSelector: {matchExpressions: [{key: app, operator: In, values: [web]}]}}
      mergePatches:
      - patchData: '{"data": {"url": "https://test", "gone": null}}'
      - patchData: |
          metadata:
            annotations: {mode: "0644"}
    - conditions: {groupResource: configmaps, resourceNameRegex: est}
      patches:
      - {operation: replace, path: /data/url, value: x}
      - {operation: test, path: /data/url, value: y}
    - conditions: {groupResource: "{services,r*.rbac.authorization.k8s.io}", namespaces: [other]}
      mergePatches: [{patchData: '{"metadata": {"labels": {"wrong": "namespace"}}}'}]
    - conditions: {groupResource: "*.rbac.authorization.k8s.io"}
      mergePatches: [{patchData: '{"metadata": {"labels": {"no": "dots"}}}'}]
    - conditions: {groupResource: "roles.**"}
      mergePatches: [{patchData: '{"metadata": {"labels": {"all": "dots"}}}'}]
    - conditions: {groupResource: services, resourceNameRegex: front}
      strategicPatches:
      - patchData: '{"spec": {"ports": [{"port": 81, "name": "renamed"}, {"port": 90, "name": "new"}]}}'
    - conditions: {groupResource: "*"}
      mergePatches: [{patchData: '{"metadata": {"labels": {"any": "core"}, "namespace": "elsewhere"}}'}]
"#;

/// The same backup, the same ConfigMaps, two restores: what Velero changes and what we change is the same.
#[test]
fn velero_and_we_change_objects_in_the_same_way() {
    let minio = Minio::shared();
    let bucket = minio.bucket("rewritten");
    let location = format!("s3://{bucket}/p?endpoint={}", minio.endpoint());
    let cluster = Cluster::start();
    cluster.apply(CHANGED);
    for service in ["front", "back"] {
        cluster.kubectl(&[
            "-n",
            "shop",
            "patch",
            "service",
            service,
            "--subresource=status",
            "--type=merge",
            "-p",
            r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.7"}]}}}"#,
        ]);
    }
    let run = |arguments: &[&str]| on(&cluster, &location, arguments).credentials_of(minio);
    run(&["create", "ours", "-n", "shop"]).ok();
    let velero = Velero::start(&cluster, minio, bucket, "p", &[], None);
    velero.sync("ours");
    let modifiers = ["--resource-modifier-configmap", "rules"];
    let theirs = [&modifiers[..], &["--namespace-mappings", "shop:by-velero"]].concat();
    velero.restore("r", "ours", &theirs);
    let mine = [
        "restore",
        "create",
        "ours-r",
        "--from-backup",
        "ours",
        "--namespace-mappings",
        "shop:by-us",
    ];
    let done = run(&[&mine, &modifiers[..]].concat()).ok();
    assert!(
        done.stderr.contains("ConfigMap velero/rules"),
        "{}",
        done.stderr
    );
    let state = Snapshot::of(&cluster);
    let made_by_controllers = ["pods", "replicasets.apps"].map(str::to_owned);
    let options = Options {
        managed_fields: false,
        without_resources: made_by_controllers.into(),
        ..Options::in_namespaces(&["by-velero"]).mapped("by-velero", "by-us")
    };
    compare(&state, &state, &options).assert_none();
    // And it is changed at all; the status comes back of the one service that asks for it.
    for (service, status) in [
        (
            "front",
            serde_json::json!({"ingress": [{"ip": "192.0.2.7", "ipMode": "VIP"}]}),
        ),
        ("back", serde_json::json!({})),
    ] {
        for namespace in ["by-velero", "by-us"] {
            let path = format!("/api/v1/namespaces/{namespace}/services/{service}");
            assert_eq!(
                cluster.get_raw(&path)["status"]["loadBalancer"],
                status,
                "{path}"
            );
        }
    }
    let web = cluster.get_raw("/apis/apps/v1/namespaces/by-us/deployments/web");
    assert_eq!(web["spec"]["replicas"], 2);
    let containers = &web["spec"]["template"]["spec"]["containers"];
    assert!(
        containers
            .to_string()
            .contains("mirror.example.com:5000/one:1"),
        "{containers}"
    );
    // Velero takes our record of the restore for one of its own.
    let record: serde_json::Value =
        serde_json::from_slice(&minio.get(bucket, "p/restores/ours-r/velero-restore.json"))
            .unwrap();
    assert_eq!(record["spec"]["resourceModifier"]["name"], "rules");
}
