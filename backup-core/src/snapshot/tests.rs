//! Snapshots in a cluster whose controllers do one thing at a time, and runs that are killed before each of their requests.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::cut::Cut;
use super::drive::never;
use super::heirs::{self, Heirs, Outcome};
use super::inventory::{self, Inventory, State};
use super::known::Known;
use super::left::clear;
use super::objects::Whose;
use super::pair::{self, Pair};
use super::storage::{Storage, wanted};
use crate::cluster::Cluster;
use crate::error::{Error, Kind};
use crate::location::Store;
use crate::name::Name;
use crate::records::copies::{CsiSnapshot, Hooks};

mod going;
mod pairs;

const RUN: &str = "0123456789abcdef";

fn whose(store: &Store) -> Whose {
    Whose {
        run: RUN.into(),
        place: inventory::place(store),
    }
}

fn cut(cluster: &Cluster, store: &Store, timeout: u64) -> Cut {
    cut_of("data", cluster, store, timeout)
}

fn cut_of(claim: &str, cluster: &Cluster, store: &Store, timeout: u64) -> Cut {
    Cut::new(
        cluster,
        &whose(store),
        wanted(claim, true),
        Duration::from_millis(timeout),
        never(),
    )
}

fn noted(store: &Store, cluster: &str) -> Inventory {
    Inventory::new(store, cluster, ("nightly", "b-uid"), RUN)
}

const MARKER: &str = "backups/nightly/velero-backup.json";

/// What a run of a backup does about one claim.
async fn run(cluster: &Cluster, store: &Store) -> CsiSnapshot {
    run_of(&["data"], cluster, store).await.remove(0)
}

async fn run_of(claims: &[&str], cluster: &Cluster, store: &Store) -> Vec<CsiSnapshot> {
    let mut noted = noted(store, "c-uid");
    noted.put(store).await.unwrap();
    let (mut cuts, mut made) = (Vec::new(), Vec::new());
    for claim in claims {
        let mut cut = cut_of(claim, cluster, store, 5000);
        cut.ask().await.unwrap();
        cut.cut().await.unwrap();
        let snapshot = cut.keep(Hooks::None).await.unwrap();
        cut.confirm(&snapshot.handle).await.unwrap();
        noted.add(&snapshot, true);
        cuts.push(cut);
        made.push(snapshot);
    }
    noted.state = State::Sealed;
    noted.put(store).await.unwrap();
    store.put(MARKER, "{}".into()).await.unwrap();
    for mut cut in cuts {
        cut.leave().await.unwrap();
    }
    noted.state = State::Left;
    noted.put(store).await.unwrap();
    made
}

async fn inventories(store: &Store) -> Vec<Inventory> {
    inventory::list(store).await.unwrap().all
}

fn holds(storage: &Storage) -> usize {
    storage.state().holds.len()
}

fn objects(storage: &Storage) -> Vec<String> {
    storage.state().snapshot_objects()
}

/// What there is: objects, snapshots in the storage, inventories.
async fn there(storage: &Storage, store: &Store) -> (usize, usize, usize) {
    let known = inventories(store).await.len();
    (objects(storage).len(), holds(storage), known)
}

/// What came of work that is killed before this request of its own; nothing where it was.
async fn killed_at<T>(
    at: usize,
    storage: &Storage,
    work: impl AsyncFnOnce(&Cluster) -> T,
) -> Option<T> {
    let dead = Arc::new(Notify::new());
    let cluster = storage.dying(at, Arc::clone(&dead));
    tokio::select! {
        done = work(&cluster) => Some(done),
        () = dead.notified() => None,
    }
}

fn why(e: &Error) -> String {
    e.sentence()
}

#[tokio::test]
async fn a_snapshot_stays_in_the_storage_without_any_object_and_its_row_says_all_of_it() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let made = run(&storage.cluster(), &store).await;
    assert_eq!(objects(&storage), Vec::<String>::new());
    assert!(storage.state().holds.contains(&made.handle));
    assert_eq!(
        (made.driver.as_str(), made.class.as_str(), made.size),
        ("d.io", "fast", 1 << 30)
    );
    assert_eq!(made.cut.to_string(), "2026-11-30T10:00:01Z");
    let all = inventories(&store).await;
    assert!(all[0].has("d.io", &made.handle));
    // It was kept before anything was deleted.
    let asked = storage.state().asked.clone();
    let at = |verb: &str| {
        asked
            .iter()
            .position(|line| line.starts_with(verb))
            .unwrap()
    };
    assert!(at("PATCH") < at("DELETE"), "{asked:?}");
}

