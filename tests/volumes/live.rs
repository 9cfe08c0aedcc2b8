//! Folders that others write to meanwhile, and files that can not be read.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::run::program;
use harness::tools;

use super::{Place, VOLUME, files, text};

#[test]
fn whatever_others_do_meanwhile_a_snapshot_is_whole_or_is_none() {
    let place = Place::folder();
    let source = place.home.join("source");
    for folder in 0..10 {
        let folder = source.join(folder.to_string());
        fs::create_dir_all(&folder).unwrap();
        for number in 0..200 {
            fs::write(folder.join(number.to_string()), vec![b'x'; 3000]).unwrap();
        }
    }
    let over = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Appends, cuts, deletes, makes anew and moves, all the time.
            let mut round = 0_usize;
            while !over.load(Ordering::SeqCst) {
                let path = source.join((round % 10).to_string());
                let file = path.join((round * 7 % 200).to_string());
                match round % 5 {
                    0 => drop(fs::remove_file(&file)),
                    1 => drop(fs::write(&file, b"short")),
                    2 => drop(fs::rename(&file, path.join("moved"))),
                    3 => {
                        let open = fs::OpenOptions::new().append(true).open(&file);
                        let _ = open.and_then(|mut file| file.write_all(&[b'y'; 5000]));
                    }
                    _ => drop(fs::write(&file, vec![b'z'; round % 9000])),
                }
                round += 1;
                std::thread::sleep(std::time::Duration::from_micros(300));
            }
        });
        let ended: Vec<_> = (0..4).map(|_| place.backup(&source).run()).collect();
        // Before anything may fail: the thread above is awaited.
        over.store(true, Ordering::SeqCst);
        ended
    });
    let saved: Vec<_> = ended
        .into_iter()
        .filter_map(|ended| match ended.code {
            0 => Some(ended.json()),
            1 => {
                let named = ended.stderr.contains("could not be read");
                assert!(named, "{}", ended.stderr);
                None
            }
            other => panic!("{other}: {}", ended.stderr),
        })
        .collect();
    assert_eq!(place.snapshots().len(), saved.len());
    // Quiet again.
    let last = place.backup(&source).ok().json();
    for saved in saved.iter().chain([&last]) {
        let target = place.home.join(format!("back-{}", saved["snapshot"]));
        place.restore(saved, &target).ok();
    }
    place.checked_by_restic(&last, &place.key(), &place.home.join("restic"));
}

#[test]
fn a_file_that_can_not_be_read_is_named_and_no_snapshot_appears() {
    if !rustix::process::getuid().is_root() {
        harness::skip::report("only root becomes somebody else");
        return;
    }
    let place = Place::folder();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("mine"), b"mine").unwrap();
    fs::write(source.join("readable"), b"yours").unwrap();
    let open = |path: &std::path::Path, mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&source.join("mine"), 0o600);
    for path in [place.home.path(), &place.home.join("bucket"), &source] {
        open(path, 0o777);
    }
    let plugin = tools::plugin();
    let call = program(
        "setpriv",
        &[
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            text(&plugin),
        ],
    )
    .args(&["mover", "backup", text(&source), VOLUME, "--backup", "b"])
    .home(place.home.path())
    .location(&place.location);
    let refused = call.code(1);
    assert!(
        refused.stderr.contains("mine: Permission denied"),
        "{}",
        refused.stderr
    );
    assert!(place.snapshots().is_empty());
    assert!(files(&place.path("0b5e.claims")).is_empty());
    let saved = place.backup(&source).ok().json();
    place.checked_by_restic(&saved, &place.key(), &place.home.join("restic"));
}
