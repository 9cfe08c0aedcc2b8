//! A backend whose uses give up together. While pods are kept quiet for what is written, a store that takes connections and says nothing is waited for once, and not by each use
//! anew: once one of them was answered by nothing for too long, all end, and those that come after. A store that is only slow, as where much is written over a thin line, is asked
//! something small meanwhile, and waited for while it answers that. One that answers and takes no write is known by the small writes that are under way, as that of a claim which is
//! refreshed: what they send takes no time of its own, so that they are not waited for as a large one is.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::backend::{Backend, Failure, Reading, around};
use super::kept::Kept;
use super::lend::Lender;
use super::store::{Created, Entry, Store};
use crate::crypt::file::Sealing;
use crate::error::{Error, Kind};

/// What has failed is tried again by then: the time between is one in which the store is waited for.
const AGAIN: Duration = Duration::from_secs(15);

/// Between two questions, and between two looks whether there is an answer.
const PAUSE: Duration = Duration::from_millis(200);

/// A write of no more bytes waits for the store alone, on whatever line.
const SMALL: usize = 64 << 10;

/// When the store was heard of.
struct Heard {
    /// Uses that wait for it now.
    waiting: usize,
    /// It answered last, or the first of those that wait began.
    at: Instant,
    /// When a write was answered last.
    written: Option<Instant>,
    /// When the last use ended, if that failed and may be tried again.
    failed: Option<Instant>,
    /// Why it did not do what was asked last, where it did not.
    trouble: Option<String>,
    /// Something small is being asked.
    is_asked: bool,
}

/// The cause of a failure, without what was asked: the store's own words, or why there are none.
fn cause(failure: &Failure) -> String {
    let mut cause: &dyn std::error::Error = &failure.error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Whether a store said this, whatever it said.
fn is_answer(failure: &Failure) -> bool {
    !failure.in_doubt && failure.error.kind() != Kind::Unreachable
}

#[derive(Clone)]
struct Impatient {
    inner: Arc<dyn Backend>,
    most: Duration,
    heard: Arc<Mutex<Heard>>,
    /// Why it was given up, once it was.
    over: Arc<watch::Sender<Option<String>>>,
}

/// The one that asks whether the store is there.
struct Asks<'a>(&'a Impatient);

impl<'a> Asks<'a> {
    fn begin(store: &'a Impatient) -> Option<Self> {
        let is_asked = std::mem::replace(&mut store.heard().is_asked, true);
        (!is_asked).then(|| Self(store))
    }
}

impl Drop for Asks<'_> {
    fn drop(&mut self) {
        self.0.heard().is_asked = false;
    }
}

/// One use that waits.
struct Waits<'a>(&'a Impatient);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.heard().waiting -= 1;
    }
}

impl Store {
    /// The location's plain part, for uses that give up together once it said nothing for so long.
    pub(crate) fn impatient(&self, most: Duration) -> Self {
        let mut plain = self.outside();
        let heard = Heard {
            waiting: 0,
            at: Instant::now(),
            written: None,
            failed: None,
            trouble: None,
            is_asked: false,
        };
        plain.backend = Arc::new(Impatient {
            inner: Arc::clone(&plain.backend),
            most,
            heard: Arc::new(Mutex::new(heard)),
            over: Arc::new(watch::Sender::new(None)),
        });
        plain
    }
}

