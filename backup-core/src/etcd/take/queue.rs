//! Bytes on their way from the thread that packs them to the task that stores them: a few MiB in memory. While they wait there, etcd waits too,
//! with a read transaction open; so a store that makes it wait for too long is not waited for: what comes then goes to a spool, or the
//! snapshot is given up.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::Fault;
use crate::error::{Error, Result};

/// Bytes that wait in memory.
const HELD: usize = 4 << 20;

/// Bytes that are read from the spool at a time.
const CHUNK: u64 = 1 << 20;

/// How often a full queue looks at the clock.
const LOOK: Duration = Duration::from_millis(50);

/// What goes on while etcd holds its read transaction.
#[derive(Debug)]
pub(super) struct Hold {
    since: Instant,
    limit: Duration,
    /// Bytes of the database, and how many of them have come.
    total: u64,
    received: AtomicU64,
    /// Whether all has come: etcd is free, and the store may take its time.
    released: AtomicBool,
}

impl Hold {
    /// From now on; without a limit of the user's it is a minute, or the time that 20 MB/s take.
    pub(super) fn new(total: u64, limit: Option<Duration>) -> Self {
        let usual = Duration::from_secs((total / 20_000_000).max(60));
        Self {
            since: Instant::now(),
            limit: limit.unwrap_or(usual),
            total,
            received: AtomicU64::new(0),
            released: AtomicBool::new(false),
        }
    }

    pub(super) fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Whether the store has made etcd wait for too long: the time is up, and a good part of it (a sixth) was spent waiting for the store. A member
    /// that is slow by itself is not the store's fault, and a spool would not help it.
    fn is_over(&self, waited: Duration) -> bool {
        !self.released.load(Ordering::Relaxed)
            && self.since.elapsed() > self.limit
            && waited > self.limit / 6
    }

    fn rest(&self) -> u64 {
        self.total
            .saturating_sub(self.received.load(Ordering::Relaxed))
    }
}

#[derive(Default)]
struct State {
    ready: VecDeque<Bytes>,
    held: usize,
    /// The spool, and how many bytes of it are written.
    spool: Option<(Arc<File>, u64)>,
    ended: bool,
    /// The other side is gone.
    broken: bool,
}

struct Shared {
    state: Mutex<State>,
    room: Condvar,
    more: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

/// The side of the thread that packs.
pub(super) struct Giver {
    shared: Arc<Shared>,
    hold: Arc<Hold>,
    folder: Option<PathBuf>,
    waited: Duration,
}

/// The side of the task that stores.
pub(super) struct Taker {
    shared: Arc<Shared>,
    /// How many bytes of the spool are taken.
    taken: u64,
}

/// A queue; what it can not hold goes to an unnamed file in `spool`, where that is given.
pub(super) fn queue(hold: Arc<Hold>, spool: Option<&Path>) -> (Giver, Taker) {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        room: Condvar::new(),
        more: Notify::new(),
    });
    (
        Giver {
            shared: Arc::clone(&shared),
            hold,
            folder: spool.map(Path::to_owned),
            waited: Duration::ZERO,
        },
        Taker { shared, taken: 0 },
    )
}

