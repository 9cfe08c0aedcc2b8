//! Where backups live: a BackupStorageLocation and its credentials become a [`Store`]. Reads no environment and asks no user.
//! A provider is a file with one function `open(spec, credentials)` that gives a [`Backend`](backend::Backend).

pub(crate) mod aws;
mod azure;
pub(crate) mod backend;
pub(crate) mod bucket;
pub mod check;
pub mod claim;
mod client;
mod failure;
mod gcp;
pub mod guard;
mod impatient;
pub mod kept;
pub mod kkp;
pub(crate) mod lend;
pub(crate) mod local;
pub mod object;
pub mod store;
#[cfg(test)]
pub(crate) mod trial;
mod upload;
pub mod url;
pub mod vault;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

use crate::api::{AccessMode, BackupStorageLocation, BackupStorageLocationSpec};
use crate::catalog::distance;
use crate::crypt::{BackupKey, Encrypt, Recipients, SecretString};
use crate::error::{Error, Result};
use crate::signature::{self, Signatures, VERIFY_KEYS};

pub use aws::{credentials_file, policies};
pub use lend::Lending;
pub use store::Store;
pub use upload::{Sha256, hex, sha256};

/// A location that can be used.
#[derive(Clone, Debug)]
pub struct Location {
    /// Its name, or the URL it was given by.
    pub name: String,
    /// Where it is.
    pub spec: BackupStorageLocation,
    /// Its objects, below the prefix.
    pub store: Store,
    /// Whether an installed Velero shares it; then it gets no guard.
    pub shared_with_velero: bool,
    /// How its backups are signed.
    pub signatures: Signatures,
    /// Where backups that are made there are encrypted: what is written beside each of them.
    pub key_files: Option<KeyFiles>,
    /// The key of the Secrets of one plain backup that is made or read.
    pub apart: Option<BackupKey>,
}

/// What stands beside an encrypted backup, so that its recipients can read it.
#[derive(Clone, Debug)]
pub struct KeyFiles {
    /// `key.age`
    pub key: Bytes,
    /// `recipients.txt`
    pub recipients: Bytes,
}

impl KeyFiles {
    /// The key of a backup, for these recipients.
    ///
    /// # Errors
    /// A passphrase that is not there.
    pub fn new(
        recipients: &Recipients,
        key: &BackupKey,
        passphrase: Option<&SecretString>,
    ) -> Result<Self> {
        let mut names = recipients.fingerprints().join("\n");
        names.push('\n');
        Ok(Self {
            key: recipients.wrap(key, passphrase)?,
            recipients: names.into(),
        })
    }
}

impl Location {
    /// A location in this process's memory, which ends with it; for tests.
    pub fn in_memory(name: &str) -> Self {
        let mut spec = BackupStorageLocation::default();
        spec.metadata.name = name.to_owned();
        spec.spec.provider = "memory".to_owned();
        Self {
            name: name.to_owned(),
            spec,
            store: Store::in_memory(),
            shared_with_velero: false,
            signatures: Signatures::default(),
            key_files: None,
            apart: None,
        }
    }

    /// The same for one backup that is to be made, with a fresh key for these recipients: what is written of it is encrypted.
    ///
    /// # Errors
    /// A passphrase that is not there; a location whose backups are signed.
    pub fn sealed(
        &self,
        recipients: &Recipients,
        passphrase: Option<&SecretString>,
    ) -> Result<Self> {
        if self.signatures.sign.is_some() || !self.signatures.keys.is_empty() {
            return Err(Error::invalid(format!(
                "backups in location {:?} are signed, and encrypted backups can not be signed yet",
                self.name
            ))
            .hint("use a location, or a prefix, of its own for encrypted backups"));
        }
        let key = BackupKey::generate();
        Ok(Self {
            store: self.store.vault(Some(&key)),
            key_files: Some(KeyFiles::new(recipients, &key, passphrase)?),
            ..self.clone()
        })
    }

    /// The same for one backup that is to be made, of which the Secrets alone are encrypted, with a fresh key for these recipients.
    ///
    /// # Errors
    /// A passphrase that is not there.
    pub fn sealed_secrets(
        &self,
        recipients: &Recipients,
        passphrase: Option<&SecretString>,
    ) -> Result<Self> {
        let key = BackupKey::generate();
        Ok(Self {
            key_files: Some(KeyFiles::new(recipients, &key, passphrase)?),
            apart: Some(key),
            ..self.clone()
        })
    }

