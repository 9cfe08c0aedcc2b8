//! A server that is away for a while: as long as a backup waits for it, a restore does.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::ApiError;
use crate::error::Kind;

/// How long a server may be away.
const ABSENCE: Duration = Duration::from_secs(60);
/// The first pause between two attempts, and the longest.
const PAUSES: (Duration, Duration) = if cfg!(test) {
    (Duration::from_millis(1), Duration::from_millis(2))
} else {
    (Duration::from_millis(200), Duration::from_secs(5))
};

/// One absence of the server.
#[derive(Debug, Default)]
pub(super) struct Absence {
    since: Option<Instant>,
    pause: Duration,
}

impl Absence {
    /// Waits a little and says that it is worth asking again; false where the server answered, or has been away for too long.
    pub(super) async fn passes(&mut self, error: &ApiError) -> bool {
        if error.code != 0 || error.kind != Some(Kind::Unreachable) {
            return false;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= ABSENCE {
            return false;
        }
        let (first, longest) = PAUSES;
        self.pause = (self.pause * 2).clamp(first, longest);
        tokio::time::sleep(self.pause).await;
        true
    }
}

/// Asks again as long as the server is away. Only for what may be asked twice.
///
/// # Errors
/// The server's, or that it stays away.
pub(super) async fn patiently<T, F>(mut ask: impl FnMut() -> F) -> Result<T, ApiError>
where
    F: Future<Output = Result<T, ApiError>>,
{
    let mut absence = Absence::default();
    loop {
        match ask().await {
            Err(e) if absence.passes(&e).await => {}
            answer => return answer,
        }
    }
}

/// A pause before another attempt at what somebody else changed in between: each twice as long as the one before.
pub(super) async fn back_off(attempt: u32) {
    let (first, longest) = PAUSES;
    tokio::time::sleep((first / 4 * 2u32.saturating_pow(attempt)).min(longest)).await;
}
