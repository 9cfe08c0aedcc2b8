//! Restores, asked for with the plugin; the test stands in for the launchers and writes what they would.

use std::time::Duration;

use harness::wait_for;
use serde_json::{Value, json};

use super::place::{Plane, etcd, good};

const SNAPSHOT: &str = "daily-2026-11-20t01-00-00";

fn plane(name: &str) -> Plane {
    let plane = Plane::new(name).with_destination("s3");
    plane.config("daily", &[good(SNAPSHOT)]);
    plane
}

/// The Lease that launchers renew.
fn lease(plane: &Plane) {
    plane.cluster.apply(&format!(
        "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: etcd-launcher-{}, namespace: {}}}, spec: {{holderIdentity: etcd-0}}}}",
        plane.name, plane.namespace
    ));
}

/// One with a launcher at work, and restore r of its snapshot.
fn with_restore(name: &str) -> Plane {
    let plane = plane(name);
    lease(&plane);
    let create = [
        "restore",
        "create",
        "r",
        "--yes",
        "--from-snapshot",
        SNAPSHOT,
    ];
    plane.run(&create).ok();
    plane
}

#[test]
fn a_restore_is_asked_for_by_any_writing_of_the_snapshots_name() {
    let plane = plane("asked");
    lease(&plane);
    let asked = format!("{}-daily-2026-11-20T01:00:00.db.gz", plane.name);
    // It is a question, and without a terminal there is nobody to answer.
    let refused = plane
        .run(&[
            "restore",
            "create",
            "cluster-restore",
            "--from-snapshot",
            &asked,
        ])
        .code(2);
    assert!(
        refused.stderr.contains("--yes") && refused.stderr.contains(SNAPSHOT),
        "{}",
        refused.stderr
    );
    let made = plane
        .run(&[
            "restore",
            "create",
            "cluster-restore",
            "--from-snapshot",
            &asked,
            "--yes",
        ])
        .ok();
    assert_eq!(made.stdout, "etcdrestore/cluster-restore created\n");
    let object = plane.get("etcdrestores", "cluster-restore");
    assert_eq!(
        object["spec"],
        json!({"name": "cluster-restore", "cluster": {"apiVersion": "kubermatic.k8c.io/v1", "kind": "Cluster", "name": plane.name}, "backupName": SNAPSHOT, "destination": "s3"})
    );
    assert_eq!(
        object["status"]["phase"],
        Value::Null,
        "a launcher is at work: its word is waited for"
    );
    // Without a name it gets one.
    let made = plane
        .run(&[
            "restore",
            "create",
            "--from-snapshot",
            SNAPSHOT,
            "--yes",
            "-o",
            "name",
        ])
        .ok();
    assert!(
        made.stdout
            .starts_with(&format!("etcdrestore/{}-20", plane.name)),
        "{}",
        made.stdout
    );
    let shown = plane
        .run(&[
            "restore",
            "create",
            "y",
            "--from-snapshot",
            SNAPSHOT,
            "--dry-run",
            "-o",
            "json",
        ])
        .ok()
        .json();
    assert_eq!(shown["metadata"]["name"], "y");
    let table = plane.run(&["restore", "get"]).ok().stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    for word in [
        "NAMESPACE",
        "SNAPSHOT",
        "PHASE",
        "STEP",
        "cluster-restore",
        SNAPSHOT,
    ] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let names = plane.run(&["restore", "get", "-o", "name"]).ok().stdout;
    assert!(names.contains("etcdrestore/cluster-restore\n"), "{names}");
    let one = plane
        .run(&["restore", "get", "cluster-restore", "-o", "yaml"])
        .ok()
        .stdout;
    assert!(one.contains("kind: EtcdRestore"), "{one}");
}

