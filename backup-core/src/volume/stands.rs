//! Whether a snapshot that a backup names is there, as far as it can be seen without any key: the repository's configuration, its password in some form, and the
//! snapshot's own file, whose name is the SHA-256 of what it holds. Reads only.

use crate::error::{Kind, Result};
use crate::layout::VolumeKeys;
use crate::location::store::is_absent;
use crate::location::{Store, sha256};

/// A snapshot has a few hundred bytes.
const LARGEST: u64 = 16 << 20;

/// What is wrong with a snapshot of the repository with these keys; empty where nothing is.
///
/// # Errors
/// The store's.
pub async fn problems(store: &Store, keys: &VolumeKeys, snapshot: &str) -> Result<Vec<String>> {
    let store = store.outside();
    let folder = keys.repository();
    let mut problems = Vec::new();
    let config = format!("{folder}config");
    if !is_there(&store, &config).await? {
        problems.push(format!(
            "{config} is missing: nobody can open the repository"
        ));
    }
    let (plain, sealed) = (keys.key(), keys.sealed_key());
    if !is_there(&store, &plain).await? && !is_there(&store, &sealed).await? {
        problems.push(format!(
            "neither {plain} nor {sealed} is there: nobody can open the repository"
        ));
    }
    let file = format!("{folder}snapshots/{snapshot}");
    match store.find(&file, LARGEST).await {
        Ok(None) => problems.push(format!("{file} is missing: the copy is lost")),
        Ok(Some(bytes)) if sha256(&bytes) != snapshot => {
            problems.push(format!("{file} is damaged: its SHA-256 is not its name"));
        }
        Ok(Some(_)) => {}
        Err(e) if e.kind() == Kind::Corrupt => problems.push(e.to_string()),
        Err(e) => return Err(e),
    }
    Ok(problems)
}

async fn is_there(store: &Store, key: &str) -> Result<bool> {
    match store.head(key).await {
        Ok(_) => Ok(true),
        Err(e) if is_absent(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_snapshot_stands_where_its_file_its_key_and_the_configuration_do() {
        let store = Store::in_memory();
        let keys = VolumeKeys::new("c", "shop", "u").unwrap().numbered(2);
        let snapshot = sha256(b"snapshot");
        let file = format!("restic/c/shop/u.2/snapshots/{snapshot}");
        let found = async || problems(&store, &keys, &snapshot).await.unwrap();
        assert_eq!(found().await.len(), 3);
        let put = async |key: &str, bytes: &'static [u8]| {
            store.put(key, bytes.into()).await.unwrap();
        };
        put("restic/c/shop/u.2/config", b"x").await;
        put("restic/c/shop/u.2.key.age", b"x").await;
        put(&file, b"snapshot").await;
        assert_eq!(found().await, Vec::<String>::new());
        put(&file, b"another").await;
        assert!(found().await[0].contains("is damaged"));
        store.delete("restic/c/shop/u.2.key.age").await.unwrap();
        put("restic/c/shop/u.key", b"x").await;
        assert_eq!(found().await.len(), 2);
    }
}
