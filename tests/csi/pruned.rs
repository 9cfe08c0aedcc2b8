//! Snapshots go with the backup that expires, or that a request to the controller deletes; and what is not written down any more as it was costs the snapshots, and no backup.

use std::fs;

use harness::node::csi::Knob;
use harness::run::{Running, kubectl_backup};
use harness::store::Minio;
use harness::wait_for;

use super::{BUCKET, NOTES, PATIENT, World};

const NAMESPACE: &str = "kubectl-backup";

/// How the controller looks at locations.
const CONTROLLER: [&str; 2] = ["--store-validation-frequency=1s", "--backup-sync-period=1s"];

/// Where the controller's location notes snapshots.
const NOTED: &str = "main/plugins/kubectl-backup/snapshots/";

/// A claim `shop/data` stands, and no snapshot.
pub(super) fn all(world: &World) {
    world.create("short", "shop").args(&["--ttl=1s"]).ok();
    assert_eq!(world.held(), [world.handle("short", "data")]);
    // It may be of this second still.
    let said = wait_for("an expired backup that is pruned", PATIENT, || {
        let run = world.call(&["prune", "--yes"]).ok();
        run.stdout
            .contains("backup/short pruned")
            .then_some(run.stderr)
    });
    assert!(said.contains("backup/short: 1 snapshot deleted"), "{said}");
    assert_eq!(world.held().len(), 0);
    assert_eq!(world.known(), Vec::<String>::new());
    world.is_bare();
    requested(world);
    spoiled(world);
    truncated(world);
    beyond(world);
}

/// What is written down of a snapshot can not be read any more once its backup stands.
fn truncated(world: &World) {
    world.create("kept", "shop").args(&["--ttl=1s"]).ok();
    let handle = world.handle("kept", "data");
    let inventory = world.minio.list(BUCKET, NOTES).pop().unwrap();
    let whole = world.minio.get(BUCKET, &inventory);
    let half = whole[..whole.len() / 2].to_vec();
    world.minio.put(BUCKET, &inventory, half.clone());
    let key = inventory.strip_prefix("p/").unwrap();
    let names = |said: &str| {
        assert!(said.contains(&handle) && said.contains(key), "{said}");
    };
    // It may be of this second still.
    let said = wait_for("an expired backup that stays", PATIENT, || {
        let run = world.call(&["prune", "--yes"]).code(3);
        let is_named = run.stderr.contains("backup/kept not pruned");
        is_named.then_some(run.stderr)
    });
    names(&said);
    names(&world.call(&["prune", "--dry-run"]).code(3).stderr);
    let refused = world.call(&["delete", "kept", "--yes"]).code(3).stderr;
    assert!(refused.contains("backup/kept is kept"), "{refused}");
    names(&refused);
    world.call(&["verify", "kept"]).ok();
    assert_eq!(world.held(), [&*handle]);
    world.minio.put(BUCKET, &inventory, whole);
    world.call(&["prune", "--yes"]).ok();
    assert_eq!(world.held().len(), 0);
    assert_eq!(world.minio.list(BUCKET, NOTES), [""; 0]);

    // Whoever says so deletes it without them, and hears which stay.
    world.create("forced", "shop").ok();
    let handle = world.handle("forced", "data");
    let inventory = world.minio.list(BUCKET, NOTES).pop().unwrap();
    world.minio.put(BUCKET, &inventory, half);
    let run = world.call(&["delete", "forced", "--yes", "--force"]).ok();
    assert!(run.stderr.contains(&handle), "{}", run.stderr);
    world.call(&["describe", "forced"]).code(1);
    assert_eq!(world.held(), [handle]);
    // What was noted of them went along.
    assert_eq!(world.minio.list(BUCKET, NOTES), [""; 0]);

    // One whose backup nobody knows is named by each prune, until somebody says that it may go.
    let lost = format!("{NOTES}lost.json");
    world.minio.put(BUCKET, &lost, "{");
    let named = world.call(&["prune", "--yes"]).code(3).stderr;
    assert!(named.contains("prune --drop-damaged"), "{named}");
    let dropped = world.call(&["prune", "--yes", "--drop-damaged"]).ok();
    let said = &dropped.stderr;
    assert!(said.contains("lost.json is dropped"), "{said}");
    world.call(&["prune", "--yes"]).ok();
}

