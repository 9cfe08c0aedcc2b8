//! A driver that wants a Secret, which the VolumeSnapshotClass names: it comes along when a snapshot is cut, when one that failed is removed, and when one goes with its backup.

use harness::node::csi::{DRIVER, Knob};

use super::World;

const PASSWORD: &str = "hunter2-of-the-storage";

/// A claim of the class with the Secret, and one of the class without.
fn claims() -> String {
    let claim = |name: &str, class: &str| {
        format!(
            "
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}, namespace: locked, annotations: {{velero.io/csi-volumesnapshot-class: {class}}}}}
spec: {{storageClassName: csi, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}"
        )
    };
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: storage, namespace: default}}
stringData: {{password: {PASSWORD}}}
---
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshotClass
metadata: {{name: locked}}
driver: {DRIVER}
deletionPolicy: Delete
parameters:
  csi.storage.k8s.io/snapshotter-secret-name: storage
  csi.storage.k8s.io/snapshotter-secret-namespace: default
{}{}
",
        claim("with", "locked"),
        claim("without", "csi")
    )
}

pub(super) fn all(world: &World) {
    let csi = world.csi();
    world.namespace("locked");
    world.node.apply(&claims());
    world.files("locked", "without");
    world.files("locked", "with");
    let held = world.held();
    csi.turn(Knob::NeedSecret, PASSWORD);
    let timeout = ["--csi-snapshot-timeout", "8s"];

    // Without it there is none, which is told with the driver's word.
    let run = world.create("locked-1", "locked").args(&timeout).code(3);
    assert!(!run.stderr.contains(PASSWORD), "{}", run.stderr);
    let row = world.row("locked-1", "without");
    let why = row["why"].as_str().unwrap();
    assert!(why.contains("no Secret came along"), "{why}");
    let handle = world.handle("locked-1", "with");
    assert_eq!(world.held().len(), held.len() + 1);

    // One that is cut and fails goes with it.
    csi.turn(Knob::HoldReady, "");
    world.create("locked-2", "locked").args(&timeout).code(3);
    csi.release(Knob::HoldReady);
    assert_eq!(world.held().len(), held.len() + 1);
    world.is_bare();

    // A restore needs none, and what goes with its backup does.
    let into = ["--namespace-mappings", "locked:unlocked"];
    world.restore("locked", "locked-1", &into).code(3);
    world.files("unlocked", "with");
    world.call(&["delete", "locked-1", "--yes"]).ok();
    assert!(!world.held().contains(&handle));
    assert_eq!(world.held(), held);
    world.is_bare();
    csi.release(Knob::NeedSecret);
    // Where there are two, somebody has to say which is meant.
    let class = ["delete", "volumesnapshotclass", "locked"];
    world.node.kubectl(&class);
}
