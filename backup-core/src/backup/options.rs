//! What is asked of a backup: by flags, by a Backup's spec and annotations, and by its location. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::copies::CopyOptions;
use super::policies::Policies;
use crate::api::BackupSpec;
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::hooks::Process;
use crate::hooks::ask::{SpecHooks, go_duration};
use crate::location::Location;
use crate::name::Name;

/// The field of a Backup's spec that asks for copies of the files of all claims.
pub const COPY_ALL: &str = "defaultVolumesToFsBackup";

/// The same by its name before Velero 1.10.
pub(super) const COPY_ALL_BEFORE: &str = "defaultVolumesToRestic";

/// The field of a Backup's spec that asks for snapshots that are moved to the location: not built, and refused by name.
pub const MOVES_SNAPSHOTS: &str = "snapshotMoveData";

/// The field of a Backup's spec that says how long a snapshot may take until it can be used.
pub const SNAPSHOT_TIMEOUT: &str = "csiSnapshotTimeout";

/// The same where nobody says it, as Velero's.
pub(super) const SNAPSHOT_USUAL: Duration = Duration::from_secs(600);

/// Who says more means for ever.
const SNAPSHOT_LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Annotation of a location: whether [`COPY_ALL`] holds for backups that do not say it.
pub const COPY_ALL_OF_LOCATION: &str = "kubectl-backup/default-volumes-to-fs-backup";

/// Annotation of a location: `sts`, where movers of its backups get credentials that are limited to their volume and end soon. Not a config key: Velero's plugins refuse those that they do not know.
pub const MOVER_CREDENTIALS: &str = "kubectl-backup/mover-credentials";

/// Annotation of a Backup, a Schedule or a pod: `"true"`, where the files of a volume that one pod alone may have are copied by an ephemeral container of that pod, which stays in its object. What a
/// pod says comes before what the backup says.
pub const EPHEMERAL_MOVERS: &str = "kubectl-backup/ephemeral-movers";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Its name.
    pub name: Name,
    /// What to save.
    pub filter: Filter,
    /// `-n NS` was given: cluster-scoped types are excluded by rule "scope".
    pub single_namespace: bool,
    /// When it may be removed; absent is never.
    pub expires: Option<Timestamp>,
    /// Labels of the Backup object.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Backup object.
    pub annotations: BTreeMap<String, String>,
    /// Velero's `--snapshot-volumes`; `Some(false)` says that volumes are not wanted.
    pub snapshot_volumes: Option<bool>,
    /// Which volumes need not be saved, which have to be, and kinds to take and leave.
    pub policies: Option<Arc<Policies>>,
    /// What else the record's spec holds, as Velero has it: hooks, and fields that are not acted on. Its filters, ttl and location are not looked at.
    pub template: BackupSpec,
    /// How the files of volumes are copied; without it none are.
    pub copies: Option<Arc<CopyOptions>>,
    /// All types at one revision (the default).
    pub exact: bool,
    /// The machine's name, for the claim.
    pub host: String,
    /// The process, for what it owes to pods.
    pub process: Process,
    /// The time, for name and stamps.
    pub now: Timestamp,
}

impl BackupOptions {
    /// Refuses what can not be meant.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        self.filter.validate()?;
        SpecHooks::read(&self.template.hooks)?;
        self.snapshot_timeout()?;
        self.allows_ephemeral()?;
        let chooses = self
            .policies
            .as_ref()
            .is_some_and(|policies| policies.chooses_kinds());
        if chooses && self.filter.is_old_style() {
            return Err(Error::invalid(
                "include-resources, exclude-resources and include-cluster-resources can not be used together with an includeExcludePolicy",
            )
            .hint("use the cluster-scoped and namespace-scoped lists beside it"));
        }
        Ok(())
    }

    /// What the spec says of this.
    fn says(&self, key: &str) -> Option<bool> {
        self.template.rest.get(key)?.as_bool()
    }

    /// Whether movers may be ephemeral containers of pods that do not say it themselves.
    pub(super) fn allows_ephemeral(&self) -> Result<bool> {
        match self.annotations.get(EPHEMERAL_MOVERS).map(String::as_str) {
            Some("true") => Ok(true),
            None | Some("false") => Ok(false),
            Some(other) => Err(Error::invalid(format!(
                "annotation {EPHEMERAL_MOVERS} of the backup says {other:?}"
            ))
            .hint("it is true or false")),
        }
    }

    /// Whether the files of all claims are to be copied.
    pub(super) fn copies_by_default(&self) -> bool {
        let newer = self.says(COPY_ALL);
        newer.or(self.says(COPY_ALL_BEFORE)).unwrap_or_default()
    }

    /// The same with what the location says where nobody else does; it stands in the backup's spec then.
    pub(super) fn at(&self, location: &Location) -> Result<Self> {
        let mut options = self.clone();
        let annotations = &location.spec.metadata.annotations;
        let said = match annotations.get(COPY_ALL_OF_LOCATION).map(String::as_str) {
            Some("true") => true,
            Some("false") | None => return Ok(options),
            Some(other) => {
                return Err(Error::invalid(format!(
                    "annotation {COPY_ALL_OF_LOCATION} of location {} says {other:?}",
                    crate::error::quoted(&location.name)
                ))
                .hint("it is true or false"));
            }
        };
        if self.says(COPY_ALL).is_none() && self.says(COPY_ALL_BEFORE).is_none() {
            options
                .template
                .rest
                .insert(COPY_ALL.to_owned(), said.into());
        }
        Ok(options)
    }

    /// Whether snapshots of volumes are asked for; a snapshot that is to be moved is one as well.
    pub(super) fn wants_snapshots(&self) -> Option<bool> {
        match self.snapshot_volumes {
            None if self.moves_snapshots() => Some(true),
            wanted => wanted,
        }
    }

    /// Whether snapshots are to be moved to the location.
    pub(super) fn moves_snapshots(&self) -> bool {
        self.says(MOVES_SNAPSHOTS) == Some(true)
    }

    /// Whether there may be a volume of which one is made.
    pub(super) fn may_snapshot(&self) -> bool {
        self.copies.is_some() && (self.wants_snapshots() != Some(false) || self.policies.is_some())
    }

    /// How long a snapshot may take until it can be used.
    pub(super) fn snapshot_timeout(&self) -> Result<Duration> {
        let said = self
            .template
            .rest
            .get(SNAPSHOT_TIMEOUT)
            .and_then(serde_json::Value::as_str);
        let Some(text) = said.filter(|text| !text.is_empty()) else {
            return Ok(SNAPSHOT_USUAL);
        };
        let timeout = go_duration(text).ok_or_else(|| {
            Error::invalid(format!("{SNAPSHOT_TIMEOUT} is {text:?}"))
                .hint("it is a duration such as 10m or 1h30m")
        })?;
        // As Velero has it: nothing said.
        Ok(if timeout.is_zero() {
            SNAPSHOT_USUAL
        } else {
            timeout.min(SNAPSHOT_LONGEST)
        })
    }
}
