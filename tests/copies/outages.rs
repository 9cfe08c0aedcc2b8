//! What goes away in the midst of a copy, and comes back: the pod whose volume it is, the kubelet, the store. After each the volume is whole or named, the pod is quiet no more, nothing is
//! left, and the next backup is Completed.

use std::time::Duration;

use harness::http_client::Endpoint;
use harness::node::Node;
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Backup, Run, Running};
use serde_json::Value;

use super::{BUCKET, IMAGE, PATIENT, World, claim, quiet};

pub(super) const NAMESPACE: &str = "busy";
pub(super) const CLAIM: &str = "data";
const POD: &str = "db-0";

/// What is owed to pods.
pub(super) const HOOKS: &str = "p/plugins/kubectl-backup/hooks/";

/// A set whose pod writes down what its hooks do, each in its own life.
fn set() -> String {
    let hook = |word: &str| serde_json::json!(["sh", "-c", format!("echo {word} >> /tmp/said")]);
    let object = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": NAMESPACE},
        "spec": {
            "serviceName": "db", "replicas": 1,
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}, "annotations": {
                    "pre.hook.backup.velero.io/command": hook("pre").to_string(),
                    "post.hook.backup.velero.io/command": hook("post").to_string(),
                }},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{
                        "name": "main", "image": "localhost/busybox:1", "imagePullPolicy": "Never",
                        "command": ["sh", "-c", ": > /tmp/said; while true; do sleep 1; done"],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": CLAIM}}],
                },
            },
        },
    });
    format!("\n---\n{object}\n")
}

impl World {
    fn backup(&self, name: &str) -> Backup {
        self.create(name, NAMESPACE)
    }

    /// Puts into the volume what takes a while to be copied. The packs of before come back.
    pub(super) fn changed(&self, name: &str) -> usize {
        self.shell(
            NAMESPACE,
            POD,
            &format!("rm -rf /data/*; mkdir /data/{name}; for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/data/{name}/$i bs=1M count=25 2>/dev/null; done; : > /tmp/said"),
        );
        self.stored(NAMESPACE, "data")
    }

    /// A backup that has begun to copy what was written just before.
    pub(super) fn at_work(&self, name: &str) -> Running {
        let before = self.changed(name);
        let running = self.backup(name).spawn();
        self.until_it_copies(NAMESPACE, before);
        running
    }

    /// What its hooks did, as far as the pod can be asked.
    pub(super) fn said(&self) -> Vec<String> {
        let words = ["-n", NAMESPACE, "exec", POD, "--", "cat", "/tmp/said"];
        let said = self.node.try_kubectl(&words).stdout;
        said.lines().map(str::to_owned).collect()
    }

