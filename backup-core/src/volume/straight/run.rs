//! The side that makes the backup: lends the credentials and renews them, gives the keys of this volume's repositories and no others, and looks for itself whether the snapshot stands that it is told of.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::line::{self, Begin, Lines, Made, SavedText, ToPod, ToRun, Told, Word, shown};
use crate::crypt::ExposeSecret as _;
use crate::error::{Error, Kind, Result};
use crate::location::Lending;
use crate::volume::VolumeStore;
use crate::volume::key::Keyring;
use crate::volume::source::Counted;
use crate::volume::store::{Of, Saved};

/// A pod that reaches the store has said so by then, or that it does not.
const REACHES: Duration = Duration::from_secs(60);

/// How often the pod is told that somebody is there.
const BEATS: Duration = Duration::from_secs(10);

/// New credentials that could not be had are asked for again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// However short their lives are, credentials are not asked for more often than this.
const BETWEEN: Duration = Duration::from_secs(5);

/// A pod that was told to stop has taken its claim along by then.
const ENDS: Duration = Duration::from_secs(15);

/// A copy begins one repository, or two where somebody is quicker.
const MOST_MADE: u32 = 8;

/// No volume has more, of entries or of bytes.
const MOST: u64 = 1 << 56;
const MOST_REPOSITORIES: u32 = 10_000;

/// The streams of the pod's program.
pub struct Streams {
    /// What goes into it.
    pub to: mpsc::Sender<Bytes>,
    /// What comes out of it.
    pub from: mpsc::Receiver<Bytes>,
}

/// What is archived, and who answers for it.
pub struct Archiving<'a> {
    /// Its repositories, as this side reaches them.
    pub volume: &'a VolumeStore,
    /// Who lends credentials for them.
    pub lending: &'a Lending,
    /// Whose keys are made and given.
    pub ring: &'a Keyring<'a>,
    /// For which backup.
    pub of: &'a Of,
    /// Asked when all was read: an error where the volume is another one by now.
    pub same: &'a (dyn Fn() -> BoxFuture<'a, Result<()>> + Send + Sync),
    /// Bytes that were read.
    pub came: &'a AtomicU64,
}

/// What came of it.
pub enum Ended {
    /// The snapshot stands.
    Saved(Box<Saved>),
    /// The store can not be written to from there, and why. Nothing was written.
    NotReached(String),
}

fn odd(what: &str) -> Error {
    Error::corrupt(format!("the pod says {what}"))
}

async fn say(to: &mpsc::Sender<Bytes>, message: &ToPod) -> Result<()> {
    let line = line::written(message)?;
    let sent = to.send(line.into()).await;
    sent.map_err(|_| Error::other("the pod does not listen any more"))
}

