//! Which API server, and as whom: kubectl's flags, laid over the kubeconfig in [`kubeconfig`]. Only the last step makes a client, and nothing is sent to
//! the API server here; a credential plugin of the kubeconfig runs.

mod kubeconfig;

use std::path::PathBuf;
use std::time::Duration;

use backup_core::cluster::Cluster;
use backup_core::{Error, Kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use jiff::Timestamp;
use kube::config::{AuthInfo, Config};

use self::kubeconfig::files;
use crate::plugin;
use backup_cli::error::{CommandError, Result};
use backup_core::error::quoted;
use backup_core::{certificate, credential_plugin};

/// How long the credential plugin of one of several clusters may take where no flag says.
const PLUGIN: Duration = Duration::from_secs(60);

/// kubectl's flags for the connection, with kubectl's meaning.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// Kubeconfig to use
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_KUBECONFIG",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "KUBECTL_BACKUP_CONTEXT",
        hide_env_values = true
    )]
    pub(crate) context: Option<String>,
    /// Cluster of the kubeconfig to use [env: KUBECTL_BACKUP_CLUSTER=]
    // Not clap's own `env`: under `etcd` the flag means something else, and the variable does not.
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) cluster: Option<String>,
    /// The same from its variable.
    #[arg(skip = std::env::var("KUBECTL_BACKUP_CLUSTER").ok().filter(|name| !name.is_empty()))]
    pub(crate) cluster_of_environment: Option<String>,
    /// User of the kubeconfig to be
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "KUBECTL_BACKUP_USER",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) user: Option<String>,
    /// Address of the API server
    #[arg(
        short,
        long,
        global = true,
        value_name = "URL",
        env = "KUBECTL_BACKUP_SERVER",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) server: Option<String>,
    /// Bearer token
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "KUBECTL_BACKUP_TOKEN",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// User to impersonate
    #[arg(
        long = "as",
        global = true,
        value_name = "USER",
        env = "KUBECTL_BACKUP_AS",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) impersonate: Option<String>,
    /// Group to impersonate (can be repeated)
    #[arg(
        long = "as-group",
        global = true,
        value_name = "GROUP",
        env = "KUBECTL_BACKUP_AS_GROUP",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) impersonate_group: Vec<String>,
    /// Uid to impersonate
    #[arg(
        long = "as-uid",
        global = true,
        value_name = "UID",
        env = "KUBECTL_BACKUP_AS_UID",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) impersonate_uid: Option<String>,
    /// CA of the API server, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_CERTIFICATE_AUTHORITY",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) certificate_authority: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_CLIENT_CERTIFICATE",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) client_certificate: Option<PathBuf>,
    /// Key of the client certificate, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_CLIENT_KEY",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) client_key: Option<PathBuf>,
    /// Name that the API server's certificate must be for
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "KUBECTL_BACKUP_TLS_SERVER_NAME",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) tls_server_name: Option<String>,
    /// Trust any certificate of the API server: anyone in between can read and change everything
    #[arg(long, global = true, hide_short_help = true)]
    pub(crate) insecure_skip_tls_verify: bool,
    /// How long one request may be silent, such as 30s, and how long a credential plugin of one of several clusters may take [default there: 60s]; 0 is for ever
    #[arg(long, global = true, value_name = "DURATION", env = "KUBECTL_BACKUP_REQUEST_TIMEOUT", value_parser = timeout, hide_short_help = true, hide_env_values = true)]
    pub(crate) request_timeout: Option<Duration>,
    /// One of several clusters: a credential plugin has to end in time.
    #[arg(skip)]
    pub(crate) is_one_of_several: bool,
}

/// What the HTTP client below takes for granted.
fn check_server(server: &str) -> Result<()> {
    let url = server.parse::<http::Uri>().ok();
    let is_web = |url: &http::Uri| matches!(url.scheme_str(), Some("https" | "http"));
    if url.is_some_and(|url| is_web(&url) && url.host().is_some_and(|host| !host.is_empty())) {
        return Ok(());
    }
    Err(CommandError::usage(
        Error::invalid(format!(
            "--server {server:?} is no address of an API server"
        ))
        .hint("it looks like https://10.0.0.1:6443"),
    ))
}

fn timeout(text: &str) -> Result<Duration, humantime::DurationError> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    }
}

impl ConnectionArgs {
    /// The API server these flags and the user's kubeconfig mean, and what should be known of the way there. Nothing is sent yet.
    ///
    /// # Errors
    /// No kubeconfig, an unknown context, a file that can not be read.
    pub(crate) async fn cluster(&self, now: Timestamp) -> Result<(Cluster, Option<String>)> {
        let (mut config, context) = self.config().await?;
        let ended = client_certificate(&config.auth_info)
            .and_then(|pem| certificate::expired(&pem, now))
            .map(|end| {
                format!("the client certificate of context {context:?} expired at {end:.0}; renew it, or use another context")
            });
        if let (Some(exec), Some(patience)) = (&mut config.auth_info.exec, self.patience()) {
            plugin::bound(exec, patience);
        }
        // `Cluster` repeats what the server asks it to; two loops on top of each other would wait for minutes.
        config.default_retry = false;
        if let Some(timeout) = self.request_timeout {
            let timeout = (!timeout.is_zero()).then_some(timeout);
            config.read_timeout = timeout;
            config.connect_timeout = timeout.or(config.connect_timeout);
        }
        let server = without_user(&config.cluster_url);
        let unfit = || {
            Error::new(
                Kind::Invalid,
                format!("context {context:?} can not be used"),
            )
        };
        // A credential plugin runs here, and blocks as long as it likes.
        let client = tokio::task::spawn_blocking(move || kube::Client::try_from(config));
        let client = client.await.map_err(|e| unfit().because(e))?;
        let client = client.map_err(|e| match credential_plugin::failure(&e) {
            Some(failed) => failed.context(format!("context {context:?} can not be used")),
            None => unfit().because(e),
        })?;
        Ok((Cluster::new(client, context, server), ended))
    }

