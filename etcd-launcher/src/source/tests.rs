use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::crypt::BackupKey;
use backup_core::layout::SnapshotKeys;
use backup_core::location::sha256;
use backup_core::progress::Silent;

use super::*;

/// A database that real etcd 3.6.16 made, with one key; gzip.
const TINY: &[u8] = include_bytes!("tests/tiny.db.gz");

fn tiny() -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    flate2::read::MultiGzDecoder::new(TINY)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

fn file(folder: &Path, bytes: &[u8]) -> Source {
    let path = folder.join("snapshot");
    std::fs::write(&path, bytes).unwrap();
    Source::new(At::File(path), Opener::default())
}

async fn fetch(
    bytes: &[u8],
    expected: &Expected,
    limits: &Limits,
) -> (tempfile::TempDir, Result<Fetched>) {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), bytes);
    let to = folder.path().join("db");
    let fetched = source.fetch(&to, expected, limits, &Silent).await;
    if fetched.is_err() {
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
    (folder, fetched)
}

async fn refused(bytes: &[u8]) -> String {
    let (_folder, fetched) = fetch(bytes, &Expected::default(), &Limits::default()).await;
    fetched.unwrap_err().error().to_string()
}

#[tokio::test]
async fn a_snapshot_comes_plain_gzip_or_zstd_and_is_checked() {
    let plain = tiny();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for bytes in [plain.as_slice(), TINY, &zstd] {
        let promised = Expected {
            stored_sha256: Some(sha256(bytes)),
            sha256: Some(sha256(&plain[..plain.len() - 32])),
            digest: None,
        };
        let (folder, fetched) = fetch(bytes, &promised, &Limits::default()).await;
        let fetched = fetched.unwrap();
        assert!(fetched.has_trailer);
        assert_eq!(std::fs::read(&fetched.path).unwrap(), plain);
        assert_eq!(
            std::fs::metadata(&fetched.path).unwrap().len(),
            plain.len() as u64
        );
        assert_eq!(fetched.facts.keys.live, Some(1));
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&fetched.path)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!folder.path().join("db.part").exists());
    }
}

