//! The controller serves Velero's API: the unchanged `velero` command and Velero's own YAML work against it.

mod backups;
mod beside;
mod commands;
mod definitions;
mod deletions;
mod edited;
mod expiry;
mod handed;
mod installed;
mod keeping;
mod killed;
mod kkp;
mod locations;
mod outage;
mod restores;
mod schedules;

pub(crate) use harness::served::{NAMESPACE, PATIENT, Served};
