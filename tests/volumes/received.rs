//! What is brought back over what a run that died left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use harness::mounts;
use harness::process::Folder;
use harness::run::{kubectl_backup, program};
use harness::{skip, tools};

use super::{Place, VOLUME, text};

fn frame(letter: u8, body: &str) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    let head = [&[letter][..], &length.to_be_bytes()].concat();
    [&head, body.as_bytes()].concat()
}

/// A volume with one file, as a mover is sent it.
fn volume() -> Vec<u8> {
    let entry = |path: &str, is: &str, size: u64| {
        let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
        let (uid, gid) = (uid.as_raw(), gid.as_raw());
        let entry = serde_json::json!({
            "p": path, "is": is, "mode": 0o700, "uid": uid, "gid": gid, "size": size,
            "mtime": [7, 8], "ctime": [7, 8],
        });
        frame(b'N', &entry.to_string())
    };
    let parts = [
        entry("", "folder", 0),
        entry("file", "file", 3),
        frame(b'D', "new"),
        frame(b'E', r#"{"count":2}"#),
    ];
    parts.concat()
}

fn names(folder: &Path) -> Vec<String> {
    let all = fs::read_dir(folder).unwrap();
    let mut all: Vec<_> = all
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

#[test]
fn what_a_run_that_died_left_is_removed_where_that_is_asked_for_and_nothing_else() {
    let home = Folder::new("received");
    let (folder, outside) = (home.join("volume"), home.join("outside"));
    fs::create_dir(&folder).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), b"kept").unwrap();
    let receive = |more: &[&str]| {
        kubectl_backup(&[&["mover", "receive", text(&folder)], more].concat()).home(home.path())
    };
    let all = volume();
    receive(&[]).stdin(&all[..all.len() - 20]).code(1);
    assert_eq!(names(&folder), ["file"]);
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    fs::write(folder.join("deep/er/old"), b"old").unwrap();
    symlink(&outside, folder.join("deep/link")).unwrap();
    let refused = receive(&[]).stdin(&*all).code(1);
    assert!(
        refused.stderr.contains("is not empty"),
        "{}",
        refused.stderr
    );
    assert_eq!(names(&folder), ["deep", "file"]);
    receive(&["--over-own"]).stdin(&*all).ok();
    assert_eq!(names(&folder), ["file"]);
    assert_eq!(fs::read(folder.join("file")).unwrap(), b"new");
    assert_eq!(names(&outside), ["kept"]);
}

#[test]
fn what_is_mounted_below_the_folder_is_not_emptied() {
    if let Err(reason) = mounts::available() {
        skip::report(&reason);
        return;
    }
    let home = Folder::new("received");
    let (folder, outside) = (home.join("volume"), home.join("outside"));
    fs::create_dir_all(folder.join("mounted")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), b"kept").unwrap();
    // Of the same file system: only the mount tells it from a folder.
    let script = "mount --bind \"$0/outside\" \"$0/volume/mounted\"";
    let mut words = mounts::through(script, text(home.path()));
    let plugin = tools::plugin();
    let rest = ["mover", "receive", text(&folder), "--over-own"];
    words.push(text(&plugin).to_owned());
    words.extend(rest.map(str::to_owned));
    let refused = program(&words[0], &words[1..])
        .home(home.path())
        .stdin(volume())
        .code(1);
    assert!(
        refused.stderr.contains("something is mounted at mounted"),
        "{}",
        refused.stderr
    );
    assert_eq!(names(&outside), ["kept"]);
}

#[test]
fn a_repository_that_can_not_be_looked_at_does_not_hide_the_others() {
    let place = Place::folder();
    let none = place.mover(&["snapshots", VOLUME]).code(1);
    assert!(
        none.stderr.contains("there is no repository"),
        "{}",
        none.stderr
    );
    place.mover(&["check", VOLUME]).code(1);
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("a"), b"a").unwrap();
    place.backup(&source).ok();
    fs::write(place.key(), "another\n").unwrap();
    let second = place.backup(&source).ok().json();
    assert_eq!(second["repository"], 2);
    let listed = place.mover(&["snapshots", VOLUME]).code(1);
    assert_eq!(listed.json()["snapshot"], second["snapshot"]);
    let checked = place.mover(&["check", VOLUME, "--read-data"]).code(1);
    assert_eq!(checked.stdout, "");
    for said in [&listed.stderr, &checked.stderr] {
        assert!(said.contains("repository 1: the password"), "{said}");
        assert!(said.contains("1 of 2 repositories"), "{said}");
    }
    place
        .repositories
        .damages(&place.repository(1), "its key was exchanged");
}
