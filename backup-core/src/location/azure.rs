//! Containers of Azure Blob Storage, by the config keys of Velero's plugin.
//!
//! - Parts of an upload are blocks, which the container holds unseen until a list of them makes them a blob. Azure has no word to take them back: they go by
//!   themselves a week after the last one, or when a blob of the same name is written. So `abort` does nothing here, and a run that was given up elsewhere
//!   is held back by its claim alone: who lost it completes nothing.
//! - Written only where nothing is: `If-None-Match: *`.
//! - Addresses are signed with the access key, or with a key that Azure gives for the identity; a SAS signs nothing.
//! - `resourceGroup` and `subscriptionId` let Velero's plugin look the access key up. It is not looked up here: an identity is used as it is, and needs a
//!   role on the data (Storage Blob Data Contributor). Both keys are taken and not needed.
//! - `blockSizeInBytes` is checked and changes nothing: parts have 8 MiB, which is one block.
//!
//! Who we are is [`sign_in`]'s.

mod sign_in;

use std::sync::Arc;

use object_store::TagSet;
use object_store::azure::{AzureAccessKey, AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::signer::Signer;
use url::Url;

use super::Credentials;
use super::backend::Backend;
use super::bucket::Bucket;
use super::client;
use super::failure;
use super::kept::Attentive;
use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};
use sign_in::{Known, Who};

/// The keys that Velero's plugin knows.
const KEYS: [&str; 8] = [
    "resourceGroup",
    "storageAccount",
    "storageAccountKeyEnvVar",
    "subscriptionId",
    "storageAccountURI",
    "useAAD",
    "activeDirectoryAuthorityURI",
    "blockSizeInBytes",
];

/// A block is no larger.
const LARGEST_BLOCK: u64 = 4000 << 20;

/// One of Azure's clouds.
struct Cloud {
    /// What comes after the account in a host's name.
    suffix: &'static str,
    /// Who signs identities in.
    authority: &'static str,
}

/// By the names that Velero's plugin takes, and those of Azure's own tools.
fn cloud(name: Option<&str>) -> Result<Cloud> {
    match name.map(str::to_ascii_uppercase).as_deref() {
        None | Some("AZUREPUBLICCLOUD" | "AZURECLOUD" | "AZUREPUBLIC") => Ok(Cloud {
            suffix: "blob.core.windows.net",
            authority: "https://login.microsoftonline.com",
        }),
        Some("AZUREUSGOVERNMENTCLOUD" | "AZUREUSGOVERNMENT") => Ok(Cloud {
            suffix: "blob.core.usgovcloudapi.net",
            authority: "https://login.microsoftonline.us",
        }),
        Some("AZURECHINACLOUD" | "AZURECHINA") => Ok(Cloud {
            suffix: "blob.core.chinacloudapi.cn",
            authority: "https://login.chinacloudapi.cn",
        }),
        Some(other) => Err(
            Error::invalid(format!("AZURE_CLOUD_NAME {other:?} is not known"))
                .hint("it is AzurePublicCloud, AzureUSGovernmentCloud or AzureChinaCloud"),
        ),
    }
}

