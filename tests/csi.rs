//! Snapshots of volumes in their storage, on a real node with a storage driver: the real snapshot-controller and csi-snapshotter make and remove them.

mod elsewhere;
mod hooked;
mod installed;
mod kept;
mod killed;
mod pruned;
mod secret;
mod waiting;

use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::node::csi::{Csi, Snapshot};
use harness::node::{Node, NodeOptions};
use harness::process::Folder;
use harness::run::{Backup, kubectl_backup};
use harness::store::Minio;
use harness::wait_for;
use serde_json::Value;

use crate::controller::installed::image;

const BUCKET: &str = "backups";
const PATIENT: Duration = Duration::from_secs(120);

/// A node with the storage driver, and a bucket.
struct World {
    node: Node,
    minio: Minio,
    home: Folder,
}

impl World {
    fn start(options: NodeOptions) -> Self {
        let node = Node::start(options.csi(true));
        let minio = Minio::start_on(&node.host_address());
        minio.bucket(BUCKET);
        let home = Folder::new("home");
        Self { node, minio, home }
    }

    fn csi(&self) -> &Csi {
        self.node.csi()
    }

    /// The program, with the bucket as location.
    fn call(&self, words: &[&str]) -> Backup {
        self.at(self.node.kubeconfig(), self.minio.endpoint(), words)
    }

    /// The same by other ways to a cluster and to the bucket.
    fn at(&self, kubeconfig: &Path, endpoint: &str, words: &[&str]) -> Backup {
        kubectl_backup(words)
            .home(self.home.path())
            .kubeconfig(kubeconfig)
            .location(&format!("s3://{BUCKET}/p?endpoint={endpoint}"))
            .credentials_of(&self.minio)
    }

    fn create(&self, name: &str, namespace: &str) -> Backup {
        self.call(&["create", name, "-n", namespace])
    }

    fn restore(&self, name: &str, backup: &str, more: &[&str]) -> Backup {
        self.call(&["restore", "create", name, "--from-backup", backup, "--yes"])
            .args(more)
    }

    /// The JSON of the bucket's objects under a prefix that end so.
    fn objects(&self, prefix: &str, end: &str) -> Vec<Value> {
        let keys = self.minio.list(BUCKET, prefix).into_iter();
        keys.filter(|key| key.ends_with(end))
            .map(|key| serde_json::from_slice(&self.minio.get(BUCKET, &key)).unwrap())
            .collect()
    }

    /// What a backup says of each claim.
    fn rows(&self, backup: &str) -> Vec<Value> {
        let mut all = self.objects(&format!("p/backups/{backup}/"), "/volumes.json");
        let rows = all.iter_mut().flat_map(|one| one["volumes"].as_array_mut());
        rows.flat_map(std::mem::take).collect()
    }

    /// What it says of one.
    #[track_caller]
    fn row(&self, backup: &str, claim: &str) -> Value {
        let rows = self.rows(backup);
        let row = rows.iter().find(|row| row["claim"] == claim);
        row.unwrap_or_else(|| panic!("{claim} is not in {rows:#?}"))
            .clone()
    }

    /// The handle of a claim's snapshot in a backup.
    #[track_caller]
    fn handle(&self, backup: &str, claim: &str) -> String {
        let row = self.row(backup, claim);
        let handle = row["data"][0]["handle"].as_str();
        handle
            .unwrap_or_else(|| panic!("no snapshot: {row:#}"))
            .to_owned()
    }

    /// The handles of all backups that are whole.
    fn named(&self) -> Vec<String> {
        let keys = self.minio.list(BUCKET, "p/backups/").into_iter();
        let backups = keys.filter_map(|key| {
            let folder = key.strip_suffix("/velero-backup.json")?;
            Some(folder.rsplit('/').next()?.to_owned())
        });
        let rows = backups.flat_map(|backup| self.rows(&backup));
        sorted(rows.filter_map(|row| Some(row["data"][0]["handle"].as_str()?.to_owned())))
    }

    /// The handles that the location knows.
    fn known(&self) -> Vec<String> {
        let all = self.objects(NOTES, ".json");
        let entries = all.iter().flat_map(|one| one["snapshots"].as_array());
        let entries = entries.flatten();
        sorted(entries.map(|one| one["handle"].as_str().unwrap().to_owned()))
    }

    /// The handles that the driver has, whatever anybody says.
    fn held(&self) -> Vec<String> {
        sorted(self.csi().snapshots().into_iter().map(|one| one.id))
    }

    /// The driver's own record of one.
    fn snapshot(&self, handle: &str) -> Snapshot {
        let mut all = self.csi().snapshots().into_iter();
        all.find(|one| one.id == handle).expect("a snapshot")
    }

    /// No object of snapshots is in the cluster.
    #[track_caller]
    fn is_bare(&self) {
        let kinds = "volumesnapshots,volumesnapshotcontents";
        let left = self
            .node
            .kubectl(&["get", kinds, "-A", "-o", "name"])
            .stdout;
        assert_eq!(left, "");
    }

    fn get(&self, namespace: &str, what: &str) -> Value {
        let words = ["-n", namespace, "get", what, "-o", "json"];
        self.node.kubectl(&words).json()
    }

    /// A namespace whose pods may be made.
    fn namespace(&self, name: &str) {
        self.node.kubectl(&["create", "namespace", name]);
        let account = ["-n", name, "get", "serviceaccount", "default"];
        wait_for("the account of pods", PATIENT, || {
            (self.node.try_kubectl(&account).code == 0).then_some(())
        });
    }

    /// Deletes a namespace, and waits until it is gone.
    fn delete_namespace(&self, name: &str) {
        let words = ["delete", "namespace", name, "--timeout=120s"];
        self.node.kubectl(&words);
    }

    fn wait_ready(&self, namespace: &str, pod: &str) {
        let is_ready = "--for=condition=Ready";
        let words = ["-n", namespace, "wait", is_ready, pod, "--timeout=120s"];
        self.node.kubectl(&words);
    }

    /// The files of a claim's volume, from outside of the node.
    fn files(&self, namespace: &str, claim: &str) -> PathBuf {
        let uid = wait_for("a claim that is bound", PATIENT, || {
            let claim = self.get(namespace, &format!("pvc/{claim}"));
            let is_bound = claim["status"]["phase"] == "Bound";
            is_bound.then(|| claim["metadata"]["uid"].as_str().unwrap().to_owned())
        });
        let mut volumes = self.csi().volumes().into_iter();
        let volume = volumes.find(|one| one.name.ends_with(&uid));
        volume.expect("a volume").files
    }
}

/// Where the location notes snapshots.
const NOTES: &str = "p/plugins/kubectl-backup/snapshots/";

fn sorted(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = all.collect();
    all.sort();
    all
}

#[test]
fn snapshots_of_workloads_are_made_and_come_back_with_hooks_secrets_and_other_clusters_and_by_the_controller()
 {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start(NodeOptions::default().services(true));
    world.node.import_image(&image());
    let alone = waiting::without_a_pod(&world);
    hooked::all(&world);
    alone.ends(&world);
    waiting::all(&world);
    secret::all(&world);
    elsewhere::all(&world);
    installed::all(&world);
}
