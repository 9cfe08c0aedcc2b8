//! BackupStorageLocations: whether each can be used, and which one is the default. Writes `status` and, of defaults that are too many, `spec.default`.

use std::sync::Arc;

use backup_cli::locations::replicate_to;
use backup_core::api::{BackupStorageLocation, GoDuration};
use backup_core::crypt::{ENCRYPT, RECIPIENTS};
use backup_core::error::{Error, Kind, Result};
use backup_core::layout::TOP_FOLDERS;
use backup_core::location::{Location, check, leads_elsewhere, object};
use backup_core::signature::VERIFY_KEYS;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::{Desk, Work};
use super::objects::{bounded, decode, name, time, uid};

/// What is known of a location's last check by this process.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    spec: Value,
    at: Timestamp,
    is_good: bool,
}

/// A location as far as a backup has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) is_default: bool,
    pub(crate) is_read_only: bool,
    /// Nothing while it was not checked.
    pub(crate) is_available: Option<bool>,
}

/// The locations as they are known.
pub(crate) fn places(desk: &Desk) -> Vec<Place> {
    let checked = desk.checked.lock().expect("nobody panics while holding it");
    let place = |object: &Value| Place {
        name: name(object).to_owned(),
        is_default: object["spec"]["default"] == true,
        is_read_only: object["spec"]["accessMode"] == "ReadOnly",
        // What another process wrote may be long over.
        is_available: checked
            .get(uid(object))
            .filter(|checked| checked.spec == object["spec"])
            .map(|checked| checked.is_good),
    };
    let all = desk.locations.all();
    all.iter().map(|object| place(object)).collect()
}

/// The location that is meant where none is named: the default, else the one of that name, as Velero has it.
pub(crate) fn default(places: &[Place]) -> Option<&Place> {
    let said = places.iter().find(|place| place.is_default);
    said.or_else(|| places.iter().find(|place| place.name == "default"))
}

/// One look at all locations.
pub(crate) fn turn(desk: &Arc<Desk>) {
    let all = desk.locations.all();
    let now = desk.now();
    let too_many = beyond_one_default(&all);
    for object in &all {
        if !desk.is_free(object) {
            continue;
        }
        if too_many.contains(&name(object)) {
            desk.begin(object, Work::Small, not_default);
        } else if is_due(desk, object, now) {
            desk.begin(object, Work::Small, examine);
        }
    }
}

/// The defaults but for the newest.
fn beyond_one_default(all: &[Arc<Value>]) -> Vec<&str> {
    let mut defaults: Vec<_> = all
        .iter()
        .filter(|object| object["spec"]["default"] == true)
        .map(|object| (time(object, "/metadata/creationTimestamp"), name(object)))
        .collect();
    defaults.sort();
    defaults.pop();
    defaults.into_iter().map(|(_, name)| name).collect()
}

async fn not_default(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let patch = json!({"spec": {"default": false}});
    desk.locations.decide(&object, patch).await?;
    desk.ui.note(&format!(
        "location {} is no default any more: a newer one is",
        name(&object)
    ));
    Ok(())
}

fn is_due(desk: &Desk, object: &Value, now: Timestamp) -> bool {
    let checked = desk
        .checked
        .lock()
        .expect("nobody panics while holding it")
        .get(uid(object))
        .cloned();
    let usual = desk.settings.validation_frequency;
    is_due_after(checked.as_ref(), &object["spec"], usual, now)
}

/// Whether it is time for a check.
fn is_due_after(
    checked: Option<&Checked>,
    spec: &Value,
    usual: SignedDuration,
    now: Timestamp,
) -> bool {
    let Some(checked) = checked.filter(|checked| checked.spec == *spec) else {
        return true;
    };
    let mut every = period(&spec["validationFrequency"]).unwrap_or(usual);
    if every.is_zero() && !checked.is_good {
        // A location that was away once would be away for ever.
        every = usual;
    }
    // Zero is never again, as Velero has it. A clock that was set back does not keep it from being looked at.
    !every.is_zero() && (checked.at > now || now.duration_since(checked.at) >= every)
}

/// A period that a location gives itself; nothing where it is absent or odd.
pub(crate) fn period(text: &Value) -> Option<SignedDuration> {
    let GoDuration(period) = serde_json::from_value(text.clone()).ok()?;
    SignedDuration::try_from(period).ok()
}

