//! Which location is meant: an ordered list of sources is asked, and with nothing configured there is a folder per cluster.
//! The choice is pure; the client's own file is in [`file`].

pub mod file;
mod flags;
pub mod same;

use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::api::{API_VERSION, BackupStorageLocation};
use backup_core::layout::TOP_FOLDERS;
use backup_core::location::{store_address, url};

use crate::error::{CommandError, Result};

pub use flags::{LocationArgs, has_keys_in_environment, role, shared};

/// Names the file with a location's credentials; the secret itself is never in the client's file.
pub const CREDENTIALS_FILE: &str = "kubectl-backup/credentials-file";

/// The role that is taken with a location's credentials, and what its owner wants to hear besides. Velero's config has no keys for them.
pub const ROLE_ARN: &str = "kubectl-backup/role-arn";
pub const EXTERNAL_ID: &str = "kubectl-backup/external-id";

/// Names the file with the key that signs a location's backups; the key itself is never in the client's file.
pub const SIGNING_KEY_FILE: &str = "kubectl-backup/signing-key-file";

/// The names of the locations that get a copy of each backup, separated by commas.
pub const REPLICATE_TO: &str = "kubectl-backup/replicate-to";

/// The names of the locations that get a copy of each backup that is made in this one.
///
/// # Errors
/// What can be no name: an address, which an object of a cluster could lead anywhere with this user's keys.
pub fn replicate_to(location: &BackupStorageLocation) -> Result<Vec<String>, Error> {
    let text = location.metadata.annotations.get(REPLICATE_TO);
    let mut names: Vec<String> = Vec::new();
    for name in text.map_or("", String::as_str).split(',').map(str::trim) {
        if name.contains(':') {
            return Err(Error::invalid(format!(
                "location {:?} can not have its backups copied to {name:?}: that is no name of a location",
                location.metadata.name
            ))
            .hint("have it remembered with `location create`, and name it"));
        }
        if !name.is_empty() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// One place where locations are defined.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is, for messages.
    pub title: String,
    /// Its locations.
    pub locations: Vec<BackupStorageLocation>,
    /// Whether they are objects of a cluster, with their Secrets beside them.
    pub in_cluster: bool,
}

impl Source {
    /// The location that is used where none is named. In a cluster one of the name `default` is it where none says so, as Velero has it.
    pub fn default_location(&self) -> Option<&BackupStorageLocation> {
        let said = self.locations.iter().find(|one| one.spec.default);
        let by_name = || {
            let mut all = self.locations.iter().filter(|_| self.in_cluster);
            all.find(|one| one.metadata.name == "default")
        };
        said.or_else(by_name)
    }

    fn choice(&self, location: &BackupStorageLocation) -> Choice {
        let location = Box::new(location.clone());
        if self.in_cluster {
            Choice::Object(location)
        } else {
            Choice::One(location)
        }
    }
}

/// What the look-up came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// This location, from the client's file or a URL.
    One(Box<BackupStorageLocation>),
    /// This object of the cluster.
    Object(Box<BackupStorageLocation>),
    /// Nothing is configured: a folder per cluster.
    PerCluster,
}

/// Looks a location up: a URL, a name in the first source that has it, or without either the first default. `NAME/FOLDER` is a folder below
/// the location of that name.
///
/// # Errors
/// A name that no source has; a URL that can not be meant.
pub fn choose(asked: Option<&str>, sources: &[Source]) -> Result<Choice> {
    let Some(asked) = asked else {
        let defaults = |source: &Source| Some(source.choice(source.default_location()?));
        return Ok(sources
            .iter()
            .find_map(defaults)
            .unwrap_or(Choice::PerCluster));
    };
    if let Some(location) = url::parse(asked).map_err(CommandError::usage)? {
        return Ok(Choice::One(Box::new(location)));
    }
    let (name, folder) = match asked.split_once('/') {
        Some((name, folder)) => (name, Some(folder)),
        None => (asked, None),
    };
    let named = |source: &Source| {
        let mut all = source.locations.iter();
        let found = all.find(|location| location.metadata.name == name)?;
        Some(match folder {
            None => Ok(source.choice(found)),
            // A folder of ours at its root would make Velero call its location unavailable.
            Some(_) if source.in_cluster => Err(Error::invalid(format!(
                "location {name:?} is of the cluster's Velero, and has no folders of others"
            ))
            .hint("use a location of your own for that: see `location create --help`")),
            Some(folder) => within(found, folder).map(|found| source.choice(&found)),
        })
    };
    if let Some(found) = sources.iter().find_map(named) {
        return found.map_err(CommandError::usage);
    }
    let known: Vec<_> = sources
        .iter()
        .flat_map(|source| &source.locations)
        .map(|location| location.metadata.name.clone())
        .collect();
    let titles: Vec<_> = sources.iter().map(|source| source.title.as_str()).collect();
    let error = Error::not_found(format!(
        "location {name:?} is not in {}",
        titles.join(" or ")
    ));
    Err(if known.is_empty() {
        error.hint("none is configured yet: see `location create --help`, or give a URL such as s3://bucket/prefix")
    } else {
        error.hint(format!("there are: {}", known.join(", ")))
    }
    .into())
}

