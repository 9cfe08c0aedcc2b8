//! `location create`: remember where backups live.

use std::path::{Path, PathBuf};

use backup_core::api::{API_VERSION, AccessMode, BackupStorageLocation};
use backup_core::crypt::{ENCRYPT, Encrypt, RECIPIENTS};
use backup_core::signature::VERIFY_KEYS;
use backup_core::{Error, Kind, location};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, ValueEnum};

use super::ChangeArgs;
use super::copies::CopiesArgs;
use super::signing::SigningArgs;
use super::volumes::VolumesArgs;
use crate::context::{Context, variable};
use crate::encryption::{EncryptArgs, RecipientArgs};
use crate::flags;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations::{
    self, CREDENTIALS_FILE, EXTERNAL_ID, ROLE_ARN, SIGNING_KEY_FILE, same,
};
use backup_cli::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  kubectl backup location create offsite --provider aws --bucket backups --prefix prod --config region=us-east-1 --credentials-file ./credentials --default
  kubectl backup location create other-account --provider aws --bucket backups --role-arn arn:aws:iam::123456789012:role/backup --external-id 7f3a9c --credentials-file ./credentials
  kubectl backup location create other-account --provider aws --bucket backups --role-arn arn:aws:iam::123456789012:role/backup --external-id 7f3a9c --print-trust-policy=210987654321
  kubectl backup location create minio --provider aws --bucket backups --config s3Url=https://minio:9000,s3ForcePathStyle=true --cacert ca.pem
  kubectl backup location create google --provider gcp --bucket backups --credentials-file ./key.json
  kubectl backup location create azure --provider azure --bucket container --config storageAccount=account --credentials-file ./credentials
  kubectl backup location create sealed --provider aws --bucket backups --config region=us-east-1 --recipients-file team.pub
  kubectl backup location create disk --provider local --bucket /mnt/backups --replicate-to offsite
  kubectl backup location create signed --provider local --bucket /mnt/backups --signing-key-file backups.key --verify-key backups.pub";

/// `--access-mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// Backups may be made and deleted.
    #[value(name = "ReadWrite")]
    ReadWrite,
    /// Nothing is written.
    #[value(name = "ReadOnly")]
    ReadOnly,
}

impl From<Mode> for AccessMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::ReadWrite => Self::ReadWrite,
            Mode::ReadOnly => Self::ReadOnly,
        }
    }
}

/// Remember where backups live
///
/// Flags and keys of --config are those of Velero. The location is kept in $XDG_CONFIG_HOME/kubectl-backup/locations.yaml;
/// of credentials only the file's path is kept. Without --credentials-file the environment's (AWS_ACCESS_KEY_ID, ...,
/// GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_KEY, ...) are used, then ~/.aws with AWS_PROFILE or gcloud's own, then the role or identity of the pod or
/// machine. A profile of AWS may be a role (role_arn, source_profile, external_id, web_identity_token_file).
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name of the location
    name: String,
    /// Provider: aws (S3 and what is compatible), gcp, azure or local (a folder)
    #[arg(long, value_name = "PROVIDER", value_parser = providers(), hide_possible_values = true)]
    provider: String,
    /// Bucket; for azure the container, for local the folder
    #[arg(long, value_name = "BUCKET")]
    bucket: String,
    /// Folder in the bucket
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// The provider's settings, key=value (comma list, can be repeated)
    #[arg(long, value_name = "CONFIG")]
    config: Vec<String>,
    #[command(flatten)]
    role: RoleArgs,
    #[command(flatten)]
    copies: CopiesArgs,
    #[command(flatten)]
    volumes: VolumesArgs,
    #[command(flatten)]
    recipients: RecipientArgs,
    #[command(flatten)]
    encrypt: EncryptArgs,
    /// Make less than encrypted backups there though another location of the same place has them encrypted
    #[arg(long)]
    plain: bool,
    /// Whether anything may be written
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        ignore_case = true,
        default_value = "ReadWrite"
    )]
    access_mode: Mode,
    /// Use it where no location is named
    #[arg(long)]
    default: bool,
    /// Print, as JSON, who may take the role and what it has to be allowed for this location, and remember nothing; who takes it is the role's own account or PRINCIPAL (an account, or an ARN)
    #[arg(long, value_name = "PRINCIPAL", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    print_trust_policy: Option<String>,
    #[command(flatten)]
    signing: SigningArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// A role of AWS.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct RoleArgs {
    /// Role of AWS to take with the credentials (STS AssumeRole); new keys are got before the old ones end
    #[arg(long, value_name = "ARN")]
    pub(super) role_arn: Option<String>,
    /// What the role's owner wants to hear besides (sts:ExternalId)
    #[arg(long, value_name = "ID")]
    pub(super) external_id: Option<String>,
}

impl RoleArgs {
    pub(super) fn is_given(&self) -> bool {
        self.role_arn.is_some() || self.external_id.is_some()
    }