/// Checks a location and says what was found.
async fn examine(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let is_thorough = desk
        .checked
        .lock()
        .expect("nobody panics while holding it")
        .get(uid(&object))
        .is_none_or(|last| last.spec != object["spec"] || !last.is_good);
    let found = look(&desk, &object, is_thorough).await;
    let now = desk.now();
    let checked = Checked {
        spec: object["spec"].clone(),
        at: now,
        is_good: found.is_ok(),
    };
    let (phase, message) = match &found {
        Ok(()) => ("Available", Value::Null),
        Err(why) => ("Unavailable", bounded(why).into()),
    };
    if let Err(why) = &found
        && object["status"]["message"] != bounded(why)
    {
        desk.ui
            .warn(&format!("location {} is unavailable: {why}", name(&object)));
    }
    let patch = json!({"status": {
        "phase": phase, "message": message, "lastValidationTime": format!("{now:.0}"),
    }});
    desk.locations.patch(&object, patch).await?;
    desk.checked
        .lock()
        .expect("nobody panics while holding it")
        .insert(uid(&object).to_owned(), checked);
    Ok(())
}

/// Why a location can not be used, in a sentence.
async fn look(desk: &Desk, object: &Value, is_thorough: bool) -> Result<(), String> {
    let location: BackupStorageLocation = decode(object)?;
    replicate_to(&location).map_err(|e| e.sentence())?;
    let location = open(desk, location).await.map_err(|e| e.sentence())?;
    let folders = location.store.top_folders().await;
    let folders = folders.map_err(|e| e.sentence())?;
    let odd: Vec<&str> = folders
        .iter()
        .map(String::as_str)
        .filter(|folder| !TOP_FOLDERS.contains(folder))
        .take(5)
        .collect();
    if !odd.is_empty() {
        return Err(format!(
            "backup store contains invalid top-level directories: {} (only {} may stand at the top; give backups a prefix of their own)",
            odd.join(", "),
            TOP_FOLDERS.join(", ")
        ));
    }
    if !is_thorough {
        return Ok(());
    }
    let steps = check::check(&location, desk.now()).await;
    match steps.iter().find(|step| !step.ok && !step.optional) {
        None => Ok(()),
        Some(step) => Err(format!(
            "{}: {}{}",
            step.name,
            step.detail,
            step.advice
                .as_ref()
                .map(|advice| format!(" ({advice})"))
                .unwrap_or_default()
        )),
    }
}

/// Opens the location of this name.
///
/// # Errors
/// Where it is not there, or can not be used.
pub(crate) async fn open_named(desk: &Desk, name: &str) -> Result<Location> {
    open(desk, named(desk, name)?).await
}

/// The location of this name.
///
/// # Errors
/// Where it is not there, or can not be understood.
pub(crate) fn named(desk: &Desk, name: &str) -> Result<BackupStorageLocation> {
    let object = desk.locations.get(name).ok_or_else(|| {
        let namespace = &desk.settings.namespace;
        Error::not_found(format!(
            "BackupStorageLocation {name:?} is not in namespace {namespace}"
        ))
    })?;
    decode(&object).map_err(Error::invalid)
}

/// Opens a location with what its Secrets hold. What would name a thing of this machine is refused: whoever may create a location could use it.
///
/// # Errors
/// Settings that can not be used; Secrets that are not there.
pub(crate) async fn open(desk: &Desk, mut location: BackupStorageLocation) -> Result<Location> {
    refuse_this_machine(&location)?;
    // But for the keys that have to have signed what is read, and for whom all has to be encrypted: nothing plain is written there.
    let annotations = &mut location.metadata.annotations;
    annotations.retain(|key, _| [VERIFY_KEYS, RECIPIENTS, ENCRYPT].contains(&key.as_str()));
    let namespace = &desk.settings.namespace;
    let credentials = object::credentials(&desk.cluster, namespace, &mut location, false).await?;
    // What the controller's own keys are for is not known to a store that an object names.
    if credentials.file.is_none()
        && let Some(key) = leads_elsewhere(&location.spec)
    {
        return Err(Error::invalid(format!(
            "location {:?} has no credentials: config.{key} leads to others than the provider, and the controller's keys are not for them",
            location.metadata.name
        ))
        .hint("name the key of a Secret in spec.credential"));
    }
    let flags = &desk.settings.locations;
    let mut opened = flags
        .open_with(&location, None, credentials)
        .map_err(backup_cli::error::CommandError::into_error)?;
    opened.shared_with_velero = false;
    Ok(opened)
}

