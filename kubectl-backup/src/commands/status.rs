//! `status`: how an installed controller does. Reads objects of the cluster; knows no bucket.

use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Description, Document, Format, OutputArgs, Table};
use backup_core::catalog::SCHEDULE_NAME;
use backup_core::cluster::Cluster;
use backup_core::error::Error;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::install::is_not_available;
use crate::context::Context;
use crate::flags::ControllerNamespace;
use crate::install::{LEASE, NAME, SILENT};

const EXAMPLES: &str = "\
Examples:
  kubectl backup status
  kubectl backup status --controller-namespace backups -o json";

/// No answer is larger: 5,000 backups take a fifth of it.
const LARGEST: usize = 64 << 20;

/// Show how the controller in the cluster does: whether it works, its locations, and the last backup of each schedule
///
/// Exit code 1 where something is wrong; it is listed under Problems.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    namespace: ControllerNamespace,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the namespace holds.
#[derive(Debug, Default)]
struct Seen {
    deployment: Value,
    lease: Value,
    locations: Vec<Value>,
    schedules: Vec<Value>,
    backups: Vec<Value>,
}

/// How it is.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    namespace: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// Who works, and since when nothing was heard of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewed: Option<Timestamp>,
    locations: Vec<Place>,
    schedules: Vec<Row>,
    backups: usize,
    in_progress: usize,
    waiting: usize,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Place {
    name: String,
    phase: String,
    is_default: bool,
    last_checked: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    schedule: String,
    phase: String,
    last_backup: Option<String>,
    last_phase: Option<String>,
    last_good: Option<Timestamp>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: StatusArgs) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let namespace = args.namespace.as_str();
    let seen = gather(cluster, namespace).await?;
    if seen.deployment.is_null() && seen.lease.is_null() {
        return Err(Error::not_found(format!(
            "no controller is installed in namespace {namespace}, and none works there from outside"
        ))
        .hint(format!(
            "{} install brings one; --controller-namespace names another namespace",
            context.program
        ))
        .into());
    }
    let status = judge(namespace, &seen, context.now);
    match args.output.output {
        format @ (Format::Json | Format::Yaml) => {
            output::print(
                &context.ui,
                format,
                &Document::new("ControllerStatus", &status),
            )?;
        }
        Format::Name => context.ui.line(&format!("deployment/{NAME}"))?,
        Format::Table | Format::Wide => show(context, &args.output, &status)?,
    }
    Ok(match status.problems.is_empty() {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

async fn gather(cluster: &Cluster, namespace: &str) -> Result<Seen> {
    let velero = |plural: &str| format!("/apis/velero.io/v1/namespaces/{namespace}/{plural}");
    let deployment = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{NAME}");
    let lease = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}");
    let [locations, schedules, backups] =
        ["backupstoragelocations", "schedules", "backups"].map(velero);
    let items = |mut list: Value| match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    Ok(Seen {
        deployment: read(cluster, &deployment).await?,
        lease: read(cluster, &lease).await?,
        locations: items(read(cluster, &locations).await?),
        schedules: items(read(cluster, &schedules).await?),
        backups: items(read(cluster, &backups).await?),
    })
}

/// What stands at a path; null where it, or its kind, is not there.
async fn read(cluster: &Cluster, path: &str) -> Result<Value> {
    match cluster.get_bounded(path, LARGEST).await {
        Ok(body) => Ok(serde_json::from_slice(&body)
            .map_err(|e| Error::other(format!("{path} can not be read")).because(e))?),
        Err(e) if e.is_not_found() => Ok(Value::Null),
        Err(e) => Err(Error::from(e)
            .context(format!("can not read {path}"))
            .into()),
    }
}

fn text(object: &Value, pointer: &str) -> Option<String> {
    let text = object.pointer(pointer)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    object.pointer(pointer)?.as_str()?.parse().ok()
}

fn phase(object: &Value) -> String {
    text(object, "/status/phase").unwrap_or_else(|| "New".to_owned())
}

/// What all that means.
fn judge(namespace: &str, seen: &Seen, now: Timestamp) -> Status {
    let mut problems = Vec::new();
    if !seen.deployment.is_null()
        && let Some(why) = is_not_available(&seen.deployment)
    {
        problems.push(format!("deployment/{NAME}: {why}"));
    }
    let holder = text(&seen.lease, "/spec/holderIdentity");
    let renewed = time(&seen.lease, "/spec/renewTime");
    let is_fresh = |at: Timestamp| now.duration_since(at) < SILENT;
    match (&holder, renewed) {
        (Some(_), Some(at)) if is_fresh(at) => {}
        (Some(holder), Some(at)) => problems.push(format!(
            "nobody works: {holder} was last heard of {} ago",
            output::age(at, now)
        )),
        _ => problems.push(format!("nobody works: the Lease {LEASE} has no holder")),
    }
    let locations: Vec<Place> = seen
        .locations
        .iter()
        .map(|object| Place {
            name: text(object, "/metadata/name").unwrap_or_default(),
            phase: phase(object),
            is_default: object["spec"]["default"] == true,
            last_checked: time(object, "/status/lastValidationTime"),
        })
        .collect();
    if locations.is_empty() {
        problems.push("there is no BackupStorageLocation: no backup can be made".to_owned());
    }
    for (object, place) in seen.locations.iter().zip(&locations) {
        if place.phase != "Available" {
            let why =
                text(object, "/status/message").unwrap_or_else(|| "not checked yet".to_owned());
            problems.push(format!("location {} is {}: {why}", place.name, place.phase));
        }
    }
    let mut schedules = Vec::new();
    for object in &seen.schedules {
        let row = row(object, &seen.backups);
        if row.phase == "FailedValidation" {
            let why = &object["status"]["validationErrors"];
            let why = why
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let why = why.collect::<Vec<_>>().join("; ");
            problems.push(format!("schedule {} can not be followed: {why}", row.name));
        }
        if let (Some(backup), Some("PartiallyFailed" | "Failed" | "FailedValidation")) =
            (&row.last_backup, row.last_phase.as_deref())
        {
            let phase = row.last_phase.as_deref().unwrap_or_default();
            problems.push(format!(
                "the last backup of schedule {}, {backup}, is {phase}",
                row.name
            ));
        }
        schedules.push(row);
    }
    let count = |phases: &[&str]| {
        let all = seen.backups.iter();
        all.filter(|backup| phases.contains(&phase(backup).as_str()))
            .count()
    };
    Status {
        namespace: namespace.to_owned(),
        image: text(&seen.deployment, "/spec/template/spec/containers/0/image"),
        holder,
        renewed,
        locations,
        schedules,
        backups: seen.backups.len(),
        in_progress: count(&["InProgress"]),
        waiting: count(&["New", "Queued", "ReadyToStart"]),
        problems,
    }
}

/// A schedule with the newest of its backups that ended, and the newest good one.
fn row(schedule: &Value, backups: &[Value]) -> Row {
    let name = text(schedule, "/metadata/name").unwrap_or_default();
    let mut made: Vec<&Value> = backups
        .iter()
        .filter(|backup| backup["metadata"]["labels"][SCHEDULE_NAME] == *name)
        .filter(|backup| {
            !matches!(
                phase(backup).as_str(),
                "New" | "Queued" | "ReadyToStart" | "InProgress" | "Deleting"
            )
        })
        .collect();
    made.sort_by_key(|backup| {
        let started = time(backup, "/status/startTimestamp");
        started.or(time(backup, "/metadata/creationTimestamp"))
    });
    let last = made.last();
    let good = made
        .iter()
        .rev()
        .find(|backup| phase(backup) == "Completed");
    let is_paused = schedule["spec"]["paused"] == true;
    Row {
        schedule: text(schedule, "/spec/schedule").unwrap_or_default(),
        phase: if is_paused {
            "Paused".to_owned()
        } else {
            phase(schedule)
        },
        last_backup: last.and_then(|backup| text(backup, "/metadata/name")),
        last_phase: last.map(|backup| phase(backup)),
        last_good: good.and_then(|backup| time(backup, "/status/completionTimestamp")),
        name,
    }
}

fn show(context: &Context, args: &OutputArgs, status: &Status) -> Result<()> {
    let ui = &context.ui;
    let ago = |at: Option<Timestamp>| match at {
        Some(at) => format!("{} ago", output::age(at, context.now)),
        None => "never".to_owned(),
    };
    let mut head = Description::default();
    head.field(0, "Namespace", &status.namespace);
    let outside = "none here: it works outside of the cluster";
    head.field(0, "Image", status.image.as_deref().unwrap_or(outside));
    head.field(0, "Working", status.holder.as_deref().unwrap_or_default());
    head.field(0, "Heard of", ago(status.renewed));
    head.field(
        0,
        "Backups",
        format!(
            "{}, {} in progress, {} waiting",
            status.backups, status.in_progress, status.waiting
        ),
    );
    ui.line(&head.render())?;
    if !status.locations.is_empty() {
        ui.line("")?;
        let mut table = Table::new(
            &["LOCATION", "PHASE", "DEFAULT", "CHECKED"],
            args.no_headers,
        );
        for place in &status.locations {
            table.row([
                place.name.clone(),
                place.phase.clone(),
                place.is_default.to_string(),
                ago(place.last_checked),
            ]);
        }
        ui.table(&table)?;
    }
    if !status.schedules.is_empty() {
        ui.line("")?;
        let titles = [
            "SCHEDULE",
            "CRON",
            "PHASE",
            "LAST-BACKUP",
            "ENDED",
            "LAST-GOOD",
        ];
        let mut table = Table::new(&titles, args.no_headers);
        let none = || "<none>".to_owned();
        for row in &status.schedules {
            table.row([
                row.name.clone(),
                row.schedule.clone(),
                row.phase.clone(),
                row.last_backup.clone().unwrap_or_else(none),
                row.last_phase.clone().unwrap_or_else(none),
                ago(row.last_good),
            ]);
        }
        ui.table(&table)?;
    }
    if !status.problems.is_empty() {
        ui.line("\nProblems:")?;
        for problem in &status.problems {
            ui.line(&format!("  {problem}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn good() -> Seen {
        Seen {
            deployment: json!({
                "metadata": {"generation": 1}, "spec": {"replicas": 1, "template": {"spec": {"containers": [{"image": "i:1"}]}}},
                "status": {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": 1},
            }),
            lease: json!({"spec": {"holderIdentity": "pod_1", "renewTime": "2026-11-21T02:00:00.000000Z"}}),
            locations: vec![
                json!({"metadata": {"name": "default"}, "spec": {"default": true}, "status": {"phase": "Available"}}),
            ],
            schedules: vec![
                json!({"metadata": {"name": "nightly"}, "spec": {"schedule": "@daily"}, "status": {"phase": "Enabled"}}),
            ],
            backups: vec![
                backup("a", "Completed", "2026-11-21T01:00:00Z"),
                backup("b", "InProgress", "2026-11-21T01:59:00Z"),
            ],
        }
    }

    fn backup(name: &str, phase: &str, started: &str) -> Value {
        json!({
            "metadata": {"name": name, "labels": {"velero.io/schedule-name": "nightly"}},
            "status": {"phase": phase, "startTimestamp": started, "completionTimestamp": started},
        })
    }

    fn problems(change: impl Fn(&mut Seen)) -> Vec<String> {
        let mut seen = good();
        change(&mut seen);
        judge("ns", &seen, "2026-11-21T02:00:30Z".parse().unwrap()).problems
    }

    #[test]
    fn what_is_wrong_is_said_and_nothing_else() {
        assert_eq!(problems(|_| {}), [""; 0]);
        let one = |change: &dyn Fn(&mut Seen), part: &str| {
            let told = problems(change);
            assert!(
                told.len() == 1 && told[0].contains(part),
                "{part}: {told:?}"
            );
        };
        one(
            &|seen| seen.deployment["status"]["availableReplicas"] = 0.into(),
            "0 of 1 pods",
        );
        one(
            &|seen| seen.lease["spec"]["renewTime"] = "2026-11-21T01:00:00Z".into(),
            "pod_1 was last heard of",
        );
        one(&|seen| seen.lease = Value::Null, "no holder");
        one(&|seen| seen.locations.clear(), "no BackupStorageLocation");
        one(
            &|seen| {
                seen.locations[0]["status"] =
                    json!({"phase": "Unavailable", "message": "no such bucket"});
            },
            "location default is Unavailable: no such bucket",
        );
        one(
            &|seen| {
                seen.schedules[0]["status"] =
                    json!({"phase": "FailedValidation", "validationErrors": ["what"]});
            },
            "can not be followed: what",
        );
        one(
            &|seen| {
                seen.backups
                    .push(backup("c", "Failed", "2026-11-21T01:30:00Z"));
            },
            "the last backup of schedule nightly, c, is Failed",
        );
    }

    #[test]
    fn of_a_schedules_backups_the_newest_that_ended_counts_and_the_newest_good_one_is_named() {
        let mut seen = good();
        seen.backups
            .push(backup("c", "PartiallyFailed", "2026-11-21T01:30:00Z"));
        let status = judge("ns", &seen, Timestamp::UNIX_EPOCH);
        let row = &status.schedules[0];
        assert_eq!(row.last_backup.as_deref(), Some("c"));
        assert_eq!(row.last_good, Some("2026-11-21T01:00:00Z".parse().unwrap()));
        assert_eq!(
            (status.backups, status.in_progress, status.waiting),
            (3, 1, 0)
        );
    }
}
