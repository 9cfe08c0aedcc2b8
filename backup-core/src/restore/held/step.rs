//! What is to be done next for one held claim: decided from what stands in the cluster at this moment and nothing else, so that a run that was killed anywhere is
//! gone on with by the same rules. Pure.
//!
//! The order is what protects the data. A volume is filled under a claim that no workload knows; it is kept (policy Retain) before that claim goes; it is given to the
//! real claim by its uid; and only a volume that is seen bound gets its former policy back. That it was filled is known of this very run, or by what was written
//! on the volume with the policy: it is never concluded from anything else.

#[cfg(test)]
mod tests;

/// The claim of the restored workload, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Real {
    pub(in super::super) uid: String,
    /// It is being deleted.
    pub(in super::super) is_going: bool,
    /// This restore made it for this snapshot, and says for which volume.
    pub(in super::super) is_ours: bool,
    /// The volume that this restore had it name when it made it.
    pub(in super::super) made_for: String,
    /// Its uid.
    pub(in super::super) made_for_uid: String,
    /// The volume that it names; empty where it names none.
    pub(in super::super) volume: String,
    /// It was bound at some time.
    pub(in super::super) was_bound: bool,
    /// It is bound now.
    pub(in super::super) is_bound: bool,
}

/// The claim under which the volume is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Staging {
    pub(in super::super) uid: String,
    pub(in super::super) is_going: bool,
    /// Of this restore, this claim and this snapshot.
    pub(in super::super) is_ours: bool,
    /// The volume that it is bound to.
    pub(in super::super) volume: Option<String>,
}

/// Whose a volume is by its reference to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Owner {
    /// The real claim's, by its uid.
    Real,
    /// That of the staging claim's name, with this uid.
    Staging(String),
    /// Nobody's.
    Nobody,
    /// Another claim's, in words.
    Other(String),
}

/// What is written on a volume that was filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum HeldFor {
    /// This restore, this claim and this snapshot; with the uid that the real claim had.
    Ours(String),
    /// Something else.
    Other(String),
}

/// The volume: the one that the real claim names, else the one that the staging claim is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Volume {
    pub(in super::super) name: String,
    pub(in super::super) uid: String,
    /// The revision that was read: what is written goes by it.
    pub(in super::super) version: String,
    pub(in super::super) is_going: bool,
    pub(in super::super) owner: Owner,
    /// It says who began to fill it, which goes when it is handed over.
    pub(in super::super) is_begun: bool,
    pub(in super::super) held_for: Option<HeldFor>,
    /// What becomes of it when its claim goes.
    pub(in super::super) policy: String,
    /// The policy that it had before it was to be kept, as it is written there.
    pub(in super::super) former: Option<String>,
    pub(in super::super) is_bound: bool,
}

/// Everything that stands, read in this order: staging claim, volume, real claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Live {
    pub(in super::super) real: Option<Real>,
    pub(in super::super) staging: Option<Staging>,
    pub(in super::super) volume: Option<Volume>,
    /// Another volume that an earlier run filled and kept for a claim of this name that is gone.
    pub(in super::super) kept: Option<String>,
    /// Pods that mount the staging claim and are not this run's mover.
    pub(in super::super) strangers: usize,
    /// This run's mover has it mounted, or may have.
    pub(in super::super) has_mover: bool,
    /// Claims are being made: this run has made nothing yet that may use them.
    pub(in super::super) is_beginning: bool,
    /// This run has filled the volume of the staging claim that stands, and seen that it is whole.
    pub(in super::super) is_filled: bool,
}

