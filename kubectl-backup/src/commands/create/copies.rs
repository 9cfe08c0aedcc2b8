//! The copies that a location has made of each backup. The backup stands by then: a copy that fails is told with the command that repeats it.

use backup_core::Kind;
use backup_core::error::quoted;
use backup_core::location::Location;
use backup_core::name::Name;

use crate::commands::copy;
use crate::context::Context;
use crate::many;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::replicate_to;
use backup_cli::output::{self, counted};

/// Copies a backup to each location that its own one names, one after the other.
pub(super) async fn make(context: &Context, location: &Location, name: &Name) -> Result<Exit> {
    let ui = &context.ui;
    let mut exit = Exit::Done;
    for target in replicate_to(&location.spec)? {
        match one(context, location, name, &target).await {
            Ok(one) => exit = many::worst([exit, one]),
            Err(e) => {
                let is_stopped = e.error().kind() == Kind::Interrupted;
                ui.error(&e);
                ui.say(&format!(
                    "backup/{name} stands in location {}, and has no copy in {target}; to make it: {} copy {name} --to {}{}",
                    location.name,
                    context.program,
                    quoted(&target),
                    context.flags_again_with(Some(&location.name))
                ));
                exit = match is_stopped {
                    true => Exit::Interrupted,
                    false => Exit::Incomplete,
                };
                if is_stopped {
                    break;
                }
            }
        }
    }
    Ok(exit)
}

async fn one(context: &Context, location: &Location, name: &Name, target: &str) -> Result<Exit> {
    let target = context.other_location(target, None, None).await?;
    // A backup of ours says itself whose it is, where that is known.
    let done = copy::copy_to(context, location, &target, name, None, false).await?;
    for warning in &done.warnings {
        context.ui.warn(warning);
    }
    context.ui.note(&format!(
        "copied to location {} ({}, {})",
        target.name,
        counted(done.files, "file"),
        output::size(done.bytes)
    ));
    Ok(copy::exit(&done))
}
