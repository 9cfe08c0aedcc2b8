//! Who made a backup: an Ed25519 signature of the exact bytes of its SHA256SUMS, 64 bytes in `SHA256SUMS.sig`, which `openssl pkeyutl -verify -rawin` checks as
//! well. SHA256SUMS holds the digest of the marker, and the marker the backup's name: neither can be given to another backup. Reads keys as OpenSSL writes
//! them; files of keys are read by the caller.
//!
//! What is vouched for is read in a way in which nothing else can take its place: the marker by its digest, the index whole once and then by the digest of its
//! table of contents, which holds those of its frames, and these those of the archive's members.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::archive::index::Index;
use crate::archive::read::Archive;
use crate::catalog::{self, Digests, Entry};
use crate::error::{Error, Kind, Result, quoted};
use crate::layout::BackupKeys;
use crate::location::store::StoreSource;
use crate::location::{Location, Sha256, Store, sha256};
use crate::name::Name;
use crate::records::LARGEST_FILE;

/// The annotation of a location with the keys of which one has to have signed what is read there: the base64 lines of their PEM files, separated by commas.
pub const VERIFY_KEYS: &str = "kubectl-backup/verify-keys";

/// What comes before an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// The length of an Ed25519 signature.
const SIGNATURE: usize = 64;

/// No location asks for more keys.
const MOST_KEYS: usize = 100;

/// Signs backups.
pub struct SigningKey(Ed25519KeyPair);

/// Tells which key it is, never what it is.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

impl SigningKey {
    /// Reads a PEM file as `openssl genpkey -algorithm ed25519` writes it.
    ///
    /// # Errors
    /// `Invalid`, saying what it is instead.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let not = |what: &str| {
            Error::invalid(format!("it is no private key to sign with: {what}"))
                .hint("make one: openssl genpkey -algorithm ed25519 -out backups.key")
        };
        let text = String::from_utf8_lossy(pem);
        if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
            return Err(not(
                "it is encrypted with a passphrase, and nobody is asked for one",
            ));
        }
        if text.contains("BEGIN PUBLIC KEY") {
            return Err(not("it is the public key"));
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem)
            .map_err(|_| not("it holds no PEM block PRIVATE KEY (PKCS#8)"))?;
        Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map(Self)
            .map_err(|_| not("it is of another algorithm than Ed25519, or damaged"))
    }

    /// The key that checks what this one signs.
    pub fn public(&self) -> VerifyKey {
        let mut key = [0; 32];
        // An Ed25519 key has 32 bytes.
        key.copy_from_slice(self.0.public_key().as_ref());
        VerifyKey(key)
    }

    /// The signature of these bytes.
    pub fn sign(&self, bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(self.0.sign(bytes).as_ref())
    }
}

/// Checks signatures. Shown as its fingerprint: the first half of the SHA-256 of its SubjectPublicKeyInfo, `openssl pkey -pubin -outform der | sha256sum`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyKey([u8; 32]);

impl fmt::Display for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.32}", sha256(&self.der()))
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({self})")
    }
}

impl VerifyKey {
    /// Reads all keys of a PEM file as `openssl pkey -pubout` writes it.
    ///
    /// # Errors
    /// `Invalid`, saying what it is instead.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>> {
        let not = |what: &str| {
            Error::invalid(format!("it is no public key: {what}"))
                .hint("write one: openssl pkey -in backups.key -pubout -out backups.pub")
        };
        if String::from_utf8_lossy(pem).contains("PRIVATE KEY") {
            return Err(not(
                "it is a private one, which is for who writes backups alone",
            ));
        }
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| not("a PEM block of it can not be read"))?;
            let key = Self::from_der(&der);
            keys.push(key.ok_or_else(|| not("it is of another algorithm than Ed25519"))?);
        }
        if keys.is_empty() {
            return Err(not("it holds no PEM block PUBLIC KEY"));
        }
        Ok(keys)
    }

    fn from_der(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI)?.try_into().ok().map(Self)
    }

    fn der(&self) -> Vec<u8> {
        [&SPKI[..], &self.0].concat()
    }

    fn has_signed(&self, bytes: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.0);
        key.verify(bytes, signature).is_ok()
    }
}

/// Keys as [`VERIFY_KEYS`] has them.
pub fn to_text(keys: &[VerifyKey]) -> String {
    let lines: Vec<_> = keys.iter().map(|key| STANDARD.encode(key.der())).collect();
    lines.join(",")
}

