//! What an administrator does with a cluster: kubeconfigs, kubectl, namespaces and plain requests.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Cluster;
use crate::http_client::Client;
use crate::kubectl;
use crate::pki::Identity;
use crate::process::Output;

/// The path of a kubeconfig file.
pub type Kubeconfig = PathBuf;

impl Cluster {
    /// The administrator's kubeconfig, by client certificate.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The administrator's kubeconfig by token, for another address of the API: the one of a proxy. kubectl and other
    /// clients in Go send no token to an `http` address; for them the proxy must have a user.
    pub fn token_kubeconfig(&self, server_url: &str) -> Kubeconfig {
        let ca = BASE64_STANDARD.encode(self.ca_pem());
        let trust = if server_url.starts_with("https") {
            format!(", certificate-authority-data: {ca}")
        } else {
            String::new()
        };
        let user = format!("token: {}", self.token);
        let content = kubeconfig(&format!("server: \"{server_url}\"{trust}"), &user);
        self.new_kubeconfig(&content)
    }

    /// The administrator's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A kubeconfig for a user who may do nothing until RBAC says otherwise; at most two groups.
    pub fn user(&self, name: &str, groups: &[&str]) -> Kubeconfig {
        let identity = self.authority.client(name, groups);
        self.new_kubeconfig(&self.kubeconfig_for(&self.api_url(), &identity))
    }

    /// A kubeconfig of an administrator whose certificate has expired.
    pub fn expired_user(&self) -> Kubeconfig {
        let identity = self
            .authority
            .expired_client("expired-admin", &["system:masters"]);
        self.new_kubeconfig(&self.kubeconfig_for(&self.api_url(), &identity))
    }

    /// kubectl as the administrator; fails the test unless it succeeds.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        self.try_kubectl(arguments).ok()
    }

    /// kubectl as the administrator, whatever comes of it.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Output {
        Output::of(self.kubectl_command().args(arguments))
    }

    /// Applies manifests on the server's side, as the administrator.
    #[track_caller]
    pub fn apply(&self, yaml: &str) -> Output {
        kubectl::apply(&mut self.kubectl_command(), yaml)
    }

    fn kubectl_command(&self) -> Command {
        kubectl::command(&self.kubeconfig, self.folder.path())
    }

    /// A client of its own for the API, as the administrator.
    pub fn client(&self) -> Client {
        self.endpoint().client()
    }

    /// What the API answers to a GET as the administrator; fails the test unless that is a success.
    #[track_caller]
    pub fn get_raw(&self, path: &str) -> serde_json::Value {
        let answer = self
            .client()
            .get(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}"));
        assert!(
            answer.is_success(),
            "GET {path}: {} {}",
            answer.status,
            answer.text()
        );
        answer.json()
    }

    /// Makes a namespace whose name no other call has returned, and returns the name.
    #[track_caller]
    pub fn create_namespace(&self, prefix: &str) -> String {
        let number = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{number}");
        let body =
            format!(r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}}}}"#);
        let answer = self.client().post_json("/api/v1/namespaces", body).unwrap();
        assert!(answer.is_success(), "namespace {name}: {}", answer.text());
        name
    }

    pub(super) fn kubeconfig_for(&self, server_url: &str, identity: &Identity) -> String {
        let encode = |pem: &str| BASE64_STANDARD.encode(pem);
        kubeconfig(
            &format!(
                "server: \"{server_url}\", certificate-authority-data: {}",
                encode(self.ca_pem())
            ),
            &format!(
                "client-certificate-data: {}, client-key-data: {}",
                encode(&identity.certificate),
                encode(&identity.key)
            ),
        )
    }

    fn new_kubeconfig(&self, content: &str) -> Kubeconfig {
        let number = self.users.fetch_add(1, Ordering::Relaxed);
        self.folder.write(format!("kubeconfig-{number}"), content)
    }
}

fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{{cluster}}}}}]
users: [{{name: test, user: {{{user}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
current-context: test
"
    )
}
