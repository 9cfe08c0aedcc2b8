//! Post hooks that runs owe which died: a command that writes to a location runs them before anything else.

use backup_core::Kind;
use backup_core::hooks::owed::{self, Settling};
use backup_core::location::Location;

use crate::context::Context;
use crate::install::NAMESPACE;
use backup_cli::error::{Exit, Result};

/// Runs what is owed to pods of this cluster, and tells it; whether nothing is left to do.
///
/// # Errors
/// Those of a cluster or a location that is not reached, which the command itself would end with.
pub(super) async fn settle(context: &Context, location: &Location) -> Result<Exit> {
    let cluster = context.cluster().await?;
    let identity = context.identity().await?;
    let mut namespaces = vec![context.velero().to_owned(), NAMESPACE.to_owned()];
    namespaces.dedup();
    let settling = Settling {
        cluster,
        location,
        identity,
        namespaces: &namespaces,
        served: &[NAMESPACE.to_owned()],
        me: &context.process(),
    };
    let told = match owed::settle(&settling).await {
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
    Ok(exit)
}
