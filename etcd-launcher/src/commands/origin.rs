//! Which snapshot is meant: a file, a URL, or a name in a location (ours, or KKP's), with what its manifest promises. Reads nothing of the snapshot itself.

use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{self, Choice, LocationArgs, file};
use backup_cli::paths::Paths;
use backup_core::Error;
use backup_core::etcd::names;
use backup_core::name::Name;

use crate::destination;
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
        let cluster = Name::foreign(cluster)
            .map_err(|e| CommandError::usage(e.context("--cluster can not be used")))?;
        names::check(text).map_err(CommandError::usage)?;
        let paths = Paths::new(|name| std::env::var_os(name));
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
