//! A Velero server outside of the cluster, as the witness for what the plugin reads and writes; its node-agent as Velero itself installs that.
//!
//! It works on one cluster and one folder of a bucket. Dropping it stops the server; what it has made in the cluster
//! and in the bucket stays.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::http_client::Client;
use crate::node::{Image, Node};
use crate::ports::Port;
use crate::process::{Folder, Output, Process};
use crate::store::Minio;
use crate::tools;

const READY: Duration = Duration::from_secs(60);
const STARTS: usize = 4;
const BACKUPS: &str = "/apis/velero.io/v1/namespaces/velero/backups";
const LOCATION: &str = "/apis/velero.io/v1/namespaces/velero/backupstoragelocations/default";

/// Where a Velero works: a control plane, or a node.
pub trait Site: Sync {
    fn client(&self) -> Client;
    fn kubeconfig(&self) -> &Path;
    fn apply(&self, yaml: &str);
}

impl Site for Cluster {
    fn client(&self) -> Client {
        self.client()
    }

    fn kubeconfig(&self) -> &Path {
        self.kubeconfig()
    }

    fn apply(&self, yaml: &str) {
        self.apply(yaml);
    }
}

impl Site for Node {
    fn client(&self) -> Client {
        self.client()
    }

    fn kubeconfig(&self) -> &Path {
        self.kubeconfig()
    }

    fn apply(&self, yaml: &str) {
        self.apply(yaml);
    }
}

/// A running Velero.
pub struct Velero<'a> {
    process: Option<Process>,
    cluster: &'a dyn Site,
    minio: &'a Minio,
    bucket: String,
    prefix: String,
    features: Option<&'static str>,
    folder: Folder,
}

impl<'a> Velero<'a> {
    /// Starts a server with `flags` (each as `--flag=value`; they win over the harness' own) and waits until its
    /// location is available. The bucket is made where it is missing.
    pub fn start(
        cluster: &'a dyn Site,
        minio: &'a Minio,
        bucket: &str,
        prefix: &str,
        flags: &[&str],
        features: Option<&'static str>,
    ) -> Self {
        minio.bucket(bucket);
        let mut velero = Self {
            process: None,
            cluster,
            minio,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            features,
            folder: Folder::new("velero"),
        };
        velero.install();
        for _ in 0..STARTS {
            match velero.try_start(flags) {
                Ok(()) => return velero,
                Err(log) => assert!(log.contains("address already in use"), "no Velero:\n{log}"),
            }
        }
        panic!("no Velero: every port was taken {STARTS} times");
    }

    /// Definitions, namespace, location, and a Deployment without replicas: the server asks for its own when it
    /// restores. Definitions that are there stay as they are, as with `velero install`.
    fn install(&self) {
        static DEFINITIONS: OnceLock<String> = OnceLock::new();
        let mut client = self.cluster.client();
        let mut are_served = || {
            let answer = client.get("/apis/velero.io/v1").ok()?;
            let is_so = answer.status == 200 && answer.text().contains("serverstatusrequests");
            is_so.then_some(())
        };
        if are_served().is_none() {
            let definitions = DEFINITIONS.get_or_init(|| definitions(&self.folder).to_string());
            self.cluster.apply(definitions);
            crate::wait_for("Velero's definitions", READY, are_served);
        }
        let mut location = json!({"bucket": self.bucket, "prefix": self.prefix});
        if let Some(pem) = self.minio.ca_pem() {
            location["caCert"] = json!(BASE64_STANDARD.encode(pem));
        }
        let endpoint = self.minio.endpoint();
        self.cluster.apply(&format!(
            r#"
apiVersion: v1
kind: Namespace
metadata: {{name: velero}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: velero, namespace: velero}}
spec:
  replicas: 0
  selector: {{matchLabels: {{deploy: velero}}}}
  template:
    metadata: {{labels: {{deploy: velero}}}}
    spec: {{containers: [{{name: velero, image: "localhost/velero:stub"}}]}}
---
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: default, namespace: velero}}
spec:
  provider: aws
  default: true
  objectStorage: {location}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}", checksumAlgorithm: ""}}
