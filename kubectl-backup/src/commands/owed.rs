//! Post hooks that runs owe which died: a command that writes to a location runs them before anything else.

use backup_core::hooks::owed::{self, Settling};
use backup_core::location::Location;

use crate::context::Context;
use crate::install::NAMESPACE;
use backup_cli::error::Exit;

/// Runs what is owed to pods of this cluster, and tells it; whether nothing is left to do. A location that can not be asked says so where the command itself
/// needs it.
pub(super) async fn settle(context: &Context, location: &Location) -> Exit {
    let Ok(cluster) = context.cluster().await else {
        return Exit::Done;
    };
    let identity = context.identity().await.ok().flatten();
    let mut namespaces = vec![context.velero().to_owned(), NAMESPACE.to_owned()];
    namespaces.dedup();
    let settling = Settling {
        cluster,
        location,
        identity,
        namespaces: &namespaces,
        me: &context.process(),
    };
    let told = match owed::settle(&settling).await {
        Ok(told) => told,
        Err(e) => {
            context.ui.warn(&e.sentence());
            return Exit::Incomplete;
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
    exit
}
