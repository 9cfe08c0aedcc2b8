//! Several clusters as one: by contexts on the command line, and by a workspace.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};
use harness::run::{Run, Signal, kubectl_backup};

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
pub(crate) fn renamed(kubeconfig: &Path, name: &str) -> String {
    let text = fs::read_to_string(kubeconfig).unwrap();
    text.replace("name: test", &format!("name: {name}"))
        .replace(
            "cluster: test, user: test",
            &format!("cluster: {name}, user: {name}"),
        )
        .replace("current-context: test", &format!("current-context: {name}"))
}

/// The same with a credential plugin that never answers, and writes down who it is.
fn stuck(kubeconfig: &Path, pids: &Path) -> String {
    let plugin = format!(
        "users: [{{name: stuck, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: [-c, 'echo $$ >> {}; sleep 6000; true'], interactiveMode: Never}}}}}}]",
        pids.display()
    );
    let text = renamed(kubeconfig, "stuck");
    let lines = text.lines().map(|line| match line.starts_with("users:") {
        true => plugin.as_str(),
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Of somebody who sees some of what lies in a namespace.
const RIGHTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: many-shop}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: half-blind, namespace: many-shop}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: half-blind, namespace: many-shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: half-blind}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: half-blind}]
";

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
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: shop, namespace: many-shop}}
spec: {{ingressClassName: absent-class, defaultBackend: {{service: {{name: shop, port: {{number: 80}}}}}}}}
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
    let pids = home.join("plugin.pids");
    files.push(home.write("stuck.kubeconfig", stuck(eu.kubeconfig(), &pids)));
    us.apply(RIGHTS);
    let half_blind = us.user("half-blind", &[]);
    files.push(home.write("blind.kubeconfig", renamed(&half_blind, "blind")));
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
    let first = planned.stdout.lines().next().unwrap();
    assert!(first.starts_with("europe/backup/nightly-"), "{first}");
    let labels = ["--labels", "velero.io/schedule-name=mine", "-o", "json"];
    let planned = with(
        &[&["create", "--dry-run"], &labels[..]].concat(),
        &production,
    );
    let label = &planned.ok().json()["items"][0]["metadata"]["labels"]["velero.io/schedule-name"];
    assert_eq!(label, "mine");

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

    // What goes where and what is lacking there is told, and nothing is done before somebody says yes.
    for cluster in [eu, &us] {
        cluster.kubectl(&["delete", "ingress", "shop", "-n", "many-shop"]);
        cluster.kubectl(&["delete", "configmap", "where", "-n", "many-shop"]);
    }
    let restore = ["restore", "create", "r", "--from-backup", "second"];
    let asked = with(&restore, &production).code(2);
    says(
        &asked,
        &[
            "europe: namespace many-shop of backup second",
            "us: the target lacks IngressClass absent-class",
            "the targets lack 2 things; restore into 2 clusters",
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

    // What was restored is looked at and put away as one, too; nothing goes before somebody says yes.
    let table = with(&["restore", "get"], &production).ok();
    says(&table, &["CLUSTER", "europe", "us"]);
    let names = "europe/restore/r\nus/restore/r\n";
    let listed = with(&["restore", "get", "-o", "name"], &production).ok();
    assert_eq!(listed.stdout, names);
    let listed = with(&["restore", "get", "r", "-o", "json"], &production);
    let annotations = &listed.ok().json()["items"][1]["metadata"]["annotations"];
    assert_eq!(annotations["kubectl-backup/cluster"], "us");
    let described = with(&["restore", "describe", "r"], &production).ok();
    says(&described, &["Cluster:", "europe", "us", "Completed"]);
    let described = with(&["restore", "describe", "r", "-o", "json"], &production);
    assert_eq!(described.ok().json()["items"][0]["cluster"], "europe");
    let delete = ["restore", "delete", "r"];
    let asked = with(&delete, &production).code(2);
    says(&asked, &["r of europe, and r of us", "--yes"]);
    let dry = with(
        &[&delete[..], &["--dry-run", "-o", "name"]].concat(),
        &production,
    );
    assert_eq!(dry.ok().stdout, names);
    let done = with(&[&delete[..], &["--yes"]].concat(), &production).ok();
    says(&done, &["europe/restore/r deleted", "us/restore/r deleted"]);
    let again = with(&[&delete[..], &["--yes"]].concat(), &production).code(1);
    says(&again, &["europe: error", "us: error"]);
    let keep = ["prune", "--keep", "1"];
    let asked = with(&keep, &production).code(2);
    says(&asked, &["1 item from", "(europe)", "(us)", "--yes"]);
    let dry = with(
        &[&keep[..], &["--dry-run", "-o", "name"]].concat(),
        &production,
    )
    .ok();
    let pruned: Vec<_> = dry.stdout.lines().collect();
    assert!(
        pruned.len() == 2 && pruned[1].starts_with("us/backup/nightly-"),
        "{}",
        dry.stdout
    );
    let done = with(&[&keep[..], &["--yes"]].concat(), &production).ok();
    says(
        &done,
        &["europe/backup/nightly-", "us/backup/nightly-", "newer ones"],
    );
    let left = with(&["get", "-o", "name"], &production).ok();
    assert_eq!(left.stdout, "europe/backup/second\nus/backup/second\n");

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
    let dry = with(&["prune", "--keep", "1", "--dry-run"], &half).code(1);
    says(&dry, &["gone: error", "us/backup/second would be pruned"]);
    us.kubectl(&["delete", "configmap", "where", "-n", "many-shop"]);
    let restore = [
        "restore",
        "create",
        "back",
        "--from-backup",
        "third",
        "--yes",
    ];
    let done = with(&restore, &half).code(1);
    says(&done, &["gone: nothing is restored into it"]);
    is_there(&us, "us");
    let record = folder.join("us/restores/back");
    assert!(record.is_dir());
    let one = [
        "restore",
        "delete",
        "back",
        "--yes",
        "--context",
        "us",
        "--location",
        "offsite/us",
    ];
    run(&one).ok();
    let deleted = with(&["restore", "delete", "back", "--yes"], &half).code(1);
    says(
        &deleted,
        &["europe/restore/back deleted", "us: error", "gone: error"],
    );

    // Nor does one that never says who we are to it: it is asked once, and ended.
    let third = "- {context: us}\n  - {context: stuck}";
    let stuck = WORKSPACE.replace("- {context: us}", third);
    fs::write(workspaces.join("stuck.yaml"), stuck).unwrap();
    let asked = [
        "create",
        "late",
        "--workspace",
        "stuck",
        "--request-timeout",
        "15s",
    ];
    let made = run(&asked).spawn().wait(Duration::from_secs(300));
    assert_eq!(made.code, 1, "{}", made.stderr);
    says(&made, &["stuck: error", "did not answer in time"]);
    assert!(row(&made, "us").contains("Completed"), "{}", made.stdout);
    let asked = fs::read_to_string(&pids).unwrap();
    let plugin = Path::new("/proc").join(asked.trim());
    assert!(asked.lines().count() == 1 && !plugin.exists(), "{asked}");

    // The exit code is the worst of theirs.
    let parts = format!("file://{}", home.join("parts").display());
    let part = ["-n", "many-shop", "--location", &parts];
    let part = |name: &str, contexts: &str| {
        run(&[&["create", name, "--contexts", contexts], &part[..]].concat())
    };
    let made = part("p", "eu,blind").code(3);
    assert!(
        row(&made, "blind").contains("PartiallyFailed") && row(&made, "eu").contains("Completed"),
        "{}",
        made.stdout
    );
    part("q", "eu,blind,gone").code(1);

    // Ctrl-C is for all of them.
    let slow = [eu, &us].map(|cluster| {
        let proxy = Proxy::start(&cluster.endpoint());
        let delay = Action::Delay(Duration::from_secs(5));
        proxy.every(Match::path("/configmaps"), delay);
        proxy
    });
    let slowly = ["eu", "us"].map(|name| {
        let (cluster, proxy) = match name {
            "eu" => (eu, &slow[0]),
            _ => (&us, &slow[1]),
        };
        let file = cluster.token_kubeconfig(&proxy.url());
        home.write(format!("slow-{name}.kubeconfig"), renamed(&file, name))
    });
    let running = with(&["create", "half-done"], &production)
        .env("KUBECONFIG", std::env::join_paths(&slowly).unwrap())
        .spawn();
    let files = |member: &str| {
        let folder = folder.join(member).join("backups/half-done");
        fs::read_dir(folder).map_or(0, Iterator::count)
    };
    harness::wait_for("both claims", Duration::from_secs(60), || {
        (files("europe") > 0 && files("us") > 0).then_some(())
    });
    running.signal(Signal::INT);
    let stopped = running.wait(Duration::from_secs(60));
    assert_eq!(stopped.code, 130, "{}", stopped.stderr);
    assert_eq!((files("europe"), files("us")), (0, 0));
    let listed = with(&["get"], &production).ok().stdout;
    assert!(!listed.contains("half-done"), "{listed}");

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

    // One backup that lies in another cluster's folder is not taken for its own, and is restored where it is named alone.
    let own = ["create", "extra", "-n", "many-shop", "--context", "eu"];
    run(&own).home(bare.path()).ok();
    let backups = |at: usize| {
        let uid = uid(at).as_str().unwrap();
        bare.join(".local/share/kubectl-backup")
            .join(uid)
            .join("backups")
    };
    fs::rename(backups(0).join("extra"), backups(1).join("extra")).unwrap();
    us.kubectl(&["delete", "configmap", "where", "-n", "many-shop"]);
    let extra = ["restore", "create", "--from-backup", "extra", "--yes"];
    let refused = plain(&extra).code(1);
    says(
        &refused,
        &["us: error", "is of cluster eu", "--context us", "by itself"],
    );
    says(
        &refused,
        &["eu: error", "in those of others", "--location file://"],
    );
    let missing = us.try_kubectl(&["get", "configmap", "where", "-n", "many-shop"]);
    assert_ne!(missing.code, 0);
    let alone = [&extra[..], &["--context", "us"]].concat();
    run(&alone).home(bare.path()).ok();
    is_there(&us, "europe");

    // Where clusters share a place, a schedule's newest backup is this cluster's own; another one's where it alone has some, and none of several.
    let shared = |name: &str| home.join(name).display().to_string();
    let place = |name: &str| format!("file://{}", shared(name));
    for (name, context, at) in [("one", "eu", "shared"), ("two", "us", "elsewhere")] {
        let label = [
            "--labels",
            "velero.io/schedule-name=daily",
            "-n",
            "many-shop",
        ];
        let made = [
            &[
                "create",
                name,
                "--context",
                context,
                "--location",
                &place(at),
            ],
            &label[..],
        ];
        run(&made.concat()).ok();
    }
    let newest = |context: &str| {
        let daily = [
            "restore",
            "create",
            "--from-schedule",
            "daily",
            "--dry-run=client",
        ];
        run(&[
            &daily[..],
            &["--context", context, "--location", &place("shared")],
        ]
        .concat())
    };
    let warned = newest("us").ok();
    says(
        &warned,
        &[
            "warning: this cluster has no backup of schedule daily",
            "of cluster eu",
            "is one of",
        ],
    );
    let two = home.join("elsewhere/backups/two");
    fs::rename(two, home.join("shared/backups/two")).unwrap();
    says(
        &newest("eu").ok(),
        &["of schedule daily is one of", "this cluster's own count"],
    );
    says(&newest("us").ok(), &["of schedule daily is two of"]);
    says(
        &newest("blind").code(1),
        &[
            "several others",
            "--from-backup one (cluster eu",
            "--from-backup two (cluster us",
        ],
    );
    // Folders of other clusters on this machine are named, and not taken.
    let daily = [
        "create",
        "mine",
        "--labels",
        "velero.io/schedule-name=daily",
        "-n",
        "many-shop",
        "--context",
        "eu",
    ];
    run(&daily).home(bare.path()).ok();
    let daily = [
        "restore",
        "create",
        "--from-schedule",
        "daily",
        "--dry-run=client",
        "--context",
    ];
    let unlike = run(&[&daily[..], &["us"]].concat())
        .home(bare.path())
        .code(1);
    says(&unlike, &["no completed backup"]);
    let unreached = run(&[&daily[..], &["gone"]].concat())
        .home(bare.path())
        .code(1);
    assert!(
        !unreached.stderr.contains("is mine of"),
        "{}",
        unreached.stderr
    );

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
        (&["prune", "--contexts", "eu,absent", "--yes"], 1, "absent"),
        (
            &[
                "restore",
                "get",
                "--contexts",
                "eu,us",
                "--server",
                "https://x",
            ],
            2,
            "--server",
        ),
        (
            &["restore", "describe", "r", "--workspace", "absent"],
            2,
            "absent.yaml",
        ),
        (
            &["restore", "delete", "r", "--contexts", "eu,eu", "--yes"],
            2,
            "twice",
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
