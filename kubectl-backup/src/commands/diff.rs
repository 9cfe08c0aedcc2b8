//! `diff`: what differs between a backup and the cluster, or between two backups.

use backup_core::restore::diff::{self, Change, Compared, DiffOptions, Difference, Other};
use backup_core::{Error, raw};
use clap::Args;
use serde_json::value::RawValue;

use super::contents::SpoolArgs;
use crate::context::Context;
use crate::flags::{self, PartArgs};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, Document, Format, count, counted};

const EXAMPLES: &str = "\
Examples:
  kubectl backup diff nightly
  kubectl backup diff nightly -n shop
  kubectl backup diff nightly -n shop --namespace-mappings shop:shop-copy
  kubectl backup diff nightly --include-resources configmaps --objects shop/settings
  kubectl backup diff nightly-1 nightly-2 -o json
Exit codes: 0 the same, 1 different, 2 failed or not everything could be compared, 130 interrupted.";

/// Longer values are cut in a table; wide shows them whole.
const LONGEST: usize = 60;

/// Compare a backup with the cluster, or with another backup
///
/// Tells each object that was changed, added or removed since the backup, and of a changed one the fields. What the server sets, the
/// status, objects that a restore does not bring, and what it gives out anew (addresses, node ports, the volume of a claim) do not count.
/// Objects that controllers make, such as pods of a ReplicaSet, are counted only, unless their kind is named. What the backup was not
/// asked to hold is not compared. Values of Secrets are not shown.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DiffArgs {
    /// Name of the backup
    name: String,
    /// Name of the backup to compare it with [default: the cluster as it is]
    #[arg(value_name = "NAME2")]
    other: Option<String>,
    /// Which objects.
    #[command(flatten)]
    part: PartArgs,
    /// Namespaces that go by another name on the other side, OLD:NEW (comma list, can be repeated)
    #[arg(long, value_name = "OLD:NEW")]
    namespace_mappings: Vec<String>,
    /// Show objects that controllers make as well
    #[arg(long)]
    show_controlled: bool,
    #[command(flatten)]
    spool: SpoolArgs,
    /// How the result is printed; wide shows long values whole
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

/// Runs the command. Exit code 1 says that something differs, so what fails is 2 here.
pub(crate) async fn run(context: &Context, args: DiffArgs) -> Result<Exit> {
    compare(context, &args).await.map_err(|e| match e.exit() {
        Exit::Failed => CommandError::usage(e.into_error()),
        _ => e,
    })
}

async fn compare(context: &Context, args: &DiffArgs) -> Result<Exit> {
    let ui = &context.ui;
    let filter = args.part.filter()?;
    filter.validate().map_err(CommandError::usage)?;
    let name = flags::known_name(&args.name)?;
    let (place, entry) = context.find_backup(&name).await?;
    let place = context.with_secrets(place, &entry).await?;
    let second = match &args.other {
        Some(other) => {
            let (place, entry) = context.find_backup(&flags::known_name(other)?).await?;
            Some((context.with_secrets(place, &entry).await?, entry))
        }
        None => None,
    };
    let scope = args.part.scope();
    let other = match &second {
        Some((place, entry)) => {
            ui.note(&format!(
                "comparing {scope} of backup {name} with backup {}",
                entry.name
            ));
            Other::Backup(&place.location, &entry.name)
        }
        None => {
            let cluster = context.cluster().await?;
            ui.note(&format!(
                "comparing {scope} of backup {name} with context {:?} ({})",
                cluster.context(),
                cluster.server()
            ));
            Other::Cluster(cluster)
        }
    };
    let options = DiffOptions {
        backup: name,
        filter,
        namespace_mappings: flags::pairs("--namespace-mappings", ':', &args.namespace_mappings)?,
        controlled: args.show_controlled,
        spool_dir: args.spool.folder(context),
    };
    let bar = ui.progress();
    let mut list = List::new(context, args.output);
    let mut show =
        |difference: Difference| list.show(&difference).map_err(CommandError::into_error);
    let compared = diff::diff(&place.location, &options, other, &bar, &mut show).await?;
    drop(bar);
    list.end()?;
    Ok(report(context, &compared))
}

