//! The location that an installation begins with: what this machine knows of it becomes an object, and its keys a Secret beside it. Reads files and the
//! environment of this machine; what it read of keys goes into the Secret alone, and of a file of several profiles only those that are meant: a role with
//! the keys it is taken with.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backup_cli::error::{CommandError, Result};
use backup_cli::locations::{self, CREDENTIALS_FILE, LocationArgs, REPLICATE_TO, SIGNING_KEY_FILE};
use backup_core::Error;
use backup_core::api::{BackupStorageLocation, SecretKey};
use backup_core::crypt::{ENCRYPT, Encrypt, RECIPIENTS, Recipients};
use backup_core::location::{Credentials, credentials_file, leads_elsewhere};
use backup_core::signature::VERIFY_KEYS;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{CONTROLLER, Piece, labels};

/// The key with the credentials file, as Velero's documentation has it.
const KEY: &str = "cloud";

/// The key with the key that the store encrypts with.
const CUSTOMER_KEY: &str = "customer-key";

/// What says which keys are meant.
const VARIABLES: [&str; 7] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_STS",
];

/// A location, with its Secret where it has one.
#[derive(Debug)]
pub(crate) struct Place {
    /// The Secret, then the location.
    pub(crate) pieces: Vec<Piece>,
    /// How the Secret is made by hand, where there is one.
    pub(crate) by_hand: Option<String>,
}

/// A variable of the environment; an empty one is none.
pub(crate) type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The location as the cluster is to have it. `known` is a credentials file that was read already.
///
/// # Errors
/// One that means something of this machine alone; files that can not be read; keys that do not last.
pub(crate) fn of(
    location: BackupStorageLocation,
    given: &LocationArgs,
    known: Option<Vec<u8>>,
    variable: Variable<'_>,
    namespace: &str,
) -> Result<Place> {
    let annotations = &location.metadata.annotations;
    for (key, why) in [
        (
            VERIFY_KEYS,
            "its backups have to be signed, and the controller has no key to sign with",
        ),
        (
            SIGNING_KEY_FILE,
            "its backups are signed, and the controller has no key to sign with",
        ),
        (
            REPLICATE_TO,
            "its backups are copied to locations that the cluster does not have",
        ),
    ] {
        if annotations.contains_key(key) {
            return Err(refused(
                &format!(
                    "location {:?} is not for a controller: {why}",
                    location.metadata.name
                ),
                "give the controller a location, or a prefix, of its own",
            ));
        }
    }
    let recipients = Recipients::of_location(&location).map_err(CommandError::usage)?;
    let encrypt = Encrypt::of_location(&location).map_err(CommandError::usage)?;
    if recipients.is_passphrase() {
        return Err(refused(
            &format!(
                "location {:?} is not for a controller: its backups are encrypted with a passphrase, and the controller has none",
                location.metadata.name
            ),
            "give the location public keys as recipients, or the controller one of its own",
        ));
    }
    let name = match location.metadata.name.as_str() {
        url if url.contains("://") => "default".to_owned(),
        // The folder of one cluster in a bucket of KKP's.
        name => name.split('/').next().unwrap_or_default().to_owned(),
    };
    let Carried {
        mut location,
        credentials,
        customer_key,
    } = carried(location, given, known, variable)?;
    let spec = &mut location.spec;
    let secret = format!("{name}-credentials");
    let mut data = serde_json::Map::new();
    let mut by_hand = format!("kubectl create secret generic {secret} --namespace {namespace}");
    if let Some(keys) = credentials {
        data.insert(KEY.to_owned(), STANDARD.encode(keys).into());
        by_hand += &format!(" --from-file={KEY}=FILE");
        spec.credential = Some(SecretKey {
            name: secret.clone(),
            key: KEY.to_owned(),
        });
    }
    if let Some(key) = customer_key {
        data.insert(CUSTOMER_KEY.to_owned(), STANDARD.encode(key).into());
        by_hand += &format!(" --from-file={CUSTOMER_KEY}=FILE");
        let named = format!("{secret}/{CUSTOMER_KEY}");
        spec.config
            .insert("customerKeyEncryptionSecret".to_owned(), named);
    }
    spec.default = true;
    let labels = labels(CONTROLLER);
    let spec = serde_json::to_value(&location.spec)
        .map_err(|e| Error::other("the location can not be written as JSON").because(e))?;
    let mut pieces = Vec::new();
    let has_secret = !data.is_empty();
    if has_secret {
        pieces.push(Piece::new(
            format!("/api/v1/namespaces/{namespace}/secrets"),
            json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": Value::Object(data),
                "metadata": {"name": secret, "namespace": namespace, "labels": labels},
            }),
        ));
    }
    let mut object = json!({
        "apiVersion": "velero.io/v1", "kind": "BackupStorageLocation",
        "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": spec,
    });
    if !recipients.is_empty() {
        object["metadata"]["annotations"] = json!({RECIPIENTS: recipients.to_lines()});
        if encrypt == Some(Encrypt::Secrets) {
            object["metadata"]["annotations"][ENCRYPT] = Encrypt::Secrets.word().into();
        }
    }
    pieces.push(Piece::new(
        format!("/apis/velero.io/v1/namespaces/{namespace}/backupstoragelocations"),
        object,
    ));
    Ok(Place {
        pieces,
        by_hand: has_secret.then_some(by_hand),
    })
}

