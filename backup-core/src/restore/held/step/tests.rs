//! Each state by itself, and a small cluster in which everything may happen between a look and what follows from it.

use std::collections::BTreeMap;

use super::*;

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

/// What a volume holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    Empty,
    Part,
    Whole,
}

#[derive(Clone, Debug)]
struct Disk {
    version: u64,
    /// The claim's uid; nothing where it is nobody's.
    owner: Option<String>,
    /// Who wrote it down, and for which real claim.
    held_for: Option<String>,
    policy: &'static str,
    former: Option<&'static str>,
    is_bound: bool,
    data: Data,
    /// The run that began to fill it last.
    filling: u64,
}

impl Disk {
    fn empty(owner: String, class: &'static str) -> Self {
        Self {
            version: 1,
            owner: Some(owner),
            held_for: None,
            policy: class,
            former: None,
            is_bound: true,
            data: Data::Empty,
            filling: 0,
        }
    }
}

/// A cluster with one claim on its way.
#[derive(Clone, Debug)]
struct World {
    real: Option<Real>,
    staging: Option<Staging>,
    disks: BTreeMap<String, Disk>,
    class: &'static str,
    mover: bool,
    strangers: usize,
    /// Claims are being made; afterwards pods use them.
    is_beginning: bool,
    /// One of them was killed while it filled, and may write on.
    writes: bool,
    /// The next filling is cut.
    is_cut: bool,
    /// An admission rule takes the volume's name from claims.
    strips: bool,
    made: u64,
    /// The run at work.
    run: u64,
    /// What this run knows it has filled: the staging claim's uid.
    filled: Option<String>,
    trace: Vec<String>,
}

/// Numbers that are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

impl World {
    fn new(class: &'static str) -> Self {
        Self {
            real: None,
            staging: None,
            disks: BTreeMap::new(),
            class,
            mover: false,
            strangers: 0,
            is_beginning: true,
            writes: false,
            is_cut: false,
            strips: false,
            made: 0,
            run: 1,
            filled: None,
            trace: Vec::new(),
        }
    }

    fn uid(&mut self, of: &str) -> String {
        self.made += 1;
        format!("{of}-{}", self.made)
    }

    fn look(&self) -> Live {
        let named = self.real.as_ref().map(|real| real.volume.clone());
        let of_staging = self.staging.as_ref().and_then(|one| one.volume.clone());
        let name = named.filter(|name| !name.is_empty()).or(of_staging);
        let volume = name.and_then(|name| {
            let disk = self.disks.get(&name)?;
            let real = self.real.as_ref().map(|real| real.uid.clone());
            Some(Volume {
                version: disk.version.to_string(),
                is_going: false,
                owner: match &disk.owner {
                    None => Owner::Nobody,
                    owner if *owner == real => Owner::Real,
                    Some(uid) if uid.starts_with("staging") => Owner::Staging(uid.clone()),
                    Some(uid) => Owner::Other(uid.clone()),
                },
                held_for: disk.held_for.clone().map(HeldFor::Ours),
                policy: disk.policy.to_owned(),
                former: disk.former.map(str::to_owned),
                is_bound: disk.is_bound,
                uid: format!("{name}-uid"),
                is_begun: disk.filling > 0,
                name,
            })
        });
        let kept = self.disks.iter().find(|(_, disk)| {
            let real = self.real.as_ref().map(|real| &real.uid);
            disk.held_for.is_some() && disk.held_for.as_ref() != real
        });
        Live {
            kept: kept.map(|(name, _)| name.clone()),
            real: self.real.clone(),
            staging: self.staging.clone(),
            volume,
            strangers: self.strangers,
            has_mover: self.mover,
            is_beginning: self.is_beginning,
            is_filled: self.filled.is_some()
                && self.filled.as_ref() == self.staging.as_ref().map(|one| &one.uid)
                && self.is_filling(),
        }
    }

    /// No other run began to fill the staging claim's volume since this one.
    fn is_filling(&self) -> bool {
        let volume = self.staging.as_ref().and_then(|one| one.volume.as_ref());
        let disk = volume.and_then(|name| self.disks.get(name));
        disk.is_some_and(|disk| disk.filling == self.run)
    }

