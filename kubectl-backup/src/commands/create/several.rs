//! `create` for several clusters: a backup of each, side by side, under one name.

use backup_core::catalog::SCHEDULE_NAME;
use backup_core::{Error, api::Backup};
use serde_json::Value;

use super::{CreateArgs, exit, make, planned, summary};
use crate::context::Context;
use crate::flags::{self, DryRun};
use crate::many::{self, Many, Member, Schedule};
use backup_cli::error::{Exit, Result};

const TITLES: [&str; 5] = ["NAME", "STATUS", "ERRORS", "WARNINGS", "STORAGE-LOCATION"];

/// Runs the command.
pub(super) async fn run(context: &Context, args: &CreateArgs, many: &Many) -> Result<Exit> {
    // A mistake of the command line is one before anything is begun.
    let named = |member: &Member| of_member(args, many.schedule.as_ref(), &member.namespaces);
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
            let args = of_member(args, many.schedule.as_ref(), &member.namespaces);
            async move { planned(&member.context, &args).await }
        });
        for (member, done) in done.await {
            exits.push(done.as_ref().err().copied().unwrap_or(Exit::Done));
            rows.push(row(member, done.ok().as_ref(), "")?);
        }
    } else {
        let done = many.each(|member| {
            let args = of_member(args, many.schedule.as_ref(), &member.namespaces);
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
fn of_member(args: &CreateArgs, schedule: Option<&Schedule>, namespaces: &[String]) -> CreateArgs {
    let mut args = args.clone();
    args.filter.default_namespaces(namespaces);
    if let Some(schedule) = schedule {
        // Labels that can not be read are refused with the others.
        let labels = flags::pairs("--labels", '=', &args.labels).unwrap_or_default();
        if !labels.contains_key(SCHEDULE_NAME) {
            args.labels
                .push(format!("{SCHEDULE_NAME}={}", schedule.name));
        }
        if args.ttl.is_none() && args.expires.is_none() {
            args.ttl.clone_from(&schedule.ttl);
        }
        args.stem = Some(schedule.name.clone());
    }
    args
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CreateArgs,
    }

    #[test]
    fn a_workspaces_schedule_names_backups_and_the_command_line_wins() {
        let schedule = Schedule {
            name: "nightly".to_owned(),
            ttl: Some("30d".to_owned()),
        };
        let of = |line: &[&str]| {
            let args = Line::parse_from([&["x"], line].concat()).args;
            of_member(&args, Some(&schedule), &["shop".to_owned()])
        };
        let label = |args: &CreateArgs| {
            flags::pairs("--labels", '=', &args.labels).unwrap()[SCHEDULE_NAME].clone()
        };
        let plain = of(&[]);
        // A name that was generated is not one that was given: where it is taken, another one is tried.
        assert_eq!(
            (plain.name.as_deref(), plain.stem.as_deref()),
            (None, Some("nightly"))
        );
        assert_eq!(
            (label(&plain).as_str(), plain.ttl.as_deref()),
            ("nightly", Some("30d"))
        );
        let own = of(&[
            "mine",
            "--labels",
            "a=b,velero.io/schedule-name=weekly",
            "--ttl",
            "never",
        ]);
        assert_eq!(own.name.as_deref(), Some("mine"));
        assert_eq!(
            (label(&own).as_str(), own.ttl.as_deref()),
            ("weekly", Some("never"))
        );
    }
}
