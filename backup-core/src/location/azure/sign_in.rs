//! Who we are for Azure: an access key, a SAS, or an identity of Microsoft Entra.
//!
//! The credentials file is lines of `AZURE_NAME=value`, as Velero's plugin reads it; without one the same variables come from the environment. The first of
//! these that is there is used; `useAAD` leaves the first two out:
//! 1. an access key: the variable that `storageAccountKeyEnvVar` names, else `AZURE_STORAGE_ACCOUNT_ACCESS_KEY` (Velero's), `AZURE_STORAGE_KEY`;
//! 2. a SAS: `AZURE_STORAGE_SAS_TOKEN`;
//! 3. a client secret: `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`;
//! 4. a workload identity: tenant, client and `AZURE_FEDERATED_TOKEN_FILE`;
//! 5. the machine's managed identity, `AZURE_CLIENT_ID` naming one of several; `IDENTITY_ENDPOINT` names who gives its tokens.
//!
//! Certificates and passwords of people are refused by name. Of a file, `AZURE_FEDERATED_TOKEN_FILE` is not taken: it would name a file of this machine,
//! and the file may come out of an object that somebody else wrote.

use std::collections::BTreeMap;

use object_store::azure::split_sas;

use crate::error::{Error, Result};
use crate::location::{Credentials, client};

/// Who we are.
pub(super) enum Who {
    AccessKey {
        /// Where it was found, for messages.
        variable: String,
        key: String,
    },
    Sas(Vec<(String, String)>),
    Secret {
        tenant: String,
        client: String,
        secret: String,
    },
    Federated {
        tenant: String,
        client: String,
        token_file: String,
    },
    Managed {
        client: Option<String>,
        endpoint: Option<String>,
    },
}

impl Who {
    /// Whether a token goes along with each request, which whoever hears it could use.
    pub(super) fn is_identity(&self) -> bool {
        !matches!(self, Self::AccessKey { .. } | Self::Sas(_))
    }
}

/// What a file or the environment says.
pub(super) struct Known<'a> {
    values: BTreeMap<String, String>,
    file: Option<&'a str>,
}

impl<'a> Known<'a> {
    /// Reads the file, or the environment where there is none.
    ///
    /// # Errors
    /// A file that is no such list.
    pub(super) fn read(credentials: &'a Credentials) -> Result<Self> {
        let Some(bytes) = &credentials.file else {
            let all = client::environment(credentials).into_iter();
            return Ok(Self {
                values: all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                file: None,
            });
        };
        let origin = credentials.origin.as_deref();
        let origin = origin.unwrap_or("the credentials file");
        let values = lines(bytes, origin)?;
        if !values.keys().any(|name| name.starts_with("AZURE_")) {
            return Err(Error::invalid(format!("{origin} names nothing of Azure")).hint(LOOKS));
        }
        Ok(Self {
            values,
            file: Some(origin),
        })
    }

    /// A value that says something.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.values.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    /// Where it was read, for messages.
    pub(super) fn origin(&self) -> &'a str {
        self.file.unwrap_or("the environment")
    }
}

const LOOKS: &str = "the file looks like:\nAZURE_TENANT_ID=...\nAZURE_CLIENT_ID=...\nAZURE_CLIENT_SECRET=...\nor:\nAZURE_STORAGE_ACCOUNT_ACCESS_KEY=...";

/// Lines of `NAME=value`: quotes around a value go, as do `export` before a name, comments and empty lines.
fn lines(bytes: &[u8], origin: &str) -> Result<BTreeMap<String, String>> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Error::invalid(format!("{origin} is not text")).because(e))?;
    let mut values = BTreeMap::new();
    let all = text.trim_start_matches('\u{feff}').lines();
    for (number, line) in all.map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            // Not repeated in the message: it may be a secret.
            return Err(
                Error::invalid(format!("{origin}: line {} is not NAME=value", number + 1))
                    .hint(LOOKS),
            );
        };
        let value = value.trim();
        let unquoted = |quote: char| value.strip_prefix(quote)?.strip_suffix(quote);
        let value = unquoted('"').or_else(|| unquoted('\'')).unwrap_or(value);
        values.insert(name.trim().to_owned(), value.to_owned());
    }
    Ok(values)
}

