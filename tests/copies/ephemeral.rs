//! Volumes that one pod alone may have, copied while it uses them: by an ephemeral container of that pod, where somebody asks for that.

use harness::busybox::Busybox;
use harness::node::Node;
use harness::run::{Run, Signal};
use harness::wait_for;
use serde_json::Value;

use super::restored::restore;
use super::{BUCKET, PATIENT, World, bare, claim};

const NAMESPACE: &str = "alone";
const ANNOTATION: &str = "kubectl-backup/ephemeral-movers";

/// A pod that is nobody's root, with hooks.
fn quiet() -> String {
    let says = |word: &str| {
        let script = format!("echo {word} > /data/state; echo {word} >> /tmp/hooks");
        serde_json::json!(["sh", "-c", script]).to_string()
    };
    let (pre, post) = (says("pre"), says("post"));
    let hooks = [
        ("pre.hook.backup.velero.io/command", pre.as_str()),
        ("post.hook.backup.velero.io/command", post.as_str()),
    ];
    let nobody = serde_json::json!({"runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000});
    Busybox::new(NAMESPACE, "db")
        .annotations(&hooks)
        .claims("data", "data")
        .with("securityContext", nobody)
        .to_string()
}

fn db(world: &World) -> Value {
    world.get(NAMESPACE, "pod/db")
}

/// The ephemeral containers of the pod: names and states.
fn containers(world: &World) -> Vec<(String, Value)> {
    let pod = db(world);
    let all = pod["status"]["ephemeralContainerStatuses"].as_array();
    let all = all.into_iter().flatten();
    all.map(|one| {
        let name = one["name"].as_str().unwrap().to_owned();
        (name, one["state"].clone())
    })
    .collect()
}

/// So many, all of which ended well.
#[track_caller]
fn have_ended(world: &World, count: usize) {
    let all = containers(world);
    assert_eq!(all.len(), count, "{all:?}");
    for (name, state) in &all {
        assert_eq!(state["terminated"]["exitCode"], 0, "{name}: {state}");
    }
}

fn annotate(world: &World, value: &str) {
    let words = [
        "-n",
        NAMESPACE,
        "annotate",
        "--overwrite",
        "pod/db",
        &format!("{ANNOTATION}{value}"),
    ];
    world.node.kubectl(&words);
}

#[track_caller]
fn refused(world: &World, run: &Run, backup: &str, why: &[&str]) {
    let row = world.row(backup, "data");
    assert_eq!(row["result"], "failed", "{row:#}");
    for part in why {
        let text = row["why"].as_str().unwrap();
        assert!(text.contains(part), "{part} is missing in {text}");
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
}

#[test]
fn a_volume_that_one_pod_alone_may_have_is_copied_in_that_pod_where_it_is_asked_for() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start();
    world.namespace(NAMESPACE);
    let mode = "accessModes: [ReadWriteOncePod],";
    world
        .node
        .apply(&(claim(NAMESPACE, "data", mode) + &quiet()));
    world.wait(NAMESPACE, &["db"]);
    world.shell(
        NAMESPACE,
        "db",
        "cd /data; mkdir -p a/b; echo text > a/b/file; dd if=/dev/urandom of=large bs=1M count=9 2>/dev/null; ln -s ../no where; chmod 600 a/b/file; chmod 700 a",
    );
    let before = db(&world);

    let run = world.create("unasked", NAMESPACE).code(3);
    let hint = [
        "ReadWriteOncePod",
        "pod db",
        "--ephemeral-movers",
        ANNOTATION,
    ];
    refused(&world, &run, "unasked", &hint);
    have_ended(&world, 0);

    copied(&world);
    again(&world);
    annotate(&world, "=false");
    let run = world
        .create("kept-out", NAMESPACE)
        .args(&["--ephemeral-movers"]);
    let run = run.code(3);
    refused(&world, &run, "kept-out", &["says that it gets none"]);
    annotate(&world, "-");
    have_ended(&world, 2);
    may_not(&world);
    killed(&world);

    let after = db(&world);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let restarts = &after["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(*restarts, 0);
    back(&world);
}

/// By the pod's own word, and between its hooks.
fn copied(world: &World) {
    let claim = world.get(NAMESPACE, "pvc/data")["metadata"]["uid"].clone();
    annotate(world, "=true");
    world.shell(NAMESPACE, "db", "rm /tmp/hooks");
    let run = world.create("first", NAMESPACE).ok();
    let row = world.row("first", "data");
    let said = (&row["result"], &row["hooks"], &row["data"][0]["way"]);
    assert_eq!(said, (&"saved".into(), &"done".into(), &"exec".into()));
    let snapshot = row["data"][0]["snapshot"].as_str().unwrap();
    let state = ["dump", snapshot, "/data/state"];
    assert_eq!(world.restic(&row, &state).ok().stdout, "pre\n");
    assert_eq!(
        world.shell(NAMESPACE, "db", "cat /tmp/hooks"),
        "pre\npost\n"
    );
    have_ended(world, 1);
    let (name, _) = &containers(world)[0];
    assert!(run.stderr.contains(name.as_str()), "{}", run.stderr);
    let key = "p/backups/first/volumes.json";
    let all: Value = serde_json::from_slice(&world.minio.get(BUCKET, key)).unwrap();
    let run = all["run"].as_str().unwrap();
    assert!(name.contains(run), "{name} is not of run {run}");
    let now = &world.get(NAMESPACE, "pvc/data")["metadata"]["uid"];
    assert_eq!(*now, claim);
    world.nothing_is_at_work();
    annotate(world, "-");
}

/// By the word of the backup, in the same pod, onto what is there.
fn again(world: &World) {
    let run = world
        .create("second", NAMESPACE)
        .args(&["--ephemeral-movers"]);
    run.ok();
    let (row, first) = (world.row("second", "data"), world.row("first", "data"));
    assert_eq!(row["data"][0]["base"], first["data"][0]["snapshot"]);
    have_ended(world, 2);
    world.nothing_is_at_work();
}

/// A namespace that allows no such container, and somebody who may not make one: named, and nothing is added to the pod.
fn may_not(world: &World) {
    let label = "pod-security.kubernetes.io/enforce";
    let labelled = |value: &str| {
        let value = format!("{label}{value}");
        let words = ["label", "--overwrite", "ns", NAMESPACE, &value];
        world.node.kubectl(&words);
    };
    labelled("=restricted");
    let run = world
        .create("strict", NAMESPACE)
        .args(&["--ephemeral-movers"]);
    let why = ["ephemeral container", "violates PodSecurity", "baseline"];
    refused(world, &run.code(3), "strict", &why);
    labelled("-");
    world.node.apply(
        "
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: copies}, rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list]},
 {apiGroups: [''], resources: [pods, pods/exec], verbs: [create, delete, get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: copies}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: copier}],
 roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: copies}}
