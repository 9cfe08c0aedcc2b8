//! Who runs what a note says is owed: an object beside it, which says so for as long as its process shows itself. Two that find a note at once may both
//! withdraw; never do both go on.

use std::time::Duration;

use jiff::SignedDuration;

use super::MOST;
use crate::error::{Error, Result};
use crate::hooks::Process;
use crate::layout::HOOKS;
use crate::location::store::{Entry, Store};

/// A taker that did not show itself for so long is dead; it does each minute.
const TAKEN: SignedDuration = SignedDuration::from_mins(5);
const SHOWS: Duration = Duration::from_secs(60);

/// A taker names its process.
const LARGEST_TAKER: u64 = 4 << 10;

/// How often one that met another tries again.
const TRIES: u32 = 3;

/// Says that this one runs the hooks of a note; nothing where another one says so, too. It needs list-after-write only.
pub(super) async fn take(store: &Store, note: &str, me: &Process) -> Result<Option<String>> {
    let stem = note.strip_suffix(".json").unwrap_or(note);
    let prefix = format!("{stem}.taken-");
    let mut tries = 0;
    loop {
        let own = format!("{prefix}{}", uuid::Uuid::new_v4().simple());
        store.put(&own, named(me)?).await?;
        let found = store.entries(HOOKS, 2 * MOST).await;
        let found = match found {
            Ok(found) => found,
            Err(e) => {
                let _ = store.delete(&own).await;
                return Err(e);
            }
        };
        let mine = found.iter().find(|entry| entry.key == own);
        let mut is_alone = mine.is_some();
        let others = found
            .iter()
            .filter(|e| e.key.starts_with(&prefix) && e.key != own);
        for other in others {
            let is_old = mine.is_some_and(|m| m.modified.duration_since(other.modified) > TAKEN);
            is_alone &= is_old || is_dead(store, other, me).await;
        }
        if is_alone {
            // What dead takers left.
            for other in found
                .iter()
                .filter(|e| e.key.starts_with(&prefix) && e.key != own)
            {
                let _ = store.delete(&other.key).await;
            }
            return Ok(Some(own));
        }
        store.delete(&own).await?;
        tries += 1;
        if tries >= TRIES {
            return Ok(None);
        }
        // Not both at the same pace.
        let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
        tokio::time::sleep(Duration::from_millis(200 + random * 8)).await;
    }
}

/// What a taker holds.
fn named(me: &Process) -> Result<bytes::Bytes> {
    let text = serde_json::to_vec(me);
    text.map(Into::into)
        .map_err(|e| Error::other("a process can not be written as JSON").because(e))
}

/// Whether a taker's process is one that this one sees to be gone.
async fn is_dead(store: &Store, taker: &Entry, me: &Process) -> bool {
    match store.find(&taker.key, LARGEST_TAKER).await {
        Ok(Some(bytes)) => {
            serde_json::from_slice(&bytes).is_ok_and(|process: Process| me.sees_dead(&process))
        }
        // It has ended in between, and may have done what is owed.
        Ok(None) | Err(_) => false,
    }
}

/// Keeps a taker young, as long as it is awaited.
pub(super) async fn show<T>(store: &Store, taken: &str, me: &Process) -> Result<T> {
    loop {
        tokio::time::sleep(SHOWS).await;
        let _ = store.put(taken, named(me)?).await;
    }
}
