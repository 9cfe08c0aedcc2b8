//! `location`: the commands about where backups live.

mod adopt;
mod check;
mod copies;
mod create;
mod delete;
mod get;
mod set;
mod signing;
mod volumes;

use backup_core::Error;
use backup_core::api::BackupStorageLocation;
use backup_core::location::Location;
use clap::{Args, Subcommand};

use crate::context::Context;
use crate::flags::DryRun;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::file;

/// What to do about locations.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LocationCommand {
    Create(create::CreateArgs),
    Check(check::CheckArgs),
    /// What the pod of `check --from-cluster` runs.
    #[command(hide = true)]
    Answer(check::AnswerArgs),
    Get(get::GetArgs),
    Set(set::SetArgs),
    Delete(delete::DeleteArgs),
    Adopt(adopt::AdoptArgs),
}

/// For commands that change the client's file.
#[derive(Clone, Debug, Args)]
struct ChangeArgs {
    /// Only tell what would be done
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
}

impl ChangeArgs {
    fn is_dry(&self) -> bool {
        self.dry_run != DryRun::None
    }

    /// Changes the file, or finds out whether that could be done.
    fn change(
        &self,
        context: &Context,
        change: impl FnOnce(&mut Vec<BackupStorageLocation>) -> Result<()>,
    ) -> Result<()> {
        let path = context.paths.locations();
        match self.dry_run {
            DryRun::None => file::change(&path, change),
            DryRun::Client => file::consider(&path, change),
        }
    }

    fn tell(&self, context: &Context, name: &str, verb: &str) -> Result<()> {
        let dry = if self.is_dry() { " (dry run)" } else { "" };
        let line = format!("backupstoragelocation/{name} {verb}{dry}");
        context.ui.line(&line)
    }
}

/// Runs one of them.
pub(crate) async fn run(context: &Context, command: LocationCommand) -> Result<Exit> {
    match command {
        LocationCommand::Create(args) => create::run(context, args),
        LocationCommand::Check(args) => check::run(context, args).await,
        LocationCommand::Answer(args) => check::answer(context, args).await,
        LocationCommand::Get(args) => get::run(context, args).await,
        LocationCommand::Set(args) => set::run(context, args),
        LocationCommand::Delete(args) => delete::run(context, args),
        LocationCommand::Adopt(args) => adopt::run(context, args).await,
    }
}

/// The location of this name or URL, or else the one that is used where none is named.
async fn one(context: &Context, asked: Option<&str>) -> Result<Location> {
    match asked {
        Some(name) => context.location_named(name).await,
        None => context.location_to_check().await,
    }
}

/// A copy that is to go to where nobody knows fails when it is made.
fn warn_unknown(context: &Context, names: &[&str]) {
    for name in names {
        context.ui.warn(&format!(
            "location {name:?}, to which backups are to be copied, is not in {}: it has to be there, or in the cluster, when a backup is made",
            context.paths.locations().display()
        ));
    }
}

/// Where a location of the client's own file stands in it.
fn own(context: &Context, all: &[BackupStorageLocation], name: &str) -> Result<usize> {
    let position = all.iter().position(|one| one.metadata.name == name);
    position.ok_or_else(|| {
        let known: Vec<_> = all.iter().map(|one| one.metadata.name.as_str()).collect();
        let path = context.paths.locations();
        Error::not_found(format!("location {name:?} is not in {}", path.display()))
            .hint(match known.is_empty() {
                true => "none is configured".to_owned(),
                false => format!("there are: {}", known.join(", ")),
            })
            .into()
    })
}
