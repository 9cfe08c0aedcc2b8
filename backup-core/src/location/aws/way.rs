//! How keys of AWS are come by: which of the ways that AWS's tools know is meant by a location, its credentials file, and the environment. Pure:
//! nothing is asked and no file is opened; that is [`session`](super::session)'s.
//!
//! The first of these that is given counts, as with AWS's tools:
//!
//! 1. the location's credentials file: the profile that `config.profile` names, else `default`. A profile holds keys
//!    (`aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`), or a role (`role_arn`) that is taken with the keys of another profile
//!    (`source_profile`, which may be a role again), with a token out of a file (`web_identity_token_file`), or with what the machine has
//!    (`credential_source`: `Environment`, `EcsContainer`, `Ec2InstanceMetadata`). `external_id`, `role_session_name`, `duration_seconds`, `region` and
//!    `endpoint_url` (the address of STS) belong to the role.
//! 2. `AWS_ACCESS_KEY_ID` and its siblings;
//! 3. `AWS_ROLE_ARN` with `AWS_WEB_IDENTITY_TOKEN_FILE`;
//! 4. the user's own files of AWS's tools, read as the credentials file, where they have the profile that `config.profile` or `AWS_PROFILE` names, else
//!    `default`;
//! 5. a container's address (`AWS_CONTAINER_CREDENTIALS_*`), else the machine's (`AWS_EC2_METADATA_SERVICE_ENDPOINT`, else the usual one). A store
//!    with an address of its own is asked with the machine's role only where that is set.
//!
//! A role of the location itself (`Credentials::role`) is taken with the keys that were found.
//!
//! STS is asked at `AWS_ENDPOINT_URL_STS`, else at the profile's `endpoint_url`, else (where keys are the environment's) at `AWS_ENDPOINT_URL`, else
//! at the region's own address. Who may write a location or a Secret in a cluster is not the machine's owner: a file that comes out of a cluster may
//! name no file, no variable and no role of the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use object_store::aws::AwsCredential;
use url::{Host, Url};

use super::profile::{Profile, Profiles};
use crate::error::{Error, Result};
use crate::location::{Credentials, Role};

/// Roles that are taken one with another.
const MOST_ROLES: usize = 5;

const USUAL_SECONDS: u32 = 3600;

pub(super) const USUAL_NAME: &str = "kubectl-backup";

const SETTINGS: &str =
    "the file looks like:\n[default]\naws_access_key_id = ...\naws_secret_access_key = ...";

/// One way to come by keys.
#[derive(Clone)]
pub(super) enum Way {
    /// They are known and stay.
    Keys(Arc<AwsCredential>),
    /// A role, taken with other keys.
    Role { base: Box<Self>, taken: Taken },
    /// A role, taken with the token in a file; `setting` names the file, for messages.
    Token {
        file: String,
        setting: String,
        taken: Taken,
    },
    /// What runs this container has them.
    Container { url: Url, authorization: Proof },
    /// What runs this machine has them.
    Machine { url: Url },
    /// There is none, which is said when keys are needed.
    Nothing,
}

/// Without any secret.
impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(_) => f.write_str("keys"),
            Self::Role { base, taken } => write!(f, "{} with {base:?}", taken.role.arn),
            Self::Token { file, taken, .. } => write!(f, "{} with {file}", taken.role.arn),
            Self::Container { url, .. } => write!(f, "container {url}"),
            Self::Machine { url } => write!(f, "machine {url}"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Way {
    /// The same as a credentials file for another machine; nothing where only this one can have the keys.
    ///
    /// # Errors
    /// `Invalid`, where they would not last there, or a role is taken with what only this machine has.
    pub(super) fn file(&self) -> Result<Option<String>> {
        let mut text = String::new();
        let (mut next, mut number) = (self, 0);
        let mut section = "[default]".to_owned();
        loop {
            match next {
                Self::Keys(keys) => {
                    if keys.token.is_some() {
                        return Err(Error::invalid("these keys come with a session token: they end within hours, and the backups with them")
                            .hint("give keys that last with --credentials-file"));
                    }
                    let (id, secret) = (&keys.key_id, &keys.secret_key);
                    text += &format!(
                        "{section}\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"
                    );
                    return Ok(Some(text));
                }
                Self::Role { base, taken } => {
                    let mut line = |key: &str, value: &str| text += &format!("{key} = {value}\n");
                    line(&format!("{section}\nrole_arn"), &taken.role.arn);
                    if let Some(id) = &taken.role.external_id {
                        line("external_id", id);
                    }
                    line("role_session_name", &taken.name);
                    line("duration_seconds", &taken.seconds.to_string());
                    line("region", &taken.region);
                    if !taken.of_aws {
                        line("endpoint_url", taken.sts.as_str());
                    }
                    number += 1;
                    line("source_profile", &format!("source-{number}"));
                    section = format!("\n[source-{number}]");
                    next = base;
                }
                _ if number == 0 => return Ok(None),
                _ => {
                    return Err(Error::invalid("a role is taken with what only this machine has")
                        .hint("give keys that last with --credentials-file, or give the pod a role of its own and the location none"));
                }
            }
        }
    }
}

/// What the container's address wants to see.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    None,
    Text(String),
    File(String),
}

