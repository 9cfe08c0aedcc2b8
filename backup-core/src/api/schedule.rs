//! velero.io/v1 Schedule, as far as backups are made from it.

use jiff::Timestamp;
use serde::Deserialize;

use super::backup::BackupSpec;
use super::meta::{Meta, null_is_empty};

/// A schedule of Velero's.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Schedule {
    /// Its name, labels and annotations.
    pub metadata: Meta,
    /// What it says.
    #[serde(default)]
    pub spec: ScheduleSpec,
    /// What was made of it.
    #[serde(default)]
    pub status: ScheduleStatus,
}

/// What a schedule says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleSpec {
    /// When, as cron has it, or `@every 1h`; `CRON_TZ=` before it names the time zone.
    pub schedule: String,
    /// The spec of its backups; `metadata.labels` and `.annotations` in it are theirs too.
    pub template: BackupSpec,
    /// Whether none are made.
    pub paused: Option<bool>,
    /// Whether its backups go when it is deleted, being its own.
    pub use_owner_references_in_backup: Option<bool>,
}

/// What was made of a schedule.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleStatus {
    /// `New`, `Enabled` or `FailedValidation`; empty is new.
    pub phase: String,
    /// The newest slot for which a backup was made.
    pub last_backup: Option<Timestamp>,
    /// Slots until then were passed over.
    pub last_skipped: Option<Timestamp>,
    /// Why it can not be followed.
    #[serde(deserialize_with = "null_is_empty")]
    pub validation_errors: Vec<String>,
}
