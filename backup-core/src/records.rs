//! Reads what the side files of a backup or restore say: log, results, resource list, volumes, claims. Every file is bounded; one
//! that is absent is empty, as Velero holds it. Writes nothing.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::name::Name;

/// No side file is larger, compressed.
const LARGEST_FILE: u64 = 64 << 20;

/// No side file is larger, uncompressed.
const LARGEST_TEXT: u64 = 256 << 20;

/// More claims than that in one folder are not looked at.
const MOST_CLAIMS: usize = 100;

/// Errors or warnings, as Velero sorts them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Messages {
    #[serde(skip_serializing_if = "Option::is_none")]
    velero: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<BTreeMap<String, Vec<String>>>,
}

impl Messages {
    /// Where each belongs (empty for the tool's own, `cluster`, or a namespace) and what it says.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        fn lines<'a>(
            place: &'a str,
            list: &'a [String],
        ) -> impl Iterator<Item = (&'a str, &'a str)> {
            list.iter().map(move |text| (place, text.as_str()))
        }
        let velero = lines("", self.velero.as_deref().unwrap_or_default());
        let cluster = lines("cluster", self.cluster.as_deref().unwrap_or_default());
        let namespaces = self.namespaces.iter().flatten();
        velero
            .chain(cluster)
            .chain(namespaces.flat_map(|(namespace, list)| lines(namespace, list)))
    }
}

/// The results of a backup or restore.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Results {
    /// What is missing.
    pub errors: Messages,
    /// What the user should know.
    pub warnings: Messages,
}

/// A volume of a backup.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// The claim's name.
    pub pvc_name: String,
    /// The claim's namespace.
    pub pvc_namespace: String,
    /// The volume's name.
    pub pv_name: String,
    /// `NativeSnapshot`, `PodVolumeBackup`, `CSISnapshot`; empty where nothing was saved.
    pub backup_method: String,
    /// Whether its data was left out.
    pub skipped: bool,
    /// Why.
    pub skipped_reason: String,
    /// `succeeded` or `failed`
    pub result: String,
}

/// A run that works, or worked, in a backup's folder.
#[derive(Clone, Debug, Serialize)]
pub struct ClaimSeen {
    /// The run.
    pub run: String,
    /// `create`, `delete` or `prune`; empty where it can not be read.
    pub purpose: String,
    /// The machine.
    pub host: String,
    /// When it was last refreshed, by the store's clock.
    pub refreshed: Timestamp,
}

/// A gzip text, whole; empty where it is absent.
///
/// # Errors
/// `Corrupt`, and the store's.
pub async fn text(store: &Store, key: &str) -> Result<Vec<u8>> {
    let Some(bytes) = store.find(key, LARGEST_FILE).await? else {
        return Ok(Vec::new());
    };
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes.as_ref())
        .take(LARGEST_TEXT + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::corrupt(format!("{key} is no gzip file")).because(e))?;
    if text.len() as u64 > LARGEST_TEXT {
        return Err(Error::corrupt(format!(
            "{key} is larger than {} MiB",
            LARGEST_TEXT >> 20
        )));
    }
    Ok(text)
}

async fn json<T: DeserializeOwned + Default>(store: &Store, key: &str) -> Result<T> {
    let text = text(store, key).await?;
    if text.is_empty() {
        return Ok(T::default());
    }
    // Go writes an empty list as `null`.
    serde_json::from_slice::<Option<T>>(&text)
        .map(Option::unwrap_or_default)
        .map_err(|e| Error::corrupt(format!("{key} is not what it should be")).because(e))
}

/// Errors and warnings.
///
/// # Errors
/// `Corrupt`, and the store's.
pub async fn results(store: &Store, key: &str) -> Result<Results> {
    json(store, key).await
}

/// `<apiVersion>/<Kind>` to `ns/name`s.
///
/// # Errors
/// `Corrupt`, and the store's.
pub async fn resource_list(store: &Store, key: &str) -> Result<BTreeMap<String, Vec<String>>> {
    json(store, key).await
}

/// The volumes.
///
/// # Errors
/// `Corrupt`, and the store's.
pub async fn volumes(store: &Store, key: &str) -> Result<Vec<Volume>> {
    json(store, key).await
}

/// The claims in a backup's folder.
///
/// # Errors
/// The store's.
pub async fn claims(store: &Store, name: &Name) -> Result<Vec<ClaimSeen>> {
    let folder = BackupKeys::new(name).folder();
    let mut entries = store.list(&folder);
    let mut claims = Vec::new();
    while let Some(entry) = entries.next().await {
        let entry = entry?;
        let Some(run) = entry
            .key
            .strip_prefix(&folder)
            .and_then(BackupKeys::claim_run)
        else {
            continue;
        };
        let claim: Value = match store.find(&entry.key, 1 << 20).await? {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            // It was withdrawn in between.
            None => continue,
        };
        let field = |name: &str| claim[name].as_str().unwrap_or_default().to_owned();
        claims.push(ClaimSeen {
            run: run.to_owned(),
            purpose: field("purpose"),
            host: field("host"),
            refreshed: entry.modified,
        });
        if claims.len() >= MOST_CLAIMS {
            break;
        }
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_velero_writes_them() {
        let text = r#"{"errors":{"velero":["a"],"cluster":null,"namespaces":{"ns":["b","c"]}},"warnings":{}}"#;
        let results: Results = serde_json::from_str(text).unwrap();
        let errors: Vec<_> = results.errors.iter().collect();
        assert_eq!(errors, [("", "a"), ("ns", "b"), ("ns", "c")]);
        assert_eq!(results.warnings.iter().count(), 0);
    }
}
