//! `verify`: reads a backup back and checks it.

mod volumes;

use backup_core::apart::{self, Apart};
use backup_core::archive::index::Index;
use backup_core::archive::read::Source;
use backup_core::archive::verify;
use backup_core::catalog::Entry;
use backup_core::crypt::{BackupKey, LARGEST_KEY_FILE, check_key_file};
use backup_core::layout::BackupKeys;
use backup_core::location::Store;
use backup_core::progress::Progress;
use backup_core::{Error, Kind, catalog, signature};
use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Document, Format, counted};

const EXAMPLES: &str = "\
Examples:
  kubectl backup verify nightly
  kubectl backup verify nightly --read-data
  kubectl backup verify nightly -o json
  kubectl backup verify nightly --location s3://backups/prod";

/// Read a backup back and check every byte of it
///
/// Checks the digests of all files, every member of the archive, that every object decodes, and that counts and lists agree. Of copies of volumes' files: that
/// their repositories are there, and their snapshots are what was written; with --read-data every file is read, as a restore reads it.
/// Of another tool's backup the archive is checked alone. Where the location asks for signatures, that is checked first. Exit code 1 where anything is wrong.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct VerifyArgs {
    /// Name of the backup
    name: String,
    /// Read the files of volumes, too; from a location with recipients with --identity
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_data: Option<bool>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// What was found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    backup: String,
    /// Whether nothing is wrong.
    verified: bool,
    /// Of another tool's backup there are no digests, and the archive is checked alone.
    archive_only: bool,
    objects: u64,
    /// Of all bodies, uncompressed.
    bytes: u64,
    /// Copies of volumes' files whose snapshots were looked at.
    volumes: u64,
    /// Bytes of their files that were read; absent where that was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    volume_bytes: Option<u64>,
    /// Whether the Secrets, where they are encrypted apart, were opened and looked at; else their files are what was written, and no more is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets_opened: Option<bool>,
    problems: Vec<String>,
    /// The fingerprint of the key that signed it; absent where its location asks for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    signed_by: Option<String>,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: VerifyArgs) -> Result<Exit> {
    let ui = &context.ui;
    let (place, entry) = context.find_backup(&flags::known_name(&args.name)?).await?;
    let (mut problems, mut unlisted) = (Vec::new(), Vec::new());
    let key = match context.key_of_secrets(&place, &entry).await {
        Err(e) => match e.error().kind() {
            // A key file that is missing is found below.
            Kind::NotFound => None,
            Kind::Corrupt => {
                problems.push(e.error().sentence());
                None
            }
            // What is not named for this is for whatever it opens.
            Kind::Unauthorized if !context.names_identities() => {
                ui.note(&e.error().sentence());
                None
            }
            _ => return Err(e),
        },
        key => key?,
    };
    let store = &place.location.store;
    let signed = signature::check(&place.location, &entry.name).await?;
    let keys = BackupKeys::new(&entry.name);
    // A backup of ours stays one when damage took its index or its digests: what is missing is a finding then.
    let indexed = catalog::is_ours(store, &entry).await?;
    let ours = indexed || catalog::names_us(&entry.backup);
    let bar = ui.progress();
    if ours {
        bar.step("checking digests");
        let files = catalog::verify_files(
            store,
            &entry.name,
            signed.as_ref().map(signature::Vouched::digests),
        )
        .await?;
        problems.extend(files.problems);
        unlisted = files.unlisted;
    }
    let apart = entry.apart()?;
    if apart.is_some() {
        problems.extend(sealed_files(store, &keys).await?);
    }
    if !indexed {
        match apart::refuse_hidden(store, &entry.name, Some(&entry.backup)).await {
            Err(e) if e.kind() == Kind::Corrupt => problems.push(e.to_string()),
            looked => looked?,
        }
    }
    let (mut volumes, mut volume_bytes) = (0, None);
    if ours {
        bar.step("looking at copies of volumes");
        let (looked, found) = volumes::look(store, &entry.name).await?;
        volumes = looked;
        problems.extend(found);
        if args.read_data == Some(true) {
            let (read, found) = volumes::read(context, &place.location, &entry.name, &bar).await?;
            volume_bytes = Some(read);
            problems.extend(found);
        }
    }
    bar.step("reading the archive");
    let archive = store.source(keys.archive());
    let index = store.source(keys.index());
    let index = indexed.then_some(&index as &dyn Source);
    let findings = match verify::verify(&archive, index, &bar).await {
        Err(e) if ours && e.kind() == Kind::NotFound => verify::Findings::default(),
        findings => findings?,
    };
    let (mut objects, mut bytes) = (findings.objects, findings.bytes);
    let mut opened = None;
    if let Some(apart) = &apart {
        opened = Some(false);
        if let Some(key) = &key {
            bar.step("reading the Secrets");
            let secrets = secrets(store, &entry, apart, key, indexed, &bar).await?;
            problems.extend(secrets.problems);
            objects += secrets.objects;
            bytes += secrets.bytes;
            opened = Some(true);
        }
    }
    drop(bar);
    problems.extend(findings.problems);
    for file in unlisted {
        ui.warn(&format!("{}{file} is no file of the backup", keys.folder()));
    }
    let verified = Verified {
        backup: entry.name.to_string(),
        verified: problems.is_empty(),
        archive_only: !ours,
        objects,
        bytes,
        volumes,
        volume_bytes,
        secrets_opened: opened,
        problems,
        signed_by: signed.map(|signed| signed.by.to_string()),
    };
    match args.output {
        Format::Table | Format::Wide => tell(context, &verified)?,
        Format::Name => ui.line(&format!("backup/{}", entry.name))?,
        format => output::print(ui, format, &Document::new("BackupVerification", &verified))?,
    }
    if verified.secrets_opened == Some(false) {
        ui.note("its Secrets are encrypted: their files are compared with SHA256SUMS and were not opened, nor was their key tried; --identity opens them");
    }
    if verified.verified {
        return Ok(Exit::Done);
    }
    ui.say(&format!(
        "backup/{} is damaged: {}",
        entry.name,
        counted(verified.problems.len() as u64, "problem")
    ));
    Ok(Exit::Failed)
}

