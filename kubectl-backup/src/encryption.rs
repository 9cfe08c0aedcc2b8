//! Encrypted backups of a context: whom they are for, and their keys. Nothing of a private key or a passphrase is printed.

use backup_core::catalog::{self, Entry, KeyPlace};
use backup_core::crypt::{BackupKey, Encrypt, Identities, LARGEST_KEY_FILE, Recipients};
use backup_core::error::quoted;
use backup_core::location::Location;
use backup_core::{Error, Kind};
use clap::{Args, ValueEnum};

use crate::context::{Context, Place, variable};
pub(crate) use backup_cli::encryption::{IdentityArgs, RecipientArgs};
use backup_cli::error::{CommandError, Result};

/// How much is encrypted.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct EncryptArgs {
    /// What is encrypted for the recipients: all of a backup, or its Secrets, so that Velero reads the rest [default: what the location says, else all]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) encrypt: Option<What>,
}

/// `--encrypt`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// All of it.
    All,
    /// Its Secrets.
    Secrets,
}

impl From<What> for Encrypt {
    fn from(what: What) -> Self {
        match what {
            What::All => Self::All,
            What::Secrets => Self::Secrets,
        }
    }
}

/// Where a backup is made, and what of it is encrypted for whom.
pub(crate) struct Sealing {
    /// With the keys that this backup gets.
    pub(crate) location: Location,
    /// For whom; nobody where nothing is encrypted.
    pub(crate) recipients: Recipients,
    /// How much.
    pub(crate) encrypt: Encrypt,
}

/// For whom a key is encrypted, as it stands beside it.
///
/// # Errors
/// The store's.
pub(crate) async fn for_whom(place: &KeyPlace) -> Result<String> {
    let who = place.store.find(&place.recipients, LARGEST_KEY_FILE).await;
    Ok(Recipients::told(&who?.unwrap_or_default()))
}

impl Context {
    /// Whoever may open a backup: the files that flags name, or the user's own.
    ///
    /// # Errors
    /// A file that is named and can not be read.
    pub(crate) fn identities(&self) -> Result<Identities> {
        self.identity_args().read(&self.paths)
    }

    /// The location where a backup of it is made: encrypted, where it has recipients or some are given.
    ///
    /// # Errors
    /// Recipients that can not be used, and less encryption than the location asks for.
    pub(crate) fn sealed(
        &self,
        location: Location,
        given: &RecipientArgs,
        how: EncryptArgs,
    ) -> Result<Sealing> {
        let asked = Encrypt::of_location(&location.spec)?;
        let recipients = Recipients::of_location(&location.spec)?.and(&given.read()?)?;
        let encrypt = how.encrypt.map(Encrypt::from).or(asked).unwrap_or_default();
        if recipients.is_empty() {
            if how.encrypt.is_some() {
                return Err(CommandError::usage(
                    Error::invalid(
                        "--encrypt: for whom is not said, and the location has no recipients",
                    )
                    .hint("give --recipient KEY or --recipients-file FILE"),
                ));
            }
            return Ok(Sealing {
                location,
                recipients,
                encrypt,
            });
        }
        if encrypt == Encrypt::Secrets {
            if asked == Some(Encrypt::All) {
                return Err(CommandError::usage(
                    Error::invalid(format!(
                        "location {:?} has all of its backups encrypted, not their Secrets alone",
                        location.name
                    ))
                    .hint("leave --encrypt away, or use another location"),
                ));
            }
            let passphrase = self.identity_args().passphrase()?;
            return Ok(Sealing {
                location: location.sealed_secrets(&recipients, passphrase.as_ref())?,
                recipients,
                encrypt,
            });
        }
        let passphrase = self.identity_args().passphrase()?;
        let sealed = location.sealed(&recipients, passphrase.as_ref())?;
        Ok(Sealing {
            location: sealed,
            recipients,
            encrypt,
        })
    }

