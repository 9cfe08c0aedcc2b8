use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::backup::server::Server;
use crate::discovery::ApiResource;

const RUN: &str = "0123456789abcdef";

fn note(change: impl FnOnce(&mut Value)) -> (String, Value) {
    let mut note = json!({"version": 1, "cluster": "uid-kube-system", "backup": "nightly", "run": RUN, "namespace": "shop", "pod": "db-0", "uid": "u-1",
        "hooks": ["d"], "process": {"host": "elsewhere"}, "noted": "2026-11-21T02:00:00Z"});
    change(&mut note);
    let uid = note["uid"].as_str().unwrap();
    (format!("{HOOKS}{RUN}.{uid}.json"), note)
}

async fn settled(location: &Location, server: Server) -> Vec<Settled> {
    watched(location, server).await.0
}

/// What was told, and whether something was run in the pod.
async fn watched(location: &Location, server: Server) -> (Vec<Settled>, bool) {
    let (told, has_run) = settling(location, server, Some("uid-kube-system"), false).await;
    (told.unwrap(), has_run)
}

async fn settling(
    location: &Location,
    server: Server,
    identity: Option<&str>,
    is_stopped: bool,
) -> (Result<Vec<Settled>>, bool) {
    let (cluster, server) = server.start();
    let (_keep, cancel) = watch::channel(is_stopped);
    let settling = Settling {
        cluster: &cluster,
        location,
        identity,
        namespaces: &["velero".to_owned(), "served".to_owned()],
        served: &["served".to_owned()],
        me: &me(),
        cancel: &cancel,
    };
    let told = settle(&settling).await;
    let log = server.log.lock().unwrap();
    let has_run = log.iter().any(|asked| asked.path.ends_with("/exec"));
    (told, has_run)
}

fn me() -> Process {
    Process::this("here".into(), None)
}

async fn with(notes: &[(String, Value)]) -> Location {
    let location = Location::in_memory("mem");
    for (key, note) in notes {
        location
            .store
            .put(key, note.to_string().into())
            .await
            .unwrap();
    }
    location
}

async fn keys(location: &Location) -> Vec<String> {
    let all = location.store.entries(HOOKS, 100).await.unwrap();
    all.into_iter().map(|entry| entry.key).collect()
}

fn pod_of(uid: &str) -> String {
    json!({"metadata": {"name": "db-0", "namespace": "shop", "uid": uid, "annotations": {"post.hook.backup.velero.io/command": "thaw"}},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}]}})
    .to_string()
}

const POD: &str = "/api/v1/namespaces/shop/pods/db-0";

#[tokio::test]
async fn a_location_without_notes_is_asked_once() {
    let location = with(&[]).await;
    assert_eq!(settled(&location, Server::new()).await, []);
}

