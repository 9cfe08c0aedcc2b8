//! `location adopt`: hand a location over to this cluster.

use backup_core::location::guard::{self, Guard};
use backup_core::{Error, Kind};
use clap::Args;

use crate::context::Context;
use backup_cli::error::{Exit, Result};
use backup_cli::output::{self, Format, OutputArgs};

const EXAMPLES: &str = "\
Examples:
  kubectl backup location adopt offsite
  kubectl backup location adopt offsite --yes";

/// Hand a location over to this cluster
///
/// From then on this cluster may create, prune and delete backups there, and the one before may not. Restores are never refused. Where only encrypted backups were made, that stays so without --plain.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AdoptArgs {
    /// Name or URL of the location [default: the one that is used where none is named]
    name: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Let plain backups in where only encrypted ones were made
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: AdoptArgs) -> Result<Exit> {
    let location = super::one(context, args.name.as_deref()).await?;
    if location.shared_with_velero {
        return Err(Error::invalid(format!(
            "location {:?} is Velero's: it belongs to no cluster alone, and there is nothing to adopt",
            location.name
        ))
        .into());
    }
    let uid = context.identity().await?.ok_or_else(|| {
        Error::new(
            Kind::Forbidden,
            "can not tell which cluster this is: this user may not read the namespace kube-system",
        )
        .hint("adopt the location as a user who may `get` that namespace")
    })?;
    if let Guard::Other(other) = guard::read(&location, Some(uid)).await? {
        let question = format!(
            "location {} belongs to the cluster {}: hand it over to this one?",
            location.name,
            context.label(&other)
        );
        context.ui.confirm(args.yes, &question)?;
    }
    guard::adopt(&location, uid, args.plain).await?;
    let name = format!("backupstoragelocation/{}", location.name);
    match args.output.output {
        format @ (Format::Json | Format::Yaml) => {
            output::print(&context.ui, format, &location.spec)?;
        }
        Format::Name => context.ui.line(&name)?,
        Format::Table | Format::Wide => context.ui.line(&format!("{name} adopted"))?,
    }
    Ok(Exit::Done)
}
