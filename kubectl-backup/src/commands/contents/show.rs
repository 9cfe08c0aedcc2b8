//! What `contents` prints: kinds, the objects of a kind, or one object. Frame by frame, so that memory is bounded.

use backup_core::apart;
use backup_core::archive::index::Index;
use backup_core::archive::read::{Archive, Source};
use backup_core::archive::row::{Outcome, ResourceRow, Row};
use backup_core::name::Name;
use backup_core::{Error, Kind, raw};
use futures::StreamExt;
use serde::Serialize;
use serde_json::Value;

use super::{ContentsArgs, kind};
use crate::context::Context;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, Document, Format, Table};

/// Prints what the arguments ask for.
pub(super) async fn show<S: Source>(
    context: &Context,
    args: &ContentsArgs,
    archive: &Archive<S>,
) -> Result<Exit> {
    let Some(asked) = &args.kind else {
        return kinds(context, args, archive.index.resources());
    };
    let resource = kind::find(archive.index.resources(), asked)?;
    if apart::is_locked(resource) {
        return Err(apart::locked(&Name::foreign(&args.name)?).into());
    }
    if let Some(object) = &args.object {
        let (namespace, name) = kind::object(object, args.namespace.as_deref(), resource)?;
        let row = archive
            .index
            .find(&resource.resource, namespace, name)
            .await?;
        let row = row.ok_or_else(|| missing(context, args, resource, object))?;
        return print_object(context, args, archive, resource, &row).await;
    }
    if matches!(args.output.output, Format::Json | Format::Yaml) {
        return print_all(context, args, archive, resource).await;
    }
    let titles: &[&str] = if resource.namespaced {
        &["NAMESPACE", "NAME"]
    } else {
        &["NAME"]
    };
    let mut table = Table::new(titles, args.output.no_headers);
    let mut labels = args.labels.titles();
    for frame in 0..archive.index.frames(&resource.resource) {
        let mut cells = Vec::new();
        for row in wanted(args, &archive.index, resource, frame).await? {
            if args.output.output == Format::Name {
                context
                    .ui
                    .line(&format!("{}/{}", resource.resource, row.name))?;
                continue;
            }
            let namespace = resource
                .namespaced
                .then(|| row.namespace.unwrap_or_default());
            table.push(namespace.into_iter().chain([row.name]).collect());
            cells.push(args.labels.cells(&row.labels));
        }
        if !table.is_empty() {
            table.widen(std::mem::take(&mut labels), cells);
            context.ui.table(&table)?;
            table.clear();
        }
        if context.ui.is_broken() {
            break;
        }
    }
    Ok(Exit::Done)
}

async fn wanted<S: Source>(
    args: &ContentsArgs,
    index: &Index<S>,
    resource: &ResourceRow,
    frame: usize,
) -> Result<Vec<Row>> {
    let mut rows = index.rows(&resource.resource, frame).await?;
    rows.retain(|row| args.namespace.is_none() || row.namespace == args.namespace);
    rows.retain(|row| args.labels.chooses(&row.labels));
    Ok(rows)
}

#[derive(Serialize)]
struct Kinds<'k> {
    items: Vec<&'k ResourceRow>,
}

fn kinds(context: &Context, args: &ContentsArgs, rows: &[ResourceRow]) -> Result<Exit> {
    let wide = args.output.output == Format::Wide;
    // What failed is shown always; what is empty or was left out only when asked for.
    let rows = rows
        .iter()
        .filter(|row| wide || row.objects() > 0 || row.outcome == Outcome::Failed);
    match args.output.output {
        Format::Json | Format::Yaml => {
            let kinds = Kinds {
                items: rows.collect(),
            };
            let list = Document::new("BackedUpKindList", kinds);
            output::print(&context.ui, args.output.output, &list)?;
        }
        Format::Name => {
            for row in rows {
                context.ui.line(&row.resource)?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(
                &[
                    "NAME",
                    "APIVERSION",
                    "NAMESPACED",
                    "KIND",
                    "OBJECTS",
                    "OUTCOME",
                ],
                args.output.no_headers,
            );
            for row in rows {
                let outcome = match (row.outcome, row.why.as_str()) {
                    (Outcome::Saved, why) if apart::is_locked(row) => format!("saved, {why}"),
                    (Outcome::Saved, _) => "saved".to_owned(),
                    (Outcome::Excluded, why) => format!("excluded: {why}"),
                    (Outcome::Failed, why) => format!("failed: {why}"),
                };
                table.row([
                    row.resource.clone(),
                    row.api_version(),
                    row.namespaced.to_string(),
                    row.kind.clone(),
                    row.objects().to_string(),
                    outcome,
                ]);
            }
            context.ui.table(&table)?;
        }
    }
    Ok(Exit::Done)
}

async fn print_object<S: Source>(
    context: &Context,
    args: &ContentsArgs,
    archive: &Archive<S>,
    resource: &ResourceRow,
    row: &Row,
) -> Result<Exit> {
    match args.output.output {
        Format::Name => context
            .ui
            .line(&format!("{}/{}", resource.resource, row.name))?,
        // Exactly what was saved: a decoder would change large numbers.
        Format::Json => {
            let body = archive.body(row).await?;
            let text = std::str::from_utf8(&body).map_err(|e| {
                let what = format!("object {:?} is no text", row.name);
                Error::new(Kind::Corrupt, what).because(e)
            })?;
            context
                .ui
                .data(format!("{}\n", raw::pretty(text)).as_bytes())?;
        }
        _ => output::print(
            &context.ui,
            Format::Yaml,
            &decoded(row, &archive.body(row).await?)?,
        )?,
    }
    Ok(Exit::Done)
}

/// Every object of a kind, one after the other: a List in JSON, documents in YAML.
async fn print_all<S: Source>(
    context: &Context,
    args: &ContentsArgs,
    archive: &Archive<S>,
    resource: &ResourceRow,
) -> Result<Exit> {
    let ui = &context.ui;
    let json = args.output.output == Format::Json;
    if json {
        ui.data(b"{\"apiVersion\": \"v1\", \"kind\": \"List\", \"metadata\": {}, \"items\": [\n")?;
    }
    let mut first = true;
    for frame in 0..archive.index.frames(&resource.resource) {
        let mut objects = archive.objects(wanted(args, &archive.index, resource, frame).await?);
        while let Some(object) = objects.next().await {
            let object = object?;
            if json {
                ui.data(if first { b"" } else { b",\n" })?;
                ui.data(&object.body)?;
            } else {
                ui.data(
                    format!(
                        "---\n{}",
                        output::yaml(&decoded(&object.row, &object.body)?)?
                    )
                    .as_bytes(),
                )?;
            }
            first = false;
            if ui.is_broken() {
                return Ok(Exit::Done);
            }
        }
    }
    if json {
        ui.data(b"\n]}\n")?;
    }
    Ok(Exit::Done)
}

fn decoded(row: &Row, body: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(body).map_err(|e| {
        Error::new(
            Kind::Corrupt,
            format!("object {:?} does not decode", row.name),
        )
        .because(e)
    })?)
}

fn missing(
    context: &Context,
    args: &ContentsArgs,
    resource: &ResourceRow,
    object: &str,
) -> CommandError {
    Error::not_found(format!(
        "{} {object:?} is not in backup {}",
        resource.resource, args.name
    ))
    .hint(format!(
        "see what is: {} contents {} {}{}",
        context.program,
        args.name,
        resource.resource,
        context.flags_again()
    ))
    .into()
}
