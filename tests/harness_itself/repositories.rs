//! What says that repositories of volumes are whole must be able to say that they are not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::process::Folder;
use harness::repositories::{Bucket, Repositories};

const REPOSITORY: &str = "restic/c/ns/uid";

/// A bucket with a repository of restic's own, with one snapshot, and a pack of it.
fn made(folder: &Folder) -> PathBuf {
    let root = folder.join("bucket");
    fs::create_dir_all(root.join(REPOSITORY)).unwrap();
    let password = folder.write(format!("bucket/{REPOSITORY}.key"), "word\n");
    let source = folder.write("source/file", b"content\n".repeat(1000));
    let restic = |words: &[&str]| Bucket::Folder(&root).restic(REPOSITORY, &password, words);
    restic(&["init"]).ok();
    restic(&["backup", source.to_str().unwrap()]).ok();
    let shards = fs::read_dir(root.join(REPOSITORY).join("data")).unwrap();
    let mut packs = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    packs.next().unwrap().unwrap().path()
}

/// What the end of a story counts, where it finds no fault.
fn end(repositories: &Repositories, root: &Path) -> Option<Vec<String>> {
    let end = AssertUnwindSafe(|| {
        let mut told = Vec::new();
        let mut tell = |what: &str, place: &str| told.push(format!("{what} {place}"));
        repositories.look(Bucket::Folder(root), &mut tell);
        told
    });
    catch_unwind(end).ok()
}

#[test]
fn a_repository_that_is_damaged_or_has_the_password_of_another_fails_its_story_unless_that_was_said()
 {
    let folder = Folder::new("repositories");
    let pack = made(&folder);
    let root = folder.join("bucket");
    let key = folder.join(format!("bucket/{REPOSITORY}.key"));
    let repositories = Repositories::default();
    let made_one = format!("made {REPOSITORY}");
    // Whoever looks with restic in the midst of a story is believed as long as nothing changes.
    let target = folder.join("back");
    let bucket = Bucket::Folder(&root);
    repositories.comes_back(bucket, (REPOSITORY, &key), "latest", &target);
    assert!(
        target
            .join(folder.join("source/file").strip_prefix("/").unwrap())
            .exists()
    );
    assert_eq!(
        end(&repositories, &root).unwrap(),
        [made_one.clone(), format!("whole {REPOSITORY}")]
    );

    // Two of one password, as a program with a constant in it would make them.
    let twin = root.join("restic/c/ns/twin");
    let made = Command::new("cp")
        .arg("-a")
        .arg(root.join(REPOSITORY))
        .arg(&twin)
        .status();
    assert!(made.unwrap().success());
    fs::copy(&key, root.join("restic/c/ns/twin.key")).unwrap();
    assert_eq!(end(&repositories, &root), None);
    fs::remove_dir_all(twin).unwrap();
    // One that was whole and went is not forgotten.
    assert_eq!(
        end(&repositories, &root).unwrap(),
        [
            &*made_one,
            &format!("whole {REPOSITORY}"),
            "made restic/c/ns/twin",
            "whole restic/c/ns/twin"
        ]
    );

    let mut bytes = fs::read(&pack).unwrap();
    bytes[10] ^= 1;
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    assert_eq!(end(&Repositories::default(), &root), None);
    let said = Repositories::default();
    said.damages(REPOSITORY, "a flipped bit");
    assert_eq!(
        end(&said, &root).unwrap(),
        [made_one, format!("damaged {REPOSITORY}, for a flipped bit")]
    );
    // What is said of one that is not there is a mistake of the story.
    said.damages("restic/c/ns/other", "nothing");
    assert_eq!(end(&said, &root), None);
    fs::remove_file(key).unwrap();
    assert_eq!(end(&Repositories::default(), &root), None);
}
