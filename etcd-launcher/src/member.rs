//! etcd as a child of this process: started as usual or fenced, stopped, watched. Knows nothing of restores, and decides nothing.
//!
//! Fenced means that no client but this process can reach it: etcd listens for clients on a unix socket only, while it advertises its
//! usual URL and talks to its peers as usual.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use backup_core::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::etcd_args::EtcdArgs;

/// What etcd needs to end by itself when it can; what it has not done by then, its log does at the next start.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket's name in the data dir.
pub(crate) const SOCKET: &str = ".restore-socket";

/// Who can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listening {
    /// Whoever its command line says.
    Usual,
    /// This process.
    Fenced,
}

/// What of this process's environment is etcd's, besides its own `ETCD_*`: where programs and certificates are, the clock's zone, proxies to its peers, the
/// knobs of Go's runtime, of its gRPC and of its tracing, and whom it tells that it serves. Keys to stores and whatever else is this program's stays here.
const ETCDS: [&str; 18] = [
    "PATH",
    "TMPDIR",
    "TZ",
    "ZONEINFO",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "GODEBUG",
    "GOGC",
    "GOMEMLIMIT",
    "GOMAXPROCS",
    "GOTRACEBACK",
    "NOTIFY_SOCKET",
];

/// Of these nobody is told that etcd does not get them: what the kubelet and a shell set for every program, and what is this program's.
const EXPECTED: [&str; 16] = [
    "HOME",
    "HOSTNAME",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "SHELL",
    "USER",
    "LOGNAME",
    "LANG",
    "TERM",
    "_",
    "POD_NAME",
    "POD_NAMESPACE",
    "POD_IP",
    "KUBECONFIG",
    "KUBECTL_BACKUP_IDENTITY",
];

/// Names that are told at once.
const MOST_TOLD: usize = 60;

/// Whether etcd is given the variable; `more` are those that the command line names.
fn is_etcds(name: &str, more: &[String]) -> bool {
    ETCDS.contains(&name)
        || name.starts_with("OTEL_")
        || name.starts_with("GRPC_")
        || name.starts_with("ETCD_") && !name.starts_with("ETCD_LAUNCHER_")
        || more.iter().any(|one| one == name)
}

/// The variables that etcd is given.
fn etcds(
    all: impl IntoIterator<Item = (OsString, OsString)>,
    more: &[String],
) -> impl Iterator<Item = (OsString, OsString)> {
    all.into_iter()
        .filter(|(name, _)| is_etcds(&name.to_string_lossy(), more))
}

/// What to tell of the variables that etcd is not given, by name alone; nothing where there are none but the usual ones.
pub(crate) fn withheld(all: impl IntoIterator<Item = OsString>, more: &[String]) -> Option<String> {
    let names = all
        .into_iter()
        .map(|name| name.to_string_lossy().into_owned());
    let mut names: Vec<_> = names
        .filter(|name| {
            // Of every Service of the namespace the kubelet tells every program.
            let is_usual = EXPECTED.contains(&name.as_str())
                || ["_SERVICE_HOST", "_PORT", "_PROTO", "_ADDR"]
                    .iter()
                    .any(|ending| name.ends_with(ending))
                || ["_SERVICE_PORT_", "_PORT_"]
                    .iter()
                    .any(|part| name.contains(part))
                || name.starts_with("ETCD_LAUNCHER_");
            !is_usual && !is_etcds(name, more) && !name.contains(char::is_control)
        })
        .collect();
    names.sort();
    let more = names.len().saturating_sub(MOST_TOLD);
    names.truncate(MOST_TOLD);
    let all = match more {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    };
    (!names.is_empty()).then(|| {
        format!("etcd is not given these variables of the launcher: {all}; `--etcd-env NAME` gives it one")
    })
}

/// One member, running or not.
pub(crate) struct Member {
    args: EtcdArgs,
    socket: PathBuf,
    /// Names of variables that it is given besides its own.
    environment: Vec<String>,
    running: Option<(Child, Listening)>,
}

impl Member {
    /// A member that does not run yet.
    pub(crate) fn new(args: EtcdArgs, environment: Vec<String>) -> Self {
        let socket = args.data_dir().join(SOCKET);
        Self {
            args,
            socket,
            environment,
            running: None,
        }
    }

    /// How etcd is started.
    pub(crate) fn args(&self) -> &EtcdArgs {
        &self.args
    }

    /// Where it listens while it is fenced.
    pub(crate) fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// How it listens; nothing where it does not run.
    pub(crate) fn listening(&self) -> Option<Listening> {
        self.running.as_ref().map(|(_, listening)| *listening)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().and_then(|(child, _)| child.id())
    }