/// A location as it works without this machine, and what has to go along with it.
pub(crate) struct Carried {
    /// Its settings; they name no file.
    pub(crate) location: BackupStorageLocation,
    /// The credentials file, in Velero's format; of several profiles the one that is meant.
    pub(crate) credentials: Option<Vec<u8>>,
    /// The key that the store encrypts with.
    pub(crate) customer_key: Option<Vec<u8>>,
}

/// What this machine knows of a location, so that it can be used elsewhere. `known` is a credentials file that was read already.
///
/// # Errors
/// A folder; files that can not be read; keys that do not last.
pub(crate) fn carried(
    mut location: BackupStorageLocation,
    given: &LocationArgs,
    known: Option<Vec<u8>>,
    variable: Variable<'_>,
) -> Result<Carried> {
    let name = location.metadata.name.clone();
    let spec = &mut location.spec;
    if spec.provider.trim_start_matches("velero.io/") == "local" {
        return Err(refused(
            "a folder of this machine can be no location of the cluster",
            "name a bucket: --location s3://bucket/prefix",
        ));
    }
    let remembered = location.metadata.annotations.get(CREDENTIALS_FILE);
    let file = given.given_credentials().map(Path::to_owned);
    let file = file.or(remembered.map(PathBuf::from));
    let provider = spec.provider.trim_start_matches("velero.io/").to_owned();
    let is_aws = provider == "aws";
    // What the environment says here, nobody says there.
    for (key, names) in [
        ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"]),
        ("s3Url", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
    ]
    .into_iter()
    .filter(|_| is_aws)
    {
        let is_said = spec.config.get(key).is_some_and(|value| !value.is_empty());
        if let Some(value) = names.into_iter().find_map(variable).filter(|_| !is_said) {
            spec.config.insert(key.to_owned(), value);
        }
    }
    let ca = given
        .cacert
        .as_ref()
        .or(given.cacert_of_environment.as_ref());
    let ca = ca.cloned().or_else(|| {
        variable("AWS_CA_BUNDLE")
            .filter(|_| is_aws)
            .map(PathBuf::from)
    });
    if let Some(ca) = ca {
        spec.object_storage.ca_cert = Some(STANDARD.encode(read(&ca, "the CA file")?));
    }
    let found = match (
        known.filter(|_| given.credentials_file.is_none()),
        provider.as_str(),
    ) {
        (Some(known), _) => Some(known),
        (None, "gcp") => google(file, variable)?,
        (None, "azure") => azure(file.as_deref(), variable)?,
        (None, _) => keys(&location, file.as_deref(), variable)?.map(String::into_bytes),
    };
    let spec = &mut location.spec;
    spec.config.remove("profile");
    if found.is_none() && leads_elsewhere(spec).is_some() {
        return Err(refused(
            &format!(
                "location {name:?} has no credentials, and a store of its own does not know the controller without"
            ),
            "give --credentials-file, or the provider's variables, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ));
    }
    let customer_key = match spec.config.remove("customerKeyEncryptionFile") {
        Some(file) => Some(read(Path::new(&file), "the key file")?),
        None => None,
    };
    Ok(Carried {
        location,
        credentials: found,
        customer_key,
    })
}

/// Keys and roles as a credentials file has them; nothing where neither a file nor the environment has any.
fn keys(
    location: &BackupStorageLocation,
    file: Option<&Path>,
    variable: Variable<'_>,
) -> Result<Option<String>> {
    let environment: Vec<_> = VARIABLES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), variable(name)?)))
        .collect();
    let mut credentials = Credentials {
        role: locations::role(location),
        ..Credentials::default()
    };
    let mut location = location.clone();
    if let Some(file) = file {
        credentials.file = Some(read(file, "the credentials file")?);
        credentials.origin = Some(file.display().to_string());
        credentials.beside_file = environment;
        let config = &mut location.spec.config;
        let is_said = config.get("profile").is_some_and(|name| !name.is_empty());
        if let Some(profile) = variable("AWS_PROFILE").filter(|_| !is_said) {
            config.insert("profile".to_owned(), profile);
        }
    } else {
        credentials.environment = environment;
        credentials.shared = locations::shared(&|name| variable(name).map(OsString::from))?;
    }
    let found = credentials_file(&location, &credentials).map_err(CommandError::usage)?;
    if found.is_none() && file.is_some() {
        return Err(refused(
            "the credentials file names what only this machine has, such as a token's file",
            "give keys that last, or give the pod a role of its own and the location no credentials",
        ));
    }
    Ok(found)
}

