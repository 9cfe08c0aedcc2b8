//! `etcd rekey`: encrypts the key of a snapshot for others. The data is not touched.

use backup_core::crypt::Recipients;
use backup_core::etcd::sealed::{self, Encryption};
use backup_core::{Error, Kind};
use clap::Args;

use super::find;
use super::scope::ScopeArgs;
use crate::context::Context;
use crate::encryption::RecipientArgs;
use backup_cli::error::{CommandError, Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup etcd rekey daily-backup-2026-11-20t01-00-00 --identity old.key --recipients-file team.pub
  kubectl backup etcd rekey daily-backup-2026-11-20t01-00-00 --identity ~/.ssh/id_ed25519 --location s3://etcd-snapshots --recipient age1...";

/// Encrypt a snapshot's key for other recipients
///
/// The key is opened with an identity that fits and written anew for the recipients that are given, else for the location's. The data stays as it is, so this
/// takes no time; who kept a copy of the old key file can still read this snapshot.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RekeyArgs {
    /// Name of the snapshot
    name: String,
    #[command(flatten)]
    recipients: RecipientArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, scope: &ScopeArgs, args: RekeyArgs) -> Result<Exit> {
    let given = args.recipients.read()?;
    let found = find::one(context, scope, &args.name).await?;
    let (location, entry) = found.entry(context).await?;
    if location.is_read_only() {
        return Err(Error::new(
            Kind::Forbidden,
            format!("location {:?} is read-only", location.name),
        )
        .into());
    }
    let recipients = match given.is_empty() {
        true => Recipients::of_location(&location.spec)?,
        false => given,
    };
    let passphrase = context.identity_args().passphrase()?;
    let encryption = Encryption::of(recipients, passphrase)
        .map_err(CommandError::usage)?
        .ok_or_else(|| {
            CommandError::usage(
                Error::invalid("for whom is not said: the location has no recipients")
                    .hint("give --recipient KEY or --recipients-file FILE"),
            )
        })?;
    sealed::rekey(&location.store, &entry, &context.identities()?, &encryption).await?;
    context
        .ui
        .line(&format!("snapshot/{} rekeyed", found.name))?;
    context.ui.note(&format!(
        "it is encrypted for {}",
        encryption.fingerprints().join(", ")
    ));
    Ok(Exit::Done)
}
