//! What a restore would do, printed as it is planned.

use backup_core::cluster::Cluster;
use backup_core::location::Location;
use backup_core::restore::{self, Action, RestoreOptions, Step};

use serde_json::Value;

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
    output: &OutputArgs,
) -> Result<(Exit, Option<Value>)> {
    let ui = &context.ui;
    let mut table = Table::new(
        &["KIND", "NAMESPACE", "NAME", "ACTION", "REASON"],
        output.no_headers,
    );
    let mut steps = Vec::new();
    let mut counts = [0u64; 4];
    let mut refused = None;
    let bar = ui.progress();
    let mut take = |step: Step| {
        counts[step.action as usize] += 1;
        let printed = match output.output {
            Format::Json | Format::Yaml => {
                steps.push(step);
                Ok(())
            }
            Format::Name => ui.line(&format!("{}/{}", step.kind, step.name)),
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
    let warnings = restore::plan(cluster, location, options, &bar, &mut take).await;
    drop(bar);
    let warnings = warnings?;
    if let Some(e) = refused {
        return Err(e);
    }
    let plan = match output.output {
        Format::Json | Format::Yaml => Some(
            serde_json::json!({"kind": "RestorePlan", "backup": options.backup.as_str(), "steps": steps, "warnings": warnings}),
        ),
        _ if !table.is_empty() => ui.table(&table).map(|()| None)?,
        _ => None,
    };
    for warning in &warnings {
        ui.warn(warning);
    }
    let [create, update, skip, fail] = counts.map(count);
    ui.note(&format!("would create {create}, update {update}, skip {skip}; {fail} would fail; nothing was changed"));
    let exit = if counts[Action::Failed as usize] == 0 {
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
        Action::Skipped => "skip",
        Action::Failed => "fail",
    }
}
