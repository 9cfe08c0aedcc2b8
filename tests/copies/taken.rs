//! A volume that outlived its claim, and whose data is not in the backup, is made again from its object only while its name and its disk are nobody else's.

use std::fs;

use harness::node::csi::DRIVER;
use harness::wait_for;
use serde_json::{Value, json};

use super::{PATIENT, World};

const NAMESPACE: &str = "kept";

impl World {
    fn volume_named(&self, name: &str) -> Option<Value> {
        let found = self.node.try_kubectl(&["get", "pv", name, "-o", "json"]);
        (found.code == 0).then(|| found.json())
    }
}

pub(super) fn all(world: &World) {
    world.namespace(NAMESPACE);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": NAMESPACE},
        "spec": {"storageClassName": "csi", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    });
    world.node.apply(&claim.to_string());
    let bound = [
        "wait",
        "pvc/data",
        "--for=jsonpath={.status.phase}=Bound",
        "--timeout=60s",
    ];
    let bound = [&["-n", NAMESPACE], &bound[..]].concat();
    world.node.kubectl(&bound);
    let claim = world.get(NAMESPACE, "pvc/data");
    let name = claim["spec"]["volumeName"].as_str().unwrap();
    let retain = r#"{"spec":{"persistentVolumeReclaimPolicy":"Retain"}}"#;
    world
        .node
        .kubectl(&["patch", "pv", name, "--type=merge", "-p", retain]);
    let source = world.volume_named(name).unwrap()["spec"]["csi"].clone();
    let handle = source["volumeHandle"].as_str().unwrap();
    let files = || {
        let mut all = world.node.csi().volumes().into_iter();
        all.find(|one| one.id == handle).expect("the disk").files
    };
    fs::write(files().join("file"), "kept\n").unwrap();
    let words = [
        "create",
        "kept",
        "-n",
        NAMESPACE,
        "--snapshot-volumes=false",
    ];
    world.call(&words).ok();
    assert_eq!(world.row("kept", "data")["result"], "notAsked");

    // The volume's object is gone, and another one has its disk.
    world
        .node
        .kubectl(&["delete", "namespace", NAMESPACE, "--wait=true"]);
    world.node.kubectl(&["delete", "pv", name, "--wait=true"]);
    let on = |name: &str, handle: &str| {
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": "64Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "by-hand",
                "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": DRIVER, "volumeHandle": handle},
            },
        });
        world.node.apply(&volume.to_string());
    };
    on("other", handle);
    let restore = ["restore", "create", "--from-backup", "kept", "--yes"];
    let run = world.call(&restore).code(3);
    let why = format!(
        "volume {name}: its disk {DRIVER} {handle} is that of volume other here; its claim waits for it"
    );
    assert!(run.stderr.contains(&why), "{}", run.stderr);
    assert!(world.volume_named(name).is_none());
    let claim = world.get(NAMESPACE, "pvc/data");
    assert_eq!(claim["spec"]["volumeName"], name);
    assert_eq!(claim["status"]["phase"], "Pending");

    // Its name is another volume's: that is left as it is.
    world
        .node
        .kubectl(&["delete", "pv", "other", "--wait=true"]);
    on(name, "another");
    let run = world.call(&restore).run();
    assert!(
        run.stderr
            .contains("it exists and differs from the one in the backup"),
        "{}",
        run.stderr
    );
    let stands = world.volume_named(name).unwrap();
    assert_eq!(stands["spec"]["csi"]["volumeHandle"], "another");
    assert_eq!(stands["spec"]["claimRef"], Value::Null);
    let claim = world.get(NAMESPACE, "pvc/data");
    assert_eq!(claim["status"]["phase"], "Pending");

    // Free again, it is made, and the claim that waits has it.
    world.node.kubectl(&["delete", "pv", name, "--wait=true"]);
    world.call(&restore).ok();
    world.node.kubectl(&bound);
    let volume = wait_for("the volume", PATIENT, || world.volume_named(name));
    assert_eq!(volume["spec"]["csi"]["volumeHandle"], handle);
    assert_eq!(volume["spec"]["claimRef"]["name"], "data");
    assert_eq!(fs::read_to_string(files().join("file")).unwrap(), "kept\n");
}
