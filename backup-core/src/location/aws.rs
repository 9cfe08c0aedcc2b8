//! Buckets of S3 and of everything that speaks its language, by the config keys of Velero's plugin. A key that would not be honoured is
//! refused, not ignored. Who signs the requests is [`way`]'s to find out and [`session`]'s to get.

mod lend;
mod policy;
mod profile;
mod session;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use object_store::TagSet;
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider, Checksum,
};
use object_store::client::{HttpConnector as _, ReqwestConnector};
use url::Url;

use super::Credentials;
use super::backend::Backend;
use super::bucket::Bucket;
use super::client;
use super::failure;
use super::kept::Attentive;
use super::lend::Lender;
use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};

/// The keys that Velero's plugin knows.
const KEYS: [&str; 14] = [
    "region",
    "s3Url",
    "s3ForcePathStyle",
    "publicUrl",
    "profile",
    "insecureSkipTLSVerify",
    "kmsKeyId",
    "serverSideEncryption",
    "customerKeyEncryptionFile",
    "customerKeyEncryptionSecret",
    "signatureVersion",
    "enableSharedConfig",
    "checksumAlgorithm",
    "tagging",
];

pub use policy::policies;

const USUAL_REGION: &str = "us-east-1";

/// What is on this machine takes a connection at once.
const NEAR: Duration = Duration::from_secs(2);

/// Opens a bucket. Nothing is sent yet.
///
/// # Errors
/// `Invalid`, naming the setting.
pub(crate) fn open(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
) -> Result<Arc<dyn Backend>> {
    open_as(spec, credentials, None)
}

/// The same with keys that others gave for it, and nothing of this machine.
///
/// # Errors
/// As [`open`].
pub(super) fn open_lent(
    spec: &BackupStorageLocation,
    keys: AwsCredentialProvider,
) -> Result<Arc<dyn Backend>> {
    open_as(spec, &Credentials::default(), Some(keys))
}

fn open_as(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
    lent: Option<AwsCredentialProvider>,
) -> Result<Arc<dyn Backend>> {
    let config = &spec.spec.config;
    super::known_keys("aws", config, &KEYS)?;
    let bucket = client::bucket_name(&spec.spec.object_storage.bucket)?;
    let environment = client::environment(credentials);
    let set = |key: &str| client::set(config, key);
    let from_environment =
        |keys: &[&str]| keys.iter().find_map(|key| environment.get(key).copied());

    let endpoint = set("s3Url")
        .or_else(|| from_environment(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]))
        .map(|text| client::endpoint("s3Url", text, "https://minio.example.com:9000"))
        .transpose()?;
    let region = set("region")
        .or_else(|| from_environment(&["AWS_REGION", "AWS_DEFAULT_REGION"]))
        .unwrap_or(USUAL_REGION);
    let region = region_name(region)?;

    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_retry(client::once());
    let path_style = match client::boolean(config, "s3ForcePathStyle")? {
        Some(asked) => asked,
        // Names with dots do not fit a certificate's wildcard.
        None => endpoint.is_some() || bucket.contains('.'),
    };
    builder = builder.with_virtual_hosted_style_request(!path_style);
    let place = match &endpoint {
        Some(url) => {
            let host = client::shown(url);
            let mut url = url.clone();
            if !path_style {
                let host = url.host_str().unwrap_or_default();
                let host = format!("{bucket}.{host}");
                url.set_host(Some(&host)).map_err(|e| {
                    Error::invalid(format!("bucket {bucket:?} does not fit a host's name"))
                        .because(e)
                        .hint("set config.s3ForcePathStyle to \"true\"")
                })?;
            }
            builder = builder.with_endpoint(url.as_str().trim_end_matches('/'));
            format!("bucket {bucket:?} at {host}")
        }
        None => format!("bucket {bucket:?} of AWS in {region}"),
    };

    let (signs, lender) = match lent {
        Some(keys) => (keys, Err("it was opened with lent keys".to_owned())),
        None => {
            let opened = lend::Opened {
                spec,
                credentials,
                region,
                endpoint: endpoint.as_ref(),
                path_style,
            };
            signer(&opened)?
        }
    };
    builder = builder.with_credentials(signs);
    builder = encryption(builder, config, &set, credentials.customer_key.as_deref())?;
    builder = checksum(builder, config, endpoint.is_some())?;
    if let Some(version) = set("signatureVersion").filter(|version| !["4", "v4"].contains(version))
    {
        return Err(Error::invalid(format!(
            "config.signatureVersion {version:?} is not supported"
        ))
        .hint("requests are signed with version 4; remove the key"));
    }

    let reading = client::options(spec, credentials, endpoint.as_ref(), client::SILENCE)?;
    let writing = client::options(spec, credentials, endpoint.as_ref(), client::SENDING)?;
    let objects = builder.clone().with_client_options(reading);
    let objects = Arc::new(build(objects.with_http_connector(Attentive::default()))?);
    let writes = Arc::new(build(builder.with_client_options(writing))?);
    Ok(Arc::new(Bucket {
        signer: Some(objects.clone()),
        lender,
        objects,
        parts: writes.clone(),
        writes,
        place,
        words: &failure::S3,
        tags: tags(set("tagging").unwrap_or_default())?,
    }))
}

