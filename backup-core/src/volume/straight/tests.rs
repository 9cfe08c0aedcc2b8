//! Both sides at once, over pipes, with a store in memory; and each with somebody else at the other end.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::CredentialProvider as _;
use tokio::sync::{mpsc, watch};

use super::super::key::{Kept, KeptKey, KeyCache};
use super::super::store::{Of, Saved};
use super::super::tests::{Made, Place};
use super::line::{self, Begin, LONGEST, Lines, SavedText, ToPod, ToRun, Told};
use super::pod;
use super::run::{Archiving, Ended, Streams, renew, serve};
use crate::api::BackupStorageLocation;
use crate::crypt::{Identities, Recipients, SecretString};
use crate::error::{Error, Kind, Result};
use crate::location::lend::{Borrowed, Lender, Lending, Lent, LentKeys};
use crate::location::trial::{Fate, Trial};
use crate::location::{Store, sha256};

/// Gives keys with a number, for so long; every second time it refuses, where that is asked for.
struct Gives {
    lasts: Duration,
    given: AtomicU32,
    halting: bool,
    spec: BackupStorageLocation,
    /// What these keys may do beside what they are for, by its verb and key.
    also: Option<(&'static str, &'static str)>,
}

fn gives(lasts: Duration, halting: bool) -> Lending {
    giving(lasts, halting, None)
}

fn giving(lasts: Duration, halting: bool, also: Option<(&'static str, &'static str)>) -> Lending {
    let gives = Gives {
        also,
        lasts,
        given: AtomicU32::new(0),
        halting,
        spec: BackupStorageLocation::default(),
    };
    Lending::of(Arc::new(gives), "restic/c/n/u")
}

fn keys(number: u32) -> LentKeys {
    LentKeys {
        id: format!("id-{number}"),
        secret: "hidden".to_owned(),
        token: "hidden".to_owned(),
    }
}

#[async_trait]
impl Lender for Gives {
    fn spec(&self) -> &BackupStorageLocation {
        &self.spec
    }

    async fn lend(&self, prefix: &str) -> Result<Lent> {
        assert_eq!(prefix, "restic/c/n/u");
        let number = self.given.fetch_add(1, Ordering::SeqCst);
        if self.halting && number % 2 == 1 {
            return Err(Error::new(Kind::Unreachable, "STS is silent"));
        }
        Ok(Lent {
            keys: keys(number),
            lasts: self.lasts,
        })
    }

    fn open(&self, _: Arc<Borrowed>) -> Result<Store> {
        let also = self.also;
        let trial = Trial::of(&Store::in_memory()).judged(move |verb, key| {
            let is_own = key.starts_with("restic/c/n/u/") || key.starts_with("restic/c/n/u.");
            if is_own || also == Some((verb, key)) {
                Fate::Happens
            } else {
                Fate::Refused
            }
        });
        Ok(trial.store())
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Channels of the run, and pipes of the pod, with threads between.
fn streams() -> (Streams, std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut into) = std::io::pipe().unwrap();
    let (mut out, writer) = std::io::pipe().unwrap();
    let (to, mut going) = mpsc::channel::<Bytes>(16);
    let (coming, from) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Some(bytes) = going.blocking_recv() {
            if into.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        let mut piece = [0; 1000];
        while let Ok(length @ 1..) = out.read(&mut piece) {
            let bytes = Bytes::copy_from_slice(&piece[..length]);
            if coming.blocking_send(bytes).is_err() {
                break;
            }
        }
    });
    (Streams { to, from }, reader, writer)
}

fn of() -> Of {
    Of {
        backup: "b".to_owned(),
        uid: "uid".to_owned(),
        host: "here".to_owned(),
    }
}

async fn served(place: &Place, streams: Streams, same: fn() -> Result<()>) -> Result<Ended> {
    served_by(gives(HOUR, false), place, streams, same).await
}

