//! `kubectl backup prune` in the repositories of volumes: it says from when on space comes back, and frees it then; where no backup is listed it forgets nothing, and where somebody may be
//! at work it waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::clock::{Clock, age};
use harness::cluster::{Cluster, wait_for};
use harness::run::{Backup, Run, kubectl_backup};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Place, files, noise, text};

const UID: &str = "0b5e";
const PATIENT: Duration = Duration::from_secs(180);

/// A volume of a cluster, and backups of that one which own snapshots of it.
struct Owned {
    place: Place,
    cluster: &'static Cluster,
    clock: Clock,
    /// As its repositories are named.
    volume: String,
}

impl Owned {
    /// One snapshot for each backup, of a folder that holds this many bytes of its own and some that all hold.
    fn by(backups: &[(&str, usize)]) -> (Self, Vec<Value>) {
        let (place, cluster) = (Place::folder(), Cluster::shared());
        let uid = ["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"];
        let volume = format!("{}/shop/{UID}", cluster.kubectl(&uid).stdout);
        let owned = Self {
            place,
            cluster,
            clock: Clock::new(),
            volume,
        };
        let namespace = cluster.create_namespace("pruned");
        let source = owned.place.home.join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("all"), noise(1, 1 << 20)).unwrap();
        let saved = (2..).zip(backups).map(|(seed, (name, own))| {
            owned.call(&["create", name, "-n", &namespace]).ok();
            fs::write(source.join("own"), noise(seed, *own)).unwrap();
            let saved = owned.copy(name, &source).ok().json();
            let row = json!({
                "method": "files", "cluster": owned.volume.split('/').next(), "namespace": "shop", "claimUid": UID, "repository": 1, "snapshot": saved["snapshot"],
            });
            let named =
                json!({"format": "kubectl-backup/snapshots/1", "needs": [], "snapshots": [row]});
            let list = owned.backups().join(name).join("snapshots.json");
            fs::write(list, named.to_string()).unwrap();
            saved
        });
        let saved = saved.collect();
        (owned, saved)
    }

    fn call(&self, words: &[&str]) -> Backup {
        let call = kubectl_backup(words)
            .home(self.place.home.path())
            .kubeconfig(self.cluster.kubeconfig())
            .location(&self.place.location);
        self.clock.of_folders(call)
    }

    /// A copy of a folder as a backup's.
    fn copy(&self, backup: &str, source: &Path) -> Backup {
        let words = ["backup", text(source), &self.volume, "--backup", backup];
        self.clock.of_folders(self.place.mover(&words))
    }

    /// So many hours later; all that it says.
    #[track_caller]
    fn prune(&self, hours: i64) -> String {
        self.clock.is_apart(SignedDuration::from_hours(hours));
        let run: Run = self.call(&["prune", "--yes"]).ok();
        run.stdout + &run.stderr
    }

    fn backups(&self) -> PathBuf {
        self.place.home.join("bucket/backups")
    }

    fn repository(&self, rest: &str) -> PathBuf {
        let folder = self.place.home.join("bucket/restic").join(&self.volume);
        folder.with_file_name(format!("{UID}{rest}"))
    }

    fn packs(&self) -> Vec<PathBuf> {
        let folders = files(&self.repository("/data"));
        folders.iter().flat_map(|folder| files(folder)).collect()
    }

    fn bytes(&self) -> u64 {
        let packs = self.packs().into_iter();
        packs.map(|pack| fs::metadata(pack).unwrap().len()).sum()
    }

    /// These snapshots are there, and no others.
    #[track_caller]
    fn has(&self, saved: &[&Value]) {
        let there = files(&self.repository("/snapshots")).into_iter();
        let there: Vec<_> = there
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        let mut wanted: Vec<_> = saved
            .iter()
            .map(|saved| saved["snapshot"].as_str().unwrap())
            .collect();
        wanted.sort_unstable();
        assert_eq!(there, wanted);
    }
}

