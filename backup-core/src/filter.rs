//! Which objects are in: namespaces, kinds, labels, cluster scope, with Velero's semantics. Pure.

use std::collections::BTreeMap;

use crate::api::LabelSelector;
use crate::discovery::ApiResource;
use crate::error::Result;

/// A label selector, parsed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(pub LabelSelector);

impl Selector {
    /// Parses kubectl's syntax: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// `Invalid`, naming the position.
    pub fn parse(text: &str) -> Result<Self> {
        let _ = text;
        todo!()
    }

    /// Velero's `--or-selector`: selectors joined by ` or `.
    ///
    /// # Errors
    /// As [`Selector::parse`].
    pub fn parse_any(text: &str) -> Result<Vec<Self>> {
        let _ = text;
        todo!()
    }

    /// Whether these labels match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let _ = labels;
        todo!()
    }

    /// As the `labelSelector` parameter of a LIST.
    pub fn to_query(&self) -> String {
        todo!()
    }
}

/// What was asked for, of a backup or of a restore.
#[derive(Clone, Debug, Default)]
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

impl Filter {
    /// Refuses what can not be meant, such as old and new style together.
    ///
    /// # Errors
    /// `Invalid`.
    pub fn validate(&self) -> Result<()> {
        todo!()
    }

    /// Whether every namespace is in.
    pub fn all_namespaces(&self) -> bool {
        todo!()
    }

    /// Whether objects of this namespace are in.
    pub fn namespace(&self, namespace: &str) -> bool {
        let _ = namespace;
        todo!()
    }

    /// What the rules say of an API resource.
    pub fn resource(&self, resource: &ApiResource) -> Verdict {
        let _ = resource;
        todo!()
    }

    /// Whether labels match (no selector matches everything).
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let _ = labels;
        todo!()
    }
}
