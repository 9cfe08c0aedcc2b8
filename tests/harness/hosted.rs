//! A hosted control plane: etcd members below launchers, as processes on loopback; their objects in a hosting API that is real; an API server
//! of their own, which comes and goes as its Deployment says. There is no kubelet: a thread plays what one would do.

pub mod kkp;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Controllers};
use crate::etcd::Keys;
use crate::http_client::{Answer, Endpoint};
use crate::permit::{Permit, Permits};
use crate::pki::{Authority, Identity, SigningKey};
use crate::ports::Port;
use crate::process::{Folder, Output, Process};
use crate::store::Minio;
use crate::{kubectl, tools, wait_for};

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

/// One member: a launcher with etcd below it.
pub struct Launched {
    pub name: String,
    process: Mutex<Option<Process>>,
    client: Port,
    peer: Port,
    probes: Port,
    data_dir: PathBuf,
    tls: Option<Tls>,
    /// Where its launchers are to end, one after the other: the first is of the next one that is started.
    points: Mutex<VecDeque<String>>,
    /// Where the one that was started last is to end.
    point: Mutex<Option<String>>,
}

/// How clients reach a member that speaks TLS.
#[derive(Clone)]
struct Tls {
    ca: String,
    client: Identity,
}

impl Launched {
    fn new(index: usize, folder: &Folder, tls: Option<Tls>) -> Self {
        let name = format!("etcd-{index}");
        Self {
            process: Mutex::new(None),
            client: Port::lease(),
            peer: Port::lease(),
            probes: Port::lease(),
            data_dir: folder.join(&name),
            name,
            tls,
            points: Mutex::default(),
            point: Mutex::default(),
        }
    }

    fn scheme(&self) -> &str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub fn client_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.client.number)
    }

    pub fn client_port(&self) -> u16 {
        self.client.number
    }

    fn peer_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.peer.number)
    }

    /// How a client reaches its etcd.
    pub fn endpoint(&self) -> Endpoint {
        let tls = self.tls.clone();
        Endpoint {
            url: self.client_url(),
            ca: tls.as_ref().map(|tls| tls.ca.clone()),
            identity: tls.map(|tls| tls.client),
            token: None,
        }
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether something listens where clients look for etcd.
    pub fn is_open(&self) -> bool {
        std::net::TcpStream::connect(("127.0.0.1", self.client.number)).is_ok()
    }

    /// What the launcher says of itself, where it runs.
    pub fn state(&self) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}", self.probes.number);
        let answer = Endpoint::plain(url).client().get("/state").ok()?;
        answer.is_success().then(|| answer.json())
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.lock().unwrap().as_ref().map(Process::pid)
    }

    pub fn has_ended(&self) -> bool {
        self.process
            .lock()
            .unwrap()
            .as_ref()
            .is_none_or(Process::has_ended)
    }

    pub fn log(&self) -> String {
        let process = self.process.lock().unwrap();
        process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// KILL for the launcher alone: what becomes of its etcd is its own doing.
    pub fn kill_launcher(&self) {
        if let Some(pid) = self.pid() {
            signal(pid, rustix::process::Signal::KILL);
        }
    }

    pub fn signal(&self, signal_: rustix::process::Signal) {
        if let Some(pid) = self.pid() {
            signal(pid, signal_);
        }
    }

    /// Launchers that are started from now on end at these points, each at the next one; the last one runs on.
    pub fn crash_at(&self, points: &[&str]) {
        *self.points.lock().unwrap() = points.iter().map(|&point| point.to_owned()).collect();
    }

    /// The points that nobody came to yet.
    pub fn points_left(&self) -> Vec<String> {
        let (points, point) = (self.points.lock().unwrap(), self.point.lock().unwrap());
        point.iter().chain(points.iter()).cloned().collect()
    }

    /// Whether every point was come to, and the one runs that has none.
    pub fn has_passed_all(&self) -> bool {
        self.points_left().is_empty() && !self.has_ended()
    }

    /// KILL for its etcd alone; says whether one ran.
    pub fn kill_etcd(&self) -> bool {
        let Some(launcher) = self.pid() else {
            return false;
        };
        let children = std::fs::read_dir(format!("/proc/{launcher}/task"))
            .into_iter()
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        let pids: Vec<u32> = children
            .flat_map(|text| {
                text.split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter_map(|pid| pid.parse().ok())
            .collect();
        let is_etcd = |pid: &&u32| {
            std::fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|program| program.file_name().is_some_and(|name| name == "etcd"))
        };
        let etcd = pids.iter().find(is_etcd);
        if let Some(pid) = etcd {
            signal(*pid, rustix::process::Signal::KILL);
        }
        etcd.is_some()
    }

    /// KILL for the launcher and all below it.
    pub fn kill(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.kill();
        }
    }

    pub fn stop(&self) {
        self.process.lock().unwrap().take();
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = rustix::process::kill_process(pid.unwrap(), signal);
}

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
    folder: Folder,
    _permit: Permit,
}