/// A role, and where it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) role: Role,
    /// Shown in the account's log.
    pub(super) name: String,
    /// How long the keys shall last.
    pub(super) seconds: u32,
    pub(super) sts: Url,
    /// Whether that is AWS's own address.
    pub(super) of_aws: bool,
    pub(super) region: String,
    /// What names the role, for messages.
    pub(super) setting: String,
    /// What the keys may do at most, as IAM writes it; where nothing is said, what the role may.
    pub(super) policy: Option<String>,
}

/// What is known of a location.
pub(super) struct Known<'a> {
    pub(super) credentials: &'a Credentials,
    /// `config.profile`
    pub(super) profile: Option<&'a str>,
    pub(super) region: &'a str,
    /// Whether the store has an address of its own.
    pub(super) own_endpoint: bool,
}

type Variables<'a> = BTreeMap<&'a str, &'a str>;

fn variables(pairs: &[(String, String)]) -> Variables<'_> {
    let pairs = pairs
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    pairs.filter(|(_, value)| !value.is_empty()).collect()
}

/// The way that is meant.
///
/// # Errors
/// `Invalid`, naming the file or variable and the setting.
pub(super) fn way(known: &Known<'_>) -> Result<Way> {
    let plan = Plan {
        known,
        variables: match known.credentials.file {
            None => variables(&known.credentials.environment),
            Some(_) => variables(&known.credentials.beside_file),
        },
    };
    let base = plan.base()?;
    match &known.credentials.role {
        None => Ok(base),
        Some(role) => {
            let setting = "--role-arn of the location";
            let taken = plan.taken(role.clone(), &Profile::new(), setting)?;
            Ok(Way::Role {
                base: Box::new(base),
                taken,
            })
        }
    }
}

struct Plan<'a> {
    known: &'a Known<'a>,
    variables: Variables<'a>,
}

