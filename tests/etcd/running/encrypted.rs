//! A destination with recipients: launchers encrypt what they take, and a restore needs an identity before anything is stopped.

use std::time::Duration;

use harness::hosted::{BUCKET, Hosted};
use harness::run::kubectl_backup;
use serde_json::Value;

use super::place::{LONG, message};
use crate::encryption::{fixture, key};

/// What must be nowhere in the bucket.
const VALUE: &str = "a-value-that-nobody-may-read";

/// The Secret that the launchers' Role lets them read.
const IDENTITY: &str = "etcd-identity";

struct Sealed {
    hosted: Hosted,
}

impl Sealed {
    /// A cluster whose destination has recipients.
    fn new(members: usize) -> Self {
        let hosted = Hosted::builder().members(members).start();
        let recipients = format!(
            "kubectl-backup/recipients={}\n{}",
            key("first.pub"),
            key("ed25519.pub")
        );
        hosted.kubectl(&["annotate", "backupstoragelocation", "s3", &recipients]);
        Self { hosted }
    }

    /// Has a snapshot taken and gives its name.
    fn snapshot(&self, config: &str) -> String {
        let run = self
            .etcd(&["snapshot", config, "--wait", "--timeout", "120s"])
            .ok();
        let line = run.stdout.lines().last().unwrap_or_default();
        let name = line.strip_prefix("snapshot/").unwrap();
        name.split_once(' ').unwrap().0.to_owned()
    }

    fn etcd(&self, arguments: &[&str]) -> harness::run::Backup {
        kubectl_backup(&["etcd", "--cluster", &self.hosted.name])
            .args(arguments)
            .kubeconfig(self.hosted.hosting.kubeconfig())
    }

    /// Changes the annotation of the destination.
    fn recipients(&self, annotation: &str) {
        self.hosted.kubectl(&[
            "annotate",
            "--overwrite",
            "backupstoragelocation",
            "s3",
            annotation,
        ]);
    }

    /// The row of a snapshot that is asked for until it is as is meant: a change of a destination is seen after a while.
    fn row_of(&self, called: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        let number = std::cell::Cell::new(0);
        self.hosted.relaunch_until(called, LONG, || {
            number.set(number.get() + 1);
            let config = format!("{called}-{}", number.get());
            self.hosted.apply_backup_config(&config, "destination: s3");
            std::thread::sleep(Duration::from_secs(5));
            let config = self.hosted.backup_config(&config)?;
            let row = config["status"]["lastBackups"][0].clone();
            is_meant(&row).then_some(row)
        })
    }

    /// Puts an identity into the Secret, in the place of one that is there.
    fn give(&self, identity: &str) {
        let secret = ["secret", "generic", IDENTITY];
        self.hosted
            .kubectl(&["delete", "secret", IDENTITY, "--ignore-not-found"]);
        let file = format!("--from-file=identity={}", fixture(identity).display());
        self.hosted
            .kubectl(&[&["create"][..], &secret, &[&file]].concat());
    }

    /// Asks for a restore with the Secret named.
    fn restore(&self, name: &str, snapshot: &str) {
        let from = ["restore", "create", name, "--from-snapshot", snapshot];
        self.etcd(&from)
            .args(&["--identity-secret", IDENTITY, "--yes"])
            .ok();
    }

    fn pids(&self) -> Vec<Option<u32>> {
        let members = self.hosted.members.iter();
        members.map(|member| member.etcd_pid()).collect()
    }

    /// Nothing in the bucket is a plain database, or tells what is in one.
    #[track_caller]
    fn tells_nothing(&self) {
        let keys = self.hosted.minio.list(BUCKET, "");
        assert!(!keys.is_empty());
        for object in keys {
            let bytes = self.hosted.minio.get(BUCKET, &object);
            for hidden in [VALUE, "/registry/", "etcd-0", "127.0.0.1"] {
                let is_there = bytes
                    .windows(hidden.len())
                    .any(|window| window == hidden.as_bytes());
                assert!(!is_there, "{object} tells {hidden}");
            }
            let clear = ["/manifest.json", ".recipients.txt"];
            if !clear.iter().any(|file| object.ends_with(file)) {
                assert!(object.ends_with(".age"), "{object}");
                assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{object}");
            }
        }
    }

