//! A store for tests that does what a test tells it: it fails, forgets answers, overwrites, shifts times, and lets a schedule decide whose
//! operation comes next.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::SignedDuration;
use tokio::sync::{Notify, oneshot};

use super::backend::{Backend, Failure, Reading, around};
use super::kept::Kept;
use super::store::{Created, Entry, Store};
use crate::error::{Error, Kind};

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Happens,
    /// The store says no.
    Refused,
    /// It says that it has no time now.
    Busy,
    /// It is done, and the answer is lost.
    Forgotten,
    /// It is not done, and there is no answer.
    Vanishes,
    /// It is never answered.
    Hangs,
}

type Hides = dyn Fn(&str) -> bool + Send + Sync;
type Judge = dyn Fn(&str, &str) -> Fate + Send + Sync;

/// Wraps a store.
#[derive(Clone)]
pub(crate) struct Trial {
    inner: Arc<dyn Backend>,
    judge: Arc<Judge>,
    overwrites: bool,
    ages: Arc<Mutex<HashMap<String, SignedDuration>>>,
    turn: Option<(Turns, usize)>,
    claims_last: bool,
    hides: Arc<Hides>,
}

impl Trial {
    pub(crate) fn of(store: &Store) -> Self {
        Self {
            inner: store.backend.clone(),
            judge: Arc::new(|_, _| Fate::Happens),
            overwrites: false,
            ages: Arc::default(),
            turn: None,
            claims_last: false,
            hides: Arc::new(|_| false),
        }
    }

    /// Lists nothing of these folders, as if nothing were there.
    pub(crate) fn hiding(mut self, hides: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.hides = Arc::new(hides);
        self
    }

    /// Decides the fate of each operation by its verb and key.
    pub(crate) fn judged(
        mut self,
        judge: impl Fn(&str, &str) -> Fate + Send + Sync + 'static,
    ) -> Self {
        self.judge = Arc::new(judge);
        self
    }

    /// Accepts the create-only condition and overwrites all the same.
    pub(crate) fn overwriting(mut self) -> Self {
        self.overwrites = true;
        self
    }

    /// The objects of the run `number` wait for their turn before each put, delete and half of a listing.
    pub(crate) fn in_turn(mut self, turns: &Turns, number: usize, claims_last: bool) -> Self {
        self.turn = Some((turns.clone(), number));
        self.claims_last = claims_last;
        self
    }

    /// Makes an object look so much older.
    pub(crate) fn age(&self, key: &str, by: SignedDuration) {
        self.ages.lock().unwrap().insert(key.to_owned(), by);
    }

    pub(crate) fn store(&self) -> Store {
        Store::new(Arc::new(self.clone()), "", false)
    }

    async fn wait(&self) {
        if let Some((turns, number)) = &self.turn {
            turns.wait(*number).await;
        }
    }

    fn aged(&self, mut entry: Entry) -> Entry {
        if let Some(by) = self.ages.lock().unwrap().get(&entry.key) {
            entry.modified -= *by;
        }
        entry
    }

    async fn judge<T>(
        &self,
        verb: &str,
        key: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let lost = || Failure {
            error: Error::new(Kind::Unreachable, format!("no answer to {verb} {key}")),
            transient: false,
            in_doubt: true,
            unsupported: false,
        };
        match (self.judge)(verb, key) {
            Fate::Happens => work.await,
            Fate::Refused => Err(Failure::final_answer(Error::new(
                Kind::Forbidden,
                format!("{verb} {key} is refused"),
            ))),
            Fate::Busy => Err(Failure {
                transient: true,
                ..Failure::final_answer(
                    Error::other(format!("can not {verb} {key}"))
                        .because(Error::other("the store answered 503 SlowDown")),
                )
            }),
            Fate::Forgotten => {
                work.await?;
                Err(lost())
            }
            Fate::Vanishes => Err(lost()),
            Fate::Hangs => std::future::pending().await,
        }
    }
}

