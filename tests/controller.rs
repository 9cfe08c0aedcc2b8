//! The controller serves Velero's API: the unchanged `velero` command and Velero's own YAML work against it.

mod backups;
mod beside;
mod commands;
mod definitions;
mod deletions;
mod edited;
mod expiry;
mod handed;
pub(crate) mod installed;
mod keeping;
mod killed;
mod kkp;
mod locations;
mod outage;
mod repositories;
mod restores;
mod schedules;
mod sealed;

pub(crate) use harness::served::{NAMESPACE, PATIENT, Served};

/// Where a check of a location has its files, which it takes away again.
const PROBES: &str = "/plugins/kubectl-backup/probes/";

/// The smallest application: a namespace and what is in it.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: shop, labels: {app: web}}
data: {a: b}
";
