//! Objects applied to an API server that answers as scripted, and names on a folder.

pub(in crate::restore) mod fake;
mod foreign;
mod held;
mod lacks;
mod policies;
mod promises;
mod rewrites;
mod signed;
mod volumes;
mod whole;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use kube::client::Body;

use super::apply::{Applier, Deletions, Done, Job, Known};
use super::gather::Resource;
use super::held::Unheld;
use super::journal::Journal;
use super::naming::{choose_name, hash_of};
use super::place::Place;
use super::rewrite::Rewrite;
use super::*;
use crate::archive::read::Object;
use crate::archive::row::Row;
use crate::discovery::ApiResource;
use crate::error::Kind;
use crate::hooks::restored::Made;

/// An API server that gives its answers in turn and remembers what it was asked.
pub(super) fn server(answers: &[(u16, &str)]) -> (Cluster, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers: Arc<Mutex<VecDeque<(u16, String)>>> = Arc::new(Mutex::new(
        answers
            .iter()
            .map(|(code, body)| (*code, (*body).to_owned()))
            .collect(),
    ));
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answers, log) = (answers.clone(), log.clone());
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            log.lock().unwrap().push(line);
            let (code, body) = answers
                .lock()
                .unwrap()
                .pop_front()
                .expect("one more answer");
            Ok::<_, std::convert::Infallible>(
                Response::builder()
                    .status(code)
                    .header("Retry-After", "0")
                    .body(Body::from(body.into_bytes()))
                    .unwrap(),
            )
        }
    });
    let client = kube::Client::new(service, "default");
    (Cluster::new(client, "test", "https://test"), asked)
}

const BODY: &str = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","namespace":"n","uid":"old"},"data":{"a":"1"}}"#;
const MADE: &str = r#"{"metadata":{"name":"c","uid":"00000000-0000-0000-0000-00000000000a"}}"#;
const EXISTS: &str = r#"{"reason":"AlreadyExists","message":"exists"}"#;
const QUOTA: &str = r#"{"reason":"Forbidden","message":"exceeded quota"}"#;

async fn apply(
    answers: &[(u16, &str)],
    existing: ExistingPolicy,
    known: Known,
) -> (Done, Vec<String>) {
    let (cluster, asked) = server(answers);
    let api = ApiResource {
        version: "v1".into(),
        plural: "configmaps".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
        verbs: vec!["create".into()],
        ..ApiResource::default()
    };
    let resource = Resource {
        name: "configmaps".into(),
        row: crate::archive::row::ResourceRow::default(),
        api: api.clone(),
        place: order::place("configmaps"),
        wanted: plan::Wanted::default(),
        count: 1,
        namespaces: std::collections::BTreeSet::new(),
        frames: Vec::new(),
        children: Vec::new(),
    };
    let applier = Applier {
        cluster,
        rewrite: Rewrite {
            backup: "b".into(),
            restore: "r".into(),
            ..Rewrite::default()
        },
        existing,
        dry: None,
        kept: None,
        deletions: Deletions::default(),
        volumes: Arc::default(),
        held: Arc::default(),
        unheld: Unheld::default(),
        snapped: Arc::default(),
        sources: Mutex::default(),
        made: Made::default(),
    };
    let job = Job {
        resource: Arc::new(resource),
        target: Arc::new(api),
        namespace: Some("n".into()),
        name: "c".into(),
        object: Object {
            row: Row {
                namespace: Some("n".into()),
                name: "c".into(),
                uid: "old".into(),
                ..Row::default()
            },
            body: Bytes::from_static(BODY.as_bytes()),
        },
        known,
    };
    let done = applier.process(&job).await.unwrap();
    let asked = asked.lock().unwrap().clone();
    (done, asked)
}

#[tokio::test]
async fn an_object_that_is_not_there_takes_one_call() {
    let (done, asked) = apply(&[(201, MADE)], ExistingPolicy::None, Known::Unasked).await;
    assert_eq!(done.action, Action::Created);
    assert!(done.uid.is_some());
    assert_eq!(asked, ["POST /api/v1/namespaces/n/configmaps"]);
}

