//! Schedules and single snapshots, asked for with the plugin; the test stands in for the launcher and writes what it would.

use std::thread;
use std::time::Duration;

use harness::process::Folder;
use harness::run::program;
use harness::{tools, wait_for};
use serde_json::json;

use super::place::{Plane, etcd, good, shared};

#[test]
fn a_schedule_is_made_shown_and_deleted() {
    let plane = Plane::new("schedule").with_destination("s3");
    let made = plane
        .run(&[
            "schedule",
            "create",
            "daily-backup",
            "--preset",
            "daily",
            "--keep",
            "7",
            "--destination",
            "s3",
        ])
        .ok();
    assert_eq!(made.stdout, "etcdbackupconfig/daily-backup created\n");
    assert!(
        made.stderr.contains("the first snapshot is due"),
        "{}",
        made.stderr
    );
    let object = plane.get("etcdbackupconfigs", "daily-backup");
    assert_eq!(
        object["spec"],
        json!({"name": "daily-backup", "cluster": {"apiVersion": "kubermatic.k8c.io/v1", "kind": "Cluster", "name": plane.name}, "schedule": "@daily", "keep": 7,
            "destination": "s3", "deletionPolicy": "Retain"})
    );
    // The only destination is meant where none is named.
    plane
        .run(&[
            "schedule",
            "create",
            "often",
            "--schedule",
            "@every 20m",
            "--time-zone",
            "Europe/Berlin",
            "--deletion-policy",
            "delete",
        ])
        .ok();
    let object = plane.get("etcdbackupconfigs", "often");
    assert_eq!(
        (
            &object["spec"]["destination"],
            &object["spec"]["timeZone"],
            &object["spec"]["deletionPolicy"]
        ),
        (&json!("s3"), &json!("Europe/Berlin"), &json!("Delete"))
    );
    let refused = plane
        .run(&["schedule", "create", "often", "--preset", "weekly"])
        .code(1);
    assert!(
        refused.stderr.contains("Error from server (AlreadyExists)"),
        "{}",
        refused.stderr
    );

    let table = plane.run(&["schedule", "get"]).ok().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(
        lines[0].starts_with("NAMESPACE") && lines.len() == 3,
        "{table}"
    );
    for word in [
        &plane.namespace,
        "daily-backup",
        &plane.name,
        "@daily",
        "7",
        "s3",
    ] {
        assert!(lines[1].contains(word), "{word}: {table}");
    }
    assert!(
        lines[2].contains("@every 20m") && lines[2].contains("20"),
        "{table}"
    );
    let wide = plane
        .run(&["schedule", "get", "-o", "wide", "--no-headers"])
        .ok()
        .stdout;
    assert!(
        wide.contains("Retain") && wide.contains("Delete") && !wide.contains("NAME"),
        "{wide}"
    );
    let names = plane.run(&["schedule", "get", "-o", "name"]).ok().stdout;
    assert_eq!(
        names,
        "etcdbackupconfig/daily-backup\netcdbackupconfig/often\n"
    );
    let one = plane
        .run(&["schedule", "get", "often", "-o", "json"])
        .ok()
        .json();
    assert_eq!(
        (&one["kind"], &one["metadata"]["name"]),
        (&json!("EtcdBackupConfig"), &json!("often"))
    );
    let list = plane.run(&["schedule", "get", "-o", "json"]).ok().json();
    assert_eq!(
        (&list["kind"], list["items"].as_array().unwrap().len()),
        (&json!("List"), 2)
    );
    // Without a cluster every namespace is looked through.
    let all = etcd(
        plane.cluster,
        &["schedule", "get", "-o", "yaml", "-n", &plane.namespace],
    )
    .ok()
    .stdout;
    assert!(
        all.contains("kind: List") && all.contains("name: often"),
        "{all}"
    );
    let found = etcd(plane.cluster, &["schedule", "get"]).ok().stdout;
    assert!(found.contains(&plane.namespace), "{found}");

    // Deleting asks, and says what becomes of the snapshots.
    let refused = plane
        .run(&["schedule", "delete", "daily-backup", "often"])
        .code(2);
    for word in [
        "--yes",
        "etcdbackupconfig/daily-backup (its snapshots stay)",
        "etcdbackupconfig/often with its 0 snapshots",
    ] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    plane
        .run(&["schedule", "delete", "daily-backup", "absent", "--yes"])
        .code(1);
    assert!(
        plane
            .run(&["schedule", "get"])
            .ok()
            .stdout
            .contains("daily-backup"),
        "nothing is deleted before every name was found"
    );
    let deleted = plane
        .run(&["schedule", "delete", "daily-backup", "often", "--yes"])
        .ok();
    assert_eq!(
        deleted.stdout,
        "etcdbackupconfig/daily-backup deleted\netcdbackupconfig/often deleted\n"
    );
    let none = plane.run(&["schedule", "get"]).ok();
    assert!(
        none.stdout.is_empty() && none.stderr.contains("No schedules found"),
        "{}",
        none.stderr
    );
}

