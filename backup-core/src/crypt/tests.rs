use std::io::{Read as _, Write as _};

use age::secrecy::ExposeSecret as _;
use bytes::Bytes;
use proptest::prelude::*;

use super::file::{self, HEAD, SEALED_CHUNK, Sealing, plain_size, sealed_size};
use super::*;
use crate::error::Kind;

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../tests/fixtures/encryption/", $name))
    };
}

const LOCKED_WITH: &str = "correct horse";

fn recipients(lines: &[&str]) -> Recipients {
    Recipients::parse(lines.iter().copied()).unwrap()
}

fn identities(files: &[&str], passphrase: Option<&str>) -> Identities {
    let mut identities = Identities::new(passphrase.map(Into::into));
    for (number, file) in files.iter().enumerate() {
        identities.add(&format!("file {number}"), file.as_bytes().to_vec());
    }
    identities
}

fn is_same(a: &BackupKey, b: &BackupKey) -> bool {
    a.text().expose_secret() == b.text().expose_secret()
}

#[test]
fn each_of_several_recipients_opens_the_key_alone_and_nobody_else_does() {
    let key = BackupKey::generate();
    let all = recipients(&[
        fixture!("first.pub"),
        fixture!("ed25519.pub"),
        fixture!("rsa.pub"),
        fixture!("locked.pub"),
    ]);
    let wrapped = all.wrap(&key, None).unwrap();
    for (file, passphrase) in [
        (fixture!("first.key"), None),
        (fixture!("ed25519"), None),
        (fixture!("rsa"), None),
        (fixture!("locked"), Some(LOCKED_WITH)),
    ] {
        let opened = identities(&[file], passphrase).open(&wrapped, "them");
        assert!(is_same(&opened.unwrap(), &key));
    }
    // One that fits is found among others.
    let several = identities(&[fixture!("second.key"), fixture!("rsa")], None);
    assert!(is_same(&several.open(&wrapped, "them").unwrap(), &key));
    for (others, passphrase, said) in [
        (&[][..], None, "no identity is given"),
        (
            &[fixture!("second.key")][..],
            None,
            "no identity that is given fits",
        ),
        (
            &[fixture!("locked")][..],
            None,
            "no identity that is given fits",
        ),
        (&[fixture!("locked")][..], Some("another"), "passphrase"),
    ] {
        let refused = identities(others, passphrase).open(&wrapped, "age1xyz...");
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unauthorized, "{refused}");
        assert!(refused.to_string().contains(said), "{refused}");
        assert!(refused.to_string().contains("age1xyz..."), "{refused}");
        assert!(
            refused.hint_text().unwrap().contains("--identity"),
            "{refused}"
        );
    }
}

#[test]
fn a_passphrase_stands_alone_and_opens_the_key() {
    let key = BackupKey::generate();
    let one = recipients(&[PASSPHRASE]);
    assert!(one.is_passphrase());
    let passphrase: SecretString = "battery staple".into();
    assert!(
        one.wrap(&key, None)
            .unwrap_err()
            .hint_text()
            .unwrap()
            .contains("--passphrase-file")
    );
    let wrapped = one.wrap(&key, Some(&passphrase)).unwrap();
    let opened = identities(&[fixture!("second.key")], Some("battery staple"));
    assert!(is_same(&opened.open(&wrapped, PASSPHRASE).unwrap(), &key));
    let refused = identities(&[], Some("staple")).open(&wrapped, PASSPHRASE);
    assert_eq!(refused.unwrap_err().kind(), Kind::Unauthorized);
    let beside = Recipients::parse([PASSPHRASE, fixture!("first.pub")]);
    assert!(beside.unwrap_err().to_string().contains("beside"));
    // Whoever writes to the bucket does not choose how long a reader works.
    let at = String::from_utf8_lossy(&wrapped).find(" 18\n").unwrap();
    let mut hostile = wrapped.to_vec();
    hostile[at..at + 4].copy_from_slice(b" 40\n");
    let refused = identities(&[], Some("battery staple")).open(&hostile, PASSPHRASE);
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt);
    assert!(refused.to_string().contains("2^40"), "{refused}");
}

