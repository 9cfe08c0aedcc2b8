//! Work that the plugin hands to a controller, and follows.

use std::time::Duration;

use harness::proxy::{Action, Match, Proxy};
use harness::run::{Backup, Signal, kubectl_backup};
use serde_json::Value;

use super::{NAMESPACE, PATIENT, Served};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop, labels: {app: web}}
data: {a: b}
";

/// May look at everything in the namespace, and make nothing.
const LOOKER: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: looker}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: looker}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: looker}
subjects: [{kind: User, name: looker, apiGroup: rbac.authorization.k8s.io}]
";

#[test]
fn the_controller_does_what_the_plugin_hands_to_it_and_the_plugin_says_who_works() {
    let mut served = Served::start("controller-handed");
    served.apply(SHOP);
    served.apply(LOOKER);
    let home = harness::process::Folder::new("handed");
    let call = |words: &[&str]| -> Backup {
        kubectl_backup(words)
            .home(home.path())
            .kubeconfig(served.cluster.kubeconfig())
    };
    let by_controller = format!("the controller of namespace {NAMESPACE}");

    // Nothing is made that is only shown.
    let planned = call(&[
        "create",
        "b0",
        "-n",
        "shop",
        "--in-cluster=always",
        "--dry-run",
        "-o",
        "json",
    ])
    .ok();
    let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(planned["spec"]["includeClusterResources"], false);
    assert_eq!(planned["spec"]["storageLocation"], "default");
    assert_eq!(planned["metadata"]["namespace"], NAMESPACE);
    assert_eq!(planned["status"], Value::Null);
    assert!(served.object("backups/b0").is_none());

    let made = call(&[
        "create",
        "b1",
        "-n",
        "shop",
        "--selector",
        "app=web",
        "--ttl",
        "2d",
        "--labels",
        "team=shop",
        "--in-cluster=auto",
    ])
    .ok();
    assert_eq!(made.stdout, "backup/b1 created\n");
    assert!(made.stderr.contains(&by_controller), "{}", made.stderr);
    assert!(made.stderr.contains("b1: Completed"), "{}", made.stderr);
    let object = served.object("backups/b1").unwrap();
    assert_eq!(object["status"]["phase"], "Completed");
    assert!(object["metadata"]["annotations"]["kubectl-backup/run"].is_string());
    let asked = &object["spec"];
    assert_eq!(asked["includedNamespaces"][0], "shop");
    assert_eq!(asked["labelSelector"]["matchLabels"]["app"], "web");
    assert_eq!(asked["ttl"], "48h0m0s");
    assert_eq!(object["metadata"]["labels"]["team"], "shop");
    let named = call(&["create", "--in-cluster=always", "-n", "shop", "-o", "name"]).ok();
    let name = named
        .stdout
        .trim()
        .strip_prefix("backup/")
        .unwrap()
        .to_owned();
    assert_eq!(
        served.ends(&name, "Completed")["spec"]["storageLocation"],
        "default"
    );

    // A restore of it.
    let restored = call(&[
        "restore",
        "create",
        "r1",
        "--from-backup",
        "b1",
        "--namespace-mappings",
        "shop:copy",
        "--in-cluster=auto",
        "--yes",
    ])
    .ok();
    assert_eq!(restored.stdout, "restore/r1 created\n");
    assert!(
        restored.stderr.contains(&by_controller),
        "{}",
        restored.stderr
    );
    served
        .cluster
        .get_raw("/api/v1/namespaces/copy/configmaps/settings");
    assert_eq!(
        served.object("restores/r1").unwrap()["status"]["phase"],
        "Completed"
    );

    // What a controller does not do is done here, and why is told.
    let folder = home.join("folder").display().to_string();
    let url = format!("file://{folder}");
    let here = |words: &[&str], why: &str| {
        let run = call(&[words, &["--in-cluster=auto"]].concat()).ok();
        assert!(
            run.stderr.contains("done from here") && run.stderr.contains(why),
            "{words:?}: {}",
            run.stderr
        );
    };
    here(
        &["create", "h1", "-n", "shop", "--location", &url],
        "known here, and not there",
    );
    here(
        &[
            "create",
            "h2",
            "-n",
            "shop",
            "--skip-noise",
            "--location",
            &url,
        ],
        "--skip-noise",
    );
    here(
        &[
            "restore",
            "create",
            "h3",
            "--from-backup",
            "h1",
            "--location",
            &url,
            "--yes",
        ],
        "known here, and not there",
    );
    let run = call(&[
        "create",
        "h4",
        "-n",
        "shop",
        "--location",
        &url,
        "--in-cluster=auto",
        "--as",
        "looker",
    ])
    .ok();
    assert!(
        run.stderr.contains("may not create backups"),
        "{}",
        run.stderr
    );
    assert!(served.object("backups/h4").is_none());

    refused(&served, &call);

    // Who follows may leave, and the work goes on. What is read takes its time.
    let proxy = Proxy::start(&served.cluster.endpoint());
    proxy.every(
        Match::path("/configmaps"),
        Action::Delay(Duration::from_secs(4)),
    );
    let through = served.cluster.token_kubeconfig(&proxy.url());
    let controller = served.controller.take().unwrap();
    controller.signal(Signal::TERM);
    controller.wait(PATIENT).code(0);
    served.controller = Some(served.call(&[]).kubeconfig(&through).spawn());
    harness::wait_for("the next controller", PATIENT, || {
        served.log().contains("serving velero.io/v1").then_some(())
    });
    let left = kubectl_backup(&["create", "left", "-n", "shop", "--in-cluster=always"])
        .home(home.path())
        .kubeconfig(served.cluster.kubeconfig())
        .spawn();
    served.wait("backups/left", "at work", |object| {
        object["status"]["phase"] == "InProgress"
    });
    left.signal(Signal::INT);
    let left = left.wait(PATIENT);
    assert!(
        left.stderr.contains("goes on in the cluster"),
        "{}",
        left.stderr
    );
    assert!(
        left.stderr.contains("delete backups.velero.io left"),
        "{}",
        left.stderr
    );
    left.code(130);
    served.ends("left", "Completed");
}