impl Plan<'_> {
    fn base(&self) -> Result<Way> {
        let credentials = self.known.credentials;
        if let Some(file) = &credentials.file {
            let path = credentials.origin.as_deref();
            let profiles = Profiles::read(file, path.unwrap_or("the credentials file"))?;
            let name = self.known.profile.unwrap_or("default");
            return self.of_profile(&profiles, name, "config.profile", &mut Vec::new());
        }
        let shared = || match &credentials.shared {
            Some((file, path)) => Profiles::read(file, path).map(Some),
            None => Ok(None),
        };
        // What the location names comes before what happens to be set here.
        if let Some(name) = self.known.profile
            && let Some(profiles) = shared()?
            && profiles.find(name).is_some()
        {
            return self.of_profile(&profiles, name, "config.profile", &mut Vec::new());
        }
        if let Some(keys) = self.of_environment()? {
            return Ok(keys);
        }
        if let Some(token) = self.of_token()? {
            return Ok(token);
        }
        if let Some(name) = self.known.profile {
            return Err(Error::invalid(format!(
                "config.profile is {name:?}, but there is no credentials file"
            ))
            .hint(
                "give the location a credentials file with that profile, or remove config.profile",
            ));
        }
        let chosen = self.variables.get("AWS_PROFILE").copied();
        let name = chosen.unwrap_or("default");
        if let Some(profiles) = shared()?
            && (chosen.is_some() || holds_keys(profiles.find(name)))
        {
            return self.of_profile(&profiles, name, "AWS_PROFILE", &mut Vec::new());
        }
        if let Some(container) = self.of_container()? {
            return Ok(container);
        }
        self.of_machine()
    }

    /// A profile, and those it names. `seen` holds those that led here.
    fn of_profile(
        &self,
        profiles: &Profiles<'_>,
        name: &str,
        named_by: &str,
        seen: &mut Vec<String>,
    ) -> Result<Way> {
        let path = profiles.path;
        let profile = profiles.get(name, named_by)?;
        let text = |key: &str| {
            profile
                .get(key)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        for other in [
            "credential_process",
            "sso_session",
            "sso_start_url",
            "mfa_serial",
        ] {
            if text(other).is_some() {
                return Err(Error::invalid(format!(
                    "{path} asks for {other} in [{name}], which is not supported"
                ))
                .hint("`aws configure export-credentials --format env` prints the keys of a role or a single sign-on; give them as the environment"));
            }
        }
        let Some(arn) = text("role_arn") else {
            if text("web_identity_token_file").is_some() {
                return Err(Error::invalid(format!(
                    "{path} has web_identity_token_file in [{name}], and no role_arn"
                ))
                .hint("add the role that the token is for: role_arn = arn:aws:iam::..."));
            }
            return keys_of(profile, name, path).map(Way::Keys);
        };
        let role = Role {
            arn: arn.to_owned(),
            external_id: text("external_id").map(str::to_owned),
        };
        let setting = format!("role_arn of [{name}] in {path}");
        let taken = self.taken(role, profile, &setting)?;
        let given = [
            "source_profile",
            "credential_source",
            "web_identity_token_file",
        ]
        .map(|key| text(key).map(|value| (key, value)));
        let mut given = given.into_iter().flatten();
        let Some((key, value)) = given.next() else {
            return Err(Error::invalid(format!(
                "{path} has role_arn in [{name}], and does not say with which keys it is taken"
            ))
            .hint("add source_profile = NAME, a profile of the same file with keys; or web_identity_token_file, or credential_source"));
        };
        if let Some((other, _)) = given.next() {
            return Err(Error::invalid(format!(
                "{path} has {key} and {other} in [{name}]: each excludes the other"
            )));
        }
        if key != "source_profile" && self.known.credentials.of_object {
            return Err(Error::invalid(format!(
                "{path} asks for {key} in [{name}]: who may write that Secret is not the owner of this machine, and uses nothing of it"
            ))
            .hint("put keys into the Secret (source_profile), or take the Secret away from the location: without one, and without config.s3Url, the machine's own role is used"));
        }
        match key {
            "web_identity_token_file" => Ok(Way::Token {
                file: value.to_owned(),
                setting: format!("web_identity_token_file of [{name}] in {path}"),
                taken,
            }),
            "credential_source" => {
                let base = self.of_source(value, name, path)?;
                Ok(Way::Role {
                    base: Box::new(base),
                    taken,
                })
            }
            _ => {
                let base = if value == name {
                    Way::Keys(keys_of(profile, name, path)?)
                } else {
                    seen.push(name.to_owned());
                    if seen.iter().any(|before| before == value) {
                        return Err(Error::invalid(format!(
                            "{path} has profiles that name each other as source_profile: {} -> {value}",
                            seen.join(" -> ")
                        ))
                        .hint("the last source_profile is a profile with keys"));
                    }
                    if seen.len() >= MOST_ROLES {
                        return Err(Error::invalid(format!(
                            "{path} has more than {MOST_ROLES} roles one after another: {}",
                            seen.join(" -> ")
                        )));
                    }
                    let named_by = format!("source_profile of [{name}]");
                    self.of_profile(profiles, value, &named_by, seen)?
                };
                Ok(Way::Role {
                    base: Box::new(base),
                    taken,
                })
            }
        }
    }

    fn of_source(&self, source: &str, name: &str, path: &str) -> Result<Way> {
        let lacks = |what: &str| {
            Error::invalid(format!(
                "{path} has credential_source = {source} in [{name}], but {what}"
            ))
        };
        match source {
            "Environment" => self
                .of_environment()?
                .ok_or_else(|| lacks("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set")),
            "EcsContainer" => self.of_container()?.ok_or_else(|| {
                lacks("neither AWS_CONTAINER_CREDENTIALS_RELATIVE_URI nor AWS_CONTAINER_CREDENTIALS_FULL_URI is set")
            }),
            "Ec2InstanceMetadata" => self.metadata(),
            _ => Err(lacks("there is no such source")
                .hint("it is Environment, EcsContainer or Ec2InstanceMetadata")),
        }
    }

    /// Keys of the environment.
    fn of_environment(&self) -> Result<Option<Way>> {
        let get = |name: &str| self.variables.get(name).copied();
        let (id, secret) = (get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"));
        let (id, secret) = match (id, secret) {
            (None, None) => return Ok(None),
            (Some(id), Some(secret)) => (id, secret),
            (one, _) => {
                let (set, missing) = match one {
                    Some(_) => ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
                    None => ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
                };
                return Err(Error::invalid(format!(
                    "{set} is set, but {missing} is not"
                )));
            }
        };
        let keys = keys(id, secret, get("AWS_SESSION_TOKEN"), |key| {
            key.to_uppercase()
        })?;
        Ok(Some(Way::Keys(keys)))
    }

    fn of_token(&self) -> Result<Option<Way>> {
        let get = |name: &str| self.variables.get(name).copied();
        let Some(file) = get("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Ok(None);
        };
        let Some(arn) = get("AWS_ROLE_ARN") else {
            return Err(Error::invalid(
                "AWS_WEB_IDENTITY_TOKEN_FILE is set, but AWS_ROLE_ARN is not",
            ));
        };
        let role = Role {
            arn: arn.to_owned(),
            external_id: None,
        };
        let mut settings = Profile::new();
        if let Some(name) = get("AWS_ROLE_SESSION_NAME") {
            settings.insert("role_session_name".to_owned(), name.to_owned());
        }
        Ok(Some(Way::Token {
            file: file.to_owned(),
            setting: "AWS_WEB_IDENTITY_TOKEN_FILE".to_owned(),
            taken: self.taken(role, &settings, "AWS_ROLE_ARN")?,
        }))
    }

    fn of_container(&self) -> Result<Option<Way>> {
        let get = |name: &str| self.variables.get(name).copied();
        let (setting, text) = match (
            get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
            get("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        ) {
            (Some(path), _) => (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                format!("http://169.254.170.2/{}", path.trim_start_matches('/')),
            ),
            (None, Some(url)) => ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.to_owned()),
            (None, None) => return Ok(None),
        };
        let url = address(setting, &text)?;
        // Others than this machine would see the token on its way.
        if url.scheme() == "http" && !is_near(&url) {
            return Err(Error::invalid(format!(
                "{setting} {text:?} is plain http to another machine"
            ))
            .hint("without TLS it has to be an address of this machine, or 169.254.170.2 or 169.254.170.23"));
        }
        let authorization = match (
            get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
            get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        ) {
            (Some(file), _) => Proof::File(file.to_owned()),
            (None, Some(text)) => Proof::Text(text.to_owned()),
            (None, None) => Proof::None,
        };
        Ok(Some(Way::Container { url, authorization }))
    }

    /// The machine's own role; on a store that is not AWS only where somebody set it up.
    fn of_machine(&self) -> Result<Way> {
        let set = self
            .variables
            .contains_key("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        if self.known.own_endpoint && !set {
            return Err(Error::invalid("the location has no keys").hint(
                "give it a credentials file (--credentials-file), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ));
        }
        // A location that another machine uses may be told of here.
        if self.is_disabled() {
            return Ok(Way::Nothing);
        }
        self.metadata()
    }

    fn is_disabled(&self) -> bool {
        let disabled = self.variables.get("AWS_EC2_METADATA_DISABLED");
        disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn metadata(&self) -> Result<Way> {
        const SETTING: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        if self.is_disabled() {
            return Err(Error::invalid(
                "the machine's own role is asked for, but AWS_EC2_METADATA_DISABLED is set",
            ));
        }
        let six = self
            .variables
            .get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
            .is_some_and(|mode| mode.eq_ignore_ascii_case("IPv6"));
        let usual = if six {
            "http://[fd00:ec2::254]"
        } else {
            "http://169.254.169.254"
        };
        let text = self.variables.get(SETTING).copied().unwrap_or(usual);
        let url = address(SETTING, text)?;
        Ok(Way::Machine { url })
    }

    /// A role as its settings want it.
    fn taken(&self, role: Role, settings: &Profile, setting: &str) -> Result<Taken> {
        let text = |key: &str| {
            settings
                .get(key)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        role.check(setting)?;
        let name = text("role_session_name").unwrap_or(USUAL_NAME);
        if !(2..=64).contains(&name.len()) || !name.bytes().all(|b| plain(b, b"+=,.@-_")) {
            return Err(Error::invalid(format!(
                "{name:?}, the session's name beside {setting}, is none"
            ))
            .hint("it has 2 to 64 letters, digits and +=,.@-_"));
        }
        let seconds = match text("duration_seconds") {
            None => USUAL_SECONDS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|seconds| (900..=43_200).contains(seconds))
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "duration_seconds {text:?} beside {setting} is none"
                    ))
                    .hint("it is 900 to 43200, and no more than the role allows")
                })?,
        };
        let region = super::region_name(text("region").unwrap_or(self.known.region))?.to_owned();
        let variable = |name: &str| {
            let value = self.variables.get(name).copied()?;
            Some((name.to_owned(), value))
        };
        let of_profile = || {
            let value = text("endpoint_url")?;
            Some((format!("endpoint_url beside {setting}"), value))
        };
        let of_all = || {
            let has_file = self.known.credentials.file.is_some();
            variable("AWS_ENDPOINT_URL").filter(|_| !has_file)
        };
        let given = variable("AWS_ENDPOINT_URL_STS")
            .or_else(of_profile)
            .or_else(of_all);
        let (sts, of_aws) = match given {
            Some((setting, text)) => (address(&setting, text)?, false),
            None => {
                let china = if region.starts_with("cn-") { ".cn" } else { "" };
                let text = format!("https://sts.{region}.amazonaws.com{china}");
                (address("the region's STS", &text)?, true)
            }
        };
        Ok(Taken {
            role,
            name: name.to_owned(),
            seconds,
            sts,
            of_aws,
            region,
            setting: setting.to_owned(),
            policy: None,
        })
    }
}

