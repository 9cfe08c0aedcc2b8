//! What is refused before anything is touched: the message names the object, says what to do, and the old state is as it was.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::Duration;

use harness::etcd::{Etcd, Version};
use harness::run::etcd_launcher;
use harness::{mounts, tools};
use rustix::fs::{FlockOperation, flock};

use super::place::{Place, restore};

#[test]
fn damaged_snapshots_are_refused() {
    let place = Place::new();
    let whole = fs::read(&place.snapshot).unwrap();
    let mut altered = whole.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let page = 4096;
    let forms = [
        ("empty.db", Vec::new()),
        ("cut.db", whole[..whole.len() - 5000].to_vec()),
        ("page-short.db", whole[..whole.len() - 32 - page].to_vec()),
        ("altered.db", altered),
        ("text.db", b"no database at all\n".repeat(500)),
    ];
    for (name, bytes) in forms {
        let file = place.etcd.folder().write(name, bytes);
        let run = place.restore_of(&file, &[]).code(1);
        assert!(run.stderr.contains(name), "{name}: {}", run.stderr);
        assert!(
            run.stderr.contains("nothing was changed"),
            "{name}: {}",
            run.stderr
        );
        place.assert_untouched();
    }
    let absent = place
        .restore_of("/no/such/snapshot.db".as_ref(), &[])
        .code(1);
    assert!(absent.stderr.contains("/no/such"), "{}", absent.stderr);
    place.assert_untouched();
    // Nothing of them is in the way of a good one.
    place.restore().ok();
    assert_eq!(place.held(), place.new);
}

#[test]
fn a_snapshot_of_another_cluster_is_refused_unless_it_is_wanted() {
    let place = Place::new();
    let other = Etcd::start();
    other.put("/other", "x");
    let snapshot = other.save_snapshot("snapshot.db");
    let run = place.restore_of(&snapshot, &[]).code(1);
    for told in ["another cluster", "etcd-0 at http", "--another-cluster"] {
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    }
    place.assert_untouched();
    place.restore_of(&snapshot, &["--another-cluster"]).ok();
    let keys = place.started();
    assert_eq!(keys.len(), 1);
    place.stop();
    // Its own snapshot from before is still of this cluster.
    place.restore().ok();
    assert_eq!(place.held(), place.new);
}

#[test]
fn a_snapshot_of_a_newer_etcd_is_refused() {
    let place = Place::of(Version::V3_5, Etcd::builder());
    let newer = Etcd::start();
    newer.put("/newer", "x");
    let snapshot = newer.save_snapshot("snapshot.db");
    let run = place.restore_of(&snapshot, &["--another-cluster"]).code(1);
    assert!(run.stderr.contains("newer"), "{}", run.stderr);
    place.assert_untouched();
}

#[test]
fn a_database_above_the_quota_is_refused_in_numbers() {
    let place = Place::new();
    let size = fs::metadata(&place.snapshot).unwrap().len() - 32;
    let quota = format!("--quota-backend-bytes={}", size - 1);
    let run = place.restore_of(&place.snapshot, &[&quota]).code(1);
    for told in [size.to_string(), (size - 1).to_string()] {
        assert!(run.stderr.contains(&told), "{told}: {}", run.stderr);
    }
    place.assert_untouched();
    // Packed it says so while it comes, whatever it says of itself.
    let bomb = zstd::encode_all(&vec![0; 8 << 20][..], 1).unwrap();
    let bomb = place.etcd.folder().write("bomb.db.zst", bomb);
    place.restore_of(&bomb, &[&quota]).code(1);
    place.assert_untouched();
}

#[test]
fn a_running_etcd_is_refused_by_its_pid_and_runs_on() {
    let place = Place::new();
    place.started();
    let pid = place.etcd.member(0).pid().unwrap().to_string();
    let run = place.restore().code(1);
    for told in ["still runs", &pid, "stop it"] {
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    }
    place.rollback().code(1);
    assert_eq!(place.etcd.keys().list("/"), place.now);
}

#[test]
fn an_etcd_that_waits_for_its_database_is_refused_as_well() {
    let place = Place::new();
    // Somebody else holds the lock for a moment, so that etcd comes to wait for it with the file open.
    let holder = File::open(place.etcd.member(0).database()).unwrap();
    flock(&holder, FlockOperation::LockExclusive).unwrap();
    place.etcd.member(0).start();
    std::thread::sleep(Duration::from_secs(1));
    let run = place.restore().code(1);
    assert!(run.stderr.contains("etcd"), "{}", run.stderr);
    drop(holder);
    place.etcd.wait_until_healthy();
    assert_eq!(place.etcd.keys().list("/"), place.now);
}

#[test]
fn a_second_launcher_on_the_same_data_dir_is_refused() {
    let place = Place::new();
    let folder = File::open(place.data_dir()).unwrap();
    flock(&folder, FlockOperation::LockExclusive).unwrap();
    let run = place.restore().code(1);
    assert!(run.stderr.contains("another"), "{}", run.stderr);
    // Looking is allowed.
    assert_eq!(place.status()["member"]["state"], "cluster");
    drop(folder);
    place.assert_untouched();
}

