//! One backup from InProgress to its end; and the end of one whose process is gone.

use std::sync::Arc;
use std::time::Duration;

use backup_core::api::{Backup, GoDuration};
use backup_core::backup::{self, BackupOptions, CopyOptions, Policies};
use backup_core::catalog;
use backup_core::crypt::{Encrypt, Identities, Recipients};
use backup_core::error::{Error, Kind, Result};
use backup_core::location::Location;
use backup_core::name::Name;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{INTERRUPTED, LOCATION, RUN, Stopped, label_value, options, refuse, run_of};
use crate::controller::desk::Desk;
use crate::controller::keys::SecretKeys;
use crate::controller::locations;
use crate::controller::metrics::ARCHIVE_BYTES;
use crate::controller::objects::{Written, bounded, decode, label, name, time};
use crate::controller::sealed::{self, ENCRYPTION};
use crate::controller::telling::{Count, Telling, end};
use crate::copies::Keys;

/// So long it is tried to see how a backup ended whose controller is gone.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// An API server that is started anew, or updated, is away for no longer.
const ABSENCE: Duration = Duration::from_secs(60);

/// So long after its beginning a run may have no claim yet.
const TO_A_CLAIM: SignedDuration = SignedDuration::from_secs(90);

/// A run that is not heard of is not awaited for longer, whatever claims say.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// Makes the backup that an object asks for.
pub(super) async fn make(
    desk: Arc<Desk>,
    object: Arc<Value>,
    location: String,
    stopped: Stopped,
) -> Result<()> {
    let mut wanted: Backup = decode(&object).map_err(Error::invalid)?;
    fill(&mut wanted);
    let mut asked = options(&desk, &wanted, Name::foreign(&wanted.metadata.name)?);
    match policies(&desk, &wanted).await {
        Ok(policies) => asked.policies = policies,
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid) => {
            return refuse(desk, object, vec![e.sentence()]).await;
        }
        Err(e) => return Err(e),
    }
    let fits = asked.validate().and_then(|()| {
        let place = locations::named(&desk, &location)?;
        sealed::may_be_made(&place)?;
        Encrypt::of_location(&place)
    });
    let encrypt = match fits {
        Ok(encrypt) => encrypt,
        Err(e) => return refuse(desk, object, vec![e.sentence()]).await,
    };
    // Before anything is written to the bucket: what lies there is always named by an object.
    let patch = begun(&wanted, &asked, &location, encrypt == Some(Encrypt::All));
    if desk.backups.decide(&object, patch).await? == Written::Changed {
        return Ok(());
    }
    desk.ui.note(&format!(
        "backup {} begins, to location {location}",
        asked.name
    ));
    let count = Arc::new(Count::default());
    let telling = Telling::begin(
        &desk,
        |desk| &desk.backups,
        &object,
        &count,
        "itemsBackedUp",
    );
    let opened = locations::open_named(&desk, &location).await;
    // As it is opened now: the recipients may have come or gone since it was begun.
    let mut is_sealed = false;
    let made = match opened.and_then(sealed::seal) {
        Ok(location) => {
            is_sealed = location.store.is_vault();
            let cluster = desk.cluster.clone().patient(ABSENCE);
            let copies = copying(&desk, &location, wanted.metadata.uid.clone());
            match copies {
                Ok(copies) => {
                    asked.copies = Some(Arc::new(copies));
                    backup::create(&cluster, &location, &asked, stopped, &*count).await
                }
                Err(e) => Err(e),
            }
        }
        Err(e) => Err(e),
    };
    telling.end().await;
    let mut patch = match made {
        Ok(report) => {
            desk.ui.note(&format!(
                "backup {}: {}",
                asked.name, report.backup.status.phase
            ));
            let mut patch = stands(&report.backup, is_sealed);
            patch["metadata"]["annotations"][ARCHIVE_BYTES] =
                report.archive_bytes.to_string().into();
            patch
        }
        Err(e) => {
            desk.ui
                .warn(&format!("backup {}: {}", asked.name, e.sentence()));
            let mut patch = failed(&desk, &e.sentence());
            if e.kind() == Kind::Interrupted {
                patch["metadata"] = json!({"annotations": {INTERRUPTED: "true"}});
            }
            patch
        }
    };
    patch = lies_in(patch, &location);
    let attempt = asked.annotations.get(RUN).map_or("", String::as_str);
    end(&desk, |desk| &desk.backups, &object, attempt, &patch).await
}

/// How volumes are copied, for the recipients of the location; nobody here opens what was sealed.
fn copying(desk: &Desk, location: &Location, uid: Option<String>) -> Result<CopyOptions> {
    let keys = Keys {
        recipients: Recipients::of_location(&location.spec)?,
        passphrase: None,
        identities: Identities::default(),
        cache: Arc::new(SecretKeys::new(&desk.cluster, &desk.settings.namespace)),
    };
    Ok(desk.settings.copies.options(keys, uid))
}

