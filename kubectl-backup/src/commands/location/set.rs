//! `location set`: change how a remembered location is used.

use clap::Args;

use super::ChangeArgs;
use super::copies::CopiesArgs;
use super::create::{
    Mode, RoleArgs, plainer, refuse_beside_recipients, remember, secure, warn_plainer,
};
use super::signing::SigningArgs;
use super::volumes::VolumesArgs;
use crate::context::Context;
use crate::encryption::{EncryptArgs, RecipientArgs};
use crate::flags;
use backup_cli::error::{CommandError, Exit, Result};
use backup_core::Error;
use backup_core::api::BackupStorageLocation;

const EXAMPLES: &str = "\
Examples:
  kubectl backup location set offsite --default
  kubectl backup location set offsite --access-mode ReadOnly
  kubectl backup location set offsite --config region=eu-central-1 --credentials-file ./credentials";

/// Change how a location is used
///
/// What is not named stays. Where the backups are, that is provider, bucket and prefix, does not change: create another location for that.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SetArgs {
    /// Name of the location
    name: String,
    /// The provider's settings, key=value; `key=` takes one away (comma list, can be repeated)
    #[arg(long, value_name = "CONFIG")]
    config: Vec<String>,
    #[command(flatten)]
    role: RoleArgs,
    #[command(flatten)]
    copies: CopiesArgs,
    #[command(flatten)]
    volumes: VolumesArgs,
    #[command(flatten)]
    recipients: RecipientArgs,
    #[command(flatten)]
    encrypt: EncryptArgs,
    /// Whether anything may be written
    #[arg(long, value_enum, value_name = "MODE", ignore_case = true)]
    access_mode: Option<Mode>,
    /// Whether to use it where no location is named
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    default: Option<bool>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: SetArgs) -> Result<Exit> {
    let given = context.location_args();
    let secured = given.cacert.is_some() || given.credentials_file.is_some();
    let secured = secured || args.role.is_given() || args.signing.is_given();
    let secured = secured || args.copies.is_given() || args.recipients.is_given();
    let secured = secured || args.encrypt.encrypt.is_some() || args.volumes.is_given();
    if args.config.is_empty() && args.access_mode.is_none() && args.default.is_none() && !secured {
        return Err(CommandError::usage(
            Error::invalid("nothing to set is named")
                .hint("name what to change: --default, --access-mode, --config, --role-arn, --replicate-to, --default-volumes-to-fs-backup, --mover-credentials, --recipient, --encrypt, --signing-key-file, --verify-key, --credentials-file or --cacert"),
        ));
    }
    let (mut unknown, mut others) = (Vec::new(), Vec::new());
    args.change.change(context, |all| {
        unknown = args.copies.unknown(all);
        change(context, &args, all)?;
        if let Some(location) = all.iter().find(|one| one.metadata.name == args.name) {
            others = plainer(location, all);
        }
        Ok(())
    })?;
    args.change.tell(context, &args.name, "configured")?;
    super::warn_unknown(context, &unknown);
    warn_plainer(context, &args.name, &others);
    Ok(Exit::Done)
}

fn change(context: &Context, args: &SetArgs, all: &mut [BackupStorageLocation]) -> Result<()> {
    let position = super::own(context, all, &args.name)?;
    if args.default == Some(true) {
        for other in &mut *all {
            other.spec.default = false;
        }
    }
    let location = &mut all[position];
    for (key, value) in flags::pairs("--config", '=', &args.config)? {
        if value.is_empty() {
            location.spec.config.remove(&key);
        } else {
            location.spec.config.insert(key, value);
        }
    }
    if let Some(mode) = args.access_mode {
        location.spec.access_mode = Some(mode.into());
    }
    if let Some(default) = args.default {
        location.spec.default = default;
    }
    args.role.put(location)?;
    args.signing.put(location)?;
    args.copies.put(location)?;
    args.volumes.put(location);
    remember(&args.recipients, args.encrypt, location)?;
    refuse_beside_recipients(location)?;
    secure(context, location)?;
    // Nothing is kept that could not be opened.
    context.open(location)?;
    Ok(())
}
