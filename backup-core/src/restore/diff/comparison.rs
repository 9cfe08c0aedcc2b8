//! A comparison at work: kind by kind, the rows of both sides are set against each other, and bodies are read where digests differ.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::order;
use super::super::plan::{self, Wanted};
use super::super::rewrite::{Rewrite, Side};
use super::super::volumes::Volumes;
use super::left::{Left, Place};
use super::right::{Batch, Right, Thing};
use super::{Change, Compared, Difference, Field, Reference, fields, made};
use crate::apart;
use crate::archive::read::{Archive, Source};
use crate::archive::row::{Outcome, ResourceRow, Row};
use crate::backup::{EXCLUDE_LABEL, Passed, PassedOver};
use crate::discovery::ApiResource;
use crate::error::{Error, Kind, Result};
use crate::filter::{Filter, Verdict};
use crate::progress::Progress;
use crate::raw::RawObject;

/// Bodies of the backup that are held at a time.
const HELD: u64 = 8 << 20;

/// A comparison at work.
pub(super) struct Comparison<'c, A> {
    pub(super) archive: &'c Archive<A>,
    pub(super) right: &'c dyn Right,
    /// What the user asked for.
    pub(super) asked: &'c Filter,
    /// What the backup was asked to hold.
    pub(super) scope: &'c Filter,
    /// What a restore would do on the way.
    pub(super) rewrite: Rewrite,
    /// Namespaces of the other side to those of the backup that they stand for.
    pub(super) back: BTreeMap<String, String>,
    /// Whether what controllers make is told.
    pub(super) controlled: bool,
    /// Namespaces whose objects no backup takes any more.
    pub(super) left_namespaces: BTreeSet<String>,
    /// Single objects that were asked for and not seen yet.
    pub(super) missing: BTreeSet<String>,
    pub(super) compared: Compared,
    pub(super) progress: &'c dyn Progress,
    pub(super) show: &'c mut (dyn FnMut(Difference) -> Result<()> + Send),
}

