use std::io::Read as _;
use std::sync::Mutex;

use bytes::Bytes;
use futures::StreamExt as _;

use super::*;
use crate::api::Phase;
use crate::archive::FORMAT_APART;
use crate::archive::SECRETS;
use crate::archive::row::Outcome;
use crate::backup::server::{Server, refuse};
use crate::backup::{self, BackupOptions, BackupReport};
use crate::catalog::{self, Digests};
use crate::crypt::{ENCRYPT, RECIPIENTS, Recipients};
use crate::location::Location;
use crate::progress::{Progress, Silent};

const RECIPIENT: &str = include_str!("../../../tests/fixtures/encryption/first.pub");

/// What must be in no file that is not sealed.
const HIDDEN: [&str; 4] = [
    "crown-jewels",
    "c2VjcmV0LXZhbHVl",
    "hidden-label",
    "uid-of-jewels",
];

fn server() -> Server {
    let mut server = Server::new();
    server.add(
        "/api/v1/configmaps",
        r#"{"metadata":{"name":"settings","namespace":"default"},"data":{"a":"b"}}"#,
    );
    for n in 0..30 {
        let name = if n == 7 {
            "crown-jewels".to_owned()
        } else {
            format!("s{n:03}")
        };
        server.add(
            "/api/v1/secrets",
            &format!(
                r#"{{"metadata":{{"name":"{name}","namespace":"default","uid":"uid-of-jewels-{n}","labels":{{"l":"hidden-label"}}}},"data":{{"v":"c2VjcmV0LXZhbHVl"}}}}"#
            ),
        );
    }
    server
}

fn sealed(location: &Location) -> Location {
    let recipients = Recipients::parse([RECIPIENT]).unwrap();
    location.sealed_secrets(&recipients, None).unwrap()
}

async fn make(
    server: Server,
    location: &Location,
    options: &BackupOptions,
) -> Result<BackupReport> {
    let (cluster, _) = server.start();
    let (_sender, cancel) = tokio::sync::watch::channel(false);
    backup::create(&cluster, location, options, cancel, &Silent).await
}

/// What whoever makes a backup is told meanwhile.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Progress for Heard {
    fn warn(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

async fn make_heard(server: Server, location: &Location, name: &str) -> (BackupReport, String) {
    let (cluster, _) = server.start();
    let (_sender, cancel) = tokio::sync::watch::channel(false);
    let heard = Heard::default();
    let report = backup::create(
        &cluster,
        location,
        &BackupOptions::of_everything(name),
        cancel,
        &heard,
    )
    .await;
    (report.unwrap(), heard.0.into_inner().unwrap().join("\n"))
}

/// Errors where a file that is not sealed says something of a Secret.
async fn tells_none(location: &Location) {
    let entries = location.store.entries("backups/", 100).await.unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        let bytes = location.store.get(&entry.key, 1 << 20).await.unwrap();
        let file = entry.key.rsplit('/').next().unwrap();
        if file.ends_with(".age") {
            assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{file}");
            continue;
        }
        let text = String::from_utf8_lossy(&unpacked(file, &bytes)).into_owned();
        for hidden in HIDDEN {
            assert!(!text.contains(hidden), "{file} has {hidden}");
        }
    }
}

async fn open(location: &Location, name: &str) -> Result<Archive<StoreSource>> {
    let name: Name = name.parse().unwrap();
    let keys = BackupKeys::new(&name);
    let store = &location.store;
    let entry = catalog::get(store, &name).await?;
    let [archive, index] = [keys.archive(), keys.index()].map(|key| store.source(key));
    let archive = Archive::open(archive, index).await?;
    let key = location.apart.as_ref();
    join(store, key, &entry.backup, &name, archive).await
}

/// Why the Secrets can not be read, wherever that shows.
async fn refusal(location: &Location) -> Error {
    let opened = match open(location, "nightly").await {
        Err(e) => return e,
        Ok(opened) => opened,
    };
    let rows = opened.index.rows(SECRETS, 0).await.unwrap();
    let read: Vec<_> = opened.objects(rows).collect().await;
    read.into_iter().find_map(Result::err).unwrap()
}

/// What an unsealed file says to whoever unpacks it.
fn unpacked(key: &str, bytes: &Bytes) -> Vec<u8> {
    let mut text = Vec::new();
    if key.ends_with(".gz") {
        flate2::read::MultiGzDecoder::new(bytes.as_ref())
            .read_to_end(&mut text)
            .unwrap();
    } else if key.ends_with(".zst") {
        text = zstd::decode_all(bytes.as_ref()).unwrap();
    } else {
        text = bytes.to_vec();
    }
    text
}

