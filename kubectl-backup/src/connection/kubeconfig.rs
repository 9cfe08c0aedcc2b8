//! The kubeconfig as kubectl finds it, and the flags laid over it: what is read, and the pure choice of what is meant by it.

use std::path::{Path, PathBuf};

use backup_core::Error;
use kube::config::{
    AuthInfo, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};

use super::ConnectionArgs;
use backup_cli::error::Result;

impl ConnectionArgs {
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
    pub(super) fn apply(
        &self,
        mut all: Kubeconfig,
    ) -> Result<(Kubeconfig, KubeConfigOptions, String)> {
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

    pub(super) fn impersonate(&self, user: &mut AuthInfo) {
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

/// The files kubectl would look at without `--kubeconfig`.
pub(super) fn files() -> Vec<PathBuf> {
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
}
