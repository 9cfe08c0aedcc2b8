//! `doctor`: whether a backup would succeed from here, and what it would miss. Looks only, but for what `location check` writes and removes.

mod bundle;
mod movers;

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::api::Phase;
use backup_core::catalog;
use backup_core::cluster::{Call, Cluster};
use backup_core::discovery::{self, ApiResource};
use backup_core::location::Location;
use backup_core::location::check;
use backup_core::{Error, Kind, error::quoted};
use clap::Args;
use futures::{StreamExt, stream};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations;
use backup_cli::output::{self, Document, Format, OutputArgs, Table, counted};

const EXAMPLES: &str = "\
Examples:
  kubectl backup doctor
  kubectl backup doctor --context prod --location offsite -o json
  kubectl backup doctor --bundle support.json";

/// Questions about rights that are under way at a time.
const AT_A_TIME: usize = 8;

/// More kinds are not named.
const MOST_NAMED: usize = 10;

/// Check whether a backup would succeed from here, and what it would miss
///
/// Looks at the way to the cluster, at the rights of this user, at the kinds the cluster serves, at the location and its clock, and at the
/// newest good backup. Changes nothing. Exit code 1 where something fails that a backup needs.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArgs {
    /// Write what helps somebody else to help into this file: these checks, the newest backups, and what those said that did not succeed. Names of
    /// objects are in it; credentials and the objects themselves are not
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// A backup succeeds, and something will be missing.
    Warning,
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Check {
    name: String,
    result: Verdict,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Serialize)]
struct Checks {
    version: &'static str,
    checks: Vec<Check>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DoctorArgs) -> Result<Exit> {
    let ui = &context.ui;
    // Before anything is looked at: what can not be written is said at once.
    let bundle = args.bundle.as_deref().map(bundle::Target::new);
    let bundle = bundle.transpose()?;
    let bar = ui.progress();
    let mut checks = of_cluster(context).await;
    checks.extend(of_location(context).await);
    drop(bar);
    let failed = checks.iter().any(|check| check.result == Verdict::Failed);
    let checks = Checks {
        version: concat!("v", env!("CARGO_PKG_VERSION")),
        checks,
    };
    match args.output.output {
        format @ (Format::Json | Format::Yaml) => {
            output::print(ui, format, &Document::new("Doctor", &checks))?;
        }
        Format::Name => checks
            .checks
            .iter()
            .try_for_each(|check| ui.line(&check.name))?,
        Format::Table | Format::Wide => {
            let mut table = Table::new(&["CHECK", "RESULT", "DETAIL"], args.output.no_headers);
            for check in &checks.checks {
                let result = match check.result {
                    Verdict::Ok => "ok",
                    Verdict::Warning => "warning",
                    Verdict::Failed => "failed",
                };
                table.row([check.name.clone(), result.to_owned(), check.detail.clone()]);
            }
            ui.table(&table)?;
        }
    }
    for check in &checks.checks {
        if let Some(advice) = &check.advice {
            ui.say(&format!("{}: {advice}", check.name));
        }
    }
    if let (Some(target), Some(path)) = (bundle, &args.bundle) {
        bundle::write(context, &checks, target).await?;
        ui.say(&format!(
            "{} written; read it before you hand it on",
            path.display()
        ));
    }
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn found(name: &str, result: Verdict, detail: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        result,
        detail: detail.into(),
        advice: None,
    }
}

fn failed(name: &str, error: &Error) -> Check {
    Check {
        advice: error.hint_text().map(str::to_owned),
        ..found(name, Verdict::Failed, error.to_string())
    }
}

async fn of_cluster(context: &Context) -> Vec<Check> {
    let cluster = match context.cluster().await {
        Ok(cluster) => cluster,
        Err(e) => return vec![failed("kubeconfig", e.error())],
    };
    let whom = format!(
        "context {} at {}",
        quoted(cluster.context()),
        cluster.server()
    );
    let mut checks = vec![found("kubeconfig", Verdict::Ok, whom)];
    match cluster.version().await {
        Ok(version) => checks.push(found("cluster", Verdict::Ok, version.git_version)),
        Err(e) => {
            checks.push(failed("cluster", &e));
            return checks;
        }
    }
    checks.push(match context.identity().await {
        Ok(Some(uid)) => found("identity", Verdict::Ok, uid),
        Ok(None) => Check {
            advice: Some("backups can be made; prune and delete need --yes".to_owned()),
            ..found(
                "identity",
                Verdict::Warning,
                "this user may not read the namespace kube-system",
            )
        },
        Err(e) => failed("identity", e.error()),
    });
    let served = match discovery::discover(cluster).await {
        Ok(served) => served,
        Err(e) => {
            checks.push(failed("kinds", &e));
            return checks;
        }
    };
    let kinds: Vec<_> = served
        .preferred()
        .into_iter()
        .filter(|kind| kind.can("list") && kind.can("create"))
        .collect();
    let (result, detail, advice) = if served.gaps.is_empty() {
        (Verdict::Ok, counted(kinds.len() as u64, "kind"), None)
    } else {
        let gaps = served
            .gaps
            .iter()
            .map(|gap| format!("{}: {}", gap.group, gap.reason));
        let advice = "a backup would miss them and end with exit code 3; repair these APIs, or leave them out with --exclude-resources";
        (
            Verdict::Warning,
            gaps.collect::<Vec<_>>().join("; "),
            Some(advice.to_owned()),
        )
    };
    checks.push(Check {
        advice,
        ..found("kinds", result, detail)
    });
    checks.push(match rights(cluster, kinds).await {
        Ok(check) => check,
        Err(e) => failed("rights", e.error()),
    });
    checks.extend(volumes(cluster).await);
    checks.extend(movers::look(context, cluster).await);
    checks
}

