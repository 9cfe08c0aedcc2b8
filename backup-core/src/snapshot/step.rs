//! What is to be done next for one snapshot: decided from the objects that stand at this moment and nothing else. Pure.
//!
//! The order is what protects data. The objects of a snapshot that is kept go only while the content says that the snapshot stays; those of one that is removed only while it says that it
//! goes; and a content goes after its VolumeSnapshot, for by that the sidecar learns that it is meant.

use super::objects::{Content, DELETE, RETAIN, Snapshot, Whose};

/// What stands: the VolumeSnapshot, and the content that is its own, read in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) content: Option<Content>,
    /// A content has the name of its own, and is not.
    pub(crate) is_foreign: bool,
}

/// How far it is brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Its moment has come.
    Cut,
    /// It can be used.
    Ready,
    /// It can be used, and stays when its objects go; whose it is.
    Retained(Whose),
    /// Its objects are gone, and it is there.
    Left,
    /// Its objects are gone, and so is it.
    Removed,
}

/// What changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write on the content that the snapshot stays, and whose it is.
    Retain { content: String, version: String },
    /// Write on the content that the snapshot goes with it.
    Discard { content: String, version: String },
    /// Delete the VolumeSnapshot.
    Unwant { uid: String, version: String },
    /// Tell the sidecar that the content is to go.
    Mark { content: String, version: String },
    /// Delete the content.
    Drop {
        content: String,
        uid: String,
        version: String,
    },
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Cut,
    Ready,
    /// The driver says whether it knows the handle.
    Known,
    /// The VolumeSnapshot is gone.
    Unwanted,
    /// The content is gone.
    Dropped,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Do(Action),
    Wait(Awaited),
    Done,
    /// Nothing is done any more, and why.
    Refuse(&'static str),
}

/// What is to be done for a snapshot of which this stands.
pub(crate) fn step(live: &Live, goal: &Goal) -> Step {
    match goal {
        Goal::Cut => {
            made(live, |snapshot| snapshot.cut.is_some(), Awaited::Cut).unwrap_or(Step::Done)
        }
        Goal::Ready => {
            made(live, |snapshot| snapshot.is_ready, Awaited::Ready).unwrap_or(Step::Done)
        }
        Goal::Retained(whose) => retained(live, whose),
        Goal::Left => left(live),
        Goal::Removed => removed(live),
    }
}

/// What is next as long as it is not that far.
fn made(live: &Live, is_far: impl Fn(&Snapshot) -> bool, awaited: Awaited) -> Option<Step> {
    match &live.snapshot {
        None => Some(Step::Refuse("somebody deleted its VolumeSnapshot")),
        Some(snapshot) if snapshot.is_going => {
            Some(Step::Refuse("somebody deletes its VolumeSnapshot"))
        }
        Some(snapshot) if !is_far(snapshot) => Some(Step::Wait(awaited)),
        Some(_) => None,
    }
}

fn retained(live: &Live, whose: &Whose) -> Step {
    if let Some(step) = made(live, |snapshot| snapshot.is_ready, Awaited::Ready) {
        return step;
    }
    match &live.content {
        None => {
            Step::Refuse("the VolumeSnapshotContent that its VolumeSnapshot names is not its own")
        }
        Some(content) if content.is_going => {
            Step::Refuse("somebody deletes its VolumeSnapshotContent")
        }
        Some(content) if content.handle.is_none() => Step::Wait(Awaited::Ready),
        Some(content) if content.policy != RETAIN || content.whose.as_ref() != Some(whose) => {
            Step::Do(Action::Retain {
                content: content.name.clone(),
                version: content.version.clone(),
            })
        }
        Some(_) => Step::Done,
    }
}

fn left(live: &Live) -> Step {
    match (&live.snapshot, &live.content) {
        (_, Some(content)) if content.policy != RETAIN => {
            Step::Refuse("its VolumeSnapshotContent would take the snapshot along")
        }
        // What was deleted before it was to stay may be going in the storage already.
        (Some(snapshot), Some(content)) if content.is_going && !snapshot.is_going => {
            Step::Refuse("somebody deletes its VolumeSnapshotContent")
        }
        // One that was to get a content by name, and got none, has nothing that could be lost.
        (Some(snapshot), None)
            if !snapshot.is_going && (snapshot.source.is_none() || live.is_foreign) =>
        {
            Step::Refuse("the VolumeSnapshotContent of its VolumeSnapshot is not to be seen")
        }
        _ => gone(live),
    }
}

fn removed(live: &Live) -> Step {
    if let Some(content) = &live.content {
        // Before the driver has answered, the sidecar would let the object go without a word to it.
        let is_asked = content.handle.is_some() || content.is_unknown();
        if content.is_static() && !content.is_going && !is_asked {
            return Step::Wait(Awaited::Known);
        }
        if content.policy != DELETE {
            return Step::Do(Action::Discard {
                content: content.name.clone(),
                version: content.version.clone(),
            });
        }
    }
    gone(live)
}

/// The objects go, the VolumeSnapshot first.
fn gone(live: &Live) -> Step {
    match (&live.snapshot, &live.content) {
        (Some(snapshot), _) if snapshot.is_going => Step::Wait(Awaited::Unwanted),
        (Some(snapshot), _) => Step::Do(Action::Unwant {
            uid: snapshot.uid.clone(),
            version: snapshot.version.clone(),
        }),
        // Bound to nobody, the sidecar needs no word.
        (None, Some(content)) if !content.is_marked && content.of_uid.is_some() => {
            Step::Do(Action::Mark {
                content: content.name.clone(),
                version: content.version.clone(),
            })
        }
        (None, Some(content)) if content.is_going => Step::Wait(Awaited::Dropped),
        (None, Some(content)) => Step::Do(Action::Drop {
            content: content.name.clone(),
            uid: content.uid.clone(),
            version: content.version.clone(),
        }),
        (None, None) => Step::Done,
    }
}
