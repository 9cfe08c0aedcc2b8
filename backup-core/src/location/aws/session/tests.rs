use std::collections::VecDeque;
use std::sync::Mutex as StdMutex;

use object_store::client::{HttpResponse, HttpResponseBody, HttpService};

use super::*;
use crate::error::Error;
use crate::location::{Credentials, Role};

/// Answers what it was told to, one after another, and remembers what it was asked.
#[derive(Debug, Default)]
pub(in super::super) struct Fake {
    answers: StdMutex<VecDeque<(u16, String)>>,
    asked: StdMutex<Vec<(String, String)>>,
}

#[derive(Debug)]
pub(in super::super) struct Client(pub(in super::super) Arc<Fake>);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let body = request.body().as_bytes().cloned().unwrap_or_default();
        let signed = request.headers().get("authorization");
        let signed = signed.map_or("", |value| value.to_str().unwrap());
        let line = format!(
            "{} {} {}",
            request.method(),
            request.uri(),
            String::from_utf8(body.to_vec()).unwrap()
        );
        self.0.asked.lock().unwrap().push((line, signed.to_owned()));
        let next = self.0.answers.lock().unwrap().pop_front();
        let Some((status, body)) = next else {
            let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            return Err(HttpError::new(HttpErrorKind::Connect, refused));
        };
        let body = HttpResponseBody::from(Bytes::from(body));
        Ok(http::Response::builder().status(status).body(body).unwrap())
    }
}

impl Fake {
    pub(in super::super) fn told(answers: &[(u16, &str)]) -> Arc<Self> {
        let fake = Self::default();
        let answers = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()));
        *fake.answers.lock().unwrap() = answers.collect();
        Arc::new(fake)
    }

    fn provider(self: &Arc<Self>, way: Way) -> AwsCredentialProvider {
        provider(way, &|_, _| Ok(HttpClient::new(Client(self.clone())))).unwrap()
    }

    pub(in super::super) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

pub(in super::super) fn xml(action: &str, id: &str, minutes: i64) -> String {
    let ends = Timestamp::now() + SignedDuration::from_mins(minutes);
    format!(
        "<?xml version=\"1.0\"?><{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Other/><Credentials><AccessKeyId>{id}</AccessKeyId>\
         <SecretAccessKey>s3cr3t&amp;</SecretAccessKey><SessionToken>t0ken</SessionToken><Expiration>{ends:.0}</Expiration></Credentials></{action}Result></{action}Response>"
    )
}

pub(in super::super) fn role(base: &str) -> Way {
    let credentials = Credentials {
        file: Some(
            format!("[default]\naws_access_key_id={base}\naws_secret_access_key=hidden\n").into(),
        ),
        role: Some(Role {
            arn: "arn:aws:iam::123456789012:role/backup".to_owned(),
            external_id: Some("a:b/c".to_owned()),
        }),
        ..Credentials::default()
    };
    super::super::way::way(&super::super::way::Known {
        credentials: &credentials,
        profile: None,
        region: "eu-1",
        own_endpoint: false,
    })
    .unwrap()
}

fn refusal(error: object_store::Error) -> (Error, bool) {
    let failure = crate::location::failure::of(
        &crate::location::failure::S3,
        "write x",
        "bucket \"b\"",
        error,
    );
    assert!(!failure.in_doubt && !failure.unsupported);
    (failure.error, failure.transient)
}

#[tokio::test]
async fn keys_of_a_role_are_asked_for_once_and_again_before_their_end() {
    let (first, second) = (
        xml("AssumeRole", "FIRST", 60),
        xml("AssumeRole", "SECOND", 4),
    );
    let fake = Fake::told(&[(200, &first)]);
    let keys = fake.provider(role("BASE"));
    let all = futures::future::join_all((0..20).map(|_| keys.get_credential())).await;
    for got in all {
        let got = got.unwrap();
        assert_eq!(got.key_id, "FIRST");
        assert_eq!(got.secret_key, "s3cr3t&");
        assert_eq!(got.token.as_deref(), Some("t0ken"));
    }
    let asked = fake.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].0,
        "POST https://sts.eu-1.amazonaws.com/ Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fbackup\
         &RoleSessionName=kubectl-backup&DurationSeconds=3600&ExternalId=a%3Ab%2Fc"
    );
    assert!(
        asked[0].1.contains("Credential=BASE/") && asked[0].1.contains("/eu-1/sts/aws4_request")
    );
    assert!(!format!("{keys:?}").contains("s3cr3t"));
    // Those that end within minutes serve while new ones are not to be had.
    let fake = Fake::told(&[(200, &second), (503, "")]);
    let keys = fake.provider(role("BASE"));
    for _ in 0..3 {
        assert_eq!(keys.get_credential().await.unwrap().key_id, "SECOND");
    }
    assert_eq!(fake.asked().len(), 1, "four minutes are more than a third");
    let past = xml("AssumeRole", "PAST", -1);
    let fake = Fake::told(&[(200, &past), (200, &first)]);
    let keys = fake.provider(role("BASE"));
    keys.get_credential().await.unwrap();
    assert_eq!(keys.get_credential().await.unwrap().key_id, "FIRST");
}

