//! `restore`: a snapshot becomes the state of one member, with etcd stopped and nobody else needed.

use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::locations::LocationArgs;
use backup_cli::output::{self, counted};
use backup_cli::ui::Ui;
use backup_core::error::quoted;
use backup_core::etcd::Facts;
use backup_core::{Error, Kind};
use clap::Args;
use jiff::Timestamp;

use super::data_dir::{self, DataDirArgs, Taken, ToolArgs};
use super::origin::{Origin, OriginArgs};
use crate::restore::asked::Asked;
use crate::restore::entry::Snapshot;
use crate::restore::exchange;
use crate::restore::ids::{self, Peer};
use crate::restore::job::FromSnapshot;
use crate::restore::offline::{self, Restored, Wish};
use crate::restore::plan::{self, AttemptId, By, Carried, Inputs, Plan, Purpose};
use crate::restore::slots::Truth;

const EXAMPLES: &str = "\
Examples:
  etcd-launcher restore /backup/etcd.db --data-dir /var/lib/etcd
  etcd-launcher restore 's3://backups/etcd.db.gz?region=eu-central-1' --data-dir /var/lib/etcd --yes
  etcd-launcher restore nightly --location s3://backups/prod --cluster zvc78xnnz7 --data-dir /var/lib/etcd
  etcd-launcher restore /backup/etcd.db --data-dir /var/lib/etcd \\
    --name n1 --initial-cluster n1=https://10.0.0.1:2380,n2=https://10.0.0.2:2380,n3=https://10.0.0.3:2380";

/// Restore a snapshot into the data dir of one member, with etcd stopped
///
/// The new state is built and proven beside the old one, then exchanged with it in one step. The old state is kept: `rollback` brings it
/// back. Killed at any moment, the data dir holds one of the two, whole; the same command goes on. Without --name and the other flags
/// of the new cluster its members are those of the state that is there.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    origin: OriginArgs,
    #[command(flatten)]
    data_dir: DataDirArgs,
    #[command(flatten)]
    member: MemberArgs,
    #[command(flatten)]
    tools: ToolArgs,
}

/// The new cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cluster")]
struct MemberArgs {
    /// Name of this member
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// All members of the cluster, as etcd's own flag
    #[arg(long, value_name = "NAME=URL,..")]
    initial_cluster: Option<String>,
    /// Peer URLs of this member; default: those in --initial-cluster
    #[arg(long, value_name = "URL,..")]
    initial_advertise_peer_urls: Option<String>,
    /// The same token on all members; default: a random one
    #[arg(long, value_name = "TOKEN")]
    initial_cluster_token: Option<String>,
    /// The same revision to start at on all members; default: above everything that is known, and the time in milliseconds
    #[arg(long, value_name = "REVISION")]
    target_revision: Option<i64>,
}

/// Runs the command.
pub(crate) async fn run(ui: &Ui, location: &LocationArgs, args: RestoreArgs) -> Result<Exit> {
    let origin = Origin::find(&args.origin, location).await?;
    let path = &args.data_dir.data_dir;
    if !args.origin.dry_run {
        data_dir::make(path)?;
    }
    let mut taken = Taken::take(ui, path, args.tools.spool_dir.as_deref())?;
    let asked = args.asked(ui, &taken, &origin.shown)?;
    let again = args.origin.again(&origin.shown, location);
    if !args.origin.dry_run {
        ui.confirm(
            args.origin.yes,
            &format!(
                "restore {} into {}, which holds {} now?",
                asked.snapshot,
                taken.dir.root().display(),
                taken.old
            ),
        )?;
    }
    let bar = ui.progress();
    let mut work = FromSnapshot {
        builder: args
            .tools
            .builder(
                &taken.dir,
                taken.facts.as_ref(),
                args.origin.another_cluster,
                &bar,
            )
            .await?,
        source: origin.source,
        expected: origin.expected,
        cluster: origin.cluster,
        fetched: None,
    };
    let wish = Wish {
        asked,
        purpose: Purpose::Restore,
        by: By::Offline,
        token: format!("etcd-launcher-{}", AttemptId::random()),
        marks: args
            .origin
            .above
            .into_iter()
            .chain(taken.mark())
            .chain(origin.marks)
            .collect(),
        former: taken.former.clone(),
        now_ms: Timestamp::now().as_millisecond(),
    };
    let old = taken.old.clone();
    let ended = if args.origin.dry_run {
        look(ui, &mut taken, wish, &mut work)
            .await
            .map(Ended::Looked)
    } else {
        let restored = tokio::select! {
            restored = offline::restore(&mut taken.dir, &taken.fence, wish, &mut work) => restored,
            true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted")),
        };
        restored.map(Ended::Restored)
    };
    let notes = std::mem::take(&mut work.builder.notes);
    drop(work);
    drop(bar);
    for note in &notes {
        ui.warn(note);
    }
    match ended {
        Ok(Ended::Restored(restored)) => tell(ui, &taken, &restored, Some(again)),
        Ok(Ended::Looked(seen)) => {
            let (plan, snapshot, facts) = *seen;
            tell_plan(ui, &taken, &plan, &snapshot, &facts)?;
            ui.line("dry run: nothing was changed")?;
            Ok(Exit::Done)
        }
        Err(e) => Err(failed(&mut taken, &old, e)),
    }
}

