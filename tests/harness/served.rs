//! A cluster, a bucket and a controller that serves Velero's API there, as its users have them.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, Controllers};
use crate::process::{Folder, Output};
use crate::run::{Backup, Running, kubectl_backup};
use crate::store::Minio;
use crate::velero;

/// Everything the controller does takes seconds; a machine that is busy takes longer.
pub const PATIENT: Duration = Duration::from_secs(120);

/// A cluster and a bucket of a story's own, and a controller there.
pub struct Served {
    pub cluster: Cluster,
    pub minio: &'static Minio,
    pub bucket: String,
    pub home: Folder,
    pub controller: Option<Running>,
}

/// The namespace that is served, as it is by default.
pub const NAMESPACE: &str = "kubectl-backup";

impl Served {
    /// A cluster with the namespace, the kinds, a location `default` and a controller that serves them.
    pub fn start(bucket: &str) -> Self {
        Self::start_with(bucket, &[])
    }

    /// The same with flags of the controller's.
    pub fn start_with(bucket: &str, flags: &[&str]) -> Self {
        Self::start_through(Minio::shared().endpoint(), bucket, flags)
    }

    /// The same with the location at another address of the store: a proxy's.
    pub fn start_through(endpoint: &str, bucket: &str, flags: &[&str]) -> Self {
        let mut served = Self::without_controller(bucket);
        served.controller = Some(served.call(flags).spawn());
        served.cluster_has_kinds();
        served.location_at(endpoint, "default", "main", true);
        served.wait(
            "backupstoragelocations/default",
            "an available location",
            |object| object["status"]["phase"] == "Available",
        );
        served
    }