    /// What the cluster's own controllers do, each at its own time.
    fn controllers(&mut self, chance: &mut Chance) {
        for _ in 0..chance.below(6) {
            match chance.below(5) {
                0 => self.provision(),
                1 => self.protect(),
                2 => self.release(),
                3 => self.bind(),
                // Who was at work there may write until it is gone.
                _ => {
                    if self.writes
                        && let Some(name) = self.staging.as_ref().and_then(|s| s.volume.clone())
                        && let Some(disk) = self.disks.get_mut(&name)
                    {
                        disk.data = Data::Part;
                    }
                }
            }
        }
    }

    fn provision(&mut self) {
        let waits = matches!(&self.staging, Some(one) if one.volume.is_none() && !one.is_going);
        if !waits || !(self.mover || self.strangers > 0) {
            return;
        }
        let name = self.uid("pv");
        let staging = self.staging.as_mut().unwrap();
        staging.volume = Some(name.clone());
        let disk = Disk::empty(staging.uid.clone(), self.class);
        self.disks.insert(name, disk);
    }

    fn protect(&mut self) {
        let is_going = self.staging.as_ref().is_some_and(|one| one.is_going);
        if is_going && !self.mover && self.strangers == 0 {
            self.staging = None;
        }
        if self.real.as_ref().is_some_and(|one| one.is_going) {
            self.real = None;
        }
    }

    fn release(&mut self) {
        let there: Vec<String> = [
            self.staging.as_ref().map(|one| one.uid.clone()),
            self.real.as_ref().map(|one| one.uid.clone()),
        ]
        .into_iter()
        .flatten()
        .collect();
        for disk in self.disks.values_mut() {
            let is_left = disk.owner.as_ref().is_some_and(|uid| !there.contains(uid));
            if is_left && disk.is_bound {
                disk.is_bound = false;
                disk.version += 1;
            }
        }
        self.disks.retain(|_, disk| {
            let is_left = disk.owner.as_ref().is_some_and(|uid| !there.contains(uid));
            !(is_left && !disk.is_bound && disk.policy == "Delete")
        });
    }

    /// A claim that names no volume gets an empty one, of a class that binds at once.
    fn provision_real(&mut self) {
        let Some(real) = self.real.as_ref().filter(|real| real.volume.is_empty()) else {
            return;
        };
        let owner = real.uid.clone();
        let name = self.uid("pv");
        self.disks
            .insert(name.clone(), Disk::empty(owner, self.class));
        self.real.as_mut().unwrap().volume = name;
    }

    fn bind(&mut self) {
        self.provision_real();
        let Some(real) = &mut self.real else { return };
        let Some(disk) = self.disks.get_mut(&real.volume) else {
            return;
        };
        if disk.owner.as_ref() == Some(&real.uid) {
            if !disk.is_bound {
                disk.is_bound = true;
                disk.version += 1;
            }
            (real.is_bound, real.was_bound) = (true, true);
        }
    }

    /// Does what was decided upon an earlier look, as a server would: by the uids and revisions that were seen then.
    fn act(&mut self, action: &Action) {
        match action {
            Action::Stage if self.staging.is_none() => {
                let uid = self.uid("staging");
                self.staging = Some(Staging {
                    uid,
                    volume: None,
                    ..staging()
                });
            }
            Action::Hold { volume } if self.real.is_none() => {
                let uid = self.uid("real");
                self.real = Some(Real {
                    uid,
                    made_for: volume.clone(),
                    made_for_uid: format!("{volume}-uid"),
                    volume: match self.strips {
                        true => String::new(),
                        false => volume.clone(),
                    },
                    ..real()
                });
            }
            Action::Drop { uid } => {
                if let Some(real) = self.real.as_mut().filter(|real| real.uid == *uid) {
                    assert!(!real.was_bound, "a claim that was bound is deleted");
                    assert!(self.is_beginning, "a claim that pods use is deleted");
                    real.is_going = true;
                }
            }
            Action::Fill => {
                self.mover = true;
                let whole = self.strangers == 0;
                let staging = self.staging.as_ref().filter(|one| !one.is_going);
                let name = staging.and_then(|one| one.volume.clone());
                if let Some(disk) = name.and_then(|name| self.disks.get_mut(&name)) {
                    // That it begins is written down before it does.
                    (disk.filling, disk.version) = (self.run, disk.version + 1);
                    if whole && !self.is_cut {
                        disk.data = Data::Whole;
                        self.filled = self.staging.as_ref().map(|one| one.uid.clone());
                    } else {
                        disk.data = Data::Part;
                    }
                }
                if std::mem::take(&mut self.is_cut) {
                    self.writes = true;
                    self.crash();
                }
            }
            Action::Evict => (self.strangers, self.writes, self.filled) = (0, false, None),
            Action::Leave => self.mover = false,
            Action::Unstage { uid } => {
                if let Some(staging) = self.staging.as_mut().filter(|one| one.uid == *uid) {
                    staging.is_going = true;
                }
            }
            Action::Retain {
                volume,
                version,
                real,
                note,
            } => {
                let class = self.class;
                if let Some(disk) = self.changed(volume, version) {
                    disk.policy = RETAIN;
                    disk.held_for = Some(real.clone());
                    if let Some(note) = note {
                        assert_eq!(*note, class, "the policy that is noted is the class's");
                        disk.former = Some(class);
                    }
                }
            }
            Action::Bind {
                volume,
                version,
                real,
            } => {
                if let Some(disk) = self.changed(volume, version) {
                    disk.owner = Some(real.clone());
                }
            }
            Action::PutBack {
                volume,
                version,
                former,
            } => {
                let class = self.class;
                if let Some(disk) = self.changed(volume, version) {
                    assert_eq!(former.as_deref(), Some(class));
                    disk.policy = class;
                    (disk.held_for, disk.former, disk.filling) = (None, None, 0);
                }
            }
            Action::Stage | Action::Hold { .. } => {}
        }
    }