#[test]
fn an_identity_file_that_is_encrypted_opens_with_its_passphrase() {
    let mut scrypt = age::scrypt::Recipient::new("open sesame".into());
    scrypt.set_work_factor(10);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&scrypt as _)).unwrap();
    let mut file = Vec::new();
    let mut writer = encryptor.wrap_output(&mut file).unwrap();
    writer.write_all(fixture!("first.key").as_bytes()).unwrap();
    writer.finish().unwrap();
    let key = BackupKey::generate();
    let wrapped = recipients(&[fixture!("first.pub")])
        .wrap(&key, None)
        .unwrap();
    let with = |passphrase: Option<&str>| {
        let mut identities = Identities::new(passphrase.map(Into::into));
        identities.add("my.age", file.clone());
        identities.open(&wrapped, "them")
    };
    assert!(is_same(&with(Some("open sesame")).unwrap(), &key));
    let refused = with(None).unwrap_err();
    assert!(
        refused
            .hint_text()
            .unwrap()
            .contains("my.age has a passphrase"),
        "{refused:?}"
    );
    assert_eq!(with(Some("open")).unwrap_err().kind(), Kind::Unauthorized);
}

#[test]
fn what_is_no_recipient_or_no_identity_is_refused_and_no_secret_is_repeated() {
    for (line, said) in [
        ("age1qqqq", "no recipient of age"),
        ("ssh-rsa AAAA", "no SSH key"),
        ("ssh-dss AAAA", "no SSH key"),
        ("me@example.com", "no recipient"),
        (fixture!("first.key").lines().last().unwrap(), "private"),
        (fixture!("ed25519"), "private"),
    ] {
        let refused = Recipients::parse([line]).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}");
        let all = format!("{refused} {refused:?}");
        for secret in [fixture!("first.key"), fixture!("ed25519")] {
            let lines = secret
                .lines()
                .filter(|line| line.len() > 20 && !line.contains("-----"));
            for line in lines.filter(|line| !line.starts_with('#')) {
                assert!(!all.contains(&line[..24]), "{all}");
            }
        }
    }
    assert!(recipients(&["# nobody", ""]).is_empty());
    assert_eq!(
        recipients(&[fixture!("first.pub"), fixture!("first.pub")])
            .fingerprints()
            .len(),
        1
    );
    let key = BackupKey::generate();
    let wrapped = recipients(&[fixture!("first.pub")])
        .wrap(&key, None)
        .unwrap();
    for odd in [
        "",
        "hello",
        "-----BEGIN OPENSSH PRIVATE KEY-----\n",
        fixture!("first.pub"),
    ] {
        let refused = identities(&[odd], None).open(&wrapped, "them").unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid, "{refused}");
    }
    let shown = format!(
        "{:?} {key:?}",
        identities(&[fixture!("first.key")], Some("secret"))
    );
    assert!(
        !shown.contains("SECRET-KEY") && !shown.contains("secret"),
        "{shown}"
    );
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    // ssh-keygen -lf tests/fixtures/encryption/ed25519.pub
    let all = recipients(&[fixture!("ed25519.pub"), fixture!("first.pub")]).fingerprints();
    assert_eq!(all[0], "SHA256:wztIG+uxBH5dDwlD1PvUBriVvOuBfI0xY2aBmMeXNMc");
    assert!(fixture!("first.pub").starts_with(all[1].trim_end_matches('.')));
    assert!(all[1].len() < 24, "{all:?}");
}

#[test]
fn a_key_file_that_was_altered_or_is_too_large_is_refused() {
    let key = BackupKey::generate();
    let wrapped = recipients(&[fixture!("first.pub")])
        .wrap(&key, None)
        .unwrap();
    let own = identities(&[fixture!("first.key")], None);
    for at in 0..wrapped.len() {
        let mut altered = wrapped.to_vec();
        altered[at] ^= 1;
        if let Ok(opened) = own.open(&altered, "them") {
            panic!("byte {at}: {opened:?}");
        }
        assert!(own.open(&wrapped[..at], "them").is_err(), "cut at {at}");
    }
    let large = vec![b'a'; LARGEST_KEY_FILE as usize + 1];
    assert!(
        own.open(&large, "them")
            .unwrap_err()
            .to_string()
            .contains("64 KiB")
    );
}

