use super::*;

/// What `openssl genpkey -algorithm ed25519` (3.0) wrote, its public key, and its signature of `text\n` by `openssl pkeyutl -sign -rawin`.
const KEY: &str = "MC4CAQAwBQYDK2VwBCIEIDagrLykrCEyxU17BFw6t8A/VQItJjMmqtNYf9Dv9r1X";
const PUBLIC: &str = "MCowBQYDK2VwAyEAeZMXMnTRC7pqWWuGCRk9fPJx0qrJGlTN6kD4jxD7XoY=";
const SIGNED: &str =
    "P3WqvH5YwQJZPjiKBOZzuakrSTWtna67xNHLyNZj6MVUD9KC5hrTVja4MMakauM6ph/T3fF0TaL8bgbCaAStCA==";
const EC_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgSi5oNXjsw0X+LEI644Va5ZqM+kWE/ruEXaVgZAGm+k6hRANCAASWxgTcF0c5IvQNrXTpABG5inpFMPUikfK4T82JyaX78n1786XXOG087JAwVjx3Wz4xV2LewYR3AWDGoA6XdJ2v";
const EC_PUBLIC: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAElsYE3BdHOSL0Da106QARuYp6RTD1IpHyuE/Nicml+/J9e/Ol1zhtPOyQMFY8d1s+MVdi3sGEdwFgxqAOl3Sdrw==";

fn pem(label: &str, body: &str) -> Vec<u8> {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
}

fn key() -> SigningKey {
    SigningKey::from_pem(&pem("PRIVATE KEY", KEY)).unwrap()
}

fn another() -> SigningKey {
    SigningKey(Ed25519KeyPair::generate().unwrap())
}

#[test]
fn keys_and_signatures_are_those_of_openssl() {
    let public = VerifyKey::all_from_pem(&pem("PUBLIC KEY", PUBLIC)).unwrap();
    assert_eq!(public, [key().public()]);
    let signed = STANDARD.decode(SIGNED).unwrap();
    // Ed25519 signs the same text in the same way each time.
    assert_eq!(key().sign(b"text\n"), signed);
    assert!(public[0].has_signed(b"text\n", &signed));
    assert!(!public[0].has_signed(b"text", &signed));
    assert!(!another().public().has_signed(b"text\n", &signed));
    assert!(!public[0].has_signed(b"text\n", &signed[..63]));
    assert_eq!(public[0].to_string(), "5bf12e9377cb084977cc55288e5c2a16");
    let two = [pem("PUBLIC KEY", PUBLIC), pem("PUBLIC KEY", PUBLIC)].concat();
    assert_eq!(VerifyKey::all_from_pem(&two).unwrap().len(), 2);
}

#[test]
fn what_is_no_key_is_told_what_it_is() {
    for (label, body, says) in [
        ("ENCRYPTED PRIVATE KEY", KEY, "passphrase"),
        ("PUBLIC KEY", PUBLIC, "public key"),
        ("CERTIFICATE", PUBLIC, "no PEM block PRIVATE KEY"),
        ("PRIVATE KEY", EC_KEY, "another algorithm"),
        ("PRIVATE KEY", "AAAA", "another algorithm"),
    ] {
        let refused = SigningKey::from_pem(&pem(label, body)).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert!(!refused.sentence().contains(body), "{refused}");
    }
    for (label, body, says) in [
        ("PRIVATE KEY", KEY, "private one"),
        ("CERTIFICATE", PUBLIC, "no PEM block PUBLIC KEY"),
        ("PUBLIC KEY", EC_PUBLIC, "another algorithm"),
        ("PUBLIC KEY", "AAAA", "another algorithm"),
    ] {
        let refused = VerifyKey::all_from_pem(&pem(label, body)).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
    }
    assert!(!format!("{:?}", key()).contains(KEY));
}

