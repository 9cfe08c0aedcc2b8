//! The controller in a cluster: installed on a real node, at work there, and taken out again.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::node::{Image, Node, NodeOptions};
use harness::process::Output;
use harness::run::kubectl_backup;
use harness::store::Minio;
use harness::{tools, wait_for};
use serde_json::Value;

use super::PROBES;
use crate::readme::commands;

pub(crate) const IMAGE: &str = "localhost/kubectl-backup:1";
const NAMESPACE: &str = "kubectl-backup";
const PATIENT: Duration = Duration::from_secs(180);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The image that the Dockerfile's last stage describes; with the libraries of the program that other stories run, for a static one takes minutes more to build.
pub(crate) fn image() -> Image {
    let text = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let (build, last) = text.split_once("\nFROM scratch\n").unwrap();
    for program in ["kubectl-backup", "etcd-launcher"] {
        let line = format!("-p {program} --bin {program} -- -Ctarget-feature=+crt-static");
        assert!(build.contains(&line), "{program}");
    }
    let mut image = Image::new(IMAGE);
    let (mut copied, mut user, mut entrypoint) = (0, "", "");
    for line in last.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["COPY", "--from=build", from, to] => {
                copied += 1;
                image = match from.rsplit('/').next().unwrap() {
                    "kubectl-backup" => image.program(tools::plugin(), to),
                    // Not started here.
                    "etcd-launcher" => image,
                    "ca-certificates.crt" => {
                        image.text(to, &fs::read_to_string(from).unwrap_or_default())
                    }
                    _ => panic!("{line}"),
                };
            }
            ["USER", named] => user = named,
            ["ENTRYPOINT", words] => entrypoint = words,
            _ => assert!(line.is_empty() || line.starts_with('#'), "{line}"),
        }
    }
    assert_eq!(
        (copied, user, entrypoint),
        (3, "65532:65532", "[\"/kubectl-backup\"]")
    );
    image.entrypoint(&["/kubectl-backup"])
}

struct Installed {
    node: Node,
    minio: Minio,
}

