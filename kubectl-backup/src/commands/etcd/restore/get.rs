//! `etcd restore get`: a row per EtcdRestore.

use backup_core::api::EtcdRestore;
use clap::Args;

use crate::commands::etcd::objects::Object;
use crate::commands::etcd::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, ListArgs, Listing, OutputArgs, Table};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd restore get
  kubectl backup etcd restore get cluster-restore --cluster zvc78xnnz7 -o yaml";

/// List restores of etcd, or show some
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GetArgs {
    /// Names of EtcdRestores [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: GetArgs) -> Result<Exit> {
    let found: Vec<Object<EtcdRestore>> = scope.named(context, &args.names).await?;
    let listing = Listing {
        items: found,
        single: args.names.len() == 1,
        title: Object::title,
        value: |restore| Ok(restore.raw.clone()),
        empty: "No restores found.".to_owned(),
    };
    listing.print(&context.ui, &args.list, |found| {
        table(context, &args.list.output, found)
    })?;
    Ok(Exit::Done)
}

fn table(context: &Context, output: &OutputArgs, found: &[Object<EtcdRestore>]) -> Table {
    let wide = output.output == Format::Wide;
    let mut titles = vec![
        "NAMESPACE",
        "NAME",
        "CLUSTER",
        "SNAPSHOT",
        "PHASE",
        "STEP",
        "AGE",
    ];
    titles.extend(
        wide.then_some(["RESTORED", "DESTINATION", "MESSAGE"])
            .into_iter()
            .flatten(),
    );
    let mut table = Table::new(&titles, output.no_headers);
    for restore in found {
        let (spec, status) = (
            &restore.it.spec,
            restore.it.status.clone().unwrap_or_default(),
        );
        let step = status.attempt.and_then(|attempt| attempt.step);
        let created = restore.it.metadata.creation_timestamp.as_ref();
        let mut row = vec![
            restore.namespace().to_owned(),
            restore.name().to_owned(),
            spec.cluster.name.clone(),
            spec.backup_name.clone(),
            status
                .phase
                .map_or_else(String::new, |phase| phase.to_string()),
            step.map_or_else(String::new, |step| step.to_string()),
            created.map_or_else(String::new, |time| output::age(time.0, context.now)),
        ];
        if wide {
            row.push(
                status
                    .restore_time
                    .map_or_else(String::new, |time| output::time(Some(time.0))),
            );
            row.push(spec.destination.clone().unwrap_or_default());
            row.push(status.message.unwrap_or_default());
        }
        table.push(row);
    }
    table
}
