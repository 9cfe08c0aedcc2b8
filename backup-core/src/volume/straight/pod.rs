//! The side that has the volume: reads it and writes to the store, asks the run for what is secret, and ends when the run does. The pod keeps nothing and decides nothing.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::line::{self, Begin, Lines, SavedText, ToPod, ToRun, Told};
use crate::crypt::{Identities, Recipients, SecretString};
use crate::error::{Error, Kind, Result};
use crate::layout::VolumeKeys;
use crate::location::Store;
use crate::location::lend::{self, Borrowed};
use crate::volume::VolumeStore;
use crate::volume::folder::FolderSource;
use crate::volume::key::{Kept, KeyCache, Keyring};
use crate::volume::source::{Content, Entries, Found, Source};
use crate::volume::store::{Base, Of, QUIET, Saved};

/// A run that begins says so by then.
const BEGINS: Duration = Duration::from_secs(60);

/// A store that is within reach answers by then.
const REACHES: Duration = Duration::from_secs(20);

/// A run that was not heard of for so long is over.
const SILENT: Duration = Duration::from_secs(60);

/// An answer takes no longer: a Secret is read or written for it.
const ANSWERS: Duration = Duration::from_secs(120);

/// A backup that was told to end takes its claim along by then, or does not.
const ENDS: Duration = Duration::from_secs(20);

/// How often it is told how far it is, where there is something to tell; and where all was read.
const TELLS: Duration = Duration::from_secs(1);
const BEATS: Duration = Duration::from_secs(10);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The run, as this side knows it.
struct Run {
    to: Mutex<Box<dyn Write + Send>>,
    /// One question at a time has its answer here.
    answers: Mutex<mpsc::Receiver<ToPod>>,
    borrowed: OnceLock<Arc<Borrowed>>,
    heard: Mutex<Instant>,
    /// Whether the store may be written to.
    may_write: watch::Sender<bool>,
    /// Why nothing more is to be written.
    over: watch::Sender<Option<String>>,
}

impl Run {
    fn say(&self, message: &ToRun) -> Result<()> {
        let line = line::written(message)?;
        let mut to = lock(&self.to);
        let said = to.write_all(&line).and_then(|()| to.flush());
        said.map_err(|e| Error::other("whoever makes the backup does not listen").because(e))
    }

    /// Asks, and waits for the answer.
    fn ask<T>(&self, question: &ToRun, answer: impl Fn(ToPod) -> Option<T>) -> Result<T> {
        let answers = lock(&self.answers);
        self.say(question)?;
        let heard = answers
            .recv_timeout(ANSWERS)
            .map_err(|_| Error::other("whoever makes the backup does not answer"))?;
        answer(heard).ok_or_else(|| Error::corrupt("the answer is one to another question"))
    }

    fn end(&self, why: &str) {
        self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert_with(|| why.to_owned());
            is_first
        });
    }

    /// Hears the run to its end.
    fn hear(
        &self,
        mut from: impl Read,
        begin: oneshot::Sender<Box<Begin>>,
        answers: &mpsc::SyncSender<ToPod>,
    ) -> Result<()> {
        let mut begin = Some(begin);
        let mut lines = Lines::default();
        let mut piece = vec![0; 64 << 10];
        loop {
            let length = match from.read(&mut piece) {
                Ok(length) => length,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::other("it can not be heard").because(e)),
            };
            if length == 0 {
                return Err(Error::other("it has ended"));
            }
            *lock(&self.heard) = Instant::now();
            lines.feed(&piece[..length]);
            while let Some(said) = lines.next()? {
                let twice = || Error::corrupt("it says twice what is said once");
                match said {
                    ToPod::Begin(said) => {
                        let begin = begin.take().ok_or_else(twice)?;
                        let borrowed = Borrowed::new(said.credentials.clone());
                        self.borrowed.set(Arc::new(borrowed)).map_err(|_| twice())?;
                        // Who waits for it may have given up.
                        let _ = begin.send(said);
                    }
                    ToPod::Credentials(keys) => match self.borrowed.get() {
                        Some(borrowed) => borrowed.replace(keys),
                        None => return Err(Error::corrupt("it gives keys before it begins")),
                    },
                    ToPod::Go => {
                        self.may_write.send_replace(true);
                    }
                    ToPod::Beat => {}
                    ToPod::Stop => self.end("the backup was stopped"),
                    answer @ (ToPod::Password(_) | ToPod::Made(_) | ToPod::Same(_)) => {
                        let unasked = |_| Error::corrupt("it answers what was not asked");
                        answers.try_send(answer).map_err(unasked)?;
                    }
                }
            }
        }
    }
}

/// Keys that are asked for.
struct Asked(Arc<Run>);

impl KeyCache for Asked {
    fn get(&self, _: &str, digest: &str) -> Result<Option<Kept>> {
        let word = self
            .0
            .ask(&ToRun::Password(digest.to_owned()), |answer| match answer {
                ToPod::Password(word) => Some(word),
                _ => None,
            })?;
        Ok(word?.map(|word| Kept {
            password: word.0.into(),
            is_bound: true,
        }))
    }

