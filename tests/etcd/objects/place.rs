//! Where the stories of objects play: hosted control planes as objects of the shared cluster, and what a launcher would write onto them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use harness::cluster::Cluster;
use harness::process::Output;
use harness::run::{Backup, etcd_launcher, kubectl_backup};
use serde_json::{Value, json};

/// The shared cluster, with our kinds in it.
pub(super) fn shared() -> &'static Cluster {
    static BROUGHT: OnceLock<()> = OnceLock::new();
    let cluster = Cluster::shared();
    BROUGHT.get_or_init(|| {
        crds(cluster).ok();
    });
    cluster
}

/// `etcd-launcher crds` on this cluster.
pub(super) fn crds(cluster: &Cluster) -> Backup {
    etcd_launcher(&["crds"]).kubeconfig(cluster.kubeconfig())
}

/// A file under manifests.
pub(super) fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../manifests")
        .join(name)
}

/// A hosted control plane without etcd or launchers: its Cluster and its namespace.
pub(super) struct Plane {
    pub(super) cluster: &'static Cluster,
    /// The hosted cluster's name.
    pub(super) name: String,
    pub(super) namespace: String,
}

impl Plane {
    pub(super) fn new(name: &str) -> Self {
        let cluster = shared();
        let namespace = cluster.create_namespace(&format!("cluster-{name}"));
        let name = namespace.strip_prefix("cluster-").unwrap().to_owned();
        cluster.apply(&format!(
            "{{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, metadata: {{name: {name}}}, spec: {{}}}}"
        ));
        Self {
            cluster,
            name,
            namespace,
        }
    }

    /// A destination that no store stands behind.
    pub(super) fn with_destination(self, name: &str) -> Self {
        self.cluster.apply(&format!(
            "{{apiVersion: velero.io/v1, kind: BackupStorageLocation, metadata: {{name: {name}, namespace: {}}},
              spec: {{provider: aws, objectStorage: {{bucket: b}}, config: {{region: us-east-1, s3Url: 'http://127.0.0.1:1'}}}}}}",
            self.namespace
        ));
        self
    }

    /// `kubectl backup etcd`, with the cluster named.
    pub(super) fn run(&self, arguments: &[&str]) -> Backup {
        etcd(self.cluster, arguments).args(&["--cluster", &self.name])
    }

    /// An object of this control plane as the server has it.
    pub(super) fn get(&self, kind: &str, name: &str) -> Value {
        self.cluster.get_raw(&format!(
            "/apis/kubermatic.k8c.io/v1/namespaces/{}/{kind}/{name}",
            self.namespace
        ))
    }

    /// Writes a part of a status, as a launcher would.
    #[track_caller]
    pub(super) fn status(&self, kind: &str, name: &str, status: &Value) {
        let patch = json!({"status": status}).to_string();
        let arguments = [
            "patch",
            kind,
            name,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ];
        self.cluster
            .kubectl(&[&arguments[..], &["-n", &self.namespace]].concat());
    }

    /// An EtcdBackupConfig with these rows.
    pub(super) fn config(&self, name: &str, rows: &[Value]) {
        self.cluster.apply(&format!(
            "{{apiVersion: kubermatic.k8c.io/v1, kind: EtcdBackupConfig, metadata: {{name: {name}, namespace: {}}},
              spec: {{cluster: {{name: {}}}, schedule: '@daily', destination: s3}}}}",
            self.namespace, self.name
        ));
        self.status("etcdbackupconfig", name, &json!({"lastBackups": rows}));
    }

    /// kubectl with a manifest, whatever comes of it.
    pub(super) fn try_apply(&self, object: &Value) -> Output {
        try_apply(self.cluster, object)
    }
}

/// `kubectl backup etcd` on a cluster.
pub(super) fn etcd(cluster: &Cluster, arguments: &[&str]) -> Backup {
    kubectl_backup(&["etcd"])
        .args(arguments)
        .kubeconfig(cluster.kubeconfig())
}

/// A manifest that is applied as users do, with strict validation.
pub(super) fn try_apply(cluster: &Cluster, object: &Value) -> Output {
    let file = cluster.folder().write(
        format!("object-{:?}.json", std::thread::current().id()),
        object.to_string(),
    );
    cluster.try_kubectl(&["apply", "--validate=strict", "-f", file.to_str().unwrap()])
}

/// A row of a snapshot that stands.
pub(super) fn good(name: &str) -> Value {
    json!({
        "scheduledTime": "2026-11-20T01:00:00Z",
        "backupName": name,
        "backupFinishedTime": "2026-11-20T01:00:04Z",
        "backupPhase": "Completed",
        "backupSize": 1_234_567,
        "hash": "a".repeat(64),
        "revision": 4711,
    })
}
