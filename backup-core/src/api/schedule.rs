//! velero.io/v1 Schedule, as far as backups are made from it.

use serde::Deserialize;

use super::backup::BackupSpec;
use super::meta::Meta;

/// A schedule of Velero's.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Schedule {
    /// Its name, labels and annotations.
    pub metadata: Meta,
    /// What it says.
    #[serde(default)]
    pub spec: ScheduleSpec,
}

/// What a schedule says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScheduleSpec {
    /// When, as cron has it, or `@every 1h`; `CRON_TZ=` before it names the time zone.
    pub schedule: String,
    /// The spec of its backups; `metadata.labels` and `.annotations` in it are theirs too.
    pub template: BackupSpec,
}
