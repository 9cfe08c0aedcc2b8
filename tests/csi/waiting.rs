//! Claims whose class waits for a pod: those of a Deployment and of a StatefulSet come back with their pods, and one that no pod uses keeps what it needs for it.

use std::fs;

use harness::busybox::Busybox;
use harness::run::Running;

use super::{PATIENT, World};

const NAMESPACE: &str = "late";

/// What a pod does: it says what it found, and leaves a word.
fn pod(app: &str) -> Busybox {
    Busybox::new(NAMESPACE, app)
        .runs(&format!(
            "cp /data/word /tmp/found; echo {app} >> /data/word; sleep 1000000"
        ))
        .ready_while(&["test", "-e", "/data/word"])
}

fn workloads() -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: web, namespace: {NAMESPACE}}}
spec: {{storageClassName: csi-wait, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template: {}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {NAMESPACE}}}
spec:
  serviceName: db
  replicas: 2
  selector: {{matchLabels: {{app: db}}}}
  template: {}
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{storageClassName: csi-wait, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
",
        pod("web").claims("data", "web").template(),
        pod("db").mounts("data").template()
    )
}

const CLAIMS: [&str; 3] = ["web", "data-db-0", "data-db-1"];

fn are_ready(world: &World) {
    for what in ["deployment/web", "statefulset/db"] {
        let words = ["-n", NAMESPACE, "rollout", "status", what, "--timeout=120s"];
        world.node.kubectl(&words);
    }
}

pub(super) fn all(world: &World) {
    world.namespace(NAMESPACE);
    world.node.apply(&workloads());
    are_ready(world);
    for claim in CLAIMS {
        fs::write(
            world.files(NAMESPACE, claim).join("word"),
            format!("of {claim}\n"),
        )
        .unwrap();
    }
    world.create("late", NAMESPACE).ok();
    for claim in CLAIMS {
        let row = world.row("late", claim);
        assert_eq!(row["result"], "saved", "{row:#}");
    }
    world.delete_namespace(NAMESPACE);
    let run = world.restore("late", "late", &[]).ok();
    assert!(!run.stderr.contains("when a pod uses it"), "{}", run.stderr);
    are_ready(world);
    for claim in CLAIMS {
        let word = fs::read_to_string(world.files(NAMESPACE, claim).join("word")).unwrap();
        let app = claim.split('-').nth(1).unwrap_or("web");
        assert_eq!(word, format!("of {claim}\n{app}\n"));
    }
    world.is_bare();
}

/// A restore of a claim that no pod uses.
pub(super) struct Alone(Running);

/// Begins with one.
pub(super) fn without_a_pod(world: &World) -> Alone {
    world.namespace("single");
    world.node.apply(&single("single"));
    world.wait_ready("single", "pod/one");
    let word = world.files("single", "one").join("word");
    fs::write(word, "kept\n").unwrap();
    world.create("single", "single").ok();
    let more = [
        "--namespace-mappings",
        "single:again",
        "--include-resources",
        "persistentvolumeclaims",
    ];
    Alone(world.restore("single", "single", &more).spawn())
}

fn single(namespace: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: one, namespace: {namespace}}}
spec: {{storageClassName: csi-wait, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}
{}",
        user(namespace)
    )
}

/// A pod that uses it.
fn user(namespace: &str) -> Busybox {
    Busybox::new(namespace, "one").claims("data", "one")
}

impl Alone {
    /// It is told, and what it needs stays until a pod uses it: then the same command takes that away.
    pub(super) fn ends(self, world: &World) {
        let run = self.0.wait(PATIENT).code(0);
        assert!(
            run.stderr
                .contains("claim again/one gets its data when a pod uses it"),
            "{}",
            run.stderr
        );
        let pairs = ["get", "volumesnapshots", "-n", "again", "-o", "name"];
        assert_eq!(world.node.kubectl(&pairs).stdout.lines().count(), 1);
        world.node.apply(&user("again").to_string());
        world.wait_ready("again", "pod/one");
        let word = world.files("again", "one").join("word");
        assert_eq!(fs::read_to_string(word).unwrap(), "kept\n");
        let more = [
            "--namespace-mappings",
            "single:again",
            "--include-resources",
            "persistentvolumeclaims",
        ];
        world.restore("single", "single", &more).ok();
        world.is_bare();
    }
}