fn refuse_this_machine(location: &BackupStorageLocation) -> Result<()> {
    let refused = |what: String, hint: &str| {
        Err(Error::new(
            Kind::Invalid,
            format!(
                "location {:?} can not be used: {what}",
                location.metadata.name
            ),
        )
        .hint(hint))
    };
    let spec = &location.spec;
    if spec.provider.trim_start_matches("velero.io/") == "local" {
        return refused(
            "provider local would be a folder of the controller's machine".to_owned(),
            "use a bucket",
        );
    }
    for key in ["customerKeyEncryptionFile", "credentialsFile"] {
        if spec.config.get(key).is_some_and(|file| !file.is_empty()) {
            return refused(
                format!("config.{key} names a file of the controller's machine"),
                "keep it in a Secret: spec.credential, or config.customerKeyEncryptionSecret",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_newest_default_stays_the_only_one() {
        let location = |name: &str, created: &str, default: Option<bool>| {
            Arc::new(
                json!({"metadata": {"name": name, "creationTimestamp": created}, "spec": {"default": default}}),
            )
        };
        let all = [
            location("a", "2026-11-21T02:00:00Z", Some(true)),
            location("b", "2026-11-21T03:00:00Z", Some(true)),
            location("c", "2026-11-21T04:00:00Z", None),
            location("d", "2026-11-21T03:00:00Z", Some(true)),
        ];
        assert_eq!(beyond_one_default(&all), ["a", "b"]);
        assert_eq!(beyond_one_default(&all[2..]), [""; 0]);
        assert_eq!(beyond_one_default(&[]), [""; 0]);
    }

    #[test]
    fn a_location_is_checked_when_it_is_new_when_it_changed_and_every_so_often() {
        let spec = json!({"provider": "aws"});
        let checked = Checked {
            spec: spec.clone(),
            at: at(1000),
            is_good: true,
        };
        let usual = SignedDuration::from_mins(1);
        let due = |spec: &Value, now| is_due_after(Some(&checked), spec, usual, at(now));
        assert!(is_due_after(None, &spec, usual, at(0)));
        assert!(!due(&spec, 1059));
        assert!(due(&spec, 1060));
        // The clock was set back.
        assert!(due(&spec, 999));
        let other = json!({"provider": "aws", "validationFrequency": "1h0m0s"});
        assert!(due(&other, 1001));
        let checked = Checked {
            spec: other.clone(),
            ..checked
        };
        assert!(!is_due_after(
            Some(&checked),
            &other,
            usual,
            at(1000 + 3599)
        ));
        assert!(is_due_after(Some(&checked), &other, usual, at(1000 + 3600)));
        let never = json!({"provider": "aws", "validationFrequency": "0s"});
        for (is_good, is_due) in [(true, false), (false, true)] {
            let checked = Checked {
                spec: never.clone(),
                at: at(1000),
                is_good,
            };
            let due = |now| is_due_after(Some(&checked), &never, usual, at(now));
            assert_eq!((due(1059), due(1060)), (false, is_due));
        }
        assert_eq!(period(&json!("soon")), None);
        assert_eq!(period(&json!("0")), Some(SignedDuration::ZERO));
    }

    #[test]
    fn what_names_a_thing_of_this_machine_is_refused() {
        let location = |provider: &str, key: &str| -> BackupStorageLocation {
            decode(&json!({"apiVersion": "velero.io/v1", "kind": "BackupStorageLocation", "metadata": {"name": "x"},
                "spec": {"provider": provider, "objectStorage": {"bucket": "b"}, "config": {key: "/etc/passwd"}}}))
            .unwrap()
        };
        for (provider, key) in [
            ("local", "region"),
            ("velero.io/local", "region"),
            ("aws", "customerKeyEncryptionFile"),
            ("aws", "credentialsFile"),
        ] {
            let refused = refuse_this_machine(&location(provider, key)).unwrap_err();
            assert!(refused.sentence().contains("controller's machine"), "{key}");
        }
        assert!(refuse_this_machine(&location("velero.io/aws", "region")).is_ok());
    }
}
