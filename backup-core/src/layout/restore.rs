//! The keys of one restore.

use super::RESTORES;
use crate::name::Name;

/// The keys of one restore. Velero looks for no restores in a bucket: it reads its files there by the name of a Restore object in its cluster.
#[derive(Clone, Debug)]
pub struct RestoreKeys {
    name: Name,
}

impl RestoreKeys {
    /// The keys of the restore of this name.
    pub fn new(name: &Name) -> Self {
        Self { name: name.clone() }
    }

    /// `restores/<name>/`
    pub fn folder(&self) -> String {
        format!("{RESTORES}{}/", self.name)
    }

    fn file(&self, file: &str) -> String {
        format!("{RESTORES}{}/{file}", self.name)
    }

    /// Our record of a finished restore: a velero.io/v1 Restore with its status, written last.
    pub fn marker(&self) -> String {
        self.file("velero-restore.json")
    }

    /// A segment of our journal.
    pub fn journal(&self, number: u32) -> String {
        self.file(&format!("journal-{number:06}.jsonl.zst"))
    }

    /// Where the objects are kept that a restore deleted, with its slash.
    pub fn all_kept(&self) -> String {
        self.file("kept/")
    }

    /// Where the objects of one place in the target are kept that a restore deleted, with its slash; `place` is a digest.
    pub fn kept_folder(&self, place: &str) -> String {
        self.file(&format!("kept/{place}/"))
    }

    /// One of them, gzip JSON; `moment` is a time in milliseconds.
    pub fn kept(&self, place: &str, moment: u64) -> String {
        self.file(&format!("kept/{place}/{moment:015}.json.gz"))
    }

    /// The log, gzip text.
    pub fn logs(&self) -> String {
        self.file(&format!("restore-{}-logs.gz", self.name))
    }

    /// `{"errors":R,"warnings":R}`, gzip JSON.
    pub fn results(&self) -> String {
        self.file(&format!("restore-{}-results.gz", self.name))
    }

    /// `{"<apiVersion>/<Kind>": ["ns/name(created)"]}`, gzip JSON.
    pub fn resource_list(&self) -> String {
        self.file(&format!("restore-{}-resource-list.json.gz", self.name))
    }

    /// Asynchronous operations of plugins, gzip JSON.
    pub fn item_operations(&self) -> String {
        self.file(&format!("restore-{}-itemoperations.json.gz", self.name))
    }

    /// Volumes, gzip JSON; Velero writes this one without `restore-`.
    pub fn volume_info(&self) -> String {
        self.file(&format!("{}-volumeinfo.json.gz", self.name))
    }
}
