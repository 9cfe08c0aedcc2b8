//! How the files of volumes are copied, from flags: of `create` and of the controller, which `install` tells it; and whose keys are made and opened.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::CopyOptions;
use backup_core::cluster::Cluster;
use backup_core::crypt::{Identities, Recipients, SecretString};
use backup_core::location::Location;
use backup_core::mover::{self, MoverOptions};
use backup_core::volume::key::{KeyCache, Keyring};
use clap::Args;
use serde_json::Value;

use crate::commands::install;
use crate::context::Context;
use crate::install::{CONTROLLER, NAME, NAMESPACE, PART, cluster_name};
use crate::key_cache;
use backup_cli::error::Result;

/// No Deployment is larger, in bytes.
const LARGEST: usize = 4 << 20;

/// The movers' flags.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Volumes")]
pub(crate) struct CopyArgs {
    /// Image of the pods through which volumes are read: this program, as the cluster's nodes pull it [default: that of the cluster's controller, or of `install`]
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    mover_image: Option<String>,
    /// How long such a pod may take until it runs [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    mover_timeout: Option<Duration>,
    /// Volumes that are copied at a time [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    parallel_volumes: Option<u16>,
    /// Secrets with which the controller's own pod pulls that image.
    #[arg(skip)]
    pulled_with: Vec<String>,
}

fn image(text: &str) -> std::result::Result<String, String> {
    if text.trim().is_empty() || text.contains(char::is_whitespace) {
        return Err("an image is named like registry.example.com/kubectl-backup:0.1.0".to_owned());
    }
    Ok(text.to_owned())
}

/// Whose keys are made and opened.
pub(crate) struct Keys {
    pub(crate) recipients: Recipients,
    pub(crate) passphrase: Option<SecretString>,
    pub(crate) identities: Identities,
    pub(crate) cache: Arc<dyn KeyCache>,
}

impl Keys {
    /// Those that this machine has for what was made in a location.
    ///
    /// # Errors
    /// A file that is named and can not be read; recipients that can not be used.
    pub(crate) fn of_reader(context: &Context, location: &Location) -> Result<Self> {
        let folder = context.paths.volume_keys();
        Ok(Self {
            recipients: Recipients::of_location(&location.spec)?,
            passphrase: context.identity_args().passphrase()?,
            // What nobody named may be for something else, and is not needed here for most of it.
            identities: match context.names_identities() {
                true => context.identities()?,
                false => context.identities().unwrap_or_default(),
            },
            cache: Arc::new(key_cache::Keys::new(Some(&folder))),
        })
    }

    /// As the library takes them.
    pub(crate) fn ring(&self) -> Keyring<'_> {
        Keyring {
            recipients: &self.recipients,
            passphrase: self.passphrase.as_ref(),
            identities: &self.identities,
            cache: &*self.cache,
        }
    }
}

impl CopyArgs {
    /// As the library takes it; `uid` is that of the Backup's object, where there is one.
    pub(crate) fn options(&self, keys: Keys, uid: Option<String>) -> CopyOptions {
        CopyOptions {
            movers: self.movers(),
            recipients: keys.recipients,
            passphrase: keys.passphrase,
            identities: keys.identities,
            cache: keys.cache,
            uid,
        }
    }

    /// Where no image is named, with that of a controller of this cluster: its nodes can pull that one.
    pub(crate) async fn of_cluster(&self, cluster: &Cluster) -> Self {
        let found = installed(cluster).await.unwrap_or_default();
        let mover_image = self.mover_image.clone().or_else(|| found.image.clone());
        let is_its = mover_image.is_some() && mover_image == found.image;
        Self {
            pulled_with: if is_its {
                found.pulled_with
            } else {
                Vec::new()
            },
            mover_image,
            ..self.clone()
        }
    }