fn sample(length: usize) -> Bytes {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn identity() -> age::x25519::Identity {
    age::x25519::Identity::generate()
}

const LENGTHS: [usize; 9] = [0, 1, 15, 65_535, 65_536, 65_537, 131_072, 131_073, 300_000];

#[test]
fn files_are_those_of_the_age_crate_and_of_go_and_their_sizes_are_known() {
    let identity = identity();
    for length in LENGTHS {
        let plain = sample(length);
        let sealed = file::seal(&identity.to_public(), plain.clone()).unwrap();
        assert_eq!(sealed.len() as u64, sealed_size(length as u64));
        let sizes = plain_size(sealed.len() as u64).unwrap();
        assert_eq!(sizes.1, length as u64);
        assert_eq!(file::open(&identity, &sealed).unwrap(), plain);
        let decryptor = age::Decryptor::new(&sealed[..]).unwrap();
        let mut theirs = Vec::new();
        let mut reader = decryptor.decrypt(std::iter::once(&identity as _)).unwrap();
        reader.read_to_end(&mut theirs).unwrap();
        assert_eq!(theirs, plain);
    }
    for no_size in [
        0,
        HEAD,
        HEAD + 15,
        HEAD + SEALED_CHUNK + 1,
        HEAD + SEALED_CHUNK + 16,
    ] {
        assert_eq!(plain_size(no_size), None, "{no_size}");
    }
}

#[test]
fn what_was_altered_cut_lengthened_or_moved_does_not_open() {
    let identity = identity();
    let sealed = file::seal(&identity.to_public(), sample(200_000)).unwrap();
    let refused = |bytes: &[u8], how: &str| {
        let refused = file::open(&identity, bytes).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{how}: {refused}");
        refused.to_string()
    };
    let chunk = |number: u64| (HEAD + number * SEALED_CHUNK) as usize;
    for at in (0..HEAD as usize).chain([chunk(0) + 5, chunk(1) - 1, chunk(2), sealed.len() - 1]) {
        let mut altered = sealed.to_vec();
        altered[at] ^= 4;
        refused(&altered, &format!("byte {at}"));
    }
    for end in [
        0,
        1,
        HEAD as usize,
        chunk(1),
        chunk(2),
        chunk(3),
        sealed.len() - 1,
    ] {
        refused(&sealed[..end], &format!("cut at {end}"));
    }
    let mut longer = sealed.to_vec();
    longer.push(0);
    refused(&longer, "longer");
    let mut moved = sealed.to_vec();
    let (first, second) = moved[HEAD as usize..].split_at_mut(SEALED_CHUNK as usize);
    first.swap_with_slice(&mut second[..SEALED_CHUNK as usize]);
    assert!(refused(&moved, "moved").contains("moved"));
    let other = file::seal(&self::identity().to_public(), sample(200_000)).unwrap();
    assert!(refused(&other, "another's").contains("another key"));
    // Another file of the same backup has a key of its own: chunks do not fit across files.
    let beside = file::seal(&identity.to_public(), sample(200_000)).unwrap();
    let mixed = [&sealed[..chunk(1)], &beside[chunk(1)..]].concat();
    refused(&mixed, "of another file");
}

/// What an opener reads of it.
fn read(opener: &Opener, sealed: &[u8]) -> crate::Result<Result<Vec<u8>, std::io::Error>> {
    let mut plain = Vec::new();
    let mut reader = opener.reader(sealed)?;
    Ok(reader.read_to_end(&mut plain).map(|_| plain))
}

#[test]
fn a_file_for_several_is_read_by_each_of_them_and_cut_or_altered_by_nobody() {
    let all = recipients(&[
        fixture!("first.pub"),
        fixture!("ed25519.pub"),
        fixture!("rsa.pub"),
    ]);
    let mut sealing = all.sealing(None).unwrap();
    let mut sealed = sealing.seal(sample(200_000)).unwrap().to_vec();
    sealed.extend_from_slice(&sealing.finish().unwrap());
    for file in [fixture!("first.key"), fixture!("ed25519"), fixture!("rsa")] {
        let opener = Opener::Identities(identities(&[file], None));
        assert_eq!(read(&opener, &sealed).unwrap().unwrap(), sample(200_000));
        read(&opener, &sealed[..sealed.len() - 1])
            .unwrap()
            .unwrap_err();
        let mut altered = sealed.clone();
        *altered.last_mut().unwrap() ^= 1;
        read(&opener, &altered).unwrap().unwrap_err();
    }
    let other = Opener::Identities(identities(&[fixture!("second.key")], None));
    assert_eq!(
        read(&other, &sealed).unwrap_err().kind(),
        Kind::Unauthorized
    );
    // A passphrase alone.
    let mut sealing = recipients(&[PASSPHRASE])
        .sealing(Some(&"battery staple".into()))
        .unwrap();
    let mut sealed = sealing.seal(sample(10)).unwrap().to_vec();
    sealed.extend_from_slice(&sealing.finish().unwrap());
    let opener = Opener::Identities(identities(&[], Some("battery staple")));
    assert_eq!(read(&opener, &sealed).unwrap().unwrap(), sample(10));
}

#[test]
fn the_header_of_a_file_is_bounded_whoever_wrote_it() {
    let mut hostile = b"age-encryption.org/v1\n".to_vec();
    for _ in 0..10_000 {
        hostile.extend_from_slice(b"-> X25519 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAAA\n");
    }
    let opener = Opener::Identities(identities(&[fixture!("first.key")], None));
    let refused = read(&opener, &hostile).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
    let refused = read(&Opener::Key(BackupKey::generate()), &hostile).unwrap_err();
    assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
}

#[test]
fn a_key_opens_its_own_files_as_they_stream_by_and_no_others() {
    let (key, other) = (BackupKey::generate(), BackupKey::generate());
    for length in LENGTHS {
        let sealed = key.seal(sample(length)).unwrap();
        let opener = Opener::Key(key.clone());
        assert_eq!(read(&opener, &sealed).unwrap().unwrap(), sample(length));
        let refused = read(&Opener::Key(other.clone()), &sealed).unwrap_err();
        assert!(refused.to_string().contains("another key"), "{refused}");
        let unsealed = |sealed: &[u8], piece: usize| {
            let (mut unsealing, mut plain) = (key.unsealing(), Vec::new());
            for piece in sealed.chunks(piece) {
                plain.extend_from_slice(&unsealing.feed(piece)?);
            }
            plain.extend_from_slice(&unsealing.finish()?);
            Ok::<_, crate::Error>(plain)
        };
        for piece in [7, 65_552, 1 << 20] {
            assert_eq!(unsealed(&sealed, piece).unwrap(), sample(length));
        }
        let cuts = [1, HEAD, HEAD + SEALED_CHUNK, HEAD + 2 * SEALED_CHUNK];
        let cuts = cuts.into_iter().map(|cut| cut as usize);
        for end in cuts
            .chain([sealed.len() - 1])
            .filter(|end| *end < sealed.len())
        {
            let refused = unsealed(&sealed[..end], 1 << 20).unwrap_err();
            assert_eq!(refused.kind(), Kind::Corrupt, "{length} cut at {end}");
        }
        let longer = [&sealed[..], b"x"].concat();
        assert!(unsealed(&longer, 1 << 20).is_err());
    }
    let mut wrong = other.unsealing();
    let refused = wrong.feed(&key.seal(sample(10)).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("another key"), "{refused}");
}

#[test]
fn a_key_file_looks_like_one_whoever_it_is_for() {
    let all = [fixture!("first.pub").trim(), fixture!("second.pub").trim()];
    for lines in [&all[..1], &all[..]] {
        let file = recipients(lines)
            .wrap(&BackupKey::generate(), None)
            .unwrap();
        check_key_file(&file).unwrap();
        for end in [0, 10, file.len() / 2, file.len() - 91, file.len() - 2] {
            assert!(check_key_file(&file[..end]).is_err(), "cut at {end}");
        }
        let text = String::from_utf8_lossy(&file);
        let end = text.find("\n--- ").unwrap();
        let for_nobody = [&b"age-encryption.org/v1"[..], &file[end..]].concat();
        assert!(check_key_file(&for_nobody).is_err());
    }
    let passphrase: SecretString = LOCKED_WITH.to_owned().into();
    let file = recipients(&[PASSPHRASE]).wrap(&BackupKey::generate(), Some(&passphrase));
    check_key_file(&file.unwrap()).unwrap();
    assert!(check_key_file(&[b'x'; 300]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn however_bytes_arrive_the_file_is_the_same_to_who_opens_it(
        length in 0_usize..200_000,
        cuts in proptest::collection::vec(1_usize..90_000, 0..12),
    ) {
        let identity = identity();
        let plain = sample(length);
        let mut sealing = Sealing::begin(&identity.to_public()).unwrap();
        let (mut rest, mut sealed) = (plain.clone(), Vec::new());
        for cut in cuts {
            let piece = rest.split_to(cut.min(rest.len()));
            sealed.extend_from_slice(&sealing.seal(piece).unwrap());
        }
        sealed.extend_from_slice(&sealing.seal(rest).unwrap());
        sealed.extend_from_slice(&sealing.finish().unwrap());
        prop_assert_eq!(sealed.len() as u64, sealed_size(length as u64));
        prop_assert_eq!(file::open(&identity, &sealed).unwrap(), plain);
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(file::open(&identity(), &bytes).is_err());
        prop_assert!(check_key_file(&bytes).is_err());
        let own = identities(&[fixture!("first.key")], None);
        prop_assert!(own.open(&bytes, "them").is_err());
    }
}