/// Whether a profile that nobody named says how to come by keys; many say where their user lives, and no more.
fn holds_keys(profile: Option<&Profile>) -> bool {
    profile.is_some_and(|profile| {
        let says = [
            "aws_access_key_id",
            "role_arn",
            "credential_process",
            "sso_session",
            "sso_start_url",
        ];
        says.iter().any(|key| profile.contains_key(*key))
    })
}

fn keys_of(profile: &Profile, name: &str, path: &str) -> Result<Arc<AwsCredential>> {
    let value = |key: &str| {
        profile.get(key).ok_or_else(|| {
            Error::invalid(format!("{path} has no {key} in [{name}]")).hint(SETTINGS)
        })
    };
    keys(
        value("aws_access_key_id")?,
        value("aws_secret_access_key")?,
        profile.get("aws_session_token").map(String::as_str),
        |key| format!("{key} of [{name}] in {path}"),
    )
}

/// Keys that a request's headers can hold.
fn keys(
    id: &str,
    secret: &str,
    token: Option<&str>,
    setting: impl Fn(&str) -> String,
) -> Result<Arc<AwsCredential>> {
    for (key, value) in [
        ("aws_access_key_id", Some(id)),
        ("aws_secret_access_key", Some(secret)),
        ("aws_session_token", token),
    ] {
        if value.is_some_and(|value| !is_header(value)) {
            return Err(Error::invalid(format!(
                "{} has spaces or signs that no key has",
                setting(key)
            )));
        }
    }
    Ok(Arc::new(AwsCredential {
        key_id: id.to_owned(),
        secret_key: secret.to_owned(),
        token: token.filter(|token| !token.is_empty()).map(str::to_owned),
    }))
}