#[test]
fn a_write_ahead_log_elsewhere_is_refused() {
    let place = Place::new();
    let wal = place.data_dir().join("member/wal");
    let elsewhere = place.etcd.folder().join("wal");
    fs::rename(&wal, &elsewhere).unwrap();
    let run = place.restore().code(1);
    assert!(run.stderr.contains("--wal-dir"), "{}", run.stderr);
    symlink(&elsewhere, &wal).unwrap();
    let run = place.restore().code(1);
    assert!(run.stderr.contains("--wal-dir"), "{}", run.stderr);
    fs::remove_file(&wal).unwrap();
    fs::rename(&elsewhere, &wal).unwrap();
    place.assert_untouched();
}

#[test]
fn wrong_names_urls_and_tokens_are_refused() {
    let place = Place::new();
    let cluster = place.etcd.initial_cluster();
    let other = format!("etcd-0={}", "http://127.0.0.1:1");
    for (arguments, code, told) in [
        (vec!["--name=etcd-9"], 1, "etcd-9"),
        (vec!["--initial-cluster=etcd-0"], 2, "name=url"),
        (
            vec!["--initial-cluster", "etcd-0=http://a:1/x"],
            2,
            "peer URL",
        ),
        (
            vec![
                "--initial-cluster",
                &other,
                "--initial-advertise-peer-urls",
                cluster.split_once('=').unwrap().1,
            ],
            1,
            "--initial-advertise-peer-urls",
        ),
        (vec!["--initial-cluster-token=etcd-cluster"], 1, "token"),
        (vec!["--target-revision=5"], 1, "target revision"),
        (vec!["--target-revision=9007199254740992"], 1, "2^53"),
        (vec!["--above=9007199254740992"], 1, "2^53"),
        (vec!["--above=-3"], 1, "negative"),
    ] {
        let run = place.restore_of(&place.snapshot, &arguments).code(code);
        assert!(run.stderr.contains(told), "{arguments:?}: {}", run.stderr);
        place.assert_untouched();
    }
}

#[test]
fn a_member_folder_that_is_a_mount_point_is_refused_and_a_data_dir_that_is_one_works() {
    if let Err(reason) = mounts::available() {
        harness::skip!("{reason}");
    }
    let place = Place::new();
    let (launcher, etcdutl) = (tools::launcher(), tools::path("etcdutl"));
    let elsewhere = place.etcd.folder().join("elsewhere");
    let run_it = "\"$3\" restore \"$4\" --yes --data-dir \"$1\" --etcdutl \"$5\"";
    let arguments = [
        place.data_dir(),
        &elsewhere,
        &launcher,
        &place.snapshot,
        &etcdutl,
    ];
    for below in ["member", "member/wal", "member/snap"] {
        let script =
            format!("cp -a \"$1\" \"$2\"; mount --bind \"$2/{below}\" \"$1/{below}\"; {run_it}");
        let run = mounts::run(&script, &arguments).code(1);
        assert!(run.stderr.contains("mount point"), "{}", run.stderr);
        fs::remove_dir_all(&elsewhere).unwrap();
        place.assert_untouched();
    }
    // The whole data dir on another file system, as a volume is in a pod.
    let script = format!(
        "mkdir \"$2\"; mount -t tmpfs -o size=400m none \"$2\"; cp -a \"$1/member\" \"$2\"; \
         mount --bind \"$2\" \"$1\"; {run_it} --name=etcd-0; \"$3\" verify \"$1/member/snap/db\""
    );
    let run = mounts::run(&script, &arguments).ok();
    let keys = format!("{} keys", place.new.keys);
    assert!(run.stdout.contains(&keys), "{}", run.stdout);
    place.assert_untouched();
}

#[test]
fn too_little_space_is_refused_in_numbers_before_anything_is_written() {
    if let Err(reason) = mounts::available() {
        harness::skip!("{reason}");
    }
    let place = Place::new();
    let (launcher, etcdutl) = (tools::launcher(), tools::path("etcdutl"));
    let small = place.etcd.folder().join("small");
    fs::create_dir(&small).unwrap();
    // The old state fits, the new one beside it does not.
    let script = "mount -t tmpfs -o size=100m none \"$2\"; cp -a --sparse=always \"$1/member\" \"$2\"; \
         ! \"$3\" restore \"$4\" --yes --data-dir \"$2\" --etcdutl \"$5\"; ls -A \"$2\" >&2; \
         \"$3\" verify \"$2/member/snap/db\"";
    let run = mounts::run(
        script,
        &[
            place.data_dir(),
            &small,
            &launcher,
            &place.snapshot,
            &etcdutl,
        ],
    )
    .ok();
    for told in ["not enough space", "are needed", "are free", "member"] {
        assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
    }
    let keys = format!("{} keys", place.old.keys);
    assert!(run.stdout.contains(&keys), "{}", run.stdout);
}

#[test]
fn a_disk_that_fills_up_in_mid_build_changes_nothing() {
    let place = Place::new();
    // etcdutl can not write so much: as on a disk that others fill after the check.
    let full = place.etcd.folder().write(
        "etcdutl",
        format!(
            "#!/bin/sh\n[ \"$1\" = version ] || ulimit -f 1000\nexec {} \"$@\"\n",
            tools::path("etcdutl").display()
        ),
    );
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&full, executable).unwrap();
    let run = etcd_launcher(&["restore", "--yes"])
        .arg(&place.snapshot)
        .arg("--data-dir")
        .arg(place.data_dir())
        .arg("--etcdutl")
        .arg(&full)
        .code(1);
    assert!(run.stderr.contains("nothing was changed"), "{}", run.stderr);
    place.assert_untouched();
    restore(Version::V3_6, &place.snapshot, place.data_dir()).ok();
    assert_eq!(place.held(), place.new);
}
