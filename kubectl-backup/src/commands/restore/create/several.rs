//! `restore create` for several clusters: each of them gets its own backup back. What goes where is told first, and somebody says yes to it.

use backup_core::catalog::Maker;
use backup_core::error::quoted;
use backup_core::restore::{DryRun, Lack};
use backup_core::{Error, Kind};
use serde_json::Value;

use super::{CreateArgs, Meant, exit, lacks, look_up, policy, restore, scope, show, target, tell};
use crate::context::Context;
use crate::many::{self, Many, Member};
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, counted};

const TITLES: [&str; 5] = ["NAME", "BACKUP", "STATUS", "ERRORS", "WARNINGS"];

/// What is known of one of them when nothing is done yet.
struct Ready {
    args: CreateArgs,
    meant: Meant,
    target: String,
    /// What the target lacks, where somebody has to agree to it.
    lacks: Vec<Lack>,
}

/// Runs the command.
pub(super) async fn run(context: &Context, args: &CreateArgs, many: &Many) -> Result<Exit> {
    for member in &many.members {
        super::options(&member.context, &of_member(args, member))?;
    }
    many.are_distinct().await?;
    let found = many.each(|member| get_ready(args, many, member)).await;
    many.are_still_distinct()?;
    if let Some(dry) = args.dry_run.meant() {
        return plan(context, args, dry, found).await;
    }
    ask(context, args, &found)?;
    let mut rows = Vec::new();
    let mut exits = Vec::new();
    let done = many::then(&found, |member, ready| async move {
        let report = restore(&member.context, &ready.args, &ready.meant).await?;
        tell(&member.context, &ready.meant, &report);
        Ok(report)
    });
    for (member, done) in done.await {
        exits.push(done.as_ref().map_or_else(|exit| *exit, exit));
        let restored = done.ok().map(|report| report.restore);
        let object = restored.as_ref().map(serde_json::to_value).transpose();
        let object = object
            .map_err(|e| Error::other("the restore can not be written as JSON").because(e))?;
        let cells = match &restored {
            Some(restore) => [
                restore.metadata.name.clone(),
                restore.spec.backup_name.clone(),
                restore.status.phase.to_string(),
                restore.status.errors.to_string(),
                restore.status.warnings.to_string(),
            ],
            None => ["", "", "Failed", "", ""].map(str::to_owned),
        };
        rows.push((member.name.clone(), cells.into(), object));
    }
    many::print(context, &args.output, &TITLES, rows, "restore")?;
    Ok(many::worst(exits))
}

fn of_member(args: &CreateArgs, member: &Member) -> CreateArgs {
    let mut args = args.clone();
    args.part.default_namespaces(&member.namespaces);
    args
}

async fn get_ready(args: &CreateArgs, many: &Many, member: &Member) -> Result<Ready> {
    let mut args = of_member(args, member);
    let context = &member.context;
    let meant = look_up(context, &args).await?;
    // A folder of its own says whose the backups in it are. A place of several does not: one cluster's backup would go into all of them.
    if !many.has_folders() {
        refuse_others(context, &args, &meant).await?;
    }
    // A question in the midst of the work on one of them would hold the others: it is asked about all, before.
    let mut lacked = Vec::new();
    if args.dry_run.meant().is_none() && !args.policy.yes {
        lacked = lacks(context, &meant).await?;
        args.policy.agreed = true;
    }
    Ok(Ready {
        lacks: lacked,
        target: target(context).await?,
        args,
        meant,
    })
}

async fn refuse_others(context: &Context, args: &CreateArgs, meant: &Meant) -> Result<()> {
    let here = context.here(&meant.place).await?;
    let whose = match here.maker(&meant.entry) {
        Maker::This => return Ok(()),
        Maker::Unsaid => "does not say of which cluster it is".to_owned(),
        Maker::Another(_) => {
            "is not this cluster's, or was made before it or its Velero was made anew".to_owned()
        }
    };
    Err(
        Error::new(Kind::Invalid, format!("{} {whose}", meant.source()))
            .hint(format!(
                "where it is meant all the same, restore it by itself, and say again what else this command says: {} restore create --from-backup {}{}{}",
                context.program,
                quoted(meant.entry.name.as_str()),
                args.part.namespaces_again(),
                context.flags_again()
            ))
            .into(),
    )
}

/// Tells what goes where and what can not, and asks.
fn ask(context: &Context, args: &CreateArgs, found: &many::Done<'_, Ready>) -> Result<()> {
    let mut into = Vec::new();
    let mut lacks = 0;
    for (member, ready) in found {
        let ui = &member.context.ui;
        let Ok(ready) = ready else {
            ui.say("nothing is restored into it");
            continue;
        };
        let started = ready.meant.entry.backup.status.start_timestamp;
        ui.say(&format!(
            "{} of {} of {} goes into {}",
            scope(&ready.args),
            ready.meant.source(),
            output::time(started),
            ready.target
        ));
        policy::tell(&member.context, &ready.lacks);
        lacks += ready.lacks.len();
        into.push(member.name.as_str());
    }
    if into.is_empty() {
        return Ok(());
    }
    let mut questions = args.policy.questions("the targets lack", lacks);
    questions.push(format!(
        "restore into {}: {}?",
        counted(into.len() as u64, "cluster"),
        into.join(", ")
    ));
    let question = questions.join("; ");
    context.ui.confirm(args.policy.yes, &question)
}

/// Shows what would be done, one cluster after another.
async fn plan(
    context: &Context,
    args: &CreateArgs,
    dry: DryRun,
    found: many::Done<'_, Ready>,
) -> Result<Exit> {
    let ui = &context.ui;
    let mut plans: Vec<Value> = Vec::new();
    let mut exits = Vec::new();
    let as_table = matches!(args.output.output, Format::Table | Format::Wide);
    for (member, ready) in found {
        let shown = match ready {
            Err(exit) => Err(exit),
            Ok(ready) => {
                if as_table {
                    ui.line(&format!("CLUSTER {}", member.name))?;
                }
                let shown = show(&member.context, &ready.args, &ready.meant, dry).await;
                shown.map_err(|error| {
                    member.context.ui.error(&error);
                    error.exit()
                })
            }
        };
        let (exit, plan) = shown.unwrap_or_else(|exit| (exit, None));
        exits.push(exit);
        plans.extend(plan.map(|plan| many::labelled(&member.name, plan)));
    }
    if matches!(args.output.output, Format::Json | Format::Yaml) {
        output::print(ui, args.output.output, &output::objects(plans, false))?;
    }
    Ok(many::worst(exits))
}
