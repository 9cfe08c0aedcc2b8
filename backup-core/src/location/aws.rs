//! Buckets of S3 and of everything that speaks its language, by the config keys of Velero's plugin. A key that would not be honoured is
//! refused, not ignored.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use object_store::TagSet;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};

use super::Credentials;
use super::backend::Backend;
use super::bucket::Bucket;
use super::client;
use super::kept::Attentive;
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

/// Opens a bucket. Nothing is sent yet.
///
/// # Errors
/// `Invalid`, naming the setting.
pub(crate) fn open(
    spec: &BackupStorageLocation,
    credentials: &Credentials,
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
        .unwrap_or("us-east-1");
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

    builder = keys(builder, spec, credentials, &environment, endpoint.is_some())?;
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
        objects,
        parts: writes.clone(),
        writes,
        place,
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

/// Who we are: the credentials file's profile, else the environment, else (on AWS itself) the machine's own role.
fn keys(
    builder: AmazonS3Builder,
    spec: &BackupStorageLocation,
    credentials: &Credentials,
    environment: &BTreeMap<&str, &str>,
    own_endpoint: bool,
) -> Result<AmazonS3Builder> {
    let config = &spec.spec.config;
    let profile = client::set(config, "profile");
    client::boolean(config, "enableSharedConfig")?;
    if let Some(file) = &credentials.file {
        let unnamed = || "the credentials file".to_owned();
        let path = credentials.origin.clone().unwrap_or_else(unnamed);
        let profile = profile
            .or_else(|| environment.get("AWS_PROFILE").copied())
            .unwrap_or("default");
        let found = profile_of(file, profile, &path)?;
        let value = |key: &str| {
            found.get(key).cloned().ok_or_else(|| {
                Error::invalid(format!("{path} has no {key} in [{profile}]")).hint(
                    "the file looks like:\n[default]\naws_access_key_id = ...\naws_secret_access_key = ...",
                )
            })
        };
        for other in [
            "role_arn",
            "credential_process",
            "sso_session",
            "sso_start_url",
            "web_identity_token_file",
        ] {
            if found.contains_key(other) {
                return Err(Error::invalid(format!(
                    "{path} asks for {other} in [{profile}], which is not supported yet"
                ))
                .hint("use plain keys: `aws configure export-credentials --format env` prints those of a role or a single sign-on; give them as the environment"));
            }
        }
        let mut builder = builder
            .with_access_key_id(value("aws_access_key_id")?)
            .with_secret_access_key(value("aws_secret_access_key")?);
        if let Some(token) = found.get("aws_session_token") {
            builder = builder.with_token(token);
        }
        return Ok(builder);
    }
    if let (Some(id), Some(secret)) = (
        environment.get("AWS_ACCESS_KEY_ID"),
        environment.get("AWS_SECRET_ACCESS_KEY"),
    ) {
        let mut builder = builder
            .with_access_key_id(*id)
            .with_secret_access_key(*secret);
        if let Some(token) = environment.get("AWS_SESSION_TOKEN") {
            builder = builder.with_token(*token);
        }
        return Ok(builder);
    }
    if let Some(profile) = profile {
        return Err(Error::invalid(format!(
            "config.profile is {profile:?}, but there is no credentials file"
        ))
        .hint("give the location a credentials file with that profile, or remove config.profile"));
    }
    const ROLES: [(&str, AmazonS3ConfigKey); 7] = [
        ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
        ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            AmazonS3ConfigKey::WebIdentityTokenFile,
        ),
        ("AWS_ENDPOINT_URL_STS", AmazonS3ConfigKey::StsEndpoint),
        (
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
        ),
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            AmazonS3ConfigKey::ContainerCredentialsFullUri,
        ),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
        ),
    ];
    let mut builder = builder;
    let mut any = false;
    for (variable, key) in ROLES {
        if let Some(value) = environment.get(variable) {
            builder = builder.with_config(key, *value);
            any = true;
        }
    }
    if own_endpoint && !any {
        return Err(Error::invalid("the location has no keys").hint(
            "give it a credentials file (--credentials-file), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    Ok(builder)
}

/// The lines of one section of a credentials file, keys in lower case; `path` names it in messages.
///
/// # Errors
/// A file that is no text, or has no such section.
pub fn profile_of(file: &[u8], profile: &str, path: &str) -> Result<BTreeMap<String, String>> {
    let text = std::str::from_utf8(file)
        .map_err(|e| Error::invalid(format!("{path} is not text")).because(e))?;
    let mut found: Option<BTreeMap<String, String>> = None;
    let mut names = Vec::new();
    let mut inside = false;
    for line in text.trim_start_matches('\u{feff}').lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let name = section.0.trim();
            let name = name.strip_prefix("profile ").map_or(name, str::trim);
            names.push(name.to_owned());
            inside = name == profile;
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && let Some((key, value)) = line.split_once('=')
            && let Some(found) = &mut found
        {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found.ok_or_else(|| {
        names.truncate(20);
        let names = if names.is_empty() {
            "it has none; the file begins with [default]".to_owned()
        } else {
            format!("it has: {}", names.join(", "))
        };
        Error::invalid(format!("{path} has no profile [{profile}]"))
            .hint(format!("{names}; config.profile chooses one"))
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
