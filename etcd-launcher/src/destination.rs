//! Where a hosted cluster's snapshots lie: what an object names in the hosting API becomes a location; a name becomes one snapshot in it.
//! Reads objects and the bucket; writes nothing.
//!
//! Which BackupStorageLocation a destination is, [`backup_core::etcd::destination`] says. KKP's `backupDownloadCredentialsSecret`
//! (ACCESS_KEY_ID, SECRET_ACCESS_KEY, BUCKET_NAME, ENDPOINT) names a bucket by itself; with a destination it holds who opens an encrypted snapshot (identity,
//! passphrase), or both.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_cli::locations::LocationArgs;
use backup_core::api::BackupStorageLocation;
use backup_core::cluster::Cluster;
use backup_core::crypt::{self, Identities, Opener};
use backup_core::etcd::{catalog, destination, manifest, names};
use backup_core::location::{self, Credentials, Location, Store, object};
use backup_core::name::Name;
use backup_core::{Error, Kind, Result};
use kube::Client;

use crate::source::{At, Expected, Source, plain};

/// An answer of the hosting API takes no longer, or it is away.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keys of a Secret with who opens encrypted snapshots.
const IDENTITY: &str = "identity";
const PASSPHRASE: &str = "passphrase";

/// What is asked of a destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// Namespace of the object that asks.
    pub(crate) namespace: &'a str,
    /// `spec.destination`; empty where it names none.
    pub(crate) destination: &'a str,
    /// `spec.backupDownloadCredentialsSecret`; empty where it names none.
    pub(crate) secret: &'a str,
}

/// A snapshot that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// How to read it.
    pub(crate) source: Source,
    /// What its manifest promises.
    pub(crate) expected: Expected,
    /// Its manifest, where it has one.
    pub(crate) manifest: Option<manifest::Manifest>,
    /// Where it is encrypted: what opens it.
    locked: Option<(Store, Box<catalog::Entry>)>,
}

impl Found {
    /// One of ours; where it is encrypted and was not opened, nothing is promised.
    fn ours(store: &Store, entry: catalog::Entry) -> Self {
        let manifest = entry.manifest.clone();
        let opener = entry.key().cloned().map(Opener::Key);
        let at = At::Object {
            store: store.clone(),
            key: entry.data(),
        };
        Self {
            source: Source::new(at, opener.unwrap_or_default()),
            expected: Expected {
                stored_sha256: Some(manifest.data.sha256.clone()),
                sha256: Some(manifest.snapshot.sha256.clone()).filter(|sha| !sha.is_empty()),
                digest: manifest.digest.clone(),
            },
            locked: entry.is_locked().then(|| (store.clone(), Box::new(entry))),
            manifest: Some(manifest),
        }
    }

    /// Whether it is encrypted, and was not opened.
    pub(crate) fn is_locked(&self) -> bool {
        self.locked.is_some()
    }

    /// The same, opened; as it is where it is not encrypted and nobody `asked` for one that is.
    ///
    /// # Errors
    /// `Unauthorized` where no identity fits; `Corrupt` where somebody altered what stands, or put a plain one there; the store's.
    pub(crate) async fn unlocked(self, identities: &Identities, asked: bool) -> Result<Self> {
        match self.locked {
            None if asked => Err(plain(&self.source.to_string())),
            None => Ok(self),
            Some((store, entry)) => Ok(Self::ours(
                &store,
                entry.unlocked(&store, identities).await?,
            )),
        }
    }
}

/// Opens the destination; nothing is sent to the store yet.
///
/// # Errors
/// `NotFound` where there is none of that name, listing those there are; what the location or its Secret lacks; `Unreachable` where the hosting
/// API does not say.
pub(crate) async fn open(client: &Client, wanted: &Wanted<'_>) -> Result<Location> {
    let opened = tokio::time::timeout(PATIENCE, look_up(client, wanted)).await;
    opened.unwrap_or_else(|_| {
        Err(Error::new(
            Kind::Unreachable,
            "can not look at the destination: the hosting API does not answer",
        ))
    })
}

