mod deletion;
mod expiry;
mod in_storage;
mod keeping;
mod leftovers;
mod restores;

use std::io::Write;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::location::claim::{Claim, Purpose};
use crate::location::sha256;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn gz(text: &str) -> Bytes {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap().into()
}

fn marker(name: &str, expires: Option<Timestamp>) -> String {
    let expires = expires.map_or(String::new(), |at| format!(r#","expiration":"{at}""#));
    format!(
        r#"{{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{{"name":"{name}","annotations":{{"kubectl-backup/version":"0.1.0"}}}},"status":{{"phase":"Completed","startTimestamp":"2026-11-2{}T00:00:00Z"{expires}}}}}"#,
        name.len() % 10
    )
}

/// A backup as a run of ours leaves it.
async fn write(store: &Store, text: &str, expires: Option<Timestamp>) {
    let keys = BackupKeys::new(&name(text));
    let claim = Claim::take(store, &name(text), Purpose::Create, "here")
        .await
        .unwrap();
    let mut digests = Digests::new();
    for key in [keys.archive(), keys.index(), keys.logs()] {
        claim.put(&key, key.clone().into()).await.unwrap();
        digests = digests.add(&key, &sha256(key.as_bytes()));
    }
    let marker = Bytes::from(marker(text, expires));
    let digests = digests.add_bytes(&keys.marker(), &marker);
    claim
        .put(&keys.digests(), digests.to_bytes())
        .await
        .unwrap();
    claim.put_marker(marker).await.unwrap();
    claim.release().await;
}

fn at(now: Timestamp, dry_run: bool) -> PruneOptions<'static> {
    PruneOptions {
        now,
        host: "here",
        dry_run,
        keep: Keep::Unexpired,
        schedule: None,
        cluster: None,
        own_only: false,
        longer: None,
        stopped: None,
        going: None,
        wanted: None,
        heirs: None,
        leaves: None,
    }
}

async fn left(store: &Store, text: &str) -> Vec<String> {
    let folder = BackupKeys::new(&name(text)).folder();
    let found = store.entries(&folder, 100).await.unwrap();
    found
        .into_iter()
        .map(|entry| entry.key[folder.len()..].to_owned())
        .collect()
}

/// A marker of a schedule's backup, so many days old.
fn of_schedule(name: &str, schedule: &str, phase: &str, now: Timestamp, days: i64) -> String {
    let started = now - SignedDuration::from_hours(24 * days);
    format!(
        r#"{{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{{"name":"{name}","labels":{{"{SCHEDULE_NAME}":"{schedule}"}},"annotations":{{"kubectl-backup/version":"0.1.0"}}}},"status":{{"phase":"{phase}","startTimestamp":"{started}","expiration":"{}"}}}}"#,
        started + SignedDuration::from_hours(24 * 5),
    )
}

#[tokio::test]
async fn what_has_a_marker_is_listed_and_what_can_not_be_read_is_a_warning() {
    let store = Store::in_memory();
    write(&store, "bbb", None).await;
    write(&store, "aa", None).await;
    store.put("backups/no-marker/x", "1".into()).await.unwrap();
    store
        .put("backups/broken/velero-backup.json", "{".into())
        .await
        .unwrap();
    store
        .put("backups/liar/velero-backup.json", marker("aa", None).into())
        .await
        .unwrap();
    store
        .put("backups/big/velero-backup.json", vec![b' '; 5 << 20].into())
        .await
        .unwrap();
    store
        .put(
            "backups/deep/velero-backup.json",
            "[".repeat(100_000).into(),
        )
        .await
        .unwrap();
    store
        .put("backups/Bad_Name/velero-backup.json", "{}".into())
        .await
        .unwrap();
    let (found, warnings) = list(&store).await.unwrap();
    let names: Vec<_> = found.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["aa", "bbb"]);
    assert_eq!(warnings.len(), 5, "{warnings:#?}");
    for word in ["broken", "liar", "big", "deep", "Bad_Name"] {
        assert!(
            warnings.iter().any(|warning| warning.contains(word)),
            "{word}"
        );
    }
}