    /// What a restore is refused with, while nothing was stopped.
    #[track_caller]
    fn refused(&self, name: &str, before: &[Option<u32>]) -> String {
        let restore = self.hosted.wait_for_phase(name, "Failed");
        self.hosted.wait_until_settled();
        assert_eq!(self.pids(), before, "etcd was stopped");
        message(&restore).to_owned()
    }
}

#[test]
fn an_encrypted_snapshot_of_a_hosted_cluster_is_restored_with_an_identity_alone() {
    let sealed = Sealed::new(3);
    let hosted = &sealed.hosted;
    for number in 0..50 {
        let key = format!("/registry/secrets/default/s{number}");
        hosted.keys(0).put(&key, VALUE.as_bytes());
    }
    let earlier = hosted.keys(0).list("/");
    let name = sealed.snapshot("nightly");
    sealed.tells_nothing();
    let config = hosted.backup_config("nightly").unwrap();
    let row = &config["status"]["lastBackups"][0];
    assert_eq!(row["revision"], hosted.keys(0).revision(), "{row}");
    assert_eq!(row["hash"], Value::Null, "{row}");
    assert_eq!(row["encryption"], "age", "{row}");
    hosted.keys(0).put("/registry/later", b"1");
    let later = hosted.keys(0).list("/");

    // Nobody is asked to stop before it is known who opens it.
    let pids = sealed.pids();
    hosted.apply_restore("none", &name);
    let told = sealed.refused("none", &pids);
    assert!(told.contains("names no identity"), "{told}");
    sealed.restore("absent", &name);
    let told = sealed.refused("absent", &pids);
    assert!(told.contains(IDENTITY), "{told}");
    sealed.give("second.key");
    sealed.restore("wrong", &name);
    let told = sealed.refused("wrong", &pids);
    assert!(told.contains("no identity that is given fits"), "{told}");
    assert!(!told.contains("AGE-SECRET"), "{told}");
    assert!(told.contains("under the key identity"), "{told}");
    assert!(!told.contains("--identity"), "{told}");
    assert_eq!(hosted.keys(0).list("/"), later);

    // A launcher that is killed when it has looked at the snapshot reads the identity again.
    let killed = &hosted.members[1];
    killed.crash_at(&["Preflight:done", "Planned:done"]);
    killed.stop();
    hosted.wait_until_etcd_serves();
    sealed.give("ed25519");
    sealed.restore("right", &name);
    hosted.wait_for_phase("right", "Completed");
    assert!(killed.has_passed_all(), "{:?}", killed.points_left());
    hosted.wait_until_settled();
    hosted.wait_until_etcd_serves();
    for index in 0..3 {
        assert_eq!(hosted.keys(index).list("/"), earlier, "{index}");
    }
    // The kept state comes back by way of the destination, and is no plainer there.
    hosted.kubectl(&["delete", "secret", IDENTITY]);
    let pids = sealed.pids();
    let back = sealed
        .etcd(&["rollback", "right", "--yes", "-o", "name"])
        .ok();
    let refused = back.stdout.trim().strip_prefix("etcdrestore/").unwrap();
    let told = sealed.refused(refused, &pids);
    assert!(told.contains(IDENTITY), "{told}");
    sealed.give("first.key");
    // Names are made of the second.
    std::thread::sleep(Duration::from_secs(1));
    sealed
        .etcd(&["rollback", "right", "--yes", "--wait", "--timeout", "240s"])
        .ok();
    hosted.wait_until_settled();
    hosted.wait_until_etcd_serves();
    assert_eq!(hosted.keys(0).list("/"), later);
    sealed.tells_nothing();
}