#[test]
fn what_can_not_be_restored_is_refused_with_what_there_is() {
    let plane = plane("refusing");
    plane.config("failing", &[json!({"backupName": "failing-2026-11-20t01-00-00", "backupPhase": "Failed", "backupMessage": "no room"})]);
    plane.config(
        &format!("{}-daily", plane.name),
        &[good(&format!("{}-{SNAPSHOT}", plane.name))],
    );
    let create = |snapshot: &str| {
        plane.run(&[
            "restore",
            "create",
            "x",
            "--yes",
            "--from-snapshot",
            snapshot,
        ])
    };
    for bad in ["../x", "a/b", "a..b", ""] {
        create(bad).code(2);
    }
    let refused = create("weekly-2026-11-20t01-00-00").code(1);
    assert!(
        refused.stderr.contains(SNAPSHOT) && refused.stderr.contains("--destination"),
        "{}",
        refused.stderr
    );
    let refused = create("failing-2026-11-20t01-00-00").code(1);
    assert!(
        refused.stderr.contains("Failed") && refused.stderr.contains("no room"),
        "{}",
        refused.stderr
    );
    // Two configs, one named after the cluster.
    let refused = create(&format!("{}-{SNAPSHOT}", plane.name)).code(2);
    assert!(
        refused.stderr.contains("may be 2 of them"),
        "{}",
        refused.stderr
    );
    let refused = create("x-2026-11-20t01-00-00")
        .args(&["--destination", "s4"])
        .code(1);
    assert!(
        refused.stderr.contains("there are: s3"),
        "{}",
        refused.stderr
    );
    assert!(plane.run(&["restore", "get"]).ok().stdout.is_empty());
    // One that only a bucket knows needs its destination.
    let made = create("x-2026-11-20t01-00-00")
        .args(&["--destination", "s3"])
        .ok();
    assert!(
        made.stderr.contains("no EtcdBackupConfig lists"),
        "{}",
        made.stderr
    );
}

#[test]
fn where_no_launcher_is_at_work_the_phase_says_so() {
    let plane = plane("alone");
    let made = plane
        .run(&[
            "restore",
            "create",
            "r",
            "--yes",
            "--from-snapshot",
            SNAPSHOT,
        ])
        .ok();
    assert!(
        made.stderr.contains("no etcd-launcher is at work"),
        "{}",
        made.stderr
    );
    let status = plane.get("etcdrestores", "r")["status"].clone();
    assert_eq!(status["phase"], "EtcdLauncherNotEnabled");
    assert!(status["message"].as_str().unwrap().contains(&plane.name));
}

#[test]
fn a_silent_launcher_is_given_a_minute_before_the_phase_says_that_there_is_none() {
    let plane = plane("silent");
    lease(&plane);
    let run = plane
        .run(&[
            "restore",
            "create",
            "r",
            "--yes",
            "--wait",
            "--from-snapshot",
            SNAPSHOT,
        ])
        .spawn();
    wait_for("the restore", Duration::from_secs(30), || {
        run.stdout().contains("created").then_some(())
    });
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(
        plane.get("etcdrestores", "r")["status"]["phase"],
        Value::Null
    );
    let run = run.wait(Duration::from_secs(120)).code(1);
    assert!(
        run.stderr.contains("was not renewed for 60 s"),
        "{}",
        run.stderr
    );
    assert_eq!(
        plane.get("etcdrestores", "r")["status"]["phase"],
        "EtcdLauncherNotEnabled"
    );
}

#[test]
fn a_restore_is_followed_through_its_phases_to_its_end() {
    let plane = plane("followed");
    lease(&plane);
    let waiting = |name: &str| {
        let running = plane
            .run(&[
                "restore",
                "create",
                name,
                "--yes",
                "--wait",
                "--from-snapshot",
                SNAPSHOT,
            ])
            .spawn();
        wait_for("the restore", Duration::from_secs(30), || {
            running.stdout().contains("created").then_some(())
        });
        running
    };
    let running = waiting("good");
    for (phase, step) in [
        ("Started", "Preflight"),
        ("Started", "Pausing"),
        ("StsRebuilding", "Swapping"),
    ] {
        plane.status(
            "etcdrestore",
            "good",
            &json!({"phase": phase, "message": "on its way", "attempt": {"id": "1", "step": step}}),
        );
        let line = format!("{phase}: {step}: on its way");
        wait_for(&line, Duration::from_secs(30), || {
            running.stderr().contains(&line).then_some(())
        });
    }
    plane.status(
        "etcdrestore",
        "good",
        &json!({"phase": "Completed", "restoreTime": "2026-11-20T02:00:00Z"}),
    );
    let run = running.wait(Duration::from_secs(30)).ok();
    assert!(
        run.stdout
            .contains("etcdrestore/good completed at 2026-11-20 02:00:00"),
        "{}",
        run.stdout
    );
    for (name, phase, told) in [
        ("bad", "Failed", "nothing was changed"),
        ("back", "RolledBack", "the old state serves again"),
    ] {
        let running = waiting(name);
        plane.status(
            "etcdrestore",
            name,
            &json!({"phase": phase, "message": "the digest differs"}),
        );
        let run = running.wait(Duration::from_secs(30)).code(1);
        for word in [phase, told, "the digest differs"] {
            assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
        }
    }
}

