//! `--location` as a URL: `s3://bucket/prefix?endpoint=..&region=..`, `gs://bucket/prefix`, `az://container/prefix?storage-account=..`,
//! `file:///folder`. Pure.

use ::url::Url;

use crate::api::{
    API_VERSION, BackupStorageLocation, BackupStorageLocationSpec, Meta, ObjectStorage,
};
use crate::error::{Error, Result};

/// What the URL of a bucket stands for.
struct Scheme {
    provider: &'static str,
    /// The config key with the store's address.
    endpoint: &'static str,
    /// Parameters and the config keys they stand for. Velero's own names are taken as well.
    parameters: &'static [(&'static str, &'static str)],
    example: &'static str,
}

const S3: Scheme = Scheme {
    provider: "aws",
    endpoint: "s3Url",
    parameters: &[
        ("endpoint", "s3Url"),
        ("region", "region"),
        ("force-path-style", "s3ForcePathStyle"),
        ("profile", "profile"),
        ("insecure-skip-tls-verify", "insecureSkipTLSVerify"),
        ("kms-key-id", "kmsKeyId"),
        ("server-side-encryption", "serverSideEncryption"),
        ("checksum-algorithm", "checksumAlgorithm"),
    ],
    example: "s3://bucket/prefix?endpoint=https://minio.example.com:9000&region=eu-1",
};

const GS: Scheme = Scheme {
    provider: "gcp",
    endpoint: "storeEndpoint",
    parameters: &[
        ("endpoint", "storeEndpoint"),
        ("kms-key-name", "kmsKeyName"),
        ("service-account", "serviceAccount"),
        ("universe-domain", "universeDomain"),
    ],
    example: "gs://bucket/prefix",
};

const AZ: Scheme = Scheme {
    provider: "azure",
    endpoint: "storageAccountURI",
    parameters: &[
        ("storage-account", "storageAccount"),
        ("endpoint", "storageAccountURI"),
        ("use-aad", "useAAD"),
        ("storage-account-key-env-var", "storageAccountKeyEnvVar"),
        ("authority", "activeDirectoryAuthorityURI"),
        ("resource-group", "resourceGroup"),
        ("subscription-id", "subscriptionId"),
        ("block-size-in-bytes", "blockSizeInBytes"),
    ],
    example: "az://container/prefix?storage-account=account",
};

/// A location from a URL; nothing where the text is no URL.
///
/// # Errors
/// `Invalid`, for a scheme or a parameter we do not know.
pub fn parse(text: &str) -> Result<Option<BackupStorageLocation>> {
    let Some((scheme, _)) = text.split_once("://") else {
        return Ok(None);
    };
    // A secret key may have a slash, where a URL's name and password end: what looks like them is found before it is read as a URL.
    let place = text.split_once('?').map_or(text, |(place, _)| place);
    let (_, place) = place.split_once("://").unwrap_or_default();
    let keyed = place
        .split_once(':')
        .is_some_and(|(_, after)| after.contains('@'));
    if keyed && scheme != "file" {
        return Err(holds_keys());
    }
    let url = Url::parse(text)
        .map_err(|e| Error::invalid(format!("location {text:?} is not a URL")).because(e))?;
    let named = !url.username().is_empty() || url.password().is_some();
    // An address has no other use for the sign.
    let addresses = [
        "endpoint",
        "authority",
        "s3Url",
        "storeEndpoint",
        "storageAccountURI",
        "activeDirectoryAuthorityURI",
    ];
    let endpoint_named = url
        .query_pairs()
        .any(|(name, value)| addresses.contains(&&*name) && value.contains('@'));
    if named || endpoint_named {
        return Err(holds_keys());
    }
    if url.fragment().is_some() {
        return Err(Error::invalid(format!("location {text:?} has a fragment")));
    }
    let mut spec = match scheme {
        "s3" => bucket(&S3, text, &url)?,
        "gs" => bucket(&GS, text, &url)?,
        "az" => bucket(&AZ, text, &url)?,
        "file" => file(text, &url)?,
        _ => {
            return Err(
                Error::invalid(format!("location {text:?}: {scheme}:// is not known")).hint(
                    "use s3://bucket/prefix?endpoint=...&region=..., gs://bucket/prefix, az://container/prefix?storage-account=... or file:///folder",
                ),
            );
        }
    };
    spec.default = false;
    Ok(Some(BackupStorageLocation {
        api_version: API_VERSION.to_owned(),
        kind: "BackupStorageLocation".to_owned(),
        metadata: Meta {
            name: text.to_owned(),
            ..Meta::default()
        },
        spec,
        ..BackupStorageLocation::default()
    }))
}

