//! The objects of Velero's API that a bucket and a client's file hold, a file per kind: their fields, names and defaults
//! are Velero's (velero.io/v1). They are data only; unknown fields of foreign objects are kept where we write them back.

mod backup;
mod meta;
mod restore;
mod storage_location;

pub use backup::{Backup, BackupSpec, BackupStatus, Phase};
pub use meta::{GoDuration, LabelSelector, Meta, Progress, Requirement};
pub use restore::{Restore, RestoreSpec, RestoreStatus};
pub use storage_location::{
    AccessMode, BackupStorageLocation, BackupStorageLocationSpec, ObjectStorage,
};

/// `apiVersion` of every object here.
pub const API_VERSION: &str = "velero.io/v1";
