//! Real repositories in memory, backups that name their snapshots or do not, and the store's clock as a test sets it.

mod deleted;
mod orphans;
mod stopped;

use jiff::ToSpan as _;
use serde_json::{Value, json};

use super::super::store::Base;
use super::super::tests::{Made, Place, noise};
use super::look::look_at;
use super::*;
use crate::location::trial::Trial;
use crate::location::{Location, guard};

const OF: &str = "restic/c/n/u";

/// A location of the cluster `c`, with the volume `n/u`.
struct World {
    place: Place,
    location: Location,
}

impl World {
    async fn new() -> Self {
        let place = Place::new();
        let location = Location {
            store: place.store.clone(),
            ..Location::in_memory("x")
        };
        guard::write(&location, "c", false).await.unwrap();
        Self { place, location }
    }

    fn over(&self, trial: &Trial) -> Self {
        self.at(trial.store())
    }

    /// The same, with all that stands there now.
    async fn copy(&self) -> Self {
        let store = Store::in_memory();
        let mut keys = vec![crate::layout::GUARD.to_owned()];
        for folder in ["restic/", "backups/"] {
            let all = self.place.store.entries(folder, 9999).await.unwrap();
            keys.extend(all.into_iter().map(|entry| entry.key));
        }
        for key in keys {
            let bytes = self.place.store.get(&key, 1 << 20).await.unwrap();
            store.put(&key, bytes).await.unwrap();
        }
        self.at(store)
    }

    fn at(&self, store: Store) -> Self {
        Self {
            place: Place {
                store: store.clone(),
                ..self.place.clone()
            },
            location: Location {
                store,
                ..self.location.clone()
            },
        }
    }

    /// A snapshot with bytes of its own.
    async fn snapshot(&self, seed: u64) -> String {
        let bytes = noise(seed, 60_000);
        // What has another name is not taken for unchanged.
        let name = format!("file-{seed}");
        let made = Made::of(&[(&name, &bytes)]);
        let saved = self.place.backup(made, Base::Newest).await.unwrap();
        saved.snapshot
    }

    /// One with two snapshots, each of a backup, of which the first is gone: what that owned, and the snapshot of the other.
    async fn of_two() -> (Self, Owned, String) {
        let world = Self::new().await;
        let (a, b) = (world.snapshot(1).await, world.snapshot(2).await);
        world.backup("first", &[&a]).await;
        world.backup("second", &[&b]).await;
        let owned = world.gone("first").await;
        (world, owned, b)
    }

    /// A backup that names these snapshots, as it stands.
    async fn backup(&self, name: &str, ids: &[&str]) {
        self.named(name, ids).await;
        let marker = json!({"apiVersion": "velero.io/v1", "kind": "Backup", "metadata": {"name": name}, "status": {"phase": "Completed"}});
        self.put(&format!("backups/{name}/velero-backup.json"), &marker)
            .await;
    }

    /// What it has before its marker.
    async fn named(&self, name: &str, ids: &[&str]) {
        let rows: Vec<_> = ids
            .iter()
            .map(|id| json!({"method": "files", "cluster": "c", "namespace": "n", "claimUid": "u", "repository": 1, "snapshot": id}))
            .collect();
        let list = json!({"format": "kubectl-backup/snapshots/1", "snapshots": rows});
        self.put(&format!("backups/{name}/snapshots.json"), &list)
            .await;
    }

    async fn put(&self, key: &str, value: &Value) {
        let bytes = value.to_string();
        self.place.store.put(key, bytes.into()).await.unwrap();
    }

    /// A backup goes, by whomever.
    async fn lose(&self, name: &str) {
        let folder = format!("backups/{name}/");
        for entry in self.place.store.entries(&folder, 99).await.unwrap() {
            self.place.store.delete(&entry.key).await.unwrap();
        }
    }

    /// A look so many hours later by the store's clock.
    async fn look(&self, hours: i64) -> Vec<Outcome> {
        self.look_as(hours, Some("c"), false).await
    }

    async fn look_as(&self, hours: i64, cluster: Option<&str>, dry_run: bool) -> Vec<Outcome> {
        self.looked(hours, cluster, dry_run, None).await
    }

    /// A look that is stopped once this says so.
    async fn look_until(&self, hours: i64, stopped: &watch::Receiver<bool>) -> Vec<Outcome> {
        self.looked(hours, Some("c"), false, Some(stopped)).await
    }

    async fn looked(
        &self,
        hours: i64,
        cluster: Option<&str>,
        dry_run: bool,
        stopped: Option<&watch::Receiver<bool>>,
    ) -> Vec<Outcome> {
        let now = Timestamp::now();
        let look = Look {
            now,
            host: "here",
            dry_run,
            cluster,
            keyring: &self.place.ring(),
            stopped,
            came_to: None,
        };
        let theirs = now + hours.hours();
        look_at(&self.location, &look, &"c".parse().unwrap(), theirs)
            .await
            .unwrap()
    }

    async fn owned(&self, name: &str) -> Owned {
        let name = name.parse().unwrap();
        crate::records::snapshots::owned(&self.place.store, &name)
            .await
            .unwrap()
    }

    /// A backup goes; what it owned.
    async fn gone(&self, name: &str) -> Owned {
        let owned = self.owned(name).await;
        self.lose(name).await;
        owned
    }

    /// What stands in the first repository can be read, all of it.
    async fn is_sound(&self, when: &dyn std::fmt::Debug) {
        let (volume, ring) = (self.place.volume(), self.place.ring());
        let found = volume.check(1, &ring, true).await.unwrap();
        assert!(found.is_empty(), "{when:?}: {found:?}");
    }

    async fn forget(&self, owned: &Owned) -> Vec<Outcome> {
        forget(&self.place.store, &mut owned.clone(), "here", None).await
    }

    /// The ids that stand.
    async fn ids(&self) -> Vec<String> {
        let all = self.place.objects("snapshots").await;
        let id = |key: String| key.rsplit('/').next().unwrap().to_owned();
        all.into_iter().map(id).collect()
    }

    /// Everything below `restic/`.
    async fn stands(&self) -> Vec<String> {
        let all = self.place.store.entries("restic/", 9999).await.unwrap();
        all.into_iter().map(|entry| entry.key).collect()
    }
}

fn noted(outcomes: &[Outcome]) -> usize {
    let all = outcomes.iter().map(|outcome| match outcome {
        Outcome::Noted { snapshots, .. } => (*snapshots).max(1),
        _ => 0,
    });
    all.sum()
}

fn removed(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.removes()).count()
}

fn blind(outcomes: &[Outcome]) -> &str {
    match outcomes {
        [Outcome::Blind(why)] => why,
        other => panic!("{other:?}"),
    }
}

fn skipped(outcomes: &[Outcome]) -> &str {
    match outcomes {
        [Outcome::Skipped(why)] => why,
        other => panic!("{other:?}"),
    }
}
