//! What goes away in the midst of a copy, and comes back: the pod whose volume it is, the mover, the kubelet, the store, its answers. A database is quiet for that copy: after each it serves again
//! and is sound, the volume is whole or named, nothing is left, and the next backup is Completed and of a moment at which nothing was written.

use std::time::Duration;

use harness::node::Node;
use harness::proxy::{Action, Gate, Match, Proxy};
use harness::run::{Backup, Run, Running};
use harness::shop::{self, Shop};
use serde_json::Value;

use super::{BUCKET, PATIENT, World, listed};

pub(super) const NAMESPACE: &str = shop::NAMESPACE;
const CLAIM: &str = shop::CLAIM;

/// What is owed to pods.
pub(super) const HOOKS: &str = "p/plugins/kubectl-backup/hooks/";

/// What is in the volume beside the database, and read after it.
const BESIDE: &str = "more";

/// A node with a database under steady writers.
#[track_caller]
pub(super) fn begin() -> World {
    let world = World::start();
    Shop::open(&world.node);
    world
}

impl World {
    fn shop(&self) -> Shop<'_> {
        Shop::of(&self.node)
    }

    fn backup(&self, name: &str) -> Backup {
        self.create(name, NAMESPACE)
    }

    /// Puts into the volume what takes a while to be copied. The packs of before come back.
    pub(super) fn changed(&self, name: &str) -> usize {
        let shop = self.shop();
        shop.shell(&format!(
            "cd /data; rm -rf {BESIDE}; mkdir -p {BESIDE}/{name}; for i in 1 2 3 4 5 6; do dd if=/dev/urandom of={BESIDE}/{name}/$i bs=1M count=25 2>/dev/null; done"
        ));
        shop.hush();
        self.stored(NAMESPACE, "data")
    }

    /// A backup that has begun to copy what was written just before.
    pub(super) fn at_work(&self, name: &str) -> Running {
        self.at_work_on(name, self.backup(name))
    }

    fn at_work_on(&self, name: &str, backup: Backup) -> Running {
        let before = self.changed(name);
        let running = backup.spawn();
        self.until_it_copies(NAMESPACE, before);
        running
    }

    /// What hooks did in the pod since it was changed.
    pub(super) fn said(&self) -> Vec<String> {
        self.shop().said()
    }

    #[track_caller]
    pub(super) fn until_it_said(&self, words: &[&str]) {
        harness::wait_for("what hooks of the pod say", PATIENT, || {
            (self.said() == words).then_some(())
        });
    }

    /// The database takes orders, and is sound.
    pub(super) fn it_serves(&self) {
        let shop = self.shop();
        shop.wait_until_open(NAMESPACE);
        shop.wait_for_more();
        shop.is_sound_in(NAMESPACE);
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

    /// The next backup: what comes back of it is what was there when all had stopped.
    #[track_caller]
    fn comes_whole(&self, name: &str) {
        self.is_made(name);
        let back = self.back(&self.row(name, CLAIM));
        let [stopped, went_on] = self.shop().files_before_and_after();
        assert_eq!(stopped, went_on);
        assert_eq!(stopped, Shop::files_in(&back.join("db")));
        let beside = self.folder(NAMESPACE, CLAIM).join(BESIDE);
        assert_eq!(listed(&beside), listed(&back.join(BESIDE)));
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

    /// As if time had gone by: the movers of dead runs have ended, and their claims count no more.
    pub(super) fn bury(&self) {
        self.end_movers();
        for key in self.minio.list(BUCKET, "p/") {
            if key.contains("/claim-") {
                self.minio.delete(BUCKET, &key);
            }
        }
    }
}

#[test]
fn what_goes_away_in_the_midst_of_a_copy_is_named_the_database_serves_and_the_next_backup_is_whole()
{
    if let Err(reason) = Node::available().and_then(|()| Shop::available()) {
        harness::skip!("{reason}");
    }
    let world = begin();
    evicted(&world);
    mover_killed(&world);
    kubelet_restarted(&world);
    store_down(&world);
}

#[test]
fn a_store_that_says_nothing_or_takes_nothing_keeps_no_database_stopped() {
    if let Err(reason) = Node::available().and_then(|()| Shop::available()) {
        harness::skip!("{reason}");
    }
    let world = begin();
    let snapshots = world.stored(NAMESPACE, "snapshots");
    // What such a store may still get is waited for at a run's end, when the pod is nobody's any more.
    let ending = [store_silent(&world), store_takes_nothing(&world)];
    for (backup, _store, running, said) in ending {
        let run = running.wait(PATIENT * 2).code(3);
        let why = world.is_named(backup, snapshots);
        assert!(why.contains(said), "{why}\n{}", run.stderr);
    }
    world.nothing_is_at_work();
    world.next_is_whole("after-both");
    assert_eq!(world.minio.list(BUCKET, HOOKS), [""; 0]);
}

/// A run that ends while nobody waits for it: its backup, its way to the store, and what it says of the volume.
type Ending = (&'static str, Proxy, Running, &'static str);

/// The pod is evicted and its set makes it anew, beside the copy. What was kept quiet for it is gone: its post hook is an error, and nothing is owed.
fn evicted(world: &World) {
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    let before = uid(&world.get(NAMESPACE, "pod/db-0"));
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("evicted");
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "db-0", "namespace": NAMESPACE},
    });
    let eviction = world.home.write("eviction", eviction.to_string());
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/db-0/eviction");
    let words = ["create", "--raw", &path, "-f", eviction.to_str().unwrap()];
    world.node.kubectl(&words);
    let run = running.wait(PATIENT).code(3);
    assert!(run.stderr.contains("the pod is gone"), "{}", run.stderr);
    let row = world.row("evicted", CLAIM);
    if row["result"] == "saved" {
        let told = format!(
            "pod {NAMESPACE}/db-0 did not stay quiet until the files of {NAMESPACE}/{CLAIM} were copied: the pod is gone"
        );
        assert!(run.stderr.contains(&told), "{}", run.stderr);
        assert_eq!(row["hooks"], "failed", "{row:#}");
    } else {
        // A database that begins anew may take files away before they are read.
        world.is_named("evicted", snapshots);
    }
    assert_eq!(world.minio.list(BUCKET, HOOKS), [""; 0]);
    harness::wait_for("the pod anew", PATIENT, || {
        let words = ["-n", NAMESPACE, "get", "pod/db-0", "-o", "json"];
        let found = world.node.try_kubectl(&words);
        (found.code == 0 && uid(&found.json()) != before).then_some(())
    });
    world.wait(NAMESPACE, &["db-0"]);
    world.it_serves();
    world.shop().hush();
    world.next_is_whole("after-eviction");
    assert_eq!(world.said(), ["pre", "post"]);
}

