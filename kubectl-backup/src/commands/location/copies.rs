//! `--replicate-to`: the locations that get a copy of each backup that is made in a remembered one.

use backup_core::api::BackupStorageLocation;
use clap::Args;

use super::create::refused;
use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{REPLICATE_TO, replicate_to};

/// Where copies go.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct CopiesArgs {
    /// Location, by its name, that gets a copy of each backup that is made here (can be repeated)
    #[arg(long, value_name = "LOCATION")]
    replicate_to: Vec<String>,
}

impl CopiesArgs {
    pub(super) fn is_given(&self) -> bool {
        !self.replicate_to.is_empty()
    }

    /// Remembers it beside the location; an empty text takes it away.
    pub(super) fn put(&self, location: &mut BackupStorageLocation) -> Result<()> {
        let name = location.metadata.name.clone();
        let annotations = &mut location.metadata.annotations;
        match self.replicate_to.as_slice() {
            [] => return Ok(()),
            [none] if none.is_empty() => drop(annotations.remove(REPLICATE_TO)),
            names => drop(annotations.insert(REPLICATE_TO.to_owned(), names.join(","))),
        }
        let targets = replicate_to(location).map_err(CommandError::usage)?;
        if targets.contains(&name) {
            return Err(refused(
                "a copy in the location itself would be no second one",
                "name another location with --replicate-to",
            ));
        }
        Ok(())
    }

    /// Those that nobody remembers yet.
    pub(super) fn unknown<'a>(&'a self, all: &[BackupStorageLocation]) -> Vec<&'a str> {
        let is_known = |name: &str| {
            let name = name.split('/').next().unwrap_or_default();
            all.iter().any(|one| one.metadata.name == name)
        };
        let names = self.replicate_to.iter().map(String::as_str);
        names
            .filter(|name| !name.is_empty() && !is_known(name))
            .collect()
    }
}
