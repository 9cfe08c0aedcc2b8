//! Makes an EtcdRestore and follows it, whatever state it is to bring back.

use backup_core::Error;
use backup_core::api::{EtcdRestore, EtcdRestoreSpec};
use clap::Args;

use crate::commands::etcd::follow;
use crate::commands::etcd::launcher::{self, Sign, Watch};
use crate::commands::etcd::objects::{self, meta};
use crate::commands::etcd::request::{self, WaitArgs};
use crate::commands::etcd::scope::ControlPlane;
use crate::context::Context;
use crate::flags::{self, DryRun};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, OutputArgs};

/// How it is made.
#[derive(Clone, Debug, Args)]
pub(crate) struct MakeArgs {
    /// Secret beside the restore whose key `identity` holds a private key that opens encrypted snapshots
    #[arg(long, value_name = "SECRET")]
    identity_secret: Option<String>,
    /// Do not ask
    #[arg(short, long, visible_alias = "confirm")]
    yes: bool,
    /// Print the object that would be made, and make nothing
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Asks, makes it, follows it where that is wanted. `to` says which state comes back.
///
/// # Errors
/// A no; the API server's; with `--wait` a restore that does not complete.
pub(crate) async fn make(
    context: &Context,
    plane: &ControlPlane,
    name: &str,
    spec: EtcdRestoreSpec,
    to: &str,
    args: &MakeArgs,
) -> Result<Exit> {
    if context.identity_args().is_named() {
        return Err(CommandError::usage(
            Error::invalid("a restore in the cluster opens nothing with a file of this machine: its launchers read a Secret")
                .hint(format!(
                    "kubectl create secret generic etcd-identity -n {} --from-file=identity=FILE (a passphrase: --from-file=passphrase=FILE), then --identity-secret etcd-identity",
                    plane.namespace
                )),
        ));
    }
    let identity = args.identity_secret.as_deref();
    let identity = identity.map(flags::known_name).transpose()?;
    // KKP's kind wants the name twice.
    let mut restore = EtcdRestore::new(
        name,
        EtcdRestoreSpec {
            name: Some(name.to_owned()),
            backup_download_credentials_secret: identity
                .map(|name| name.to_string())
                .or(spec.backup_download_credentials_secret),
            ..spec
        },
    );
    restore.metadata = meta(&plane.namespace, name);
    if args.dry_run == DryRun::Client {
        return request::show(context, &args.output, &restore);
    }
    context.ui.confirm(
        args.yes,
        &format!(
            "bring etcd of cluster {} back to {to}? What was written since is gone then, and its API server is down meanwhile.",
            plane.cluster
        ),
    )?;
    let cluster = context.cluster().await?;
    let made = objects::create(cluster, &restore).await?;
    request::print(context, &args.output, &made, "created")?;
    if args.wait.wait {
        let at = follow::restore(context, plane, &made, args.wait.timeout).await?;
        context.ui.line(&format!(
            "{} completed{}",
            made.title(),
            at.map_or_else(String::new, |at| format!(" at {}", output::time(Some(at))))
        ))?;
        return Ok(Exit::Done);
    }
    // Who does not wait is told at once where nothing will come of it.
    if Watch::start(cluster, plane).await.look(cluster).await? == Sign::Absent
        && launcher::not_enabled(cluster, &made).await?
    {
        context.ui.warn(&format!(
            "no etcd-launcher is at work on cluster {}: the restore begins once one runs beside its etcd",
            plane.cluster
        ));
    }
    context.ui.note(&format!(
        "see what becomes of it: {} etcd restore describe {name} -n {}",
        context.program, plane.namespace
    ));
    Ok(Exit::Done)
}
