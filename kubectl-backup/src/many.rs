//! Several clusters as one: `--contexts` and `--workspace`. Each of them is a [`Context`] as if the user had named its context and its location,
//! so that whatever is done here can be done for one of them alone. Decides which clusters, and does work side by side; the commands do the rest.
//!
//! A location of the client's file, or a URL, is shared: each cluster has the folder of its name in it, `--location NAME/FOLDER`. A location of a
//! cluster's own (its Velero's, or with nothing configured the folder of this machine) is used as it stands.

mod workspace;

use std::collections::BTreeMap;

use backup_core::layout::{BACKUPS, GUARD};
use backup_core::location::Store;
use backup_core::{Error, Kind};
use clap::Args;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::context::Context;
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations::{self, Choice};
use backup_cli::output::{self, Format, OutputArgs, Table};
use workspace::{Schedule, Workspace};

/// Clusters that are worked on at a time: each takes the memory of a run of its own.
const AT_A_TIME: usize = 4;

/// The guard's size does not matter here.
const LARGEST_GUARD: u64 = 1 << 20;

/// The annotation by which programs tell apart what -o json shows of several clusters; it is not stored.
const CLUSTER: &str = "kubectl-backup/cluster";

/// Which clusters, where several are meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Several clusters")]
pub(crate) struct ManyArgs {
    /// Contexts of the kubeconfig: all of these clusters as one (comma list, can be repeated)
    #[arg(
        long,
        value_name = "CONTEXT",
        value_delimiter = ',',
        conflicts_with = "workspace"
    )]
    contexts: Vec<String>,
    /// The clusters of a workspace: a file, or a name in $XDG_CONFIG_HOME/kubectl-backup/workspaces
    #[arg(long, value_name = "NAME|FILE")]
    workspace: Option<String>,
}

/// One of the clusters.
pub(crate) struct Member {
    /// In tables and before each line about it.
    pub(crate) name: String,
    /// As if it were named alone.
    pub(crate) context: Context,
    /// As `--include-namespaces`.
    pub(crate) namespaces: Vec<String>,
    /// Its folder in a location that they share.
    folder: String,
}

/// All of them.
pub(crate) struct Many {
    /// In the order in which they were named.
    pub(crate) members: Vec<Member>,
    /// What `create` makes belongs to it.
    pub(crate) schedule: Option<Schedule>,
    /// The location that they share.
    shared: Option<Store>,
}

/// What became of the work on one cluster; an error was told.
pub(crate) type Done<'m, T> = Vec<(&'m Member, Result<T, Exit>)>;

impl ManyArgs {
    /// The clusters that are meant; nothing where it is the one of the connection's flags. No cluster is asked.
    ///
    /// # Errors
    /// A workspace that can not be read; contexts that are not there, or are named twice; flags that name one cluster.
    pub(crate) fn resolve(&self, context: &Context) -> Result<Option<Many>> {
        let meant = match (&self.workspace, self.contexts.is_empty()) {
            (None, true) => return Ok(None),
            (Some(named), _) => Workspace::read(named, &context.paths.workspaces())?,
            (None, false) => Workspace::of_contexts(&self.contexts)?,
        };
        if let Some(flag) = context.one_cluster_alone() {
            return Err(CommandError::usage(
                Error::invalid(format!("{flag} names one cluster, and several are meant")).hint(
                    "a context has its own address and user: leave the flag (or its variable) out",
                ),
            ));
        }
        let known = context.kubeconfig()?.contexts;
        let known: Vec<_> = known.iter().map(|known| known.name.as_str()).collect();
        let absent = |name: &&str| !known.contains(name);
        let absent: Vec<_> = meant
            .clusters
            .iter()
            .map(|one| one.context.as_str())
            .filter(absent)
            .collect();
        if !absent.is_empty() {
            return Err(Error::not_found(format!(
                "the kubeconfig has no context {}",
                absent.join(", ")
            ))
            .hint(format!(
                "nothing was begun; it has: {}",
                output::joined(
                    &known
                        .iter()
                        .map(|name| (*name).to_owned())
                        .collect::<Vec<_>>(),
                    "no context at all",
                )
            ))
            .into());
        }
        let asked = match (context.asked_location(), meant.location.as_deref()) {
            (Some(asked), Some(_)) => {
                return Err(CommandError::usage(Error::invalid(format!(
                    "the workspace names a location, and so does --location (or its variable): {asked}"
                ))
                .hint("leave one of them out")));
            }
            (asked, named) => asked.or(named),
        };
        let shared = context.own_location(asked)?;
        let mut members = Vec::new();
        for cluster in meant.clusters {
            let location = match &shared {
                Some(shared) => Some(locations::within(shared, &cluster.folder)?.metadata.name),
                None => asked.map(str::to_owned),
            };
            members.push(Member {
                context: context.of_member(&cluster.name, &cluster.context, location),
                name: cluster.name,
                namespaces: cluster.namespaces,
                folder: cluster.folder,
            });
        }
        Ok(Some(Many {
            members,
            schedule: meant.schedule,
            shared: shared
                .map(|shared| context.open(&shared))
                .transpose()?
                .map(|opened| opened.store),
        }))
    }
}