    /// Velero's `describe --details` and `logs` of it: all these parts, and nothing that could not be fetched.
    pub fn is_described(&self, kind: &str, name: &str, parts: &[&str]) {
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
    pub fn without_controller(bucket: &str) -> Self {
        let minio = Minio::shared();
        minio.bucket(bucket);
        let cluster = Cluster::builder().controllers(Controllers::None).start();
        cluster.kubectl(&["create", "namespace", NAMESPACE]);
        let served = Self {
            cluster,
            minio,
            bucket: bucket.to_owned(),
            home: Folder::new("velero"),
            controller: None,
        };
        served.secret("cloud-credentials", minio.credentials_file());
        served
    }

    /// A Secret with keys of a store.
    pub fn secret(&self, name: &str, keys: &Path) {
        let keys = format!("--from-file=cloud={}", keys.display());
        self.kubectl(&["create", "secret", "generic", name, &keys]);
    }

    /// The call that starts a controller.
    pub fn call(&self, flags: &[&str]) -> Backup {
        kubectl_backup(&["controller"])
            .args(flags)
            .kubeconfig(self.cluster.kubeconfig())
    }

    pub fn cluster_has_kinds(&self) {
        let mut client = self.cluster.client();
        crate::wait_for("the kinds", PATIENT, || {
            let answer = client
                .get("/apis/velero.io/v1/namespaces/default/serverstatusrequests")
                .ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// A location as Velero documents it.
    pub fn location(&self, name: &str, prefix: &str, is_default: bool) {
        self.location_at(self.minio.endpoint(), name, prefix, is_default);
    }

    /// The same at another address of the store: a proxy's.
    pub fn location_at(&self, endpoint: &str, name: &str, prefix: &str, is_default: bool) {
        let bucket = &self.bucket;
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
    pub fn object(&self, what: &str) -> Option<Value> {
        let path = format!("/apis/velero.io/v1/namespaces/{NAMESPACE}/{what}");
        let answer = self.cluster.client().get(&path).ok()?;
        (answer.status == 200).then(|| answer.json())
    }

    /// Waits until an object is as it should be.
    #[track_caller]
    pub fn wait(&self, what: &str, title: &str, is_so: impl Fn(&Value) -> bool) -> Value {
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

    /// Waits until there is no such object.
    #[track_caller]
    pub fn goes(&self, what: &str) {
        crate::wait_for(&format!("the end of {what}"), PATIENT, || {
            self.object(what).is_none().then_some(())
        });
    }

    /// Changes an object.
    pub fn patch(&self, kind: &str, name: &str, patch: &str) {
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", patch]);
    }

    /// A backup of the namespace `default`, whole, in this location.
    #[track_caller]
    pub fn backed_up(&self, name: &str, location: &str) -> Value {
        self.apply(&format!("{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [default], storageLocation: {location}}}}}"));
        self.ends(name, "Completed")
    }

    /// Waits until a backup ended like this.
    #[track_caller]
    pub fn ends(&self, backup: &str, phase: &str) -> Value {
        self.wait(&format!("backups/{backup}"), phase, |object| {
            object["status"]["phase"] == phase
        })
    }

    /// A Backup of one namespace.
    pub fn backup(&self, name: &str, namespace: &str) {
        self.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Backup, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{includedNamespaces: [{namespace}]}}}}"
        ));
    }

    /// A Schedule of the namespace `default`.
    pub fn schedule(&self, name: &str, cron: &str) {
        self.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: Schedule, metadata: {{name: {name}, namespace: {NAMESPACE}}}, spec: {{schedule: '{cron}', template: {{includedNamespaces: [default]}}}}}}"
        ));
    }

    /// kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let within = [&["-n", NAMESPACE][..], arguments].concat();
        self.cluster.kubectl(&within)
    }

    /// Names of the backups in this phase.
    pub fn backups_in(&self, phase: &str) -> Vec<String> {
        let list = self.object("backups").unwrap();
        let all = list["items"].as_array().unwrap();
        let of = all
            .iter()
            .filter(|backup| backup["status"]["phase"] == phase);
        of.map(|backup| backup["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Names of the backups of a schedule.
    pub fn backups_of(&self, schedule: &str) -> Vec<String> {
        let list = self.object("backups").unwrap();
        let all = list["items"].as_array().unwrap();
        let of = all
            .iter()
            .filter(|backup| backup["metadata"]["labels"]["velero.io/schedule-name"] == schedule);
        of.map(|backup| backup["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Claims in a backup's folder of the location `default`.
    pub fn claims(&self, backup: &str) -> Vec<String> {
        let folder = format!("main/backups/{backup}/");
        let mut all = self.minio.list(&self.bucket, &folder);
        all.retain(|key| key.contains("/claim-"));
        all
    }

    /// Waits for a backup at work that has its claim.
    #[track_caller]
    pub fn at_work(&self) -> String {
        crate::wait_for("a backup at work", PATIENT, || {
            let name = self.backups_in("InProgress").pop()?;
            (self.claims(&name).len() == 1).then_some(name)
        })
    }

    /// Nobody waits for the Lease of a controller that is gone.
    pub fn forget_the_lease(&self) {
        self.kubectl(&["delete", "lease", "kubectl-backup-controller"]);
    }

    /// What the controller said.
    pub fn log(&self) -> String {
        self.controller
            .as_ref()
            .map(Running::stderr)
            .unwrap_or_default()
    }

    /// The unchanged `velero` command.
    pub fn velero(&self, arguments: &[&str]) -> Output {
        let arguments: Vec<_> = arguments
            .iter()
            .copied()
            .chain(["-n", NAMESPACE, "--colorized=false"])
            .collect();
        // It reads an object and writes it whole; where a controller wrote to it in between it says so, and is called again.
        let again = |output: &Output| output.stderr.contains("the object has been modified");
        let call = || velero::cli(&self.cluster, &self.home, &arguments);
        let mut calls = (0..5).map(|_| call());
        calls.find(|output| !again(output)).unwrap_or_else(call)
    }

    pub fn apply(&self, yaml: &str) {
        self.cluster.apply(yaml);
    }
}