/// A backup that is too much of its schedule, and whose snapshot nobody could delete any more, is named after each new one, which is no worse for it.
fn beyond(world: &World) {
    let schedule = format!(
        "{{apiVersion: velero.io/v1, kind: Schedule, metadata: {{name: nightly, namespace: {NAMESPACE}}}, spec: {{schedule: '0 0 1 1 *', template: {{includedNamespaces: [shop], snapshotVolumes: true}}}}}}"
    );
    world.node.apply(&schedule);
    let make = || {
        let words = ["create", "--from-schedule", "nightly", "--keep", "1"];
        let run = world.call(&words).args(&["--velero-namespace", NAMESPACE]);
        run.args(&["-o", "name"]).ok()
    };
    let old = make().stdout.trim().to_owned();
    let inventory = world.minio.list(BUCKET, NOTES).pop().unwrap();
    world.minio.put(BUCKET, &inventory, "{");
    let key = inventory.strip_prefix("p/").unwrap();
    let name = old.strip_prefix("backup/").unwrap();
    let new = make();
    let way_out = format!("kubectl backup delete {name} --force");
    for part in [&*format!("{old} not pruned"), key, &way_out] {
        assert!(new.stderr.contains(part), "{part}: {}", new.stderr);
    }
    let prune = ["prune", "--keep", "1", "--schedule", "nightly", "--yes"];
    world.call(&prune).code(3);
    world.call(&["delete", name, "--yes", "--force"]).ok();
    world.call(&prune).ok();
    let new = new
        .stdout
        .trim()
        .strip_prefix("backup/")
        .unwrap()
        .to_owned();
    world.call(&["delete", &new, "--yes"]).ok();
    assert_eq!(world.minio.list(BUCKET, NOTES), [""; 0]);
    let schedule = ["-n", NAMESPACE, "delete", "schedules.velero.io", "nightly"];
    world.node.kubectl(&schedule);
}

/// Somebody writes over the inventory while the snapshot is made.
fn spoiled(world: &World) {
    let csi = world.csi();
    csi.turn(Knob::HoldReady, "");
    let running = world.create("spoiled", "shop").spawn();
    let inventory = wait_for("an inventory and a snapshot", PATIENT, || {
        let key = world.minio.list(BUCKET, NOTES).pop()?;
        (world.held().len() == 1).then_some(key)
    });
    world.minio.put(BUCKET, &inventory, "{");
    csi.release(Knob::HoldReady);
    let run = running.wait(PATIENT).code(3);
    let said = "shop/data is not saved: its snapshot";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    let row = world.row("spoiled", "data");
    let why = row["why"].as_str().unwrap();
    assert!(why.contains("is removed again"), "{why}");
    assert!(why.contains(inventory.strip_prefix("p/").unwrap()), "{why}");
    assert_eq!(world.held().len(), 0);
    assert_eq!(world.minio.get(BUCKET, &inventory), "{");
    world.is_bare();
    world.call(&["verify", "spoiled"]).ok();
    world.minio.delete(BUCKET, &inventory);
}