async fn look_up(client: &Client, wanted: &Wanted<'_>) -> Result<Location> {
    let cluster = Cluster::new(client.clone(), "", "the hosting API");
    if wanted.destination.is_empty() {
        if wanted.secret.is_empty() {
            return Err(Error::invalid("the object names no destination")
                .hint("set spec.destination to the name of a BackupStorageLocation"));
        }
        let secret = object::secret(&cluster, wanted.namespace, wanted.secret).await?;
        return from_kkp(wanted.secret, &secret);
    }
    let mut found = destination::find(&cluster, wanted.namespace, wanted.destination).await?;
    let credentials = Credentials {
        file: found.credentials(&cluster).await?,
        of_object: true,
        ..Credentials::default()
    };
    if credentials.file.is_none() && location::leads_elsewhere(&found.spec.spec).is_some() {
        return location::open(&found.spec, &credentials);
    }
    // At the provider itself the launcher's own role serves, as the controller's does; STS has its address from here.
    LocationArgs::default()
        .open_with(&found.spec, None, credentials)
        .map_err(backup_cli::error::CommandError::into_error)
}

/// Whether a Secret is named that holds who opens an encrypted snapshot: then no plain one is meant.
///
/// # Errors
/// A Secret that is named and is not there, or may not be read.
pub(crate) async fn names_identity(client: &Client, wanted: &Wanted<'_>) -> Result<bool> {
    if wanted.secret.is_empty() {
        return Ok(false);
    }
    let secret = read_secret(client, wanted).await?;
    Ok(secret.contains_key(IDENTITY) || secret.contains_key(PASSPHRASE))
}

async fn read_secret(client: &Client, wanted: &Wanted<'_>) -> Result<BTreeMap<String, Vec<u8>>> {
    let cluster = Cluster::new(client.clone(), "", "the hosting API");
    let secret = object::secret(&cluster, wanted.namespace, wanted.secret);
    tokio::time::timeout(PATIENCE, secret).await.map_err(|_| {
        Error::new(
            Kind::Unreachable,
            "can not read the identity: the hosting API does not answer",
        )
    })?
}

/// An error of who does not fit, with what to do in the cluster: a flag is no help there.
pub(crate) fn of_secret(e: Error, wanted: &Wanted<'_>) -> Error {
    if e.kind() != Kind::Unauthorized || wanted.secret.is_empty() {
        return e;
    }
    e.hint(format!(
        "put a private key of one of the recipients under the key {IDENTITY} of Secret {}/{}, or the passphrase (of the snapshot, or of that private key) under {PASSPHRASE}, and make a new EtcdRestore",
        wanted.namespace, wanted.secret
    ))
}

/// Who opens encrypted snapshots: what the Secret holds that `spec.backupDownloadCredentialsSecret` names, beside the keys of a bucket or alone.
///
/// # Errors
/// A Secret that is not there or may not be read; one that holds neither an identity nor a passphrase.
pub(crate) async fn identities(client: &Client, wanted: &Wanted<'_>) -> Result<Identities> {
    if wanted.secret.is_empty() {
        return Err(Error::new(
            Kind::Unauthorized,
            "the snapshots are encrypted, and the object names no identity",
        )
        .hint(format!(
            "put the private key of one of the recipients into a Secret of namespace {}, under the key {IDENTITY}, and name the Secret in spec.backupDownloadCredentialsSecret of a new EtcdRestore",
            wanted.namespace
        )));
    }
    let secret = read_secret(client, wanted).await?;
    let name = format!("Secret {}/{}", wanted.namespace, wanted.secret);
    let passphrase = secret.get(PASSPHRASE).map(|bytes| {
        String::from_utf8(bytes.clone())
            .ok()
            .and_then(crypt::passphrase)
            .ok_or_else(|| Error::invalid(format!("{PASSPHRASE} of {name} is empty or no text")))
    });
    let mut identities = Identities::new(passphrase.transpose()?).beside_others();
    if let Some(identity) = secret.get(IDENTITY) {
        identities.add(&format!("{IDENTITY} of {name}"), identity.clone());
    }
    if identities.is_empty() {
        return Err(Error::new(
            Kind::Unauthorized,
            format!("the snapshots are encrypted, and {name} holds no identity"),
        )
        .hint(format!(
            "its key {IDENTITY} has to hold a private key of one of the recipients, or its key {PASSPHRASE} the passphrase"
        )));
    }
    Ok(identities)
}

