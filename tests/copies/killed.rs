//! kill -9 after each write of a restore that brings data back, whatever it is of: the same command goes on, no pod ever began on less than the data, and nothing of how it came there is left.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use harness::busybox::Busybox;
use harness::proxy::Writes;
use harness::run::Backup;
use harness::wait_for;

use super::restored::{CLAIM, delete_namespace, is_whole, restore, seen};
use super::{PATIENT, World, claim};

/// The namespace that is backed up.
const SOURCE: &str = "each";

/// How many are killed beside each other.
const AT_A_TIME: usize = 4;

/// A pod that says what it found when it began, and of which a hook says what it found after the restore.
fn pod() -> Busybox {
    let hook = "[\"sh\", \"-c\", \"cat /data/a/b/file >> /tmp/hooked\"]";
    Busybox::new(SOURCE, "db-0")
        .annotations(&[("post.hook.restore.velero.io/command", hook)])
        .runs("cat /data/a/b/file > /tmp/seen; while true; do sleep 1; done")
        .claims("data", CLAIM)
}

/// Whether a request changes something: commands in pods among them, and none of those that are only tried or ask for rights.
fn changes(method: &str, target: &str) -> bool {
    let is_asked = target.contains("dryRun") || target.contains("/authorization.k8s.io/");
    (method != "GET" || target.contains("/exec?")) && !is_asked
}

/// A restore into a namespace of its own, through a proxy of its own.
struct Point<'a> {
    world: &'a World,
    cluster: Writes,
    namespace: String,
    wanted: &'a str,
}

impl<'a> Point<'a> {
    /// The names of all differ by a number alone, and so writes to them do not.
    fn new(world: &'a World, number: usize, wanted: &'a str) -> Self {
        Self {
            cluster: Writes::to(&world.node.endpoint(), changes),
            world,
            namespace: format!("{SOURCE}-{number}"),
            wanted,
        }
    }

    fn restore(&self) -> Backup {
        let mapping = format!("{SOURCE}:{}", self.namespace);
        let words = ["--namespace-mappings", &mapping];
        restore(self.world, &self.namespace, SOURCE, &words).kubeconfig(&self.cluster.kubeconfig())
    }

    /// The names of what the cluster has of volumes for claims of this namespace, whatever became of those.
    fn volumes(&self) -> Vec<String> {
        let all = ["get", "pv", "-o", "json"];
        let all = self.world.node.kubectl(&all).json();
        let all = all["items"].as_array().unwrap().iter();
        let own = all.filter(|one| one["spec"]["claimRef"]["namespace"] == self.namespace.as_str());
        own.map(|one| one["metadata"]["name"].to_string()).collect()
    }

    /// If the claim is bound, it is to all of its data.
    #[track_caller]
    fn is_not_bound_to_less(&self) {
        let words = ["-n", &self.namespace, "get", "pvc", CLAIM, "-o", "json"];
        let claim = self.world.node.try_kubectl(&words);
        if claim.code == 0 && claim.json()["status"]["phase"] == "Bound" {
            let folder = self.world.folder(&self.namespace, CLAIM);
            assert_eq!(seen(&folder), self.wanted);
        }
    }

    #[track_caller]
    fn goes_on(&self) {
        let run = self.restore().ok();
        is_whole(self.world, &self.namespace, self.wanted);
        let hooked = self.world.shell(&self.namespace, "db-0", "cat /tmp/hooked");
        let is_data = |line: &str| line == "text";
        assert!(
            !hooked.is_empty() && hooked.lines().all(is_data),
            "{hooked}{}",
            run.stderr
        );
        wait_for("the end of all volumes but the claim's", PATIENT, || {
            (self.volumes().len() == 1).then_some(())
        });
        delete_namespace(self.world, &self.namespace);
    }
}

pub(super) fn after_each_write(world: &World) {
    world.namespace(SOURCE);
    world
        .node
        .apply(&format!("{}{}", claim(SOURCE, CLAIM, ""), pod()));
    world.wait(SOURCE, &["db-0"]);
    let script =
        "mkdir -p /data/a/b; echo text > /data/a/b/file; chown 77:78 /data/a/b; : > /data/empty";
    world.shell(SOURCE, "db-0", script);
    let wanted = seen(&world.folder(SOURCE, CLAIM));
    world.create(SOURCE, SOURCE).ok();

    let whole = Point::new(world, 0, &wanted);
    whole.goes_on();
    let writes = whole.cluster.seen();
    // Staged, held, begun, retained, released, bound and done; a mover, and what runs in it; the pod, and its hook.
    assert!(writes.len() >= 13, "{writes:#?}");
    let next = AtomicUsize::new(0);
    let kill = || {
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            let Some(write) = writes.get(number) else {
                return;
            };
            let point = Point::new(world, 1 + number, &wanted);
            point.cluster.kill_after(write, point.restore());
            point.is_not_bound_to_less();
            point.goes_on();
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(kill);
        }
    });
}
