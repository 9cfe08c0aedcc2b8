//! The data of volumes comes back into a cluster: into a namespace that is gone, beside the living one, and by runs that are ended in their midst.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::busybox::Busybox;
use harness::node::Node;
use harness::process::Output;
use harness::run::{Backup, Signal};
use harness::wait_for;
use serde_json::Value;

use super::{IMAGE, PATIENT, World, controller, given_up, killed, opened};

/// A set whose pod has a volume of its own, and writes to no other.
fn set(namespace: &str) -> String {
    let pod = Busybox::new(namespace, "db")
        .runs("cat /data/a/b/file > /tmp/seen; while true; do sleep 1; done")
        .mounts("data");
    format!(
        "
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db, namespace: {namespace}}}
spec:
  serviceName: db
  replicas: 1
  selector: {{matchLabels: {{app: db}}}}
  template: {}
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{accessModes: [ReadWriteOnce], storageClassName: local-path, resources: {{requests: {{storage: 64Mi}}}}}}
",
        pod.template()
    )
}

pub(super) const CLAIM: &str = "data-db-0";

/// What an independent lister says of a folder: names, kinds, modes, owners, times, sizes, links, content and attributes.
pub(super) fn seen(folder: &Path) -> String {
    let script = "cd \"$1\" && find . -type f -links +1 -printf '%i %P\\n' | sort | cut -d' ' -f2- && getfattr -R -h -P -d -m - -e hex . 2>/dev/null | grep -v security.selinux";
    let mut command = Command::new("bash");
    command.args(["-c", script, "seen"]).arg(folder);
    super::listed(folder) + &Output::of(&mut command).stdout
}

pub(super) fn restore(world: &World, name: &str, backup: &str, more: &[&str]) -> Backup {
    world
        .call(&["restore", "create", name, "--from-backup", backup])
        .args(&["--mover-image", IMAGE])
        .args(more)
}

fn volume_of(world: &World, namespace: &str, claim: &str) -> Value {
    let claim = world.get(namespace, &format!("pvc/{claim}"));
    let volume = claim["spec"]["volumeName"].as_str().unwrap().to_owned();
    world
        .node
        .kubectl(&["get", "pv", &volume, "-o", "json"])
        .json()
}

/// What a namespace's set is to be, in the cluster's own words.
fn spec(world: &World, namespace: &str) -> Value {
    world.get(namespace, "statefulset/db")["spec"].clone()
}

