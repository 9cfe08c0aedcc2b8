use std::collections::BTreeMap;

use object_store::client::HttpClient;
use url::form_urlencoded;

use super::super::session::tests::{Client, Fake, role, xml};
use super::*;
use crate::location::aws::way;

fn spec(config: &[(&str, &str)]) -> BackupStorageLocation {
    let mut spec = BackupStorageLocation::at("velero.io/aws", "b", config);
    spec.metadata.name = "main".to_owned();
    spec.metadata
        .annotations
        .insert("kubectl-backup/recipients".to_owned(), "x".to_owned());
    spec.spec.object_storage.prefix = Some("p".to_owned());
    spec
}

const ENDPOINT: &str = "http://10.0.0.1:9000/x";

/// A lender of a location like this, whose STS answers so.
fn made(
    fake: &Arc<Fake>,
    spec: &BackupStorageLocation,
    credentials: &Credentials,
    own: bool,
    way: Way,
) -> Result<Arc<dyn lend::Lender>, String> {
    let endpoint = ENDPOINT.parse().unwrap();
    let opened = Opened {
        spec,
        credentials,
        region: "eu-1",
        endpoint: own.then_some(&endpoint),
        path_style: true,
    };
    lender(&opened, way, &|_, _| {
        Ok(HttpClient::new(Client(fake.clone())))
    })
}

fn keys(token: &str) -> Way {
    let file = format!("[default]\naws_access_key_id=A\naws_secret_access_key=hidden\n{token}");
    let credentials = Credentials {
        file: Some(file.into()),
        ..Credentials::default()
    };
    let known = way::Known {
        credentials: &credentials,
        profile: None,
        region: "eu-1",
        own_endpoint: true,
    };
    way::way(&known).unwrap()
}

fn form(asked: &str) -> BTreeMap<String, String> {
    let (_, body) = asked.rsplit_once(' ').unwrap();
    form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect()
}

#[tokio::test]
async fn a_store_of_ones_own_is_asked_itself_with_the_locations_keys_for_the_shortest_time() {
    let fake = Fake::told(&[(200, &xml("AssumeRole", "LENT", 15))]);
    let lender = made(&fake, &spec(&[]), &Credentials::default(), true, keys("")).unwrap();
    let lent = lender.lend("p/restic/c/shop/u").await.unwrap();
    assert_eq!(
        (lent.keys.id.as_str(), lent.keys.token.as_str()),
        ("LENT", "t0ken")
    );
    assert!((880..=900).contains(&lent.lasts.as_secs()));
    assert!(!format!("{:?}", lent.keys).contains("s3cr3t"));
    let (line, signed) = &fake.asked()[0];
    assert!(line.starts_with("POST http://10.0.0.1:9000/ "), "{line}");
    assert!(signed.contains("Credential=A/"), "{signed}");
    assert!(signed.contains("/eu-1/sts/"), "{signed}");
    let form = form(line);
    assert_eq!(form["DurationSeconds"], "900");
    assert_eq!(form.get("RoleArn"), None);
    assert_eq!(
        form["Policy"],
        policy::lent(lender.spec(), "", "p/restic/c/shop/u").unwrap()
    );
}

#[tokio::test]
async fn a_role_is_narrowed_however_long_it_is_taken_for_itself() {
    let fake = Fake::told(&[(200, &xml("AssumeRole", "LENT", 15))]);
    let lender = made(
        &fake,
        &spec(&[]),
        &Credentials::default(),
        false,
        role("AKID"),
    )
    .unwrap();
    lender.lend("p/restic/c/shop/u").await.unwrap();
    let form = form(&fake.asked()[0].0);
    assert_eq!(form["RoleArn"], "arn:aws:iam::123456789012:role/backup");
    assert_eq!(form["ExternalId"], "a:b/c");
    assert_eq!(form["DurationSeconds"], "900");
    assert!(form["Policy"].contains("p/restic/c/shop/u"));
}

/// By a clock that is behind keys seem to last longer than was asked for, and by one that is ahead to have ended.
#[tokio::test]
async fn a_clock_that_is_off_holds_keys_for_no_longer_than_was_asked_for_and_not_for_ended() {
    for (minutes, expected) in [(25, 900..=900), (5, 280..=300), (0, 10..=10), (-1, 10..=10)] {
        let fake = Fake::told(&[(200, &xml("AssumeRole", "LENT", minutes))]);
        let lender = made(&fake, &spec(&[]), &Credentials::default(), true, keys("")).unwrap();
        let lasts = lender.lend("p/u").await.unwrap().lasts;
        assert!(expected.contains(&lasts.as_secs()), "{minutes}: {lasts:?}");
    }
}

#[tokio::test]
async fn keys_that_do_not_end_and_a_refusal_are_no_loan() {
    let endless = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>X</AccessKeyId><SecretAccessKey>s3cr3t</SecretAccessKey><SessionToken>t0ken</SessionToken></Credentials></AssumeRoleResult></AssumeRoleResponse>";
    let refused = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no.</Message></Error></ErrorResponse>";
    let past = xml("AssumeRole", "X", -16);
    let fake = Fake::told(&[(200, endless), (200, &past), (403, refused)]);
    let lender = made(&fake, &spec(&[]), &Credentials::default(), true, keys("")).unwrap();
    for expected in ["do not end", "have ended", "did not give keys that end"] {
        let said = lender.lend("p/u").await.err().unwrap().sentence();
        assert!(said.contains(expected), "{said}");
        assert!(
            !said.contains("s3cr3t") && !said.contains("t0ken"),
            "{said}"
        );
    }
}

#[test]
fn a_pod_gets_the_location_without_what_is_this_machines() {
    let credentials = Credentials {
        ca_pem: Some(b"mine".to_vec()),
        ..Credentials::default()
    };
    let mut of = spec(&[
        ("profile", "x"),
        ("kmsKeyId", "k"),
        ("enableSharedConfig", "true"),
    ]);
    of.spec.object_storage.ca_cert = Some(BASE64.encode("its"));
    let fake = Fake::told(&[]);
    let lender = made(&fake, &of, &credentials, true, keys("")).unwrap();
    let lent = lender.spec();
    let config: Vec<_> = lent
        .spec
        .config
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        config,
        [
            ("kmsKeyId", "k"),
            ("region", "eu-1"),
            ("s3ForcePathStyle", "true"),
            ("s3Url", ENDPOINT)
        ]
    );
    assert!(lent.metadata.annotations.is_empty());
    let storage = &lent.spec.object_storage;
    assert_eq!(
        (storage.bucket.as_str(), storage.prefix.as_deref()),
        ("b", Some("p"))
    );
    let authorities = BASE64.decode(storage.ca_cert.as_ref().unwrap()).unwrap();
    assert_eq!(authorities, b"its\nmine");
}

#[test]
fn what_can_not_be_lent_is_named() {
    let fake = Fake::told(&[]);
    let why = |config: &[(&str, &str)], own, way| {
        made(&fake, &spec(config), &Credentials::default(), own, way)
            .err()
            .unwrap()
    };
    assert!(why(&[], false, keys("")).contains("--role-arn"));
    assert!(why(&[], true, Way::Nothing).contains("--role-arn"));
    let session = keys("aws_session_token=t\n");
    assert!(why(&[], true, session).contains("a session's"));
    let customer = [("customerKeyEncryptionFile", "/key")];
    assert!(why(&customer, true, keys("")).contains("customer's"));
}
