//! Follows an object that a controller works on to its end. Only looks: who stops following stops nothing.

use std::time::Duration;

use backup_cli::interrupt::interrupted;
use backup_core::error::Kind;
use backup_core::{Error, progress::Progress};
use serde_json::Value;
use tokio::time::Instant;

use super::{Work, lease};
use crate::commands::schedule::objects;
use crate::context::Context;
use crate::install::LEASE;
use backup_cli::error::{Exit, Result};

/// Between two looks.
const OFTEN: Duration = Duration::from_millis(500);

/// Between two looks at the Lease, and how long it may stand still; an API server that does not answer is borne for as long.
const LEASE_EVERY: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(60);

/// How following ended.
pub(crate) enum Ended {
    /// The object as it stands, done or partially so, and the exit code that says which.
    Done(Box<Value>, Exit),
    /// The user does not wait for it.
    Left,
}

/// Follows an object that was made: until it has ended, the user has enough of it, or no controller is left.
///
/// # Errors
/// What failed, with its reasons; an object that is gone; a controller that is silent.
pub(crate) async fn follow(
    context: &Context,
    namespace: &str,
    work: Work,
    made: &Value,
) -> Result<Ended> {
    let name = made["metadata"]["name"].as_str().unwrap_or_default();
    let uid = &made["metadata"]["uid"];
    let bar = context.ui.progress();
    let ended = tokio::select! {
        ended = end(context, namespace, work, name, uid, &bar) => Some(ended),
        _ = interrupted() => None,
    };
    drop(bar);
    match ended {
        Some(object) => judge(context, work, name, object?),
        None => {
            context.ui.say(&format!(
                "{} {name} goes on in the cluster; to stop it: kubectl -n {namespace} delete {}.velero.io {name}",
                work.title(), work.plural()
            ));
            Ok(Ended::Left)
        }
    }
}

/// Its object when it has ended.
async fn end(
    context: &Context,
    namespace: &str,
    work: Work,
    name: &str,
    uid: &Value,
    bar: &dyn Progress,
) -> Result<Value> {
    let title = work.title();
    let mut answered = Instant::now();
    let mut pulse = Pulse::new();
    let mut done = [0; 2];
    loop {
        match objects::get(context, namespace, work.plural(), name).await {
            Ok(Some(object)) if object["metadata"]["uid"] == *uid => {
                answered = Instant::now();
                if is_ended(&object) {
                    return Ok(object);
                }
                show(&object, &mut done, bar);
            }
            Ok(_) => {
                return Err(Error::not_found(format!("{title} {name} was removed")).into());
            }
            // What passes by itself: no answer, or one of a server that is in trouble.
            Err(e)
                if matches!(e.error().kind(), Kind::Unreachable | Kind::Other)
                    && answered.elapsed() < SILENCE => {}
            Err(e) => {
                let e = e.into_error();
                return Err(e
                    .context(format!(
                        "can not follow {title} {name}; it goes on in the cluster"
                    ))
                    .into());
            }
        }
        if !pulse.beats(context, namespace).await? {
            return Err(Error::new(
                Kind::Unreachable,
                format!(
                    "no controller works in namespace {namespace} any more: the Lease {LEASE} was not renewed for {} s",
                    SILENCE.as_secs()
                ),
            )
            .hint(format!(
                "{title} {name} stays there, and a controller that is started goes on with it or says how it ended"
            ))
            .into());
        }
        tokio::time::sleep(OFTEN).await;
    }
}

/// The controller's sign of life, by this machine's own clock.
struct Pulse {
    looked: Option<Instant>,
    version: Value,
    changed: Instant,
}

impl Pulse {
    fn new() -> Self {
        Self {
            looked: None,
            version: Value::Null,
            changed: Instant::now(),
        }
    }

    /// Whether it was seen within [`SILENCE`]; who may not look at the Lease, or gets no answer now, does not know better.
    async fn beats(&mut self, context: &Context, namespace: &str) -> Result<bool> {
        let now = Instant::now();
        if self
            .looked
            .is_some_and(|at| now.duration_since(at) < LEASE_EVERY)
        {
            return Ok(true);
        }
        self.looked = Some(now);
        Ok(match lease(context.cluster().await?, namespace).await {
            Ok(lease) => {
                let version = lease.unwrap_or_default()["metadata"]["resourceVersion"].take();
                self.seen(version, now)
            }
            Err(_) => {
                self.changed = now;
                true
            }
        })
    }

    fn seen(&mut self, version: Value, now: Instant) -> bool {
        if version != self.version {
            (self.version, self.changed) = (version, now);
        }
        now.duration_since(self.changed) < SILENCE
    }
}

fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap_or_default()
}

fn is_ended(object: &Value) -> bool {
    matches!(
        phase(object),
        "Completed" | "PartiallyFailed" | "Failed" | "FailedValidation"
    )
}

/// Tells how far it is.
fn show(object: &Value, done: &mut [u64; 2], bar: &dyn Progress) {
    let phase = match phase(object) {
        "" => "New",
        phase => phase,
    };
    bar.step(&format!("{phase} in the cluster"));
    let progress = &object["status"]["progress"];
    let items = ["itemsBackedUp", "itemsRestored"].map(|key| progress[key].as_u64());
    let items = items.into_iter().flatten().next().unwrap_or_default();
    let total = progress["totalItems"].as_u64().unwrap_or_default();
    bar.expect(total.saturating_sub(done[0]));
    bar.done(items.saturating_sub(done[1]), 0);
    *done = [done[0].max(total), done[1].max(items)];
}

/// What its end means.
fn judge(context: &Context, work: Work, name: &str, object: Value) -> Result<Ended> {
    let title = work.title();
    let status = &object["status"];
    let phase = phase(&object);
    let failed = |why: String| {
        let title = format!("{title} {name} ended as {phase}");
        Err(match why.is_empty() {
            true => Error::other(title),
            false => Error::other(format!("{title}: {why}")),
        }
        .into())
    };
    match phase {
        "FailedValidation" => {
            let why = status["validationErrors"].as_array().into_iter().flatten();
            let why: Vec<_> = why.filter_map(Value::as_str).collect();
            failed(why.join("; "))
        }
        "Failed" => failed(
            status["failureReason"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        ),
        _ => {
            let count = |key: &str| status[key].as_u64().unwrap_or_default();
            let (errors, warnings) = (count("errors"), count("warnings"));
            let mut said = format!("{title} {name}: {phase}");
            if errors + warnings > 0 {
                said.push_str(&format!(", {errors} errors and {warnings} warnings"));
            }
            context.ui.say(&said);
            let exit = match phase {
                "Completed" => Exit::Done,
                _ => Exit::Incomplete,
            };
            Ok(Ended::Done(Box::new(object), exit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_silent_when_its_lease_stood_still_for_a_minute_by_the_own_clock() {
        let mut pulse = Pulse::new();
        let start = pulse.changed;
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(pulse.seen("1".into(), at(5)));
        assert!(pulse.seen("1".into(), at(64)));
        assert!(!pulse.seen("1".into(), at(65)));
        assert!(pulse.seen("2".into(), at(66)));
        // A Lease that is gone is one that nobody renews.
        assert!(pulse.seen(Value::Null, at(67)));
        assert!(!pulse.seen(Value::Null, at(127)));
    }
}
