//! What differs between a backup and the cluster, or between two backups: by object, then by field. Reads only.
//!
//! What a restore does not bring does not count: what a server sets, the status, objects that a cluster makes itself. What controllers make
//! (see [`made`]) is counted and not told. Equal digests
//! in the index mean equal objects; only the bodies of the others are read. Of every object of the kind at hand a few
//! bytes are kept.

mod fields;
mod left;
mod made;
mod right;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::plan::{self, Wanted};
use super::rewrite::{Rewrite, Side};
use super::volumes::Volumes;
use super::{Opened, gather, marker, open, order};
use crate::api::{Backup, Phase};
use crate::archive::read::{Archive, Source};
use crate::archive::row::{Outcome, ResourceRow, Row};
use crate::backup::EXCLUDE_LABEL;
use crate::backup::{Passed, PassedOver};
use crate::cluster::Cluster;
use crate::discovery::{self, ApiResource, Served};
use crate::error::{Error, Kind, Result};
use crate::filter::{Filter, Verdict};
use crate::location::Location;
use crate::name::Name;
use crate::progress::Progress;
use crate::raw::RawObject;

pub use fields::Field;
use left::{Left, Place};
use right::{Batch, Live, Right, Saved, Thing};

/// Bodies of the backup that are held at a time.
const HELD: u64 = 8 << 20;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct DiffOptions {
    /// The backup.
    pub backup: Name,
    /// Which objects.
    pub filter: Filter,
    /// Namespaces that go by another name on the other side: old to new.
    pub namespace_mappings: BTreeMap<String, String>,
    /// Tell objects that controllers make as well.
    pub controlled: bool,
    /// Where a foreign archive is rewritten.
    pub spool_dir: PathBuf,
}

/// With what it is compared.
#[derive(Clone, Copy, Debug)]
pub enum Other<'o> {
    /// With the cluster as it is.
    Cluster(&'o Cluster),
    /// With another backup, in its location.
    Backup(&'o Location, &'o Name),
}

/// How an object differs, seen from the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It is on both sides, and fields differ.
    Changed,
    /// It is not in the backup.
    Added,
    /// It is in the backup only.
    Removed,
}

/// One object that differs.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// How.
    pub change: Change,
    /// `deployments.apps`
    pub resource: String,
    /// Which object.
    pub object: Reference,
    /// What differs in an object that is on both sides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
    /// How many more fields differ and are not told.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_fields: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Names an object.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Objects that are the same on both sides.
    pub same: u64,
    /// Objects that differ.
    pub different: u64,
    /// Objects that controllers make, that differ, and that are not told.
    pub controlled: u64,
    /// Kinds that a rule left out of a backup, and that are not compared.
    pub left_out: u64,
    /// What should have been compared and could not be; a sentence each.
    pub missed: Vec<String>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Compares a backup with the cluster or with another backup; each object that differs is shown at once.
///
/// # Errors
/// When one side can not be read at all, or nothing of what was asked for is on either; what `show` returns.
pub async fn diff(
    location: &Location,
    options: &DiffOptions,
    other: Other<'_>,
    progress: &dyn Progress,
    show: &mut (dyn FnMut(Difference) -> Result<()> + Send),
) -> Result<Compared> {
    options.filter.validate()?;
    plan::refuse_never(&options.filter)?;
    plan::refuse_mappings(&options.filter, &options.namespace_mappings)?;
    let backup = spec(location, &options.backup).await?;
    let mut warnings: Vec<_> = gap(&options.backup, &backup).into_iter().collect();
    if let Other::Backup(location, name) = other {
        warnings.extend(gap(name, &spec(location, name).await?));
    }
    let run = Run {
        options,
        scope: Filter::of(&backup.spec),
        progress,
    };
    let (spool, any) = (&options.spool_dir, Served::default());
    let mut compared = match open(location, &options.backup, spool, &any, progress).await? {
        Opened::Ours(archive) => run.with(&archive, other, show).await?,
        Opened::Foreign(archive, more) => {
            warnings.extend(more);
            run.with(&archive, other, show).await?
        }
    };
    compared.warnings.extend(warnings);
    Ok(compared)
}

/// What a backup that is not whole means for a comparison.
fn gap(name: &Name, backup: &Backup) -> Option<String> {
    let phase = &backup.status.phase;
    (*phase != Phase::Completed).then(|| {
        format!("backup {name} is {phase}: what it missed looks like what came or went since, see `describe {name}`")
    })
}

async fn spec(location: &Location, name: &Name) -> Result<Backup> {
    let marker = marker(&location.store, name).await?;
    serde_json::from_slice(&marker)
        .map_err(|e| Error::corrupt(format!("the marker of backup {name} is no Backup")).because(e))
}

/// A comparison of which one side is open.
struct Run<'r> {
    options: &'r DiffOptions,
    /// What the backup was asked to hold.
    scope: Filter,
    progress: &'r dyn Progress,
}

