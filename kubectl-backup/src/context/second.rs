//! A second location beside the one that is meant: where copies go. What flags and our variables say of credentials is said of the first one.

use std::path::PathBuf;
use std::sync::Arc;

use backup_core::location::Location;

use super::Context;
use backup_cli::error::Result;
use backup_cli::locations::LocationArgs;

impl Context {
    /// The location of this name or URL, to be written to, with credentials and CA of its own.
    ///
    /// # Errors
    /// As [`Context::location_named`]; one of KKP's that is another cluster's.
    pub(crate) async fn other_location(
        &self,
        asked: &str,
        credentials_file: Option<PathBuf>,
        cacert: Option<PathBuf>,
    ) -> Result<Location> {
        let location = self
            .with_location(LocationArgs {
                location: Some(asked.to_owned()),
                credentials_file,
                cacert,
                ..LocationArgs::default()
            })
            .location_named(asked)
            .await?;
        Self::refuse_to_write_to_kkp(&location.spec)?;
        Ok(location)
    }

    /// The same command as if other flags had named its location.
    fn with_location(&self, location: LocationArgs) -> Self {
        let mut global = self.global.clone();
        global.location = location;
        self.with_flags(Arc::clone(&self.ui), self.member.clone(), global)
    }
}
