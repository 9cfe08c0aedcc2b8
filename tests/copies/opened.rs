//! What is encrypted for a location's recipients comes back with their identity alone, whatever became of the machine that made it.

use std::path::Path;

use harness::process::Folder;
use harness::run::{Backup, kubectl_backup};

use super::controller::fixture;
use super::restored::{CLAIM, delete_namespace, is_whole};
use super::{BUCKET, IMAGE, PATIENT, World, bare};

const NAMESPACE: &str = "opened";

pub(super) fn with_an_identity(world: &World, wanted: &str) {
    let url = format!("s3://{BUCKET}/opened?endpoint={}", world.minio.endpoint());
    let create = world
        .at(&["create", "sealed", "-n", "shop"], &url)
        .credentials_of(&world.minio)
        .args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE])
        .args(&["--recipients-file", &fixture("first.pub")])
        .spawn();
    let copying = bare::seen(world, "shop", "send");
    let copied = create.wait(PATIENT).ok();
    // A machine that has seen nothing of it.
    let home = Folder::new("elsewhere");
    let call = |words: &[&str], identity: &str| -> Backup {
        kubectl_backup(words)
            .home(home.path())
            .kubeconfig(world.node.kubeconfig())
            .location(&url)
            .credentials_of(&world.minio)
            .args(&["--identity", &fixture(identity)])
    };
    let restore = [
        "restore",
        "create",
        "opened",
        "--from-backup",
        "sealed",
        "--namespace-mappings=shop:opened",
        "--mover-image",
        IMAGE,
    ];
    call(&restore, "second.key").code(1);
    let namespace = ["get", "namespace", NAMESPACE];
    assert_ne!(world.node.try_kubectl(&namespace).code, 0);
    let running = call(&restore, "first.key").spawn();
    let filling = bare::seen(world, NAMESPACE, "receive");
    let filled = running.wait(PATIENT).ok();
    is_whole(world, NAMESPACE, wanted);
    let volume = format!("shop/{CLAIM}");
    let file = ["contents", "sealed", "--volume", &volume, "a/b/file"];
    assert_eq!(call(&file, "first.key").ok().stdout, "text\n");
    let read = ["verify", "sealed", "--read-data"];
    call(&read, "first.key").ok();

    // Neither mover had a key: not of the store, not of the repository, not of a recipient.
    let password = world.password(&format!("opened/restic/{}", world.volume("shop", CLAIM)));
    let identity = bare::identity(Path::new(&fixture("first.key")));
    let store = [world.minio.access_key(), world.minio.secret_key()];
    let secrets = [store[0], store[1], &password, &identity];
    copying.has_none_of(&secrets, &[&copied.stderr, &copied.stdout]);
    filling.has_none_of(&secrets, &[&filled.stderr, &filled.stdout]);
    delete_namespace(world, NAMESPACE);
}
