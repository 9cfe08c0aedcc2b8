//! How much of its backups a location has encrypted.

use super::Recipients;
use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};

/// Annotation of a location that tells how much of each backup is encrypted for its recipients: `all`, as where it is absent, or `secrets`; ours.
pub const ENCRYPT: &str = "kubectl-backup/encrypt";

/// How much of a backup is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encrypt {
    /// All of it: Velero can not read it.
    #[default]
    All,
    /// Its Secrets: Velero reads the rest.
    Secrets,
}

impl Encrypt {
    /// As the annotation has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Secrets => "secrets",
        }
    }

    /// What a location has encrypted; nothing where it has no recipients.
    ///
    /// # Errors
    /// `Invalid`: another word, and as [`Recipients::of_location`].
    pub fn of_location(location: &BackupStorageLocation) -> Result<Option<Self>> {
        let any = !Recipients::of_location(location)?.is_empty();
        let name = &location.metadata.name;
        match location.metadata.annotations.get(ENCRYPT).map(String::as_str) {
            None => Ok(any.then_some(Self::All)),
            Some(word) => match [Self::All, Self::Secrets].into_iter().find(|one| one.word() == word) {
                Some(one) => Ok(Some(one)),
                None => Err(Error::invalid(format!(
                    "location {name:?} is to encrypt {word:?} (annotation {ENCRYPT}), which is not known"
                ))
                .hint("it is all or secrets")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::{PASSPHRASE, RECIPIENTS};

    #[test]
    fn a_location_encrypts_all_unless_it_says_secrets_and_never_less_than_it_says() {
        let of = |pairs: &[(&str, &str)]| {
            let mut location = BackupStorageLocation::default();
            for (key, value) in pairs {
                let annotations = &mut location.metadata.annotations;
                annotations.insert((*key).to_owned(), (*value).to_owned());
            }
            Encrypt::of_location(&location)
        };
        assert_eq!(of(&[]).unwrap(), None);
        let any = (RECIPIENTS, PASSPHRASE);
        assert_eq!(of(&[any]).unwrap(), Some(Encrypt::All));
        assert_eq!(of(&[any, (ENCRYPT, "all")]).unwrap(), Some(Encrypt::All));
        assert_eq!(
            of(&[any, (ENCRYPT, "secrets")]).unwrap(),
            Some(Encrypt::Secrets)
        );
        for odd in ["", "Secrets", "none"] {
            assert!(of(&[any, (ENCRYPT, odd)]).is_err(), "{odd:?}");
        }
        assert!(of(&[(ENCRYPT, "secrets")]).is_err());
        // Whoever asks for whom alone is told as well.
        let mut nobody = BackupStorageLocation::default();
        let annotations = &mut nobody.metadata.annotations;
        annotations.insert(ENCRYPT.to_owned(), "secrets".to_owned());
        assert!(Recipients::of_location(&nobody).is_err());
        assert!(of(&[(RECIPIENTS, "age1nonsense")]).is_err());
    }
}