#[tokio::test]
async fn what_is_owed_to_a_pod_that_is_gone_is_forgotten() {
    for answer in [None, Some("another-uid")] {
        let location = with(&[note(|_| {})]).await;
        let mut server = Server::new();
        server.fix(POD, 404, "{}");
        if let Some(uid) = answer {
            server.fix(POD, 200, &pod_of(uid));
        }
        let told = settled(&location, server).await;
        assert!(
            !told[0].is_trouble && told[0].text.contains("shop/db-0"),
            "{told:?}"
        );
        assert_eq!(keys(&location).await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_run_that_may_live_keeps_its_note_until_it_can_not_write_any_more() {
    let location = with(&[note(|_| {})]).await;
    let claim = format!("backups/nightly/claim-{RUN}.json");
    location.store.put(&claim, "{}".into()).await.unwrap();
    let mut server = Server::new();
    server.fix(POD, 200, &pod_of("u-1"));
    let told = settled(&location, server).await;
    assert!(
        !told[0].is_trouble && told[0].text.contains("may still be at work"),
        "{told:?}"
    );
    assert_eq!(keys(&location).await.len(), 1);
    // Its own process knows of its own brackets.
    let (key, mut own) = note(|_| {});
    own["process"] = serde_json::to_value(me()).unwrap();
    location
        .store
        .put(&key, own.to_string().into())
        .await
        .unwrap();
    let mut server = Server::new();
    server.fix(POD, 200, &pod_of("u-1"));
    assert_eq!(settled(&location, server).await, []);
    assert_eq!(keys(&location).await.len(), 1);
}

#[tokio::test]
async fn a_pod_that_is_not_here_is_forgotten_only_where_both_clusters_are_known_to_be_one() {
    for (its, own, stays) in [
        (Some("uid-kube-system"), Some("uid-kube-system"), false),
        (Some("uid-kube-system"), None, true),
        (None, Some("uid-kube-system"), true),
        (None, None, true),
    ] {
        let location = with(&[note(|note| note["cluster"] = json!(its))]).await;
        let mut server = Server::new();
        server.fix(POD, 404, "{}");
        let told = settling(&location, server, own, false).await.0;
        let told = told.unwrap();
        assert!(told.iter().all(|one| !one.is_trouble), "{told:?}");
        let is_there = keys(&location).await.len() == 1;
        assert_eq!(is_there, stays, "{its:?} {own:?} {told:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_pod_says_nothing_of_one() {
    for answer in ["{}", r#"{"kind":"Status","metadata":{}}"#, "<html>"] {
        let location = with(&[note(|_| {})]).await;
        let mut server = Server::new();
        server.fix(POD, 200, answer);
        let told = settled(&location, server).await;
        assert!(
            told[0].is_trouble && told[0].text.contains("no pod"),
            "{told:?}"
        );
        assert_eq!(keys(&location).await.len(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_cluster_that_can_not_be_asked_for_a_command_has_not_forgotten_it() {
    let (spec, digest) = asking("thaw");
    let schedule = json!({"metadata": {"name": "daily"}, "spec": {"template": spec}});
    let daily = "/apis/velero.io/v1/namespaces/velero/schedules/daily";
    let made = "/apis/velero.io/v1/namespaces/served/backups/nightly";
    for (path, code) in [(daily, 503), (daily, 403), (made, 429), (made, 403)] {
        let change = |note: &mut Value| {
            note["hooks"] = json!([digest]);
            note["schedule"] = "daily".into();
        };
        let location = with(&[note(change)]).await;
        let mut server = Server::new();
        server.fix(POD, 200, &bare_pod());
        server.fix(daily, 200, &schedule.to_string());
        let refusal = crate::backup::server::refuse(code, "Odd", "not now");
        server.fix(path, code, &refusal.body);
        let (told, has_run) = watched(&location, server).await;
        assert!(
            told[0].is_trouble && told[0].text.contains("could not be run"),
            "{told:?}"
        );
        assert!(!has_run);
        assert_eq!(keys(&location).await.len(), 1, "{path} {code}");
    }
}

#[tokio::test]
async fn a_note_without_names_finds_its_schedule_by_what_it_asks_for() {
    let (spec, digest) = asking("thaw");
    for (asked, runs) in [(digest.as_str(), true), ("planted", false)] {
        let location = with(&[note(|note| note["hooks"] = json!([asked]))]).await;
        let mut server = Server::new();
        server.fix(POD, 200, &bare_pod());
        let object = json!({"metadata": {"name": "daily", "namespace": "velero"}, "spec": {"template": spec}});
        server.add("/apis/velero.io/v1/schedules", &object.to_string());
        assert_eq!(watched(&location, server).await.1, runs, "{asked}");
        assert_eq!(keys(&location).await.len(), 1);
    }
}

#[tokio::test]
async fn one_that_was_stopped_begins_nothing() {
    let location = with(&[note(|_| {})]).await;
    let mut server = Server::new();
    server.fix(POD, 200, &pod_of("u-1"));
    let (told, has_run) = settling(&location, server, Some("uid-kube-system"), true).await;
    assert_eq!((told.unwrap(), has_run), (Vec::new(), false));
    assert_eq!(keys(&location).await, [note(|_| {}).0]);
}

#[tokio::test]
async fn a_run_that_began_since_is_not_woken() {
    let (cluster, _server) = Server::new().start();
    let location = with(&[note(|_| {})]).await;
    let (_keep, cancel) = watch::channel(false);
    let settling = Settling {
        cluster: &cluster,
        location: &location,
        identity: Some("uid-kube-system"),
        namespaces: &[],
        served: &[],
        me: &me(),
        cancel: &cancel,
    };
    let (key, dead) = note(|_| {});
    let dead: Note = serde_json::from_value(dead).unwrap();
    let store = location.store.outside();
    assert!(!settling.is_at_work(&store, &key, &dead).await.unwrap());
    let (other, living) = note(|note| note["run"] = "f00d".into());
    let other = other.replace(RUN, "f00d");
    let living = living.to_string();
    location.store.put(&other, living.into()).await.unwrap();
    assert!(!settling.is_at_work(&store, &key, &dead).await.unwrap());
    let claim = "backups/nightly/claim-f00d.json";
    location.store.put(claim, "{}".into()).await.unwrap();
    assert!(settling.is_at_work(&store, &key, &dead).await.unwrap());
    let told = settling.one(&store, &key, &dead).await.unwrap();
    assert!(told[0].text.contains("another backup"), "{told:?}");
    assert_eq!(keys(&location).await.len(), 2);
}

#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn a_taker_that_is_seen_to_be_dead_holds_up_nobody() {
    let location = with(&[note(|_| {})]).await;
    let key = note(|_| {}).0;
    let taker = format!("{HOOKS}{RUN}.u-1.taken-x");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let mut dead = serde_json::to_value(me()).unwrap();
    dead["pid"] = child.id().into();
    for (text, is_taken) in [
        (serde_json::to_value(me()).unwrap(), false),
        (json!("odd"), false),
        (dead, true),
    ] {
        location
            .store
            .put(&taker, text.to_string().into())
            .await
            .unwrap();
        let own = take(&location.store, &key, &me()).await.unwrap();
        assert_eq!(own.is_some(), is_taken, "{text}");
    }
}

#[tokio::test]
async fn other_clusters_notes_are_left_alone_and_odd_ones_are_counted() {
    let odd = |change: fn(&mut Value)| note(change);
    let location = with(&[
        odd(|note| note["cluster"] = "other".into()),
        (format!("{HOOKS}x.json"), json!({"version": 1})),
        (
            format!("{HOOKS}{RUN}.u-3.json"),
            note(|note| note["uid"] = "u-4".into()).1,
        ),
        odd(|note| {
            note["version"] = 2.into();
            note["uid"] = "u-5".into();
        }),
    ])
    .await;
    let told = settled(&location, Server::new()).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.starts_with("3 files"), "{told:?}");
    assert_eq!(keys(&location).await.len(), 4);
}

#[tokio::test]
async fn nothing_that_a_note_says_is_run_and_a_path_in_it_is_none() {
    let location = with(&[note(|note| note["pod"] = "../../secrets/x".into())]).await;
    let told = settled(&location, Server::new()).await;
    assert!(
        told[0].is_trouble && told[0].text.contains("names no pod"),
        "{told:?}"
    );
    // A digest of what the cluster does not ask for.
    let location = with(&[note(|_| {})]).await;
    let mut server = Server::new();
    server.fix(POD, 200, &pod_of("u-1"));
    let told = settled(&location, server).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].is_trouble && told[0].text.contains("by hand"),
        "{told:?}"
    );
    // It goes with its pod.
    assert_eq!(keys(&location).await.len(), 1);
}

#[tokio::test]
async fn a_hook_that_could_not_be_started_stays_owed() {
    let mut pod: Value = serde_json::from_str(&pod_of("u-1")).unwrap();
    let read = Pod::read(pod.to_string().as_bytes()).unwrap();
    let all = ask::of_backup(&read, &SpecHooks::default(), &ApiResource::default());
    let digest = all.post[0].digest();
    pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {}});
    let location = with(&[note(|note| note["hooks"] = json!([digest]))]).await;
    let mut server = Server::new();
    server.fix(POD, 200, &pod.to_string());
    let told = settled(&location, server).await;
    assert!(
        told[0].is_trouble && told[0].text.contains("does not run"),
        "{told:?}"
    );
    assert_eq!(keys(&location).await.len(), 1);
}

#[tokio::test]
async fn a_note_without_names_finds_its_pod_by_its_uid_and_a_run_at_work_in_it_is_not_disturbed() {
    let nameless = |uid: &str| {
        note(|note| {
            note["uid"] = uid.into();
            let note = note.as_object_mut().unwrap();
            note.remove("namespace");
            note.remove("pod");
        })
    };
    let (other, living) = note(|note| note["run"] = "f00d".into());
    let living = (other.replace(RUN, "f00d"), living);
    let location = with(&[nameless("u-1"), nameless("u-2"), living]).await;
    let claim = "backups/nightly/claim-f00d.json";
    location.store.put(claim, "{}".into()).await.unwrap();
    let server = || {
        let mut server = Server::new();
        server.add("/api/v1/pods", &pod_of("u-1"));
        server.fix(POD, 200, &pod_of("u-1"));
        server
    };
    let told = settled(&location, server()).await;
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].text.contains("may still be at work"), "{told:?}");
    assert!(
        told[1].text.contains("uid u-2") && told[1].text.contains("is gone"),
        "{told:?}"
    );
    assert_eq!(keys(&location).await.len(), 2);
    location.store.delete(claim).await.unwrap();
    let told = settled(&location, server()).await;
    assert_eq!(told.len(), 2, "{told:?}");
    for one in &told {
        assert!(
            one.text.contains("shop/db-0") && one.text.contains("by hand"),
            "{told:?}"
        );
    }
    assert_eq!(keys(&location).await.len(), 2);
}

/// A spec that asks for a command after the backup, and its digest in a pod of one container.
fn asking(command: &str) -> (Value, String) {
    let hooks = json!({"resources": [{"name": "s", "post": [{"exec": {"command": [command]}}]}]});
    let hook = Hook {
        origin: "s".into(),
        container: "c".into(),
        command: vec![command.into()],
        on_error: ask::OnError::Fail,
        timeout: Duration::from_secs(1),
    };
    (json!({"hooks": hooks}), hook.digest())
}

fn bare_pod() -> String {
    let mut pod: Value = serde_json::from_str(&pod_of("u-1")).unwrap();
    pod["metadata"]["annotations"] = Value::Null;
    pod.to_string()
}

#[tokio::test]
async fn a_backup_that_may_come_from_the_bucket_has_nothing_run_whatever_note_is_planted() {
    let (spec, digest) = asking("any-command");
    let of = async |namespace: &str, run: Value, included: &str| {
        let digest = digest.clone();
        let location = with(&[note(|note| note["hooks"] = json!([digest]))]).await;
        let mut server = Server::new();
        server.fix(POD, 200, &bare_pod());
        let mut spec = spec.clone();
        spec["includedNamespaces"] = json!([included]);
        let object = json!({"metadata": {"name": "nightly", "annotations": {(super::RUN): run}}, "spec": spec});
        let path = format!("/apis/velero.io/v1/namespaces/{namespace}/backups/nightly");
        server.fix(&path, 200, &object.to_string());
        watched(&location, server).await.1
    };
    // As the controller's sync makes it of what a bucket has.
    assert!(!of("served", Value::Null, "*").await);
    // As Velero's does, which keeps every annotation.
    assert!(!of("velero", "r.u".into(), "*").await);
    // One that does not take this pod.
    assert!(!of("served", "r.u".into(), "else*").await);
    assert!(of("served", "r.u".into(), "sh*").await);
}

#[tokio::test]
async fn a_schedule_says_what_is_owed_to_the_pods_that_it_takes() {
    let (spec, digest) = asking("thaw");
    for (included, runs) in [("shop", true), ("other", false)] {
        let change = |note: &mut Value| {
            note["hooks"] = json!([digest]);
            note["schedule"] = "daily".into();
        };
        let location = with(&[note(change)]).await;
        let mut server = Server::new();
        server.fix(POD, 200, &bare_pod());
        let mut spec = spec.clone();
        spec["includedNamespaces"] = json!([included]);
        let object = json!({"metadata": {"name": "daily"}, "spec": {"template": spec}});
        let path = "/apis/velero.io/v1/namespaces/velero/schedules/daily";
        server.fix(path, 200, &object.to_string());
        assert_eq!(watched(&location, server).await.1, runs, "{included}");
    }
}

#[test]
fn only_what_the_cluster_asks_for_and_the_note_has_is_owed() {
    let pod = Pod::read(pod_of("u-1").as_bytes()).unwrap();
    let spec = |command: &str| {
        let hooks = json!({"resources": [{"name": "s", "post": [{"exec": {"command": [command]}}, {"exec": {"command": ["other"]}}]}]});
        SpecHooks::read(&hooks).unwrap()
    };
    let mut bare = pod.clone();
    bare.metadata.annotations = None;
    let digest = |command: &str| {
        let hooks = ask::of_backup(
            &bare,
            &spec(command),
            &ApiResource {
                plural: "pods".into(),
                namespaced: true,
                ..ApiResource::default()
            },
        );
        hooks.post[0].digest()
    };
    // The same of two objects is run once.
    let specs = [spec("a"), spec("a"), spec("b")];
    let found = owed(&bare, &specs, &[digest("a"), digest("planted")]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].command, ["a"]);
    // The annotation beats the spec now as it did then.
    assert!(owed(&pod, &specs, &[digest("a")]).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_that_find_a_note_never_two_hold_it() {
    let inside = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let location = with(&[note(|_| {})]).await;
    let key = note(|_| {}).0;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (store, key, inside) = (location.store.clone(), key.clone(), Arc::clone(&inside));
        all.spawn(async move {
            let Some(own) = take(&store, &key, &me()).await.unwrap() else {
                return false;
            };
            let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            assert_eq!(others, 0, "two hold it");
            tokio::time::sleep(Duration::from_millis(100)).await;
            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            store.delete(&own).await.unwrap();
            true
        });
    }
    all.join_all().await;
    assert!(take(&location.store, &key, &me()).await.unwrap().is_some());
}