/// Chooses who we are.
///
/// # Errors
/// Half of something, and what is refused.
pub(super) fn who(
    known: &Known<'_>,
    key_variable: Option<&str>,
    use_aad: Option<bool>,
    own_address: bool,
) -> Result<Who> {
    let get = |name: &str| known.get(name).map(str::to_owned);
    let origin = known.origin();
    let missing = |name: &str, why: &str| {
        Error::invalid(format!("{origin} has no {name}, {why}")).hint(LOOKS)
    };
    if use_aad != Some(true) {
        if let Some(variable) = key_variable {
            let key = get(variable)
                .ok_or_else(|| missing(variable, "which config.storageAccountKeyEnvVar names"))?;
            return Ok(Who::AccessKey {
                variable: variable.to_owned(),
                key,
            });
        }
        for variable in [
            "AZURE_STORAGE_ACCOUNT_ACCESS_KEY",
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_ACCOUNT_KEY",
        ] {
            if let Some(key) = get(variable) {
                let variable = variable.to_owned();
                return Ok(Who::AccessKey { variable, key });
            }
        }
        if let Some(sas) = get("AZURE_STORAGE_SAS_TOKEN") {
            let pairs = split_sas(&sas).ok();
            let pairs = pairs.filter(|pairs| pairs.iter().any(|(name, _)| name == "sig"));
            return pairs.map(Who::Sas).ok_or_else(|| {
                Error::invalid(format!("AZURE_STORAGE_SAS_TOKEN in {origin} is no SAS"))
                    .hint("it looks like sv=...&sp=racwdl&sr=c&sig=...")
            });
        }
    }
    for (variable, instead) in [
        ("AZURE_CLIENT_CERTIFICATE", "a certificate"),
        ("AZURE_CLIENT_CERTIFICATE_PATH", "a certificate"),
        ("AZURE_PASSWORD", "a person's password"),
    ] {
        if get(variable).is_some() && get("AZURE_CLIENT_SECRET").is_none() {
            return Err(Error::invalid(format!(
                "{origin} has {variable}: {instead} is not supported"
            ))
            .hint("give AZURE_CLIENT_SECRET, a workload identity, or an access key"));
        }
    }
    let needs = |name: &str, why: &str| get(name).ok_or_else(|| missing(name, why));
    if let Some(secret) = get("AZURE_CLIENT_SECRET") {
        let why = "which a client secret belongs to";
        return Ok(Who::Secret {
            tenant: tenant(needs("AZURE_TENANT_ID", why)?)?,
            client: needs("AZURE_CLIENT_ID", why)?,
            secret,
        });
    }
    if known.file.is_none()
        && let Some(token_file) = get("AZURE_FEDERATED_TOKEN_FILE")
    {
        let why = "which a workload identity belongs to";
        return Ok(Who::Federated {
            tenant: tenant(needs("AZURE_TENANT_ID", why)?)?,
            client: needs("AZURE_CLIENT_ID", why)?,
            token_file,
        });
    }
    if own_address && use_aad != Some(true) {
        return Err(Error::invalid("the location has no keys").hint(
            "give it a credentials file (--credentials-file), or set AZURE_STORAGE_ACCOUNT_ACCESS_KEY; where the machine's own identity is meant, set config.useAAD to \"true\"",
        ));
    }
    if known.file.is_some() && use_aad != Some(true) && get("AZURE_CLIENT_ID").is_none() {
        return Err(Error::invalid(format!("{origin} says nothing of who we are")).hint(LOOKS));
    }
    Ok(Who::Managed {
        client: get("AZURE_CLIENT_ID"),
        endpoint: known
            .file
            .is_none()
            .then(|| get("IDENTITY_ENDPOINT"))
            .flatten(),
    })
}

/// It becomes a part of the sign-in service's address.
fn tenant(id: String) -> Result<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if id.len() > 255 || !id.bytes().all(plain) {
        return Err(
            Error::invalid(format!("AZURE_TENANT_ID {id:?} is not a tenant's id"))
                .hint("it looks like 72f988bf-86f1-41af-91ab-2d7cd011db47, or is a domain"),
        );
    }
    Ok(id)
}
