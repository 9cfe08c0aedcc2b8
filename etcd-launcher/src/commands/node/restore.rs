//! `node restore`: a snapshot becomes the state of this node's etcd, with the control plane stopped and started around it.

use backup_cli::error::{Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::locations::LocationArgs;
use backup_cli::output::{self, counted};
use backup_cli::ui::Ui;
use backup_core::etcd::Facts;
use backup_core::{Error, Kind};
use clap::Args;
use jiff::Timestamp;

use super::{KubeletArgs, Node, shown};
use crate::commands::data_dir::{Taken, ToolArgs};
use crate::commands::origin::{Origin, OriginArgs};
use crate::node::folders::Place;
use crate::node::serves::Door;
use crate::node::stand;
use crate::restore::asked::Asked;
use crate::restore::dir::DataDir;
use crate::restore::exchange;
use crate::restore::fence::{self, Fence};
use crate::restore::ids::{self, Peer};
use crate::restore::job::FromSnapshot;
use crate::restore::offline::{self, Ready, Wish};
use crate::restore::plan::{AttemptId, By, Carried, Purpose};
use crate::restore::proof;

const EXAMPLES: &str = "\
Examples:
  etcd-launcher node restore /var/backups/etcd.db --dry-run
  etcd-launcher node restore /var/backups/etcd.db --yes
  etcd-launcher node restore 's3://backups/etcd.db.gz?region=eu-central-1' --yes
  etcd-launcher node restore nightly --location s3://backups/prod --cluster prod --etcdutl /opt/etcd/etcdutl";

/// Restore a snapshot into the etcd of this control-plane node, with no API server alive
///
/// The snapshot is fetched, checked and built beside the old state while whatever runs goes on. Then the control plane is stopped, the two
/// states are exchanged in one step, etcd is started and proven to serve the restored state, and the rest follows. Name, members,
/// URLs, certificates and quota are those of etcd's manifest. The old state is kept.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    origin: OriginArgs,
    #[command(flatten)]
    kubelet: KubeletArgs,
    #[command(flatten)]
    tools: ToolArgs,
    /// The other members of etcd are gone for good: this node becomes the only one
    #[arg(long)]
    lost_members: bool,
}

