//! What a restore would do, printed as it is planned.

use backup_core::cluster::Cluster;
use backup_core::location::Location;
use backup_core::restore::{self, Action, DryRun, RestoreOptions, Step};
use serde_json::Value;

use super::policy;
use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{Format, OutputArgs, Table, count};

/// Rows that are aligned together.
const CHUNK: usize = 500;

/// Plans, and prints a row per step; for programs, the plan is handed back.
pub(super) async fn show(
    context: &Context,
    cluster: &Cluster,
    location: &Location,
    options: &RestoreOptions,
    dry: DryRun,
    output: &OutputArgs,
) -> Result<(Exit, Option<Value>)> {
    let ui = &context.ui;
    let mut table = Table::new(
        &["KIND", "NAMESPACE", "NAME", "ACTION", "REASON"],
        output.no_headers,
    );
    let mut steps = Vec::new();
    let mut counts = [0u64; 6];
    let mut refused = None;
    let bar = ui.progress();
    let mut take = |step: Step| {
        counts[step.action as usize] += 1;
        let printed = match output.output {
            Format::Json | Format::Yaml => {
                steps.push(step);
                Ok(())
            }
            Format::Name => context.line(&format!("{}/{}", step.kind, step.name)),
            Format::Table | Format::Wide => {
                let action = would(step.action).to_owned();
                table.row([
                    step.kind,
                    step.namespace.unwrap_or_default(),
                    step.name,
                    action,
                    step.reason,
                ]);
                if table.len() < CHUNK {
                    Ok(())
                } else {
                    let printed = ui.table(&table);
                    table.clear();
                    printed
                }
            }
        };
        if let Err(e) = printed {
            refused.get_or_insert(e);
        }
    };
    let planned = restore::plan(cluster, location, options, dry, &bar, &mut take).await;
    drop(bar);
    let planned = planned?;
    if let Some(e) = refused {
        return Err(e);
    }
    let plan = match output.output {
        Format::Json | Format::Yaml => Some(
            serde_json::json!({"kind": "RestorePlan", "backup": options.backup.as_str(), "steps": steps, "lacks": planned.lacks, "warnings": planned.warnings}),
        ),
        _ if !table.is_empty() => ui.table(&table).map(|()| None)?,
        _ => None,
    };
    policy::tell(context, &planned.lacks);
    for warning in &planned.warnings {
        ui.warn(warning);
    }
    let of = |action: Action| counts[action as usize];
    let told = [
        ("create", Action::Created),
        ("update", Action::Updated),
        ("recreate", Action::Recreated),
        ("skip", Action::Skipped),
    ]
    .map(|(verb, action)| format!("{verb} {}", count(of(action))));
    let untried = match of(Action::Untried) {
        0 => String::new(),
        n => format!(", {} can not be tried yet", count(n)),
    };
    ui.note(&format!(
        "would {}; {} would fail{untried}; nothing was changed",
        told.join(", "),
        count(of(Action::Failed))
    ));
    let exit = if of(Action::Failed) + of(Action::Untried) == 0 {
        Exit::Done
    } else {
        Exit::Incomplete
    };
    Ok((exit, plan))
}

fn would(action: Action) -> &'static str {
    match action {
        Action::Created => "create",
        Action::Updated => "update",
        Action::Recreated => "recreate",
        Action::Skipped => "skip",
        Action::Failed => "fail",
        Action::Untried => "untried",
    }
}
