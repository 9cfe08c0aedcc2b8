//! The record of a restore that ended: Velero's side files and, last, the Restore itself.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use super::RestoreReport;
use super::journal::{self, Header, Journal, LARGEST};
use super::report::{self, Record};
use crate::api::{API_VERSION, Meta, Phase, Progress as ApiProgress, Restore, RestoreStatus};
use crate::catalog::CLUSTER_UID;
use crate::error::{Error, Kind, Result};
use crate::layout::RestoreKeys;
use crate::location::Store;
use crate::name::Name;

/// Writes the side files and, last, the record. `shown` is where they are to be found besides, for who asks what was done: nothing goes by what lies there.
pub(super) async fn finish(
    journal: &Journal,
    record: Record,
    name: &Name,
    header: &Header,
    policy: &str,
    resumed: bool,
    shown: Option<&Store>,
) -> Result<RestoreReport> {
    let keys = RestoreKeys::new(name);
    let counts = record.counts();
    let ((errors, error_texts), (warnings, mut warning_texts)) =
        (record.errors(), record.warnings());
    let restore = Restore {
        api_version: API_VERSION.to_owned(),
        kind: "Restore".to_owned(),
        metadata: Meta {
            name: name.to_string(),
            creation_timestamp: Some(whole_seconds(header.started)),
            annotations: BTreeMap::from([
                (
                    journal::ANNOTATION_OPTIONS.to_owned(),
                    header.options_hash.clone(),
                ),
                (journal::ANNOTATION_POLICY.to_owned(), policy.to_owned()),
                (
                    journal::ANNOTATION_BACKUP.to_owned(),
                    header.backup_uid.clone().unwrap_or_default(),
                ),
                (
                    CLUSTER_UID.to_owned(),
                    header.cluster.clone().unwrap_or_default(),
                ),
            ]),
            ..Meta::default()
        },
        spec: header.spec.clone(),
        status: RestoreStatus {
            phase: if errors == 0 {
                Phase::Completed
            } else {
                Phase::PartiallyFailed
            },
            start_timestamp: Some(whole_seconds(header.started)),
            completion_timestamp: Some(whole_seconds(Timestamp::now())),
            progress: Some(ApiProgress {
                total_items: counts.iter().sum(),
                items_restored: Some(counts[0] + counts[1] + counts[2]),
                ..ApiProgress::default()
            }),
            warnings,
            errors,
            rest: record
                .hook_status()
                .map(|counts| ("hookStatus".to_owned(), counts))
                .into_iter()
                .collect(),
            ..RestoreStatus::default()
        },
    };
    let marker = serde_json::to_vec_pretty(&restore)
        .map_err(|e| Error::other("the record can not be written as JSON").because(e))?;
    let none = report::gzip(b"[]")?;
    let files = [
        (keys.results(), record.results()?),
        (keys.resource_list(), record.resource_list()?),
        (keys.item_operations(), none.clone()),
        (keys.volume_info(), none),
        (keys.logs(), record.into_log()?),
        (keys.marker(), marker.into()),
    ];
    for (key, bytes) in &files {
        journal.place.put(key, bytes.clone()).await?;
    }
    if let Some(store) = shown
        && let Err(e) = show(store, &keys, &header.options_hash, &files).await
    {
        warning_texts.push(format!(
            "the record of this restore is on this machine alone: {}",
            e.sentence()
        ));
    }
    Ok(RestoreReport {
        restore,
        counts,
        errors: error_texts,
        warnings: warning_texts,
        resumed,
    })
}

/// Writes the record where people look for it, but not over another restore's.
async fn show(
    store: &Store,
    keys: &RestoreKeys,
    options_hash: &str,
    files: &[(String, Bytes)],
) -> Result<()> {
    let there = store.find(&keys.marker(), LARGEST).await;
    let is_another = match &there {
        Ok(None) => false,
        Ok(Some(bytes)) => {
            let there = serde_json::from_slice::<Restore>(bytes).ok();
            let hash = there.and_then(|mut there| {
                let annotations = &mut there.metadata.annotations;
                annotations.remove(journal::ANNOTATION_OPTIONS)
            });
            hash.as_deref() != Some(options_hash)
        }
        Err(e) => e.kind() == Kind::Corrupt,
    };
    if is_another {
        return Err(Error::new(
            Kind::AlreadyExists,
            format!("{} is another restore's", keys.marker()),
        ));
    }
    there?;
    for (key, bytes) in files {
        store.put(key, bytes.clone()).await?;
    }
    Ok(())
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
