//! From what was gathered to what is read: a verdict for every API resource, and the LIST calls of those that are in. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gather::Gathered;
use crate::archive::row::{Outcome, ResourceRow};
use crate::discovery::ApiResource;
use crate::filter::Verdict;

/// Up to so many namespaces are listed one by one; of more, one LIST over all of them is cheaper even where most of it is thrown away.
const FEW_NAMESPACES: usize = 4;

/// Types that hold the same objects under two groups; whichever is seen first is saved.
const SERVED_TWICE: [(&str, [&str; 2]); 5] = [
    ("daemonsets", ["extensions", "apps"]),
    ("deployments", ["extensions", "apps"]),
    ("events", ["", "events.k8s.io"]),
    ("networkpolicies", ["extensions", "networking.k8s.io"]),
    ("replicasets", ["extensions", "apps"]),
];

/// Left out by Velero, and for its reason: without the snapshot's data these are handles to nothing.
const VOLUME_SNAPSHOTS: [&str; 2] = [
    "volumesnapshotcontents.snapshot.storage.k8s.io",
    "volumesnapshots.snapshot.storage.k8s.io",
];

/// Types of which related objects can be found.
pub(super) const RELATED: [&str; 5] = [
    "clusterrolebindings.rbac.authorization.k8s.io",
    "clusterroles.rbac.authorization.k8s.io",
    "customresourcedefinitions.apiextensions.k8s.io",
    "persistentvolumes",
    "priorityclasses.scheduling.k8s.io",
];

/// Where a type is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One LIST over everything; where that is forbidden, in these namespaces, if they are known.
    Everywhere { otherwise: Option<Vec<String>> },
    /// In each of these namespaces.
    In(Vec<String>),
}

/// A type that is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List {
    /// The type.
    pub(super) resource: Arc<ApiResource>,
    /// Where.
    pub(super) scope: Scope,
    /// Read at a revision of its own: events, and what other servers answer.
    pub(super) apart: bool,
}

/// What a backup reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// Types that are listed.
    pub(super) lists: Vec<List>,
    /// Types of which only related objects are read, and the rule that says so.
    pub(super) related: Vec<(Arc<ApiResource>, &'static str)>,
    /// Namespaces, unless a rule leaves them out; and whether all of them are wanted, not only those with content.
    pub(super) namespaces: Option<(Arc<ApiResource>, bool)>,
    /// What is neither: left out by a rule, or known to be out of reach.
    pub(super) rows: Vec<ResourceRow>,
}

impl Plan {
    /// Whether a type is listed.
    pub(super) fn lists(&self, name: &str) -> bool {
        let mut lists = self.lists.iter();
        lists.any(|list| list.resource.group_resource() == name)
    }
}

/// A row with what is known of a type before it is read.
pub(super) fn row(resource: &ApiResource) -> ResourceRow {
    ResourceRow {
        resource: resource.group_resource(),
        version: resource.version.clone(),
        kind: resource.kind.clone(),
        namespaced: resource.namespaced,
        ..ResourceRow::default()
    }
}

/// Decides.
pub(super) fn plan(gathered: &Gathered, single_namespace: bool) -> Plan {
    let mut plan = Plan::default();
    let mut twins: BTreeMap<&str, String> = BTreeMap::new();
    let scope = namespaced_scope(gathered);
    for resource in gathered.served.preferred() {
        let name = resource.group_resource();
        let mut out = |why: String| {
            plan.rows.push(ResourceRow {
                outcome: Outcome::Excluded,
                why,
                ..row(&resource)
            });
        };
        if !resource.can("list") || !resource.can("get") {
            out("not-listable".to_owned());
            continue;
        }
        if !resource.can("create") || !resource.can("delete") {
            out("no-create".to_owned());
            continue;
        }
        if VOLUME_SNAPSHOTS.contains(&name.as_str()) {
            out("volume-snapshots".to_owned());
            continue;
        }
        let mut verdict = gathered.filter.resource(&resource);
        let mut only_related = "related-only";
        if single_namespace && !resource.namespaced && !matches!(verdict, Verdict::Out(_)) {
            verdict = Verdict::Related;
            only_related = "scope";
        }
        if let Verdict::Out(rule) = verdict {
            out(rule.to_owned());
            continue;
        }
        if name == "namespaces" {
            let every = verdict == Verdict::In || single_namespace;
            plan.namespaces = Some((resource, every && gathered.filter.selectors.is_empty()));
            continue;
        }
        if verdict == Verdict::Related {
            if RELATED.contains(&name.as_str()) {
                plan.related.push((resource, only_related));
            } else {
                out(only_related.to_owned());
            }
            continue;
        }
        let twin = SERVED_TWICE.iter().find(|(plural, groups)| {
            *plural == resource.plural && groups.contains(&resource.group.as_str())
        });
        if let Some((plural, _)) = twin {
            if let Some(first) = twins.get(plural) {
                out(format!("served-twice (saved as {first})"));
                continue;
            }
            twins.insert(plural, name.clone());
        }
        let apart = resource.plural == "events"
            || gathered
                .aggregated
                .contains(&format!("{}/{}", resource.group, resource.version));
        plan.lists.push(List {
            scope: if resource.namespaced {
                scope.clone()
            } else {
                Scope::Everywhere { otherwise: None }
            },
            resource,
            apart,
        });
    }
    let every_kind = gathered.filter.includes_unnamed_kinds() || !gathered.unknown_kinds.is_empty();
    for gap in &gathered.served.gaps {
        let (outcome, why) = if gathered.filter.excludes_group(&gap.group) {
            (Outcome::Excluded, "exclude-resources".to_owned())
        } else if every_kind {
            (Outcome::Failed, gap.reason.clone())
        } else {
            (Outcome::Excluded, "include-resources".to_owned())
        };
        let resource = format!("*.{}", gap.group).trim_end_matches('.').to_owned();
        if let Some(same) = plan.rows.iter_mut().find(|row| row.resource == resource) {
            same.version = format!("{}, {}", same.version, gap.version);
            continue;
        }
        plan.rows.push(ResourceRow {
            resource,
            version: gap.version.clone(),
            outcome,
            why,
            ..ResourceRow::default()
        });
    }
    plan
}

fn namespaced_scope(gathered: &Gathered) -> Scope {
    match gathered.wanted_namespaces() {
        None => Scope::Everywhere { otherwise: None },
        Some(wanted) if wanted.len() <= FEW_NAMESPACES => Scope::In(wanted),
        Some(wanted) => Scope::Everywhere {
            otherwise: Some(wanted),
        },
    }
}
