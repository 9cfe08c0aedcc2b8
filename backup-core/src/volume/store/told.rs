//! What the run that makes a backup and the pod that does its work for it need of a volume's repositories beside the backup itself: whether the store is within reach, whose a key is,
//! and whether a snapshot stands that was told of. Reads only.

use super::{Of, VolumeStore, begin, on_a_thread};
use crate::crypt::LARGEST_KEY_FILE;
use crate::error::{Error, Result};
use crate::location::{Lending, sha256};
use crate::volume::key::Keyring;
use crate::volume::repository::{Access, Open};

impl VolumeStore {
    /// The same for one who lists no more than these repositories.
    #[must_use]
    pub(in super::super) fn knowing(self, repositories: Vec<u32>) -> Self {
        Self {
            known: Some(repositories),
            ..self
        }
    }

    /// Whether a pod is kept quiet while a backup is made.
    pub(in super::super) fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    /// `CLUSTER/NAMESPACE/UID`
    pub(in super::super) fn name(&self) -> String {
        self.keys.volume()
    }

    /// Who lends credentials for all that it has here; else why nobody does.
    ///
    /// # Errors
    /// Why, for people.
    pub fn lending(&self) -> Result<Lending, String> {
        self.store.lending(&self.keys)
    }

    /// Errors where what it has here can not be read.
    pub(in super::super) async fn reach(&self) -> Result<()> {
        begin::reach(&self.store, &self.keys, self.known.as_deref()).await
    }

    /// Whether the password of one of its repositories stands sealed in this form.
    pub(in super::super) async fn has_sealed_key(&self, digest: &str) -> Result<bool> {
        for number in self.repositories().await? {
            let key = self.keys.numbered(number).sealed_key();
            let stands = self.store.find(&key, LARGEST_KEY_FILE).await?;
            if stands.is_some_and(|bytes| sha256(&bytes) == digest) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As [`stands::problems`](super::super::stands::problems).
    pub(in super::super) async fn problems(
        &self,
        number: u32,
        snapshot: &str,
    ) -> Result<Vec<String>> {
        super::super::stands::problems(&self.store, &self.keys.numbered(number), snapshot).await
    }

    /// Errors unless this snapshot opens with a key that this writer knows, is this program's, and was made in this run for this backup.
    pub(in super::super) async fn is_made(
        &self,
        (number, snapshot): (u32, &str),
        ring: &Keyring<'_>,
        of: &Of,
        run: &str,
    ) -> Result<()> {
        let keys = self.keys.numbered(number);
        let what = format!("snapshot {snapshot} in {}", keys.repository());
        let password = ring.of_writer(&self.store, &keys).await?;
        let password = password.ok_or_else(|| {
            Error::corrupt(format!("{what} is under a key that was not made here"))
        })?;
        let objects = self.objects(&keys, Access::Read);
        let id = snapshot.to_owned();
        let found =
            on_a_thread(move || Open::by_password(objects, password.text())?.snapshot(&id)).await;
        let found = found.map_err(|e| e.context(format!("{what} can not be read")))?;
        let has = |tag: &String| found.tags.contains(tag);
        if !found.is_ours || !of.tags(run).iter().all(has) {
            return Err(Error::corrupt(format!(
                "{what} is not the one of this run of this backup"
            )));
        }
        Ok(())
    }
}
