use super::*;

const ARN: &str = "arn:aws:iam::123456789012:role/backup";

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(text: &str) -> Credentials {
    Credentials {
        file: Some(text.into()),
        origin: Some("/keys".to_owned()),
        ..Credentials::default()
    }
}

fn variables(all: &[(&str, &str)]) -> Credentials {
    Credentials {
        environment: pairs(all),
        ..Credentials::default()
    }
}

fn plan(credentials: &Credentials, profile: Option<&str>, own_endpoint: bool) -> Result<Way> {
    way(&Known {
        credentials,
        profile,
        region: "eu-1",
        own_endpoint,
    })
}

/// What is planned, in words; what is refused, with its hint.
fn told(credentials: &Credentials, profile: Option<&str>) -> String {
    match plan(credentials, profile, false) {
        Ok(way) => format!("{way:?}"),
        Err(e) => format!("{e} / {}", e.hint_text().unwrap_or_default()),
    }
}

fn taken(way: &Way) -> &Taken {
    match way {
        Way::Role { taken, .. } | Way::Token { taken, .. } => taken,
        other => panic!("{other:?}"),
    }
}

const CHAIN: &str = "[default]\naws_access_key_id=A\naws_secret_access_key=s3cr3t\n\
    [one]\nrole_arn=arn:aws:iam::123456789012:role/one\nsource_profile=default\nexternal_id=e:x\n\
    [two]\nrole_arn=arn:aws:iam::210987654321:role/two\nsource_profile=one\nrole_session_name=nightly\nduration_seconds=900\nregion=us-west-2\n\
    [self]\naws_access_key_id=B\naws_secret_access_key=s3cr3t\nrole_arn=arn:aws:iam::123456789012:role/one\nsource_profile=self\n";

#[test]
fn roles_are_taken_one_with_another_and_say_where_and_for_how_long() {
    let credentials = file(CHAIN);
    let two = plan(&credentials, Some("two"), true).unwrap();
    assert_eq!(
        format!("{two:?}"),
        "arn:aws:iam::210987654321:role/two with arn:aws:iam::123456789012:role/one with keys"
    );
    let Way::Role { base, taken: last } = &two else {
        panic!("{two:?}")
    };
    assert_eq!((last.name.as_str(), last.seconds), ("nightly", 900));
    assert_eq!(last.sts.as_str(), "https://sts.us-west-2.amazonaws.com/");
    assert!(last.of_aws);
    let first = taken(base);
    assert_eq!(first.role.external_id.as_deref(), Some("e:x"));
    assert_eq!(
        (first.name.as_str(), first.seconds),
        ("kubectl-backup", 3600)
    );
    assert_eq!(first.sts.as_str(), "https://sts.eu-1.amazonaws.com/");
    assert_eq!(first.setting, "role_arn of [one] in /keys");
    assert_eq!(
        told(&credentials, Some("self")),
        "arn:aws:iam::123456789012:role/one with keys"
    );
    // As a file for another machine it means the same.
    let text = two.file().unwrap().unwrap();
    let again = told(&file(&text), None);
    assert_eq!(again, format!("{two:?}"), "{text}");
}

#[test]
fn sts_is_where_the_variable_says_then_the_profile_then_the_region() {
    let text = format!(
        "[default]\naws_access_key_id=A\naws_secret_access_key=s\n[r]\nrole_arn={ARN}\nsource_profile=default\n"
    );
    let with_url = format!("{text}endpoint_url=http://store:9000\n");
    let mut credentials = file(&with_url);
    let sts = |credentials: &Credentials| {
        let way = plan(credentials, Some("r"), true).unwrap();
        (taken(&way).sts.to_string(), taken(&way).of_aws)
    };
    assert_eq!(sts(&credentials), ("http://store:9000/".to_owned(), false));
    // What a variable says of all services is not meant for a location with a file of its own.
    credentials.beside_file = pairs(&[("AWS_ENDPOINT_URL", "http://all:1")]);
    assert_eq!(sts(&credentials).0, "http://store:9000/");
    credentials.beside_file = pairs(&[("AWS_ENDPOINT_URL_STS", "http://sts:1")]);
    assert_eq!(sts(&credentials).0, "http://sts:1/");
    let token = [
        ("AWS_ROLE_ARN", ARN),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
        ("AWS_ENDPOINT_URL", "http://all:1"),
    ];
    let way = plan(&variables(&token), None, true).unwrap();
    assert_eq!(taken(&way).sts.as_str(), "http://all:1/");
    assert_eq!(format!("{way:?}"), format!("{ARN} with /token"));
    let china = file(&text.replace("[r]", "[r]\nregion=cn-north-1"));
    assert_eq!(
        sts(&china),
        ("https://sts.cn-north-1.amazonaws.com.cn/".to_owned(), true)
    );
}

