//! Bad input of every kind, one restore after the other on one cluster: phase, condition and message say what is wrong and what to do, and nothing is
//! stopped or scaled for it.

use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use harness::etcd::{Etcd, Version};
use harness::hosted::{BUCKET, Hosted};
use harness::mounts;
use harness::wait_for;
use serde_json::Value;

use super::place::{LONG, Place, SNAPSHOT, condition, message};

/// A database may have so many bytes here.
const QUOTA: usize = 32 << 20;

/// What a restore that is refused must not change: the process of etcd, and the generations of what would be scaled.
fn running(place: &Place) -> (Option<u32>, Vec<Value>) {
    let generations = ["apiserver", "controller-manager", "scheduler"].map(|name| {
        let namespace = &place.namespace;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
        place.hosting_object(&path).unwrap()["metadata"]["generation"].clone()
    });
    (place.members[0].etcd_pid(), generations.into())
}

/// Waits until a restore is refused: with these words, in its message and in its condition, and with no finalizer.
#[track_caller]
fn assert_refused(place: &Place, name: &str, words: &[&str]) {
    let restore = place.wait_for_phase(name, "Failed");
    let told = message(&restore);
    for word in words {
        assert!(told.contains(word), "{name}: no {word:?} in {told:?}");
    }
    let restored = condition(&restore, "Restored").unwrap();
    assert_eq!(restored["status"], "False", "{name}");
    assert_eq!(restored["reason"], "Failed", "{name}");
    assert_eq!(restored["message"], *told, "{name}");
    assert_eq!(restore["metadata"]["finalizers"], Value::Null, "{name}");
}

/// The same of one that is applied now.
#[track_caller]
fn refused(place: &Place, name: &str, backup: &str, words: &[&str]) {
    let before = running(place);
    place.apply_restore(name, backup);
    assert_refused(place, name, words);
    assert_eq!(running(place), before, "{name}");
}

/// A snapshot's database with so many bytes, and the digest behind it.
fn padded(snapshot: &[u8], bytes: usize) -> Vec<u8> {
    let mut database = snapshot[..snapshot.len() - 32].to_vec();
    database.resize(bytes, 0);
    let sum = digest(&SHA256, &database);
    database.extend(sum.as_ref());
    database
}

/// A snapshot of the launcher's own, of which the store has lost a bit since; gives its name.
fn rotten(place: &Place) -> String {
    place.apply_backup_config("own", "destination: s3");
    let name = place.relaunch_until("the snapshot", LONG, || {
        let config = place.backup_config("own")?;
        let row = &config["status"]["lastBackups"][0];
        let name = row["backupName"].as_str()?.to_owned();
        (row["backupPhase"] == "Completed").then_some(name)
    });
    let folder = format!("plugins/etcd-launcher/{}/{name}/", place.name);
    let keys = place.minio.list(BUCKET, &folder);
    let key = keys.iter().find(|key| key.contains(".db")).unwrap();
    let mut bytes = place.minio.get(BUCKET, key).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.minio.put(BUCKET, key, bytes);
    name
}

fn started_35() -> Place {
    let mut place = Place::with(Hosted::builder().version(Version::V3_5));
    let quota = format!("--quota-backend-bytes={QUOTA}");
    place.how.etcd_flags.push(quota);
    place.start_again();
    place
}

