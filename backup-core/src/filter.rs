//! Which objects are in: namespaces, kinds, labels, cluster scope, with Velero's semantics. Pure.
//!
//! Velero's two styles of kind filters stay apart: the old one (`--include-resources`, `--exclude-resources`,
//! `--include-cluster-resources`) and the new one (the four scoped lists). No filter at all means everything.

mod glob;
mod selector;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use selector::Selector;

use crate::api::{BackupSpec, LabelSelector};
use crate::discovery::ApiResource;
use crate::error::{Error, Result};

/// Kinds that `--skip-noise` leaves out: what controllers write again by themselves.
const NOISE: [&str; 5] = [
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
];

/// What was asked for, of a backup or of a restore.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Namespaces in (`*`, globs); empty is all.
    pub namespaces: Vec<String>,
    /// Namespaces out; wins.
    pub not_namespaces: Vec<String>,
    /// Kinds in, old style: `pods`, `deploy`, `deployments.apps`, `*`, globs.
    pub resources: Vec<String>,
    /// Kinds out, old style.
    pub not_resources: Vec<String>,
    /// Cluster-scoped kinds in, new style.
    pub cluster_resources: Vec<String>,
    /// Cluster-scoped kinds out, new style.
    pub not_cluster_resources: Vec<String>,
    /// Namespaced kinds in, new style.
    pub namespaced_resources: Vec<String>,
    /// Namespaced kinds out, new style.
    pub not_namespaced_resources: Vec<String>,
    /// Cluster-scoped objects: all, none, or (absent) as Velero decides.
    pub include_cluster_resources: Option<bool>,
    /// Objects must match one of these; empty is all.
    pub selectors: Vec<Selector>,
    /// `ns/name` or `name`: these single objects only (restores); empty is all.
    pub objects: Vec<String>,
    /// Leave out events, leases, endpoints and endpoint slices.
    pub skip_noise: bool,
}

/// What a rule says of an API resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Read it and save what the namespaces and labels let through.
    In,
    /// Only objects that others refer to.
    Related,
    /// Left out by the rule of this name.
    Out(&'static str),
}

/// Refuses both fields together, as Velero does, which would have to guess whether one or all have to match.
///
/// # Errors
/// `Invalid`, in Velero's words.
pub fn one_selector(all: Option<&LabelSelector>, any: &[LabelSelector]) -> Result<()> {
    if all.is_some() && !any.is_empty() {
        return Err(Error::invalid(
            "encountered labelSelector as well as orLabelSelectors, only one can be specified",
        ));
    }
    Ok(())
}

impl Filter {
    /// What a backup was asked to save. `skip_noise` is no field of a Backup: such kinds are in the index as left out.
    pub fn of(spec: &BackupSpec) -> Self {
        let selectors = spec.label_selector.iter().chain(&spec.or_label_selectors);
        Self {
            namespaces: spec.included_namespaces.clone(),
            not_namespaces: spec.excluded_namespaces.clone(),
            resources: spec.included_resources.clone(),
            not_resources: spec.excluded_resources.clone(),
            cluster_resources: spec.included_cluster_scoped_resources.clone(),
            not_cluster_resources: spec.excluded_cluster_scoped_resources.clone(),
            namespaced_resources: spec.included_namespace_scoped_resources.clone(),
            not_namespaced_resources: spec.excluded_namespace_scoped_resources.clone(),
            include_cluster_resources: spec.include_cluster_resources,
            selectors: selectors.cloned().map(Selector).collect(),
            ..Self::default()
        }
    }

    /// The same as a Backup's spec says it.
    pub fn spec(&self) -> BackupSpec {
        let mut selectors = self.selectors.iter().map(|selector| selector.0.clone());
        let (one, several) = if self.selectors.len() == 1 {
            (selectors.next(), Vec::new())
        } else {
            (None, selectors.collect())
        };
        BackupSpec {
            included_namespaces: if self.namespaces.is_empty() {
                vec!["*".to_owned()]
            } else {
                self.namespaces.clone()
            },
            excluded_namespaces: self.not_namespaces.clone(),
            included_resources: self.resources.clone(),
            excluded_resources: self.not_resources.clone(),
            included_cluster_scoped_resources: self.cluster_resources.clone(),
            excluded_cluster_scoped_resources: self.not_cluster_resources.clone(),
            included_namespace_scoped_resources: self.namespaced_resources.clone(),
            excluded_namespace_scoped_resources: self.not_namespaced_resources.clone(),
            label_selector: one,
            or_label_selectors: several,
            include_cluster_resources: self.include_cluster_resources,
            ..BackupSpec::default()
        }
    }