impl Giver {
    /// Hands bytes over; blocks while the other side has enough.
    ///
    /// # Errors
    /// When the store made etcd wait for too long and there is no spool, or none that can be written.
    pub(super) fn give(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let began = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if state.broken {
                return Err(Fault::Neighbours);
            }
            if let Some((file, written)) = &state.spool {
                let (file, at) = (Arc::clone(file), *written);
                drop(state);
                return self.spill(&file, at, &bytes).map_err(Fault::Own);
            }
            if state.held == 0 || state.held + bytes.len() <= HELD {
                state.held += bytes.len();
                state.ready.push_back(bytes);
                self.shared.more.notify_one();
                self.waited += began.elapsed();
                return Ok(());
            }
            if self.hold.is_over(self.waited + began.elapsed()) {
                let file = self.open_spool().map_err(Fault::Own)?;
                state.spool = Some((Arc::new(file), 0));
                continue;
            }
            state = self
                .shared
                .room
                .wait_timeout(state, LOOK)
                .expect("nobody panics while holding it")
                .0;
        }
    }

    fn spill(&self, file: &File, at: u64, bytes: &[u8]) -> Result<()> {
        file.write_all_at(bytes, at).map_err(|e| {
            let folder = self.folder.as_deref().unwrap_or(Path::new("")).display();
            Error::other(format!("can not write to the spool in {folder}"))
                .because(e)
                .hint("free some space there, or name another folder with --spool-dir")
        })?;
        if let Some((_, written)) = &mut self.shared.lock().spool {
            *written = at + bytes.len() as u64;
        }
        self.shared.more.notify_one();
        Ok(())
    }

    fn open_spool(&self) -> Result<File> {
        let seconds = self.hold.since.elapsed().as_secs();
        let stalled = || {
            Error::other(format!(
                "the store does not keep up, or does not answer: etcd had to keep a read transaction open for {seconds} s, and its database grows meanwhile"
            ))
        };
        let Some(folder) = &self.folder else {
            return Err(stalled().hint(
                "give a folder with room for the snapshot with --spool-dir, from which a slow store is fed at its own pace; or wait longer with --hold-limit",
            ));
        };
        let unusable = |e: std::io::Error| {
            stalled().because(
                Error::other(format!("the spool in {} can not be used", folder.display()))
                    .because(e),
            )
        };
        // What is still to come may not shrink at all.
        let need = self.hold.rest() + (HELD as u64);
        let room = rustix::fs::statvfs(folder).map_err(|e| unusable(e.into()))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if free < need {
            return Err(stalled().because(Error::other(format!(
                "the spool in {} has {} MiB free, and up to {} MiB may be needed",
                folder.display(),
                free >> 20,
                need.div_ceil(1 << 20)
            ))));
        }
        let path = folder.join(format!(".etcd-snapshot-{}", uuid::Uuid::new_v4().simple()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        // Nameless from here on: it is gone with this process, however that ends.
        std::fs::remove_file(&path).map_err(unusable)?;
        Ok(file)
    }

    /// Nothing more comes.
    pub(super) fn end(self) {
        self.shared.lock().ended = true;
    }
}

impl Drop for Giver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.broken |= !state.ended;
        drop(state);
        self.shared.more.notify_one();
    }
}

impl Taker {
    /// The next bytes; nothing at the end.
    ///
    /// # Errors
    /// When the other side gave up, and when the spool can not be read.
    pub(super) async fn take(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let spooled = {
                let mut state = self.shared.lock();
                if let Some(bytes) = state.ready.pop_front() {
                    state.held -= bytes.len();
                    self.shared.room.notify_one();
                    return Ok(Some(bytes));
                }
                match &state.spool {
                    Some((file, written)) if *written > self.taken => {
                        Some((Arc::clone(file), *written - self.taken))
                    }
                    _ if state.ended => return Ok(None),
                    _ if state.broken => return Err(Fault::Neighbours),
                    _ => None,
                }
            };
            let Some((file, rest)) = spooled else {
                // One that came since the lock was let go has left its permit.
                self.shared.more.notified().await;
                continue;
            };
            let (at, length) = (self.taken, rest.min(CHUNK));
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = vec![0; length as usize];
                file.read_exact_at(&mut bytes, at).map(|()| bytes)
            })
            .await;
            let bytes = match read {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(e)) => {
                    return Err(Fault::Own(
                        Error::other("the spool can not be read back").because(e),
                    ));
                }
                Err(e) => {
                    return Err(Fault::Own(
                        Error::other("reading the spool broke off").because(e),
                    ));
                }
            };
            self.taken += length;
            return Ok(Some(bytes.into()));
        }
    }

    /// Whether anything went to the spool.
    pub(super) fn has_spooled(&self) -> bool {
        self.shared.lock().spool.is_some()
    }
}

