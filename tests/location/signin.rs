//! The ways to sign in to AWS: each of them makes a backup and reads it back, and what is wrong with one is said before anything is written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::cluster::Cluster;
use harness::process::Folder;
use harness::proxy::{Action, Match};
use harness::run::{Backup, etcd_launcher, kubectl_backup};
use harness::store::Minio;
use harness::sts::{self, Asked, CONTAINER_TOKEN, POD_TOKEN, Sts};

use crate::place::on;

const ROLE: &str = "arn:aws:iam::123456789012:role/backup";
const NEXT: &str = "arn:aws:iam::210987654321:role/of/another-account";
const POD: &str = "arn:aws:iam::123456789012:role/of-a-pod";
const ID: &str = "palette:7f3a/9c";
const BASE: &str = "BASEKEY";
const SECRET: &str = "s3cr3t/of+the=base";

fn services(life: Duration) -> Sts {
    Sts::of(Minio::shared(), life)
        .signer(BASE, SECRET)
        .role(ROLE, Some(ID))
        .role(NEXT, None)
        .role(POD, None)
        .start()
}

/// The profiles of a user: keys, roles one after another, and a pod's role.
fn profiles(token: &str) -> String {
    format!(
        "[default]\naws_access_key_id = {BASE}\naws_secret_access_key = {SECRET}\n\
         [role]\nrole_arn = {ROLE}\nsource_profile = default\nexternal_id = {ID}\n\
         [next]\nrole_arn = {NEXT}\nsource_profile = role\nrole_session_name = nightly\nduration_seconds = 900\n\
         [pod]\nrole_arn = {POD}\nweb_identity_token_file = {token}\n\
         [machine]\nrole_arn = {NEXT}\ncredential_source = Ec2InstanceMetadata\n\
         [variables]\nrole_arn = {ROLE}\nexternal_id = {ID}\ncredential_source = Environment\n"
    )
}

/// Who was asked for what, from one way to the next.
fn since(sts: &Sts, seen: &mut usize) -> Vec<Asked> {
    let asked = sts.asked().split_off(*seen);
    *seen += asked.len();
    asked
}