#[test]
fn the_first_way_that_is_given_counts() {
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let token = [
        ("AWS_ROLE_ARN", ARN),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
    ];
    let container = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/x")];
    let off = [("AWS_EC2_METADATA_DISABLED", "true")];
    let all = [&keys[..], &token, &container].concat();
    let by_token = format!("{ARN} with /token");
    for (given, expected) in [
        (&all[..], "keys"),
        (&all[2..], by_token.as_str()),
        (&all[4..], "container http://127.0.0.1:1/x"),
        (
            &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/x")],
            "container http://169.254.170.2/v2/x",
        ),
        (&off, "nothing"),
        (&[], "machine http://169.254.169.254/"),
        (
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipv6")],
            "machine http://[fd00:ec2::254]/",
        ),
        (
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")],
            "machine http://127.0.0.1:1/",
        ),
    ] {
        assert_eq!(told(&variables(given), None), expected);
    }
    // The user's own profiles stand between a token and the machine.
    let shared = |given: &[(&str, &str)], profile| {
        let credentials = Credentials {
            shared: Some((
                CHAIN
                    .replace("[self]", "[profile mine]\nregion=x\n[self]")
                    .into(),
                "~/.aws".to_owned(),
            )),
            ..variables(given)
        };
        told(&credentials, profile)
    };
    assert_eq!(shared(&token, None), by_token);
    assert_eq!(shared(&container, None), "keys");
    assert_eq!(
        shared(&[("AWS_PROFILE", "one")], None),
        "arn:aws:iam::123456789012:role/one with keys"
    );
    // A profile that the location names comes before all of the environment.
    assert!(shared(&keys, Some("one")).contains("role/one"));
    assert_eq!(shared(&keys, Some("absent")), "keys");
    assert!(shared(&[], Some("absent")).contains("config.profile"));
    assert!(shared(&[("AWS_PROFILE", "absent")], None).contains("it has: default, one"));
    assert!(shared(&[("AWS_PROFILE", "mine")], None).contains("aws_access_key_id"));
    let refused = plan(&variables(&[]), None, true).unwrap_err();
    assert_eq!(refused.to_string(), "the location has no keys");
}

#[test]
fn what_the_machine_has_is_used_where_its_own_file_asks_for_it() {
    let role = |source: &str| file(&format!("[default]\nrole_arn={ARN}\n{source}\n"));
    let with = |source: &str, beside: &[(&str, &str)]| {
        told(
            &Credentials {
                beside_file: pairs(beside),
                ..role(source)
            },
            None,
        )
    };
    let keys = [("AWS_ACCESS_KEY_ID", "A"), ("AWS_SECRET_ACCESS_KEY", "s")];
    assert_eq!(
        with("credential_source=Environment", &keys),
        format!("{ARN} with keys")
    );
    assert!(with("credential_source=Environment", &[]).contains("AWS_ACCESS_KEY_ID"));
    assert!(with("credential_source=EcsContainer", &[]).contains("AWS_CONTAINER_CREDENTIALS"));
    assert_eq!(
        with("credential_source=Ec2InstanceMetadata", &[]),
        format!("{ARN} with machine http://169.254.169.254/")
    );
    assert!(with("credential_source=Moon", &[]).contains("Ec2InstanceMetadata"));
    assert_eq!(
        with("web_identity_token_file=/t", &[]),
        format!("{ARN} with /t")
    );
    for source in [
        "credential_source=Environment",
        "web_identity_token_file=/t",
    ] {
        let of_secret = Credentials {
            of_object: true,
            beside_file: pairs(&keys),
            ..role(source)
        };
        let told = told(&of_secret, None);
        assert!(told.contains("not the owner of this machine"), "{told}");
    }
    // Keys that the Secret itself holds may take a role.
    let of_secret = Credentials {
        of_object: true,
        ..file(CHAIN)
    };
    assert!(told(&of_secret, Some("one")).ends_with("with keys"));
    // A role with what only this machine has is no file for another one.
    let machine = plan(&role("credential_source=Ec2InstanceMetadata"), None, false);
    assert!(machine.unwrap().file().is_err());
}

