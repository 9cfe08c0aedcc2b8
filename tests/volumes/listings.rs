//! A store that for once lists nothing of what is there: that costs bytes, or ends a run, and never data.

use std::fs;

use harness::proxy::{Action, Match, Proxy, RequestParts};

use super::{Place, VOLUME, listed, noise, text};

const BUCKET: &str = "volumes-lists-nothing";

/// What each listing that a backup and a prune make is of. Where no key is listed another repository is begun: that comes last.
const LISTINGS: [&str; 5] = [
    "0b5e/snapshots/",
    "0b5e/index/",
    "0b5e/data/",
    "0b5e.claims/",
    "0b5e/keys/",
];

const NOTHING: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

fn prefix(what: &str) -> String {
    format!("prefix=p/restic/cluster/shop/{what}").replace('/', "%2F")
}

/// A listing of this.
fn lists(what: &str) -> impl Fn(&RequestParts) -> bool + use<> {
    let prefix = prefix(what);
    move |parts: &RequestParts| parts.method == "GET" && parts.target.contains(&prefix)
}

#[test]
fn a_store_that_lists_nothing_once_costs_no_data() {
    let mut place = Place::minio(BUCKET);
    let (minio, _) = place.minio.unwrap();
    let proxy = Proxy::start(minio.upstream());
    let direct = std::mem::replace(
        &mut place.location,
        format!("s3://{BUCKET}/p?endpoint={}", proxy.url()),
    );
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    let grow = |number: u64| {
        fs::write(source.join(number.to_string()), noise(number, 100_000)).unwrap();
    };
    let backup = ["backup", text(&source), VOLUME, "--backup", "nightly"];
    let prune = ["prune", VOLUME];
    let call = |words: &[&str]| place.mover(words).env("AWS_ENDPOINT_URL", proxy.url());
    grow(0);
    let mut saved = vec![call(&backup).ok().json()];
    for (number, what) in (1..).zip(LISTINGS) {
        grow(number);
        for words in [&backup[..], &prune[..]] {
            proxy.clear_rules();
            proxy.clear_calls();
            proxy.nth(1, Match::when(lists(what)), Action::Replace(NOTHING.into()));
            let run = call(words).run();
            let asked = proxy.calls();
            let was_asked = asked.iter().any(|call| call.target.contains(&prefix(what)));
            assert!(was_asked, "{words:?} does not list {what}: {asked:#?}");
            // A prune believes nobody that nothing is there.
            match (run.code, words == prune, what) {
                (0, false, _) => saved.push(run.json()),
                (1, true, _) | (1, false, _) => {}
                (0, true, "0b5e/keys/") => {}
                _ => panic!("{words:?}, {what}: {} {}", run.code, run.stderr),
            }
        }
    }
    proxy.clear_rules();
    saved.push(call(&backup).ok().json());
    drop(proxy);
    place.location = direct;
    for (number, saved) in saved.iter().enumerate() {
        let target = place.home.join(format!("back-{number}"));
        place.restore(saved, &target).ok();
    }
    let last = place.home.join(format!("back-{}", saved.len() - 1));
    assert_eq!(listed(&last, false), listed(&source, false));
    let keys = minio.list(BUCKET, "p/restic/cluster/shop");
    let snapshots = keys.iter().filter(|key| key.contains("/snapshots/"));
    assert_eq!(snapshots.count(), saved.len());
}