/// Reads [`VERIFY_KEYS`]. Whatever can not be understood is an error: a location that asks for a key is never one that asks for none.
///
/// # Errors
/// `Invalid`.
pub fn from_text(text: &str) -> Result<Vec<VerifyKey>> {
    let not = || {
        Error::invalid(format!(
            "annotation {VERIFY_KEYS} does not hold Ed25519 public keys"
        ))
        .hint("it is the base64 line of each key's PEM file, separated by commas")
    };
    let lines = text.split([',', '\n']).map(str::trim);
    let keys: Option<Vec<_>> = lines
        .filter(|line| !line.is_empty())
        .map(|line| VerifyKey::from_der(&STANDARD.decode(line).ok()?))
        .collect();
    keys.filter(|keys| !keys.is_empty() && keys.len() <= MOST_KEYS)
        .ok_or_else(not)
}

/// How a location has its backups signed.
#[derive(Clone, Debug, Default)]
pub struct Signatures {
    /// Signs what is written.
    pub sign: Option<Arc<SigningKey>>,
    /// One of them has to have signed what is read; where there is none, nobody asks.
    pub keys: Vec<VerifyKey>,
}

impl Signatures {
    /// Whether a backup that is made here could be read here.
    ///
    /// # Errors
    /// `Invalid`, where it could not.
    pub fn may_write(&self, location: &str) -> Result<()> {
        let Some(sign) = &self.sign else {
            if self.keys.is_empty() {
                return Ok(());
            }
            return Err(Error::invalid(format!(
                "backups of location {location:?} have to be signed, and there is no key to sign with"
            ))
            .hint(match location.contains("://") {
                // A URL remembers nothing.
                true => "give it with --signing-key-file, or have it remembered by the location whose place it is: kubectl backup location set NAME --signing-key-file FILE".to_owned(),
                false => format!(
                    "give it with --signing-key-file, or have it remembered: kubectl backup location set {} --signing-key-file FILE",
                    quoted(location)
                ),
            }));
        };
        let key = sign.public();
        if self.keys.is_empty() || self.keys.contains(&key) {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the key to sign with ({key}) is none of those that location {location:?} asks for ({})",
            list(&self.keys)
        ))
        .hint("what it signs would be refused there: add its public key with --verify-key, or sign with another"))
    }
}

fn list(keys: &[VerifyKey]) -> String {
    let keys: Vec<_> = keys.iter().map(ToString::to_string).collect();
    keys.join(", ")
}

/// A backup that one of a location's keys has signed.
#[derive(Clone, Debug)]
pub struct Vouched {
    /// Its marker, which is what was signed.
    pub entry: Entry,
    /// The key.
    pub by: VerifyKey,
    digests: Digests,
    sums: Bytes,
}

/// Whether one of the location's keys has signed the backup; nothing where the location asks for none.
///
/// # Errors
/// `Corrupt`, where none has, or the marker is not the one that was signed; and the store's.
pub async fn check(location: &Location, name: &Name) -> Result<Option<Vouched>> {
    check_for(&location.store, location, name).await
}

/// The same of a backup in another store, for who copies it to the location.
///
/// # Errors
/// As [`check`].
pub(crate) async fn check_for(
    store: &Store,
    location: &Location,
    name: &Name,
) -> Result<Option<Vouched>> {
    let wanted = &location.signatures.keys;
    if wanted.is_empty() {
        return Ok(None);
    }
    let entry = catalog::get(store, name).await?;
    let keys = BackupKeys::new(name);
    let refused = |why: String, hint: &str| {
        Error::corrupt(format!(
            "backup {name} is refused: {why} (location {:?} asks for {})",
            location.name,
            list(wanted)
        ))
        .hint(hint)
    };
    let signature = match store.find(&keys.signature(), SIGNATURE as u64).await {
        Ok(Some(signature)) => signature,
        Ok(None) => {
            return Err(refused(
                "it is not signed".to_owned(),
                "who made it without a key may have been anybody who can write there; where it is known to be good, give its place a second name without --verify-key (kubectl backup location create), of which no key is asked for, and read it by that",
            ));
        }
        Err(e) if e.kind() == Kind::Corrupt => {
            return Err(refused(
                "SHA256SUMS.sig is no signature".to_owned(),
                "somebody put it there; take an older backup, and look who can write there",
            ));
        }
        Err(e) => return Err(e),
    };
    let signed = match catalog::read_digests(store, &keys).await {
        Err(e) if e.kind() == Kind::Corrupt => {
            return Err(refused("SHA256SUMS is damaged".to_owned(), ALTERED).because(e));
        }
        read => read?,
    };
    let Some((sums, digests)) = signed else {
        return Err(refused("SHA256SUMS is missing".to_owned(), ALTERED));
    };
    let Some(by) = wanted.iter().find(|key| key.has_signed(&sums, &signature)) else {
        return Err(refused(
            "its signature is of none of the keys, or of other bytes".to_owned(),
            "it was signed with another key, or altered since; where that key is to count, add it: location set NAME --verify-key FILE",
        ));
    };
    let vouched = Vouched {
        by: *by,
        digests,
        sums,
        entry,
    };
    let marker = sha256(&vouched.entry.raw);
    vouched.holds(&keys.marker(), Some(&marker))?;
    Ok(Some(vouched))
}

