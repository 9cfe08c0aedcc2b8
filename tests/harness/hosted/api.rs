//! The API server of a hosted control plane: one process, which comes and goes as its Deployment says.

use std::path::PathBuf;
use std::process::Command;

use super::TOKEN;
use crate::http_client::Endpoint;
use crate::ports::Port;
use crate::process::Process;
use crate::tools;

/// The control plane's own API server.
pub(super) struct Api {
    pub(super) process: Option<Process>,
    pub(super) port: Port,
    pub(super) ca: String,
    pub(super) folder: PathBuf,
    pub(super) etcd: Vec<String>,
    pub(super) with_api_server: bool,
}

impl Api {
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("https://127.0.0.1:{}", self.port.number),
            ca: Some(self.ca.clone()),
            identity: None,
            token: Some(TOKEN.to_owned()),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.with_api_server || {
            let answer = self.endpoint().client().get("/readyz");
            answer.is_ok_and(|answer| answer.status == 200)
        }
    }

    pub(super) fn scale(&mut self, wanted: bool) {
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