fn report(context: &Context, compared: &Compared) -> Exit {
    let ui = &context.ui;
    for warning in &compared.warnings {
        ui.warn(warning);
    }
    for missed in &compared.missed {
        ui.say(&format!("not compared: {missed}"));
    }
    let left_out = match compared.left_out {
        0 => String::new(),
        kinds => format!(
            "; {} not compared, which a rule left out of a backup",
            counted(kinds, "kind")
        ),
    };
    let controlled = match compared.controlled {
        0 => String::new(),
        objects => format!(
            "; {} of controllers not told, see --show-controlled",
            counted(objects, "different object")
        ),
    };
    ui.note(&format!(
        "{} different, {} the same{controlled}{left_out}",
        counted(compared.different, "object"),
        count(compared.same)
    ));
    match (compared.missed.is_empty(), compared.different) {
        // As diff(1): whoever asks whether all is the same has no answer.
        (false, _) => Exit::Usage,
        (true, 0) => Exit::Done,
        (true, _) => Exit::Failed,
    }
}

/// What a list begins with.
const HEAD: &str = r#"{"apiVersion": "kubectl-backup/v1", "kind": "DifferenceList", "items": ["#;

/// Differences on their way to standard output, one at a time.
struct List<'l> {
    context: &'l Context,
    format: Format,
    any: bool,
}

impl<'l> List<'l> {
    fn new(context: &'l Context, format: Format) -> Self {
        Self {
            context,
            format,
            any: false,
        }
    }

    fn show(&mut self, difference: &Difference) -> Result<()> {
        let ui = &self.context.ui;
        let first = !std::mem::replace(&mut self.any, true);
        match self.format {
            Format::Table | Format::Wide => self.lines(difference),
            Format::Name => ui.line(&format!(
                "{}/{}",
                difference.resource, difference.object.name
            )),
            Format::Json => {
                let text = serde_json::to_string(difference).map_err(unwritable)?;
                let before = if first { HEAD } else { "," };
                ui.data(format!("{before}\n{}", raw::pretty(&text)).as_bytes())
            }
            Format::Yaml => {
                let decoded = serde_json::to_value(difference).map_err(unwritable)?;
                let text = output::yaml(&Document::new("Difference", decoded))?;
                ui.data(format!("---\n{text}").as_bytes())
            }
        }
    }

    fn lines(&self, difference: &Difference) -> Result<()> {
        let ui = &self.context.ui;
        let object = &difference.object;
        let namespace = object
            .namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!("{namespace}/"));
        let change = match difference.change {
            Change::Changed => "changed",
            Change::Added => "added",
            Change::Removed => "removed",
        };
        ui.line(&format!(
            "{change:<9}{} {namespace}{}",
            difference.resource, object.name
        ))?;
        difference.fields.iter().try_for_each(|field| {
            let text = |value: &Option<Box<RawValue>>| match value {
                None => "<none>".to_owned(),
                Some(value) if self.format == Format::Wide => value.get().to_owned(),
                Some(value) => cut(value.get()),
            };
            ui.line(&format!(
                "           {}: {} -> {}",
                field.path,
                text(&field.before),
                text(&field.after)
            ))
        })?;
        match difference.more_fields {
            0 => Ok(()),
            more => ui.line(&format!("           and {more} more fields")),
        }
    }

    fn end(&self) -> Result<()> {
        match self.format {
            // Not before something was compared: what can not be is an error alone.
            Format::Json if !self.any => self.context.ui.data(format!("{HEAD}\n]}}\n").as_bytes()),
            Format::Json => self.context.ui.data(b"\n]}\n"),
            _ => Ok(()),
        }
    }
}

fn unwritable(e: serde_json::Error) -> Error {
    Error::other("a difference can not be written as JSON").because(e)
}

/// The beginning of a long value.
fn cut(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    let begin: String = text.chars().take(LONGEST).collect();
    format!("{begin}... ({} bytes)", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(cut("\"short\""), "\"short\"");
        let long = "ä".repeat(61);
        assert_eq!(cut(&long), format!("{}... (122 bytes)", "ä".repeat(60)));
    }
}
