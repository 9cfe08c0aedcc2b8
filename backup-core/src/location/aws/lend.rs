//! Lends keys of S3: STS is asked for a session that a policy narrows to one prefix, for the shortest time that it gives. A location's role is taken so with the same keys
//! as for its own use; a store with an address of its own gives such keys itself (MinIO does), for the location's keys and with no role.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::policy;
use super::session::{Connect, Source, provider};
use super::way::{Taken, USUAL_NAME, Way};
use crate::api::BackupStorageLocation;
use crate::error::{Error, Kind, Result};
use crate::location::failure::NoKeys;
use crate::location::lend::{self, LentKeys};
use crate::location::{Credentials, Role};

/// No STS gives keys for less.
const SECONDS: u32 = 900;

/// The clock of this machine may be off by as much as S3 takes. Keys are never held for longer than was asked for, nor for ended where the store may still take them.
const OFF: SignedDuration = SignedDuration::from_mins(15);
const LEAST: Duration = Duration::from_secs(10);

/// What a pod has no use for, or must not know.
const LEFT_OUT: [&str; 4] = [
    "profile",
    "enableSharedConfig",
    "customerKeyEncryptionFile",
    "customerKeyEncryptionSecret",
];

/// What opening a bucket found out.
pub(super) struct Opened<'a> {
    pub(super) spec: &'a BackupStorageLocation,
    pub(super) credentials: &'a Credentials,
    pub(super) region: &'a str,
    /// The store's own address; AWS has none.
    pub(super) endpoint: Option<&'a Url>,
    pub(super) path_style: bool,
}

struct Lender {
    source: Source,
    spec: BackupStorageLocation,
}

/// One for this bucket, or why there is none.
pub(super) fn lender(
    opened: &Opened<'_>,
    way: Way,
    connect: Connect<'_>,
) -> Result<Arc<dyn lend::Lender>, String> {
    let spec = spec(opened)?;
    let failed = |e: Error| e.sentence();
    let source = match (way, opened.endpoint) {
        (Way::Role { base, taken }, _) => Source::Role {
            base: provider(*base, connect).map_err(failed)?,
            client: connect(&taken.sts, Some(&taken)).map_err(failed)?,
            taken,
        },
        (
            Way::Token {
                file,
                setting,
                taken,
            },
            _,
        ) => Source::Token {
            client: connect(&taken.sts, Some(&taken)).map_err(failed)?,
            file,
            setting,
            taken,
        },
        (Way::Keys(keys), Some(_)) if keys.token.is_some() => {
            return Err(
                "the location's keys are a session's themselves, and those give no others"
                    .to_owned(),
            );
        }
        (Way::Keys(keys), Some(endpoint)) => {
            let mut sts = endpoint.clone();
            sts.set_path("/");
            let taken = Taken {
                role: Role::default(),
                name: USUAL_NAME.to_owned(),
                seconds: SECONDS,
                sts,
                of_aws: false,
                region: opened.region.to_owned(),
                setting: "the location's keys".to_owned(),
                policy: None,
            };
            Source::Role {
                base: provider(Way::Keys(keys), connect).map_err(failed)?,
                client: connect(&taken.sts, Some(&taken)).map_err(failed)?,
                taken,
            }
        }
        (Way::Keys(_), None) => {
            return Err("the location has keys of AWS and no role: only a role is taken for less than everything (--role-arn)".to_owned());
        }
        (Way::Container { .. } | Way::Machine { .. } | Way::Nothing, _) => {
            return Err("the location's keys are those of the machine or pod that makes the backup: only a role that the location names is taken for less than everything (--role-arn)".to_owned());
        }
    };
    Ok(Arc::new(Lender { source, spec }))
}

/// The location as a pod opens it: what this machine added is in it, and what is none of a pod's business is not.
fn spec(opened: &Opened<'_>) -> Result<BackupStorageLocation, String> {
    let mut spec = BackupStorageLocation::default();
    spec.metadata.name.clone_from(&opened.spec.metadata.name);
    spec.spec.provider = "aws".to_owned();
    let storage = &opened.spec.spec.object_storage;
    let lent = &mut spec.spec.object_storage;
    lent.bucket.clone_from(&storage.bucket);
    lent.prefix.clone_from(&storage.prefix);
    lent.ca_cert.clone_from(&storage.ca_cert);
    if let Some(pem) = &opened.credentials.ca_pem {
        let packed: String = storage
            .ca_cert
            .as_deref()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let mut all = BASE64
            .decode(packed)
            .map_err(|_| "objectStorage.caCert is not base64".to_owned())?;
        all.push(b'\n');
        all.extend_from_slice(pem);
        lent.ca_cert = Some(BASE64.encode(all));
    }
    let config = &mut spec.spec.config;
    config.clone_from(&opened.spec.spec.config);
    if LEFT_OUT[2..]
        .iter()
        .any(|key| config.get(*key).is_some_and(|value| !value.is_empty()))
    {
        return Err(
            "its objects are encrypted with a key of the customer's, which does not go into a pod"
                .to_owned(),
        );
    }
    config.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
    let mut set = |key: &str, value: String| config.insert(key.to_owned(), value);
    set("region", opened.region.to_owned());
    set("s3ForcePathStyle", opened.path_style.to_string());
    if let Some(endpoint) = opened.endpoint {
        set("s3Url", endpoint.to_string());
    }
    Ok(spec)
}

impl From<NoKeys> for Error {
    fn from(refused: NoKeys) -> Self {
        let error = Self::new(refused.kind, refused.why);
        match refused.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

#[async_trait]
impl lend::Lender for Lender {
    fn spec(&self) -> &BackupStorageLocation {
        &self.spec
    }

    async fn lend(&self, prefix: &str) -> Result<lend::Lent> {
        let policy = |taken: &Taken| -> Result<Taken> {
            let policy = policy::lent(&self.spec, &taken.role.arn, prefix)?;
            Ok(Taken {
                seconds: SECONDS,
                policy: Some(policy),
                ..taken.clone()
            })
        };
        let held = match &self.source {
            Source::Role {
                base,
                client,
                taken,
            } => {
                let narrowed = policy(taken)?;
                Source::role(base, client, &narrowed).await?
            }
            Source::Token {
                client,
                file,
                setting,
                taken,
            } => {
                let narrowed = policy(taken)?;
                Source::token(client, file, setting, &narrowed).await?
            }
            Source::Container { .. } | Source::Machine { .. } => {
                return Err(Error::other("the machine's keys are not lent"));
            }
        };
        let odd = |what: &str| {
            Error::new(Kind::Corrupt, format!("STS gave keys {what}"))
                .hint("such keys are not given away; another kind of server seems to be there")
        };
        let ends = held.ends.ok_or_else(|| odd("that do not end"))?;
        let lasts = ends.duration_since(Timestamp::now());
        if lasts <= -OFF {
            return Err(odd("that have ended"));
        }
        let lasts = Duration::try_from(lasts).unwrap_or_default();
        let lasts = lasts.clamp(LEAST, Duration::from_secs(SECONDS.into()));
        let token = held.keys.token.clone();
        Ok(lend::Lent {
            keys: LentKeys {
                id: held.keys.key_id.clone(),
                secret: held.keys.secret_key.clone(),
                token: token.ok_or_else(|| odd("without a token"))?,
            },
            lasts,
        })
    }
}

#[cfg(test)]
mod tests;