/// KKP's own form of a bucket and its keys.
fn from_kkp(name: &str, secret: &BTreeMap<String, Vec<u8>>) -> Result<Location> {
    let text = |key: &str| {
        secret
            .get(key)
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Error::invalid(format!("Secret {name} has no {key}")))
    };
    let endpoint = text("ENDPOINT")?;
    let mut spec = BackupStorageLocation::default();
    spec.metadata.name = name.to_owned();
    spec.spec.provider = "aws".to_owned();
    spec.spec.object_storage.bucket = text("BUCKET_NAME")?.to_owned();
    let url = if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("https://{endpoint}")
    };
    spec.spec.config = [
        ("s3Url", url.as_str()),
        ("region", "us-east-1"),
        ("s3ForcePathStyle", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let file = format!(
        "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
        text("ACCESS_KEY_ID")?,
        text("SECRET_ACCESS_KEY")?
    );
    let credentials = Credentials {
        file: Some(file.into_bytes()),
        ..Credentials::default()
    };
    location::open(&spec, &credentials)
}

/// Finds the one snapshot that is meant: ours in the cluster's folder, else KKP's in the bucket's root.
///
/// # Errors
/// `NotFound` and `Invalid` with candidates; the store's.
pub(crate) async fn find(location: &Location, cluster: &str, asked: &str) -> Result<Found> {
    let wanted = names::Asked::parse(asked, cluster)?;
    let store = &location.store;
    let folder = Name::foreign(cluster)?;
    let known = catalog::names(store, &folder).await?;
    let texts: Vec<&str> = known.iter().map(Name::as_str).collect();
    let ours = wanted.choose(&texts, |name| name);
    match ours {
        Ok(name) => {
            let entry = catalog::get(store, &folder, &Name::foreign(name)?).await?;
            Ok(Found::ours(store, entry))
        }
        Err(absent) if absent.kind() == Kind::NotFound => {
            match kkp_key(location, cluster, asked).await? {
                Some(key) => Ok(Found {
                    source: Source::new(
                        At::Object {
                            store: store.clone(),
                            key,
                        },
                        Opener::default(),
                    ),
                    expected: Expected::default(),
                    manifest: None,
                    locked: None,
                }),
                None => Err(absent.context(format!(
                    "no snapshot of cluster {cluster} at {} is called {asked:?}",
                    store.place()
                ))),
            }
        }
        Err(e) => Err(e),
    }
}

/// The key of a snapshot that KKP took: `<cluster>-<name>.db.gz`, right in the bucket.
async fn kkp_key(location: &Location, cluster: &str, asked: &str) -> Result<Option<String>> {
    for key in kkp_keys(cluster, asked) {
        match location.store.head(&key).await {
            Ok(_) => return Ok(Some(key)),
            Err(e) if e.kind() == Kind::NotFound && e.hint_text().is_none() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

fn kkp_keys(cluster: &str, asked: &str) -> Vec<String> {
    let before = format!("{cluster}-");
    let bare = asked.strip_prefix(&before).unwrap_or(asked);
    let (bare, ending) = match bare.find(".db") {
        Some(at) => bare.split_at(at),
        None => (bare, ""),
    };
    // The time is written `2026-01-02T03:04:05` by people and `2026-01-02t03-04-05` by KKP.
    let lower = bare.to_lowercase().replace(':', "-");
    let mut keys = Vec::new();
    for name in [bare, lower.as_str()] {
        for ending in [ending, ".db.gz", ".db"] {
            let key = format!("{before}{name}{ending}");
            if !ending.is_empty() && !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_as_kkp_writes_it() {
        let usual = "zvc78xnnz7-daily-2026-01-02t03-04-05.db.gz";
        for asked in [
            "daily-2026-01-02t03-04-05.db.gz",
            "daily-2026-01-02T03:04:05",
            usual,
        ] {
            let keys = kkp_keys("zvc78xnnz7", asked);
            assert!(keys.iter().any(|key| key == usual), "{asked}: {keys:?}");
            assert!(keys.len() <= 6);
        }
    }

    #[test]
    fn kkps_secret_is_a_bucket_and_a_missing_key_is_named() {
        let mut secret: BTreeMap<String, Vec<u8>> = [
            ("ACCESS_KEY_ID", "a"),
            ("SECRET_ACCESS_KEY", "s"),
            ("BUCKET_NAME", "b"),
            ("ENDPOINT", "127.0.0.1:9000"),
        ]
        .map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec()))
        .into();
        let location = from_kkp("x", &secret).unwrap();
        assert_eq!(location.spec.spec.config["s3Url"], "https://127.0.0.1:9000");
        secret.remove("BUCKET_NAME");
        let refused = from_kkp("x", &secret).unwrap_err();
        assert!(refused.to_string().contains("BUCKET_NAME"), "{refused}");
    }
}