"#
        ));
    }

    fn try_start(&mut self, flags: &[&str]) -> Result<(), String> {
        // A port may go as soon as the server has bound it, but not before.
        let port = Port::lease();
        let plugins: PathBuf = tools::path("velero-plugins");
        let mut command = Command::new(tools::path("velero"));
        // `server` is the first argument and flags are in one piece: plugins are started with all that follows.
        command
            .arg("server")
            .arg(format!(
                "--kubeconfig={}",
                self.cluster.kubeconfig().display()
            ))
            .arg(format!("--plugin-dir={}", plugins.display()))
            .arg(format!("--metrics-address=127.0.0.1:{}", port.number))
            .args([
                "--namespace=velero",
                "--profiler-address=",
                "--store-validation-frequency=10s",
            ])
            .args(["--client-qps=1000", "--client-burst=1000"])
            .args(
                self.features
                    .map(|features| format!("--features={features}")),
            )
            .args(flags)
            // With all versions on, one part of it looks here instead of at the flag.
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("AWS_SHARED_CREDENTIALS_FILE", self.minio.credentials_file())
            .env("AWS_EC2_METADATA_DISABLED", "true");
        let process = Process::start("velero", &self.folder, &command);
        let deadline = Instant::now() + READY;
        let mut client = self.cluster.client();
        let since = validated_at(&mut client);
        while !(is_available(&mut client) && validated_at(&mut client) != since) {
            if process.has_ended() || Instant::now() > deadline {
                return Err(process.log_tail());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.process = Some(process);
        Ok(())
    }

    /// Stops the server; [`Self::log`] is kept.
    pub fn stop(&mut self) {
        self.process.take();
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("velero.log")).unwrap_or_default()
    }

    /// The server's process, for measuring.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Waits until the location is available (again).
    pub fn wait_available(&self) {
        let mut client = self.cluster.client();
        crate::wait_for("an available location", READY, || {
            is_available(&mut client).then_some(())
        });
    }

    /// The `velero` command, whatever comes of it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let features = self
            .features
            .map(|features| format!("--features={features}"));
        let flags = features.as_deref().into_iter();
        let arguments: Vec<&str> = arguments.iter().copied().chain(flags).collect();
        cli(self.cluster, &self.folder, &arguments)
    }

    /// Backs up with these further arguments, waits, and fails the test unless the phase is Completed.
    #[track_caller]
    pub fn back_up(&self, name: &str, arguments: &[&str]) {
        let fixed = [
            "backup",
            "create",
            name,
            "--snapshot-volumes=false",
            "--wait",
        ];
        self.cli(&[&fixed, arguments].concat()).ok();
        self.assert_completed(BACKUPS, name);
    }

    /// Restores with these further arguments, waits, and fails the test unless the phase is Completed.
    #[track_caller]
    pub fn restore(&self, name: &str, backup: &str, arguments: &[&str]) {
        let fixed = ["restore", "create", name, "--from-backup", backup, "--wait"];
        self.cli(&[&fixed, arguments].concat()).ok();
        self.assert_completed("/apis/velero.io/v1/namespaces/velero/restores", name);
    }

    #[track_caller]
    fn assert_completed(&self, path: &str, name: &str) {
        let object = self.cluster.client().get(&format!("{path}/{name}"));
        let status = object.unwrap().json()["status"].take();
        assert!(
            status["phase"] == "Completed"
                && status["errors"].as_u64().is_none_or(|errors| errors == 0),
            "{name}: {status:#}\n{}",
            self.log()
                .lines()
                .filter(|line| line.contains("level=error"))
                .collect::<Vec<_>>()
                .join("\n")
        );
    }

    /// Makes a backup that is in the bucket known to the cluster, as the server itself does within two minutes: the
    /// same object with the same changes.
    #[track_caller]
    pub fn sync(&self, name: &str) {
        let folder = if self.prefix.is_empty() {
            String::new()
        } else {
            format!("{}/", self.prefix)
        };
        let key = format!("{folder}backups/{name}/velero-backup.json");
        let mut backup: Value =
            serde_json::from_slice(&self.minio.get(&self.bucket, &key)).unwrap();
        assert_eq!(
            backup["metadata"]["name"], name,
            "{key} is of another backup"
        );
        let metadata = backup["metadata"].as_object_mut().unwrap();
        for field in [
            "resourceVersion",
            "uid",
            "creationTimestamp",
            "managedFields",
            "ownerReferences",
        ] {
            metadata.remove(field);
        }
        metadata.insert("namespace".to_owned(), json!("velero"));
        let labels = metadata.entry("labels").or_insert_with(|| json!({}));
        labels["velero.io/storage-location"] = json!("default");
        backup["spec"]["storageLocation"] = json!("default");
        let mut client = self.cluster.client();
        let answer = client.post_json(BACKUPS, backup.to_string()).unwrap();
        assert!(
            answer.is_success() || answer.status == 409,
            "Velero does not take {name}: {}",
            answer.text()
        );
    }
}

/// The `velero` command against whoever serves its kinds in a cluster, whatever comes of it.
pub fn cli(cluster: &dyn Site, home: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(tools::path("velero"));
    command
        .args(arguments)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .env_clear()
        .env("HOME", home.path())
        .current_dir(home.path());
    Output::of(&mut command)
}

/// The definitions that `velero install` brings, as it prints them.
pub fn definitions(home: &Folder) -> Value {
    let arguments = ["install", "--crds-only", "--dry-run", "-o", "json"];
    Output::of(
        Command::new(tools::path("velero"))
            .args(arguments)
            .env("HOME", home.path()),
    )
    .ok()
    .json()
}

/// Runs Velero's node-agent on every node, as `velero install --use-node-agent` does, and waits until it does.
pub fn start_node_agent(node: &Node, home: &Folder) {
    let image = Image::new("localhost/velero:1").program(tools::path("velero"), "/velero");
    node.import_image(&image);
    let install = [
        "install",
        "--use-node-agent",
        "--no-default-backup-location",
        "--use-volume-snapshots=false",
        "--no-secret",
        "--dry-run",
        "--output=json",
        "--image",
        image.name(),
        "--kubeconfig",
    ];
    let mut command = Command::new(tools::path("velero"));
    command
        .args(install)
        .arg(node.kubeconfig())
        .env("HOME", home.path());
    let all = Output::of(&mut command).ok().json();
    let kinds = ["DaemonSet", "ServiceAccount", "ClusterRoleBinding"];
    for object in all["items"].as_array().unwrap() {
        if kinds.iter().any(|kind| object["kind"] == *kind) {
            node.apply(&object.to_string());
        }
    }
    let there = [
        "-n",
        "velero",
        "rollout",
        "status",
        "daemonset/node-agent",
        "--timeout=120s",
    ];
    node.kubectl(&there);
}

fn location(client: &mut Client) -> Option<Value> {
    client
        .get(LOCATION)
        .ok()
        .filter(|answer| answer.status == 200)
        .map(|answer| answer.json())
}

fn is_available(client: &mut Client) -> bool {
    location(client).is_some_and(|location| location["status"]["phase"] == "Available")
}

fn validated_at(client: &mut Client) -> Option<String> {
    Some(
        location(client)?["status"]["lastValidationTime"]
            .as_str()?
            .to_owned(),
    )
}
