//! Finds backups and restores by name. With nothing configured every cluster's folder is looked through, so that a name is
//! enough on the day the cluster is gone.

use std::collections::BTreeMap;

use backup_core::api::Restore;
use backup_core::catalog::{self, Entry, Here, Maker, OfSchedule};
use backup_core::error::quoted;
use backup_core::location::{Location, object};
use backup_core::name::Name;
use backup_core::{Error, Kind};

use super::Context;
use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{self, Choice};

/// The annotation of our backups with the context that they were made with.
const CONTEXT: &str = "kubectl-backup/context";

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

impl Place {
    /// A location that is no cluster's folder.
    pub(crate) fn of(location: &Location) -> Self {
        Self {
            location: location.clone(),
            cluster: None,
            member: None,
        }
    }
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

    /// A backup by its name, to be read: an encrypted one with its key.
    ///
    /// # Errors
    /// As [`Context::look_up_backup`]; an encrypted one that no identity opens.
    pub(crate) async fn find_backup(&self, name: &Name) -> Result<(Place, Entry)> {
        let (place, entry) = self.look_up_backup(name).await?;
        self.unlocked(place, entry).await
    }

    /// A backup by its name; of an encrypted one what stands in the clear.
    ///
    /// # Errors
    /// `NotFound`; a name that several clusters' folders have.
    pub(crate) async fn look_up_backup(&self, name: &Name) -> Result<(Place, Entry)> {
        let mut found = Vec::new();
        let mut missed = Vec::new();
        let places = self.every_place().await?;
        let own_alone = self.member.is_some() && places.iter().all(|place| place.cluster.is_some());
        for place in places {
            match catalog::get(&place.location.store, name).await {
                Ok(entry) => found.push((place, entry)),
                Err(e) if e.kind() == Kind::NotFound => missed.push(e),
                Err(e) => return Err(e.into()),
            }
        }
        if found.is_empty() && own_alone {
            self.refuse_elsewhere(name).await?;
        }
        if found.is_empty() {
            return Err(self.missed("backup", name, missed));
        }
        self.only("backup", name, found).await
    }

