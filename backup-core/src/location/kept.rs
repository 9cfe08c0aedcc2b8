//! What becomes of an object when it is removed: a bucket with versions hides it, and object lock keeps it until a date. The answer to a HEAD says so
//! in headers that object_store has no word for, so they are read where the answer comes in. A store leaves those of a lock out for who may not
//! read them (s3:GetObjectRetention, s3:GetObjectLegalHold); that it keeps versions, it says to everybody.
//!
//! S3 and Google Cloud Storage use the same names but for `amz` and `goog`; Google does not say whether it keeps versions, and neither Google nor
//! Azure tell of a policy of the whole bucket or container here: it shows when something is removed. Azure's dates are those of HTTP.

use std::fmt;

use async_trait::async_trait;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

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
        let first = |names: &[&str]| names.iter().find_map(|name| text(name));
        let date = first(&[
            "x-amz-object-lock-retain-until-date",
            "x-goog-object-lock-retain-until-date",
            "x-ms-immutability-policy-until-date",
        ]);
        let until = date.and_then(|date| {
            let of_http = || jiff::fmt::rfc2822::parse(date).map(|zoned| zoned.timestamp());
            date.parse().or_else(|_| of_http()).ok()
        });
        let held = first(&["x-amz-object-lock-legal-hold", "x-ms-legal-hold"]);
        let version = first(&["x-amz-version-id", "x-ms-version-id"]);
        Self {
            // A bucket whose versions are suspended calls them all `null`.
            versions: version.is_some_and(|id| !id.is_empty() && id != "null"),
            until,
            // A date that nobody understands is no end.
            hold: held.is_some_and(|on| on == "ON" || on == "true")
                || date.is_some() && until.is_none(),
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

/// Makes clients that put what the answer to a HEAD says of this into the answer's extensions, from where object_store hands it on.
#[derive(Debug, Default)]
pub(crate) struct Attentive(ReqwestConnector);

#[derive(Debug)]
struct Client(HttpClient);

impl HttpConnector for Attentive {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Client(self.0.connect(options)?)))
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = request.method() == Method::HEAD;
        let mut answer = self.0.execute(request).await?;
        if asked {
            let kept = Kept::of(answer.headers());
            answer.extensions_mut().insert(kept);
        }
        Ok(answer)
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
        assert!(of(&[("x-amz-object-lock-retain-until-date", "soon")]).is_locked(now));
        let google = of(&[(
            "x-goog-object-lock-retain-until-date",
            "2026-11-22T02:00:00Z",
        )]);
        let azure = of(&[
            ("x-ms-version-id", "2026-11-21T02:00:00.1234567Z"),
            (
                "x-ms-immutability-policy-until-date",
                "Sun, 22 Nov 2026 02:00:00 GMT",
            ),
        ]);
        assert_eq!(google.until, "2026-11-22T02:00:00Z".parse().ok());
        assert!(!google.versions && azure.versions);
        assert_eq!(azure.until, google.until);
        assert!(of(&[("x-ms-legal-hold", "true")]).hold);
        assert!(!of(&[("x-ms-legal-hold", "false")]).hold);
        let both = plain.and(locked).and(held);
        assert_eq!(both.until, locked.until);
        assert_eq!(
            both.to_string(),
            "locked until 2026-11-22T02:00:00Z and by a legal hold"
        );
    }
}
