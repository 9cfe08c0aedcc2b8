//! Finds backups and restores by name. With nothing configured every cluster's folder is looked through, so that a name is
//! enough on the day the cluster is gone.

use backup_core::api::Restore;
use backup_core::catalog::{self, Entry};
use backup_core::error::quoted;
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::{Error, Kind};

use super::Context;
use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{self, Choice};

/// A location that is read, and whose it is where that is known.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The location.
    pub(crate) location: Location,
    /// The uid of the cluster whose folder it is.
    pub(crate) cluster: Option<String>,
    /// Whose it is where several clusters are meant.
    pub(crate) member: Option<String>,
}

impl Context {
    /// The locations to list: the one that is meant, else this cluster's folder, else every cluster's; and whether these are
    /// the folders of all clusters.
    ///
    /// # Errors
    /// No such location.
    pub(crate) async fn places(&self, all_clusters: bool) -> Result<(Vec<Place>, bool)> {
        let (choice, away) = self.choose_to_read().await?;
        if choice == Choice::PerCluster {
            return self.places_of_clusters(all_clusters, away).await;
        }
        if matches!(choice, Choice::Object(_)) && self.asked_location().is_none() {
            self.note_own_folder().await;
        }
        Ok((self.opened(choice).await?, all_clusters))
    }

    /// The same with nothing configured: this cluster's folder, else every cluster's.
    async fn places_of_clusters(
        &self,
        all_clusters: bool,
        away: Option<CommandError>,
    ) -> Result<(Vec<Place>, bool)> {
        let mut all = self.folders()?;
        let whole = all_clusters || all.is_empty();
        let identity = match away {
            Some(away) if !all_clusters => Err(away),
            None if !whole => self.identity_soon().await,
            _ => return Ok((all, true)),
        };
        match identity {
            Ok(_) => {
                let own = self.cluster_folder().await?;
                all.retain(|place| place.cluster.as_ref() == Some(&own));
                Ok((all, false))
            }
            Err(e) if self.means_this_cluster_alone(&e) => Err(e),
            Err(e) => {
                self.ui.note(&format!(
                    "showing the backups of all clusters: {}",
                    e.error()
                ));
                Ok((all, true))
            }
        }
    }

    /// Backups from the time before the cluster had a Velero are not forgotten in silence.
    async fn note_own_folder(&self) {
        let Ok(Ok(Some(uid))) = tokio::time::timeout(super::SOON, self.identity()).await else {
            return;
        };
        let folder = self.paths.backups().join(uid);
        if folder.is_dir() {
            let url = locations::place(&locations::folder(&folder));
            self.ui.note(&format!(
                "backups of this cluster that were made elsewhere: {} get --location {}",
                self.program,
                quoted(&url)
            ));
        }
    }

    async fn opened(&self, choice: Choice) -> Result<Vec<Place>> {
        let location = self.open_choice(choice).await?;
        let place = |location| Place {
            location,
            cluster: None,
            member: self.member.clone(),
        };
        Ok(location.map(place).into_iter().collect())
    }

    /// Every place that a name may mean. With nothing configured these are the folders of all clusters, whether this one answers or not.
    ///
    /// # Errors
    /// No such location.
    pub(crate) async fn every_place(&self) -> Result<Vec<Place>> {
        let (choice, away) = self.choose_to_read().await?;
        if choice != Choice::PerCluster {
            return self.opened(choice).await;
        }
        if let Some(away) = away {
            self.ui.note(&format!(
                "looking in {} alone: {}",
                self.paths.backups().display(),
                away.error()
            ));
        }
        let mut all = self.folders()?;
        if self.member.is_some() {
            // One of several clusters never takes another one's backup of the same name.
            let own = self.cluster_folder().await?;
            all.retain(|place| place.cluster.as_ref() == Some(&own));
        }
        Ok(all)
    }

    fn folders(&self) -> Result<Vec<Place>> {
        locations::per_cluster(self.paths.backups())?
            .into_iter()
            .map(|(uid, path)| {
                Ok(Place {
                    location: self.open(&locations::folder(&path))?,
                    cluster: Some(uid),
                    member: self.member.clone(),
                })
            })
            .collect()
    }