#[test]
fn what_is_no_snapshot_of_this_cluster_is_refused_with_a_reason() {
    let place = started_35();
    let whole = fs::read(place.folder().join("snapshot.db")).unwrap();
    let of = |version: Version| {
        let other = Etcd::builder().version(version).start();
        other.put("/registry/foreign", "x");
        fs::read(other.save_snapshot("other.db")).unwrap()
    };
    let mut bent = whole.clone();
    bent[5000] ^= 1;
    for (name, bytes) in [
        ("damaged", vec![7; 40960]),
        ("empty", Vec::new()),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("bent", bent),
        ("foreign", of(Version::V3_5)),
        ("newer", of(Version::V3_6)),
        ("oversized", padded(&whole, QUOTA + 4096)),
    ] {
        place.store_snapshot(name, &bytes);
    }
    let key = |name: &str| format!("{}-{name}.db.gz", place.name);
    place.minio.put(BUCKET, &key("nothing"), Vec::new());
    let packed = place.minio.get(BUCKET, &key(SNAPSHOT));
    let half = packed.slice(..packed.len() / 2);
    place.minio.put(BUCKET, &key("half"), half);
    let rotten = rotten(&place);
    // These keys are known, and may list and read everything but what counts.
    let user = place.minio.limited_user(&format!(
        r#"{{"Version": "2012-10-17", "Statement": [
            {{"Effect": "Allow", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"]}},
            {{"Effect": "Deny", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::{BUCKET}/*.db.*"]}}]}}"#
    ));
    let credentials = fs::read_to_string(&user.credentials_file).unwrap();
    place.apply_destination("guarded", place.minio.endpoint(), &credentials);

    let before = running(&place);
    let all: [(&str, &str, &[&str]); 11] = [
        ("absent", "absent", &["absent", "no snapshot"]),
        ("damaged", "damaged", &["no database of etcd"]),
        ("empty", "empty", &["empty"]),
        ("nothing", "nothing", &["empty"]),
        ("cut", "cut", &["cut"]),
        ("half", "half", &["cut"]),
        ("bent", "bent", &["another snapshot"]),
        ("rotten", &rotten, &["another snapshot"]),
        (
            "foreign",
            "foreign",
            &["another cluster", "every member stopped"],
        ),
        (
            "newer",
            "newer",
            &["etcd 3.6", "etcd 3.5", "upgrade etcd first"],
        ),
        (
            "oversized",
            "oversized",
            &["33 MiB", "32 MiB", "--quota-backend-bytes"],
        ),
    ];
    for (name, backup, _) in all {
        place.apply_restore(name, backup);
    }
    place.apply_restore_from("guarded", "guarded", &rotten);
    place.apply_restore_from("guarded", "guarded-kkps", SNAPSHOT);
    for (name, _, words) in all {
        assert_refused(&place, name, words);
    }
    for name in ["guarded", "guarded-kkps"] {
        assert_refused(&place, name, &["the store answered 403", "location's"]);
    }
    assert_eq!(running(&place), before);
    place.assert_put_back();
    assert!(!place.is_restored());
    // Nothing of them is in the way of a good one.
    place.restore_well("restored");
}

#[test]
fn an_etcd_that_can_not_be_restored_as_it_is_run_is_told_so() {
    let mut place = Place::of(1);
    let root = "--user=root:secret";
    place.etcdctl(&["user", "add", "root:secret"]);
    place.etcdctl(&["user", "grant-role", "root", "root"]);
    place.etcdctl(&["auth", "enable"]);
    refused(
        &place,
        "guarded",
        SNAPSHOT,
        &["authentication", "auth disable"],
    );
    let file = place.folder().join("guarded.db");
    place.etcdctl(&[root, "snapshot", "save", file.to_str().unwrap()]);
    place.etcdctl(&[root, "auth", "disable"]);
    place.store_snapshot("with-users", &fs::read(file).unwrap());
    let words = ["authentication", "every member stopped"];
    refused(&place, "with-users", "with-users", &words);
    place.assert_put_back();
    assert!(!place.is_restored());

    // The log on another volume: half of the state would stay where it is.
    let log = place.members[0].data_dir().join("member/wal");
    let elsewhere = place.folder().join("log");
    place.members[0].stop();
    fs::rename(&log, &elsewhere).unwrap();
    let flag = format!("--wal-dir={}", elsewhere.display());
    place.how.etcd_flags.push(flag);
    place.launch(0);
    let words = ["--wal-dir", elsewhere.to_str().unwrap(), "member/wal"];
    let told = place.relaunch_until("the launcher's word", LONG, || {
        let told = place.members[0].state()?["message"].as_str()?.to_owned();
        told.contains("--wal-dir").then_some(told)
    });
    for word in words {
        assert!(told.contains(word), "{told}");
    }
    refused(&place, "foreign-log", SNAPSHOT, &words);
    assert!(!log.exists() && place.members[0].etcd_pid().is_none());
    place.members[0].stop();
    fs::rename(&elsewhere, &log).unwrap();
    place.how.etcd_flags.pop();
    place.start_again();
    assert!(!place.is_restored());

    // As KKP named a bucket once. The launcher may read what its Role names, and this one is not among it.
    place.hosting.apply(&format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: older, namespace: {namespace}}}
stringData: {{ACCESS_KEY_ID: {}, SECRET_ACCESS_KEY: {}, BUCKET_NAME: {BUCKET}, ENDPOINT: '{}'}}
",
        place.minio.access_key(),
        place.minio.secret_key(),
        place.minio.endpoint(),
        namespace = place.namespace,
    ));
    let apply = |name: &str| {
        place.hosting.apply(&format!(
            "{{apiVersion: kubermatic.k8c.io/v1, kind: EtcdRestore, metadata: {{name: {name}, namespace: {}}},
              spec: {{cluster: {{name: {}}}, backupName: {SNAPSHOT}, backupDownloadCredentialsSecret: older}}}}",
            place.namespace, place.name
        ));
    };
    let before = running(&place);
    apply("unreadable");
    assert_refused(&place, "unreadable", &["Secret", "older", "resourceNames"]);
    assert_eq!(running(&place), before);
    let name = r#"[{"op": "add", "path": "/rules/4/resourceNames/-", "value": "older"}]"#;
    place.kubectl(&["patch", "role", "etcd-launcher", "--type=json", "-p", name]);
    apply("readable");
    place.wait_for_phase("readable", "Completed");
    place.assert_put_back();
    assert!(place.is_restored());
}

/// A folder beside the data dir of the first member.
fn beside(place: &Place, name: &str) -> PathBuf {
    let data_dir = place.members[0].data_dir();
    data_dir.with_file_name(name)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_mounted_member_folder_and_a_full_volume_are_refused_and_a_mounted_data_dir_is_restored() {
    if let Err(reason) = mounts::available() {
        harness::skip!("{reason}");
    }
    let mut place = Place::of(1);
    let data_dir = shown(place.members[0].data_dir());
    let volume = shown(&beside(&place, "volume"));
    let make = format!("mkdir -p {volume}");
    let member = format!("{data_dir}/member");

    place.how.through = mounts::through("mount --bind \"$0\" \"$0\"", &member);
    place.start_again();
    let words = [member.as_str(), "mount point", &data_dir];
    refused(&place, "member-mounted", SNAPSHOT, &words);

    // The old state fits, and the new one beside it does not.
    let script = format!(
        "{make}; mount -t tmpfs -o size=120m none {volume}; cp -a --sparse=always \"$0\"/. {volume}; mount --bind {volume} \"$0\""
    );
    place.how.through = mounts::through(&script, &data_dir);
    place.start_again();
    let words = ["no space for the snapshot", "must stay free"];
    refused(&place, "full", SNAPSHOT, &words);

    place.how.through.clear();
    place.start_again();
    assert!(!place.is_restored());
    place.members[0].stop();
    let script = format!(
        "{make}; [ -e {volume}/member ] || cp -a \"$0\"/. {volume}; mount --bind {volume} \"$0\""
    );
    place.how.through = mounts::through(&script, &data_dir);
    place.start_again();
    place.restore_well("data-dir-mounted");
    wait_for("the volume to hold it", LONG, || {
        let names = fs::read_dir(&volume).unwrap().flatten();
        let kept = |name: &str| name.starts_with(".restore-");
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .any(|name| kept(&name))
            .then_some(())
    });
}