/// Opens a container. Nothing is sent yet.
///
/// # Errors
/// `Invalid`, naming the setting.
pub(crate) fn open(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
) -> Result<Arc<dyn Backend>> {
    let config = &spec.spec.config;
    super::known_keys("azure", config, &KEYS)?;
    let container = client::bucket_name(&spec.spec.object_storage.bucket)?;
    let set = |key: &str| client::set(config, key);
    if let Some(size) = set("blockSizeInBytes") {
        let fits = |size: &u64| (1..=LARGEST_BLOCK).contains(size);
        if size.parse().ok().filter(fits).is_none() {
            return Err(Error::invalid(format!(
                "config.blockSizeInBytes {size:?} is no number from 1 to {LARGEST_BLOCK}"
            )));
        }
    }
    let uri = set("storageAccountURI")
        .map(|text| {
            let example = "https://account.blob.core.windows.net";
            client::endpoint("storageAccountURI", text, example)
        })
        .transpose()?;
    let known = Known::read(credentials)?;
    let cloud = cloud(known.get("AZURE_CLOUD_NAME"))?;
    let account = account(set("storageAccount"), &known, uri.as_ref(), cloud.suffix)?;
    let address = match &uri {
        Some(url) => client::shown(url),
        None => format!("https://{account}.{}", cloud.suffix),
    };
    let authority = match set("activeDirectoryAuthorityURI") {
        Some(text) => {
            let example = "https://login.microsoftonline.com";
            client::shown(&client::endpoint(
                "activeDirectoryAuthorityURI",
                text,
                example,
            )?)
        }
        None => known
            .get("AZURE_AUTHORITY_HOST")
            .unwrap_or(cloud.authority)
            .trim_end_matches('/')
            .to_owned(),
    };
    let who = sign_in::who(
        &known,
        set("storageAccountKeyEnvVar"),
        client::boolean(config, "useAAD")?,
        uri.is_some(),
    )?;
    if who.is_identity() && uri.as_ref().is_some_and(|url| url.scheme() == "http") {
        return Err(Error::invalid(
            "config.storageAccountURI is plain HTTP, over which an identity's token is not sent",
        )
        .hint("use https://, or an access key"));
    }
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&account)
        .with_container_name(container)
        .with_endpoint(address.clone())
        .with_authority_host(authority)
        .with_retry(client::once());
    let signs = !matches!(who, Who::Sas(_));
    let builder = identify(builder, who, known.origin())?;
    let options = |silence| client::options(spec, credentials, uri.as_ref(), silence);
    let reading = builder
        .clone()
        .with_client_options(options(client::SILENCE)?)
        .with_http_connector(Attentive::default());
    let objects = Arc::new(build(reading)?);
    let writes = Arc::new(build(
        builder.with_client_options(options(client::SENDING)?),
    )?);
    let place = match &uri {
        Some(_) => format!("container {container:?} at {address}"),
        None => format!("container {container:?} of Azure's account {account:?}"),
    };
    Ok(Arc::new(Bucket {
        signer: signs.then(|| objects.clone() as Arc<dyn Signer>),
        lender: Err(
            "credentials of Azure that are limited to a prefix are not built yet".to_owned(),
        ),
        objects,
        parts: writes.clone(),
        writes,
        place,
        words: &failure::AZURE,
        tags: TagSet::default(),
    }))
}

fn build(builder: MicrosoftAzureBuilder) -> Result<MicrosoftAzure> {
    builder.build().map_err(client::unfit)
}

fn identify(
    builder: MicrosoftAzureBuilder,
    who: Who,
    origin: &str,
) -> Result<MicrosoftAzureBuilder> {
    let of_type = |name: &str| {
        builder
            .clone()
            .with_config(AzureConfigKey::CredentialType, name)
    };
    Ok(match who {
        Who::AccessKey { variable, key } => {
            if AzureAccessKey::try_new(&key).is_err() {
                // Not because of its error: it may repeat a piece of the key.
                return Err(
                    Error::invalid(format!("{variable} in {origin} is no access key")).hint(
                        "it is base64, as the storage account's page of access keys shows it",
                    ),
                );
            }
            of_type("access_key").with_access_key(key)
        }
        Who::Sas(pairs) => of_type("sas_token").with_sas_authorization(pairs),
        Who::Secret {
            tenant,
            client,
            secret,
        } => of_type("client_secret").with_client_secret_authorization(client, secret, tenant),
        Who::Federated {
            tenant,
            client,
            token_file,
        } => of_type("workload_identity")
            .with_tenant_id(tenant)
            .with_client_id(client)
            .with_federated_token_file(token_file),
        Who::Managed { client, endpoint } => {
            let mut builder = of_type("managed_identity");
            if let Some(client) = client {
                builder = builder.with_client_id(client);
            }
            if let Some(endpoint) = endpoint {
                builder = builder.with_msi_endpoint(endpoint);
            }
            builder
        }
    })
}

/// The storage account, which becomes a part of Azure's own address: what could lead elsewhere is none.
fn account(
    set: Option<&str>,
    known: &Known<'_>,
    uri: Option<&Url>,
    suffix: &str,
) -> Result<String> {
    let of_host = || {
        let host = uri?.host_str()?.strip_suffix(suffix)?;
        host.strip_suffix('.')
    };
    let variables = ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"];
    let found = set
        .or_else(|| variables.iter().find_map(|name| known.get(name)))
        .or_else(of_host);
    let Some(account) = found else {
        return Err(Error::invalid("the location names no storage account")
            .hint("set config.storageAccount"));
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !(3..=24).contains(&account.len()) || !account.bytes().all(plain) {
        return Err(Error::invalid(format!(
            "config.storageAccount {account:?} is not a storage account's name"
        ))
        .hint(
            "it has 3 to 24 small letters and digits; an address goes to config.storageAccountURI",
        ));
    }
    Ok(account.to_owned())
}

#[cfg(test)]
mod tests;
