//! `create` for several clusters: a backup of each, side by side, under one name.

use backup_core::catalog::SCHEDULE_NAME;
use backup_core::{Error, api::Backup};
use serde_json::Value;

use super::{CreateArgs, exit, make, planned, summary};
use crate::context::Context;
use crate::flags::{self, DryRun};
use crate::many::{self, Many, Member};
use backup_cli::error::{Exit, Result};

const TITLES: [&str; 5] = ["NAME", "STATUS", "ERRORS", "WARNINGS", "STORAGE-LOCATION"];

/// Runs the command.
pub(super) async fn run(context: &Context, args: &CreateArgs, many: &Many) -> Result<Exit> {
    // A mistake of the command line is one before anything is begun.
    let named = |member: &Member| of_member(args, many, member, context);
    let all: Vec<CreateArgs> = many.members.iter().map(named).collect();
    for (member, args) in many.members.iter().zip(&all) {
        super::options(&member.context, args)?;
    }
    if args.dry_run != DryRun::Client {
        many.are_distinct().await?;
    }
    many.is_shared(context).await?;
    let mut rows = Vec::new();
    let mut exits = Vec::new();
    if args.dry_run == DryRun::Client {
        let done = many.each(|member| {
            let args = of_member(args, many, member, context);
            async move { planned(&member.context, &args).await }
        });
        for (member, done) in done.await {
            exits.push(done.as_ref().err().copied().unwrap_or(Exit::Done));
            rows.push(row(member, done.ok().as_ref(), "")?);
        }
    } else {
        let done = many.each(|member| {
            let args = of_member(args, many, member, context);
            async move {
                let made = make(&member.context, &args).await?;
                summary::tell(&member.context, &made.report, made.took);
                Ok(made)
            }
        });
        for (member, done) in done.await {
            exits.push(done.as_ref().map_or_else(|exit| *exit, exit));
            rows.push(row(
                member,
                done.ok().map(|made| made.report.backup).as_ref(),
                "Failed",
            )?);
        }
    }
    many::print(context, &args.output, &TITLES, rows, "backup")?;
    Ok(many::worst(exits))
}

type Row = (String, Vec<String>, Option<Value>);

fn row(member: &Member, backup: Option<&Backup>, otherwise: &str) -> Result<Row> {
    let Some(backup) = backup else {
        let cells = ["", otherwise, "", "", ""].map(str::to_owned);
        return Ok((member.name.clone(), cells.into(), None));
    };
    let object = serde_json::to_value(backup)
        .map_err(|e| Error::other("the backup can not be written as JSON").because(e))?;
    let status = &backup.status;
    let cells = [
        backup.metadata.name.clone(),
        status.phase.to_string(),
        status.errors.to_string(),
        status.warnings.to_string(),
        match member.context.asked_location() {
            Some(named) => named.to_owned(),
            None => backup.spec.storage_location.clone().unwrap_or_default(),
        },
    ];
    Ok((member.name.clone(), cells.into(), Some(object)))
}

/// What is asked of one of them: the workspace says what the command line does not.
fn of_member(args: &CreateArgs, many: &Many, member: &Member, context: &Context) -> CreateArgs {
    let mut args = args.clone();
    args.filter.default_namespaces(&member.namespaces);
    if let Some(schedule) = &many.schedule {
        args.labels
            .push(format!("{SCHEDULE_NAME}={}", schedule.name));
        if args.ttl.is_none() && args.expires.is_none() {
            args.ttl.clone_from(&schedule.ttl);
        }
        let name = || flags::generated_name(&schedule.name, context.now);
        args.name.get_or_insert_with(name);
    }
    args
}
