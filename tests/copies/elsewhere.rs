//! Another cluster: the bucket, its credentials and one identity bring back what volumes of the first one had.

use harness::node::Node;
use harness::process::Folder;
use harness::store::Minio;

use super::controller::fixture;
use super::restored::{filled, is_whole};
use super::{IMAGE, World, node};

#[test]
fn the_bucket_and_one_identity_bring_the_files_of_all_volumes_back_in_another_cluster() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let mut world = World::with(node(), Minio::start());
    let namespaces = ["shop", "ledger"];
    let wanted = namespaces.map(|namespace| filled(&world, namespace, 1));
    world
        .call(&["create", "sealed", "--include-namespaces=shop,ledger"])
        .args(&["--default-volumes-to-fs-backup", "--mover-image", IMAGE])
        .args(&["--recipients-file", &fixture("first.pub")])
        .ok();

    // Gone are the cluster, what this machine was told, and what it kept.
    drop(std::mem::replace(&mut world.node, node()));
    world.home = Folder::new("another-home");
    let restore = ["restore", "create", "--from-backup", "sealed", "--yes"];
    let restore = |identity: &str| {
        world
            .call(&restore)
            .args(&["--mover-image", IMAGE, "--identity", &fixture(identity)])
    };
    restore("second.key").code(1);
    restore("first.key").ok();
    for (namespace, wanted) in namespaces.iter().zip(&wanted) {
        is_whole(&world, namespace, wanted);
    }
}
