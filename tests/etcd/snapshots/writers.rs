//! A snapshot of an etcd that is written to, and compacted, all the while: a prefix of its history.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use harness::etcd::{Etcd, Fill, Version};

use super::place::{Bucket, restored, status, unpacked};
use crate::etcd::wire::Wire;

const WRITERS: usize = 3;

/// What was done at a revision: a value put at a key, or the key deleted.
type History = BTreeMap<i64, (String, Option<String>)>;

#[test]
fn a_snapshot_taken_among_writes_and_compactions_is_a_prefix_of_history() {
    let etcd = Etcd::start();
    etcd.fill(&Fill::of(24 << 20));
    let bucket = Bucket::new("among-writes");
    // Two seconds, in which much is written.
    let wire = Wire::to(etcd.endpoint()).rate(12 << 20);
    let history = Mutex::new(History::new());
    let ended = AtomicBool::new(false);
    let before = etcd.revision();
    // One compaction is over before; those of later are carried out when etcd finds the time.
    let first = format!(r#"{{"revision":"{before}","physical":true}}"#);
    etcd.keys().call("kv/compaction", &first).unwrap();
    let compactions = AtomicUsize::new(0);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (etcd, history, ended) = (&etcd, &history, &ended);
            scope.spawn(move || write(etcd, writer, history, ended));
        }
        scope.spawn(|| {
            let mut keys = etcd.keys();
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(150));
                let revision = keys.revision() - 100;
                // One that is compacted already is refused, and that is fine.
                let done = keys.call("kv/compaction", &format!(r#"{{"revision":"{revision}"}}"#));
                compactions.fetch_add(usize::from(done.is_ok()), Ordering::Relaxed);
            }
        });
        let run = bucket
            .snapshot(&etcd, "a")
            .args(&[&format!("--endpoints={}", wire.url()), "--hash-kv=never"])
            .run();
        ended.store(true, Ordering::Relaxed);
        run.ok();
    });
    let after = etcd.revision();
    let (manifest, packed) = bucket.saved("a");
    let revision = manifest["facts"]["revision"].as_i64().unwrap();
    assert!(
        (before..after).contains(&revision),
        "{before} {revision} {after}"
    );
    let history = history.into_inner().unwrap();
    assert!(
        history.range(revision + 1..).count() > 50,
        "nothing was written meanwhile"
    );
    assert!(
        compactions.into_inner() > 0,
        "nothing was compacted meanwhile"
    );
    assert!(
        history.range(..=revision).count() > 0,
        "nothing was written before"
    );
    let mut expected = BTreeMap::new();
    for (key, value) in history.range(..=revision).map(|(_, done)| done) {
        match value {
            Some(value) => expected.insert(key.clone(), value.clone()),
            None => expected.remove(key),
        };
    }
    let file = unpacked(&bucket.folder, &packed);
    let said = status(Version::V3_6, &file);
    assert_eq!(said["revision"], revision);
    let back = restored(Version::V3_6, &file);
    let found: BTreeMap<_, _> = back
        .keys()
        .list("/written/")
        .into_iter()
        .map(|found| {
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (text(found.key), text(found.value))
        })
        .collect();
    assert_eq!(found, expected);
    let live = &manifest["facts"]["keys"];
    if live["exact"] == true {
        assert_eq!(live["live"], said["totalKey"]);
    }
    assert!(manifest["facts"]["compactRevision"].as_i64().unwrap() >= before);
    fs::remove_file(file).unwrap();
}

fn write(etcd: &Etcd, writer: usize, history: &Mutex<History>, ended: &AtomicBool) {
    let mut keys = etcd.keys();
    for number in 0.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("/written/{writer}/{}", number % 40);
        // A key that is there: this writer put it 40 numbers ago. Where nothing is deleted there is no revision of that.
        let (revision, value) = if number >= 40 && number % 7 == 6 {
            (keys.delete(&key), None)
        } else {
            let value = format!("value {number}");
            (keys.put(&key, value.as_bytes()), Some(value))
        };
        history.lock().unwrap().insert(revision, (key, value));
    }
}