    /// Starts it for whoever its command line says; fine where it runs so already. Returns once the process is there, not once it serves.
    ///
    /// # Errors
    /// When it runs in another way, and when it can not be started.
    pub(crate) fn start_usual(&mut self) -> Result<()> {
        self.start(Listening::Usual, self.args.with(&[]))
    }

    /// Starts it for this process alone, with this membership.
    ///
    /// # Errors
    /// As [`Member::start_usual`].
    pub(crate) fn start_fenced(&mut self, initial_cluster: &str) -> Result<()> {
        if self.listening().is_none() {
            // A socket that a killed etcd left would be taken for one in use.
            match std::fs::remove_file(&self.socket) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(
                        Error::other(format!("can not remove {}", self.socket.display()))
                            .because(e),
                    );
                }
                _ => {}
            }
        }
        let arguments = self.args.fenced(&self.socket, initial_cluster);
        self.start(Listening::Fenced, arguments)
    }

    fn start(&mut self, listening: Listening, arguments: Vec<String>) -> Result<()> {
        match self.listening() {
            Some(now) if now == listening => return Ok(()),
            Some(_) => return Err(Error::other("etcd runs already, in another way")),
            None => {}
        }
        let ours = std::env::current_exe()
            .map_err(|e| Error::other("can not tell where this program is").because(e))?;
        let mut command = Command::new(ours);
        command
            .env_clear()
            .envs(etcds(std::env::vars_os(), &self.environment));
        if listening == Listening::Fenced {
            for variable in EtcdArgs::fenced_variables() {
                command.env_remove(variable);
            }
        }
        // From a thread of the runtime, which lasts as long as the process: the child ends with the thread that started it.
        let child = command
            .args(["exec", "--parent"])
            .arg(std::process::id().to_string())
            .arg("--")
            .arg(self.args.program())
            .args(arguments)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| {
                Error::other(format!("can not start {}", self.args.program().display())).because(e)
            })?;
        self.running = Some((child, listening));
        Ok(())
    }

    /// Waits until it ends by itself; for ever where it does not run.
    ///
    /// # Errors
    /// When its end can not be learnt.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus> {
        let Some((child, _)) = &mut self.running else {
            return std::future::pending().await;
        };
        let status = child
            .wait()
            .await
            .map_err(|e| Error::other("can not wait for etcd").because(e))?;
        self.running = None;
        Ok(status)
    }

    /// Stops it: TERM, and KILL after some seconds. Fine where it does not run.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some((child, _)) = &mut self.running else {
            return Ok(());
        };
        // Not reaped before `wait`: the number is still this child's.
        if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let by_itself = tokio::time::timeout(PATIENCE, child.wait()).await.is_ok();
        if !by_itself {
            child
                .kill()
                .await
                .map_err(|e| Error::other("can not kill etcd").because(e))?;
        }
        self.running = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_is_given_what_is_its_own_and_no_key_to_a_store() {
        let given = |names: &[&str]| -> Vec<String> {
            let all = names.iter().map(|name| ((*name).into(), "x".into()));
            etcds(all, &["SOME_OTHER".to_owned()])
                .map(|(name, _)| name.into_string().unwrap())
                .collect()
        };
        let its_own = [
            "PATH",
            "ETCD_QUOTA_BACKEND_BYTES",
            "ETCD_UNSUPPORTED_ARCH",
            "GODEBUG",
            "GOMEMLIMIT",
            "SSL_CERT_DIR",
            "NO_PROXY",
            "OTEL_RESOURCE_ATTRIBUTES",
            "GRPC_ENFORCE_ALPN_ENABLED",
            "SOME_OTHER",
        ];
        assert_eq!(given(&its_own), its_own);
        let others = [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AZURE_CLIENT_SECRET",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "KUBECTL_BACKUP_IDENTITY",
            "ETCD_LAUNCHER_CRASH_AT",
            "ETCDCTL_PASSWORD",
            "KUBERNETES_SERVICE_HOST",
            "LD_PRELOAD",
            "",
        ];
        assert_eq!(given(&others), Vec::<String>::new());
        let told = |names: &[&str]| withheld(names.iter().map(|name| (*name).into()), &[]);
        let usual = ["PATH", "HOME", "ETCD_NAME", "KUBERNETES_SERVICE_HOST"];
        assert_eq!(told(&usual), None);
        let said = told(&["PATH", "X_B", "X_A", "X_PORT_1_TCP"]).unwrap();
        assert!(said.contains(": X_A, X_B;"), "{said}");
        let many: Vec<_> = (0..99).map(|number| format!("X{number:02}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let said = told(&many).unwrap();
        assert!(said.contains("X59 and 39 more"), "{said}");
    }
}