#[test]
fn every_way_to_sign_in_to_aws_makes_a_backup_and_reads_it_back() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let namespace = cluster.create_namespace("signed-in");
    let bucket = minio.bucket("signed-in");
    let sts = services(Duration::from_secs(900));
    let home = Folder::new("home");
    let token = home.write("token", format!("{POD_TOKEN}\n"));
    let file = home.write("keys", profiles(token.to_str().unwrap()));
    let own = home.write("own", format!("[default]\naws_access_key_id={}\naws_secret_access_key={}\n[minio]\nrole_arn={ROLE}\nsource_profile=default\nendpoint_url={}\n", minio.access_key(), minio.secret_key(), minio.endpoint()));
    home.write("aws/.aws/config", format!("[default]\nregion = us-east-1\n[profile mine]\nrole_arn = {ROLE}\nexternal_id = {ID}\nsource_profile = keys\n"));
    home.write(
        "aws/.aws/credentials",
        format!("[keys]\naws_access_key_id = {BASE}\naws_secret_access_key = {SECRET}\n"),
    );
    let session = minio.limited_user(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}"#,
    );
    let url =
        |parameters: &str| format!("s3://{bucket}/x?endpoint={}{parameters}", minio.endpoint());
    let of_file = |call: Backup| call.args(&["--credentials-file", file.to_str().unwrap()]);
    let remembered = Folder::new("home");
    let config = format!("region=us-east-1,s3Url={}", minio.endpoint());
    kubectl_backup(&[
        "location",
        "create",
        "role",
        "--provider=aws",
        "--bucket",
        bucket,
        "--prefix=x",
    ])
    .args(&[
        "--config",
        &config,
        "--role-arn",
        ROLE,
        "--external-id",
        ID,
        "--credentials-file",
    ])
    .arg(&file)
    .home(remembered.path())
    .ok();

    type Way<'a> = (
        &'a str,
        String,
        Box<dyn Fn(Backup) -> Backup + 'a>,
        Vec<[&'a str; 3]>,
    );
    let by_sts = |call: Backup| call.env("AWS_ENDPOINT_URL_STS", sts.url());
    let pod = ["AssumeRoleWithWebIdentity", POD, ""];
    let ways: Vec<Way<'_>> = vec![
        (
            "a-role",
            url("&profile=role"),
            Box::new(|call| of_file(by_sts(call))),
            vec![["AssumeRole", ROLE, BASE]],
        ),
        (
            "roles-in-a-chain",
            url("&profile=next"),
            Box::new(|call| of_file(by_sts(call))),
            vec![["AssumeRole", ROLE, BASE], ["AssumeRole", NEXT, "given"]],
        ),
        (
            "a-remembered-role",
            "role".to_owned(),
            Box::new(|call| by_sts(call.home(remembered.path()))),
            vec![["AssumeRole", ROLE, BASE]],
        ),
        (
            "a-profile-of-the-users-files",
            url(""),
            Box::new(|call| by_sts(call.home(&home.join("aws")).env("AWS_PROFILE", "mine"))),
            vec![["AssumeRole", ROLE, BASE]],
        ),
        (
            "the-stores-own-sts",
            url("&profile=minio"),
            Box::new(|call| call.args(&["--credentials-file", own.to_str().unwrap()])),
            vec![],
        ),
        (
            "a-session-token",
            url(""),
            Box::new(|call| {
                call.env("AWS_ACCESS_KEY_ID", &session.access_key)
                    .env("AWS_SECRET_ACCESS_KEY", &session.secret_key)
                    .env("AWS_SESSION_TOKEN", &session.session_token)
            }),
            vec![],
        ),
        (
            "a-token-of-the-pod",
            url(""),
            Box::new(|call| {
                by_sts(call)
                    .env("AWS_ROLE_ARN", POD)
                    .env("AWS_WEB_IDENTITY_TOKEN_FILE", &token)
            }),
            vec![pod],
        ),
        (
            "a-token-of-a-profile",
            url("&profile=pod"),
            Box::new(|call| of_file(by_sts(call))),
            vec![pod],
        ),
        (
            "a-container",
            url(""),
            Box::new(|call| {
                call.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", sts.container_url())
                    .env("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN)
            }),
            vec![["container", "", ""]],
        ),
        (
            "a-machine",
            url(""),
            Box::new(|call| {
                call.env_remove("AWS_EC2_METADATA_DISABLED")
                    .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", sts.url())
            }),
            vec![["machine", "", ""]],
        ),
        (
            "a-role-by-the-machines",
            url("&profile=machine"),
            Box::new(|call| {
                of_file(by_sts(call))
                    .env_remove("AWS_EC2_METADATA_DISABLED")
                    .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", sts.url())
            }),
            vec![["machine", "", ""], ["AssumeRole", NEXT, "given"]],
        ),
        (
            "a-role-by-variables",
            url("&profile=variables"),
            Box::new(|call| {
                of_file(by_sts(call))
                    .env("AWS_ACCESS_KEY_ID", BASE)
                    .env("AWS_SECRET_ACCESS_KEY", SECRET)
            }),
            vec![["AssumeRole", ROLE, BASE]],
        ),
    ];
    let mut seen = 0;
    for (name, location, sign_in, expected) in &ways {
        let call = |arguments: &[&str]| sign_in(on(cluster, location, arguments));
        let made = call(&["create", name, "-n", &namespace]).ok();
        let asked = since(&sts, &mut seen);
        let said: Vec<_> = asked
            .iter()
            .map(|asked| {
                let is_given = asked.signer != BASE && !asked.signer.is_empty();
                let signer = if is_given {
                    "given"
                } else {
                    asked.signer.as_str()
                };
                [asked.what.as_str(), asked.role.as_str(), signer]
            })
            .collect();
        assert_eq!(said, *expected, "{name}");
        call(&["verify", name]).ok();
        since(&sts, &mut seen);
        for secret in [SECRET, POD_TOKEN, session.secret_key.as_str()] {
            assert!(
                !made.stderr.contains(secret) && !made.stdout.contains(secret),
                "{name}"
            );
        }
        let marker = format!("x/backups/{name}/velero-backup.json");
        assert!(minio.try_get(bucket, &marker).is_some(), "{name}");
    }
    let names: BTreeSet<_> = sts.asked().into_iter().map(|asked| asked.session).collect();
    assert!(
        names.contains("kubectl-backup") && names.contains("nightly"),
        "{names:?}"
    );
    // The other program, too.
    minio.put(bucket, "x/no.db", "no snapshot");
    let object = format!(
        "s3://{bucket}/x/no.db?endpoint={}&profile=next",
        minio.endpoint()
    );
    let told = of_file(by_sts(etcd_launcher(&["describe", &object])))
        .code(1)
        .stderr;
    assert!(!told.contains("STS"), "{told}");
    let asked = since(&sts, &mut seen);
    assert_eq!(asked.len(), 2, "{told}");
    assert!(asked.iter().all(|asked| !asked.given.is_empty()), "{told}");
}

