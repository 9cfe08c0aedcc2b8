//! The controller serves Velero's API: the unchanged `velero` command and Velero's own YAML work against it.

mod backups;
mod commands;
mod definitions;
mod handed;
mod installed;
mod killed;
mod restores;
mod schedules;

use std::time::Duration;

use harness::cluster::{Cluster, Controllers};
use harness::process::{Folder, Output};
use harness::run::{Backup, Running, kubectl_backup};
use harness::store::Minio;
use harness::velero;
use serde_json::Value;

/// Everything the controller does takes seconds; a machine that is busy takes longer.
const PATIENT: Duration = Duration::from_secs(120);

/// A cluster and a bucket of a story's own, and a controller there.
pub(crate) struct Served {
    pub(crate) cluster: Cluster,
    pub(crate) minio: &'static Minio,
    pub(crate) bucket: String,
    pub(crate) home: Folder,
    pub(crate) controller: Option<Running>,
}

/// The namespace that is served, as it is by default.
const NAMESPACE: &str = "kubectl-backup";

impl Served {
    /// A cluster with the namespace, the kinds, a location `default` and a controller that serves them.
    pub(crate) fn start(bucket: &str) -> Self {
        Self::start_with(bucket, &[])
    }

    /// The same with flags of the controller's.
    pub(crate) fn start_with(bucket: &str, flags: &[&str]) -> Self {
        let mut served = Self::without_controller(bucket);
        served.controller = Some(served.call(flags).spawn());
        served.cluster_has_kinds();
        served.location("default", "main", true);
        served.wait(
            "backupstoragelocations/default",
            "an available location",
            |object| object["status"]["phase"] == "Available",
        );
        served
    }

    /// Velero's `describe --details` and `logs` of it: all these parts, and nothing that could not be fetched.
    pub(crate) fn is_described(&self, kind: &str, name: &str, parts: &[&str]) {
        let described = self
            .velero(&[kind, "describe", name, "--details"])
            .ok()
            .stdout;
        for part in parts {
            assert!(described.contains(part), "{part}: {described}");
        }
        assert!(!described.contains("<error"), "{described}");
        let logs = self.velero(&[kind, "logs", name]).ok().stdout;
        assert!(logs.contains("level=info"), "{logs}");
    }

    /// The same before the controller was started for the first time.
    pub(crate) fn without_controller(bucket: &str) -> Self {
        let minio = Minio::shared();
        minio.bucket(bucket);
        let cluster = Cluster::builder().controllers(Controllers::None).start();
        cluster.kubectl(&["create", "namespace", NAMESPACE]);
        let keys = format!("--from-file=cloud={}", minio.credentials_file().display());
        cluster.kubectl(&[
            "-n",
            NAMESPACE,
            "create",
            "secret",
            "generic",
            "cloud-credentials",
            &keys,
        ]);
        Self {
            cluster,
            minio,
            bucket: bucket.to_owned(),
            home: Folder::new("velero"),
            controller: None,
        }
    }

    /// The call that starts a controller.
    pub(crate) fn call(&self, flags: &[&str]) -> Backup {
        kubectl_backup(&["controller"])
            .args(flags)
            .kubeconfig(self.cluster.kubeconfig())
    }

    pub(crate) fn cluster_has_kinds(&self) {
        let mut client = self.cluster.client();
        harness::wait_for("the kinds", PATIENT, || {
            let answer = client
                .get("/apis/velero.io/v1/namespaces/default/serverstatusrequests")
                .ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// A location as Velero documents it.
    pub(crate) fn location(&self, name: &str, prefix: &str, is_default: bool) {
        let (bucket, endpoint) = (&self.bucket, self.minio.endpoint());
        self.cluster.apply(&format!(
            r#"
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  provider: aws
  default: {is_default}
  objectStorage: {{bucket: {bucket}, prefix: {prefix}}}
  config: {{region: us-east-1, s3ForcePathStyle: "true", s3Url: "{endpoint}"}}
"#
        ));
    }

    /// An object of the namespace; nothing where it is not there.
    pub(crate) fn object(&self, what: &str) -> Option<Value> {
        let path = format!("/apis/velero.io/v1/namespaces/{NAMESPACE}/{what}");
        let answer = self.cluster.client().get(&path).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until an object is as it should be.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, title: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENT {
            if let Some(object) = self.object(what) {
                if is_so(&object) {
                    return object;
                }
                last = object;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{what} is not {title}: {last:#}\n{}", self.log());
    }

    /// Waits until a backup ended like this.
    #[track_caller]
    pub(crate) fn ends(&self, backup: &str, phase: &str) -> Value {
        self.wait(&format!("backups/{backup}"), phase, |object| {
            object["status"]["phase"] == phase
        })
    }

    /// What the controller said.
    pub(crate) fn log(&self) -> String {
        self.controller
            .as_ref()
            .map(Running::stderr)
            .unwrap_or_default()
    }

    /// The unchanged `velero` command.
    pub(crate) fn velero(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<_> = arguments
            .iter()
            .copied()
            .chain(["-n", NAMESPACE, "--colorized=false"])
            .collect();
        velero::cli(&self.cluster, &self.home, &arguments)
    }

    pub(crate) fn apply(&self, yaml: &str) {
        self.cluster.apply(yaml);
    }
}
