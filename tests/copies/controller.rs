//! Keys of repositories for recipients; and the controller, with exactly the rights that it was installed with.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use harness::run::kubectl_backup;
use harness::wait_for;
use serde_json::Value;

use super::{BUCKET, IMAGE, PATIENT, World, listed};

const NAMESPACE: &str = "kubectl-backup";

fn fixture(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/encryption");
    folder.join(name).display().to_string()
}

impl World {
    /// The claim as its repositories are named.
    fn volume(&self, namespace: &str, claim: &str) -> String {
        let uid = |what: &[&str]| {
            let words = [what, &["-o", "jsonpath={.metadata.uid}"]].concat();
            self.node.kubectl(&words).stdout
        };
        let cluster = uid(&["get", "ns", "kube-system"]);
        let claim = uid(&["-n", namespace, "get", "pvc", claim]);
        format!("{cluster}/{namespace}/{claim}")
    }

    /// The snapshots of a claim below this prefix, as the holder of the identity sees them.
    fn snapshots(&self, prefix: &str, volume: &str) -> Vec<Value> {
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

/// The controller copies with no more rights than it is given without restores, into a location with recipients as well.
fn installed(world: &World) {
    let config = format!(
        "s3Url={},region={}",
        world.minio.endpoint(),
        world.minio.region()
    );
    let credentials = world.minio.credentials_file().display().to_string();
    let bucket = format!("--bucket={BUCKET}");
    let place = [
        "location",
        "create",
        "offsite",
        "--provider=aws",
        &bucket,
        "--prefix=offsite",
    ];
    kubectl_backup(&place)
        .home(world.home.path())
        .args(&["--config", &config, "--credentials-file", &credentials])
        .args(&["--recipients-file", &fixture("first.pub")])
        .ok();
    world
        .at(
            &["install", "--image", IMAGE, "--no-restores", "--wait"],
            "offsite",
        )
        .args(&["--credentials-file", &credentials])
        .ok();
    for name in ["own-1", "own-2"] {
        world.node.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [shop], defaultVolumesToFsBackup: true}}}}"
        ));
        let ended = wait_for("the end of a backup", PATIENT, || {
            let backup = world.get(NAMESPACE, &format!("backups.velero.io/{name}"));
            let phase = backup["status"]["phase"].as_str().unwrap_or_default();
            matches!(
                phase,
                "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation"
            )
            .then_some(backup)
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
    world.are_sealed("offsite", ["own-1", "own-2"]);
    let keys = world.get(NAMESPACE, "secret/kubectl-backup-volume-keys");
    assert_eq!(keys["data"].as_object().unwrap().len(), 1);
    // A backup of everything into a plain location holds none of them.
    assert_eq!(
        keys["metadata"]["labels"]["velero.io/exclude-from-backup"],
        "true"
    );
    world.nothing_is_at_work();
}