#[tokio::test]
async fn an_object_that_stands_is_left_alone_and_a_difference_is_told() {
    let (done, asked) = apply(
        &[(409, EXISTS), (200, BODY)],
        ExistingPolicy::None,
        Known::Absent,
    )
    .await;
    assert_eq!((done.action, done.warning), (Action::Skipped, false));
    assert_eq!(asked.len(), 2);
    let other = BODY.replace("\"1\"", "\"2\"");
    let (done, _) = apply(
        &[(409, EXISTS), (200, &other)],
        ExistingPolicy::None,
        Known::Absent,
    )
    .await;
    assert_eq!((done.action, done.warning), (Action::Skipped, true));
}

#[tokio::test]
async fn update_merges_and_where_that_is_refused_sets_labels_alone_and_has_failed() {
    let other = BODY.replace("\"1\"", "\"2\"");
    let policy = ExistingPolicy::Update;
    let (done, asked) = apply(
        &[(409, EXISTS), (200, &other), (200, MADE)],
        policy,
        Known::Absent,
    )
    .await;
    assert_eq!((done.action, done.mine), (Action::Updated, true));
    assert_eq!(asked[2], "PATCH /api/v1/namespaces/n/configmaps/c");
    let refused = (
        422,
        r#"{"reason":"Invalid","message":"field is immutable"}"#,
    );
    let (done, asked) = apply(
        &[(409, EXISTS), (200, &other), refused, (200, MADE)],
        policy,
        Known::Absent,
    )
    .await;
    assert_eq!(
        (done.action, done.again, done.mine),
        (Action::Failed, true, false)
    );
    assert!(
        done.reason.contains("field is immutable"),
        "{}",
        done.reason
    );
    assert_eq!(asked.len(), 4);
}

#[tokio::test]
async fn what_this_restore_made_is_not_touched() {
    let mine = BODY.replace(
        r#""uid":"old""#,
        r#""uid":"new","labels":{"velero.io/restore-name":"r"},"annotations":{"kubectl-backup/uid":"old"}"#,
    );
    let mine = mine.replace("\"1\"", "\"changed since\"");
    let (done, asked) = apply(
        &[(409, EXISTS), (200, &mine)],
        ExistingPolicy::Update,
        Known::Absent,
    )
    .await;
    assert_eq!((done.action, done.mine), (Action::Skipped, true));
    assert_eq!(asked.len(), 2, "no patch");
}

#[tokio::test]
async fn what_this_restore_made_of_another_object_is_not_taken_for_this_one() {
    let other = BODY.replace(
        r#""uid":"old""#,
        r#""uid":"new","labels":{"velero.io/restore-name":"r"},"annotations":{"kubectl-backup/uid":"another"}"#,
    );
    let other = other.replace("\"1\"", "\"another's\"");
    for known in [Known::Absent, Known::Unasked] {
        let (done, _) = apply(&[(409, EXISTS), (200, &other)], ExistingPolicy::None, known).await;
        assert_eq!((done.action, done.mine), (Action::Skipped, false));
        assert!(done.warning && done.reason.contains("differs"), "{done:?}");
    }
    let (uid, old) = (
        "00000000-0000-0000-0000-00000000000a",
        "00000000-0000-0000-0000-00000000000b",
    );
    let seen = target::Seen {
        going: false,
        uid: uid.parse().ok(),
        made_from: old.parse().ok(),
    };
    let (done, _) = apply(&[(200, &other)], ExistingPolicy::None, Known::There(seen)).await;
    assert!(!done.mine && done.warning, "{done:?}");
}

#[tokio::test]
async fn a_quota_refuses_once_and_the_object_is_worth_another_try() {
    let (done, _) = apply(&[(403, QUOTA)], ExistingPolicy::None, Known::Absent).await;
    assert_eq!((done.action, done.again), (Action::Failed, true));
    assert!(done.reason.contains("exceeded quota"));
    let (done, _) = apply(&[(201, MADE)], ExistingPolicy::None, Known::Unasked).await;
    assert_eq!(done.action, Action::Created);
}

#[tokio::test]
async fn admission_may_refuse_what_exists_already() {
    let (done, _) = apply(
        &[(403, QUOTA), (200, BODY)],
        ExistingPolicy::None,
        Known::Unasked,
    )
    .await;
    assert_eq!(done.action, Action::Skipped);
}