    /// The key of an encrypted backup, or of the Secrets of a plain one, and the file with it as it was read.
    ///
    /// # Errors
    /// `Unauthorized`, where no identity fits; `Corrupt`, where that is not the key that the marker tells of.
    pub(crate) async fn key_of(
        &self,
        location: &Location,
        entry: &Entry,
    ) -> Result<(BackupKey, Vec<u8>)> {
        let identities = self.identities()?;
        let Some(place) = entry.key_place(&location.store)? else {
            let name = &entry.name;
            return Err(Error::invalid(format!("nothing of backup {name} is encrypted")).into());
        };
        let who = for_whom(&place).await?;
        let wrapped = place.store.get(&place.key, LARGEST_KEY_FILE).await?;
        let stands = wrapped.to_vec();
        // The work of a passphrase takes a while.
        let opened = tokio::task::spawn_blocking(move || identities.open(&wrapped, &who)).await;
        let opened = opened.map_err(|e| Error::other("opening the key broke off").because(e))?;
        let apart = entry.apart()?;
        let what = match apart {
            Some(_) => format!("the Secrets of backup {} can not be opened", entry.name),
            None => format!("backup {} can not be opened", entry.name),
        };
        let key = opened.map_err(|e| e.context(what))?;
        if let Some(apart) = apart {
            apart.fits(&entry.name, &key)?;
        }
        Ok((key, stands))
    }

    /// Whether identities are named for this very command.
    pub(crate) fn names_identities(&self) -> bool {
        let variable = variable("KUBECTL_BACKUP_IDENTITY");
        self.identity_args().is_given(variable.as_deref())
    }

    /// The key of a backup's Secrets, where they are encrypted apart and any identity is given.
    ///
    /// # Errors
    /// As [`Context::key_of`].
    pub(crate) async fn key_of_secrets(
        &self,
        place: &Place,
        entry: &Entry,
    ) -> Result<Option<BackupKey>> {
        if entry.apart()?.is_none() || self.identities()?.is_empty() {
            return Ok(None);
        }
        let (key, _) = self.key_of(&place.location, entry).await?;
        Ok(Some(key))
    }

    /// The place of a backup with the key of its Secrets, where they are encrypted apart and somebody can open them. Who can not is told why, and reads the
    /// rest: whatever needs the Secrets is refused where that is known.
    ///
    /// # Errors
    /// The store's, and an identity that can not be read.
    pub(crate) async fn with_secrets(&self, mut place: Place, entry: &Entry) -> Result<Place> {
        match self.key_of_secrets(&place, entry).await {
            Ok(Some(key)) => place.location = place.location.with_secrets(&key),
            Ok(None) => {}
            Err(e) => match e.error().kind() {
                Kind::Unauthorized => self.ui.note(&e.error().sentence()),
                Kind::Corrupt | Kind::NotFound => self.ui.warn(&e.error().sentence()),
                _ => return Err(e),
            },
        }
        Ok(place)
    }

    /// The backup as who may read it sees it: an encrypted one with its key.
    ///
    /// # Errors
    /// `Unauthorized`, where no identity fits; a plain one that stands beside an encrypted one of its name.
    pub(crate) async fn unlocked(&self, mut place: Place, entry: Entry) -> Result<(Place, Entry)> {
        if !entry.encrypted {
            // Whoever may write to the bucket could put a plain one of his own before it. Who may not read the vault has none there.
            let vault = place.location.store.vault(None);
            if let Ok(Some(_)) = catalog::find(&vault, &entry.name).await {
                let name = &entry.name;
                return Err(Error::corrupt(format!(
                    "location {} has two backups {name}, a plain one and an encrypted one: which of them is meant can not be said",
                    quoted(&place.location.name)
                ))
                .hint(format!(
                    "no run makes that but two at one moment; find out who wrote the plain one: `kubectl backup delete {name}` removes it, and leaves the encrypted one"
                ))
                .into());
            }
            return Ok((place, entry));
        }
        let (key, _) = self.key_of(&place.location, &entry).await?;
        place.location = place.location.opened(Some(&key));
        let entry = catalog::get(&place.location.store, &entry.name).await?;
        Ok((place, entry))
    }
}
