//! A hosted control plane: etcd members below launchers, as processes on loopback; their objects in a hosting API that is real; an API server
//! of their own, which comes and goes as its Deployment says. There is no kubelet: a thread plays what one would do.

mod api;
mod builder;
mod configs;
mod hosting;
pub mod kkp;
mod launch;
mod member;
mod restores;
mod world;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::etcd::Keys;
use crate::http_client::{Answer, Endpoint};
use crate::permit::{Permit, Permits};
use crate::process::{Folder, Output};
use crate::store::Minio;
use crate::{kubectl, tools, wait_for};
use api::Api;
pub use builder::HostedBuilder;
use hosting::{ESTABLISHED, crd_files};
pub use hosting::{HostingApi, Kinds};
pub use launch::How;
pub use member::Launched;

/// What a launcher may do, as users are given it for a cluster `xyz`.
const RIGHTS: &str = include_str!("../../manifests/etcd-launcher/rbac.yaml");

/// The cluster of KKP's documentation: the name of one that has a hosting API of its own.
pub const CLUSTER: &str = "zvc78xnnz7";
/// The bucket of its destination `s3`.
pub const BUCKET: &str = "etcd-snapshots";
const TOKEN: &str = "hosted-admin";
const LONG: Duration = Duration::from_secs(120);
/// Hosted control planes at one time: each is several processes, and all of them elect, sync and hash.
static PERMITS: Permits = Permits::new(3);

/// All of it; dropping it stops everything.
pub struct Hosted {
    // Fields drop in this order: clients before servers.
    world: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
    pub members: Vec<Launched>,
    api: Arc<Mutex<Api>>,
    pub minio: Minio,
    pub hosting: HostingApi,
    /// The cluster's name, and the namespace of its control plane.
    pub name: String,
    pub namespace: String,
    /// How its launchers are started; whoever changes it starts them again.
    pub how: How,
    launcher_kubeconfig: PathBuf,
    folder: Folder,
    _permit: Permit,
}

impl Hosted {
    /// One member, no API server, the shared hosting API.
    pub fn builder() -> HostedBuilder {
        HostedBuilder::new()
    }

    /// Puts another certificate into the file that etcd shows its peers; gives the one that was there.
    pub fn replace_peer_certificate(&self, pem: &str) -> String {
        let before = std::fs::read_to_string(self.folder.join("peer.crt")).unwrap();
        self.folder.write("peer.crt", pem);
        before
    }

    /// Makes the objects that stand for it in its own API as well, and gives the way there.
    pub fn move_objects_inside(&self) -> PathBuf {
        let kubeconfig = self.api_kubeconfig();
        let apply = |yaml: &str| {
            kubectl::apply(&mut kubectl::command(&kubeconfig, self.folder.path()), yaml);
        };
        for file in crd_files() {
            apply(&std::fs::read_to_string(file).unwrap());
        }
        let mut wait = kubectl::command(&kubeconfig, self.folder.path());
        wait.args(["wait", "--for=condition=Established", "--timeout=60s"]);
        Output::of(wait.args(ESTABLISHED)).ok();
        self.make_objects(&apply);
        kubeconfig
    }