#[tokio::test]
async fn secrets_are_in_two_sealed_files_and_nothing_else_tells_of_them_but_how_many() {
    let location = Location::in_memory("mem");
    let made = sealed(&location);
    let mut options = BackupOptions::of_everything("nightly");
    // What the user gives does not stand for what is.
    options.annotations = [(COUNT.to_owned(), "7".to_owned())].into();
    let report = make(server(), &made, &options).await.unwrap();
    assert_eq!(report.backup.status.phase, Phase::Completed);
    let row = report.resources.iter().find(|row| row.resource == SECRETS);
    assert_eq!((row.unwrap().count, row.unwrap().apart), (30, 0));
    let keys = BackupKeys::new(&options.name);
    let sums = location.store.get(&keys.digests(), 1 << 20).await.unwrap();
    let sums = Digests::parse(&sums).unwrap();
    let entries = location.store.entries("backups/", 100).await.unwrap();
    assert_eq!(entries.len(), 15);
    for entry in entries {
        let bytes = location.store.get(&entry.key, 1 << 20).await.unwrap();
        let file = entry.key.rsplit('/').next().unwrap();
        let without = file.starts_with("SHA256SUMS") || BackupKeys::is_of_secrets_key(file);
        match sums.of(file) {
            Some(sum) => assert_eq!(sum, crate::location::sha256(&bytes), "{file}"),
            None => assert!(without, "{file}"),
        }
    }
    tells_none(&location).await;
    // Who knows nothing of Secrets apart is refused by the format.
    let index = location.store.get(&keys.index(), 1 << 20).await.unwrap();
    let lines = String::from_utf8(unpacked("index.zst", &index)).unwrap();
    assert!(lines.lines().next().unwrap().contains(FORMAT_APART));
    let verified = catalog::verify_files(&location.store, &options.name, None).await;
    let verified = verified.unwrap();
    assert!(
        verified.problems.is_empty() && verified.unlisted.is_empty(),
        "{verified:?}"
    );

    // Who has no key reads the rest, and learns how many there are.
    let locked = open(&location, "nightly").await.unwrap();
    let row = locked
        .index
        .resources()
        .iter()
        .find(|row| row.resource == SECRETS);
    let row = row.unwrap();
    assert_eq!((row.count, row.apart, row.outcome), (0, 30, Outcome::Saved));
    assert_eq!(locked.index.frames(SECRETS), 0);
    assert!(
        locked
            .index
            .find("configmaps", Some("default"), "settings")
            .await
            .unwrap()
            .is_some()
    );
    // Who has it sees them in their place.
    let joined = open(&made, "nightly").await.unwrap();
    assert_eq!(joined.index.objects(), locked.index.objects() + 30);
    let row = joined
        .index
        .find(SECRETS, Some("default"), "crown-jewels")
        .await;
    let row = row.unwrap().unwrap();
    let body = joined.body(&row).await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("c2VjcmV0LXZhbHVl"));
    let rows = joined.index.rows(SECRETS, 0).await.unwrap();
    let read: Vec<_> = joined.objects(rows).collect().await;
    assert_eq!(read.len(), 30);
    assert!(read.into_iter().all(|object| object.is_ok()));
    let rows = joined.index.rows("configmaps", 0).await.unwrap();
    let read: Vec<_> = joined.objects(rows).collect().await;
    assert!(read.into_iter().all(|object| object.is_ok()));
}