#[test]
fn a_third_of_a_short_life_or_five_minutes_are_left_when_new_keys_are_got() {
    let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
    let held = |ends: Option<i64>, asked: i64| Held {
        keys: Arc::new(AwsCredential {
            key_id: String::new(),
            secret_key: String::new(),
            token: None,
        }),
        got: at(0),
        asked: at(asked),
        ends: ends.map(at),
    };
    for (ends, asked, now, serves) in [
        (Some(3600), 0, 3299, true),
        (Some(3600), 0, 3301, false),
        (Some(3600), 3301, 3305, true),
        (Some(3600), 3301, 3312, false),
        (Some(9), 0, 5, true),
        (Some(9), 0, 7, false),
        (Some(9), 7, 8, true),
        (Some(9), 7, 9, false),
        (Some(0), 0, 0, false),
        (None, 0, 1_000_000, true),
        // The clock was set back: nobody knows how much is left.
        (Some(3600), 0, -60, false),
    ] {
        assert_eq!(
            held(ends, asked).serves(at(now)),
            serves,
            "{ends:?} {asked} {now}"
        );
    }
}

#[tokio::test]
async fn a_refusal_of_sts_names_the_role_and_what_to_change_and_no_secret() {
    let said = |code: &str| {
        format!(
            "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no\u{7} way.</Message></Error></ErrorResponse>"
        )
    };
    for (status, code, kind, part, passes) in [
        (403, "AccessDenied", Kind::Forbidden, "External ID", false),
        (
            403,
            "InvalidClientTokenId",
            Kind::Unauthorized,
            "aws_access_key_id",
            false,
        ),
        (
            403,
            "SignatureDoesNotMatch",
            Kind::Unauthorized,
            "aws_secret_access_key",
            false,
        ),
        (400, "ExpiredToken", Kind::Unauthorized, "renew", false),
        (
            403,
            "RegionDisabledException",
            Kind::Invalid,
            "config.region",
            false,
        ),
        (
            400,
            "ValidationError",
            Kind::Invalid,
            "duration_seconds",
            false,
        ),
        (
            400,
            "Throttling",
            Kind::Unauthorized,
            "AWS_ENDPOINT_URL_STS",
            true,
        ),
        (
            503,
            "Busy",
            Kind::Unauthorized,
            "AWS_ENDPOINT_URL_STS",
            true,
        ),
    ] {
        let body = said(code);
        let keys = Fake::told(&[(status, &body)]).provider(role("BASE"));
        let (error, transient) = refusal(keys.get_credential().await.unwrap_err());
        assert_eq!((error.kind(), transient), (kind, passes), "{code}");
        let text = error.sentence();
        assert!(text.starts_with("can not write x in bucket \"b\": STS at https://sts.eu-1.amazonaws.com did not give the role arn:aws:iam::123456789012:role/backup"), "{text}");
        assert!(
            text.contains(&format!("{status} {code}: no way")) && text.contains(part),
            "{text}"
        );
        assert!(!text.contains("hidden") && !text.contains('\u{7}'));
    }
    for (body, part) in [
        ("<html>login</html>", "answered with no keys"),
        ("{}", "answered with no keys"),
        ("", "answered with no keys"),
    ] {
        let keys = Fake::told(&[(200, body)]).provider(role("BASE"));
        let (error, transient) = refusal(keys.get_credential().await.unwrap_err());
        assert!(
            !transient && error.sentence().contains(part),
            "{}",
            error.sentence()
        );
    }
    let huge = "x".repeat(LARGEST + 1);
    let keys = Fake::told(&[(200, &huge)]).provider(role("BASE"));
    let (error, _) = refusal(keys.get_credential().await.unwrap_err());
    assert!(error.sentence().contains("far too much"));
    let odd = xml("AssumeRole", "A\nB", 60);
    let keys = Fake::told(&[(200, &odd)]).provider(role("BASE"));
    let (error, _) = refusal(keys.get_credential().await.unwrap_err());
    assert!(
        error.sentence().contains("no request can hold"),
        "{}",
        error.sentence()
    );
    let (error, transient) = refusal(
        Fake::told(&[])
            .provider(role("BASE"))
            .get_credential()
            .await
            .unwrap_err(),
    );
    assert!(transient && error.kind() == Kind::Unreachable);
}