#[test]
fn a_role_of_the_location_is_taken_with_whatever_keys_there_are() {
    let mut credentials = file(CHAIN);
    credentials.role = Some(Role {
        arn: ARN.to_owned(),
        external_id: Some("palette-1".to_owned()),
    });
    assert_eq!(told(&credentials, None), format!("{ARN} with keys"));
    assert!(told(&credentials, Some("one")).contains("role/one with keys"));
    for (arn, id) in [
        ("backup", None),
        ("arn:aws:iam::1:user/x/123456789", None),
        ("arn:aws:iam::123456789012:role/a b", None),
        (ARN, Some("x")),
        (ARN, Some("x y")),
    ] {
        credentials.role = Some(Role {
            arn: arn.to_owned(),
            external_id: id.map(str::to_owned),
        });
        assert!(
            told(&credentials, None).contains("--role-arn"),
            "{arn} {id:?}"
        );
    }
}

#[test]
fn what_can_not_be_meant_is_refused_with_its_file_and_setting() {
    let keys = "aws_access_key_id=A\naws_secret_access_key=s3cr3t\n";
    for (text, parts) in [
        (
            format!("[default]\nrole_arn={ARN}\n"),
            ["[default]", "source_profile"],
        ),
        (
            format!("[default]\nrole_arn={ARN}\nsource_profile=base\n"),
            ["no profile [base]", "source_profile of [default]"],
        ),
        (
            format!(
                "[default]\nrole_arn={ARN}\nsource_profile=b\n[b]\nrole_arn={ARN}\nsource_profile=default\n"
            ),
            ["default -> b -> default", "with keys"],
        ),
        (
            format!("[default]\nrole_arn={ARN}\nsource_profile=default\n"),
            ["no aws_access_key_id", "[default]"],
        ),
        (
            format!("[default]\nrole_arn={ARN}\nsource_profile=b\nweb_identity_token_file=/t\n"),
            ["source_profile and web_identity_token_file", "excludes"],
        ),
        (
            format!(
                "[default]\n{keys}role_arn={ARN}\nsource_profile=default\nduration_seconds=60\n"
            ),
            ["duration_seconds", "43200"],
        ),
        (
            format!(
                "[default]\n{keys}role_arn={ARN}\nsource_profile=default\nrole_session_name=a b\n"
            ),
            ["session's name", "64"],
        ),
        (
            format!("[default]\n{keys}role_arn={ARN}\nsource_profile=default\nregion=a/b\n"),
            ["region", "us-east-1"],
        ),
        (
            format!(
                "[default]\n{keys}role_arn={ARN}\nsource_profile=default\nendpoint_url=minio:9000\n"
            ),
            ["endpoint_url", "not an http"],
        ),
        (
            format!("[default]\n{keys}role_arn={ARN}\nsource_profile=default\nmfa_serial=x\n"),
            ["mfa_serial", "not supported"],
        ),
        (
            "[default]\nsso_session=x\n".to_owned(),
            ["sso_session", "export-credentials"],
        ),
        (
            "[default]\ncredential_process=x\n".to_owned(),
            ["credential_process", "export-credentials"],
        ),
        (
            "[default]\nweb_identity_token_file=/t\n".to_owned(),
            ["no role_arn", "[default]"],
        ),
        (
            "[default]\naws_access_key_id=A\u{e4}\naws_secret_access_key=s3cr3t\n".to_owned(),
            ["aws_access_key_id of [default]", "signs"],
        ),
        (
            format!("[default]\n{keys}aws_session_token=a b\n"),
            ["aws_session_token", "signs"],
        ),
    ] {
        let told = told(&file(&text), None);
        for part in parts {
            assert!(told.contains(part), "{part}\n{told}\n{text}");
        }
        assert!(
            told.contains("/keys") || !told.contains("credentials file"),
            "{told}"
        );
        assert!(!told.contains("s3cr3t"), "{told}");
    }
    let chain: String = (0..9)
        .map(|n| format!("[p{n}]\nrole_arn={ARN}\nsource_profile=p{}\n", n + 1))
        .collect();
    assert!(told(&file(&chain), Some("p0")).contains("more than 5 roles"));
    for (given, part) in [
        (
            &[("AWS_ACCESS_KEY_ID", "A")][..],
            "AWS_SECRET_ACCESS_KEY is not",
        ),
        (
            &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")],
            "AWS_ROLE_ARN is not",
        ),
        (
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://example.com/x")],
            "plain http to another machine",
        ),
        (
            &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", "x")],
            "AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL",
        ),
        (
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ftp://x")],
            "AWS_EC2_METADATA_SERVICE_ENDPOINT is not",
        ),
        (
            &[("AWS_ROLE_ARN", "x"), ("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")],
            "AWS_ROLE_ARN",
        ),
    ] {
        let told = told(&variables(given), None);
        assert!(told.contains(part), "{part}\n{told}");
    }
}