#[tokio::test]
async fn a_name_that_is_not_there_brings_names_like_it() {
    let store = Store::in_memory();
    let error = get(&store, &name("x")).await.unwrap_err();
    assert!(error.hint_text().unwrap().contains("no backups yet"));
    for text in ["nightly-20261120", "nightly-20261121", "before-upgrade"] {
        write(&store, text, None).await;
    }
    assert_eq!(
        get(&store, &name("before-upgrade"))
            .await
            .unwrap()
            .name
            .as_str(),
        "before-upgrade"
    );
    for (asked, hint) in [
        ("before-upgrad", "before-upgrade"),
        ("nightly", "nightly-20261120, nightly-20261121"),
        ("upgrade", "before-upgrade"),
    ] {
        let error = get(&store, &name(asked)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(
            error.hint_text().unwrap().contains(hint),
            "{asked}: {:?}",
            error.hint_text()
        );
    }
    assert!(
        get(&store, &name("zzz"))
            .await
            .unwrap_err()
            .hint_text()
            .unwrap()
            .contains("backup get")
    );
}

#[test]
fn a_backup_that_velero_will_write_again_is_at_work_and_ours_never_is() {
    let of = |text: &str| serde_json::from_str::<Backup>(text).unwrap();
    let ours = marker("one", None).replace("Completed", "Finalizing");
    assert!(!is_at_work(&of(&ours)));
    let theirs = ours.replace("kubectl-backup/", "velero.io/");
    assert!(is_at_work(&of(&theirs)));
    assert!(is_at_work(&of(
        &theirs.replace("Finalizing", "WaitingForPluginOperations")
    )));
    for last in ["Completed", "PartiallyFailed", "Failed", "Deleting"] {
        assert!(
            !is_at_work(&of(&theirs.replace("Finalizing", last))),
            "{last}"
        );
    }
}

#[tokio::test]
async fn what_a_velero_backup_keeps_elsewhere_is_said() {
    let store = Store::in_memory();
    write(&store, "ours", None).await;
    assert!(leaks(&store, &name("ours")).await.unwrap().is_empty());
    let keys = BackupKeys::new(&name("v"));
    for (key, text) in [
        (
            keys.volume_snapshots(),
            r#"[{"status":{"providerSnapshotID":"snap-1"}}]"#,
        ),
        (
            keys.pod_volume_backups(),
            r#"[{"spec":{"pod":{"namespace":"n","name":"p"},"volume":"a"}},{"spec":{"pod":{"namespace":"n","name":"p"},"volume":"b"}}]"#,
        ),
        (
            keys.volume_info(),
            r#"[{"backupMethod":"CSISnapshot","csiSnapshotInfo":{"snapshotHandle":"h"}},{"backupMethod":"CSISnapshot","snapshotDataMoved":true,"pvcName":"data"},{"skipped":true}]"#,
        ),
        (keys.csi_volume_snapshots(), "null"),
    ] {
        store.put(&key, gz(text)).await.unwrap();
    }
    let found = leaks(&store, &name("v")).await.unwrap();
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(
        found[0].contains("snap-1")
            && found[1].contains("n/p a, n/p b")
            && found[2].contains("(h)")
            && found[3].contains("data")
    );
    store
        .put(&keys.volume_info(), "not gzip".into())
        .await
        .unwrap();
    assert_eq!(
        leaks(&store, &name("v")).await.unwrap_err().kind(),
        Kind::Corrupt
    );
    store
        .put(&keys.volume_info(), gz(&" ".repeat(70 << 20)))
        .await
        .unwrap();
    assert_eq!(
        leaks(&store, &name("v")).await.unwrap_err().kind(),
        Kind::Corrupt
    );
}

#[tokio::test]
async fn copies_of_volumes_that_stay_are_said_and_are_no_leak_of_veleros() {
    let store = Store::in_memory();
    assert_eq!(copies_elsewhere(&store, &name("b")).await.unwrap(), None);
    let row = |claim: &str, saved: bool| {
        let data = format!(
            r#","data":[{{"method":"files","source":"live","repository":2,"snapshot":"{}","began":"2026-11-30T10:00:00Z","ended":"2026-11-30T10:00:01Z"}}]"#,
            "a".repeat(64)
        );
        let (result, data) = if saved {
            ("saved", data.as_str())
        } else {
            ("failed", "")
        };
        format!(
            r#"{{"namespace":"n","claim":"{claim}","claimUid":"{claim}","result":"{result}"{data}}}"#
        )
    };
    let put = async |rows: &[String]| {
        let rows = rows.join(",");
        let text =
            format!(r#"{{"format":"kubectl-backup/volumes/1","cluster":"c","volumes":[{rows}]}}"#);
        store
            .put("backups/b/volumes.json", text.into())
            .await
            .unwrap();
    };
    let said = async || copies_elsewhere(&store, &name("b")).await.unwrap();
    put(&[row("x", false)]).await;
    assert_eq!(said().await, None);
    put(&[row("x", false), row("y", true)]).await;
    let one = "1 snapshot of a volume stays in its repository (restic/c/n/y.2/)";
    assert_eq!(said().await.unwrap(), one);
    put(&[row("x", true), row("y", true)]).await;
    let two =
        "2 snapshots of volumes stay in their repositories (restic/c/n/x.2/, restic/c/n/y.2/)";
    assert_eq!(said().await.unwrap(), two);
    assert!(leaks(&store, &name("b")).await.unwrap().is_empty());
    store
        .put("backups/b/volumes.json", "{".into())
        .await
        .unwrap();
    let unread = copies_elsewhere(&store, &name("b")).await.unwrap_err();
    assert_eq!(unread.kind(), Kind::Corrupt);
    assert!(leaks(&store, &name("b")).await.is_err());
}

#[tokio::test]
async fn verify_names_what_was_altered_added_or_lost() {
    let store = Store::in_memory();
    write(&store, "one", None).await;
    let found = verify_files(&store, &name("one"), None).await.unwrap();
    assert_eq!(
        (found.good.len(), found.problems.len(), found.unlisted.len()),
        (4, 0, 0),
        "{found:?}"
    );
    let keys = BackupKeys::new(&name("one"));
    store.put(&keys.claim("x"), "{}".into()).await.unwrap();
    store.put("backups/one/extra", "x".into()).await.unwrap();
    store.put(&keys.archive(), "altered".into()).await.unwrap();
    store.delete(&keys.logs()).await.unwrap();
    let found = verify_files(&store, &name("one"), None).await.unwrap();
    assert_eq!(found.unlisted, ["extra"]);
    assert_eq!(found.problems.len(), 2, "{found:?}");
    assert!(
        found
            .problems
            .iter()
            .any(|p| p.contains("one-logs.gz is missing"))
    );
    assert!(
        found
            .problems
            .iter()
            .any(|p| p.starts_with("one.tar.gz is not"))
    );
    store
        .put(&keys.digests(), Digests::new().to_bytes())
        .await
        .unwrap();
    let found = verify_files(&store, &name("one"), None).await.unwrap();
    assert!(found.problems[0].contains("velero-backup.json is not named"));
    store.delete(&keys.digests()).await.unwrap();
    let found = verify_files(&store, &name("one"), None).await.unwrap();
    assert_eq!(found.problems, ["SHA256SUMS is missing"]);
}

#[test]
fn digests_are_read_as_written_and_nothing_else_is() {
    let digests = Digests::new()
        .add_bytes("b", b"")
        .add("backups/x/a", &sha256(b"1"));
    let text = String::from_utf8(digests.to_bytes().to_vec()).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(
        text.ends_with("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  b\n")
    );
    assert_eq!(Digests::parse(text.as_bytes()).unwrap(), digests);
    let good = sha256(b"1");
    for bad in [
        format!("{good} a"),
        format!("{}  a", &good[1..]),
        format!("{}  a", good.to_uppercase()),
        format!("{good}  ../a"),
        format!("{good}  "),
        format!("{good}  a/b"),
        format!("{good}  a\n{good}  a"),
        "\n".to_owned(),
    ] {
        assert_eq!(
            Digests::parse(bad.as_bytes()).unwrap_err().kind(),
            Kind::Corrupt,
            "{bad:?}"
        );
    }
}
