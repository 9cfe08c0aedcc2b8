//! What becomes of an object when it is removed: a bucket with versions hides it, and object lock keeps it until a date. The answer to a HEAD says so
//! in headers that object_store has no word for, so this one request is made here, by a signed URL.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request};
use jiff::Timestamp;
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::Signer;

/// A question takes no longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a bucket keeps of an object that is removed; nothing, as a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What is removed is hidden and stays as an older version.
    pub versions: bool,
    /// Until then nobody may remove its versions.
    pub until: Option<Timestamp>,
    /// Nor may anybody while a legal hold stands.
    pub hold: bool,
}

impl Kept {
    /// Whether its versions can not be removed now.
    pub fn is_locked(&self, now: Timestamp) -> bool {
        self.hold || self.until.is_some_and(|until| until > now)
    }

    /// Both together: the later date counts.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            versions: self.versions || other.versions,
            until: self.until.max(other.until),
            hold: self.hold || other.hold,
        }
    }

    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let until = text("x-amz-object-lock-retain-until-date");
        Self {
            // A bucket whose versions are suspended calls them all `null`.
            versions: text("x-amz-version-id").is_some_and(|id| !id.is_empty() && id != "null"),
            until: until.and_then(|until| until.parse().ok()),
            hold: text("x-amz-object-lock-legal-hold").is_some_and(|on| on == "ON"),
        }
    }
}

/// `locked until 2026-11-21T02:00:00Z`
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.until, self.hold) {
            (Some(until), false) => write!(f, "locked until {until:.0}"),
            (Some(until), true) => write!(f, "locked until {until:.0} and by a legal hold"),
            (None, true) => f.write_str("locked by a legal hold"),
            (None, false) => f.write_str("not locked"),
        }
    }
}

/// Asks a bucket.
#[derive(Debug)]
pub(crate) struct Asker {
    /// Makes the URLs.
    pub signer: Arc<dyn Signer>,
    /// Sends the requests.
    pub client: HttpClient,
}

impl Asker {
    /// What would be kept of an object; nothing where the store does not say.
    pub(crate) async fn ask(&self, path: &Path) -> Kept {
        tokio::time::timeout(PATIENCE, self.headers(path))
            .await
            .ok()
            .flatten()
            .map(|headers| Kept::of(&headers))
            .unwrap_or_default()
    }

    async fn headers(&self, path: &Path) -> Option<HeaderMap> {
        let signed = self.signer.signed_url(Method::HEAD, path, PATIENCE * 3);
        let url = signed.await.ok()?;
        let request = Request::builder().method(Method::HEAD).uri(url.as_str());
        let request = request.body(HttpRequestBody::empty()).ok()?;
        let answer = self.client.execute(request).await.ok()?;
        let (head, _) = answer.into_parts();
        head.status.is_success().then_some(head.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> Kept {
        let headers = headers.iter().map(|(name, value)| {
            let value = value.parse().unwrap();
            (http::HeaderName::from_static(name), value)
        });
        Kept::of(&headers.collect())
    }

    #[test]
    fn versions_and_locks_are_read_from_the_answer() {
        let now: Timestamp = "2026-11-21T02:00:00Z".parse().unwrap();
        assert_eq!(of(&[]), Kept::default());
        assert_eq!(of(&[("x-amz-version-id", "null")]), Kept::default());
        let plain = of(&[("x-amz-version-id", "3f")]);
        assert!(plain.versions && !plain.is_locked(now));
        let locked = of(&[
            ("x-amz-version-id", "3f"),
            ("x-amz-object-lock-mode", "COMPLIANCE"),
            (
                "x-amz-object-lock-retain-until-date",
                "2026-11-22T02:00:00.123Z",
            ),
        ]);
        assert!(locked.is_locked(now));
        assert_eq!(locked.to_string(), "locked until 2026-11-22T02:00:00Z");
        assert!(!locked.is_locked("2026-11-23T02:00:00Z".parse().unwrap()));
        let held = of(&[("x-amz-object-lock-legal-hold", "ON")]);
        assert!(held.is_locked(now));
        let both = plain.and(locked).and(held);
        assert_eq!(both.until, locked.until);
        assert_eq!(
            both.to_string(),
            "locked until 2026-11-22T02:00:00Z and by a legal hold"
        );
    }
}
