//! ServerStatusRequests: which server is there. Answered, and gone a minute later.

use std::sync::Arc;

use backup_core::error::Result;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::Desk;
use super::objects::time;
use super::requests;

/// How long an answer stands, as long as Velero's.
const STANDS: SignedDuration = SignedDuration::from_mins(1);

/// One look at all requests.
pub(crate) fn turn(desk: &Arc<Desk>) {
    requests::turn(desk, |desk| &desk.questions, is_over, answer);
}

fn is_over(object: &Value, now: Timestamp) -> bool {
    let answered = time(object, "/status/processedTimestamp");
    answered.is_none_or(|at| at > now || now.duration_since(at) > STANDS)
}

async fn answer(desk: Arc<Desk>, object: Arc<Value>, _: watch::Receiver<bool>) -> Result<()> {
    let patch = json!({"status": {
        "phase": "Processed",
        "processedTimestamp": format!("{:.0}", desk.now()),
        "serverVersion": format!("kubectl-backup-v{}", env!("CARGO_PKG_VERSION")),
        "plugins": [],
    }});
    desk.questions.decide(&object, patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_for_a_minute() {
        let now: Timestamp = "2026-11-21T02:10:00Z".parse().unwrap();
        let at = |text: &str| is_over(&json!({"status": {"processedTimestamp": text}}), now);
        assert!(!at("2026-11-21T02:09:00Z"));
        assert!(at("2026-11-21T02:08:59Z"));
        assert!(at("2026-11-21T02:10:01Z"));
    }
}
