//! Each state by itself.

use super::*;

mod world;

fn real() -> Real {
    Real {
        uid: "real".into(),
        is_going: false,
        is_ours: true,
        made_for: "pv".into(),
        made_for_uid: "pv-uid".into(),
        volume: "pv".into(),
        was_bound: false,
        is_bound: false,
    }
}

fn staging() -> Staging {
    Staging {
        uid: "staging".into(),
        is_going: false,
        is_ours: true,
        volume: Some("pv".into()),
    }
}

fn volume() -> Volume {
    Volume {
        name: "pv".into(),
        uid: "pv-uid".into(),
        version: "7".into(),
        is_going: false,
        owner: Owner::Staging("staging".into()),
        is_begun: false,
        held_for: None,
        policy: "Delete".into(),
        former: None,
        is_bound: true,
    }
}

/// Full, kept, and noted for the real claim.
fn kept_volume() -> Volume {
    Volume {
        held_for: Some(HeldFor::Ours("real".into())),
        policy: RETAIN.into(),
        former: Some("Delete".into()),
        ..volume()
    }
}

fn live(real: Option<Real>, staging: Option<Staging>, volume: Option<Volume>) -> Live {
    Live {
        real,
        staging,
        volume,
        is_beginning: true,
        ..Live::default()
    }
}

#[track_caller]
fn does(live: &Live, action: Action) {
    assert_eq!(step(live), Step::Do(action), "{live:?}");
}

#[track_caller]
fn waits(live: &Live, awaited: Awaited) {
    assert_eq!(step(live), Step::Wait(awaited), "{live:?}");
}

#[track_caller]
fn refuses(live: &Live, part: &str) {
    match step(live) {
        Step::Refuse(why) => assert!(why.contains(part), "{why}"),
        other => panic!("{other:?}: {live:?}"),
    }
}

fn drop_it() -> Action {
    Action::Drop { uid: "real".into() }
}

#[test]
fn the_way_of_a_claim_when_nothing_comes_between() {
    does(&Live::default(), Action::Stage);
    let unbound = Staging {
        volume: None,
        ..staging()
    };
    waits(&live(None, Some(unbound), None), Awaited::Provisioned);
    let hold = Action::Hold {
        volume: "pv".into(),
    };
    does(&live(None, Some(staging()), Some(volume())), hold);
    let mut now = live(Some(real()), Some(staging()), Some(volume()));
    now.has_mover = true;
    does(&now, Action::Fill);
    now.is_filled = true;
    let retain = Action::Retain {
        volume: "pv".into(),
        version: "7".into(),
        real: "real".into(),
        note: Some("Delete".into()),
    };
    does(&now, retain);
    now.volume = Some(kept_volume());
    does(&now, Action::Leave);
    now.has_mover = false;
    let unstage = Action::Unstage {
        uid: "staging".into(),
    };
    does(&now, unstage);
    now.staging = Some(Staging {
        is_going: true,
        ..staging()
    });
    waits(&now, Awaited::Unstaged);
    now.staging = None;
    let bind = Action::Bind {
        volume: "pv".into(),
        version: "7".into(),
        real: "real".into(),
    };
    does(&now, bind);
    let mut bound = Volume {
        owner: Owner::Real,
        is_bound: false,
        ..kept_volume()
    };
    now.volume = Some(bound.clone());
    waits(&now, Awaited::Bound);
    bound.is_bound = true;
    now.volume = Some(bound.clone());
    waits(&now, Awaited::Bound);
    now.real = Some(Real {
        is_bound: true,
        was_bound: true,
        ..real()
    });
    let put_back = Action::PutBack {
        volume: "pv".into(),
        version: "7".into(),
        former: Some("Delete".into()),
    };
    does(&now, put_back);
    now.volume = Some(Volume {
        held_for: None,
        former: None,
        ..bound
    });
    assert_eq!(step(&now), Step::Done);
}

#[test]
fn that_a_volume_was_filled_is_concluded_from_nothing_but_what_is_written_on_it() {
    // A dead run had filled it, and did not come to write that down.
    let now = live(Some(real()), Some(staging()), Some(volume()));
    does(&now, Action::Fill);
    // Its staging claim went: what it holds is not known, and the claim that names it is made anew.
    does(&live(Some(real()), None, Some(volume())), drop_it());
    // Noted without a uid, or kept without a note: neither says so.
    let retained = Volume {
        policy: RETAIN.into(),
        former: Some("Delete".into()),
        ..volume()
    };
    does(
        &live(Some(real()), Some(staging()), Some(retained)),
        Action::Fill,
    );
}

#[test]
fn a_policy_that_is_noted_is_not_noted_again() {
    let mut now = live(Some(real()), Some(staging()), Some(kept_volume()));
    let changed = Volume {
        policy: "Delete".into(),
        former: Some("Recycle".into()),
        ..kept_volume()
    };
    now.volume = Some(changed);
    let Step::Do(Action::Retain { note, .. }) = step(&now) else {
        panic!("{:?}", step(&now));
    };
    assert_eq!(note, None);
}

