//! One backup that is to go, or what a dead run left of one: what speaks for it is asked for again just before, and what it owns elsewhere is seen to, under a claim.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::super::keep::{Fate, Group, Id, Row};
use super::super::remove::{kept, remove_all};
use super::super::restores::being_restored;
use super::fates::{has_key, lengthened, still_stands};
use super::{PruneOptions, Pruned, Stores, Wanted};
use crate::error::{Error, Kind, Result};
use crate::layout::BackupKeys;
use crate::location::Store;
use crate::location::claim::{self, Claim, Folder, Purpose, has_marker, is_stale, read_claim};
use crate::name::Name;
use crate::records::snapshots::{Owned, owned};
use crate::snapshot::heirs::{self, Still};
use crate::snapshot::known::{About, Known};

/// What restores have begun to read, and when that was looked at.
pub(super) struct Restoring {
    read: Instant,
    backups: BTreeMap<String, Name>,
}

impl Restoring {
    pub(super) async fn read(store: &Store, now: Timestamp) -> Result<Self> {
        Ok(Self {
            read: Instant::now(),
            backups: being_restored(store, now).await?,
        })
    }
}

/// Whoever looks through a bucket for hours asks again what is being restored.
const RESTORES_FRESH: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 20 });

/// One run of prune.
pub(super) struct Work<'a> {
    pub(super) stores: &'a Stores,
    /// The time by the store's clock.
    pub(super) theirs: Timestamp,
    /// For whose sake backups of each schedule go, as they were found.
    pub(super) leaned: BTreeMap<Group, Vec<Row>>,
    pub(super) restoring: Mutex<Restoring>,
    pub(super) options: &'a PruneOptions<'a>,
    /// Whether Velero uses the location.
    pub(super) shared: bool,
    /// Whether a guard says whose the location is.
    pub(super) guarded: bool,
    /// What backups own that went.
    pub(super) owned: Mutex<Owned>,
    /// Snapshots in their storage, as far as this looks after them.
    pub(super) cuts: Known,
    /// What else became of the backup that is looked at.
    pub(super) told: Mutex<Vec<Pruned>>,
}

/// What a backup owns outside of its folder.
struct Heritage {
    owned: Owned,
    /// What is known of its snapshots in their storage.
    cuts: About,
}