    fn put(&self, _: &str, _: &str, _: &SecretString) -> Result<()> {
        Err(Error::other("a pod keeps no keys"))
    }

    fn make(
        &self,
        _: &str,
        _: &Recipients,
        _: Option<&SecretString>,
    ) -> Result<(SecretString, Bytes)> {
        let made = self.0.ask(&ToRun::Make, |answer| match answer {
            ToPod::Made(made) => Some(made),
            _ => None,
        })??;
        let sealed = BASE64
            .decode(made.sealed)
            .map_err(|_| Error::corrupt("what seals the password is no base64"))?;
        Ok((made.password.0.into(), sealed.into()))
    }
}

/// How far the volume was read.
#[derive(Default)]
struct Far {
    entries: AtomicU64,
    bytes: AtomicU64,
    is_read: AtomicBool,
}

/// A volume whose reading is counted, and whose end is the run's word.
struct Watched {
    source: Arc<dyn Source>,
    far: Arc<Far>,
    run: Arc<Run>,
}

struct Counting {
    content: Box<dyn Content>,
    far: Arc<Far>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.far.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Content for Counting {
    fn has_changed(&mut self) -> std::io::Result<bool> {
        self.content.has_changed()
    }
}

impl Source for Watched {
    fn entries(&self) -> Result<Entries> {
        let far = Arc::clone(&self.far);
        let counted = self.source.entries()?.map(move |found| {
            far.entries.fetch_add(1, Ordering::Relaxed);
            let far = Arc::clone(&far);
            found.map(|found| Found {
                entry: found.entry,
                content: found.content.map(|opener| -> super::super::source::Opener {
                    Box::new(move || {
                        let content = opener()?;
                        Ok(Box::new(Counting { content, far }))
                    })
                }),
            })
        });
        Ok(Box::new(counted))
    }

