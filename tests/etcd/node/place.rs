//! What the stories of nodes share: calls of `etcd-launcher node` inside, what the API knows, and ways to lose etcd.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::node::{Node, NodeOptions};
use harness::process::Output;
use harness::run::{Backup, Signal};
use harness::{tools, wait_for};
use rustix::process::{Pid, kill_process};
use serde_json::Value;

pub(super) const PARTS: [&str; 4] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
];

/// Where snapshots are kept inside.
const BACKUPS: &str = "/var/lib/backups";

/// A node, and what was done to its cluster.
pub(super) struct Place {
    pub(super) node: Node,
}

impl Place {
    pub(super) fn start() -> Self {
        let node = Node::start(NodeOptions::default());
        fs::create_dir_all(node.path(BACKUPS)).unwrap();
        Self { node }
    }

    /// A node with one mark, a snapshot of that, and another mark since; gives the snapshot's path inside.
    pub(super) fn saved(before: &str, since: &str) -> (Self, PathBuf) {
        let place = Self::start();
        place.mark(before);
        let file = place.snapshot("etcd.db");
        place.mark(since);
        (place, file)
    }

    /// `etcd-launcher` inside, as root in a shell of the node.
    pub(super) fn launcher(&self, arguments: &[&str]) -> Backup {
        let mut command = vec![tools::launcher().display().to_string()];
        command.extend(arguments.iter().map(|&word| word.to_owned()));
        self.node.inside(&command)
    }

    /// `etcd-launcher node restore` of this snapshot.
    pub(super) fn restore(&self, snapshot: &Path) -> Backup {
        self.launcher(&["node", "restore", "--yes"]).arg(snapshot)
    }

    pub(super) fn start_all(&self) -> Backup {
        self.launcher(&["node", "start", "--yes"])
    }

    pub(super) fn rollback(&self) -> Backup {
        self.launcher(&["node", "rollback", "--yes"])
            .arg("--etcd")
            .arg(tools::path("etcd"))
    }

    pub(super) fn status(&self) -> Value {
        self.launcher(&["node", "status", "-o", "json"]).ok().json()
    }

    /// Takes a snapshot into a file, as the README has it; gives its path inside.
    pub(super) fn snapshot(&self, name: &str) -> PathBuf {
        let path = Path::new(BACKUPS).join(name);
        self.snapshot_to(&[path.to_str().unwrap()]).ok();
        path
    }

    pub(super) fn snapshot_to(&self, arguments: &[&str]) -> Backup {
        let pki = "/etc/kubernetes/pki/etcd";
        let mut command = vec!["snapshot".to_owned()];
        command.extend(arguments.iter().map(|&word| word.to_owned()));
        command.extend([
            "--endpoints=https://127.0.0.1:2379".to_owned(),
            format!("--cacert={pki}/ca.crt"),
            format!("--cert={pki}/server.crt"),
            format!("--key={pki}/server.key"),
        ]);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        self.launcher(&command)
    }

    /// Makes an object by which a state of etcd is known.
    pub(super) fn mark(&self, name: &str) {
        // The API server answers before every part of it does.
        wait_for("a configmap", Duration::from_secs(60), || {
            let made = self.node.try_kubectl(&["create", "configmap", name]);
            (made.code == 0).then_some(())
        });
    }

    /// Fails the test unless the API, once it is there, has exactly these marks.
    #[track_caller]
    pub(super) fn assert_marked(&self, marks: &[&str]) {
        self.node.wait_until_ready();
        let listed = self
            .node
            .kubectl(&["get", "configmaps", "-o", "name"])
            .stdout;
        let mut found: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.strip_prefix("configmap/"))
            .filter(|name| *name != "kube-root-ca.crt")
            .collect();
        found.sort_unstable();
        assert_eq!(found, marks);
        self.assert_whole();
    }

    /// Fails the test unless all manifests are in place and nothing of ours is left beside them.
    #[track_caller]
    pub(super) fn assert_whole(&self) {
        let told = self.status();
        assert_eq!(told["state"], "Idle", "{told}");
        assert!(told["fence"].is_null(), "{told}");
        for part in told["manifests"].as_array().unwrap() {
            assert_eq!(part["place"], "in", "{told}");
        }
        for part in PARTS {
            let file = format!("/etc/kubernetes/manifests/{part}.yaml");
            assert!(self.node.path(&file).is_file(), "{file}");
        }
        assert!(!self.fence().exists());
    }

    /// The fence, from outside.
    pub(super) fn fence(&self) -> PathBuf {
        self.node.path("/etc/kubernetes/manifests.etcd-launcher")
    }

    /// The data dir, from outside.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.node.path("/var/lib/etcd")
    }

    /// The processes of the node that were started by this program's name.
    pub(super) fn processes(&self, program: &str) -> Vec<u32> {
        let pids = self.node.pids().into_iter();
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
            Path::new(&*String::from_utf8_lossy(first)).file_name() == Some(program.as_ref())
        })
        .collect()
    }

    /// Kills etcd as the kernel does, and waits until that process is gone.
    pub(super) fn kill_etcd(&self) {
        for pid in self.processes("etcd") {
            // Ours: it is one of the node's.
            let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
            wait_for("the end of etcd", Duration::from_secs(30), || {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.is_empty().then_some(())
            });
        }
    }

    /// Overwrites the database and kills etcd: from now on it fails at each start, and the API with it.
    pub(super) fn destroy(&self) {
        let db = self.data_dir().join("member/snap/db");
        fs::write(&db, vec![7; 1 << 20]).unwrap();
        self.kill_etcd();
        wait_for("the end of the API", Duration::from_secs(120), || {
            (self.node.try_kubectl(&["get", "--raw", "/readyz"]).code != 0).then_some(())
        });
    }
}

/// Fails the test unless the call said all of this on standard error.
#[track_caller]
pub(super) fn told(run: &Output, words: &[&str]) {
    for word in words {
        assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
    }
}