impl Installed {
    fn call<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        kubectl_backup(arguments)
            .kubeconfig(self.node.kubeconfig())
            .run()
    }

    /// The README's command of this name, as it stands there but for where things are.
    fn readme(&self, name: &str) -> Vec<String> {
        let mut all = commands("kubectl backup ").into_iter();
        self.real(all.find(|words| words[0] == name).unwrap())
    }

    /// What a newcomer reads after `install`, one command after the other, to the one that shows how all of it does.
    fn first_steps(&self) -> Vec<Vec<String>> {
        let all = commands("kubectl backup ").into_iter();
        let mut after = all.skip_while(|words| words[0] != "install").skip(1);
        let mut steps = Vec::new();
        while steps
            .last()
            .is_none_or(|words: &Vec<String>| words[0] != "status")
        {
            steps.push(self.real(after.next().unwrap()));
        }
        steps
    }

    fn real(&self, words: Vec<String>) -> Vec<String> {
        let credentials = self.minio.credentials_file().display().to_string();
        let places = [
            ("https://minio.example.com:9000", self.minio.endpoint()),
            ("registry.example.com/kubectl-backup:0.1.0", IMAGE),
            ("./credentials", &credentials),
        ];
        let real = |word: &String| {
            places.iter().fold(word.clone(), |word, (shown, real)| {
                word.replace(shown, real)
            })
        };
        words.iter().map(real).collect()
    }

    /// `install` with more flags, and that nothing secret is told. What is expired goes at once, so that one sees it.
    fn install(&self, flags: &[&str]) -> Output {
        let words = self.readme("install");
        let words: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .chain(["--garbage-collection-frequency=1s"])
            .chain(flags.iter().copied())
            .collect();
        let run = self.call(&words).ok();
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(self.minio.secret_key()), "{text}");
        }
        run
    }

    fn get(&self, what: &str) -> Option<Value> {
        let asked = ["-n", NAMESPACE, "get", what, "-o", "json"];
        let found = self.node.try_kubectl(&asked);
        (found.code == 0).then(|| found.json())
    }

    fn is_there(&self, what: &str) -> bool {
        self.get(what).is_some()
    }

    /// Waits for a phase, and shows what the controller said where it does not come.
    #[track_caller]
    fn wait(&self, what: &str, phase: &str) -> Value {
        let began = std::time::Instant::now();
        loop {
            let object = self.get(what).unwrap_or_default();
            if object["status"]["phase"] == phase {
                return object;
            }
            if began.elapsed() > PATIENT {
                let log = ["-n", NAMESPACE, "logs", "deployment/kubectl-backup"];
                let log = self.node.try_kubectl(&log).stdout;
                panic!("{what} is not {phase}: {object:#}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The backups of a schedule by their names.
    fn backups_of(&self, schedule: &str) -> BTreeMap<String, Value> {
        let of = format!("velero.io/schedule-name={schedule}");
        let all = [
            "-n",
            NAMESPACE,
            "get",
            "backups.velero.io",
            "-l",
            &of,
            "-o",
            "json",
        ];
        let mut all = self.node.kubectl(&all).json();
        let all = all["items"].as_array_mut().map(std::mem::take);
        let named = |one: Value| (one["metadata"]["name"].as_str().unwrap().to_owned(), one);
        all.unwrap_or_default().into_iter().map(named).collect()
    }

    /// The files of a backup in the bucket.
    fn files(&self, backup: &str) -> Vec<String> {
        self.minio
            .list("backups", &format!("prod/backups/{backup}/"))
    }

    /// Every object of the bucket, its size and digest, but for a check of the location, which takes its files away again.
    fn bucket(&self) -> BTreeMap<String, (usize, String)> {
        let mut all = self.minio.contents("backups", "");
        all.retain(|key, _| !key.contains(PROBES));
        all
    }

    /// What the pod answers.
    fn ask(&self, path: &str) -> String {
        let pods = [
            "-n",
            NAMESPACE,
            "get",
            "pods",
            "-o",
            "jsonpath={.items[0].status.podIP}",
        ];
        let address = self.node.kubectl(&pods).stdout;
        let url = format!("http://{}:8085{path}", address.trim());
        let wget = ["busybox", "wget", "-q", "-O", "-", &url];
        self.node.run_inside(&wget).ok().stdout
    }

    /// Whether a user may do this.
    fn may(&self, user: &str, words: &[&str]) -> bool {
        let who = format!("--as={user}");
        let asked = [&["auth", "can-i", &who][..], words].concat();
        self.node.try_kubectl(&asked).stdout.trim() == "yes"
    }
}

const BACKUP: &str = "
apiVersion: velero.io/v1
kind: Backup
metadata: {name: first, namespace: kubectl-backup}
spec: {includedNamespaces: [shop]}
";

const RESTORE: &str = "
apiVersion: velero.io/v1
kind: Restore
metadata: {name: first-again, namespace: kubectl-backup}
spec: {backupName: first, namespaceMapping: {shop: shop-copy}}
";

/// A schedule whose backups are expired when they are made, and such a backup by hand.
const EXPIRING: &str = "
apiVersion: velero.io/v1
kind: Schedule
metadata: {name: expiring, namespace: kubectl-backup}
spec: {schedule: '@every 2s', template: {includedNamespaces: [shop], ttl: 1s}}
---
apiVersion: velero.io/v1
kind: Backup
metadata: {name: brief, namespace: kubectl-backup}
spec: {includedNamespaces: [shop], ttl: 1s}
";

#[test]
fn the_controller_is_installed_works_and_leaves_the_bucket_as_it_is() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let image = image();
    let node = Node::start(NodeOptions::default().services(true));
    let minio = Minio::start_on(&node.host_address());
    minio.bucket("backups");
    let installed = Installed { node, minio };
    let node = &installed.node;
    node.import_image(&image);
    node.kubectl(&["create", "namespace", "shop"]);
    node.kubectl(&[
        "-n",
        "shop",
        "create",
        "configmap",
        "settings",
        "--from-literal=greeting=hello",
    ]);

    for command in ["status", "uninstall"] {
        let refused = installed.call(&[command]).code(1);
        assert!(
            refused.stderr.contains("no controller is installed"),
            "{}",
            refused.stderr
        );
    }
    for (arguments, part) in [
        (&["install", "-o", "yaml"][..], "--dry-run"),
        (
            &["install", "--location", "file:///backups"],
            "this machine",
        ),
        (&["install", "--schedule", "61 * * * *"], "61"),
        (&["install", "--image", "a b"], "no image"),
        (&["install", "--controller-namespace", "No/ne"], "No/ne"),
    ] {
        let refused = installed.call(arguments).code(2);
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let shown = installed.install(&["--dry-run", "-o", "yaml"]);
    assert!(shown.stdout.contains("kind: BackupStorageLocation"));
    assert!(!shown.stdout.contains("kind: Secret"));
    assert!(
        shown
            .stdout
            .contains("# kubectl create secret generic default-credentials")
    );
    let dry = installed.install(&["--dry-run"]).stdout;
    assert!(
        dry.contains("deployment/kubectl-backup created (dry run)"),
        "{dry}"
    );
    assert!(!installed.is_there("namespace/kubectl-backup"));

    let run = installed.install(&[]).stdout;
    assert!(run.lines().all(|line| line.ends_with(" created")), "{run}");
    assert!(
        run.contains("backupstoragelocation/default created"),
        "{run}"
    );
    let again = installed.install(&[]).stdout;
    assert!(
        again.lines().all(|line| line.ends_with(" unchanged")),
        "{again}"
    );

    node.apply(BACKUP);
    let made = installed.wait("backups.velero.io/first", "Completed");
    let objects = made["status"]["progress"]["totalItems"].as_u64().unwrap();
    assert!(objects > 0);
    assert_eq!(installed.ask("/healthz"), "ok");
    assert_eq!(installed.ask("/readyz"), "ok");
    let metrics = installed.ask("/metrics");
    for line in [
        "kubectl_backup_works 1",
        "velero_backup_location_status_gauge{backup_location_name=\"default\"} 1",
        "velero_backup_attempt_total{schedule=\"\"} 1",
        "velero_backup_success_total{schedule=\"\"} 1",
        "velero_backup_last_status{schedule=\"\"} 1",
        &format!("velero_backup_items_total{{schedule=\"\"}} {objects}"),
        "velero_backup_duration_seconds_count{schedule=\"\"} 1",
    ] {
        assert!(
            metrics.lines().any(|there| there == line),
            "{line}\n{metrics}"
        );
    }
    assert!(
        metrics.contains("velero_backup_tarball_size_bytes{schedule=\"\"} "),
        "{metrics}"
    );
    wait_for("the events of the backup", PATIENT, || {
        let events = [
            "-n",
            NAMESPACE,
            "get",
            "events",
            "--field-selector",
            "involvedObject.kind=Backup",
            "-o",
            "jsonpath={.items[*].reason}",
        ];
        let reasons = node.kubectl(&events).stdout;
        // A quick one has begun and ended between two looks.
        reasons.contains("Completed").then_some(())
    });
    node.apply(RESTORE);
    installed.wait("restores.velero.io/first-again", "Completed");
    node.kubectl(&["-n", "shop-copy", "get", "configmap", "settings"]);

    let told = installed.install(&["--schedule", "@every 1m"]).stdout;
    assert!(told.contains("schedule/cluster created"), "{told}");
    let scheduled = wait_for("a backup of the schedule", PATIENT, || {
        let all = installed.backups_of("cluster").into_values();
        all.into_iter()
            .find(|backup| backup["status"]["completionTimestamp"].is_string())
    });
    assert_eq!(scheduled["status"]["phase"], "Completed", "{scheduled:#}");
    let steps = installed.first_steps();
    assert!(steps.len() > 3, "{steps:?}");
    let mut status = String::new();
    for words in &steps {
        status = installed.call(words).ok().stdout;
    }
    let mut nightly = installed.backups_of("nightly").into_values();
    let nightly = nightly.next().unwrap();
    assert_eq!(nightly["status"]["phase"], "Completed", "{nightly:#}");
    for part in ["Available", IMAGE, "@every 1m", "Enabled"] {
        assert!(status.contains(part), "{part}: {status}");
    }

    rights(&installed);
    expiry(&installed);

    // What is somebody's stays, and says that it does.
    node.kubectl(&["-n", NAMESPACE, "create", "configmap", "mine"]);
    node.kubectl(&["-n", NAMESPACE, "delete", "schedules.velero.io", "cluster"]);
    wait_for("backups to end", PATIENT, || {
        let phases = [
            "-n",
            NAMESPACE,
            "get",
            "backups.velero.io",
            "-o",
            "jsonpath={.items[*].status.phase}",
        ];
        let phases = node.kubectl(&phases).stdout;
        let is_done = |phase| matches!(phase, "Completed" | "PartiallyFailed" | "Failed");
        phases.split_whitespace().all(is_done).then_some(())
    });
    let before = installed.bucket();
    assert!(
        before.contains_key("prod/backups/first/velero-backup.json"),
        "{before:?}"
    );
    let asked = installed.call(&["uninstall"]).code(2);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    let dry = installed.call(&["uninstall", "--dry-run"]).ok().stdout;
    assert!(dry.contains("backup/first deleted (dry run)"), "{dry}");
    assert!(installed.is_there("backups.velero.io/first"));
    // Another server's, which needs all kinds, those too of which it has no object.
    node.kubectl(&["create", "namespace", "elsewhere"]);
    node.apply(
        "{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {name: theirs, namespace: elsewhere}, spec: {provider: aws, objectStorage: {bucket: b}}}",
    );
    let gone = installed.call(&installed.readme("uninstall")).ok();
    assert!(
        gone.stdout.contains("deployment/kubectl-backup deleted"),
        "{}",
        gone.stdout
    );
    let stays = "namespace/kubectl-backup stays: it holds configmap/mine";
    assert!(gone.stderr.contains(stays), "{}", gone.stderr);
    for what in [
        "deployment/kubectl-backup",
        "serviceaccount/kubectl-backup",
        "secret/default-credentials",
        "clusterrole/kubectl-backup:kubectl-backup",
        "clusterrole/kubectl-backup-view",
        "clusterrolebinding/kubectl-backup:kubectl-backup",
    ] {
        assert!(!installed.is_there(what), "{what}");
    }
    let stays = "customresourcedefinition/downloadrequests.velero.io stays: Velero's objects are in namespace elsewhere";
    assert!(gone.stderr.contains(stays), "{}", gone.stderr);
    assert!(installed.is_there("crd/downloadrequests.velero.io"));
    assert_eq!(installed.bucket(), before);
    // With that gone, the same command takes the rest.
    node.kubectl(&["-n", NAMESPACE, "delete", "configmap", "mine"]);
    node.kubectl(&["delete", "namespace", "elsewhere"]);
    installed.call(&["uninstall", "--yes"]).ok();
    wait_for("the end of the kinds", PATIENT, || {
        (!installed.is_there("crd/backups.velero.io")).then_some(())
    });
    wait_for("the end of the namespace", PATIENT, || {
        (!installed.is_there("namespace/kubectl-backup")).then_some(())
    });
    // The bucket is, byte for byte, what it was, and the backup as good.
    assert_eq!(installed.bucket(), before);
    let location = format!("s3://backups/prod?endpoint={}", installed.minio.endpoint());
    kubectl_backup(&["verify", "first", "--location", &location])
        .kubeconfig(node.kubeconfig())
        .credentials_of(&installed.minio)
        .ok();
}

/// What the account and the users of the namespace may do, and what they may not.
fn rights(installed: &Installed) {
    let node = &installed.node;
    let account = "system:serviceaccount:kubectl-backup:kubectl-backup";
    assert!(installed.may(account, &["create", "deployments", "-n", "shop"]));
    assert!(installed.may(account, &["get", "secrets", "-n", "shop"]));
    for denied in [
        &["watch", "pods", "-n", "shop"][..],
        &["impersonate", "users"],
        &["deletecollection", "pods", "-n", "shop"],
    ] {
        assert!(!installed.may(account, denied), "{denied:?}");
    }
    let told = installed.install(&["--no-restores"]).stdout;
    // What comes next is the new controller's work, and in its log.
    let rollout = ["-n", NAMESPACE, "rollout", "status", "--timeout=120s"];
    node.kubectl(&[&rollout[..], &["deployment/kubectl-backup"]].concat());
    let role = "clusterrole/kubectl-backup:kubectl-backup configured";
    assert!(told.contains(role), "{told}");
    for denied in ["create", "patch", "delete"] {
        assert!(
            !installed.may(account, &[denied, "configmaps", "-n", "shop"]),
            "{denied}"
        );
    }
    assert!(installed.may(account, &["patch", "backups.velero.io", "-n", NAMESPACE]));
    for (role, user) in [("view", "viola"), ("edit", "edith"), ("admin", "adam")] {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={user}"));
        let name = user.trim_start_matches("--user=");
        node.kubectl(&["-n", NAMESPACE, "create", "rolebinding", name, &role, &user]);
    }
    let backups = "backups.velero.io";
    let downloads = "downloadrequests.velero.io";
    let places = "backupstoragelocations.velero.io";
    // Roles are aggregated by a controller, in a moment.
    wait_for("the aggregated roles", PATIENT, || {
        let is_so = installed.may("viola", &["list", backups, "-n", NAMESPACE])
            && installed.may("edith", &["create", backups, "-n", NAMESPACE])
            && installed.may("adam", &["create", places, "-n", NAMESPACE]);
        is_so.then_some(())
    });
    for (user, verb, what) in [
        ("viola", "create", backups),
        ("viola", "get", downloads),
        ("edith", "create", places),
    ] {
        assert!(
            !installed.may(user, &[verb, what, "-n", NAMESPACE]),
            "{user} {verb} {what}"
        );
    }
    for name in ["viola", "edith", "adam"] {
        node.kubectl(&["-n", NAMESPACE, "delete", "rolebinding", name]);
    }
}

/// What is expired goes from cluster and bucket by itself; the newest good one of a schedule stays, expired as it is, and says why.
fn expiry(installed: &Installed) {
    let node = &installed.node;
    node.apply(EXPIRING);
    let mut seen = BTreeSet::new();
    wait_for("more than one backup that expires", PATIENT, || {
        seen.extend(installed.backups_of("expiring").into_keys());
        (seen.len() > 1).then_some(())
    });
    let pause = ["schedule", "pause", "expiring"];
    installed.call(&pause).ok();
    let newest = wait_for("the end of what is expired", PATIENT, || {
        let all = installed.backups_of("expiring");
        seen.extend(all.keys().cloned());
        let (name, one) = all.first_key_value()?;
        let is_kept = one["metadata"]["annotations"]["kubectl-backup/kept"].is_string();
        let is_alone = all.len() == 1 && !installed.is_there("backups.velero.io/brief");
        (is_kept && is_alone).then(|| name.clone())
    });
    assert_eq!(seen.last(), Some(&newest), "{seen:?}");
    seen.insert("brief".to_owned());
    let log = ["-n", NAMESPACE, "logs", "deployment/kubectl-backup"];
    let log = node.kubectl(&log);
    let log = log.stdout + &log.stderr;
    for backup in &seen {
        // They were there, whole, and went by themselves.
        let says = format!("backup {backup} of location default is removed");
        let is_kept = *backup == newest;
        assert_eq!(log.contains(&says), !is_kept, "{backup}: {log}");
        assert_eq!(!installed.files(backup).is_empty(), is_kept, "{backup}");
    }
    installed.wait(&format!("backups.velero.io/{newest}"), "Completed");
    // Others are where they were.
    assert!(installed.is_there("backups.velero.io/first"));
    assert!(!installed.files("first").is_empty());
}

/// Alerts that ask for what no controller tells would never ring.
#[test]
fn every_alert_asks_for_metrics_that_the_controller_tells() {
    let text =
        fs::read_to_string(root().join("manifests/controller/prometheus-rule.yaml")).unwrap();
    let rule: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(rule["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(rule["kind"], "PrometheusRule");
    let source = root().join("kubectl-backup/src/controller/metrics.rs");
    let source = fs::read_to_string(source).unwrap();
    let rules = rule["spec"]["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 5);
    for rule in rules {
        let of = |pointer: &str| rule.pointer(pointer).and_then(Value::as_str);
        let alert = of("/alert").unwrap();
        assert!(of("/labels/severity").is_some(), "{alert}");
        assert!(of("/annotations/summary").is_some() && of("/annotations/description").is_some());
        let expression = of("/expr").unwrap();
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let metrics: Vec<&str> = words
            .filter(|word| word.starts_with("velero_") || word.starts_with("kubectl_backup_"))
            .collect();
        assert!(!metrics.is_empty(), "{alert}");
        for metric in metrics {
            assert!(
                source.contains(&format!("\"{metric}\"")),
                "{alert}: {metric}"
            );
        }
    }
}