/// What changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Action {
    /// Make the staging claim.
    Stage,
    /// Make the real claim, which names this volume.
    Hold { volume: String },
    /// Delete the real claim, which was never bound and never will be, unless a pod names it.
    Drop { uid: String },
    /// Bring the data into the staging claim's volume, and look that it is whole.
    Fill,
    /// Delete the pods that mount the staging claim and are none of this run's.
    Evict,
    /// Keep the volume whatever becomes of its claim, and write on it for whom.
    Retain {
        volume: String,
        version: String,
        real: String,
        /// The policy that is noted, where none is.
        note: Option<String>,
    },
    /// Remove this run's mover.
    Leave,
    /// Delete the staging claim.
    Unstage { uid: String },
    /// Give the volume to the real claim.
    Bind {
        volume: String,
        version: String,
        real: String,
    },
    /// Give the volume its former policy back, where it is known, and take away what was written on it.
    PutBack {
        volume: String,
        version: String,
        former: Option<String>,
    },
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Awaited {
    /// The staging claim gets a volume; where its class waits for a pod, the mover is that.
    Provisioned,
    /// The staging claim is gone.
    Unstaged,
    /// The volume that is being deleted is gone.
    Removed,
    /// Volume and real claim are bound to each other.
    Bound,
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Step {
    Do(Action),
    Wait(Awaited),
    /// The claim is bound to its data, and nothing is left behind.
    Done,
    /// Nothing is done any more, and why.
    Refuse(String),
}

fn refuse(why: impl Into<String>) -> Step {
    Step::Refuse(why.into())
}

/// What is to be done for a claim of which this stands.
pub(in super::super) fn step(live: &Live) -> Step {
    match &live.real {
        Some(real) => of_held(real, live),
        None => of_none(live),
    }
}

/// The real claim is not there yet.
fn of_none(live: &Live) -> Step {
    let Some(staging) = &live.staging else {
        return match &live.kept {
            Some(volume) => refuse(kept(volume)),
            None => Step::Do(Action::Stage),
        };
    };
    if !staging.is_ours {
        return refuse(
            "the claim under which it is filled is another restore's, or of another snapshot",
        );
    }
    if staging.is_going {
        return empty(live).unwrap_or(Step::Wait(Awaited::Unstaged));
    }
    let Some(bound) = &staging.volume else {
        return Step::Wait(Awaited::Provisioned);
    };
    let again = Step::Do(Action::Unstage {
        uid: staging.uid.clone(),
    });
    let Some(volume) = live.volume.as_ref().filter(|volume| !volume.is_going) else {
        // Nobody has used it yet.
        return empty(live).unwrap_or(again);
    };
    match (&volume.owner, &volume.held_for) {
        (Owner::Staging(uid), None) if *uid == staging.uid => Step::Do(Action::Hold {
            volume: bound.clone(),
        }),
        (_, Some(_)) => refuse(kept(&volume.name)),
        _ => refuse(format!("volume {} is another claim's", volume.name)),
    }
}

/// The volume is full, and whom it is for is gone or is another one now.
fn kept(volume: &str) -> String {
    format!(
        "volume {volume} holds its data and is kept for a claim of this name that is gone; it is bound to no other one by itself, and no other is filled beside it"
    )
}

/// Nobody has the staging claim mounted any more: that first, for it can not go before.
fn empty(live: &Live) -> Option<Step> {
    if live.has_mover {
        return Some(Step::Do(Action::Leave));
    }
    (live.strangers > 0).then_some(Step::Do(Action::Evict))
}

/// The real claim stands.
fn of_held(real: &Real, live: &Live) -> Step {
    if !real.is_ours {
        return refuse("it stands and is not this restore's: no data is written into it");
    }
    if real.is_going {
        return refuse("it is being deleted");
    }
    // What makes pods with a claim of that name makes an empty one, too, as soon as there is none.
    let begin_again = match live.is_beginning {
        true => Step::Do(Action::Drop {
            uid: real.uid.clone(),
        }),
        false => refuse(format!(
            "its volume is gone before it was full, and it is not made anew while what may use it is there: {SCALE}"
        )),
    };
    if real.volume.is_empty() {
        return match real.was_bound {
            true => refuse("it was bound to a volume that it does not name"),
            false => begin_again,
        };
    }
    // Somebody took the name away while it was made, and the cluster gave it what it had: an empty one.
    if real.volume != real.made_for {
        return refuse(format!(
            "it was made for volume {} and names {}, which does not hold its data: an admission rule of the cluster changes claims, and has to leave spec.volumeName alone",
            real.made_for, real.volume
        ));
    }
    let Some(volume) = &live.volume else {
        return match real.was_bound {
            true => refuse(format!("its volume {} is gone", real.volume)),
            false => begin_again,
        };
    };
    if volume.uid != real.made_for_uid {
        return refuse(format!(
            "it was made for volume {} with uid {}, and the one of that name has uid {} now: whether that holds its data is not known",
            volume.name, real.made_for_uid, volume.uid
        ));
    }
    if volume.is_going {
        return match real.was_bound {
            true => refuse(format!("its volume {} is being deleted", volume.name)),
            false => empty(live).unwrap_or(Step::Wait(Awaited::Removed)),
        };
    }
    match &volume.held_for {
        Some(HeldFor::Ours(uid)) if *uid != real.uid => return refuse(kept(&volume.name)),
        Some(HeldFor::Other(whom)) => {
            return refuse(format!("volume {} is kept for {whom}", volume.name));
        }
        _ => {}
    }
    match &volume.owner {
        Owner::Real if !(real.is_bound && volume.is_bound) => Step::Wait(Awaited::Bound),
        Owner::Real if volume.held_for.is_none() && volume.is_begun => refuse(format!(
            "it is bound to volume {}, which was begun and not full: somebody changed that volume's claimRef",
            volume.name
        )),
        Owner::Real if volume.held_for.is_none() => Step::Done,
        Owner::Real => Step::Do(Action::PutBack {
            volume: volume.name.clone(),
            version: volume.version.clone(),
            former: volume.former.clone(),
        }),
        Owner::Staging(uid) if volume.held_for.is_some() => full(real, volume, uid, live),
        Owner::Staging(uid) => unfilled(real, volume, uid, live, begin_again),
        Owner::Nobody => refuse(format!(
            "somebody took volume {} from the claim under which it was filled",
            volume.name
        )),
        Owner::Other(whom) => refuse(format!("volume {} is promised to {whom}", volume.name)),
    }
}

/// The volume is still the staging claim's, and nothing says that it was filled.
fn unfilled(real: &Real, volume: &Volume, of: &str, live: &Live, begin_again: Step) -> Step {
    match &live.staging {
        // What it holds is not known, and it can not be mounted any more.
        None if real.was_bound => refuse("its volume was taken from it"),
        None => begin_again,
        Some(staging) if staging.uid != of || !staging.is_ours => refuse(
            "the claim under which it is filled is another one than the one that has its volume",
        ),
        Some(staging) if staging.is_going => empty(live).unwrap_or(Step::Wait(Awaited::Unstaged)),
        // Whoever mounted it may have written to it.
        Some(_) if live.strangers > 0 => Step::Do(Action::Evict),
        Some(_) if !live.is_filled => Step::Do(Action::Fill),
        Some(_) => Step::Do(retain(real, volume)),
    }
}

fn retain(real: &Real, volume: &Volume) -> Action {
    Action::Retain {
        volume: volume.name.clone(),
        version: volume.version.clone(),
        real: real.uid.clone(),
        note: volume.former.is_none().then(|| volume.policy.clone()),
    }
}

/// The volume is full and still the staging claim's.
fn full(real: &Real, volume: &Volume, of: &str, live: &Live) -> Step {
    if volume.policy != RETAIN {
        return Step::Do(retain(real, volume));
    }
    if let Some(step) = empty(live) {
        return step;
    }
    match &live.staging {
        Some(staging) if staging.uid != of => refuse(
            "the claim under which it was filled is another one than the one that has its volume",
        ),
        Some(staging) if staging.is_going => Step::Wait(Awaited::Unstaged),
        Some(staging) => Step::Do(Action::Unstage {
            uid: staging.uid.clone(),
        }),
        None => Step::Do(Action::Bind {
            volume: volume.name.clone(),
            version: volume.version.clone(),
            real: real.uid.clone(),
        }),
    }
}

/// How a claim is begun again.
pub(in super::super) const SCALE: &str =
    "scale its workload to 0 first, then the same restore again";

/// The policy of a volume that stays when its claim goes.
pub(in super::super) const RETAIN: &str = "Retain";