impl<A: Source> Comparison<'_, A> {
    /// Whether kinds were asked for by their names.
    fn by_name(&self) -> bool {
        let asked = self.asked;
        [
            &asked.resources,
            &asked.cluster_resources,
            &asked.namespaced_resources,
        ]
        .into_iter()
        .any(|names| !names.is_empty() && names.iter().all(|name| name != "*"))
    }

    /// A kind that the backup does not hold by a rule: who asked for it has no answer.
    fn left_out(&mut self, kind: &str, why: &str) {
        if self.by_name() {
            let text = format!("{kind}: the backup left it out: {why}");
            self.compared.missed.push(text);
        } else {
            self.compared.left_out += 1;
        }
    }

    /// One kind; what can not be read of it is told, and the others go on.
    pub(super) async fn kind(
        &mut self,
        api: &ApiResource,
        row: Option<&ResourceRow>,
    ) -> Result<()> {
        let name = api.group_resource();
        let wanted = Wanted::of(self.asked, api);
        // Of kinds that come along with others nothing was asked for, but for the namespaces that are named.
        let along = self.asked.resource(api) != Verdict::In;
        let meant = !along || !(self.by_name() || self.asked.all_namespaces());
        if plan::is_never(&name) || !wanted.by_filter || !meant {
            return Ok(());
        }
        if row.is_some_and(apart::is_locked) {
            let text = format!("{name}: encrypted in the backup, and no identity opens them");
            self.compared.missed.push(text);
            return Ok(());
        }
        match row.map(|row| (row.outcome, row.why.as_str())) {
            // No backup holds these, whatever was asked for.
            Some((Outcome::Excluded, "not-listable" | "no-create")) => return Ok(()),
            Some((Outcome::Excluded, why)) => {
                self.left_out(&name, why);
                return Ok(());
            }
            Some((Outcome::Failed, why)) => {
                self.compared
                    .missed
                    .push(format!("{name}: the backup has a gap there: {why}"));
                return Ok(());
            }
            _ => {}
        }
        // What nobody asked the backup to hold is nothing that was added since.
        let held = Wanted::of(self.scope, api);
        if row.is_none() && !held.by_filter {
            if self.by_name() {
                self.left_out(&name, "out of its scope");
            }
            return Ok(());
        }
        match self.right.stands(api, row.map_or(0, |row| row.count)) {
            Ok(true) => {}
            Ok(false) => {
                self.compared.left_out += 1;
                return Ok(());
            }
            Err(why) => {
                self.compared.missed.push(format!("{name}: {why}"));
                return Ok(());
            }
        }
        self.progress.step(&format!("comparing {name}"));
        match self.objects(api, &name, &wanted, &held).await {
            // Who may look into one namespace may not list them.
            Err(e) if along && e.kind() == Kind::Forbidden => Ok(()),
            Err(e)
                if !matches!(
                    e.kind(),
                    Kind::Unreachable | Kind::Unauthorized | Kind::Interrupted
                ) =>
            {
                self.compared
                    .missed
                    .push(format!("{name}: {}", e.sentence()));
                Ok(())
            }
            done => done,
        }
    }

    async fn objects(
        &mut self,
        api: &ApiResource,
        name: &str,
        wanted: &Wanted,
        held: &Wanted,
    ) -> Result<()> {
        let (asked, right) = (self.asked, self.right);
        let mut left = Left::read(self.archive, name, |row| wanted.has(asked, api, row)).await?;
        let mut things = right.things(api);
        while let Some(batch) = things.next().await {
            let Batch { things, passed } = batch?;
            for one in passed {
                self.passed(api, name, &mut left, one).await?;
            }
            let mut pending = Vec::new();
            for thing in things {
                let row = &match back(&self.back, &self.rewrite, name, &thing.row) {
                    Some(Cow::Borrowed(_)) => thing.row.clone(),
                    Some(Cow::Owned(row)) => row,
                    None => continue,
                };
                let here = wanted.has(asked, api, row);
                let there = left.meet(row);
                if !here && !there.is_some_and(|there| there.wanted) {
                    continue;
                }
                self.missing
                    .retain(|object| !plan::names(asked, object, row));
                self.progress.done(1, row.length);
                match there {
                    Some(there) if there.is_same(row) => self.compared.same += 1,
                    Some(there) => pending.push((Some(there.place), thing)),
                    None if held.has(self.scope, api, row) => pending.push((None, thing)),
                    None => {}
                }
            }
            self.settle(api, name, &mut left, pending).await?;
        }
        drop(things);
        for frame in 0..left.frames() {
            for row in left.unmet(frame).await? {
                self.missing
                    .retain(|object| !plan::names(asked, object, &row));
                if !right.would_hold(api, &self.there(name, &row)) {
                    continue;
                }
                if plan::is_judged_by_body(name) || made::may_be(name, &row) {
                    let body = self.archive.body(&row).await?;
                    if !comes(name, &body)? || self.folds(name, &body)? {
                        continue;
                    }
                }
                let row = self.there(name, &row);
                self.tell(Change::Removed, api, &row, fields::Found::default())?;
            }
        }
        Ok(())
    }

    /// Looks into the objects that have no equal, a bounded number of them at a time.
    async fn settle(
        &mut self,
        api: &ApiResource,
        name: &str,
        left: &mut Left<'_, A>,
        mut pending: Vec<(Option<Place>, Thing)>,
    ) -> Result<()> {
        while !pending.is_empty() {
            let mut held = 0;
            let fits = pending.iter().take_while(|(_, thing)| {
                let first = held == 0;
                held += thing.length().max(1);
                first || held <= HELD
            });
            let rest = pending.split_off(fits.count());
            let places = pending.iter().filter_map(|(place, _)| *place).collect();
            let bodies = left.bodies(places).await?;
            let things = std::mem::replace(&mut pending, rest);
            let others = self.right.bodies(api, &things).await?;
            for ((place, thing), other) in things.iter().zip(others) {
                let Some(place) = place else {
                    // Its body decides only where a kind has objects that no restore brings.
                    if comes(name, &other)? && !self.folds(name, &other)? {
                        let nothing = fields::Found::default();
                        self.tell(Change::Added, api, &thing.row, nothing)?;
                    }
                    continue;
                };
                let Some(body) = bodies.get(place) else {
                    return Err(Error::other("the comparison lost an object"));
                };
                if !comes(name, body)? || plan::keeps_its_own(name, &thing.row.name) {
                    continue;
                }
                let found = changes(&self.rewrite, name, body, &other)?;
                if found.fields.is_empty() {
                    self.compared.same += 1;
                } else if !self.folds(name, body)? {
                    self.tell(Change::Changed, api, &thing.row, found)?;
                }
            }
        }
        Ok(())
    }

    fn tell(
        &mut self,
        change: Change,
        api: &ApiResource,
        row: &Row,
        found: fields::Found,
    ) -> Result<()> {
        self.compared.different += 1;
        (self.show)(Difference {
            change,
            resource: api.group_resource(),
            object: Reference {
                api_version: api.api_version(),
                kind: api.kind.clone(),
                namespace: row.namespace.clone(),
                name: row.name.clone(),
            },
            fields: found.fields,
            more_fields: found.more,
        })
    }

    /// Whether this is an object that a controller makes and nobody asked for; it is counted then.
    fn folds(&mut self, name: &str, body: &[u8]) -> Result<bool> {
        let folds = !self.controlled && !self.by_name() && made::is(name, body)?;
        self.compared.controlled += u64::from(folds);
        Ok(folds)
    }

    /// An object that is on the other side, though no backup would take it: it has not gone.
    async fn passed(
        &mut self,
        api: &ApiResource,
        name: &str,
        left: &mut Left<'_, A>,
        one: PassedOver,
    ) -> Result<()> {
        let live = Row {
            namespace: one.namespace,
            name: one.name,
            ..Row::default()
        };
        let Some(row) = back(&self.back, &self.rewrite, name, &live) else {
            return Ok(());
        };
        let Some(there) = left.meet(&row).filter(|there| there.wanted) else {
            return Ok(());
        };
        let asked = self.asked;
        self.missing
            .retain(|object| !plan::names(asked, object, &row));
        let (path, value) = match one.why {
            Passed::InNamespace => {
                self.left_namespaces.extend(live.namespace);
                return Ok(());
            }
            Passed::Unfit(why) => {
                let text = format!("{name} {:?}: {why}", live.name);
                self.compared.missed.push(text);
                return Ok(());
            }
            Passed::Terminating(since) => (".metadata.deletionTimestamp".to_owned(), since),
            Passed::Labelled => {
                let path = format!(".metadata.labels['{EXCLUDE_LABEL}']");
                (path, "\"true\"".to_owned())
            }
        };
        let bodies = left.bodies(vec![there.place]).await?;
        for body in bodies.values() {
            if !comes(name, body)? || self.folds(name, body)? {
                return Ok(());
            }
        }
        let found = fields::Found::added(path, value);
        self.tell(Change::Changed, api, &live, found)
    }

    /// A row of the backup in the other side's words.
    fn there<'r>(&self, name: &str, row: &'r Row) -> Cow<'r, Row> {
        renamed(name, row, |old| {
            self.rewrite.mappings.get(old).map(String::as_str)
        })
    }
}

