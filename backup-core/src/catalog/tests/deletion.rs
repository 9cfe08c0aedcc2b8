//! Backups that somebody deletes: what goes, what an attempt that died leaves to the next, and who counts as at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::location::trial::{Fate, Trial};

#[tokio::test]
async fn delete_removes_everything_and_only_that() {
    let store = Store::in_memory();
    write(&store, "one", None).await;
    write(&store, "one-more", None).await;
    delete(&store, &name("one"), "here").await.unwrap();
    assert!(left(&store, "one").await.is_empty());
    assert_eq!(left(&store, "one-more").await.len(), 5);
    assert_eq!(
        delete(&store, &name("one"), "here")
            .await
            .unwrap_err()
            .kind(),
        Kind::NotFound
    );
    assert!(left(&store, "one").await.is_empty());
    let claim = Claim::take(&store, &name("busy"), Purpose::Create, "here")
        .await
        .unwrap();
    let error = delete(&store, &name("busy"), "here").await.unwrap_err();
    assert!(error.to_string().contains("not complete"), "{error}");
    claim.release().await;
}

/// The bytes of all claims of a folder look so much older.
async fn age_claims(trial: &Trial, memory: &Store, text: &str, by: SignedDuration) -> usize {
    let mut claims = left(memory, text).await;
    claims.retain(|file| file.starts_with("claim-"));
    for claim in &claims {
        trial.age(&format!("backups/{text}/{claim}"), by);
    }
    claims.len()
}

#[tokio::test]
async fn a_deletion_that_died_at_any_step_is_finished_by_its_next_attempt() {
    let soon = SignedDuration::from_secs(91);
    // The marker, 4 files and the claim.
    for dies_at in 0..6 {
        let memory = Store::in_memory();
        write(&memory, "one", None).await;
        let removed = Arc::new(AtomicUsize::new(0));
        let count = removed.clone();
        let trial = Trial::of(&memory).judged(move |verb, _| {
            let before = match verb {
                "delete" => count.fetch_add(1, Ordering::SeqCst),
                _ => usize::MAX,
            };
            if before == dies_at {
                // It is not known whether it was done.
                Fate::Forgotten
            } else {
                Fate::Happens
            }
        });
        let first = delete_again(&trial.store(), &name("one"), "here", "u1").await;
        assert_eq!(first.is_err(), dies_at < 5, "{dies_at}: {first:?}");

        let trial = Trial::of(&memory);
        let store = trial.store();
        if dies_at < 5 {
            // Nobody knows yet that the first attempt is dead.
            let refused = delete_again(&store, &name("one"), "here", "u1").await;
            let refused = refused.unwrap_err();
            assert_eq!(refused.kind(), Kind::AlreadyExists, "{dies_at}: {refused}");
            assert_eq!(age_claims(&trial, &memory, "one", soon).await, 1);
            // To another owner it is a claim like any other.
            for (owner, kind) in [("u", Kind::NotFound), ("u2", Kind::NotFound)] {
                let refused = delete_again(&store, &name("one"), "here", owner).await;
                assert_eq!(refused.unwrap_err().kind(), kind, "{dies_at}");
            }
            assert_eq!(age_claims(&trial, &memory, "one", soon).await, 1);
        }
        delete_again(&store, &name("one"), "here", "u1")
            .await
            .unwrap();
        assert_eq!(left(&memory, "one").await, [""; 0], "{dies_at}");
        delete_again(&store, &name("one"), "here", "u1")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn of_a_deletion_that_fails_again_and_again_one_or_two_claims_are_left() {
    let memory = Store::in_memory();
    write(&memory, "one", None).await;
    let index = BackupKeys::new(&name("one")).index();
    // One file that may not be removed, then nothing that may be.
    for is_denied in [true, false] {
        let index = index.clone();
        let trial = Trial::of(&memory).judged(move |verb, key| match verb {
            "delete" if !is_denied || key == index => Fate::Refused,
            _ => Fate::Happens,
        });
        for attempt in 1..6 {
            // Each is older than the one before.
            let ages = (1..).map(|n| SignedDuration::from_secs(91 * n));
            for (file, by) in left(&memory, "one").await.iter().zip(ages) {
                trial.age(&format!("backups/one/{file}"), by);
            }
            let failed = delete_again(&trial.store(), &name("one"), "here", "u1").await;
            let failed = failed.unwrap_err();
            assert!(
                failed.sentence().contains("is refused"),
                "{attempt}: {failed}"
            );
            let mut claims = left(&memory, "one").await;
            claims.retain(|file| file.starts_with("claim-"));
            assert!(claims.len() <= 2, "{attempt}: {claims:?}");
        }
    }
    assert!(memory.head(&index).await.is_ok());
}

#[tokio::test]
async fn a_deletion_takes_over_what_its_owner_claims_and_nothing_else() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let store = trial.store();
    write(&memory, "one", None).await;
    for run in ["u1-a", "u1-b"] {
        let claim = BackupKeys::new(&name("one")).claim(run);
        memory.put(&claim, "no claim".into()).await.unwrap();
    }
    age_claims(&trial, &memory, "one", SignedDuration::from_secs(91)).await;
    let one = name("one");
    let again = || delete_again(&store, &one, "here", "u1");
    // One of another run, dead for less than an hour, and one that is dead for longer: prune's to remove.
    let other = BackupKeys::new(&name("one")).claim("u1");
    memory.put(&other, "no claim".into()).await.unwrap();
    for minutes in [30, 90] {
        trial.age(&other, SignedDuration::from_mins(minutes));
        assert_eq!(again().await.unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(left(&memory, "one").await.len(), 8, "{minutes}");
    }
    memory.delete(&other).await.unwrap();
    again().await.unwrap();
    assert_eq!(left(&memory, "one").await, [""; 0]);
    // Files of nobody stay, and the backup does not count as deleted.
    memory.put("backups/one/x", "x".into()).await.unwrap();
    let refused = again().await.unwrap_err();
    assert!(refused.to_string().contains("not complete"), "{refused}");
    assert_eq!(left(&memory, "one").await, ["x"]);
}

#[tokio::test]
async fn a_run_that_is_not_heard_of_counts_as_at_work_as_long_as_its_fence_lets_it_write() {
    let memory = Store::in_memory();
    let trial = Trial::of(&memory);
    let store = trial.store();
    let claim = Claim::take(&store, &name("one"), Purpose::Create, "node-1")
        .await
        .unwrap();
    let file = left(&memory, "one").await.remove(0);
    let key = format!("backups/one/{file}");
    for (minutes, is_at_work) in [(0, true), (9, true), (10, true), (12, false)] {
        trial.age(&key, SignedDuration::from_mins(minutes));
        let traces = traces(&store, &name("one")).await.unwrap();
        assert!(traces.entry.is_none());
        assert_eq!(traces.at_work.is_some(), is_at_work, "{minutes}");
        if let Some(who) = traces.at_work {
            assert!(who.contains("on node-1"), "{who}");
        }
    }
    claim.release().await;
    // Without a claim nothing is written to ask for the time.
    write(&memory, "two", None).await;
    let silent = Trial::of(&memory).judged(|verb, _| match verb {
        "put" => Fate::Refused,
        _ => Fate::Happens,
    });
    let traces = traces(&silent.store(), &name("two")).await.unwrap();
    assert!(traces.entry.is_some() && traces.at_work.is_none());
}
