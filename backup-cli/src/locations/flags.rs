//! `--location`, `--credentials-file` and `--cacert`, and opening what they mean. Reads the files named here, and the environment's
//! variables for the providers' own tools, and the files of AWS's, where no credentials are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::api::BackupStorageLocation;
use backup_core::location::{self, Credentials, Location, Role};
use clap::Args;

use super::{CREDENTIALS_FILE, EXTERNAL_ID, ROLE_ARN};
use crate::error::Result;

/// Where backups live.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Location")]
pub struct LocationArgs {
    /// Location of backups: a name from `location get`, or a URL (s3://bucket/prefix?endpoint=..&region=.., gs://bucket/prefix, az://container/prefix?storage-account=.., file:///folder)
    #[arg(
        long,
        visible_alias = "storage-location",
        global = true,
        value_name = "NAME|URL",
        env = "KUBECTL_BACKUP_LOCATION",
        hide_env_values = true
    )]
    pub location: Option<String>,
    /// File with the location's credentials, in Velero's format; for a location of the cluster's Velero its Secret comes before the variable, which goes to no address that such a location names [env: KUBECTL_BACKUP_CREDENTIALS_FILE=]
    // Not clap's own `env`, here and below: a location that is remembered keeps what its flags say, and not what a variable says of all.
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub credentials_file: Option<PathBuf>,
    /// The same from its variable.
    #[arg(skip = of_environment("KUBECTL_BACKUP_CREDENTIALS_FILE"))]
    pub credentials_file_of_environment: Option<PathBuf>,
    /// CA to trust for the location besides the system's, PEM [env: KUBECTL_BACKUP_CACERT=]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub cacert: Option<PathBuf>,
    /// The same from its variable.
    #[arg(skip = of_environment("KUBECTL_BACKUP_CACERT"))]
    pub cacert_of_environment: Option<PathBuf>,
}

fn of_environment(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name)?;
    (!value.is_empty()).then(|| value.into())
}

/// The variables of the providers' own tools.
fn sdk_variables() -> Vec<(String, String)> {
    const OTHERS: [&str; 5] = [
        "GOOGLE_APPLICATION_CREDENTIALS",
        "CLOUDSDK_CONFIG",
        "GCE_METADATA_HOST",
        "IDENTITY_ENDPOINT",
        "HOME",
    ];
    let ours = |name: &str| {
        name.starts_with("AWS_") || name.starts_with("AZURE_") || OTHERS.contains(&name)
    };
    std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(name, _)| ours(name))
        .collect()
}

/// A variable of the environment; an empty one is none.
type Variable<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The files in which AWS's tools keep profiles, as one: what `credentials` says comes before what `config` says. None where neither is there.
///
/// # Errors
/// A file that can not be read, where a variable names it or it is there.
pub fn shared(variable: Variable<'_>) -> Result<Option<(Vec<u8>, String)>> {
    let home = variable("HOME").map(PathBuf::from);
    let mut found = (Vec::new(), Vec::new());
    for (name, usual) in [
        ("AWS_CONFIG_FILE", ".aws/config"),
        ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"),
    ] {
        let named = variable(name).map(PathBuf::from);
        let is_named = named.is_some();
        let Some(path) = named.or(home.as_ref().map(|home| home.join(usual))) else {
            continue;
        };
        let shown = path.display().to_string();
        match std::fs::read(&path) {
            Ok(bytes) => {
                found.0.extend_from_slice(&bytes);
                found.0.push(b'\n');
                found.1.push(shown);
            }
            // A home that is closed to this user, as a pod's may be, is none.
            Err(_) if !is_named => {}
            Err(e) => {
                return Err(
                    Error::invalid(format!("can not read {shown}, which {name} names"))
                        .because(e)
                        .into(),
                );
            }
        }
    }
    let (bytes, paths) = found;
    Ok((!paths.is_empty()).then(|| (bytes, paths.join(" and "))))
}

/// The role that a remembered location is used with.
pub fn role(location: &BackupStorageLocation) -> Option<Role> {
    let annotations = &location.metadata.annotations;
    Some(Role {
        arn: annotations.get(ROLE_ARN)?.clone(),
        external_id: annotations.get(EXTERNAL_ID).cloned(),
    })
}

/// Whether the environment holds keys for a provider.
pub fn has_keys_in_environment(provider: &str) -> bool {
    let sets: &[&[&str]] = match provider.trim_start_matches("velero.io/") {
        "aws" => &[&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]],
        "gcp" => &[&["GOOGLE_APPLICATION_CREDENTIALS"]],
        "azure" => &[
            &["AZURE_STORAGE_ACCOUNT_ACCESS_KEY"],
            &["AZURE_STORAGE_KEY"],
            &["AZURE_STORAGE_SAS_TOKEN"],
            &["AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"],
        ],
        _ => &[],
    };
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    sets.iter().any(|set| set.iter().all(is_set))
}

impl LocationArgs {
    /// The file with credentials that a flag or its variable names.
    pub fn given_credentials(&self) -> Option<&Path> {
        let of_environment = &self.credentials_file_of_environment;
        self.credentials_file
            .as_ref()
            .or(of_environment.as_ref())
            .map(PathBuf::as_path)
    }

    /// Opens a location with its credentials; nothing is sent yet.
    ///
    /// # Errors
    /// Settings or files that can not be used.
    pub fn open(&self, spec: &BackupStorageLocation) -> Result<Location> {
        let remembered = spec.metadata.annotations.get(CREDENTIALS_FILE);
        let file = self.given_credentials();
        let file = file.or(remembered.map(Path::new));
        let credentials = Credentials {
            role: role(spec),
            ..Credentials::default()
        };
        self.open_with(spec, file, credentials)
    }

    /// The same with what is known of its credentials already; a file of this machine comes before it.
    ///
    /// # Errors
    /// As [`LocationArgs::open`].
    pub fn open_with(
        &self,
        spec: &BackupStorageLocation,
        file: Option<&Path>,
        mut credentials: Credentials,
    ) -> Result<Location> {
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
        if let Some(path) = file {
            credentials.file = Some(read(path, "the credentials file")?);
            credentials.origin = Some(path.display().to_string());
            credentials.of_object = false;
        }
        if credentials.file.is_some() {
            credentials.beside_file = sdk_variables();
        } else {
            credentials.environment = sdk_variables();
            let is_aws = spec.spec.provider.trim_start_matches("velero.io/") == "aws";
            // An object of a cluster is not to choose among this user's profiles.
            if is_aws && !credentials.of_object {
                credentials.shared =
                    shared(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))?;
            }
        }
        if let Some(path) = self.cacert.as_ref().or(self.cacert_of_environment.as_ref()) {
            credentials.ca_pem = Some(read(path, "the CA file")?);
        }
        Ok(location::open(spec, &credentials)?)
    }
}