#[test]
fn describe_tells_decisions_and_members() {
    let plane = with_restore("told");
    plane.status("etcdrestore", "r", &json!({
        "phase": "Started", "message": "waits for etcd-2",
        "conditions": [{"type": "Waiting", "status": "True", "reason": "ActiveRestore", "message": "x is at work", "lastTransitionTime": "2026-11-20T02:00:00Z"}],
        "attempt": {"id": "4711", "step": "Planned", "decidedAt": "2026-11-20T02:00:00Z", "targetRevision": 1_700_000_000_000_i64,
            "snapshot": {"name": SNAPSHOT, "sha256": "b", "revision": 9}, "members": [{"name": "etcd-0"}, {"name": "etcd-1"}]},
        "reports": {"etcd-0": {"state": "Built", "message": "proven"}, "etcd-1": {"state": "Building"}},
    }));
    let text = plane.run(&["restore", "describe", "r"]).ok().stdout;
    for word in [
        "Phase:",
        "waits for etcd-2",
        "ActiveRestore",
        "Planned",
        "1700000000000",
        "etcd-0, etcd-1",
        "Built proven",
        "Building",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let told = plane.run(&["restore", "describe", "r", "-o", "json"]).ok();
    assert_eq!(told.json()["kind"], "EtcdRestore");
    let missing = plane.run(&["restore", "describe", "absent"]).code(1);
    assert!(
        missing.stderr.contains("Error from server (NotFound)"),
        "{}",
        missing.stderr
    );
    // By its name alone, across namespaces.
    let other = with_restore("told");
    let refused = etcd(plane.cluster, &["restore", "describe", "r"]).code(1);
    assert!(
        refused.stderr.contains("several namespaces") && refused.stderr.contains(&other.namespace),
        "{}",
        refused.stderr
    );
    etcd(
        plane.cluster,
        &["restore", "describe", "r", "-n", &other.namespace],
    )
    .ok();
}

#[test]
fn abort_and_rollback_are_asked_for_where_they_can_be() {
    let plane = with_restore("back");
    let annotation = |name: &str| {
        plane.get("etcdrestores", "r")["metadata"]["annotations"][format!("kubectl-backup/{name}")]
            .clone()
    };
    let refused = plane.run(&["rollback", "r", "--yes"]).code(1);
    assert!(
        refused.stderr.contains("not completed") && refused.stderr.contains("etcd abort"),
        "{}",
        refused.stderr
    );
    plane.status(
        "etcdrestore",
        "r",
        &json!({"phase": "StsRebuilding", "attempt": {"step": "Committed"}}),
    );
    let refused = plane.run(&["abort", "r"]).code(1);
    assert!(
        refused.stderr.contains("is committed") && refused.stderr.contains("etcd rollback"),
        "{}",
        refused.stderr
    );
    assert_eq!(annotation("abort"), Value::Null);
    plane.status(
        "etcdrestore",
        "r",
        &json!({"phase": "StsRebuilding", "attempt": {"step": "Swapping"}}),
    );
    let asked = plane.run(&["abort", "r"]).ok();
    assert_eq!(asked.stdout, "etcdrestore/r asked to abort\n");
    assert_eq!(annotation("abort"), "true");
    assert!(
        plane
            .run(&["restore", "describe", "r"])
            .ok()
            .stdout
            .contains("abort")
    );
    plane.status("etcdrestore", "r", &json!({"phase": "RolledBack"}));
    plane.run(&["abort", "r"]).code(1);
    plane.run(&["rollback", "r", "--yes"]).code(1);
    plane.status("etcdrestore", "r", &json!({"phase": "Completed"}));
    plane.run(&["abort", "r"]).code(1);
    let refused = plane.run(&["rollback", "r", "--yes"]).code(1);
    assert!(
        refused.stderr.contains("which state it replaced"),
        "{}",
        refused.stderr
    );
    let attempt = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
    plane.status(
        "etcdrestore",
        "r",
        &json!({"phase": "Completed", "attempt": {"id": attempt, "step": "Completed"}}),
    );
    plane.run(&["rollback", "r"]).code(2);
    let made = plane
        .run(&["rollback", "r", "--yes", "-o", "json"])
        .ok()
        .json();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("r-rollback-20"), "{name}");
    let spec = plane.get("etcdrestores", name)["spec"].clone();
    assert_eq!(spec["backupName"], format!("kept-{attempt}"));
    for field in ["cluster", "destination"] {
        assert_eq!(spec[field], plane.get("etcdrestores", "r")["spec"][field]);
    }
    let help = etcd(plane.cluster, &["abort", "--help"]).ok().stdout;
    assert!(help.contains("kubectl-backup/abort=true"), "{help}");
}
