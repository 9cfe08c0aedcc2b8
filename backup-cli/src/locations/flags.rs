//! `--location`, `--credentials-file` and `--cacert`, and opening what they mean. Reads the files named here, and the environment's
//! `AWS_*` where no file is.

use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::api::BackupStorageLocation;
use backup_core::location::{self, Credentials, Location};
use clap::Args;

use super::CREDENTIALS_FILE;
use crate::error::Result;

/// Where backups live.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Location")]
pub struct LocationArgs {
    /// Location of backups: a name from `location get`, or a URL (s3://bucket/prefix?endpoint=..&region=.., file:///folder)
    #[arg(
        long,
        visible_alias = "storage-location",
        global = true,
        value_name = "NAME|URL",
        env = "KUBECTL_BACKUP_LOCATION",
        hide_env_values = true
    )]
    pub location: Option<String>,
    /// File with the location's credentials, in Velero's format
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_CREDENTIALS_FILE",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub credentials_file: Option<PathBuf>,
    /// CA to trust for the location besides the system's, PEM
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "KUBECTL_BACKUP_CACERT",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub cacert: Option<PathBuf>,
}

impl LocationArgs {
    /// Opens a location with its credentials; nothing is sent yet.
    ///
    /// # Errors
    /// Settings or files that can not be used.
    pub fn open(&self, spec: &BackupStorageLocation) -> Result<Location> {
        let path = self.credentials_file.clone().or_else(|| {
            spec.metadata
                .annotations
                .get(CREDENTIALS_FILE)
                .map(Into::into)
        });
        let read = |path: &Path, what: &str| {
            std::fs::read(path).map_err(|e| {
                Error::invalid(format!(
                    "can not read {what} {} of location {:?}",
                    path.display(),
                    spec.metadata.name
                ))
                .because(e)
            })
        };
        let credentials = Credentials {
            file: path
                .as_deref()
                .map(|p| read(p, "the credentials file"))
                .transpose()?,
            environment: if path.is_some() {
                Vec::new()
            } else {
                std::env::vars_os()
                    .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                    .filter(|(name, _)| name.starts_with("AWS_"))
                    .collect()
            },
            ca_pem: self
                .cacert
                .as_deref()
                .map(|p| read(p, "the CA file"))
                .transpose()?,
            path,
        };
        Ok(location::open(spec, &credentials)?)
    }
}
