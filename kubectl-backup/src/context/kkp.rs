//! KKP's locations: `--location NAME/CLUSTER` is the folder of a user cluster in the bucket of a ClusterBackupStorageLocation of its project. Looked for in
//! the cluster that `--kkp-context` names, a master or seed, and without it in the current one, where nothing else has the name. Never a default.
//!
//! The bucket is a project's: who owns the project may read it. So the cluster that hosts the objects only reads there, and never backs itself up into it.
//! A user cluster's folder is guarded as any location of ours, so that no second cluster writes into it.

use backup_core::api::{AccessMode, BackupStorageLocation};
use backup_core::cluster::Cluster;
use backup_core::location::kkp::{self, Known};
use backup_core::location::{Credentials, Location};
use backup_core::name::Name;
use backup_core::{Error, Kind};

use super::{Context, velero};
use backup_cli::error::{CommandError, Result};
use backup_cli::locations::Choice;

impl Context {
    /// The API server of the master or seed.
    async fn kkp(&self) -> Result<&Cluster> {
        let Some(context) = &self.global.kkp_context else {
            return self.cluster().await;
        };
        if let Some(flag) = self.one_cluster_alone() {
            return Err(CommandError::usage(
                Error::invalid(format!("--kkp-context and {flag} do not go together"))
                    .hint("name the clusters by their contexts"),
            ));
        }
        self.kkp
            .get_or_try_init(|| async {
                let other = self.of_member(context, context, None);
                other.cluster().await.cloned()
            })
            .await
    }

    /// The location that is meant where KKP's are named.
    ///
    /// # Errors
    /// None named; as [`Context::kkp_location`].
    pub(super) async fn choose_of_kkp(&self, asked: Option<&str>) -> Result<Choice> {
        let asked = asked
            .filter(|asked| !asked.contains("://"))
            .ok_or_else(|| {
                CommandError::usage(
                    Error::invalid(
                        "--kkp-context names where KKP's locations are, and not which one is meant",
                    )
                    .hint("add --location NAME/CLUSTER"),
                )
            })?;
        let found = self.kkp_location(asked).await?;
        let found =
            found.ok_or_else(|| Error::not_found(format!("location {asked:?} is not there")))?;
        Ok(Choice::Object(Box::new(found)))
    }

    /// The location of this name, where KKP has it; nothing where it was not named as KKP's and is not there.
    ///
    /// # Errors
    /// One that can not be meant; where it was named as KKP's, one that is not there.
    pub(super) async fn kkp_location(&self, asked: &str) -> Result<Option<BackupStorageLocation>> {
        let is_named = self.global.kkp_context.is_some();
        let cluster = match self.kkp().await {
            Ok(cluster) => cluster,
            Err(e) if is_named => return Err(e),
            Err(_) => return Ok(None),
        };
        let all = match kkp::list(cluster).await {
            Ok(all) => all,
            Err(e) if is_named => {
                return Err(Error::from(e)
                    .context(format!(
                        "can not list {}s in namespace {} of context {:?}",
                        kkp::KIND,
                        kkp::NAMESPACE,
                        cluster.context()
                    ))
                    .into());
            }
            Err(_) => return Ok(None),
        };
        let (name, folder) = match asked.split_once('/') {
            Some((name, folder)) => (name, Some(folder)),
            None => (asked, None),
        };
        let Some(object) = all.iter().find(|object| kkp::name(object) == name) else {
            if !is_named {
                return Ok(None);
            }
            let names: Vec<_> = all.iter().map(kkp::name).collect();
            return Err(Error::not_found(format!(
                "{} {name:?} is not in namespace {} of context {:?}",
                kkp::KIND,
                kkp::NAMESPACE,
                cluster.context()
            ))
            .hint(match names.is_empty() {
                true => "there is none".to_owned(),
                false => format!("there are: {}", names.join(", ")),
            })
            .into());
        };
        let Some(folder) = folder else {
            let there = kkp::clusters(cluster, object).await;
            return Err(CommandError::usage(
                Error::invalid(format!(
                    "location {name:?} is KKP's, and clusters share it: which one is meant is not said"
                ))
                .hint(match there.is_empty() {
                    true => format!("--location {name}/CLUSTER"),
                    false => format!("--location {name}/CLUSTER, of its project: {}", there.join(", ")),
                }),
            ));
        };
        let user_cluster = Name::foreign(folder).map_err(CommandError::usage)?;
        let known = kkp::is_known(cluster, object, &user_cluster).await?;
        if known == Known::Absent {
            self.ui.note(&format!(
                "KKP has no cluster {user_cluster} there; what lies in its folder is meant all the same"
            ));
        }
        let mut location = kkp::of_cluster(object, &user_cluster)?;
        if self.is_another(&known).await || self.is_kkp_itself(cluster).await {
            location.spec.access_mode = Some(AccessMode::ReadOnly);
        }
        Ok(Some(location))
    }

    /// Whether the cluster that is backed up has another address than the one that KKP says.
    async fn is_another(&self, known: &Known) -> bool {
        let (Known::There(Some(address)), Ok(here)) = (known, self.cluster().await) else {
            return false;
        };
        here.server().trim_end_matches('/') != address.trim_end_matches('/')
    }

    /// Whether the cluster that is backed up is, or may be, the one with these objects.
    async fn is_kkp_itself(&self, kkp: &Cluster) -> bool {
        let Ok(here) = self.cluster().await else {
            return true;
        };
        if self.global.kkp_context.is_none() || here.server() == kkp.server() {
            return true;
        }
        let identity = self.identity_soon().await.ok().flatten();
        let of_kkp = kkp.identity().await.ok().flatten();
        match (identity, of_kkp.as_deref()) {
            (Some(here), Some(there)) => here == there,
            // Nobody can tell.
            _ => true,
        }
    }

    /// Errors where the cluster that hosts KKP's location would write to it.
    ///
    /// # Errors
    /// That.
    pub(crate) fn refuse_to_write_to_kkp(location: &BackupStorageLocation) -> Result<()> {
        let is_read_only = location.spec.access_mode == Some(AccessMode::ReadOnly);
        if location.kind != kkp::KIND || !is_read_only {
            return Ok(());
        }
        Err(Error::new(
            Kind::Forbidden,
            format!(
                "location {:?} is read-only from here: it is a cluster's folder in its project's bucket, and this is another cluster, or may be",
                location.metadata.name
            ),
        )
        .hint("name the user cluster with --context, by the address that KKP has for it, and the one with KKP's objects with --kkp-context; this user has to be able to read the namespace kube-system of both")
        .into())
    }

    /// What its Secret holds.
    ///
    /// # Errors
    /// A Secret that is absent, or lacks a key.
    pub(crate) async fn kkp_credentials(
        &self,
        spec: &BackupStorageLocation,
    ) -> Result<Credentials> {
        let credentials = kkp::credentials(self.kkp().await?, spec).await;
        Ok(credentials
            .map_err(|e| e.context(format!("location {:?} can not be used", spec.metadata.name)))?)
    }

    /// Opens one; nothing is sent to the store yet.
    ///
    /// # Errors
    /// As [`Context::kkp_credentials`]; an address that only works inside of a cluster.
    pub(super) async fn open_kkp(&self, mut spec: BackupStorageLocation) -> Result<Location> {
        let title = format!("location {:?}", spec.metadata.name);
        velero::reachable(&mut spec, &title).await?;
        let flags = self.location_args();
        let own = flags.credentials_file.as_deref();
        let credentials = match own {
            Some(_) => Credentials::default(),
            None => self.kkp_credentials(&spec).await?,
        };
        flags.open_with(&spec, own, credentials)
    }
}
