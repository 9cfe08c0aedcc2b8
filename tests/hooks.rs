//! Hooks in pods, on a real node.

mod around;
mod owed;
mod restored;
mod served;

use std::fs;
use std::time::Duration;

use harness::busybox::Busybox;
use harness::node::{Node, NodeOptions};
use harness::process::Folder;
use harness::run::{Backup, Run, kubectl_backup};
use harness::wait_for;
use serde_json::Value;

const PATIENT: Duration = Duration::from_secs(120);

/// A word that only commands hold.
const SECRET: &str = "hunter2-and-more";

/// A node with pods, and a folder as location.
struct Hooked {
    node: Node,
    folder: Folder,
}

/// A pod that does nothing but what its hooks do. It is slow to end.
fn pod(namespace: &str, name: &str, hooks: &[(&str, &str)]) -> Busybox {
    let annotations = hooks.iter().map(|(key, value)| {
        let (when, what) = key.split_once('/').unwrap();
        // Of a backup, where it does not say of a restore.
        let of = if when.contains('.') {
            ""
        } else {
            ".hook.backup"
        };
        (format!("{when}{of}.velero.io/{what}"), *value)
    });
    let annotations: Vec<_> = annotations.collect();
    let pairs = annotations
        .iter()
        .map(|(key, value)| (key.as_str(), *value));
    Busybox::new(namespace, name)
        .annotations(&pairs.collect::<Vec<_>>())
        .runs("touch /tmp/log; while true; do sleep 1; done")
        .with("terminationGracePeriodSeconds", 30.into())
}

/// A shell's command as an annotation has it.
fn shell(text: &str) -> String {
    serde_json::json!(["sh", "-c", text]).to_string()
}

/// A hook that says that it ran.
fn says(word: &str) -> String {
    shell(&format!("echo {word} >> /tmp/log # {SECRET}"))
}

impl Hooked {
    fn start() -> Self {
        Self {
            node: Node::start(NodeOptions::default()),
            folder: Folder::new("location"),
        }
    }

    fn call(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(arguments)
            .kubeconfig(self.node.kubeconfig())
            .location(&format!("file://{}", self.folder.path().display()))
    }

    fn namespace(&self, name: &str) {
        self.node.kubectl(&["create", "namespace", name]);
        let account = ["-n", name, "get", "serviceaccount", "default"];
        wait_for("the account of pods", PATIENT, || {
            (self.node.try_kubectl(&account).code == 0).then_some(())
        });
    }

    fn run_pods(&self, namespace: &str, pods: &[Busybox]) {
        let yaml: String = pods.iter().map(Busybox::to_string).collect();
        self.node.apply(&yaml);
        let ready = "--for=condition=Ready";
        let chosen = [
            "-n",
            namespace,
            "wait",
            ready,
            "pods",
            "-l",
            "app!=pending",
            "--timeout=120s",
        ];
        self.node.kubectl(&chosen);
    }

    /// What hooks have said in a pod.
    fn said(&self, namespace: &str, name: &str) -> Vec<String> {
        let cat = ["-n", namespace, "exec", name, "--", "cat", "/tmp/log"];
        let said = self.node.kubectl(&cat).stdout;
        said.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_to_say(&self, namespace: &str, name: &str, words: &[&str]) {
        wait_for("what a hook says", PATIENT, || {
            (self.said(namespace, name) == words).then_some(())
        });
    }

    /// Notes of post hooks that are owed.
    fn notes(&self) -> Vec<String> {
        let folder = self.folder.join("plugins/kubectl-backup/hooks");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }

    fn marker(&self, name: &str) -> Value {
        let path = self
            .folder
            .join(format!("backups/{name}/velero-backup.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn log(&self, name: &str) -> String {
        self.call(&["logs", name]).ok().stdout
    }

    /// The object of a pod as a backup has it.
    fn saved(&self, backup: &str, pod: &str) -> Value {
        let shown = ["contents", backup, "pods", pod, "-o", "json"];
        self.call(&shown).ok().json()
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let ready = conditions
        .iter()
        .find(|one| one["type"] == "Ready")
        .unwrap();
    ready["status"] == "True"
}

fn tells_no_command(run: &Run) {
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains(SECRET), "{text}");
    }
}
