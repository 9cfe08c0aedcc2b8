//! Follows an object until it comes to an end, and tells each change; what happens does not depend on it.

use std::time::Duration;

use backup_core::api::{EtcdBackupConfig, EtcdRestore, RestorePhase, RowPhase, SnapshotRow};
use backup_core::{Error, Kind};
use jiff::Timestamp;
use tokio::time::Instant;

use super::launcher::{self, Sign, Watch};
use super::objects::{self, Object};
use super::scope::ControlPlane;
use crate::context::Context;
use backup_cli::error::Result;
use backup_cli::interrupt::interrupted;
use backup_cli::output;

/// How often it is looked.
const OFTEN: Duration = Duration::from_secs(1);

/// An API server that is away for longer ends the following.
const PATIENCE: Duration = Duration::from_secs(120);

/// How one look ended.
enum Look<T> {
    Ended(T),
    GoesOn,
}

/// Looks again and again until it ended, the time is over, or the user had enough.
async fn until<T>(
    context: &Context,
    timeout: Option<Duration>,
    goes_on: &str,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let started = Instant::now();
    let watching = async {
        let mut answered = Instant::now();
        loop {
            match look().await {
                Ok(Look::Ended(result)) => return Ok(result),
                Ok(Look::GoesOn) => answered = Instant::now(),
                Err(e)
                    if e.error().kind() == Kind::Unreachable && answered.elapsed() < PATIENCE =>
                {
                    context.ui.warn(&format!("{}; looking again", e.error()));
                }
                Err(e) => return Err(e),
            }
            if let Some(timeout) = timeout.filter(|timeout| started.elapsed() >= *timeout) {
                return Err(Error::other(format!(
                    "not finished after {}; {goes_on}",
                    output::duration(timeout)
                ))
                .into());
            }
            tokio::time::sleep(OFTEN).await;
        }
    };
    tokio::select! {
        ended = watching => ended,
        true = interrupted() => Err(Error::new(Kind::Interrupted, format!("no longer watched; {goes_on}")).into()),
    }
}

/// Follows a config until its snapshot is taken or is not.
///
/// # Errors
/// A snapshot that failed, no launcher, the time is over.
pub(super) async fn snapshot(
    context: &Context,
    plane: &ControlPlane,
    config: &Object<EtcdBackupConfig>,
    timeout: Option<Duration>,
) -> Result<SnapshotRow> {
    let cluster = context.cluster().await?;
    let mut watch = Watch::start(cluster, plane).await;
    let mut told = String::new();
    until(
        context,
        timeout,
        "the snapshot goes on without this command",
        async || {
            let now =
                objects::get::<EtcdBackupConfig>(cluster, Some(&plane.namespace), config.name())
                    .await?;
            same(
                &now.it.metadata.uid,
                &config.it.metadata.uid,
                &config.title(),
            )?;
            let status = now.it.status.unwrap_or_default();
            let row = status.rows().last().cloned();
            let phase = row
                .as_ref()
                .map_or(RowPhase::Scheduled, |row| row.backup_phase.clone());
            match (phase, row) {
                (RowPhase::Completed, Some(row)) => return Ok(Look::Ended(row)),
                (RowPhase::Failed, Some(row)) => {
                    return Err(Error::other(format!(
                        "snapshot {:?} was not taken: {}",
                        row.backup_name,
                        why(&row.backup_message)
                    ))
                    .into());
                }
                (phase, _) => {
                    let words = [
                        phase.as_str(),
                        status.message.as_deref().unwrap_or_default(),
                    ];
                    tell(context, &mut told, &words);
                    if phase == RowPhase::Scheduled && watch.look(cluster).await? == Sign::Silent {
                        return Err(no_launcher(plane, "the snapshot is taken").into());
                    }
                }
            }
            Ok(Look::GoesOn)
        },
    )
    .await
}

/// Follows a restore to its end. Where no launcher shows a sign of life, that is written into its phase.
///
/// # Errors
/// A restore that failed or was rolled back, no launcher, the time is over.
pub(super) async fn restore(
    context: &Context,
    plane: &ControlPlane,
    restore: &Object<EtcdRestore>,
    timeout: Option<Duration>,
) -> Result<Option<Timestamp>> {
    let cluster = context.cluster().await?;
    let mut watch = Watch::start(cluster, plane).await;
    let mut told = String::new();
    until(
        context,
        timeout,
        "the restore goes on without this command",
        async || {
            let now = objects::get::<EtcdRestore>(cluster, Some(&plane.namespace), restore.name())
                .await?;
            same(
                &now.it.metadata.uid,
                &restore.it.metadata.uid,
                &restore.title(),
            )?;
            let status = now.it.status.clone().unwrap_or_default();
            let message = status.message.as_deref().unwrap_or_default();
            match &status.phase {
                Some(RestorePhase::Completed) => {
                    return Ok(Look::Ended(status.restore_time.map(|time| time.0)));
                }
                Some(phase @ (RestorePhase::Failed | RestorePhase::RolledBack)) => {
                    let what = if *phase == RestorePhase::Failed {
                        "nothing was changed"
                    } else {
                        "the old state serves again"
                    };
                    return Err(Error::other(format!(
                        "{} is in phase {phase}, {what}: {}",
                        now.title(),
                        why(message)
                    ))
                    .hint(format!(
                        "look at it: {} etcd restore describe {} -n {}",
                        context.program,
                        now.name(),
                        now.namespace()
                    ))
                    .into());
                }
                None | Some(RestorePhase::EtcdLauncherNotEnabled) => {
                    if watch.look(cluster).await? == Sign::Silent
                        && launcher::not_enabled(cluster, &now).await?
                    {
                        return Err(no_launcher(plane, "the restore begins").into());
                    }
                }
                Some(_) => {}
            }
            let step = status
                .attempt
                .as_ref()
                .and_then(|attempt| attempt.step.as_ref());
            let phase = status.phase.as_ref().map_or("", |phase| phase.as_str());
            tell(
                context,
                &mut told,
                &[phase, step.map_or("", |step| step.as_str()), message],
            );
            Ok(Look::GoesOn)
        },
    )
    .await
}

/// Another object of the same name is not followed.
fn same(now: &Option<String>, then: &Option<String>, title: &str) -> Result<(), Error> {
    if now == then {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "{title} was deleted, and another one was made under its name"
    )))
}

fn why(message: &str) -> &str {
    if message.is_empty() {
        "no reason is given"
    } else {
        message
    }
}

fn no_launcher(plane: &ControlPlane, when: &str) -> Error {
    Error::other(format!(
        "no etcd-launcher is at work on cluster {}: its Lease in namespace {} was not renewed for {} s",
        plane.cluster,
        plane.namespace,
        launcher::SILENCE.as_secs()
    ))
    .hint(format!("{when} once an etcd-launcher runs beside its etcd"))
}

/// A note about what changed since the last look.
fn tell(context: &Context, told: &mut String, words: &[&str]) {
    let words: Vec<_> = words
        .iter()
        .filter(|word| !word.is_empty())
        .copied()
        .collect();
    let line = words.join(": ");
    if line != *told && !line.is_empty() {
        context.ui.note(&line);
        *told = line;
    }
}
