//! `restore delete`: removes the records of restores.

use backup_core::api::Phase;
use backup_core::error::quoted;
use backup_core::name::Name;
use backup_core::restore::journal::{self, LastRun, Origin};
use backup_core::restore::{self, Cleared, Left};
use backup_core::{Error, Kind, catalog};
use clap::Args;

use crate::context::{Context, Place};
use crate::flags::{self, RemovalArgs};
use crate::many::{self, ManyArgs};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::counted;

const EXAMPLES: &str = "\
Examples:
  kubectl backup restore delete nightly-20261121020000
  kubectl backup restore delete nightly-20261121020000 web-20261120020000 --yes
  kubectl backup restore delete nightly-20261121020000 --workspace production --yes";

/// Delete the records of restores
///
/// What they restored stays in the cluster, and their backups stay as well. The originals of what a restore deleted to create it anew
/// (--existing-resource-policy=recreate) are kept in its record and go with it; they are counted before it is asked. A restore that is
/// not finished goes on by its record, so that needs --force; its backup is no longer kept from `delete` and `prune` then. So does what Velero left of a restore.
/// Volumes that a restore began to fill in its cluster, which has to be this one, and that are bound to nobody yet go with it, as their class says, and so do their claims; where one is full already, that needs
/// --give-up-data. What somebody uses stays and is named (exit code 3), and so does the record then.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// Names of restores
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    removal: RemovalArgs,
    /// Delete the record of a restore that is not finished too
    #[arg(long)]
    force: bool,
    /// Give up volumes that are full and not bound to their claims yet, and what is left in a cluster that can not be asked
    #[arg(long)]
    give_up_data: bool,
    #[command(flatten)]
    many: ManyArgs,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: DeleteArgs) -> Result<Exit> {
    let Some(many) = args.many.resolve(context)? else {
        let found = find(context, &args).await?;
        let question = format!("delete the records of {}?", list(&found));
        let agreed = args.removal.agreed(&context.ui, &question)?;
        return delete(context, &args, &found, agreed).await;
    };
    let found = many.each(|member| find(&member.context, &args)).await;
    many.are_still_distinct()?;
    let mut parts = Vec::new();
    for (member, found) in &found {
        if let Ok(found) = found {
            parts.push(format!("{} of {}", list(found), member.name));
        }
    }
    if !parts.is_empty() {
        let question = format!("delete the records of {}?", parts.join(", and "));
        args.removal.agreed(&context.ui, &question)?;
    }
    let (args, agreed) = (&args, !args.removal.is_dry());
    let done = many::then(&found, |member, found| {
        delete(&member.context, args, found, agreed)
    });
    let done = done.await;
    let exits = done
        .into_iter()
        .map(|(_, done)| done.unwrap_or_else(|exit| exit));
    Ok(many::worst(exits))
}

/// A restore that was found.
struct Found {
    name: Name,
    /// Where its record is.
    place: Place,
    /// The originals that it keeps.
    kept: u64,
    /// What its record says of the backup whose data it brings, and of the cluster.
    origin: Origin,
    /// What is left of its claims in this cluster.
    left: Left,
}

impl Found {
    /// ` (with 3 originals of what it recreated; what was being filled for shop/data)`
    fn with(&self) -> String {
        let originals = match self.kept {
            0 => None,
            kept => Some(format!(
                "{} of what it recreated",
                counted(kept, "original")
            )),
        };
        let parts: Vec<String> = originals.into_iter().chain(self.left.goes()).collect();
        match parts.is_empty() {
            true => String::new(),
            false => format!(" (with {})", parts.join("; ")),
        }
    }
}

fn list(found: &[Found]) -> String {
    let names = found.iter();
    let names: Vec<_> = names
        .map(|one| format!("{}{}", one.name, one.with()))
        .collect();
    names.join(", ")
}

/// What is left of a restore's claims here.
async fn left(
    context: &Context,
    args: &DeleteArgs,
    name: &Name,
    origin: &Origin,
    run: Option<LastRun>,
) -> Result<Left> {
    let backup_uid = origin.backup_uid.as_deref();
    if backup_uid == Some("") {
        // It brought no data.
        return Ok(Left::default());
    }
    let looked = async {
        let cluster = context.cluster().await?;
        if let Some(made_in) = &origin.cluster {
            let known = context.known_as(made_in);
            is_made_here(made_in, known.as_deref(), context.identity().await?)?;
        }
        Ok::<_, CommandError>(restore::left(cluster, name, backup_uid).await?)
    };
    let looked = looked.await;
    if let Ok(left) = &looked {
        refuse_at_work(context, name, run, left)?;
    }
    let (left, warning) = allowed(name, looked, args.give_up_data)?;
    if let Some(warning) = warning {
        context.ui.warn(&warning);
    }
    Ok(left)
}

