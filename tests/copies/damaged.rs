//! A repository that is damaged: `verify --read-data` finds it, nothing of it is bound to a claim, and where a pack is missing no backup calls itself whole. It ends with the way out.

use harness::run::Backup;

use super::restored::delete_namespace;
use super::{BUCKET, IMAGE, World};

const PREFIX: &str = "damaged";
const NAMESPACE: &str = "damaged";

/// The program, with a place of its own in the bucket.
fn call(world: &World, words: &[&str]) -> Backup {
    let url = format!("s3://{BUCKET}/{PREFIX}?endpoint={}", world.minio.endpoint());
    world.at(words, &url).credentials_of(&world.minio)
}

fn create(world: &World, name: &str) -> Backup {
    call(world, &["create", name, "-n", "shop"]).args(&[
        "--default-volumes-to-fs-backup",
        "--mover-image",
        IMAGE,
    ])
}

/// The namespace has one claim, `data`.
pub(super) fn all(world: &World) {
    create(world, "whole").ok();
    call(world, &["verify", "whole"]).ok();
    let read = ["verify", "whole", "--read-data"];
    let whole = call(world, &read).ok().stdout;
    assert!(whole.contains(" of files"), "{whole}");

    let keys = world.minio.list(BUCKET, &format!("{PREFIX}/restic/"));
    let packs = keys.iter().filter(|key| key.contains("/data/"));
    let pack = packs.max_by_key(|key| world.minio.get(BUCKET, key).len());
    let pack = pack.unwrap();
    let mut damaged = world.minio.get(BUCKET, pack).to_vec();
    damaged[100] ^= 1;
    world.minio.put(BUCKET, pack, damaged);
    call(world, &["verify", "whole"]).ok();
    let told = call(world, &read).code(1).stdout;
    assert!(told.contains("volume shop/data: "), "{told}");
    is_not_bound(world);

    world.minio.delete(BUCKET, pack);
    let run = create(world, "lacking").code(3);
    assert!(run.stderr.contains("shop/data"), "{}", run.stderr);
    let told = call(world, &["describe", "lacking"]).ok().stdout;
    assert!(told.contains("PartiallyFailed"), "{told}");

    // The way out: the repository goes with the last backup of the claim, and another one is begun.
    let backups = ["delete", "whole", "lacking", "--yes"];
    let told = call(world, &backups).ok().stderr;
    assert!(told.contains("removed with its last 1 snapshot"), "{told}");
    create(world, "anew").ok();
    call(world, &["verify", "anew", "--read-data"]).ok();
}

/// What is damaged is in no claim that anything can use.
fn is_not_bound(world: &World) {
    let mapping = format!("shop:{NAMESPACE}");
    let words = ["restore", "create", "of-damaged", "--from-backup", "whole"];
    let run = call(world, &words)
        .args(&["--namespace-mappings", &mapping, "--mover-image", IMAGE])
        .code(3);
    let why = format!("claim {NAMESPACE}/data stays Pending");
    assert!(run.stderr.contains(&why), "{}", run.stderr);
    let claim = world.get(NAMESPACE, "pvc/data");
    assert_eq!(claim["status"]["phase"], "Pending");
    assert_eq!(world.movers(), [""; 0]);
    delete_namespace(world, NAMESPACE);
}
