//! `location`: the commands about where backups live.

mod adopt;
mod check;
mod create;
mod delete;
mod get;
mod set;

use backup_core::Error;
use backup_core::api::BackupStorageLocation;
use backup_core::location::Location;
use clap::Subcommand;

use crate::context::Context;
use backup_cli::error::{Exit, Result};

/// What to do about locations.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum LocationCommand {
    Create(create::CreateArgs),
    Check(check::CheckArgs),
    Get(get::GetArgs),
    Set(set::SetArgs),
    Delete(delete::DeleteArgs),
    Adopt(adopt::AdoptArgs),
}

/// Runs one of them.
pub(crate) async fn run(context: &Context, command: LocationCommand) -> Result<Exit> {
    match command {
        LocationCommand::Create(args) => create::run(context, args),
        LocationCommand::Check(args) => check::run(context, args).await,
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