    /// Refuses what can not be meant, such as old and new style together.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        if self.is_old_style() && self.is_new_style() {
            return Err(Error::invalid(
                "include-resources, exclude-resources and include-cluster-resources can not be used together with the \
                 cluster-scoped and namespace-scoped lists",
            )
            .hint("use one style: either the first three flags, or the four scoped ones"));
        }
        old_style("namespaces", &self.namespaces, &self.not_namespaces)?;
        old_style("resources", &self.resources, &self.not_resources)?;
        new_style(
            "cluster-scoped-resources",
            &self.cluster_resources,
            &self.not_cluster_resources,
        )?;
        new_style(
            "namespace-scoped-resources",
            &self.namespaced_resources,
            &self.not_namespaced_resources,
        )?;
        for pattern in self.namespaces.iter().chain(&self.not_namespaces) {
            check_namespace(pattern)?;
        }
        let kinds = [
            &self.resources,
            &self.not_resources,
            &self.cluster_resources,
            &self.not_cluster_resources,
            &self.namespaced_resources,
            &self.not_namespaced_resources,
        ];
        for pattern in kinds.into_iter().flatten() {
            if pattern.is_empty() {
                return Err(Error::invalid("a kind in a filter is empty"));
            }
            glob::check(pattern)?;
        }
        Ok(())
    }

    /// Whether every namespace is in.
    pub fn all_namespaces(&self) -> bool {
        everything(&self.namespaces, &self.not_namespaces)
    }

    /// Whether objects of this namespace are in.
    pub fn namespace(&self, namespace: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|p| glob::matches(p, namespace));
        !any(&self.not_namespaces) && (self.namespaces.is_empty() || any(&self.namespaces))
    }

    /// The namespaces that were named one by one; nothing where a glob or no namespace was given.
    pub fn named_namespaces(&self) -> Option<Vec<String>> {
        let literal = !self.namespaces.is_empty()
            && !self.namespaces.iter().any(|pattern| glob::is_glob(pattern));
        let mut names: Vec<String> = literal.then(|| {
            let named = self.namespaces.iter();
            named.filter(|name| self.namespace(name)).cloned().collect()
        })?;
        names.sort();
        names.dedup();
        Some(names)
    }

    /// What the rules say of an API resource.
    ///
    /// Names match plural, `plural.group`, singular, kind and short names, in any case. A bare name matches
    /// in every group that has it; see [`Filter::resolve`].
    pub fn resource(&self, resource: &ApiResource) -> Verdict {
        if self.skip_noise && NOISE.contains(&resource.group_resource().as_str()) {
            return Verdict::Out("skip-noise");
        }
        if self.is_new_style() {
            self.scoped(resource)
        } else {
            self.global(resource)
        }
    }

    /// Whether labels match (no selector matches everything).
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selectors.is_empty() || self.selectors.iter().any(|s| s.matches(labels))
    }

    /// The same filter with every bare kind (`services`, `deploy`) bound to the first resource served under that name, as
    /// kubectl and Velero bind it: `services` does not mean another group's kind of the same name. Beside it, the names that nothing is served under.
    #[must_use]
    pub fn resolve(&self, served: &[Arc<ApiResource>]) -> (Self, Vec<String>) {
        let mut bound = self.clone();
        let mut unknown = Vec::new();
        for kinds in [
            &mut bound.resources,
            &mut bound.not_resources,
            &mut bound.cluster_resources,
            &mut bound.not_cluster_resources,
            &mut bound.namespaced_resources,
            &mut bound.not_namespaced_resources,
        ] {
            for kind in kinds.iter_mut() {
                if glob::is_glob(kind) {
                    if !served.iter().any(|r| is_named(kind, r)) {
                        unknown.push(kind.clone());
                    }
                    continue;
                }
                match served.iter().find(|r| is_named(kind, r)) {
                    // A trailing dot pins the core group, whose kinds have no group to be told apart by.
                    Some(found) if found.group.is_empty() => *kind = format!("{}.", found.plural),
                    Some(found) => *kind = found.group_resource(),
                    None => unknown.push(kind.clone()),
                }
            }
        }
        unknown.sort();
        unknown.dedup();
        (bound, unknown)
    }

    /// The same filter with the kinds of a weaker one, both bound: each is taken where this one says nothing of it. Velero combines a backup's scoped
    /// lists and its resource policies like that.
    #[must_use]
    pub fn over(mut self, weaker: &Self) -> Self {
        let said =
            |patterns: &[String], kind: &str| patterns.iter().any(|p| glob::matches(p, kind));
        for (included, excluded, more_in, more_out) in [
            (
                &mut self.namespaced_resources,
                &mut self.not_namespaced_resources,
                &weaker.namespaced_resources,
                &weaker.not_namespaced_resources,
            ),
            (
                &mut self.cluster_resources,
                &mut self.not_cluster_resources,
                &weaker.cluster_resources,
                &weaker.not_cluster_resources,
            ),
        ] {
            for (kinds, out) in [(more_out, true), (more_in, false)] {
                for kind in kinds {
                    if said(included, kind) || said(excluded, kind) {
                        continue;
                    }
                    if out { &mut *excluded } else { &mut *included }.push(kind.clone());
                }
            }
        }
        self
    }

    /// Whether kinds are chosen by the old style's flags, which go with no scoped lists.
    pub fn is_old_style(&self) -> bool {
        !self.resources.is_empty()
            || !self.not_resources.is_empty()
            || self.include_cluster_resources.is_some()
    }

    /// Whether kinds are in that nobody named: no list of kinds to include, or a pattern in it.
    pub fn includes_unnamed_kinds(&self) -> bool {
        let open = |kinds: &[String]| kinds.iter().any(|kind| glob::is_glob(kind));
        if self.is_new_style() {
            self.namespaced_resources.is_empty()
                || open(&self.namespaced_resources)
                || open(&self.cluster_resources)
        } else {
            self.resources.is_empty() || open(&self.resources)
        }
    }

    /// Whether kinds are chosen, and all that are chosen are among these.
    pub fn names_only(&self, kinds: &[String]) -> bool {
        let mut chosen = [
            &self.resources,
            &self.cluster_resources,
            &self.namespaced_resources,
        ]
        .into_iter()
        .flatten()
        .peekable();
        chosen.peek().is_some() && chosen.all(|kind| kinds.contains(kind))
    }

    /// Whether every kind of an API group is left out by name of the group (`*.metrics.k8s.io`), so that nothing is missed when nobody can say which
    /// kinds it has.
    pub fn excludes_group(&self, group: &str) -> bool {
        // No kind has such a name: what matches it matches every kind.
        let every = format!("any kind at all.{group}");
        let covered = |kinds: &[String]| {
            kinds
                .iter()
                .any(|kind| glob::is_glob(kind) && glob::matches(&kind.to_lowercase(), &every))
        };
        covered(&self.not_resources)
            || (covered(&self.not_namespaced_resources) && covered(&self.not_cluster_resources))
    }

    /// Whether kinds are chosen by the scoped lists.
    pub fn is_new_style(&self) -> bool {
        !self.cluster_resources.is_empty()
            || !self.not_cluster_resources.is_empty()
            || !self.namespaced_resources.is_empty()
            || !self.not_namespaced_resources.is_empty()
    }

    fn global(&self, resource: &ApiResource) -> Verdict {
        let is_namespaces = resource.group_resource() == "namespaces";
        if listed(&self.not_resources, resource) {
            return Verdict::Out("exclude-resources");
        }
        if !resource.namespaced && self.include_cluster_resources == Some(false) && !is_namespaces {
            return Verdict::Out("include-cluster-resources=false");
        }
        let included = self.resources.is_empty() || listed(&self.resources, resource);
        if resource.namespaced {
            return if included {
                Verdict::In
            } else {
                Verdict::Out("include-resources")
            };
        }
        // Of a part of the namespaces, only what they refer to comes along, as long as nobody said otherwise.
        let directly = self.include_cluster_resources == Some(true) || self.all_namespaces();
        if included && (directly || is_namespaces) {
            Verdict::In
        } else {
            Verdict::Related
        }
    }

    fn scoped(&self, resource: &ApiResource) -> Verdict {
        if resource.namespaced {
            return if listed(&self.not_namespaced_resources, resource) {
                Verdict::Out("exclude-namespace-scoped-resources")
            } else if self.namespaced_resources.is_empty()
                || listed(&self.namespaced_resources, resource)
            {
                Verdict::In
            } else {
                Verdict::Out("include-namespace-scoped-resources")
            };
        }
        if listed(&self.not_cluster_resources, resource) {
            return Verdict::Out("exclude-cluster-scoped-resources");
        }
        let unfiltered = self.cluster_resources.is_empty()
            && self.not_cluster_resources.is_empty()
            && everything(&self.namespaced_resources, &self.not_namespaced_resources)
            && self.all_namespaces();
        if unfiltered || listed(&self.cluster_resources, resource) {
            Verdict::In
        } else {
            Verdict::Related
        }
    }
}