/// Runs the command.
pub(super) async fn run(ui: &Ui, location: &LocationArgs, args: RestoreArgs) -> Result<Exit> {
    let mut node = Node::find(ui, &args.kubelet)?;
    node.check_kubelet()?;
    // What would keep a restored etcd from being reached is found before anything is stopped.
    Door::of(&node.etcd)?;
    let origin = Origin::find(&args.origin, location).await.inspect_err(|_| {
        // The same command goes on, and needs the same things: who lost them has another way.
        if node.found.record.is_some() {
            ui.say("the control plane of this node is stopped for an earlier command: `etcd-launcher node status` says how far it came; `node start` starts it where no state was exchanged yet, `node rollback` where one was");
        }
    })?;
    let asked = args.asked(&node, &origin.shown)?;
    if !args.origin.dry_run {
        ui.confirm(
            args.origin.yes,
            &format!(
                "stop the control plane of this node and restore {} into {}?",
                asked.snapshot,
                node.data_dir.display()
            ),
        )?;
    }
    let dir = node.open(args.tools.spool_dir.as_deref())?;
    node.look_again()?;
    fence::check_layout(&dir)?;
    let record = node.found.record.clone();
    if let Some(id) = stand::goes_on(record.as_ref(), super::last(&dir)?.as_ref(), &asked)
        && !args.origin.dry_run
    {
        return start(ui, &node, dir, &id).await;
    }

    let bar = ui.progress();
    let facts = at_rest(&dir);
    let mut work = FromSnapshot {
        builder: args
            .tools
            .builder(&dir, facts.as_ref(), args.origin.another_cluster, &bar)
            .await?,
        source: origin.source,
        expected: origin.expected,
        cluster: origin.cluster,
        fetched: None,
    };
    let target = &mut work.builder.target;
    if args.tools.etcd.is_none() {
        target.line = node.etcd.line().or(target.line);
    }
    if args.tools.quota_backend_bytes.is_none() && node.args.quota_bytes() > 0 {
        target.quota = node.args.quota_bytes();
    }
    target.lineage.add_urls(&asked.peer_urls);
    args.check_members(facts.as_ref())?;
    let mut wish = Wish {
        asked,
        purpose: Purpose::Restore,
        by: By::Node,
        token: format!("etcd-launcher-{}", AttemptId::random()),
        marks: args
            .origin
            .above
            .into_iter()
            .chain(facts.iter().map(|facts| facts.revision))
            .chain(origin.marks)
            .collect(),
        former: None,
        now_ms: Timestamp::now().as_millisecond(),
    };
    if args.origin.dry_run {
        let looked = looked(ui, &dir, &mut work).await;
        drop(bar);
        let facts = looked.map_err(|e| node.hint_at_tools(e))?;
        args.check_members(Some(&facts))?;
        return tell_plan(ui, &node, &dir, &wish, &facts);
    }

    // All that can fail without stopping anything.
    let mut dir = dir;
    let mut for_attempt = record.as_ref().and_then(|record| record.attempt.clone());
    if record.is_none() {
        let prepared = prepare(&mut dir, &wish, &mut work, &args).await;
        let id = prepared.map_err(|e| {
            node.hint_at_tools(e)
                .context("nothing was changed: the control plane was not touched")
        })?;
        for_attempt = Some(id);
    }
    let exchanged = async {
        node.stop(for_attempt.as_ref(), &bar).await?;
        let mut taken = Taken::of(ui, dir)?;
        args.check_members(taken.facts.as_ref())?;
        wish.marks.extend(taken.mark());
        wish.former = taken.former.clone();
        let id = prepare(&mut taken.dir, &wish, &mut work, &args)
            .await
            .map_err(|e| node.hint_at_tools(e))?;
        node.wait_until_gone(&bar).await?;
        node.folders.raise(Some(&id))?;
        if taken.dir.truth(taken.dir.attempt(&id)?)? != crate::restore::slots::Truth::After {
            exchange::exchange(&mut taken.dir, &id, &taken.fence, wish.former.clone())?;
        }
        Ok((taken.dir, id))
    };
    let exchanged: Result<(DataDir, AttemptId)> = exchanged.await;
    let notes = std::mem::take(&mut work.builder.notes);
    drop(work);
    drop(bar);
    for note in &notes {
        ui.warn(note);
    }
    let (dir, id) = exchanged.map_err(|e| node.undo(ui, record.is_some(), e))?;
    start(ui, &node, dir, &id).await
}

/// Brings the attempt to where only the exchange is left to do, and gives its id.
async fn prepare(
    dir: &mut DataDir,
    wish: &Wish,
    work: &mut FromSnapshot<'_>,
    args: &RestoreArgs,
) -> Result<AttemptId, Error> {
    let ready = tokio::select! {
        ready = offline::prepare(dir, wish, work) => ready,
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    let ready = ready.inspect_err(|e| exchange::give_up(dir, &e.to_string()))?;
    let (Ready::ToExchange(id) | Ready::Already(id)) = ready;
    let members = dir
        .attempt(&id)?
        .snapshot
        .as_ref()
        .map_or(0, |s| s.members.len());
    if let Err(e) = args.check_count(members, "the snapshot's cluster had") {
        exchange::abandon(dir, &id, &e.to_string())?;
        return Err(e);
    }
    Ok(id)
}

/// Starts the control plane on the attempt's state, and tells.
pub(super) async fn start(ui: &Ui, node: &Node, mut dir: DataDir, id: &AttemptId) -> Result<Exit> {
    let bar = ui.progress();
    let started = node.start(&mut dir, id, &bar).await;
    drop(bar);
    for note in started? {
        ui.warn(&note);
    }
    let attempt = dir.attempt(id)?;
    let plan = &attempt.plan;
    ui.line(&format!(
        "restored from {}: etcd serves cluster {}, {} from revision {} on, and the control plane is ready",
        plan.asked.snapshot,
        plan.cluster_id,
        counted(attempt.snapshot.as_ref().map_or(0, |s| s.content.keys), "key"),
        plan.target_revision
    ))?;
    if plan.old != Carried::Absent {
        ui.line(&format!(
            "what was there before ({}) is kept in {}{}",
            plan.old,
            shown(&dir.side(id)),
            match plan.purpose {
                Purpose::Restore => "; to go back: etcd-launcher node rollback",
                Purpose::Rollback { .. } => "",
            }
        ))?;
    }
    Ok(Exit::Done)
}

/// What the database says, where no etcd runs on it: a running one changes it under our eyes.
fn at_rest(dir: &DataDir) -> Option<Facts> {
    let _fence = Fence::take(dir).ok()?;
    let seen = proof::seen(&dir.member(), &backup_core::progress::Silent).ok()?;
    Some(seen.facts)
}

/// Fetches into the spool, checks, and leaves nothing behind.
async fn looked(ui: &Ui, dir: &DataDir, work: &mut FromSnapshot<'_>) -> Result<Facts, Error> {
    let spool = dir.spool(&AttemptId::random());
    let looked = tokio::select! {
        looked = work.look(&spool) => looked,
        true = interrupted() => Err(Error::new(Kind::Interrupted, "interrupted")),
    };
    if let Err(e) = std::fs::remove_file(&spool)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        ui.warn(&format!("can not remove {}: {e}", spool.display()));
    }
    Ok(looked?.facts)
}