/// Whether a text can stand in a header, and in a signature's scope.
pub(super) fn is_header(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic())
}

fn plain(byte: u8, besides: &[u8]) -> bool {
    byte.is_ascii_alphanumeric() || besides.contains(&byte)
}

impl Role {
    /// Whether it can be one.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(super) fn check(&self, setting: &str) -> Result<()> {
        let arn = &self.arn;
        let fits = arn.starts_with("arn:")
            && arn.contains(":role/")
            && (20..=2048).contains(&arn.len())
            && is_header(arn);
        if !fits {
            return Err(
                Error::invalid(format!("{setting}, {arn:?}, is no role's ARN"))
                    .hint("it looks like arn:aws:iam::123456789012:role/backup"),
            );
        }
        let Some(id) = &self.external_id else {
            return Ok(());
        };
        if !(2..=1224).contains(&id.len()) || !id.bytes().all(|b| plain(b, b"+=,.@:/-_")) {
            return Err(
                Error::invalid(format!("the External ID beside {setting} is none"))
                    .hint("it has 2 to 1224 letters, digits and +=,.@:/-_"),
            );
        }
        Ok(())
    }
}

/// An address of a service that gives keys.
fn address(setting: &str, text: &str) -> Result<Url> {
    let bad = |why: &str| Error::invalid(format!("{setting} {why}"));
    let url = Url::parse(text).map_err(|e| bad("is not a URL").because(e))?;
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return Err(bad("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("holds a user name"));
    }
    Ok(url)
}

/// Whether an address is this machine's, or one of those at which AWS gives its machines keys.
pub(super) fn is_near(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.segments()[..2] == [0xfd00, 0x0ec2],
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests;
