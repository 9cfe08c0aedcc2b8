//! `etcd restore get`: a row per EtcdRestore.

use backup_core::api::EtcdRestore;
use clap::Args;

use crate::commands::etcd::objects::{self, Object};
use crate::commands::etcd::scope::ScopeArgs;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, OutputArgs, Table};

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
    output: OutputArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: GetArgs) -> Result<Exit> {
    let mut found: Vec<Object<EtcdRestore>> = Vec::new();
    for name in &args.names {
        found.push(scope.one(context, name).await?);
    }
    if args.names.is_empty() {
        let namespace = scope.listed(context).await?;
        found = objects::list(context.cluster().await?, namespace.as_deref()).await?;
        if let Some(cluster) = scope.cluster()? {
            found.retain(|restore| restore.it.spec.cluster.name == cluster.as_str());
        }
    }
    match args.output.output {
        Format::Json | Format::Yaml => {
            let items = found.into_iter().map(|restore| restore.raw).collect();
            let shown = output::objects(items, args.names.len() == 1);
            output::print(&context.ui, args.output.output, &shown)?;
        }
        Format::Name => {
            for restore in &found {
                context.ui.line(&restore.title())?;
            }
        }
        Format::Table | Format::Wide if found.is_empty() => context.ui.say("No restores found."),
        Format::Table | Format::Wide => context.ui.table(&table(context, &args.output, &found))?,
    }
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
