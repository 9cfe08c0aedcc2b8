//! A small cluster with one claim on its way, in which everything may happen between a look and what follows from it.

use std::collections::BTreeMap;

use super::*;

mod meanwhile;

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