/// The hosting API: one that all stories share, or one of the story's own, which may be stopped.
pub enum HostingApi {
    Shared(&'static Cluster),
    Own(Box<Cluster>),
}

impl std::ops::Deref for HostingApi {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        match self {
            Self::Shared(cluster) => cluster,
            Self::Own(cluster) => cluster,
        }
    }
}

/// Whose kinds are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinds {
    Ours,
    /// As KKP's reference lists them; what they do not have is dropped.
    Kkp,
}

/// What a hosted control plane is to be like.
pub struct HostedBuilder {
    members: usize,
    api_server: bool,
    own_hosting: bool,
    tls: bool,
    kinds: Kinds,
}

impl HostedBuilder {
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// With an API server on its etcd; whoever looks at etcd alone need not wait for one.
    pub fn with_api_server(mut self) -> Self {
        self.api_server = true;
        self
    }

    /// With a hosting API of its own, and the names of KKP's documentation.
    pub fn with_own_hosting(mut self) -> Self {
        self.own_hosting = true;
        self
    }

    /// etcd asks its clients and its peers for certificates.
    pub fn with_tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// KKP manages it: the kinds are KKP's.
    pub fn managed_by_kkp(mut self) -> Self {
        self.kinds = Kinds::Kkp;
        self.with_own_hosting()
    }

    pub fn start(self) -> Hosted {
        Hosted::start(&self)
    }
}

fn new_hosting() -> Cluster {
    Cluster::builder()
        .controllers(Controllers::NAMESPACES)
        .start()
}

fn shared_hosting() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = new_hosting();
        bring_crds(&cluster, Kinds::Ours);
        cluster
    })
}

const ESTABLISHED: [&str; 3] = [
    "crd/etcdrestores.kubermatic.k8c.io",
    "crd/clusters.kubermatic.k8c.io",
    "crd/backupstoragelocations.velero.io",
];

fn crd_files() -> Vec<PathBuf> {
    let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    let mut files: Vec<_> = std::fs::read_dir(crds)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    files
}

fn bring_crds(hosting: &Cluster, kinds: Kinds) {
    if kinds == Kinds::Kkp {
        kkp::bring_crds(hosting);
    }
    for file in crd_files() {
        if kinds == Kinds::Ours || file.ends_with("backupstoragelocations.velero.io.yaml") {
            hosting.apply(&std::fs::read_to_string(file).unwrap());
        }
    }
    let mut wait = vec!["wait", "--for=condition=Established", "--timeout=60s"];
    wait.extend(ESTABLISHED);
    hosting.kubectl(&wait);
}

/// The control plane's own API server.
struct Api {
    process: Option<Process>,
    port: Port,
    ca: String,
    folder: PathBuf,
    etcd: Vec<String>,
    with_api_server: bool,
}

impl Api {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("https://127.0.0.1:{}", self.port.number),
            ca: Some(self.ca.clone()),
            identity: None,
            token: Some(TOKEN.to_owned()),
        }
    }

    fn is_ready(&self) -> bool {
        !self.with_api_server || {
            let answer = self.endpoint().client().get("/readyz");
            answer.is_ok_and(|answer| answer.status == 200)
        }
    }

    fn scale(&mut self, wanted: bool) {
        if !self.with_api_server {
            return;
        }
        if wanted && self.process.as_ref().is_none_or(Process::has_ended) {
            self.process = Some(self.start());
        }
        if !wanted {
            self.process = None;
        }
    }

    fn start(&self) -> Process {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(tools::path("kube-apiserver"));
        command
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            .arg(format!("--secure-port={}", self.port.number))
            .args(&self.etcd)
            .arg(format!("--tls-cert-file={}", file("server.crt")))
            .arg(format!("--tls-private-key-file={}", file("server.key")))
            .arg(format!("--token-auth-file={}", file("tokens.csv")))
            .arg(format!("--service-account-key-file={}", file("sa.pub")))
            .arg(format!(
                "--service-account-signing-key-file={}",
                file("sa.key")
            ))
            .args(["--service-account-issuer=https://kubernetes.default.svc.cluster.local"])
            .args([
                "--service-cluster-ip-range=10.0.0.0/16",
                "--authorization-mode=RBAC",
            ])
            .args([
                "--disable-admission-plugins=ServiceAccount",
                "--profiling=false",
            ]);
        Process::start_in("hosted-apiserver", &self.folder, &command)
    }
}