/// The mover goes: the volume is named with that, and the pod got its post hook.
fn mover_killed(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("mover");
    let movers = world.movers();
    assert_eq!(movers.len(), 1, "{movers:?}");
    let kill = ["-n", NAMESPACE, "delete", &movers[0], "--wait=false"];
    world.node.kubectl(&kill);
    let run = running.wait(PATIENT).code(3);
    assert_eq!(world.said(), ["pre", "post"], "{}", run.stderr);
    let why = world.is_named("mover", snapshots);
    assert!(why.contains("its pod"), "{why}\n{}", run.stderr);
    world.it_serves();
    world.next_is_whole("after-mover");
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
    world.it_serves();
    world.next_is_whole("after-kubelet");
}

/// The store goes in the midst of a stream, and comes back when the pod is quiet no more: it was not waited for as long as for one that nobody is quiet for.
fn store_down(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("store");
    world.minio.stop();
    world.until_it_said(&["pre", "post"]);
    world.it_serves();
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

/// The store takes what is sent from some moment on, and says nothing any more: the pod is quiet no longer, though it says nothing still.
fn store_silent(world: &World) -> Ending {
    let store = Proxy::start(world.minio.upstream());
    let backup = world.create_at(&store.url(), "silent", NAMESPACE);
    let running = world.at_work_on("silent", backup);
    let gate = Gate::before(&store, Match::any());
    world.until_it_said(&["pre", "post"]);
    assert!(gate.reached() > 0);
    world.it_serves();
    gate.open();
    let said = "said nothing for 30 s, and no pod is kept quiet for longer than that";
    ("silent", store, running, said)
}

/// The store answers, and takes nothing that is written to repositories: the pod is quiet no longer than for one that says nothing, and not for as long as a large write may take.
fn store_takes_nothing(world: &World) -> Ending {
    world.changed("untaken");
    let store = Proxy::start(world.minio.upstream());
    let writes = Match::method("PUT").and_path("/restic/");
    store.every(writes, Action::Delay(Duration::from_secs(3600)));
    let backup = world.create_at(&store.url(), "untaken", NAMESPACE);
    let running = backup.spawn();
    world.until_it_said(&["pre", "post"]);
    world.it_serves();
    let said = "took nothing that was written to it for 30 s";
    ("untaken", store, running, said)
}
