//! Which snapshot is meant: a file, a URL, or a name in a location (ours, or KKP's), with what its manifest promises. Reads nothing of the snapshot itself.

use backup_cli::encryption::IdentityArgs;
use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{self, Choice, LocationArgs, file};
use backup_cli::paths::Paths;
use backup_core::Error;
use backup_core::error::quoted;
use backup_core::etcd::names;
use backup_core::name::Name;
use clap::Args;

use crate::destination;
use crate::restore::ids::Id;
use crate::source::{At, Expected, Source};

pub(super) fn paths() -> Paths {
    Paths::new(|name| std::env::var_os(name))
}

/// Which snapshot is restored, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct OriginArgs {
    /// The snapshot: a file or URL (plain, gzip or zstd, encrypted with age or not), or with --cluster a name in the location
    #[arg(value_name = "FILE|URL|NAME")]
    snapshot: String,
    /// Name of the cluster in the location
    #[arg(
        long,
        value_name = "NAME",
        env = "KUBECTL_BACKUP_CLUSTER",
        hide_env_values = true
    )]
    cluster: Option<String>,
    /// Allow a snapshot of another cluster
    #[arg(long)]
    pub(crate) another_cluster: bool,
    /// A revision that clients may have seen: the new state starts above it
    #[arg(long, value_name = "REVISION")]
    pub(crate) above: Option<i64>,
    /// Fetch and check the snapshot, print what would be done, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    identity: IdentityArgs,
}

impl OriginArgs {
    /// The words that mean the same snapshot, which is shown so, on another machine: the name and where it is, and who opens it. Of a URL no parameters, for
    /// they may hold secrets.
    pub(super) fn again(&self, shown: &str, location: &LocationArgs) -> String {
        let cluster = self.cluster.as_deref();
        let mut words = match cluster.filter(|_| !self.snapshot.contains('/')) {
            Some(cluster) => format!("{} --cluster {}", quoted(&self.snapshot), quoted(cluster)),
            None => return format!("{}{}", quoted(shown), self.identity.again()),
        };
        if let Some(location) = &location.location {
            words += &format!(" --location {}", quoted(location));
        }
        words + &self.identity.again()
    }
}

/// A snapshot and what is known of it.
pub(crate) struct Origin {
    /// Where it is.
    pub(crate) source: Source,
    /// How it was named, for people and for comparison.
    pub(crate) shown: String,
    /// What is promised about it.
    pub(crate) expected: Expected,
    /// Its cluster.
    pub(crate) cluster: Option<Id>,
    /// Revisions that clients may have seen, as its manifest says.
    pub(crate) marks: Vec<i64>,
}

impl Origin {
    /// Finds it. With a cluster, what is neither a path nor a URL is a name in the location.
    ///
    /// # Errors
    /// Usage errors; a name that is not there; the store's.
    pub(crate) async fn find(args: &OriginArgs, location: &LocationArgs) -> Result<Self> {
        let text = args.snapshot.as_str();
        match &args.cluster {
            Some(cluster) if !text.contains('/') => {
                Self::named(text, cluster, location, &args.identity).await
            }
            _ => {
                let identities = args.identity.read(&paths())?;
                let source = Source::parse(text, location, identities).await?;
                let source = source.encrypted(args.identity.is_named());
                let shown = match &source.at {
                    // The same command from another folder means the same file.
                    At::File(path) => std::path::absolute(path)?.display().to_string(),
                    At::Object { .. } => source.to_string(),
                };
                Ok(Self {
                    shown,
                    source,
                    expected: Expected::default(),
                    cluster: None,
                    marks: Vec::new(),
                })
            }
        }
    }

    async fn named(
        text: &str,
        cluster: &str,
        location: &LocationArgs,
        identity: &IdentityArgs,
    ) -> Result<Self> {
        let cluster = Name::foreign(cluster)
            .map_err(|e| CommandError::usage(e.context("--cluster can not be used")))?;
        names::check(text).map_err(CommandError::usage)?;
        let paths = paths();
        let sources = [file::read(&paths.locations())?];
        let Choice::One(spec) = locations::choose(location.location.as_deref(), &sources)? else {
            return Err(CommandError::usage(
                Error::invalid(format!("it is not said where snapshot {text:?} is")).hint(
                    "name the location with --location; a file in this folder is written ./FILE",
                ),
            ));
        };
        let opened = location.open(&spec)?;
        let found = destination::find(&opened, cluster.as_str(), text).await?;
        let identities = identity.read(&paths)?;
        let found = found.unlocked(&identities, identity.is_named()).await?;
        let known = found.manifest.as_ref();
        Ok(Self {
            shown: format!("{cluster}/{text} in {}", locations::place(&spec)),
            cluster: known.and_then(|manifest| manifest.etcd.cluster_id.parse().ok()),
            marks: known
                .map(|manifest| [manifest.target_revision, Some(manifest.facts.revision)])
                .into_iter()
                .flatten()
                .flatten()
                .collect(),
            source: found.source,
            expected: found.expected,
        })
    }
}