#[tokio::test]
async fn a_busy_server_is_waited_for() {
    let busy = (429, r#"{"reason":"TooManyRequests","message":"later"}"#);
    let (done, asked) = apply(
        &[busy, busy, (201, MADE)],
        ExistingPolicy::None,
        Known::Absent,
    )
    .await;
    assert_eq!(done.action, Action::Created);
    assert_eq!(asked.len(), 3);
}

fn options(folder: &std::path::Path) -> RestoreOptions {
    RestoreOptions {
        name: None,
        backup: "nightly".parse().unwrap(),
        filter: Filter::default(),
        namespace_mappings: BTreeMap::new(),
        existing: ExistingPolicy::None,
        preserve_node_ports: false,
        adopt_volumes: None,
        rewriting: rewriting::Rewriting::default(),
        of_target: rewriting::Rewriting::default(),
        hooks: serde_json::Value::Null,
        restore_volumes: None,
        volumes: VolumeOptions {
            mover: crate::mover::MoverOptions {
                image: "mover:1".into(),
                pulled_with: Vec::new(),
                timeout: std::time::Duration::from_secs(1),
                parallel: 1,
            },
            identities: crate::crypt::Identities::default(),
        },
        spool_dir: folder.to_owned(),
        state_dir: folder.to_owned(),
        concurrency: 4,
        now: "2026-11-21T02:03:04Z".parse().unwrap(),
    }
}

#[tokio::test]
async fn a_name_is_made_or_gone_on_with_and_other_options_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Folder(folder.path().to_owned());
    let places = [place.clone()];
    let mut options = options(folder.path());
    let hash = hash_of(b"marker", "cluster", &options);
    let (name, goes_on) = choose_name(&places, &options, &hash).await.unwrap();
    assert_eq!((name.as_str(), goes_on), ("nightly-20261121020304", false));
    let header = Header {
        format: journal::FORMAT.into(),
        backup: "nightly".into(),
        options_hash: hash.clone(),
        started: options.now,
        spec: spec(&options),
        backup_uid: None,
        cluster: None,
    };
    Journal::open(place, &name, &header, false).await.unwrap();
    let (again, goes_on) = choose_name(&places, &options, &hash).await.unwrap();
    assert_eq!((again.as_str(), goes_on), (name.as_str(), true));

    options.namespace_mappings.insert("a".into(), "b".into());
    let other = hash_of(b"marker", "cluster", &options);
    assert_ne!(hash, other);
    let (fresh, goes_on) = choose_name(&places, &options, &other).await.unwrap();
    assert_eq!(
        (fresh.as_str(), goes_on),
        ("nightly-20261121020304-2", false)
    );
    options.name = Some(name);
    let error = choose_name(&places, &options, &other).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn the_hash_covers_backup_target_and_policy() {
    let folder = std::path::Path::new("/");
    let base = options(folder);
    let hash = hash_of(b"m", "c", &base);
    assert_ne!(hash, hash_of(b"n", "c", &base));
    assert_ne!(hash, hash_of(b"m", "d", &base));
    let policies = [
        ExistingPolicy::Update,
        ExistingPolicy::Recreate,
        ExistingPolicy::Apply { force: false },
        ExistingPolicy::Apply { force: true },
    ];
    let mut hashes = std::collections::BTreeSet::from([hash.clone()]);
    for existing in policies {
        let other = RestoreOptions {
            existing,
            ..base.clone()
        };
        assert!(hashes.insert(hash_of(b"m", "c", &other)), "{existing:?}");
        // Velero's validation knows this word and no other.
        let word = spec(&other).existing_resource_policy;
        assert_eq!(word.as_deref(), Some("update"));
    }
    let mut later = base;
    later.now = "2027-01-01T00:00:00Z".parse().unwrap();
    later.concurrency = 1;
    assert_eq!(hash, hash_of(b"m", "c", &later));
}

#[test]
fn a_restore_may_run_on_any_thread() {
    let _ = |c: &Cluster, l: &Location, n: &Name, o: &RestoreOptions, w: watch::Receiver<bool>| {
        fn check<T: Send>(_: &T) {}
        let silent = &crate::progress::Silent;
        check(&restore(c, l, n, o, &mut |_| Ok(w.clone()), silent));
        check(&plan(c, l, o, DryRun::Server, silent, &mut |_| {}));
        check(&decide_name(c, l, o));
    };
}