/// The claim is bound to a volume with this content, and nothing of how it came there is left.
#[track_caller]
pub(super) fn is_whole(world: &World, namespace: &str, wanted: &str) {
    world.wait(namespace, &["db-0"]);
    assert_eq!(world.shell(namespace, "db-0", "cat /tmp/seen"), "text\n");
    assert_eq!(seen(&world.folder(namespace, CLAIM)), wanted);
    let volume = volume_of(world, namespace, CLAIM);
    assert_eq!(volume["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    let left = volume["metadata"]["annotations"].to_string();
    assert!(!left.contains("kubectl-backup/"), "{left}");
    assert_eq!(
        claims(world, namespace),
        [format!("persistentvolumeclaim/{CLAIM}")]
    );
    assert_eq!(world.movers_of(namespace), Vec::<String>::new());
}

pub(super) fn claims(world: &World, namespace: &str) -> Vec<String> {
    let all = world
        .node
        .kubectl(&["-n", namespace, "get", "pvc", "-o", "name"])
        .stdout;
    all.lines().map(str::to_owned).collect()
}

/// Deletes a namespace of which nothing more is wanted; nobody waits for its end.
pub(super) fn delete_namespace(world: &World, namespace: &str) {
    world
        .node
        .kubectl(&["delete", "namespace", namespace, "--wait=false"]);
}

/// A namespace with a set whose volume has files of every sort, one of them of so many megabytes; what is seen of them.
pub(super) fn filled(world: &World, namespace: &str, megabytes: u32) -> String {
    world.namespace(namespace);
    world.node.apply(&set(namespace));
    wait_for("the pod of the set", PATIENT, || {
        let pod = ["-n", namespace, "get", "pod/db-0"];
        (world.node.try_kubectl(&pod).code == 0).then_some(())
    });
    world.wait(namespace, &["db-0"]);
    let script = format!(
        "cd /data; mkdir -p a/b; echo text > a/b/file; dd if=/dev/urandom of=large bs=1M count={megabytes} 2>/dev/null; ln large a/again; ln -s ../no where; \
         chown 77:78 a/b/file; chmod 4711 a/b/file; mkfifo pipe; : > empty; chown 5:6 a; chmod 700 a; truncate -s 3M sparse; touch -d '2001-02-03 04:05:06' empty"
    );
    world.shell(namespace, "db-0", &script);
    let source = world.folder(namespace, CLAIM);
    let mut command = Command::new("setfattr");
    command
        .args(["-n", "user.word", "-v", "kept"])
        .arg(source.join("empty"));
    Output::of(&mut command).ok();
    seen(&source)
}

#[test]
fn the_data_of_volumes_comes_back_with_their_claims_or_no_claim_is_bound() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = World::start();
    let wanted = filled(&world, "shop", 120);
    world.create("first", "shop").ok();

    beside(&world, &wanted);
    shown(&world);
    opened::with_an_identity(&world, &wanted);
    gone(&world, &wanted);
    standing(&world);
    killed(&world, &wanted);
    stopped(&world, &wanted);
    mover_killed(&world, &wanted);
    not_made(&world, &wanted);
    no_space(&world);
    given_up::all(&world);
    killed::after_each_write(&world);
    by_controller(&world, &wanted);
}

/// Into another namespace, beside the living source: that is not touched.
fn beside(world: &World, wanted: &str) {
    let before = volume_of(world, "shop", CLAIM);
    let run = restore(
        world,
        "beside",
        "first",
        &["--namespace-mappings", "shop:copy"],
    )
    .ok();
    is_whole(world, "copy", wanted);
    // Nothing was put into its workload to bring the data back.
    assert_eq!(spec(world, "copy"), spec(world, "shop"));
    let pod = world.get("copy", "pod/db-0");
    assert_eq!(pod["spec"]["initContainers"], Value::Null);
    let after = volume_of(world, "shop", CLAIM);
    assert_eq!(before["spec"], after["spec"]);
    assert_eq!(
        before["metadata"]["resourceVersion"],
        after["metadata"]["resourceVersion"]
    );
    assert_eq!(seen(&world.folder("shop", CLAIM)), wanted);
    assert_ne!(
        volume_of(world, "copy", CLAIM)["metadata"]["name"],
        after["metadata"]["name"]
    );
    // Again: nothing is done twice.
    let again = restore(
        world,
        "beside",
        "first",
        &["--namespace-mappings", "shop:copy"],
    )
    .ok();
    assert!(
        again.stderr.contains("0 created"),
        "{}{}",
        run.stderr,
        again.stderr
    );
    is_whole(world, "copy", wanted);
    delete_namespace(world, "copy");
}

/// Files are looked at without a restore.
fn shown(world: &World) {
    let contents = |words: &[&str]| {
        world.call(&[&["contents", "first", "--volume", "shop/data-db-0"], words].concat())
    };
    let listed = contents(&[]).ok().stdout;
    for part in [
        "-rws--x--x     77     78            5",
        "a/b/file",
        "where -> ../no",
        "prw",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert_eq!(contents(&["a/b/file"]).ok().stdout, "text\n");
    let names = contents(&["-o", "name"]).ok().stdout;
    assert!(names.lines().any(|line| line == "a/again"), "{names}");
    let missing = contents(&["a/none"]).code(1);
    assert!(
        missing.stderr.contains("there is no a/none"),
        "{}",
        missing.stderr
    );
}

/// The namespace is gone, and its volume with it.
fn gone(world: &World, wanted: &str) {
    let source = world.folder("shop", CLAIM);
    let before = spec(world, "shop");
    let words = [
        "delete",
        "namespace",
        "shop",
        "--wait=true",
        "--timeout=120s",
    ];
    world.node.kubectl(&words);
    wait_for("the end of the volume", PATIENT, || {
        (!source.exists()).then_some(())
    });
    restore(world, "back", "first", &[]).ok();
    is_whole(world, "shop", wanted);
    assert_eq!(spec(world, "shop"), before);
}

/// A claim that stands keeps its data, and is named.
fn standing(world: &World) {
    world.shell("shop", "db-0", "echo mine > /data/mine");
    let run = restore(world, "over", "first", &[]).code(3);
    assert!(
        run.stderr.contains("claim shop/data-db-0 stands"),
        "{}",
        run.stderr
    );
    assert_eq!(world.shell("shop", "db-0", "cat /data/mine"), "mine\n");
}

/// Ends a run as soon as something is to be seen.
pub(super) fn killed_when(
    world: &World,
    name: &str,
    namespace: &str,
    what: &str,
    is: &dyn Fn() -> bool,
) {
    let mapping = format!("shop:{namespace}");
    let running = restore(world, name, "first", &["--namespace-mappings", &mapping]).spawn();
    let until = std::time::Instant::now() + Duration::from_secs(120);
    while !is() {
        assert!(
            std::time::Instant::now() < until,
            "{what} was never seen: {}",
            running.stderr()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    running.kill();
}

/// Killed again and again, at every point of the way, one restore comes to its end.
fn killed(world: &World, wanted: &str) {
    let get = |path: &str| {
        let answer = world
            .node
            .client()
            .get(path)
            .ok()
            .filter(|answer| answer.status == 200);
        answer.map(|answer| answer.json())
    };
    let claims = || {
        let list = get("/api/v1/namespaces/killed/persistentvolumeclaims");
        list.and_then(|list| list["items"].as_array().cloned())
            .unwrap_or_default()
    };
    let staging = || {
        let mut all = claims().into_iter();
        all.find(|one| {
            one["metadata"]["name"]
                .as_str()
                .unwrap()
                .starts_with("restore-")
        })
    };
    let real = || {
        claims()
            .into_iter()
            .find(|one| one["metadata"]["name"] == CLAIM)
    };
    let volume = || {
        let name = real()?["spec"]["volumeName"].as_str()?.to_owned();
        get(&format!("/api/v1/persistentvolumes/{name}"))
    };
    let held = || {
        let volume = volume();
        volume.filter(|one| one["metadata"]["annotations"]["kubectl-backup/held-for"].is_string())
    };
    killed_when(world, "killed", "killed", "the staging claim", &|| {
        staging().is_some()
    });
    killed_when(world, "killed", "killed", "the claim", &|| real().is_some());
    let is_filling = || {
        let path = volume().and_then(|one| {
            one["spec"]["hostPath"]["path"]
                .as_str()
                .or(one["spec"]["local"]["path"].as_str())
                .map(str::to_owned)
        });
        path.is_some_and(|path| world.node.path(&path).join("a/again").exists())
    };
    killed_when(world, "killed", "killed", "the data", &is_filling);
    killed_when(world, "killed", "killed", "the note on the volume", &|| {
        held().is_some()
    });
    let before = held().unwrap();
    assert_eq!(before["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(
        before["metadata"]["annotations"]["kubectl-backup/reclaim-policy"],
        "Delete"
    );
    assert_eq!(real().unwrap()["status"]["phase"], "Pending");
    killed_when(
        world,
        "killed",
        "killed",
        "the end of the staging claim",
        &|| staging().is_none(),
    );
    killed_when(world, "killed", "killed", "the binding", &|| {
        volume().is_some_and(|one| one["spec"]["claimRef"]["name"] == CLAIM)
    });
    restore(
        world,
        "killed",
        "first",
        &["--namespace-mappings", "shop:killed"],
    )
    .ok();
    is_whole(world, "killed", wanted);
    delete_namespace(world, "killed");
}

fn until_it_fills(world: &World, namespace: &str) {
    wait_for("data that comes", PATIENT, || {
        let claim = world
            .node
            .try_kubectl(&["-n", namespace, "get", &format!("pvc/{CLAIM}")]);
        (claim.code == 0 && world.folder(namespace, CLAIM).join("a/again").exists()).then_some(())
    });
}

/// A Restore in the cluster does the same, by the controller.
fn by_controller(world: &World, wanted: &str) {
    controller::restores(world, "first", "asked");
    is_whole(world, "asked", wanted);
}

/// Asked to stop, it takes its mover along, binds nothing, and goes on.
fn stopped(world: &World, wanted: &str) {
    let mapping = ["--namespace-mappings", "shop:stopped"];
    let running = restore(world, "stopped", "first", &mapping).spawn();
    until_it_fills(world, "stopped");
    running.signal(Signal::INT);
    let run = running.wait(PATIENT);
    assert_eq!(run.code, 130, "{}", run.stderr);
    // That its mover went is no failure of its data.
    assert!(!run.stderr.contains("stays Pending"), "{}", run.stderr);
    assert!(!run.stderr.contains("broke off"), "{}", run.stderr);
    assert_eq!(world.movers(), Vec::<String>::new());
    assert_eq!(
        world.get("stopped", &format!("pvc/{CLAIM}"))["status"]["phase"],
        "Pending"
    );
    restore(world, "stopped", "first", &mapping).ok();
    is_whole(world, "stopped", wanted);
    delete_namespace(world, "stopped");
}

/// The mover goes in the midst of it: the claim is named and stays as it is, and the same command goes on.
fn mover_killed(world: &World, wanted: &str) {
    let mapping = ["--namespace-mappings", "shop:lost"];
    let running = restore(world, "lost", "first", &mapping).spawn();
    until_it_fills(world, "lost");
    for pod in world.movers() {
        world
            .node
            .kubectl(&["-n", "lost", "delete", pod.as_str(), "--wait=false"]);
    }
    let run = running.wait(Duration::from_secs(300));
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(
        run.stderr.contains("claim lost/data-db-0 stays Pending"),
        "{}",
        run.stderr
    );
    assert_eq!(
        world.get("lost", &format!("pvc/{CLAIM}"))["status"]["phase"],
        "Pending"
    );
    restore(world, "lost", "first", &mapping).ok();
    is_whole(world, "lost", wanted);
    delete_namespace(world, "lost");
}

/// A quota leaves no room for the claim beside the one under which it is filled: neither it nor what uses it is made, and later both are.
fn not_made(world: &World, wanted: &str) {
    world.namespace("tight");
    world.node.apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: q, namespace: tight}, spec: {hard: {persistentvolumeclaims: '1'}}}");
    wait_for("the quota", PATIENT, || {
        let quota = world.get("tight", "resourcequota/q");
        quota["status"]["hard"]["persistentvolumeclaims"]
            .is_string()
            .then_some(())
    });
    let mapping = ["--namespace-mappings", "shop:tight"];
    let run = restore(world, "tight", "first", &mapping).code(3);
    assert!(run.stderr.contains("exceeded quota"), "{}", run.stderr);
    assert!(
        run.stderr
            .contains("StatefulSet tight/db: it uses claim tight/data-db-0"),
        "{}",
        run.stderr
    );
    let made = world
        .node
        .kubectl(&["-n", "tight", "get", "pods,statefulsets", "-o", "name"])
        .stdout;
    assert_eq!(made, "");
    world
        .node
        .kubectl(&["-n", "tight", "delete", "resourcequota", "q"]);
    restore(world, "tight", "first", &mapping).ok();
    is_whole(world, "tight", wanted);
    delete_namespace(world, "tight");
}

/// The volume stands already, with a file of somebody's, and is too small for what it is to hold: both is named, and it is bound to nobody.
fn no_space(world: &World) {
    let folder = "/var/lib/tiny";
    world.node.run_inside(&["mkdir", "-p", folder]).ok();
    world
        .node
        .run_inside(&["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", folder])
        .ok();
    world.node.apply(&format!(
        "
{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: tiny}}, provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer}}
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: tiny}}
spec:
  capacity: {{storage: 64Mi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: tiny
  local: {{path: {folder}}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{}]}}]}}]}}}}