    /// How long a credential plugin may take; nothing where somebody may log in as slowly as he likes.
    fn patience(&self) -> Option<Duration> {
        let patience = self.request_timeout.unwrap_or(PLUGIN);
        (self.is_one_of_several && !patience.is_zero()).then_some(patience)
    }

    /// The flags that name the same cluster and user again, but for secrets.
    pub(crate) fn again(&self) -> String {
        let file = self.kubeconfig.as_ref().map(|f| f.display().to_string());
        let server = self.server.as_ref();
        let server = server.and_then(|text| text.parse().ok().map(|url| without_user(&url)));
        let given = [
            ("kubeconfig", &file),
            ("context", &self.context),
            ("cluster", &self.cluster),
            ("user", &self.user),
            ("server", &server),
            ("as", &self.impersonate),
        ];
        let mut flags = String::new();
        for (flag, value) in given {
            if let Some(value) = value {
                flags.push_str(&format!(" --{flag} {}", quoted(value)));
            }
        }
        for group in &self.impersonate_group {
            flags.push_str(&format!(" --as-group {}", quoted(group)));
        }
        flags
    }

    /// Whether the user said which cluster is meant: then another one is not shown in its place.
    pub(crate) fn is_explicit(&self) -> bool {
        self.kubeconfig.is_some()
            || self.context.is_some()
            || self.cluster.is_some()
            || self.cluster_of_environment.is_some()
            || self.user.is_some()
            || self.server.is_some()
    }

    /// The flag that says what each context says for itself, where one is given.
    pub(crate) fn one_cluster_alone(&self) -> Option<&'static str> {
        let given = [
            ("--server", self.server.is_some()),
            (
                "--cluster",
                self.cluster.is_some() || self.cluster_of_environment.is_some(),
            ),
            ("--user", self.user.is_some()),
            ("--token", self.token.is_some()),
            (
                "--certificate-authority",
                self.certificate_authority.is_some(),
            ),
            ("--client-certificate", self.client_certificate.is_some()),
            ("--tls-server-name", self.tls_server_name.is_some()),
        ];
        given
            .into_iter()
            .find_map(|(flag, is_given)| is_given.then_some(flag))
    }

    async fn config(&self) -> Result<(Config, String)> {
        if let Some(server) = &self.server {
            check_server(server)?;
        }
        let found = self.read()?;
        if found.is_none() && self.server.is_none() {
            if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
                let mut config = Config::incluster().map_err(|e| {
                    Error::other("can not use this pod's service account").because(e)
                })?;
                self.impersonate(&mut config.auth_info);
                return Ok((config, "in-cluster".to_owned()));
            }
            let files = files()
                .iter()
                .map(|f| f.display().to_string())
                .collect::<Vec<_>>();
            return Err(Error::not_found(format!(
                "no kubeconfig: {} is not there",
                files.join(", ")
            ))
            .hint("set KUBECONFIG, or name a file with --kubeconfig")
            .into());
        }
        let (kubeconfig, options, context) = self.apply(found.unwrap_or_default())?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|e| {
                Error::invalid(format!("context {context:?} can not be used")).because(e)
            })?;
        Ok((config, context))
    }
}

/// An address as it may be shown, and kept in a backup's log: without a user and a password before the host.
fn without_user(url: &http::Uri) -> String {
    let text = url.to_string();
    let text = text.trim_end_matches('/');
    let user = url.authority().and_then(|a| a.as_str().rsplit_once('@'));
    match user {
        Some((user, _)) => text.replacen(&format!("{user}@"), "", 1),
        None => text.to_owned(),
    }
}

/// The PEM of the client certificate, as far as it can be read: what can not be is told by the client that uses it.
fn client_certificate(user: &AuthInfo) -> Option<Vec<u8>> {
    match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) => STANDARD.decode(data.trim()).ok(),
        (None, Some(file)) => std::fs::read(file).ok(),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        for (url, shown) in [
            ("https://10.0.0.1:6443/", "https://10.0.0.1:6443"),
            ("https://me:s3cr3t@host/a/b", "https://host/a/b"),
            ("https://me@host:1", "https://host:1"),
        ] {
            assert_eq!(without_user(&url.parse().unwrap()), shown);
        }
    }

    #[test]
    fn timeouts_are_seconds_or_durations() {
        assert_eq!(timeout("0").unwrap(), Duration::ZERO);
        assert_eq!(timeout("15").unwrap(), Duration::from_secs(15));
        assert_eq!(timeout("1m").unwrap(), Duration::from_secs(60));
        assert!(timeout("soon").is_err());
    }
}
