//! Databases that are whole: what they say.

use std::io::Write as _;

use super::super::bolt::fixture::{Build, History, record, revision};
use super::*;
use crate::progress::Silent;

pub(in crate::etcd) fn open(bytes: &[u8]) -> Result<Database> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Database::from_file(file, "db")
}

/// Some keys that come, change and go.
pub(in crate::etcd) fn history(keys: usize) -> History {
    let mut history = History::default();
    for round in 0..3 {
        for index in 0..keys {
            let key = format!("/registry/pods/default/p{index}");
            let other = format!("/registry/velero.io/backups/b{index}");
            match (index + round) % 5 {
                0 => history.delete(key.as_bytes()),
                1 => history.put(other.as_bytes(), &vec![b'x'; index % 300]),
                _ => history.put(key.as_bytes(), format!("value {index} {round}").as_bytes()),
            }
        }
    }
    history
}

#[test]
fn a_database_is_unused_until_an_etcd_keeps_keys_in_it_or_applied_an_entry() {
    let used = open(&Build::new().bytes()).unwrap();
    assert!(!used.is_unused().unwrap());
    let mut begun = Build::new();
    begun.buckets.remove(&b"key"[..]);
    assert!(open(&begun.bytes()).unwrap().is_unused().unwrap());
    let applied = begun.put("meta", b"consistent_index", &1_u64.to_be_bytes());
    assert!(!open(&applied.bytes()).unwrap().is_unused().unwrap());
    let none = Build {
        buckets: Default::default(),
        ..Build::new()
    };
    assert!(open(&none.bytes()).unwrap().is_unused().unwrap());
}

#[test]
fn facts_digest_and_problems_of_a_database_agree_with_its_history() {
    for (keys, most, seed, free) in [
        (1, 64, 0, 0),
        (20, 3, 7, 5),
        (400, 8, 3, 50),
        (900, 64, 1, 9),
    ] {
        let mut history = history(keys);
        for compacted in [0, history.revision / 2, history.revision] {
            if compacted > 0 {
                history.compact(compacted);
            }
            let build = Build {
                most,
                seed,
                free,
                ..Build::new().history(&history)
            };
            let database = open(&build.bytes()).unwrap();
            let examined = database.examine(&Silent).unwrap();
            assert_eq!(examined.problems, [""; 0], "{keys} {compacted}");
            let facts = &examined.facts;
            assert_eq!(facts.revision, history.revision.max(1));
            assert_eq!(facts.compact_revision, compacted);
            assert_eq!(facts.keys.revisions, history.entries.len() as u64);
            assert_eq!(facts.keys.live, Some(history.live.len() as u64));
            let pods = history
                .live
                .keys()
                .filter(|key| key.starts_with(b"/registry/pods/"));
            let resources = facts.keys.resources.as_ref().unwrap();
            let counted = resources.get("pods").copied().unwrap_or_default();
            assert_eq!(counted, pods.count() as u64);
            assert!(facts.bytes_in_use <= facts.bytes);
            assert_eq!(facts.bytes_in_use == facts.bytes, free == 0);
            assert_eq!(examined.digest.keys, history.live.len() as u64);
            assert_eq!(database.digest(None, &Silent).unwrap(), examined.digest);
            assert_eq!(&database.facts(&Silent).unwrap(), facts);
            assert_eq!(database.verify(&Silent).unwrap(), [""; 0]);
        }
    }
}

#[test]
fn the_digest_does_not_depend_on_the_order_of_pages_nor_on_what_was_compacted() {
    let mut history = history(300);
    let at = history.revision;
    let of = |build: Build| {
        let database = open(&build.bytes()).unwrap();
        database.digest(Some(at), &Silent).unwrap()
    };
    let first = of(Build::new().history(&history));
    history.compact(at - 10);
    let second = of(Build {
        most: 5,
        seed: 9,
        free: 20,
        with_trailer: false,
        ..Build::new().history(&history)
    });
    assert_eq!(first, second);
    history.put(b"/registry/pods/default/p1", b"another");
    let database = open(&Build::new().history(&history).bytes()).unwrap();
    assert!(!database.digest(None, &Silent).unwrap().same_keys(&first));
    assert_eq!(database.digest(Some(at), &Silent).unwrap(), first);
}

#[test]
fn a_digest_over_more_keys_than_are_remembered_is_that_of_one_pass() {
    // Tests remember 1024 keys at a time.
    let mut history = History::default();
    let mut parts = vec![super::super::digest::Part::default(); 256];
    for index in 0..5000 {
        history.put(format!("/registry/pods/default/p{index}").as_bytes(), b"v");
    }
    for (_, value) in history.entries.iter().rev() {
        let record = super::super::entry::Record::parse(value).unwrap();
        let hash = aws_lc_rs::digest::digest(&SHA256, record.key);
        parts[usize::from(hash.as_ref()[0])].add(&record);
    }
    let database = open(&Build::new().history(&history).bytes()).unwrap();
    let digest = database.digest(None, &Silent).unwrap();
    assert_eq!(digest.sha256, super::super::digest::over(parts));
    assert_eq!(digest.keys, 5000);
    assert_eq!(database.facts(&Silent).unwrap().keys.live, Some(5000));
}