around! {
    Trial: judge {
        get(key, range: Option<Range<u64>>) -> Reading;
        begin(key) -> String;
        part(key, id: &str, number: usize, at: u64, bytes: Bytes) -> String;
        complete(key, id: &str, parts: Vec<String>) -> ();
        abort(key, id: &str) -> ();
        kept(key) -> Kept;
    }

    fn place(&self) -> &str {
        "a trial"
    }

    async fn head(&self, key: &str) -> Result<Entry, Failure> {
        let found = self.judge("head", key, self.inner.head(key)).await?;
        Ok(self.aged(found))
    }

    async fn put(&self, key: &str, bytes: Bytes, create: bool) -> Result<Created, Failure> {
        self.wait().await;
        self.ages.lock().unwrap().remove(key);
        let create = create && !self.overwrites;
        self.judge("put", key, self.inner.put(key, bytes, create))
            .await
    }

    async fn delete(&self, key: &str) -> Result<(), Failure> {
        self.wait().await;
        self.judge("delete", key, self.inner.delete(key)).await
    }

    /// No snapshot: claims and other files are looked at at two moments.
    fn list(
        &self,
        folder: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Entry, Failure>> {
        let (this, folder) = (self.clone(), folder.to_owned());
        let after = after.map(str::to_owned);
        stream::once(async move {
            let mut found = Vec::new();
            if (this.hides)(&folder) {
                return Ok(stream::iter(found));
            }
            for claims in [!this.claims_last, this.claims_last] {
                this.wait().await;
                let all: Vec<_> = this.inner.list(&folder, after.as_deref()).collect().await;
                found.extend(all.into_iter().filter(|entry| {
                    entry
                        .as_ref()
                        .is_ok_and(|entry| entry.key.contains("/claim-") == claims)
                }));
            }
            let found: Vec<_> = found
                .into_iter()
                .map(|entry| entry.map(|entry| this.aged(entry)))
                .collect();
            this.judge("list", &folder, async { Ok(stream::iter(found)) })
                .await
        })
        .flat_map(|found| match found {
            Ok(found) => found.left_stream(),
            Err(e) => stream::once(async { Err(e) }).right_stream(),
        })
        .boxed()
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Failure> {
        if (self.hides)(folder) {
            return Ok(Vec::new());
        }
        self.inner.folders(folder).await
    }

    fn lists_in_order(&self) -> bool {
        false
    }
}

/// Lets one run at a time do one operation.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    runs: Arc<Mutex<Vec<Run>>>,
    changed: Arc<Notify>,
}

enum Run {
    Busy,
    Waits(oneshot::Sender<()>),
    Over,
}

impl Turns {
    pub(crate) fn of(runs: usize) -> Self {
        let turns = Self::default();
        turns
            .runs
            .lock()
            .unwrap()
            .extend((0..runs).map(|_| Run::Busy));
        turns
    }

    async fn wait(&self, number: usize) {
        let (go, gone) = oneshot::channel();
        self.runs.lock().unwrap()[number] = Run::Waits(go);
        self.changed.notify_one();
        let _ = gone.await;
    }

    /// Says that a run is over when it is dropped, by a panic as well.
    pub(crate) fn until_over(&self, number: usize) -> impl Drop + Send + use<> {
        struct Over(Turns, usize);
        impl Drop for Over {
            fn drop(&mut self) {
                self.0.runs.lock().unwrap()[self.1] = Run::Over;
                self.0.changed.notify_one();
            }
        }
        Over(self.clone(), number)
    }

    /// Goes through one schedule: `choices[i]` picks among the runs that wait at step i, the first where it says nothing. Returns how many
    /// could be picked at each step.
    pub(crate) async fn drive(&self, choices: &[usize]) -> Vec<usize> {
        let mut ways = Vec::new();
        loop {
            let changed = self.changed.notified();
            let next = {
                let mut runs = self.runs.lock().unwrap();
                if runs.iter().any(|run| matches!(run, Run::Busy)) {
                    None
                } else {
                    let waiting: Vec<usize> = (0..runs.len())
                        .filter(|i| matches!(runs[*i], Run::Waits(_)))
                        .collect();
                    if waiting.is_empty() {
                        return ways;
                    }
                    let pick = choices.get(ways.len()).copied().unwrap_or(0);
                    ways.push(waiting.len());
                    let run = &mut runs[waiting[pick]];
                    Some(std::mem::replace(run, Run::Busy))
                }
            };
            match next {
                Some(Run::Waits(go)) => {
                    let _ = go.send(());
                }
                _ => changed.await,
            }
        }
    }
}

/// The schedule after this one, in the order of an odometer; nothing after the last.
pub(crate) fn next_schedule(mut choices: Vec<usize>, ways: &[usize]) -> Option<Vec<usize>> {
    choices.resize(ways.len(), 0);
    while let Some(last) = choices.pop() {
        if last + 1 < ways[choices.len()] {
            choices.push(last + 1);
            return Some(choices);
        }
    }
    None
}
