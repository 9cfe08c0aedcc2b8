//! `contents`: what is in a backup: its kinds, the objects of a kind, or one object; or the files of a volume.

mod kind;
mod show;
mod volume;

use std::path::PathBuf;

use backup_core::apart;
use backup_core::archive::SECRETS;
use backup_core::archive::read::Archive;
use backup_core::archive::row::ResourceRow;
use backup_core::archive::spool;
use backup_core::catalog;
use backup_core::layout::BackupKeys;
use backup_core::{Kind, signature};
use clap::Args;

use self::show::show;
use crate::context::Context;
use crate::flags;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{LabelArgs, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  kubectl backup contents nightly
  kubectl backup contents nightly deployments -n shop -L app
  kubectl backup contents nightly configmaps shop/settings
  kubectl backup contents nightly secrets shop/tls -o json
  kubectl backup contents nightly --volume shop/data
  kubectl backup contents nightly --volume shop/data etc/settings.json";

/// Show what is in a backup: its kinds, the objects of a kind, or one object; or the files of a volume
///
/// One object is read alone, however large the archive is. A backup that another tool made is first rewritten into an
/// unnamed file under --spool-dir.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ContentsArgs {
    /// Name of the backup
    name: String,
    /// Kind of objects, such as pods, deploy, deployments.apps; with --volume the path of one file, which goes to standard output
    kind: Option<String>,
    /// One object: NAMESPACE/NAME, or NAME with --namespace or where the kind is cluster-scoped
    object: Option<String>,
    /// Objects of this namespace only
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,
    /// Objects of all namespaces, as where none is named
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// List the files of this claim's volume, NAMESPACE/NAME, where the backup has them
    #[arg(long, value_name = "NS/CLAIM", conflicts_with_all = ["object", "namespace", "all_namespaces"])]
    volume: Option<String>,
    #[command(flatten)]
    labels: LabelArgs,
    #[command(flatten)]
    spool: SpoolArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Where foreign archives are rewritten.
#[derive(Clone, Debug, Args)]
pub(crate) struct SpoolArgs {
    /// Folder for the unnamed file into which another tool's archive is rewritten [default: $XDG_CACHE_HOME/kubectl-backup]
    #[arg(
        long,
        value_name = "FOLDER",
        env = "KUBECTL_BACKUP_SPOOL_DIR",
        hide_env_values = true
    )]
    spool_dir: Option<PathBuf>,
}

impl SpoolArgs {
    /// The folder.
    pub(crate) fn folder(&self, context: &Context) -> PathBuf {
        self.spool_dir
            .clone()
            .unwrap_or_else(|| context.paths.spool().to_owned())
    }
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: ContentsArgs) -> Result<Exit> {
    let (place, entry) = context.find_backup(&flags::known_name(&args.name)?).await?;
    if let Some(volume) = &args.volume {
        return volume::show(context, &args, volume, &place, &entry).await;
    }
    let place = context.with_secrets(place, &entry).await?;
    let store = &place.location.store;
    let keys = BackupKeys::new(&entry.name);
    let archive = store.source(keys.archive());
    let indexed = match signature::check(&place.location, &entry.name).await? {
        Some(vouched) => Some((vouched.open(store).await?, vouched.entry.backup)),
        None if catalog::is_ours(store, &entry).await? => {
            let index = store.source(keys.index());
            let archive = Archive::open(archive.clone(), index).await?;
            Some((archive, entry.backup.clone()))
        }
        None => None,
    };
    if let Some((archive, marker)) = indexed {
        // Damage of what is not asked for does not matter.
        let asked = is_of_secrets(&args, archive.index.resources());
        let key = place.location.apart.as_ref().filter(|_| asked);
        let archive = apart::join(store, key, &marker, &entry.name, archive).await?;
        return show(context, &args, &archive).await;
    }
    let hidden = apart::refuse_hidden(store, &entry.name, Some(&entry.backup)).await;
    let hidden = match hidden {
        Err(e) if e.kind() == Kind::Corrupt && args.kind.is_some() => Some(e),
        looked => {
            looked?;
            None
        }
    };
    let bar = context.ui.progress();
    let (archive, report) = spool::spool(
        &archive,
        &args.spool.folder(context),
        spool::as_stored,
        &bar,
    )
    .await
    .map_err(|e| e.context(format!("{} can not be read", keys.archive())))?;
    drop(bar);
    for warning in report.warnings {
        context.ui.warn(&warning);
    }
    if let Some(e) = hidden.filter(|_| is_of_secrets(&args, archive.index.resources())) {
        return Err(e.into());
    }
    show(context, &args, &archive).await
}

/// Whether Secrets are among what is asked for, as far as these rows tell.
fn is_of_secrets(args: &ContentsArgs, rows: &[ResourceRow]) -> bool {
    let found = args.kind.as_ref().map(|kind| kind::find(rows, kind));
    !matches!(found, Some(Ok(row)) if row.resource != SECRETS)
}
