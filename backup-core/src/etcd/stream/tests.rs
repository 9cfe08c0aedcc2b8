//! What a stream tells must be what a walk over the file tells.

use proptest::prelude::*;

use super::super::bolt::fixture::{Build, History, revision, seal};
use super::super::database::tests::{history, open};
use super::*;
use crate::error::Kind;
use crate::progress::Silent;

fn walk(bytes: &[u8], piece: usize) -> Result<Walked> {
    let mut walk = Walk::new();
    for piece in bytes.chunks(piece.max(1)) {
        walk.feed(piece)?;
    }
    walk.finish()
}

#[track_caller]
fn agrees(build: &Build, piece: usize) -> Walked {
    let bytes = build.bytes();
    let walked = walk(&bytes, piece).unwrap();
    let database = open(&bytes).unwrap();
    assert_eq!(walked.facts, database.facts(&Silent).unwrap());
    assert_eq!(walked.missed, [""; 0]);
    assert_eq!(walked.sha256, database.check_trailer(&Silent).unwrap());
    assert_eq!(walked.bytes, bytes.len() as u64);
    assert_eq!(walked.has_trailer, build.with_trailer);
    walked
}

fn build(history: &History) -> Build {
    Build::new()
        .history(history)
        .put("meta", b"consistent_index", &9_u64.to_be_bytes())
        .put(
            "members",
            b"1f",
            br#"{"id":31,"peerURLs":["http://a"],"name":"a","clientURLs":["http://b"]}"#,
        )
        .put("alarm", &[0x08, 0x1f, 0x10, 0x01], b"")
        .put("auth", b"authEnabled", &[1])
        .put("cluster", b"clusterVersion", b"3.6.0")
        .put("lease", &[0; 8], b"x")
}

#[test]
fn facts_of_a_stream_are_those_of_the_file() {
    for (keys, most, seed, free) in [
        (0, 4, 0, 0),
        (1, 64, 0, 0),
        (30, 3, 5, 9),
        (700, 9, 2, 300),
        (900, 64, 3, 20),
    ] {
        let mut history = history(keys);
        for compacted in [
            0,
            history.revision / 2,
            history.revision - 1,
            history.revision,
        ] {
            if compacted > 0 {
                history.compact(compacted);
            }
            for (page_size, with_trailer) in [(4096, true), (1024, false), (16384, true)] {
                let build = Build {
                    page_size,
                    with_trailer,
                    most,
                    seed,
                    free,
                    ..build(&history)
                };
                let walked = agrees(&build, 1000 + seed as usize);
                assert!(walked.facts.keys.exact);
                assert_eq!(walked.facts.members.len(), 1);
                assert!(walked.facts.auth_enabled);
            }
        }
    }
}

#[test]
fn overflow_pages_and_encryption_are_seen_in_pieces_of_any_size() {
    let mut history = History::default();
    for index in 0..40 {
        let key = format!("/registry/secrets/default/s{index}");
        let value = [
            format!("k8s:enc:aescbc:v1:key{}:", index % 3).as_bytes(),
            &vec![index as u8; (index * 7919) % 60_000],
        ]
        .concat();
        history.put(key.as_bytes(), &value);
    }
    for (piece, seed, most) in [
        (1, 0, 3),
        (511, 1, 2),
        (4096, 2, 5),
        (4097, 3, 64),
        (1 << 20, 4, 8),
    ] {
        let build = Build {
            seed,
            most,
            free: 10,
            ..build(&history)
        };
        let walked = agrees(&build, piece);
        assert_eq!(walked.facts.encryption_keys.len(), 3);
    }
}