/// Where the marker and the side files of a backup are to be read: its location's store or, where that asks for signatures, what was signed of them.
///
/// # Errors
/// As [`check`]; `Corrupt`, where one is not what was signed.
pub(crate) async fn small_files(location: &Location, name: &Name) -> Result<Store> {
    match check(location, name).await? {
        Some(vouched) => vouched.small(&location.store).await,
        None => Ok(location.store.clone()),
    }
}

/// The side files that say what became of volumes.
fn told_of_volumes(keys: &BackupKeys) -> [String; 5] {
    [
        keys.volume_info(),
        keys.volume_snapshots(),
        keys.pod_volume_backups(),
        keys.csi_volume_snapshots(),
        keys.csi_volume_snapshot_contents(),
    ]
}

const ALTERED: &str =
    "it was altered since it was signed; take another backup, and look who can write there";

impl Vouched {
    /// Compares a file's digest, nothing where it is not there, with what was signed.
    fn holds(&self, key: &str, found: Option<&str>) -> Result<()> {
        let file = key.rsplit('/').next().unwrap_or(key);
        if self.digests.of(file) == found {
            return Ok(());
        }
        let name = &self.entry.name;
        let what = match (self.digests.of(file), found) {
            (_, None) => "is missing, though it was signed",
            (None, _) => "was not there when it was signed",
            _ => "is not what was signed",
        };
        Err(Error::corrupt(format!("backup {name} is refused: {file} {what}")).hint(ALTERED))
    }

    /// Whether what was read later is still what was signed.
    ///
    /// # Errors
    /// `Corrupt`, where it is not.
    pub(crate) fn is(&self, entry: &Entry, sums: Option<&Bytes>) -> Result<()> {
        if entry.raw == self.entry.raw && sums == Some(&self.sums) {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "backup {} is refused: it was altered while it was read",
            self.entry.name
        ))
        .hint(ALTERED))
    }

    /// Reads a file whole, and compares it with what was signed.
    ///
    /// # Errors
    /// `Corrupt`, where it is another one; and the store's.
    pub async fn file(&self, store: &Store, key: &str) -> Result<()> {
        let mut body = match store.stream(key).await {
            Err(e) if crate::location::store::is_absent(&e) => return self.holds(key, None),
            body => body?,
        };
        let mut digest = Sha256::default();
        while let Some(chunk) = body.next().await {
            digest.update(&chunk?);
        }
        self.holds(key, Some(&digest.finish()))
    }

    /// Compares what was read of a file elsewhere with what was signed.
    ///
    /// # Errors
    /// `Corrupt`, where it is another one.
    pub fn read(&self, key: &str, sha256: &str) -> Result<()> {
        self.holds(key, Some(sha256))
    }

    /// Opens the archive, of which nothing is read but what was signed. The side files that say what became of volumes are read as well.
    ///
    /// # Errors
    /// `Corrupt`, where anything is another one; and the store's.
    pub async fn open(&self, store: &Store) -> Result<Archive<StoreSource>> {
        let keys = BackupKeys::new(&self.entry.name);
        for key in told_of_volumes(&keys) {
            self.file(store, &key).await?;
        }
        let archive =
            Archive::open(store.source(keys.archive()), store.source(keys.index())).await?;
        self.index(&archive.index, &keys.index()).await?;
        Ok(archive)
    }

    /// The marker, and what says what became of volumes, as it was signed: in memory, where nothing takes its place between the look and the use.
    ///
    /// # Errors
    /// `Corrupt`, where one is another one; and the store's.
    async fn small(&self, store: &Store) -> Result<Store> {
        let keys = BackupKeys::new(&self.entry.name);
        let small = Store::in_memory();
        small.put(&keys.marker(), self.entry.raw.clone()).await?;
        for key in told_of_volumes(&keys) {
            let bytes = store.find(&key, LARGEST_FILE).await?;
            let digest = bytes.as_ref().map(|bytes| sha256(bytes));
            self.holds(&key, digest.as_deref())?;
            if let Some(bytes) = bytes {
                small.put(&key, bytes).await?;
            }
        }
        Ok(small)
    }

    /// The digests that were signed.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    async fn index(&self, index: &Index<StoreSource>, key: &str) -> Result<()> {
        match index.whole().await? {
            Some(sha256) => self.holds(key, Some(&sha256)),
            None => self.holds(key, Some("another one each time it is read")),
        }
    }
}

#[cfg(test)]
mod tests;