/// The resource policies that it names.
async fn policies(desk: &Desk, wanted: &Backup) -> Result<Option<Arc<Policies>>> {
    let Some(name) = wanted.spec.policies()? else {
        return Ok(None);
    };
    let read = Policies::read(&desk.cluster, &desk.settings.namespace, &name);
    read.await.map(|policies| Some(Arc::new(policies)))
}

/// What Velero's server fills in where it is not said.
const FILLED: [(&str, &str); 2] = [
    ("csiSnapshotTimeout", "10m0s"),
    ("itemOperationTimeout", "4h0m0s"),
];

fn fill(wanted: &mut Backup) {
    for (key, value) in FILLED {
        let is_said = |said: &Value| said.as_str().is_some_and(|text| text != "0s");
        if !wanted.spec.rest.get(key).is_some_and(is_said) {
            wanted.spec.rest.insert(key.to_owned(), value.into());
        }
    }
    if wanted.spec.ttl.is_none_or(|ttl| ttl.0.is_zero()) {
        wanted.spec.ttl = Some(GoDuration(crate::flags::DEFAULT_TTL));
    }
}

/// What is written when it begins.
fn begun(wanted: &Backup, asked: &BackupOptions, location: &str, encrypted: bool) -> Value {
    let mut spec = json!({"storageLocation": location, "ttl": wanted.spec.ttl});
    for (key, _) in FILLED {
        spec[key] = wanted.spec.rest[key].clone();
    }
    json!({
        "metadata": {
            "labels": {LOCATION: label_value(location)},
            // Nobody else's word counts for it, and a backup that is made plain is not called encrypted.
            "annotations": {RUN: asked.annotations.get(RUN), ENCRYPTION: encrypted.then_some(sealed::ALL)},
        },
        "spec": spec,
        "status": {
            "phase": "InProgress", "version": 1, "formatVersion": "1.1.0", "queuePosition": null,
            "startTimestamp": format!("{:.0}", asked.now),
            "expiration": wanted.spec.expires(asked.now).map(|expires| format!("{expires:.0}")),
        },
    })
}

/// What is written of a backup that stands: what its marker says, and whether it is encrypted.
pub(crate) fn stands(marker: &Backup, encrypted: bool) -> Value {
    let mut patch = json!({
        "metadata": {"annotations": marker.metadata.annotations},
        "status": marker.status,
    });
    patch["metadata"]["annotations"][ENCRYPTION] = json!(sealed::word(marker, encrypted));
    // Here it may be seen.
    patch["status"]["expiration"] = json!(marker.expiration());
    patch
}

/// The same patch for a backup that was made in this location: where its files lie is no wish, and who edited that meanwhile would have it looked for in
/// another bucket, and its object removed for being absent there.
fn lies_in(mut patch: Value, location: &str) -> Value {
    patch["spec"]["storageLocation"] = location.into();
    patch["metadata"]["labels"][LOCATION] = label_value(location).into();
    patch
}

/// The location in which a backup was begun, of these: it stands in the label, too, which nobody edits by mistake.
fn begun_in<'o>(object: &'o Value, mut places: impl Iterator<Item = &'o str>) -> &'o str {
    let labelled = label(object, LOCATION).unwrap_or_default();
    let said = object["spec"]["storageLocation"].as_str();
    places
        .find(|place| label_value(place) == labelled)
        .or(said)
        .unwrap_or_default()
}

fn failed(desk: &Desk, why: &str) -> Value {
    json!({"status": {
        "phase": "Failed", "failureReason": bounded(why),
        "completionTimestamp": format!("{:.0}", desk.now()),
    }})
}

/// Why a run that left no marker may be at work all the same, for all that is known: without its Lease, or asleep.
fn may_be_alive(
    at_work: Option<String>,
    began: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    let age = now.duration_since(began.filter(|at| *at <= now)?);
    match at_work {
        // Whoever may write to the bucket could keep a claim young for ever.
        Some(who) if age < LONGEST => Some(format!(
            "its claim in the bucket is younger than 11 minutes ({who})"
        )),
        None if age < TO_A_CLAIM => Some("it may be on its way to its claim".to_owned()),
        Some(_) | None => None,
    }
}