impl Hosted {
    pub fn builder() -> HostedBuilder {
        HostedBuilder {
            members: 1,
            api_server: false,
            own_hosting: false,
            tls: false,
            kinds: Kinds::Ours,
        }
    }

    fn start(wanted: &HostedBuilder) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let permit = PERMITS.take();
        let hosting = if wanted.own_hosting {
            HostingApi::Own(Box::new(new_hosting()))
        } else {
            HostingApi::Shared(shared_hosting())
        };
        let name = match &hosting {
            HostingApi::Own(_) => CLUSTER.to_owned(),
            HostingApi::Shared(_) => format!("hosted-{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        };
        let folder = Folder::new("hosted");
        let authority = Authority::new("hosted-ca");
        let tls = wanted.tls.then(|| {
            let server = authority.peer("etcd", &["127.0.0.1", "localhost"]);
            folder.write("ca.crt", authority.certificate());
            folder.write("etcd.crt", &server.certificate);
            folder.write("peer.crt", &server.certificate);
            folder.write("etcd.key", &server.key);
            Tls {
                ca: authority.certificate().to_owned(),
                client: server,
            }
        });
        let members: Vec<_> = (0..wanted.members)
            .map(|index| Launched::new(index, &folder, tls.clone()))
            .collect();
        let minio = Minio::start();
        minio.bucket(BUCKET);

        let server = authority.server("kube-apiserver", &["127.0.0.1", "localhost"]);
        let keys = SigningKey::new();
        folder.write("server.crt", &server.certificate);
        folder.write("server.key", &server.key);
        folder.write("sa.key", &keys.private);
        folder.write("sa.pub", &keys.public);
        folder.write(
            "tokens.csv",
            format!("{TOKEN},admin,admin,\"system:masters\"\n"),
        );
        let urls: Vec<_> = members.iter().map(Launched::client_url).collect();
        let mut etcd = vec![format!("--etcd-servers={}", urls.join(","))];
        if wanted.tls {
            for (flag, file) in [
                ("--etcd-cafile", "ca.crt"),
                ("--etcd-certfile", "etcd.crt"),
                ("--etcd-keyfile", "etcd.key"),
            ] {
                etcd.push(format!("{flag}={}", folder.join(file).display()));
            }
        }
        let api = Api {
            process: None,
            port: Port::lease(),
            ca: authority.certificate().to_owned(),
            folder: folder.path().to_owned(),
            etcd,
            with_api_server: wanted.api_server,
        };
        let mut hosted = Self {
            world: None,
            launcher_kubeconfig: hosting.user(
                &format!("system:serviceaccount:cluster-{name}:etcd-launcher"),
                &["system:serviceaccounts"],
            ),
            members,
            api: Arc::new(Mutex::new(api)),
            minio,
            namespace: format!("cluster-{name}"),
            name,
            hosting,
            folder,
            _permit: permit,
        };
        if let HostingApi::Own(own) = &hosted.hosting {
            bring_crds(own, wanted.kinds);
        }
        hosted.make_objects(&|yaml| {
            hosted.hosting.apply(yaml);
        });
        for index in 0..hosted.members.len() {
            hosted.launch(index);
        }
        hosted.wait_until_etcd_serves();
        hosted.world = Some(hosted.play());
        if wanted.api_server {
            hosted.wait_for_api();
        }
        hosted
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
        self.hosting.apply(&RIGHTS.replace("xyz", cluster));
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
            .args(["--hurry=4", "--etcdutl"])
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
            .args(["--unsafe-no-fsync", "--log-level=warn"])
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
            let answer = self.api().client().get("/readyz").ok()?;
            (answer.status == 200).then_some(())
        });
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
        let mut command = Command::new(tools::path("etcdctl"));
        command
            .env_clear()
            .arg(format!("--endpoints={}", self.members[0].client_url()))
            .args(self.etcdctl_flags())
            .args(["snapshot", "save"])
            .arg(&file);
        Output::of(&mut command).ok();
        self.store_snapshot(name, &std::fs::read(&file).unwrap());
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
        self.apply_restore_by(self.hosting.kubeconfig(), name, backup);
    }

    /// The same by another way.
    pub fn apply_restore_by(&self, kubeconfig: &Path, name: &str, backup: &str) {
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
  destination: s3
"
            ),
        );
    }

    pub fn backup_config(&self, name: &str) -> Option<Value> {
        let namespace = &self.namespace;
        self.hosting_object(&format!(
            "/apis/kubermatic.k8c.io/v1/namespaces/{namespace}/etcdbackupconfigs/{name}"
        ))
    }

    /// An EtcdBackupConfig of this cluster with these fields, as `schedule: "@every 1s", keep: 2`.
    pub fn apply_backup_config(&self, name: &str, fields: &str) {
        let (cluster, namespace) = (&self.name, &self.namespace);
        self.hosting.apply(&format!(
            "apiVersion: kubermatic.k8c.io/v1
kind: EtcdBackupConfig
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{cluster: {{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, name: {cluster}}}, {fields}}}
"
        ));
    }

    /// A destination with the credentials of the Secret `NAME-credentials`, which launchers may read from now on; `url` is where its store is
    /// reached.
    pub fn apply_destination(&self, name: &str, url: &str, credentials: &str) {
        let namespace = &self.namespace;
        let credentials = credentials.replace('\n', "\n    ");
        self.hosting.apply(&format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: {name}-credentials, namespace: {namespace}}}