    /// The same of a controller, which has its image from its flags.
    pub(crate) async fn of_controller(self, cluster: &Cluster, namespace: &str) -> Self {
        let found = look(cluster, namespace).await.unwrap_or_default();
        Self {
            pulled_with: found.pulled_with,
            ..self
        }
    }

    /// The pods through which volumes are read and filled.
    pub(crate) fn movers(&self) -> MoverOptions {
        MoverOptions {
            image: self.mover_image.clone().unwrap_or_else(install::image),
            pulled_with: self.pulled_with.clone(),
            timeout: self.mover_timeout.unwrap_or(mover::TIMEOUT),
            parallel: self.parallel_volumes.map_or(mover::PARALLEL, usize::from),
        }
    }

    /// The first that was given, for where nobody heeds them.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            (self.mover_image.is_some(), "--mover-image"),
            (self.mover_timeout.is_some(), "--mover-timeout"),
            (self.parallel_volumes.is_some(), "--parallel-volumes"),
        ];
        all.into_iter()
            .find(|(given, _)| *given)
            .map(|(_, name)| name)
    }

    /// As arguments of a controller that is installed with this image.
    pub(crate) fn words(&self, installed: &str) -> Vec<String> {
        let image = self.mover_image.as_deref().unwrap_or(installed);
        let timeout = self.mover_timeout.map(|timeout| {
            let text = humantime::format_duration(timeout).to_string();
            format!("--mover-timeout={}", text.replace(' ', ""))
        });
        let parallel = self
            .parallel_volumes
            .map(|many| format!("--parallel-volumes={many}"));
        let image = Some(format!("--mover-image={image}"));
        [image, timeout, parallel].into_iter().flatten().collect()
    }
}

/// What a controller of this cluster tells of movers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    image: Option<String>,
    pulled_with: Vec<String>,
}

/// The image of movers where none is named, and why it is that one.
pub(crate) async fn usual_image(cluster: &Cluster) -> (String, String) {
    match installed(cluster).await.and_then(|found| found.image) {
        Some(image) => {
            let whose = format!("that of the controller in namespace {NAMESPACE}");
            (image, whose)
        }
        None => (
            install::image(),
            format!(
                "that of this version, for no controller in namespace {NAMESPACE} tells another"
            ),
        ),
    }
}

/// What the cluster's controller tells; who may not see what that takes knows of none. Whoever chooses the image reads every volume, and a namespace
/// may be anybody's: a Deployment is believed where the rights of `install` in the whole cluster name its account.
async fn installed(cluster: &Cluster) -> Option<Found> {
    let binding = format!(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{}",
        cluster_name(NAMESPACE)
    );
    if !vouches(&read(cluster, &binding).await?) {
        return None;
    }
    look(cluster, NAMESPACE).await
}

async fn read(cluster: &Cluster, path: &str) -> Option<Value> {
    let body = cluster.get_bounded(path, LARGEST).await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// What the controller of this namespace tells.
async fn look(cluster: &Cluster, namespace: &str) -> Option<Found> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{NAME}");
    let deployment = read(cluster, &path).await?;
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{NAME}");
    let account = read(cluster, &path).await.unwrap_or_default();
    Found::of(&deployment, &account, namespace)
}

fn vouches(binding: &Value) -> bool {
    let subjects = binding["subjects"].as_array();
    let is_account = |subject: &Value| {
        subject["kind"] == "ServiceAccount"
            && subject["name"] == NAME
            && subject["namespace"] == NAMESPACE
    };
    is_controllers(binding) && subjects.is_some_and(|all| all.iter().any(is_account))
}

fn is_controllers(object: &Value) -> bool {
    object["metadata"]["labels"][PART] == CONTROLLER
}