/// What has to be done by a controller and can not be is refused, and nothing is made.
fn refused(served: &Served, call: &dyn Fn(&[&str]) -> Backup) {
    let always = |words: &[&str], code: i32, part: &str| {
        let run = call(&[words, &["--in-cluster=always"]].concat()).code(code);
        assert!(run.stderr.contains(part), "{words:?}: {}", run.stderr);
    };
    for (words, code, part) in [
        (&["create", "x", "--ttl", "never"][..], 2, "--ttl never"),
        (&["create", "x", "--skip-noise"], 2, "--skip-noise"),
        (
            &["create", "x", "--point-in-time=false"],
            2,
            "--point-in-time",
        ),
        (&["create", "x", "--expires", "2099-01-01"], 2, "--expires"),
        (&["create", "--from-schedule", "s"], 2, "schedule trigger"),
        (&["create", "--contexts", "a,b"], 2, "cannot be used with"),
        (
            &["create", "x", "--location", "s3://b/p"],
            1,
            "no BackupStorageLocation",
        ),
        (&["create", "x", "--location", "nowhere"], 1, "nowhere"),
        (&["create", "b1"], 1, "already"),
        (
            &["create", "x", "--controller-namespace", "elsewhere"],
            1,
            "no controller works in namespace elsewhere",
        ),
        (
            &["restore", "create", "x", "--from-backup", "absent", "--yes"],
            1,
            "no Backup absent",
        ),
        (
            &["restore", "create", "x", "--from-backup", "b1"],
            2,
            "--yes",
        ),
        (
            &[
                "restore",
                "create",
                "x",
                "--from-backup",
                "b1",
                "--objects",
                "shop/settings",
            ],
            2,
            "--objects",
        ),
        (
            &[
                "restore",
                "create",
                "x",
                "--from-backup",
                "b1",
                "--existing-resource-policy=recreate",
                "--yes",
            ],
            2,
            "--existing-resource-policy",
        ),
    ] {
        always(words, code, part);
    }
    let run = call(&["create", "x", "--in-cluster=always", "--as", "looker"]).code(1);
    assert!(
        run.stderr.contains("may not create backups"),
        "{}",
        run.stderr
    );
    assert!(served.object("backups/x").is_none() && served.object("restores/x").is_none());
    // What the controller refuses is the plugin's failure, with its reasons.
    let failed = call(&[
        "create",
        "bad",
        "--include-resources",
        "no-such-kind",
        "--in-cluster=always",
    ])
    .code(1);
    assert!(failed.stderr.contains("bad ended as"), "{}", failed.stderr);
    assert_eq!(failed.stdout, "");
}