    fn changed(&mut self, volume: &str, version: &str) -> Option<&mut Disk> {
        let disk = self.disks.get_mut(volume)?;
        if disk.version.to_string() != version {
            return None;
        }
        disk.version += 1;
        Some(disk)
    }

    /// What must hold whatever happens.
    fn check(&self) {
        // What the cluster made for a claim that lost the name of its volume is its own doing.
        let is_named = |real: &&Real| real.is_bound && real.volume == real.made_for;
        if let Some(real) = self.real.as_ref().filter(is_named) {
            let data = self.disks.get(&real.volume).map(|disk| disk.data);
            assert_eq!(data, Some(Data::Whole), "bound without its data: {self:#?}");
        }
    }

    /// The run is killed: what it knew is gone, and its mover is nobody's.
    fn crash(&mut self) {
        self.filled = None;
        self.run += 1;
        self.is_beginning = true;
        self.strangers += usize::from(std::mem::take(&mut self.mover));
        self.trace.push("killed".into());
    }

    /// One turn of a run; whether it came to its end.
    fn turn(
        &mut self,
        chance: &mut Chance,
        between: impl FnOnce(&mut Self, &mut Chance),
    ) -> Option<Step> {
        let seen = self.look();
        let next = step(&seen);
        let begins_again = matches!(next, Step::Do(Action::Drop { .. }));
        self.is_beginning &= seen.real.is_none() || begins_again;
        self.trace.push(format!("{next:?}"));
        between(self, chance);
        self.check();
        match &next {
            Step::Do(action) => self.act(action),
            Step::Wait(Awaited::Provisioned) => self.mover = true,
            Step::Wait(_) => {}
            Step::Done | Step::Refuse(_) => return Some(next),
        }
        self.check();
        self.controllers(chance);
        self.check();
        None
    }

    fn finish(&mut self, chance: &mut Chance) -> Step {
        for _ in 0..2000 {
            if let Some(end) = self.turn(chance, |_, _| {}) {
                return end;
            }
        }
        panic!("it never ends: {self:#?}");
    }

    #[track_caller]
    fn is_whole(&self, end: &Step) {
        assert_eq!(*end, Step::Done, "{self:#?}");
        let real = self.real.as_ref().unwrap();
        assert!(real.is_bound && self.staging.is_none(), "{self:#?}");
        let disk = &self.disks[&real.volume];
        assert_eq!(disk.data, Data::Whole, "{self:#?}");
        assert_eq!((disk.policy, disk.former), (self.class, None), "{self:#?}");
        assert_eq!(disk.held_for, None, "{self:#?}");
        assert!(!self.mover, "{self:#?}");
    }
}

#[test]
fn a_run_that_is_killed_at_any_point_is_gone_on_with() {
    for class in ["Delete", RETAIN] {
        for seed in 1..4000 {
            let mut chance = Chance(seed);
            let mut world = World::new(class);
            let mut ended = None;
            for _ in 0..chance.below(60) {
                if chance.below(6) == 0 {
                    world.crash();
                }
                ended = world.turn(&mut chance, |world, chance| {
                    world.is_cut = chance.below(3) == 0;
                    if chance.below(4) == 0 {
                        world.controllers(chance);
                    }
                });
                if ended.is_some() {
                    break;
                }
            }
            let end = match ended {
                Some(end) => end,
                None => world.finish(&mut chance),
            };
            world.is_whole(&end);
        }
    }
}

