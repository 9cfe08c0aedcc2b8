//! Several clusters as one: `--contexts` and `--workspace`. Each of them is a [`Context`] as if the user had named its context and its location,
//! so that whatever is done here can be done for one of them alone. Decides which clusters, and does work side by side; the commands do the rest.
//!
//! A location of the client's file, or a URL, is shared: each cluster has the folder of its name in it, `--location NAME/FOLDER`. A location of a
//! cluster's own (its Velero's, or with nothing configured the folder of this machine) is used as it stands.

mod workspace;

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
pub(crate) use workspace::Schedule;
use workspace::Workspace;

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
    /// Contexts of the kubeconfig: all of these clusters as one (comma list, can be repeated); -o name prints CLUSTER/KIND/NAME then
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
            let uid = member.context.identity_soon().await;
            let uid = uid.ok().flatten().map(str::to_owned);
            let server = member.context.signs().1.map(str::to_owned);
            (member.name.as_str(), uid, server)
        });
        distinct(&asked.buffered(AT_A_TIME).collect::<Vec<_>>().await)
    }

    /// The same by what is known by now, before anything is written: one that was slow to say who it is has said it with its own work.
    pub(crate) fn are_still_distinct(&self) -> Result<()> {
        let known = self.members.iter().map(|member| {
            let (uid, server) = member.context.signs();
            let owned = |text: &str| text.to_owned();
            (member.name.as_str(), uid.map(owned), server.map(owned))
        });
        distinct(&known.collect::<Vec<_>>())
    }

    /// Whether each of them has a folder of its own in a location that they share.
    pub(crate) fn has_folders(&self) -> bool {
        self.shared.is_some()
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
        side_by_side(&self.members, |member| async move {
            (member, begun(member, || work(member)).await)
        })
        .await
    }
}

/// Does something with what was found of each of them, as [`Many::each`]; where nothing was, why was told, and stays what came of it.
pub(crate) async fn then<'f, 'm, A, T, F>(
    found: &'f Done<'m, A>,
    work: impl Fn(&'m Member, &'f A) -> F,
) -> Done<'m, T>
where
    F: Future<Output = Result<T>>,
{
    let work = &work;
    side_by_side(found, |(member, found)| async move {
        let done = match found {
            Ok(found) => begun(member, || work(member, found)).await,
            Err(exit) => Err(*exit),
        };
        (*member, done)
    })
    .await
}

/// Ctrl-C is for those that wait for their turn as well.
async fn begun<T, F>(member: &Member, work: impl FnOnce() -> F) -> Result<T, Exit>
where
    F: Future<Output = Result<T>>,
{
    if member.context.is_stopped() {
        return Err(Exit::Interrupted);
    }
    work().await.map_err(|error| {
        member.context.ui.error(&error);
        error.exit()
    })
}

/// Some at a time, in whatever order they come to an end; what came of them is in theirs. One that takes long holds no other one's place.
async fn side_by_side<'i, I, T, F>(items: &'i [I], work: impl Fn(&'i I) -> F) -> Vec<T>
where
    F: Future<Output = T>,
{
    let work = &work;
    let mut done: Vec<(usize, T)> = stream::iter(items.iter().enumerate())
        .map(|(at, item)| async move { (at, work(item).await) })
        .buffer_unordered(AT_A_TIME)
        .collect()
        .await;
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, done)| done).collect()
}

/// What is known of a cluster: its name here, its uid and its address.
type Signs<'m> = (&'m str, Option<String>, Option<String>);

