//! One member: its addresses and folder, and the process it has at the moment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::{EtcdBuilder, Keys, READY, Security};
use crate::http_client::Endpoint;
use crate::ports::Port;
use crate::process::{Folder, Process};
use crate::tools;

/// A member of an etcd. All that changes is whether it runs.
pub struct Member {
    process: Mutex<Option<Process>>,
    name: String,
    client_url: String,
    peer_url: String,
    data_dir: PathBuf,
    http: Endpoint,
    command: Vec<String>,
    log: PathBuf,
    folder: PathBuf,
    _ports: [Port; 2],
}

/// All members with ports of their own; none of them runs.
pub(super) fn all(
    builder: &EtcdBuilder,
    security: Option<&Security>,
    folder: &Folder,
) -> Vec<Member> {
    let mut members: Vec<_> = (0..builder.members)
        .map(|index| Member::new(index, security, folder))
        .collect();
    let initial_cluster = initial_cluster(&members);
    for member in &mut members {
        member.command = builder.through.clone();
        let server = tools::path(builder.version.server());
        member.command.push(server.display().to_string());
        member
            .command
            .extend(member.arguments_for(builder, &initial_cluster, folder));
    }
    members
}

pub(super) fn initial_cluster(members: &[Member]) -> String {
    let members = members.iter();
    let each: Vec<_> = members
        .map(|member| format!("{}={}", member.name, member.peer_url))
        .collect();
    each.join(",")
}

pub(super) fn data_dir(folder: &Folder, index: usize) -> PathBuf {
    folder.join(format!("etcd-{index}"))
}

impl Member {
    fn new(index: usize, security: Option<&Security>, folder: &Folder) -> Self {
        let ports = [Port::lease(), Port::lease()];
        let scheme = if security.is_some() { "https" } else { "http" };
        let [client_url, peer_url] =
            [&ports[0], &ports[1]].map(|port| format!("{scheme}://127.0.0.1:{}", port.number));
        let name = format!("etcd-{index}");
        Self {
            process: Mutex::new(None),
            http: security.map_or_else(
                || Endpoint::plain(&client_url),
                |security| security.endpoint(&client_url),
            ),
            client_url,
            peer_url,
            data_dir: data_dir(folder, index),
            command: Vec::new(),
            log: folder.join(format!("{name}.log")),
            name,
            folder: folder.path().to_owned(),
            _ports: ports,
        }
    }

    fn arguments_for(
        &self,
        builder: &EtcdBuilder,
        initial_cluster: &str,
        folder: &Folder,
    ) -> Vec<String> {
        let (client, peer) = (&self.client_url, &self.peer_url);
        let mut arguments = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.data_dir.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={initial_cluster}"),
            "--log-level=warn".to_owned(),
        ];
        if builder.tls {
            let file = |name: &str| folder.join(name).display().to_string();
            for (flag, name) in [
                ("--cert-file", "server.crt"),
                ("--key-file", "server.key"),
                ("--trusted-ca-file", "ca.crt"),
                ("--peer-cert-file", "peer.crt"),
                ("--peer-key-file", "peer.key"),
                ("--peer-trusted-ca-file", "ca.crt"),
            ] {
                arguments.push(format!("{flag}={}", file(name)));
            }
            arguments.extend([
                "--client-cert-auth".into(),
                "--peer-client-cert-auth".into(),
            ]);
        }
        if !builder.fsync {
            arguments.push("--unsafe-no-fsync".to_owned());
        }
        arguments.extend(builder.flags.iter().cloned());
        arguments
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn client_url(&self) -> &str {
        &self.client_url
    }

    pub fn peer_url(&self) -> &str {
        &self.peer_url
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The database's file.
    pub fn database(&self) -> PathBuf {
        self.data_dir.join("member/snap/db")
    }

    /// The command that starts it: etcd with its arguments, behind its parent where it has one.
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// How to reach it over HTTP, as a client it trusts.
    pub fn http(&self) -> &Endpoint {
        &self.http
    }

    /// Its keys, over a connection of its own.
    pub fn keys(&self) -> Keys {
        Keys::new(&self.http)
    }

    /// The pid of what was started last: of etcd, or of its parent where it has one. None where that was stopped.
    pub fn pid(&self) -> Option<u32> {
        self.process.lock().unwrap().as_ref().map(Process::pid)
    }

    pub fn is_running(&self) -> bool {
        let process = self.process.lock().unwrap();
        process.as_ref().is_some_and(|process| !process.has_ended())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts it on the addresses and the data it has, and does not wait; nothing happens where it runs.
    pub fn start(&self) {
        self.start_as(&self.command);
    }

    /// Starts it by another command, such as its own with more flags.
    pub fn start_as(&self, command: &[String]) {
        let mut process = self.process.lock().unwrap();
        if process.as_ref().is_some_and(|running| !running.has_ended()) {
            return;
        }
        let mut started = Command::new(&command[0]);
        started.args(&command[1..]).current_dir(&self.folder);
        *process = Some(Process::start_in(&self.name, &self.folder, &started));
    }

    /// TERM, and KILL after five seconds.
    pub fn stop(&self) {
        self.process.lock().unwrap().take();
    }

    /// KILL, and its whole process group with it, as when power is lost but for what the kernel still writes.
    pub fn kill(&self) {
        if let Some(process) = self.process.lock().unwrap().take() {
            process.kill();
        }
    }

    /// Waits until it serves reads of the whole cluster; fails the test where it ends.
    pub fn wait_until_healthy(&self) {
        self.try_wait(READY)
            .unwrap_or_else(|log| panic!("{} does not serve:\n{log}", self.name));
    }

    pub fn is_healthy(&self) -> bool {
        let answer = self.http.client().get("/health");
        answer.is_ok_and(|answer| answer.is_success() && answer.json()["health"] == "true")
    }

    pub(super) fn try_wait(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        while !self.is_healthy() {
            if !self.is_running() || Instant::now() > deadline {
                let process = self.process.lock().unwrap();
                return Err(process.as_ref().map(Process::log_tail).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }
}
