//! Opens a backup, ours or another tool's.

use std::path::Path;

use bytes::Bytes;

use super::versions;
use crate::api::Backup;
use crate::archive::read::Archive;
use crate::archive::spool::{self, Spooled};
use crate::catalog::names_us;
use crate::cluster::Cluster;
use crate::discovery::{self, Served};
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::store::StoreSource;
use crate::location::{Location, Store};
use crate::name::Name;
use crate::progress::Progress;

/// No marker is larger.
const MARKER: u64 = 4 << 20;

/// The backup, ready to be read object by object.
pub(super) enum Opened {
    Ours(Archive<StoreSource>),
    Foreign(Archive<Spooled>, Vec<String>),
}

pub(super) async fn serves(cluster: &Cluster, progress: &dyn Progress) -> Result<Served> {
    progress.step("looking at the target");
    discovery::discover(cluster).await
}

/// Opens a backup. Of objects that are in it in several versions it takes those that suit what is `served` best.
pub(super) async fn open(
    location: &Location,
    backup: &Name,
    spool_dir: &Path,
    served: &Served,
    progress: &dyn Progress,
) -> Result<Opened> {
    let keys = BackupKeys::new(backup);
    let store = &location.store;
    let marker = marker(store, backup).await?;
    // An index beside another tool's marker is what a dead run of ours left.
    let foreign = serde_json::from_slice::<Backup>(&marker).is_ok_and(|backup| !names_us(&backup));
    let archive = store.source(keys.archive());
    match store.head(&keys.index()).await {
        Ok(_) if !foreign => {
            progress.step("reading the index");
            Ok(Opened::Ours(
                Archive::open(archive, store.source(keys.index())).await?,
            ))
        }
        Err(e) if e.kind() != Kind::NotFound => Err(e),
        _ => {
            progress.step("rewriting the archive of another tool for reading");
            let (archive, report) =
                spool::spool(&archive, spool_dir, versions::rank(served), progress)
                    .await
                    .map_err(|e| e.context(format!("{} can not be read", keys.archive())))?;
            Ok(Opened::Foreign(archive, report.warnings))
        }
    }
}

pub(super) async fn marker(store: &Store, backup: &Name) -> Result<Bytes> {
    let keys = BackupKeys::new(backup);
    store.find(&keys.marker(), MARKER).await?.ok_or_else(|| {
        Error::not_found(format!("backup {backup} not found in this location"))
            .hint("`kubectl backup get` lists what is there")
    })
}
