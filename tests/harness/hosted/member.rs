//! One member of a hosted control plane: a launcher with etcd below it, as processes on loopback.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde_json::Value;

use crate::http_client::Endpoint;
use crate::pki::Identity;
use crate::ports::Port;
use crate::process::{Folder, Process};

/// One member: a launcher with etcd below it.
pub struct Launched {
    pub name: String,
    pub(super) process: Mutex<Option<Process>>,
    pub(super) client: Port,
    pub(super) peer: Port,
    pub(super) probes: Port,
    pub(super) data_dir: PathBuf,
    pub(super) tls: Option<Tls>,
    /// Where its launchers are to end, one after the other: the first is of the next one that is started.
    pub(super) points: Mutex<VecDeque<String>>,
    /// Where the one that was started last is to end.
    pub(super) point: Mutex<Option<String>>,
}

/// How clients reach a member that speaks TLS.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) ca: String,
    pub(super) client: Identity,
}

impl Launched {
    pub(super) fn new(index: usize, folder: &Folder, tls: Option<Tls>) -> Self {
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

    pub(super) fn scheme(&self) -> &str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    pub fn client_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.client.number)
    }

    pub fn client_port(&self) -> u16 {
        self.client.number
    }

    pub(super) fn peer_url(&self) -> String {
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

    /// Its etcd, where one runs below the launcher.
    pub fn etcd_pid(&self) -> Option<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()?)).ok()?;
        let children: Vec<String> = tasks
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok())
            .collect();
        let is_etcd = |pid: &u32| {
            std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| {
                program
                    .file_name()
                    .is_some_and(|name| name == "etcd" || name == "etcd35")
            })
        };
        let pids = children.iter().flat_map(|text| text.split_whitespace());
        pids.filter_map(|pid| pid.parse().ok()).find(is_etcd)
    }

    /// KILL for its etcd alone; says whether one ran.
    pub fn kill_etcd(&self) -> bool {
        let etcd = self.etcd_pid();
        if let Some(pid) = etcd {
            signal(pid, rustix::process::Signal::KILL);
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
