//! Damage is found and named.

use std::fs;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::place::Place;

fn filled() -> (Place, String) {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("verify");
    for name in ["one", "two", "three"] {
        place.cluster.kubectl(&[
            "-n",
            &namespace,
            "create",
            "configmap",
            name,
            "--from-literal=greeting=hello",
        ]);
    }
    place.run(&["create", "b", "-n", &namespace]).ok();
    let good = place.run(&["verify", "b"]).ok();
    assert!(good.stdout.contains('b'), "{}", good.stdout);
    (place, namespace)
}

#[test]
fn a_flipped_bit_in_any_file_is_found() {
    let (place, _) = filled();
    for file in place.files("b") {
        let path = place.file("b", &file);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let run = place.run(&["verify", "b"]).run();
        let said = format!("{}{}", run.stdout, run.stderr);
        // A flip in the list of digests may hit any file's line.
        let named = said.contains(&file) || file == "SHA256SUMS";
        assert!(run.code == 1 && named, "{file}: {said}");
        fs::write(&path, &good).unwrap();
    }
    place.run(&["verify", "b"]).ok();
}

#[test]
fn a_truncation_and_a_missing_file_are_found_and_named() {
    let (place, _) = filled();
    for file in ["b.tar.gz", "index.jsonl.zst", "b-resource-list.json.gz"] {
        let path = place.file("b", file);
        let good = fs::read(&path).unwrap();
        for keep in [0, 1, good.len() / 2, good.len() - 1] {
            fs::write(&path, &good[..keep]).unwrap();
            let run = place.run(&["verify", "b"]).code(1);
            assert!(
                format!("{}{}", run.stdout, run.stderr).contains(file),
                "{}{}",
                run.stdout,
                run.stderr
            );
        }
        fs::remove_file(&path).unwrap();
        let run = place.run(&["verify", "b"]).code(1);
        assert!(
            format!("{}{}", run.stdout, run.stderr).contains(file),
            "{}{}",
            run.stdout,
            run.stderr
        );
        fs::write(&path, &good).unwrap();
    }
}

#[test]
fn an_object_changed_and_packed_again_is_named() {
    let (place, namespace) = filled();
    let path = place.file("b", "b.tar.gz");
    let mut tar = Vec::new();
    MultiGzDecoder::new(&fs::read(&path).unwrap()[..])
        .read_to_end(&mut tar)
        .unwrap();
    // The same length, so that the archive stays a sound tar.
    let at = tar.windows(5).position(|five| five == b"hello").unwrap();
    tar[at..at + 5].copy_from_slice(b"holla");
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&tar).unwrap();
    fs::write(&path, packed.finish().unwrap()).unwrap();
    let run = place.run(&["verify", "b"]).code(1);
    let said = format!("{}{}", run.stdout, run.stderr);
    assert!(
        ["one", "two", "three"]
            .iter()
            .any(|name| said.contains(&format!("{namespace}/{name}"))),
        "{said}"
    );
}