/// What is left of a restore is in the cluster in which it was made, and in no other one. `known` is the context that this one was seen with.
fn is_made_here(
    made_in: &str,
    known: Option<&str>,
    here: Option<&str>,
) -> std::result::Result<(), Error> {
    let its = match known {
        Some(context) => format!("that of context {context:?} (kube-system {made_in})"),
        None => format!("that whose kube-system has the uid {made_in}"),
    };
    let why = match here {
        Some(here) if here == made_in => return Ok(()),
        Some(here) => format!("it was made in another cluster than this one ({here}): {its}"),
        None => format!(
            "this user may not read the namespace kube-system, so whether this is the cluster in which it was made is not known: {its}"
        ),
    };
    let context = known.map_or("CONTEXT".into(), quoted);
    Err(Error::new(Kind::Forbidden, why).hint(format!("take that cluster: --context {context}")))
}

/// Whether this cluster made the restore: then it puts it away, whosever the location is.
async fn is_own(context: &Context, origin: &Origin) -> bool {
    let made_in = origin.cluster.as_deref();
    made_in.is_some() && context.identity().await.is_ok_and(|here| here == made_in)
}

/// Nothing is cleared under a run: it would go on without the claims that it made.
fn at_work(name: &Name, why: &str) -> Error {
    Error::other(format!("restore {:?} may be at work: {why}", name.as_str()))
        .hint("stop it where it runs (Ctrl-C); of one that was killed the mover ends by itself after ten minutes")
}

/// A run that wrote not long ago keeps what is left of its claims; a record alone goes whenever that is asked for.
fn refuse_at_work(context: &Context, name: &Name, run: Option<LastRun>, left: &Left) -> Result<()> {
    let is_at_work = run.is_some_and(|run| run.may_be_at_work(context.now));
    match is_at_work && !left.is_empty() {
        true => Err(at_work(name, "it wrote to its journal less than ten minutes ago").into()),
        false => Ok(()),
    }
}

/// What may be cleared, with a warning about what is not known; an error where data would be given up that nobody gave up.
fn allowed(name: &Name, looked: Result<Left>, gives_up: bool) -> Result<(Left, Option<String>)> {
    match looked {
        Ok(left) if left.at_work().is_some() => {
            let pod = left.at_work().unwrap_or_default();
            Err(at_work(name, &format!("its mover {pod} has not ended")).into())
        }
        Ok(left) => match left.gives_up() {
            Some(what) if !gives_up => Err(Error::other(format!(
                "data of restore {:?} would be given up: {what}",
                name.as_str()
            ))
            .hint("repeat its `restore create` to finish it, or add --give-up-data")
            .into()),
            _ => Ok((left, None)),
        },
        Err(e) if gives_up => {
            let warning = format!(
                "whether volumes of restore {name} are still being filled is not known, and what is left of them stays: {}",
                e.error().sentence()
            );
            Ok((Left::default(), Some(warning)))
        }
        Err(e) => {
            let e = e.into_error();
            let hint = e.hint_text().map(str::to_owned);
            Err(e
                .context(format!(
                    "whether volumes of restore {:?} are still being filled can not be told, so its record stays",
                    name.as_str()
                ))
                .hint(format!(
                    "{}, or add --give-up-data: then what is left of them there stays, and nothing tells of it",
                    hint.as_deref().unwrap_or("name its cluster (--context)")
                ))
                .into())
        }
    }
}

/// Nothing is deleted before every name was found.
async fn find(context: &Context, args: &DeleteArgs) -> Result<Vec<Found>> {
    let mut found: Vec<Found> = Vec::new();
    for name in &args.names {
        let name = flags::known_name(name)?;
        let (place, restore) = context.find_restore(&name).await?;
        let is_velero = restore.status.phase == Phase::Other(catalog::UNKNOWN.to_owned());
        if !args.force && is_velero {
            return Err(Error::other(format!(
                "restore {:?} has no record in the bucket: it is Velero's, whose record is in its cluster",
                name.as_str()
            ))
            .hint("`velero restore delete` removes both; --force removes what is in the bucket")
            .into());
        }
        let store = &place.location.store;
        let origin = match is_velero {
            true => Origin {
                backup_uid: Some(String::new()),
                ..Origin::default()
            },
            false => journal::origin(store, &restore).await?,
        };
        // One that ended may have been begun again since.
        let run = match origin.backup_uid.as_deref() {
            Some("") => None,
            _ => Some(journal::last_run(store, &name).await?),
        };
        let is_unfinished =
            restore.status.phase == Phase::InProgress || run.is_some_and(|run| !run.is_finished);
        if !args.force && is_unfinished {
            return Err(Error::other(format!(
                "restore {:?} is not finished: without its record it can not go on",
                name.as_str()
            ))
            .hint("repeat its `restore create` to finish it, or add --force")
            .into());
        }
        if !found.iter().any(|other| other.name == name) {
            let left = left(context, args, &name, &origin, run).await?;
            if !is_own(context, &origin).await {
                let agreed = args.removal.asks_nothing();
                context.guard(&place.location, "delete", agreed).await?;
            }
            let kept = catalog::kept_by_restore(store, &name).await?;
            found.push(Found {
                name,
                place,
                kept,
                origin,
                left,
            });
        }
    }
    Ok(found)
}

