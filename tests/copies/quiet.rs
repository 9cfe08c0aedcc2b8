//! Runs that end in mid-copy, between the hooks of a pod: by Ctrl-C, by kill -9, and a controller's with its process or its pod. The database is let go on by whoever comes next, nothing of that
//! backup looks whole, and the next one is.

use harness::node::Node;
use harness::run::Signal;
use harness::shop::Shop;
use harness::wait_for;

use super::outages::{self, HOOKS, NAMESPACE};
use super::{BUCKET, PATIENT, World, controller};

/// Where the controller is.
const SERVED: &str = "kubectl-backup";

impl World {
    /// Nothing that stands of it makes anybody take it for a backup.
    #[track_caller]
    fn is_no_backup(&self, name: &str) {
        let keys = self.minio.list(BUCKET, &format!("p/backups/{name}/"));
        let is_of_a_whole_one =
            |key: &String| key.ends_with("/velero-backup.json") || key.ends_with("/SHA256SUMS");
        assert!(!keys.iter().any(is_of_a_whole_one), "{keys:?}");
        let listed = self.call(&["get", "-o", "name"]).ok().stdout;
        assert!(!listed.lines().any(|line| line == name), "{listed}");
    }

    fn owed(&self) -> usize {
        self.minio.list(BUCKET, HOOKS).len()
    }
}

#[test]
fn a_run_that_ends_in_the_midst_of_a_copy_leaves_no_database_stopped_and_no_half_backup() {
    if let Err(reason) = Node::available().and_then(|()| Shop::available()) {
        harness::skip!("{reason}");
    }
    let world = outages::begin();
    interrupted(&world);
    killed(&world);
    controllers(&world);
}

/// Ctrl-C: the pod is quiet no more when the run has ended.
fn interrupted(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("interrupted");
    assert_eq!(world.said(), ["pre"]);
    running.signal(Signal::INT);
    let run = running.wait(PATIENT).code(130);
    assert_eq!(world.said(), ["pre", "post"], "{}", run.stderr);
    assert_eq!(world.owed(), 0);
    world.is_no_backup("interrupted");
    assert_eq!(world.stored(NAMESPACE, "snapshots"), snapshots);
    world.nothing_is_at_work();
    world.it_serves();
    world.is_made("after-interrupt");
}

/// kill -9: the next command, a backup of the same pod, wakes it before it makes it quiet for itself.
fn killed(world: &World) {
    let snapshots = world.stored(NAMESPACE, "snapshots");
    let running = world.at_work("killed");
    running.kill();
    assert_eq!(world.said(), ["pre"]);
    assert_eq!(world.owed(), 1);
    let run = world.is_made("after-kill");
    let ran = "owed by the run that made backup killed";
    assert!(run.stderr.contains(ran), "{}", run.stderr);
    assert_eq!(world.said(), ["pre", "post", "pre", "post"]);
    assert_eq!(world.owed(), 0);
    world.is_no_backup("killed");
    assert_eq!(world.stored(NAMESPACE, "snapshots"), snapshots + 1);
    world.it_serves();
    world.bury();
}

/// A controller whose process is killed, which its pod starts again; and one whose pod goes, in whose place there is another one.
fn controllers(world: &World) {
    controller::install(world, "p", &[], &[]);
    let kill = || {
        let killed = world
            .node
            .signal_all("/kubectl-backup\0controller\0", Signal::KILL);
        assert_eq!(killed, 1);
    };
    let delete = || {
        let chosen = "--selector=app.kubernetes.io/name=kubectl-backup";
        let words = ["-n", SERVED, "delete", "pod", chosen];
        world
            .node
            .kubectl(&[&words[..], &["--grace-period=0", "--force"]].concat());
    };
    let ends: [(&str, &dyn Fn()); 2] = [("process", &kill), ("pod", &delete)];
    for (name, end) in ends {
        let before = world.changed(name);
        world.node.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {SERVED}}}, spec: {{includedNamespaces: [{NAMESPACE}], defaultVolumesToFsBackup: true}}}}"
        ));
        world.until_it_copies(NAMESPACE, before);
        assert_eq!(world.said(), ["pre"]);
        end();
        world.until_it_said(&["pre", "post"]);
        wait_for("the end of its note", PATIENT, || {
            (world.owed() == 0).then_some(())
        });
        world.it_serves();
        world.is_no_backup(name);
        let object = world.get(SERVED, &format!("backups.velero.io/{name}"));
        assert_ne!(object["status"]["phase"], "Completed", "{object:#}");
        world.bury();
        world.is_made(&format!("after-{name}"));
    }
    world.next_is_whole("after-all");
}