fn everything(includes: &[String], excludes: &[String]) -> bool {
    excludes.is_empty() && (includes.is_empty() || includes == ["*"])
}

fn listed(patterns: &[String], resource: &ApiResource) -> bool {
    patterns.iter().any(|pattern| is_named(pattern, resource))
}

/// Whether a kind as people write it means this resource.
fn is_named(pattern: &str, resource: &ApiResource) -> bool {
    let pattern = pattern.to_lowercase();
    if glob::is_glob(&pattern) {
        // Short names and kinds would let a pattern reach further than it reads.
        return glob::matches(&pattern, &resource.plural.to_lowercase())
            || glob::matches(&pattern, &resource.group_resource().to_lowercase());
    }
    let mut names = vec![
        resource.plural.to_lowercase(),
        resource.group_resource().to_lowercase(),
        resource.kind.to_lowercase(),
    ];
    if !resource.singular.is_empty() {
        names.push(resource.singular.to_lowercase());
    }
    names.extend(resource.short_names.iter().map(|name| name.to_lowercase()));
    if resource.group.is_empty() {
        names.push(format!("{}.", names[0]));
    } else {
        // `deployment.apps`, `deploy.apps`, `deployments.v1.apps`: kubectl takes them all.
        let group = resource.group.to_lowercase();
        let grouped: Vec<String> = names
            .iter()
            .filter(|name| !name.contains('.'))
            .flat_map(|name| {
                [
                    format!("{name}.{group}"),
                    format!("{name}.{}.{group}", resource.version.to_lowercase()),
                ]
            })
            .collect();
        names.extend(grouped);
    }
    names.contains(&pattern)
}