#[test]
fn of_encrypted_snapshots_the_newest_are_kept_and_nothing_of_the_others() {
    let sealed = Sealed::new(1);
    let hosted = &sealed.hosted;
    hosted
        .keys(0)
        .put("/registry/secrets/default/a", VALUE.as_bytes());
    hosted.apply_backup_config("often", "schedule: '@every 1s', keep: 2, destination: s3");
    let mut seen = std::collections::BTreeSet::new();
    hosted.relaunch_until("many snapshots", LONG, || {
        let config = hosted.backup_config("often")?;
        let rows = config["status"]["lastBackups"].as_array()?;
        seen.extend(
            rows.iter()
                .filter_map(|row| row["backupName"].as_str().map(str::to_owned)),
        );
        (seen.len() >= 5).then_some(())
    });
    hosted.apply_backup_config("often", "schedule: '@yearly', keep: 1, destination: s3");
    let folder = format!("plugins/etcd-launcher/{}/", hosted.name);
    let kept = hosted.relaunch_until("one to be kept", LONG, || {
        let keys = hosted.minio.list(BUCKET, &folder);
        (keys.len() == 4).then_some(keys)
    });
    for file in [
        "/manifest.json",
        ".db.zst.age",
        ".key.age",
        ".recipients.txt",
    ] {
        assert!(
            kept.iter().any(|key| key.ends_with(file)),
            "{file}: {kept:?}"
        );
    }
    sealed.tells_nothing();
    let name = kept[0][folder.len()..]
        .split_once('/')
        .unwrap()
        .0
        .to_owned();
    let identity = fixture("first.key").display().to_string();
    // From where the plugin runs, with the user's own identity.
    let verified = sealed
        .etcd(&["verify", &name, "--identity", &identity])
        .ok();
    assert!(verified.stdout.contains("verified"), "{}", verified.stdout);
    let refused = sealed.etcd(&["verify", &name]).code(1);
    assert!(refused.stderr.contains("--identity"), "{}", refused.stderr);
    // A destination whose recipients are a passphrase: the row says why there is no snapshot.
    hosted.kubectl(&[
        "annotate",
        "--overwrite",
        "backupstoragelocation",
        "s3",
        "kubectl-backup/recipients=passphrase",
    ]);
    let row = hosted.relaunch_until("the new recipients to be seen", LONG, || {
        let config = format!("once-{}", seen.len());
        seen.insert(config.clone());
        hosted.apply_backup_config(&config, "destination: s3");
        std::thread::sleep(Duration::from_secs(5));
        let config = hosted.backup_config(&config)?;
        let row = config["status"]["lastBackups"][0].clone();
        (row["backupPhase"] == "Failed").then_some(row)
    });
    let told = row["backupMessage"].as_str().unwrap();
    assert!(told.contains("a launcher knows none"), "{told}");
    // Who replaces the object loses its annotations: nothing is plain by that, but where it is said.
    sealed.recipients("kubectl-backup/recipients-");
    let row = sealed.row_of("lost", |row| {
        row["backupMessage"]
            .as_str()
            .is_some_and(|told| told.contains("lost its recipients"))
    });
    assert_eq!(row["backupPhase"], "Failed", "{row}");
    sealed.tells_nothing();
    sealed.recipients("kubectl-backup/recipients=none");
    let row = sealed.row_of("plain", |row| row["backupPhase"] == "Completed");
    assert_eq!(row["encryption"], Value::Null, "{row}");
    // Where a restore names an identity, a plain one is not what it asks for.
    sealed.give("first.key");
    let pids = sealed.pids();
    let plain = row["backupName"].as_str().unwrap();
    let from = ["restore", "create", "no", "--yes", "--from-snapshot", plain];
    let told = sealed
        .etcd(&from)
        .args(&["--identity", &identity])
        .code(2)
        .stderr;
    assert!(told.contains("kubectl create secret"), "{told}");
    sealed.restore("downgraded", plain);
    let told = sealed.refused("downgraded", &pids);
    assert!(told.contains("is not encrypted"), "{told}");
}