#[tokio::test]
async fn a_run_that_is_killed_before_any_of_its_requests_leaves_no_object_and_no_snapshot_that_it_does_not_own_up_to()
 {
    for policy in ["Delete", "Retain"] {
        let (mut at, mut kept, mut finished) = (0, 0, false);
        while !finished {
            let (storage, store) = (Storage::default(), Store::in_memory());
            storage.state().policy = Some(policy);
            let made = killed_at(at, &storage, async |cluster| run(cluster, &store).await);
            finished = made.await.is_some();
            let told = clear(&storage.cluster(), &store, "c-uid").await.unwrap();
            assert_eq!(told, Vec::<String>::new(), "request {at}");
            assert_eq!(objects(&storage), Vec::<String>::new(), "request {at}");
            let known: Vec<String> = inventories(&store)
                .await
                .iter()
                .flat_map(|one| one.snapshots.clone())
                .map(|one| one.handle)
                .collect();
            let there: Vec<String> = storage.state().holds.iter().cloned().collect();
            assert_eq!(known, there, "request {at}");
            let is_backup = store.find(MARKER, 10).await.unwrap().is_some();
            assert_eq!(there.len(), usize::from(is_backup), "request {at}");
            kept += usize::from(is_backup);
            at += 1;
        }
        assert!(at > 15 && kept > 4 && at - kept > 8, "{at} {kept}");
    }
}

#[tokio::test]
async fn a_namespace_that_goes_between_ready_and_kept_is_a_snapshot_that_failed() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let mut cut = cut(&storage.cluster(), &store, 5000);
    cut.ask().await.unwrap();
    cut.cut().await.unwrap();
    // The controllers have come so far that the sidecar is at work on its deletion.
    storage.state().keeps = true;
    let path = objects(&storage)
        .into_iter()
        .find(|path| path.contains("/snapcontent-"))
        .unwrap();
    {
        let mut state = storage.state();
        let content = state.objects.get_mut(&path).unwrap();
        content["metadata"]["deletionTimestamp"] = "now".into();
        content["metadata"]["annotations"]["snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"] =
            "yes".into();
        content["status"]["readyToUse"] = true.into();
    }
    let e = cut.keep(Hooks::None).await.unwrap_err();
    assert!(
        why(&e).contains("somebody deletes its VolumeSnapshotContent"),
        "{e}"
    );
}

#[tokio::test]
async fn one_that_somebody_lets_go_before_the_backup_stands_is_kept_again_or_failed() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let mut cut = cut(&storage.cluster(), &store, 5000);
    cut.ask().await.unwrap();
    cut.cut().await.unwrap();
    let made = cut.keep(Hooks::None).await.unwrap();
    let path = objects(&storage)
        .into_iter()
        .find(|path| path.contains("/snapcontent-"))
        .unwrap();
    let policy = |wanted: &str| {
        storage.state().objects.get_mut(&path).unwrap()["spec"]["deletionPolicy"] = wanted.into();
    };
    policy("Delete");
    cut.confirm(&made.handle).await.unwrap();
    assert_eq!(
        storage.state().objects[&path]["spec"]["deletionPolicy"],
        "Retain"
    );
    policy("Delete");
    assert!(why(&cut.leave().await.unwrap_err()).contains("would take the snapshot along"));
    assert_eq!((objects(&storage).len(), holds(&storage)), (2, 1));
    assert!(cut.confirm("another").await.is_err());
}

