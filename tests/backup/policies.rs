//! Backups as Velero's schedules and resource policies describe them, and how many of a schedule stay.

use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use harness::cluster::Cluster;
use harness::process::{Folder, Output};
use harness::tools;
use serde_json::Value;

use crate::place::{Place, bind, is_bound, on};

const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: velero}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: shop}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: scratch, namespace: shop, labels: {tier: scratch}}
spec: {volumeMode: Block, accessModes: [ReadWriteOnce], storageClassName: '', resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: share, namespace: shop}
spec: {accessModes: [ReadWriteMany], storageClassName: '', volumeName: share, resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: share}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: ''
  nfs: {server: files.example.com, path: /share}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: policies, namespace: velero}
data:
  policies.yaml: |
    version: v1
    volumePolicies:
    - conditions: {pvcLabels: {tier: scratch}}
      action: {type: skip}
    - conditions: {capacity: '1Gi,', nfs: {server: files.example.com}}
      action: {type: custom}
    includeExcludePolicy:
      excludedNamespaceScopedResources: [secrets]
---
apiVersion: velero.io/v1
kind: Schedule
metadata: {name: nightly, namespace: velero, labels: {unused: 'yes'}, annotations: {note: kept}}
spec:
  schedule: '@daily'
  template:
    metadata: {labels: {team: shop}}
    includedNamespaces: [shop]
    ttl: 48h0m0s
    csiSnapshotTimeout: 10m0s
    hooks: {}
    orderedResources: {pods: 'shop/a,shop/b'}
    resourcePolicy: {kind: configmap, name: policies}
---
apiVersion: velero.io/v1
kind: Schedule
metadata: {name: elsewhere, namespace: velero}
spec:
  schedule: '@daily'
  template: {includedNamespaces: [shop], storageLocation: offsite}
";

fn velero(cluster: &Cluster, folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(tools::path("velero"));
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .env("HOME", folder.path());
    Output::of(&mut command).ok()
}

/// The object that Velero's command prints after what it logs, without what it leaves empty.
fn object(printed: &str) -> Value {
    let start = printed.find("\n{").map_or(0, |at| at + 1);
    let mut object: Value = serde_json::from_str(&printed[start..]).unwrap();
    let spec = object["spec"].as_object_mut().unwrap();
    // What it labels the backup with gets into its copy of the template too.
    spec.retain(|key, value| !value.is_null() && *value != "0s" && key != "metadata");
    if let Some(reference) = spec.get_mut("resourcePolicy") {
        reference
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
    }
    object
}