#[tokio::test]
async fn every_promise_is_held_against_what_came() {
    let plain = tiny();
    let digest = LiveDigest {
        keys: 1,
        ..LiveDigest::default()
    };
    for (promised, text) in [
        (
            Expected {
                stored_sha256: Some("0".into()),
                ..Expected::default()
            },
            "of the stored file",
        ),
        (
            Expected {
                sha256: Some("0".into()),
                ..Expected::default()
            },
            "of the database",
        ),
        (
            Expected {
                digest: Some(digest),
                ..Expected::default()
            },
            "other keys than its manifest says",
        ),
    ] {
        let (_folder, fetched) = fetch(&plain, &promised, &Limits::default()).await;
        let error = fetched.unwrap_err().error().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_whole_snapshot_is_refused_and_nothing_stays() {
    let plain = tiny();
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for (bytes, text) in [
        (&b""[..], "is empty"),
        (&plain[..plain.len() - 100], "was cut"),
        (&plain[..4096], "was cut"),
        (
            &TINY[..TINY.len() - 9],
            "was cut: its gzip stream ends after",
        ),
        (&zstd[..zstd.len() - 9], "its zstd stream ends after"),
        (&[b'x'; 20_000], "is no database of etcd"),
        (b"age-encryption.org/v1\n", "can not be opened"),
        (b"<?xml version='1.0'?><Error/>", "is a page of HTML or XML"),
        (b"PK\x03\x04aaaaaaaaaaaaaaa", "is a zip archive"),
    ] {
        let error = refused(bytes).await;
        assert!(error.contains(text), "{text}: {error}");
    }
    let mut bent = plain.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 1;
    assert!(refused(&bent).await.contains("was altered"));
    let mut garbage = TINY.to_vec();
    garbage.extend_from_slice(b"garbage");
    assert!(refused(&garbage).await.contains("gzip stream ends after"));
}

#[tokio::test]
async fn a_bomb_and_a_database_above_the_quota_end_early() {
    let (small, whole) = (8192, tiny());
    let limits = Limits {
        most: small,
        ..Limits::default()
    };
    let (_folder, fetched) = fetch(&whole, &Expected::default(), &limits).await;
    let error = fetched.unwrap_err().error().to_string();
    assert!(error.contains("is too large"), "{error}");
    // A gigabyte of zeros in a megabyte, behind the pages the meta tells of.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&whole[..whole.len() - 32]).unwrap();
    for _ in 0..256 {
        bomb.write_all(&[0; 1 << 20]).unwrap();
    }
    let limits = Limits {
        most: 16 << 20,
        ..Limits::default()
    };
    let (_folder, fetched) = fetch(&bomb.finish().unwrap(), &Expected::default(), &limits).await;
    let error = fetched.unwrap_err().error().to_string();
    assert!(error.contains("is too large"), "{error}");
}

#[tokio::test]
async fn space_that_must_stay_free_is_kept() {
    let limits = Limits {
        keep_free: u64::MAX / 4,
        ..Limits::default()
    };
    let (_folder, fetched) = fetch(&tiny(), &Expected::default(), &limits).await;
    let error = fetched.unwrap_err().error().to_string();
    assert!(error.contains("MiB are free"), "{error}");
}

#[tokio::test]
async fn a_source_that_says_nothing_is_given_up() {
    // A pipe that nobody writes into, and nobody closes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let _open = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let limits = Limits {
        stall: Duration::from_millis(200),
        ..Limits::default()
    };
    let error = Source::new(At::File(path.clone()), Opener::default())
        .pass(&limits, &Silent)
        .await
        .unwrap_err();
    assert!(
        error.error().to_string().contains("no byte came"),
        "{error:?}"
    );
    // The thread that waits in the pipe is let go.
    std::fs::write(&path, b"x").unwrap();
}

#[tokio::test]
async fn progress_tells_what_is_expected_and_what_came() {
    #[derive(Default)]
    struct Seen(AtomicU64, AtomicU64, Mutex<Vec<String>>);
    impl Progress for Seen {
        fn step(&self, text: &str) {
            self.2.lock().unwrap().push(text.to_owned());
        }
        fn expect_bytes(&self, bytes: u64) {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
        fn done(&self, _objects: u64, bytes: u64) {
            self.1.fetch_add(bytes, Ordering::Relaxed);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let seen = Seen::default();
    file(folder.path(), TINY)
        .pass(&Limits::default(), &seen)
        .await
        .unwrap();
    assert_eq!(seen.0.into_inner(), TINY.len() as u64);
    assert_eq!(seen.1.into_inner(), TINY.len() as u64);
    assert!(seen.2.into_inner().unwrap()[0].starts_with("reading "));
}

#[test]
fn what_a_user_names_is_a_file_or_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let text = "[default]\naws_access_key_id=a\naws_secret_access_key=b\n";
    std::fs::write(&keys, text).unwrap();
    let location = LocationArgs {
        credentials_file: Some(keys),
        ..LocationArgs::default()
    };
    let parse = |text: &str| At::parse(text, &location);
    for (text, path) in [
        ("a.db", "a.db"),
        ("./a b", "./a b"),
        ("file:///x/a%20b.db", "/x/a b.db"),
    ] {
        let At::File(found) = parse(text).unwrap() else {
            panic!("{text}");
        };
        assert_eq!(found, Path::new(path));
    }
    for (text, want) in [
        (
            "s3://b/snapshot.db?endpoint=http://127.0.0.1:9&region=x",
            "snapshot.db",
        ),
        (
            "s3://b/p/q/snapshot%20.db?endpoint=http://127.0.0.1:9&region=x",
            "snapshot .db",
        ),
    ] {
        let At::Object { key, .. } = parse(text).unwrap() else {
            panic!("{text}");
        };
        assert_eq!(key, want);
    }
    for text in [
        "",
        "s3://b",
        "s3://b/",
        "s3://b/p/",
        "ftp://x/y",
        "s3://user:key@b/x",
    ] {
        let refused = parse(text).unwrap_err();
        assert_eq!(refused.exit(), backup_cli::error::Exit::Usage, "{text}");
    }
}

#[tokio::test]
async fn the_key_beside_an_encrypted_snapshot_of_a_location_is_asked_for_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let run = "0".repeat(32);
    let data = folder
        .path()
        .join(SnapshotKeys::data_file(&run, true, true));
    let key = folder.path().join(SnapshotKeys::key_file(&run));
    let parse = || async {
        let location = LocationArgs::default();
        Source::parse(data.to_str().unwrap(), &location, Identities::default()).await
    };
    // Without one beside it, it is a file like any other.
    assert!(matches!(
        parse().await.unwrap().opener,
        Opener::Identities(_)
    ));
    std::fs::write(&key, b"nonsense").unwrap();
    let refused = parse().await.unwrap_err().error().sentence();
    assert!(refused.contains("key.age was altered or cut"), "{refused}");
    std::fs::write(&key, vec![b'x'; 1 << 20]).unwrap();
    let refused = parse().await.unwrap_err().error().sentence();
    assert!(refused.contains("larger than 64 KiB"), "{refused}");
}

#[tokio::test]
async fn what_is_plain_is_refused_where_an_encrypted_snapshot_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("db");
    let plain = tiny();
    let named = |name: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, &plain).unwrap();
        Source::new(At::File(path), Opener::default())
    };
    let by_key = Source::new(
        file(folder.path(), TINY).at,
        Opener::Key(BackupKey::generate()),
    );
    for source in [
        named("x.db.age"),
        named("x.db").encrypted(true),
        file(folder.path(), TINY).encrypted(true),
        by_key,
    ] {
        assert!(source.in_place().unwrap().is_none());
        let (expected, limits) = (Expected::default(), Limits::default());
        let fetched = source.fetch(&to, &expected, &limits, &Silent).await;
        let refused = fetched.unwrap_err();
        let error = refused.error();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.to_string().contains("is not encrypted"), "{error}");
        assert!(!to.exists());
    }
    let one = named("x.db").encrypted(false);
    assert!(one.in_place().unwrap().is_some());
}