stringData:
  cloud: |
    {credentials}
---
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  provider: aws
  objectStorage: {{bucket: {BUCKET}}}
  config: {{region: us-east-1, s3Url: \"{url}\", s3ForcePathStyle: \"true\"}}
  credential: {{name: {name}-credentials, key: cloud}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: destination-{name}, namespace: {namespace}}}
rules:
- {{apiGroups: [\"\"], resources: [secrets], resourceNames: [{name}-credentials], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: destination-{name}, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: destination-{name}}}
subjects: [{{kind: ServiceAccount, name: etcd-launcher, namespace: {namespace}}}]
"
        ));
    }

    /// Lets time pass for an EtcdBackupConfig: its creation and the slots of its snapshots move so many seconds back, as only etcd can say.
    pub fn age_backup_config(&self, name: &str, seconds: i64) {
        let key = format!(
            "/registry/kubermatic.k8c.io/etcdbackupconfigs/{}/{name}",
            self.namespace
        );
        let mut keys = Keys::of(&Endpoint::plain(self.hosting.etcd_endpoint()));
        let earlier = |time: &mut Value| {
            if let Some(Ok(then)) = time.as_str().map(str::parse::<jiff::Timestamp>) {
                *time = json!((then - jiff::SignedDuration::from_secs(seconds)).to_string());
            }
        };
        let stored = keys.get(&key).expect("the config").value;
        let mut object: Value = serde_json::from_slice(&stored).expect("JSON");
        earlier(&mut object["metadata"]["creationTimestamp"]);
        for list in ["lastBackups", "currentBackups"] {
            let rows = object["status"].get_mut(list).and_then(Value::as_array_mut);
            for row in rows.into_iter().flatten() {
                earlier(&mut row["scheduledTime"]);
            }
        }
        keys.put(&key, object.to_string().as_bytes());
    }

    /// Events about an object of the cluster's namespace: `reason: message` of each.
    pub fn events_about(&self, name: &str) -> Vec<String> {
        let events = self.hosting_object(&format!("/api/v1/namespaces/{}/events", self.namespace));
        let items = events.and_then(|mut list| list["items"].as_array_mut().map(std::mem::take));
        let about = items.unwrap_or_default().into_iter();
        about
            .filter(|event| event["involvedObject"]["name"] == name)
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("reason"), text("message"))
            })
            .collect()
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
