//! Which cluster may create, prune and delete in a location: `.kubectl-backup.json`. Restores and listings are never guarded.

use serde::{Deserialize, Serialize};

use super::Location;
use super::store::Created;
use crate::error::{Error, Kind, Result, quoted};
use crate::layout::GUARD;

/// The guard is one uid.
const LARGEST: u64 = 64 << 10;

/// What the guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nobody's yet, or shared with Velero.
    Open,
    /// This cluster's.
    Ours,
    /// Another cluster's, by its uid.
    Other(String),
    /// We could not learn who we are.
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct File {
    /// The uid of kube-system.
    cluster: String,
}

/// Reads the guard and compares it; `cluster` is the uid of kube-system.
///
/// # Errors
/// The store's; `Corrupt`, when the guard can not be read.
pub async fn read(location: &Location, cluster: Option<&str>) -> Result<Guard> {
    if location.shared_with_velero {
        return Ok(Guard::Open);
    }
    let Some(owner) = owner(location).await? else {
        return Ok(Guard::Open);
    };
    Ok(match cluster {
        None => Guard::Unknown,
        Some(cluster) if cluster == owner => Guard::Ours,
        Some(_) => Guard::Other(owner),
    })
}

async fn owner(location: &Location) -> Result<Option<String>> {
    let broken = || {
        Error::corrupt(format!(
            "{GUARD} in {} can not be read",
            location.store.place()
        ))
        .hint(format!(
            "it says which cluster may write there; write it anew with `kubectl backup location adopt {}`",
            quoted(&location.name)
        ))
    };
    let bytes = match location.store.find(GUARD, LARGEST).await {
        Err(e) if e.kind() == Kind::Corrupt => return Err(broken().because(e)),
        found => found?,
    };
    let Some(bytes) = bytes else { return Ok(None) };
    let file: File = serde_json::from_slice(&bytes).map_err(|e| broken().because(e))?;
    let plain = |b: u8| b.is_ascii_graphic();
    if file.cluster.is_empty() || file.cluster.len() > 128 || !file.cluster.bytes().all(plain) {
        return Err(broken());
    }
    Ok(Some(file.cluster))
}

/// Before a backup of this cluster is written: writes the guard where the location is nobody's, and tells whose it is where it is another's. Who is not
/// known (nothing for `cluster`) is let in.
///
/// # Errors
/// The store's; `Corrupt`, when the guard can not be read.
pub async fn enter(location: &Location, cluster: Option<&str>) -> Result<Option<String>> {
    match (read(location, cluster).await?, cluster) {
        (Guard::Other(other), _) => return Ok(Some(other)),
        (Guard::Open, Some(cluster)) => write(location, cluster, false).await?,
        (Guard::Open | Guard::Ours | Guard::Unknown, _) => {}
    }
    Ok(None)
}

/// Writes the guard for this cluster, where the location is nobody's.
///
/// # Errors
/// The store's, and `AlreadyExists` naming `location adopt` where it is another's and `adopt` is false.
pub async fn write(location: &Location, cluster: &str, adopt: bool) -> Result<()> {
    if location.shared_with_velero {
        return Ok(());
    }
    let file = File {
        cluster: cluster.to_owned(),
    };
    let bytes = serde_json::to_vec(&file).expect("a guard is always JSON");
    if adopt {
        return location.store.put(GUARD, bytes.into()).await;
    }
    let other = |owner: String| {
        Error::new(
            Kind::AlreadyExists,
            format!(
                "location {} belongs to another cluster (kube-system {owner})",
                quoted(&location.name)
            ),
        )
        .hint(format!(
            "use another location or prefix; if this cluster takes its place: kubectl backup location adopt {}",
            location.name
        ))
    };
    match owner(location).await? {
        Some(owner) if owner == cluster => return Ok(()),
        Some(owner) => return Err(other(owner)),
        None => {}
    }
    // A store that does not know the condition gets a plain PUT; of two first writers, the reading below makes one of them stop.
    match location.store.create(GUARD, bytes.clone().into()).await {
        Ok(Created::Yes | Created::Exists) => {}
        Err(e) if e.kind() == Kind::Other => location.store.put(GUARD, bytes.into()).await?,
        Err(e) => return Err(e),
    }
    match owner(location).await? {
        Some(owner) if owner != cluster => Err(other(owner)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_cluster_to_write_is_the_only_one_until_adoption() {
        let location = Location::in_memory("x");
        assert_eq!(read(&location, Some("a")).await.unwrap(), Guard::Open);
        write(&location, "a", false).await.unwrap();
        write(&location, "a", false).await.unwrap();
        assert_eq!(read(&location, Some("a")).await.unwrap(), Guard::Ours);
        assert_eq!(
            read(&location, Some("b")).await.unwrap(),
            Guard::Other("a".into())
        );
        assert_eq!(read(&location, None).await.unwrap(), Guard::Unknown);
        let error = write(&location, "b", false).await.unwrap_err();
        assert_eq!(error.kind(), Kind::AlreadyExists);
        assert!(error.hint_text().unwrap().contains("location adopt x"));
        write(&location, "b", true).await.unwrap();
        assert_eq!(read(&location, Some("b")).await.unwrap(), Guard::Ours);
    }

    #[tokio::test]
    async fn a_location_shared_with_velero_gets_no_guard() {
        let mut location = Location::in_memory("x");
        location.shared_with_velero = true;
        write(&location, "a", false).await.unwrap();
        assert!(location.store.find(GUARD, 100).await.unwrap().is_none());
        assert_eq!(read(&location, Some("b")).await.unwrap(), Guard::Open);
    }

    #[tokio::test]
    async fn a_broken_guard_is_an_error_and_not_an_open_door() {
        let location = Location::in_memory("x");
        for bytes in [
            "",
            "{}",
            "[]",
            r#"{"cluster":""}"#,
            "{\"cluster\":\"a\\u001b[2J\"}",
        ] {
            location.store.put(GUARD, bytes.into()).await.unwrap();
            let error = read(&location, Some("a")).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{bytes:?}");
        }
    }
}
