//! What a location says of the volumes of its backups: whether the files of all claims are copied where a backup does not say, and whether movers get credentials.

use backup_core::api::BackupStorageLocation;
use backup_core::backup::{COPY_ALL_OF_LOCATION, MOVER_CREDENTIALS};
use clap::{Args, ValueEnum};

/// Which volumes, and how.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct VolumesArgs {
    /// Whether its backups copy the files of all claims where they are not told
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    default_volumes_to_fs_backup: Option<bool>,
    /// Whether the pods that read volumes get credentials of their own, for their volume and a quarter of an hour at a time, and write straight to the store
    #[arg(long, value_enum, value_name = "SOURCE")]
    mover_credentials: Option<Source>,
}

/// Where credentials of movers come from.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// They get none: files go over exec to whoever makes the backup
    None,
    /// From the STS of AWS, or of a store that has one, as MinIO
    Sts,
}

impl VolumesArgs {
    pub(super) fn is_given(self) -> bool {
        self.default_volumes_to_fs_backup.is_some() || self.mover_credentials.is_some()
    }

    /// Remembers it beside the location.
    pub(super) fn put(self, location: &mut BackupStorageLocation) {
        let annotations = &mut location.metadata.annotations;
        let mut put = |name: &str, word: Option<&str>| match word {
            Some(word) => drop(annotations.insert(name.to_owned(), word.to_owned())),
            None => drop(annotations.remove(name)),
        };
        if let Some(all) = self.default_volumes_to_fs_backup {
            put(COPY_ALL_OF_LOCATION, all.then_some("true"));
        }
        match self.mover_credentials {
            Some(Source::Sts) => put(MOVER_CREDENTIALS, Some("sts")),
            Some(Source::None) => put(MOVER_CREDENTIALS, None),
            None => {}
        }
    }
}
