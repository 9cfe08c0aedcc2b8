//! Copies that are ended in their midst: by the user, and by whoever kills a process or a pod.

use harness::run::Signal;
use harness::wait_for;

use super::{PATIENT, World, claim, pod};

pub(super) fn all(world: &World) {
    world.namespace("big");
    world
        .node
        .apply(&(claim("big", "data", "") + &pod("big", "db", &["data"], &[])));
    world.wait("big", &["db"]);
    world.shell("big", "db", "for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/data/$i bs=1M count=25 2>/dev/null; done");
    interrupted(world);
    mover_killed(world);
    killed(world);
    // After all of that the next one is whole.
    world.create("whole", "big").ok();
    world.is_in(&world.row("whole", "data"), &world.folder("big", "data"));
    // A dead run's claims hinder no backup, and go with a prune.
    for key in world.minio.list(super::BUCKET, "p/") {
        if key.contains("/claim-") {
            world.minio.delete(super::BUCKET, &key);
        }
    }
    world.nothing_is_at_work();
}

fn interrupted(world: &World) {
    let running = world.create("stopped", "big").spawn();
    world.until_it_copies("big", 0);
    running.signal(Signal::INT);
    let run = running.wait(PATIENT);
    assert_eq!(run.code, 130, "{}", run.stderr);
    world.nothing_is_at_work();
    let keys = world.minio.list(super::BUCKET, "p/backups/stopped/");
    assert_eq!(keys, Vec::<String>::new());
    assert_eq!(world.stored("big", "snapshots"), 0);
}

/// The pod goes in mid-copy: the volume is named with that, and no snapshot appears.
fn mover_killed(world: &World) {
    let running = world.create("lost", "big").spawn();
    world.until_it_copies("big", world.stored("big", "data"));
    for pod in world.movers() {
        let kill = ["-n", "big", "delete", pod.as_str(), "--wait=false"];
        world.node.kubectl(&kill);
    }
    let run = running.wait(PATIENT);
    assert_eq!(run.code, 3, "{}", run.stderr);
    let row = world.row("lost", "data");
    assert_eq!(row["result"], "failed", "{row:#}");
    let why = row["why"].as_str().unwrap();
    assert!(why.contains("its pod"), "{why}");
    assert_eq!(world.stored("big", "snapshots"), 0);
    world.nothing_is_at_work();
}

/// A run that is killed leaves its mover; once that is over, the next run removes it.
fn killed(world: &World) {
    let running = world.create("dead", "big").spawn();
    world.until_it_copies("big", world.stored("big", "data"));
    running.kill();
    let left = world.movers();
    assert_eq!(left.len(), 1, "{left:?}");
    // One that is at work is anybody's.
    world.create("beside", "shop").ok();
    assert_eq!(world.movers(), left);
    assert_eq!(world.end_movers(), 1);
    world.create("next", "big").ok();
    wait_for("the end of what the dead run left", PATIENT, || {
        world.movers().is_empty().then_some(())
    });
}