#[test]
fn a_wrong_way_to_sign_in_is_said_with_file_and_setting_and_nothing_is_written() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let bucket = minio.bucket("signed-out");
    let sts = services(Duration::from_secs(900));
    let home = Folder::new("home");
    let token = home.write("token", "another.token");
    let good = profiles(token.to_str().unwrap());
    let file = |name: &str, text: String| home.write(name, text).display().to_string();
    let keys = format!("[default]\naws_access_key_id={BASE}\naws_secret_access_key={SECRET}\n");
    let role = |more: &str| format!("{keys}[r]\nrole_arn={ROLE}\n{more}\n");
    let nobody = "http://127.0.0.1:1".to_owned();
    let cases: Vec<(&str, String, &str, String, Vec<&str>)> = vec![
        (
            "wrong-id",
            good.replace(ID, "another"),
            "role",
            sts.url(),
            vec![
                ROLE,
                "403 AccessDenied",
                "External ID",
                "role_arn of [role] in",
                "print-trust-policy",
            ],
        ),
        (
            "no-id",
            role("source_profile=default"),
            "r",
            sts.url(),
            vec!["External ID"],
        ),
        (
            "unknown-role",
            good.replace("another-account", "nobody"),
            "next",
            sts.url(),
            vec!["trust policy", "role_arn of [next] in"],
        ),
        (
            "wrong-secret",
            good.replace(SECRET, "wrong"),
            "role",
            sts.url(),
            vec!["SignatureDoesNotMatch", "aws_secret_access_key"],
        ),
        (
            "wrong-key",
            good.replace(BASE, "NOBODY"),
            "role",
            sts.url(),
            vec!["InvalidClientTokenId", "aws_access_key_id"],
        ),
        (
            "wrong-token",
            good.clone(),
            "pod",
            sts.url(),
            vec!["InvalidIdentityToken", "audience"],
        ),
        (
            "no-token",
            role("web_identity_token_file=/absent/token"),
            "r",
            sts.url(),
            vec!["/absent/token", "web_identity_token_file of [r] in"],
        ),
        (
            "no-source",
            role("source_profile=base"),
            "r",
            sts.url(),
            vec![
                "no profile [base]",
                "source_profile of [r]",
                "it has: default, r",
            ],
        ),
        (
            "a-loop",
            format!(
                "{}[s]\nrole_arn={NEXT}\nsource_profile=r\n",
                role("source_profile=s")
            ),
            "r",
            sts.url(),
            vec!["r -> s -> r", "/a-loop"],
        ),
        (
            "no-arn",
            role("source_profile=default").replace(ROLE, "backup"),
            "r",
            sts.url(),
            vec!["role_arn of [r] in", "arn:aws:iam::"],
        ),
        (
            "no-sts",
            role("source_profile=default"),
            "r",
            nobody,
            vec!["STS at http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS"],
        ),
        (
            "not-sts",
            role("source_profile=default"),
            "r",
            cluster.api_url(),
            vec!["STS at https://", "AWS_ENDPOINT_URL_STS"],
        ),
    ];
    for (name, text, profile, url, parts) in cases {
        let path = file(name, text);
        let location = format!(
            "s3://{bucket}/x?endpoint={}&profile={profile}",
            minio.endpoint()
        );
        let told = on(cluster, &location, &["create", "b", "-n", "default"])
            .args(&["--credentials-file", &path])
            .env("AWS_ENDPOINT_URL_STS", url)
            .code(1)
            .stderr;
        for part in parts {
            assert!(told.contains(part), "{name}: {part}\n{told}");
        }
        assert!(told.contains("hint:"), "{name}\n{told}");
        for secret in [SECRET, "another.token"] {
            assert!(!told.contains(secret), "{name}\n{told}");
        }
        assert_eq!(minio.list(bucket, ""), Vec::<String>::new(), "{name}");
    }
    let location = format!("s3://{bucket}/x?endpoint={}", minio.endpoint());
    for (variables, part) in [
        (
            &[("AWS_ACCESS_KEY_ID", BASE)][..],
            "AWS_SECRET_ACCESS_KEY is not",
        ),
        (
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")],
            "AWS_ROLE_ARN is not",
        ),
        (
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x")],
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ),
        (
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x")],
            "is not reached",
        ),
        (
            &[("AWS_SHARED_CREDENTIALS_FILE", "/absent/shared")],
            "AWS_SHARED_CREDENTIALS_FILE",
        ),
        (&[], "the location has no keys"),
    ] {
        let mut call = on(cluster, &location, &["create", "b", "-n", "default"]);
        for (variable, value) in variables {
            call = call.env(variable, value);
        }
        let told = call.code(1).stderr;
        assert!(told.contains(part), "{part}\n{told}");
    }
    // What the command line says is looked at before anything is remembered.
    let create = |more: &[&str]| {
        kubectl_backup(&["location", "create", "l", "--provider=aws", "--bucket=b"])
            .args(more)
            .home(home.path())
    };
    let told = create(&["--external-id", "x1"]).code(2).stderr;
    assert!(told.contains("--role-arn"), "{told}");
    let told = create(&["--role-arn", "backup"]).code(1).stderr;
    assert!(told.contains("arn:aws:iam::"), "{told}");
    create(&["--role-arn", ROLE, "--external-id", ID]).ok();
    let set = |more: &[&str]| {
        kubectl_backup(&["location", "set", "l"])
            .args(more)
            .home(home.path())
    };
    set(&["--external-id", ""]).ok();
    let kept = kubectl_backup(&["location", "get", "l", "-o", "json"])
        .home(home.path())
        .ok()
        .json();
    let annotations = &kept["metadata"]["annotations"];
    assert_eq!(annotations["kubectl-backup/role-arn"], ROLE);
    assert_eq!(
        annotations["kubectl-backup/external-id"],
        serde_json::Value::Null
    );
    assert_eq!(minio.list(bucket, ""), Vec::<String>::new());
}