/// A folder below a location, as a location of its own.
///
/// # Errors
/// A folder that would lead elsewhere, or into what belongs to the location itself.
pub fn within(
    location: &BackupStorageLocation,
    folder: &str,
) -> Result<BackupStorageLocation, Error> {
    let folder = folder.trim_end_matches('/');
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.chars().any(char::is_control);
    let first = folder.split('/').next().unwrap_or_default();
    if folder.split('/').any(odd) || TOP_FOLDERS.contains(&first) {
        return Err(Error::invalid(format!(
            "{folder:?} can be no folder of location {:?}",
            location.metadata.name
        ))
        .hint(format!(
            "it may not have empty or relative parts, nor begin with one of {}",
            TOP_FOLDERS.join(", ")
        )));
    }
    let mut inner = location.clone();
    inner.spec.default = false;
    let name = &location.metadata.name;
    inner.metadata.name = match name.split_once('?') {
        Some((place, parameters)) if name.contains("://") => {
            format!("{}/{folder}?{parameters}", place.trim_end_matches('/'))
        }
        _ => format!("{}/{folder}", name.trim_end_matches('/')),
    };
    // What keeps clusters apart here keeps them apart where copies go.
    let copies: Vec<_> = replicate_to(location)?
        .iter()
        .map(|target| format!("{target}/{folder}"))
        .collect();
    if !copies.is_empty() {
        let copies = copies.join(",");
        inner
            .metadata
            .annotations
            .insert(REPLICATE_TO.to_owned(), copies);
    }
    let storage = &mut inner.spec.object_storage;
    if location.spec.provider.trim_start_matches("velero.io/") == "local" {
        storage.bucket = format!("{}/{folder}", storage.bucket.trim_end_matches('/'));
    } else {
        let prefix = storage.prefix.take().unwrap_or_default();
        let prefix = prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        storage.prefix = Some(format!("{prefix}{slash}{folder}"));
    }
    Ok(inner)
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

/// The same with the store's own address where the location names one: a bucket's name alone does not say whose it is.
pub fn place_and_endpoint(location: &BackupStorageLocation) -> String {
    let place = place(location);
    let Some(url) = store_address(&location.spec) else {
        return place;
    };
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Neither a name nor a password is shown.
    let host = host.rsplit('@').next().unwrap_or_default();
    let slashes = if scheme.is_empty() { "" } else { "://" };
    format!("{place} at {scheme}{slashes}{host}")
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
            in_cluster: title == "cluster",
        }
    }

    fn bucket(choice: Choice) -> String {
        match choice {
            Choice::One(location) | Choice::Object(location) => location.spec.object_storage.bucket,
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
        // Velero's server takes the one of this name; a file of locations does not.
        for (title, found) in [("cluster", "/cluster/default"), ("file", "per cluster")] {
            let unmarked = source(title, &[("other", false), ("default", false)]);
            assert_eq!(bucket(choose(None, &[unmarked]).unwrap()), found);
        }
    }

    #[test]
    fn a_folder_of_a_location_is_a_location() {
        let file = [source("file", &[("a", true)])];
        let chosen = choose(Some("a/eu/1"), &file).unwrap();
        let Choice::One(inner) = chosen else {
            panic!("{chosen:?}")
        };
        assert_eq!(inner.metadata.name, "a/eu/1");
        assert_eq!(inner.spec.object_storage.bucket, "/file/a/eu/1");
        assert!(!inner.spec.default);
        for (url, name, place) in [
            ("s3://b/p/?region=x", "s3://b/p/eu?region=x", "s3://b/p/eu"),
            ("s3://b", "s3://b/eu", "s3://b/eu"),
            ("file:///x/", "file:///x/eu", "file:///x/eu"),
        ] {
            let inner = within(&url::parse(url).unwrap().unwrap(), "eu").unwrap();
            assert_eq!(
                (inner.metadata.name.as_str(), super::place(&inner).as_str()),
                (name, place)
            );
            // The name leads there again.
            let again = url::parse(name).unwrap().unwrap();
            assert_eq!(super::place(&again), place);
        }
        for folder in ["a/", "a/..", "a/b//c", "a/backups", "a/restic/x", "a/."] {
            let refused = choose(Some(folder), &file).unwrap_err();
            assert_eq!(refused.exit(), crate::error::Exit::Usage, "{folder}");
        }
        assert!(choose(Some("b/eu"), &file).unwrap_err().is_not_found());
        let velero = [source("cluster", &[("a", true)])];
        let refused = choose(Some("a/eu"), &velero).unwrap_err();
        assert_eq!(refused.exit(), crate::error::Exit::Usage);
    }

    #[test]
    fn copies_go_to_locations_by_name_and_of_a_folder_to_folders() {
        let to = |text: &str| {
            let mut location = folder(Path::new("/x"));
            let annotations = &mut location.metadata.annotations;
            annotations.insert(REPLICATE_TO.to_owned(), text.to_owned());
            location
        };
        assert_eq!(replicate_to(&folder(Path::new("/x"))).unwrap(), [""; 0]);
        assert_eq!(replicate_to(&to(" a, b/eu,a,,")).unwrap(), ["a", "b/eu"]);
        for odd in ["s3://b", "a,file:///x"] {
            assert!(replicate_to(&to(odd)).is_err(), "{odd}");
        }
        let inner = within(&to("a,b"), "eu").unwrap();
        assert_eq!(replicate_to(&inner).unwrap(), ["a/eu", "b/eu"]);
    }

    #[test]
    fn places_read_as_urls() {
        let mut location = folder(Path::new("/x/y"));
        assert_eq!(place(&location), "file:///x/y");
        location.spec.provider = "velero.io/aws".into();
        location.spec.object_storage.bucket = "b".into();
        location.spec.object_storage.prefix = Some("/p/q/".into());
        assert_eq!(place(&location), "s3://b/p/q");
        assert_eq!(place_and_endpoint(&location), "s3://b/p/q");
        let url = "https://me:s3cr3t@store.example.com:9000/x";
        location.spec.config.insert("s3Url".into(), url.into());
        assert_eq!(
            place_and_endpoint(&location),
            "s3://b/p/q at https://store.example.com:9000"
        );
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
