//! `create --in-cluster`: a Backup object in the place of the work itself. What the flags say goes into its spec; what that can not say stays here.

use backup_core::Kind;
use backup_core::api::{API_VERSION, Backup};
use backup_core::crypt::{ENCRYPT, RECIPIENTS};
use backup_core::signature::VERIFY_KEYS;
use serde_json::Value;

use super::CreateArgs;
use crate::context::Context;
use crate::flags::{self, DryRun};
use crate::in_cluster::{self, Controller, Work};
use crate::template::Template;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::{self, Choice, REPLICATE_TO, SIGNING_KEY_FILE};

/// Hands the backup to a controller and follows it; nothing where it is made here.
///
/// # Errors
/// What keeps a controller from it, where it has to be one; how the backup failed.
pub(super) async fn run(context: &Context, args: &CreateArgs) -> Result<Option<Exit>> {
    let unfit = unfit(context, args);
    let controller = args.in_cluster.controller(context, Work::Backup, unfit);
    let Some(controller) = controller.await? else {
        return Ok(None);
    };
    let mut object = object(context, args, &controller)?;
    if args.dry_run == DryRun::Client {
        in_cluster::print(context, &args.output, Work::Backup, &object, true)?;
        return Ok(Some(Exit::Done));
    }
    let cluster = context.cluster().await?;
    context.ui.note(&format!(
        "{} backs up {} of context {:?} ({}) to location {}: backup {}",
        controller.title(),
        args.filter.scope(),
        cluster.context(),
        cluster.server(),
        controller.location.as_deref().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    ));
    let mut made = in_cluster::create(context, &controller, Work::Backup, &object).await;
    if args.name.is_none()
        && matches!(&made, Err(e) if e.error().kind() == Kind::AlreadyExists)
        && let Some(name) = object["metadata"]["name"].as_str()
    {
        object["metadata"]["name"] = super::suffixed(&flags::new_name(name)?)?.as_str().into();
        made = in_cluster::create(context, &controller, Work::Backup, &object).await;
    }
    let exit = in_cluster::finish(context, &controller, Work::Backup, &made?, &args.output).await?;
    Ok(Some(exit))
}

/// What a Backup can not say, in words.
fn unfit(context: &Context, args: &CreateArgs) -> Option<String> {
    let never = args.ttl.as_deref() == Some("never") && args.expires.is_none();
    let cases = [
        (args.skip_noise, "--skip-noise"),
        (!args.point_in_time, "--point-in-time=false"),
        (args.expires.is_some(), "--expires"),
        (never, "--ttl never"),
        (args.signing_key_file.is_some(), "--signing-key-file"),
        (args.recipients.is_given(), "--recipient"),
        (args.encrypt.encrypt.is_some(), "--encrypt"),
    ];
    let said = cases.into_iter().find(|(given, _)| *given);
    let said = said.map(|(_, flag)| format!("a Backup can not say {flag}"));
    let of_controller = || {
        let flag = args.copies.given()?;
        Some(format!(
            "{flag} is the controller's own, as it was installed"
        ))
    };
    said.or_else(of_controller)
        .or_else(|| args.asked.unfit(context, &args.in_cluster))
        .or_else(|| remembered(context))
}

/// What the location that is meant has done with its backups from here, and a controller does not know of.
fn remembered(context: &Context) -> Option<String> {
    let own = context.own_locations().ok()?;
    let Choice::One(location) = locations::choose(context.asked_location(), &[own]).ok()? else {
        return None;
    };
    let has = |key: &str| location.metadata.annotations.contains_key(key);
    let name = &location.metadata.name;
    if has(SIGNING_KEY_FILE) || has(VERIFY_KEYS) {
        return Some(format!(
            "location {name:?} has its backups signed, and a controller has no key"
        ));
    }
    if has(RECIPIENTS) || has(ENCRYPT) {
        return Some(format!(
            "location {name:?} has its backups encrypted for whom it is remembered here, and a controller goes by its own location"
        ));
    }
    has(REPLICATE_TO).then(|| {
        format!("location {name:?} has its backups copied, as it is remembered here alone")
    })
}

/// The Backup.
fn object(context: &Context, args: &CreateArgs, controller: &Controller) -> Result<Value> {
    let name = match &args.name {
        Some(name) => flags::new_name(name)?,
        None => flags::new_name(&flags::generated_name("backup", context.now))?,
    };
    let spec = Template {
        filter: super::filter(args)?,
        is_one_namespace: args.filter.namespace.is_some(),
        policies: args.asked.policies(),
        order: args.asked.order()?,
        volumes: args.volumes.clone(),
        ttl: args.ttl.as_deref(),
        location: controller.location.as_deref(),
    }
    .spec()?;
    let mut backup = Backup {
        api_version: API_VERSION.to_owned(),
        kind: "Backup".to_owned(),
        spec,
        ..Backup::default()
    };
    backup.metadata.name = name.to_string();
    backup.metadata.namespace = Some(controller.namespace.clone());
    backup.metadata.labels = flags::pairs("--labels", '=', &args.labels)?;
    backup.metadata.annotations = flags::pairs("--annotations", '=', &args.annotations)?;
    args.volumes.annotate(&mut backup.metadata.annotations);
    Ok(in_cluster::object(&backup))
}
