//! `restore create --in-cluster`: a Restore object in the place of the work itself. What the flags say goes into its spec; what that can not say stays here.

use backup_core::Error;
use backup_core::api::{API_VERSION, Restore};
use backup_core::archive::SECRETS;
use backup_core::restore::{self, ExistingPolicy, RestoreOptions};
use serde_json::{Value, json};

use super::{CreateArgs, DryRun};
use crate::commands::schedule::objects;
use crate::context::Context;
use crate::controller::sealed;
use crate::flags;
use crate::in_cluster::{self, Controller, Work};
use backup_cli::error::{Exit, Result};

/// Hands the restore to a controller and follows it; nothing where it is done here.
///
/// # Errors
/// What keeps a controller from it, where it has to be one; how the restore failed.
pub(super) async fn run(context: &Context, args: &CreateArgs) -> Result<Option<Exit>> {
    if args.in_cluster.is_never() {
        return Ok(None);
    }
    let options = super::options(context, args)?;
    let unfit = unfit(context, args, &options);
    let controller = args.in_cluster.controller(context, Work::Restore, unfit);
    let Some(controller) = controller.await? else {
        return Ok(None);
    };
    if args.from_backup.is_some()
        && let Some(why) = is_not_there(context, &controller, &options).await?
    {
        args.in_cluster.decline(context, why)?;
        return Ok(None);
    }
    let object = object(context, args, &options, &controller)?;
    if args.dry_run == DryRun::Client {
        in_cluster::print(context, &args.output, Work::Restore, &object, true)?;
        return Ok(Some(Exit::Done));
    }
    let target = super::target(context).await?;
    let question = "the controller does not ask where the target lacks something";
    let mut questions = vec![question.to_owned()];
    questions.extend(args.policy.questions("", 0));
    let question = format!("{}; restore into {target}?", questions.join("; "));
    context.ui.confirm(args.policy.yes, &question)?;
    context.ui.note(&format!(
        "{} restores {} of backup {} into {target}: restore {}",
        controller.title(),
        super::scope(args),
        match &args.from_schedule {
            Some(schedule) => format!("the newest of schedule {schedule}"),
            None => options.backup.to_string(),
        },
        object["metadata"]["name"].as_str().unwrap_or_default()
    ));
    let made = in_cluster::create(context, &controller, Work::Restore, &object).await?;
    let exit = in_cluster::finish(context, &controller, Work::Restore, &made, &args.output).await?;
    Ok(Some(exit))
}

/// What a Restore can not say, in words.
fn unfit(context: &Context, args: &CreateArgs, options: &RestoreOptions) -> Option<String> {
    let is_ours = !matches!(
        options.existing,
        ExistingPolicy::None | ExistingPolicy::Update
    );
    let rewriting = &options.rewriting;
    let cases = [
        (!options.filter.objects.is_empty(), "--objects"),
        (is_ours, "that --existing-resource-policy"),
        (
            !rewriting.storage_classes.is_empty(),
            "--storage-class-mappings",
        ),
        (!rewriting.images.is_empty(), "--image-mappings"),
        (rewriting.modifiers.is_some(), "--rewrite-file"),
        (options.adopt_volumes.is_some(), "--adopt-volumes"),
        (
            args.allow_partially_failed == Some(true),
            "--allow-partially-failed",
        ),
        (args.dry_run == DryRun::Server, "--dry-run=server"),
        (
            args.from_schedule.is_some() && context.is_location_asked(),
            "--from-schedule with a location",
        ),
    ];
    let copies = args.copies.given().map(|flag| (true, flag));
    let said = cases.into_iter().chain(copies).find(|(given, _)| *given);
    let said = said.map(|(_, flag)| format!("a Restore can not say {flag}"));
    let (here, there) = (context.velero(), args.in_cluster.namespace());
    // Who says that it is the controller in any case means what that sees.
    let is_other = args.rewriting.config_map().is_some() && !args.in_cluster.is_always();
    said.or_else(|| {
        (is_other && here != there).then(|| {
            format!("--resource-modifier-configmap is of namespace {here}, and that of namespace {there} would count")
        })
    })
}

/// Why the backup can not be the one that is meant: a controller restores what it has an object of.
async fn is_not_there(
    context: &Context,
    controller: &Controller,
    options: &RestoreOptions,
) -> Result<Option<Error>> {
    let (namespace, name) = (&controller.namespace, options.backup.as_str());
    let Some(backup) = objects::get(context, namespace, "backups", name).await? else {
        return Ok(Some(
            Error::not_found(format!("it has no Backup {name} in namespace {namespace}"))
                .hint("it looks through its locations every minute, and makes objects of what it finds there"),
        ));
    };
    if sealed::is_encrypted(&backup) {
        return Ok(Some(Error::invalid(format!(
            "backup {name} is encrypted, and a controller has no identity"
        ))));
    }
    let excluded = &options.filter.not_resources;
    if sealed::has_sealed_secrets(&backup) && !excluded.iter().any(|kind| kind == SECRETS) {
        return Ok(Some(
            Error::invalid(format!(
                "the Secrets of backup {name} are encrypted, and a controller has no identity"
            ))
            .hint("--exclude-resources secrets leaves them out"),
        ));
    }
    let place = backup["spec"]["storageLocation"]
        .as_str()
        .unwrap_or_default();
    Ok(match controller.location.as_deref() {
        Some(meant) if meant != place => Some(Error::not_found(format!(
            "its Backup {name} is in location {place}, not in {meant}"
        ))),
        _ => None,
    })
}

/// The Restore.
fn object(
    context: &Context,
    args: &CreateArgs,
    options: &RestoreOptions,
    controller: &Controller,
) -> Result<Value> {
    let name = match &options.name {
        Some(name) => name.clone(),
        None => flags::new_name(&flags::generated_name(options.backup.as_str(), context.now))?,
    };
    let mut spec = restore::spec(options);
    if let Some(schedule) = &args.from_schedule {
        spec.backup_name.clear();
        spec.rest
            .insert("scheduleName".to_owned(), schedule.as_str().into());
    }
    if let Some(name) = args.rewriting.config_map() {
        let reference = json!({"apiGroup": "", "kind": "configmap", "name": name});
        spec.rest.insert("resourceModifier".to_owned(), reference);
    }
    let mut restore = Restore {
        api_version: API_VERSION.to_owned(),
        kind: "Restore".to_owned(),
        spec,
        ..Restore::default()
    };
    restore.metadata.name = name.to_string();
    restore.metadata.namespace = Some(controller.namespace.clone());
    Ok(in_cluster::object(&restore))
}
