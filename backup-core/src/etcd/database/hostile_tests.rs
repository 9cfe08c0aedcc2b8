//! Databases that are damaged or made to harm: a problem or an error, never a panic, never an endless walk, nothing allocated by a claim.

use proptest::prelude::*;

use super::super::bolt::fixture::{Build, History, header};
use super::super::stream::Walk;
use super::tests::{history, open};
use super::*;
use crate::progress::Silent;

/// Everything that reads; what comes out of it need not make sense, but it must come.
fn read_all(bytes: &[u8]) -> (Option<Examined>, Option<Facts>) {
    let streamed = (|| {
        let mut walk = Walk::new();
        for piece in bytes.chunks(5000) {
            walk.feed(piece)?;
        }
        walk.finish()
    })();
    let streamed = streamed.ok().filter(|walked| walked.missed.is_empty());
    let Ok(database) = open(bytes) else {
        return (None, streamed.map(|walked| walked.facts));
    };
    let _ = database.facts(&Silent);
    let _ = database.verify(&Silent);
    let _ = database.digest(Some(40), &Silent);
    let _ = database.hash_kv(None, &Silent);
    let examined = database.examine(&Silent).unwrap();
    (Some(examined), streamed.map(|walked| walked.facts))
}

/// What a walk finds whole, a stream finds whole, and both tell the same.
fn compare(bytes: &[u8]) {
    let (examined, streamed) = read_all(bytes);
    if let (Some(examined), Some(streamed)) = (examined, streamed)
        && examined.problems.is_empty()
    {
        assert_eq!(streamed.revision, examined.facts.revision);
        assert_eq!(streamed.keys.revisions, examined.facts.keys.revisions);
        assert_eq!(streamed.bytes_in_use, examined.facts.bytes_in_use);
        assert_eq!(streamed.members, examined.facts.members);
    }
}

fn small(page_size: u32) -> Vec<u8> {
    let mut history = history(60);
    history.put(
        b"/registry/pods/a/large",
        &vec![b'x'; 3 * page_size as usize],
    );
    let build = Build {
        page_size,
        most: 7,
        seed: 11,
        free: 4,
        with_trailer: false,
        ..Build::new().history(&history)
    };
    build
        .put(
            "members",
            b"1",
            br#"{"id":1,"name":"a","peerURLs":["http://a"]}"#,
        )
        .put("meta", b"term", &[0; 8])
        .bytes()
}

fn page_at(bytes: &mut [u8], id: usize, page_size: usize) -> &mut [u8] {
    &mut bytes[id * page_size..(id + 1) * page_size]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = small(1024);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        compare(&bytes);
    }

    #[test]
    fn bent_headers_and_tables_never_panic(bends in prop::collection::vec((2_usize..60, 0_usize..80, any::<u8>()), 1..6)) {
        let mut bytes = small(1024);
        for (page, at, value) in bends {
            let page = page % (bytes.len() / 1024);
            page_at(&mut bytes, page, 1024)[at] = value;
        }
        compare(&bytes);
    }

    #[test]
    fn pages_of_any_type_in_any_place_never_panic(
        swaps in prop::collection::vec((2_usize..60, 2_usize..60, any::<bool>(), prop::sample::select(vec![0_u8, 1, 2, 3, 4, 16])), 1..6)
    ) {
        let mut bytes = small(1024);
        let pages = bytes.len() / 1024;
        for (from, to, keeps_number, kind) in swaps {
            let (from, to) = (from % pages, to % pages);
            let copy = page_at(&mut bytes, from, 1024).to_vec();
            let page = page_at(&mut bytes, to, 1024);
            page[16..].copy_from_slice(&copy[16..]);
            if !keeps_number {
                page[..16].copy_from_slice(&copy[..16]);
            }
            page[8] = kind;
        }
        compare(&bytes);
    }

    #[test]
    fn cuts_never_panic(cut in 0_usize..60, more in 0_usize..3) {
        let bytes = small(1024);
        let cut = (cut * 512 + more * 31).min(bytes.len());
        compare(&bytes[..cut]);
    }

    #[test]
    fn noise_behind_good_metas_never_panics(noise in prop::collection::vec(any::<u8>(), 1024..20_000)) {
        let mut bytes = small(1024);
        let keep = 2048;
        for (place, value) in bytes[keep..].iter_mut().zip(noise) {
            *place = value;
        }
        compare(&bytes);
    }
}

