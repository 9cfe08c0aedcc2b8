//! Snapshots in stores: those of KKP by their URL and by their name, and stores that are down, slow, silent or refuse. Whatever they
//! do, the old state stays as it was.

use std::fs;
use std::io::Write;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use harness::http_client::Endpoint;
use harness::proxy::{Action, Match, Proxy};
use harness::run::Run;
use harness::store::Minio;

use super::place::Place;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

fn proxy() -> Proxy {
    Proxy::start(&Endpoint::plain(Minio::shared().endpoint()))
}

#[test]
fn snapshots_that_kkp_took_are_restored_by_url_and_by_name() {
    let place = Place::new();
    let pristine = place.saved();
    let minio = Minio::shared();
    let bucket = minio.bucket("kkp-restores");
    let plain = fs::read(&place.snapshot).unwrap();
    // Right in the bucket, as KKP names them; beside them one that is not packed, and another cluster's.
    for (key, bytes) in [
        ("zvc78xnnz7-daily-2026-11-20t01-00-00.db.gz", gzip(&plain)),
        ("zvc78xnnz7-once.db", plain.clone()),
        ("other-daily-2026-11-21t01-00-00.db.gz", gzip(b"none")),
    ] {
        minio.put(bucket, key, bytes);
    }
    let endpoint = format!("endpoint={}", minio.endpoint());
    let location = format!("s3://{bucket}?{endpoint}");
    let named = ["--cluster=zvc78xnnz7", "--location", &location];
    let by_url = format!("s3://{bucket}/zvc78xnnz7-daily-2026-11-20t01-00-00.db.gz?{endpoint}");
    for (asked, arguments) in [
        (by_url.as_str(), &[][..]),
        ("daily-2026-11-20t01-00-00.db.gz", &named),
        ("daily-2026-11-20T01:00:00", &named),
        ("zvc78xnnz7-daily-2026-11-20t01-00-00", &named),
        ("once", &named),
    ] {
        place.put_back(&pristine);
        place
            .restore_of(asked.as_ref(), arguments)
            .credentials_of(minio)
            .ok();
        assert_eq!(place.held(), place.new, "{asked}");
    }
    assert_eq!(place.started(), place.then);
    place.stop();
    place.put_back(&pristine);
    for (asked, code, told) in [
        ("daily-2026-11-21t01-00-00", 1, "is called"),
        ("..", 2, "two dots"),
        ("daily\\x", 2, "slash"),
    ] {
        let run = place
            .restore_of(asked.as_ref(), &named)
            .credentials_of(minio)
            .code(code);
        assert!(run.stderr.contains(told), "{asked}: {}", run.stderr);
        place.assert_untouched();
    }
}

/// A place, and its snapshot in a bucket, asked for through a proxy.
struct Stored {
    place: Place,
    bucket: String,
    proxy: Proxy,
}

impl Stored {
    fn new(bucket: &str) -> Self {
        let place = Place::new();
        let minio = Minio::shared();
        minio.bucket(bucket);
        minio.put(bucket, "a/b.db", fs::read(&place.snapshot).unwrap());
        Self {
            place,
            bucket: bucket.to_owned(),
            proxy: proxy(),
        }
    }

    fn call(&self, endpoint: &str, key: &str) -> harness::run::Backup {
        let url = format!("s3://{}/{key}?endpoint={endpoint}", self.bucket);
        self.place
            .restore_of(url.as_ref(), &[])
            .credentials_of(Minio::shared())
    }

    fn restore(&self) -> harness::run::Backup {
        self.call(&self.proxy.url(), "a/b.db")
    }

    #[track_caller]
    fn assert_refused(&self, run: &Run, told: &[&str]) {
        for told in told.iter().chain(&["nothing was changed", "hint:"]) {
            assert!(run.stderr.contains(told), "{told}: {}", run.stderr);
        }
        self.place.assert_untouched();
    }
}

#[test]
fn a_store_that_is_down_is_named_and_nothing_is_changed() {
    let stored = Stored::new("restore-down");
    let gone = proxy();
    let url = gone.url();
    drop(gone);
    let host = url.strip_prefix("http://").unwrap();
    let run = stored.call(&url, "a/b.db").code(1);
    stored.assert_refused(&run, &[host]);
    // It goes away in the middle, and stays away.
    let data = || Match::method("GET").and_path("b.db");
    stored.proxy.nth(1, data(), Action::CutBody(10_000));
    stored.proxy.every(data(), Action::Cut);
    let run = stored.restore().code(1);
    stored.assert_refused(&run, &["b.db"]);
    // One that breaks off again and again is read on to its end.
    stored.proxy.clear_rules();
    stored.proxy.every(data(), Action::CutBody(100_000));
    stored.restore().ok();
    assert_eq!(stored.place.held(), stored.place.new);
}

#[test]
fn a_store_that_refuses_is_named_and_nothing_is_changed() {
    let stored = Stored::new("restore-refused");
    let minio = Minio::shared();
    let absent = stored.call(minio.endpoint(), "a/absent.db").code(1);
    stored.assert_refused(&absent, &["absent.db"]);
    // Keys that may only write.
    let user = minio.limited_user(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::restore-refused/*"]}]}"#,
    );
    let run = stored
        .call(minio.endpoint(), "a/b.db")
        .env("AWS_ACCESS_KEY_ID", &user.access_key)
        .env("AWS_SECRET_ACCESS_KEY", &user.secret_key)
        .env("AWS_SESSION_TOKEN", &user.session_token)
        .code(1);
    stored.assert_refused(&run, &["b.db"]);
    assert!(!run.stderr.contains(&user.secret_key), "{}", run.stderr);
    // Keys that may look, and are refused at the data.
    let data = Match::method("GET").and_path("b.db");
    let no = "<Error><Code>AccessDenied</Code><Message>no</Message></Error>";
    stored.proxy.every(data, Action::status(403, no));
    let run = stored.restore().code(1);
    stored.assert_refused(&run, &["b.db", "AccessDenied"]);
    let wrong = stored
        .restore()
        .env("AWS_SECRET_ACCESS_KEY", "another")
        .code(1);
    stored.assert_refused(&wrong, &["b.db"]);
}

#[test]
fn a_slow_store_is_waited_for_and_a_silent_one_is_given_up() {
    let stored = Stored::new("restore-slow");
    let data = || Match::method("GET").and_path("b.db");
    stored
        .proxy
        .every(data(), Action::Delay(Duration::from_secs(600)));
    let running = stored.restore().spawn();
    let run = running.wait(Duration::from_secs(240)).code(1);
    stored.assert_refused(&run, &["b.db"]);
    stored.proxy.clear_rules();
    stored
        .proxy
        .every(data(), Action::Delay(Duration::from_secs(5)));
    stored.restore().ok();
    assert_eq!(stored.place.held(), stored.place.new);
}
