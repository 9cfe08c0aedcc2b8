use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::*;
use crate::backup::server::{Server, refuse};
use crate::layout::HOOKS;
use crate::location::Store;
use crate::location::trial::{Fate, Trial};

const POD: &str = "/api/v1/namespaces/n/pods/p";

/// What becomes of a pod with these hooks on a server that answers every exec with this status; the execs that it saw, by their command.
async fn around(
    pre: &[(&str, OnError)],
    post: &[&str],
    code: u16,
    is_gone: Option<Arc<AtomicBool>>,
) -> (Tally, Vec<String>, usize) {
    around_in(Store::in_memory(), pre, post, code, is_gone).await
}

/// The same where notes go to this store.
async fn around_in(
    store: Store,
    pre: &[(&str, OnError)],
    post: &[&str],
    code: u16,
    is_gone: Option<Arc<AtomicBool>>,
) -> (Tally, Vec<String>, usize) {
    let mut server = Server::new();
    let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "containerID": "x://1", "state": {"running": {}}}]}});
    server.fix(POD, 200, &pod.to_string());
    server.fault = Box::new(move |asked| {
        let is_gone = is_gone
            .as_ref()
            .is_some_and(|gone| gone.load(Ordering::SeqCst));
        if asked.path == POD && is_gone {
            return Some(refuse(404, "NotFound", "it is gone"));
        }
        asked
            .path
            .ends_with("/exec")
            .then(|| refuse(code, "Odd", "no"))
    });
    let (cluster, server) = server.start();
    let notes = Notes {
        store: store.clone(),
        cluster: None,
        backup: "b".to_owned(),
        run: "r".to_owned(),
        schedule: None,
        names: true,
        process: super::super::Process::default(),
    };
    let hook = |command: &str, on_error| Hook {
        origin: "a".to_owned(),
        container: "c".to_owned(),
        command: vec![command.to_owned()],
        on_error,
        timeout: Duration::from_secs(5),
    };
    let asked = Asked {
        namespace: "n".to_owned(),
        name: "p".to_owned(),
        uid: "u".to_owned(),
        hooks: PodHooks {
            pre: pre
                .iter()
                .map(|(word, on_error)| hook(word, *on_error))
                .collect(),
            post: post
                .iter()
                .map(|word| hook(word, OnError::Continue))
                .collect(),
            unfit: None,
        },
    };
    let (_keep, cancel) = watch::channel(false);
    let brackets = Brackets::new(
        cluster,
        notes,
        cancel,
        Box::new(|| true),
        Arc::new(|_, _| {}),
    );
    let mut bracket = brackets.open(asked);
    bracket.opened().await;
    bracket.close().await;
    let tally = brackets.settle().await;
    let left = store.entries(HOOKS, 10).await.unwrap();
    let log = server.log.lock().unwrap();
    let execs = log.iter().filter(|asked| asked.path.ends_with("/exec"));
    let words = execs.filter_map(|asked| asked.get("command").map(str::to_owned));
    (tally, words.collect(), left.len())
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_has_to_end_well_ends_the_pods_hooks_before_the_backup_where_it_does_not() {
    for (on_error, seen) in [
        (OnError::Fail, &["one"] as &[&str]),
        (OnError::Continue, &["one", "two"]),
    ] {
        let pre = [("one", on_error), ("two", OnError::Fail)];
        let (tally, words, left) = around(&pre, &[], 403, None).await;
        assert_eq!(words, seen);
        assert_eq!((tally.attempted, left), (seen.len() as u64, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_hook_of_which_nobody_knows_is_tried_again_and_then_stays_owed_and_told() {
    let pre = [("freeze", OnError::Continue)];
    let (tally, words, left) = around(&pre, &["thaw"], 500, None).await;
    let thaws = words.iter().filter(|word| *word == "thaw").count();
    assert!((10..40).contains(&thaws), "{thaws}");
    assert_eq!((tally.attempted, tally.failed, left), (2, 2, 1));
    let owed = tally
        .told
        .iter()
        .find(|told| told.text.contains("still owed"));
    assert!(owed.is_some_and(|told| told.is_error), "{:?}", tally.told);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_goes_is_owed_nothing_any_more() {
    let gone = Arc::new(AtomicBool::new(false));
    let pre = [("freeze", OnError::Continue)];
    let later = Arc::clone(&gone);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        later.store(true, Ordering::SeqCst);
    });
    let (tally, _, left) = around(&pre, &["thaw"], 500, Some(gone)).await;
    assert_eq!(left, 0);
    assert!(
        !tally
            .told
            .iter()
            .any(|told| told.text.contains("still owed")),
        "{:?}",
        tally.told
    );
}

#[tokio::test(start_paused = true)]
async fn where_it_can_not_be_noted_what_will_be_owed_no_hook_runs_and_one_error_says_so() {
    for fate in [Fate::Happens, Fate::Refused] {
        let notes = move |verb: &str, key: &str| match verb {
            "put" if key.starts_with(HOOKS) => fate,
            _ => Fate::Happens,
        };
        let store = Trial::of(&Store::in_memory()).judged(notes).store();
        let pre = [("freeze", OnError::Fail)];
        let (tally, words, left) = around_in(store, &pre, &["thaw"], 403, None).await;
        assert_eq!(left, 0);
        if fate == Fate::Happens {
            assert_eq!(words[0], "freeze");
            continue;
        }
        assert_eq!(words, [""; 0]);
        let [told] = &tally.told[..] else {
            panic!("{:?}", tally.told);
        };
        assert!(told.is_error && told.namespace == "n", "{told:?}");
        for part in [
            "pod n/p: its hooks are not run",
            "could not be noted",
            HOOKS,
        ] {
            assert!(told.text.contains(part), "{told:?}");
        }
    }
}
