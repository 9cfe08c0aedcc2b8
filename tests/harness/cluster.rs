//! Control planes on loopback: etcd, kube-apiserver and, where wanted, kube-controller-manager.
//!
//! There is no node: pods stay Pending. A cluster is ready when `/readyz` says so and, with controllers, when the
//! first service account exists, because only then can a pod be created.

mod admin;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::etcd::Etcd;
use crate::http_client::Endpoint;
use crate::permit::{Permit, Permits};
use crate::pki::{Authority, SigningKey};
use crate::ports::Port;
use crate::process::{Folder, Process};
use crate::tools;

pub use crate::wait_for;
pub use admin::Kubeconfig;

const READY: Duration = Duration::from_secs(120);
/// How often a start is tried with new ports, when somebody took one in between.
const STARTS: usize = 4;
/// Tests with clusters of their own at one time: a cluster takes half a gigabyte and most of a core to start.
static PERMITS: Permits = Permits::new(3);

/// Which controllers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    /// None, and no admission of service accounts: deleted namespaces stay Terminating.
    None,
    /// Those named in the list, as for `--controllers`.
    Some(&'static str),
    /// All that run by default.
    All,
}

impl Controllers {
    /// Enough for namespaces to come and go, and nothing that turns deployments into pods.
    pub const NAMESPACES: Self = Self::Some(
        "namespace-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,garbage-collector-controller",
    );

    fn list(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Some(list) => Some(list),
            Self::All => Some("*"),
        }
    }

    fn make_service_accounts(self) -> bool {
        self.list()
            .is_some_and(|list| list == "*" || list.contains("serviceaccount-controller"))
    }
}

/// What a cluster is to be like.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    controllers: Controllers,
    fsync: bool,
    api_server_flags: Vec<String>,
    /// The flags of the API server that lead to an etcd of somebody else.
    etcd_flags: Option<Vec<String>>,
}

impl ClusterBuilder {
    pub fn controllers(mut self, controllers: Controllers) -> Self {
        self.controllers = controllers;
        self
    }

    /// Whether etcd waits for the disk; only measurements need that.
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// Keeps its objects in this etcd, which the test starts and stops as it likes, and has none of its own.
    pub fn on_etcd(mut self, etcd: &Etcd) -> Self {
        let mut flags = vec![format!("--etcd-servers={}", etcd.endpoints().join(","))];
        let names = ["--etcd-cafile", "--etcd-certfile", "--etcd-keyfile"];
        for (name, file) in names.iter().zip(etcd.client_files().into_iter().flatten()) {
            flags.push(format!("{name}={}", file.display()));
        }
        self.etcd_flags = Some(flags);
        self
    }

    /// One more flag for kube-apiserver, as `--flag=value`.
    pub fn api_server_flag(mut self, flag: &str) -> Self {
        self.api_server_flags.push(flag.to_owned());
        self
    }

    pub fn start(self) -> Cluster {
        let permit = PERMITS.take();
        self.start_with(Some(permit))
    }

