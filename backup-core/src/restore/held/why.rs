//! What is said of a claim that is not brought further, and of a volume that does not become what it was.

use super::api::GOES;
use super::objects::POLICY;
use super::step::{Awaited, RETAIN};
use crate::error::Error;

/// What can be done about one that is refused.
pub(super) fn hint(restore: &str) -> String {
    format!(
        "look at the claim, at its volume and at the events of both; to give up, scale what uses it to 0 and give `kubectl backup restore delete {restore} --force` (and `--give-up-data` where its volume is full)"
    )
}

/// Of a volume whose former policy nobody can tell.
pub(super) fn kept_policy(volume: &str) -> String {
    format!(
        "volume {volume} keeps the reclaim policy {RETAIN}, for somebody removed the annotation {POLICY} with the one that it had: set persistentVolumeReclaimPolicy as it should be"
    )
}

pub(super) fn begun_again() -> Error {
    Error::other("somebody deleted the claim under which it was filled")
        .hint("the same command begins it again")
}

pub(super) fn too_long(awaited: Awaited) -> Error {
    let seconds = GOES.as_secs();
    let what = match awaited {
        Awaited::Provisioned => "no volume was made for it",
        Awaited::Unstaged => "the claim under which it was filled is still there",
        Awaited::Removed => "a volume that is being deleted is still there",
        Awaited::Bound => "it is not bound to its volume, which is full",
    };
    Error::other(format!("after {seconds} s {what}")).hint("the same command goes on with it")
}