fn build(builder: AmazonS3Builder) -> Result<AmazonS3> {
    builder.build().map_err(client::unfit)
}

/// It becomes a part of AWS's own address: what could lead elsewhere is none.
fn region_name(region: &str) -> Result<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if region.len() > 255 || !region.bytes().all(plain) {
        return Err(
            Error::invalid(format!("config.region {region:?} is not a region's name"))
                .hint("it looks like us-east-1; a store's own address goes to config.s3Url"),
        );
    }
    Ok(region)
}

/// Who lends keys, or why nobody does.
type Lending = Result<Arc<dyn Lender>, String>;

/// Who signs, as [`way`] has it, and who lends keys. What gives keys is asked without the store's own settings: by its own address, and with AWS's certificates where it
/// is AWS's.
fn signer(opened: &lend::Opened<'_>) -> Result<(AwsCredentialProvider, Lending)> {
    let lend::Opened {
        spec,
        credentials,
        region,
        endpoint,
        ..
    } = *opened;
    client::boolean(&spec.spec.config, "enableSharedConfig")?;
    let way = way(spec, credentials, region, endpoint.is_some())?;
    let connect = |url: &Url, taken: Option<&way::Taken>| {
        let mut options = client::options(spec, credentials, Some(url), client::SILENCE)?;
        match taken {
            Some(taken) if taken.of_aws => {
                options = options.with_allow_invalid_certificates(false);
            }
            Some(_) => {}
            // It is this machine, or beside it: no proxy leads there, and an answer comes at once or not at all.
            None => {
                options = options
                    .with_connect_timeout(NEAR)
                    .with_proxy_url(url.as_str())
                    .with_proxy_excludes("*,0.0.0.0/0,::/0");
            }
        }
        let connector = ReqwestConnector::default();
        connector.connect(&options).map_err(client::unfit)
    };
    let lender = lend::lender(opened, way.clone(), &connect);
    Ok((session::provider(way, &connect)?, lender))
}

/// The keys and roles that a location of AWS uses, as a credentials file that holds nothing else; nothing where they are this machine's own.
///
/// # Errors
/// `Invalid`, naming the setting; where the keys would not last, or not work elsewhere.
pub fn credentials_file(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
) -> Result<Option<String>> {
    let set = |key: &str| client::set(&spec.spec.config, key);
    let region = region_name(set("region").unwrap_or(USUAL_REGION))?;
    way(spec, credentials, region, set("s3Url").is_some())?.file()
}

fn way(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
    region: &str,
    own_endpoint: bool,
) -> Result<way::Way> {
    way::way(&way::Known {
        credentials,
        profile: client::set(&spec.spec.config, "profile"),
        region,
        own_endpoint,
    })
}

