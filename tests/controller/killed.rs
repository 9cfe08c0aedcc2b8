//! Controllers that die, and two at once.

use std::time::Duration;

use harness::proxy::{Action, Match, Proxy};
use serde_json::Value;

use super::{NAMESPACE, Served};

/// As long as a Lease that nobody renews stands, and a bit.
const TAKEN_OVER: Duration = Duration::from_secs(90);

#[test]
fn what_a_killed_controller_was_at_is_ended_by_the_next_and_a_schedule_runs_once_more() {
    let mut served = Served::start("controller-killed");
    // What it reads takes its time.
    let proxy = Proxy::start(&served.cluster.endpoint());
    proxy.every(
        Match::path("/configmaps"),
        Action::Delay(Duration::from_secs(5)),
    );
    let through = served.cluster.token_kubeconfig(&proxy.url());
    drop(served.controller.take().unwrap().kill());
    let slow = served.call(&[]).kubeconfig(&through).spawn();
    served.apply(&format!(
        "
apiVersion: velero.io/v1
kind: Schedule
metadata: {{name: s, namespace: {NAMESPACE}}}
spec: {{schedule: '@every 15s', template: {{includedNamespaces: [default]}}}}
"
    ));
    let names = |phase: &str| -> Vec<String> {
        let list = served.object("backups").unwrap();
        let all = list["items"].as_array().unwrap();
        let of = all
            .iter()
            .filter(|backup| backup["status"]["phase"] == phase);
        of.map(|backup| backup["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let lost = harness::wait_for("a backup at work", TAKEN_OVER, || names("InProgress").pop());
    let claims = || {
        let all = served
            .minio
            .list(&served.bucket, &format!("main/backups/{lost}/"));
        all.iter().filter(|key| key.contains("/claim-")).count()
    };
    harness::wait_for("its claim", TAKEN_OVER, || (claims() == 1).then_some(()));
    served.cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "patch",
        "schedules.velero.io",
        "s",
        "--type=merge",
        "-p",
        r#"{"spec":{"schedule":"@every 24h"}}"#,
    ]);
    drop(slow.kill());

    // Two take over; one of them works.
    let (one, other) = (served.call(&[]).spawn(), served.call(&[]).spawn());
    let ended = served.ends(&lost, "Failed");
    let why = ended["status"]["failureReason"].as_str().unwrap();
    assert!(
        why.contains("the controller that made this backup ended"),
        "{why}"
    );
    assert!(ended["status"]["completionTimestamp"].is_string());
    let again = harness::wait_for("the backup in its place", TAKEN_OVER, || {
        names("Completed").pop()
    });
    let again = served.object(&format!("backups/{again}")).unwrap();
    let annotations = &again["metadata"]["annotations"];
    assert_eq!(annotations["kubectl-backup/again-for"], lost.as_str());
    assert_eq!(
        annotations["kubectl-backup/slot"],
        ended["metadata"]["annotations"]["kubectl-backup/slot"]
    );
    // The dead run's claim may be a living one's for all that anybody knows, for an hour.
    assert_eq!(claims(), 1);
    std::thread::sleep(Duration::from_secs(5));
    let list = served.object("backups").unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list:#}");

    let works = |log: &str| log.contains("serving velero.io/v1");
    let (first, second) = (works(&one.stderr()), works(&other.stderr()));
    assert!(first != second, "{}{}", one.stderr(), other.stderr());
    // Who works dies; the other one goes on.
    let (dies, lives) = if first { (one, other) } else { (other, one) };
    drop(dies.kill());
    served.apply(&format!("{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: after, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default]}}}}"));
    served.ends("after", "Completed");
    assert!(works(&lives.stderr()), "{}", lives.stderr());

    // An object that goes away takes its work along, and nothing of it stays.
    drop(lives.kill());
    served.controller = Some(served.call(&[]).kubeconfig(&through).spawn());
    served.apply(&format!("{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: unwanted, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default]}}}}"));
    let folder = "main/backups/unwanted/";
    harness::wait_for("the claim", TAKEN_OVER, || {
        (!served.minio.list(&served.bucket, folder).is_empty()).then_some(())
    });
    served
        .cluster
        .kubectl(&["-n", NAMESPACE, "delete", "backups.velero.io", "unwanted"]);
    harness::wait_for("an empty folder", TAKEN_OVER, || {
        served
            .minio
            .list(&served.bucket, folder)
            .is_empty()
            .then_some(())
    });
    assert_eq!(served.object("backups/unwanted"), None::<Value>);
}