/// Not repeated in the message: it may hold a secret.
fn holds_keys() -> Error {
    Error::invalid("the location's URL holds a user name or keys")
        .hint("keys come from --credentials-file, or from the provider's variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
}

fn decoded(text: &str, part: &str) -> Result<String> {
    let as_query = format!("x={}", part.replace('+', "%2B"));
    let value = ::url::form_urlencoded::parse(as_query.as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default();
    if value.contains(['\0', '\u{fffd}']) {
        return Err(Error::invalid(format!("location {text:?} is not UTF-8")));
    }
    Ok(value)
}

fn bucket(scheme: &Scheme, text: &str, url: &Url) -> Result<BackupStorageLocationSpec> {
    let bucket = url.host_str().unwrap_or_default().to_owned();
    if bucket.is_empty() || url.port().is_some() {
        return Err(Error::invalid(format!("location {text:?} names no bucket"))
            .hint(format!("it looks like {}", scheme.example)));
    }
    let prefix = decoded(text, url.path().trim_matches('/'))?;
    let mut spec = BackupStorageLocationSpec {
        provider: scheme.provider.to_owned(),
        object_storage: ObjectStorage {
            bucket,
            prefix: Some(prefix).filter(|prefix| !prefix.is_empty()),
            ..ObjectStorage::default()
        },
        ..BackupStorageLocationSpec::default()
    };
    for (name, value) in url.query_pairs() {
        let known = scheme
            .parameters
            .iter()
            .find(|(short, key)| *short == name || *key == name);
        let Some((_, key)) = known else {
            let names: Vec<&str> = scheme.parameters.iter().map(|(short, _)| *short).collect();
            return Err(Error::invalid(format!(
                "location {text:?} has an unknown parameter {name:?}"
            ))
            .hint(format!("the parameters are {}", names.join(", "))));
        };
        let value = if *key == scheme.endpoint && !value.contains("://") {
            format!("https://{value}")
        } else {
            value.into_owned()
        };
        spec.config.insert((*key).to_owned(), value);
    }
    Ok(spec)
}

fn file(text: &str, url: &Url) -> Result<BackupStorageLocationSpec> {
    if !url.host_str().unwrap_or_default().is_empty() {
        return Err(Error::invalid(format!("location {text:?} has a host"))
            .hint("a folder is written with three slashes: file:///srv/backups"));
    }
    if url.query().is_some() {
        return Err(Error::invalid(format!(
            "location {text:?} has parameters; file:// takes none"
        )));
    }
    let folder = decoded(text, url.path())?;
    if folder.trim_matches('/').is_empty() {
        return Err(Error::invalid(format!("location {text:?} names no folder")));
    }
    Ok(BackupStorageLocationSpec {
        provider: "local".to_owned(),
        object_storage: ObjectStorage {
            bucket: folder,
            ..ObjectStorage::default()
        },
        ..BackupStorageLocationSpec::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_with_a_slash_is_not_repeated() {
        for text in [
            "s3://KEY:s3/cr3t@b/p",
            "s3://KEY:12/s3cr3t@b",
            "az://k:a/b/c@d?endpoint=x",
        ] {
            let error = parse(text).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let said = format!("{error} {}", cause.unwrap_or_default());
            assert!(said.contains("holds a user name or keys"), "{said}");
            assert!(!said.contains("cr3t"), "{said}");
        }
        assert!(parse("file:///srv/a:b@c").unwrap().is_some());
        assert!(parse("s3://b/a@b").unwrap().is_some());
    }

    #[test]
    fn a_bucket_with_everything_becomes_veleros_keys() {
        let text = "s3://my-bucket/some/pre%20fix/?endpoint=http://127.0.0.1:9000&region=eu-1&force-path-style=true&profile=p";
        let location = parse(text).unwrap().unwrap();
        assert_eq!(location.metadata.name, text);
        assert_eq!(location.spec.provider, "aws");
        assert_eq!(location.spec.object_storage.bucket, "my-bucket");
        assert_eq!(
            location.spec.object_storage.prefix.as_deref(),
            Some("some/pre fix")
        );
        assert_eq!(location.spec.config["s3Url"], "http://127.0.0.1:9000");
        assert_eq!(location.spec.config["region"], "eu-1");
        assert_eq!(location.spec.config["s3ForcePathStyle"], "true");
        assert_eq!(location.spec.config["profile"], "p");
    }

    #[test]
    fn buckets_of_google_and_containers_of_azure_become_veleros_keys() {
        let location = parse("gs://b/p/q?endpoint=store:1&kmsKeyName=k")
            .unwrap()
            .unwrap();
        assert_eq!(location.spec.provider, "gcp");
        assert_eq!(location.spec.object_storage.bucket, "b");
        assert_eq!(location.spec.object_storage.prefix.as_deref(), Some("p/q"));
        assert_eq!(location.spec.config["storeEndpoint"], "https://store:1");
        assert_eq!(location.spec.config["kmsKeyName"], "k");
        let text =
            "az://c/p?storage-account=account&endpoint=http://127.0.0.1:1/account&use-aad=true";
        let location = parse(text).unwrap().unwrap();
        assert_eq!(location.spec.provider, "azure");
        assert_eq!(location.spec.object_storage.bucket, "c");
        assert_eq!(location.spec.config["storageAccount"], "account");
        assert_eq!(
            location.spec.config["storageAccountURI"],
            "http://127.0.0.1:1/account"
        );
        assert_eq!(location.spec.config["useAAD"], "true");
    }

    #[test]
    fn a_bare_endpoint_is_https() {
        let location = parse("s3://b?endpoint=minio:9000").unwrap().unwrap();
        assert_eq!(location.spec.config["s3Url"], "https://minio:9000");
        assert_eq!(location.spec.object_storage.prefix, None);
    }

    #[test]
    fn a_folder_is_a_local_location() {
        let location = parse("file:///srv/my%20backups").unwrap().unwrap();
        assert_eq!(location.spec.provider, "local");
        assert_eq!(location.spec.object_storage.bucket, "/srv/my backups");
    }

    #[test]
    fn names_and_paths_are_no_urls() {
        for text in ["default", "/srv/backups", "./here", "a:b", ""] {
            assert_eq!(parse(text).unwrap(), None, "{text:?}");
        }
    }

    #[test]
    fn what_can_not_be_done_is_refused_and_keys_are_not_repeated() {
        for text in [
            "gcs://b",
            "azure://b",
            "ftp://b",
            "gs://",
            "gs://b?region=x",
            "az://b?region=x",
            "s3://",
            "s3:///p",
            "s3://b?what=x",
            "s3://b#f",
            "file://host/dir",
            "file:///",
            "file:///x?region=y",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in [
            "s3://b?endpoint=https://key:hidden@minio",
            "s3://b?endpoint=key:hidden@minio:9000",
            "gs://b?endpoint=https://key:hidden@store",
            "az://b?authority=https://key:hidden@store",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.to_string().contains("hidden"), "{error}");
        }
        let error = parse("s3://key:hidden@b").unwrap_err();
        assert!(!format!("{error:?}").contains("hidden"));
        let error = parse("s3://b?what=x").unwrap_err();
        assert!(error.hint_text().unwrap().contains("endpoint"));
    }
}
