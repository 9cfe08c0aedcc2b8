//! What a location knows of the snapshots of backups that go: by its inventories, beside what the backups themselves name. A snapshot that a backup names and that no readable inventory of
//! this location has could be deleted by nobody any more once the backup is gone, so whoever removes one asks [`About::lacks`] before. Nothing here changes an inventory but [`About::bury`].

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::heirs::{Heirs, Outcome, elsewhere};
use super::inventory::{self, Found, Inventory, Listed, State};
use super::rights;
use crate::error::{Kind, Result};
use crate::layout::SNAPSHOT_NOTES;
use crate::location::Store;
use crate::name::Name;
use crate::records::snapshots::StorageSnapshot;

/// How far a driver's clock may be from ours: an inventory of before that is of another backup of the name.
const SLACK: SignedDuration = SignedDuration::from_hours(1);

/// So many snapshots are named in a sentence.
const NAMED: usize = 5;

/// The inventories of a location, as they were read: what was changed since is left to whoever did.
#[derive(Debug, Default)]
pub struct Known {
    /// Of finished runs and of copies.
    own: Vec<Inventory>,
    /// The same of this bucket under another address, or of a location that this one is a copy of.
    foreign: Vec<Inventory>,
    /// Keys, and why nobody reads them.
    unread: BTreeMap<String, String>,
    /// Why they can not be listed.
    unlisted: Option<String>,
}

