//! What becomes known of a config: its status, its finalizer, events. Every write carries the resourceVersion that was read, so that two launchers
//! never undo each other's; decides nothing.

use backup_core::api::hosted::HealthCondition;
use backup_core::api::{EtcdBackupConfig, EtcdBackupConfigStatus, SnapshotRow};
use backup_core::{Error, Kind, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::plan::{FINALIZER, Plan, Verdict};
use crate::run::condition::MANAGED_BY_KKP;
use crate::run::event::Tone;
use crate::run::hosting::{Hosting, soon};

/// So many launchers can not be in each other's way all the time.
const ATTEMPTS: u32 = 8;

/// A message of a status: long enough for causes, too short to eat the object up.
const LONGEST_MESSAGE: usize = 2000;

/// Which config is meant; another one of the same name is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

impl Reference {
    pub(super) fn of(config: &EtcdBackupConfig) -> Self {
        Self {
            namespace: config.namespace().unwrap_or_default(),
            name: config.name_any(),
            uid: config.uid().unwrap_or_default(),
        }
    }

    fn api(&self, hosting: &Hosting) -> Api<EtcdBackupConfig> {
        Api::namespaced(hosting.client.clone(), &self.namespace)
    }

    async fn read(&self, hosting: &Hosting) -> Result<Option<EtcdBackupConfig>> {
        let doing = format!("read EtcdBackupConfig {}", self.name);
        let found = soon(&doing, self.api(hosting).get_opt(&self.name)).await?;
        Ok(found.filter(|found| found.uid().as_deref() == Some(&self.uid)))
    }
}

/// How a change of a status ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    Yes,
    /// The change had nothing to change any more.
    No,
    /// The config is gone.
    Gone,
}

/// Changes the status as it stands now; `change` says whether there is something to write, and is asked again where somebody was faster.
///
/// # Errors
/// The hosting API's.
pub(super) async fn change(
    hosting: &Hosting,
    whose: &Reference,
    mut change: impl FnMut(&mut EtcdBackupConfigStatus) -> bool,
) -> Result<Changed> {
    for _ in 0..ATTEMPTS {
        let Some(mut config) = whose.read(hosting).await? else {
            return Ok(Changed::Gone);
        };
        let mut status = config.status.take().unwrap_or_default();
        if !change(&mut status) {
            return Ok(Changed::No);
        }
        config.status = Some(status);
        let doing = format!("write the status of EtcdBackupConfig {}", whose.name);
        let api = whose.api(hosting);
        let params = PostParams::default();
        let written = api.replace_status(&whose.name, &params, &config);
        match soon(&doing, written).await {
            Ok(_) => return Ok(Changed::Yes),
            Err(e) if e.kind() == Kind::AlreadyExists => {}
            Err(e) if e.kind() == Kind::NotFound => return Ok(Changed::Gone),
            Err(e) => return Err(e),
        }
    }
    Err(Error::other(format!(
        "EtcdBackupConfig {} is written by others all the time",
        whose.name
    )))
}

/// Changes one row, where it is there.
///
/// # Errors
/// The hosting API's.
pub(super) async fn change_row(
    hosting: &Hosting,
    whose: &Reference,
    name: &str,
    mut how: impl FnMut(&mut SnapshotRow) -> bool,
) -> Result<Changed> {
    change(hosting, whose, |status| {
        let mut rows = status.rows().to_vec();
        let row = rows.iter_mut().find(|row| row.backup_name == name);
        if !row.is_some_and(&mut how) {
            return false;
        }
        status.set_rows(rows);
        true
    })
    .await
}

/// Writes what a plan says besides the rows of snapshots that are taken or removed; nothing where it stands already.
///
/// # Errors
/// The hosting API's.
pub(super) async fn tell(
    hosting: &Hosting,
    config: &EtcdBackupConfig,
    plan: &Plan,
) -> Result<Changed> {
    let generation = config.metadata.generation;
    // Looked at first as it was read: an object at rest costs no request.
    let mut status = config.status.clone().unwrap_or_default();
    if !fill(&mut status, generation, plan) {
        return Ok(Changed::No);
    }
    change(hosting, &Reference::of(config), |status| {
        fill(status, generation, plan)
    })
    .await
}

