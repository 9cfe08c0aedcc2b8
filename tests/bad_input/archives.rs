//! Archives that are damaged or hostile. Each is planted as a foreign backup, so that a restore has to read it by itself.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::place::Place;

const MARKER: &str = r#"{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{"name":"b"},"spec":{"ttl":"720h0m0s"},"status":{"version":1,"formatVersion":"1.1.0","phase":"Completed","startTimestamp":"2026-01-01T00:00:00Z","completionTimestamp":"2026-01-01T00:00:01Z"}}"#;

fn plant(place: &Place, archive: &[u8]) {
    fs::create_dir_all(place.folder.join("backups/b")).unwrap();
    fs::write(place.file("b", "velero-backup.json"), MARKER).unwrap();
    fs::write(place.file("b", "b.tar.gz"), archive).unwrap();
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(tar).unwrap();
    packed.finish().unwrap()
}

fn header(path: &str, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    // Set as bytes: the builder itself refuses what an attacker writes.
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(size);
    header.set_mode(0o755);
    header.set_entry_type(kind);
    if kind == tar::EntryType::Symlink || kind == tar::EntryType::Link {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    header
}

fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (path, body) in entries {
        push(
            &mut tar,
            &header(path, body.len() as u64, tar::EntryType::Regular),
            body.as_bytes(),
        );
    }
    tar.extend([0; 1024]);
    tar
}

fn push(tar: &mut Vec<u8>, header: &tar::Header, body: &[u8]) {
    tar.extend_from_slice(header.as_bytes());
    tar.extend_from_slice(body);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

fn config_map(namespace: &str, name: &str, value: &str) -> (String, String) {
    (
        format!("resources/configmaps/namespaces/{namespace}/{name}.json"),
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"{namespace}"}},"data":{{"k":"{value}"}}}}"#
        ),
    )
}

fn refused(archive: &[u8], word: &str) {
    let place = Place::new();
    plant(&place, archive);
    let spool = place.folder.join("spool");
    let start = Instant::now();
    let run = place
        .run(&["restore", "create", "--from-backup", "b", "--spool-dir"])
        .arg(&spool)
        .code(1);
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "it took {:?}",
        start.elapsed()
    );
    assert!(
        run.stderr.contains(word),
        "not about {word:?}: {}",
        run.stderr
    );
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    let left = fs::read_dir(&spool).map_or(0, Iterator::count);
    assert_eq!(left, 0, "the spool is empty again");
}

#[test]
fn an_archive_that_is_truncated_or_no_gzip_is_refused() {
    let (path, body) = config_map("default", "x", "1");
    let good = gzip(&tar_of(&[(&path, &body)]));
    refused(&good[..good.len() - 9], "b.tar.gz");
    refused(&good[..good.len() / 2], "b.tar.gz");
    refused(b"this is no gzip", "gzip");
    refused(&gzip(&vec![7; 5000]), "tar");
}

#[test]
fn paths_that_leave_their_folder_and_links_are_refused() {
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"}}"#;
    refused(
        &gzip(&tar_of(&[(
            "resources/configmaps/namespaces/default/../../../../x.json",
            body,
        )])),
        "..",
    );
    refused(
        &gzip(&tar_of(&[(
            "/resources/configmaps/namespaces/default/x.json",
            body,
        )])),
        "/resources",
    );
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link] {
        let mut tar = Vec::new();
        push(
            &mut tar,
            &header("resources/configmaps/namespaces/default/x.json", 0, kind),
            b"",
        );
        tar.extend([0; 1024]);
        refused(&gzip(&tar), "link");
    }
}

#[test]
fn an_entry_of_2_gib_is_refused_at_its_header() {
    let mut tar = Vec::new();
    push(
        &mut tar,
        &header(
            "resources/configmaps/namespaces/default/x.json",
            2 << 30,
            tar::EntryType::Regular,
        ),
        b"",
    );
    refused(&gzip(&tar), "x.json");
}

#[test]
fn json_that_is_none_is_refused_and_named() {
    let (path, _) = config_map("default", "broken", "1");
    refused(&gzip(&tar_of(&[(&path, "{\"apiVersion\":")])), "broken");
}

#[test]
fn a_million_tiny_entries_are_worked_through_in_bounded_time_and_memory() {
    let place = Place::new();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    for number in 0..1_000_000 {
        let (path, body) = config_map("default", &format!("tiny-{number}"), "1");
        let mut one = Vec::new();
        let header = header(&path, body.len() as u64, tar::EntryType::Regular);
        push(&mut one, &header, body.as_bytes());
        packed.write_all(&one).unwrap();
    }
    packed.write_all(&[0; 1024]).unwrap();
    plant(&place, &packed.finish().unwrap());
    let running = place
        .run(&[
            "restore",
            "create",
            "--from-backup",
            "b",
            "--dry-run=client",
        ])
        .spawn();
    let pid = running.pid();
    let peak = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmHWM:"))
                .unwrap_or("0");
            peak = peak.max(
                line.trim()
                    .trim_end_matches(" kB")
                    .parse::<u64>()
                    .unwrap_or(0),
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        peak
    });
    // Minutes where the machine is busy: it is to end, not to be quick.
    let run = running.wait(Duration::from_secs(1200));
    assert_eq!(run.code, 0, "{}", run.stderr);
    let planned = run.stdout.lines().filter(|line| line.contains("tiny-"));
    assert_eq!(planned.count(), 1_000_000);
    assert!(peak.join().unwrap() < 200 << 10, "memory");
}

#[test]
fn of_an_object_that_comes_twice_the_last_counts_and_a_warning_says_so() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("twice");
    let (path, first) = config_map(&namespace, "x", "first");
    let (_, last) = config_map(&namespace, "x", "last");
    plant(&place, &gzip(&tar_of(&[(&path, &first), (&path, &last)])));
    let run = place.run(&["restore", "create", "--from-backup", "b"]).ok();
    assert!(
        run.stderr.contains("twice") || run.stderr.contains("more than once"),
        "{}",
        run.stderr
    );
    let restored = place
        .cluster
        .get_raw(&format!("/api/v1/namespaces/{namespace}/configmaps/x"));
    assert_eq!(restored["data"]["k"], "last");
}