    /// The same to read one plain backup with its Secrets. Nothing is written beside it, as of [`Location::opened`].
    #[must_use]
    pub fn with_secrets(&self, key: &BackupKey) -> Self {
        let mut opened = Self {
            apart: Some(key.clone()),
            ..self.clone()
        };
        opened.spec.spec.access_mode = Some(AccessMode::ReadOnly);
        opened
    }

    /// The same to read one encrypted backup. Nothing is written beside it: the record of a restore would tell in the clear what is in it.
    #[must_use]
    pub fn opened(&self, key: Option<&BackupKey>) -> Self {
        let mut opened = Self {
            store: self.store.vault(key),
            ..self.clone()
        };
        opened.spec.spec.access_mode = Some(AccessMode::ReadOnly);
        opened
    }

    /// Its encrypted backups in the place of its plain ones, without any key: to list, delete and prune.
    #[must_use]
    pub fn vault(&self) -> Self {
        Self {
            store: self.store.vault(None),
            key_files: None,
            apart: None,
            ..self.clone()
        }
    }

    /// Errors where its backups are to be encrypted, for what can not be.
    ///
    /// # Errors
    /// `Invalid`, naming the location.
    pub fn refuse_plain(&self, what: &str) -> Result<()> {
        let Some(asked) = Encrypt::of_location(&self.spec)? else {
            return Ok(());
        };
        match (&self.key_files, &self.apart) {
            (Some(_), None) => return Ok(()),
            (Some(_), Some(_)) if asked == Encrypt::Secrets => return Ok(()),
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "location {} has all of its backups encrypted, not their Secrets alone",
                    self.name
                ))
                .hint("leave --encrypt away, or use another location"));
            }
            (None, _) => {}
        }
        Err(Error::invalid(format!(
            "location {} has recipients, and {what} can not be encrypted yet",
            self.name
        ))
        .hint("whole backups are encrypted by `kubectl backup create`; use a location without recipients (annotation kubectl-backup/recipients) for the rest"))
    }

    /// Whether its spec says that nothing may be written.
    pub fn is_read_only(&self) -> bool {
        self.spec.spec.access_mode == Some(AccessMode::ReadOnly)
    }

    /// Whether what is read here has to be signed: what nobody signs, as the journals of restores, is not taken from here then.
    pub fn asks_for_signatures(&self) -> bool {
        !self.signatures.keys.is_empty()
    }
}

/// What a provider may need besides the location's spec; read by the caller.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The credentials file's content, in Velero's format for the provider.
    pub file: Option<Vec<u8>>,
    /// The environment's variables, for the SDK's usual names; empty where a file is given.
    pub environment: Vec<(String, String)>,
    /// The same where a file is given: they say where AWS's STS is, and what the file itself asks for.
    pub beside_file: Vec<(String, String)>,
    /// The files of AWS's tools as this machine's user has them, and their path; where no file is given.
    pub shared: Option<(Vec<u8>, String)>,
    /// A role that is taken with the credentials.
    pub role: Option<Role>,
    /// Whether the file comes out of a cluster: it may name no file and no role of this machine then.
    pub of_object: bool,
    /// PEM of further CAs to trust.
    pub ca_pem: Option<Vec<u8>>,
    /// The key of `config.customerKeyEncryptionSecret`, as it stands there.
    pub customer_key: Option<Vec<u8>>,
    /// Where the file is from, for messages: its path, or the Secret.
    pub origin: Option<String>,
}

/// A role of AWS that others may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// `arn:aws:iam::123456789012:role/backup`
    pub arn: String,
    /// What the role's owner wants to hear besides; no secret, as AWS has it.
    pub external_id: Option<String>,
}