#[tokio::test]
async fn a_token_of_a_file_is_read_each_time_and_what_is_wrong_with_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token").display().to_string();
    let credentials = Credentials {
        environment: [
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", path.as_str()),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ..Credentials::default()
    };
    let way = super::super::way::way(&super::super::way::Known {
        credentials: &credentials,
        profile: None,
        region: "eu-1",
        own_endpoint: true,
    })
    .unwrap();
    let good = xml("AssumeRoleWithWebIdentity", "OF-TOKEN", 60);
    let fake = Fake::told(&[(200, &good)]);
    let keys = fake.provider(way);
    let large = "x".repeat(LARGEST_TOKEN as usize + 1);
    for (content, part) in [
        (None, "can not be read"),
        (Some(""), "holds no token"),
        (Some("a\nb"), "holds no token"),
        (Some(large.as_str()), "holds no token"),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let (error, transient) = refusal(keys.get_credential().await.unwrap_err());
        let text = error.sentence();
        assert!(!transient && text.contains(part), "{text}");
        assert!(text.contains(&path) && text.contains("AWS_WEB_IDENTITY_TOKEN_FILE"));
    }
    assert!(fake.asked().is_empty());
    std::fs::write(&path, "jwt.of.pod\n").unwrap();
    assert_eq!(keys.get_credential().await.unwrap().key_id, "OF-TOKEN");
    let (line, signed) = fake.asked().remove(0);
    assert!(
        line.contains("Action=AssumeRoleWithWebIdentity")
            && line.ends_with("WebIdentityToken=jwt.of.pod")
    );
    assert!(signed.is_empty());
}

const JSON: &str = r#"{"Code":"Success","AccessKeyId":"J","SecretAccessKey":"s3cr3t","Token":"t","Expiration":"2999-01-01T00:00:00Z"}"#;

#[tokio::test]
async fn containers_and_machines_are_asked_as_they_want_it() {
    let url: Url = "http://127.0.0.1:1/base".parse().unwrap();
    let fake = Fake::told(&[(200, JSON)]);
    let container = fake.provider(Way::Container {
        url: url.clone(),
        authorization: Proof::Text("bearer".to_owned()),
    });
    assert_eq!(container.get_credential().await.unwrap().key_id, "J");
    assert_eq!(
        fake.asked(),
        [(
            "GET http://127.0.0.1:1/base ".to_owned(),
            "bearer".to_owned()
        )]
    );
    let machine = Way::Machine { url };
    let fake = Fake::told(&[(200, "session"), (200, "role-1"), (200, JSON)]);
    assert_eq!(
        fake.provider(machine.clone())
            .get_credential()
            .await
            .unwrap()
            .token
            .as_deref(),
        Some("t")
    );
    let lines: Vec<_> = fake.asked().into_iter().map(|(line, _)| line).collect();
    assert_eq!(
        lines,
        [
            "PUT http://127.0.0.1:1/base/latest/api/token ",
            "GET http://127.0.0.1:1/base/latest/meta-data/iam/security-credentials/ ",
            "GET http://127.0.0.1:1/base/latest/meta-data/iam/security-credentials/role-1 ",
        ]
    );
    for (answers, part) in [
        (&[][..], "is not reached"),
        (&[(403, "off")], "answered 403: off"),
        (&[(200, "session"), (404, "")], "answered 404"),
        (&[(200, "session"), (200, "r"), (200, "{}")], "no keys"),
    ] {
        let keys = Fake::told(answers).provider(machine.clone());
        let (error, transient) = refusal(keys.get_credential().await.unwrap_err());
        let text = error.sentence();
        assert!(!transient && text.contains(part), "{text}");
        assert!(!text.contains("s3cr3t"), "{text}");
    }
    let nothing = Fake::told(&[]).provider(Way::Nothing);
    let (error, _) = refusal(nothing.get_credential().await.unwrap_err());
    assert_eq!(error.kind(), Kind::Unauthorized);
}
