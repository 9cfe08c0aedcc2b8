//! Volumes and snapshots of a storage driver: the real csi-provisioner, csi-snapshotter and snapshot-controller, over a small driver of the tests' own.
//!
//! A story asks for them with `NodeOptions::default().csi(true)`; that does not need `services`. Then there are
//! - the classes `csi`, which binds at once, and `csi-wait`, which waits for a pod; neither is the default, both delete, neither expands;
//! - the VolumeSnapshotClass `csi`, with the policy Delete and no label, and the definitions of its group as the controller's module has them;
//! - nothing to attach (`attachRequired: false`), volumes of any access mode but no block devices. A capacity is a number that limits nothing,
//!   but a volume made of a snapshot is at least as large as the snapshot's volume was.
//!
//! A snapshot is a copy of the volume's folder, made file by file when the driver is asked: not of one moment where something writes meanwhile.
//!
//! [`Node::csi`] tells what the driver itself holds, whatever the cluster says: [`Csi::volumes`] and [`Csi::snapshots`], each with the folder of its files
//! outside the node, to look into or to spoil. Their `id` is the `volumeHandle` or `snapshotHandle`; their `name` ends in the uid of the claim
//! (`pvc-<uid>`) or of the VolumeSnapshot (`snapshot-<uid>`). A test that expects nothing left looks here.
//!
//! [`Csi::turn`] makes it misbehave until [`Csi::release`]: see [`Knob`]. The controllers try again after a fifth of a second to two seconds. There are no
//! groups of snapshots. [`Node::restart_csi`] kills the driver, with the two controllers that are beside it in its pod elsewhere, and starts them again: that
//! changes nothing of what it holds.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Node;
use crate::process::Process;
use crate::{tools, wait_for};

/// The driver's name.
pub const DRIVER: &str = "folders.example.com";

/// A claim `shop/data` that is bound at once, with its namespace.
pub const CLAIM: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: shop}
spec: {storageClassName: csi, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"#;

const READY: Duration = Duration::from_secs(120);
const STATE: &str = "/var/lib/csi";
const SOCKET: &str = "/var/lib/kubelet/plugins/folders.example.com/csi.sock";
const REGISTRATION: &str = "/var/lib/kubelet/plugins_registry/folders.example.com-reg.sock";

/// A way to misbehave; the text that comes with it is what the driver answers, where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub enum Knob {
    /// A snapshot that is asked for is not cut: the call waits, for a minute at most, and is made again.
    HoldCut,
    /// A snapshot that is asked for fails.
    FailCut,
    /// Snapshots are ready so many seconds (the text) after they were cut.
    ReadyAfter,
    /// Snapshots are cut, but none gets ready.
    HoldReady,
    /// Whoever asks after a snapshot that is not ready is told so. With `HoldReady` first, it is one that was cut and then fails.
    FailReady,
    /// No snapshot can be deleted. What csi-snapshotter makes of that is an event `SnapshotDeleteError` in the namespace `default`, without the text.
    FailDelete,
    /// No volume can be made of a snapshot.
    FailRestore,
    /// No snapshot is cut or deleted without a Secret whose `password` is the text.
    NeedSecret,
}

impl Knob {
    fn file(self) -> &'static str {
        match self {
            Self::HoldCut => "hold-cut",
            Self::FailCut => "fail-cut",
            Self::ReadyAfter => "ready-after",
            Self::HoldReady => "hold-ready",
            Self::FailReady => "fail-ready",
            Self::FailDelete => "fail-delete",
            Self::FailRestore => "fail-restore",
            Self::NeedSecret => "need-secret",
        }
    }
}

/// A volume as the driver knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Volume {
    pub id: String,
    pub name: String,
    /// Bytes.
    pub capacity: u64,
    /// The snapshot its first content came from.
    pub snapshot: Option<String>,
    /// Where its files are, outside the node.
    pub files: PathBuf,
}

/// A snapshot as the driver knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    /// The volume it is of, which may be gone.
    pub volume: String,
    /// Bytes: the volume's.
    pub capacity: u64,
    /// Whether the driver has said so to anybody.
    pub ready: bool,
    /// Where its files are, outside the node.
    pub files: PathBuf,
}

/// The driver and its controllers.
pub struct Csi {
    /// What is one pod elsewhere: the driver, and the controllers that end when they lose it.
    pod: Mutex<Vec<Process>>,
    controller: Process,
    state: PathBuf,
}

impl Csi {
    /// All volumes it has.
    pub fn volumes(&self) -> Vec<Volume> {
        self.all("volumes")
    }