#[test]
fn a_claim_that_lost_the_name_of_its_volume_and_got_an_empty_one_is_never_told_as_done() {
    let (mut refused, mut done) = (0, 0);
    for seed in 1..2000 {
        let mut chance = Chance(seed);
        let mut world = World::new("Delete");
        world.strips = true;
        for _ in 0..200 {
            let end = world.turn(&mut chance, |world, chance| match chance.below(8) {
                0 => world.crash(),
                1 => world.strips = false,
                _ => {}
            });
            if let Some(end) = end {
                let data = world
                    .real
                    .as_ref()
                    .and_then(|real| world.disks.get(&real.volume));
                let is_whole = data.is_some_and(|disk| disk.data == Data::Whole);
                assert_eq!(end == Step::Done, is_whole, "{world:#?}");
                done += u32::from(end == Step::Done);
                refused +=
                    u32::from(matches!(&end, Step::Refuse(why) if why.contains("admission rule")));
                break;
            }
        }
    }
    assert!(refused > 200 && done > 200, "{refused} {done}");
}

/// One run is stopped (SIGSTOP, a laptop that sleeps) between what it decides and what it does; another one of the same restore goes on, and is stopped where it fills.
#[test]
fn two_runs_of_one_restore_never_bind_what_one_of_them_is_still_filling() {
    let mut overtaken = 0;
    for seed in 1..4000 {
        let mut chance = Chance(seed);
        let mut world = World::new("Delete");
        for _ in 0..chance.below(30) {
            world.turn(&mut chance, |_, _| {});
        }
        // What the first knows, and is about to do.
        let first = (world.run, world.filled.clone());
        let Step::Do(decided) = step(&world.look()) else {
            continue;
        };
        world.crash();
        for _ in 0..chance.below(30) {
            world.turn(&mut chance, |world, chance| {
                world.is_cut = chance.below(2) == 0;
            });
        }
        // The second one's mover is a stranger to the first, and writes on until that makes it go.
        world.strangers += usize::from(std::mem::take(&mut world.mover));
        let is_retained = |world: &World| world.disks.values().any(|disk| disk.held_for.is_some());
        let before = is_retained(&world);
        (world.run, world.filled) = first;
        if decided != Action::Fill && !matches!(decided, Action::Drop { .. }) {
            world.act(&decided);
            overtaken += u32::from(matches!(decided, Action::Retain { .. }) && !before);
        }
        for _ in 0..200 {
            world.check();
            let kept = world.disks.values().filter(|disk| disk.held_for.is_some());
            for disk in kept {
                assert_eq!(disk.data, Data::Whole, "{world:#?}");
            }
            if world.turn(&mut chance, |_, _| {}).is_some() {
                break;
            }
        }
    }
    assert!(overtaken > 20, "{overtaken}");
}

#[test]
fn whatever_somebody_deletes_meanwhile_no_claim_is_bound_to_less_than_its_data() {
    let mut done = 0;
    for class in ["Delete", RETAIN] {
        for seed in 1..4000 {
            let mut chance = Chance(seed);
            let mut world = World::new(class);
            let mut filled_and_kept = None;
            for _ in 0..100 {
                let end = world.turn(&mut chance, |world, chance| match chance.below(40) {
                    0 => world.crash(),
                    1 => {
                        if let Some(real) = &mut world.real {
                            real.is_going = true;
                        }
                    }
                    2 => {
                        if let Some(staging) = &mut world.staging {
                            staging.is_going = true;
                        }
                    }
                    3 => world.controllers(chance),
                    4..8 => world.is_cut = true,
                    _ => {}
                });
                let disks = world.disks.iter();
                let mut kept = disks.filter(|(_, disk)| disk.held_for.is_some());
                let first = kept.next();
                assert!(
                    kept.next().is_none(),
                    "another is filled beside it: {world:#?}"
                );
                if let Some((name, _)) = first {
                    filled_and_kept = Some(name.clone());
                }
                if end.is_some() {
                    done += u32::from(end == Some(Step::Done));
                    break;
                }
            }
            // What was once written down as full is there until its claim took it.
            if let Some(name) = filled_and_kept
                && let Some(disk) = world.disks.get(&name)
            {
                assert_eq!(disk.data, Data::Whole, "{world:#?}");
            }
        }
    }
    assert!(done > 2000, "most go on: {done}");
}