/// Sends a volume's archiver on its way and serves it to its end.
///
/// # Errors
/// Whatever keeps a snapshot from appearing once the store was reached; `Interrupted` where `stop` says so.
pub async fn serve(
    archiving: &Archiving<'_>,
    streams: Streams,
    mut stop: watch::Receiver<bool>,
) -> Result<Ended> {
    let began = Timestamp::now();
    let repositories = archiving.volume.repositories().await?;
    let lent = match archiving.lending.lend().await {
        Ok(lent) => lent,
        Err(e) => return Ok(Ended::NotReached(e.sentence())),
    };
    let narrows = tokio::select! {
        narrows = archiving.lending.narrows(&lent.keys) => narrows,
        _ = stop.wait_for(|stop| *stop) => return Err(stopped()),
    };
    if let Err(e) = narrows {
        return Ok(Ended::NotReached(e.sentence()));
    }
    let Streams { to, from } = streams;
    let mut pod = Pod {
        from,
        lines: Lines::default(),
    };
    let begin = ToPod::Begin(Box::new(Begin {
        version: line::VERSION,
        location: archiving.lending.spec().clone(),
        credentials: lent.keys,
        volume: archiving.volume.name(),
        repositories,
        recipients: archiving.ring.recipients.to_lines(),
        backup: archiving.of.backup.clone(),
        backup_uid: archiving.of.uid.clone(),
        host: archiving.of.host.clone(),
        quiet: archiving.volume.is_quiet(),
    }));
    let reached = async {
        say(&to, &begin).await?;
        pod.hear().await
    };
    let first = tokio::select! {
        first = tokio::time::timeout(REACHES, reached) => first,
        _ = stop.wait_for(|stop| *stop) => return Err(stopped()),
    };
    match first {
        Ok(Ok(ToRun::Reached)) => {}
        Ok(Ok(ToRun::Refused(told))) => {
            return Ok(Ended::NotReached(Error::from(told).sentence()));
        }
        Ok(Ok(_)) => return Ok(Ended::NotReached("it says what is not its turn".to_owned())),
        Ok(Err(e)) => return Ok(Ended::NotReached(e.sentence())),
        Err(_) => {
            let text = format!("it said nothing for {} s", REACHES.as_secs());
            return Ok(Ended::NotReached(text));
        }
    }
    say(&to, &ToPod::Go).await?;
    let unrenewed = Mutex::new(None);
    let attended = async {
        tokio::select! {
            served = attend(archiving, &mut pod, &to) => served,
            () = renew(archiving.lending, lent.lasts, &to, &unrenewed) => Err(gone()),
            () = beat(&to) => Err(gone()),
        }
    };
    tokio::pin!(attended);
    let told = tokio::select! {
        told = &mut attended => Some(told),
        _ = stop.wait_for(|stop| *stop) => None,
    };
    let Some(told) = told else {
        // It takes its claim along; what it says of that does not matter.
        let _ = say(&to, &ToPod::Stop).await;
        let _ = tokio::time::timeout(ENDS, &mut attended).await;
        return Err(stopped());
    };
    let told = told.map_err(|e| {
        let unrenewed = unrenewed.lock().unwrap_or_else(PoisonError::into_inner);
        match unrenewed.as_ref() {
            Some(why) => {
                Error::other(format!("its credentials could not be renewed: {why}")).because(e)
            }
            None => e,
        }
    })?;
    saved(archiving, told, began)
        .await
        .map(|saved| Ended::Saved(Box::new(saved)))
}

fn stopped() -> Error {
    Error::new(Kind::Interrupted, "the backup was stopped")
}

fn gone() -> Error {
    Error::other("the pod does not listen any more")
}

struct Pod {
    from: mpsc::Receiver<Bytes>,
    lines: Lines,
}

impl Pod {
    /// The next line.
    async fn hear(&mut self) -> Result<ToRun> {
        loop {
            if let Some(said) = self.lines.next()? {
                return Ok(said);
            }
            let bytes = self.from.recv().await;
            let bytes = bytes.ok_or_else(|| Error::other("it ended before it said how it went"))?;
            self.lines.feed(&bytes);
        }
    }
}

/// Answers to the end.
async fn attend(
    archiving: &Archiving<'_>,
    pod: &mut Pod,
    to: &mpsc::Sender<Bytes>,
) -> Result<SavedText> {
    let mut made = 0;
    loop {
        let answer = match pod.hear().await? {
            ToRun::Progress(bytes) => {
                // It never falls, whatever the pod says.
                archiving.came.fetch_max(bytes.min(MOST), Ordering::Relaxed);
                continue;
            }
            ToRun::Password(digest) => ToPod::Password(
                password(archiving, &digest)
                    .await
                    .map_err(|e| Told::from(&e)),
            ),
            ToRun::Make if made < MOST_MADE => {
                made += 1;
                let made = make(&archiving.volume.name(), archiving.ring);
                ToPod::Made(made.map_err(|e| Told::from(&e)))
            }
            ToRun::Make => return Err(odd("that it begins one repository after another")),
            ToRun::Same => ToPod::Same((archiving.same)().await.map_err(|e| Told::from(&e))),
            ToRun::Saved(saved) => return Ok(saved),
            ToRun::Failed(told) => return Err(told.into()),
            ToRun::Reached | ToRun::Refused(_) => return Err(odd("what is not its turn")),
        };
        say(to, &answer).await?;
    }
}

