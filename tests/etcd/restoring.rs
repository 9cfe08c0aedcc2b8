//! One member's data dir restored with etcd stopped, by the program itself, with real etcd on both sides. What is whole is judged by the
//! digest over all keys, and by what etcd answers.

mod forms;
mod killed;
mod place;
mod refused;
mod rolled_back;
mod stores;

use std::fs;

use harness::etcd::{Etcd, Version};
use harness::process::Folder;
use harness::tools;
use place::{Place, digest, restore, status};

#[test]
fn a_restored_member_has_the_snapshots_keys_and_tells_old_watches_to_list_again() {
    let place = Place::new();
    let run = place.restore().ok();
    assert!(run.stdout.contains("restored from"), "{}", run.stdout);
    let told = place.status();
    let attempt = &told["attempts"][0];
    assert_eq!(attempt["step"], "Exchanged");
    assert_eq!(attempt["isStarted"], false);
    assert_eq!(attempt["former"]["revision"], place.revision);
    let target = attempt["targetRevision"].as_i64().unwrap();
    assert!(target > 1_700_000_000_000, "the time at least: {target}");
    let kept = attempt["kept"].as_str().unwrap();
    assert_eq!(digest(format!("{kept}/snap/db").as_ref()), place.old);

    assert_eq!(place.started(), place.then);
    assert_eq!(place.etcd.revision(), target);
    let id = attempt["clusterId"].as_str().unwrap();
    let members = place.etcd.etcdctl(&["member", "list", "-w=json"]).json();
    let cluster = members["header"]["cluster_id"].as_u64().unwrap();
    assert_eq!(format!("{cluster:x}"), id, "as computed before it was made");
    // Somebody who watched the old state, from the next revision on.
    let next = format!("--rev={}", place.revision + 1);
    let watch = place.etcd.try_etcdctl(&["watch", "--prefix", "/", &next]);
    assert!(watch.stderr.contains("compacted"), "{watch:?}");
    let put = place.etcd.put("/new", "x");
    assert_eq!(put, target + 1);
    assert_eq!(place.status()["attempts"][0]["isStarted"], true);
}

#[test]
fn a_second_restore_of_the_same_old_snapshot_starts_above_the_first() {
    let place = Place::new();
    let mut targets = Vec::new();
    for _ in 0..3 {
        place.restore().ok();
        let told = place.status();
        let last = told["attempts"].as_array().unwrap().last().unwrap().clone();
        targets.push(last["targetRevision"].as_i64().unwrap());
        assert_eq!(place.started(), place.then);
        let target = *targets.last().unwrap();
        assert_eq!(place.etcd.revision(), target);
        place.etcd.put("/seen", target.to_string());
        place.stop();
    }
    let far = 1_000_000_000;
    assert!(targets[1] > targets[0] + far && targets[2] > targets[1] + far);
    // Each replaced state is kept.
    assert_eq!(place.left().len(), 4);
}