#[test]
fn a_location_that_asks_for_keys_never_asks_for_none() {
    let keys = [key().public(), another().public()];
    assert_eq!(from_text(&to_text(&keys)).unwrap(), keys);
    assert_eq!(from_text(&format!(" {PUBLIC}\n")).unwrap(), keys[..1]);
    for odd in ["", " ", ",", "x", EC_PUBLIC, &format!("{PUBLIC},x")] {
        assert!(from_text(odd).is_err(), "{odd:?}");
        let mut spec = crate::api::BackupStorageLocation::default();
        spec.spec.provider = "local".to_owned();
        spec.spec.object_storage.bucket = "/x".to_owned();
        spec.metadata
            .annotations
            .insert(VERIFY_KEYS.to_owned(), odd.to_owned());
        let refused = crate::location::open(&spec, &crate::location::Credentials::default());
        assert!(refused.is_err(), "{odd:?}");
    }
}

#[test]
fn nothing_is_written_that_could_not_be_read() {
    let with = |sign: Option<SigningKey>, keys: &[VerifyKey]| Signatures {
        sign: sign.map(Arc::new),
        keys: keys.to_vec(),
    };
    let (own, other) = (key().public(), another().public());
    with(None, &[]).may_write("x").unwrap();
    with(Some(key()), &[]).may_write("x").unwrap();
    with(Some(key()), &[other, own]).may_write("x").unwrap();
    for refused in [with(None, &[own]), with(Some(key()), &[other])] {
        assert_eq!(refused.may_write("x").unwrap_err().kind(), Kind::Invalid);
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A signed backup of this name.
async fn signed(location: &Location, text: &str, by: &SigningKey) {
    let (store, keys) = (&location.store, BackupKeys::new(&name(text)));
    let marker = format!(
        r#"{{"apiVersion":"velero.io/v1","kind":"Backup","metadata":{{"name":"{text}","annotations":{{"kubectl-backup/version":"1"}}}},"status":{{"phase":"Completed"}}}}"#
    );
    let sums = Digests::new()
        .add_bytes(&keys.marker(), marker.as_bytes())
        .add_bytes(&keys.volume_info(), b"volumes")
        .to_bytes();
    for (key, bytes) in [
        (keys.volume_info(), "volumes".into()),
        (keys.digests(), sums.clone()),
        (keys.signature(), by.sign(&sums)),
        (keys.marker(), marker.into()),
    ] {
        store.put(&key, bytes).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_exchanged_after_it_was_looked_at_is_not_read() {
    let mut location = Location::in_memory("x");
    let key = key();
    signed(&location, "a", &key).await;
    let (a, keys) = (name("a"), BackupKeys::new(&name("a")));
    let store = location.store.clone();
    location.signatures.keys = vec![key.public()];
    let small = small_files(&location, &a).await.unwrap();
    let vouched = check(&location, &a).await.unwrap().unwrap();
    // The list of digests is written anew to fit.
    let marker = store.get(&keys.marker(), 1 << 20).await.unwrap();
    let sums = Digests::new()
        .add_bytes(&keys.marker(), &marker)
        .add_bytes(&keys.volume_info(), b"others");
    for (key, bytes) in [
        (keys.volume_info(), "others".into()),
        (keys.digests(), sums.to_bytes()),
    ] {
        store.put(&key, bytes).await.unwrap();
    }
    let told = small.get(&keys.volume_info(), 1 << 20).await.unwrap();
    assert_eq!(told, "volumes");
    assert_eq!(small.get(&keys.marker(), 1 << 20).await.unwrap(), marker);
    let signed = Some(vouched.digests());
    let found = catalog::verify_files(&store, &a, signed).await.unwrap();
    assert!(found.problems[0].contains("volumeinfo"), "{found:?}");
    let found = catalog::verify_files(&store, &a, None).await.unwrap();
    assert!(found.problems.is_empty(), "{found:?}");
    // Where it is exchanged in the middle, it is refused.
    let refused = vouched.small(&store).await.unwrap_err();
    assert!(refused.to_string().contains("volumeinfo"), "{refused}");
    // Of who asks for no key it is the store itself.
    location.signatures.keys.clear();
    let small = small_files(&location, &a).await.unwrap();
    let told = small.get(&keys.volume_info(), 1 << 20).await.unwrap();
    assert_eq!(told, "others");
}

#[tokio::test]
async fn a_backup_counts_only_as_the_owner_of_a_key_made_it() {
    let mut location = Location::in_memory("x");
    let (own, stranger) = (key(), another());
    signed(&location, "a", &own).await;
    signed(&location, "b", &own).await;
    signed(&location, "c", &stranger).await;
    assert!(check(&location, &name("c")).await.unwrap().is_none());
    location.signatures.keys = vec![another().public(), own.public()];
    let vouched = check(&location, &name("a")).await.unwrap().unwrap();
    assert_eq!(vouched.by, own.public());
    let refused = check(&location, &name("c")).await.unwrap_err();
    assert!(
        refused.to_string().contains("of none of the keys")
            && refused.to_string().contains(&own.public().to_string()),
        "{refused}"
    );

    let (a, b) = (BackupKeys::new(&name("a")), BackupKeys::new(&name("b")));
    let store = &location.store;
    let altered = Digests::new()
        .add_bytes("velero-backup.json", b"x")
        .to_bytes();
    let marker = store.get(&a.marker(), 1 << 20).await.unwrap();
    let later = String::from_utf8(marker.to_vec()).unwrap() + " ";
    let of_b = |key: String| async move { store.get(&key, 1 << 20).await.unwrap() };
    for (key, bytes, says) in [
        (a.signature(), None, "it is not signed"),
        (
            a.signature(),
            Some(Bytes::from(vec![0_u8; 65])),
            "is no signature",
        ),
        (
            a.signature(),
            Some(Bytes::from(vec![0_u8; 64])),
            "of none of the keys",
        ),
        (
            a.signature(),
            Some(of_b(b.signature()).await),
            "of none of the keys",
        ),
        (a.digests(), Some(altered), "of none of the keys"),
        (a.digests(), Some("x".into()), "SHA256SUMS is damaged"),
        (a.digests(), None, "SHA256SUMS is missing"),
        (
            a.marker(),
            Some(later.into()),
            "velero-backup.json is not what was signed",
        ),
    ] {
        let good = store.get(&key, 1 << 20).await.unwrap();
        match bytes {
            Some(bytes) => store.put(&key, bytes).await.unwrap(),
            None => store.delete(&key).await.unwrap(),
        }
        let refused = check(&location, &name("a")).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Corrupt, "{refused}");
        assert!(refused.to_string().contains(says), "{says}: {refused}");
        store.put(&key, good).await.unwrap();
    }
    // The whole of another signed backup, under this name.
    for (from, to) in [
        (b.digests(), a.digests()),
        (b.signature(), a.signature()),
        (b.marker(), a.marker()),
    ] {
        let bytes = store.get(&from, 1 << 20).await.unwrap();
        store.put(&to, bytes).await.unwrap();
    }
    let refused = check(&location, &name("a")).await.unwrap_err();
    assert!(refused.to_string().contains("not this backup"), "{refused}");
}

#[tokio::test]
async fn a_file_that_was_signed_and_one_that_was_not_are_told_apart() {
    let mut location = Location::in_memory("x");
    location.signatures.keys = vec![key().public()];
    signed(&location, "a", &key()).await;
    let vouched = check(&location, &name("a")).await.unwrap().unwrap();
    let (store, keys) = (&location.store, BackupKeys::new(&name("a")));
    vouched.file(store, &keys.volume_info()).await.unwrap();
    vouched.file(store, &keys.volume_snapshots()).await.unwrap();
    store.put(&keys.volume_info(), "v".into()).await.unwrap();
    store
        .put(&keys.volume_snapshots(), "v".into())
        .await
        .unwrap();
    for (key, says) in [
        (keys.volume_info(), "is not what was signed"),
        (keys.volume_snapshots(), "was not there when it was signed"),
    ] {
        let refused = vouched.file(store, &key).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
    }
    store.delete(&keys.volume_info()).await.unwrap();
    let refused = vouched.file(store, &keys.volume_info()).await.unwrap_err();
    assert!(refused.to_string().contains("is missing"), "{refused}");
}