    /// All snapshots it has.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.all("snapshots")
    }

    /// What is being made or taken away has a dot in its name, and is not there.
    fn all<T: DeserializeOwned>(&self, kind: &str) -> Vec<T> {
        let entries = fs::read_dir(self.state.join(kind)).unwrap();
        let folders = entries.map(|entry| entry.unwrap().path());
        folders
            .filter(|folder| folder.extension().is_none())
            .filter_map(|folder| {
                let text = fs::read(folder.join("about.json")).ok()?;
                let mut about: Value = serde_json::from_slice(&text).unwrap();
                about["files"] = json!(folder.join("data"));
                Some(serde_json::from_value(about).unwrap())
            })
            .collect()
    }

    /// Makes it misbehave from now on.
    pub fn turn(&self, knob: Knob, text: &str) {
        let file = self.state.join("knobs").join(knob.file());
        let unfinished = file.with_extension("new");
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, file).unwrap();
    }

    /// Makes it behave again.
    pub fn release(&self, knob: Knob) {
        fs::remove_file(self.state.join("knobs").join(knob.file())).unwrap();
    }

    pub(super) fn logs(&self) -> String {
        let pod = self.pod.lock().unwrap();
        let processes = pod.iter().chain([&self.controller]);
        processes.fold(String::new(), |said, process| {
            format!("{said}\n--- {}\n{}", process.name(), process.log_tail())
        })
    }
}

impl Node {
    /// The driver of a node that was started with it.
    pub fn csi(&self) -> &Csi {
        self.csi.as_ref().expect("NodeOptions::csi")
    }

    /// Kills the driver and what is beside it, and starts them again.
    pub fn restart_csi(&self) {
        let mut pod = self.csi().pod.lock().unwrap();
        pod.drain(..).for_each(Process::kill);
        *pod = start_pod(self);
    }
}

/// Starts it all, and waits until the kubelet knows the driver.
pub(super) fn start(node: &Node) -> Csi {
    let definitions = fs::read_to_string(tools::path("volume-snapshots.yaml")).unwrap();
    let classes = include_str!("csi.yaml").replace("@DRIVER@", DRIVER);
    node.apply(&format!("{definitions}\n---\n{classes}"));
    let mut client = node.client();
    wait_for("the kinds of snapshots", READY, || {
        let kinds = client.get("/apis/snapshot.storage.k8s.io/v1").ok()?.text();
        let mut plurals = ["snapshots", "snapshotclasses", "snapshotcontents"].iter();
        plurals
            .all(|plural| kinds.contains(&format!("\"volume{plural}\"")))
            .then_some(())
    });
    node.apply(&include_str!("csi-snapshots.yaml").replace("@DRIVER@", DRIVER));
    let csi = Csi {
        pod: Mutex::new(start_pod(node)),
        // It would wait half a minute for the definitions of group snapshots, which are not there.
        controller: start_controller(
            node,
            "snapshot-controller",
            &["--feature-gates=CSIVolumeGroupSnapshot=false"],
        ),
        state: node.path(STATE),
    };
    let path = format!("/apis/storage.k8s.io/v1/csinodes/{}", node.name());
    wait_for("a driver that the kubelet knows", READY, || {
        csi.pod
            .lock()
            .unwrap()
            .iter()
            .for_each(Process::assert_runs);
        csi.controller.assert_runs();
        let known = client.get(&path).ok()?.text();
        known.contains(DRIVER).then_some(())
    });
    csi
}

fn start_pod(node: &Node) -> Vec<Process> {
    let flags = [&format!("--csi-address={SOCKET}"), "--timeout=60s"];
    vec![
        start_driver(node),
        start_controller(node, "csi-provisioner", &flags),
        start_controller(node, "csi-snapshotter", &flags),
    ]
}

fn start_driver(node: &Node) -> Process {
    let socket = node.path(SOCKET);
    let _ = fs::remove_file(&socket);
    let program = tools::path("csi-driver").display().to_string();
    let driver = node.spawn(
        "csi-driver",
        &[
            &program,
            &format!("-name={DRIVER}"),
            &format!("-node={}", node.name()),
            &format!("-state={STATE}"),
            &format!("-socket={SOCKET}"),
            &format!("-registration={REGISTRATION}"),
        ],
    );
    wait_for("the driver's socket", READY, || {
        driver.assert_runs();
        socket.exists().then_some(())
    });
    driver
}

fn start_controller(node: &Node, name: &str, flags: &[&str]) -> Process {
    let program = tools::path(name).display().to_string();
    let mut command = vec![
        program.as_str(),
        "--kubeconfig=/etc/kubernetes/super-admin.conf",
        "--kube-api-qps=100",
        "--kube-api-burst=200",
        "--retry-interval-start=200ms",
        "--retry-interval-max=2s",
    ];
    command.extend(flags);
    node.spawn(name, &command)
}
