//! `--endpoints`, `--cacert` and the like, named as etcdctl names them: which members of etcd are meant, and how they are reached. Reads the files
//! named here and etcdctl's own variables; a password is never an argument and never shown.

use std::path::{Path, PathBuf};

use backup_cli::error::{CommandError, Result};
use backup_core::Error;
use backup_core::etcd::client::Access;
use clap::Args;

/// Which members of etcd, and how they are reached.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "etcd")]
pub(crate) struct MemberArgs {
    /// Endpoints of etcd's members (comma list, can be repeated)
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        env = "ETCDCTL_ENDPOINTS",
        hide_env_values = true
    )]
    endpoints: Vec<String>,
    /// CA that the members' certificates are of, PEM
    #[arg(
        id = "etcd-cacert",
        long = "cacert",
        value_name = "FILE",
        env = "ETCDCTL_CACERT",
        hide_env_values = true
    )]
    cacert: Option<PathBuf>,
    /// Client's certificate, PEM
    #[arg(
        long,
        value_name = "FILE",
        env = "ETCDCTL_CERT",
        hide_env_values = true
    )]
    cert: Option<PathBuf>,
    /// Key of the client's certificate, PEM
    #[arg(long, value_name = "FILE", env = "ETCDCTL_KEY", hide_env_values = true)]
    key: Option<PathBuf>,
    /// Name of etcd's user, where auth is on; the password comes from --password-file or ETCDCTL_PASSWORD, or with the name from ETCDCTL_USER
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    user: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    password_file: Option<PathBuf>,
}

impl MemberArgs {
    /// The endpoints that are meant.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.trim().to_owned())
            .filter(|endpoint| !endpoint.is_empty())
            .collect()
    }

    /// Reads the certificates and the password.
    ///
    /// # Errors
    /// A usage error for a password among the arguments, or half of a pair; a file that can not be read.
    pub(crate) fn access(&self) -> Result<Access> {
        self.access_from(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn access_from(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Access> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((
                read("the client's certificate", cert)?,
                read("the client's key", key)?,
            )),
            (None, None) => None,
            _ => {
                return Err(CommandError::usage(
                    Error::invalid("--cert and --key go together").hint("give both, or neither"),
                ));
            }
        };
        Ok(Access {
            ca_pem: match &self.cacert {
                Some(path) => Some(read("etcd's CA", path)?),
                None => None,
            },
            identity,
            user: self.user(variable)?,
        })
    }

    fn user(&self, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(String, String)>> {
        if self.user.as_ref().is_some_and(|user| user.contains(':')) {
            // Not repeated in the message: it may hold the password.
            return Err(CommandError::usage(
                Error::invalid("--user takes a name and no password: everybody on this machine can read arguments")
                    .hint("give the password with --password-file or in ETCDCTL_PASSWORD"),
            ));
        }
        let from_file = match &self.password_file {
            Some(path) => {
                let text = String::from_utf8(read("the password", path)?).map_err(|_| {
                    Error::invalid(format!("the password in {} is not UTF-8", path.display()))
                })?;
                Some(text.trim_end_matches(['\n', '\r']).to_owned())
            }
            None => None,
        };
        let (name, with_it) = match (&self.user, variable("ETCDCTL_USER")) {
            (Some(name), _) => (name.clone(), None),
            (None, Some(both)) => match both.split_once(':') {
                Some((name, password)) => (name.to_owned(), Some(password.to_owned())),
                None => (both, None),
            },
            (None, None) => {
                return match from_file {
                    None => Ok(None),
                    Some(_) => Err(CommandError::usage(
                        Error::invalid("--password-file goes with --user")
                            .hint("name the user with --user"),
                    )),
                };
            }
        };
        let password = from_file
            .or(with_it)
            .or_else(|| variable("ETCDCTL_PASSWORD"));
        match password {
            Some(password) => Ok(Some((name, password))),
            None => Err(CommandError::usage(
                Error::invalid(format!("there is no password for etcd's user {name:?}"))
                    .hint("give it with --password-file or in ETCDCTL_PASSWORD"),
            )),
        }
    }
}

fn read(what: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::invalid(format!("can not read {what}, {}", path.display()))
            .because(e)
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(user: Option<&str>) -> MemberArgs {
        MemberArgs {
            endpoints: vec![" a:1 ".to_owned(), String::new(), "b:2".to_owned()],
            cacert: None,
            cert: None,
            key: None,
            user: user.map(str::to_owned),
            password_file: None,
        }
    }

    fn user(args: &MemberArgs, variables: &[(&str, &str)]) -> Result<Option<(String, String)>> {
        args.user(&|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_password_comes_from_a_file_or_a_variable_and_never_from_an_argument() {
        let pair = Some(("root".to_owned(), "pw".to_owned()));
        let (password, both) = (("ETCDCTL_PASSWORD", "pw"), ("ETCDCTL_USER", "root:pw"));
        assert_eq!(user(&args(Some("root")), &[password]).unwrap(), pair);
        assert_eq!(user(&args(None), &[both]).unwrap(), pair);
        assert_eq!(
            user(&args(None), &[("ETCDCTL_USER", "root"), password]).unwrap(),
            pair
        );
        assert_eq!(user(&args(None), &[password]).unwrap(), None);
        let refused = user(&args(Some("root:hidden")), &[]).unwrap_err();
        assert!(!format!("{refused:?}").contains("hidden"));
        assert!(user(&args(Some("root")), &[]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "pw\n").unwrap();
        let mut with_file = args(Some("root"));
        with_file.password_file = Some(path);
        let other = [("ETCDCTL_PASSWORD", "other")];
        assert_eq!(user(&with_file, &other).unwrap(), pair);
    }

    #[test]
    fn half_a_pair_of_certificates_is_refused_and_endpoints_are_trimmed() {
        let mut half = args(None);
        half.cert = Some("/absent".into());
        assert!(half.access_from(&|_| None).is_err());
        assert_eq!(args(None).endpoints(), ["a:1", "b:2"]);
    }
}