fn encryption<'a>(
    builder: AmazonS3Builder,
    config: &BTreeMap<String, String>,
    set: &impl Fn(&str) -> Option<&'a str>,
    of_secret: Option<&[u8]>,
) -> Result<AmazonS3Builder> {
    let (file, secret) = (
        set("customerKeyEncryptionFile"),
        set("customerKeyEncryptionSecret"),
    );
    let server = set("serverSideEncryption");
    let kms = set("kmsKeyId");
    let others = [server, kms, file.and(secret)];
    if (file.is_some() || secret.is_some()) && others.iter().any(Option::is_some) {
        return Err(Error::invalid(
            "config.customerKeyEncryptionFile and config.customerKeyEncryptionSecret: each excludes the other, kmsKeyId and serverSideEncryption",
        ));
    }
    let customer = match (file, secret, of_secret) {
        (None, None, _) => None,
        (Some(path), ..) => {
            let setting = format!("config.customerKeyEncryptionFile {path}");
            let key = std::fs::read(path)
                .map_err(|e| Error::invalid(format!("{setting} can not be read")).because(e))?;
            Some((setting, key))
        }
        (None, Some(secret), Some(key)) => {
            let setting = format!("config.customerKeyEncryptionSecret {secret}");
            Some((setting, key.to_vec()))
        }
        (None, Some(_), None) => {
            return Err(Error::invalid(
                "config.customerKeyEncryptionSecret names a Secret, which only an object of a cluster has beside it",
            )
            .hint("write the key to a file and name it with config.customerKeyEncryptionFile"));
        }
    };
    if let Some((setting, key)) = customer {
        if key.len() != 32 {
            return Err(Error::invalid(format!(
                "{setting} has {} bytes; a key has 32",
                key.len()
            )));
        }
        return Ok(builder.with_ssec_encryption(BASE64.encode(key)));
    }
    match (server, kms) {
        (None, None) => Ok(builder),
        (None | Some("aws:kms"), Some(key)) => Ok(builder.with_sse_kms_encryption(key)),
        (Some("aws:kms:dsse"), Some(key)) => Ok(builder.with_dsse_kms_encryption(key)),
        (Some(kind @ ("AES256" | "aws:kms" | "aws:kms:dsse")), None) => {
            let key: AmazonS3ConfigKey = "aws_server_side_encryption"
                .parse()
                .expect("object_store names it so");
            Ok(builder.with_config(key, kind))
        }
        (Some(kind), _) => Err(Error::invalid(format!(
            "config.serverSideEncryption {kind:?} is not supported{}",
            if config.contains_key("kmsKeyId") {
                " with kmsKeyId"
            } else {
                ""
            }
        ))
        .hint("it is AES256, aws:kms or aws:kms:dsse")),
    }
}

/// Requests are signed over their bytes, so what arrives is what was sent in any case. A checksum is sent besides where it is asked for, and to
/// AWS itself, whose object lock demands one. SHA-256 stands for the weaker kinds that Velero's plugin knows.
fn checksum(
    builder: AmazonS3Builder,
    config: &BTreeMap<String, String>,
    own_endpoint: bool,
) -> Result<AmazonS3Builder> {
    let asked = config
        .get("checksumAlgorithm")
        .map(|kind| kind.to_ascii_uppercase());
    match asked.as_deref() {
        Some("") => Ok(builder),
        None if own_endpoint => Ok(builder),
        None | Some("SHA256" | "SHA1" | "CRC32" | "CRC32C") => {
            Ok(builder.with_checksum_algorithm(Checksum::SHA256))
        }
        Some("CRC64NVME") => Ok(builder.with_checksum_algorithm(Checksum::CRC64NVME)),
        Some(kind) => Err(Error::invalid(format!(
            "config.checksumAlgorithm {kind:?} is not supported"
        ))
        .hint("it is SHA256, CRC64NVME, CRC32, CRC32C, SHA1, or empty for none")),
    }
}

fn tags(text: &str) -> Result<TagSet> {
    let mut tags = TagSet::default();
    for (key, value) in url::form_urlencoded::parse(text.as_bytes()) {
        if key.is_empty() || key.len() > 128 || value.len() > 256 {
            return Err(Error::invalid(format!(
                "config.tagging {text:?} is not k=v&k2=v2"
            )));
        }
        tags.push(&key, &value);
    }
    Ok(tags)
}

#[cfg(test)]
mod tests;