#[test]
fn a_schedule_of_veleros_is_followed_with_its_resource_policies_and_as_many_stay_as_are_kept() {
    let cluster = Cluster::start();
    let place = Folder::new("location");
    let location = format!("file://{}", place.path().display());
    let run = |arguments: &[&str]| on(&cluster, &location, arguments);
    let definitions = ["install", "--crds-only", "--dry-run", "-o", "yaml"];
    cluster.apply(&velero(&cluster, &place, &definitions).stdout);
    harness::wait_for("the kind Schedule", Duration::from_secs(60), || {
        let answer = cluster.client().get("/apis/velero.io/v1/schedules").ok()?;
        (answer.status == 200).then_some(())
    });
    cluster.apply(OBJECTS);
    bind(&cluster, "shop", "scratch");
    is_bound(&cluster, "shop", "share");

    // Velero's own command says what the Backup of this schedule is.
    let words = [
        "backup",
        "create",
        "x",
        "--from-schedule",
        "nightly",
        "-o",
        "json",
    ];
    let theirs = object(&velero(&cluster, &place, &words).stdout);
    let made = run(&["create", "--from-schedule", "nightly"]).ok();
    assert!(
        made.stderr
            .contains("namespaces shop as schedule nightly says"),
        "{}",
        made.stderr
    );
    assert!(
        made.stderr
            .contains("data left out as asked: 2 PersistentVolumeClaims: shop/scratch, shop/share"),
        "{}",
        made.stderr
    );
    let listed = run(&["get", "-o", "json"]).ok().json();
    let ours = &listed["items"][0];
    let name = ours["metadata"]["name"].as_str().unwrap().to_owned();
    assert!(name.starts_with("nightly-20"), "{name}");
    for (key, value) in theirs["spec"].as_object().unwrap() {
        assert_eq!(
            &ours["spec"][key], value,
            "spec.{key}\n{ours:#}\n{theirs:#}"
        );
    }
    for (key, value) in theirs["metadata"]["labels"].as_object().unwrap() {
        assert_eq!(&ours["metadata"]["labels"][key], value, "{key}");
    }
    assert!(ours["metadata"]["labels"]["unused"].is_null());
    assert_eq!(ours["metadata"]["annotations"]["note"], "kept");
    let shown = run(&["describe", &name]).ok().stdout;
    assert!(
        shown.contains("data not saved (skipped due to resource policy)"),
        "{shown}"
    );
    assert!(
        shown.contains("left to another tool by resource policy"),
        "{shown}"
    );
    for part in ["Resource policies:", "shop/a,shop/b"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let kinds = run(&["contents", &name]).ok().stdout;
    assert!(!kinds.contains("secrets"), "{kinds}");

    // Policies of a file; what is asked for and can not be copied is no success.
    let file = place.write(
        "copies.yaml",
        "version: v1\nvolumePolicies:\n- {conditions: {pvcLabels: {tier: scratch}}, action: {type: fs-backup}}\n",
    );
    let file = file.to_str().unwrap();
    let copies = run(&[
        "create",
        "copies",
        "-n",
        "shop",
        "--resource-policies-file",
        file,
    ])
    .code(3);
    assert!(
        copies.stderr.contains(
            "shop/scratch is not saved: its volume is a block device, and only files are copied"
        ),
        "{}",
        copies.stderr
    );
    let order = [
        "--ordered-resources",
        "pods=shop/a,shop/b;persistentvolumeclaims=shop/c",
    ];
    let plan = run(&[&["create", "p", "--dry-run", "-o", "json"], &order[..]].concat())
        .ok()
        .json();
    assert_eq!(
        plan["spec"]["orderedResources"]["persistentvolumeclaims"],
        "shop/c"
    );

    // Where none is named, the schedule says which location is meant.
    let home = Folder::new("home");
    let offsite = |arguments: &[&str]| {
        let call = run(arguments).env_remove("KUBECTL_BACKUP_LOCATION");
        call.home(home.path())
    };
    let elsewhere = ["create", "there", "--from-schedule", "elsewhere"];
    let lost = offsite(&elsewhere).code(1);
    assert!(lost.stderr.contains("offsite"), "{}", lost.stderr);
    let bucket = home.join("offsite");
    let words = [
        "location",
        "create",
        "offsite",
        "--provider",
        "local",
        "--bucket",
    ];
    offsite(&[&words[..], &[bucket.to_str().unwrap()]].concat()).ok();
    offsite(&elsewhere).ok();
    assert!(bucket.join("backups/there/velero-backup.json").exists());

    // The next second's is the newest.
    sleep(Duration::from_millis(1100));
    let kept = run(&[
        "create",
        "--from-schedule",
        "nightly",
        "--keep",
        "1",
        "-o",
        "name",
    ])
    .ok();
    let newest = kept.stdout.trim().to_owned();
    assert!(
        kept.stderr.contains(&format!("backup/{name} pruned")),
        "{}",
        kept.stderr
    );
    let left = run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(
        left.lines().collect::<Vec<_>>(),
        ["backup/copies", newest.as_str()]
    );
    let nothing = run(&["prune", "--keep", "1", "--schedule", "nightly", "--yes"]).ok();
    assert!(nothing.stdout.is_empty(), "{}", nothing.stdout);

    let bad = place.write(
        "bad.yaml",
        "version: v1\nvolumePolicies:\n- {conditions: {size: 1}, action: {type: skip}}\n",
    );
    let bad = bad.to_str().unwrap();
    let choosing = place.write(
        "choosing.yaml",
        "version: v1\nincludeExcludePolicy: {includedNamespaceScopedResources: [pods]}\n",
    );
    let choosing = choosing.to_str().unwrap();
    for (arguments, code, says) in [
        (
            &["create", "--from-schedule", "absent"][..],
            1,
            "schedule absent is not in namespace velero",
        ),
        (
            &["create", "--from-schedule", "nightly", "-n", "shop"],
            2,
            "cannot be used with",
        ),
        (
            &["create", "--from-schedule", "Not/one"],
            2,
            "--from-schedule",
        ),
        (&["create", "--keep", "2"], 2, "--from-schedule"),
        (
            &["create", "--from-schedule", "nightly", "--keep", "0"],
            2,
            "--keep",
        ),
        (&["prune", "--keep", "0"], 2, "--keep"),
        (&["prune", "--keep", "many"], 2, "--keep"),
        (
            &["create", "b", "--resource-policies-configmap", "absent"],
            1,
            "ConfigMap velero/absent",
        ),
        (
            &["create", "b", "--resource-policies-file", "/absent"],
            2,
            "/absent can not be read",
        ),
        (&["create", "b", "--resource-policies-file", bad], 2, "size"),
        (
            &[
                "create",
                "b",
                "--resource-policies-file",
                choosing,
                "--include-resources",
                "pods",
            ],
            2,
            "includeExcludePolicy",
        ),
        (
            &["create", "b", "--ordered-resources", "pods"],
            2,
            "--ordered-resources",
        ),
    ] {
        let refused = run(arguments).code(code);
        assert!(
            refused.stderr.contains(says),
            "{arguments:?}\n{}",
            refused.stderr
        );
        assert!(!place.join("backups/b").exists(), "{arguments:?}");
    }
    let other = Place::new();
    let refused = other.run(&["create", "--from-schedule", "nightly"]).code(1);
    assert!(
        refused.stderr.contains("schedule nightly is not in"),
        "{}",
        refused.stderr
    );
}