#[tokio::test]
async fn what_another_location_or_cluster_has_and_what_lives_is_left_alone() {
    let (storage, store) = (Storage::default(), Store::in_memory());
    let mut cut = cut(&storage.cluster(), &store, 5000);
    cut.ask().await.unwrap();
    cut.cut().await.unwrap();
    let before = objects(&storage);
    assert_eq!(before.len(), 2);
    let untouched = async |what: &str| {
        clear(&storage.cluster(), &store, "c-uid").await.unwrap();
        assert_eq!(
            (objects(&storage), holds(&storage)),
            (before.clone(), 1),
            "{what}"
        );
    };
    untouched("nothing is known").await;
    noted(&store, "other-uid").put(&store).await.unwrap();
    untouched("another cluster's").await;
    let mut copied = noted(&store, "c-uid");
    copied.place = "0123456789abcdef".into();
    copied.put(&store).await.unwrap();
    untouched("a bucket that was copied").await;
    noted(&store, "c-uid").put(&store).await.unwrap();
    let claim = format!("backups/nightly/claim-{RUN}.json");
    store.put(&claim, "{}".into()).await.unwrap();
    untouched("a run that lives").await;
    store.delete(&claim).await.unwrap();
    let label = |wanted: &str| {
        let mut state = storage.state();
        let all = state
            .objects
            .iter_mut()
            .filter(|(path, _)| path.contains("/volumesnapshots/"));
        all.for_each(|(_, object)| {
            object["metadata"]["labels"]["kubectl-backup/location"] = wanted.into();
        });
    };
    let place = inventory::place(&store);
    label("another-location");
    // Planted where it does not belong.
    {
        let mut state = storage.state();
        let mut all = state.objects.iter_mut();
        let content = all.find(|(path, _)| path.contains("/snapcontent-"));
        content.unwrap().1["metadata"]["labels"] =
            json!({"kubectl-backup/run": RUN, "kubectl-backup/location": "another-location"});
    }
    noted(&store, "c-uid").put(&store).await.unwrap();
    clear(&storage.cluster(), &store, "c-uid").await.unwrap();
    assert_eq!(holds(&storage), 1);
    label(&place);
    noted(&store, "c-uid").put(&store).await.unwrap();
    clear(&storage.cluster(), &store, "c-uid").await.unwrap();
    assert_eq!(there(&storage, &store).await, (0, 0, 0));
}

#[tokio::test]
async fn one_that_is_never_ready_is_named_with_the_drivers_word_and_removed() {
    let storage = Storage::default();
    storage.state().never_ready = Some("no room for the rest");
    let mut cut = cut(&storage.cluster(), &Store::in_memory(), 150);
    cut.ask().await.unwrap();
    cut.cut().await.unwrap();
    let e = cut.keep(Hooks::None).await.unwrap_err();
    assert_eq!(
        why(&e),
        "its snapshot could not be used in time: no room for the rest"
    );
    assert_eq!(holds(&storage), 1);
    cut.remove().await.unwrap();
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 0));
}

#[tokio::test]
async fn one_that_the_sidecar_overlooks_is_shown_to_it_again() {
    let storage = Storage::default();
    storage.state().overlooks = true;
    let mut cut = cut(&storage.cluster(), &Store::in_memory(), 5000);
    cut.ask().await.unwrap();
    cut.cut().await.unwrap();
    cut.remove().await.unwrap();
    assert_eq!((objects(&storage).len(), holds(&storage)), (0, 0));
}

#[tokio::test]
async fn a_content_that_is_not_its_own_is_never_touched() {
    let storage = Storage::default();
    let mut cut = cut(&storage.cluster(), &Store::in_memory(), 5000);
    cut.ask().await.unwrap();
    cut.cut().await.unwrap();
    let foreign = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents/foreign";
    {
        let mut state = storage.state();
        state.put(foreign, json!({"metadata": {"name": "foreign", "finalizers": ["x"]}, "spec": {
            "driver": "d.io", "deletionPolicy": "Delete", "source": {"volumeHandle": "w"},
            "volumeSnapshotRef": {"namespace": "other", "name": "theirs", "uid": "their-uid"}}, "status": {"snapshotHandle": "theirs", "readyToUse": true}}));
        let own = state.snapshot_objects();
        for path in own.iter().filter(|path| path.contains("/volumesnapshots/")) {
            // Who may write in the namespace points somewhere else.
            let object = state.objects.get_mut(path).unwrap();
            object["status"]["boundVolumeSnapshotContentName"] = "foreign".into();
            object["spec"]["source"] = json!({"volumeSnapshotContentName": "foreign"});
        }
        state
            .objects
            .retain(|path, _| !path.contains("/snapcontent-"));
    }
    let before = storage.state().objects[foreign].clone();
    let e = cut.keep(Hooks::None).await.unwrap_err();
    assert!(why(&e).contains("is not its own"), "{e}");
    let live = storage.state().objects[foreign].clone();
    assert_eq!(live["metadata"]["labels"], Value::Null);
    assert_eq!(live["spec"], before["spec"]);
}

/// One that a backup has.
async fn kept(storage: &Storage) -> CsiSnapshot {
    run(&storage.cluster(), &Store::in_memory()).await
}

fn pair(snapshot: &CsiSnapshot) -> Pair<'_> {
    Pair {
        snapshot,
        restore: "again",
        namespace: "copy",
        claim: "data",
        mode: "Filesystem",
    }
}
