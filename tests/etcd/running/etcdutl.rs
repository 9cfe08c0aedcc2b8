//! Where `run` finds etcdutl when it is not told: beside etcd, beside itself, in PATH.

use std::fs;
use std::os::unix::fs::symlink;

use harness::tools;

use super::place::{Place, SNAPSHOT, message};

#[test]
fn etcdutl_is_found_beside_etcd_beside_the_launcher_and_in_path_and_missed_before_anything_is_stopped()
 {
    let mut place = Place::of(1);
    let folders =
        ["etcd", "launcher", "path"].map(|name| place.folder().join(format!("of-{name}")));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    let [beside_etcd, beside_launcher, in_path] = &folders;
    place.how.etcd = beside_etcd.join("etcd");
    symlink(tools::path("etcd"), &place.how.etcd).unwrap();
    // A link would lead to where the launcher lies in truth.
    place.how.launcher = beside_launcher.join("etcd-launcher");
    fs::copy(tools::launcher(), &place.how.launcher).unwrap();
    place.how.path = Some(in_path.clone());
    place.how.etcdutl = None;
    place.start_again();

    place.apply_restore("without", SNAPSHOT);
    let restore = place.wait_for_phase("without", "Failed");
    let told = message(&restore);
    assert!(
        told.contains("no etcdutl 3.6") && told.contains("--etcdutl PATH"),
        "{told}"
    );
    assert!(!place.is_restored());
    for (number, folder) in folders.iter().enumerate() {
        let etcdutl = folder.join("etcdutl");
        symlink(tools::path("etcdutl"), &etcdutl).unwrap();
        place.restore_well(&format!("restore-{number}"));
        fs::remove_file(&etcdutl).unwrap();
        place.write_later();
    }
}
