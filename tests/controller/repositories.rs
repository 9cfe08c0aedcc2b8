//! What is done in repositories of volumes gives way: to a backup of the controller that is due, and to whoever stops it.

use std::fs;
use std::path::Path;

use harness::clock::Clock;
use harness::process::Folder;
use harness::proxy::{Gate, Match, Proxy};
use harness::repositories::{Bucket, Repositories};
use harness::run::{Backup, Signal, kubectl_backup};
use harness::store::Minio;
use harness::wait_for;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{NAMESPACE, PATIENT, Served};

const UID: &str = "0b5e";

/// A volume of the cluster with two snapshots: a backup names the first, and the other one is an orphan since yesterday.
struct Volume {
    cluster: String,
    stays: String,
    goes: String,
}

/// The program, with the location at this address of the store.
fn call(served: &Served, words: &[&str], endpoint: &str, home: &Path) -> Backup {
    kubectl_backup(words)
        .home(home)
        .kubeconfig(served.cluster.kubeconfig())
        .location(&format!("s3://{}/main?endpoint={endpoint}", served.bucket))
        .credentials_of(served.minio)
}

impl Volume {
    fn new(served: &Served, backup: &str) -> Self {
        let uid = ["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"];
        let cluster = served.cluster.kubectl(&uid).stdout;
        let home = Folder::new("volumes");
        let name = format!("{cluster}/shop/{UID}");
        let snapshot = |text: &str| {
            let source = home.join(text);
            fs::create_dir(&source).unwrap();
            fs::write(source.join(text), text.repeat(100_000)).unwrap();
            let path = source.to_str().unwrap();
            let words = ["mover", "backup", path, &name, "--backup", backup];
            let saved = call(served, &words, served.minio.endpoint(), home.path());
            let saved = saved.ok().json();
            saved["snapshot"].as_str().unwrap().to_owned()
        };
        let volume = Self {
            stays: snapshot("stays"),
            goes: snapshot("goes"),
            cluster,
        };
        let row = json!({"method": "files", "cluster": volume.cluster, "namespace": "shop", "claimUid": UID, "repository": 1, "snapshot": volume.stays});
        let named =
            json!({"format": "kubectl-backup/snapshots/1", "needs": [], "snapshots": [row]});
        let key = format!("main/backups/{backup}/snapshots.json");
        served.minio.put(&served.bucket, &key, named.to_string());
        let seen = (Timestamp::now() - SignedDuration::from_hours(25)).to_string();
        let sighting = json!({"seen": seen, "runs": [], "snapshots": [volume.goes]});
        let note = json!({"format": "kubectl-backup/orphans/1", "sightings": [sighting]});
        let key = format!("{}.orphans.json", volume.folder());
        served.minio.put(&served.bucket, &key, note.to_string());
        volume
    }

    fn folder(&self) -> String {
        format!("main/restic/{}/shop/{UID}", self.cluster)
    }

    fn snapshots(&self, served: &Served) -> Vec<String> {
        let folder = format!("{}/snapshots/", self.folder());
        let keys = served.minio.list(&served.bucket, &folder).into_iter();
        keys.map(|key| key[folder.len()..].to_owned()).collect()
    }

    /// restic finds no fault in it.
    #[track_caller]
    fn is_whole(&self, served: &Served) {
        let bucket = Bucket::Minio(served.minio, &served.bucket);
        Repositories::default().all_are_whole(bucket);
    }

    /// Nobody is at work in it.
    #[track_caller]
    fn is_unclaimed(&self, served: &Served) {
        let folder = format!("{}.claims/", self.folder());
        assert_eq!(served.minio.list(&served.bucket, &folder), [""; 0]);
    }
}

/// Writes of an index: the midst of a prune, whose claim stands.
fn index() -> Match {
    Match::method("PUT").and_path(&format!("/{UID}/index/"))
}

