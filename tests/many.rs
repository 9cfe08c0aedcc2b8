//! Several clusters as one: by contexts on the command line, and by a workspace.

use std::fs;
use std::path::Path;

use harness::cluster::{Cluster, Controllers};
use harness::process::Folder;
use harness::run::{Run, kubectl_backup};

const WORKSPACE: &str = "
apiVersion: kubectl-backup/v1
kind: Workspace
spec:
  location: offsite
  namespaces: [many-shop]
  schedule: {name: nightly, ttl: 30d}
  clusters:
  - {context: eu, name: europe}
  - {context: us}
";

/// A kubeconfig whose one context, cluster and user have this name.
fn renamed(kubeconfig: &Path, name: &str) -> String {
    let text = fs::read_to_string(kubeconfig).unwrap();
    text.replace("name: test", &format!("name: {name}"))
        .replace(
            "cluster: test, user: test",
            &format!("cluster: {name}, user: {name}"),
        )
        .replace("current-context: test", &format!("current-context: {name}"))
}

fn fill(cluster: &Cluster, name: &str) {
    cluster.apply(&format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: many-shop}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: where, namespace: many-shop}}
data: {{cluster: {name}}}
"
    ));
}

fn is_there(cluster: &Cluster, name: &str) {
    let found = cluster.get_raw("/api/v1/namespaces/many-shop/configmaps/where");
    assert_eq!(found["data"]["cluster"], name);
}

fn says(run: &Run, words: &[&str]) {
    let all = format!("{}\n{}", run.stdout, run.stderr);
    for word in words {
        assert!(all.contains(word), "{word} is missing in\n{all}");
    }
}

/// The row of a table that begins with this word.
fn row<'r>(run: &'r Run, first: &str) -> &'r str {
    let mut rows = run.stdout.lines();
    rows.find(|row| row.split_whitespace().next() == Some(first))
        .unwrap_or_else(|| panic!("no row {first} in\n{}", run.stdout))
}