fn old_style(what: &str, includes: &[String], excludes: &[String]) -> Result<()> {
    if includes.len() > 1 && includes.iter().any(|p| p == "*") {
        return Err(
            Error::invalid(format!("include-{what} holds '*' beside other entries"))
                .hint("give '*' alone, or leave it out"),
        );
    }
    if excludes.iter().any(|p| p == "*") {
        return Err(Error::invalid(format!(
            "exclude-{what} holds '*', which leaves nothing"
        )));
    }
    no_contradiction(what, includes, excludes)
}

fn new_style(what: &str, includes: &[String], excludes: &[String]) -> Result<()> {
    for (side, list) in [("include", includes), ("exclude", excludes)] {
        if list.len() > 1 && list.iter().any(|p| p == "*") {
            return Err(
                Error::invalid(format!("{side}-{what} holds '*' beside other entries"))
                    .hint("give '*' alone, or leave it out"),
            );
        }
    }
    if !includes.is_empty() && excludes.iter().any(|p| p == "*") {
        return Err(Error::invalid(format!(
            "exclude-{what} is '*', so include-{what} can not hold anything"
        )));
    }
    no_contradiction(what, includes, excludes)
}

fn no_contradiction(what: &str, includes: &[String], excludes: &[String]) -> Result<()> {
    match excludes.iter().find(|entry| includes.contains(entry)) {
        Some(both) => Err(Error::invalid(format!(
            "{both:?} is in include-{what} and in exclude-{what}"
        ))),
        None => Ok(()),
    }
}

fn check_namespace(pattern: &str) -> Result<()> {
    glob::check(pattern)?;
    let bare = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fits = !pattern.is_empty()
        && (glob::is_glob(pattern)
            || (pattern.len() <= 63
                && pattern.bytes().all(bare)
                && !pattern.starts_with('-')
                && !pattern.ends_with('-')));
    if fits {
        Ok(())
    } else {
        Err(Error::invalid(format!(
            "{pattern:?} can not be the name of a namespace"
        )))
    }
}

#[cfg(test)]
mod tests;
