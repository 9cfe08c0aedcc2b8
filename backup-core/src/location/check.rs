//! Whether a location can do what a backup needs, step by step, each failure with advice that names the setting.

use std::borrow::Cow;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;

use super::Location;
use super::backend::PART;
use super::claim::{UploadId, abort};
use super::kept::Kept;
use crate::archive::write::Sink;
use crate::error::{Error, Result};
use crate::layout::{BACKUPS, PROBES};

/// Clocks that differ by more are worth a warning.
const WARN_SECONDS: i64 = 60;

/// Clocks that differ by more make `prune` refuse.
pub(crate) const MOST_SECONDS: i64 = 300;

/// One step and how it went.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// `list`, `access`, `write`, `create-only write`, `read back`, `multipart upload`, `object lock`, `versions`, `delete`, `clock`
    pub name: Cow<'static, str>,
    /// Whether it worked.
    pub ok: bool,
    /// Works without it, though not as well.
    pub optional: bool,
    /// What was seen.
    pub detail: String,
    /// What to change.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub advice: Option<String>,
}

fn good(name: &'static str, detail: impl Into<String>) -> Step {
    Step {
        name: name.into(),
        ok: true,
        optional: false,
        detail: detail.into(),
        advice: None,
    }
}

fn bad(name: &'static str, error: &Error) -> Step {
    Step {
        name: name.into(),
        ok: false,
        optional: false,
        detail: super::failure::chain(error),
        advice: Some(error.hint_text().map_or_else(
            || "check the location's settings and the credentials' rights".to_owned(),
            str::to_owned,
        )),
    }
}

/// Runs every step that makes sense after the ones before; leaves nothing behind.
pub async fn check(location: &Location, now: Timestamp) -> Vec<Step> {
    let store = &location.store;
    let mut steps = Vec::new();
    let first = store.list(BACKUPS).next().await;
    match first {
        Some(Err(e)) => {
            steps.push(bad("list", &e));
            return steps;
        }
        None => steps.push(good(
            "list",
            format!("{} is reached; it holds no backups", store.place()),
        )),
        Some(Ok(entry)) => {
            steps.push(good("list", format!("{} is reached", store.place())));
            if location.is_read_only() {
                let read = store.range(&entry.key, 0..entry.size.min(1)).await;
                steps.push(match read {
                    Ok(_) => good("read back", format!("{} can be read", entry.key)),
                    Err(e) => bad("read back", &e),
                });
            }
        }
    }
    if location.is_read_only() {
        steps.push(Step {
            advice: Some("backups there can be listed and restored; to make or remove some, set accessMode to ReadWrite".to_owned()),
            ..good("access", "read-only by the location's accessMode: nothing was written")
        });
        return steps;
    }
    let key = format!("{PROBES}check-{}", uuid::Uuid::new_v4().simple());
    probe(location, &key, now, &mut steps).await;
    let parts = format!("{key}-parts");
    if steps.iter().all(|step| step.ok || step.optional) {
        steps.push(match upload(location, &parts).await {
            Ok(detail) => good("multipart upload", detail),
            Err(e) => bad("multipart upload", &e),
        });
    }
    let kept = store.kept(&key).await.unwrap_or_else(|e| {
        steps.push(Step {
            optional: true,
            ..bad("object lock", &e)
        });
        Kept::default()
    });
    if kept.versions {
        let locked = if kept.is_locked(now) {
            format!(", and each is {kept}: what this check wrote, too")
        } else {
            String::new()
        };
        steps.push(Step {
            advice: Some("let a lifecycle rule of the bucket remove old versions, or it grows with every backup that goes".to_owned()),
            ..good("versions", format!("what is deleted is hidden, and its versions stay{locked}"))
        });
    }
    let removed = match store.delete(&key).await {
        Ok(()) => store.delete(&parts).await,
        failed => failed,
    };
    let removed = match removed {
        Ok(()) => store.entries(PROBES, 10_000).await.and_then(|left| {
            if left.iter().any(|entry| entry.key.starts_with(&key)) {
                return Err(Error::other(format!("{key} is still there after it was removed"))
                    .hint("the bucket keeps removed objects (object lock?): expired backups will not go away"));
            }
            Ok(())
        }),
        failed => failed,
    };
    if steps.iter().any(|step| step.name == "write" && step.ok) {
        steps.push(match removed {
            Ok(()) if kept.versions => good("delete", "what was written is hidden"),
            Ok(()) => good("delete", "what was written is gone"),
            Err(e) => bad("delete", &e),
        });
    }
    steps
}

