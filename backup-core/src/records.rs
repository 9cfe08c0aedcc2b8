//! Reads what the side files of a backup or restore say: log, results, resource list, volumes, claims. Every file is bounded; one
//! that is absent is empty, as Velero holds it. Writes nothing.

mod bounded;
pub mod copies;
pub mod snapshots;
mod volumes;

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

pub(crate) use volumes::of_others;
pub use volumes::{Data, Ours, Volume, Volumes, volumes};

/// No side file is larger, compressed.
pub(crate) const LARGEST_FILE: u64 = 64 << 20;

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

impl Messages {
    /// Keeps so many messages, and of each so many characters; returns how many messages went.
    pub fn cut(&mut self, most: usize, longest: usize) -> usize {
        let namespaces = self.namespaces.iter_mut().flat_map(BTreeMap::values_mut);
        let lists = self.velero.iter_mut().chain(&mut self.cluster);
        let (mut left, mut gone) = (most, 0);
        for list in lists.chain(namespaces) {
            gone += list.len().saturating_sub(left);
            list.truncate(left);
            left -= list.len();
            for text in list {
                if let Some((end, _)) = text.char_indices().nth(longest) {
                    text.truncate(end);
                }
            }
        }
        gone
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
    text_within(store, key, LARGEST_TEXT).await
}

/// The same of at most so many bytes.
async fn text_within(store: &Store, key: &str, most: u64) -> Result<Vec<u8>> {
    let Some(bytes) = store.find(key, LARGEST_FILE).await? else {
        return Ok(Vec::new());
    };
    let mut text = Vec::new();
    MultiGzDecoder::new(bytes.as_ref())
        .take(most + 1)
        .read_to_end(&mut text)
        .map_err(|e| Error::corrupt(format!("{key} is no gzip file")).because(e))?;
    if text.len() as u64 > most {
        return Err(Error::corrupt(format!(
            "{key} is larger than {} MiB",
            most >> 20
        )));
    }
    Ok(text)
}

/// The end of a gzip text, so many bytes of it at most; empty where it is absent.
///
/// # Errors
/// As [`text`].
pub async fn end(store: &Store, key: &str, most: usize) -> Result<Vec<u8>> {
    let Some(bytes) = store.find(key, LARGEST_FILE).await? else {
        return Ok(Vec::new());
    };
    let mut unpacked = MultiGzDecoder::new(bytes.as_ref()).take(LARGEST_TEXT);
    let mut end = Vec::new();
    loop {
        let part = unpacked
            .by_ref()
            .take(most as u64)
            .read_to_end(&mut end)
            .map_err(|e| Error::corrupt(format!("{key} is no gzip file")).because(e))?;
        end.drain(..end.len().saturating_sub(most));
        if part == 0 {
            return Ok(end);
        }
    }
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
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::location::Location;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    }

    #[tokio::test]
    async fn of_a_long_text_the_end_is_read() {
        let store = Location::in_memory("mem").store;
        let text: Vec<u8> = (0..=9999)
            .flat_map(|n| format!("{n:04}\n").into_bytes())
            .collect();
        // Two members, as tools that append write.
        let packed = [gzip(&text[..7]), gzip(&text[7..])].concat();
        store.put("log", packed.into()).await.unwrap();
        let bad = b"no gzip".to_vec();
        store.put("bad", bad.into()).await.unwrap();
        assert_eq!(end(&store, "log", 10).await.unwrap(), b"9998\n9999\n");
        assert_eq!(end(&store, "log", 1 << 20).await.unwrap(), text);
        assert_eq!(end(&store, "absent", 10).await.unwrap(), b"");
        assert!(end(&store, "bad", 10).await.is_err());
    }

    #[test]
    fn of_many_messages_the_first_stay() {
        let list = |n: usize| (0..n).map(|n| format!("{n}äää")).collect::<Vec<_>>();
        let namespaces = BTreeMap::from([("a".to_owned(), list(3)), ("b".to_owned(), list(1))]);
        let mut messages = Messages {
            velero: Some(list(2)),
            cluster: None,
            namespaces: Some(namespaces),
        };
        assert_eq!(messages.cut(4, 2), 2);
        let left: Vec<_> = messages.iter().collect();
        assert_eq!(left, [("", "0ä"), ("", "1ä"), ("a", "0ä"), ("a", "1ä")]);
        assert_eq!(messages.cut(4, 2), 0);
    }

    #[test]
    fn messages_are_read_as_velero_writes_them() {
        let text = r#"{"errors":{"velero":["a"],"cluster":null,"namespaces":{"ns":["b","c"]}},"warnings":{}}"#;
        let results: Results = serde_json::from_str(text).unwrap();
        let errors: Vec<_> = results.errors.iter().collect();
        assert_eq!(errors, [("", "a"), ("ns", "b"), ("ns", "c")]);
        assert_eq!(results.warnings.iter().count(), 0);
    }
}