    /// A backup by its name.
    ///
    /// # Errors
    /// `NotFound`; a name that several clusters' folders have.
    pub(crate) async fn find_backup(&self, name: &Name) -> Result<(Place, Entry)> {
        let mut found = Vec::new();
        let mut missed = Vec::new();
        for place in self.every_place().await? {
            match catalog::get(&place.location.store, name).await {
                Ok(entry) => found.push((place, entry)),
                Err(e) if e.kind() == Kind::NotFound => missed.push(e),
                Err(e) => return Err(e.into()),
            }
        }
        if found.is_empty() {
            return Err(self.missed("backup", name, missed));
        }
        self.only("backup", name, found).await
    }

    /// The newest good backup of a schedule.
    ///
    /// # Errors
    /// `NotFound`; a schedule that several clusters' folders have.
    pub(crate) async fn find_of_schedule(
        &self,
        schedule: &Name,
        partially_failed: bool,
    ) -> Result<(Place, Entry)> {
        let mut places = self.every_place().await?;
        if places.iter().any(|place| place.cluster.is_some())
            && let Ok(Some(uid)) = self.identity_soon().await
        {
            // Schedules of many clusters have one name: another cluster's backup is taken only where its folder is named.
            places.retain(|place| place.cluster.as_deref() == Some(uid));
        }
        let mut found = Vec::new();
        for place in places {
            let (entries, warnings) = catalog::list(&place.location.store).await?;
            for warning in warnings {
                self.ui.warn(&warning);
            }
            let newest = |partially| catalog::newest_of(&entries, schedule.as_str(), partially);
            if newest(true).is_some() {
                let good = newest(partially_failed).cloned();
                found.push((place, good));
            }
        }
        let missing = Error::not_found(format!("schedule {schedule} has no completed backup"));
        if found.is_empty() {
            return Err(missing
                .hint(format!(
                    "see its backups: {} get -l {}={schedule}{}",
                    self.program,
                    catalog::SCHEDULE_NAME,
                    self.flags_again()
                ))
                .into());
        }
        let (place, good) = self.only("schedule", schedule, found).await?;
        let good = good.ok_or_else(|| {
            missing.hint("it has a partially failed one: --allow-partially-failed takes it")
        })?;
        Ok((place, good))
    }

    /// A restore by its name.
    ///
    /// # Errors
    /// As [`Context::find_backup`].
    pub(crate) async fn find_restore(&self, name: &Name) -> Result<(Place, Restore)> {
        let mut found = Vec::new();
        let mut missed = Vec::new();
        for place in self.every_place().await? {
            match catalog::get_restore(&place.location.store, name).await {
                Ok(restore) => found.push((place, restore)),
                Err(e) if e.kind() == Kind::NotFound => missed.push(e),
                Err(e) => return Err(e.into()),
            }
        }
        if found.is_empty() {
            return Err(self.missed("restore", name, missed));
        }
        self.only("restore", name, found).await
    }

    /// The one location's own sentence, or ours over all clusters' folders.
    fn missed(&self, kind: &str, name: &Name, mut missed: Vec<Error>) -> CommandError {
        match (missed.pop(), missed.is_empty()) {
            (Some(only), true) => only.into(),
            _ => self.nothing(kind, name),
        }
    }

    fn nothing(&self, kind: &str, name: &Name) -> CommandError {
        Error::not_found(format!("{kind} {name} is not there"))
            .hint(format!(
                "see what there is: {} {}get{}",
                self.program,
                if kind == "restore" { "restore " } else { "" },
                self.flags_again()
            ))
            .into()
    }

    /// The one that is meant: a single one, or this cluster's own.
    async fn only<T>(
        &self,
        kind: &str,
        name: &Name,
        mut found: Vec<(Place, T)>,
    ) -> Result<(Place, T)> {
        if found.len() > 1
            && let Ok(Some(uid)) = self.identity_soon().await
            && let Some(own) = found
                .iter()
                .position(|(place, _)| place.cluster.as_deref() == Some(uid))
        {
            self.ui.note(&format!(
                "{kind} {name} is there for several clusters; taking this cluster's own"
            ));
            return Ok(found.swap_remove(own));
        }
        if found.len() > 1 {
            let places: Vec<_> = found
                .iter()
                .map(|(place, _)| {
                    let url = locations::place(&place.location.spec);
                    let uid = place.cluster.as_deref().unwrap_or_default();
                    format!("--location {url} (cluster {})", self.label(uid))
                })
                .collect();
            return Err(Error::invalid(format!(
                "{kind} {:?} is there for several clusters",
                name.as_str()
            ))
            .hint(format!("choose one: {}", places.join(", ")))
            .into());
        }
        found.pop().ok_or_else(|| self.nothing(kind, name))
    }
}
