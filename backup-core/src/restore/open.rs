//! Opens a backup, ours or another tool's.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;

use super::{gather, order, versions};
use crate::apart;
use crate::api::Backup;
use crate::archive::read::Archive;
use crate::archive::row::ResourceRow;
use crate::archive::spool::{self, OtherVersion, Spooled};
use crate::catalog::names_us;
use crate::cluster::Cluster;
use crate::discovery::{self, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::{Filter, Verdict};
use crate::layout::BackupKeys;
use crate::location::store::StoreSource;
use crate::location::{Location, Store};
use crate::name::Name;
use crate::progress::Progress;
use crate::signature;

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

/// Opens a backup. Of objects that are in it in several versions it takes those that suit what is `served` best; where definitions that come along
/// change those that stand, `changing` tells which come, and what they will serve counts too. Secrets that stand apart are opened where the filter wants some.
pub(super) async fn open(
    location: &Location,
    backup: &Name,
    spool_dir: &Path,
    served: &Served,
    filter: &Filter,
    changing: Option<&Filter>,
    progress: &dyn Progress,
) -> Result<Opened> {
    let keys = BackupKeys::new(backup);
    let store = &location.store;
    // Damage of what is not wanted does not matter.
    let wants_secrets = gather::wants_secrets(filter, served);
    let key = location.apart.as_ref().filter(|_| wants_secrets);
    if let Some(vouched) = signature::check(location, backup).await? {
        progress.step("reading the index");
        let archive = vouched.open(store).await?;
        let joined = apart::join(store, key, &vouched.entry.backup, backup, archive).await?;
        return Ok(Opened::Ours(joined));
    }
    let marker = marker(store, backup).await?;
    let marker: Option<Backup> = serde_json::from_slice(&marker).ok();
    // An index beside another tool's marker is what a dead run of ours left.
    let foreign = marker.as_ref().is_some_and(|backup| !names_us(backup));
    let archive = store.source(keys.archive());
    match store.head(&keys.index()).await {
        Ok(_) if !foreign => {
            progress.step("reading the index");
            let archive = Archive::open(archive, store.source(keys.index())).await?;
            let marker = marker.unwrap_or_default();
            let joined = apart::join(store, key, &marker, backup, archive).await?;
            return Ok(Opened::Ours(joined));
        }
        Err(e) if e.kind() != Kind::NotFound => return Err(e),
        _ => {}
    }
    if wants_secrets {
        apart::refuse_hidden(store, backup, marker.as_ref()).await?;
    }
    progress.step("rewriting the archive of another tool for reading");
    let unreadable = |e: Error| e.context(format!("{} can not be read", keys.archive()));
    let spooled = spool::spool(&archive, spool_dir, versions::rank(served), progress).await;
    let (mut opened, mut report) = spooled.map_err(unreadable)?;
    if let Some(filter) = changing.filter(|_| !report.others.is_empty()) {
        let coming = coming(&opened, filter, served, &report.others).await?;
        if !coming.is_empty() {
            progress.step("rewriting it once more, for its definitions serve what it prefers");
            let rank = versions::rank(served);
            let rank = move |resource: &str, version: &str, preferred: bool| {
                let kept = coming.contains(resource);
                if kept {
                    0
                } else {
                    rank(resource, version, preferred)
                }
            };
            let spooled = spool::spool(&archive, spool_dir, rank, progress).await;
            (opened, report) = spooled.map_err(unreadable)?;
        }
    }
    let others = report.others.iter().map(|other| {
        let OtherVersion { resource, preferred, taken, count } = other;
        format!(
            "{resource}: the backup prefers {preferred}, which the target does not serve; its objects in the backup ({count}) count as {taken}, \
             without what only {preferred} has"
        )
    });
    report.warnings.extend(others);
    Ok(Opened::Foreign(opened, report.warnings))
}

/// Of these resources those whose definition comes along and serves what the backup prefers.
async fn coming(
    archive: &Archive<Spooled>,
    filter: &Filter,
    served: &Served,
    others: &[OtherVersion],
) -> Result<HashSet<String>> {
    let mut coming = HashSet::new();
    let rows = archive.index.resources();
    let (filter, _) = gather::bind(filter, rows, served);
    let definitions = rows.iter().find(|row| row.resource == order::CRDS);
    let comes = |row: &&ResourceRow| {
        !matches!(
            filter.resource(&gather::describe(row, served)),
            Verdict::Out(_)
        )
    };
    if definitions.filter(comes).is_none() {
        return Ok(coming);
    }
    for other in others {
        let Some(row) = archive
            .index
            .find(order::CRDS, None, &other.resource)
            .await?
        else {
            continue;
        };
        let body = archive.body(&row).await?;
        if versions::defined(&body).contains(&other.preferred) {
            coming.insert(other.resource.clone());
        }
    }
    Ok(coming)
}

pub(super) async fn marker(store: &Store, backup: &Name) -> Result<Bytes> {
    let keys = BackupKeys::new(backup);
    store.find(&keys.marker(), MARKER).await?.ok_or_else(|| {
        Error::not_found(format!("backup {backup} not found in this location"))
            .hint("`kubectl backup get` lists what is there")
    })
}