/// A password that was kept, if it is of one of this volume's repositories: a pod is its namespace's, and asks for what it likes.
async fn password(archiving: &Archiving<'_>, digest: &str) -> Result<Option<Word>> {
    if !archiving.volume.has_sealed_key(digest).await? {
        return Err(odd("that it wants the key of another volume"));
    }
    // What stands there may have been put there by the pod itself, with the bytes of another volume's key.
    let kept = archiving
        .ring
        .cache
        .get(&archiving.volume.name(), digest)?
        .filter(|kept| kept.is_bound);
    Ok(kept.map(|kept| Word(kept.password.expose_secret().to_owned())))
}

fn make(volume: &str, ring: &Keyring<'_>) -> Result<Made> {
    let (password, sealed) = ring.cache.make(volume, ring.recipients, ring.passphrase)?;
    Ok(Made {
        password: Word(password.expose_secret().to_owned()),
        sealed: BASE64.encode(sealed),
    })
}

/// Sends new credentials when a third of the time is left of those that are there; ends when nobody takes them. A machine that slept meanwhile finds that the pod has ended.
pub(super) async fn renew(
    lending: &Lending,
    mut lasts: Duration,
    to: &mpsc::Sender<Bytes>,
    failed: &Mutex<Option<String>>,
) {
    loop {
        tokio::time::sleep((lasts - lasts / 3).max(BETWEEN)).await;
        let note = |said: Option<String>| {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = said;
        };
        let lent = loop {
            match lending.lend().await {
                Ok(lent) => break lent,
                Err(e) => note(Some(e.sentence())),
            }
            // Short lives are asked for more often.
            tokio::time::sleep(AGAIN.min(lasts / 10)).await;
        };
        note(None);
        lasts = lent.lasts;
        if say(to, &ToPod::Credentials(lent.keys)).await.is_err() {
            return;
        }
    }
}

/// Says that somebody is there; ends when nobody hears it.
async fn beat(to: &mpsc::Sender<Bytes>) {
    loop {
        tokio::time::sleep(BEATS).await;
        if say(to, &ToPod::Beat).await.is_err() {
            return;
        }
    }
}

/// What the pod told, if it can be, and the snapshot stands.
async fn saved(archiving: &Archiving<'_>, told: SavedText, began: Timestamp) -> Result<Saved> {
    let volume = archiving.volume;
    let is_digest = |text: &str| {
        text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_run = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let counts = [
        told.entries,
        told.files,
        told.bytes,
        told.read_bytes,
        told.added_bytes,
        told.changed,
        told.vanished,
    ];
    if !is_digest(&told.snapshot)
        || !told.base.as_deref().is_none_or(is_digest)
        || !is_run(&told.run)
        || !(1..=MOST_REPOSITORIES).contains(&told.repository)
        || counts.iter().any(|count| *count > MOST)
    {
        return Err(odd("of a snapshot what none can be"));
    }
    let problems = volume.problems(told.repository, &told.snapshot).await?;
    if !problems.is_empty() {
        return Err(Error::corrupt(format!(
            "the pod says that snapshot {} stands: {}",
            told.snapshot,
            problems.join("; ")
        )));
    }
    // Whatever bytes lie there, and whatever snapshot of before: a restore would refuse them, when it is too late.
    let stands = (told.repository, told.snapshot.as_str());
    let is_made = volume.is_made(stands, archiving.ring, archiving.of, &told.run);
    is_made
        .await
        .map_err(|e| e.context("the pod tells of a snapshot that is none of this backup"))?;
    Ok(Saved {
        repository: told.repository,
        snapshot: told.snapshot,
        base: told.base,
        run: told.run,
        counted: Counted {
            entries: told.entries,
            files: told.files,
            bytes: told.bytes,
            read_bytes: told.read_bytes,
            changed_count: told.changed,
            vanished_count: told.vanished,
            ..Counted::default()
        },
        added_bytes: told.added_bytes,
        begun_because: told.begun_because.as_deref().map(shown),
        began,
    })
}