enum Ended {
    Looked(Box<(Plan, Snapshot, Facts)>),
    Restored(Restored),
}

/// Fetches into the spool and plans, and leaves nothing behind.
async fn look(
    ui: &Ui,
    taken: &mut Taken,
    wish: Wish,
    work: &mut FromSnapshot<'_>,
) -> Result<Box<(Plan, Snapshot, Facts)>, Error> {
    let attempt = AttemptId::random();
    let spool = taken.dir.spool(&attempt);
    let looked = tokio::select! {
        looked = work.look(&spool) => looked,
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    if let Err(e) = std::fs::remove_file(&spool)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        ui.warn(&format!("can not remove {}: {e}", spool.display()));
    }
    let fetched = looked?;
    let mut marks = offline::marks(&taken.dir, &wish.marks);
    marks.push(fetched.snapshot.revision);
    let plan = plan::plan(Inputs {
        attempt,
        purpose: wish.purpose,
        by: By::Offline,
        asked: wish.asked,
        old: taken.old.clone(),
        token: wish.token,
        marks,
        now_ms: wish.now_ms,
    })?;
    Ok(Box::new((plan, fetched.snapshot, fetched.facts)))
}

/// Adds to an error what is in place now, and gives up what can be given up.
pub(super) fn failed(taken: &mut Taken, old: &Carried, e: Error) -> CommandError {
    exchange::give_up(&mut taken.dir, &e.to_string());
    let root = taken.dir.root().display();
    let now = match taken.dir.carried() {
        Ok(now) if now.is_same(old) => format!("nothing was changed: {root} holds {now} as before"),
        Ok(now) => format!("{root} holds {now} now; `etcd-launcher status` says more"),
        Err(_) => format!("what {root} holds can not be read now"),
    };
    CommandError::from(e.context(now))
}

impl RestoreArgs {
    /// What is asked for; what no flag says is taken from an unfinished attempt, else from the state that is there.
    fn asked(&self, ui: &Ui, taken: &Taken, snapshot: &str) -> Result<Asked> {
        let known = match unfinished(taken)? {
            Some(asked) => Some((asked.name, asked.members)),
            None => membership(ui, taken),
        };
        let needed = |flag: &str| {
            CommandError::usage(
                Error::invalid(format!(
                    "{flag} is needed: {} holds no state that says it",
                    taken.dir.root().display()
                ))
                .hint("give --name and --initial-cluster as etcd itself has them"),
            )
        };
        let members = match &self.member.initial_cluster {
            Some(text) => ids::parse_cluster(text).map_err(CommandError::usage)?,
            None => known
                .as_ref()
                .map(|(_, members)| members.clone())
                .ok_or_else(|| needed("--initial-cluster"))?,
        };
        let name = match (&self.member.name, known) {
            (Some(name), _) => name.clone(),
            (None, Some((name, _))) => name,
            (None, None) => return Err(needed("--name")),
        };
        let peer_urls = match &self.member.initial_advertise_peer_urls {
            Some(text) => ids::parse_urls(text).map_err(CommandError::usage)?,
            None => members
                .iter()
                .find(|peer| peer.name == name)
                .map(|peer| peer.peer_urls.clone())
                .unwrap_or_default(),
        };
        Ok(Asked {
            snapshot: snapshot.to_owned(),
            name,
            members,
            peer_urls,
            token: self.member.initial_cluster_token.clone(),
            target_revision: self.member.target_revision,
            another_cluster: self.origin.another_cluster,
        })
    }
}

/// What the last attempt was asked for, where it is unfinished or nothing has run on it.
fn unfinished(taken: &Taken) -> Result<Option<Asked>> {
    let Some(last) = taken.dir.attempts().last() else {
        return Ok(None);
    };
    if last.step.is_final() {
        return Ok(None);
    }
    let found = offline::found(&taken.dir, last)?;
    let stands = found.truth != Truth::Elsewhere && !found.is_started;
    Ok(stands.then(|| last.plan.asked.clone()))
}

