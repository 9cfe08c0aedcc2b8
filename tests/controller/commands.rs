//! The plugin's own commands about schedules, on the objects that the controller serves.

use serde_json::Value;

use harness::process::Folder;
use harness::run::kubectl_backup;

use super::Served;

#[test]
fn schedules_are_made_shown_paused_triggered_and_deleted() {
    let served = Served::start("controller-commands");
    let call = |words: &[&str]| {
        kubectl_backup(&[&["schedule"], words].concat()).kubeconfig(served.cluster.kubeconfig())
    };
    let object = |name: &str| served.object(&format!("schedules/{name}"));

    let shown = call(&["create", "nightly", "--preset", "two-weeks", "--dry-run"]).ok();
    assert!(
        shown.stdout.contains("kubectl-backup/every: \"2\""),
        "{}",
        shown.stdout
    );
    assert!(object("nightly").is_none());
    let created = call(&[
        "create",
        "nightly",
        "--preset",
        "two-weeks",
        "--keep",
        "2",
        "--location",
        "default",
        "-n",
        "default",
        "--labels",
        "team=shop",
    ])
    .ok();
    assert_eq!(created.stdout, "schedule/nightly created\n");
    assert!(
        created.stderr.contains("the first backup is due"),
        "{}",
        created.stderr
    );
    let nightly = object("nightly").unwrap();
    assert_eq!(nightly["spec"]["schedule"], "@weekly");
    assert_eq!(
        nightly["spec"]["template"]["includedNamespaces"][0],
        "default"
    );

    let listed = call(&["get"]).ok().stdout;
    assert!(listed.starts_with("NAME "), "{listed}");
    assert!(listed.contains("@weekly (one of 2)"), "{listed}");
    let json: Value =
        serde_json::from_str(&call(&["get", "nightly", "-o", "json"]).ok().stdout).unwrap();
    assert_eq!(json["metadata"]["uid"], nightly["metadata"]["uid"]);
    // Velero's own command reads it too.
    let veleros = served
        .velero(&["schedule", "describe", "nightly"])
        .ok()
        .stdout;
    assert!(veleros.contains("Schedule:  @weekly"), "{veleros}");

    let backup = call(&["trigger", "nightly", "--wait"]).ok();
    assert!(backup.stderr.contains("Completed"), "{}", backup.stderr);
    let name = backup.stdout.trim_end_matches(" created\n").to_owned();
    let name = name.strip_prefix("backup/nightly-").unwrap();
    let made = served.object(&format!("backups/nightly-{name}")).unwrap();
    assert_eq!(
        made["metadata"]["labels"]["velero.io/schedule-name"],
        "nightly"
    );
    assert_eq!(made["metadata"]["labels"]["team"], "shop");
    let described = call(&["describe", "nightly"]).ok().stdout;
    for part in [
        "@weekly (one of 2)",
        "Next:         20",
        &format!("nightly-{name}:  Completed ("),
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }

    call(&["pause", "nightly"]).ok();
    assert_eq!(object("nightly").unwrap()["spec"]["paused"], true);
    call(&["unpause", "nightly"]).ok();
    assert_eq!(object("nightly").unwrap()["spec"]["paused"], false);

    for (words, code, part) in [
        (
            &["create", "nightly", "--preset", "daily"][..],
            1,
            "already exists",
        ),
        (
            &["create", "x", "--preset", "daily", "--location", "nowhere"],
            1,
            "there are: default",
        ),
        (&["create", "x", "--schedule", "every day"], 2, "--schedule"),
        (&["get", "absent"], 1, "there are: nightly"),
        (&["describe", "absent"], 1, "absent"),
        (&["pause", "nightly", "absent"], 1, "absent"),
        (&["trigger", "absent"], 1, "absent"),
        (&["delete", "absent", "--yes"], 1, "absent"),
        (&["delete", "nightly"], 2, "--yes"),
        (
            &["get", "nightly", "--controller-namespace", "elsewhere"],
            1,
            "there is none",
        ),
    ] {
        let refused = call(words).code(code);
        assert!(
            refused.stderr.contains(part),
            "{words:?}: {}",
            refused.stderr
        );
    }
    assert_eq!(object("nightly").unwrap()["spec"]["paused"], false);
    let gone = call(&["delete", "nightly", "--yes"]).ok();
    assert_eq!(gone.stdout, "schedule/nightly deleted\n");
    assert!(object("nightly").is_none());
    let empty = call(&["get"]).ok();
    assert!(
        empty.stderr.contains("No schedules found"),
        "{}",
        empty.stderr
    );
}

#[test]
fn a_cluster_without_the_kinds_says_what_brings_them() {
    let served = Served::without_controller("controller-none");
    for words in [
        &["schedule", "get"][..],
        &["schedule", "create", "x", "--preset", "daily"],
    ] {
        let refused = kubectl_backup(words)
            .kubeconfig(served.cluster.kubeconfig())
            .code(1);
        assert!(
            refused.stderr.contains("kubectl backup controller"),
            "{}",
            refused.stderr
        );
    }
}

/// What `install` brings along of a location, and for which it says no: needs no cluster.
#[test]
fn install_brings_recipients_along_and_refuses_what_a_controller_can_not_do() {
    let home = Folder::new("home");
    let keys = "[default]\naws_access_key_id=A\naws_secret_access_key=S\n";
    let keys = home.write("credentials", keys).display().to_string();
    let call = |words: &[&str]| kubectl_backup(words).home(home.path());
    let create = |name: &str, more: &[&str]| {
        let words = [
            "location",
            "create",
            name,
            "--provider=aws",
            "--bucket",
            name,
        ];
        call(&words)
            .args(&["--credentials-file", &keys])
            .args(more)
            .ok();
    };
    for (file, bytes) in crate::copy::signed::key_pair("backups") {
        home.write(&file, bytes);
    }
    let path = |file: &str| home.join(file).display().to_string();
    let (private, public) = (path("backups.key"), path("backups.pub"));
    let recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    create("sealed", &["--recipient", recipient]);
    create("passphrase", &["--recipient=passphrase"]);
    create("secrets", &["--recipient", recipient, "--encrypt=secrets"]);
    create("keys", &["--verify-key", &public]);
    create("signs", &["--signing-key-file", &private]);
    create("copied", &["--replicate-to=sealed"]);
    let install = |name: &str| call(&["install", "--dry-run", "-o", "yaml", "--location", name]);
    let shown = install("sealed").ok().stdout;
    assert!(
        shown.contains(&format!("kubectl-backup/recipients: {recipient}")),
        "{shown}"
    );
    let shown = install("secrets").ok().stdout;
    assert!(shown.contains("kubectl-backup/encrypt: secrets"), "{shown}");
    for (name, says) in [
        ("passphrase", "the controller has none"),
        ("keys", "have to be signed"),
        ("signs", "are signed"),
        ("copied", "are copied"),
    ] {
        let refused = install(name).code(2);
        assert!(refused.stderr.contains(says), "{name}: {}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
}