/// Whether this user may list every kind.
async fn rights(cluster: &Cluster, kinds: Vec<Arc<ApiResource>>) -> Result<Check> {
    if may(cluster, "list", ("*", "*"), "").await? {
        return Ok(found(
            "rights",
            Verdict::Ok,
            "this user may list every kind",
        ));
    }
    let asked = stream::iter(kinds).map(|kind| async move {
        let may = may(cluster, "list", (&kind.group, &kind.plural), "").await?;
        Ok::<_, CommandError>((!may).then(|| kind.group_resource()))
    });
    let mut answers = asked.buffered(AT_A_TIME);
    let mut missing = Vec::new();
    while let Some(answer) = answers.next().await {
        missing.extend(answer?);
    }
    if missing.is_empty() {
        return Ok(found(
            "rights",
            Verdict::Ok,
            "this user may list every kind",
        ));
    }
    let more = missing.len().saturating_sub(MOST_NAMED);
    let named = missing[..missing.len() - more].join(", ");
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Ok(Check {
        advice: Some("a backup of the whole cluster would miss them; a namespace that you may read is saved with -n".to_owned()),
        ..found("rights", Verdict::Warning, format!("this user may not list {named}{more} in all namespaces"))
    })
}

/// Whether this user may do this to a resource of this group, in all namespaces.
async fn may(
    cluster: &Cluster,
    verb: &str,
    (group, resource): (&str, &str),
    subresource: &str,
) -> Result<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource, "subresource": subresource}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let call = Call::post(path, review.to_string().into());
    let answer = cluster.send(&call).await.map_err(Error::from)?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|e| Error::other("the answer about rights is no JSON").because(e))?;
    Ok(answer["status"]["allowed"] == true)
}

/// Claims whose data a backup does not hold.
async fn volumes(cluster: &Cluster) -> Option<Check> {
    // Who may not list them was told so above.
    let page = cluster
        .get("/api/v1/persistentvolumeclaims?limit=1")
        .await
        .ok()?;
    let page: Value = serde_json::from_slice(&page).ok()?;
    let rest = page["metadata"]["remainingItemCount"].as_u64().unwrap_or(0);
    let claims = page["items"].as_array().map_or(0, Vec::len) as u64 + rest;
    Some(if claims == 0 {
        found("volumes", Verdict::Ok, "no claims of volumes")
    } else {
        let detail = format!(
            "{}, whose files are copied where that is asked for alone",
            counted(claims, "claim")
        );
        found("volumes", Verdict::Warning, detail)
    })
}

async fn of_location(context: &Context) -> Vec<Check> {
    let location = match context.location_to_check().await {
        Ok(location) => location,
        Err(e) => return vec![failed("location", e.error())],
    };
    let mut checks: Vec<Check> = check::check(&location, context.now)
        .await
        .into_iter()
        // What works is one line, but for the clock, by which expiry goes, and for what stays of what is removed.
        .filter(|step| !step.ok || ["clock", "versions"].contains(&step.name.as_ref()))
        .map(|step| Check {
            name: match step.name.as_ref() {
                "clock" => "clock".to_owned(),
                other => format!("location: {other}"),
            },
            result: match (step.ok, step.optional) {
                (true, _) => Verdict::Ok,
                (false, true) => Verdict::Warning,
                (false, false) => Verdict::Failed,
            },
            detail: step.detail,
            advice: step.advice,
        })
        .collect();
    checks.extend(refused(context, &location).await);
    if !checks.iter().any(|check| check.result == Verdict::Failed) {
        checks.insert(
            0,
            found("location", Verdict::Ok, locations::place(&location.spec)),
        );
        checks.push(newest(context, &location).await);
    }
    checks
}

/// Why a backup would not be written there, though it could be: what `create` says of it.
async fn refused(context: &Context, location: &Location) -> Option<Check> {
    let access = async {
        context.location_to_write().await?;
        context.guard(location, "create", true).await
    };
    let refused = access.await.err()?;
    // A cluster that does not answer was told.
    let is_refused = refused.error().kind() == Kind::Forbidden;
    is_refused.then(|| failed("location: access", refused.error()))
}

/// The newest backup that is whole.
async fn newest(context: &Context, location: &Location) -> Check {
    match catalog::list(&location.store).await {
        Ok((entries, _)) => {
            let mut newest_first = entries.iter().rev();
            match newest_first.find(|entry| entry.backup.status.phase == Phase::Completed) {
                Some(entry) => {
                    let began = entry.backup.status.start_timestamp;
                    let age = began.map_or_else(String::new, |began| {
                        format!(", {} ago", output::age(began, context.now))
                    });
                    found("newest backup", Verdict::Ok, format!("{}{age}", entry.name))
                }
                None => Check {
                    advice: Some(format!("make one: {} create", context.program)),
                    ..found(
                        "newest backup",
                        Verdict::Warning,
                        "there is no completed one",
                    )
                },
            }
        }
        Err(e) => failed("newest backup", &e),
    }
}