",
        world.node.name()
    ));
    let more = [
        "--namespace-mappings",
        "shop:small",
        "--storage-class-mappings",
        "local-path:tiny",
    ];
    // It has what somebody put there, and no run of this restore: nothing is written over it.
    let mine = format!("{folder}/mine");
    world.node.run_inside(&["touch", &mine]).ok();
    let run = restore(world, "small", "first", &more).code(3);
    assert!(
        run.stderr
            .contains("is not empty, and not this restore's: mine is in it"),
        "{}",
        run.stderr
    );
    let stands = world.node.run_inside(&["ls", folder]).ok().stdout;
    assert_eq!(stands, "mine\n");
    world.node.run_inside(&["rm", &mine]).ok();
    let run = restore(world, "small", "first", &more).code(3);
    assert!(
        run.stderr.contains("No space left on device"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.contains("claim small/data-db-0 stays Pending"),
        "{}",
        run.stderr
    );
    let claim = world.get("small", &format!("pvc/{CLAIM}"));
    assert_eq!(claim["status"]["phase"], "Pending");
    assert_eq!(claim["spec"]["storageClassName"], "tiny");
    // As it was, but for the class of its claims.
    let mut set = spec(world, "small");
    let class = &mut set["volumeClaimTemplates"][0]["spec"]["storageClassName"];
    assert_eq!(*class, "tiny");
    *class = "local-path".into();
    assert_eq!(set, spec(world, "shop"));
    let volume = world
        .node
        .kubectl(&["get", "pv", "tiny", "-o", "json"])
        .json();
    assert_ne!(volume["spec"]["claimRef"]["name"], CLAIM);
    assert_eq!(world.movers(), Vec::<String>::new());
}
