//! A Backup's spec as flags ask for it: what a controller is given to do, now or by a schedule. Pure: nothing is looked up.

use std::collections::BTreeMap;

use backup_core::Error;
use backup_core::api::{BackupSpec, GoDuration};
use backup_core::filter::Filter;
use backup_core::name::Name;
use serde_json::json;

use crate::flags::{self, VolumeArgs};
use backup_cli::error::{CommandError, Result};

/// What flags say of a backup.
#[derive(Debug, Default)]
pub(crate) struct Template<'a> {
    /// Which objects.
    pub(crate) filter: Filter,
    /// One namespace was named: cluster-scoped objects stay out where nothing is said of them.
    pub(crate) is_one_namespace: bool,
    /// ConfigMap with resource policies, in the controller's namespace.
    pub(crate) policies: Option<&'a Name>,
    /// Which objects come first.
    pub(crate) order: Option<BTreeMap<String, String>>,
    /// Which volumes.
    pub(crate) volumes: VolumeArgs,
    /// How long it is kept.
    pub(crate) ttl: Option<&'a str>,
    /// Name of a BackupStorageLocation; nothing is the controller's default.
    pub(crate) location: Option<&'a str>,
}

impl Template<'_> {
    /// The spec.
    ///
    /// # Errors
    /// Usage, for what can not be meant, or not be said by the object; the flag is named.
    pub(crate) fn spec(self) -> Result<BackupSpec> {
        let mut filter = self.filter;
        if self.is_one_namespace && filter.include_cluster_resources.is_none() {
            filter.include_cluster_resources = Some(false);
        }
        filter.validate().map_err(CommandError::usage)?;
        if let Some(place) = self.location
            && Name::foreign(place).is_err()
        {
            return Err(CommandError::usage(
                Error::invalid(format!(
                    "invalid value for --location: {place:?} is no name of a BackupStorageLocation"
                ))
                .hint("the controller uses locations that are objects of its namespace"),
            ));
        }
        let mut rest = serde_json::Map::new();
        self.volumes.put(&mut rest);
        if let Some(name) = self.policies {
            let policy = json!({"kind": "configmap", "name": name.as_str()});
            rest.insert("resourcePolicy".to_owned(), policy);
        }
        if let Some(order) = self.order {
            rest.insert("orderedResources".to_owned(), json!(order));
        }
        Ok(BackupSpec {
            snapshot_volumes: self.volumes.snapshots(),
            ttl: ttl(self.ttl)?,
            storage_location: self.location.map(str::to_owned),
            hooks: json!({}),
            rest,
            ..filter.spec()
        })
    }
}

fn ttl(text: Option<&str>) -> Result<Option<GoDuration>> {
    let Some(text) = text else {
        return Ok(None);
    };
    if text == "never" {
        return Err(CommandError::usage(
            Error::invalid(
                "invalid value for --ttl: backups that a controller makes expire, for a Backup can not say never",
            )
            .hint("name a long time, such as 3650d; the newest good one of a schedule stays in any case"),
        ));
    }
    // The same words as for any backup, and the same refusals.
    flags::expiry(Some(text), None, jiff::Timestamp::UNIX_EPOCH)?;
    let ttl = humantime::parse_duration(text).unwrap_or_default();
    Ok((!ttl.is_zero()).then_some(GoDuration(ttl)))
}
