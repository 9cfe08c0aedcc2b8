//! Which member is asked, who may ask it, and what is told where that can not be.

use std::fs;
use std::path::Path;

use harness::etcd::{Etcd, Fill, Version};
use harness::process::Folder;
use harness::run::Run;
use serde_json::Value;

use super::place::{contents, of, restored, status};

/// Ids of the leader and of the member with this index.
fn leader_and(etcd: &Etcd, index: usize) -> (u64, u64) {
    let all = etcd.etcdctl(&["endpoint", "status", "-w=json"]).json();
    let url = etcd.member(index).client_url();
    let row = all
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["Endpoint"] == url);
    let row = &row.unwrap()["Status"];
    (
        row["leader"].as_u64().unwrap(),
        row["header"]["member_id"].as_u64().unwrap(),
    )
}

fn leader(etcd: &Etcd) -> usize {
    (0..etcd.members().len())
        .find(|&index| {
            let (leader, member) = leader_and(etcd, index);
            leader == member
        })
        .unwrap()
}

fn save(etcd: &Etcd, file: &Path, more: &[&str]) -> Run {
    of(etcd, &["-o=json", "--force"]).args(more).arg(file).run()
}

fn member_of(run: &Run) -> Value {
    run.json()["etcd"].clone()
}

#[test]
fn of_three_members_a_follower_is_asked_and_the_leader_where_it_alone_is_there() {
    let etcd = Etcd::builder().members(3).tls().start();
    etcd.fill(&Fill::of(1 << 20));
    let folder = Folder::new("three");
    let file = folder.join("x.db");
    let first = leader(&etcd);
    let run = save(&etcd, &file, &[]).ok();
    let asked = member_of(&run);
    assert_eq!(asked["leader"], false);
    assert_ne!(asked["memberName"], etcd.member(first).name());
    assert_eq!(run.json()["facts"]["members"].as_array().unwrap().len(), 3);
    assert_eq!(contents(&restored(Version::V3_6, &file)), contents(&etcd));

    // The leader and one that is away: a quorum stands, and of it the leader alone is named.
    let away = (first + 1) % 3;
    etcd.member(away).stop();
    let two = [first, away]
        .map(|index| etcd.member(index).client_url())
        .join(",");
    let run = save(&etcd, &file, &[&format!("--endpoints={two}")]).ok();
    assert_eq!(member_of(&run)["leader"], true);
    assert_eq!(member_of(&run)["memberName"], etcd.member(first).name());
    assert!(
        run.stderr.contains(etcd.member(away).client_url()),
        "{}",
        run.stderr
    );

    // No quorum: nothing that may lack writes is taken for whole.
    etcd.member((first + 2) % 3).stop();
    harness::wait_for(
        "a member without a leader",
        std::time::Duration::from_secs(30),
        || {
            let run = save(&etcd, &file, &[]);
            run.stderr.contains("no member sees a leader").then_some(())
        },
    );
    let refused = save(&etcd, &file, &[]).code(1);
    assert!(
        refused.stderr.contains("--without-quorum"),
        "{}",
        refused.stderr
    );
    let run = save(&etcd, &file, &["--without-quorum"]).ok();
    assert!(run.stderr.contains("may lack"), "{}", run.stderr);
    assert_eq!(member_of(&run)["leader"], false);
    status(Version::V3_6, &file);
}

#[test]
fn a_learner_is_not_asked() {
    let etcd = Etcd::of(3);
    etcd.fill(&Fill::of(1 << 20));
    let led = leader(&etcd);
    let learner = etcd.member((led + 1) % 3);
    let (_, id) = leader_and(&etcd, (led + 1) % 3);
    learner.stop();
    fs::remove_dir_all(learner.data_dir()).unwrap();
    etcd.etcdctl(&["member", "remove", &format!("{id:x}")]);
    let peer = format!("--peer-urls={}", learner.peer_url());
    let patience = std::time::Duration::from_secs(30);
    // Right after one is removed, etcd is not sure enough of the others.
    harness::wait_for("a learner to be taken", patience, || {
        let add = etcd.try_etcdctl(&["member", "add", learner.name(), "--learner", &peer]);
        (add.code == 0).then_some(())
    });
    let mut command = learner.command().to_vec();
    command.push("--initial-cluster-state=existing".to_owned());
    learner.start_as(&command);
    let folder = Folder::new("learner");
    let file = folder.join("x.db");
    let both = [learner.client_url(), etcd.member(led).client_url()].join(",");
    let run = harness::wait_for("the learner's answer", patience, || {
        let run = save(&etcd, &file, &[&format!("--endpoints={both}")]).ok();
        run.stderr.contains("it is a learner").then_some(run)
    });
    assert_eq!(member_of(&run)["memberName"], etcd.member(led).name());
    let alone = save(
        &etcd,
        &file,
        &[&format!("--endpoints={}", learner.client_url())],
    )
    .code(1);
    assert!(alone.stderr.contains("it is a learner"), "{}", alone.stderr);
}