/// Writes, create-only, reads back and compares the clocks.
async fn probe(location: &Location, key: &str, now: Timestamp, steps: &mut Vec<Step>) {
    let store = &location.store;
    let bytes = Bytes::from(format!(
        "kubectl-backup checked this location at {now:.0}\n"
    ));
    let began = std::time::Instant::now();
    match store.probe_create(key, bytes.clone()).await {
        Err(e) => return steps.push(bad("write", &e)),
        Ok(refuses) => {
            steps.push(good("write", "an object was written"));
            steps.push(Step {
                name: "create-only write".into(),
                ok: refuses,
                optional: true,
                detail: if refuses {
                    "a second create of the same key was refused"
                } else {
                    "the store overwrites what a create-only write should leave"
                }
                .to_owned(),
                advice: (!refuses).then(|| {
                    "backups are safe from each other without it; tools that know no claims may still overwrite them".to_owned()
                }),
            });
        }
    }
    match store.get(key, 4096).await {
        Ok(read) if read == bytes => {
            steps.push(good("read back", "it reads as it was written"));
        }
        Ok(_) => steps.push(bad(
            "read back",
            &Error::corrupt("what is read is not what was written")
                .hint("something between here and the store alters objects: check config.s3Url for a proxy or a gateway"),
        )),
        Err(e) => steps.push(bad("read back", &e)),
    }
    match store.head(key).await {
        Err(e) => steps.push(bad("clock", &e)),
        Ok(entry) => {
            let passed = i64::try_from(began.elapsed().as_secs()).unwrap_or(0);
            // The store wrote it somewhere between `now` and `passed` seconds later.
            let ahead = entry.modified.as_second() - now.as_second();
            let differ = if ahead < 0 {
                -ahead
            } else {
                (ahead - passed).max(0)
            };
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            steps.push(Step {
                name: "clock".into(),
                ok: differ <= WARN_SECONDS,
                optional: differ <= MOST_SECONDS,
                detail: if differ <= 2 {
                    "the store's clock agrees with this machine's".to_owned()
                } else {
                    format!("the store's clock is {differ} s {side} this machine's")
                },
                advice: (differ > WARN_SECONDS).then(|| {
                    "set both clocks by NTP: `prune` refuses to work when they differ by over 5 minutes".to_owned()
                }),
            });
        }
    }
}

/// Two parts are sent and read back by their ends; another upload is aborted.
async fn upload(location: &Location, key: &str) -> Result<String> {
    let store = &location.store;
    let mut upload = store.upload(key)?;
    let part = Bytes::from(vec![b'.'; PART]);
    upload.write(part.clone()).await?;
    upload.write(Bytes::from_static(b"end")).await?;
    let sent = upload.finish().await?;
    let read = store.range(key, sent.bytes - 4..sent.bytes).await?;
    if read != b".end"[..] || store.head(key).await?.size != sent.bytes {
        return Err(Error::corrupt("the parts of an upload were not put together as sent")
            .hint("the store's multipart upload is broken; check config.s3Url for a proxy or a gateway"));
    }
    let full = store.full(key)?;
    let begun = store.backend.begin(&full).await.map_err(|f| f.error)?;
    let sent = store.backend.part(&full, &begun, 0, 0, part).await;
    let aborted = abort(
        store,
        &UploadId {
            key: key.to_owned(),
            id: begun,
        },
    )
    .await;
    sent.map_err(|f| f.error)?;
    aborted.map_err(|e| {
        let hint = "the location's user needs s3:AbortMultipartUpload";
        Error::new(e.kind(), "an upload can not be aborted")
            .hint(hint)
            .because(e)
    })?;
    Ok("two parts were put together; an upload was aborted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::AccessMode;

    #[tokio::test]
    async fn a_good_location_passes_every_step_and_keeps_nothing() {
        let location = Location::in_memory("x");
        let steps = check(&location, Timestamp::now()).await;
        let names: Vec<_> = steps.iter().map(|step| step.name.as_ref()).collect();
        assert_eq!(
            names,
            [
                "list",
                "write",
                "create-only write",
                "read back",
                "clock",
                "multipart upload",
                "delete"
            ]
        );
        assert!(steps.iter().all(|step| step.ok), "{steps:?}");
        assert!(
            location
                .store
                .entries("plugins/", 10)
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_read_only_location_is_only_listed_and_read() {
        let mut location = Location::in_memory("x");
        location
            .store
            .put("backups/a/velero-backup.json", "{}".into())
            .await
            .unwrap();
        location.spec.spec.access_mode = Some(AccessMode::ReadOnly);
        let steps = check(&location, Timestamp::now()).await;
        let names: Vec<_> = steps.iter().map(|step| step.name.as_ref()).collect();
        assert_eq!(names, ["list", "read back", "access"]);
        assert!(steps.iter().all(|step| step.ok));
    }

    #[tokio::test]
    async fn clocks_apart_are_a_warning_and_then_a_failure() {
        let location = Location::in_memory("x");
        for (seconds, ok, optional) in [(30, true, true), (120, false, true), (600, false, false)] {
            let now = Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
            let steps = check(&location, now).await;
            let clock = steps.iter().find(|step| step.name == "clock").unwrap();
            assert_eq!((clock.ok, clock.optional), (ok, optional), "{clock:?}");
        }
    }
}
