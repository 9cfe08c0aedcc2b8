//! The API server of a hosted control plane: one process, which comes and goes as its Deployment says.

use std::path::PathBuf;

use super::TOKEN;
use crate::cluster;
use crate::http_client::Endpoint;
use crate::ports::Port;
use crate::process::Process;

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
        let mut command = cluster::api_server(&self.folder, self.port.number);
        command.args(&self.etcd).args([
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",
        ]);
        Process::start_in("hosted-apiserver", &self.folder, &command)
    }
}
