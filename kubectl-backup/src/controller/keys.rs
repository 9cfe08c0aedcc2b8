//! The key cache of a controller: a Secret of its namespace, an entry for each key that it made, named by the digest of its sealed form. Never needed to restore: a controller that
//! lost it begins the next repository of each volume.

use backup_core::Error;
use backup_core::backup::EXCLUDE_LABEL;
use backup_core::cluster::{ApiError, Call, Cluster};
use backup_core::crypt::{ExposeSecret as _, SecretString};
use backup_core::volume::key::{Kept, KeptKey, KeyCache};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::install::{CONTROLLER, VOLUME_KEYS, labels};

/// A Secret is not larger than etcd takes.
const LARGEST: usize = 4 << 20;

/// Keys in a Secret.
pub(crate) struct SecretKeys {
    cluster: Cluster,
    namespace: String,
}

impl SecretKeys {
    pub(crate) fn new(cluster: &Cluster, namespace: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            namespace: namespace.to_owned(),
        }
    }

    fn secrets(&self) -> String {
        format!("/api/v1/namespaces/{}/secrets", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{VOLUME_KEYS}", self.secrets())
    }

    async fn read(&self, volume: &str, digest: &str) -> Result<Option<Kept>, ApiError> {
        let body = match self.cluster.get_bounded(&self.path(), LARGEST).await {
            Ok(body) => body,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        let secret: Value = serde_json::from_slice(&body).unwrap_or_default();
        let entry = secret["data"][digest].as_str().unwrap_or_default();
        let bytes = STANDARD.decode(entry).unwrap_or_default();
        Ok(KeptKey::read(volume, digest, &bytes))
    }

    async fn write(
        &self,
        volume: &str,
        digest: &str,
        password: &SecretString,
    ) -> Result<(), ApiError> {
        let entry = STANDARD.encode(KeptKey::write(volume, digest, password).expose_secret());
        // That entry alone: other copies write theirs. In no backup: the location of one may encrypt nothing.
        let patch =
            json!({"metadata": {"labels": {EXCLUDE_LABEL: "true"}}, "data": {digest: entry}});
        let patch = patch.to_string();
        let path = self.path();
        let call = Call::merge_patch(&path, patch.clone().into());
        match self.cluster.send(&call).await {
            Err(e) if e.is_not_found() => {}
            done => return done.map(drop),
        }
        let mut labels = labels(CONTROLLER);
        labels[EXCLUDE_LABEL] = "true".into();
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": VOLUME_KEYS, "namespace": self.namespace, "labels": labels},
            "data": {digest: entry},
        });
        let secrets = self.secrets();
        let made = Call::post(&secrets, object.to_string().into());
        match self.cluster.send(&made).await {
            Err(e) if e.is_already_exists() => {}
            done => return done.map(drop),
        }
        let call = Call::merge_patch(&path, patch.into());
        self.cluster.send(&call).await.map(drop)
    }

    fn failed(&self, e: ApiError) -> Error {
        let what = format!(
            "the keys of volumes in Secret {}/{VOLUME_KEYS}",
            self.namespace
        );
        Error::from(e)
            .context(format!("can not read or write {what}"))
            .hint("the roles that `install` makes allow it")
    }
}

/// Runs what is asked of a server where the caller waits on a thread of the runtime.
fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| Handle::current().block_on(work))
}

impl KeyCache for SecretKeys {
    fn get(&self, volume: &str, digest: &str) -> backup_core::Result<Option<Kept>> {
        wait(self.read(volume, digest)).map_err(|e| self.failed(e))
    }

    fn put(&self, volume: &str, digest: &str, password: &SecretString) -> backup_core::Result<()> {
        wait(self.write(volume, digest, password)).map_err(|e| self.failed(e))
    }
}
