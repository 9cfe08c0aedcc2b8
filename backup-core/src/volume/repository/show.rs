//! A part of a snapshot, for who looks at it: what is listed is not read.

use rustic_core::repofile::BlobType;

use super::super::entry::EntryPath;
use super::walk::{self, Walk};
use super::{Open, Target, failed};
use crate::error::{Error, Result};

/// Which part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every entry, and no content.
    Listing,
    /// One file with its content.
    File(EntryPath),
}

impl Open {
    /// Hands a part of a snapshot to a target.
    pub(in super::super) fn show(
        self,
        id: &str,
        part: &Part,
        target: &mut dyn Target,
    ) -> Result<()> {
        let tree = self.find(id)?.tree;
        let objects = self.objects;
        let repository = self
            .repository
            .to_indexed()
            .map_err(|e| failed(&objects, "be read", &e))?;
        let mut is_found = *part == Part::Listing;
        let mut hand_on = || -> Result<()> {
            for stored in Walk::new(&repository, tree) {
                let stored = stored?;
                match part {
                    Part::Listing => target.entry(&stored.entry)?,
                    Part::File(path) if *path == stored.entry.path => {
                        if !stored.entry.is_file() {
                            return Err(Error::invalid(format!("{path} is no file")));
                        }
                        is_found = true;
                        target.entry(&stored.entry)?;
                        for id in &stored.content {
                            let blob = walk::blob(&repository, &(*id).into(), BlobType::Data)?;
                            target.data(blob)?;
                        }
                        return Ok(());
                    }
                    Part::File(_) => {}
                }
            }
            Ok(())
        };
        hand_on().map_err(|e| objects.failure().unwrap_or(e))?;
        match part {
            Part::File(path) if !is_found => Err(Error::not_found(format!(
                "there is no {path} in this volume"
            ))),
            _ => target.finish(),
        }
    }
}
