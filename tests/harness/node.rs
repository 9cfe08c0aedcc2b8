//! One real control-plane node, as kubeadm sets it up, in namespaces of its own on this machine.
//!
//! Certificates, kubeconfigs and the manifests of etcd, API server, controller manager and scheduler are kubeadm's; a kubelet with
//! containerd runs them as static pods. `/etc/kubernetes`, `/var/lib` and `/var/log` inside are folders of the node's outside;
//! nothing listens on this machine's own addresses. Dropping a node kills its pid 1, and everything it had goes with that.

mod control_plane;
pub mod csi;
mod image;
mod needs;
mod network;
mod services;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::http_client::{Client, Endpoint};
use crate::kubectl;
use crate::permit::{Permit, Permits};
use crate::process::{Folder, Output, Process};
use crate::run::{self, Backup};
use crate::{tools, wait_for};

pub use image::Image;
use needs::SEARCH;
use network::{ControlGroup, Network};

const READY: Duration = Duration::from_secs(300);
const DNS: &str = "169.254.20.10";
const SOCKET: &str = "/run/containerd/containerd.sock";
/// Tests with nodes at one time: a node takes most of a gigabyte.
static PERMITS: Permits = Permits::new(3);

/// What a node is to be like.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    name: String,
    services: bool,
    csi: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            name: "node1".to_owned(),
            services: false,
            csi: false,
        }
    }
}

impl NodeOptions {
    /// Its name, and that of its member of etcd.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.to_owned();
        self
    }

    /// Whether services have addresses and names, and claims of the default class get volumes.
    pub fn services(mut self, services: bool) -> Self {
        self.services = services;
        self
    }

    /// Whether there is a storage driver with snapshots: see [`csi`].
    pub fn csi(mut self, csi: bool) -> Self {
        self.csi = csi;
        self
    }
}

/// A running node; dropping it ends all its processes and removes all it had.
pub struct Node {
    csi: Option<csi::Csi>,
    services: Vec<Process>,
    kubelet: Mutex<Option<Process>>,
    containerd: Option<Process>,
    init: Process,
    init_pid: u32,
    endpoint: Endpoint,
    kubeconfig: PathBuf,
    options: NodeOptions,
    // Gone only when nothing runs in them any more.
    network: Network,
    group: ControlGroup,
    folder: Folder,
    _permit: Permit,
}

impl Node {
    /// Whether this machine can have one; else what it lacks, to skip a test with.
    pub fn available() -> Result<(), String> {
        needs::lacking()
    }

    /// Starts one and waits until its API serves, it is Ready, and pods can be made.
    pub fn start(options: NodeOptions) -> Self {
        if let Err(lacking) = Self::available() {
            panic!("{lacking}");
        }
        let permit = PERMITS.take();
        let folder = Folder::new("node");
        let network = Network::lease();
        let group = ControlGroup::new(group_name());
        control_plane::write_files(&folder, &options, &network, &group);
        let (init, init_pid) = start_init(&folder, &options);
        let mut node = Self {
            csi: None,
            services: Vec::new(),
            kubelet: Mutex::new(None),
            containerd: None,
            init,
            init_pid,
            endpoint: Endpoint::plain(""),
            kubeconfig: folder.join("kubernetes/super-admin.conf"),
            options,
            network,
            group,
            folder,
            _permit: permit,
        };
        node.network.connect(init_pid);
        control_plane::run_kubeadm(&node);
        node.endpoint = control_plane::endpoint(&node.kubeconfig);
        node.start_containerd();
        for image in control_plane::images() {
            node.import(&image);
        }
        node.start_kubelet();
        node.wait_until_ready();
        control_plane::make_administrators(&node);
        if node.options.services {
            node.services = services::start(&node);
        }
        if node.options.csi {
            node.csi = Some(csi::start(&node));
        }
        node
    }

    /// The name it has in its cluster.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Its address, which this machine and its pods reach.
    pub fn address(&self) -> String {
        self.network.inside()
    }

    /// This machine's address on the node's private network: for servers that its pods are to reach.
    pub fn host_address(&self) -> String {
        self.network.outside()
    }

    /// How to reach its API as an administrator whom no role can lock out.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// A client of its own for the API, as that administrator.
    pub fn client(&self) -> Client {
        self.endpoint.client()
    }

    /// The kubeconfig of that administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The folder with its logs and files.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The interface of this machine that leads to it.
    pub fn link(&self) -> &str {
        self.network.link()
    }

    /// The name of its control groups, one in each hierarchy below `/sys/fs/cgroup`.
    pub fn control_group(&self) -> &str {
        self.group.name()
    }

