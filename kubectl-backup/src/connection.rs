//! Which API server, and as whom: the kubeconfig as kubectl finds it, with kubectl's flags laid over it.
//! The choice is a pure function; only the last step makes a client. Nothing is sent here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::cluster::Cluster;
use backup_core::{Error, Kind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use jiff::Timestamp;
use kube::config::{
    AuthInfo, Config, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};

use backup_cli::error::{CommandError, Result};
use backup_core::certificate;
use backup_core::error::quoted;

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
    /// How long one request may be silent, such as 30s; 0 is for ever
    #[arg(long, global = true, value_name = "DURATION", env = "KUBECTL_BACKUP_REQUEST_TIMEOUT", value_parser = timeout, hide_short_help = true, hide_env_values = true)]
    pub(crate) request_timeout: Option<Duration>,
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
        // `Cluster` repeats what the server asks it to; two loops on top of each other would wait for minutes.
        config.default_retry = false;
        if let Some(timeout) = self.request_timeout {
            let timeout = (!timeout.is_zero()).then_some(timeout);
            config.read_timeout = timeout;
            config.connect_timeout = timeout.or(config.connect_timeout);
        }
        let server = without_user(&config.cluster_url);
        let client = kube::Client::try_from(config).map_err(|e| {
            Error::new(
                Kind::Invalid,
                format!("context {context:?} can not be used"),
            )
            .because(e)
        })?;
        Ok((Cluster::new(client, context, server), ended))
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

    /// As kubectl: the flag's file alone, else those of KUBECONFIG that exist, merged, else `~/.kube/config`.
    ///
    /// # Errors
    /// A file that can not be read.
    pub(crate) fn read(&self) -> Result<Option<Kubeconfig>> {
        let refused = |path: &Path, e: kube::config::KubeconfigError| {
            Error::invalid(format!("kubeconfig {} can not be read", path.display())).because(e)
        };
        if let Some(path) = &self.kubeconfig {
            return Ok(Some(
                Kubeconfig::read_from(path).map_err(|e| refused(path, e))?,
            ));
        }
        let mut merged: Option<Kubeconfig> = None;
        for path in files().iter().filter(|path| path.exists()) {
            let next = Kubeconfig::read_from(path).map_err(|e| refused(path, e))?;
            merged = Some(match merged {
                None => next,
                Some(before) => before.merge(next).map_err(|e| refused(path, e))?,
            });
        }
        Ok(merged)
    }

    /// Lays the flags over a kubeconfig. Pure.
    fn apply(&self, mut all: Kubeconfig) -> Result<(Kubeconfig, KubeConfigOptions, String)> {
        let asked = self.context.as_ref().or(all.current_context.as_ref());
        let name = match asked.filter(|name| !name.is_empty()).cloned() {
            Some(name) => name,
            // `--server` alone is enough for kubectl, and so for us.
            None if self.server.is_some() => {
                all.contexts.push(NamedContext {
                    name: "flags".to_owned(),
                    context: Some(Context {
                        cluster: "flags".to_owned(),
                        ..Context::default()
                    }),
                    ..NamedContext::default()
                });
                all.clusters.push(NamedCluster {
                    name: "flags".to_owned(),
                    cluster: Some(kube::config::Cluster::default()),
                    ..NamedCluster::default()
                });
                "flags".to_owned()
            }
            None => {
                return Err(Error::not_found("the kubeconfig has no current context")
                    .hint(format!("use --context with one of: {}", contexts(&all)))
                    .into());
            }
        };
        let context = all
            .contexts
            .iter()
            .find(|context| context.name == name)
            .and_then(|context| context.context.clone())
            .ok_or_else(|| {
                Error::not_found(format!("context {name:?} does not exist"))
                    .hint(format!("the kubeconfig has: {}", contexts(&all)))
            })?;
        let asked = self
            .cluster
            .as_ref()
            .or(self.cluster_of_environment.as_ref());
        let cluster_name = asked.cloned().unwrap_or(context.cluster);
        if let Some(cluster) = all
            .clusters
            .iter_mut()
            .find(|c| c.name == cluster_name)
            .and_then(|c| c.cluster.as_mut())
        {
            self.apply_to_cluster(cluster);
        }
        let user_name = self
            .user
            .clone()
            .or(context.user)
            .filter(|name| !name.is_empty());
        let user_name = user_name.unwrap_or_else(|| "flags".to_owned());
        let known = all.auth_infos.iter().any(|user| user.name == user_name);
        if self.user.is_some() && !known {
            return Err(Error::not_found(format!(
                "user {user_name:?} does not exist in the kubeconfig"
            ))
            .into());
        }
        if !known {
            all.auth_infos.push(NamedAuthInfo {
                name: user_name.clone(),
                ..NamedAuthInfo::default()
            });
        }
        for user in all
            .auth_infos
            .iter_mut()
            .filter(|user| user.name == user_name)
        {
            self.apply_to_user(user.auth_info.get_or_insert_default());
        }
        let options = KubeConfigOptions {
            context: Some(name.clone()),
            cluster: Some(cluster_name),
            user: Some(user_name),
        };
        Ok((all, options, name))
    }

    fn apply_to_cluster(&self, cluster: &mut kube::config::Cluster) {
        if let Some(server) = &self.server {
            cluster.server = Some(server.clone());
        }
        if let Some(name) = &self.tls_server_name {
            cluster.tls_server_name = Some(name.clone());
        }
        if let Some(file) = &self.certificate_authority {
            cluster.certificate_authority = Some(file.display().to_string());
            cluster.certificate_authority_data = None;
        }
        if self.insecure_skip_tls_verify {
            cluster.insecure_skip_tls_verify = Some(true);
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
    }

    fn apply_to_user(&self, user: &mut AuthInfo) {
        if let Some(token) = &self.token {
            // A token on the command line takes the place of every other way to say who we are but a certificate.
            user.token = Some(token.clone().into());
            user.token_file = None;
            user.username = None;
            user.password = None;
            user.exec = None;
            user.auth_provider = None;
        }
        if let Some(file) = &self.client_certificate {
            user.client_certificate = Some(file.display().to_string());
            user.client_certificate_data = None;
        }
        if let Some(file) = &self.client_key {
            user.client_key = Some(file.display().to_string());
            user.client_key_data = None;
        }
        self.impersonate(user);
    }

    fn impersonate(&self, user: &mut AuthInfo) {
        if let Some(name) = &self.impersonate {
            user.impersonate = Some(name.clone());
        }
        if !self.impersonate_group.is_empty() {
            user.impersonate_groups = Some(self.impersonate_group.clone());
        }
        if let Some(uid) = &self.impersonate_uid {
            user.impersonate_uid = Some(uid.clone());
        }
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

/// The files kubectl would look at without `--kubeconfig`.
fn files() -> Vec<PathBuf> {
    let listed: Vec<_> = std::env::var_os("KUBECONFIG")
        .map(|value| {
            std::env::split_paths(&value)
                .filter(|p| !p.as_os_str().is_empty())
                .collect()
        })
        .unwrap_or_default();
    if listed.is_empty() {
        let home = std::env::var_os("HOME")
            .map(PathBuf::from)
            .unwrap_or_default();
        vec![home.join(".kube/config")]
    } else {
        listed
    }
}

fn contexts(all: &Kubeconfig) -> String {
    let mut names: Vec<_> = all.contexts.iter().map(|c| c.name.as_str()).collect();
    let more = names.len().saturating_sub(10);
    names.truncate(10);
    match (names.is_empty(), more) {
        (true, _) => "no context at all".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "
apiVersion: v1
kind: Config
current-context: one
contexts:
- {name: one, context: {cluster: c1, user: u1}}
- {name: two, context: {cluster: c2, user: u2}}
clusters:
- {name: c1, cluster: {server: 'https://one:6443', certificate-authority-data: aGVsbG8K}}
- {name: c2, cluster: {server: 'https://two:6443'}}
users:
- {name: u1, user: {token: t1, username: x, password: y}}
- {name: u2, user: {exec: {command: login, apiVersion: client.authentication.k8s.io/v1}}}
";

    fn apply(args: &ConnectionArgs) -> Result<(Kubeconfig, KubeConfigOptions, String)> {
        args.apply(Kubeconfig::from_yaml(TWO).unwrap())
    }

    #[test]
    fn flags_win_over_the_kubeconfig() {
        let (all, options, name) = apply(&ConnectionArgs {
            server: Some("https://other:1".into()),
            insecure_skip_tls_verify: true,
            token: Some("t".into()),
            impersonate: Some("jane".into()),
            impersonate_group: vec!["g".into()],
            ..ConnectionArgs::default()
        })
        .unwrap();
        assert_eq!(
            (name.as_str(), options.user.as_deref()),
            ("one", Some("u1"))
        );
        let cluster = all.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://other:1"));
        assert!(cluster.certificate_authority_data.is_none());
        let user = all.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.username.is_none() && user.token.is_some());
        assert_eq!(user.impersonate.as_deref(), Some("jane"));
        assert!(all.auth_infos[1].auth_info.as_ref().unwrap().exec.is_some());
    }

    #[test]
    fn another_cluster_and_user_of_the_kubeconfig_are_taken() {
        let (_, options, name) = apply(&ConnectionArgs {
            cluster: Some("c2".into()),
            user: Some("u2".into()),
            ..ConnectionArgs::default()
        })
        .unwrap();
        assert_eq!(name, "one");
        assert_eq!(options.cluster.as_deref(), Some("c2"));
        assert_eq!(options.user.as_deref(), Some("u2"));
        let absent = ConnectionArgs {
            user: Some("u3".into()),
            ..ConnectionArgs::default()
        };
        let Err(refused) = apply(&absent) else {
            panic!("accepted")
        };
        assert!(refused.error().to_string().contains("u3"));
    }

    #[test]
    fn an_unknown_context_is_named_with_those_that_exist() {
        let args = ConnectionArgs {
            context: Some("three".into()),
            ..ConnectionArgs::default()
        };
        let Err(refused) = apply(&args) else {
            panic!("accepted")
        };
        assert!(refused.error().hint_text().unwrap().contains("one, two"));
    }

    #[test]
    fn a_server_alone_is_enough() {
        let args = ConnectionArgs {
            server: Some("http://localhost:8080".into()),
            ..ConnectionArgs::default()
        };
        let (all, options, _) = args.apply(Kubeconfig::default()).unwrap();
        assert_eq!(options.context.as_deref(), Some("flags"));
        assert_eq!(
            all.clusters[0].cluster.as_ref().unwrap().server.as_deref(),
            Some("http://localhost:8080")
        );
    }

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