impl Many {
    /// Errors where two names are names of one cluster. One that does not answer is told later, by its own work.
    pub(crate) async fn are_distinct(&self) -> Result<()> {
        let asked = stream::iter(&self.members).map(|member| async move {
            let uid = member
                .context
                .identity_soon()
                .await
                .ok()
                .flatten()
                .map(str::to_owned);
            let server = member
                .context
                .cluster()
                .await
                .map(|cluster| cluster.server().to_owned());
            (member, uid, server.ok())
        });
        let answers: Vec<_> = asked.buffered(AT_A_TIME).collect().await;
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (member, uid, server) in &answers {
            // One that hides its uid is told apart by its address.
            for sign in [uid, server].into_iter().flatten() {
                let other = seen.insert(sign.clone(), &member.name);
                if let Some(other) = other.filter(|other| *other != member.name) {
                    return Err(CommandError::usage(
                        Error::invalid(format!(
                            "{other} and {} are one cluster ({sign})",
                            member.name
                        ))
                        .hint("name it once; nothing was begun"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Errors where the location that they share is one cluster's already: what lies at its root would be mixed with folders of others. Where
    /// they have folders in it, that is a warning: who used the root by mistake does not end the backups of all.
    pub(crate) async fn is_shared(&self, context: &Context) -> Result<()> {
        let Some(store) = &self.shared else {
            return Ok(());
        };
        let guard = store.find(GUARD, LARGEST_GUARD).await?;
        if guard.is_none() && store.folders(BACKUPS).await?.is_empty() {
            return Ok(());
        }
        let mixed = format!(
            "{} holds backups of one cluster at the location's root",
            store.place()
        );
        for member in &self.members {
            let folder = format!("{}/{BACKUPS}", member.folder);
            if !store.folders(&folder).await?.is_empty() {
                context
                    .ui
                    .warn(&format!("{mixed}, beside the folders of several"));
                return Ok(());
            }
        }
        Err(Error::new(Kind::AlreadyExists, mixed)
            .hint("several clusters need a location (or a prefix) of which each has a folder: choose another one")
            .into())
    }

    /// Does something for each of them, some at a time, in their order; an error is told at once and stops none of the others.
    pub(crate) async fn each<'m, T, F>(&'m self, work: impl Fn(&'m Member) -> F) -> Done<'m, T>
    where
        F: Future<Output = Result<T>>,
    {
        let work = &work;
        stream::iter(&self.members)
            .map(|member| async move {
                let done = work(member).await.map_err(|error| {
                    member.context.ui.error(&error);
                    error.exit()
                });
                (member, done)
            })
            .buffered(AT_A_TIME)
            .collect()
            .await
    }
}

/// The exit code of several: the worst of theirs.
pub(crate) fn worst(exits: impl IntoIterator<Item = Exit>) -> Exit {
    let weight = |exit: &Exit| match exit {
        Exit::Done => 0,
        Exit::Incomplete => 1,
        Exit::Failed | Exit::Usage => 2,
        Exit::Interrupted => 3,
    };
    let worst = exits.into_iter().max_by_key(weight).unwrap_or(Exit::Done);
    // The command line was right; of one cluster something was asked that can not be.
    if worst == Exit::Usage {
        Exit::Failed
    } else {
        worst
    }
}

/// An object for programs, with the cluster that it is of.
pub(crate) fn labelled(member: &str, mut object: Value) -> Value {
    let metadata = &mut object["metadata"];
    if metadata.is_object() {
        if !metadata["annotations"].is_object() {
            metadata["annotations"] = json!({});
        }
        metadata["annotations"][CLUSTER] = json!(member);
    } else {
        object["cluster"] = json!(member);
    }
    object
}

/// Prints what was made in each of several clusters: a row of cells behind the cluster's name, and the objects.
///
/// # Errors
/// When it can not be written.
pub(crate) fn print(
    context: &Context,
    args: &OutputArgs,
    titles: &[&'static str],
    rows: Vec<(String, Vec<String>, Option<Value>)>,
    kind: &str,
) -> Result<()> {
    let ui = &context.ui;
    match args.output {
        format @ (Format::Json | Format::Yaml) => {
            let objects = rows
                .into_iter()
                .filter_map(|(name, _, object)| Some(labelled(&name, object?)));
            output::print(ui, format, &output::objects(objects.collect(), false))
        }
        Format::Name => rows
            .iter()
            .filter_map(|(.., object)| object.as_ref())
            .try_for_each(|object| {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                ui.line(&format!("{kind}/{name}"))
            }),
        Format::Table | Format::Wide => {
            let titles: Vec<_> = std::iter::once("CLUSTER")
                .chain(titles.iter().copied())
                .collect();
            let mut table = Table::new(&titles, args.no_headers);
            for (name, cells, _) in rows {
                table.push(std::iter::once(name).chain(cells).collect());
            }
            ui.table(&table)
        }
    }
}

impl Context {
    /// The location that is asked for where the client's own file or a URL says where it is; nothing where each cluster is asked for its own.
    fn own_location(
        &self,
        asked: Option<&str>,
    ) -> Result<Option<backup_core::api::BackupStorageLocation>> {
        match locations::choose(asked, &[self.own_locations()?]) {
            Ok(Choice::One(location) | Choice::Object(location)) => Ok(Some(*location)),
            Ok(Choice::PerCluster) => Ok(None),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_exit_code_is_that_of_all() {
        for (exits, all) in [
            (&[][..], Exit::Done),
            (
                &[Exit::Done, Exit::Incomplete, Exit::Done],
                Exit::Incomplete,
            ),
            (&[Exit::Failed, Exit::Incomplete], Exit::Failed),
            (&[Exit::Usage, Exit::Done], Exit::Failed),
            (&[Exit::Failed, Exit::Interrupted], Exit::Interrupted),
        ] {
            assert_eq!(worst(exits.iter().copied()), all, "{exits:?}");
        }
    }

    #[test]
    fn objects_for_programs_carry_their_cluster() {
        let object = labelled(
            "eu",
            json!({"metadata": {"name": "b", "annotations": {"a": "b"}}}),
        );
        assert_eq!(
            object["metadata"]["annotations"],
            json!({"a": "b", CLUSTER: "eu"})
        );
        let object = labelled("eu", json!({"metadata": {"name": "b"}}));
        assert_eq!(object["metadata"]["annotations"][CLUSTER], "eu");
        assert_eq!(labelled("eu", json!({"kind": "x"}))["cluster"], "eu");
    }
}
