//! What becomes of a copy when its backup goes: by hand, by its age, by another tool, by a request to the controller. restic is asked what is left.

use std::fs;

use harness::run::kubectl_backup;
use harness::wait_for;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{BUCKET, PATIENT, World};

impl World {
    /// What restic lists, by id, in the order of time; the repository is sound.
    #[track_caller]
    fn left(&self, row: &Value) -> Vec<String> {
        let said = self.restic(row, &["check", "--read-data"]).ok().stdout;
        assert!(said.contains("no errors were found"), "{said}");
        let all = self.restic(row, &["snapshots", "--json"]).ok().json();
        let ids = all.as_array().unwrap().iter();
        ids.map(|one| one["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A note beside a claim's repository, made so many hours older.
    fn age(&self, key: &str, hours: i64) {
        let mut note: Value = serde_json::from_slice(&self.minio.get(BUCKET, key)).unwrap();
        let seen = &mut note["sightings"][0]["seen"];
        let at: Timestamp = seen.as_str().unwrap().parse().unwrap();
        *seen = (at - SignedDuration::from_hours(hours)).to_string().into();
        self.minio.put(BUCKET, key, note.to_string());
    }
}

fn id(row: &Value) -> &str {
    row["data"][0]["snapshot"].as_str().unwrap()
}

/// Two backups of one claim stand, `first` and `second`.
pub(super) fn all(world: &World) {
    let (first, second) = (world.row("first", "data"), world.row("second", "data"));
    let (one, two) = (id(&first), id(&second));
    assert_eq!(world.left(&second), [one, two]);
    let verified = world.call(&["verify", "first"]).ok();
    assert!(
        verified.stdout.contains("1 snapshot of volumes"),
        "{}",
        verified.stdout
    );
    copied(world);

    let told = world.call(&["delete", "first", "--dry-run"]).ok();
    assert!(
        told.stderr.contains("1 snapshot would be forgotten"),
        "{}",
        told.stderr
    );
    assert_eq!(world.left(&second), [one, two]);
    let told = world.call(&["delete", "first", "--yes"]).ok();
    assert!(
        told.stderr.contains("1 snapshot forgotten"),
        "{}",
        told.stderr
    );
    assert_eq!(world.left(&second), [two]);

    // One whose time is over, and one that another tool deletes.
    for (name, more) in [("short", "--ttl=1s"), ("theirs", "--ttl=1h")] {
        world.create(name, "shop").args(&[more]).ok();
    }
    let (short, theirs) = (world.row("short", "data"), world.row("theirs", "data"));
    assert_eq!(world.left(&second), [two, id(&short), id(&theirs)]);
    for key in world.minio.list(BUCKET, "p/backups/theirs/") {
        world.minio.delete(BUCKET, &key);
    }
    let told = world.call(&["prune", "--yes"]).ok();
    let said = format!("{}{}", told.stdout, told.stderr);
    assert!(said.contains("backup/short pruned (expired)"), "{said}");
    assert!(said.contains("1 snapshot forgotten"), "{said}");
    assert!(said.contains("1 snapshot that no backup names"), "{said}");
    assert_eq!(world.left(&second), [two, id(&theirs)]);
    let place = |what: &str| {
        let keys = world.minio.list(BUCKET, "p/restic/");
        let name = format!("{}.{what}.json", second["claimUid"].as_str().unwrap());
        keys.into_iter().find(|key| key.ends_with(&name)).unwrap()
    };
    assert!(world.minio.try_get(BUCKET, &place("reclaim")).is_some());
    world.age(&place("orphans"), 25);
    let told = world.call(&["prune", "--yes"]).ok();
    assert!(
        told.stdout.contains("1 snapshot forgotten"),
        "{}",
        told.stdout
    );
    assert_eq!(world.left(&second), [two]);
    world.is_in(&second, &world.folder("shop", "data"));

    let repository = place("reclaim").replace(".reclaim.json", "");
    let told = world.call(&["delete", "second", "--yes"]).ok();
    assert!(
        told.stderr.contains("removed with its last 1 snapshot"),
        "{}",
        told.stderr
    );
    assert_eq!(world.minio.list(BUCKET, &repository), [""; 0]);
}

/// Two backups stand in a location with recipients, and two of a controller's.
pub(super) fn elsewhere(world: &World) {
    sealed(world);
    requested(world);
}

/// A copy takes the objects alone.
fn copied(world: &World) {
    let folder = world.home.join("elsewhere");
    fs::create_dir_all(&folder).unwrap();
    let to = format!("file://{}", folder.display());
    let copy = ["copy", "first", "--to", &to];
    let told = world.call(&copy).code(3);
    assert!(
        told.stderr.contains("not in the copy: 1 snapshot"),
        "{}",
        told.stderr
    );
    world.call(&copy).args(&["--without-volumes"]).ok();
    // Nor does it own any.
    world.at(&["delete", "first", "--yes"], &to).ok();
    assert!(!folder.join("restic").exists());
}

/// Whoever has no key deletes all the same, and leaves the space to one who has.
fn sealed(world: &World) {
    let url = format!("s3://{BUCKET}/sealed?endpoint={}", world.minio.endpoint());
    let volume = world.volume("shop", "data");
    let other = world.home.join("other-home");
    fs::create_dir_all(&other).unwrap();
    let told = kubectl_backup(&["delete", "sealed-1", "--yes"])
        .home(&other)
        .kubeconfig(world.node.kubeconfig())
        .location(&url)
        .credentials_of(&world.minio)
        .ok();
    assert!(
        told.stderr.contains("1 snapshot forgotten"),
        "{}",
        told.stderr
    );
    assert!(
        told.stderr.contains("is marked by the next"),
        "{}",
        told.stderr
    );
    assert_eq!(world.snapshots("sealed", &volume).len(), 1);
    // This machine made the key: it opens the repository, in which the other backup needs all of it.
    let told = world
        .at(&["prune", "--yes"], &url)
        .credentials_of(&world.minio)
        .ok();
    assert!(
        told.stderr.contains("nothing is to be freed"),
        "{}",
        told.stderr
    );
}

/// The controller that was installed, whose keys are its own.
fn requested(world: &World) {
    let volume = world.volume("shop", "data");
    let request = json!({
        "apiVersion": "velero.io/v1", "kind": "DeleteBackupRequest",
        "metadata": {"name": "own-1", "namespace": "kubectl-backup"}, "spec": {"backupName": "own-1"},
    });
    world.node.apply(&request.to_string());
    wait_for("one snapshot of two", PATIENT, || {
        (world.snapshots("offsite", &volume).len() == 1).then_some(())
    });
    world.nothing_is_at_work();
}
