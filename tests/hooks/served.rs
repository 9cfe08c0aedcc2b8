//! The controller runs hooks as Backups and Restores ask for them, and what a controller owes that died.

use std::time::Duration;

use harness::busybox;
use harness::node::Node;
use harness::run::Running;
use harness::store::Minio;
use harness::wait_for;
use serde_json::{Value, json};

use super::{Hooked, PATIENT, pod};

const NAMESPACE: &str = "kubectl-backup";

struct Served {
    hooked: Hooked,
    controller: Option<Running>,
}

impl Served {
    fn start() -> Self {
        let minio = Minio::shared();
        minio.bucket("hooks-served");
        let hooked = Hooked::start();
        hooked.namespace(NAMESPACE);
        let keys = format!("--from-file=cloud={}", minio.credentials_file().display());
        let secret = [
            "-n",
            NAMESPACE,
            "create",
            "secret",
            "generic",
            "cloud-credentials",
            &keys,
        ];
        hooked.node.kubectl(&secret);
        let mut served = Self {
            hooked,
            controller: None,
        };
        served.serve();
        wait_for("the kinds", PATIENT, || {
            let kinds = ["-n", NAMESPACE, "get", "serverstatusrequests.velero.io"];
            (served.hooked.node.try_kubectl(&kinds).code == 0).then_some(())
        });
        let location = minio.default_location(NAMESPACE, "hooks-served");
        served.hooked.node.apply(&location);
        served
    }

    fn serve(&mut self) {
        let node = &self.hooked.node;
        let controller = harness::run::kubectl_backup(&["controller", "--backup-sync-period=2s"]);
        self.controller = Some(controller.kubeconfig(node.kubeconfig()).spawn());
    }

    fn log(&self) -> String {
        self.controller
            .as_ref()
            .map(Running::stderr)
            .unwrap_or_default()
    }

    fn object(&self, what: &str) -> Value {
        let asked = ["-n", NAMESPACE, "get", what, "-o", "json"];
        let found = self.hooked.node.try_kubectl(&asked);
        if found.code == 0 {
            found.json()
        } else {
            Value::Null
        }
    }

    #[track_caller]
    fn ends(&self, what: &str, phase: &str) -> Value {
        let began = std::time::Instant::now();
        loop {
            let object = self.object(what);
            if object["status"]["phase"] == phase {
                return object;
            }
            assert!(
                began.elapsed() < PATIENT,
                "{what} is not {phase}: {object:#}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    fn ask(&self, kind: &str, name: &str, spec: &Value) {
        let object = json!({"apiVersion": "velero.io/v1", "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        self.hooked.node.apply(&object.to_string());
    }
}

fn exec(text: &str, more: Value) -> Value {
    let mut exec = json!({"command": ["sh", "-c", text]});
    for (key, value) in more.as_object().unwrap() {
        exec[key] = value.clone();
    }
    json!({"exec": exec})
}

#[test]
fn the_controller_runs_what_backups_and_restores_ask_for_and_what_a_dead_one_owes() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let mut served = Served::start();
    served.hooked.namespace("shop");
    let pods = ["db", "web"].map(|name| pod("shop", name, &[]));
    served.hooked.run_pods("shop", &pods);
    let said = |served: &Served, namespace: &str| served.hooked.said(namespace, "db");

    let of_db = |pre: Value| {
        json!({"includedNamespaces": ["shop"], "hooks": {"resources": [{
            "name": "quiet", "includedNamespaces": ["shop"], "labelSelector": {"matchLabels": {"app": "db"}},
            "pre": [pre], "post": [exec("echo post >> /tmp/log", json!({}))]}]}})
    };
    served.ask(
        "Backup",
        "first",
        &of_db(exec("echo pre >> /tmp/log", json!({}))),
    );
    let made = served.ends("backups.velero.io/first", "Completed");
    let counts = json!({"hooksAttempted": 2, "hooksFailed": 0});
    assert_eq!(made["status"]["hookStatus"], counts, "{made:#}");
    assert_eq!(said(&served, "shop"), ["pre", "post"]);
    assert_eq!(served.hooked.said("shop", "web"), Vec::<String>::new());

    served.ask(
        "Backup",
        "failing",
        &of_db(exec("exit 5", json!({"onError": "Fail"}))),
    );
    let made = served.ends("backups.velero.io/failing", "PartiallyFailed");
    assert_eq!(made["status"]["errors"], 1, "{made:#}");
    assert_eq!(said(&served, "shop"), ["pre", "post", "post"]);

    // Init container and command of a restore.
    let restore = json!({"backupName": "first", "namespaceMapping": {"shop": "copy"}, "hooks": {"resources": [{
        "name": "again", "labelSelector": {"matchLabels": {"app": "db"}}, "postHooks": [
            {"init": {"initContainers": [{"name": "early", "image": busybox::IMAGE, "imagePullPolicy": "Never", "command": ["echo", "early bird"]}]}},
            exec("echo restored >> /tmp/log", json!({"waitForReady": true, "waitTimeout": "90s", "execTimeout": "20s"}))]}]}});
    served.ask("Restore", "again", &restore);
    let done = served.ends("restores.velero.io/again", "Completed");
    let counts = json!({"hooksAttempted": 1, "hooksFailed": 0});
    assert_eq!(done["status"]["hookStatus"], counts, "{done:#}");
    assert_eq!(said(&served, "copy"), ["restored"]);
    let log = ["-n", "copy", "logs", "db", "-c", "early"];
    assert_eq!(served.hooked.node.kubectl(&log).stdout, "early bird\n");

    // A command that follows a Schedule and is killed: the next one finds in the Schedule what is owed.
    let long = || exec("echo long >> /tmp/log; sleep 60", json!({"timeout": "50s"}));
    let template = json!({"schedule": "@every 24h", "template": of_db(long())});
    served.ask("Schedule", "rarely", &template);
    let follow = [
        "create",
        "follows",
        "--from-schedule=rarely",
        "--velero-namespace=kubectl-backup",
    ];
    let running = served.hooked.call(&follow).spawn();
    served
        .hooked
        .wait_to_say("shop", "db", &["pre", "post", "post", "long"]);
    running.kill();
    let next = ["prune", "--yes", "--velero-namespace=kubectl-backup"];
    let run = served.hooked.call(&next).ok();
    assert!(
        run.stderr.contains("(quiet, container main) ended well"),
        "{}",
        run.stderr
    );
    assert_eq!(
        said(&served, "shop"),
        ["pre", "post", "post", "long", "post"]
    );
    assert_eq!(served.hooked.notes(), Vec::<String>::new());

    // kill -9 between pre and post: the next controller runs what is owed, as the Backup says it.
    served.ask("Backup", "lost", &of_db(long()));
    served.hooked.wait_to_say(
        "shop",
        "db",
        &["pre", "post", "post", "long", "post", "long"],
    );
    drop(served.controller.take().unwrap().kill());
    let lease = [
        "-n",
        NAMESPACE,
        "delete",
        "lease",
        "kubectl-backup-controller",
    ];
    served.hooked.node.kubectl(&lease);
    served.serve();
    wait_for("the post hook that is owed", PATIENT, || {
        (said(&served, "shop") == ["pre", "post", "post", "long", "post", "long", "post"])
            .then_some(())
    });
    wait_for("the end of its note", PATIENT, || {
        let notes = Minio::shared().list("hooks-served", "main/plugins/kubectl-backup/hooks/");
        notes.is_empty().then_some(())
    });
    assert!(
        served
            .log()
            .contains("owed by the run that made backup lost"),
        "{}",
        served.log()
    );
}