/// Google's credentials file, whole; a person's own is left here.
fn google(file: Option<PathBuf>, variable: Variable<'_>) -> Result<Option<Vec<u8>>> {
    let named = || variable("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
    let Some(path) = file.or_else(named) else {
        return Ok(None);
    };
    let bytes = read(&path, "the credentials file")?;
    let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    if parsed["type"] == "authorized_user" {
        return Err(refused(
            &format!(
                "{} is a person's own: it ends when they sign out",
                path.display()
            ),
            "give the key of a service account with --credentials-file",
        ));
    }
    Ok(Some(bytes))
}

/// Azure's credentials file, or the same lines of the environment.
fn azure(file: Option<&Path>, variable: Variable<'_>) -> Result<Option<Vec<u8>>> {
    const NAMES: [&str; 8] = [
        "AZURE_STORAGE_ACCOUNT_ACCESS_KEY",
        "AZURE_STORAGE_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_CLOUD_NAME",
        "AZURE_STORAGE_ACCOUNT",
    ];
    if let Some(file) = file {
        return read(file, "the credentials file").map(Some);
    }
    let has_keys = ["KEY", "TOKEN", "SECRET"].iter().any(|end| {
        NAMES
            .iter()
            .any(|name| name.ends_with(end) && variable(name).is_some())
    });
    let line = |name: &&str| Some(format!("{name}={}\n", variable(name)?));
    let lines: String = NAMES.iter().filter_map(line).collect();
    Ok(has_keys.then(|| lines.into_bytes()))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        CommandError::usage(
            Error::invalid(format!("can not read {what} {}", path.display())).because(e),
        )
    })
}

fn refused(why: &str, hint: &str) -> CommandError {
    CommandError::usage(Error::invalid(why).hint(hint))
}

#[cfg(test)]
mod tests {
    use backup_cli::error::Exit;
    use backup_core::location::url;

    use super::*;

    const FILE: &str = "[other]\naws_access_key_id=OTHER\naws_secret_access_key=other-secret\n[work]\naws_access_key_id=WORK\naws_secret_access_key=work-secret\n";

    fn location(url: &str) -> BackupStorageLocation {
        url::parse(url).unwrap().unwrap()
    }