impl Work<'_> {
    /// Whether a backup is this cluster's, where no guard says so of all. One that does not say whose it is counts as its own only where no Velero of
    /// another one can have put it.
    fn is_own(&self, row: &Row) -> bool {
        match (&row.cluster, self.options.cluster) {
            (Some(made_by), Some(own)) => made_by == own,
            (Some(_), None) => false,
            (None, _) => !self.shared,
        }
    }

    /// Why one that was to go stays for now: a restore reads it, or those for whose sake it goes changed since the look began.
    async fn unripe(&self, name: &Name, row: Option<&Row>) -> Result<Option<String>> {
        let mut restoring = self.restoring.lock().await;
        if restoring.read.elapsed() > RESTORES_FRESH {
            // What is of the store's future is not quiet.
            *restoring = Restoring::read(&self.stores.plain, self.theirs).await?;
        }
        let begun = restoring.backups.get(name.as_str()).map(Name::to_string);
        drop(restoring);
        if let Some(restore) = begun {
            return Ok(Some(format!(
                "restore {restore} has begun to read it and is not finished"
            )));
        }
        if let Some(restore) = self.options.wanted.and_then(|Wanted(by)| by(name)) {
            return Ok(Some(format!("restore {restore} is to read it")));
        }
        let of = row.and_then(|row| row.of.as_ref());
        let leaned = of.and_then(|of| self.leaned.get(of));
        for other in leaned.into_iter().flatten() {
            if self.options.is_going(&other.id.name)
                || !still_stands(self.stores, other).await?
                || !has_key(self.stores, &other.id, other.apart).await?
                || self
                    .cuts
                    .is_torn_now(&self.stores.plain, &other.id.name, other.started)
                    .await?
            {
                return Ok(Some(format!(
                    "{} of its schedule, for whose sake it was to go, went or was written anew just now; the next look decides",
                    other.id.name
                )));
            }
        }
        Ok(None)
    }

    /// What speaks by now for one that is claimed already.
    async fn speaks(&self, row: &Row, fate: Fate) -> Result<Option<String>> {
        if !still_stands(self.stores, row).await? {
            return Ok(Some("it was written anew".to_owned()));
        }
        if fate == Fate::Expired && self.is_lengthened(row) {
            return Ok(Some("it was given more time just now".to_owned()));
        }
        self.unripe(&row.id.name, Some(row)).await
    }

    /// Whether somebody moved the expiration of one that was expired.
    fn is_lengthened(&self, row: &Row) -> bool {
        let end = lengthened(row, self.options.longer).expiration;
        end.is_some_and(|end| end >= self.options.now.min(self.theirs))
    }

    /// What a backup owns that goes. Files in repositories have no owner then where that is not understood, and are found as orphans.
    async fn heritage(&self, id: &Id) -> Result<Heritage> {
        let owned = match owned(self.stores.of(id.encrypted), &id.name).await {
            Err(e) if matches!(e.kind(), Kind::Corrupt | Kind::Invalid) => None,
            owned => Some(owned?),
        };
        let names = owned.as_ref().map(|owned| &owned.cuts[..]);
        let cuts = self.cuts.about(&self.stores.plain, &id.name, names).await?;
        Ok(Heritage {
            owned: owned.unwrap_or_default(),
            cuts,
        })
    }

    /// Removes the snapshots of a backup in their storage: what is told of it instead, where one stays.
    async fn uncut(&self, row: &Row, fate: Fate, cuts: &About) -> Result<Option<Pruned>> {
        let Some(heirs) = self.options.heirs else {
            return Ok(None);
        };
        let (name, store) = (&row.id.name, &self.stores.plain);
        if let Some(lacks) = cuts.lacks() {
            let why =
                format!("{lacks} (`kubectl backup delete {name} --force` deletes it without them)");
            return Ok(Some(Pruned::Unknown(name.clone(), why)));
        }
        let still = || self.speaks(row, fate).boxed();
        let outcome = match self.options.dry_run {
            true => Ok(cuts.elsewhere(heirs)),
            false => {
                let while_it = Some(&still as Still<'_>);
                cuts.expire_while(store, heirs, while_it).await
            }
        };
        let outcome = match outcome {
            Err(e) if e.kind() == Kind::Interrupted => {
                let failed = Pruned::Failed(name.clone(), e.one_line());
                self.told.lock().await.push(failed);
                return Err(e);
            }
            outcome => outcome?,
        };
        let stays = outcome.stays();
        Ok(match outcome {
            heirs::Outcome::None => None,
            heirs::Outcome::Gone(many) => {
                let gone = Pruned::InStorage(name.clone(), many);
                self.told.lock().await.push(gone);
                None
            }
            // Whoever reaches that cluster does it.
            heirs::Outcome::Elsewhere { .. } => stays.map(|why| Pruned::Kept(name.clone(), why)),
            heirs::Outcome::Kept { .. } => stays.map(|why| Pruned::Failed(name.clone(), why)),
        })
    }

    /// What is told of one that stays after its snapshots were seen to.
    async fn stays(&self, name: &Name, why: &str) -> Pruned {
        let told = self.told.lock().await;
        let went = |one: &Pruned| matches!(one, Pruned::InStorage(of, _) if of == name);
        let torn = match told.iter().any(went) {
            true => {
                "; its snapshots are deleted already: the backup can not be restored whole any more"
            }
            false => "",
        };
        Pruned::Failed(name.clone(), format!("{why}{torn}"))
    }

    async fn inherit(&self, owned: Owned) {
        self.owned.lock().await.files.extend(owned.files);
    }

    /// Removes it where it has to go; what became of it, where something is to be told.
    ///
    /// # Errors
    /// The store's, and `Interrupted`.
    pub(super) async fn consider(
        &self,
        id: &Id,
        fate: Option<(Row, Fate)>,
    ) -> Result<Option<Pruned>> {
        let Self {
            stores,
            theirs,
            options,
            ..
        } = *self;
        let (store, name) = (stores.of(id.encrypted), &id.name);
        let keys = BackupKeys::new(name);
        // Looked at without a claim first: a claim beside a living run would disturb it.
        let folder = Folder::read(store, &keys, "").await?;
        if let Some(live) = folder.live_claims(theirs).next() {
            let quiet = theirs.duration_since(live.modified);
            if quiet < SignedDuration::from_mins(10) {
                return Ok(None);
            }
            return Ok(Some(Pruned::Kept(
                name.clone(),
                format!(
                    "a run claims it that gave no sign of life for {} minutes; after 60 it counts as dead",
                    quiet.as_mins()
                ),
            )));
        }
        let stale = !folder.claims.is_empty();
        let mut fate = fate.filter(|_| folder.marker.is_some());
        if let Some((row, _)) = &fate
            && !still_stands(stores, row).await?
        {
            fate = None;
        }
        let goes = match &fate {
            Some((row, Fate::Last)) if !stale => {
                let schedule = row.of.as_ref().map_or("", |(schedule, _)| schedule);
                return Ok(Some(Pruned::Kept(
                    name.clone(),
                    format!("it is expired, and the newest good backup of schedule {schedule}"),
                )));
            }
            Some((row, fate @ (Fate::Expired | Fate::Beyond))) => Some((row, *fate)),
            Some((_, Fate::Last)) | None => None,
        };
        if !stale && goes.is_none() {
            return Ok(None);
        }
        if let Some((_, fate)) = goes {
            let why = match fate {
                Fate::Beyond => "enough newer ones stay",
                Fate::Expired | Fate::Last => "it is expired",
            };
            let keep = |what: String| {
                let why = format!("{why}, and {what}");
                Ok(Some(Pruned::Kept(name.clone(), why)))
            };
            if let Some((row, _)) = goes
                && (!self.guarded || options.own_only)
                && !self.is_own(row)
            {
                return keep("not known to be this cluster's".to_owned());
            }
            if let Some(why) = self.unripe(name, goes.map(|(row, _)| row)).await? {
                return keep(why);
            }
            match kept(store, name).await {
                // Its room is not freed by hiding it, and who locks backups wants to find them.
                Ok(kept) if kept.is_locked(theirs) => {
                    return keep(format!("the bucket has it {kept}"));
                }
                Ok(_) => {}
                Err(e) => {
                    let why = format!(
                        "{why}, and the bucket does not tell whether it is locked: {}",
                        e.one_line()
                    );
                    return Ok(Some(Pruned::Failed(name.clone(), why)));
                }
            }
        }
        if let Some((row, Fate::Expired)) = goes
            && self.is_lengthened(row)
        {
            // Somebody moved it while others were looked at.
            return Ok(None);
        }
        let outcome = |marker: bool| match (goes, marker) {
            (Some((_, Fate::Beyond)), _) => Pruned::Beyond(name.clone()),
            (Some(_), _) => Pruned::Expired(name.clone()),
            (None, true) => Pruned::StaleClaim(name.clone()),
            (None, false) => Pruned::Stale(name.clone()),
        };
        if options.dry_run {
            if let Some((row, fate)) = goes {
                let heritage = self.heritage(id).await?;
                if let Some(stays) = self.uncut(row, fate, &heritage.cuts).await? {
                    return Ok(Some(stays));
                }
                self.inherit(heritage.owned).await;
            }
            return Ok(Some(outcome(folder.marker.is_some())));
        }
        let mut claim = match Claim::take(store, name, Purpose::Prune, options.host).await {
            Ok(claim) => claim,
            Err(e) if e.kind() == Kind::AlreadyExists => {
                return Ok(Some(Pruned::Kept(name.clone(), e.one_line())));
            }
            Err(e) => return Err(e),
        };
        claim.stopped_by(options.stopped);
        let left = match dead_claims(store, &claim, name, goes.is_some()).await {
            Ok(left) => left,
            Err(e) => {
                claim.withdraw().await;
                return Err(e);
            }
        };
        if let Some((row, fate)) = goes {
            // Asked again under the claim: the marker may be another's by now.
            if claim.found().marker.is_some() {
                match self.speaks(row, fate).await {
                    Ok(None) => {}
                    speaks => {
                        claim.withdraw().await;
                        return Ok(speaks?.map(|why| Pruned::Kept(name.clone(), why)));
                    }
                }
            }
            let heritage = match self.heritage(id).await {
                Ok(heritage) => heritage,
                Err(e) => {
                    claim.withdraw().await;
                    return Err(e);
                }
            };
            match self.uncut(row, fate, &heritage.cuts).await {
                Ok(None) => {}
                stays => {
                    claim.withdraw().await;
                    return stays;
                }
            }
            // Its snapshots may have taken an hour.
            if claim.found().marker.is_some() {
                match self.speaks(row, fate).await {
                    Ok(None) => {}
                    speaks => {
                        claim.withdraw().await;
                        return match speaks? {
                            Some(why) => Ok(Some(self.stays(name, &why).await)),
                            None => Ok(None),
                        };
                    }
                }
            }
            if let Err(e) = remove_all(claim, name).await {
                if e.kind() == Kind::Interrupted {
                    let stays = self.stays(name, &e.one_line()).await;
                    self.told.lock().await.push(stays);
                }
                return Err(e);
            }
            if options.heirs.is_some() {
                // It is gone: what stays of this is found by whoever looks for orphans.
                let _ = heritage.cuts.bury(&stores.plain).await;
            }
            self.inherit(heritage.owned).await;
            return Ok(Some(outcome(true)));
        }
        let marker = claim.found().marker.is_some();
        claim.release().await;
        Ok(Some(match left {
            Some(left) => Pruned::Kept(name.clone(), left),
            None => outcome(marker),
        }))
    }
}

