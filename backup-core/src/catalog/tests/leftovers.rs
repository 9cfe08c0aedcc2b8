//! What dead runs left in a bucket, and what looks like it.

use super::*;
use crate::location::Location;
use crate::location::trial::{Fate, Trial};

#[tokio::test]
async fn a_delete_that_died_at_any_step_is_finished_by_prune() {
    // 5 files and the claim: fail at each removal in turn.
    for dies_at in 0..6 {
        let memory = Store::in_memory();
        write(&memory, "one", None).await;
        let removed = std::sync::atomic::AtomicUsize::new(0);
        let trial = Trial::of(&memory).judged(move |verb, _| {
            let dead = verb == "delete"
                && removed.fetch_add(1, std::sync::atomic::Ordering::SeqCst) >= dies_at;
            if dead { Fate::Vanishes } else { Fate::Happens }
        });
        let failed = delete(&trial.store(), &name("one"), "here").await.is_err();
        assert_eq!(failed, dies_at < 5);
        let (found, _) = list(&memory).await.unwrap();
        assert_eq!(
            found.len(),
            usize::from(dies_at == 0),
            "the marker goes first"
        );
        assert!(
            left(&memory, "one")
                .await
                .iter()
                .any(|file| file.starts_with("claim-"))
        );

        let trial = Trial::of(&memory);
        let mut location = Location::in_memory("x");
        location.store = trial.store();
        let now = Timestamp::now();
        assert_eq!(
            prune(&location, &at(now, false)).await.unwrap(),
            [],
            "not dead yet"
        );
        for file in left(&memory, "one").await {
            trial.age(
                &format!("backups/one/{file}"),
                SignedDuration::from_mins(61),
            );
        }
        let would = prune(&location, &at(now, true)).await.unwrap();
        let did = prune(&location, &at(now, false)).await.unwrap();
        assert_eq!(would, did);
        let stands = usize::from(dies_at == 0) * 5;
        assert_eq!(left(&memory, "one").await.len(), stands, "{dies_at}");
        let expected = match dies_at {
            0 => Pruned::StaleClaim(name("one")),
            _ => Pruned::Stale(name("one")),
        };
        assert_eq!(did, [expected]);
    }
}

#[tokio::test]
async fn prune_removes_what_a_dead_create_left_and_not_what_is_no_file_of_ours() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let mut location = Location::in_memory("x");
    location.store = trial.store();
    let keys = BackupKeys::new(&name("one"));
    let claim = Claim::take(&location.store, &name("one"), Purpose::Create, "here")
        .await
        .unwrap();
    claim.put(&keys.archive(), "half".into()).await.unwrap();
    drop(claim);
    memory
        .put("backups/one/foreign.txt", "x".into())
        .await
        .unwrap();
    let now = Timestamp::now();
    for file in left(&memory, "one").await {
        trial.age(
            &format!("backups/one/{file}"),
            SignedDuration::from_mins(30),
        );
    }
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert!(
        matches!(&done[..], [Pruned::Kept(_, why)] if why.contains("30 minutes")),
        "{done:?}"
    );
    for file in left(&memory, "one").await {
        trial.age(
            &format!("backups/one/{file}"),
            SignedDuration::from_mins(61),
        );
    }
    let done = prune(&location, &at(now, false)).await.unwrap();
    assert!(
        matches!(&done[..], [Pruned::Kept(_, why)] if why.contains("foreign.txt")),
        "{done:?}"
    );
    assert_eq!(left(&memory, "one").await, ["foreign.txt"]);
}

#[tokio::test]
async fn a_hostile_claim_makes_prune_abort_nothing_elsewhere() {
    let memory = Store::in_memory();
    let aborted = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = aborted.clone();
    let trial = Trial::of(&memory).judged(move |verb, key| {
        if verb == "abort" {
            seen.lock().unwrap().push(key.to_owned());
        }
        Fate::Happens
    });
    let mut location = Location::in_memory("x");
    location.store = trial.store();
    let text = r#"{"run":"r","purpose":"create","uploads":[{"key":"backups/two/x","id":"1"},{"key":"backups/one/x","id":"../1"}]}"#;
    memory
        .put("backups/one/claim-r.json", text.into())
        .await
        .unwrap();
    memory
        .put("backups/two/claim-x.json", "not json".into())
        .await
        .unwrap();
    for key in ["backups/one/claim-r.json", "backups/two/claim-x.json"] {
        trial.age(key, SignedDuration::from_hours(2));
    }
    let done = prune(&location, &at(Timestamp::now(), false))
        .await
        .unwrap();
    assert_eq!(
        done,
        [Pruned::Stale(name("one")), Pruned::Stale(name("two"))]
    );
    assert_eq!(*aborted.lock().unwrap(), ["backups/one/x"]);
}