/// This member's name and all members that vote, by the database that is there.
fn membership(ui: &Ui, taken: &Taken) -> Option<(String, Vec<Peer>)> {
    let facts = taken.facts.as_ref()?;
    let Carried::Cluster { member_id, .. } = &taken.old else {
        return None;
    };
    let me = facts
        .members
        .iter()
        .find(|m| m.id.parse().is_ok_and(|id: ids::Id| id == *member_id))?;
    let voters = facts.members.iter().filter(|m| {
        if m.is_learner {
            ui.warn(&format!(
                "{} is a learner and not taken into the new cluster",
                m.name
            ));
        }
        !m.is_learner
    });
    let pairs: Vec<String> = voters
        .flat_map(|m| {
            m.peer_urls
                .iter()
                .map(move |url| format!("{}={url}", m.name))
        })
        .collect();
    let members = ids::parse_cluster(&pairs.join(",")).ok()?;
    Some((me.name.clone(), members))
}

fn tell_plan(
    ui: &Ui,
    taken: &Taken,
    plan: &Plan,
    snapshot: &Snapshot,
    facts: &Facts,
) -> Result<()> {
    let mut text = output::Description::default();
    text.field(0, "Snapshot", &plan.asked.snapshot);
    text.field(1, "Revision", snapshot.revision.to_string());
    text.field(1, "Keys", output::count(snapshot.content.keys));
    text.field(1, "Size", output::size(facts.bytes));
    text.field(1, "SHA-256", &snapshot.sha256);
    text.field(0, "Data dir", taken.dir.root().to_string_lossy());
    text.field(1, "Now", taken.old.to_string());
    if let Some(former) = &taken.former {
        text.field(1, "Revision", former.revision.to_string());
        if let Some(content) = &former.content {
            text.field(1, "Keys", output::count(content.keys));
        }
    }
    text.field(0, "New cluster", plan.cluster_id.to_string());
    text.field(1, "Members", ids::written(&plan.members));
    text.field(1, "This one", format!("{} ({})", plan.name, plan.member_id));
    text.field(1, "Token", &plan.token);
    text.field(1, "Starts at", plan.target_revision.to_string());
    ui.line(&text.render())
}

/// Says what is in place now, and what to do.
pub(super) fn tell(
    ui: &Ui,
    taken: &Taken,
    restored: &Restored,
    again: Option<String>,
) -> Result<Exit> {
    let (Restored::Now(id) | Restored::Already(id)) = restored;
    let attempt = taken.dir.attempt(id)?;
    let plan = &attempt.plan;
    let root = taken.dir.root();
    let shown = root.to_string_lossy();
    if matches!(restored, Restored::Already(_)) {
        ui.line(&format!(
            "{shown} holds this restore already (attempt {id}), and no etcd has run on it since"
        ))?;
    } else {
        ui.line(&format!(
            "{shown} restored from {}: cluster {}, {} at revision {}",
            plan.asked.snapshot,
            plan.cluster_id,
            counted(
                attempt.snapshot.as_ref().map_or(0, |s| s.content.keys),
                "key"
            ),
            plan.target_revision
        ))?;
    }
    let kept = dir_of(taken, id);
    match (&plan.old, &plan.purpose) {
        (Carried::Absent, _) => {}
        (old, Purpose::Restore) => ui.line(&format!(
            "the old state ({old}) is kept in {kept}; to go back: etcd-launcher rollback --data-dir {}",
            quoted(&shown)
        ))?,
        (old, Purpose::Rollback { .. }) => {
            ui.line(&format!("what was there before ({old}) is kept in {kept}"))?;
        }
    }
    let others: Vec<&Peer> = plan
        .members
        .iter()
        .filter(|p| p.name != plan.name)
        .collect();
    let again = again.unwrap_or_else(|| quoted(&plan.asked.snapshot).into_owned());
    if !others.is_empty() {
        ui.line(
            "before any etcd is started, restore the same snapshot on each of the other members:",
        )?;
    }
    for other in others {
        ui.line(&format!(
            "  etcd-launcher restore {} --data-dir .. --name {} --initial-cluster {} --initial-cluster-token {} --target-revision {}",
            again,
            quoted(&other.name),
            quoted(&ids::written(&plan.members)),
            quoted(&plan.token),
            plan.target_revision
        ))?;
    }
    ui.line("start etcd with its usual arguments; an --initial-cluster-token of its own does not matter any more")?;
    Ok(Exit::Done)
}

fn dir_of(taken: &Taken, id: &AttemptId) -> String {
    taken.dir.side(id).display().to_string()
}
