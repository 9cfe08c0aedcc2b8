use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::error::Kind;

fn spec(config: &[(&str, &str)]) -> BackupStorageLocation {
    BackupStorageLocation::at("azure", "c", config)
}

fn of(lines: &str) -> Credentials {
    Credentials {
        file: Some(lines.as_bytes().to_vec()),
        origin: Some("/keys.env".into()),
        ..Credentials::default()
    }
}

fn key() -> Credentials {
    let key = STANDARD.encode("hidden key");
    of(&format!(
        "# comment\nexport AZURE_STORAGE_ACCOUNT_ACCESS_KEY=\"{key}\"\n\nOTHER_KEY='{key}'\n"
    ))
}

const ACCOUNT: (&str, &str) = ("storageAccount", "account1");

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
fn the_place_says_whose_container_it_is() {
    assert_eq!(
        opened(&[ACCOUNT], &key()).unwrap(),
        r#"container "c" of Azure's account "account1""#
    );
    let uri = ("storageAccountURI", "http://127.0.0.1:10000/account1/");
    assert_eq!(
        opened(&[ACCOUNT, uri], &key()).unwrap(),
        r#"container "c" at http://127.0.0.1:10000/account1"#
    );
    // The account is a part of Azure's own addresses.
    let uri = ("storageAccountURI", "https://other.blob.core.windows.net");
    opened(&[uri], &key()).unwrap();
    assert!(fails(&[], &key()).contains("storageAccount"));
}

#[test]
fn every_key_of_veleros_is_taken() {
    for config in [
        &[("resourceGroup", "g"), ("subscriptionId", "s")][..],
        &[("storageAccountKeyEnvVar", "OTHER_KEY")],
        &[("blockSizeInBytes", "1048576"), ("useAAD", "false")],
        &[("activeDirectoryAuthorityURI", "https://login.example.com/")],
    ] {
        opened(&[&[ACCOUNT], config].concat(), &key()).unwrap();
    }
}

#[test]
fn every_way_to_sign_in_is_taken_and_half_of_one_is_refused_by_name() {
    let aad = ("useAAD", "true");
    let https = ("storageAccountURI", "https://127.0.0.1:1/account1");
    let secret = "AZURE_TENANT_ID=t\nAZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET=hidden\n";
    opened(&[ACCOUNT], &of(secret)).unwrap();
    opened(&[ACCOUNT, https], &of(secret)).unwrap();
    let cloud = format!("{secret}AZURE_CLOUD_NAME=AzureUSGovernmentCloud");
    opened(&[ACCOUNT], &of(&cloud)).unwrap();
    opened(
        &[ACCOUNT],
        &of("AZURE_STORAGE_SAS_TOKEN=?sv=1&sp=racwdl&sig=hidden%3D"),
    )
    .unwrap();
    opened(&[ACCOUNT], &of("AZURE_CLIENT_ID=user-assigned")).unwrap();
    opened(&[ACCOUNT], &Credentials::default()).unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let of_environment = |pairs: &[(&str, &str)]| Credentials {
        environment: pairs.iter().map(|(k, v)| pair(k, v)).collect(),
        ..Credentials::default()
    };
    let workload = [
        ("AZURE_TENANT_ID", "t"),
        ("AZURE_CLIENT_ID", "c"),
        ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
    ];
    opened(&[ACCOUNT], &of_environment(&workload)).unwrap();
    let uri = ("storageAccountURI", "http://127.0.0.1:1/account1");
    for (config, credentials, named) in [
        (&[ACCOUNT, uri][..], of(secret), "plain HTTP"),
        (
            &[ACCOUNT, uri],
            Credentials::default(),
            "--credentials-file",
        ),
        (
            &[ACCOUNT],
            of("AZURE_CLIENT_SECRET=hidden"),
            "AZURE_TENANT_ID",
        ),
        (
            &[ACCOUNT],
            of("AZURE_TENANT_ID=t\nAZURE_CLIENT_SECRET=hidden"),
            "AZURE_CLIENT_ID",
        ),
        (
            &[ACCOUNT],
            of("AZURE_TENANT_ID=../x\nAZURE_CLIENT_ID=c\nAZURE_CLIENT_SECRET=hidden"),
            "a tenant's id",
        ),
        (
            &[ACCOUNT],
            of_environment(&workload[1..]),
            "AZURE_TENANT_ID",
        ),
        (
            &[ACCOUNT],
            of("AZURE_CLIENT_CERTIFICATE_PATH=/hidden"),
            "AZURE_CLIENT_CERTIFICATE_PATH",
        ),
        (
            &[ACCOUNT],
            of("AZURE_STORAGE_SAS_TOKEN=hidden"),
            "is no SAS",
        ),
        (
            &[ACCOUNT],
            of("AZURE_STORAGE_ACCOUNT_ACCESS_KEY=~hidden~"),
            "AZURE_STORAGE_ACCOUNT_ACCESS_KEY in /keys.env is no access key",
        ),
        (
            &[ACCOUNT],
            of("[default]\naws_access_key_id=hidden"),
            "line 1",
        ),
        (&[ACCOUNT], of("NAME=hidden"), "nothing of Azure"),
        (
            &[ACCOUNT],
            of("AZURE_CLOUD_NAME=AzureGermanCloud\nAZURE_CLIENT_ID=c"),
            "AZURE_CLOUD_NAME",
        ),
        (&[ACCOUNT], of("AZURE_TENANT_ID=t"), "who we are"),
        (&[ACCOUNT, aad, uri], key(), "plain HTTP"),
        (
            &[ACCOUNT, ("storageAccountKeyEnvVar", "ABSENT")],
            key(),
            "ABSENT",
        ),
    ] {
        let text = fails(config, &credentials);
        assert!(text.contains(named), "{named}: {text}");
    }
}

#[test]
fn what_would_not_be_honoured_is_refused_by_its_name() {
    for (name, value, named) in [
        ("storageAccount", "Ac/count", "storageAccount"),
        ("storageAccountURI", "account1.blob", "storageAccountURI"),
        ("blockSizeInBytes", "1MiB", "blockSizeInBytes"),
        ("blockSizeInBytes", "0", "blockSizeInBytes"),
        ("useAAD", "perhaps", "useAAD"),
        (
            "activeDirectoryAuthorityURI",
            "login",
            "activeDirectoryAuthorityURI",
        ),
        ("storageAcount", "x", "storageAccount may be meant"),
    ] {
        let text = fails(&[ACCOUNT, (name, value)], &key());
        assert!(text.contains(named), "{name}={value}: {text}");
    }
}