impl Run<'_> {
    async fn with<A: Source>(
        &self,
        archive: &Archive<A>,
        other: Other<'_>,
        show: &mut (dyn FnMut(Difference) -> Result<()> + Send),
    ) -> Result<Compared> {
        match other {
            Other::Cluster(cluster) => {
                self.progress.step("looking at the cluster");
                let served = discovery::discover(cluster).await?;
                let live = Live::new(cluster, served.clone(), self.namespaces()).await?;
                self.compare(archive, &live, &served, show).await
            }
            Other::Backup(location, name) => {
                let scope = Filter::of(&spec(location, name).await?.spec);
                let served = Served::default();
                match open(
                    location,
                    name,
                    &self.options.spool_dir,
                    &served,
                    self.progress,
                )
                .await?
                {
                    Opened::Ours(other) => {
                        let saved = Saved::new(&other, name, scope);
                        self.compare(archive, &saved, &served, show).await
                    }
                    Opened::Foreign(other, warnings) => {
                        let saved = Saved::new(&other, name, scope);
                        let mut compared = self.compare(archive, &saved, &served, show).await?;
                        compared.warnings.extend(warnings);
                        Ok(compared)
                    }
                }
            }
        }
    }

    /// The namespaces that are looked at, where they were named one by one.
    fn namespaces(&self) -> Option<Vec<String>> {
        let mut names = self.named()?;
        for name in &mut names {
            if let Some(new) = self.options.namespace_mappings.get(name) {
                name.clone_from(new);
            }
        }
        Some(names)
    }

    fn named(&self) -> Option<Vec<String>> {
        let asked = self.options.filter.named_namespaces();
        let held = self.scope.named_namespaces();
        match (asked, held) {
            (Some(mut asked), Some(held)) => {
                asked.retain(|name| held.contains(name));
                Some(asked)
            }
            (asked, held) => asked.or(held),
        }
    }

    async fn compare<A: Source>(
        &self,
        archive: &Archive<A>,
        right: &dyn Right,
        served: &Served,
        show: &mut (dyn FnMut(Difference) -> Result<()> + Send),
    ) -> Result<Compared> {
        let rows = archive.index.resources();
        let mut known = rows.to_vec();
        known.extend(right.rows().iter().cloned());
        let (asked, unknown) = gather::bind(&self.options.filter, &known, served);
        let (scope, _) = gather::bind(&self.scope, &known, served);
        if asked.names_only(&unknown) {
            return Err(Error::not_found(format!(
                "neither side has the kinds {}",
                unknown.join(", ")
            ))
            .hint("`kubectl backup contents NAME` lists the kinds of a backup"));
        }
        let mut comparison = Comparison {
            archive,
            right,
            asked: &asked,
            scope: &scope,
            rewrite: Rewrite {
                mappings: self.options.namespace_mappings.clone(),
                ..Rewrite::default()
            },
            back: reversed(&self.options.namespace_mappings),
            controlled: self.options.controlled,
            left_namespaces: BTreeSet::new(),
            missing: asked.objects.iter().cloned().collect(),
            compared: Compared::default(),
            progress: self.progress,
            show,
        };
        comparison.compared.missed.extend(right.gaps(&asked));
        comparison.compared.warnings.extend(
            unknown
                .iter()
                .map(|kind| format!("neither side has the kind {:?}", kind.trim_end_matches('.'))),
        );
        let mut kinds: BTreeMap<_, (ApiResource, Option<&ResourceRow>)> = BTreeMap::new();
        let place = |name: &str| (order::place(name), name.to_owned());
        for api in right.kinds() {
            kinds.insert(place(&api.group_resource()), ((*api).clone(), None));
        }
        for row in rows.iter().filter(|row| !row.resource.starts_with('*')) {
            let api = gather::describe(row, served);
            kinds.insert(place(&row.resource), (api, Some(row)));
        }
        for (api, row) in kinds.values() {
            comparison.kind(api, *row).await?;
        }
        if let Some(object) = comparison.missing.first() {
            return Err(Error::not_found(format!(
                "object {object:?} is on neither side, among the kinds and namespaces chosen"
            ))
            .hint("name it as `namespace/name`, or `name` where it has no namespace"));
        }
        let mut compared = comparison.compared;
        compared.warnings.extend(comparison.left_namespaces.iter().map(|namespace| {
            format!("namespace {namespace} has the label {EXCLUDE_LABEL} now: its objects were not compared")
        }));
        if compared.same + compared.different + compared.controlled == 0
            && compared.missed.is_empty()
        {
            return Err(Error::not_found(
                "there is nothing to compare: neither side has what was chosen",
            )
            .hint("`kubectl backup contents NAME` lists what a backup holds"));
        }
        Ok(compared)
    }
}

/// A comparison at work.
struct Comparison<'c, A> {
    archive: &'c Archive<A>,
    right: &'c dyn Right,
    /// What the user asked for.
    asked: &'c Filter,
    /// What the backup was asked to hold.
    scope: &'c Filter,
    /// What a restore would do on the way.
    rewrite: Rewrite,
    /// Namespaces of the other side to those of the backup that they stand for.
    back: BTreeMap<String, String>,
    /// Whether what controllers make is told.
    controlled: bool,
    /// Namespaces whose objects no backup takes any more.
    left_namespaces: BTreeSet<String>,
    /// Single objects that were asked for and not seen yet.
    missing: BTreeSet<String>,
    compared: Compared,
    progress: &'c dyn Progress,
    show: &'c mut (dyn FnMut(Difference) -> Result<()> + Send),
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
    async fn kind(&mut self, api: &ApiResource, row: Option<&ResourceRow>) -> Result<()> {
        let name = api.group_resource();
        let wanted = Wanted::of(self.asked, api);
        // Of kinds that come along with others nothing was asked for, but for the namespaces that are named.
        let along = self.asked.resource(api) != Verdict::In;
        let meant = !along || !(self.by_name() || self.asked.all_namespaces());
        if plan::is_never(&name) || !wanted.by_filter || !meant {
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

fn reversed(mappings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
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
    let one = rewrite.shape(resource, backup, Side::Backup)?;
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

/// A kind's description that both sides share.
type Api = Arc<ApiResource>;

/// An object's JSON.
type Body = Bytes;
