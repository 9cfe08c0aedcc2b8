//! The controller makes snapshots and brings them back, with the rights that it is installed with.

use std::fs;

use harness::run::kubectl_backup;
use harness::wait_for;

use super::{BUCKET, PATIENT, World};
use crate::controller::installed::IMAGE;

const NAMESPACE: &str = "kubectl-backup";

/// Until an object of the controller has ended; completed.
#[track_caller]
fn is_completed(world: &World, kind: &str, name: &str) {
    let ended = wait_for("the end of what the controller does", PATIENT, || {
        let object = world.get(NAMESPACE, &format!("{kind}.velero.io/{name}"));
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        let is_over = ["Completed", "PartiallyFailed", "Failed", "FailedValidation"];
        is_over.contains(&phase).then_some(object)
    });
    let log = ["-n", NAMESPACE, "logs", "deployment/kubectl-backup"];
    assert_eq!(
        ended["status"]["phase"],
        "Completed",
        "{ended:#}\n{}",
        world.node.kubectl(&log).stdout
    );
}

pub(super) fn all(world: &World) {
    let config = format!(
        "s3Url={},region={}",
        world.minio.endpoint(),
        world.minio.region()
    );
    let credentials = world.minio.credentials_file().display().to_string();
    let bucket = format!("--bucket={BUCKET}");
    kubectl_backup(&["location", "create", "own", "--provider=aws", "--prefix=p"])
        .home(world.home.path())
        .args(&[&bucket, "--config", &config])
        .args(&["--credentials-file", &credentials])
        .ok();
    let install = |more: &[&str]| {
        kubectl_backup(&["install", "--image", IMAGE])
            .home(world.home.path())
            .kubeconfig(world.node.kubeconfig())
            .args(more)
            .ok();
    };
    install(&[
        "--wait",
        "--location",
        "own",
        "--credentials-file",
        &credentials,
    ]);
    world.namespace("asked");
    world.node.apply(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data, namespace: asked}
spec: {storageClassName: csi, accessModes: [ReadWriteOnce], resources: {requests: {storage: 64Mi}}}",
    );
    fs::write(world.files("asked", "data").join("word"), "asked").unwrap();
    world.node.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: asked, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [asked], snapshotVolumes: true}}}}"
    ));
    is_completed(world, "backups", "asked");
    let handle = world.handle("asked", "data");
    assert!(world.held().contains(&handle));
    world.is_bare();
    world.delete_namespace("asked");
    world.node.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: asked, namespace: {NAMESPACE}}}, spec: {{backupName: asked}}}}"
    ));
    is_completed(world, "restores", "asked");
    let word = world.files("asked", "data").join("word");
    assert_eq!(fs::read_to_string(word).unwrap(), "asked");
    world.is_bare();
    assert!(world.held().contains(&handle));

    // One that restores nothing may make no content: it says so before anything of the backup is touched.
    install(&["--no-restores", "--wait"]);
    world.node.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: asked, namespace: {NAMESPACE}}}, spec: {{backupName: asked}}}}"
    ));
    let answer = wait_for("an answer to the request", PATIENT, || {
        let request = world.get(NAMESPACE, "deletebackuprequests.velero.io/asked");
        (request["status"]["phase"] == "Processed").then(|| request["status"]["errors"].to_string())
    });
    assert!(
        answer.contains("can not be deleted by this controller"),
        "{answer}"
    );
    is_completed(world, "backups", "asked");
    assert!(world.held().contains(&handle) && world.known().contains(&handle));
    world.is_bare();
}
