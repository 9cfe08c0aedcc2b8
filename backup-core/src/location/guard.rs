//! Which cluster may create, prune and delete in a location, and whether only encrypted backups may be made there: `.kubectl-backup.json`. Restores and listings
//! are never guarded. It names no recipient: who may write to the bucket could put his own there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Location;
use super::store::Created;
use crate::crypt::Encrypt;
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
    /// Whether plain backups are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
}

/// What is going to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coming {
    /// A plain backup, or one of which the Secrets alone are encrypted.
    Plain,
    /// An encrypted one, in a location where others may be plain.
    Encrypted,
    /// An encrypted one, in a location whose own recipients say that all have to be.
    EncryptedAsAll,
}

impl Coming {
    /// What a location makes of its backups.
    ///
    /// # Errors
    /// Recipients that can not be used.
    pub fn of(location: &Location) -> Result<Self> {
        Ok(match location.store.is_vault() {
            false => Self::Plain,
            true if Encrypt::of_location(&location.spec)? == Some(Encrypt::All) => {
                Self::EncryptedAsAll
            }
            true => Self::Encrypted,
        })
    }
}

/// Reads the guard and compares it; `cluster` is the uid of kube-system.
///
/// # Errors
/// The store's; `Corrupt`, when the guard can not be read.
pub async fn read(location: &Location, cluster: Option<&str>) -> Result<Guard> {
    if location.shared_with_velero {
        return Ok(Guard::Open);
    }
    let file = file(location).await?;
    Ok(whose(file.as_ref(), cluster))
}

/// Whether only encrypted backups are to be made there, as the guard says; where Velero uses the location there is none.
///
/// # Errors
/// As [`read`].
pub async fn is_sealed(location: &Location) -> Result<bool> {
    if location.shared_with_velero {
        return Ok(false);
    }
    Ok(file(location).await?.is_some_and(|file| file.encrypted))
}

fn whose(file: Option<&File>, cluster: Option<&str>) -> Guard {
    match (file, cluster) {
        (None, _) => Guard::Open,
        (Some(_), None) => Guard::Unknown,
        (Some(file), Some(cluster)) if cluster == file.cluster => Guard::Ours,
        (Some(file), Some(_)) => Guard::Other(file.cluster.clone()),
    }
}

async fn file(location: &Location) -> Result<Option<File>> {
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
    Ok(Some(file))
}

/// Before a backup of this cluster is written: writes the guard where the location is nobody's, and tells whose it is where it is another's. Who is not
/// known (nothing for `cluster`) is let in; a plain backup is not, where only encrypted ones are to be.
///
/// # Errors
/// The store's; `Corrupt`, when the guard can not be read; `Forbidden`, where a plain backup would come.
pub async fn enter(
    location: &Location,
    cluster: Option<&str>,
    coming: Coming,
) -> Result<Option<String>> {
    if location.shared_with_velero {
        return Ok(None);
    }
    let file = file(location).await?;
    if coming == Coming::Plain && file.as_ref().is_some_and(|file| file.encrypted) {
        return Err(Error::new(
            Kind::Forbidden,
            format!(
                "location {} takes encrypted backups alone: its {GUARD} says so",
                quoted(&location.name)
            ),
        )
        .hint(format!(
            "name the location that has its recipients, or give --recipient; `kubectl backup location adopt {} --plain` lets plain ones in",
            quoted(&location.name)
        )));
    }
    let wants_mark = coming == Coming::EncryptedAsAll;
    match (whose(file.as_ref(), cluster), cluster) {
        (Guard::Other(other), _) => return Ok(Some(other)),
        (Guard::Open, Some(cluster)) => write(location, cluster, wants_mark).await?,
        (Guard::Ours, Some(cluster)) if wants_mark && file.is_some_and(|file| !file.encrypted) => {
            put(location, cluster, true).await?;
        }
        (Guard::Open | Guard::Ours | Guard::Unknown, _) => {}
    }
    Ok(None)
}

fn bytes(cluster: &str, encrypted: bool) -> Result<Bytes> {
    let file = File {
        cluster: cluster.to_owned(),
        encrypted,
    };
    let bytes = serde_json::to_vec(&file);
    bytes.map(Bytes::from).map_err(|e| {
        let why = format!("{GUARD} can not be written as JSON");
        Error::other(why).because(e)
    })
}

async fn put(location: &Location, cluster: &str, encrypted: bool) -> Result<()> {
    let bytes = bytes(cluster, encrypted)?;
    location.store.put(GUARD, bytes).await
}

/// Hands the location over to this cluster, whosever it was. `plain` lets plain backups in where only encrypted ones were.
///
/// # Errors
/// The store's.
pub async fn adopt(location: &Location, cluster: &str, plain: bool) -> Result<()> {
    if location.shared_with_velero {
        return Ok(());
    }
    // One that can not be read is written anew, as plain as one that is not there: the location's own recipients bind who has them.
    let encrypted = match file(location).await {
        Ok(file) => file.is_some_and(|file| file.encrypted),
        Err(e) if e.kind() == Kind::Corrupt => false,
        Err(e) => return Err(e),
    };
    put(location, cluster, encrypted && !plain).await
}

/// Writes the guard for this cluster, where the location is nobody's; `encrypted` says that plain backups are to be refused from now on.
///
/// # Errors
/// The store's, and `AlreadyExists` naming `location adopt` where it is another's.
pub async fn write(location: &Location, cluster: &str, encrypted: bool) -> Result<()> {
    if location.shared_with_velero {
        return Ok(());
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
    if file(location).await?.is_none() {
        // A store that does not know the condition gets a plain PUT; of two first writers, the reading below makes one of them stop.
        let bytes = bytes(cluster, encrypted)?;
        match location.store.create(GUARD, bytes.clone()).await {
            Ok(Created::Yes | Created::Exists) => {}
            Err(e) if e.kind() == Kind::Other => location.store.put(GUARD, bytes).await?,
            Err(e) => return Err(e),
        }
    }
    match file(location).await? {
        Some(file) if file.cluster != cluster => Err(other(file.cluster)),
        Some(file) if encrypted && !file.encrypted => put(location, cluster, true).await,
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
        adopt(&location, "b", false).await.unwrap();
        assert_eq!(read(&location, Some("b")).await.unwrap(), Guard::Ours);
    }

    #[tokio::test]
    async fn where_all_is_encrypted_nothing_plain_is_let_in_until_that_is_chosen() {
        let location = Location::in_memory("x");
        let enter = async |coming| enter(&location, Some("a"), coming).await;
        // One that is encrypted by its maker's choice binds nobody else.
        for coming in [Coming::Plain, Coming::Encrypted, Coming::Plain] {
            assert_eq!(enter(coming).await.unwrap(), None);
        }
        assert_eq!(enter(Coming::EncryptedAsAll).await.unwrap(), None);
        for _ in 0..2 {
            let refused = enter(Coming::Plain).await.unwrap_err();
            assert_eq!(refused.kind(), Kind::Forbidden);
            assert!(refused.hint_text().unwrap().contains("--plain"));
            enter(Coming::Encrypted).await.unwrap();
            // Another cluster does not open the door by its name alone.
            adopt(&location, "a", false).await.unwrap();
        }
        adopt(&location, "a", true).await.unwrap();
        assert_eq!(enter(Coming::Plain).await.unwrap(), None);
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
