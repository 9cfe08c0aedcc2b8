//! Post hooks that runs owe which died: a command that writes to a location, or restores from it, runs them before anything else. Listings tell how many there are.

use backup_core::hooks::owed::{self, Settling};
use backup_core::location::Location;
use backup_core::{Error, Kind};

use crate::context::Context;
use crate::install::NAMESPACE;
use backup_cli::error::{Exit, Result};
use backup_cli::output;

/// Runs what is owed to pods of this cluster, and tells it; whether nothing is left to do.
///
/// # Errors
/// Those of a cluster or a location that is not reached, which the command itself would end with; `Interrupted`.
pub(super) async fn settle(context: &Context, location: &Location) -> Result<Exit> {
    let told = match owed::count(location).await {
        // Then Ctrl-C goes on to mean what it means to the command.
        Ok(0) => return Ok(Exit::Done),
        Ok(_) => {
            let mut namespaces = vec![context.velero().to_owned(), NAMESPACE.to_owned()];
            namespaces.dedup();
            let settling = Settling {
                cluster: context.cluster().await?,
                location,
                identity: context.identity().await?,
                namespaces: &namespaces,
                served: &[NAMESPACE.to_owned()],
                me: &context.process(),
                cancel: &context
                    .cancel("pods whose post hooks have not run by then stay owed them"),
            };
            owed::settle(&settling).await
        }
        Err(e) => Err(e),
    };
    let told = match told {
        Ok(told) => told,
        Err(e) if matches!(e.kind(), Kind::Unreachable | Kind::Unauthorized) => {
            return Err(e.into());
        }
        Err(e) => {
            let e = e.context("can not look for post hooks that are owed to pods");
            context.ui.warn(&e.sentence());
            return Ok(Exit::Incomplete);
        }
    };
    let mut exit = Exit::Done;
    for one in told {
        if one.is_trouble {
            context.ui.warn(&one.text);
            exit = Exit::Incomplete;
        } else {
            context.ui.note(&one.text);
        }
    }
    if context.is_stopped() {
        let why = "this was stopped while post hooks that are owed to pods were run";
        return Err(Error::new(Kind::Interrupted, why).into());
    }
    Ok(exit)
}

/// Tells how many post hooks are noted in a location. A listing fails over nothing of that.
pub(super) async fn tell(context: &Context, location: &Location) {
    if let Ok(count @ 1..) = owed::count(location).await {
        context.ui.note(&format!(
            "location {}: {} owed to pods by backups that are at work or have died; the next create, prune, delete or restore runs what dead ones owe to this cluster",
            location.name,
            output::counted(count as u64, "post hook")
        ));
    }
}
