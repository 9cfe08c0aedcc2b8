//! What is in a folder comes back.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use harness::repositories::Bucket;
use harness::tools;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::{Place, VOLUME, listed, noise, text};

/// A folder with everything in it that a file system has; devices and owners as root alone.
fn fill(folder: &Path) {
    let is_root = rustix::process::getuid().is_root();
    fs::create_dir_all(folder.join("deep/er/est")).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    fs::create_dir(folder.join("a-b")).unwrap();
    fs::create_dir(folder.join("a")).unwrap();
    fs::write(
        folder.join("a/x"),
        b"sorts after a-b by bytes, before it by names",
    )
    .unwrap();
    fs::write(folder.join("deep/er/est/file"), b"text\n".repeat(1000)).unwrap();
    fs::write(folder.join("large"), noise(1, 9 << 20)).unwrap();
    fs::write(folder.join("nothing"), b"").unwrap();
    fs::hard_link(folder.join("large"), folder.join("deep/large again")).unwrap();
    fs::hard_link(folder.join("large"), folder.join("z-third name")).unwrap();
    symlink("../no\nwhere", folder.join("dangling")).unwrap();
    symlink("/etc", folder.join("out")).unwrap();
    drop(UnixListener::bind(folder.join("socket")).unwrap());
    let odd = std::ffi::OsStr::from_bytes(b"new\nline \xff\xfe \\ \"quoted\"");
    fs::write(folder.join(odd), b"odd").unwrap();
    let sparse = fs::File::create(folder.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    rustix::io::pwrite(&sparse, b"in the middle", 30 << 20).unwrap();
    let make = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, folder.join(name), kind, Mode::RUSR, device).unwrap();
    };
    make("fifo", FileType::Fifo, 0);
    rustix::fs::lsetxattr(
        folder.join("a/x"),
        "user.comment",
        b"bytes \x00\xff",
        XattrFlags::empty(),
    )
    .unwrap();
    if is_root {
        make("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        make("disk", FileType::BlockDevice, rustix::fs::makedev(8, 1));
        std::os::unix::fs::lchown(folder.join("dangling"), Some(4321), Some(1234)).unwrap();
        std::os::unix::fs::chown(folder.join("deep/er"), Some(99), Some(98)).unwrap();
        std::os::unix::fs::chown(folder.join("nothing"), Some(77), Some(76)).unwrap();
    }
    let mode = |name: &str, mode| {
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("nothing", 0o6711);
    mode("empty", 0o1777);
    mode("a/x", 0o400);
    mode("deep/er", 0o2555);
    mode("", 0o3750);
    let time = |name: &str, seconds, nanos| {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanos,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(CWD, folder.join(name), &times, flags).unwrap();
    };
    time("a/x", -5, 123_456_789);
    time("deep/er", 1_234_567_890, 987_654_321);
    time("dangling", 86_400, 1);
    time("", 1_600_000_000, 5);
}

#[test]
fn a_folder_with_everything_comes_back_and_restic_says_the_same() {
    let place = Place::folder();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fill(&source);
    let before = listed(&source, false);
    assert!(before.contains("user.comment=0x"), "{before}");
    let first = place.backup(&source).ok().json();
    assert_eq!(first["changedWhileRead"], 0);
    let second = place.backup(&source).ok().json();
    assert_eq!(
        (&second["readBytes"], &second["addedBytes"]),
        (&0.into(), &0.into())
    );
    assert_eq!(second["base"], first["snapshot"]);
    // Through the streams of a pod it is the same, and nothing is stored twice.
    let apart = place
        .backup(&source)
        .args(&["--apart", "--force-read"])
        .ok();
    let apart = apart.json();
    assert_eq!(apart["readBytes"], apart["bytes"]);
    assert_eq!(apart["addedBytes"], 0);
    for (number, saved) in [&first, &second, &apart].into_iter().enumerate() {
        let target = place.home.join(format!("back-{number}"));
        place.restore(saved, &target).ok();
        assert_eq!(listed(&target, false), before);
        let sparse = fs::metadata(target.join("sparse")).unwrap();
        assert!(
            sparse.blocks() * 512 < 1 << 20,
            "{} blocks",
            sparse.blocks()
        );
    }
    let target = place.home.join("restic");
    place.checked_by_restic(&apart, &place.key(), &target);
    assert_eq!(listed(&target.join("data"), true), listed(&source, true));
    assert_eq!(listed(&source, false), before, "the source is as it was");
    // Nothing is restored over what stands.
    let target = place.home.join("back-0");
    let refused = place.restore(&first, &target).code(1);
    assert!(
        refused.stderr.contains("is not empty"),
        "{}",
        refused.stderr
    );
}

#[test]
fn debians_own_restic_checks_and_restores_it_too() {
    let Some(restic) = tools::debians_restic() else {
        harness::skip!("restic of Debian is not installed: see tests/tools/build");
    };
    let place = Place::folder();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fill(&source);
    place.backup(&source).ok();
    fs::write(source.join("deep/new"), noise(2, 1 << 20)).unwrap();
    let saved = place.backup(&source).ok().json();
    let bucket = place.home.join("bucket");
    let number = saved["repository"].as_u64().unwrap();
    let target = place.home.join("back");
    Bucket::Folder(&bucket).comes_back_by(
        &restic,
        (&place.repository(number), &place.key()),
        saved["snapshot"].as_str().unwrap(),
        &target,
    );
    assert_eq!(listed(&target.join("data"), true), listed(&source, true));
}

#[test]
fn one_changed_file_is_all_that_is_read_and_stored_on_minio() {
    let place = Place::minio("volumes-changed");
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    for number in 0..300 {
        fs::write(source.join(number.to_string()), noise(number, 20_000)).unwrap();
    }
    let first = place.backup(&source).ok().json();
    fs::write(source.join("150"), noise(1000, 30_000)).unwrap();
    fs::remove_file(source.join("151")).unwrap();
    let second = place.backup(&source).ok().json();
    assert_eq!(second["readBytes"], 30_000);
    let added = second["addedBytes"].as_u64().unwrap();
    assert!((30_000..200_000).contains(&added), "{added}");
    let target = place.home.join("back");
    place.restore(&second, &target).ok();
    assert_eq!(listed(&target, false), listed(&source, false));
    let key = place
        .minio
        .unwrap()
        .0
        .get("volumes-changed", "p/restic/cluster/shop/0b5e.key");
    let key = place.home.write("password", key);
    let target = place.home.join("restic");
    place.checked_by_restic(&first, &key, &target);
    assert!(target.join("data/151").exists());
    let known = place.mover(&["snapshots", VOLUME]).ok().stdout;
    let ids: Vec<serde_json::Value> = known
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[1]["snapshot"], second["snapshot"]);
    assert!(ids[1]["tags"].to_string().contains("backup=nightly"));
}

#[test]
fn a_hundred_thousand_tiny_files_come_back() {
    let place = Place::folder();
    let source = place.home.join("source");
    for folder in 0..100 {
        let folder = source.join(format!("folder {folder}"));
        fs::create_dir_all(&folder).unwrap();
        for number in 0..1000 {
            fs::write(
                folder.join(format!("{number}")),
                format!("{} ", folder.display()).repeat(number % 5) + &number.to_string(),
            )
            .unwrap();
        }
    }
    let saved = place.backup(&source).ok().json();
    assert_eq!(
        (&saved["files"], &saved["entries"]),
        (&100_000.into(), &100_101.into())
    );
    let again = place.backup(&source).ok().json();
    assert_eq!(again["readBytes"], 0);
    let target = place.home.join("back");
    place.restore(&again, &target).ok();
    assert_eq!(listed(&target, false), listed(&source, false));
    place.checked_by_restic(&saved, &place.key(), &place.home.join("restic"));
    let refused = place.mover(&["backup", text(&source), "../x/y/z", "--backup", "b"]);
    refused.code(2);
}
