//! What a location of AWS needs to be allowed, as the two documents that IAM takes: who may take its role, and what the role may do. Pure. No more than
//! what this library asks of a bucket is in it; a call that is added here or in [`bucket`](crate::location::bucket) is added there.
//!
//! Grammar: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>.

use serde_json::{Map, Value, json};

use crate::api::BackupStorageLocation;
use crate::error::{Error, Result};
use crate::location::{Role, client};

const VERSION: &str = "2012-10-17";

/// What is done to objects: read, written (in parts, too), removed, and asked whether they are locked.
const OBJECTS: [&str; 6] = [
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:GetObjectRetention",
    "s3:GetObjectLegalHold",
];

/// Both documents, `trustPolicy` and `policy`. `principal` is who takes the role: an account or an ARN; without it the role's own account.
///
/// # Errors
/// `Invalid`, where the bucket, the role or the principal can be none, or nobody is named who may take the role.
pub fn policies(
    spec: &BackupStorageLocation,
    role: Option<&Role>,
    principal: Option<&str>,
) -> Result<Value> {
    if let Some(role) = role {
        role.check("--role-arn")?;
    }
    // arn:PARTITION:iam::ACCOUNT:role/NAME
    let parts: Vec<&str> = role.map_or(Vec::new(), |role| role.arn.split(':').collect());
    let partition = parts.get(1).copied().unwrap_or("aws");
    let account = parts.get(4).copied().filter(|account| is_account(account));
    let root = |account: &str| format!("arn:{partition}:iam::{account}:root");
    let principal = match (principal, account) {
        (Some(account), _) if is_account(account) => root(account),
        (Some(arn), _) if arn.starts_with("arn:") => arn.to_owned(),
        (Some(other), _) => {
            return Err(Error::invalid(format!("{other:?} can take no role")).hint(
                "name an account (123456789012) or an ARN: the one whose keys the location has",
            ));
        }
        (None, Some(account)) => root(account),
        (None, None) => {
            return Err(
                Error::invalid("nobody is named who may take the role").hint(
                    "give --role-arn, whose account is meant then, or --print-trust-policy=ACCOUNT",
                ),
            );
        }
    };
    let mut trust = json!({
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": "sts:AssumeRole",
    });
    if let Some(id) = role.and_then(|role| role.external_id.as_ref()) {
        trust["Condition"] = json!({"StringEquals": {"sts:ExternalId": id}});
    }
    Ok(json!({
        "trustPolicy": {"Version": VERSION, "Statement": [trust]},
        "policy": {"Version": VERSION, "Statement": allowed(spec, partition, account)?},
    }))
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn allowed(
    spec: &BackupStorageLocation,
    partition: &str,
    account: Option<&str>,
) -> Result<Vec<Value>> {
    let storage = &spec.spec.object_storage;
    let bucket = client::bucket_name(&storage.bucket)?;
    let bucket = format!("arn:{partition}:s3:::{bucket}");
    let prefix = storage.prefix.as_deref().unwrap_or_default();
    let prefix = literal(prefix.trim_matches('/'));
    let below = if prefix.is_empty() {
        "*".to_owned()
    } else {
        format!("{prefix}/*")
    };
    let mut list = json!({"Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket});
    if !prefix.is_empty() {
        list["Condition"] = json!({"StringLike": {"s3:prefix": below}});
    }
    let mut actions = OBJECTS.to_vec();
    let set = |key: &str| client::set(&spec.spec.config, key);
    if set("tagging").is_some() {
        actions.push("s3:PutObjectTagging");
    }
    let objects = json!({
        "Effect": "Allow", "Action": actions, "Resource": format!("{bucket}/{below}"),
    });
    let mut statements = vec![list, objects];
    statements.extend(kms(spec, partition, account)?);
    Ok(statements)
}

/// What a key of the store's own encryption is used for, where the location has one.
fn kms(
    spec: &BackupStorageLocation,
    partition: &str,
    account: Option<&str>,
) -> Result<Option<Value>> {
    let set = |key: &str| client::set(&spec.spec.config, key);
    let Some(key) = set("kmsKeyId") else {
        return Ok(None);
    };
    let region = super::region_name(set("region").unwrap_or(super::USUAL_REGION))?;
    let of = |what: &str| {
        let account = account.unwrap_or("*");
        format!("arn:{partition}:kms:{region}:{account}:{what}")
    };
    let (resource, condition) = match key {
        arn if arn.starts_with("arn:") => (arn.to_owned(), Map::new()),
        alias if alias.starts_with("alias/") => {
            let named = json!({"kms:RequestAlias": alias});
            (
                of("key/*"),
                Map::from_iter([("StringEquals".to_owned(), named)]),
            )
        }
        id => (of(&format!("key/{id}")), Map::new()),
    };
    let mut statement = json!({
        "Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": resource,
    });
    if !condition.is_empty() {
        statement["Condition"] = condition.into();
    }
    Ok(Some(statement))
}

/// AWS takes no longer policy of a session, in characters.
const LONGEST: usize = 2048;

/// What keys may do that are lent for all repositories of one volume: those that begin with this (`prefix/restic/CLUSTER/NAMESPACE/UID`, with no slash at its end). They are
/// read and written; removed are claims, and a snapshot that must not be. The role is the one that is narrowed; empty, where there is none.
///
/// # Errors
/// `Invalid`: a text that AWS would not take.
pub(super) fn lent(spec: &BackupStorageLocation, role: &str, prefix: &str) -> Result<String> {
    let parts: Vec<&str> = role.split(':').collect();
    let partition = parts.get(1).copied().unwrap_or("aws");
    let account = parts.get(4).copied().filter(|account| is_account(account));
    let bucket = client::bucket_name(&spec.spec.object_storage.bucket)?;
    let bucket = format!("arn:{partition}:s3:::{bucket}");
    let of = |ends: &[&str]| -> Vec<String> {
        let prefix = literal(prefix);
        ends.iter().map(|end| format!("{prefix}{end}")).collect()
    };
    let objects = |ends: &[&str]| -> Vec<String> {
        let keys = of(ends).into_iter();
        keys.map(|key| format!("{bucket}/{key}")).collect()
    };
    let set = |key: &str| client::set(&spec.spec.config, key);
    let mut listed = of(&["/*", ".*"]);
    if set("s3Url").is_none()
        && let Some((folder, _)) = prefix.rsplit_once('/')
    {
        // AWS tells that a key is absent to those only who may list its folder. That shows names, and no content.
        listed.push(format!("{}/", literal(folder)));
    }
    let mut actions = vec!["s3:GetObject", "s3:PutObject"];
    actions.extend(set("tagging").map(|_| "s3:PutObjectTagging"));
    let mut statements = vec![
        json!({
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": bucket,
            "Condition": {"StringLike": {"s3:prefix": listed}},
        }),
        json!({"Effect": "Allow", "Action": actions, "Resource": objects(&["/*", ".*"])}),
        json!({
            "Effect": "Allow", "Action": "s3:DeleteObject",
            "Resource": objects(&[".claims/*", ".*.claims/*", "/snapshots/*", ".*/snapshots/*"]),
        }),
    ];
    statements.extend(kms(spec, partition, account)?);
    if role.is_empty() {
        // MinIO before RELEASE.2025-10-15 asks, where keys make keys of their own account, only what is denied (CVE-2025-62506): <https://github.com/minio/minio/security/advisories/GHSA-jjjj-jwhf-8rgr>.
        statements.push(json!({"Effect": "Deny", "Action": ["admin:*"]}));
    }
    let text = json!({"Version": VERSION, "Statement": statements}).to_string();
    if text.len() > LONGEST {
        return Err(Error::invalid(format!(
            "the policy of keys for one volume has {} characters, and AWS takes {LONGEST}",
            text.len()
        ))
        .hint("a shorter objectStorage.prefix makes it shorter"));
    }
    Ok(text)
}

/// A text that stands for itself: policies know `*`, `?` and `$`.
fn literal(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '*' | '?' | '$' => format!("${{{c}}}"),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(prefix: &str, config: &[(&str, &str)]) -> BackupStorageLocation {
        let mut location = BackupStorageLocation::at("aws", "b", config);
        location.spec.object_storage.prefix = Some(prefix.to_owned());
        location
    }

    fn role(arn: &str, id: Option<&str>) -> Role {
        Role {
            arn: arn.to_owned(),
            external_id: id.map(str::to_owned),
        }
    }

    const ARN: &str = "arn:aws-cn:iam::123456789012:role/backup";

    #[test]
    fn who_takes_the_role_is_its_own_account_or_the_one_that_is_named() {
        let plain = location("", &[]);
        let with_id = role(ARN, Some("x-1"));
        let all = policies(&plain, Some(&with_id), None).unwrap();
        assert_eq!(
            all["trustPolicy"]["Statement"][0],
            json!({
                "Effect": "Allow", "Principal": {"AWS": "arn:aws-cn:iam::123456789012:root"}, "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": "x-1"}},
            })
        );
        let user = "arn:aws:iam::210987654321:user/u";
        for (role, principal, expected) in [
            (
                Some(role(ARN, None)),
                Some("210987654321"),
                "arn:aws-cn:iam::210987654321:root",
            ),
            (Some(role(ARN, None)), Some(user), user),
            (None, Some("210987654321"), "arn:aws:iam::210987654321:root"),
        ] {
            let all = policies(&plain, role.as_ref(), principal).unwrap();
            let trust = &all["trustPolicy"]["Statement"][0];
            assert_eq!(trust["Principal"]["AWS"], expected);
            assert_eq!(trust["Condition"], Value::Null);
        }
        for (role, principal) in [
            (None, None),
            (Some(role("x", None)), None),
            (Some(role(ARN, None)), Some("somebody")),
        ] {
            assert!(policies(&plain, role.as_ref(), principal).is_err());
        }
        let nowhere = BackupStorageLocation::default();
        assert!(policies(&nowhere, Some(&with_id), None).is_err());
    }

    #[test]
    fn a_prefix_bounds_everything_and_settings_that_need_more_say_so() {
        let statements = |prefix: &str, config: &[(&str, &str)]| {
            let role = role(ARN, None);
            let all = policies(&location(prefix, config), Some(&role), None).unwrap();
            all["policy"]["Statement"].clone()
        };
        let whole = statements("", &[]);
        assert_eq!(whole[0]["Condition"], Value::Null);
        assert_eq!(whole[1]["Resource"], "arn:aws-cn:s3:::b/*");
        let part = statements("/p/q*${x}/", &[]);
        assert_eq!(part[0]["Resource"], "arn:aws-cn:s3:::b");
        let below = "p/q${*}${$}{x}/*";
        assert_eq!(
            part[0]["Condition"],
            json!({"StringLike": {"s3:prefix": below}})
        );
        assert_eq!(part[1]["Resource"], format!("arn:aws-cn:s3:::b/{below}"));
        assert_eq!(part[1]["Action"], json!(OBJECTS));
        assert_eq!(part[2], Value::Null);
        let more = statements(
            "",
            &[("tagging", "a=b"), ("kmsKeyId", "1-2"), ("region", "cn-1")],
        );
        assert!(more[1]["Action"].to_string().contains("PutObjectTagging"));
        assert_eq!(
            more[2]["Resource"],
            "arn:aws-cn:kms:cn-1:123456789012:key/1-2"
        );
        let alias = statements("", &[("kmsKeyId", "alias/k")]);
        assert_eq!(
            alias[2]["Condition"],
            json!({"StringEquals": {"kms:RequestAlias": "alias/k"}})
        );
        let arn = statements("", &[("kmsKeyId", "arn:aws:kms:x:1:key/2")]);
        assert_eq!(arn[2]["Resource"], "arn:aws:kms:x:1:key/2");
    }

    #[test]
    fn lent_keys_reach_the_repositories_of_one_volume_and_nothing_else() {
        let url = ("s3Url", "http://x");
        let text = lent(&location("p", &[url]), "", "p/restic/c/shop/u").unwrap();
        let of = "arn:aws:s3:::b/p/restic/c/shop/u";
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"Version": "2012-10-17", "Statement": [
                {
                    "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b",
                    "Condition": {"StringLike": {"s3:prefix": ["p/restic/c/shop/u/*", "p/restic/c/shop/u.*"]}},
                },
                {
                    "Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"],
                    "Resource": [format!("{of}/*"), format!("{of}.*")],
                },
                {
                    "Effect": "Allow", "Action": "s3:DeleteObject",
                    "Resource": [
                        format!("{of}.claims/*"), format!("{of}.*.claims/*"), format!("{of}/snapshots/*"), format!("{of}.*/snapshots/*"),
                    ],
                },
                {"Effect": "Deny", "Action": ["admin:*"]},
            ]})
        );
        // Where absence is told to those only who list the folder, its names are seen; what a prefix has of wildcards stands for itself.
        let statements = |config: &[(&str, &str)], prefix: &str| -> Value {
            let text = lent(&location("p", config), ARN, prefix).unwrap();
            let all: Value = serde_json::from_str(&text).unwrap();
            all["Statement"].clone()
        };
        let aws = statements(&[("tagging", "a=b"), ("kmsKeyId", "1-2")], "p*/r/u");
        let listed = json!(["p${*}/r/u/*", "p${*}/r/u.*", "p${*}/r/"]);
        assert_eq!(aws[0]["Condition"]["StringLike"]["s3:prefix"], listed);
        // IAM knows no such action.
        assert!(!aws.to_string().contains("admin:"));
        assert_eq!(aws[1]["Resource"][0], "arn:aws-cn:s3:::b/p${*}/r/u/*");
        assert!(aws[1]["Action"].to_string().contains("PutObjectTagging"));
        assert!(
            aws[3]["Resource"]
                .to_string()
                .contains(":123456789012:key/1-2")
        );
        let said = lent(&location("p", &[url]), "", &"p".repeat(400)).unwrap_err();
        assert!(said.sentence().contains("shorter"), "{}", said.sentence());
    }
}