/// Ends a backup that is InProgress and that nobody makes any more: it stands where its marker does.
pub(super) async fn recover(desk: Arc<Desk>, object: Arc<Value>, _: Stopped) -> Result<()> {
    let title = name(&object).to_owned();
    let places = locations::places(&desk);
    let place = begun_in(&object, places.iter().map(|place| place.name.as_str()));
    let began = time(&object, "/status/startTimestamp");
    let now = desk.now();
    let is_long_ago = began.is_none_or(|at| at > now || now.duration_since(at) > PATIENCE);
    let seen = async {
        let location = locations::open_named(&desk, place).await?;
        catalog::traces(&location.store, &Name::foreign(&title)?).await
    };
    let unseen = "the controller that made it is gone, and whether it stands can not be seen";
    let (marker, at_work) = match seen.await {
        Ok(traces) => (traces.entry, traces.at_work),
        // If it stands after all, the sync finds it.
        Err(_) if is_long_ago => (None, None),
        Err(e) => return Err(e.context(unseen)),
    };
    let of_run = |marker: &catalog::Entry| {
        let run = marker.backup.metadata.annotations.get(RUN);
        run.map(String::as_str) == run_of(&object)
    };
    // What another run has put there, this one does not put there any more.
    let is_taken = marker.is_some();
    let marker = marker.filter(of_run);
    if !is_taken && let Some(why) = may_be_alive(at_work, began, now) {
        return Err(Error::other(format!("its run may not be over: {why}")));
    }
    let patch = match marker {
        Some(marker) => stands(&marker.backup, marker.encrypted),
        None => {
            let mut patch = failed(
                &desk,
                "the controller that made this backup ended before the backup was done",
            );
            patch["metadata"] = json!({"annotations": {INTERRUPTED: "true"}});
            patch
        }
    };
    desk.ui.warn(&format!(
        "backup {title} was made by a controller that is gone: {}",
        patch["status"]["phase"].as_str().unwrap_or_default()
    ));
    let patch = lies_in(patch, place);
    desk.backups.decide(&object, patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_filled_in_as_velero_does() {
        let filled = |spec: Value| {
            let mut backup: Backup = serde_json::from_value(
                json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": "b"}, "spec": spec}),
            )
            .unwrap();
            fill(&mut backup);
            serde_json::to_value(backup.spec).unwrap()
        };
        let all = filled(json!({"ttl": "0s", "csiSnapshotTimeout": "0s"}));
        let said =
            json!({"ttl": "24h0m0s", "csiSnapshotTimeout": "1m0s", "itemOperationTimeout": "2h"});
        assert_eq!(
            all,
            json!({"ttl": "720h0m0s", "csiSnapshotTimeout": "10m0s", "itemOperationTimeout": "4h0m0s"})
        );
        assert_eq!(filled(said.clone()), said);
    }

    #[test]
    fn a_run_that_is_not_heard_of_may_be_alive_with_a_claim_and_before_it_has_one() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        let alive = |claim: bool, seconds: i64| {
            let began = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap();
            may_be_alive(claim.then(|| "on a node".to_owned()), Some(began), now).is_some()
        };
        assert!(alive(true, 0) && alive(true, 86_399) && !alive(true, 86_400));
        assert!(alive(false, 0) && alive(false, 89) && !alive(false, 90));
        // Noted by a clock that was wrong.
        assert!(!alive(true, -1) && !alive(false, -1));
    }

    #[test]
    fn the_objects_end_is_the_markers() {
        let marker: Backup = serde_json::from_value(json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "velero", "uid": "u", "annotations": {"a": "b"}, "labels": {"c": "d"}},
            "status": {"phase": "PartiallyFailed", "errors": 2, "version": 1},
        }))
        .unwrap();
        let annotations = |word: Option<&str>| json!({"a": "b", ENCRYPTION: word});
        let patch = stands(&marker, true);
        let sealed = annotations(Some("age"));
        assert_eq!(patch["metadata"], json!({"annotations": sealed}));
        // One that was to be encrypted when it was begun, and is plain.
        let patch = stands(&marker, false);
        let plain = annotations(None);
        assert_eq!(patch["metadata"], json!({"annotations": plain}));
        assert_eq!(patch["status"]["phase"], "PartiallyFailed");
        assert_eq!(patch["status"]["errors"], 2);
        let patch = lies_in(patch, "main");
        assert_eq!(patch["spec"], json!({"storageLocation": "main"}));
        let labels = json!({"velero.io/storage-location": "main"});
        assert_eq!(
            patch["metadata"],
            json!({"annotations": plain, "labels": labels})
        );
    }

    #[test]
    fn a_backup_lies_where_it_was_begun_whatever_its_spec_says_by_now() {
        let long = "l".repeat(100);
        let places = ["main", "other", long.as_str()];
        let of = |label: &str, said: &str| {
            let object = json!({"metadata": {"labels": {LOCATION: label}}, "spec": {"storageLocation": said}});
            begun_in(&object, places.into_iter()).to_owned()
        };
        assert_eq!(of("main", "other"), "main");
        assert_eq!(of(&label_value(&long), "other"), long);
        // Of a location that is gone nobody knows more than the spec.
        assert_eq!(of("gone", "other"), "other");
        assert_eq!(begun_in(&json!({}), places.into_iter()), "");
    }
}
