//! `--cluster` and `-n`: which control planes are meant, and in which namespace their objects lie. Never the context's default namespace.

use backup_core::api::hosted::default_namespace;
use backup_core::api::{EtcdBackupConfig, EtcdRestore, HostedCluster};
use backup_core::name::Name;
use backup_core::{Error, Kind};
use clap::Args;

use super::objects::{self, Hosted, Object};
use crate::context::Context;
use crate::flags;
use backup_cli::error::{CommandError, Result};
use backup_cli::output::joined;

/// Which control planes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which control planes")]
pub(crate) struct ScopeArgs {
    /// Hosted cluster whose etcd is meant (under `etcd` this is not the kubeconfig's cluster)
    #[arg(long, global = true, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
    /// Namespace of the control plane [default: what the Cluster says, else cluster-CLUSTER; without --cluster all namespaces]
    #[arg(short, long, global = true, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// All namespaces, as where neither is named
    #[arg(short = 'A', long, global = true, conflicts_with_all = ["cluster", "namespace"])]
    pub(super) all_namespaces: bool,
}

/// What belongs to the etcd of one hosted cluster.
pub(super) trait OfCluster: Hosted {
    /// That cluster.
    fn cluster(&self) -> &str;
}

impl OfCluster for EtcdBackupConfig {
    fn cluster(&self) -> &str {
        &self.spec.cluster.name
    }
}

impl OfCluster for EtcdRestore {
    fn cluster(&self) -> &str {
        &self.spec.cluster.name
    }
}

/// A control plane and its namespace.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    pub(crate) cluster: String,
    pub(crate) namespace: String,
}

impl ScopeArgs {
    /// The cluster's name, checked.
    pub(super) fn cluster(&self) -> Result<Option<Name>> {
        self.cluster.as_deref().map(flags::known_name).transpose()
    }

    fn namespace(&self) -> Result<Option<String>> {
        let Some(namespace) = &self.namespace else {
            return Ok(None);
        };
        Ok(Some(flags::known_name(namespace)?.to_string()))
    }

    /// The one control plane that is meant.
    ///
    /// # Errors
    /// No `--cluster`; a cluster that is not there, with those that are.
    pub(super) async fn control_plane(&self, context: &Context) -> Result<ControlPlane> {
        let Some(name) = self.cluster()? else {
            return Err(CommandError::usage(
                Error::invalid("which cluster is meant is not said").hint("name it with --cluster"),
            ));
        };
        let cluster = name.to_string();
        let namespace = match self.namespace()? {
            Some(namespace) => namespace,
            None => namespace_of(context, &cluster).await?,
        };
        Ok(ControlPlane { cluster, namespace })
    }

    /// The namespace to list; nothing means all.
    pub(super) async fn listed(&self, context: &Context) -> Result<Option<String>> {
        match (self.namespace()?, self.cluster()?) {
            (Some(namespace), _) => Ok(Some(namespace)),
            (None, Some(cluster)) => match namespace_of(context, cluster.as_str()).await {
                // Its objects may outlive it.
                Err(e) if e.is_not_found() => Ok(Some(default_namespace(cluster.as_str()))),
                found => Ok(Some(found?)),
            },
            (None, None) => Ok(None),
        }
    }

    /// The objects of these names; where none is named, all that are meant.
    ///
    /// # Errors
    /// As [`ScopeArgs::one`].
    pub(super) async fn named<K: OfCluster>(
        &self,
        context: &Context,
        names: &[String],
    ) -> Result<Vec<Object<K>>> {
        if names.is_empty() {
            return self.all(context).await;
        }
        let mut found = Vec::new();
        for name in names {
            found.push(self.one(context, name).await?);
        }
        Ok(found)
    }

    /// All objects that are meant.
    ///
    /// # Errors
    /// Whatever keeps them from being read.
    pub(super) async fn all<K: OfCluster>(&self, context: &Context) -> Result<Vec<Object<K>>> {
        let namespace = self.listed(context).await?;
        let mut found = objects::list(context.cluster().await?, namespace.as_deref()).await?;
        if let Some(cluster) = self.cluster()? {
            found.retain(|one: &Object<K>| one.it.cluster() == cluster.as_str());
        }
        Ok(found)
    }

    /// One object by its name.
    ///
    /// # Errors
    /// `NotFound`; a name that several namespaces have.
    pub(super) async fn one<K: Hosted>(&self, context: &Context, name: &str) -> Result<Object<K>> {
        let name = flags::known_name(name)?;
        let cluster = context.cluster().await?;
        if let Some(namespace) = self.listed(context).await? {
            return objects::get(cluster, Some(&namespace), name.as_str()).await;
        }
        let all = objects::list::<K>(cluster, None).await?;
        let there: Vec<_> = all.iter().map(|o| o.name().to_owned()).collect();
        let mut found: Vec<_> = all
            .into_iter()
            .filter(|o| o.name() == name.as_str())
            .collect();
        if found.len() > 1 {
            let places: Vec<_> = found.iter().map(|o| o.namespace().to_owned()).collect();
            return Err(Error::invalid(format!(
                "{} {:?} is there in several namespaces",
                K::kind(&()),
                name.as_str()
            ))
            .hint(format!("choose one with -n: {}", places.join(", ")))
            .into());
        }
        found.pop().ok_or_else(|| {
            let missing = format!("{} {:?} is not there", K::kind(&()), name.as_str());
            let hint = format!("there are: {}", joined(&there, "none"));
            Error::not_found(missing).hint(hint).into()
        })
    }
}

/// Where a control plane is: as its Cluster says; where clusters may not be read, by the rule that names it.
async fn namespace_of(context: &Context, name: &str) -> Result<String> {
    let cluster = context.cluster().await?;
    match objects::get::<HostedCluster>(cluster, None, name).await {
        Ok(found) => Ok(found.it.control_plane_namespace()),
        Err(e) if e.error().kind() == Kind::Forbidden => Ok(default_namespace(name)),
        Err(e) if e.is_not_found() && e.error().hint_text().is_none() => {
            let all = objects::list::<HostedCluster>(cluster, None).await?;
            let there: Vec<_> = all.iter().map(|o| o.name().to_owned()).collect();
            Err(Error::not_found(format!("cluster {name:?} is not there"))
                .hint(format!(
                    "there are: {}; one that has no Cluster object is meant by -n",
                    joined(&there, "none")
                ))
                .into())
        }
        Err(e) => Err(e),
    }
}
