//! Credentials that are lent: for the keys that begin with one prefix, for a quarter of an hour. Who lends them is a provider's; who has them opens the same location
//! with them, and gets the next ones in time. Neither is shown or logged.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde::{Deserialize, Serialize};

use super::Store;
use super::aws;
use super::store::is_absent;
use crate::api::BackupStorageLocation;
use crate::error::{Error, Kind, Result};
use crate::layout::VOLUMES;

/// Who lends.
#[async_trait]
pub(crate) trait Lender: Send + Sync {
    /// The location, as one opens it who has nothing but this and what is lent.
    fn spec(&self) -> &BackupStorageLocation;

    /// Credentials for the keys of the bucket that begin like this.
    ///
    /// # Errors
    /// Whoever gives them refuses, or is not reached.
    async fn lend(&self, prefix: &str) -> Result<Lent>;

    /// The location, opened with what was lent.
    ///
    /// # Errors
    /// As [`open`].
    fn open(&self, borrowed: Arc<Borrowed>) -> Result<Store> {
        open(self.spec(), borrowed)
    }
}

/// What was lent.
pub(crate) struct Lent {
    pub(crate) keys: LentKeys,
    /// How long they are good from now on.
    pub(crate) lasts: Duration,
}

/// A pair of keys and their token, as they are sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LentKeys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: String,
}

/// Without any secret.
impl fmt::Debug for LentKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentKeys").finish_non_exhaustive()
    }
}

/// A lender, and for which keys it is asked.
#[derive(Clone)]
pub struct Lending {
    pub(super) lender: Arc<dyn Lender>,
    pub(super) prefix: String,
}

/// Without any secret.
impl fmt::Debug for Lending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lending")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Lending {
    /// Those of this lender.
    #[cfg(test)]
    pub(crate) fn of(lender: Arc<dyn Lender>, prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        Self { lender, prefix }
    }

    /// As [`Lender::spec`].
    pub(crate) fn spec(&self) -> &BackupStorageLocation {
        self.lender.spec()
    }

    /// As [`Lender::lend`].
    pub(crate) async fn lend(&self) -> Result<Lent> {
        self.lender.lend(&self.prefix).await
    }

    /// Tries keys that were lent, within their prefix and outside of it: whoever ignores the policy of a session gives everything away. Nothing is written.
    ///
    /// # Errors
    /// They do not list their own folder, or anything but a refusal is the answer outside of it.
    pub(crate) async fn narrows(&self, keys: &LentKeys) -> Result<()> {
        let store = self.lender.open(Arc::new(Borrowed::new(keys.clone())))?;
        let prefix = self.spec().spec.object_storage.prefix.as_deref();
        let own = match prefix.unwrap_or_default().trim_matches('/') {
            "" => Some(self.prefix.as_str()),
            prefix => {
                let below = self.prefix.strip_prefix(prefix);
                below.and_then(|below| below.strip_prefix('/'))
            }
        };
        let own = own.ok_or_else(|| Error::other("the keys are not of this location"))?;
        // Keys that open nothing would be refused everywhere, and prove nothing.
        let listed = store.list(&format!("{own}/")).next().await.transpose();
        listed.map_err(|e| e.context("the keys for one volume do not list it"))?;
        for folder in ["backups/", VOLUMES] {
            let listed = store.list(folder).next().await.transpose();
            refused(listed, &format!("list {folder}"))?;
        }
        for key in ["backups/none/velero-backup.json", &format!("{own}0/config")] {
            refused(store.head(key).await, &format!("read {key}"))?;
        }
        Ok(())
    }
}

/// Errors where this was not refused.
fn refused<T>(answer: Result<T>, what: &str) -> Result<()> {
    let not = || {
        Error::other(format!("the store does not narrow keys: those for one volume may {what}")).hint(
        "nothing was given to the mover; whoever gives the keys has to hold them to the policy of their session",
    )
    };
    match answer {
        Err(e) if e.kind() == Kind::Forbidden => Ok(()),
        // It was allowed to look.
        Err(e) if is_absent(&e) => Err(not()),
        Err(e) => Err(e.context(format!(
            "whether keys for one volume may {what} is not known"
        ))),
        Ok(_) => Err(not()),
    }
}

/// What somebody has who was lent something: the newest keys sign.
pub(crate) struct Borrowed(RwLock<Arc<AwsCredential>>);

/// Without any secret.
impl fmt::Debug for Borrowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Borrowed").finish_non_exhaustive()
    }
}

impl From<LentKeys> for AwsCredential {
    fn from(keys: LentKeys) -> Self {
        Self {
            key_id: keys.id,
            secret_key: keys.secret,
            token: Some(keys.token),
        }
    }
}

impl Borrowed {
    pub(crate) fn new(keys: LentKeys) -> Self {
        Self(RwLock::new(Arc::new(keys.into())))
    }

    /// Newer keys have come.
    pub(crate) fn replace(&self, keys: LentKeys) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys.into());
    }
}

#[async_trait]
impl CredentialProvider for Borrowed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(&held))
    }
}

/// Opens a location with what was lent, and with nothing of this machine. Nothing is sent yet.
///
/// # Errors
/// `Invalid`: a location of which nothing can be lent, or settings that can not be.
pub(crate) fn open(spec: &BackupStorageLocation, borrowed: Arc<Borrowed>) -> Result<Store> {
    let provider = spec.spec.provider.as_str();
    if provider.strip_prefix("velero.io/").unwrap_or(provider) != "aws" {
        return Err(Error::invalid("of this location nothing can be lent"));
    }
    let prefix = spec.spec.object_storage.prefix.as_deref();
    let backend = aws::open_lent(spec, borrowed)?;
    Ok(Store::new(backend, prefix.unwrap_or_default(), false))
}
