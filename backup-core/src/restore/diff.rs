//! What differs between a backup and the cluster, or between two backups: by object, then by field. Reads only.
//!
//! What a restore does not bring does not count: what a server sets, the status, objects that a cluster makes itself. What controllers make
//! (see [`made`]) is counted and not told. Equal digests
//! in the index mean equal objects; only the bodies of the others are read. Of every object of the kind at hand a few
//! bytes are kept.

mod comparison;
mod fields;
mod left;
mod made;
mod right;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::open::{Opened, marker, open, serves};
use super::rewrite::Rewrite;
use super::rewriting::Prepared;
use super::{gather, order, plan, versions};
use crate::api::{Backup, Phase};
use crate::archive::read::{Archive, Source};
use crate::archive::row::ResourceRow;
use crate::backup::EXCLUDE_LABEL;
use crate::cluster::Cluster;
use crate::discovery::{ApiResource, Served};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::location::Location;
use crate::name::Name;
use crate::progress::Progress;
use crate::signature;

use comparison::{Comparison, reversed};
pub use fields::Field;
use left::Place;
use right::{Live, Right, Saved};

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
    let served = match &other {
        Other::Cluster(cluster) => serves(cluster, progress).await?,
        Other::Backup(..) => Served::default(),
    };
    let spool = &options.spool_dir;
    let (name, filter) = (&options.backup, &options.filter);
    let source = open(location, name, spool, &served, filter, None, progress).await?;
    let mut compared = match source {
        Opened::Ours(archive) => run.with(&archive, other, &served, show).await?,
        Opened::Foreign(archive, more) => {
            warnings.extend(more);
            run.with(&archive, other, &served, show).await?
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
    let marker = match signature::check(location, name).await? {
        Some(vouched) => vouched.entry.raw,
        None => marker(&location.store, name).await?,
    };
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
        served: &Served,
        show: &mut (dyn FnMut(Difference) -> Result<()> + Send),
    ) -> Result<Compared> {
        match other {
            Other::Cluster(cluster) => {
                let live = Live::new(cluster, served.clone(), self.namespaces()).await?;
                self.compare(archive, &live, served, show).await
            }
            Other::Backup(location, name) => {
                let scope = Filter::of(&spec(location, name).await?.spec);
                let spool = &self.options.spool_dir;
                let filter = &self.options.filter;
                let source = open(location, name, spool, served, filter, None, self.progress);
                match source.await? {
                    Opened::Ours(other) => {
                        let saved = Saved::new(&other, name, scope);
                        self.compare(archive, &saved, served, show).await
                    }
                    Opened::Foreign(other, warnings) => {
                        let saved = Saved::new(&other, name, scope);
                        let mut compared = self.compare(archive, &saved, served, show).await?;
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
        let rows_of_kinds = rows.iter().filter(|row| !row.resource.starts_with('*'));
        let held: Vec<_> = rows_of_kinds
            .map(|row| gather::describe(row, served))
            .collect();
        let mut comparison = Comparison {
            archive,
            right,
            asked: &asked,
            scope: &scope,
            rewrite: Rewrite {
                mappings: self.options.namespace_mappings.clone(),
                prepared: Arc::new(Prepared {
                    moved: versions::moved(held.iter(), served),
                    ..Prepared::default()
                }),
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

/// A kind's description that both sides share.
type Api = Arc<ApiResource>;

/// An object's JSON.
type Body = Bytes;
