//! Keys of repositories for recipients; and the controller, with exactly the rights that it was installed with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use harness::run::kubectl_backup;
use harness::wait_for;
use serde_json::Value;

use super::{BUCKET, IMAGE, PATIENT, World, listed};

pub(super) const NAMESPACE: &str = "kubectl-backup";

pub(super) fn fixture(name: &str) -> String {
    super::fixture(name).display().to_string()
}

impl World {
    /// The claim as its repositories are named.
    pub(super) fn volume(&self, namespace: &str, claim: &str) -> String {
        let uid = |what: &[&str]| {
            let words = [what, &["-o", "jsonpath={.metadata.uid}"]].concat();
            self.node.kubectl(&words).stdout
        };
        let cluster = uid(&["get", "ns", "kube-system"]);
        let claim = uid(&["-n", namespace, "get", "pvc", claim]);
        format!("{cluster}/{namespace}/{claim}")
    }

    /// The snapshots of a claim below this prefix, as the holder of the identity sees them.
    pub(super) fn snapshots(&self, prefix: &str, volume: &str) -> Vec<Value> {
        let run = self.opened(prefix, &["mover", "snapshots", volume]);
        let lines = run.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn opened(&self, prefix: &str, words: &[&str]) -> String {
        let url = format!("s3://{BUCKET}/{prefix}?endpoint={}", self.minio.endpoint());
        let run = self.at(words, &url).credentials_of(&self.minio);
        run.args(&["--identity", &fixture("first.key")]).ok().stdout
    }

    /// Two backups are in one repository, whose key stands for recipients alone, and the files come back with an identity.
    #[track_caller]
    fn are_sealed(&self, prefix: &str, backups: [&str; 2]) {
        let volume = self.volume("shop", "data");
        let snapshots = self.snapshots(prefix, &volume);
        assert_eq!(snapshots.len(), 2, "{snapshots:#?}");
        for (snapshot, backup) in snapshots.iter().zip(backups) {
            assert_eq!(snapshot["repository"], 1);
            let tag = Value::from(format!("backup={backup}"));
            assert!(
                snapshot["tags"].as_array().unwrap().contains(&tag),
                "{snapshot}"
            );
        }
        let key = format!("{prefix}/restic/{volume}.key");
        assert!(self.minio.try_get(BUCKET, &key).is_none());
        assert!(self.minio.try_get(BUCKET, &format!("{key}.age")).is_some());
        let target = self.home.join(format!("opened-{prefix}"));
        fs::create_dir_all(&target).unwrap();
        let id = snapshots[1]["snapshot"].as_str().unwrap();
        let path = target.to_str().unwrap();
        self.opened(
            prefix,
            &["mover", "restore", path, &volume, "--snapshot", id],
        );
        assert_eq!(listed(&target), listed(&self.folder("shop", "data")));
    }
}

/// What a plugin made it adds to, by its cache.
pub(super) fn sealed(world: &World) {
    let url = format!("s3://{BUCKET}/sealed?endpoint={}", world.minio.endpoint());
    for name in ["sealed-1", "sealed-2"] {
        world
            .at(&["create", name, "-n", "shop"], &url)
            .credentials_of(&world.minio)
            .args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE])
            .args(&["--recipients-file", &fixture("first.pub")])
            .ok();
    }
    world.are_sealed("sealed", ["sealed-1", "sealed-2"]);
    let cache = world.home.join(".cache/kubectl-backup/volume-keys");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cache), 0o700);
    let keys: Vec<_> = fs::read_dir(&cache).unwrap().flatten().collect();
    assert_eq!(keys.len(), 1);
    assert_eq!(mode(&keys[0].path()), 0o600);
    installed(world);
}

/// A controller for the bucket below this prefix, which is the name of its location, too.
pub(super) fn install(world: &World, prefix: &str, of_location: &[&str], of_install: &[&str]) {
    let config = format!(
        "s3Url={},region={}",
        world.minio.endpoint(),
        world.minio.region()
    );
    let credentials = world.minio.credentials_file().display().to_string();
    let (bucket, below) = (format!("--bucket={BUCKET}"), format!("--prefix={prefix}"));
    kubectl_backup(&["location", "create", prefix, "--provider=aws"])
        .home(world.home.path())
        .args(&[&bucket, &below, "--config", &config])
        .args(&["--credentials-file", &credentials])
        .args(of_location)
        .ok();
    world
        .at(&["install", "--image", IMAGE, "--wait"], prefix)
        .args(&["--credentials-file", &credentials])
        .args(of_install)
        .ok();
}

/// Until a backup or a restore of the controller has ended; completed.
#[track_caller]
pub(super) fn is_completed(world: &World, kind: &str, name: &str) {
    let ended = wait_for("the end of what the controller does", PATIENT, || {
        let object = world.get(NAMESPACE, &format!("{kind}.velero.io/{name}"));
        let phase = object["status"]["phase"].as_str().unwrap_or_default();
        matches!(
            phase,
            "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation"
        )
        .then_some(object)
    });
    let log = ["-n", NAMESPACE, "logs", "deployment/kubectl-backup"];
    let phase = &ended["status"]["phase"];
    assert_eq!(
        phase,
        "Completed",
        "{ended:#}\n{}",
        world.node.kubectl(&log).stdout
    );
}

/// The controller brings the data of a backup of the plugin's back, as a Restore asks for it, into this namespace.
pub(super) fn restores(world: &World, backup: &str, into: &str) {
    install(world, "p", &[], &[]);
    wait_for("the backup in the cluster", PATIENT, || {
        let name = format!("backups.velero.io/{backup}");
        let found = world.node.try_kubectl(&["-n", NAMESPACE, "get", &name]);
        (found.code == 0).then_some(())
    });
    world.node.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Restore, metadata: {{name: {into}, namespace: {NAMESPACE}}}, spec: {{backupName: {backup}, namespaceMapping: {{shop: {into}}}}}}}"
    ));
    is_completed(world, "restores", into);
}

/// The controller copies with no more rights than it is given without restores, into a location with recipients as well.
fn installed(world: &World) {
    let recipients = fixture("first.pub");
    let of_location = ["--recipients-file", recipients.as_str()];
    install(world, "offsite", &of_location, &["--no-restores"]);
    for name in ["own-1", "own-2"] {
        world.node.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [shop], defaultVolumesToFsBackup: true}}}}"
        ));
        is_completed(world, "backups", name);
    }
    world.are_sealed("offsite", ["own-1", "own-2"]);
    let keys = world.get(NAMESPACE, "secret/kubectl-backup-volume-keys");
    assert_eq!(keys["data"].as_object().unwrap().len(), 1);
    // A backup of everything into a plain location holds none of them.
    assert_eq!(
        keys["metadata"]["labels"]["velero.io/exclude-from-backup"],
        "true"
    );
    // By hand, where nobody names an image, with the one that its movers have.
    world
        .call(&["create", "by-hand", "-n", "shop"])
        .arg("--default-volumes-to-fs-backup")
        .ok();
    world.nothing_is_at_work();
}