fn requested(world: &World) {
    let (minio, bucket) = (Minio::shared(), "snapshots-requested");
    minio.bucket(bucket);
    let apply = |text: String| drop(world.node.apply(&text));
    apply(format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"
    ));
    let keys = format!("--from-file=cloud={}", minio.credentials_file().display());
    let secret = ["create", "secret", "generic", "cloud-credentials"];
    let secret = [&["-n", NAMESPACE][..], &secret, &[&keys]].concat();
    world.node.kubectl(&secret);
    let controller = kubectl_backup(&["controller"])
        .home(world.home.path())
        .kubeconfig(world.node.kubeconfig())
        .args(&CONTROLLER)
        .spawn();
    wait_for("the kinds", PATIENT, || {
        let served =
            world
                .node
                .try_kubectl(&["-n", NAMESPACE, "get", "deletebackuprequests.velero.io"]);
        (served.code == 0).then_some(())
    });
    apply(minio.default_location(NAMESPACE, bucket));
    apply(format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: asked, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [shop], snapshotVolumes: true}}}}"
    ));
    let get = ["-n", NAMESPACE, "get", "backups.velero.io", "asked"];
    let phase = [&get[..], &["-o", "jsonpath={.status.phase}"]].concat();
    wait_for("a backup that is completed", PATIENT, || {
        let said = world.node.try_kubectl(&phase).stdout;
        (said == "Completed").then_some(())
    });
    assert_eq!(world.held().len(), 1);
    let ask = |name: &str| {
        apply(format!(
            "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{backupName: asked}}}}"
        ));
    };
    // What is written down of it can not be read: nothing of it is touched.
    let inventory = minio.list(bucket, NOTED).pop().unwrap();
    let whole = minio.get(bucket, &inventory);
    minio.put(bucket, &inventory, "{");
    ask("unread");
    let refused = wait_for("an answer", PATIENT, || {
        let request = world.get(NAMESPACE, "deletebackuprequests.velero.io/unread");
        (request["status"]["phase"] == "Processed").then(|| request["status"]["errors"].to_string())
    });
    assert!(
        refused.contains(inventory.strip_prefix("main/").unwrap()),
        "{refused}"
    );
    assert_eq!(world.node.try_kubectl(&phase).stdout, "Completed");
    assert_eq!(world.held().len(), 1);
    minio.put(bucket, &inventory, whole);
    ask("asked");
    wait_for("the end of the backup", PATIENT, || {
        (world.node.try_kubectl(&get).code != 0).then_some(())
    });
    assert_eq!(world.held().len(), 0, "{}", controller.stderr());
    assert_eq!(minio.list(bucket, NOTED), [""; 0]);
    world.is_bare();
    let of = Requested { minio, bucket };
    torn(world, &of, &controller);
    drop(controller.kill());
    expired(world, &of);
}

/// Where the controller has its backups.
struct Requested<'a> {
    minio: &'a Minio,
    bucket: &'a str,
}