    /// Remembers it beside the location; an empty text takes it away.
    pub(super) fn put(&self, location: &mut BackupStorageLocation) -> Result<()> {
        let annotations = &mut location.metadata.annotations;
        for (key, value) in [(ROLE_ARN, &self.role_arn), (EXTERNAL_ID, &self.external_id)] {
            match value.as_deref() {
                None => {}
                Some("") => drop(annotations.remove(key)),
                Some(value) => drop(annotations.insert(key.to_owned(), value.to_owned())),
            }
        }
        let is_aws = location.spec.provider.trim_start_matches("velero.io/") == "aws";
        if self.is_given() && !is_aws {
            return Err(refused(
                "roles are of provider aws",
                "leave --role-arn away",
            ));
        }
        if annotations.contains_key(EXTERNAL_ID) && !annotations.contains_key(ROLE_ARN) {
            return Err(refused(
                "an External ID belongs to a role, and none is named",
                "give --role-arn; a role in a credentials file has its external_id there",
            ));
        }
        Ok(())
    }
}

pub(super) fn refused(why: &str, hint: &str) -> CommandError {
    CommandError::usage(Error::invalid(why).hint(hint))
}

/// Each by its name, and as Velero's objects call it.
fn providers() -> PossibleValuesParser {
    let all = [
        ("aws", "velero.io/aws"),
        ("gcp", "velero.io/gcp"),
        ("azure", "velero.io/azure"),
        ("local", "velero.io/local"),
    ];
    PossibleValuesParser::new(all.map(|(name, long)| PossibleValue::new(name).alias(long)))
}

/// Runs the command.
pub(crate) fn run(context: &Context, args: CreateArgs) -> Result<Exit> {
    flags::new_name(&args.name)?;
    let location = location(context, &args)?;
    if let Some(principal) = &args.print_trust_policy {
        return print_policies(context, &location, principal);
    }
    let (mut unknown, mut others) = (Vec::new(), Vec::new());
    args.change.change(context, |all| {
        others = plainer(&location, all);
        unknown = args.copies.unknown(all);
        if all
            .iter()
            .any(|location| location.metadata.name == args.name)
        {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("location {:?} exists already", args.name),
            )
            .hint("choose another name, or change it with `location set`")
            .into());
        }
        if !args.plain {
            refuse_plain_in_sealed(&location, all)?;
        }
        // Nothing is kept that could not be opened.
        context.open(&location)?;
        if args.default {
            for other in all.iter_mut() {
                other.spec.default = false;
            }
        }
        all.push(location);
        Ok(())
    })?;
    args.change.tell(context, &args.name, "created")?;
    super::warn_unknown(context, &unknown);
    warn_plainer(context, &args.name, &others);
    let ui = &context.ui;
    if args.change.is_dry() {
        return Ok(Exit::Done);
    }
    if !args.default {
        ui.note(&format!(
            "it is not the default: name it with --location {}",
            args.name
        ));
    }
    ui.note(&format!(
        "check it: {} location check {}",
        context.program, args.name
    ));
    Ok(Exit::Done)
}

fn print_policies(
    context: &Context,
    location: &BackupStorageLocation,
    principal: &str,
) -> Result<Exit> {
    if location.spec.provider.trim_start_matches("velero.io/") != "aws" {
        return Err(refused(
            "--print-trust-policy is for provider aws",
            "other stores have no such documents",
        ));
    }
    let principal = Some(principal).filter(|principal| !principal.is_empty());
    let role = locations::role(location);
    let policies = location::policies(location, role.as_ref(), principal);
    let policies = policies.map_err(CommandError::usage)?;
    output::print(&context.ui, Format::Json, &policies)?;
    context.ui.note(
        "trustPolicy is for the role (aws iam create-role --assume-role-policy-document), policy for what it may do (aws iam put-role-policy --policy-document)",
    );
    Ok(Exit::Done)
}

fn location(context: &Context, args: &CreateArgs) -> Result<BackupStorageLocation> {
    let mut location = BackupStorageLocation {
        api_version: API_VERSION.to_owned(),
        kind: "BackupStorageLocation".to_owned(),
        ..BackupStorageLocation::default()
    };
    location.metadata.name.clone_from(&args.name);
    let spec = &mut location.spec;
    spec.provider.clone_from(&args.provider);
    spec.object_storage.bucket = if args.provider.trim_start_matches("velero.io/") == "local" {
        absolute(Path::new(&args.bucket))?.display().to_string()
    } else {
        args.bucket.clone()
    };
    spec.object_storage.prefix = args.prefix.clone().filter(|prefix| !prefix.is_empty());
    spec.config = flags::pairs("--config", '=', &args.config)?;
    spec.default = args.default;
    spec.access_mode = Some(args.access_mode.into());
    args.role.put(&mut location)?;
    args.signing.put(&mut location)?;
    args.copies.put(&mut location)?;
    args.volumes.put(&mut location);
    remember(&args.recipients, args.encrypt, &mut location)?;
    refuse_beside_recipients(&location)?;
    secure(context, &mut location)?;
    Ok(location)
}