impl Known {
    /// All that can be read; the others are known by their keys.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(store: &Store) -> Result<Self> {
        let Listed {
            all,
            unread,
            unlisted,
        } = inventory::list(store).await?;
        let mut known = Self {
            unread: unread.into_iter().collect(),
            unlisted: unlisted.map(|e| e.sentence()),
            ..Self::default()
        };
        let place = inventory::place(store);
        all.into_iter().for_each(|one| known.add(one, &place));
        Ok(known)
    }

    fn add(&mut self, one: Inventory, place: &str) {
        match one.state {
            // Of a run that is not over, or died: no backup that stands names one of these.
            State::Noted | State::Removing => {}
            // A copy of it is one as well.
            State::Copied => self.own.push(one),
            _ if one.place == place => self.own.push(one),
            _ => self.foreign.push(one),
        }
    }

    /// What is known of one backup, which names these; nothing where it can not be told which. What could not be listed is asked for by name.
    ///
    /// # Errors
    /// The store's.
    pub async fn about(
        &self,
        store: &Store,
        backup: &Name,
        names: Option<&[StorageSnapshot]>,
    ) -> Result<About> {
        let is_its = |one: &&Inventory| one.backup == backup.as_str();
        let mut known = Self {
            own: self.own.iter().filter(is_its).cloned().collect(),
            foreign: self.foreign.iter().filter(is_its).cloned().collect(),
            unread: self.unread.clone(),
            unlisted: self.unlisted.clone(),
        };
        if self.unlisted.is_some() {
            let place = inventory::place(store);
            let runs = names.unwrap_or_default().iter().map(|one| &one.run);
            let keys = runs.filter_map(|run| inventory::key(run));
            for key in keys.collect::<BTreeSet<_>>() {
                match inventory::at(store, &key).await? {
                    Found::Read(one) if is_its(&&one) => known.add(one, &place),
                    Found::Unread(why) => drop(known.unread.insert(key, why)),
                    Found::Read(_) | Found::Absent => {}
                }
            }
        }
        let lacks = known.lacks(names);
        let keys = names.into_iter().flatten();
        let keys = keys.filter_map(|one| inventory::key(&one.run));
        let unread: BTreeSet<_> = keys.filter(|key| known.unread.contains_key(key)).collect();
        Ok(About {
            own: known.own,
            unread,
            lacks,
        })
    }

    /// Why what a backup names would stay in its storage for ever, a sentence each.
    fn lacks(&self, names: Option<&[StorageSnapshot]>) -> Vec<String> {
        let Some(names) = names else {
            return self.unsaid();
        };
        let mut lacks: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in names {
            if let Some(why) = self.lack(one) {
                let named = format!("{} of {}", one.handle, one.driver);
                lacks.entry(why).or_default().push(named);
            }
        }
        let sentence = |(why, mut named): (String, Vec<String>)| {
            let more = named.len().saturating_sub(NAMED);
            named.truncate(NAMED);
            if more > 0 {
                named.push(format!("{more} more"));
            }
            format!("snapshot {}: {why}", named.join(", "))
        };
        lacks.into_iter().map(sentence).collect()
    }

    /// The same where it can not be told what it names: any of those that can not be read may be its own.
    fn unsaid(&self) -> Vec<String> {
        let mut others = self.foreign.iter().filter_map(|one| {
            let key = inventory::key(&one.run)?;
            Some(format!("{key} is of another address"))
        });
        let mut unread = self.unread.iter().map(read_in_vain);
        let unlisted = self.unlisted.clone();
        let why = unlisted.or_else(|| unread.next()).or_else(|| others.next());
        why.map(|why| format!("which snapshots it has can not be told, and {why}"))
            .into_iter()
            .collect()
    }

    /// Why one would, where it would.
    fn lack(&self, one: &StorageSnapshot) -> Option<String> {
        let of_run = |known: &&Inventory| known.run == one.run;
        let has = |known: &Inventory| known.has(&one.driver, &one.handle);
        let mut own = self.own.iter().filter(of_run);
        if own.any(|known| known.state == State::Copied || has(known)) {
            return None;
        }
        let key = inventory::key(&one.run);
        let key = key.unwrap_or_else(|| format!("{SNAPSHOT_NOTES}?"));
        Some(if let Some(unread) = self.unread.get_key_value(&key) {
            read_in_vain(unread)
        } else if self.foreign.iter().any(has) {
            format!(
                "{key} is of another address of this bucket (by that one the backup goes with them), or of what this is a copy of"
            )
        } else if self.own.iter().any(|known| of_run(&known)) {
            format!("{key} has it not")
        } else {
            format!("{key} is not there")
        })
    }

    /// Whether snapshots of a backup went, or may have: it can not be restored whole, and nothing goes for its sake. One that was made anew under the name has others.
    pub(crate) fn is_torn(&self, backup: &Name, started: Option<Timestamp>) -> bool {
        let mut its = self.own.iter().filter(|one| one.backup == backup.as_str());
        its.any(|one| is_torn(one, started))
    }

    /// The same as it is by now.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn is_torn_now(
        &self,
        store: &Store,
        backup: &Name,
        started: Option<Timestamp>,
    ) -> Result<bool> {
        for one in self.own.iter().filter(|one| one.backup == backup.as_str()) {
            let now = one.again(store).await?;
            if now.is_some_and(|now| is_torn(&now, started)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn read_in_vain((key, why): (&String, &String)) -> String {
    format!("{key} can not be read: {why}")
}

fn is_torn(one: &Inventory, started: Option<Timestamp>) -> bool {
    let is_its =
        |cut: Timestamp| started.is_none_or(|started| started.duration_since(cut) <= SLACK);
    one.state == State::Expiring && one.snapshots.iter().any(|one| is_its(one.cut))
}

/// What is known of the snapshots of one backup.
#[derive(Debug)]
pub struct About {
    pub(super) own: Vec<Inventory>,
    /// Keys of others of its runs, that can not be read.
    unread: BTreeSet<String>,
    lacks: Vec<String>,
}

impl About {
    /// By one inventory alone.
    pub(super) fn of(one: Inventory) -> Self {
        Self {
            own: vec![one],
            unread: BTreeSet::new(),
            lacks: Vec::new(),
        }
    }

    /// Why snapshots of it would stay in their storage for ever if it went now.
    pub fn lacks(&self) -> Option<String> {
        if self.lacks.is_empty() {
            return None;
        }
        Some(format!(
            "snapshots would stay in their storage, and nobody would know of them: {}",
            self.lacks.join("; ")
        ))
    }

    /// How many go with it.
    pub fn count(&self) -> usize {
        self.own.iter().map(|one| one.standing().count()).sum()
    }

    /// Whether some went, or may have, of a backup of this start: then there is no way back.
    pub fn is_torn(&self, started: Option<Timestamp>) -> bool {
        self.own.iter().any(|one| is_torn(one, started))
    }

    /// What would come of [`About::expire`] without asking any driver: snapshots of another cluster than the one that is reached.
    pub fn elsewhere(&self, heirs: Heirs<'_>) -> Outcome {
        let is_far = |one: &&Inventory| !heirs.is_in(&one.cluster) && !one.is_over();
        let far = self.own.iter().find(is_far);
        far.map_or(Outcome::None, elsewhere)
    }

    /// Why those in the cluster that is reached can not be deleted by who we are; nothing where that is not known.
    pub async fn forbidden(&self, heirs: Heirs<'_>) -> Option<String> {
        let is_here = |one: &&Inventory| heirs.is_in(&one.cluster) && !one.is_over();
        self.own.iter().find(is_here)?;
        let (cluster, _) = heirs.cluster?;
        rights::missing_to_expire(cluster).await
    }

    /// Takes away what is known of those that are gone, after the backup is, and what nobody can read any more of others. What is left of it is an orphan's.
    ///
    /// # Errors
    /// The store's.
    pub async fn bury(&self, store: &Store) -> Result<()> {
        for one in &self.own {
            if let Some(now) = one.again(store).await?
                && now.is_over()
            {
                now.remove(store).await?;
            }
        }
        for key in &self.unread {
            if inventory::is_damaged(store, key).await? {
                store.outside().delete(key).await?;
            }
        }
        Ok(())
    }
}

/// Notes of a copy in this location that the snapshots which it names are another's. What stands here of their runs stays: then they are this location's own. Where that can not be noted, or
/// told, why comes back, a sentence each.
///
/// # Errors
/// The store's, but for a refusal.
pub(crate) async fn copied(
    store: &Store,
    backup: &Name,
    names: &[StorageSnapshot],
) -> Result<Vec<String>> {
    let mut unnoted = Vec::new();
    let of_runs: BTreeMap<_, _> = names.iter().map(|one| (&one.run, &one.cluster)).collect();
    for (run, cluster) in of_runs {
        let Some(key) = inventory::key(run) else {
            continue;
        };
        match inventory::at(store, &key).await? {
            Found::Read(_) => {}
            Found::Unread(why) => unnoted.push(read_in_vain((&key, &why))),
            Found::Absent => {
                let mut note = Inventory::new(store, cluster, (backup.as_str(), ""), run);
                note.state = State::Copied;
                match note.put(store).await {
                    Err(e) if e.kind() == Kind::Forbidden => unnoted.push(e.sentence()),
                    put => put?,
                }
            }
        }
    }
    Ok(unnoted)
}