impl Impatient {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends once it was given up.
    async fn over(&self) -> Failure {
        let mut over = self.over.subscribe();
        // Whoever asks has the sender, too.
        let why = match over.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            Err(_) => String::new(),
        };
        let text = format!("{why}, and no pod is kept quiet for longer than that");
        let hint = "look at the store and at the way to it; the next backup tries again";
        Failure {
            in_doubt: true,
            ..Failure::final_answer(Error::new(Kind::Unreachable, text).hint(hint))
        }
    }

    /// Gives it up for all: for what it did so long; what it said last is told, where that was no help.
    async fn give_up(&self, what: &str) -> Failure {
        let trouble = self.heard().trouble.clone();
        let trouble = trouble.map_or_else(String::new, |why| format!(" (before that: {why})"));
        let (place, most) = (self.inner.place(), self.most.as_secs());
        let why = format!("{place} {what} for {most} s{trouble}");
        self.over.send_if_modified(|over| {
            let is_first = over.is_none();
            over.get_or_insert(why);
            is_first
        });
        self.over().await
    }

    /// Waits for this, and no longer than for others.
    async fn answered<T>(
        &self,
        _name: &str,
        key: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.answered_while(key, work, std::future::pending()).await
    }

    /// The same of a write of so many bytes.
    async fn written<T>(
        &self,
        key: &str,
        bytes: usize,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let hangs = async {
            match bytes <= SMALL {
                true => self.unwritten().await,
                false => std::future::pending().await,
            }
        };
        let done = self.answered_while(key, work, hangs).await;
        if done.as_ref().err().is_none_or(is_answer) {
            self.heard().written = Some(Instant::now());
        }
        done
    }

    /// Waits for this, and no longer than for others, nor than until one of all is given up for another reason.
    async fn answered_while<T>(
        &self,
        key: &str,
        work: impl Future<Output = Result<T, Failure>>,
        hangs: impl Future<Output = ()>,
    ) -> Result<T, Failure> {
        if self.over.borrow().is_some() {
            return Err(self.over().await);
        }
        {
            let mut heard = self.heard();
            let is_new = heard.failed.is_none_or(|at| at.elapsed() > AGAIN);
            if heard.waiting == 0 && is_new {
                heard.at = Instant::now();
            }
            heard.waiting += 1;
        }
        let _waits = Waits(self);
        let done = tokio::select! {
            biased;
            done = work => done,
            over = self.over() => return Err(over),
            () = self.silence(key) => return Err(self.give_up("said nothing").await),
            () = hangs => return Err(self.give_up("answers, and took nothing that was written to it").await),
        };
        let mut heard = self.heard();
        let failure = done.as_ref().err().filter(|failure| failure.transient);
        heard.trouble = failure.map(cause);
        match failure {
            Some(failure) if !is_answer(failure) => heard.failed = Some(Instant::now()),
            _ => (heard.at, heard.failed) = (Instant::now(), None),
        }
        drop(heard);
        done
    }

    /// Ends when a small write that begins now had its time, and no write was answered meanwhile, but something else was.
    async fn unwritten(&self) {
        let began = Instant::now();
        let last = || self.heard().written.map_or(began, |at| at.max(began));
        loop {
            let before = last();
            sleep_until(before + self.most * 3 / 4).await;
            // Where everything stood still for a while, its answer may be on its way.
            sleep(self.most / 4).await;
            // Who was not heard of at all is silent.
            if last() == before && self.heard().at > before {
                return;
            }
        }
    }

    /// Ends when it was silent for too long: who was not heard of for half of that is asked something small, again and again, and it is over only after a question that had its time.
    async fn silence(&self, key: &str) {
        loop {
            let (half, due) = {
                let heard = self.heard();
                (heard.at + self.most / 2, heard.at + self.most)
            };
            if Instant::now() < half {
                sleep_until(half).await;
                continue;
            }
            // One of all that wait asks. That it did is forgotten where it ends before the answer.
            let Some(asks) = Asks::begin(self) else {
                sleep(PAUSE).await;
                continue;
            };
            // Where everything stood still for a while, `due` is past before anybody was asked.
            let until = due.max(Instant::now() + self.most / 4);
            let asked = self.inner.head(key.trim_end_matches('/'));
            let told = match timeout_at(until, asked).await {
                Ok(Ok(_)) => true,
                // Whatever the store said, it said something.
                Ok(Err(failure)) => is_answer(&failure),
                Err(_) => false,
            };
            drop(asks);
            {
                let mut heard = self.heard();
                if told {
                    heard.at = Instant::now();
                    continue;
                }
                if Instant::now() >= heard.at + self.most {
                    return;
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// The same of each thing that comes.
    fn each<T: Send + 'static>(
        &self,
        key: &str,
        items: BoxStream<'static, Result<T, Failure>>,
    ) -> BoxStream<'static, Result<T, Failure>> {
        let state = (self.clone(), key.to_owned(), items);
        stream::try_unfold(state, |(this, key, mut items)| async move {
            let next = async { items.next().await.transpose() };
            let next = this.answered("next", &key, next).await?;
            Ok(next.map(|next| (next, (this, key, items))))
        })
        .boxed()
    }
}

around! {
    Impatient: answered {
        head(key) -> Entry;
        delete(key) -> ();
        folders(folder) -> Vec<String>;
        begin(key) -> String;
        complete(key, id: &str, parts: Vec<String>) -> ();
        abort(key, id: &str) -> ();
        may_write(key) -> ();
        kept(key) -> Kept;
        signed(key, lasts: Duration) -> Option<String>;
        sweep(folder) -> ();
    }

    fn place(&self) -> &str {
        self.inner.place()
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Reading, Failure> {
        let reading = self.answered("get", key, self.inner.get(key, range)).await?;
        Ok(Reading {
            body: self.each(key, reading.body),
            ..reading
        })
    }

    async fn put(&self, key: &str, bytes: Bytes, create: bool) -> Result<Created, Failure> {
        let many = bytes.len();
        self.written(key, many, self.inner.put(key, bytes, create))
            .await
    }

    async fn part(
        &self,
        key: &str,
        id: &str,
        number: usize,
        at: u64,
        bytes: Bytes,
    ) -> Result<String, Failure> {
        let many = bytes.len();
        self.written(key, many, self.inner.part(key, id, number, at, bytes))
            .await
    }

    fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Entry, Failure>> {
        self.each(folder, self.inner.list(folder, after))
    }

    fn lists_in_order(&self) -> bool {
        self.inner.lists_in_order()
    }

    fn lender(&self) -> Result<Arc<dyn Lender>, String> {
        self.inner.lender()
    }

    fn sealing(&self, key: &str) -> Result<Option<Sealing>, Error> {
        self.inner.sealing(key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::trial::{Fate, Trial};
    use super::*;

    const MOST: Duration = Duration::from_secs(30);

    /// What takes its time on a slow line.
    fn pack() -> Bytes {
        vec![0; SMALL + 1].into()
    }

    /// A store of which these operations are answered by nothing while it is said so.
    fn silent(verbs: &'static [&'static str]) -> (Store, Arc<AtomicBool>) {
        let is_silent = Arc::new(AtomicBool::new(true));
        let says = Arc::clone(&is_silent);
        let trial = Trial::of(&Store::in_memory()).judged(move |verb, _| {
            match verbs.contains(&verb) && says.load(Ordering::SeqCst) {
                true => Fate::Hangs,
                false => Fate::Happens,
            }
        });
        (trial.store(), is_silent)
    }

    #[tokio::test(start_paused = true)]
    async fn all_uses_of_a_store_that_says_nothing_end_together_and_those_that_follow_at_once() {
        let (store, _) = silent(&["put", "head", "list", "delete"]);
        let store = store.impatient(MOST);
        let began = Instant::now();
        let later = async {
            tokio::time::sleep(MOST / 3).await;
            store.list("folder/").next().await.unwrap().map(drop)
        };
        let put = store.put("a", Bytes::new());
        let (put, listed) = futures::join!(put, later);
        for ended in [put, listed, store.delete("a").await] {
            let e = ended.unwrap_err();
            assert_eq!(e.kind(), Kind::Unreachable, "{e}");
        }
        assert_eq!(began.elapsed().as_secs(), MOST.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_slow_and_answers_is_waited_for() {
        let (store, is_silent) = silent(&["put"]);
        let store = store.impatient(MOST);
        let put = store.put("a", pack());
        let answers = async {
            tokio::time::sleep(MOST * 4).await;
            is_silent.store(false, Ordering::SeqCst);
        };
        tokio::select! {
            ended = put => panic!("{ended:?}"),
            () = answers => {}
        }
        store.put("a", Bytes::new()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_while_it_asks_leaves_the_question_to_the_others() {
        let (inner, is_silent) = silent(&["head"]);
        let trial = Trial::of(&inner).judged(|verb, _| match verb {
            "put" => Fate::Hangs,
            _ => Fate::Happens,
        });
        let store = trial.store().impatient(MOST);
        let asks = tokio::time::timeout(MOST * 5 / 8, store.put("a", pack()));
        let waits = tokio::time::timeout(MOST * 4, store.put("b", pack()));
        let answers = async {
            tokio::time::sleep(MOST * 9 / 16).await;
            is_silent.store(false, Ordering::SeqCst);
        };
        let (asks, waits, ()) = futures::join!(asks, waits, answers);
        assert!(asks.is_err() && waits.is_err(), "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_over_before_it_was_asked_however_long_everything_stood_still() {
        let (store, _) = silent(&["put"]);
        let store = store.impatient(MOST);
        let stands_still = async {
            tokio::time::sleep(MOST / 10).await;
            tokio::time::advance(MOST * 3).await;
            tokio::time::sleep(MOST).await;
        };
        tokio::select! {
            ended = store.put("a", pack()) => panic!("{ended:?}"),
            () = stands_still => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asked_of_it_is_no_silence() {
        let store = Store::in_memory().impatient(MOST);
        for _ in 0..3 {
            store.put("a", Bytes::new()).await.unwrap();
            tokio::time::sleep(MOST * 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_and_takes_nothing_is_given_up_by_a_small_write_and_not_by_a_large_one()
     {
        let (store, _) = silent(&["put"]);
        let store = store.impatient(MOST);
        let began = Instant::now();
        let small = async {
            tokio::time::sleep(MOST * 2).await;
            store.put("claim", Bytes::new()).await
        };
        let (large, small) = futures::join!(store.put("a", pack()), small);
        for ended in [large, small, store.put("b", pack()).await] {
            let said = ended.unwrap_err().sentence();
            assert!(said.contains("took nothing that was written"), "{said}");
        }
        assert_eq!(began.elapsed(), MOST * 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_write_is_waited_for_as_long_as_others_are_answered_and_after_a_standstill() {
        let trial = Trial::of(&Store::in_memory()).judged(|verb, key| match (verb, key) {
            ("put", "claim") => Fate::Hangs,
            _ => Fate::Happens,
        });
        let store = trial.store().impatient(MOST);
        let others = async {
            for _ in 0..8 {
                tokio::time::sleep(MOST / 2).await;
                store.put("a", pack()).await.unwrap();
            }
            // Nothing is answered for long, and then what was asked last.
            tokio::time::advance(MOST * 3).await;
            tokio::time::sleep(MOST / 8).await;
            store.put("a", pack()).await.unwrap();
            tokio::time::sleep(MOST / 2).await;
        };
        tokio::select! {
            ended = store.put("claim", Bytes::new()) => panic!("{ended:?}"),
            () = others => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_it_said_before_it_fell_silent_is_told() {
        let busy = std::sync::atomic::AtomicBool::new(true);
        let trial = Trial::of(&Store::in_memory()).judged(move |verb, _| match verb {
            "put" if busy.swap(false, Ordering::SeqCst) => Fate::Busy,
            _ => Fate::Hangs,
        });
        let said = trial.store().impatient(MOST).put("a", pack()).await;
        let said = said.unwrap_err().sentence();
        assert!(said.contains("said nothing for 30 s"), "{said}");
        assert!(said.contains("answered 503"), "{said}");
    }
}
