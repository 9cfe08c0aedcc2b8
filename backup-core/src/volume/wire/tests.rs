use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::super::entry::tests::entry;
use super::super::entry::{EntryPath, What};
use super::super::source::{Found, Source as _};
use super::frame::{Frame, Wanted};
use super::*;

fn read_all(mut bytes: &[u8]) -> crate::Result<Vec<Frame>> {
    let mut all = Vec::new();
    while let Some(frame) = Frame::read(&mut bytes)? {
        all.push(frame);
    }
    Ok(all)
}

#[test]
fn a_frame_that_is_cut_or_too_long_is_refused() {
    let mut bytes = Vec::new();
    Frame::Zeros(5).write(&mut bytes).unwrap();
    assert_eq!(read_all(&bytes).unwrap(), [Frame::Zeros(5)]);
    for cut in 1..bytes.len() {
        read_all(&bytes[..cut]).unwrap_err();
    }
    read_all(&[b'D', 255, 255, 255, 255]).unwrap_err();
    read_all(&[b'?', 0, 0, 0, 0]).unwrap_err();
    read_all(&[b'N', 0, 0, 0, 2, b'{', b'}']).unwrap_err();
}

/// What a mover says over a folder, and how the archiver takes it.
fn over(folder: &std::path::Path, cut_listing: usize, cut_sending: usize) -> (Vec<Vec<u8>>, bool) {
    let mut listing = Vec::new();
    list(folder, &mut listing).unwrap();
    let (theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let path = folder.to_owned();
    let mover = std::thread::spawn(move || {
        let mut from = theirs.try_clone().unwrap();
        let mut sent = Vec::new();
        // The other side is answered as it asks.
        let mut to = io::BufWriter::new(&theirs);
        let _ = send(&path, &mut from, &mut to);
        let _ = sent.write_all(b"");
    });
    let to = ours.try_clone().unwrap();
    let from: Box<dyn io::Read + Send> = if cut_sending > 0 {
        Box::new(ours.try_clone().unwrap().take(cut_sending as u64))
    } else {
        Box::new(ours.try_clone().unwrap())
    };
    struct Closing(std::os::unix::net::UnixStream);
    impl io::Write for Closing {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    impl Drop for Closing {
        fn drop(&mut self) {
            let _ = self.0.shutdown(std::net::Shutdown::Write);
        }
    }
    listing.truncate(listing.len() - cut_listing);
    let asking = Asking {
        to: Box::new(Closing(to)),
        from,
    };
    let source = WireSource::new(
        Box::new(io::Cursor::new(listing)),
        asking,
        Box::new(|| Ok(())),
    );
    let mut contents = Vec::new();
    for found in source.entries().unwrap() {
        let Found { entry, content } = found.unwrap();
        if let Some(opener) = content {
            let mut all = Vec::new();
            // What is asked for after the end is not to be had.
            let Ok(mut content) = opener() else {
                continue;
            };
            let read = content.by_ref().take(entry.size).read_to_end(&mut all);
            if read.is_err() || content.has_changed().is_err() {
                continue;
            }
            contents.push(all);
        }
    }
    let ended = source.ended().is_ok();
    drop(ours);
    mover.join().unwrap();
    (contents, ended)
}

#[test]
fn what_a_mover_lists_and_sends_arrives_and_what_is_cut_has_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let big: Vec<u8> = (0..700_000_u32).map(|i| (i / 3) as u8).collect();
    fs::write(folder.path().join("a"), b"first").unwrap();
    fs::write(folder.path().join("b"), &big).unwrap();
    fs::write(folder.path().join("c"), vec![0; 1 << 20]).unwrap();
    let (contents, ended) = over(folder.path(), 0, 0);
    assert!(ended);
    assert_eq!(contents, [b"first".to_vec(), big, vec![0; 1 << 20]]);
    assert!(!over(folder.path(), 1, 0).1, "the listing's end is cut");
    assert!(!over(folder.path(), 0, 400_000).1, "a file is cut");
}

#[test]
fn a_file_that_became_another_or_lies_behind_a_link_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("in");
    fs::create_dir(&inside).unwrap();
    fs::write(folder.path().join("secret"), b"secret").unwrap();
    std::os::unix::fs::symlink("..", inside.join("up")).unwrap();
    fs::write(inside.join("a"), b"abc").unwrap();
    let of = |path: &str| fs::metadata(folder.path().join(path)).unwrap();
    let ask = |path: &str, of: &fs::Metadata| {
        let mut asked = Vec::new();
        let wanted = Wanted {
            path: EntryPath::new(path),
            size: of.len(),
            inode: of.ino(),
            device: of.dev(),
        };
        Frame::Wanted(wanted).write(&mut asked).unwrap();
        let mut answer = Vec::new();
        send(&inside, &mut &asked[..], &mut answer).unwrap();
        read_all(&answer).unwrap()
    };
    assert!(matches!(&ask("a", &of("in/a"))[0], Frame::Data(bytes) if bytes == &b"abc"[..]));
    for (path, of) in [
        ("up/secret", of("secret")),
        ("../secret", of("secret")),
        ("a", of("secret")),
        ("gone", of("in/a")),
    ] {
        let answer = ask(path, &of);
        assert!(
            matches!(&answer[0], Frame::File(ended) if ended.error.is_some()),
            "{path}: {answer:?}"
        );
    }
}

fn received(frames: &[Frame]) -> (tempfile::TempDir, crate::Result<Ended>) {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for frame in frames {
        frame.write(&mut bytes).unwrap();
    }
    let ended = receive(folder.path(), &mut &bytes[..]);
    (folder, ended)
}

fn end(count: u64) -> Frame {
    Frame::End(Ended {
        count,
        ..Ended::default()
    })
}

#[test]
fn a_mover_writes_nothing_outside_of_its_folder() {
    let named = |path: &str, what: What, size| Frame::Entry(Box::new(entry(path, what, size)));
    let root = || named("", What::Folder, 0);
    let (folder, ended) = received(&[
        root(),
        named("a", What::File, 3 + 8192),
        Frame::Data(b"abc".to_vec().into()),
        Frame::Zeros(8192),
        end(2),
    ]);
    assert_eq!(ended.unwrap().trouble_count, 0);
    let bytes = fs::read(folder.path().join("a")).unwrap();
    assert_eq!((bytes.len(), &bytes[..4]), (8195, &b"abc\0"[..]));
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap().as_bytes().to_vec();
    for hostile in [
        vec![root(), named("../x", What::File, 0), end(2)],
        vec![
            root(),
            named("l", What::Link { target }, 0),
            named("l/x", What::File, 0),
            end(3),
        ],
        vec![
            root(),
            named("a", What::File, 1),
            Frame::Data(b"too long".to_vec().into()),
            end(2),
        ],
        vec![root(), named("a", What::File, 0)],
        vec![root(), named("a", What::File, 0), end(9)],
    ] {
        let (folder, ended) = received(&hostile);
        ended.unwrap_err();
        drop(folder);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(
        fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777,
        0o755
    );
}
