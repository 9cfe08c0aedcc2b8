//! Requests, of whatever kind: each is answered once, and removed when its answer is over. What the answer is, and how long it stands, is its kind's.

use std::sync::Arc;

use backup_core::error::Result;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::desk::{Desk, Work};
use super::objects::{Objects, phase};

/// One look at all requests of a kind.
pub(super) fn turn<F, Fut>(
    desk: &Arc<Desk>,
    of: fn(&Desk) -> &Objects,
    is_over: fn(&Value, Timestamp) -> bool,
    answer: F,
) where
    F: Fn(Arc<Desk>, Arc<Value>, watch::Receiver<bool>) -> Fut + Copy,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let now = desk.now();
    for object in of(desk).all() {
        if !desk.is_free(&object) {
            continue;
        }
        if matches!(phase(&object), "" | "New") {
            desk.begin(&object, Work::Small, answer);
        } else if is_over(&object, now) {
            desk.begin(&object, Work::Small, move |desk, object, _| async move {
                of(&desk).delete(&object).await.map(drop)
            });
        }
    }
}
