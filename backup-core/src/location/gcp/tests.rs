use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::error::Kind;

/// A key in PEM.
fn key() -> &'static str {
    static KEY: OnceLock<String> = OnceLock::new();
    KEY.get_or_init(|| {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let body = STANDARD.encode(der.as_ref());
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    })
}

fn spec(config: &[(&str, &str)]) -> BackupStorageLocation {
    BackupStorageLocation::at("gcp", "b", config)
}

fn of(file: serde_json::Value) -> Credentials {
    Credentials {
        file: Some(file.to_string().into_bytes()),
        origin: Some("/keys.json".into()),
        ..Credentials::default()
    }
}

fn service_account() -> serde_json::Value {
    serde_json::json!({
        "type": "service_account", "private_key": key(), "private_key_id": "hidden-id",
        "client_email": "backup@project.iam.gserviceaccount.com",
    })
}

fn opened(config: &[(&str, &str)], credentials: &Credentials) -> Result<String> {
    open(&spec(config), credentials).map(|backend| backend.place().to_owned())
}

fn fails(config: &[(&str, &str)], credentials: &Credentials) -> String {
    let error = opened(config, credentials).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(!format!("{error:?}").contains("hidden"), "{error:?}");
    format!("{error} / {}", error.hint_text().unwrap_or_default())
}

#[test]
fn the_place_says_whose_bucket_it_is() {
    let key = of(service_account());
    assert_eq!(opened(&[], &key).unwrap(), r#"bucket "b" of Google Cloud"#);
    // The JSON API's path, which Velero's plugin wants, is not the XML API's.
    let endpoint = ("storeEndpoint", "https://store.example.com/storage/v1/");
    assert_eq!(
        opened(&[endpoint], &key).unwrap(),
        r#"bucket "b" at https://store.example.com"#
    );
    let universe = ("universeDomain", "apis-berlin.goog");
    assert_eq!(
        opened(&[universe], &key).unwrap(),
        r#"bucket "b" of apis-berlin.goog"#
    );
    let mut file = service_account();
    file["universe_domain"] = "apis-berlin.goog".into();
    assert_eq!(
        opened(&[], &of(file)).unwrap(),
        r#"bucket "b" of apis-berlin.goog"#
    );
}

#[test]
fn every_way_to_sign_in_is_told_by_the_file_and_others_are_refused_by_name() {
    let user = serde_json::json!({
        "type": "authorized_user", "client_id": "c", "client_secret": "hidden", "refresh_token": "hidden",
    });
    opened(&[], &of(user.clone())).unwrap();
    let federated = serde_json::json!({
        "type": "external_account", "audience": "//iam.googleapis.com/x", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token", "credential_source": {"file": "/var/run/token"},
        "service_account_impersonation_url": "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/x:generateAccessToken",
    });
    opened(&[("serviceAccount", "x@y")], &of(federated.clone())).unwrap();
    let with = |file: &serde_json::Value, key: &str, value: serde_json::Value| {
        let mut file = file.clone();
        file[key] = value;
        of(file)
    };
    let key = service_account();
    let null = serde_json::Value::Null;
    let aws = serde_json::json!({"environment_id": "aws1", "url": "http://169.254.169.254/x"});
    let program = serde_json::json!({"executable": {"command": "/bin/hidden"}});
    for (credentials, named) in [
        (with(&key, "client_email", null.clone()), "client_email"),
        (
            with(&key, "private_key", "hidden".into()),
            "private_key of /keys.json is none",
        ),
        (
            with(&key, "type", "gdch_service_account".into()),
            "gdch_service_account",
        ),
        (with(&key, "type", "".into()), "no type"),
        (with(&user, "refresh_token", null.clone()), "refresh_token"),
        (
            with(&user, "token_uri", "https://elsewhere.example.com/".into()),
            "not sent to elsewhere.example.com",
        ),
        (
            with(
                &federated,
                "token_url",
                "https://sts.googleapis.com.example.com/".into(),
            ),
            "not sent to sts.googleapis.com.example.com",
        ),
        (
            with(&federated, "token_url", "http://sts.googleapis.com/".into()),
            "token_url",
        ),
        (with(&federated, "credential_source", aws), "AWS"),
        (with(&federated, "credential_source", program), "a program"),
        (with(&federated, "audience", null.clone()), "audience"),
        (
            with(&federated, "credential_source", null),
            "credential_source",
        ),
    ] {
        let text = fails(&[], &credentials);
        assert!(text.contains(named), "{named}: {text}");
    }
    let broken = Credentials {
        file: Some(b"{\"private_key\": \"hidden\", ".to_vec()),
        ..Credentials::default()
    };
    assert!(fails(&[], &broken).contains("line 1"));
}

#[test]
fn what_would_not_be_honoured_is_refused_by_its_name() {
    let key = of(service_account());
    for (name, value, named) in [
        ("credentialsFile", "/cred", "--credentials-file"),
        ("storeEndpoint", "store:1", "storeEndpoint"),
        ("storeEndpoint", "https://a:hidden@x", "storeEndpoint"),
        ("universeDomain", "x/y@elsewhere", "universeDomain"),
        ("kmsKeyName", "key", "projects/P/locations/L"),
        ("kmsKeyname", "key", "kmsKeyName may be meant"),
        ("region", "x", "the keys of provider gcp are"),
    ] {
        let text = fails(&[(name, value)], &key);
        assert!(text.contains(named), "{name}={value}: {text}");
    }
    let mut nameless = spec(&[]);
    nameless.spec.object_storage.bucket.clear();
    open(&nameless, &key).map(|_| ()).unwrap_err();
}

#[test]
fn the_environment_names_a_file_or_the_metadata_server() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut nothing = Credentials::default();
    opened(&[], &nothing).unwrap();
    nothing.environment = vec![pair("GOOGLE_APPLICATION_CREDENTIALS", "/does/not/exist")];
    assert!(fails(&[], &nothing).contains("/does/not/exist"));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(".config/gcloud");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join("application_default_credentials.json"),
        r#"{"type": "of_home"}"#,
    )
    .unwrap();
    nothing.environment = vec![pair("HOME", home.path().to_str().unwrap())];
    assert!(fails(&[], &nothing).contains("of_home"));
}

#[test]
fn the_key_is_named_where_an_object_is_made_and_nowhere_else() {
    let request = |method: Method, target: &str| {
        let request = http::Request::builder().method(method).uri(target);
        makes_an_object(
            &request
                .body(object_store::client::HttpRequestBody::empty())
                .unwrap(),
        )
    };
    assert!(request(Method::PUT, "https://s/b/o"));
    assert!(request(Method::POST, "https://s/b/o?uploads="));
    for (method, target) in [
        (Method::PUT, "https://s/b/o?partNumber=1&uploadId=uploads"),
        (Method::POST, "https://s/b/o?uploadId=x"),
        (Method::DELETE, "https://s/b/o"),
        (Method::GET, "https://s/b/o"),
    ] {
        assert!(!request(method, target), "{target}");
    }
}
