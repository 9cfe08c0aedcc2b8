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

/// Waits until packs of the volume are in the bucket.
fn until_it_copies(world: &World, before: usize) {
    wait_for("a copy that is under way", PATIENT, || {
        (packs(world) > before).then_some(())
    });
}

fn packs(world: &World) -> usize {
    let keys = world.minio.list(super::BUCKET, "p/restic/");
    keys.iter()
        .filter(|key| key.contains("/big/") && key.contains("/data/"))
        .count()
}

fn snapshots(world: &World) -> usize {
    let keys = world.minio.list(super::BUCKET, "p/restic/");
    keys.iter()
        .filter(|key| key.contains("/big/") && key.contains("/snapshots/"))
        .count()
}

fn interrupted(world: &World) {
    let running = world.create("stopped", "big").spawn();
    until_it_copies(world, 0);
    running.signal(Signal::INT);
    let run = running.wait(PATIENT);
    assert_eq!(run.code, 130, "{}", run.stderr);
    world.nothing_is_at_work();
    let keys = world.minio.list(super::BUCKET, "p/backups/stopped/");
    assert_eq!(keys, Vec::<String>::new());
    assert_eq!(snapshots(world), 0);
}

/// The pod goes in mid-copy: the volume is named with that, and no snapshot appears.
fn mover_killed(world: &World) {
    let running = world.create("lost", "big").spawn();
    until_it_copies(world, packs(world));
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
    assert_eq!(snapshots(world), 0);
    world.nothing_is_at_work();
}

/// A run that is killed leaves its mover; once that is over, the next run removes it.
fn killed(world: &World) {
    let running = world.create("dead", "big").spawn();
    until_it_copies(world, packs(world));
    running.kill();
    let left = world.movers();
    assert_eq!(left.len(), 1, "{left:?}");
    // One that is at work is anybody's.
    world.create("beside", "shop").ok();
    assert_eq!(world.movers(), left);
    // As its own clock would do.
    let mut ended = 0;
    for pid in world.node.pids() {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&words).ends_with("mover\0hold\0") {
            let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            ended += 1;
        }
    }
    assert_eq!(ended, 1);
    let over = [
        "-n",
        "big",
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        &left[0],
        "--timeout=60s",
    ];
    world.node.kubectl(&over);
    world.create("next", "big").ok();
    wait_for("the end of what the dead run left", PATIENT, || {
        world.movers().is_empty().then_some(())
    });
}
