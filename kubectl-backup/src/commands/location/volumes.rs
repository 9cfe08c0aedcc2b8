//! `--default-volumes-to-fs-backup` of a location: whether the backups that are made there copy the files of all claims where they are not told.

use backup_core::api::BackupStorageLocation;
use backup_core::backup::COPY_ALL_OF_LOCATION;
use clap::Args;

/// Which volumes.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct VolumesArgs {
    /// Whether its backups copy the files of all claims where they are not told
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    default_volumes_to_fs_backup: Option<bool>,
}

impl VolumesArgs {
    pub(super) fn is_given(self) -> bool {
        self.default_volumes_to_fs_backup.is_some()
    }

    /// Remembers it beside the location.
    pub(super) fn put(self, location: &mut BackupStorageLocation) {
        let annotations = &mut location.metadata.annotations;
        match self.default_volumes_to_fs_backup {
            None => {}
            Some(true) => {
                annotations.insert(COPY_ALL_OF_LOCATION.to_owned(), "true".to_owned());
            }
            Some(false) => {
                annotations.remove(COPY_ALL_OF_LOCATION);
            }
        }
    }
}