    /// Errors where another cluster's folder on this machine has the backup: it may be this cluster's, from before it was made anew.
    async fn refuse_elsewhere(&self, name: &Name) -> Result<()> {
        let mut there = Vec::new();
        for place in self.folders()? {
            if catalog::get(&place.location.store, name).await.is_ok() {
                there.push(self.choice(&place));
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "backup {name} is not in the folder of this cluster, and in those of others"
        ))
        .hint(format!(
            "where it is meant all the same, use it by itself, with {}{}",
            there.join(" or "),
            self.flags_again()
        ))
        .into())
    }

    /// The newest good backup of a schedule: this cluster's where it has any, as [`catalog::of_schedule`] has it.
    ///
    /// # Errors
    /// `NotFound`; a cluster that can not say which one it is; backups of several other clusters.
    pub(crate) async fn find_of_schedule(
        &self,
        schedule: &Name,
        partially_failed: bool,
    ) -> Result<(Place, Entry)> {
        let missing = Error::not_found(format!("schedule {schedule} has no completed backup"));
        let Some(place) = self.place_of_schedules().await? else {
            let hint = match self.folders_of_others()?.as_slice() {
                [] => format!("this cluster has none: {} create", self.program),
                others => format!("those of other clusters: {}", others.join(", ")),
            };
            return Err(missing.hint(hint).into());
        };
        let here = self.here(&place).await?;
        let (entries, warnings) = catalog::list(&place.location.store).await?;
        for warning in warnings {
            self.ui.warn(&warning);
        }
        let of = |partially| catalog::of_schedule(&entries, schedule.as_str(), &here, partially);
        let label = |entry: &Entry| {
            let known = self.stranger(&here, entry);
            known.unwrap_or_else(|| "a cluster that is not named".to_owned())
        };
        let newest = match of(partially_failed) {
            OfSchedule::Nothing => {
                return Err(missing
                    .hint(format!(
                        "see its backups: {} get -l {}={schedule}{}",
                        self.program,
                        catalog::SCHEDULE_NAME,
                        self.flags_again()
                    ))
                    .into());
            }
            OfSchedule::Own { newest, beside } => {
                if !beside.is_empty() {
                    let mut others: Vec<_> = beside.into_iter().map(label).collect();
                    others.sort();
                    others.dedup();
                    self.ui.note(&format!(
                        "schedule {schedule} has backups of {} there too; this cluster's own count",
                        others.join(", ")
                    ));
                }
                newest
            }
            OfSchedule::Other { newest, last } => {
                self.ui.warn(&format!(
                    "this cluster has no backup of schedule {schedule} there: they are of {}, or of this cluster before it or its Velero was made anew",
                    label(last)
                ));
                newest
            }
            OfSchedule::Several(others) => {
                let named: Vec<_> = others
                    .iter()
                    .map(|entry| format!("--from-backup {} ({})", entry.name, label(entry)))
                    .collect();
                return Err(Error::invalid(format!(
                    "this cluster has no backup of schedule {schedule} there, and those there may be of several others"
                ))
                .hint(match named.is_empty() {
                    true => "none of them is completed".to_owned(),
                    false => format!("choose one by its name: {}", named.join(", ")),
                })
                .into());
            }
        };
        let Some(newest) = newest.cloned() else {
            let partially = match of(true) {
                OfSchedule::Own { newest, .. } | OfSchedule::Other { newest, .. } => newest,
                OfSchedule::Nothing | OfSchedule::Several(_) => None,
            };
            return Err(match partially {
                Some(_) => {
                    missing.hint("it has a partially failed one: --allow-partially-failed takes it")
                }
                None => missing,
            }
            .into());
        };
        self.unlocked(place, newest).await
    }

    /// What tells the backups in a place that are this cluster's own from others. Who may not ask its Velero does not learn what that knows, and is
    /// told so.
    ///
    /// # Errors
    /// When the cluster is not reached, or can not say it now.
    pub(crate) async fn here(&self, place: &Place) -> Result<Here> {
        let own = self.identity().await?.map(str::to_owned);
        let cluster = match (own, &place.cluster) {
            (None, Some(folder)) if *folder == self.cluster_folder().await? => Some(folder.clone()),
            (own, _) => own,
        };
        let location = &place.location;
        let namespace = location.spec.metadata.namespace.as_deref();
        let mut velero = BTreeMap::new();
        if let Some(namespace) = namespace.filter(|_| location.shared_with_velero) {
            match object::backups(self.cluster().await?, namespace).await {
                Ok(found) => velero = found,
                Err(e) if e.is_forbidden() || e.is_not_found() => self.ui.warn(&format!(
                    "can not tell which of Velero's backups are this cluster's own: {e}"
                )),
                Err(e) => {
                    let error = Error::from(e);
                    return Err(error
                        .context("can not tell which of Velero's backups are this cluster's own")
                        .into());
                }
            }
        }
        Ok(Here {
            cluster,
            folder: place.cluster.clone(),
            velero,
        })
    }

    /// Whose a backup is, where that is known and it is not this cluster's.
    pub(crate) fn stranger(&self, here: &Here, entry: &Entry) -> Option<String> {
        match here.maker(entry) {
            Maker::Another(Some(uid)) => {
                let label = self.made_by(entry, here.folder.as_deref());
                Some(match label == uid {
                    true => format!("cluster {uid}"),
                    false => format!("cluster {label} ({uid})"),
                })
            }
            Maker::Another(None) => Some("another cluster".to_owned()),
            Maker::This | Maker::Unsaid => None,
        }
    }

    /// Where a schedule's backups are looked for; with nothing configured that is this cluster's own folder, where there is one. A cluster that
    /// can not be asked is an error here: another place has backups of other clusters under the same names.
    async fn place_of_schedules(&self) -> Result<Option<Place>> {
        let choice = self.choose(self.asked_location()).await?;
        if choice != Choice::PerCluster {
            return Ok(self.opened(choice).await?.pop());
        }
        let own = self.cluster_folder().await?;
        let mut all = self.folders()?.into_iter();
        Ok(all.find(|place| place.cluster.as_ref() == Some(&own)))
    }

    /// The folders of clusters on this machine, as `--location` takes them.
    fn folders_of_others(&self) -> Result<Vec<String>> {
        Ok(self
            .folders()?
            .iter()
            .map(|place| self.choice(place))
            .collect())
    }

    /// `--location file:///x (cluster prod)`
    fn choice(&self, place: &Place) -> String {
        let url = locations::place(&place.location.spec);
        let uid = place.cluster.as_deref().unwrap_or_default();
        format!("--location {} (cluster {})", quoted(&url), self.label(uid))
    }

    /// The cluster of a backup: the context it was last seen with, else the one it was made with, else its uid. `folder` is the cluster whose folder it
    /// lies in.
    pub(crate) fn made_by(&self, entry: &Entry, folder: Option<&str>) -> String {
        let uid = catalog::made_by(entry).or(folder);
        let label = uid.map(|uid| self.label(uid));
        let made_with = entry.backup.metadata.annotations.get(CONTEXT);
        match (label, made_with) {
            (Some(label), Some(made_with)) if Some(label.as_str()) == uid => made_with.clone(),
            (label, _) => label.unwrap_or_default(),
        }
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
            let places: Vec<_> = found.iter().map(|(place, _)| self.choice(place)).collect();
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