#[test]
fn metas_in_each_others_place_are_no_database_or_the_same_one() {
    let mut bytes = small(4096);
    let (first, second) = bytes.split_at_mut(4096);
    first.swap_with_slice(&mut second[..4096]);
    compare(&bytes);
    assert_eq!(open(&bytes).unwrap().verify(&Silent).unwrap(), [""; 0]);
}

/// A database whose root is the page that `pages` begins with, as number 2.
fn of_pages(pages: &[Vec<u8>]) -> Vec<u8> {
    use super::super::bolt::fixture::meta_page;
    let high_water = pages.len() as u64 + 2;
    let mut bytes = [
        meta_page(0, 4096, 2, high_water, 4),
        meta_page(1, 4096, 2, high_water, 3),
    ]
    .concat();
    for page in pages {
        let mut page = page.clone();
        page.resize(4096, 0);
        bytes.extend(page);
    }
    bytes
}

fn branch(id: u64, children: &[u64]) -> Vec<u8> {
    let mut page = header(id, 1, children.len() as u16, 0);
    for (index, child) in children.iter().enumerate() {
        let pos = 16 * (children.len() - index) + index;
        page.extend_from_slice(&(pos as u32).to_le_bytes());
        page.extend_from_slice(&1_u32.to_le_bytes());
        page.extend_from_slice(&child.to_le_bytes());
    }
    page.extend((0..children.len()).map(|index| b'a' + index as u8));
    page
}

#[test]
fn a_tree_that_bites_its_tail_ends() {
    for pages in [
        vec![branch(2, &[2, 2, 2])],
        vec![branch(2, &[3, 3]), branch(3, &[2, 2])],
        (2..200).map(|id| branch(id, &[id + 1])).collect(),
        vec![branch(2, &[u64::MAX, 1, 0, 3])],
    ] {
        let bytes = of_pages(&pages);
        let problems = open(&bytes).unwrap().examine(&Silent).unwrap().problems;
        assert!(!problems.is_empty());
        assert!(open(&bytes).unwrap().facts(&Silent).is_err());
        let mut walk = Walk::new();
        walk.feed(&bytes).unwrap();
        assert!(walk.finish().is_err());
    }
}

#[test]
fn problems_without_number_are_counted() {
    let mut history = History::default();
    for index in 0..500 {
        history.put(format!("k{index}").as_bytes(), b"v");
    }
    for (_, value) in &mut history.entries {
        *value = b"\xff".to_vec();
    }
    let bytes = Build::new().history(&history).bytes();
    let problems = open(&bytes).unwrap().examine(&Silent).unwrap().problems;
    assert_eq!(problems.len(), 51);
    assert_eq!(problems[50], "and 450 more");
    assert!(problems[0].contains("holds no record"), "{problems:?}");
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let bytes = small(4096);
    let problems = |bend: &dyn Fn(&mut [u8])| {
        let mut bytes = bytes.clone();
        bend(&mut bytes);
        open(&bytes).unwrap().verify(&Silent).unwrap().join("\n")
    };
    // The page with the large value, found by its overflow.
    let large = (2..bytes.len() / 4096)
        .find(|id| {
            let page = &bytes[id * 4096..];
            page[..8] == (*id as u64).to_le_bytes() && page[8] == 2 && page[12] > 0
        })
        .unwrap();
    let at = large * 4096;
    let found = problems(&|bytes| bytes[at] ^= 0x40);
    assert!(
        found.contains(&format!("page {large} of bucket \"key\" says it is page")),
        "{found}"
    );
    let found = problems(&|bytes| bytes[at + 12] = 200);
    assert!(found.contains("reaches beyond the database"), "{found}");
    let found = problems(&|bytes| bytes[at + 8] = 9);
    assert!(found.contains("is no leaf and no branch"), "{found}");
    let found = problems(&|bytes| bytes[at + 20] = 1);
    assert!(
        found.contains("has an element outside its bounds"),
        "{found}"
    );
}