impl Found {
    fn of(deployment: &Value, account: &Value, namespace: &str) -> Option<Self> {
        if !is_controllers(deployment) {
            return None;
        }
        let pod = &deployment["spec"]["template"]["spec"];
        let mut arguments = pod["containers"][0]["args"].as_array()?.iter();
        let image = arguments.find_map(|word| word.as_str()?.strip_prefix("--mover-image="));
        let own = &pod["imagePullSecrets"];
        // An account's are for pods that name none themselves.
        let secrets = match own.as_array().is_some_and(|all| !all.is_empty()) {
            true => own,
            false => &account["imagePullSecrets"],
        };
        let names = secrets.as_array().into_iter().flatten();
        let names = names.filter_map(|secret| secret["name"].as_str());
        Some(Self {
            image: image.map(str::to_owned),
            pulled_with: names.map(|name| format!("{namespace}/{name}")).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_controller_tells_which_image_its_nodes_pull() {
        let with = |arguments: Value| json!({"metadata": {"labels": {PART: "controller"}}, "spec": {"template": {"spec": {"containers": [{"args": arguments}]}}}});
        let own = with(json!(["controller", "--mover-image=own:1", "--other"]));
        let of = |deployment: &Value| Found::of(deployment, &Value::Null, NAMESPACE);
        let image = |deployment: &Value| of(deployment).and_then(|found| found.image);
        assert_eq!(image(&own).as_deref(), Some("own:1"));
        assert_eq!(image(&with(json!(["controller"]))), None);
        let subject = |namespace: &str| json!([{"kind": "ServiceAccount", "name": NAME, "namespace": namespace}]);
        let binding = |part: &str, namespace: &str| json!({"metadata": {"labels": {PART: part}}, "subjects": subject(namespace)});
        assert!(vouches(&binding(CONTROLLER, NAMESPACE)));
        assert!(!vouches(&binding(CONTROLLER, "tenant")));
        assert!(!vouches(&binding("users", NAMESPACE)));
        let mut others = own;
        others["metadata"]["labels"] = json!({});
        assert_eq!(of(&others), None);
    }

    #[test]
    fn a_controller_tells_with_which_secrets_its_own_pod_pulls() {
        let secrets = |names: &[&str]| {
            let named = names.iter().map(|name| json!({"name": name}));
            named.collect::<Vec<_>>()
        };
        let found = |own: &[&str], account: &[&str]| {
            let deployment = json!({"metadata": {"labels": {PART: CONTROLLER}},
                "spec": {"template": {"spec": {"containers": [{"args": []}], "imagePullSecrets": secrets(own)}}}});
            let account = json!({"imagePullSecrets": secrets(account)});
            Found::of(&deployment, &account, "ours")
                .unwrap()
                .pulled_with
        };
        assert_eq!(found(&["a"], &["b"]), ["ours/a"]);
        assert_eq!(found(&[], &["b"]), ["ours/b"]);
        assert!(found(&[], &[]).is_empty());
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        how: CopyArgs,
    }

    fn line<W: AsRef<str>>(words: &[W]) -> Option<CopyArgs> {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        let line = std::iter::once("controller".to_owned()).chain(words);
        let line = <Line as clap::Parser>::try_parse_from(line);
        line.ok().map(|line| line.how)
    }

    #[test]
    fn the_controller_copies_with_the_image_it_was_installed_with_unless_another_is_named() {
        let words = line::<&str>(&[]).unwrap().words("own:1");
        assert_eq!(words, ["--mover-image=own:1"]);
        assert_eq!(line(&words).unwrap().given(), Some("--mover-image"));
        let given = [
            "--mover-image=other:2",
            "--mover-timeout=1h 30m",
            "--parallel-volumes=8",
        ];
        let words = line(&given).unwrap().words("own:1");
        let told = [
            "--mover-image=other:2",
            "--mover-timeout=1h30m",
            "--parallel-volumes=8",
        ];
        assert_eq!(words, told);
        for odd in [
            "--mover-image=",
            "--mover-image=a b",
            "--parallel-volumes=0",
            "--parallel-volumes=33",
        ] {
            assert!(line(&[odd]).is_none(), "{odd}");
        }
    }
}
