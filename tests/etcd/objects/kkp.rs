//! Where KKP manages the clusters: the kinds are KKP's, and so is what comes of the objects. The plugin writes what KKP takes and reads what it says;
//! nothing of ours is written beside it.

use harness::cluster::{Cluster, Controllers};
use harness::hosted::kkp;
use serde_json::{Value, json};

use super::place::{crds, etcd, good};

fn managed() -> Cluster {
    let cluster = Cluster::builder().controllers(Controllers::None).start();
    kkp::bring_crds(&cluster);
    cluster.kubectl(&["create", "namespace", "cluster-abc"]);
    cluster.apply("{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, metadata: {name: abc}, spec: {humanReadableName: x, version: 1.36.3}}");
    cluster.kubectl(&[
        "patch", "cluster.kubermatic.k8c.io", "abc", "--subresource=status", "--type=merge", "-p",
        r#"{"status": {"namespaceName": "cluster-abc", "conditions": {"EtcdClusterInitialized": {"status": "True", "lastHeartbeatTime": "2026-11-20T01:00:00Z", "kubermaticVersion": "v2.29"}}}}"#,
    ]);
    cluster
}

#[test]
fn the_plugin_writes_what_kkp_takes_reads_what_it_says_and_nothing_is_written_beside_it() {
    let cluster = managed();
    let run = |arguments: &[&str]| etcd(&cluster, arguments).args(&["--cluster", "abc"]);
    let object = |plural: &str, name: &str| {
        cluster.get_raw(&format!(
            "/apis/kubermatic.k8c.io/v1/namespaces/cluster-abc/{plural}/{name}"
        ))
    };
    let refused = crds(&cluster).code(1);
    assert!(
        refused.stderr.contains("is KKP's; nothing was changed"),
        "{}",
        refused.stderr
    );
    run(&[
        "schedule",
        "create",
        "daily",
        "--preset",
        "daily",
        "--destination",
        "s3",
    ])
    .ok();
    run(&["snapshot", "once", "--destination", "s3"]).ok();
    assert_eq!(
        object("etcdbackupconfigs", "daily")["spec"]["name"],
        "daily"
    );
    // What KKP does not have can not be asked for.
    let refused = run(&[
        "schedule",
        "create",
        "x",
        "--preset",
        "daily",
        "--destination",
        "s3",
        "--deletion-policy",
        "Delete",
    ])
    .code(1);
    assert!(
        refused.stderr.contains("spec.deletionPolicy"),
        "{}",
        refused.stderr
    );
    // Its own names, with their ending, in the status it writes.
    let mut row = good("daily-2026-11-20t01-00-00.db.gz");
    for ours in ["backupSize", "hash", "revision"] {
        row.as_object_mut().unwrap().remove(ours);
    }
    let patch = json!({"status": {"currentBackups": [row]}}).to_string();
    cluster.kubectl(&[
        "patch",
        "etcdbackupconfig",
        "daily",
        "-n",
        "cluster-abc",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
    let table = run(&["get"]).ok().stdout;
    assert!(
        table.contains("daily-2026-11-20t01-00-00.db.gz") && table.contains("Completed"),
        "{table}"
    );
    let made = run(&[
        "restore",
        "create",
        "r",
        "--from-snapshot",
        "daily-2026-11-20T01:00:00",
        "--yes",
    ])
    .ok();
    assert!(
        !made.stderr.contains("launcher is at work"),
        "{}",
        made.stderr
    );
    let restore = object("etcdrestores", "r");
    assert_eq!(
        restore["spec"]["backupName"], "daily-2026-11-20t01-00-00.db.gz",
        "the name that KKP knows"
    );
    assert_eq!(restore["status"], Value::Null);
    let run = run(&[
        "restore",
        "create",
        "s",
        "--from-snapshot",
        "daily-2026-11-20T01:00:00",
        "--yes",
        "--wait",
        "--timeout",
        "3s",
    ])
    .code(1);
    assert!(
        run.stderr.contains("not finished after 3s"),
        "{}",
        run.stderr
    );
    assert_eq!(object("etcdrestores", "s")["status"], Value::Null);
}