#[test]
fn what_is_wrong_with_a_schedule_is_said_before_anything_is_made() {
    let plane = Plane::new("wrong").with_destination("s3");
    let create = |arguments: &[&str]| plane.run(&["schedule", "create", "x"]).args(arguments);
    for (arguments, told) in [
        (
            &["--schedule", "0 25 * * *"][..],
            "hour \"25\" is not between 0 and 23",
        ),
        (&["--schedule", "0 0 31 2 *"], "that day never comes"),
        (&["--schedule", "0 0 * * 7"], "Sunday is 0"),
        (&["--schedule", "@every soon"], "no duration"),
        (
            &["--preset", "daily", "--time-zone", "Mars/Olympus"],
            "Mars/Olympus",
        ),
        (&["--preset", "daily", "--keep", "0"], "1..=50"),
        (&["--preset", "daily", "--keep=-3"], "1..=50"),
        (&["--preset", "hourly"], "daily"),
        (
            &["--preset", "daily", "--schedule", "@daily"],
            "cannot be used with",
        ),
        (&[], "--schedule"),
    ] {
        let refused = create(arguments).code(2);
        assert!(
            refused.stderr.contains(told),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
    let refused = create(&["--preset", "daily", "--destination", "s4"]).code(1);
    assert!(
        refused.stderr.contains("\"s4\"") && refused.stderr.contains("there are: s3"),
        "{}",
        refused.stderr
    );
    let refused = etcd(
        plane.cluster,
        &["schedule", "create", "x", "--preset", "daily"],
    )
    .code(2);
    assert!(refused.stderr.contains("--cluster"), "{}", refused.stderr);
    let refused = etcd(
        plane.cluster,
        &[
            "schedule",
            "create",
            "x",
            "--preset",
            "daily",
            "--cluster",
            "no-such",
        ],
    )
    .code(1);
    assert!(
        refused.stderr.contains("\"no-such\" is not there") && refused.stderr.contains(&plane.name),
        "{}",
        refused.stderr
    );
    let refused = etcd(
        plane.cluster,
        &[
            "schedule",
            "create",
            "x",
            "--preset",
            "daily",
            "--cluster",
            "../x",
        ],
    )
    .code(2);
    assert!(refused.stderr.contains("not allowed"), "{}", refused.stderr);
    assert!(plane.run(&["schedule", "get"]).ok().stdout.is_empty());
    // A dry run makes nothing, and what it prints can be applied.
    let shown = create(&["--preset", "weekly", "--dry-run=client"])
        .ok()
        .stdout;
    assert!(plane.run(&["schedule", "get"]).ok().stdout.is_empty());
    plane.cluster.apply(&shown);
    assert_eq!(
        plane.get("etcdbackupconfigs", "x")["spec"]["schedule"],
        "@weekly"
    );
}

#[test]
fn of_several_destinations_the_default_one_is_meant_and_one_elsewhere_must_allow_it() {
    let plane = Plane::new("several")
        .with_destination("s3")
        .with_destination("other");
    let refused = plane.run(&["snapshot", "x"]).code(2);
    assert!(
        refused.stderr.contains("several destinations") && refused.stderr.contains("other, s3"),
        "{}",
        refused.stderr
    );
    plane.cluster.kubectl(&[
        "patch",
        "bsl",
        "other",
        "-n",
        &plane.namespace,
        "--type=merge",
        "-p",
        r#"{"spec": {"default": true}}"#,
    ]);
    plane.run(&["snapshot", "x"]).ok();
    assert_eq!(
        plane.get("etcdbackupconfigs", "x")["spec"]["destination"],
        "other"
    );
    let elsewhere = Plane::new("elsewhere").with_destination("far-away");
    plane
        .run(&["snapshot", "y", "--destination", "far-away"])
        .code(1);
    let allowed = format!("kubectl-backup/allowed-namespaces=a, {}", plane.namespace);
    plane.cluster.kubectl(&[
        "annotate",
        "bsl",
        "far-away",
        "-n",
        &elsewhere.namespace,
        &allowed,
    ]);
    plane
        .run(&["snapshot", "y", "--destination", "far-away"])
        .ok();
    let none = Plane::new("none");
    let refused = none.run(&["snapshot", "x"]).code(2);
    assert!(
        refused.stderr.contains("has no destination"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_snapshot_is_followed_until_it_is_taken_or_is_not() {
    let plane = Plane::new("once").with_destination("s3");
    let waiting = |name: &str| {
        let running = plane.run(&["snapshot", name, "--wait"]).spawn();
        wait_for("the object", Duration::from_secs(30), || {
            running.stdout().contains("created").then_some(())
        });
        running
    };
    let running = waiting("good");
    assert!(
        plane.get("etcdbackupconfigs", "good")["spec"]
            .get("schedule")
            .is_none()
    );
    plane.status("etcdbackupconfig", "good", &json!({"lastBackups": [{"backupName": "good-2026-11-20t01-00-00", "backupPhase": "Running"}]}));
    wait_for("the phase", Duration::from_secs(30), || {
        running.stderr().contains("Running").then_some(())
    });
    plane.status(
        "etcdbackupconfig",
        "good",
        &json!({"lastBackups": [good("good-2026-11-20t01-00-00")]}),
    );
    let run = running.wait(Duration::from_secs(30)).ok();
    assert!(
        run.stdout
            .contains("snapshot/good-2026-11-20t01-00-00 completed, 1.1 MiB, revision 4711\n"),
        "{}",
        run.stdout
    );

    let running = waiting("bad");
    plane.status("etcdbackupconfig", "bad", &json!({"lastBackups": [{"backupName": "bad-x", "backupPhase": "Failed", "backupMessage": "the bucket is gone"}]}));
    let run = running.wait(Duration::from_secs(30)).code(1);
    assert!(run.stderr.contains("the bucket is gone"), "{}", run.stderr);

    let running = waiting("replaced");
    plane.cluster.kubectl(&[
        "delete",
        "etcdbackupconfig",
        "replaced",
        "-n",
        &plane.namespace,
    ]);
    let run = running.wait(Duration::from_secs(30)).code(1);
    assert!(run.stderr.contains("replaced"), "{}", run.stderr);

    // Nobody takes it: the time is over, or the user has enough; the object stays.
    let run = plane
        .run(&["snapshot", "alone", "--wait", "--timeout", "2s"])
        .code(1);
    assert!(
        run.stderr.contains("not finished after 2s"),
        "{}",
        run.stderr
    );
    let running = waiting("left");
    thread::sleep(Duration::from_millis(500));
    running.signal(harness::run::Signal::INT);
    let run = running.wait(Duration::from_secs(10)).code(130);
    assert!(
        run.stderr.contains("goes on without this command"),
        "{}",
        run.stderr
    );
    plane.get("etcdbackupconfigs", "left");
}

#[test]
fn snapshots_are_listed_from_what_the_objects_say() {
    let plane = Plane::new("listed");
    let name = "daily-2026-11-20t01-00-00";
    plane.config("daily", &[
        json!({"backupName": "daily-2026-11-18t01-00-00", "backupPhase": "Completed", "deletePhase": "Completed", "scheduledTime": "2026-11-18T01:00:00Z"}),
        json!({"backupName": "daily-2026-11-19t01-00-00", "backupPhase": "Failed", "backupMessage": "no room", "scheduledTime": "2026-11-19T01:00:00Z"}),
        good(name),
        json!({"backupName": "daily-2026-11-21t01-00-00", "backupPhase": "Running", "scheduledTime": "2026-11-21T01:00:00Z"}),
    ]);
    let table = plane.run(&["get"]).ok().stdout;
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines.len() == 4, "{table}");
    for (line, words) in [
        (1, ["Failed", "daily", "s3"]),
        (2, ["Completed", "1.1 MiB", "4711"]),
        (3, ["Running", &plane.name, "daily-2026-11-21t01-00-00"]),
    ] {
        for word in words {
            assert!(lines[line].contains(word), "{word}: {table}");
        }
    }
    let wide = plane.run(&["get", "-o", "wide"]).ok().stdout;
    assert!(
        wide.contains("no room")
            && wide.contains(&"a".repeat(64))
            && wide.contains(&plane.namespace),
        "{wide}"
    );
    let one = plane
        .run(&["get", &format!("{}-{name}.db.gz", plane.name), "-o", "json"])
        .ok()
        .json();
    assert_eq!(
        (
            &one["name"],
            &one["revision"],
            &one["status"],
            &one["config"]
        ),
        (
            &json!(name),
            &json!(4711),
            &json!("Completed"),
            &json!("daily")
        )
    );
    let all = plane.run(&["get", "-o", "name"]).ok().stdout;
    assert_eq!(all.lines().count(), 3, "{all}");
    let missing = plane.run(&["get", "weekly"]).code(1);
    assert!(
        missing.stderr.contains("\"weekly\" is not there") && missing.stderr.contains(name),
        "{}",
        missing.stderr
    );
    for bad in ["../x", "a/b", ""] {
        plane.run(&["describe", bad]).code(2);
    }
    // KKP's own list is read where ours is not there.
    plane.config("theirs", &[]);
    plane.status(
        "etcdbackupconfig",
        "theirs",
        &json!({"lastBackups": null, "currentBackups": [good("theirs-2026-11-20t01-00-00")]}),
    );
    assert!(
        plane
            .run(&["get"])
            .ok()
            .stdout
            .contains("theirs-2026-11-20t01-00-00")
    );
    // Completion knows them, of this control plane alone.
    let folder = Folder::new("completion");
    let link = folder.join("kubectl_complete-backup");
    std::os::unix::fs::symlink(tools::plugin(), &link).unwrap();
    let proposed = |words: &[&str]| {
        let words = [&["etcd", "--cluster", &plane.name], words].concat();
        let run = program(link.to_str().unwrap(), &words)
            .kubeconfig(plane.cluster.kubeconfig())
            .ok();
        let mut lines: Vec<_> = run.stdout.lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().as_deref(), Some(":4"), "{}", run.stdout);
        lines
    };
    assert_eq!(
        proposed(&["describe", "daily-2026-11-2"]),
        [name, "daily-2026-11-21t01-00-00"]
    );
    assert_eq!(proposed(&["schedule", "get", ""]), ["daily", "theirs"]);
    assert_eq!(proposed(&["rollback", ""]), Vec::<String>::new());
    assert_eq!(proposed(&["--cluster", &plane.name]), [plane.name.as_str()]);
    // Described as far as the object knows; the bucket can not be reached.
    let described = plane.run(&["describe", name]).ok();
    for word in [
        "Revision:",
        "4711",
        "Finished:",
        "2026-11-20 01:00:04",
        &"a".repeat(64),
    ] {
        assert!(
            described.stdout.contains(word),
            "{word}: {}",
            described.stdout
        );
    }
    assert!(
        described
            .stderr
            .contains("warning: what the bucket says is not shown"),
        "{}",
        described.stderr
    );
}

#[test]
fn without_the_kinds_or_the_rights_it_is_said_what_to_do() {
    let bare = harness::cluster::Cluster::builder()
        .controllers(harness::cluster::Controllers::None)
        .start();
    let refused = etcd(&bare, &["get"]).code(1);
    assert!(
        refused.stderr.contains("etcd-launcher crds") && refused.stderr.contains("--location"),
        "{}",
        refused.stderr
    );
    let refused = etcd(
        &bare,
        &[
            "schedule",
            "create",
            "x",
            "--preset",
            "daily",
            "--cluster",
            "c",
        ],
    )
    .code(1);
    assert!(
        refused.stderr.contains("etcd-launcher crds"),
        "{}",
        refused.stderr
    );
    let nobody = shared().user("nobody-of-etcd", &[]);
    let refused = harness::run::kubectl_backup(&["etcd", "get"])
        .kubeconfig(&nobody)
        .code(1);
    assert!(refused.stderr.contains("forbidden"), "{}", refused.stderr);
}