#[tokio::test]
async fn nothing_of_another_backup_nor_anything_sealed_later_stands_for_its_secrets() {
    let location = Location::in_memory("mem");
    let (one, other) = (sealed(&location), sealed(&Location::in_memory("other")));
    let options = BackupOptions::of_everything("nightly");
    make(server(), &one, &options).await.unwrap();
    make(server(), &other, &options).await.unwrap();
    let keys = BackupKeys::new(&options.name);
    let data = [keys.secrets_archive(), keys.secrets_index()];
    let own = async |key: &String| location.store.get(key, 1 << 20).await.unwrap();
    let theirs = async |key: &String| other.store.get(key, 1 << 20).await.unwrap();
    for key in &data {
        let before = own(key).await;
        // Of another backup of the same name and the same objects.
        location.store.put(key, theirs(key).await).await.unwrap();
        assert_eq!(refusal(&one).await.kind(), Kind::Corrupt);
        // A bit, wherever it is read.
        let mut flipped = before.to_vec();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        location.store.put(key, flipped.into()).await.unwrap();
        assert_eq!(refusal(&one).await.kind(), Kind::Corrupt);
        location.store.delete(key).await.unwrap();
        let refused = open(&one, "nightly").await.err().unwrap();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
        assert!(open(&location, "nightly").await.is_ok());
        location.store.put(key, before).await.unwrap();
    }
    // With the key of another.
    let mut swapped = one.clone();
    swapped.apart.clone_from(&other.apart);
    let refused = open(&swapped, "nightly").await.err().unwrap();
    assert!(refused.to_string().contains("secrets.key.age"), "{refused}");
    // What is sealed for the right key, by whoever knows its public half: another index, and with it another archive.
    for key in &data {
        let opened = other.store.with_secrets(other.apart.as_ref().unwrap());
        let plain = opened.get(key, 1 << 20).await.unwrap();
        let again = one.apart.as_ref().unwrap().seal(plain).unwrap();
        location.store.put(key, again).await.unwrap();
    }
    let refused = open(&one, "nightly").await.err().unwrap();
    assert!(
        refused
            .to_string()
            .contains("not those that it was made with"),
        "{refused}"
    );
}

#[tokio::test]
async fn secrets_open_beside_nothing_but_what_they_were_saved_beside() {
    let location = Location::in_memory("mem");
    let (one, other) = (sealed(&location), sealed(&Location::in_memory("other")));
    let options = BackupOptions::of_everything("nightly");
    make(server(), &one, &options).await.unwrap();
    let mut more = server();
    more.add(
        "/api/v1/configmaps",
        r#"{"metadata":{"name":"planted","namespace":"default"}}"#,
    );
    make(more, &other, &options).await.unwrap();
    let keys = BackupKeys::new(&options.name);
    for key in [keys.archive(), keys.index()] {
        let theirs = other.store.get(&key, 1 << 20).await.unwrap();
        location.store.put(&key, theirs).await.unwrap();
    }
    let refused = open(&one, "nightly").await.err().unwrap();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(
        refused.to_string().contains("beside another archive"),
        "{refused}"
    );
}

#[tokio::test]
async fn secrets_that_an_archive_does_not_tell_of_are_missed() {
    let location = Location::in_memory("mem");
    let options = BackupOptions::of_everything("nightly");
    make(server(), &sealed(&location), &options).await.unwrap();
    let keys = BackupKeys::new(&options.name);
    let store = &location.store;
    let mut marker = catalog::get(store, &options.name).await.unwrap().backup;
    let refused = refuse_hidden(store, &options.name, Some(&marker)).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Corrupt);
    // As if another tool had made it, and as if nobody had.
    marker.metadata.annotations.clear();
    for file in [keys.secrets_archive(), keys.secrets_key()] {
        for marker in [Some(&marker), None] {
            let refused = refuse_hidden(store, &options.name, marker).await;
            assert!(refused.unwrap_err().to_string().contains(&file));
        }
        store.delete(&file).await.unwrap();
    }
    refuse_hidden(store, &options.name, Some(&marker))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_marker_and_an_index_that_disagree_are_refused() {
    let location = Location::in_memory("mem");
    let made = sealed(&location);
    let options = BackupOptions::of_everything("nightly");
    make(server(), &made, &options).await.unwrap();
    let keys = BackupKeys::new(&options.name);
    let marker = location.store.get(&keys.marker(), 1 << 20).await.unwrap();
    let marker: Backup = serde_json::from_slice(&marker).unwrap();
    let write = async |change: &dyn Fn(&mut Backup)| {
        let mut marker = marker.clone();
        change(&mut marker);
        let bytes = serde_json::to_vec(&marker).unwrap().into();
        location.store.put(&keys.marker(), bytes).await.unwrap();
    };
    write(&|marker| drop(marker.metadata.annotations.remove(ENCRYPTION))).await;
    for location in [&location, &made] {
        let refused = open(location, "nightly").await.err().unwrap();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    }
    for missing in [COUNT, KEY, INDEX] {
        write(&|marker| drop(marker.metadata.annotations.remove(missing))).await;
        let refused = open(&made, "nightly").await.err().unwrap();
        assert!(refused.to_string().contains("altered"), "{refused}");
    }
    // How many there are is known without a key.
    write(&|marker| {
        let annotations = &mut marker.metadata.annotations;
        annotations.insert(COUNT.to_owned(), "29".to_owned());
    })
    .await;
    for location in [&location, &made] {
        let refused = open(location, "nightly").await.err().unwrap();
        assert!(refused.to_string().contains("29"), "{refused}");
    }
    write(&|_| {}).await;
    open(&made, "nightly").await.unwrap();
    // An archive of Secrets holds Secrets alone, and stands beside none.
    let whole = open(&location, "nightly").await.unwrap();
    assert!(
        open(&location, "nightly")
            .await
            .unwrap()
            .join(whole)
            .is_err()
    );
}

