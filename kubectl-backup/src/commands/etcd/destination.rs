//! A destination of snapshots, as objects name it, opened from where the plugin runs. Writes nothing.

use backup_core::Error;
use backup_core::etcd::destination;
use backup_core::location::{self, Credentials, Location};

use crate::context::Context;
use backup_cli::error::Result;
use backup_cli::locations::CREDENTIALS_FILE;

pub(super) use backup_core::etcd::destination::{missing, names};

/// Opens a destination; nothing is sent to the store yet.
///
/// # Errors
/// `NotFound` with those there are; one that can only be used where the launcher runs, with what to do instead.
pub(super) async fn open(context: &Context, namespace: &str, name: &str) -> Result<Location> {
    let cluster = context.cluster().await?;
    let mut found = destination::find(cluster, namespace, name).await?;
    // A file of this machine is not named by an object of a cluster.
    found.spec.metadata.annotations.remove(CREDENTIALS_FILE);
    let spec = &mut found.spec.spec;
    if spec.provider.trim_start_matches("velero.io/") == "local" {
        return Err(Error::invalid(format!(
            "destination {name:?} is a folder of the machine on which the launcher runs"
        ))
        .hint("where that folder can be seen from here, name it: --location file:///the/folder")
        .into());
    }
    if let Some(public) = spec.config.get("publicUrl").cloned() {
        spec.config.insert("s3Url".to_owned(), public);
    }
    if context.location_args().credentials_file.is_some() {
        return context.open(&found.spec);
    }
    let file = found
        .credentials(cluster)
        .await
        .map_err(|e| {
            if e.hint_text().is_some() {
                return e;
            }
            e.hint("give credentials of your own with --credentials-file, or name the bucket with --location")
        })?
        .ok_or_else(|| {
            Error::invalid(format!(
                "destination {name:?} has no credentials of its own: those of the launcher's machine can not be borrowed"
            ))
            .hint("give credentials of your own with --credentials-file")
        })?;
    let ca_pem = match &context.location_args().cacert {
        None => None,
        Some(path) => Some(std::fs::read(path).map_err(|e| {
            Error::invalid(format!("can not read the CA file {}", path.display())).because(e)
        })?),
    };
    let credentials = Credentials {
        file: Some(file),
        ca_pem,
        ..Credentials::default()
    };
    Ok(location::open(&found.spec, &credentials)?)
}
