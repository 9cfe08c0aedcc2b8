//! Which location is meant: an ordered list of sources is asked, and with nothing configured there is a folder per cluster.
//! The choice is pure; the client's own file is in [`file`].

pub mod file;
mod flags;

use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::api::{API_VERSION, BackupStorageLocation};
use backup_core::location::url;

use crate::error::{CommandError, Result};

pub use flags::LocationArgs;

/// Names the file with a location's credentials; the secret itself is never in the client's file.
pub const CREDENTIALS_FILE: &str = "kubectl-backup/credentials-file";

/// One place where locations are defined.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is, for messages.
    pub title: String,
    /// Its locations.
    pub locations: Vec<BackupStorageLocation>,
}

/// What the look-up came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// This location.
    One(Box<BackupStorageLocation>),
    /// Nothing is configured: a folder per cluster.
    PerCluster,
}

/// Looks a location up: a URL, a name in the first source that has it, or without either the first default.
///
/// # Errors
/// A name that no source has; a URL that can not be meant.
pub fn choose(asked: Option<&str>, sources: &[Source]) -> Result<Choice> {
    let Some(asked) = asked else {
        let default = sources
            .iter()
            .flat_map(|source| &source.locations)
            .find(|location| location.spec.default);
        return Ok(default.map_or(Choice::PerCluster, |found| {
            Choice::One(Box::new(found.clone()))
        }));
    };
    if let Some(location) = url::parse(asked).map_err(CommandError::usage)? {
        return Ok(Choice::One(Box::new(location)));
    }
    let all = || sources.iter().flat_map(|source| &source.locations);
    if let Some(found) = all().find(|location| location.metadata.name == asked) {
        return Ok(Choice::One(Box::new(found.clone())));
    }
    let known: Vec<_> = all()
        .map(|location| location.metadata.name.clone())
        .collect();
    let titles: Vec<_> = sources.iter().map(|source| source.title.as_str()).collect();
    let error = Error::not_found(format!(
        "location {asked:?} is not in {}",
        titles.join(" or ")
    ));
    Err(if known.is_empty() {
        error.hint("none is configured yet: see `location create --help`, or give a URL such as s3://bucket/prefix")
    } else {
        error.hint(format!("there are: {}", known.join(", ")))
    }
    .into())
}

/// A folder as a location.
pub fn folder(path: &Path) -> BackupStorageLocation {
    let mut location = BackupStorageLocation {
        api_version: API_VERSION.to_owned(),
        kind: "BackupStorageLocation".to_owned(),
        ..BackupStorageLocation::default()
    };
    location.metadata.name = "default".to_owned();
    location.spec.provider = "local".to_owned();
    location.spec.object_storage.bucket = path.display().to_string();
    location
}

/// The sub-folders of clusters, by the clusters' uids, sorted; none where the folder is not there.
///
/// # Errors
/// When the folder can not be read.
pub fn per_cluster(backups: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = match std::fs::read_dir(backups) {
        Ok(read) => read,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => {
            return Err(Error::other(format!("can not read {}", backups.display()))
                .because(e)
                .into());
        }
    };
    let mut folders: Vec<_> = read
        .filter_map(std::result::Result::ok)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| {
            (
                entry.file_name().to_string_lossy().into_owned(),
                entry.path(),
            )
        })
        .collect();
    folders.sort();
    Ok(folders)
}

/// Where a location is, for people.
pub fn place(location: &BackupStorageLocation) -> String {
    let spec = &location.spec;
    let prefix = spec
        .object_storage
        .prefix
        .as_deref()
        .unwrap_or("")
        .trim_matches('/');
    let bucket = spec.object_storage.bucket.trim_end_matches('/');
    let scheme = match spec.provider.trim_start_matches("velero.io/") {
        "local" => "file",
        "aws" => "s3",
        "gcp" => "gs",
        "azure" => "az",
        other => other,
    };
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("{scheme}://{bucket}{slash}{prefix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(title: &str, names: &[(&str, bool)]) -> Source {
        let locations = names
            .iter()
            .map(|(name, default)| {
                let mut location = folder(Path::new("/x"));
                location.metadata.name = (*name).to_owned();
                location.spec.default = *default;
                location.spec.object_storage.bucket = format!("/{title}/{name}");
                location
            })
            .collect();
        Source {
            title: title.to_owned(),
            locations,
        }
    }

    fn bucket(choice: Choice) -> String {
        match choice {
            Choice::One(location) => location.spec.object_storage.bucket,
            Choice::PerCluster => "per cluster".to_owned(),
        }
    }

    #[test]
    fn without_a_name_the_first_default_is_taken_then_a_folder_per_cluster() {
        let file = source("file", &[("a", false), ("b", true)]);
        let cluster = source("cluster", &[("c", true)]);
        assert_eq!(
            bucket(choose(None, &[file.clone(), cluster.clone()]).unwrap()),
            "/file/b"
        );
        assert_eq!(
            bucket(choose(None, &[source("file", &[("a", false)]), cluster]).unwrap()),
            "/cluster/c"
        );
        assert_eq!(
            bucket(choose(None, &[source("file", &[("a", false)])]).unwrap()),
            "per cluster"
        );
        assert_eq!(bucket(choose(None, &[]).unwrap()), "per cluster");
    }

    #[test]
    fn places_read_as_urls() {
        let mut location = folder(Path::new("/x/y"));
        assert_eq!(place(&location), "file:///x/y");
        location.spec.provider = "velero.io/aws".into();
        location.spec.object_storage.bucket = "b".into();
        location.spec.object_storage.prefix = Some("/p/q/".into());
        assert_eq!(place(&location), "s3://b/p/q");
    }

    #[test]
    fn a_name_is_taken_from_the_first_source_that_has_it_and_an_unknown_one_lists_the_known() {
        let (file, cluster) = (
            source("file", &[("a", true)]),
            source("cluster", &[("a", false), ("c", false)]),
        );
        let both = [file, cluster];
        assert_eq!(bucket(choose(Some("a"), &both).unwrap()), "/file/a");
        assert_eq!(bucket(choose(Some("c"), &both).unwrap()), "/cluster/c");
        let refused = choose(Some("x"), &both).unwrap_err();
        assert!(refused.is_not_found());
        assert_eq!(refused.error().hint_text(), Some("there are: a, a, c"));
    }
}
