//! The storage driver keeps to the interface, and a cluster has its volumes and snapshots.

use std::process::Command;
use std::time::{Duration, Instant};

use harness::busybox::Busybox;
use harness::node::csi::{CLAIM, Knob};
use harness::node::{Node, NodeOptions};
use harness::process::{Folder, Output};
use harness::{tools, wait_for};
use serde_json::Value;

const PATIENT: Duration = Duration::from_secs(60);

/// The driver, and the interface's own tests of one, in mounts and processes of their own.
const SANITY: &str = r#"
"$1" -name=folders.example.com -node=node1 -state=state -socket=csi.sock &
for try in $(seq 200); do [ ! -S csi.sock ] || break; sleep 0.05; done
"$2" --csi.endpoint="$PWD/csi.sock" --csi.mountdir="$PWD/mount" --csi.stagingdir="$PWD/staging" --ginkgo.no-color
"#;

#[test]
fn the_storage_driver_keeps_to_the_interface() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let folder = Folder::new("sanity");
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation=private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .args(["sh", "-euc", SANITY, "sh"])
        .args([tools::path("csi-driver"), tools::path("csi-sanity")])
        .current_dir(folder.path());
    let said = Output::of(&mut command).ok().stdout;
    // It has tests of all that the driver says it can do, and skips the others.
    let passed = said
        .lines()
        .find_map(|line| line.strip_prefix("SUCCESS! -- ")?.split(' ').next());
    let passed: u32 = passed.expect(&said).parse().unwrap();
    assert!(passed >= 49, "{said}");
    for kind in ["volumes", "snapshots"] {
        let left = std::fs::read_dir(folder.join("state").join(kind)).unwrap();
        assert_eq!(left.count(), 0, "{kind}");
    }
}

const RESTORED: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: restored, namespace: shop}
spec:
  storageClassName: csi-wait
  accessModes: [ReadWriteOncePod]
  resources: {requests: {storage: 1Gi}}
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: kept}
"#;

/// A pod of a claim's name, which mounts it.
fn pod(claim: &str) -> String {
    Busybox::new("shop", claim)
        .claims("data", claim)
        .to_string()
}

fn snapshot(name: &str) -> String {
    format!(
        r#"
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {{name: {name}, namespace: shop}}
spec: {{volumeSnapshotClassName: csi, source: {{persistentVolumeClaimName: data}}}}
"#
    )
}

/// A node with the driver, and a namespace with a claim and a pod that has it.
struct Shop {
    node: Node,
}

impl Shop {
    fn open() -> Self {
        let node = Node::start(NodeOptions::default().csi(true));
        node.apply(CLAIM);
        node.apply(&pod("data"));
        let shop = Self { node };
        shop.wait("data");
        shop
    }

    fn wait(&self, pod: &str) {
        let is_ready = "--for=condition=Ready";
        let pod = format!("pod/{pod}");
        let words = ["-n", "shop", "wait", is_ready, &pod, "--timeout=60s"];
        self.node.kubectl(&words);
    }

    fn shell(&self, pod: &str, script: &str) -> String {
        let words = ["-n", "shop", "exec", pod, "--", "sh", "-ec", script];
        self.node.kubectl(&words).stdout
    }

    fn snapshot(&self, name: &str) {
        self.node.apply(&snapshot(name));
    }

    fn status(&self, name: &str) -> Value {
        let kind = "/apis/snapshot.storage.k8s.io/v1/namespaces/shop/volumesnapshots";
        let path = format!("{kind}/{name}");
        self.node.client().get(&path).unwrap().json()["status"].take()
    }

    fn wait_cut(&self, name: &str) {
        wait_for("a cut", PATIENT, || {
            self.status(name)["creationTime"].as_str().map(drop)
        });
    }

    /// Waits until the snapshot's error has this text.
    fn wait_error(&self, name: &str, text: &str) {
        wait_for(text, PATIENT, || {
            let status = self.status(name);
            let message = status["error"]["message"].as_str()?;
            message.contains(text).then_some(())
        });
    }

