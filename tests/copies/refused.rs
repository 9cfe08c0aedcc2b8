//! Volumes that can not be copied, and movers that do not come: named, and everything else is saved.

use harness::busybox;
use harness::run::Run;

use super::{IMAGE, World, claim, pod};

#[track_caller]
fn failed(world: &World, run: &Run, backup: &str, name: &str, why: &[&str]) {
    let row = world.row(backup, name);
    assert_eq!(row["result"], "failed", "{row:#}");
    for part in why {
        let text = row["why"].as_str().unwrap();
        assert!(text.contains(part), "{part} is missing in {text}");
        assert!(
            run.stderr.contains(part),
            "{part} is missing in {}",
            run.stderr
        );
    }
    assert_eq!(world.marker(backup)["status"]["phase"], "PartiallyFailed");
}

/// A volume that one pod alone may have, and one that is no folder.
pub(super) fn volumes(world: &World) {
    world.namespace("odd");
    let volume = "
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: raw}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], volumeMode: Block,
 storageClassName: none, local: {path: /dev/null}, claimRef: {namespace: odd, name: raw},
 nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node1]}]}]}}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: raw, namespace: odd},
 spec: {accessModes: [ReadWriteOnce], volumeMode: Block, storageClassName: none, volumeName: raw, resources: {requests: {storage: 1Gi}}}}
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: alone}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOncePod],
 storageClassName: none, hostPath: {path: /var/lib/alone, type: DirectoryOrCreate}, claimRef: {namespace: odd, name: alone}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: alone, namespace: odd},
 spec: {accessModes: [ReadWriteOncePod], storageClassName: none, volumeName: alone, resources: {requests: {storage: 1Gi}}}}
";
    world.node.apply(
        &(volume.to_owned()
            + &claim("odd", "good", "")
            + &pod("odd", "p", &["alone", "good"], &[])),
    );
    world.wait("odd", &["p"]);
    let bound = [
        "-n",
        "odd",
        "wait",
        "--for=jsonpath={.status.phase}=Bound",
        "pvc/raw",
        "--timeout=60s",
    ];
    world.node.kubectl(&bound);
    let run = world.create("odd", "odd").code(3);
    failed(world, &run, "odd", "alone", &["ReadWriteOncePod", "pod p"]);
    failed(world, &run, "odd", "raw", &["block device"]);
    assert_eq!(world.row("odd", "good")["result"], "saved");
    world.nothing_is_at_work();
}

/// Whatever keeps a mover from running: it goes, is named with what was told of it, and the objects are saved all the same.
pub(super) fn movers_that_do_not_come(world: &World) {
    let absent = "localhost/absent:1";
    let run = world
        .call(&[
            "create",
            "absent",
            "-n",
            "shop",
            "--default-volumes-to-fs-backup",
        ])
        .args(&["--mover-image", absent])
        .code(3);
    let why = [
        "image can not be pulled",
        "last event",
        "--mover-image",
        absent,
    ];
    failed(world, &run, "absent", "data", &why);
    world.call(&["verify", "absent"]).ok();
    world.nothing_is_at_work();

    let others = busybox::IMAGE;
    let words = ["create", "others", "-n", "shop"];
    let run = world
        .call(&words)
        .args(&["--default-volumes-to-fs-backup", "--mover-image", others])
        .code(3);
    let lacks = format!("{others} does not have this program");
    failed(world, &run, "others", "data", &[&lacks, "--mover-image"]);
    assert!(
        !run.stderr.contains("--mover-timeout gives it longer"),
        "{}",
        run.stderr
    );
    world.nothing_is_at_work();

    let label = "pod-security.kubernetes.io/enforce";
    let labelled = |value: &str| {
        let value = format!("{label}{value}");
        world
            .node
            .kubectl(&["label", "--overwrite", "ns", "shop", &value]);
    };
    labelled("=restricted");
    let run = world.create("strict", "shop").code(3);
    failed(
        world,
        &run,
        "strict",
        "data",
        &["violates PodSecurity", "baseline"],
    );
    world.nothing_is_at_work();
    // Which allows more.
    labelled("=baseline");
    world.create("baseline", "shop").ok();
    assert_eq!(world.row("baseline", "data")["result"], "saved");
    labelled("-");

    world
        .node
        .kubectl(&["-n", "shop", "create", "quota", "none", "--hard=pods=1"]);
    let run = world.create("quota", "shop").code(3);
    failed(world, &run, "quota", "data", &["exceeded quota"]);
    world
        .node
        .kubectl(&["-n", "shop", "delete", "quota", "none"]);
    world.nothing_is_at_work();

    // The idle claim's mover finds no node.
    world.node.kubectl(&["cordon", "node1"]);
    let run = world
        .create("cordoned", "idle")
        .args(&["--mover-timeout", "6s"])
        .code(3);
    failed(
        world,
        &run,
        "cordoned",
        "left",
        &["no node takes it", "--mover-timeout"],
    );
    // One in use is where its pod is, cordoned or not.
    world.create("in-use", "shop").ok();
    world.node.kubectl(&["uncordon", "node1"]);
    world.nothing_is_at_work();
}

/// Who may read objects and make no pods gets these, and each volume is named.
pub(super) fn rights(world: &World) {
    world.node.apply(
        "
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: reads}, rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: makes}, rules: [{apiGroups: [''], resources: [pods], verbs: [create, delete]}]}
",
    );
    let bind = |role: &str, user: &str| {
        let name = format!("{user}-{role}");
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
        world
            .node
            .kubectl(&["create", "clusterrolebinding", &name, &role, &user]);
    };
    bind("reads", "reader");
    bind("reads", "maker");
    bind("makes", "maker");
    let run = world
        .create("reader", "shop")
        .args(&["--as", "reader"])
        .code(3);
    failed(
        world,
        &run,
        "reader",
        "data",
        &[
            "cannot create resource",
            "rights to create, get, list and delete pods",
        ],
    );
    let run = world
        .create("maker", "shop")
        .args(&["--as", "maker"])
        .code(3);
    failed(world, &run, "maker", "data", &["mover", "pods/exec"]);
    assert!(!run.stderr.contains(&format!("{IMAGE} was asked for")));
    world.nothing_is_at_work();
}