impl Drop for Taker {
    fn drop(&mut self) {
        self.shared.lock().broken = true;
        self.shared.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(number: usize) -> Bytes {
        Bytes::from(vec![number as u8; 1 << 20])
    }

    async fn all(mut taker: Taker) -> Vec<u8> {
        let mut first = Vec::new();
        while let Ok(Some(bytes)) = taker.take().await {
            first.extend(bytes.chunks(1 << 20).map(|chunk| chunk[0]));
        }
        first
    }

    #[tokio::test]
    async fn what_is_given_is_taken_in_order_and_no_more_than_a_few_mebibytes_wait() {
        let hold = Arc::new(Hold::new(1 << 30, None));
        let (mut giver, taker) = queue(hold, None);
        let giving = tokio::task::spawn_blocking(move || {
            for number in 0..32 {
                giver.give(piece(number)).ok().unwrap();
                assert!(giver.shared.lock().held <= HELD);
            }
            giver.end();
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(all(taker).await, (0..32).collect::<Vec<u8>>());
        giving.await.unwrap();
    }

    #[tokio::test]
    async fn a_store_that_stalls_is_fed_from_the_spool_later_and_nothing_is_left_there() {
        let folder = tempfile::tempdir().unwrap();
        let hold = Arc::new(Hold::new(16 << 20, Some(Duration::from_millis(100))));
        let (mut giver, taker) = queue(hold, Some(folder.path()));
        // Nobody takes anything, and all is given all the same.
        tokio::task::spawn_blocking(move || {
            for number in 0..16 {
                giver.give(piece(number)).ok().unwrap();
            }
            giver.end();
        })
        .await
        .unwrap();
        assert!(taker.has_spooled());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        assert_eq!(all(taker).await, (0..16).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn without_a_spool_a_store_that_stalls_ends_it_with_the_reason() {
        let hold = Arc::new(Hold::new(16 << 20, Some(Duration::from_millis(100))));
        let (mut giver, taker) = queue(hold, None);
        let given = tokio::task::spawn_blocking(move || {
            (0..16).try_for_each(|number| giver.give(piece(number)))
        });
        let Err(Fault::Own(error)) = given.await.unwrap() else {
            panic!("it went on");
        };
        assert!(error.to_string().contains("does not keep up"), "{error}");
        assert!(error.hint_text().unwrap().contains("--spool-dir"));
        assert!(!taker.has_spooled());
    }

    #[tokio::test]
    async fn once_all_has_come_from_etcd_the_store_may_take_its_time() {
        let hold = Arc::new(Hold::new(16 << 20, Some(Duration::from_millis(50))));
        hold.release();
        let (mut giver, taker) = queue(hold, None);
        let giving = tokio::task::spawn_blocking(move || {
            let given = (0..16).try_for_each(|number| giver.give(piece(number)));
            giver.end();
            given.is_ok()
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(all(taker).await.len(), 16);
        assert!(giving.await.unwrap());
    }

    #[test]
    fn a_member_that_is_slow_by_itself_is_not_the_stores_fault() {
        let hold = Hold::new(1, Some(Duration::from_millis(60)));
        std::thread::sleep(Duration::from_millis(80));
        assert!(!hold.is_over(Duration::from_millis(5)));
        assert!(hold.is_over(Duration::from_millis(15)));
    }

    #[test]
    fn the_limit_is_a_minute_or_what_20_megabytes_a_second_take() {
        assert_eq!(Hold::new(5, None).limit, Duration::from_secs(60));
        assert_eq!(
            Hold::new(4_000_000_000, None).limit,
            Duration::from_secs(200)
        );
    }

    #[tokio::test]
    async fn each_side_notices_that_the_other_is_gone() {
        let hold = || Arc::new(Hold::new(1, None));
        let (mut giver, taker) = queue(hold(), None);
        drop(taker);
        assert!(matches!(giver.give(piece(0)), Err(Fault::Neighbours)));
        let (giver, mut taker) = queue(hold(), None);
        drop(giver);
        assert!(matches!(taker.take().await, Err(Fault::Neighbours)));
    }
}