    fn ended(&self) -> Result<()> {
        self.far.is_read.store(true, Ordering::Relaxed);
        self.source.ended()?;
        let same = self.run.ask(&ToRun::Same, |answer| match answer {
            ToPod::Same(same) => Some(same),
            _ => None,
        })?;
        same.map_err(Error::from)
    }
}

/// Archives a folder for the run at the other end of these streams. What came of it is told there, and this returns without an error where it could be told.
///
/// # Errors
/// The run ended, is silent, or says what can not be.
pub async fn archive(
    folder: &Path,
    from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
) -> Result<()> {
    let source = Arc::new(FolderSource::new(folder));
    archive_to(source, from, to, lend::open).await
}

/// The same of any volume, to a store that is opened so.
pub(super) async fn archive_to(
    source: Arc<dyn Source>,
    from: impl Read + Send + 'static,
    to: impl Write + Send + 'static,
    open: impl FnOnce(&crate::api::BackupStorageLocation, Arc<Borrowed>) -> Result<Store>,
) -> Result<()> {
    let (answer, answers) = mpsc::sync_channel(1);
    let (tell, told) = oneshot::channel();
    let run = Arc::new(Run {
        to: Mutex::new(Box::new(to)),
        answers: Mutex::new(answers),
        borrowed: OnceLock::new(),
        heard: Mutex::new(Instant::now()),
        may_write: watch::Sender::new(false),
        over: watch::Sender::new(None),
    });
    let hearing = Arc::clone(&run);
    // A thread of its own: nobody can end a read of standard input, and nobody waits for this one.
    std::thread::spawn(move || {
        if let Err(e) = hearing.hear(from, tell, &answer) {
            hearing.end(&format!("whoever makes the backup: {}", e.sentence()));
        }
    });
    let mut over = run.over.subscribe();
    tokio::select! {
        done = conversation(&run, source, told, open) => done,
        why = ended(&mut over) => Err(Error::new(Kind::Interrupted, why)),
        () = silence(&run) => Err(Error::new(Kind::Interrupted, "whoever makes the backup is silent")),
    }
}

async fn ended(over: &mut watch::Receiver<Option<String>>) -> String {
    let why = over.wait_for(Option::is_some).await;
    let why = why.ok().and_then(|why| why.clone()).unwrap_or_default();
    // Who is at work is told, too, and takes its claim along.
    tokio::time::sleep(ENDS).await;
    why
}

/// Ends when nobody was heard of for too long.
async fn silence(run: &Run) {
    loop {
        let heard = *lock(&run.heard);
        if heard.elapsed() >= SILENT + ENDS {
            return;
        }
        if heard.elapsed() >= SILENT {
            run.end("whoever makes the backup is silent");
        }
        tokio::time::sleep(TELLS).await;
    }
}

async fn conversation(
    run: &Arc<Run>,
    source: Arc<dyn Source>,
    told: oneshot::Receiver<Box<Begin>>,
    open: impl FnOnce(&crate::api::BackupStorageLocation, Arc<Borrowed>) -> Result<Store>,
) -> Result<()> {
    let mut over = run.over.subscribe();
    let begin = match tokio::time::timeout(BEGINS, told).await {
        Ok(Ok(begin)) => begin,
        Ok(Err(_)) => {
            // Who hears says why it does not any more.
            let why = over.wait_for(Option::is_some).await;
            let why = why.ok().and_then(|why| why.clone());
            return Err(Error::other(why.unwrap_or_default()));
        }
        Err(_) => return Err(Error::other("nobody says what is to be archived")),
    };
    let (volume, recipients) = match ready(run, &begin, open).await {
        Ok(ready) => ready,
        Err(e) => return run.say(&ToRun::Refused(Told::from(&e))),
    };
    run.say(&ToRun::Reached)?;
    let mut may_write = run.may_write.subscribe();
    tokio::select! {
        _ = may_write.wait_for(|may| *may) => {}
        _ = over.wait_for(Option::is_some) => return Err(Error::new(Kind::Interrupted, "it was not begun")),
    }
    let far = Arc::<Far>::default();
    let watched = Arc::new(Watched {
        source,
        far: Arc::clone(&far),
        run: Arc::clone(run),
    });
    let of = Of {
        backup: begin.backup.clone(),
        uid: begin.backup_uid.clone(),
        host: begin.host.clone(),
    };
    let cache = Asked(Arc::clone(run));
    let ring = Keyring {
        recipients: &recipients,
        passphrase: None,
        identities: &Identities::default(),
        cache: &cache,
    };
    let (stop, stopped) = watch::channel(false);
    let stopping = async {
        let _ = over.wait_for(Option::is_some).await;
        stop.send_replace(true);
        std::future::pending::<()>().await;
    };
    let done = tokio::select! {
        done = volume.backup(watched, &ring, &of, &Base::Newest, stopped) => done,
        () = stopping => return Ok(()),
        () = tells(run, &far) => return Ok(()),
    };
    run.say(&match done {
        Ok(saved) => ToRun::Saved(text(saved)),
        Err(e) => ToRun::Failed(Told::from(&e)),
    })
}

/// The volume's repositories, where the store is within reach, and for whom their keys are.
async fn ready(
    run: &Run,
    begin: &Begin,
    open: impl FnOnce(&crate::api::BackupStorageLocation, Arc<Borrowed>) -> Result<Store>,
) -> Result<(VolumeStore, Recipients)> {
    if begin.version != line::VERSION {
        return Err(Error::invalid(format!(
            "this side speaks version {}, the other one {}",
            line::VERSION,
            begin.version
        )));
    }
    let parts: Vec<&str> = begin.volume.split('/').collect();
    let [cluster, namespace, uid] = parts[..] else {
        return Err(Error::invalid("the volume's name is none"));
    };
    let keys = VolumeKeys::new(cluster, namespace, uid)?;
    let recipients = Recipients::parse([begin.recipients.as_str()])?;
    let borrowed = run.borrowed.get().cloned();
    let borrowed = borrowed.ok_or_else(|| Error::invalid("there are no credentials"))?;
    let store = open(&begin.location, borrowed)?;
    let store = match begin.quiet {
        true => store.impatient(QUIET),
        false => store,
    };
    let volume = VolumeStore::new(&store, &keys)
        .knowing(begin.repositories.clone())
        .quiet(begin.quiet);
    match tokio::time::timeout(REACHES, volume.reach()).await {
        Ok(reached) => reached?,
        Err(_) => {
            return Err(Error::new(
                Kind::Unreachable,
                format!(
                    "{} did not answer within {} s",
                    store.place(),
                    REACHES.as_secs()
                ),
            ));
        }
    }
    Ok((volume, recipients))
}

/// Says how far it is; where the volume itself is waited for, nothing.
async fn tells(run: &Arc<Run>, far: &Far) {
    let (mut told, mut last) = ((0, 0), Instant::now());
    loop {
        tokio::time::sleep(TELLS).await;
        let bytes = far.bytes.load(Ordering::Relaxed);
        let now = (far.entries.load(Ordering::Relaxed), bytes);
        let beats = far.is_read.load(Ordering::Relaxed) && last.elapsed() >= BEATS;
        if now == told && !beats {
            continue;
        }
        (told, last) = (now, Instant::now());
        let run = Arc::clone(run);
        let said = tokio::task::spawn_blocking(move || run.say(&ToRun::Progress(bytes)));
        // Who does not listen any more is heard of elsewhere.
        let _ = said.await;
    }
}

fn text(saved: Saved) -> SavedText {
    let counted = saved.counted;
    SavedText {
        repository: saved.repository,
        snapshot: saved.snapshot,
        base: saved.base,
        run: saved.run,
        entries: counted.entries,
        files: counted.files,
        bytes: counted.bytes,
        read_bytes: counted.read_bytes,
        added_bytes: saved.added_bytes,
        changed: counted.changed_count,
        vanished: counted.vanished_count,
        begun_because: saved.begun_because,
    }
}
