//! Snapshots of volumes in their own storage, through snapshot.storage.k8s.io/v1: made, kept without any object, paired with objects for a restore, removed. What is
//! promised, and what is left when a run dies, is in docs/snapshots.md.
//!
//! [`class`] says by what one is made, [`objects`] how objects are written and read, [`step`] what is next (pure); [`drive`] does that. [`cut`] makes one for a backup, [`pair`]
//! brings one to a claim of a restore, [`expire`] removes one by its handle. [`inventory`] is what a location knows of them: [`left`] sees to those of dead runs, [`heirs`] to those of
//! backups that go, by what is [`known`] of these. Nothing here prints, and nothing decides which claims these are.

pub(crate) mod class;
pub(crate) mod cut;
pub(crate) mod drive;
pub(crate) mod expire;
pub mod heirs;
pub(crate) mod inventory;
pub mod known;
pub(crate) mod left;
pub(crate) mod objects;
pub(crate) mod pair;
pub(crate) mod rights;
mod step;
#[cfg(test)]
pub(crate) mod storage;
#[cfg(test)]
mod tests;

/// The API, as its objects name it.
pub(crate) const API: &str = "snapshot.storage.k8s.io/v1";
