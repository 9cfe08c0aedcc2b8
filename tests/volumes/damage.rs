//! What is lost or altered in the bucket is named, and never comes back as something else.

use std::fs;

use super::{Place, VOLUME, packs};

#[test]
fn a_pack_that_is_gone_and_one_with_a_flipped_bit_are_named_by_us_and_by_restic() {
    let place = Place::folder();
    let source = place.home.join("source");
    fs::create_dir(&source).unwrap();
    let bytes: Vec<u8> = (0..500_000_u64)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    fs::write(source.join("a"), &bytes).unwrap();
    let saved = place.backup(&source).ok().json();
    let all = packs(&place);
    let pack = all
        .iter()
        .max_by_key(|pack| fs::metadata(pack).unwrap().len());
    let pack = pack.unwrap();
    let whole = fs::read(pack).unwrap();
    let mut flipped = whole.clone();
    flipped[1000] ^= 4;
    for (number, damaged) in [Some(flipped), None].into_iter().enumerate() {
        match damaged {
            Some(bytes) => fs::write(pack, bytes).unwrap(),
            None => fs::remove_file(pack).unwrap(),
        }
        let target = place.home.join(format!("back-{number}"));
        place.restore(&saved, &target).code(1);
        let said = place.mover(&["check", VOLUME, "--read-data"]).code(1);
        assert!(!said.stdout.is_empty());
        place
            .restic(1, &place.key(), &["check", "--read-data"])
            .code(1);
        fs::write(pack, &whole).unwrap();
    }
    place.mover(&["check", VOLUME, "--read-data"]).ok();
    place.restore(&saved, &place.home.join("whole")).ok();
    assert!(fs::read(place.home.join("whole/a")).unwrap() == bytes);
    place.checked_by_restic(&saved, &place.key(), &place.home.join("restic"));
}