fn tell_plan(ui: &Ui, node: &Node, dir: &DataDir, wish: &Wish, facts: &Facts) -> Result<Exit> {
    let mut text = output::Description::default();
    text.field(0, "Snapshot", &wish.asked.snapshot);
    text.field(1, "Revision", facts.revision.to_string());
    text.field(1, "Size", output::size(facts.bytes));
    text.field(0, "Data dir", dir.root().to_string_lossy());
    text.field(1, "Now", dir.carried()?.to_string());
    text.field(1, "Member", ids::written(&wish.asked.members));
    for (manifest, place) in &node.found.manifests {
        let what = match place {
            Place::In => format!(
                "{}: moved to {} and back",
                manifest.file.display(),
                node.folders.fence().display()
            ),
            Place::Out => format!(
                "{}: moved back to {}",
                manifest.file.display(),
                node.folders.pods().display()
            ),
        };
        text.field(0, manifest.part.program(), what);
    }
    ui.line(&text.render())?;
    ui.line("dry run: nothing was changed")?;
    Ok(Exit::Done)
}

impl RestoreArgs {
    /// What is asked for, as etcd's manifest says it: a cluster of this member alone.
    fn asked(&self, node: &Node, snapshot: &str) -> Result<Asked> {
        let named = |e: Error| {
            e.context(format!(
                "etcd's manifest {} can not be followed",
                node.etcd.file.display()
            ))
        };
        let listed = ids::parse_cluster(&node.args.initial_cluster_text()).map_err(named)?;
        self.check_count(listed.len(), "etcd's manifest names")?;
        let peer_urls = ids::parse_urls(&node.args.peer_urls().join(",")).map_err(named)?;
        Ok(Asked {
            snapshot: snapshot.to_owned(),
            name: node.args.name().to_owned(),
            members: vec![Peer {
                name: node.args.name().to_owned(),
                peer_urls: peer_urls.clone(),
            }],
            peer_urls,
            token: None,
            target_revision: None,
            another_cluster: self.origin.another_cluster,
        })
    }

    fn check_members(&self, facts: Option<&Facts>) -> Result<(), Error> {
        let voters = facts.map_or(0, |facts| {
            facts.members.iter().filter(|m| !m.is_learner).count()
        });
        self.check_count(voters, "etcd's cluster has")
    }

    /// Refuses a cluster of several members: the others would go on with the old state, or be shut out by this one.
    fn check_count(&self, members: usize, which: &str) -> Result<(), Error> {
        if members <= 1 || self.lost_members {
            return Ok(());
        }
        Err(Error::invalid(format!("{which} {members} members, and all have to start from the same state"))
            .hint("stop all nodes with `etcd-launcher node fence`, restore each data dir with `etcd-launcher restore`, then start all with `etcd-launcher node start`; where the others are gone for good, add --lost-members"))
    }
}

impl Node {
    /// Says where etcdutl can be had on a node that has none.
    fn hint_at_tools(&self, e: Error) -> Error {
        if !e.to_string().contains("no etcdutl") {
            return e;
        }
        e.hint(format!(
            "it is in etcd's image: `ctr -n k8s.io images mount {} /mnt`, then --etcdutl /mnt/usr/local/bin/etcdutl; or copy one of the same minor version beside etcd-launcher",
            self.etcd.image()
        ))
    }
}