/// Whether anything changed.
fn fill(status: &mut EtcdBackupConfigStatus, generation: Option<i64>, plan: &Plan) -> bool {
    let before = status.clone();
    let now = Timestamp::now();
    let mut rows = status.rows().to_vec();
    rows.retain(|row| {
        !plan.forget.contains(&row.backup_name) && !plan.leave.contains(&row.backup_name)
    });
    if rows != status.last_backups || rows != status.current_backups {
        status.set_rows(rows);
    }
    // It said that this was not ours to do.
    status.conditions.remove(MANAGED_BY_KKP);
    condition(status, "SchedulingActive", &plan.told.scheduling, now);
    if let Some(destination) = &plan.told.destination {
        condition(status, "DestinationReady", destination, now);
    }
    let message = shortened(&plan.told.message, LONGEST_MESSAGE);
    status.message = (!message.is_empty()).then_some(message);
    status.next_scheduled_time = plan.told.next.map(Time);
    status.observed_generation = generation;
    *status != before
}

fn condition(status: &mut EtcdBackupConfigStatus, name: &str, verdict: &Verdict, now: Timestamp) {
    let word = if verdict.yes { "True" } else { "False" };
    let message = shortened(&verdict.message, LONGEST_MESSAGE);
    let old = status.conditions.get(name);
    let stood = old.is_some_and(|old| old.status == word);
    if let Some(old) = old
        && stood
        && old.reason == verdict.reason
        && old.message == message
    {
        return;
    }
    let since = old
        .filter(|_| stood)
        .and_then(|old| old.last_transition_time.clone());
    status.conditions.insert(
        name.to_owned(),
        HealthCondition {
            last_heartbeat_time: Time(now),
            last_transition_time: since.or(Some(Time(now))),
            message,
            reason: verdict.reason.to_owned(),
            status: word.to_owned(),
        },
    );
}

/// Puts the finalizer there, or takes it away.
///
/// # Errors
/// The hosting API's; a conflict is none, the next look tries again.
pub(super) async fn finalizer(
    hosting: &Hosting,
    config: &EtcdBackupConfig,
    wanted: bool,
) -> Result<()> {
    let mut finalizers = config.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|name| name == FINALIZER) == wanted {
        return Ok(());
    }
    // A new finalizer on an object that is being deleted is refused.
    if wanted && config.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    finalizers.retain(|name| name != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let whose = Reference::of(config);
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": config.resource_version(),
        "uid": whose.uid,
    }});
    let doing = format!("change EtcdBackupConfig {}", whose.name);
    let api = whose.api(hosting);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    let patched = api.patch(&whose.name, &params, &patch);
    match soon(&doing, patched).await {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), Kind::AlreadyExists | Kind::NotFound) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Says on a config that KKP acts on it.
///
/// # Errors
/// The hosting API's.
pub(super) async fn managed_by_kkp(
    hosting: &Hosting,
    config: &EtcdBackupConfig,
    note: &str,
) -> Result<()> {
    let verdict = Verdict {
        yes: true,
        reason: "FinalizerOfKKP",
        message: note.to_owned(),
    };
    change(hosting, &Reference::of(config), |status| {
        let before = status.clone();
        condition(status, MANAGED_BY_KKP, &verdict, Timestamp::now());
        *status != before
    })
    .await
    .map(|_| ())
}

/// An event on a config. Who may not make events goes without.
pub(super) async fn event(
    hosting: &Hosting,
    whose: &Reference,
    tone: Tone,
    reason: &str,
    note: &str,
) {
    let about = ObjectReference {
        kind: Some("EtcdBackupConfig".to_owned()),
        name: Some(whose.name.clone()),
        namespace: Some(whose.namespace.clone()),
        uid: Some(whose.uid.clone()),
        ..ObjectReference::default()
    };
    hosting.tell_event_about(about, tone, reason, note).await;
}

fn shortened(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_says_all_already_is_not_written_again() {
        let mut plan = Plan::default();
        plan.told.scheduling = Verdict {
            yes: true,
            reason: "Scheduled",
            message: String::new(),
        };
        let mut status = EtcdBackupConfigStatus::default();
        assert!(fill(&mut status, Some(1), &plan));
        assert!(!fill(&mut status, Some(1), &plan));
        let since = status.conditions["SchedulingActive"]
            .last_transition_time
            .clone();
        plan.told.scheduling.reason = "Once";
        assert!(fill(&mut status, Some(1), &plan));
        assert_eq!(
            status.conditions["SchedulingActive"].last_transition_time, since,
            "the status did not change"
        );
        assert!(fill(&mut status, Some(2), &plan));
    }

    #[test]
    fn rows_that_somebody_wrote_under_one_name_stand_under_both() {
        let mut status = EtcdBackupConfigStatus {
            current_backups: vec![SnapshotRow {
                backup_name: "a".to_owned(),
                ..SnapshotRow::default()
            }],
            ..EtcdBackupConfigStatus::default()
        };
        assert!(fill(&mut status, None, &Plan::default()));
        assert_eq!(status.last_backups, status.current_backups);
    }
}
