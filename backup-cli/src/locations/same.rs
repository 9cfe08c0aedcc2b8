//! Whether two locations are one place, however they are called: what is remembered of one counts for a URL that leads into it. Reads no store; the environment
//! is given, for it says where stores are that a location does not name.

use std::path::{Path, PathBuf};

use backup_core::api::BackupStorageLocation;
use backup_core::crypt::{ENCRYPT, RECIPIENTS};
use backup_core::location::store_address;
use backup_core::signature::VERIFY_KEYS;

use super::SIGNING_KEY_FILE;

/// What counts for a place, by whatever name it is meant, and what it is called.
const OF_THE_PLACE: [(&str, &str); 3] = [
    (RECIPIENTS, "recipients"),
    (VERIFY_KEYS, "keys to verify with"),
    (SIGNING_KEY_FILE, "key to sign with"),
];

/// A variable of the environment; an empty one is none.
pub type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whether the first location is the second one's place, or a folder in it.
pub fn is_within(
    inner: &BackupStorageLocation,
    outer: &BackupStorageLocation,
    variable: Variable<'_>,
) -> bool {
    depth(inner, outer, variable).is_some()
}

/// How much of the path both have in common, where one is within the other.
fn depth(
    inner: &BackupStorageLocation,
    outer: &BackupStorageLocation,
    variable: Variable<'_>,
) -> Option<usize> {
    let provider = provider(inner);
    if provider != self::provider(outer) {
        return None;
    }
    if provider == "local" {
        let (inner, outer) = (folder(inner), folder(outer));
        return inner
            .starts_with(&outer)
            .then(|| outer.components().count());
    }
    let bucket = |location: &BackupStorageLocation| {
        let bucket = &location.spec.object_storage.bucket;
        bucket.trim_matches('/').to_owned()
    };
    if bucket(inner) != bucket(outer) || store(inner, variable) != store(outer, variable) {
        return None;
    }
    let parts = |location: &BackupStorageLocation| -> Vec<String> {
        let prefix = location.spec.object_storage.prefix.as_deref();
        let parts = prefix.unwrap_or_default().split('/');
        parts
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (inner, outer) = (parts(inner), parts(outer));
    inner.starts_with(&outer).then_some(outer.len())
}

fn provider(location: &BackupStorageLocation) -> &str {
    location.spec.provider.trim_start_matches("velero.io/")
}

/// A folder by its real path, as far as it is there.
fn folder(location: &BackupStorageLocation) -> PathBuf {
    let storage = &location.spec.object_storage;
    let bucket = storage.bucket.strip_prefix("file://");
    let path = Path::new(bucket.unwrap_or(&storage.bucket));
    let prefix = storage.prefix.as_deref().unwrap_or_default();
    let whole = path.join(prefix.trim_matches('/'));
    let mut there = whole.as_path();
    let mut rest = Vec::new();
    loop {
        if let Ok(real) = there.canonicalize() {
            return rest.iter().rev().fold(real, |path, part| path.join(part));
        }
        match (there.parent(), there.file_name()) {
            (Some(parent), Some(name)) => {
                rest.push(name.to_owned());
                there = parent;
            }
            _ => return whole,
        }
    }
}

/// Which store it is, of all of its provider: the host and port of its address, or for Azure the account; nothing is the provider's own.
fn store(location: &BackupStorageLocation, variable: Variable<'_>) -> Option<String> {
    let names: &[&str] = match provider(location) {
        "aws" => &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        "azure" => &["AZURE_STORAGE_ACCOUNT"],
        _ => &[],
    };
    let said = store_address(&location.spec).map(str::to_owned);
    let address = said.or_else(|| names.iter().copied().find_map(variable))?;
    let (scheme, rest) = address.split_once("://").unwrap_or(("", &address));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let mut host = host.to_ascii_lowercase();
    if provider(location) == "azure" {
        // The same account by its name and by its address.
        if let Some((account, _)) = host.split_once(".blob.") {
            host = account.to_owned();
        }
        return Some(host);
    }
    // Google's store speaks S3, too, and a proxy of Google's may be anybody's: an address is its own provider's alone.
    let is_own = match provider(location) {
        "aws" => host.ends_with(".amazonaws.com"),
        "gcp" => host == "storage.googleapis.com",
        _ => false,
    };
    if is_own {
        return None;
    }
    let port = match scheme {
        "http" => ":80",
        _ => ":443",
    };
    Some(host.trim_end_matches(port).to_owned())
}

/// The locations of a cluster, as far as they count for a call from this machine: files that an object names are of its server's machine, and of nobody's here.
pub fn of_cluster(locations: &[BackupStorageLocation]) -> Vec<BackupStorageLocation> {
    let mut all = locations.to_vec();
    for one in &mut all {
        one.metadata.annotations.remove(SIGNING_KEY_FILE);
    }
    all
}

/// Gives a location what is remembered of its place, where it says nothing of that itself: all of it by one location, the nearest that says anything, for keys of
/// one and recipients of another are no choice that anybody made. What that was, for a note: a location's name and what it has.
pub fn heed(
    location: &mut BackupStorageLocation,
    known: &[BackupStorageLocation],
    variable: Variable<'_>,
) -> Vec<(String, &'static str)> {
    let near = |one: &&BackupStorageLocation| depth(location, one, variable);
    let mut places: Vec<_> = known.iter().filter(|one| near(one).is_some()).collect();
    // Stable: of two of one place the first counts.
    places.sort_by_key(|one| std::cmp::Reverse(near(one)));
    let says = |one: &&&BackupStorageLocation| {
        let annotations = &one.metadata.annotations;
        OF_THE_PLACE
            .iter()
            .any(|(key, _)| annotations.contains_key(*key))
    };
    let Some(place) = places.iter().find(says) else {
        return Vec::new();
    };
    let mut taken = Vec::new();
    for (key, what) in OF_THE_PLACE {
        let annotations = &mut location.metadata.annotations;
        let Some(value) = place.metadata.annotations.get(key) else {
            continue;
        };
        if annotations.contains_key(key) {
            continue;
        }
        annotations.insert(key.to_owned(), value.clone());
        // How much is encrypted is of no use without for whom.
        if let Some(how) = place.metadata.annotations.get(ENCRYPT)
            && key == RECIPIENTS
        {
            annotations.insert(ENCRYPT.to_owned(), how.clone());
        }
        taken.push((place.metadata.name.clone(), what));
    }
    taken
}

#[cfg(test)]
mod tests {
    use backup_core::location::url;

    use super::*;

    fn at(text: &str) -> BackupStorageLocation {
        url::parse(text).unwrap().unwrap()
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_place_is_the_same_by_whatever_name_it_goes() {
        for (inner, outer) in [
            ("s3://b/p", "s3://b/p/"),
            ("s3://b/p/eu", "s3://b/p?region=x"),
            ("s3://b/p", "s3://b"),
            (
                "s3://b?endpoint=https://Minio:443/",
                "s3://b?endpoint=https://minio",
            ),
            (
                "s3://b?endpoint=https://s3.eu-central-1.amazonaws.com",
                "s3://b",
            ),
            ("gs://b/p", "gs://b"),
            (
                "az://c?storage-account=a",
                "az://c?endpoint=https://a.blob.core.windows.net",
            ),
            ("file:///no/where/x", "file:///no/where"),
        ] {
            assert!(is_within(&at(inner), &at(outer), &none), "{inner} {outer}");
        }
        for (inner, outer) in [
            ("s3://b", "s3://b/p"),
            ("s3://b/pp", "s3://b/p"),
            ("s3://c/p", "s3://b/p"),
            ("gs://b/p", "s3://b/p"),
            ("s3://b?endpoint=http://minio:9000", "s3://b"),
            ("s3://b?endpoint=https://storage.googleapis.com", "s3://b"),
            (
                "gs://b?endpoint=https://s3.eu-central-1.amazonaws.com",
                "gs://b",
            ),
            (
                "s3://b?endpoint=http://minio:9000",
                "s3://b?endpoint=http://minio:9001",
            ),
            ("az://c?storage-account=a", "az://c?storage-account=b"),
            ("file:///no/wherever", "file:///no/where"),
        ] {
            assert!(!is_within(&at(inner), &at(outer), &none), "{inner} {outer}");
        }
        let minio =
            |name: &str| (name == "AWS_ENDPOINT_URL").then(|| "http://minio:9000".to_owned());
        let named = at("s3://b?endpoint=http://minio:9000");
        assert!(is_within(&at("s3://b"), &named, &minio));
    }

    #[test]
    fn a_folder_is_the_same_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let url = |path: &Path| at(&format!("file://{}", path.display()));
        assert!(is_within(&url(&link.join("eu")), &url(&real), &none));
        assert!(!is_within(&url(folder.path()), &url(&real), &none));
    }

    #[test]
    fn what_is_remembered_of_a_place_counts_for_its_url_and_the_nearest_first() {
        let known = |name: &str, url: &str, recipients: Option<&str>| {
            let mut location = at(url);
            location.metadata.name = name.to_owned();
            if let Some(recipients) = recipients {
                let annotations = &mut location.metadata.annotations;
                annotations.insert(RECIPIENTS.to_owned(), recipients.to_owned());
            }
            location
        };
        let all = [
            known("plain", "s3://b/p", None),
            known("wide", "s3://b", Some("wide")),
            known("near", "s3://b/p", Some("near")),
            known("other", "s3://c", Some("other")),
        ];
        let heeded = |url: &str| {
            let mut location = at(url);
            let taken = heed(&mut location, &all, &none);
            let recipients = location.metadata.annotations.get(RECIPIENTS).cloned();
            (recipients, taken)
        };
        let (recipients, taken) = heeded("s3://b/p/eu");
        assert_eq!(recipients.as_deref(), Some("near"));
        assert_eq!(taken, [("near".to_owned(), "recipients")]);
        assert_eq!(heeded("s3://b/q").0.as_deref(), Some("wide"));
        assert_eq!(heeded("s3://d"), (None, Vec::new()));
        let mut own = known("x", "s3://b", Some("own"));
        assert!(heed(&mut own, &all, &none).is_empty());
    }

    #[test]
    fn what_counts_is_all_of_one_location_and_never_a_file_that_an_object_names() {
        let known = |url: &str, annotations: &[(&str, &str)]| {
            let mut location = at(url);
            location.metadata.name = url.to_owned();
            for (key, value) in annotations {
                let annotations = &mut location.metadata.annotations;
                annotations.insert((*key).to_owned(), (*value).to_owned());
            }
            location
        };
        let all = [
            known("s3://b", &[(RECIPIENTS, "wide"), (VERIFY_KEYS, "wide")]),
            known(
                "s3://b/p",
                &[(VERIFY_KEYS, "near"), (SIGNING_KEY_FILE, "/etc/shadow")],
            ),
        ];
        let mut location = at("s3://b/p");
        heed(&mut location, &all, &none);
        let annotations = &location.metadata.annotations;
        assert_eq!(annotations.get(RECIPIENTS), None);
        assert_eq!(annotations[VERIFY_KEYS], "near");
        assert_eq!(annotations[SIGNING_KEY_FILE], "/etc/shadow");
        let mut location = at("s3://b/p");
        let taken = heed(&mut location, &of_cluster(&all), &none);
        assert_eq!(taken.len(), 1, "{taken:?}");
        let annotations = &location.metadata.annotations;
        assert_eq!(annotations.get(SIGNING_KEY_FILE), None);
    }
}