#[tokio::test]
async fn where_secrets_are_left_out_there_is_no_file_of_them() {
    let location = Location::in_memory("mem");
    let mut options = BackupOptions::of_everything("nightly");
    options.filter.not_resources = vec!["secrets".to_owned()];
    make(server(), &sealed(&location), &options).await.unwrap();
    let entries = location.store.entries("backups/", 100).await.unwrap();
    assert!(
        entries.iter().all(|entry| !entry.key.contains("secrets")),
        "{entries:?}"
    );
    let entry = catalog::get(&location.store, &options.name).await.unwrap();
    assert_eq!(entry.apart().unwrap(), None);
    let opened = open(&location, "nightly").await.unwrap();
    assert!(
        opened
            .index
            .find("configmaps", Some("default"), "settings")
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn secrets_that_may_not_be_read_are_a_gap_and_what_can_not_be_saved_is_not_named() {
    let location = Location::in_memory("mem");
    let made = sealed(&location);
    let mut forbidden = server();
    forbidden.fault = Box::new(|asked| {
        (asked.path == "/api/v1/secrets")
            .then(|| refuse(403, "Forbidden", "no crown-jewels for you"))
    });
    let (report, heard) = make_heard(forbidden, &made, "gap").await;
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    assert_eq!(
        report.errors,
        ["secrets could not be read: the server answered 403 Forbidden"]
    );
    assert!(heard.contains("no crown-jewels for you"), "{heard}");
    tells_none(&location).await;
    let joined = open(&made, "gap").await.unwrap();
    let row = joined
        .index
        .resources()
        .iter()
        .find(|row| row.resource == SECRETS);
    assert_eq!(row.unwrap().outcome, Outcome::Failed);

    let mut odd = server();
    odd.add(
        "/api/v1/secrets",
        r#"{"metadata":{"name":"crown-jewels/../x","namespace":"default"}}"#,
    );
    odd.add(
        "/api/v1/secrets",
        r#"{"metadata":{"name":{"crown-jewels":1}}}"#,
    );
    let (report, heard) = make_heard(odd, &sealed(&location), "odd").await;
    assert!(
        heard.contains("in namespace default: secrets \"crown-jewels/../x\""),
        "{heard}"
    );
    tells_none(&location).await;
    assert_eq!(report.backup.status.phase, Phase::PartiallyFailed);
    assert_eq!(report.errors.len(), 2);
    assert!(
        report.errors.iter().all(|error| !error.contains("jewels")),
        "{:?}",
        report.errors
    );
}

#[tokio::test]
async fn a_run_that_breaks_off_leaves_no_file_and_no_key() {
    let location = Location::in_memory("mem");
    let mut expired = server();
    expired.fault = Box::new(|asked| {
        (asked.path == "/api/v1/secrets" && asked.is_first_page())
            .then(|| refuse(401, "Unauthorized", "token expired"))
    });
    let error = make(
        expired,
        &sealed(&location),
        &BackupOptions::of_everything("nightly"),
    )
    .await;
    assert_eq!(error.unwrap_err().kind(), Kind::Unauthorized);
    let left = location.store.entries("backups/", 100).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    make(
        server(),
        &sealed(&location),
        &BackupOptions::of_everything("nightly"),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_location_that_has_all_encrypted_makes_no_backup_with_less() {
    let mut location = Location::in_memory("mem");
    let annotations = &mut location.spec.metadata.annotations;
    annotations.insert(RECIPIENTS.to_owned(), RECIPIENT.trim().to_owned());
    let refused = make(
        server(),
        &sealed(&location),
        &BackupOptions::of_everything("a"),
    )
    .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("all of its backups")
    );
    let annotations = &mut location.spec.metadata.annotations;
    annotations.insert(ENCRYPT.to_owned(), "secrets".to_owned());
    let refused = make(server(), &location, &BackupOptions::of_everything("a")).await;
    assert!(refused.is_err());
    make(
        server(),
        &sealed(&location),
        &BackupOptions::of_everything("a"),
    )
    .await
    .unwrap();
}
