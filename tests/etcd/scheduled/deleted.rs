//! What becomes of snapshots when their object is deleted.

use std::time::Duration;

use harness::hosted::Hosted;
use harness::proxy::{Action, Match, Proxy};

use super::place::{LONG, good, settled, snapshots, wait};

fn delete(hosted: &Hosted, name: &str) {
    hosted.hosting.kubectl(&[
        "delete",
        "etcdbackupconfig",
        "-n",
        &hosted.namespace,
        name,
        "--wait=false",
    ]);
}

fn wait_until_gone(hosted: &Hosted, name: &str) {
    hosted.relaunch_until("it to be gone", LONG, || {
        hosted.backup_config(name).is_none().then_some(())
    });
}

fn finalizers(hosted: &Hosted, name: &str) -> usize {
    let config = hosted.backup_config(name).unwrap();
    config["metadata"]["finalizers"]
        .as_array()
        .map_or(0, Vec::len)
}

#[test]
fn snapshots_stay_unless_the_object_says_that_they_go_with_it() {
    let hosted = Hosted::builder().start();
    hosted.apply_backup_config("kept", "destination: s3");
    hosted.apply_backup_config("leaving", "destination: s3, deletionPolicy: Delete");
    let kept = settled(&hosted, "kept", 1);
    let leaving = settled(&hosted, "leaving", 1);
    assert_eq!(
        finalizers(&hosted, "kept"),
        0,
        "nothing is to be waited for"
    );
    assert_eq!(finalizers(&hosted, "leaving"), 1);
    assert_eq!(snapshots(&hosted).len(), 2);
    delete(&hosted, "leaving");
    wait_until_gone(&hosted, "leaving");
    let left = snapshots(&hosted);
    assert_eq!(left, super::place::names(&good(&kept)));
    delete(&hosted, "kept");
    assert!(hosted.backup_config("kept").is_none(), "it goes at once");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(snapshots(&hosted), left);
    // Another object of its name has a list of its own: what was kept is not its to remove.
    hosted.apply_backup_config("kept", "destination: s3, deletionPolicy: Delete");
    settled(&hosted, "kept", 1);
    delete(&hosted, "kept");
    wait_until_gone(&hosted, "kept");
    assert_eq!(snapshots(&hosted), left);
    // Who changes his mind has no finalizer any more.
    hosted.apply_backup_config("undecided", "destination: s3, deletionPolicy: Delete");
    settled(&hosted, "undecided", 1);
    hosted.apply_backup_config("undecided", "destination: s3, deletionPolicy: Retain");
    hosted.relaunch_until("no finalizer", LONG, || {
        (finalizers(&hosted, "undecided") == 0).then_some(())
    });
    drop(leaving);
}

#[test]
fn an_object_whose_bucket_is_gone_goes_all_the_same_and_says_what_stays() {
    let hosted = Hosted::builder().start();
    let proxy = Proxy::start(hosted.minio.upstream());
    hosted.apply_destination("dying", &proxy.url(), &hosted.owner());
    hosted.apply_backup_config("cut", "destination: dying, deletionPolicy: Delete");
    hosted.apply_backup_config("silent", "destination: dying, deletionPolicy: Delete");
    hosted.apply_backup_config("lost", "destination: dying, deletionPolicy: Delete");
    for name in ["cut", "silent", "lost"] {
        settled(&hosted, name, 1);
    }
    let left = snapshots(&hosted);
    let stays = |name: &str, why: &str| {
        delete(&hosted, name);
        wait_until_gone(&hosted, name);
        let events = hosted.events_about(name);
        let said = events.iter().any(|event| {
            event.starts_with("SnapshotsLeft:")
                && event.contains(&format!("{name}-2"))
                && event.contains(why)
        });
        assert!(said, "{events:?}");
        assert_eq!(snapshots(&hosted), left);
    };
    proxy.every(Match::any(), Action::Cut);
    stays("cut", "dying");
    proxy.clear_rules();
    proxy.every(Match::any(), Action::Delay(Duration::from_secs(3600)));
    stays("silent", "dying");
    // The destination itself is gone: KKP's way into objects that can not be deleted.
    hosted.hosting.kubectl(&[
        "delete",
        "backupstoragelocation",
        "-n",
        &hosted.namespace,
        "dying",
    ]);
    stays("lost", "no BackupStorageLocation");
}

#[test]
fn an_object_that_is_deleted_while_its_snapshot_is_taken_takes_it_along() {
    let hosted = Hosted::builder().start();
    let proxy = Proxy::start(hosted.minio.upstream());
    hosted.apply_destination("slow", &proxy.url(), &hosted.owner());
    let is_data = |parts: &harness::proxy::RequestParts| parts.target.contains(".db.zst");
    proxy.every(
        Match::when(is_data).and_method("PUT"),
        Action::Delay(Duration::from_secs(4)),
    );
    hosted.apply_backup_config("hasty", "destination: slow, deletionPolicy: Delete");
    wait(&hosted, "hasty", "a row that runs", |config| {
        super::place::rows(config)
            .iter()
            .any(|row| row["backupPhase"] == "Running")
    });
    delete(&hosted, "hasty");
    wait_until_gone(&hosted, "hasty");
    proxy.clear_rules();
    hosted.relaunch_until("nothing to be left", LONG, || {
        snapshots(&hosted).is_empty().then_some(())
    });
}