async fn delete(
    context: &Context,
    args: &DeleteArgs,
    found: &[Found],
    agreed: bool,
) -> Result<Exit> {
    let mut exit = Exit::Done;
    for one in found {
        if agreed {
            let cleared = clear(context, args, one).await?;
            for text in cleared.said.iter().chain(&cleared.stays) {
                context.ui.warn(text);
                exit = Exit::Incomplete;
            }
            if !cleared.stays.is_empty() {
                context.ui.warn(&format!(
                    "the record of restore {} stays: the same command goes on",
                    one.name
                ));
                continue;
            }
            catalog::delete_restore(&one.place.location.store, &one.name).await?;
        }
        let title = context.titled(&format!("restore/{}", one.name));
        let verb = format!("deleted{}", one.with());
        args.removal.tell(&context.ui, &title, &verb)?;
    }
    Ok(exit)
}

/// Clears what is left in the cluster now: the answer to the question may have taken long.
async fn clear(context: &Context, args: &DeleteArgs, one: &Found) -> Result<Cleared> {
    let run = journal::last_run(&one.place.location.store, &one.name).await?;
    let left = left(context, args, &one.name, &one.origin, Some(run)).await?;
    let mut cleared = match left.is_empty() {
        true => Cleared::default(),
        false => left.clear(context.cluster().await?).await?,
    };
    cleared.said.extend_from_slice(left.untold());
    Ok(cleared)
}

#[cfg(test)]
mod tests {
    use backup_core::Kind;

    use super::*;

    #[test]
    fn a_restore_of_another_cluster_is_refused_with_the_context_to_take() {
        assert!(is_made_here("a", Some("eu"), Some("a")).is_ok());
        let told = |known, here| {
            let error = is_made_here("uid-a", known, here).unwrap_err();
            let hint = error.hint_text().unwrap().to_owned();
            (error.to_string(), hint)
        };
        let (why, hint) = told(Some("eu"), Some("uid-b"));
        assert!(why.contains("\"eu\"") && why.contains("uid-a"), "{why}");
        assert!(why.contains("uid-b"), "{why}");
        assert!(hint.ends_with("--context eu"), "{hint}");
        let (why, hint) = told(None, None);
        assert!(
            why.contains("uid-a") && why.contains("kube-system"),
            "{why}"
        );
        assert!(hint.contains("--context CONTEXT"), "{hint}");

        let name: Name = "r".parse().unwrap();
        let away = || is_made_here("uid-a", Some("eu"), Some("uid-b")).unwrap_err();
        let refused = allowed(&name, Err(away().into()), false).unwrap_err();
        let said = refused.error();
        assert!(said.sentence().contains("another cluster"), "{said}");
        let hint = said.hint_text().unwrap();
        assert!(
            hint.contains("--context eu, or add --give-up-data"),
            "{hint}"
        );
        let (left, warning) = allowed(&name, Err(away().into()), true).unwrap();
        assert!(left.is_empty());
        assert!(warning.unwrap().contains("another cluster"));
    }

    #[test]
    fn what_is_left_in_a_cluster_that_can_not_be_asked_is_given_up_only_where_that_is_said() {
        let name: Name = "r".parse().unwrap();
        let away = || Err(Error::new(Kind::Unreachable, "nobody answers").into());
        let refused = allowed(&name, away(), false).unwrap_err();
        assert_eq!(refused.exit(), Exit::Failed);
        let said = refused.error();
        assert!(said.to_string().contains("its record stays"), "{said}");
        assert!(said.hint_text().unwrap().contains("--give-up-data"));
        let (left, warning) = allowed(&name, away(), true).unwrap();
        assert!(left.is_empty());
        assert!(warning.unwrap().contains("nobody answers"));
        let (_, warning) = allowed(&name, Ok(Left::default()), false).unwrap();
        assert_eq!(warning, None);
    }
}
