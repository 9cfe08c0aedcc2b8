//! The record of a restore that ended: Velero's side files and, last, the Restore itself.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::RestoreReport;
use super::journal::{self, Header, Journal};
use super::report::{self, Record};
use crate::api::{API_VERSION, Meta, Phase, Progress as ApiProgress, Restore, RestoreStatus};
use crate::error::{Error, Result};
use crate::layout::RestoreKeys;
use crate::name::Name;

/// Writes the side files and, last, the record.
pub(super) async fn finish(
    journal: &Journal,
    record: Record,
    name: &Name,
    header: &Header,
    policy: &str,
    resumed: bool,
) -> Result<RestoreReport> {
    let keys = RestoreKeys::new(name);
    let counts = record.counts();
    let ((errors, error_texts), (warnings, warning_texts)) = (record.errors(), record.warnings());
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
            ..RestoreStatus::default()
        },
    };
    let place = &journal.place;
    place.put(&keys.results(), record.results()?).await?;
    place
        .put(&keys.resource_list(), record.resource_list()?)
        .await?;
    for key in [keys.item_operations(), keys.volume_info()] {
        place.put(&key, report::gzip(b"[]")?).await?;
    }
    place.put(&keys.logs(), record.into_log()?).await?;
    let marker = serde_json::to_vec_pretty(&restore)
        .map_err(|e| Error::other("the record can not be written as JSON").because(e))?;
    place.put(&keys.marker(), marker.into()).await?;
    Ok(RestoreReport {
        restore,
        counts,
        errors: error_texts,
        warnings: warning_texts,
        resumed,
    })
}

fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
