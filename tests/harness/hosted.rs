//! A hosted control plane: etcd members below launchers, as processes on loopback; their objects in a hosting API that is real; an API server
//! of their own, which comes and goes as its Deployment says. There is no kubelet: a thread plays what one would do.

mod api;
mod builder;
mod configs;
mod hosting;
pub mod kkp;
mod member;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::etcd::Keys;
use crate::http_client::{Answer, Endpoint};
use crate::permit::{Permit, Permits};
use crate::process::{Folder, Output, Process};
use crate::store::Minio;
use crate::{kubectl, tools, wait_for};
use api::Api;
pub use builder::HostedBuilder;
use hosting::{ESTABLISHED, crd_files};
pub use hosting::{HostingApi, Kinds};
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
    launcher_kubeconfig: PathBuf,
    hurry: u32,
    in_earnest: bool,
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

    /// How many times less long launchers wait that are started from now on.
    pub fn hurry(&mut self, hurry: u32) {
        self.hurry = hurry;
    }

    /// Starts the launcher of a member, which ends at its next point; nothing happens where it runs.
    pub fn launch(&self, index: usize) {
        let member = &self.members[index];
        let mut process = member.process.lock().unwrap();
        if process.as_ref().is_some_and(|running| !running.has_ended()) {
            return;
        }
        *process = None;
        let next = member.points.lock().unwrap().pop_front();
        member.point.lock().unwrap().clone_from(&next);
        let each = |text: &dyn Fn(&Launched) -> String| -> Vec<String> {
            self.members.iter().map(text).collect()
        };
        let initial = each(&|m| format!("{}={}", m.name, m.peer_url())).join(",");
        let mut command = Command::new(tools::launcher());
        command
            .args([
                "run",
                "--cluster",
                &self.name,
                "--namespace",
                &self.namespace,
                "--new-cluster",
                "--kubeconfig",
            ])
            .arg(&self.launcher_kubeconfig)
            .arg(format!("--listen=127.0.0.1:{}", member.probes.number))
            .args(each(&|m| {
                format!("--peer={}=127.0.0.1:{}", m.name, m.probes.number)
            }))
            .arg(format!("--hurry={}", self.hurry))
            .arg("--etcdutl")
            .arg(tools::path("etcdutl"))
            .arg("--")
            .arg(tools::path("etcd"))
            .arg(format!("--name={}", member.name))
            .arg(format!("--data-dir={}", member.data_dir.display()))
            .arg(format!("--listen-client-urls={}", member.client_url()))
            .arg(format!("--advertise-client-urls={}", member.client_url()))
            .arg(format!("--listen-peer-urls={}", member.peer_url()))
            .arg(format!(
                "--initial-advertise-peer-urls={}",
                member.peer_url()
            ))
            .arg(format!("--initial-cluster={initial}"))
            .arg(if self.in_earnest {
                "--quota-backend-bytes=8589934592"
            } else {
                "--unsafe-no-fsync"
            })
            .arg("--log-level=warn")
            .args(self.tls_flags(member))
            .envs(next.map(|point| ("ETCD_LAUNCHER_CRASH_AT", format!("run:{point}"))));
        *process = Some(Process::start(
            &format!("launcher-{}", member.name),
            &self.folder,
            &command,
        ));
    }

    fn tls_flags(&self, member: &Launched) -> Vec<String> {
        if member.tls.is_none() {
            return Vec::new();
        }
        let mut flags = vec![
            "--client-cert-auth".to_owned(),
            "--peer-client-cert-auth".to_owned(),
        ];
        for (flag, file) in [
            ("cert-file", "etcd.crt"),
            ("peer-cert-file", "peer.crt"),
            ("key-file", "etcd.key"),
            ("peer-key-file", "etcd.key"),
            ("trusted-ca-file", "ca.crt"),
            ("peer-trusted-ca-file", "ca.crt"),
        ] {
            flags.push(format!("--{flag}={}", self.folder.join(file).display()));
        }
        flags
    }

    /// Starts what is not running, again and again, as a kubelet does; until `done`.
    #[track_caller]
    pub fn relaunch_until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut done: impl FnMut() -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = done() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}:\n{}",
                self.story()
            );
            for index in 0..self.members.len() {
                if self.members[index].has_ended() {
                    self.launch(index);
                }
            }
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What a kubelet and its controllers would do with the Deployments.
    fn play(&self) -> (Arc<AtomicBool>, JoinHandle<()>) {
        let end = Arc::new(AtomicBool::new(false));
        let (ended, api, endpoint) = (end.clone(), self.api.clone(), self.hosting.endpoint());
        let namespace = self.namespace.clone();
        let thread = thread::spawn(move || {
            let mut client = endpoint.client();
            while !ended.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(150));
                for name in ["apiserver", "controller-manager", "scheduler"] {
                    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
                    let Ok(answer) = client.get(&path) else {
                        continue;
                    };
                    if !answer.is_success() {
                        continue;
                    }
                    let mut deployment = answer.json();
                    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
                    let mut ready = wanted;
                    if name == "apiserver" {
                        let mut api = api.lock().unwrap();
                        api.scale(wanted > 0);
                        if !(wanted > 0 && api.is_ready()) {
                            ready = 0;
                        }
                    }
                    let status = json!({"replicas": wanted, "readyReplicas": ready, "availableReplicas": ready,
                        "updatedReplicas": wanted, "observedGeneration": deployment["metadata"]["generation"]});
                    if deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) != ready
                        || deployment["status"]["observedGeneration"]
                            != status["observedGeneration"]
                    {
                        deployment["status"] = status;
                        let headers = [("content-type", "application/json")];
                        let _ = client.send(
                            Method::PUT,
                            &format!("{path}/status"),
                            &headers,
                            deployment.to_string(),
                        );
                    }
                }
            }
        });
        (end, thread)
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

    pub fn restore(&self, name: &str) -> Option<Value> {
        let namespace = &self.namespace;
        self.hosting_object(&format!(
            "/apis/kubermatic.k8c.io/v1/namespaces/{namespace}/etcdrestores/{name}"
        ))
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
        let mut command = Command::new(tools::path("etcdctl"));
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.members[0].client_url()))
            .args(self.etcdctl_flags())
            .args(["snapshot", "save"])
            .arg(file);
        Output::of(&mut command).ok();
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

    /// Asks for a restore to be given up, as `kubectl annotate` does.
    #[track_caller]
    pub fn abort(&self, name: &str) {
        self.kubectl(&["annotate", "etcdrestore", name, "kubectl-backup/abort=true"]);
    }

    /// Deletes a restore, and does not wait for it to be gone.
    #[track_caller]
    pub fn delete_restore(&self, name: &str) {
        self.kubectl(&["delete", "etcdrestore", name, "--wait=false"]);
    }

    /// Waits until a restore is gone.
    #[track_caller]
    pub fn wait_until_gone(&self, name: &str) {
        self.relaunch_until(&format!("{name} to be gone"), LONG, || {
            self.restore(name).is_none().then_some(())
        });
    }

    /// Applies an EtcdRestore as KKP documents it.
    pub fn apply_restore(&self, name: &str, backup: &str) {
        self.apply_restore_from("s3", name, backup);
    }

    /// The same from another destination.
    pub fn apply_restore_from(&self, destination: &str, name: &str, backup: &str) {
        self.apply_restore_by(self.hosting.kubeconfig(), destination, name, backup);
    }

    /// The same by another way.
    pub fn apply_restore_by(&self, kubeconfig: &Path, destination: &str, name: &str, backup: &str) {
        let (cluster, namespace) = (&self.name, &self.namespace);
        let mut command = kubectl::command(kubeconfig, self.folder.path());
        kubectl::apply(
            &mut command,
            &format!(
                "apiVersion: kubermatic.k8c.io/v1
kind: EtcdRestore
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  cluster: {{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, name: {cluster}}}
  backupName: {backup}
  destination: {destination}
"
            ),
        );
    }

    /// Waits until a restore has this phase; fails the test where it ends in another one.
    #[track_caller]
    pub fn wait_for_phase(&self, name: &str, phase: &str) -> Value {
        self.relaunch_until(
            &format!("{name} to be {phase}"),
            Duration::from_secs(240),
            || {
                let restore = self.restore(name)?;
                let now = restore["status"]["phase"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                let ended = ["Completed", "Failed", "RolledBack"].contains(&now.as_str());
                assert!(!ended || now == phase, "{name} is {now}:\n{}", self.story());
                (now == phase).then_some(restore)
            },
        )
    }

    /// Waits until a restore has come to this step or another that is in the list.
    #[track_caller]
    pub fn wait_for_step(&self, name: &str, steps: &[&str]) -> Value {
        self.relaunch_until(
            &format!("{name} at {steps:?}"),
            Duration::from_secs(120),
            || {
                let restore = self.restore(name)?;
                let now = restore["status"]["attempt"]["step"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                steps.contains(&now.as_str()).then_some(restore)
            },
        )
    }

    /// Waits until nothing of any restore is left on the objects, and every member serves.
    #[track_caller]
    pub fn wait_until_settled(&self) {
        self.relaunch_until("everything to be put back", LONG, || {
            let annotations = self.cluster()["metadata"]["annotations"].clone();
            let free = annotations.get("etcd-launcher/active-restore").is_none();
            let idle = self.members.iter().all(|member| {
                member
                    .state()
                    .is_some_and(|state| state.get("attempt").is_none() && state["serving"] == true)
            });
            (free && idle).then_some(())
        });
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