#[test]
fn several_clusters_are_backed_up_looked_at_and_restored_as_one() {
    let eu = Cluster::shared();
    let us = Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start();
    let home = Folder::new("home");
    let mut files = Vec::new();
    for (name, kubeconfig) in [
        ("eu", eu.kubeconfig()),
        ("us", us.kubeconfig()),
        ("twin", eu.kubeconfig()),
    ] {
        files.push(home.write(format!("{name}.kubeconfig"), renamed(kubeconfig, name)));
    }
    let gone = renamed(eu.kubeconfig(), "gone").replace(&eu.api_url(), "https://127.0.0.1:1");
    files.push(home.write("gone.kubeconfig", gone));
    let kubeconfig = std::env::join_paths(&files).unwrap();
    let run = |arguments: &[&str]| {
        kubectl_backup(arguments)
            .home(home.path())
            .env("KUBECONFIG", &kubeconfig)
    };
    fill(eu, "europe");
    fill(&us, "us");
    let folder = home.join("offsite");
    let bucket = folder.display().to_string();
    run(&[
        "location",
        "create",
        "offsite",
        "--provider",
        "local",
        "--bucket",
        &bucket,
    ])
    .ok();
    let workspaces = home.join(".config/kubectl-backup/workspaces");
    fs::create_dir_all(&workspaces).unwrap();
    fs::write(workspaces.join("production.yaml"), WORKSPACE).unwrap();
    let half = WORKSPACE.replace("- {context: us}", "- {context: us}\n  - {context: gone}");
    fs::write(workspaces.join("half.yaml"), half).unwrap();
    let production = ["--workspace", "production"];
    let with = |arguments: &[&str], more: &[&str]| run(&[arguments, more].concat());

    // A backup of each, under one name, in a folder of its own, of what the workspace says.
    let made = with(&["create"], &production).ok();
    for name in ["europe", "us"] {
        let row = row(&made, name);
        assert!(
            row.contains("Completed") && row.contains(&format!("offsite/{name}")),
            "{row}"
        );
        assert!(
            made.stderr
                .contains(&format!("{name}: backing up namespace many-shop")),
            "{}",
            made.stderr
        );
        assert!(folder.join(name).join(".kubectl-backup.json").exists());
    }
    let listed = with(&["create", "second", "-o", "json"], &production)
        .ok()
        .json();
    assert_eq!(listed["kind"], "List");
    let backup = &listed["items"][0];
    assert_eq!(
        backup["metadata"]["annotations"]["kubectl-backup/cluster"],
        "europe"
    );
    assert_eq!(
        backup["metadata"]["labels"]["velero.io/schedule-name"],
        "nightly"
    );
    assert_eq!(backup["spec"]["ttl"], "720h0m0s");
    let planned = with(&["create", "--dry-run", "-o", "name"], &production).ok();
    assert_eq!(
        planned.stdout.matches("backup/nightly-").count(),
        2,
        "{}",
        planned.stdout
    );

    let table = with(
        &["get", "-l", "velero.io/schedule-name=nightly"],
        &production,
    )
    .ok();
    assert_eq!(table.stdout.lines().count(), 5, "{}", table.stdout);
    says(&table, &["CLUSTER", "europe", "us"]);
    says(
        &with(&["describe", "second"], &production).ok(),
        &["Cluster:", "europe", "us"],
    );
    let described = with(&["describe", "second", "-o", "json"], &production)
        .ok()
        .json();
    assert_eq!(described["items"][1]["cluster"], "us");
    // One of them by itself, as the hints have it.
    run(&[
        "describe",
        "second",
        "--context",
        "eu",
        "--location",
        "offsite/europe",
    ])
    .ok();

    // What goes where is told, and nothing is done before somebody says yes.
    for cluster in [eu, &us] {
        cluster.kubectl(&["delete", "configmap", "where", "-n", "many-shop"]);
    }
    let restore = ["restore", "create", "--from-backup", "second"];
    let asked = with(&restore, &production).code(2);
    says(
        &asked,
        &[
            "europe: namespace many-shop of backup second",
            "us: ",
            "--yes",
            "context \"us\"",
        ],
    );
    let plan = with(
        &[&restore[..], &["--dry-run", "-o", "json"]].concat(),
        &production,
    )
    .ok()
    .json();
    assert_eq!(plan["items"][1]["cluster"], "us");
    assert!(
        plan["items"][0]["steps"].to_string().contains("where"),
        "{plan}"
    );
    let missing = us.try_kubectl(&["get", "configmap", "where", "-n", "many-shop"]);
    assert_ne!(missing.code, 0);
    let done = with(&[&restore[..], &["--yes"]].concat(), &production).ok();
    assert!(row(&done, "us").contains("Completed"), "{}", done.stdout);
    is_there(eu, "europe");
    is_there(&us, "us");

    // One that fails stops none of the others.
    let half = ["--workspace", "half"];
    let made = with(&["create", "third"], &half).code(1);
    says(&made, &["gone: error"]);
    assert!(
        row(&made, "gone").contains("Failed") && row(&made, "us").contains("Completed"),
        "{}",
        made.stdout
    );
    let table = with(&["get"], &half).ok();
    assert!(!table.stdout.contains("gone"), "{}", table.stdout);
    us.kubectl(&["delete", "configmap", "where", "-n", "many-shop"]);
    let restore = ["restore", "create", "--from-backup", "third", "--yes"];
    let done = with(&restore, &half).code(1);
    says(&done, &["gone: nothing is restored into it"]);
    is_there(&us, "us");

    // Nor does somebody who took their location for one cluster's own.
    run(&[
        "create",
        "stray",
        "-n",
        "many-shop",
        "--context",
        "us",
        "--location",
        "offsite",
    ])
    .ok();
    says(
        &with(&["create", "fourth"], &production).ok(),
        &["at the location's root"],
    );

    // With nothing configured, each has the folder of this machine that is its own.
    let bare = Folder::new("home");
    let plain =
        |arguments: &[&str]| run(&[arguments, &["--contexts", "eu,us"]].concat()).home(bare.path());
    plain(&["create", "plain", "-n", "many-shop"]).ok();
    let listed = plain(&["get", "plain", "-o", "json"]).ok().json();
    let uid =
        |at: usize| &listed["items"][at]["metadata"]["annotations"]["kubectl-backup/cluster-uid"];
    assert!(uid(0).is_string() && uid(0) != uid(1), "{listed}");

    for (arguments, code, words) in [
        (&["create", "--contexts", "eu,absent"][..], 1, "absent"),
        (&["create", "--contexts", "eu,eu"], 2, "twice"),
        (
            &["create", "--contexts", "eu,twin", "--location", "offsite"],
            2,
            "one cluster",
        ),
        (
            &["get", "--contexts", "eu,us", "--server", "https://x"],
            2,
            "--server",
        ),
        (&["get", "--workspace", "absent"], 2, "absent.yaml"),
        (
            &["get", "--workspace", "production", "--location", "offsite"],
            2,
            "--location",
        ),
        (
            &["get", "--workspace", "production", "--contexts", "eu"],
            2,
            "--contexts",
        ),
        (
            &["delete", "second", "--contexts", "eu,us"],
            2,
            "--contexts",
        ),
        // A location that one cluster has for itself is no place for several.
        (
            &[
                "create",
                "--contexts",
                "eu,us",
                "--location",
                "offsite/europe",
            ],
            1,
            "one cluster",
        ),
    ] {
        let refused = run(arguments).code(code);
        assert!(
            refused.stderr.contains(words),
            "{arguments:?}\n{}",
            refused.stderr
        );
    }
}
