use super::*;
use crate::etcd::manifest::tests::{keys, manifest};
use crate::progress::Silent;

async fn begun<'a>(target: &'a Target, run: &'a str) -> Begun<'a> {
    Begun::new(target, run, &Compression::Zstd, None)
        .await
        .unwrap()
}

async fn stored(target: &Target) -> Vec<String> {
    let Target::Snapshot { store, keys } = target else {
        return Vec::new();
    };
    let entries = store.entries(&keys.folder(), 100).await.unwrap();
    let folder = keys.folder();
    entries
        .into_iter()
        .map(|entry| entry.key[folder.len()..].to_owned())
        .collect()
}

fn target() -> (Target, SnapshotKeys) {
    let keys = keys("c", "s");
    let store = Store::in_memory();
    (
        Target::Snapshot {
            store,
            keys: keys.clone(),
        },
        keys,
    )
}

#[tokio::test]
async fn an_upload_is_noted_before_its_parts_and_the_note_goes_with_it() {
    let (target, _) = target();
    let run = "a".repeat(32);
    let begun = begun(&target, &run).await;
    assert_eq!(stored(&target).await, [format!("{run}.upload.json")]);
    let why = begun.abort(Error::other("why"), &Silent).await;
    assert_eq!(why.to_string(), "why");
    assert_eq!(stored(&target).await, Vec::<String>::new());
}

#[tokio::test]
async fn of_two_runs_one_wins_and_the_other_leaves_nothing() {
    for refuses in [true, false] {
        let (target, keys) = target();
        let (first, second) = ("a".repeat(32), "b".repeat(32));
        let mut runs = Vec::new();
        for run in [&first, &second] {
            let mut begun = begun(&target, run).await;
            assert!(begun.refuses);
            begun.refuses = refuses;
            begun.sink.write(run.clone().into()).await.unwrap();
            runs.push(begun.finish().await.unwrap());
        }
        let mut manifest = manifest(&keys);
        let mut won = Vec::new();
        for run in runs {
            manifest.data.file = run.file();
            won.push(
                run.publish(manifest.clone())
                    .await
                    .map(|_| ())
                    .map_err(|e| e.kind()),
            );
        }
        assert_eq!(won, [Ok(()), Err(Kind::AlreadyExists)]);
        assert_eq!(
            stored(&target).await,
            [format!("{first}.db.zst"), "manifest.json".to_owned()]
        );
    }
}

#[tokio::test]
async fn an_answer_that_was_lost_is_settled_by_what_stands() {
    let (target, keys) = target();
    let Target::Snapshot { store, .. } = &target else {
        panic!()
    };
    let ours = Bytes::from(manifest(&keys).bytes());
    let other = Bytes::from_static(b"{}");
    put_manifest(store, &keys, ours.clone(), true)
        .await
        .unwrap();
    // Sent again by somebody who did not get the answer.
    put_manifest(store, &keys, ours.clone(), true)
        .await
        .unwrap();
    let refused = put_manifest(store, &keys, other, false).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::AlreadyExists);
    assert_eq!(store.get(&keys.manifest(), LARGEST).await.unwrap(), ours);
}
