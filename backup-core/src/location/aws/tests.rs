use std::time::Duration;

use super::*;
use crate::error::Kind;

const FILE: &str = "# comment\n[default]\naws_access_key_id = AKID\naws_secret_access_key=hidden/+=x\n\n[profile other]\nAWS_ACCESS_KEY_ID=OTHER\naws_secret_access_key = hidden2\naws_session_token = hidden3\n[role]\nrole_arn = arn:x\nsource_profile = default\n[half]\naws_access_key_id = x\n";

fn spec(config: &[(&str, &str)]) -> BackupStorageLocation {
    BackupStorageLocation::at("aws", "b", config)
}

fn file() -> Credentials {
    Credentials {
        file: Some(FILE.into()),
        origin: Some("/keys".into()),
        ..Credentials::default()
    }
}

fn fails(config: &[(&str, &str)]) -> String {
    let error = open(&spec(config), &file()).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let text = format!("{error} / {}", error.hint_text().unwrap_or_default());
    assert!(!format!("{error:?}").contains("hidden"));
    text
}

#[test]
fn the_place_names_bucket_and_endpoint_and_no_keys() {
    let url = ("s3Url", "http://127.0.0.1:9000/");
    let backend = open(&spec(&[url]), &file()).unwrap();
    assert_eq!(backend.place(), r#"bucket "b" at http://127.0.0.1:9000"#);
    let backend = open(&spec(&[("region", "eu-1")]), &file()).unwrap();
    assert_eq!(backend.place(), r#"bucket "b" of AWS in eu-1"#);
    assert!(!format!("{:?}", file()).contains("hidden"));
}

#[test]
fn every_key_of_veleros_that_can_be_honoured_is_taken() {
    for config in [
        &[("profile", "other")][..],
        &[
            ("region", "x"),
            ("s3ForcePathStyle", "true"),
            ("publicUrl", "https://x"),
        ],
        &[
            ("s3Url", "https://s3.example.com"),
            ("s3ForcePathStyle", "false"),
        ],
        &[("kmsKeyId", "k")],
        &[("serverSideEncryption", "AES256")],
        &[("serverSideEncryption", "aws:kms"), ("kmsKeyId", "k")],
        &[("serverSideEncryption", "aws:kms:dsse")],
        &[("checksumAlgorithm", ""), ("tagging", "a=b&c=d%20e")],
        &[("checksumAlgorithm", "CRC32")],
        &[
            ("insecureSkipTLSVerify", "true"),
            ("enableSharedConfig", "true"),
        ],
        &[("signatureVersion", "4")],
    ] {
        open(&spec(config), &file()).map(|_| ()).unwrap();
    }
}

#[test]
fn what_would_not_be_honoured_is_refused_by_its_name() {
    for (key, value, named) in [
        ("s3Url", "minio:9000", "s3Url"),
        ("s3Url", "ftp://x", "s3Url"),
        ("s3Url", "https://a:hidden@x", "s3Url"),
        ("s3Url", "https://x?y", "s3Url"),
        ("s3ForcePathStyle", "yes please", "s3ForcePathStyle"),
        ("insecureSkipTLSVerify", "maybe", "insecureSkipTLSVerify"),
        ("region", "x@elsewhere.example/#", "region"),
        ("signatureVersion", "2", "signatureVersion"),
        ("serverSideEncryption", "rot13", "serverSideEncryption"),
        (
            "customerKeyEncryptionSecret",
            "s/k",
            "customerKeyEncryptionFile",
        ),
        (
            "customerKeyEncryptionFile",
            "/does/not/exist",
            "/does/not/exist",
        ),
        ("checksumAlgorithm", "MD5", "checksumAlgorithm"),
        ("tagging", "=x", "tagging"),
        ("profile", "nobody", "default, other, role, half"),
        ("profile", "half", "aws_secret_access_key"),
        ("profile", "role", "role_arn of [role]"),
    ] {
        let text = fails(&[(key, value)]);
        assert!(text.contains(named), "{key}={value}: {text}");
    }
    assert!(fails(&[("customerKeyEncryptionFile", "/x"), ("kmsKeyId", "y")]).contains("excludes"));
    let of_secret = spec(&[("customerKeyEncryptionSecret", "keys/sse")]);
    for (bytes, works) in [(32, true), (31, false)] {
        let credentials = Credentials {
            customer_key: Some(vec![7; bytes]),
            ..file()
        };
        assert_eq!(open(&of_secret, &credentials).is_ok(), works, "{bytes}");
    }
    let mut bad = spec(&[]);
    bad.spec.object_storage.bucket = "a/b".to_owned();
    let error = open(&bad, &file()).map(|_| ()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("prefix"));
    let mut bad = spec(&[]);
    bad.spec.object_storage.ca_cert = Some("%%%".to_owned());
    let error = open(&bad, &file()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("caCert"));
    bad.spec.object_storage.ca_cert = Some(BASE64.encode("no pem"));
    let error = open(&bad, &file()).map(|_| ()).unwrap_err();
    assert!(
        error.to_string().contains("holds no certificate"),
        "{error}"
    );
}

#[test]
fn keys_come_from_the_file_then_the_environment_and_are_missed_where_only_keys_can_work() {
    let url = spec(&[("s3Url", "http://localhost:9000")]);
    let mut nothing = Credentials::default();
    let error = open(&url, &nothing).map(|_| ()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("--credentials-file"));
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    nothing.environment = vec![
        pair("AWS_ACCESS_KEY_ID", "a"),
        pair("AWS_SECRET_ACCESS_KEY", "b"),
    ];
    open(&url, &nothing).map(|_| ()).unwrap();
    nothing
        .environment
        .push(pair("AWS_ENDPOINT_URL", "http://127.0.0.1:1"));
    nothing.environment.push(pair("AWS_REGION", "r"));
    let backend = open(&spec(&[]), &nothing).unwrap();
    assert_eq!(backend.place(), r#"bucket "b" at http://127.0.0.1:1"#);
    // Half a pair is no pair.
    nothing.environment.remove(1);
    let error = open(&spec(&[]), &nothing).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("AWS_SECRET_ACCESS_KEY is not"));
}

#[tokio::test]
async fn a_dead_endpoint_fails_soon_and_names_the_setting() {
    let mut location = spec(&[("s3Url", "http://127.0.0.1:9")]);
    location.metadata.name = "x".to_owned();
    let store = crate::location::open(&location, &file()).unwrap().store;
    let began = std::time::Instant::now();
    let error = store.folders("backups/").await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(25));
    assert_eq!(error.kind(), Kind::Unreachable);
    assert!(error.to_string().contains("http://127.0.0.1:9"), "{error}");
    assert!(error.hint_text().unwrap().contains("s3Url"));
}