#[test]
fn keys_that_end_while_a_backup_is_uploaded_are_replaced_in_time() {
    let (cluster, minio) = (Cluster::shared(), Minio::shared());
    let namespace = cluster.create_namespace("outlived");
    harness::load::Load {
        prefix: namespace.clone(),
        config_maps: 24,
        config_map_bytes: 900_000,
        half_random: true,
        ..Default::default()
    }
    .fill(&cluster.endpoint());
    let bucket = minio.bucket("outlived");
    let sts = services(Duration::from_secs(9));
    let store = sts.store();
    // Which keys began the upload in parts, and which completed it.
    let signers: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let record = Arc::clone(&signers);
    let post = Match::when(move |parts| {
        if parts.method == "POST" && parts.target.contains("upload") {
            let line = (parts.target.clone(), sts::signer(&parts.headers));
            record.lock().unwrap().push(line);
        }
        false
    });
    store.every(post, Action::Cut);
    store.every(
        Match::method("PUT").and_path("partNumber="),
        Action::Delay(Duration::from_secs(8)),
    );
    let home = Folder::new("home");
    let file = home.write("keys", profiles("/absent"));
    let location = format!("s3://{bucket}/x?endpoint={}&profile=role", store.url());
    let call = |arguments: &[&str]| {
        on(cluster, &location, arguments)
            .args(&["--credentials-file", file.to_str().unwrap()])
            .env("AWS_ENDPOINT_URL_STS", sts.url())
    };
    let selected = format!("{namespace}-000");
    call(&["create", "long", "--include-namespaces", &selected]).ok();
    let signers = signers.lock().unwrap().clone();
    let of = |is: &dyn Fn(&str) -> bool| -> BTreeSet<_> {
        let of = signers.iter().filter(|(target, _)| is(target));
        of.map(|(_, key)| key.clone()).collect()
    };
    let began = of(&|target| target.contains("uploads"));
    let completed = of(&|target| target.contains("uploadId"));
    assert!(!began.is_empty() && !completed.is_empty(), "{signers:?}");
    assert!(began.is_disjoint(&completed), "{signers:?}");
    call(&["verify", "long"]).ok();
}