#[test]
fn the_empty_key_of_a_bumped_restore_is_no_key_and_its_revision_counts() {
    let history = history(50);
    let plain = open(&Build::new().history(&history).bytes()).unwrap();
    let bumped = history.revision + 1_000_000_000;
    let build = Build::new()
        .history(&history)
        .put("key", &revision(bumped, 0, false), b"")
        .put("meta", b"scheduledCompactRev", &revision(bumped, 0, false));
    let restored = open(&build.bytes()).unwrap();
    let facts = restored.facts(&Silent).unwrap();
    assert_eq!((facts.revision, facts.compact_revision), (bumped, 0));
    assert_eq!(facts.scheduled_compact_revision, bumped);
    assert_eq!(facts.keys.live, Some(history.live.len() as u64));
    let digest = restored.digest(Some(bumped), &Silent).unwrap();
    assert!(digest.same_keys(&plain.digest(None, &Silent).unwrap()));
    // What is to be compacted can not be asked for.
    let refused = restored.digest(Some(bumped - 1), &Silent).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(restored.hash_kv(Some(bumped + 1), &Silent).is_err());
}

#[test]
fn encryption_keys_and_overflow_pages_are_seen() {
    let mut history = History::default();
    for index in 0..5 {
        let key = format!("/registry/secrets/default/s{index}");
        let value = [
            b"k8s:enc:aescbc:v1:key1:".as_slice(),
            &vec![7; 100_000 * index],
        ]
        .concat();
        history.put(key.as_bytes(), &value);
    }
    history.put(b"/registry/secrets/default/t", b"k8s:enc:kms:v2:my kms:");
    history.put(b"/registry/secrets/default/u", b"k8s:enc:secretbox:v1:k2:x");
    let database = open(&Build::new().history(&history).bytes()).unwrap();
    let examined = database.examine(&Silent).unwrap();
    assert_eq!(examined.problems, [""; 0]);
    assert_eq!(
        examined.facts.encryption_keys,
        ["aescbc:key1", "secretbox:k2"]
    );
    assert_eq!(examined.facts.keys.live, Some(7));
}

#[test]
fn a_torn_meta_is_passed_over() {
    let mut bytes = Build {
        with_trailer: false,
        page_size: 16384,
        ..Build::new().history(&history(10))
    }
    .bytes();
    let facts = open(&bytes).unwrap().facts(&Silent).unwrap();
    assert_eq!(facts.page_size, 16384);
    bytes[20] ^= 1;
    assert_eq!(open(&bytes).unwrap().facts(&Silent).unwrap(), facts);
    bytes[16384 + 20] ^= 1;
    let refused = open(&bytes).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
}

#[test]
fn what_was_cut_or_is_no_database_is_told_apart() {
    let bytes = Build::new().history(&history(10)).bytes();
    let text = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
    assert!(text(b"").contains("is empty"));
    assert!(text(&bytes[..bytes.len() - 1]).contains("was cut"));
    assert!(text(&bytes[..8192]).contains("was cut"));
    assert!(text(&[b'x'; 1024]).contains("is no database of etcd"));
    assert!(text(&[b'x'; 1221]).contains("is no database of etcd"));
    let other = Build {
        buckets: [(b"other".to_vec(), Vec::new())].into(),
        ..Build::new()
    };
    let refused = open(&other.bytes()).unwrap().facts(&Silent).unwrap_err();
    assert!(refused.to_string().contains("none of etcd"), "{refused}");
    let missing = Database::open(Path::new("/nowhere/db")).unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let folder = Database::open(Path::new("/")).unwrap_err();
    assert!(folder.to_string().contains("is no file"), "{folder}");
}

#[test]
fn a_trailer_is_checked_and_nothing_else_stands_behind_the_pages() {
    let mut bytes = Build::new().history(&history(10)).bytes();
    let database = open(&bytes).unwrap();
    let Trailer::Sha256(promised) = database.trailer() else {
        panic!("no trailer");
    };
    assert_eq!(database.check_trailer(&Silent).unwrap(), hex(&promised));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let problems = open(&bytes).unwrap().verify(&Silent).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("was altered"), "{problems:?}");
}

#[test]
fn hash_kv_is_over_history_and_leaves_out_what_is_compacted() {
    let mut history = History::default();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        history.put(key.as_bytes(), value.as_bytes());
    }
    history.delete(b"b");
    history.put(b"c", b"1");
    let entries = history.entries.clone();
    let of = |wanted: &[usize]| {
        let mut hash = crc32c::crc32c(b"key");
        for index in wanted {
            hash = crc32c::crc32c_append(hash, &entries[*index].0);
            hash = crc32c::crc32c_append(hash, &entries[*index].1);
        }
        hash
    };
    let hash = |history: &History, at: i64| {
        let database = open(&Build::new().history(history).bytes()).unwrap();
        database.hash_kv(Some(at), &Silent).unwrap().hash
    };
    assert_eq!(hash(&history, 6), of(&[0, 1, 2, 3, 4]));
    assert_eq!(hash(&history, 4), of(&[0, 1, 2]));
    history.compact(5);
    // The removal at the compacted revision stays in the database, and out of the hash.
    assert_eq!(history.entries.len(), 3);
    assert_eq!(hash(&history, 6), of(&[2, 4]));
    // Marked to be compacted, and not compacted yet.
    let marked = Build::new()
        .history(&History {
            compacted: 0,
            entries: entries.clone(),
            ..history.clone()
        })
        .put("meta", b"scheduledCompactRev", &revision(5, 0, false));
    let database = open(&marked.bytes()).unwrap();
    let answer = database.hash_kv(None, &Silent).unwrap();
    assert_eq!(
        (answer.hash, answer.revision, answer.compact_revision),
        (of(&[2, 4]), 6, 5)
    );
}

#[test]
fn a_database_of_one_bucket_in_the_root_and_no_key_is_read() {
    let database = open(&Build::new().bytes()).unwrap();
    let examined = database.examine(&Silent).unwrap();
    assert_eq!(examined.problems, [""; 0]);
    assert_eq!(examined.facts.keys.live, Some(0));
    let hash = database.hash_kv(None, &Silent).unwrap();
    assert_eq!((hash.revision, hash.compact_revision), (1, -1));
    assert_eq!(record(b"", [0; 3], b"", 0), b"");
}
