//! How launchers are started, and started again as a kubelet does.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::{Hosted, Launched};
use crate::etcd::Version;
use crate::process::Process;
use crate::tools;

/// How launchers are started from now on.
pub struct How {
    /// A command that gets the launcher's as its last arguments, and becomes it.
    pub through: Vec<String>,
    pub launcher: PathBuf,
    pub etcd: PathBuf,
    /// `--etcdutl`; without it the launcher looks for one.
    pub etcdutl: Option<PathBuf>,
    /// Fixed waits of the launcher are shorter by so much.
    pub hurry: u32,
    /// Flags of the launcher beside those that it needs here.
    pub flags: Vec<String>,
    /// Flags of etcd beside those that it needs here.
    pub etcd_flags: Vec<String>,
    /// The launcher's PATH, where it is not the usual one.
    pub path: Option<PathBuf>,
    /// More of the launcher's environment.
    pub environment: Vec<(String, String)>,
}

impl How {
    /// In earnest etcd waits for its disk and may hold gigabytes.
    pub(super) fn of(version: Version, in_earnest: bool) -> Self {
        let etcd_flag = if in_earnest {
            "--quota-backend-bytes=8589934592"
        } else {
            "--unsafe-no-fsync"
        };
        Self {
            through: Vec::new(),
            launcher: tools::launcher(),
            etcd: tools::path(version.server()),
            etcdutl: Some(tools::path(version.etcdutl())),
            hurry: if in_earnest { 1 } else { 4 },
            // What a restore replaced is old at once.
            flags: vec!["--keep-states-for=0s".to_owned()],
            etcd_flags: vec![etcd_flag.to_owned()],
            path: None,
            environment: Vec::new(),
        }
    }
}

impl Hosted {
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
        let how = &self.how;
        let mut words = how.through.iter().map(PathBuf::from).collect::<Vec<_>>();
        words.push(how.launcher.clone());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
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
            .arg(format!("--hurry={}", how.hurry))
            .args(
                how.etcdutl
                    .iter()
                    .flat_map(|path| ["--etcdutl".as_ref(), path.as_os_str()]),
            )
            .args(&how.flags)
            .arg("--")
            .arg(&how.etcd)
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
            .arg("--log-level=warn")
            .args(self.tls_flags(member))
            .args(&how.etcd_flags)
            .envs(how.environment.iter().cloned())
            .envs(how.path.iter().map(|path| ("PATH", path)))
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

    /// Stops every launcher and starts it as is said now.
    #[track_caller]
    pub fn start_again(&self) {
        self.members.iter().for_each(Launched::stop);
        self.wait_until_etcd_serves();
    }
}
