//! Which controller of a namespace works: the holder of a Lease. It spares work and fences nothing: claims in the bucket and the versions of objects do that.

use std::time::Duration;

use backup_core::cluster::Cluster;
use backup_core::lease::{Times, Turn};
use backup_core::stopwatch::{awake_or_asleep, since};

use crate::install::LEASE;

const TIMES: Times = Times {
    renewed: Duration::from_secs(4),
    silence: Duration::from_secs(20),
};

/// An answer about the Lease takes no longer, or there is none now.
const PATIENCE: Duration = Duration::from_secs(3);

/// Without an answer, what was ours counts as ours for so long: nobody takes it before [`TIMES`] says so.
const STILL: Duration = Duration::from_secs(12);

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This controller.
    Mine,
    /// Nobody knows: nothing is begun, and what is under way goes on.
    Unknown,
    /// Another one: nothing is begun, and what is under way stops.
    Others,
}

/// The Lease as this controller has seen it.
pub(crate) struct Leader {
    turn: Turn,
    namespace: String,
    mine_at: Option<Duration>,
    why: Option<String>,
}

impl Leader {
    /// Nothing is seen yet.
    pub(crate) fn new(namespace: &str, me: &str) -> Self {
        Self {
            turn: Turn::new(LEASE.to_owned(), me, TIMES),
            namespace: namespace.to_owned(),
            mine_at: None,
            why: None,
        }
    }

    /// Who works now.
    pub(crate) async fn look(&mut self, cluster: &Cluster) -> Standing {
        let asked = self.turn.is_mine(cluster.client(), &self.namespace, true);
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        self.why = match &answer {
            Ok(Ok(_)) => None,
            Ok(Err(e)) => Some(e.sentence()),
            Err(_) => Some("the API server does not answer".to_owned()),
        };
        if let Ok(Ok(true)) = answer {
            self.mine_at = Some(awake_or_asleep());
        }
        let answer = answer.ok().and_then(Result::ok);
        let standing = decide(answer, self.turn.is_anothers(), self.mine_at.map(since));
        if standing == Standing::Others {
            self.mine_at = None;
        }
        standing
    }

    /// Why nobody knows, for a message.
    pub(crate) fn why(&self) -> String {
        let why = self.why.as_deref();
        why.map(|why| format!(" ({why})")).unwrap_or_default()
    }

    /// Hands it on.
    pub(crate) async fn leave(mut self, cluster: &Cluster) {
        let left = self.turn.is_mine(cluster.client(), &self.namespace, false);
        // Else it is taken in a while.
        let _ = tokio::time::timeout(PATIENCE, left).await;
    }
}

/// What an answer means, or none: another holder counts only when he was seen.
fn decide(answer: Option<bool>, is_anothers: bool, since_mine: Option<Duration>) -> Standing {
    match answer {
        Some(true) => Standing::Mine,
        Some(false) if is_anothers => Standing::Others,
        Some(false) | None if since_mine.is_some_and(|since| since < STILL) => Standing::Mine,
        Some(false) | None => Standing::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_goes_on_until_another_holder_is_seen_and_nothing_is_begun_without_the_lease() {
        let (soon, late) = (Some(Duration::from_secs(5)), Some(Duration::from_secs(15)));
        assert_eq!(decide(Some(true), false, None), Standing::Mine);
        assert_eq!(decide(None, false, soon), Standing::Mine);
        assert_eq!(decide(None, false, late), Standing::Unknown);
        assert_eq!(decide(None, false, None), Standing::Unknown);
        // Somebody wrote to it at the same moment, and who holds it was not seen.
        assert_eq!(decide(Some(false), false, soon), Standing::Mine);
        assert_eq!(decide(Some(false), true, soon), Standing::Others);
    }
}