/// A row of the other side in the backup's words; nothing where its namespace stands for none of the backup's.
fn back<'r>(
    back: &BTreeMap<String, String>,
    rewrite: &Rewrite,
    name: &str,
    row: &'r Row,
) -> Option<Cow<'r, Row>> {
    let is_namespace = name == order::NAMESPACES;
    let namespace = is_namespace.then_some(&row.name).or(row.namespace.as_ref());
    let gone = namespace
        .is_some_and(|here| rewrite.mappings.contains_key(here) && !back.contains_key(here));
    (!gone).then(|| renamed(name, row, |new| back.get(new).map(String::as_str)))
}

/// The row with its namespace by another name, where that has one.
fn renamed<'r, 'n>(
    name: &str,
    row: &'r Row,
    other: impl Fn(&str) -> Option<&'n str>,
) -> Cow<'r, Row> {
    let is_namespace = name == order::NAMESPACES;
    let namespace = is_namespace.then_some(&row.name).or(row.namespace.as_ref());
    let Some(other) = namespace.and_then(|namespace| other(namespace)) else {
        return Cow::Borrowed(row);
    };
    let mut row = row.clone();
    if is_namespace {
        other.clone_into(&mut row.name);
    } else {
        row.namespace = Some(other.to_owned());
    }
    Cow::Owned(row)
}

pub(super) fn reversed(mappings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let pairs = mappings.iter();
    pairs.map(|(old, new)| (new.clone(), old.clone())).collect()
}

/// Whether a restore would bring an object of this body.
fn comes(resource: &str, body: &[u8]) -> Result<bool> {
    Ok(plan::left_out(resource, body, &Volumes::default())?.is_none())
}

/// What differs in two objects of which a restore would bring the first over the second.
fn changes(
    rewrite: &Rewrite,
    resource: &str,
    backup: &[u8],
    other: &[u8],
) -> Result<fields::Found> {
    let one = match rewrite.shape(resource, backup, Side::Backup) {
        // In the version that the cluster serves it would mean something else: that is a difference.
        Err(e) if e.kind() == Kind::Invalid => {
            Rewrite::default().shape(resource, backup, Side::Backup)?
        }
        shaped => shaped?,
    };
    let two = rewrite.shape(resource, other, Side::Live)?;
    let mut found = fields::between(&one.object, &two.object, resource == "secrets");
    let (before, after) = (owners(backup)?, owners(other)?);
    if before != after {
        found.fields.push(Field {
            path: ".metadata.ownerReferences".to_owned(),
            before: before.map(|owners| raw_value(&owners)).transpose()?,
            after: after.map(|owners| raw_value(&owners)).transpose()?,
        });
    }
    Ok(found)
}

/// Who owns an object, but for their uids, which a restore maps to those of the restored owners.
fn owners(body: &[u8]) -> Result<Option<Vec<Value>>> {
    let object = RawObject::from_slice(body)?;
    let metadata: Option<Owned> = object.read("metadata")?;
    let mut owners = metadata.and_then(|metadata| metadata.owner_references);
    for owner in owners.iter_mut().flatten() {
        if let Some(owner) = owner.as_object_mut() {
            owner.remove("uid");
        }
    }
    if let Some(owners) = &mut owners {
        owners.sort_by_cached_key(Value::to_string);
    }
    Ok(owners.filter(|owners| !owners.is_empty()))
}

fn raw_value(value: &impl Serialize) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
        .map_err(|e| Error::other("a difference can not be written as JSON").because(e))
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Owned {
    owner_references: Option<Vec<Value>>,
}