    fn environment<'a>(all: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = all.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn held(piece: &Piece) -> String {
        let cloud = piece.object["data"][KEY].as_str().unwrap();
        String::from_utf8(STANDARD.decode(cloud).unwrap()).unwrap()
    }

    #[test]
    fn recipients_go_along_and_what_a_controller_lacks_is_refused() {
        let key = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
        let variables = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "S")];
        let given = LocationArgs::default();
        let with = |annotation: &str, value: &str| {
            let mut sealed = location("s3://b/p");
            sealed.metadata.name = "sealed".to_owned();
            let annotations = &mut sealed.metadata.annotations;
            if annotation == ENCRYPT {
                annotations.insert(RECIPIENTS.to_owned(), key.to_owned());
            }
            annotations.insert(annotation.to_owned(), value.to_owned());
            of(sealed, &given, None, &environment(&variables), "ns")
        };
        for (annotation, value) in [(RECIPIENTS, key), (ENCRYPT, "secrets")] {
            let place = with(annotation, value).unwrap();
            let annotations = &place.pieces[1].object["metadata"]["annotations"];
            assert_eq!(annotations[RECIPIENTS], key);
            assert_eq!(annotations[annotation], value);
        }
        for (annotation, value, says) in [
            (RECIPIENTS, "passphrase", "passphrase"),
            (RECIPIENTS, "age1", "recipient"),
            (VERIFY_KEYS, "x", "signed"),
            (SIGNING_KEY_FILE, "/x", "signed"),
            (REPLICATE_TO, "offsite", "copied"),
        ] {
            let refused = with(annotation, value).unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{annotation}");
            assert!(refused.error().sentence().contains(says), "{annotation}");
        }
    }

    #[test]
    fn of_a_file_with_several_profiles_one_goes_into_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(&file, FILE).unwrap();
        let given = LocationArgs {
            credentials_file: Some(file),
            ..LocationArgs::default()
        };
        let mut named = location("s3://b/p?endpoint=https://minio:9000&region=x&profile=work");
        named.metadata.name = "offsite".to_owned();
        let place = of(named, &given, None, &environment(&[]), "ns").unwrap();
        let [secret, object] = &place.pieces[..] else {
            panic!("{place:?}")
        };
        assert_eq!(
            secret.path(),
            "/api/v1/namespaces/ns/secrets/offsite-credentials"
        );
        assert_eq!(
            held(secret),
            "[default]\naws_access_key_id = WORK\naws_secret_access_key = work-secret\n"
        );
        let spec = &object.object["spec"];
        assert_eq!(
            spec["credential"],
            json!({"name": "offsite-credentials", "key": "cloud"})
        );
        assert_eq!(
            spec["config"],
            json!({"region": "x", "s3Url": "https://minio:9000"})
        );
        assert_eq!(spec["objectStorage"], json!({"bucket": "b", "prefix": "p"}));
        assert_eq!(spec["default"], true);
        assert_eq!(object.object["metadata"]["annotations"], Value::Null);
        // What may be shown holds nothing of it.
        let shown = format!("{} {:?}", object.object, place.by_hand);
        assert!(!shown.contains("WORK") && !shown.contains("work-secret"));
    }

    #[test]
    fn a_role_goes_along_with_the_keys_it_is_taken_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        let text = "[work]\nrole_arn=arn:aws:iam::123456789012:role/b\nsource_profile=other\nexternal_id=x1\n";
        std::fs::write(&file, format!("{FILE}{text}").replace("WORK", "not-this")).unwrap();
        let given = LocationArgs {
            credentials_file: Some(file),
            ..LocationArgs::default()
        };
        let mut named = location("s3://b/p?region=eu-1&profile=work");
        named.metadata.annotations.insert(
            locations::ROLE_ARN.to_owned(),
            "arn:aws:iam::210987654321:role/c".to_owned(),
        );
        let place = of(named, &given, None, &environment(&[]), "ns").unwrap();
        let role = "role_session_name = kubectl-backup\nduration_seconds = 3600\nregion = eu-1\n";
        assert_eq!(
            held(&place.pieces[0]),
            format!(
                "[default]\nrole_arn = arn:aws:iam::210987654321:role/c\n{role}source_profile = source-1\n\n\
                 [source-1]\nrole_arn = arn:aws:iam::123456789012:role/b\nexternal_id = x1\n{role}source_profile = source-2\n\n\
                 [source-2]\naws_access_key_id = OTHER\naws_secret_access_key = other-secret\n"
            )
        );
        assert_eq!(
            place.pieces[1].object["spec"]["config"],
            json!({"region": "eu-1"})
        );
    }

    #[test]
    fn keys_of_google_and_azure_go_along_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.json");
        std::fs::write(&key, r#"{"type": "service_account"}"#).unwrap();
        let of_file = LocationArgs {
            credentials_file: Some(key.clone()),
            ..LocationArgs::default()
        };
        let secret = |place: &Place| {
            let data = &place.pieces[0].object["data"][KEY];
            String::from_utf8(STANDARD.decode(data.as_str().unwrap()).unwrap()).unwrap()
        };
        let place = of(location("gs://b"), &of_file, None, &environment(&[]), "ns").unwrap();
        assert_eq!(secret(&place), r#"{"type": "service_account"}"#);
        // What is Amazon's stays here.
        let variables = [
            ("AWS_ENDPOINT_URL", "http://store:9000"),
            ("AZURE_STORAGE_KEY", "S"),
            ("AZURE_CLOUD_NAME", "AzureChinaCloud"),
        ];
        let given = LocationArgs::default();
        let url = "az://c?storage-account=account";
        let place = of(location(url), &given, None, &environment(&variables), "ns").unwrap();
        assert_eq!(
            secret(&place),
            "AZURE_STORAGE_KEY=S\nAZURE_CLOUD_NAME=AzureChinaCloud\n"
        );
        assert_eq!(
            place.pieces[1].object["spec"]["config"],
            json!({"storageAccount": "account"})
        );
        std::fs::write(&key, r#"{"type": "authorized_user"}"#).unwrap();
        let refused = of(location("gs://b"), &of_file, None, &environment(&[]), "ns").unwrap_err();
        assert!(refused.error().to_string().contains("a person's own"));
        let own = "gs://b?endpoint=https://store";
        of(location(own), &given, None, &environment(&[]), "ns").unwrap_err();
    }

    #[test]
    fn what_the_environment_says_goes_along() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "S"),
            ("AWS_REGION", "r"),
            ("AWS_ENDPOINT_URL", "http://store:9000"),
        ];
        let given = LocationArgs::default();
        let place = of(
            location("s3://b"),
            &given,
            None,
            &environment(&variables),
            "ns",
        )
        .unwrap();
        assert!(held(&place.pieces[0]).contains("aws_access_key_id = A\n"));
        let object = &place.pieces[1].object;
        assert_eq!(object["metadata"]["name"], "default");
        assert_eq!(
            object["spec"]["config"],
            json!({"region": "r", "s3Url": "http://store:9000"})
        );
        // On AWS itself the pod may have a role of its own.
        let place = of(
            location("s3://b"),
            &given,
            None,
            &environment(&variables[2..3]),
            "ns",
        )
        .unwrap();
        assert_eq!(place.pieces.len(), 1);
        assert_eq!(place.pieces[0].object["spec"]["credential"], Value::Null);
    }

    #[test]
    fn what_would_not_work_there_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("credentials");
        std::fs::write(
            &file,
            "[default]\n[token]\nrole_arn = arn:aws:iam::123456789012:role/b\nweb_identity_token_file = /t\n",
        )
        .unwrap();
        let with = |file: PathBuf| LocationArgs {
            credentials_file: Some(file),
            ..LocationArgs::default()
        };
        let temporary = [
            ("AWS_ACCESS_KEY_ID", "A"),
            ("AWS_SECRET_ACCESS_KEY", "S"),
            ("AWS_SESSION_TOKEN", "T"),
        ];
        let none = LocationArgs::default();
        for (url, given, variables, part) in [
            (
                "file:///backups",
                none.clone(),
                &temporary[..0],
                "this machine",
            ),
            (
                "s3://b?endpoint=http://x",
                none.clone(),
                &temporary[..0],
                "no keys",
            ),
            ("s3://b", none, &temporary[..], "session token"),
            (
                "s3://b",
                with(file.clone()),
                &temporary[..0],
                "no aws_access_key_id",
            ),
            (
                "s3://b?profile=x",
                with(file.clone()),
                &temporary[..0],
                "no profile",
            ),
            (
                "s3://b?profile=token",
                with(file),
                &temporary[..0],
                "only this machine has",
            ),
            (
                "s3://b",
                with(folder.path().join("absent")),
                &temporary[..0],
                "can not read",
            ),
        ] {
            let refused =
                of(location(url), &given, None, &environment(variables), "ns").unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{part}");
            assert!(
                refused.error().to_string().contains(part),
                "{}",
                refused.error()
            );
        }
    }
}
