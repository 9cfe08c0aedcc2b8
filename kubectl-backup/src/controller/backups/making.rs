//! One backup from InProgress to its end; and the end of one whose process is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::api::{Backup, GoDuration};
use backup_core::backup::{self, BackupOptions, Policies};
use backup_core::catalog;
use backup_core::error::{Error, Kind, Result};
use backup_core::name::Name;
use backup_core::progress::Progress;
use serde_json::{Value, json};

use super::{LOCATION, RUN, Stopped, options, refuse, run_of};
use crate::controller::desk::Desk;
use crate::controller::locations;
use crate::controller::objects::{Written, decode, name, phase};

/// Progress is written at most so often.
const OFTEN: Duration = Duration::from_secs(1);

/// An end that can not be written is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);

/// Objects that are known and that are done.
#[derive(Default)]
struct Count {
    known: AtomicU64,
    done: AtomicU64,
}

impl Progress for Count {
    fn expect(&self, objects: u64) {
        self.known.fetch_add(objects, Ordering::Relaxed);
    }

    fn done(&self, objects: u64, _bytes: u64) {
        self.done.fetch_add(objects, Ordering::Relaxed);
    }
}

impl Count {
    fn told(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (self.known.load(Ordering::Relaxed).max(done), done)
    }
}

/// Makes the backup that an object asks for.
pub(super) async fn make(
    desk: Arc<Desk>,
    object: Arc<Value>,
    location: String,
    stopped: Stopped,
) -> Result<()> {
    let mut wanted: Backup = decode(&object).map_err(Error::invalid)?;
    fill(&mut wanted);
    let mut asked = options(&desk, &wanted, wanted.metadata.name.parse()?);
    match policies(&desk, &wanted).await {
        Ok(policies) => asked.policies = policies,
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Invalid) => {
            return refuse(desk, object, vec![e.sentence()]).await;
        }
        Err(e) => return Err(e),
    }
    if let Err(e) = asked.validate() {
        return refuse(desk, object, vec![e.sentence()]).await;
    }
    // Before anything is written to the bucket: what lies there is always named by an object.
    let patch = begun(&wanted, &asked, &location);
    if desk.backups.decide(&object, patch).await? == Written::Changed {
        return Ok(());
    }
    desk.ui.note(&format!(
        "backup {} begins, to location {location}",
        asked.name
    ));
    let count = Arc::new(Count::default());
    let telling = tokio::spawn(tell(
        Arc::clone(&desk),
        Arc::clone(&object),
        Arc::clone(&count),
    ));
    let made = match locations::open_named(&desk, &location).await {
        Ok(location) => backup::create(&desk.cluster, &location, &asked, stopped, &*count).await,
        Err(e) => Err(e),
    };
    telling.abort();
    let patch = match made {
        Ok(report) => {
            desk.ui.note(&format!(
                "backup {}: {}",
                asked.name, report.backup.status.phase
            ));
            stands(&report.backup)
        }
        Err(e) => {
            desk.ui
                .warn(&format!("backup {}: {}", asked.name, e.sentence()));
            failed(&desk, &e.sentence())
        }
    };
    end(&desk, &object, &patch).await
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
fn begun(wanted: &Backup, asked: &BackupOptions, location: &str) -> Value {
    let mut spec = json!({"storageLocation": location, "ttl": wanted.spec.ttl});
    for (key, _) in FILLED {
        spec[key] = wanted.spec.rest[key].clone();
    }
    json!({
        "metadata": {
            "labels": {LOCATION: location},
            "annotations": {RUN: asked.annotations.get(RUN)},
        },
        "spec": spec,
        "status": {
            "phase": "InProgress", "version": 1, "formatVersion": "1.1.0", "queuePosition": null,
            "startTimestamp": format!("{:.0}", asked.now),
            "expiration": asked.expires.map(|expires| format!("{expires:.0}")),
        },
    })
}

/// What is written of a backup that stands: what its marker says.
fn stands(marker: &Backup) -> Value {
    json!({
        "metadata": {"annotations": marker.metadata.annotations},
        "status": marker.status,
    })
}

fn failed(desk: &Desk, why: &str) -> Value {
    json!({"status": {
        "phase": "Failed", "failureReason": why,
        "completionTimestamp": format!("{:.0}", desk.now()),
    }})
}

/// Writes how it ended, unless somebody decided that meanwhile.
async fn end(desk: &Desk, object: &Value, patch: &Value) -> Result<()> {
    loop {
        let written = async {
            let Some(now) = desk.backups.read(object).await? else {
                return Ok(Written::Yes);
            };
            if phase(&now) != "InProgress" || run_of(&now) != Some(&desk.run) {
                return Ok(Written::Yes);
            }
            desk.backups.decide(&now, patch.clone()).await
        };
        match written.await {
            Ok(Written::Yes) => return Ok(()),
            Ok(Written::Changed) => {}
            Err(e) if matches!(e.kind(), Kind::Invalid | Kind::Forbidden) => return Err(e),
            Err(e) => {
                desk.ui
                    .warn(&format!("backup {}: {}", name(object), e.sentence()));
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Writes the progress while it goes on.
async fn tell(desk: Arc<Desk>, object: Arc<Value>, count: Arc<Count>) {
    let mut last = (0, 0);
    loop {
        tokio::time::sleep(OFTEN).await;
        let now = count.told();
        if now == last {
            continue;
        }
        last = now;
        let (known, done) = now;
        let patch = json!({"status": {"progress": {"totalItems": known, "itemsBackedUp": done}}});
        // The next one tells more.
        let _ = desk.backups.patch(&object, patch).await;
    }
}

/// Ends a backup that is InProgress and that nobody makes any more: it stands where its marker does.
pub(super) async fn recover(desk: Arc<Desk>, object: Arc<Value>, _: Stopped) -> Result<()> {
    let title = name(&object).to_owned();
    let location = object["spec"]["storageLocation"]
        .as_str()
        .unwrap_or_default();
    let marker =
        match locations::open_named(&desk, location).await {
            Ok(location) => match catalog::get(&location.store, &Name::foreign(&title)?).await {
                Ok(entry) => Some(entry.backup),
                Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Corrupt) => None,
                Err(e) => return Err(e.context(
                    "the controller that made it is gone, and whether it stands can not be seen",
                )),
            },
            // Where the location is gone, nobody can know.
            Err(e) if e.kind() == Kind::NotFound => None,
            Err(e) => return Err(e),
        };
    let of_run = |marker: &Backup| {
        marker.metadata.annotations.get(RUN).map(String::as_str) == run_of(&object)
    };
    let patch = match marker.filter(of_run) {
        Some(marker) => stands(&marker),
        None => failed(
            &desk,
            "the controller that made this backup ended before the backup was done; nothing of it can be restored",
        ),
    };
    desk.ui.warn(&format!(
        "backup {title} was made by a controller that is gone: {}",
        patch["status"]["phase"].as_str().unwrap_or_default()
    ));
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
    fn the_objects_end_is_the_markers() {
        let marker: Backup = serde_json::from_value(json!({
            "apiVersion": "velero.io/v1", "kind": "Backup",
            "metadata": {"name": "b", "namespace": "velero", "uid": "u", "annotations": {"a": "b"}, "labels": {"c": "d"}},
            "status": {"phase": "PartiallyFailed", "errors": 2, "version": 1},
        }))
        .unwrap();
        let patch = stands(&marker);
        assert_eq!(patch["metadata"], json!({"annotations": {"a": "b"}}));
        assert_eq!(patch["status"]["phase"], "PartiallyFailed");
        assert_eq!(patch["status"]["errors"], 2);
    }
}