/// Removes dead runs' claims. Where a marker stands, those alone; else first what the runs wrote. Tells what it left, if anything.
async fn dead_claims(
    store: &Store,
    claim: &Claim,
    name: &Name,
    expired: bool,
) -> Result<Option<String>> {
    let keys = claim.keys();
    let folder = keys.folder();
    let found = claim.found();
    let dead: Vec<_> = found
        .claims
        .iter()
        .filter(|other| is_stale(other, claim.taken_at()))
        .collect();
    let mut deleting = false;
    for other in &dead {
        let Some(file) = read_claim(store, &other.key).await? else {
            continue;
        };
        deleting |= file.purpose != Purpose::Create;
        for upload in file.uploads {
            // A claim is anybody's: only uploads into this folder are looked at.
            if upload.key.starts_with(&folder) {
                claim::abort(store, &upload).await?;
            }
        }
    }
    let mut left = None;
    if found.marker.is_none() && !dead.is_empty() {
        // A dead create's own files; a dead delete meant all of them.
        let (ours, others): (Vec<_>, Vec<_>) = found
            .files
            .iter()
            .partition(|file| deleting || keys.is_known(&file.key));
        claim.confirm_beside(&dead).await?;
        if has_marker(store, keys).await? {
            return Err(Error::other(format!("backup {name} got a marker just now")));
        }
        for file in ours {
            claim.remove(&file.key).await?;
        }
        if let Some(other) = others.first() {
            left = Some(format!(
                "{} is no file of ours; what the dead run left beside it is removed",
                other.key
            ));
        }
    }
    for other in dead {
        claim.remove(&other.key).await?;
    }
    if !expired && found.marker.is_none() {
        claim.sweep().await?;
    }
    Ok(left)
}
