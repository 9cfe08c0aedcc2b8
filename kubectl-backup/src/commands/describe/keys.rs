//! Who can read the copies of volumes: whether the key of a copy's repository stands beside it in the clear, or encrypted. It looks which file is there, and reads none.

use std::collections::BTreeMap;

use backup_core::Kind;
use backup_core::location::Store;
use backup_core::records::Volume;
use futures::{StreamExt as _, stream};
use serde::Serialize;

/// How many are asked for at a time.
const AT_A_TIME: usize = 16;

/// How the key of a repository is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Key {
    /// Beside it, as it is.
    Clear,
    /// Beside it, encrypted.
    Encrypted,
    /// Nowhere.
    Missing,
    /// It may not be seen here, or the store does not say it.
    Unknown,
}

impl Key {
    /// Who can read what it opens, in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Clear => "in the clear beside it: whoever may read the bucket can read the copy",
            Self::Encrypted => {
                "encrypted beside it: an identity of the location's recipients opens the copy"
            }
            Self::Missing => "not there: nobody can read the copy",
            Self::Unknown => "can not be seen from here",
        }
    }
}

/// The keys of all repositories that copies are in, by their places.
pub(super) async fn of(store: &Store, volumes: &[Volume]) -> BTreeMap<String, Key> {
    let copied = volumes.iter().filter(|volume| volume.copy.is_some());
    let mut places: Vec<&str> = copied.map(|volume| volume.saved_in.as_str()).collect();
    places.sort_unstable();
    places.dedup();
    stream::iter(places)
        .map(|place| async move { (place.to_owned(), find(store, place).await) })
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await
}

/// Who may not list is refused what is absent, too: one of both that is seen is the answer all the same.
async fn find(store: &Store, repository: &str) -> Key {
    let stem = repository.trim_end_matches('/');
    let mut found = Key::Missing;
    for (suffix, key) in [(".key", Key::Clear), (".key.age", Key::Encrypted)] {
        match store.head(&format!("{stem}{suffix}")).await {
            Ok(_) => return key,
            // With a hint it is the bucket that is not there.
            Err(e) if e.kind() == Kind::NotFound && e.hint_text().is_none() => {}
            Err(_) => found = Key::Unknown,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::location::Location;

    #[tokio::test]
    async fn a_key_is_in_the_clear_encrypted_or_missing() {
        let store = Location::in_memory("x").store;
        for name in ["restic/a.key", "restic/b.2.key.age"] {
            store.put(name, "secret".into()).await.unwrap();
        }
        for (place, key) in [
            ("restic/a/", Key::Clear),
            ("restic/b.2/", Key::Encrypted),
            ("restic/b/", Key::Missing),
        ] {
            assert_eq!(find(&store, place).await, key, "{place}");
        }
    }
}