",
    );
    let run = world.create("rights", NAMESPACE);
    let run = run.args(&["--ephemeral-movers", "--as", "copier"]);
    refused(
        world,
        &run.code(3),
        "rights",
        &["patch pods/ephemeralcontainers"],
    );
    have_ended(world, 2);
}

/// The container of a run that was killed stands in no other's way, and ends by itself.
fn killed(world: &World) {
    // Nothing changes the volume from now on.
    for hook in ["pre", "post"] {
        let hook = format!("{hook}.hook.backup.velero.io/command-");
        let words = ["-n", NAMESPACE, "annotate", "pod/db", &hook];
        world.node.kubectl(&words);
    }
    world.shell(
        NAMESPACE,
        "db",
        "for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=/data/$i bs=1M count=25 2>/dev/null; done",
    );
    let packs = || {
        let keys = world.minio.list(BUCKET, "p/restic/");
        keys.iter().filter(|key| key.contains("/data/")).count()
    };
    let some = packs();
    let running = world
        .create("dead", NAMESPACE)
        .args(&["--ephemeral-movers"]);
    let running = running.spawn();
    let seen = bare::seen_inside(world, NAMESPACE, "send");
    wait_for("a copy that is under way", PATIENT, || {
        (packs() > some).then_some(())
    });
    running.kill();
    let volume = world.volume(NAMESPACE, "data");
    let password = world.password(&format!("p/restic/{volume}"));
    let store = [world.minio.access_key(), world.minio.secret_key()];
    seen.has_none_of(&[store[0], store[1], &password], &[]);
    let at_work = || {
        let all = containers(world).into_iter();
        let runs = all.filter(|(_, state)| state["running"].is_object());
        runs.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(at_work().len(), 1);
    world
        .create("beside", NAMESPACE)
        .args(&["--ephemeral-movers"])
        .ok();
    assert_eq!(at_work().len(), 1, "the other run's is the other run's");
    world.is_in(
        &world.row("beside", "data"),
        &world.folder(NAMESPACE, "data"),
    );
    // As its own clock would do.
    assert_eq!(world.node.signal_all("mover\0hold\0", Signal::TERM), 1);
    wait_for("the end of the dead run's container", PATIENT, || {
        at_work().is_empty().then_some(())
    });
    have_ended(world, 4);
}

/// A pod that had ephemeral containers comes back without any, with its data.
fn back(world: &World) {
    world
        .create("last", NAMESPACE)
        .args(&["--ephemeral-movers"])
        .ok();
    let mapping = format!("{NAMESPACE}:again");
    restore(world, "again", "last", &["--namespace-mappings", &mapping]).ok();
    world.wait("again", &["db"]);
    let text = world.shell("again", "db", "cat /data/a/b/file");
    assert_eq!(text, "text\n");
    let pod = world.get("again", "pod/db");
    assert_eq!(pod["spec"]["ephemeralContainers"], Value::Null);
    let modes = &world.get("again", "pvc/data")["spec"]["accessModes"];
    assert_eq!(*modes, serde_json::json!(["ReadWriteOncePod"]));
}