#[test]
fn an_etcd_without_space_is_saved_and_its_alarm_is_told() {
    let etcd = Etcd::builder().quota(16 << 20).start();
    let mut keys = etcd.keys();
    let filled =
        (0..200).find(|number| keys.try_put(&format!("/k{number}"), &[7; 1 << 20]).is_err());
    assert!(filled.is_some(), "no alarm");
    let folder = Folder::new("nospace");
    let file = folder.join("x.db");
    let run = save(&etcd, &file, &[]).ok();
    assert!(run.stderr.contains("NOSPACE"), "{}", run.stderr);
    let facts = &run.json()["facts"];
    assert_eq!(facts["alarms"][0]["kind"], "NOSPACE");
    assert_eq!(facts["alarms"][0]["member"], run.json()["etcd"]["memberId"]);
}

#[test]
fn where_auth_is_on_root_alone_may_take_a_snapshot_and_no_password_is_shown() {
    let etcd = Etcd::start();
    for command in [
        &["user", "add", "root", "--new-user-password=hidden-root"] as &[&str],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "guest", "--new-user-password=hidden-guest"],
        &["auth", "enable"],
    ] {
        etcd.etcdctl(command);
    }
    let folder = Folder::new("auth");
    let file = folder.join("x.db");
    let call = |more: &[&str]| of(&etcd, &["-o=json", "--force"]).args(more).arg(&file);
    let nobody = call(&[]).code(1);
    assert!(nobody.stderr.contains("--user"), "{}", nobody.stderr);
    let wrong = call(&["--user=root"])
        .env("ETCDCTL_PASSWORD", "hidden-wrong")
        .code(1);
    assert!(
        wrong.stderr.contains("ETCDCTL_PASSWORD"),
        "{}",
        wrong.stderr
    );
    let guest = call(&[]).env("ETCDCTL_USER", "guest:hidden-guest").code(1);
    assert!(guest.stderr.contains("root"), "{}", guest.stderr);
    assert!(!file.exists());
    let password = folder.write("password", "hidden-root\n");
    let password = format!("--password-file={}", password.display());
    let root = call(&["--user=root", &password]).ok();
    assert_eq!(root.json()["facts"]["authEnabled"], true);
    for run in [&nobody, &wrong, &guest, &root] {
        let all = format!("{}{}", run.stdout, run.stderr);
        assert!(!all.contains("hidden"), "{all}");
    }
}

#[test]
fn certificates_that_do_not_fit_are_told_with_the_flag_that_helps() {
    let etcd = Etcd::builder().tls().start();
    let folder = Folder::new("certificates");
    let file = folder.join("x.db");
    let authority = etcd.authority().unwrap();
    let old = authority.expired_client("root", &[]);
    let strange = harness::pki::Authority::new("somebody-else");
    let stranger = strange.client("root", &[]);
    let write = |name: &str, text: &str| folder.write(name, text).display().to_string();
    let (old_cert, old_key) = (
        write("old.crt", &old.certificate),
        write("old.key", &old.key),
    );
    let cert = write("strange.crt", &stranger.certificate);
    let key = write("strange.key", &stranger.key);
    let strange_ca = write("strange-ca.crt", strange.certificate());
    let [ca, good_cert, good_key] = etcd
        .client_files()
        .unwrap()
        .map(|file| file.display().to_string());
    let call = |flags: &[&str]| {
        harness::run::etcd_launcher(&["snapshot"])
            .env("ETCDCTL_ENDPOINTS", etcd.endpoint())
            .args(flags)
            .arg(&file)
            .code(1)
            .stderr
    };
    let with =
        |ca: &str, cert: &str, key: &str| call(&["--cacert", ca, "--cert", cert, "--key", key]);
    let said = with(&ca, &old_cert, &old_key);
    assert!(
        said.contains("expired") && said.contains("--cert"),
        "{said}"
    );
    let said = with(&ca, &cert, &key);
    assert!(said.contains("--cert"), "{said}");
    let said = with(&strange_ca, &good_cert, &good_key);
    assert!(said.contains("--cacert"), "{said}");
    let said = call(&["--cacert", &ca]);
    assert!(said.contains("--cert"), "{said}");
    let said = call(&[]);
    assert!(said.contains("--cacert"), "{said}");
    let plain = etcd.endpoint().replace("https://", "http://");
    let said = call(&["--endpoints", &plain]);
    assert!(said.contains("--endpoints"), "{said}");
    assert!(!file.exists());
}

#[test]
fn an_endpoint_where_nobody_answers_is_named() {
    let etcd = Etcd::start();
    let folder = Folder::new("unreachable");
    let file = folder.join("x.db");
    let run = save(&etcd, &file, &["--endpoints=127.0.0.1:1"]).code(1);
    assert!(run.stderr.contains("http://127.0.0.1:1"), "{}", run.stderr);
    assert!(run.stderr.contains("hint:"), "{}", run.stderr);
    let all = format!("--endpoints=127.0.0.1:1,127.0.0.1:2,{}", etcd.endpoint());
    let run = save(&etcd, &file, &[&all]).ok();
    for dead in ["127.0.0.1:1", "127.0.0.1:2"] {
        assert!(run.stderr.contains(dead), "{}", run.stderr);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