fn distinct(signs: &[Signs<'_>]) -> Result<()> {
    match twice(signs) {
        None => Ok(()),
        Some((one, other, sign)) => Err(CommandError::usage(
            Error::invalid(format!("{one} and {other} are one cluster ({sign})"))
                .hint("name it once; nothing was begun"),
        )),
    }
}

/// Two names of one cluster, and what shows it. Many clusters may be reached at one address, so that it counts only for one that hides its uid.
fn twice<'m>(answers: &[Signs<'m>]) -> Option<(&'m str, &'m str, String)> {
    let shown = |one: &Signs<'_>, other: &Signs<'_>| match (&one.1, &other.1) {
        (Some(uid), Some(same)) => (uid == same).then(|| uid.clone()),
        _ => one.2.clone().filter(|_| one.2 == other.2),
    };
    answers.iter().enumerate().find_map(|(at, other)| {
        let mut before = answers[..at].iter();
        before.find_map(|one| Some((one.0, other.0, shown(one, other)?)))
    })
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

/// `CLUSTER/KIND/NAME`, as -o name shows an object of one of several clusters: the last two parts are never ambiguous.
pub(crate) fn titled(member: &str, title: &str) -> String {
    format!("{member}/{title}")
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
        Format::Name => rows.iter().try_for_each(|(member, _, object)| {
            let Some(object) = object else { return Ok(()) };
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            ui.line(&titled(member, &format!("{kind}/{name}")))
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

/// What is described of one of several clusters.
pub(crate) struct Described {
    /// For programs.
    pub(crate) value: Value,
    /// For people.
    pub(crate) text: String,
    /// `KIND/NAME`
    pub(crate) title: String,
}

/// Prints descriptions of things of several clusters; the exit code is the worst of theirs.
///
/// # Errors
/// When they can not be written.
pub(crate) fn describe(
    context: &Context,
    format: Format,
    done: Done<'_, Described>,
) -> Result<Exit> {
    let ui = &context.ui;
    let exits = done.iter().map(|(_, done)| exit_of(done));
    let exit = worst(exits.collect::<Vec<_>>());
    let found = done
        .into_iter()
        .filter_map(|(member, done)| Some((member, done.ok()?)));
    match format {
        Format::Json | Format::Yaml => {
            let values = found.map(|(member, one)| labelled(&member.name, one.value));
            output::print(ui, format, &output::objects(values.collect(), false))?;
        }
        Format::Name => {
            for (member, one) in found {
                member.context.line(&one.title)?;
            }
        }
        Format::Table | Format::Wide => {
            let texts: Vec<_> = found.map(|(_, one)| one.text).collect();
            if !texts.is_empty() {
                ui.line(&texts.join("\n\n\n"))?;
            }
        }
    }
    Ok(exit)
}

/// The exit code of one of them.
pub(crate) fn exit_of<T>(done: &Result<T, Exit>) -> Exit {
    done.as_ref().err().copied().unwrap_or(Exit::Done)
}

impl Context {
    /// A line of a result that begins with `KIND/NAME`: of one of several clusters, it says which.
    ///
    /// # Errors
    /// As [`Ui::line`](backup_cli::ui::Ui::line).
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        self.ui.line(&self.titled(text))
    }

    /// The same, not printed.
    pub(crate) fn titled(&self, text: &str) -> String {
        match &self.member {
            Some(member) => titled(member, text),
            None => text.to_owned(),
        }
    }

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
    fn clusters_behind_one_address_are_told_apart_by_their_uids() {
        let signs = |name, uid: Option<&str>, server: &str| -> Signs<'static> {
            (name, uid.map(str::to_owned), Some(server.to_owned()))
        };
        let proxy = "https://proxy:443";
        let (a, b) = (signs("a", Some("1"), proxy), signs("b", Some("2"), proxy));
        let hidden = signs("c", None, proxy);
        assert_eq!(twice(&[a.clone(), b]), None);
        let same = signs("d", Some("1"), "https://other");
        assert_eq!(twice(&[a.clone(), same]), Some(("a", "d", "1".to_owned())));
        assert_eq!(twice(&[a, hidden]), Some(("a", "c", proxy.to_owned())));
        assert_eq!(twice(&[("e", None, None), ("f", None, None)]), None);
    }

    #[tokio::test]
    async fn one_that_never_ends_holds_no_other_ones_place_and_the_order_stays() {
        let ended = std::cell::Cell::new(0);
        let (free, wait) = tokio::sync::watch::channel(false);
        let items: Vec<usize> = (0..3 * AT_A_TIME).collect();
        let (ended, free, wait) = (&ended, &free, &wait);
        let done = side_by_side(&items, |item| async move {
            if *item == 0 {
                // Goes on only when all of the others are done.
                let freed = wait.clone().wait_for(|freed| *freed).await.map(|_| ());
                freed.unwrap();
            } else {
                ended.set(ended.get() + 1);
                if ended.get() == 3 * AT_A_TIME - 1 {
                    free.send(true).unwrap();
                }
            }
            *item
        });
        let limit = std::time::Duration::from_secs(60);
        let done = tokio::time::timeout(limit, done).await.unwrap();
        assert_eq!(done, items);
    }

    #[tokio::test]
    async fn what_is_not_begun_when_the_user_asks_to_stop_is_not_begun() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            global: crate::cli::GlobalArgs,
        }
        let global = <Line as clap::Parser>::parse_from(["x", "--quiet"]).global;
        let context = Context::new(global, "x".to_owned());
        let member = |at: usize| Member {
            name: at.to_string(),
            context: context.of_member(&at.to_string(), "x", None),
            namespaces: Vec::new(),
            folder: String::new(),
        };
        let many = Many {
            members: (0..2 * AT_A_TIME).map(member).collect(),
            schedule: None,
            shared: None,
        };
        let begun = std::cell::Cell::new(0);
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (begun, stop) = (&begun, &stop);
        context.stopped_by(stopped);
        let done = many.each(|_| async move {
            begun.set(begun.get() + 1);
            tokio::task::yield_now().await;
            stop.send(true).unwrap();
            Ok(())
        });
        let done = done.await;
        assert_eq!(begun.get(), AT_A_TIME);
        assert_eq!(done.len(), 2 * AT_A_TIME);
        let stopped = done
            .iter()
            .filter(|(_, done)| *done == Err(Exit::Interrupted));
        assert_eq!(stopped.count(), AT_A_TIME);
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