    fn start_with(self, permit: Option<Permit>) -> Cluster {
        let folder = Folder::new("cluster");
        let authority = Authority::new("kubernetes-ca");
        let mut cluster = Cluster {
            controller_manager: None,
            api_server: Mutex::new(None),
            etcd: None,
            admin: authority.client("kubernetes-admin", &["system:masters"]),
            token: format!("admin-{:016x}", rand_seed()),
            service_accounts: SigningKey::new(),
            kubeconfig: folder.join("kubeconfig"),
            ports: Ports::lease(),
            users: AtomicU32::new(0),
            namespaces: AtomicU32::new(0),
            builder: self,
            authority,
            folder,
            _permit: permit,
        };
        cluster.write_files();
        cluster.start_processes();
        cluster
    }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

#[derive(Debug)]
struct Ports {
    api: Port,
    etcd: Port,
    peer: Port,
}

impl Ports {
    fn lease() -> Self {
        Self {
            api: Port::lease(),
            etcd: Port::lease(),
            peer: Port::lease(),
        }
    }
}

/// A running cluster; dropping it stops it and removes all it had.
pub struct Cluster {
    // Fields drop in this order: clients before servers.
    controller_manager: Option<Process>,
    api_server: Mutex<Option<Process>>,
    etcd: Option<Process>,
    authority: Authority,
    admin: crate::pki::Identity,
    token: String,
    service_accounts: SigningKey,
    kubeconfig: PathBuf,
    ports: Ports,
    users: AtomicU32,
    namespaces: AtomicU32,
    builder: ClusterBuilder,
    folder: Folder,
    _permit: Option<Permit>,
}

impl Cluster {
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            controllers: Controllers::All,
            fsync: false,
            api_server_flags: Vec::new(),
            etcd_flags: None,
        }
    }

    /// A cluster of the test's own, with all controllers.
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// One cluster for all tests of this process that keep to their own namespaces.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::builder().start_with(None))
    }

    /// Where its API is; `https`, trusted through [`Self::ca_pem`].
    pub fn api_url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api.number)
    }

    /// The client URL of its own etcd.
    pub fn etcd_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.etcd.number)
    }

    pub fn ca_pem(&self) -> &str {
        self.authority.certificate()
    }

    /// The folder with its logs and files, for more of them.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// How to reach the API as an administrator, by client certificate.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: self.api_url(),
            ca: Some(self.ca_pem().to_owned()),
            identity: Some(self.admin.clone()),
            token: None,
        }
    }

    /// How to reach the API as nobody: for a proxy that passes on the token it is given.
    pub fn endpoint_without_user(&self) -> Endpoint {
        Endpoint {
            identity: None,
            ..self.endpoint()
        }
    }

    /// Stops the API server; etcd keeps its data.
    pub fn stop_api_server(&self) {
        self.api_server.lock().unwrap().take();
    }

    /// Starts the API server again, on the same address, and waits until it is ready.
    pub fn start_api_server(&self) {
        *self.api_server.lock().unwrap() = Some(self.spawn_api_server());
        self.wait_for_api_server()
            .unwrap_or_else(|log| panic!("the API server is not ready:\n{log}"));
    }

    /// What the API server has written to its log.
    pub fn api_server_log(&self) -> String {
        let server = self.api_server.lock().unwrap();
        server.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The processes it consists of.
    pub fn pids(&self) -> Vec<u32> {
        let api_server = self.api_server.lock().unwrap();
        [&self.etcd, &*api_server, &self.controller_manager]
            .into_iter()
            .flatten()
            .map(Process::pid)
            .collect()
    }

    fn write_files(&self) {
        let folder = &self.folder;
        let server = self.authority.server(
            "kube-apiserver",
            &[
                "127.0.0.1",
                "localhost",
                "10.0.0.1",
                "kubernetes",
                "kubernetes.default.svc",
            ],
        );
        folder.write("ca.crt", self.ca_pem());
        folder.write("ca.key", self.authority.key());
        folder.write("server.crt", &server.certificate);
        folder.write("server.key", &server.key);
        folder.write("sa.key", &self.service_accounts.private);
        folder.write("sa.pub", &self.service_accounts.public);
        folder.write(
            "tokens.csv",
            format!(
                "{},token-admin,token-admin,\"system:masters\"\n",
                self.token
            ),
        );
    }

    fn start_processes(&mut self) {
        for _ in 0..STARTS {
            match self.try_start_processes() {
                Ok(()) => return,
                Err(log) => {
                    self.etcd = None;
                    *self.api_server.lock().unwrap() = None;
                    assert!(log.contains("address already in use"), "no cluster:\n{log}");
                    let _ = std::fs::remove_dir_all(self.folder.join("etcd"));
                    self.ports = Ports::lease();
                }
            }
        }
        panic!("no cluster: every port was taken {STARTS} times");
    }

    fn try_start_processes(&mut self) -> Result<(), String> {
        let admin = self.kubeconfig_for(&self.api_url(), &self.admin);
        self.folder.write(&self.kubeconfig, admin);
        if self.builder.etcd_flags.is_none() {
            self.etcd = Some(self.spawn_etcd());
        }
        *self.api_server.lock().unwrap() = Some(self.spawn_api_server());
        self.wait_for_api_server()?;
        if let Some(list) = self.builder.controllers.list() {
            self.controller_manager = Some(self.spawn_controller_manager(list));
        }
        if self.builder.controllers.make_service_accounts() {
            let mut client = self.endpoint().client();
            wait_for("the default service account", READY, || {
                self.controller_manager.as_mut().unwrap().assert_runs();
                let path = "/api/v1/namespaces/default/serviceaccounts/default";
                client.get(path).ok().filter(|answer| answer.status == 200)
            });
        }
        Ok(())
    }

    fn spawn_etcd(&self) -> Process {
        let client = self.etcd_endpoint();
        let peer = format!("http://127.0.0.1:{}", self.ports.peer.number);
        let mut command = Command::new(tools::path("etcd"));
        command
            .args(["--name=etcd", "--log-level=warn", "--data-dir"])
            .arg(self.folder.join("etcd"))
            .args([
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
            ])
            .args([
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
            ])
            .arg(format!("--initial-cluster=etcd={peer}"));
        if !self.builder.fsync {
            command.arg("--unsafe-no-fsync");
        }
        Process::start("etcd", &self.folder, &command)
    }

    fn spawn_api_server(&self) -> Process {
        let mut command = api_server(self.folder.path(), self.ports.api.number);
        command
            .arg(format!(
                "--client-ca-file={}",
                self.folder.join("ca.crt").display()
            ))
            .args(["--authorization-mode=Node,RBAC", "--allow-privileged"]);
        if self.builder.controllers == Controllers::None {
            command.arg("--disable-admission-plugins=ServiceAccount");
        }
        match &self.builder.etcd_flags {
            Some(flags) => command.args(flags),
            None => command.arg(format!("--etcd-servers={}", self.etcd_endpoint())),
        };
        command.args(&self.builder.api_server_flags);
        Process::start("kube-apiserver", &self.folder, &command)
    }

    /// Every controller works as an administrator: tokens of their own would cost each start seconds.
    fn spawn_controller_manager(&self, list: &str) -> Process {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new(tools::path("kube-controller-manager"));
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--controllers={list}"))
            .arg(format!(
                "--service-account-private-key-file={}",
                file("sa.key")
            ))
            .arg(format!("--root-ca-file={}", file("ca.crt")))
            .arg(format!("--cluster-signing-cert-file={}", file("ca.crt")))
            .arg(format!("--cluster-signing-key-file={}", file("ca.key")))
            .args([
                "--secure-port=0",
                "--leader-elect=false",
                "--profiling=false",
            ])
            .args(["--kube-api-qps=1000", "--kube-api-burst=2000"]);
        Process::start("kube-controller-manager", &self.folder, &command)
    }

    fn wait_for_api_server(&self) -> Result<(), String> {
        let deadline = Instant::now() + READY;
        let mut client = self.endpoint().client();
        loop {
            if client
                .get("/readyz")
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            let mut server = self.api_server.lock().unwrap();
            let server = server.as_mut().unwrap();
            if server.has_ended() || Instant::now() > deadline {
                let etcd = self.etcd.as_ref().map(Process::log_tail);
                return Err(server.log_tail() + &etcd.unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// An API server on loopback with the certificates, keys and tokens of this folder; its etcd and who may do what are still to be said.
pub(crate) fn api_server(folder: &Path, port: u16) -> Command {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new(tools::path("kube-apiserver"));
    command
        .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
        .arg(format!("--secure-port={port}"))
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
            "--profiling=false",
        ]);
    command
}