/// What can be said of the files of Secrets that stand apart without opening them: that they are there, and that the key's is such a file.
async fn sealed_files(store: &Store, keys: &BackupKeys) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for key in [keys.secrets_archive(), keys.secrets_index()] {
        match store.head(&key).await {
            Err(e) if e.kind() == Kind::NotFound => problems.push(format!("{key} is missing")),
            head => drop(head?),
        }
    }
    let key = keys.secrets_key();
    match store.find(&key, LARGEST_KEY_FILE).await {
        Ok(Some(file)) => {
            if let Err(e) = check_key_file(&file) {
                problems.push(format!("{key}: {}", e.sentence()));
            }
        }
        Ok(None) => problems.push(format!("{key} is missing")),
        Err(e) if e.kind() == Kind::Corrupt => problems.push(e.to_string()),
        Err(e) => return Err(e.into()),
    }
    Ok(problems)
}

/// The Secrets that stand apart: that they are those of the backup, that they were saved beside what stands beside them, that everything of them decodes, and that there are as many as the marker says.
async fn secrets(
    store: &Store,
    entry: &Entry,
    apart: &Apart,
    key: &BackupKey,
    indexed: bool,
    progress: &dyn Progress,
) -> Result<verify::Findings> {
    let keys = BackupKeys::new(&entry.name);
    let read = async {
        let index = apart.open(store, &entry.name, key).await?.index;
        // What the rest is damaged by is told of the rest.
        if let Some(rest) = match indexed {
            true => Index::open(store.source(keys.index())).await.ok(),
            false => None,
        } {
            index.check_beside(&rest)?;
        }
        let [archive, rows] = apart::sources(store, &keys, key);
        let mut findings = verify::verify(&archive, Some(&rows), progress).await?;
        for problem in &mut findings.problems {
            problem.insert_str(0, "Secrets: ");
        }
        if index.objects() != apart.count {
            findings.problems.push(format!(
                "there are {} Secrets, and the marker says {}",
                index.objects(),
                apart.count
            ));
        }
        Ok::<_, Error>(findings)
    };
    match read.await {
        // What is sealed can not be read around its damage.
        Err(e) if e.kind() == Kind::Corrupt => Ok(verify::Findings {
            problems: vec![e.sentence()],
            ..verify::Findings::default()
        }),
        read => Ok(read?),
    }
}

fn tell(context: &Context, verified: &Verified) -> Result<()> {
    if !verified.verified {
        return verified
            .problems
            .iter()
            .try_for_each(|problem| context.ui.line(problem));
    }
    let how = if verified.archive_only {
        ", archive only: another tool made it"
    } else {
        ""
    };
    let signed = verified.signed_by.as_ref();
    let signed = signed.map_or_else(String::new, |key| format!(", signed by {key}"));
    let volumes = match (verified.volumes, verified.volume_bytes) {
        (0, _) => String::new(),
        (n, None) => format!(", {} of volumes", counted(n, "snapshot")),
        (n, Some(bytes)) => {
            let read = output::size(bytes);
            format!(
                ", {} of volumes with {read} of files",
                counted(n, "snapshot")
            )
        }
    };
    context.ui.line(&format!(
        "backup/{} verified: {}, {}{volumes}{how}{signed}",
        verified.backup,
        counted(verified.objects, "object"),
        output::size(verified.bytes)
    ))
}