#[test]
fn a_claim_that_was_never_bound_and_whose_volume_is_gone_is_begun_again() {
    does(&live(Some(real()), None, None), drop_it());
    does(&live(Some(real()), Some(staging()), None), drop_it());
    let unnamed = Real {
        volume: String::new(),
        ..real()
    };
    does(
        &live(Some(unnamed), Some(staging()), Some(volume())),
        drop_it(),
    );
    let was = Real {
        was_bound: true,
        ..real()
    };
    refuses(&live(Some(was.clone()), None, None), "is gone");
    let going = Volume {
        is_going: true,
        ..volume()
    };
    refuses(
        &live(Some(was), Some(staging()), Some(going.clone())),
        "being deleted",
    );
    waits(
        &live(Some(real()), Some(staging()), Some(going.clone())),
        Awaited::Removed,
    );
    let unstage = Action::Unstage {
        uid: "staging".into(),
    };
    does(&live(None, Some(staging()), Some(going)), unstage.clone());
    does(&live(None, Some(staging()), None), unstage);
}

#[test]
fn a_claim_is_not_begun_again_where_what_uses_it_may_be_there() {
    let unnamed = Real {
        volume: String::new(),
        ..real()
    };
    for mut now in [
        live(Some(real()), None, None),
        live(Some(real()), Some(staging()), None),
        live(Some(real()), None, Some(volume())),
        live(Some(unnamed), Some(staging()), Some(volume())),
    ] {
        does(&now, drop_it());
        now.is_beginning = false;
        refuses(&now, "scale its workload to 0 first");
    }
}

#[test]
fn a_claim_that_names_another_volume_than_it_was_made_for_is_named_though_it_is_bound() {
    let bound = Real {
        volume: "empty".into(),
        was_bound: true,
        is_bound: true,
        ..real()
    };
    let empty = Volume {
        name: "empty".into(),
        owner: Owner::Real,
        ..volume()
    };
    let mut now = live(Some(bound.clone()), None, Some(empty));
    refuses(&now, "made for volume pv and names empty");
    now.real = Some(Real {
        made_for: "empty".into(),
        ..bound
    });
    assert_eq!(step(&now), Step::Done);
}

#[test]
fn a_claim_is_not_told_as_done_by_another_volume_of_that_name_or_one_that_was_not_full() {
    let bound = Real {
        was_bound: true,
        is_bound: true,
        ..real()
    };
    let its = Volume {
        owner: Owner::Real,
        ..volume()
    };
    let of = |volume| live(Some(bound.clone()), None, Some(volume));
    assert_eq!(step(&of(its.clone())), Step::Done);
    let again = Volume {
        uid: "made by somebody".into(),
        ..its.clone()
    };
    refuses(&of(again), "has uid made by somebody now");
    let part = Volume {
        is_begun: true,
        ..its
    };
    refuses(&of(part), "begun and not full");
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let foreign = Real {
        is_ours: false,
        ..real()
    };
    refuses(&live(Some(foreign), None, None), "not this restore's");
    let going = Real {
        is_going: true,
        ..real()
    };
    refuses(
        &live(Some(going), Some(staging()), Some(volume())),
        "being deleted",
    );
    let other = Staging {
        is_ours: false,
        ..staging()
    };
    refuses(&live(None, Some(other.clone()), None), "another snapshot");
    refuses(
        &live(Some(real()), Some(other), Some(volume())),
        "another one",
    );
    let again = Staging {
        uid: "made by somebody".into(),
        ..staging()
    };
    refuses(
        &live(Some(real()), Some(again.clone()), Some(volume())),
        "another one",
    );
    refuses(
        &live(Some(real()), Some(again), Some(kept_volume())),
        "another one",
    );
    for owner in [Owner::Nobody, Owner::Other("claim n/x".into())] {
        let taken = Volume {
            owner: owner.clone(),
            ..kept_volume()
        };
        refuses(&live(Some(real()), None, Some(taken)), "volume pv");
        let taken = Volume { owner, ..volume() };
        refuses(&live(None, Some(staging()), Some(taken)), "another claim's");
    }
}

#[test]
fn a_volume_that_is_kept_for_another_claim_is_not_given_away() {
    let before = Volume {
        held_for: Some(HeldFor::Ours("the one before".into())),
        ..kept_volume()
    };
    let odd = Volume {
        held_for: Some(HeldFor::Other("another restore".into())),
        ..kept_volume()
    };
    for volume in [before, odd] {
        for staging in [None, Some(staging())] {
            refuses(
                &live(Some(real()), staging, Some(volume.clone())),
                "kept for",
            );
        }
        refuses(
            &live(None, Some(staging()), Some(volume)),
            "kept for a claim",
        );
    }
}

#[test]
fn no_other_volume_is_filled_beside_one_whose_claims_are_both_gone() {
    let now = Live {
        kept: Some("pv".into()),
        ..Live::default()
    };
    refuses(&now, "volume pv holds its data");
    // What is under way is not hindered by it.
    let mut now = live(Some(real()), Some(staging()), Some(volume()));
    now.kept = Some("before".into());
    does(&now, Action::Fill);
}

#[test]
fn whoever_mounts_the_staging_claim_goes_before_anything_is_believed_of_it() {
    let mut now = live(Some(real()), Some(staging()), Some(volume()));
    now.strangers = 1;
    does(&now, Action::Evict);
    now.is_filled = true;
    does(&now, Action::Evict);
    now.volume = Some(kept_volume());
    does(&now, Action::Evict);
    now.has_mover = true;
    does(&now, Action::Leave);
    // A claim that is mounted does not go.
    let mut going = live(
        None,
        Some(Staging {
            is_going: true,
            ..staging()
        }),
        Some(volume()),
    );
    going.strangers = 2;
    does(&going, Action::Evict);
    going.real = Some(real());
    does(&going, Action::Evict);
    going.strangers = 0;
    waits(&going, Awaited::Unstaged);
}
