//! `restore get`: a row per restore.

use backup_core::Error;
use backup_core::api::Restore;
use backup_core::catalog;
use clap::Args;

use crate::context::Context;
use crate::flags;
use crate::many::{self, ManyArgs};
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, ListArgs, Listing, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore get
  kubectl backup restore get nightly-20261121020000 -o yaml
  kubectl backup restore get --sort-by .status.startTimestamp
  kubectl backup restore get --contexts prod-eu,prod-us";

/// List restores, or show one
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of restores [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    many: ManyArgs,
    #[command(flatten)]
    list: ListArgs,
}

/// A restore, and whose it is where several clusters are meant.
type Found = (Option<String>, Restore);

/// Runs the command.
pub(crate) async fn run(context: &Context, args: GetArgs) -> Result<Exit> {
    let many = args.many.resolve(context)?;
    let (found, exit) = match &many {
        None => (look(context, &args).await?, Exit::Done),
        Some(many) => {
            let done = many.each(|member| look(&member.context, &args)).await;
            let exit = many::worst(done.iter().map(|(_, done)| many::exit_of(done)));
            let found = done.into_iter().filter_map(|(_, done)| done.ok());
            (found.flatten().collect(), exit)
        }
    };
    let listing = Listing {
        items: found,
        single: args.names.len() == 1 && many.is_none(),
        title: |(member, restore)| {
            let title = format!("restore/{}", restore.metadata.name);
            match member {
                Some(member) => many::titled(member, &title),
                None => title,
            }
        },
        value: |(member, restore)| {
            let value = serde_json::to_value(restore)
                .map_err(|e| Error::other("the restore can not be written as JSON").because(e))?;
            Ok(match member {
                Some(member) => many::labelled(member, value),
                None => value,
            })
        },
        empty: "No restores found.".to_owned(),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(found, many.is_some(), args.list.output.no_headers)
    })?;
    Ok(exit)
}

/// What is asked for of one cluster.
async fn look(context: &Context, args: &GetArgs) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    if args.names.is_empty() {
        // A restore may read any cluster's backups, and is recorded beside them.
        for place in context.every_place().await? {
            found.extend(catalog::list_restores(&place.location.store).await?);
        }
    }
    for name in &args.names {
        found.push(context.find_restore(&flags::known_name(name)?).await?.1);
    }
    let member = |restore| (context.member.clone(), restore);
    Ok(found.into_iter().map(member).collect())
}

fn table(found: &[Found], of_several: bool, no_headers: bool) -> Table {
    let mut titles = vec![
        "NAME",
        "BACKUP",
        "STATUS",
        "STARTED",
        "COMPLETED",
        "ERRORS",
        "WARNINGS",
        "CREATED",
        "SELECTOR",
    ];
    titles.extend(of_several.then_some("CLUSTER"));
    let mut table = Table::new(&titles, no_headers);
    for (member, restore) in found {
        let (spec, status) = (&restore.spec, &restore.status);
        let mut row = vec![
            restore.metadata.name.clone(),
            spec.backup_name.clone(),
            status.phase.to_string(),
            output::time(status.start_timestamp),
            output::time(status.completion_timestamp),
            status.errors.to_string(),
            status.warnings.to_string(),
            output::time(
                restore
                    .metadata
                    .creation_timestamp
                    .or(status.start_timestamp),
            ),
            crate::commands::get::selectors(spec.label_selector.as_ref(), &spec.or_label_selectors),
        ];
        row.extend(member.clone());
        table.push(row);
    }
    table
}