#[test]
fn the_same_restore_said_twice_is_made_once() {
    let place = Place::new();
    place.restore().ok();
    let again = place.restore().ok();
    assert!(again.stdout.contains("already"), "{}", again.stdout);
    assert_eq!(place.status()["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(place.held(), place.new);
}

#[test]
fn what_an_etcd_leaves_that_ended_before_it_began_its_log_is_in_no_restores_way() {
    let place = Place::new();
    let member = place.data_dir().join("member");
    fs::remove_dir_all(&member).unwrap();
    // Its log has 64 MB at once, its database far less.
    let any = "http://127.0.0.1:0";
    let run = harness::run::program("prlimit", &["--fsize=1000000"])
        .arg(tools::path("etcd"))
        .arg("--data-dir")
        .arg(place.data_dir())
        .args(&["--listen-client-urls", any, "--advertise-client-urls", any])
        .args(&["--listen-peer-urls", any, "--initial-advertise-peer-urls"])
        .args(&[any, "--initial-cluster", &format!("default={any}")])
        .run();
    assert_ne!(run.code, 0, "{}", run.stderr);
    assert!(member.join("snap/db").exists() && !member.join("wal").exists());
    let run = place.restore_as_member().ok();
    let told = "an etcd ended before it began its log: it holds nothing";
    assert!(run.stderr.contains(told), "{}", run.stderr);
    assert_eq!(place.started(), place.then);
}

#[test]
fn a_dry_run_tells_the_plan_and_changes_nothing() {
    let place = Place::new();
    let run = place.restore_of(&place.snapshot, &["--dry-run"]).ok();
    for told in [
        "Starts at",
        "etcd-0=http://127.0.0.1",
        "nothing was changed",
    ] {
        assert!(run.stdout.contains(told), "{told}: {}", run.stdout);
    }
    place.assert_untouched();
    assert!(!place.data_dir().join(".restore-journal").exists());
}

#[test]
fn without_a_terminal_nothing_is_restored_that_was_not_asked_for() {
    let place = Place::new();
    let call = harness::run::etcd_launcher(&["restore"])
        .arg(&place.snapshot)
        .arg("--data-dir")
        .arg(place.data_dir());
    let run = call.code(2);
    assert!(run.stderr.contains("--yes"), "{}", run.stderr);
    place.assert_untouched();
}

#[test]
fn three_members_are_restored_from_one_snapshot_by_the_commands_that_the_first_prints() {
    let etcd = Etcd::of(3);
    for number in 0..30 {
        etcd.put(&format!("/k{number}"), "v");
    }
    let then = etcd.keys().list("/");
    let snapshot = etcd.save_snapshot("snapshot.db");
    etcd.put("/later", "x");
    for member in etcd.members() {
        member.stop();
    }
    let first = restore(Version::V3_6, &snapshot, etcd.member(0).data_dir()).ok();
    let printed: Vec<Vec<&str>> = first
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("etcd-launcher restore "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(printed.len(), 2, "{}", first.stdout);
    for (member, arguments) in etcd.members()[1..].iter().zip(printed) {
        let at = arguments.iter().position(|a| *a == "--name").unwrap();
        assert_eq!(arguments[at + 1], member.name());
        restore(Version::V3_6, &snapshot, member.data_dir())
            .args(&arguments[at..])
            .ok();
    }
    for member in etcd.members() {
        member.start();
    }
    etcd.wait_until_healthy();
    for member in etcd.members() {
        assert_eq!(member.keys().list("/"), then, "{}", member.name());
    }
    let ids: Vec<_> = etcd
        .members()
        .iter()
        .map(|member| status(member.data_dir())["member"]["clusterId"].clone())
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[test]
fn an_empty_data_dir_is_restored_where_it_is_said_who_the_member_is() {
    let place = Place::new();
    fs::remove_dir_all(place.data_dir()).unwrap();
    let unsaid = place.restore().code(2);
    assert!(
        unsaid.stderr.contains("--initial-cluster"),
        "{}",
        unsaid.stderr
    );
    let run = place.restore_as_member().ok();
    assert!(run.stderr.contains("make sure"), "{}", run.stderr);
    assert_eq!(place.held(), place.new);
    assert_eq!(place.status()["attempts"][0]["old"]["state"], "absent");
    // Nothing has run on it: it goes away again.
    place.rollback().ok();
    assert_eq!(place.left(), [""; 0]);
    place.restore_as_member().ok();
    assert_eq!(place.started(), place.then);
}

#[test]
fn a_state_that_nobody_can_read_is_replaced_and_kept() {
    let place = Place::new();
    let wal = place.data_dir().join("member/wal");
    for entry in fs::read_dir(&wal).unwrap() {
        fs::write(entry.unwrap().path(), "nothing of etcd's").unwrap();
    }
    fs::write(place.data_dir().join("member/snap/db"), vec![7; 100_000]).unwrap();
    let run = place.restore_as_member().ok();
    assert!(run.stderr.contains("can not be read"), "{}", run.stderr);
    assert_eq!(place.held(), place.new);
    // Back, as it was, without a look at what it is.
    place.rollback().ok();
    let back = fs::read(place.data_dir().join("member/snap/db")).unwrap();
    assert_eq!(back, vec![7; 100_000]);
    place.restore_as_member().ok();
    assert_eq!(place.started(), place.then);
}

#[test]
fn the_owner_of_the_data_stays_its_owner() {
    if !rustix::process::geteuid().is_root() {
        harness::skip!("only root can give files away");
    }
    let place = Place::new();
    let chown = |owner: &str| {
        let path = place.data_dir().to_str().unwrap();
        harness::run::program("chown", &["-R", owner, path]).ok();
    };
    chown("1234:2345");
    place.restore().ok();
    let mut folders = vec![place.data_dir().join("member")];
    while let Some(folder) = folders.pop() {
        for path in std::iter::once(folder.clone())
            .chain(fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()))
        {
            use std::os::unix::fs::MetadataExt;
            let about = fs::metadata(&path).unwrap();
            assert_eq!((about.uid(), about.gid()), (1234, 2345), "{path:?}");
            if path != folder && about.is_dir() {
                folders.push(path);
            }
        }
    }
}

#[test]
fn the_etcdutl_beside_the_program_that_fits_is_used() {
    let place = Place::new();
    let folder = Folder::new("beside");
    let link = |name: &str, tool: &str| {
        std::os::unix::fs::symlink(tools::path(tool), folder.join(name)).unwrap();
    };
    link("etcdutl", "etcdutl35");
    let call = || {
        harness::run::etcd_launcher(&["restore", "--yes"])
            .arg(&place.snapshot)
            .arg("--data-dir")
            .arg(place.data_dir())
            .env("PATH", folder.path())
    };
    let none = call().code(1);
    assert!(none.stderr.contains("is 3.5."), "{}", none.stderr);
    place.assert_untouched();
    link("etcdutl-3.6", "etcdutl");
    call().ok();
    assert_eq!(place.held(), place.new);
}