/// Tells where they are from, never what they are.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("file", &self.file.is_some())
            .field("environment", &self.environment.len())
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Opens a location. Nothing is sent yet.
///
/// # Errors
/// `Invalid`, naming the setting: unknown provider, unknown config key, no bucket, unusable credentials file.
pub fn open(spec: &BackupStorageLocation, credentials: &Credentials) -> Result<Location> {
    let name = &spec.metadata.name;
    if spec.spec.object_storage.ca_cert_ref.is_some() {
        return Err(Error::invalid(format!(
            "location {name:?} can not be used: objectStorage.caCertRef names a Secret, which only an object of a cluster has beside it"
        ))
        .hint("give the CA's PEM file in base64 as objectStorage.caCert"));
    }
    let provider = spec.spec.provider.as_str();
    let backend = match provider.strip_prefix("velero.io/").unwrap_or(provider) {
        "aws" => aws::open(spec, credentials),
        "local" => local::open(spec, credentials),
        "gcp" => gcp::open(spec, credentials),
        "azure" => azure::open(spec, credentials),
        "" => Err(Error::invalid("the location names no provider")
            .hint(format!("set spec.provider to {}", providers()))),
        _ => Err(
            Error::invalid(format!("provider {provider:?} is not known"))
                .hint(format!("spec.provider is {}", providers())),
        ),
    }
    .map_err(|e| e.context(format!("location {name:?} can not be used")))?;
    let prefix = spec
        .spec
        .object_storage
        .prefix
        .as_deref()
        .unwrap_or_default();
    let prefix = prefix.trim_matches('/');
    let odd = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
    if !prefix.is_empty() && prefix.split('/').any(odd) {
        return Err(Error::invalid(format!(
            "location {name:?} can not be used: objectStorage.prefix {prefix:?} has empty or relative parts"
        )));
    }
    let keys = match spec.metadata.annotations.get(VERIFY_KEYS) {
        Some(text) => signature::from_text(text)
            .map_err(|e| e.context(format!("location {name:?} can not be used")))?,
        None => Vec::new(),
    };
    let signatures = Signatures { sign: None, keys };
    let read_only = spec.spec.access_mode == Some(AccessMode::ReadOnly);
    Ok(Location {
        name: name.clone(),
        spec: spec.clone(),
        store: Store::new(backend, prefix, read_only),
        shared_with_velero: false,
        signatures,
        key_files: None,
        apart: None,
    })
}

/// The providers there are.
const PROVIDERS: [&str; 4] = ["aws", "gcp", "azure", "local"];

fn providers() -> String {
    let (last, first) = PROVIDERS.split_last().unwrap_or((&"", &[]));
    format!("{} or {last}", first.join(", "))
}

/// The config keys of a provider that lead to a store or a sign-in service of one's own, the store's first.
fn address_keys(spec: &BackupStorageLocationSpec) -> &'static [&'static str] {
    let provider = spec.provider.as_str();
    match provider.strip_prefix("velero.io/").unwrap_or(provider) {
        "aws" => &["s3Url"],
        "gcp" => &["storeEndpoint", "universeDomain"],
        "azure" => &["storageAccountURI", "activeDirectoryAuthorityURI"],
        _ => &[],
    }
}

/// The first config key by which a spec leads to others than its provider, to whom keys that it does not bring are not known.
pub fn leads_elsewhere(spec: &BackupStorageLocationSpec) -> Option<&'static str> {
    let keys = address_keys(spec).iter().copied();
    keys.into_iter()
        .find(|key| client::set(&spec.config, key).is_some())
}

/// What tells a store from others with a bucket of the same name: its address, or for Azure the account.
pub fn store_address(spec: &BackupStorageLocationSpec) -> Option<&str> {
    let key = address_keys(spec).first()?;
    let account = || client::set(&spec.config, "storageAccount");
    client::set(&spec.config, key).or_else(account)
}

/// Errors unless every config key is one the provider knows.
fn known_keys(provider: &str, config: &BTreeMap<String, String>, known: &[&str]) -> Result<()> {
    let Some(key) = config.keys().find(|key| !known.contains(&key.as_str())) else {
        return Ok(());
    };
    let hint = if known.is_empty() {
        format!("provider {provider} takes no config")
    } else {
        let nearest = known.iter().min_by_key(|one| distance(key, one));
        let meant = nearest.filter(|one| distance(key, one) <= 3);
        let meant = meant.map_or(String::new(), |one| format!("{one} may be meant; "));
        format!(
            "{meant}the keys of provider {provider} are {}",
            known.join(", ")
        )
    };
    Err(Error::invalid(format!("config key {key:?} is not known")).hint(hint))
}
