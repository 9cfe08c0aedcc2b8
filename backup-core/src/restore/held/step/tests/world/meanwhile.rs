//! What may happen between any two steps, in the order of chance: whatever it is, no claim is bound to less than its data.

use super::*;

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