    fn wait_event(&self, namespace: &str, text: &str) {
        let path = format!("/api/v1/namespaces/{namespace}/events");
        wait_for(text, PATIENT, || {
            let events = self.node.client().get(&path).unwrap();
            events.text().contains(text).then_some(())
        });
    }
}

#[test]
fn a_claim_of_a_snapshot_has_what_the_volume_had_when_it_was_cut() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let shop = Shop::open();
    let (node, csi, begun) = (&shop.node, shop.node.csi(), Instant::now());

    // One that fails says why.
    csi.turn(Knob::FailCut, "no room for a copy");
    shop.snapshot("refused");
    shop.wait_error("refused", "no room for a copy");
    node.kubectl(&["-n", "shop", "delete", "volumesnapshot/refused"]);
    csi.release(Knob::FailCut);
    assert_eq!(csi.snapshots().len(), 0);

    // What is written before the cut is in it, though the snapshot was asked for before that.
    csi.turn(Knob::HoldCut, "");
    csi.turn(Knob::HoldReady, "");
    csi.turn(Knob::ReadyAfter, "0.5");
    shop.snapshot("kept");
    wait_for("a snapshot that is asked for", PATIENT, || {
        let path = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents";
        let contents = node.client().get(path).unwrap().text();
        contents
            .contains("volumesnapshot-being-created")
            .then_some(())
    });
    shop.shell(
        "data",
        "cd /data; echo first > file; chown 7:8 file; chmod 640 file; touch -d '2020-01-02 03:04:05' file; ln file link; ln -s file to",
    );
    assert_eq!(csi.snapshots().len(), 0);
    csi.release(Knob::HoldCut);
    shop.wait_cut("kept");

    // What is changed after the cut is not in it, though it is not ready yet. Killed meanwhile, the driver goes on.
    assert_eq!(shop.status("kept")["readyToUse"], false);
    shop.shell("data", "echo second > /data/file; rm /data/to");
    csi.turn(Knob::FailReady, "the copy is lost");
    shop.wait_error("kept", "the copy is lost");
    csi.release(Knob::FailReady);
    node.restart_csi();
    csi.release(Knob::HoldReady);
    wait_for("a snapshot that is ready", PATIENT, || {
        (shop.status("kept")["readyToUse"] == true).then_some(())
    });
    let snapshots = csi.snapshots();
    assert!(snapshots.len() == 1 && snapshots[0].ready, "{snapshots:?}");
    let first = std::fs::read_to_string(snapshots[0].files.join("file")).unwrap();
    assert_eq!(first, "first\n");
    csi.turn(Knob::ReadyAfter, "3600");
    shop.snapshot("slow");
    shop.wait_cut("slow");
    assert_eq!(shop.status("slow")["readyToUse"], false);

    csi.turn(Knob::FailRestore, "no disk is left");
    node.apply(RESTORED);
    node.apply(&pod("restored"));
    shop.wait_event("shop", "no disk is left");
    csi.release(Knob::FailRestore);
    shop.wait("restored");
    let told = "cd /data; cat file; readlink to; stat -c '%a %u:%g %h %Y' file";
    assert_eq!(
        shop.shell("restored", told),
        "first\nfile\n640 7:8 2 1577934245\n"
    );
    assert_eq!(shop.shell("data", "cat /data/file"), "second\n");
    let volumes = csi.volumes();
    let restored = volumes.iter().find(|volume| volume.snapshot.is_some());
    assert!(volumes.len() == 2 && restored.unwrap().snapshot.as_ref() == Some(&snapshots[0].id));

    // With the namespace all of it goes, in the driver too, and not before the driver lets it.
    csi.turn(Knob::FailDelete, "");
    node.kubectl(&["delete", "namespace/shop", "--wait=false"]);
    shop.wait_event("default", "SnapshotDeleteError");
    assert_eq!(csi.snapshots().len(), 2);
    csi.release(Knob::FailDelete);
    let is_gone = ["wait", "--for=delete", "namespace/shop", "--timeout=60s"];
    node.kubectl(&is_gone);
    wait_for("an empty driver", PATIENT, || {
        (csi.volumes().is_empty() && csi.snapshots().is_empty()).then_some(())
    });
    println!("after the node's start: {:?}", begun.elapsed());
}