/// For whom every backup there is encrypted and how much of it, where that is said.
pub(super) fn remember(
    given: &RecipientArgs,
    encrypt: EncryptArgs,
    location: &mut BackupStorageLocation,
) -> Result<()> {
    let annotations = &mut location.metadata.annotations;
    if given.is_given() {
        let lines = given.read()?.to_lines();
        annotations.insert(RECIPIENTS.to_owned(), lines);
    }
    if let Some(what) = encrypt.encrypt {
        let word = Encrypt::from(what).word();
        annotations.insert(ENCRYPT.to_owned(), word.to_owned());
    }
    Encrypt::of_location(location).map_err(CommandError::usage)?;
    Ok(())
}

/// How much of its backups is encrypted.
fn much(location: &BackupStorageLocation) -> u8 {
    // One that can not be understood binds as all does.
    match Encrypt::of_location(location) {
        Ok(None) => 0,
        Ok(Some(Encrypt::Secrets)) => 1,
        Ok(Some(Encrypt::All)) | Err(_) => 2,
    }
}

/// The other names of a location's place, or of a folder in it, by which less is encrypted: recipients that come later bind none of them.
pub(super) fn plainer(
    location: &BackupStorageLocation,
    all: &[BackupStorageLocation],
) -> Vec<String> {
    let is_plainer = |other: &&BackupStorageLocation| {
        much(other) < much(location)
            && (same::is_within(other, location, &variable)
                || same::is_within(location, other, &variable))
    };
    let found = all.iter().filter(is_plainer);
    found.map(|other| other.metadata.name.clone()).collect()
}

/// Tells of them.
pub(super) fn warn_plainer(context: &Context, name: &str, plainer: &[String]) {
    for other in plainer {
        context.ui.warn(&format!(
            "location {other:?} is the place of {name:?}, too, and less is encrypted by that name: `{} location set {other} --recipient ...` gives it recipients",
            context.program
        ));
    }
}

/// A second name of a place is no way to plain backups beside encrypted ones, unless that is chosen.
fn refuse_plain_in_sealed(
    location: &BackupStorageLocation,
    all: &[BackupStorageLocation],
) -> Result<()> {
    let is_sealed = |other: &&BackupStorageLocation| {
        much(other) > much(location) && same::is_within(location, other, &variable)
    };
    let Some(other) = all.iter().find(is_sealed) else {
        return Ok(());
    };
    Err(refused(
        &format!(
            "{} is the place of location {:?}, whose backups are encrypted, and less would be here",
            locations::place(location),
            other.metadata.name
        ),
        "give --recipient or --recipients-file, and no --encrypt secrets where it has none; --plain makes such backups there all the same",
    ))
}

/// What is not built for encrypted backups is refused where it is asked for, not when a backup is made.
pub(super) fn refuse_beside_recipients(location: &BackupStorageLocation) -> Result<()> {
    let annotations = &location.metadata.annotations;
    if Encrypt::of_location(location)? != Some(Encrypt::All) {
        return Ok(());
    }
    if [SIGNING_KEY_FILE, VERIFY_KEYS]
        .iter()
        .any(|key| annotations.contains_key(*key))
    {
        return Err(refused(
            "the location has recipients, and encrypted backups can not be signed yet",
            "use a location of its own, with another prefix, for encrypted backups; or --encrypt secrets, where Secrets alone are to be encrypted",
        ));
    }
    Ok(())
}

/// Credentials and CA as the flags give them, where they do; of credentials only the path is kept.
pub(super) fn secure(context: &Context, location: &mut BackupStorageLocation) -> Result<()> {
    let given = context.location_args();
    if let Some(path) = &given.cacert {
        let pem = std::fs::read(path).map_err(|e| {
            CommandError::usage(
                Error::invalid(format!("can not read the CA file {}", path.display())).because(e),
            )
        })?;
        location.spec.object_storage.ca_cert = Some(STANDARD.encode(pem));
    }
    if let Some(path) = &given.credentials_file {
        let path = absolute(path)?.display().to_string();
        location
            .metadata
            .annotations
            .insert(CREDENTIALS_FILE.to_owned(), path);
    }
    Ok(())
}

/// The path as it is from any folder.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    let text = path.to_string_lossy();
    let path = text.strip_prefix("file://").map_or(path, Path::new);
    std::path::absolute(path).map_err(|e| {
        CommandError::usage(Error::invalid(format!("{} is no path", path.display())).because(e))
    })
}

/// The location's place, for listings.
pub(super) fn bucket_and_prefix(location: &BackupStorageLocation) -> String {
    let place = locations::place(location);
    place
        .split_once("://")
        .map_or(place.clone(), |(_, rest)| rest.to_owned())
}