/// A request of which some of the snapshots are gone already is taken back: the backup can not be restored whole, and is none again.
fn torn(world: &World, of: &Requested<'_>, controller: &Running) {
    let apply = |text: String| drop(world.node.apply(&text));
    world.namespace("torn");
    for claim in ["one", "two"] {
        apply(format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {claim}, namespace: torn}}, spec: {{storageClassName: csi, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 64Mi}}}}}}}}"
        ));
        world.files("torn", claim);
    }
    apply(format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: torn, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [torn], snapshotVolumes: true}}}}"
    ));
    let phase = || world.get(NAMESPACE, "backups.velero.io/torn")["status"]["phase"].clone();
    wait_for("a backup that is completed", PATIENT, || {
        (phase() == "Completed").then_some(())
    });
    // One of the two is lost in its storage, so that it can not be deleted.
    let held = world.held();
    let lost = world.snapshot(&held[1]).files;
    fs::remove_dir_all(lost.parent().unwrap()).unwrap();
    let request = "deletebackuprequests.velero.io/torn";
    let ask = || {
        apply(format!(
            "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: torn, namespace: {NAMESPACE}}}, spec: {{backupName: torn}}}}"
        ));
    };
    ask();
    wait_for("what keeps the backup", PATIENT, || {
        let errors = world.get(NAMESPACE, request)["status"]["errors"].to_string();
        let is_torn = errors.contains(&held[1]) && errors.contains("can not be restored whole");
        is_torn.then_some(())
    });
    assert_eq!(world.held(), [""; 0]);
    world.node.kubectl(&["-n", NAMESPACE, "delete", request]);
    // It goes on without a request, and does not come back.
    let attempts = || controller.stderr().matches("Backup torn: ").count();
    let before = attempts();
    wait_for("an attempt without a request", PATIENT, || {
        (attempts() > before).then_some(())
    });
    assert_eq!(phase(), "Deleting");
    // What is noted of it can not be read any more: nobody goes on with it, and who asks hears how it ends.
    let inventory = of.minio.list(of.bucket, NOTED).pop().unwrap();
    of.minio.put(of.bucket, &inventory, "{");
    let noted = || {
        world.get(NAMESPACE, "backups.velero.io/torn")["metadata"]["annotations"]["kubectl-backup/not-deleted"].to_string()
    };
    wait_for("the end of the attempts", PATIENT, || {
        noted().contains("delete torn --force").then_some(())
    });
    ask();
    let errors = wait_for("an answer", PATIENT, || {
        let request = world.get(NAMESPACE, request);
        (request["status"]["phase"] == "Processed").then(|| request["status"]["errors"].to_string())
    });
    let key = inventory.strip_prefix("main/").unwrap();
    for part in [
        key,
        "delete torn --force",
        "some of its snapshots are deleted already",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(phase(), "Deleting");
    let location = format!("s3://{}/main?endpoint={}", of.bucket, of.minio.endpoint());
    let run = kubectl_backup(&["delete", "torn", "--yes", "--force"])
        .home(world.home.path())
        .kubeconfig(world.node.kubeconfig())
        .location(&location)
        .credentials_of(of.minio)
        .ok();
    assert!(run.stderr.contains(&held[1]), "{}", run.stderr);
    let get = ["-n", NAMESPACE, "get", "backups.velero.io", "torn"];
    wait_for("the end of the backup", PATIENT, || {
        (world.node.try_kubectl(&get).code != 0).then_some(())
    });
    assert_eq!(of.minio.list(of.bucket, NOTED), [""; 0]);
    world.is_bare();
    world.node.kubectl(&["-n", NAMESPACE, "delete", request]);
    world.delete_namespace("torn");
}

/// A backup that is expired, and of whose snapshot nothing can be read, stays and says why.
fn expired(world: &World, of: &Requested<'_>) {
    let start = |flags: &[&str]| {
        // Nobody waits for the Lease of a controller that is gone.
        let lease = ["delete", "lease", "kubectl-backup-controller"];
        world
            .node
            .kubectl(&[&["-n", NAMESPACE][..], &lease].concat());
        kubectl_backup(&["controller"])
            .home(world.home.path())
            .kubeconfig(world.node.kubeconfig())
            .args(&CONTROLLER)
            .args(flags)
            .spawn()
    };
    // It looks for what is expired when it begins, and hourly.
    let controller = start(&[]);
    wait_for("a controller at work", PATIENT, || {
        controller
            .stderr()
            .contains("serving velero.io/v1")
            .then_some(())
    });
    world.node.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: expired, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [shop], snapshotVolumes: true, ttl: 1s}}}}"
    ));
    let backup = || world.get(NAMESPACE, "backups.velero.io/expired");
    wait_for("a backup that is completed", PATIENT, || {
        (backup()["status"]["phase"] == "Completed").then_some(())
    });
    let inventory = of.minio.list(of.bucket, NOTED).pop().unwrap();
    let whole = of.minio.get(of.bucket, &inventory);
    of.minio.put(of.bucket, &inventory, "{");
    drop(controller.kill());
    let held = world.held();
    let controller = start(&["--garbage-collection-frequency=1s"]);
    let key = inventory.strip_prefix("main/").unwrap();
    wait_for("why the backup stays", PATIENT, || {
        let why = backup()["metadata"]["annotations"]["kubectl-backup/kept"].to_string();
        (why.contains(key) && why.contains("delete expired --force")).then_some(())
    });
    assert_eq!(backup()["status"]["phase"], "Completed");
    assert_eq!(world.held(), held);
    of.minio.put(of.bucket, &inventory, whole);
    let get = ["-n", NAMESPACE, "get", "backups.velero.io", "expired"];
    wait_for("the end of the backup", PATIENT, || {
        (world.node.try_kubectl(&get).code != 0).then_some(())
    });
    world.is_bare();
    drop(controller.kill());
}