async fn served_by(
    lending: Lending,
    place: &Place,
    streams: Streams,
    same: fn() -> Result<()>,
) -> Result<Ended> {
    let (_never, stop) = watch::channel(false);
    let volume = place.volume();
    let archiving = Archiving {
        volume: &volume,
        lending: &lending,
        ring: &place.ring(),
        of: &of(),
        same: &move || Box::pin(async move { same() }),
        came: &AtomicU64::new(0),
    };
    serve(&archiving, streams, stop).await
}

/// A volume archived by both sides.
async fn archived(place: &Place, made: Made, same: fn() -> Result<()>) -> Result<Saved> {
    let (streams, reader, writer) = streams();
    let store = place.store.clone();
    let open = move |_: &BackupStorageLocation, _: Arc<Borrowed>| Ok(store);
    // It waits for answers where it is, as a program of its own may.
    let pod = tokio::spawn(pod::archive_to(Arc::new(made), reader, writer, open));
    let (ended, told) = tokio::join!(served(place, streams, same), pod);
    told.unwrap().unwrap();
    match ended? {
        Ended::Saved(saved) => Ok(*saved),
        Ended::NotReached(why) => panic!("{why}"),
    }
}

fn as_it_is() -> Result<()> {
    Ok(())
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/encryption/", $name))
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pod_archives_is_whole_and_the_next_builds_upon_it() {
    let place = Place::new();
    let files: &[(&str, &[u8])] = &[("a", b"content"), ("b", b"more")];
    let first = archived(&place, Made::of(files), as_it_is).await.unwrap();
    assert_eq!((first.counted.files, first.counted.bytes), (2, 11));
    assert_eq!(first.counted.read_bytes, 11);
    let second = archived(&place, Made::of(files), as_it_is).await.unwrap();
    assert_eq!(second.base.as_ref(), Some(&first.snapshot));
    assert_eq!(second.counted.read_bytes, 0);
    let back = place.restore(&second).await.unwrap();
    assert_eq!(back.last().unwrap().1, b"more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_key_is_made_and_kept_where_the_backup_is_made() {
    let mut identities = Identities::default();
    identities.add("first", fixture!("first.key").as_bytes().to_vec());
    let place = Place {
        recipients: Recipients::parse([fixture!("first.pub")]).unwrap(),
        identities,
        ..Place::new()
    };
    let files: &[(&str, &[u8])] = &[("a", b"content")];
    let first = archived(&place, Made::of(files), as_it_is).await.unwrap();
    let stands = place
        .store
        .get("restic/c/n/u.key.age", 10_000)
        .await
        .unwrap();
    assert!(
        place
            .cache
            .get("c/n/u", &sha256(&stands))
            .unwrap()
            .is_some()
    );
    // The second is given the key of the first.
    let second = archived(&place, Made::of(files), as_it_is).await.unwrap();
    assert_eq!((first.repository, second.repository), (1, 1));
    assert_eq!(second.begun_because, None);
    place.restore(&second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_another_one_by_now_makes_no_snapshot() {
    let place = Place::new();
    let another = || Err(Error::other("the claim was deleted meanwhile").hint("look"));
    let refused = archived(&place, Made::of(&[("a", b"x")]), another).await;
    let said = refused.unwrap_err().sentence();
    assert!(said.contains("deleted meanwhile"), "{said}");
    assert!(said.contains("look"), "{said}");
    assert_eq!(place.objects("snapshots").await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_a_pod_does_not_reach_is_not_written_to_and_named() {
    let place = Place::new();
    let (streams, reader, writer) = streams();
    let open = |_: &BackupStorageLocation, _: Arc<Borrowed>| -> Result<Store> {
        Err(Error::new(Kind::Unreachable, "nobody is there"))
    };
    let pod = pod::archive_to(Arc::new(Made::of(&[])), reader, writer, open);
    let (ended, told) = tokio::join!(served(&place, streams, as_it_is), pod);
    told.unwrap();
    match ended.unwrap() {
        Ended::NotReached(why) => assert!(why.contains("nobody is there"), "{why}"),
        Ended::Saved(_) => panic!("it was saved"),
    }
    assert!(place.store.entries("restic/", 10).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_not_told_what_is_absent_or_who_is_at_work_writes_nothing() {
    let place = Place::new();
    archived(&place, Made::of(&[("a", b"x")]), as_it_is)
        .await
        .unwrap();
    let before = place.store.entries("restic/", 100).await.unwrap();
    let stands: Vec<_> = before.iter().map(|one| one.key.clone()).collect();
    let absent = Trial::of(&place.store).judged(move |verb, key| {
        let asks = matches!(verb, "head" | "get");
        if asks && !stands.iter().any(|one| one == key) {
            Fate::Refused
        } else {
            Fate::Happens
        }
    });
    let claims = Trial::of(&place.store).judged(|verb, key| match verb {
        "list" if key.ends_with("u.claims/") => Fate::Refused,
        _ => Fate::Happens,
    });
    for trial in [absent, claims] {
        let (streams, reader, writer) = streams();
        let store = trial.store();
        let open = move |_: &BackupStorageLocation, _: Arc<Borrowed>| Ok(store);
        let made = Arc::new(Made::of(&[("a", b"y")]));
        let pod = tokio::spawn(pod::archive_to(made, reader, writer, open));
        let (ended, told) = tokio::join!(served(&place, streams, as_it_is), pod);
        told.unwrap().unwrap();
        match ended.unwrap() {
            Ended::NotReached(why) => assert!(why.contains("is refused"), "{why}"),
            Ended::Saved(_) => panic!("it was saved"),
        }
        let now = place.store.entries("restic/", 100).await.unwrap();
        assert_eq!(now, before);
    }
}

#[tokio::test]
async fn keys_that_reach_beyond_their_volume_go_to_no_pod() {
    for also in [
        ("list", "backups/"),
        ("list", "restic/"),
        ("head", "backups/none/velero-backup.json"),
        ("head", "restic/c/n/u0/config"),
    ] {
        let (to, mut heard) = mpsc::channel(16);
        let (_says, from) = mpsc::channel(16);
        let (place, lending) = (Place::new(), giving(HOUR, false, Some(also)));
        let ended = served_by(lending, &place, Streams { to, from }, as_it_is);
        match tokio::time::timeout(HOUR, ended).await.unwrap().unwrap() {
            Ended::NotReached(why) => assert!(why.contains("does not narrow keys"), "{why}"),
            Ended::Saved(_) => panic!("{also:?}"),
        }
        assert!(heard.recv().await.is_none(), "{also:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_with_its_run_and_leaves_no_snapshot_and_no_claim() {
    let place = Place::new();
    let (Streams { to, mut from }, reader, writer) = streams();
    let to = Arc::new(Mutex::new(Some(to)));
    let line = |said: &ToPod| Bytes::from(line::written(said).unwrap());
    let say = |said: ToPod| {
        let to = to.lock().unwrap().clone().unwrap();
        async move { to.send(line(&said)).await.unwrap() }
    };
    say(ToPod::Begin(Box::new(begin()))).await;
    say(ToPod::Go).await;
    // The run dies when all was read.
    let dies = Arc::clone(&to);
    let made = Made::of(&[("a", b"x")]).ending(move || {
        dies.lock().unwrap().take();
        Ok(())
    });
    let store = place.store.clone();
    let began = std::time::Instant::now();
    let pod = tokio::spawn(pod::archive_to(
        Arc::new(made),
        reader,
        writer,
        move |_, _| Ok(store),
    ));
    let mut lines = Lines::default();
    let mut said = Vec::new();
    while let Some(bytes) = from.recv().await {
        lines.feed(&bytes);
        while let Some(one) = lines.next::<ToRun>().unwrap() {
            said.push(one);
        }
    }
    let _ = pod.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(matches!(said[0], ToRun::Reached), "{said:?}");
    assert!(matches!(said.last(), Some(ToRun::Failed(_))), "{said:?}");
    let all = place.store.entries("restic/", 100).await.unwrap();
    let left = all
        .iter()
        .filter(|one| one.key.contains("claim") || one.key.contains("snapshots"));
    assert_eq!(left.count(), 0, "{all:?}");
}

fn begin() -> Begin {
    Begin {
        version: line::VERSION,
        location: BackupStorageLocation::default(),
        credentials: keys(0),
        volume: "c/n/u".to_owned(),
        repositories: Vec::new(),
        recipients: String::new(),
        backup: "b".to_owned(),
        backup_uid: "uid".to_owned(),
        host: "here".to_owned(),
        quiet: false,
    }
}

/// A pod's side that gets this instead of a run.
async fn pod_hears(bytes: Vec<u8>) -> Result<()> {
    let place = Place::new();
    let store = place.store.clone();
    let (_silent, writer) = std::io::pipe().unwrap();
    let made = Arc::new(Made::of(&[("a", b"x")]));
    let (reader, mut into) = std::io::pipe().unwrap();
    std::thread::spawn(move || {
        let _ = into.write_all(&bytes);
    });
    let done = pod::archive_to(made, reader, writer, move |_, _| Ok(store)).await;
    assert!(place.store.entries("restic/", 10).await.unwrap().is_empty());
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_hears_what_can_not_be_writes_nothing() {
    let line = |said: &ToPod| line::written(said).unwrap();
    let first = || line(&ToPod::Begin(Box::new(begin())));
    let cases = [
        (Vec::new(), "has ended"),
        (b"{\"begin\":1}\n".to_vec(), "not known"),
        (b"{\"delete\":\"all\"}\n".to_vec(), "not known"),
        (vec![b'x'; LONGEST + 2], "more than a line"),
        (line(&ToPod::Credentials(keys(1))), "before it begins"),
        ([first(), first()].concat(), "twice"),
        (
            [
                first(),
                line(&ToPod::Same(Ok(()))),
                line(&ToPod::Same(Ok(()))),
            ]
            .concat(),
            "not asked",
        ),
        (first(), "not begun"),
    ];
    for (bytes, expected) in cases {
        let said = pod_hears(bytes).await.unwrap_err().sentence();
        let either = said.contains(expected) || said.contains("not begun");
        assert!(either, "{expected}: {said}");
        assert!(!said.contains("hidden"), "{said}");
    }
    let newer = Begin {
        version: 9,
        ..begin()
    };
    // It is told to the run, and that is all.
    pod_hears(line(&ToPod::Begin(Box::new(newer))))
        .await
        .unwrap();
}

/// A run's side that hears this of a pod, after its first line.
async fn run_hears(place: &Place, said: &[&[u8]]) -> Result<Ended> {
    let (to, mut heard) = mpsc::channel(16);
    let (says, from) = mpsc::channel(16);
    let all = said.concat();
    let pod = async move {
        // The beginning.
        heard.recv().await;
        for piece in all.chunks(700) {
            if says.send(Bytes::copy_from_slice(piece)).await.is_err() {
                break;
            }
        }
        // Answers are taken, until nobody gives any.
        drop(says);
        while heard.recv().await.is_some() {}
    };
    let (ended, ()) = tokio::join!(served(place, Streams { to, from }, as_it_is), pod);
    ended
}

fn says(said: &ToRun) -> Vec<u8> {
    line::written(said).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_store_was_reached_another_way_is_taken_whatever_a_pod_says() {
    let long = vec![b'x'; LONGEST + 1000];
    let told = Told::from(&Error::other("no such\nhost"));
    let refused = says(&ToRun::Refused(told));
    for (said, expected) in [
        (&b""[..], "ended before"),
        (b"error: unrecognized subcommand 'archive'\n", "not known"),
        (&long, "more than a line"),
        (&says(&ToRun::Same), "not its turn"),
        (&refused, "no such host"),
    ] {
        match run_hears(&Place::new(), &[said]).await.unwrap() {
            Ended::NotReached(why) => assert!(why.contains(expected), "{why}"),
            Ended::Saved(_) => panic!("{expected}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lies_gets_no_key_and_makes_no_copy() {
    let place = Place::new();
    let reached = says(&ToRun::Reached);
    let stands = |snapshot: &str, count: u64| {
        says(&ToRun::Saved(SavedText {
            repository: 1,
            snapshot: snapshot.to_owned(),
            run: "0".repeat(32),
            bytes: count,
            ..SavedText::default()
        }))
    };
    let none = "0".repeat(64);
    let many = says(&ToRun::Make).repeat(20);
    let cases = [
        (says(&ToRun::Password("a".repeat(64))), "ended before"),
        (stands(&none, 1), "is missing"),
        (stands("../x", 1), "none can be"),
        (stands(&none, u64::MAX), "none can be"),
        (b"{\"saved\":{}}\n".to_vec(), "not known"),
        (says(&ToRun::Reached), "not its turn"),
        (many, "one repository after another"),
        (Vec::new(), "ended before"),
    ];
    for (said, expected) in cases {
        let told = run_hears(&place, &[&reached, &said]).await;
        let told = told.err().unwrap().sentence();
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

/// The files of a snapshot are there in each case, as far as it can be seen without a key.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_a_pod_tells_of_is_opened_and_has_to_be_of_this_run_of_this_backup() {
    let place = Place::new();
    let files: &[(&str, &[u8])] = &[("a", b"content")];
    let old = archived(&place, Made::of(files), as_it_is).await.unwrap();
    let none = sha256(b"bytes");
    let key = format!("restic/c/n/u/snapshots/{none}");
    place.store.put(&key, "bytes".into()).await.unwrap();
    for (snapshot, run, expected) in [
        (&old.snapshot, "0".repeat(32), "is not the one"),
        (&none, old.run.clone(), "can not be read"),
    ] {
        let told = says(&ToRun::Saved(SavedText {
            repository: 1,
            snapshot: snapshot.clone(),
            run,
            ..SavedText::default()
        }));
        let refused = run_hears(&place, &[&says(&ToRun::Reached), &told]).await;
        let said = refused.err().unwrap().sentence();
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // Under a key that nobody here made, nothing is believed.
    let sealed = Place {
        recipients: Recipients::parse([fixture!("first.pub")]).unwrap(),
        ..place.clone()
    };
    let key = "restic/c/n/u.key.age";
    place.store.put(key, "planted".into()).await.unwrap();
    let told = says(&ToRun::Saved(SavedText {
        repository: 1,
        snapshot: old.snapshot.clone(),
        run: old.run.clone(),
        ..SavedText::default()
    }));
    let refused = run_hears(&sealed, &[&says(&ToRun::Reached), &told]).await;
    let said = refused.err().unwrap().sentence();
    assert!(said.contains("not made here"), "{said}");
}

/// What a run answers to a pod that asks for the password of this digest.
async fn answered(place: &Place, digest: String) -> String {
    let (to, mut heard) = mpsc::channel(16);
    let (says_to, from) = mpsc::channel(16);
    let pod = async move {
        heard.recv().await;
        says_to.send(says(&ToRun::Reached).into()).await.unwrap();
        heard.recv().await;
        let asks = says(&ToRun::Password(digest));
        says_to.send(asks.into()).await.unwrap();
        heard.recv().await.unwrap()
    };
    let (_, answer) = tokio::join!(served(place, Streams { to, from }, as_it_is), pod);
    String::from_utf8(answer.to_vec()).unwrap()
}

/// A cache of before, in which no volume is written down.
struct Former;

impl KeyCache for Former {
    fn get(&self, volume: &str, digest: &str) -> Result<Option<Kept>> {
        let proof = sha256(format!("{digest} hidden").as_bytes());
        let bytes = format!("hidden {proof}\n");
        Ok(KeptKey::read(volume, digest, bytes.as_bytes()))
    }

    fn put(&self, _: &str, _: &str, _: &SecretString) -> Result<()> {
        Err(Error::other("it is of before"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_another_volume_is_not_given_even_where_its_bytes_were_planted_among_ones_own() {
    let place = Place::new();
    let hidden = "hidden".to_owned().into();
    let digest = sha256(b"sealed");
    place.cache.put("c/n/other", &digest, &hidden).unwrap();
    let answer = answered(&place, digest.clone()).await;
    assert!(answer.contains("of another volume"), "{answer}");
    // Lent keys write there.
    let key = "restic/c/n/u.key.age";
    place.store.put(key, "sealed".into()).await.unwrap();
    let nothing = r#"{"password":{"Ok":null}}"#;
    assert_eq!(answered(&place, digest.clone()).await.trim_end(), nothing);
    // Of what was kept before, nobody knows whose it is.
    let former = Place {
        cache: Arc::new(Former),
        ..place.clone()
    };
    assert_eq!(answered(&former, digest.clone()).await.trim_end(), nothing);
    place.cache.put("c/n/u", &digest, &hidden).unwrap();
    let answer = answered(&place, digest).await;
    assert!(answer.contains("hidden"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn credentials_are_renewed_when_a_third_of_their_time_is_left() {
    let lending = gives(Duration::from_secs(900), false);
    let (to, mut heard) = mpsc::channel(16);
    let failed = Mutex::new(None);
    let began = tokio::time::Instant::now();
    let hears = async {
        let mut at = Vec::new();
        for _ in 0..3 {
            heard.recv().await.unwrap();
            at.push(began.elapsed().as_secs());
        }
        at
    };
    let at = tokio::select! {
        at = hears => at,
        () = renew(&lending, Duration::from_secs(900), &to, &failed) => panic!("it ended"),
    };
    assert_eq!(at, [600, 1200, 1800]);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_seem_to_end_at_once_are_not_asked_for_without_pause() {
    let lending = gives(Duration::ZERO, false);
    let (to, mut heard) = mpsc::channel(16);
    let failed = Mutex::new(None);
    let hears = async {
        let mut lines = 0;
        while heard.recv().await.is_some() {
            lines += 1;
            assert!(lines <= 12, "more than that in a minute");
        }
    };
    tokio::select! {
        () = hears => panic!("it ended"),
        () = renew(&lending, Duration::ZERO, &to, &failed) => panic!("it ended"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_renewed_is_asked_for_again_before_it_ends() {
    let lending = gives(Duration::from_secs(30), true);
    // The first is given, the second is not.
    lending.lend().await.unwrap();
    let (to, mut heard) = mpsc::channel(16);
    let failed = Mutex::new(None);
    let began = tokio::time::Instant::now();
    tokio::select! {
        line = heard.recv() => assert!(String::from_utf8(line.unwrap().to_vec()).unwrap().contains("id-2")),
        () = renew(&lending, Duration::from_secs(30), &to, &failed) => panic!("it ended"),
    }
    assert_eq!(began.elapsed().as_secs(), 23);
    assert_eq!(*failed.lock().unwrap(), None);
}

#[tokio::test]
async fn the_newest_keys_sign() {
    let borrowed = Borrowed::new(keys(1));
    borrowed.replace(keys(2));
    assert_eq!(borrowed.get_credential().await.unwrap().key_id, "id-2");
    assert!(!format!("{borrowed:?} {:?}", begin()).contains("hidden"));
}

#[test]
fn an_error_comes_over_a_line_with_its_kind_its_hint_and_its_causes() {
    let deepest = Error::other("third\u{7}");
    let error = Error::new(Kind::Forbidden, "first").hint("do this");
    let error = error.because(Error::other("second").because(deepest));
    let line = line::written(&Told::from(&error)).unwrap();
    let mut lines = Lines::default();
    // In two pieces.
    lines.feed(&line[..10]);
    assert!(lines.next::<Told>().unwrap().is_none());
    lines.feed(&line[10..]);
    let back: Error = lines.next::<Told>().unwrap().unwrap().into();
    assert_eq!(back.kind(), Kind::Forbidden);
    assert_eq!(back.sentence(), "first: second: third  (do this)");
}