#[test]
fn a_bucket_of_buckets_of_many_pages_and_members_on_pages_of_their_own_are_found() {
    let mut build = Build {
        most: 2,
        seed: 4,
        free: 30,
        ..build(&history(50))
    };
    for id in 100..125_u64 {
        let member = format!(
            r#"{{"id":{id},"peerURLs":["http://{}"],"name":"n"}}"#,
            "x".repeat(60)
        );
        build = build.put("members", format!("{id:x}").as_bytes(), member.as_bytes());
    }
    // Members in a tree of several pages are not read in passing, and said to be missed.
    let bytes = build.bytes();
    let walked = walk(&bytes, 4096).unwrap();
    assert_eq!(walked.missed, ["members"]);
    let facts = open(&bytes).unwrap().facts(&Silent).unwrap();
    assert_eq!(facts.members.len(), 26);
    assert_eq!(
        Facts {
            members: facts.members.clone(),
            ..walked.facts
        },
        facts
    );
    // In one page they are, wherever it lies.
    for seed in 1..6 {
        agrees(
            &Build {
                most: 64,
                seed,
                ..build.clone()
            },
            32_768,
        );
    }
}

#[test]
fn what_is_being_compacted_is_not_counted() {
    let history = history(50);
    let build = build(&history).put("meta", b"scheduledCompactRev", &revision(30, 0, false));
    let walked = walk(&build.bytes(), 4096).unwrap();
    assert_eq!(
        (walked.facts.keys.live, walked.facts.keys.exact),
        (None, false)
    );
    assert_eq!(walked.facts.keys.revisions, history.entries.len() as u64);
}

#[test]
fn a_stream_that_was_cut_altered_or_is_something_else_is_refused() {
    let whole = build(&history(300)).bytes();
    let refused = |bytes: &[u8]| walk(bytes, 1000).unwrap_err();
    for cut in (512..whole.len() - 32).step_by(512) {
        let error = refused(&whole[..cut]);
        assert_eq!(error.kind(), Kind::Corrupt, "{cut}: {error}");
    }
    for cut in [1, 100, whole.len() - 1, whole.len() - 33] {
        assert_eq!(refused(&whole[..cut]).kind(), Kind::Corrupt, "{cut}");
    }
    assert!(refused(&whole[..5000]).to_string().contains("was cut"));
    assert!(refused(&[b'x'; 1221]).to_string().contains("no database"));
    assert!(refused(b"").to_string().contains("is empty"));
    assert!(
        refused(&vec![b'x'; 17 << 20])
            .to_string()
            .contains("no database")
    );
    for at in (0..whole.len()).step_by(997) {
        let mut bent = whole.clone();
        bent[at] ^= 0x10;
        assert_eq!(refused(&bent).kind(), Kind::Corrupt, "byte {at}");
    }
}

#[test]
fn claims_inside_a_value_do_not_hide_what_is_around_it() {
    // A value that holds blocks which look like pages with their own numbers and long overflows.
    let mut history = History::default();
    history.put(b"/registry/pods/a/a", &vec![0; 400 * 4096]);
    history.put(b"/registry/pods/a/b", b"x");
    let build = Build {
        with_trailer: false,
        ..build(&history)
    };
    let mut bytes = build.bytes();
    let facts = open(&bytes).unwrap().facts(&Silent).unwrap();
    for id in 2..bytes.len() / 4096 {
        let page = &mut bytes[id * 4096..(id + 1) * 4096];
        if page[..64].iter().all(|byte| *byte == 0) {
            page[..8].copy_from_slice(&(id as u64).to_le_bytes());
            page[8..16].copy_from_slice(&[2, 0, 1, 0, 0xFF, 0x3F, 0, 0]);
            // One element, far away.
            page[16..32].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 17, 0, 0, 0, 1, 0, 0, 0]);
        }
    }
    seal(&mut bytes);
    let walked = walk(&bytes, 4096).unwrap();
    // The real overflow is older than 64 claims, and given up: that is said, and nothing made up.
    assert_eq!(walked.missed, ["key"]);
    assert_eq!(walked.facts.keys.live, None);
    assert_eq!(open(&bytes).unwrap().facts(&Silent).unwrap(), facts);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_in_any_pieces_tells_the_same(
        keys in 0_usize..120,
        most in 2_usize..40,
        seed in any::<u64>(),
        free in 0_usize..60,
        compact in 0_i64..400,
        piece in 1_usize..9000,
    ) {
        let mut history = history(keys);
        if compact > 0 && compact <= history.revision {
            history.compact(compact);
        }
        agrees(&Build { most, seed, free, ..build(&history) }, piece);
    }
}