    /// The claim is named, and of this backup no snapshot appeared.
    #[track_caller]
    fn is_named(&self, backup: &str, snapshots: usize) -> String {
        let row = self.row(backup, CLAIM);
        assert_eq!(row["result"], "failed", "{row:#}");
        assert_eq!(self.marker(backup)["status"]["phase"], "PartiallyFailed");
        assert_eq!(self.stored(NAMESPACE, "snapshots"), snapshots);
        row["why"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(super) fn next_is_whole(&self, name: &str) {
        self.comes_whole(name);
        self.nothing_is_at_work();
    }

    #[track_caller]
    fn comes_whole(&self, name: &str) {
        self.is_made(name);
        let row = self.row(name, CLAIM);
        self.is_in(&row, &self.folder(NAMESPACE, CLAIM));
    }

    /// A backup that lacks nothing, as it says itself.
    #[track_caller]
    pub(super) fn is_made(&self, name: &str) -> Run {
        let run = self.backup(name).ok();
        assert_eq!(self.marker(name)["status"]["phase"], "Completed");
        let row = self.row(name, CLAIM);
        assert_eq!(row["result"], "saved", "{row:#}");
        assert_eq!(row["hooks"], "done", "{row:#}");
        run
    }
}

#[test]
fn what_goes_away_in_the_midst_of_a_copy_is_named_and_the_next_backup_is_whole() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start();
    world.namespace(NAMESPACE);
    world.node.apply(&(claim(NAMESPACE, CLAIM, "") + &set()));
    harness::wait_for("the pod of the set", PATIENT, || {
        let pod = ["-n", NAMESPACE, "get", "pod", POD];
        (world.node.try_kubectl(&pod).code == 0).then_some(())
    });
    world.wait(NAMESPACE, &[POD]);
    evicted(&world);
    kubelet_restarted(&world);
    store_down(&world);
    store_takes_nothing(&world);
    quiet::all(&world);
}

/// The pod is evicted and its set makes it anew: the volume is the same, and the copy goes on. What was kept quiet for it is gone: its post hook is an error, and nothing is owed.
fn evicted(world: &World) {
    let name = format!("pod/{POD}");
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let before = uid(&world.get(NAMESPACE, &name));
    let running = world.at_work("evicted");
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": POD, "namespace": NAMESPACE},
    });
    let eviction = world.home.write("eviction", eviction.to_string());
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{POD}/eviction");
    let words = ["create", "--raw", &path, "-f", eviction.to_str().unwrap()];
    world.node.kubectl(&words);
    let run = running.wait(PATIENT).code(3);
    assert!(run.stderr.contains("the pod is gone"), "{}", run.stderr);
    harness::wait_for("the pod anew", PATIENT, || {
        let words = ["-n", NAMESPACE, "get", &name, "-o", "json"];
        let found = world.node.try_kubectl(&words);
        (found.code == 0 && uid(&found.json()) != before).then_some(())
    });
    world.wait(NAMESPACE, &[POD]);
    let row = world.row("evicted", CLAIM);
    assert_eq!(row["result"], "saved", "{row:#}\n{}", run.stderr);
    world.is_in(&row, &world.folder(NAMESPACE, CLAIM));
    assert_eq!(world.minio.list(BUCKET, HOOKS), [""; 0]);
    world.next_is_whole("after-eviction");
    assert_eq!(world.said(), ["pre", "post"]);
}

/// The kubelet ends and starts again. What went over it broke off: the volume is named, and the pod got its post hook.
fn kubelet_restarted(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("kubelet");
    world.node.stop_kubelet();
    world.node.start_kubelet();
    let run = running.wait(PATIENT).code(3);
    world.node.wait_until_ready();
    assert_eq!(world.said(), ["pre", "post"], "{}", run.stderr);
    let why = world.is_named("kubelet", snapshots);
    assert!(why.contains("broke off"), "{why}\n{}", run.stderr);
    world.next_is_whole("after-kubelet");
}

/// The store goes in the midst of a stream, and comes back when the pod is quiet no more: it was not waited for as long as for one that nobody is quiet for.
fn store_down(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("store");
    world.minio.stop();
    harness::wait_for("the end of the quiet", PATIENT, || {
        (world.said() == ["pre", "post"]).then_some(())
    });
    world.minio.start_again();
    let run = running.wait(PATIENT * 2).code(3);
    let why = world.is_named("store", snapshots);
    let store = world.minio.endpoint();
    assert!(why.contains(store), "{why}\n{}", run.stderr);
    // Its claim goes before the run has ended, when nothing that was sent can arrive any more: it would keep prunes away for an hour.
    world.nothing_is_at_work();
    world.comes_whole("after-store");
    assert_eq!(world.minio.list(BUCKET, HOOKS), [""; 0]);
}

/// The store answers, and takes nothing that is written to repositories: the pod is quiet no longer than for one that says nothing, and not for as long as a large write may take.
fn store_takes_nothing(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    world.changed("untaken");
    let store = Proxy::start(&Endpoint::plain(world.minio.endpoint()));
    let writes = Match::method("PUT").and_path("/restic/");
    store.every(writes, Action::Delay(Duration::from_secs(3600)));
    let url = format!("s3://{BUCKET}/p?endpoint={}", store.url());
    let running = world
        .at(&["create", "untaken", "-n", NAMESPACE], &url)
        .credentials_of(&world.minio)
        .args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE])
        .spawn();
    harness::wait_for("the end of the quiet", PATIENT, || {
        (world.said() == ["pre", "post"]).then_some(())
    });
    let run = running.wait(PATIENT * 2).code(3);
    let why = world.is_named("untaken", snapshots);
    assert!(
        why.contains("took nothing that was written to it for 30 s"),
        "{why}\n{}",
        run.stderr
    );
    world.nothing_is_at_work();
}
