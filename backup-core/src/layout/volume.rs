//! The keys of the repositories of one volume.

use super::VOLUMES;
use crate::name::Name;

/// The keys of the repositories of one volume: `restic/<cluster>/<namespace>/<claim's uid>/`, and beside each what belongs to it. A volume has a second one, `<uid>.2`,
/// where a writer could not open the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeKeys {
    folder: String,
    uid: Name,
    number: u32,
}

impl VolumeKeys {
    /// The keys of the first repository of the claim with this uid.
    ///
    /// # Errors
    /// `Invalid`, where one of them can not be a part of a key.
    pub fn new(cluster: &str, namespace: &str, uid: &str) -> crate::Result<Self> {
        let (cluster, namespace): (Name, Name) = (cluster.parse()?, namespace.parse()?);
        let uid: Name = uid.parse()?;
        if uid.as_str().contains('.') {
            return Err(crate::Error::invalid(format!("{uid} is no uid of a claim")));
        }
        Ok(Self {
            folder: format!("{VOLUMES}{cluster}/{namespace}/"),
            uid,
            number: 1,
        })
    }

    /// Those of the repository to which a folder in `restic/<cluster>/<namespace>/` belongs: its own, or that of its claims. Nothing for what is no one's.
    pub fn of_folder(cluster: &str, namespace: &str, folder: &str) -> Option<Self> {
        let name = folder.strip_suffix(CLAIMS).unwrap_or(folder);
        let (uid, number) = match name.split_once('.') {
            None => (name, 1),
            Some((uid, number)) => (uid, number.parse().ok().filter(|number| *number > 1)?),
        };
        let keys = Self::new(cluster, namespace, uid).ok()?.numbered(number);
        (keys.name() == format!("{}{name}", keys.folder)).then_some(keys)
    }

    /// The same of the repository with this number, from 1 on.
    #[must_use]
    pub fn numbered(&self, number: u32) -> Self {
        Self {
            number: number.max(1),
            ..self.clone()
        }
    }

    /// Which one it is.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Which volume it is, whatever the number of the repository: `<cluster>/<namespace>/<claim's uid>`.
    pub fn volume(&self) -> String {
        let folder = self.folder.strip_prefix(VOLUMES).unwrap_or(&self.folder);
        format!("{folder}{}", self.uid)
    }

    fn name(&self) -> String {
        let stem = format!("{}{}", self.folder, self.uid);
        match self.number {
            1 => stem,
            number => format!("{stem}.{number}"),
        }
    }

    /// The repository, with its slash.
    pub fn repository(&self) -> String {
        format!("{}/", self.name())
    }

    /// Its password in the clear.
    pub fn key(&self) -> String {
        format!("{}.key", self.name())
    }

    /// Its password, encrypted for the location's recipients.
    pub fn sealed_key(&self) -> String {
        format!("{}.key.age", self.name())
    }

    /// The claims of those at work in it, with the slash.
    pub fn claims(&self) -> String {
        format!("{}{CLAIMS}/", self.name())
    }

    /// The note of snapshots that no backup was seen to name.
    pub fn orphans(&self) -> String {
        format!("{}.orphans.json", self.name())
    }

    /// The note of when a prune frees space in it.
    pub fn reclaim(&self) -> String {
        format!("{}.reclaim.json", self.name())
    }
}

/// What the folder of a repository's claims ends with.
const CLAIMS: &str = ".claims";