/// The time after which it says that space comes back.
#[track_caller]
fn after(said: &str) -> Timestamp {
    let (_, rest) = said
        .split_once("more by a prune after ")
        .unwrap_or_else(|| panic!("{said}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn prune_says_from_when_on_space_comes_back_and_frees_it_then_and_forgets_nothing_where_no_backup_is_listed()
 {
    let (owned, saved) = Owned::by(&[("old", 60 << 20), ("nightly", 1 << 20)]);
    let [old, nightly] = &saved[..] else {
        unreachable!()
    };
    owned.has(&[old, nightly]);
    let before = owned.bytes();
    let told = owned.call(&["delete", "old", "--yes"]).ok().stderr;
    assert!(told.contains("1 snapshot forgotten"), "{told}");
    owned.has(&[nightly]);

    let said = owned.prune(0);
    assert!(said.contains(": 0 B freed, "), "{said}");
    let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    let when = after(&said);
    assert!(hours(23) < when && when < hours(25), "{said}");
    assert!(owned.bytes() >= before);
    let said = owned.prune(23);
    assert!(!said.contains("freed"), "{said}");
    assert!(owned.bytes() >= before);
    let said = owned.prune(25);
    assert!(said.contains(" freed"), "{said}");
    assert!(!said.contains(": 0 B freed"), "{said}");
    let left = owned.bytes();
    assert!(
        left + (20 << 20) < before,
        "{left} bytes are left of {before}"
    );

    // As a store that lists less than it has: however often, and however far apart.
    let hidden = owned.place.home.join("hidden");
    fs::rename(owned.backups(), &hidden).unwrap();
    for later in [26, 51] {
        let said = owned.prune(later);
        let why = "snapshots that no backup names are not looked for: no backup is listed";
        assert!(said.contains(why), "{said}");
        owned.has(&[nightly]);
    }
    let _ = fs::remove_dir(owned.backups());
    fs::rename(&hidden, owned.backups()).unwrap();
    owned.prune(52);
    owned.has(&[nightly]);
    assert_eq!(owned.bytes(), left);
}

#[test]
fn a_repository_in_which_a_backup_was_killed_is_left_alone_until_that_is_surely_dead() {
    let (owned, saved) = Owned::by(&[("nightly", 1 << 20), ("late", 1 << 20), ("gone", 1 << 20)]);
    let [nightly, late, gone] = &saved[..] else {
        unreachable!()
    };
    // Another tool deletes one.
    fs::remove_dir_all(owned.backups().join("gone")).unwrap();
    let said = owned.prune(0);
    assert!(said.contains("1 snapshot that no backup names"), "{said}");

    owned.clock.is_apart(SignedDuration::from_hours(25));
    let large = owned.place.home.join("large");
    fs::create_dir(&large).unwrap();
    for number in 0..3 {
        let path = large.join(number.to_string());
        fs::write(path, noise(number + 10, 40 << 20)).unwrap();
    }
    let known = owned.packs().len();
    let killed = owned.copy("killed", &large).spawn();
    wait_for("a pack", PATIENT, || {
        (owned.packs().len() > known).then_some(())
    });
    killed.kill();
    let claims = || files(&owned.repository(".claims"));
    assert_eq!(claims().len(), 1);

    let told = owned.call(&["delete", "late", "--yes"]).code(3).stderr;
    assert!(told.contains("a backup is at work"), "{told}");
    let said = owned.prune(25);
    assert!(said.contains("stays as it is: "), "{said}");
    assert!(said.contains("a backup is at work"), "{said}");
    owned.has(&[nightly, late, gone]);
    assert_eq!(claims().len(), 1);

    age(&claims()[0], SignedDuration::from_hours(2));
    let said = owned.prune(25);
    assert!(said.contains("1 snapshot forgotten"), "{said}");
    assert!(said.contains("more by a prune after"), "{said}");
    assert!(claims().is_empty());
    owned.has(&[nightly, late]);
}