    fn make_objects(&self, apply: &dyn Fn(&str)) {
        let (cluster, namespace) = (&self.name, &self.namespace);
        let replicas = self.members.len();
        apply(&format!(
            "apiVersion: v1
kind: Namespace
metadata: {{name: {namespace}}}
---
apiVersion: kubermatic.k8c.io/v1
kind: Cluster
metadata: {{name: {cluster}}}
spec: {{}}
---
apiVersion: v1
kind: Secret
metadata: {{name: s3-credentials, namespace: {namespace}}}
stringData:
  cloud: |
    [default]
    aws_access_key_id={}
    aws_secret_access_key={}
---
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: s3, namespace: {namespace}}}
spec:
  provider: aws
  objectStorage: {{bucket: {BUCKET}}}
  config: {{region: us-east-1, s3Url: \"{}\", s3ForcePathStyle: \"true\"}}
  credential: {{name: s3-credentials, key: cloud}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: etcd, namespace: {namespace}}}
spec:
  replicas: {replicas}
  serviceName: etcd
  selector: {{matchLabels: {{app: etcd}}}}
  template:
    metadata: {{labels: {{app: etcd}}}}
    spec: {{containers: [{{name: etcd, image: none}}]}}
",
            self.minio.access_key(),
            self.minio.secret_key(),
            self.minio.endpoint(),
        ));
        apply(&RIGHTS.replace("xyz", cluster));
        for name in ["apiserver", "controller-manager", "scheduler"] {
            apply(&format!(
                "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: {name}, image: none}}]}}
",
                if name == "apiserver" { 2 } else { 1 }
            ));
        }
    }

    /// How launchers reach the hosting API from now on; for a proxy that is in the way.
    pub fn reach_hosting_by(&mut self, kubeconfig: PathBuf) {
        self.launcher_kubeconfig = kubeconfig;
    }

    /// etcd's own clients, one for each member that serves.
    pub fn keys(&self, index: usize) -> Keys {
        Keys::of(&self.members[index].endpoint())
    }

    pub fn is_serving(&self, index: usize) -> bool {
        let answer = self.members[index].endpoint().client().get("/health");
        answer.is_ok_and(|answer| answer.is_success() && answer.json()["health"] == "true")
    }

    #[track_caller]
    pub fn wait_until_etcd_serves(&self) {
        self.relaunch_until("etcd", LONG, || {
            (0..self.members.len())
                .all(|index| self.is_serving(index))
                .then_some(())
        });
    }

    /// The control plane's API, as its administrator.
    pub fn api(&self) -> Endpoint {
        self.api.lock().unwrap().endpoint()
    }

    pub fn wait_for_api(&self) {
        wait_for("the hosted API server", LONG, || {
            self.is_api_ready().then_some(())
        });
    }

    pub fn is_api_ready(&self) -> bool {
        let answer = self.api().client().get("/readyz");
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Where its files are.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// An object of the hosting API; nothing where it is gone.
    pub fn hosting_object(&self, path: &str) -> Option<Value> {
        let answer: Answer = self.hosting.client().get(path).ok()?;
        answer.is_success().then(|| answer.json())
    }

    pub fn cluster(&self) -> Value {
        let cluster = &self.name;
        self.hosting_object(&format!("/apis/kubermatic.k8c.io/v1/clusters/{cluster}"))
            .unwrap()
    }

    pub fn stateful_set(&self) -> Value {
        let namespace = &self.namespace;
        self.hosting_object(&format!(
            "/apis/apps/v1/namespaces/{namespace}/statefulsets/etcd"
        ))
        .unwrap()
    }

    pub fn replicas(&self, deployment: &str) -> i64 {
        let namespace = &self.namespace;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}");
        self.hosting_object(&path).unwrap()["spec"]["replicas"]
            .as_i64()
            .unwrap_or(1)
    }

    /// A snapshot of the first member, by etcdctl, stored as KKP stores it.
    pub fn save_snapshot(&self, name: &str) {
        let file = self.folder.join("snapshot.db");
        let _ = std::fs::remove_file(&file);
        self.save_to(&file);
        self.store_snapshot(name, &std::fs::read(&file).unwrap());
    }

    /// A snapshot of the first member, by etcdctl, in a file that is not there yet.
    pub fn save_to(&self, file: &Path) {
        self.etcdctl(&["snapshot", "save", file.to_str().unwrap()]);
    }

    /// etcdctl at the first member; fails the test unless it succeeds.
    #[track_caller]
    pub fn etcdctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(tools::path("etcdctl"));
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.members[0].client_url()))
            .args(self.etcdctl_flags())
            .args(arguments);
        Output::of(&mut command).ok()
    }

    fn etcdctl_flags(&self) -> Vec<String> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        match self.members[0].tls {
            Some(_) => vec![
                format!("--cacert={}", file("ca.crt")),
                format!("--cert={}", file("etcd.crt")),
                format!("--key={}", file("etcd.key")),
            ],
            None => Vec::new(),
        }
    }

    /// Bytes of a snapshot, stored as KKP stores it.
    pub fn store_snapshot(&self, name: &str, bytes: &[u8]) {
        let cluster = &self.name;
        use std::io::Write as _;
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        let key = format!("{cluster}-{name}.db.gz");
        self.minio.put(BUCKET, &key, packed.finish().unwrap());
    }

    /// kubectl in the namespace of the control plane; fails the test unless it succeeds.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["-n", &self.namespace];
        all.extend(arguments);
        self.hosting.kubectl(&all)
    }

    /// Merges this into the Cluster, or into its status.
    #[track_caller]
    pub fn patch_cluster(&self, part: Option<&str>, patch: &Value) {
        let patch = patch.to_string();
        let mut arguments = vec!["patch", "clusters.kubermatic.k8c.io", &self.name];
        arguments.extend(["--type=merge", "-p", &patch]);
        let part = part.map(|part| format!("--subresource={part}"));
        arguments.extend(part.as_deref());
        self.hosting.kubectl(&arguments);
    }

    /// All that a failed test should show.
    pub fn story(&self) -> String {
        let mut text = String::new();
        for member in &self.members {
            let log = member.log();
            let lines: Vec<_> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(25)..];
            text += &format!(
                "--- {} ({:?})\n{}\n",
                member.name,
                member.state(),
                tail.join("\n")
            );
        }
        let kinds = "etcdrestores,etcdbackupconfigs";
        let objects =
            self.hosting
                .try_kubectl(&["get", kinds, "-n", &self.namespace, "-o", "yaml"]);
        text + &objects.stdout
    }

    /// The administrator's kubeconfig for the control plane's own API.
    pub fn api_kubeconfig(&self) -> PathBuf {
        let api = self.api.lock().unwrap();
        let ca = BASE64_STANDARD.encode(&api.ca);
        let content = format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {{server: \"{}\", certificate-authority-data: {ca}}}}}]\nusers: [{{name: u, user: {{token: {TOKEN}}}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
            api.endpoint().url
        );
        self.folder.write("hosted-kubeconfig", content)
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.world.take() {
            end.store(true, Ordering::SeqCst);
            let _ = thread.join();
        }
        for member in &self.members {
            member.stop();
        }
        self.api.lock().unwrap().process = None;
    }
}