#[test]
fn a_prune_gives_way_to_a_backup_that_is_due_and_nothing_is_forgotten_beside_one() {
    let store = Proxy::start(Minio::shared().upstream());
    let flags = [
        "--backup-sync-period=1s",
        "--store-validation-frequency=1s",
        "--garbage-collection-frequency=1s",
        "--concurrent-backups=1",
    ];
    let mut served = Served::start_through(&store.url(), "controller-repositories", &flags);
    served.backed_up("a", "default");
    drop(served.controller.take().unwrap().kill());
    served.forget_the_lease();
    let volume = Volume::new(&served, "a");

    // A controller that ends takes its claim along, and the next one goes on.
    let key = Match::method("GET").and_path(&format!("/{UID}/keys/"));
    let gate = Gate::before(&store, key);
    let ending = served.call(&flags).spawn();
    wait_for("a prune that begins", PATIENT, || {
        (gate.reached() > 0).then_some(())
    });
    ending.signal(Signal::TERM);
    wait_for("a controller that stops", PATIENT, || {
        ending.stderr().contains("stopping").then_some(())
    });
    gate.open();
    let ended = ending.wait(PATIENT).ok();
    let said = ended.stderr;
    assert!(said.contains("the prune was stopped"), "{said}");
    volume.is_unclaimed(&served);

    let gate = Gate::before(&store, index());
    let clock = Clock::new();
    served.controller = Some(clock.of(served.call(&flags)).spawn());
    wait_for("a prune in its midst", PATIENT, || {
        (gate.reached() > 0).then_some(())
    });
    assert_eq!(volume.snapshots(&served), [volume.stays.as_str()]);
    served.backup("due", "default");
    wait_for("a backup that waits", PATIENT, || {
        served.log().contains("backup due waits").then_some(())
    });
    gate.open();
    served.ends("due", "Completed");
    wait_for("the end of the prune", PATIENT, || {
        served.log().contains("more by a prune after").then_some(())
    });
    let log = served.log();
    let at = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}: {log}"));
    assert!(
        at("the prune was stopped") < at("backup due begins"),
        "{log}"
    );
    assert!(
        at("backup due: Completed") < at("more by a prune after"),
        "{log}"
    );
    volume.is_unclaimed(&served);
    volume.is_whole(&served);

    waits_for_one_at_work(&served, &store, &volume, &clock);
}

/// What a backup owned that is deleted meanwhile is forgotten when one that is at work there is done. One that waits for its place, as there is work elsewhere, holds it up no longer than a minute.
fn waits_for_one_at_work(served: &Served, store: &Proxy, volume: &Volume, clock: &Clock) {
    let marker = |of: &str| {
        let key = format!("/{of}/velero-backup.json");
        Gate::before(store, Match::method("PUT").and_path(&key))
    };
    let (here, elsewhere) = (marker("main/backups/slow"), marker("other/backups/first"));
    let in_its_midst = |gate: &Gate| {
        wait_for("a backup in its midst", PATIENT, || {
            (gate.reached() > 0).then_some(())
        });
    };
    served.location_at(&store.url(), "other", "other", false);
    served.wait("backupstoragelocations/other", "available", |object| {
        object["status"]["phase"] == "Available"
    });
    served.backup("slow", "default");
    in_its_midst(&here);
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: DeleteBackupRequest, metadata: {{name: a, namespace: {NAMESPACE}}}, spec: {{backupName: a}}}}"
    ));
    served.goes("backups/a");
    served.goes("deletebackuprequests/a");
    assert_eq!(volume.snapshots(served), [volume.stays.as_str()]);
    served.apply(&format!(
        "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: first, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default], storageLocation: other}}}}"
    ));
    served.backup("waits", "default");
    here.open();
    served.ends("slow", "Completed");
    in_its_midst(&elsewhere);
    clock.is_apart(SignedDuration::from_mins(2));
    wait_for("the end of the repository", PATIENT, || {
        let left = served.minio.list(&served.bucket, &volume.folder());
        left.is_empty().then_some(())
    });
    served.ends("waits", "Queued");
    elsewhere.open();
    served.ends("waits", "Completed");
}

#[test]
fn a_prune_and_a_deletion_that_are_interrupted_withdraw_their_claims_and_tell_what_stays() {
    let served = Served::without_controller("prune-interrupted");
    let store = Proxy::start(served.minio.upstream());
    let home = Folder::new("home");
    let call = |words: &[&str]| call(&served, words, &store.url(), home.path());
    call(&["create", "a", "-n", "default"]).ok();
    let volume = Volume::new(&served, "a");
    let stopped = |words: &[&str], when: Match| {
        let gate = Gate::before(&store, when);
        let running = call(words).spawn();
        wait_for("work in the repository", PATIENT, || {
            (gate.reached() > 0).then_some(())
        });
        running.signal(Signal::INT);
        wait_for("a call that stops", PATIENT, || {
            running.stderr().contains("stopping; ").then_some(())
        });
        gate.open();
        let run = running.wait(PATIENT).code(130);
        store.clear_rules();
        volume.is_unclaimed(&served);
        run.stderr
    };
    let said = stopped(&["prune", "--yes"], index());
    assert!(
        said.contains("stays as it is: the prune was stopped"),
        "{said}"
    );
    let again = call(&["prune", "--yes"]).ok();
    let said = again.stderr;
    assert!(said.contains("more by a prune after"), "{said}");
    assert_eq!(volume.snapshots(&served), [volume.stays.as_str()]);

    let claim = Match::method("PUT").and_path(&format!("/{UID}.claims/"));
    let said = stopped(&["delete", "a", "--yes"], claim);
    assert!(said.contains("stays as it is: it was stopped"), "{said}");
    assert_eq!(volume.snapshots(&served), [volume.stays.as_str()]);
    volume.is_whole(&served);
}