    /// Where a path inside the node is outside of it.
    pub fn path(&self, inside: &str) -> PathBuf {
        let kept = [
            ("/etc/kubernetes", "kubernetes"),
            ("/var/lib", "var/lib"),
            ("/var/log", "var/log"),
        ];
        for (prefix, folder) in kept {
            if let Ok(rest) = Path::new(inside).strip_prefix(prefix) {
                return self.folder.join(folder).join(rest);
            }
        }
        PathBuf::from(format!("/proc/{}/root{inside}", self.init_pid))
    }

    /// Every process that runs in it, those of its pods among them, by this machine's numbers.
    pub fn pids(&self) -> Vec<u32> {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let mine = namespace(self.init_pid);
        // Containers are in namespaces below, and in the node's control groups.
        let in_a_pod = |pid: u32| {
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup"));
            groups.is_ok_and(|groups| groups.contains(self.group.name()))
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| (mine.is_some() && namespace(*pid) == mine) || in_a_pod(*pid))
            .collect()
    }

    /// Sends a signal to each of them whose command line has these words, each with its end; says how many they were.
    pub fn signal_all(&self, words: &str, signal: Signal) -> usize {
        let is_one = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(words)
        };
        let all = self.pids().into_iter().filter(is_one);
        let send = |pid| kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
        all.map(send).count()
    }

    /// A call inside the node as its root user, as over ssh: in the harness' clean environment, with the pinned tools in PATH.
    ///
    /// When it is killed or its test ends, the program inside is killed, too.
    pub fn inside<A: AsRef<OsStr>>(&self, command: &[A]) -> Backup {
        let entered: Vec<_> = self
            .enter()
            .into_iter()
            .chain(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned))
            .map(std::ffi::OsString::from)
            .chain(command.iter().map(|word| word.as_ref().to_owned()))
            .collect();
        run::program("nsenter", &entered)
            .env("PATH", format!("{SEARCH}:{}", tools::folder().display()))
            .env("KUBECONFIG", "/etc/kubernetes/admin.conf")
            .env("CONTAINERD_ADDRESS", SOCKET)
            .env("CONTAINERD_NAMESPACE", "k8s.io")
            .env_remove("TMPDIR")
    }

    /// Runs a command inside the node to its end, whatever comes of it.
    pub fn run_inside<A: AsRef<OsStr>>(&self, command: &[A]) -> Output {
        self.inside(command).run()
    }

    /// etcdctl inside the node, with the certificates kubeadm's own health check uses; fails the test unless it succeeds.
    #[track_caller]
    pub fn etcdctl(&self, arguments: &[&str]) -> Output {
        self.try_etcdctl(arguments).ok()
    }

    /// The same, whatever comes of it.
    pub fn try_etcdctl(&self, arguments: &[&str]) -> Output {
        let mut command = vec![
            "etcdctl",
            "--endpoints=https://127.0.0.1:2379",
            "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
            "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt",
            "--key=/etc/kubernetes/pki/etcd/healthcheck-client.key",
        ];
        command.extend(arguments);
        self.run_inside(&command)
    }

    /// kubectl outside, as the administrator; fails the test unless it succeeds.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.try_kubectl(arguments).ok()
    }

    /// The same, whatever comes of it.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Output::of(kubectl::command(&self.kubeconfig, self.folder.path()).args(arguments))
    }

    /// Applies manifests on the server's side, as the administrator.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> Output {
        kubectl::apply(
            &mut kubectl::command(&self.kubeconfig, self.folder.path()),
            yaml,
        )
    }

    /// The image of its etcd, with etcdctl and etcdutl and no shell.
    pub fn etcd_image(&self) -> String {
        control_plane::etcd_image()
    }

    /// Makes an image known to the node; its pods need `imagePullPolicy: IfNotPresent` or `Never`.
    pub fn import_image(&self, image: &Image) {
        let archive = self.folder.join("var/lib/import.tar");
        image
            .write(&archive)
            .unwrap_or_else(|error| panic!("{}: {error}", image.name()));
        self.import(&archive);
        fs::remove_file(&archive).unwrap();
    }

    fn import(&self, archive: &Path) {
        let archive = archive.display().to_string();
        self.run_inside(&["ctr", "images", "import", &archive]).ok();
    }

    /// Waits until etcd and the API serve, the node is Ready, and pods can be made: after a start, or a restore.
    pub fn wait_until_ready(&self) {
        let mut client = self.client();
        let node = format!("/api/v1/nodes/{}", self.name());
        let account = "/api/v1/namespaces/default/serviceaccounts/default";
        let deadline = std::time::Instant::now() + READY;
        loop {
            let mut read = |path: &str| client.get(path).ok().filter(|answer| answer.status == 200);
            if read("/readyz").is_some()
                && read(&node).is_some_and(|answer| is_ready(&answer.json()))
                && read(account).is_some()
            {
                return;
            }
            let has_ended =
                self.init.has_ended() || self.containerd.as_ref().is_some_and(Process::has_ended);
            if has_ended || std::time::Instant::now() > deadline {
                panic!("the node is not ready:\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills the kubelet: static pods keep running, and what happens to their manifests is not noticed.
    pub fn stop_kubelet(&self) {
        if let Some(kubelet) = self.kubelet.lock().unwrap().take() {
            kubelet.kill();
        }
    }

    /// Starts the kubelet, with the flags kubeadm gives it; nothing happens where it runs.
    pub fn start_kubelet(&self) {
        let mut kubelet = self.kubelet.lock().unwrap();
        if kubelet.as_ref().is_some_and(|running| !running.has_ended()) {
            return;
        }
        let program = tools::path("kubelet").display().to_string();
        *kubelet = Some(self.spawn(
            "kubelet",
            &[
                &program,
                "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
                "--kubeconfig=/etc/kubernetes/kubelet.conf",
                "--config=/var/lib/kubelet/config.yaml",
                &format!("--hostname-override={}", self.name()),
                &format!("--node-ip={}", self.address()),
            ],
        ));
    }

    fn start_containerd(&mut self) {
        let containerd = self.spawn(
            "containerd",
            &["containerd", "--config=/etc/node/containerd.toml"],
        );
        wait_for("containerd", Duration::from_secs(60), || {
            containerd.assert_runs();
            (self.run_inside(&["ctr", "version"]).code == 0).then_some(())
        });
        self.containerd = Some(containerd);
    }

    /// Starts a server inside the node; its log is outside.
    fn spawn(&self, name: &str, command: &[&str]) -> Process {
        let mut entered = Command::new("nsenter");
        entered.args(self.enter()).args(command).env("PATH", SEARCH);
        Process::start(name, &self.folder, &entered)
    }

    /// The arguments of nsenter before the command.
    fn enter(&self) -> Vec<String> {
        let target = format!("--target={}", self.init_pid);
        let rest = ["--mount", "--net", "--pid", "--uts", "--ipc", "--"];
        std::iter::once(target)
            .chain(rest.map(str::to_owned))
            .collect()
    }

    /// What its servers have said last.
    pub fn logs(&self) -> String {
        let mut said = self.init.log_tail();
        let kubelet = self.kubelet.lock().unwrap();
        for process in self
            .containerd
            .iter()
            .chain(kubelet.iter())
            .chain(&self.services)
        {
            said += &format!("\n--- {}\n{}", process.name(), process.log_tail());
        }
        said += &self.csi.as_ref().map(csi::Csi::logs).unwrap_or_default();
        let containers = fs::read_dir(self.path("/var/log/containers"));
        for entry in containers.into_iter().flatten().flatten() {
            // A link to a link, and both are paths inside.
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let target = fs::read_link(self.path(&target.display().to_string())).unwrap_or(target);
            let log =
                fs::read_to_string(self.path(&target.display().to_string())).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(8)..].join("\n");
            said += &format!("\n--- {}\n{tail}", entry.file_name().display());
        }
        said
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its parent is ours and reaps it only when it ends, so that the number is still its own.
        if !self.init.has_ended()
            && let Some(init) = Pid::from_raw(self.init_pid as i32)
        {
            let _ = kill_process(init, Signal::KILL);
        }
        self.init.wait(Duration::from_secs(20));
    }
}

/// One that no other node has, in no other test process either.
fn group_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("kubectl-backup-{}-{number}", std::process::id())
}

/// Makes the namespaces; returns the process that made them, and pid 1 in them by this machine's number.
fn start_init(folder: &Folder, options: &NodeOptions) -> (Process, u32) {
    let script = folder.write("init.sh", include_str!("node/init.sh"));
    let mut unshare = Command::new("unshare");
    unshare
        .args([
            "--mount",
            "--net",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
        ])
        .args(["--mount-proc", "--propagation", "private", "/bin/sh"])
        .arg(script)
        .arg(folder.path())
        .args([&options.name, DNS])
        .env("PATH", SEARCH);
    let unshare = Process::start("init", folder, &unshare);
    let children = format!("/proc/{0}/task/{0}/children", unshare.pid());
    let pid = wait_for("pid 1 of a node", Duration::from_secs(30), || {
        unshare.assert_runs();
        let children = fs::read_to_string(&children).ok()?;
        let pid: u32 = children.split_whitespace().next()?.parse().ok()?;
        let is_set_up = Path::new(&format!("/proc/{pid}/root/run/node-is-set-up")).exists();
        is_set_up.then_some(pid)
    });
    (unshare, pid)
}

fn is_ready(node: &serde_json::Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    })
}
