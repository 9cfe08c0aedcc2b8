//! `rekey`: encrypts the key of a backup for others. The data is not touched.

use backup_core::Error;
use backup_core::catalog;
use backup_core::crypt::Recipients;
use backup_core::location::KeyFiles;
use clap::Args;

use crate::context::Context;
use crate::encryption::RecipientArgs;
use crate::flags;
use backup_cli::error::{CommandError, Exit, Result};

const EXAMPLES: &str = "\
Examples:
  kubectl backup rekey nightly --identity old.key --recipients-file team.pub
  kubectl backup rekey nightly --identity ~/.ssh/id_ed25519 --location offsite";

/// Encrypt a backup's key for other recipients
///
/// The key of an encrypted backup, or of a plain one whose Secrets are encrypted, is opened with an identity that fits and written anew for the recipients that are given, else for the location's. The data stays as it is, so this
/// takes no time; who kept a copy of the old key file can still read this backup.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RekeyArgs {
    /// Name of the backup
    name: String,
    #[command(flatten)]
    recipients: RecipientArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: RekeyArgs) -> Result<Exit> {
    let name = flags::known_name(&args.name)?;
    let given = args.recipients.read()?;
    let (place, entry) = context.look_up_backup(&name).await?;
    let location = &place.location;
    let apart = entry.apart()?;
    if !entry.encrypted && apart.is_none() {
        return Err(
            Error::invalid(format!("backup {name} is not encrypted: it has no key"))
                .hint("make an encrypted one: `kubectl backup create --recipient KEY`")
                .into(),
        );
    }
    if location.is_read_only() {
        return Err(Error::new(
            backup_core::Kind::Forbidden,
            format!("location {:?} is read-only", location.name),
        )
        .into());
    }
    let recipients = match given.is_empty() {
        true => Recipients::of_location(&location.spec)?,
        false => given,
    };
    if recipients.is_empty() {
        return Err(CommandError::usage(
            Error::invalid("for whom is not said: the location has no recipients")
                .hint("give --recipient KEY or --recipients-file FILE"),
        ));
    }
    let (key, opened) = context.key_of(location, &entry).await?;
    // A key that fits nothing is handed to nobody: whoever may write to the bucket may have put it there.
    match &apart {
        Some(apart) => drop(apart.open(&location.store, &name, &key).await?),
        None => drop(
            catalog::get(&location.opened(Some(&key)).store, &name)
                .await
                .map_err(|e| {
                    e.context(format!(
                        "what key.age of backup {name} holds does not open it"
                    ))
                })?,
        ),
    }
    let passphrase = context.identity_args().passphrase()?;
    let files = KeyFiles::new(&recipients, &key, passphrase.as_ref())?;
    catalog::rekey(&location.store, &entry, &opened, &files).await?;
    context.ui.line(&format!("backup/{name} rekeyed"))?;
    context.ui.note(&format!(
        "{} encrypted for {}",
        if apart.is_some() {
            "its Secrets are"
        } else {
            "it is"
        },
        recipients.fingerprints().join(", ")
    ));
    Ok(Exit::Done)
}
