//! Which snapshot is meant: a file, a URL, or a name in a location, with what its manifest promises. Reads nothing of the snapshot itself.

use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{self, Choice, LocationArgs, file};
use backup_cli::paths::Paths;
use backup_core::Error;
use backup_core::etcd::{Manifest, catalog};
use backup_core::name::Name;

use crate::restore::ids::Id;
use crate::source::{Expected, Source};

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
    pub(crate) async fn find(
        text: &str,
        cluster: Option<&str>,
        location: &LocationArgs,
    ) -> Result<Self> {
        match cluster {
            Some(cluster) if !text.contains('/') => Self::named(text, cluster, location).await,
            _ => {
                let source = Source::parse(text, location)?;
                let shown = match &source {
                    // The same command from another folder means the same file.
                    Source::File(path) => std::path::absolute(path)?.display().to_string(),
                    Source::Object { .. } => source.to_string(),
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

    async fn named(text: &str, cluster: &str, location: &LocationArgs) -> Result<Self> {
        let of = |what: &str, name: &str| {
            Name::foreign(name)
                .map_err(|e| CommandError::usage(e.context(format!("{what} can not be used"))))
        };
        let cluster = of("--cluster", cluster)?;
        let name = of("the snapshot's name", text)?;
        let paths = Paths::new(|name| std::env::var_os(name));
        let sources = [file::read(&paths.locations())?];
        let Choice::One(spec) = locations::choose(location.location.as_deref(), &sources)? else {
            return Err(CommandError::usage(
                Error::invalid(format!("it is not said where snapshot {name} is")).hint(
                    "name the location with --location; a file in this folder is written ./FILE",
                ),
            ));
        };
        let store = location.open(&spec)?.store;
        let entry = catalog::get(&store, &cluster, &name).await?;
        let key = entry.data();
        let Manifest {
            data,
            snapshot,
            digest,
            etcd,
            facts,
            target_revision,
            ..
        } = entry.manifest;
        Ok(Self {
            shown: format!("{cluster}/{name} in {}", locations::place(&spec)),
            source: Source::Object { store, key },
            expected: Expected {
                stored_sha256: Some(data.sha256),
                sha256: Some(snapshot.sha256),
                digest,
            },
            cluster: etcd.cluster_id.parse().ok(),
            marks: target_revision
                .into_iter()
                .chain([facts.revision])
                .collect(),
        })
    }
}
