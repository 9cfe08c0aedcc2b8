//! Whether this member could be restored: everything that would stop it later is looked for now, while etcd serves. Stops nothing, writes nothing
//! but the spool.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::certificate;
use backup_core::crypt::{Identities, Recipients};
use backup_core::etcd::{Database, Facts};
use backup_core::location::Location;
use backup_core::progress::Progress;
use backup_core::{Error, Kind, Result};

use super::door;
use super::hosting::{Hosting, RestoreView};
use super::kept;
use super::records::{Before, Data, Fit, SnapshotFacts, Voter};
use crate::destination::{self, Wanted};
use crate::etcd_args::EtcdArgs;
use crate::restore::dir::DataDir;
use crate::restore::etcdutl::Tool;
use crate::restore::fence;
use crate::restore::fit::{self, Lineage, Target};
use crate::restore::job::{Builder, FromSnapshot};
use crate::restore::plan::{AttemptId, By, Carried};

/// A path to a unix socket is no longer than this.
const LONGEST_SOCKET: usize = 107;
/// etcd's own default quota.
const QUOTA: u64 = 2 << 30;
/// How the user of `run` makes room.
pub(crate) const MORE_ROOM: &str = "make the volume larger, or keep fewer of the states that restores replaced, with --keep-states and --keep-states-for";
/// etcd is given so long to tell what it is; it may have been started a moment ago.
const ANSWERS: Duration = Duration::from_secs(20);

/// What was found, and the snapshot at hand for the build.
pub(crate) struct Looked {
    pub(crate) fit: Fit,
    pub(crate) cluster_id: String,
    pub(crate) work: FromSnapshot<'static>,
}

/// With what a new state is brought here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tools {
    /// `--etcdutl`
    pub(crate) etcdutl: Option<PathBuf>,
    /// Where etcdutl is looked for when etcd has none beside it.
    pub(crate) search: Vec<PathBuf>,
    /// No byte for so long ends a download.
    pub(crate) stall: Duration,
}

/// Looks.
///
/// # Errors
/// The reason why not.
pub(crate) async fn look(
    dir: &DataDir,
    args: &EtcdArgs,
    restore: &RestoreView,
    attempt: &AttemptId,
    hosting: &Hosting,
    tools: &Tools,
    progress: &'static dyn Progress,
) -> Result<Looked> {
    check_arguments(args)?;
    fence::check_layout(dir)?;
    let carried = dir.carried()?;
    let data = match &carried {
        Carried::Cluster { .. } => Data::Old,
        Carried::Unreadable { .. } => Data::Unreadable,
        Carried::Absent => Data::None,
    };
    let etcd = Tool::ask(args.program(), "--version").await?;
    let live = if data == Data::Old {
        live(args).await?
    } else {
        None
    };
    if live.as_ref().is_some_and(|live| live.learners) {
        return Err(
            Error::invalid("a member is a learner, which has no vote yet")
                .hint("promote it, or remove it, then apply the restore again"),
        );
    }
    let database = dir.member().join("snap").join("db");
    // etcd may be writing to it: what is read is a hint where etcd answers, and the truth where it is down.
    let offline = match (&live, data) {
        (None, Data::Old | Data::Unreadable) => Database::open(&database)
            .and_then(|database| database.facts(progress))
            .ok(),
        _ => None,
    };
    let (voters, voters_known) = voters(args, live.as_ref(), offline.as_ref())?;
    let mark = match (&live, &offline) {
        (Some(live), _) => live.revision,
        (None, Some(facts)) => facts.revision.saturating_add(super::decide::SLACK),
        (None, None) => 0,
    };
    let mut lineage_facts = offline.clone().unwrap_or_default();
    if let Some(live) = &live {
        lineage_facts.members = live
            .voters
            .iter()
            .map(|voter| backup_core::etcd::Member {
                id: voter.id.clone(),
                name: voter.name.clone(),
                peer_urls: voter.peer_urls.clone(),
                ..Default::default()
            })
            .collect();
    }
    let location = location(hosting, restore).await?;
    let found = find(&location, hosting, restore).await?;
    let cluster = found
        .manifest
        .as_ref()
        .and_then(|manifest| manifest.etcd.cluster_id.parse().ok());
    let manifest_mark = found.manifest.as_ref().map_or(0, |manifest| {
        manifest
            .target_revision
            .unwrap_or(0)
            .max(manifest.facts.revision)
    });
    // Who has no data may have been away for long, and what its journal knows be past: those who have some compare.
    let lineage = match data {
        Data::None => Lineage::default(),
        _ => Lineage::of(dir, &carried, Some(&lineage_facts)),
    };
    let shown = found.source.to_string();
    let mut work = FromSnapshot {
        builder: builder(dir, args, &etcd, lineage, tools, progress)?,
        source: found.source,
        expected: found.expected,
        cluster,
        fetched: None,
    };
    let fetched = work.look(&dir.spool(attempt)).await?;
    let (snapshot, facts) = (fetched.snapshot, fetched.facts);
    check_snapshot(&facts, &voters)?;
    let kept = dir
        .attempts()
        .iter()
        .flat_map(|attempt| {
            [
                attempt.plan.target_revision,
                attempt.former.as_ref().map_or(0, |f| f.revision),
            ]
        })
        .max();
    let (member_id, cluster_id) = match &carried {
        Carried::Cluster {
            member_id,
            cluster_id,
        } => (member_id.to_string(), cluster_id.to_string()),
        _ => (String::new(), String::new()),
    };
    let mut peer_urls = args.peer_urls();
    peer_urls.sort();
    Ok(Looked {
        fit: Fit {
            peer_urls,
            member_id,
            before: Before {
                data,
                serving: live.as_ref().is_some_and(|live| live.leader),
            },
            leads: live.as_ref().is_some_and(|live| live.leads),
            etcd_version: etcd.version.line.to_string(),
            voters,
            voters_known,
            named: named(args)?,
            mark: mark.max(manifest_mark).max(kept.unwrap_or(0)),
            snapshot: SnapshotFacts {
                source: shown,
                sha256: snapshot.sha256,
                digest: backup_core::etcd::LiveDigest {
                    revision: snapshot.revision,
                    keys: snapshot.content.keys,
                    sha256: snapshot.content.sha256,
                },
                revision: snapshot.revision,
            },
        },
        cluster_id,
        work,
    })
}

/// What builds a new state here.
pub(crate) fn builder(
    dir: &DataDir,
    args: &EtcdArgs,
    etcd: &Tool,
    lineage: Lineage,
    tools: &Tools,
    progress: &'static dyn Progress,
) -> Result<Builder<'static>> {
    Ok(Builder {
        etcdutl: tools.etcdutl.clone(),
        // Beside etcd is its own; a bare name has no folder.
        search: args
            .program()
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .map(PathBuf::from)
            .into_iter()
            .chain(tools.search.iter().cloned())
            .collect(),
        target: Target {
            line: Some(etcd.version.line),
            quota: match args.quota_bytes() {
                0 => QUOTA,
                quota => quota,
            },
            lineage,
            another_cluster: false,
            by: By::Run,
        },
        data_dir: dir.root().to_owned(),
        lock: dir.lock_for_child()?,
        stall: tools.stall,
        more_room: MORE_ROOM,
        progress,
        notes: Vec::new(),
    })
}

/// The destination of a restore.
pub(crate) async fn location(hosting: &Hosting, restore: &RestoreView) -> Result<Location> {
    let reference = restore.reference();
    destination::open(&hosting.client, &wanted(restore, &reference.namespace)).await
}

pub(crate) fn wanted<'a>(restore: &'a RestoreView, namespace: &'a str) -> Wanted<'a> {
    Wanted {
        namespace,
        destination: restore.text("destination"),
        secret: restore.text("backupDownloadCredentialsSecret"),
    }
}

/// Who opens what is encrypted, as a restore says.
///
/// # Errors
/// `Unauthorized` where it says nobody; the hosting API's.
pub(crate) async fn identities(hosting: &Hosting, restore: &RestoreView) -> Result<Identities> {
    let reference = restore.reference();
    destination::identities(&hosting.client, &wanted(restore, &reference.namespace)).await
}

/// The snapshot that a restore asks for, opened where it is encrypted.
///
/// # Errors
/// `NotFound`; `Unauthorized` where no identity fits; `Corrupt` where it is plain and an encrypted one is asked for; the store's and the hosting API's.
pub(crate) async fn find(
    location: &Location,
    hosting: &Hosting,
    restore: &RestoreView,
) -> Result<destination::Found> {
    let backup = restore.text("backupName");
    let found = destination::find(location, &hosting.names.cluster, backup).await?;
    let reference = restore.reference();
    let wanted = wanted(restore, &reference.namespace);
    if !found.is_locked() {
        // A kept state is brought there by us, and encrypted where the location says so. Of other snapshots old ones may be plain: who names an identity
        // asks for none of those.
        let is_ours = kept::named(backup).is_some();
        let asked = is_ours && !Recipients::of_location(&location.spec)?.is_empty()
            || destination::names_identity(&hosting.client, &wanted).await?;
        return found.unlocked(&Identities::default(), asked).await;
    }
    let identities = identities(hosting, restore).await?;
    let found = found.unlocked(&identities, true).await;
    found.map_err(|e| destination::of_secret(e, &wanted))
}

fn check_arguments(args: &EtcdArgs) -> Result<()> {
    for flag in [
        "force-new-cluster",
        "discovery",
        "discovery-srv",
        "discovery-endpoints",
    ] {
        if args.has(flag) {
            return Err(Error::invalid(format!(
                "etcd is started with --{flag}, and can not be restored so"
            ))
            .hint("take it out of etcd's command line, and out of its ETCD_* variables"));
        }
    }
    check_log(args)?;
    let now = jiff::Timestamp::now();
    for file in args.certificates() {
        let pem = std::fs::read(&file)
            .map_err(|e| Error::invalid(format!("can not read {}", file.display())).because(e))?;
        if let Some(end) = certificate::expired(&pem, now) {
            return Err(Error::invalid(format!(
                "the certificate {} expired at {end}",
                file.display()
            ))
            .hint("renew it: etcd would be started with it, and find no peers"));
        }
    }
    let socket = args.data_dir().join(crate::member::SOCKET);
    if socket.as_os_str().len() > LONGEST_SOCKET {
        return Err(Error::invalid(format!(
            "the path {} is too long for a socket",
            socket.display()
        ))
        .hint("choose a shorter data dir"));
    }
    Ok(())
}

/// Checks that etcd keeps its log where its state is exchanged with it.
///
/// # Errors
/// Kind `Invalid`: it is elsewhere.
pub(crate) fn check_log(args: &EtcdArgs) -> Result<()> {
    match args.foreign_wal_dir() {
        None => Ok(()),
        Some(foreign) => Err(Error::invalid(format!(
            "etcd keeps its log at {}, outside of its data dir",
            foreign.display()
        ))
        .hint("move it to member/wal in the data dir, and start etcd without --wal-dir")),
    }
}

fn check_snapshot(facts: &Facts, voters: &[Voter]) -> Result<()> {
    if facts.auth_enabled {
        return Err(Error::invalid(
            "the snapshot has etcd's authentication on, and nobody could compare the restored members then",
        )
        .hint("take one with authentication off; this one is restored with every member stopped, by `etcd-launcher restore`"));
    }
    // Ids change with every restore; where the members are reached does not.
    let mut urls = facts
        .members
        .iter()
        .flat_map(|member| &member.peer_urls)
        .peekable();
    if urls.peek().is_some()
        && !urls.any(|url| voters.iter().any(|voter| voter.peer_urls.contains(url)))
    {
        return Err(Error::invalid(
            "the snapshot is of another cluster: none of its members is one of this one",
        )
        .hint(fit::ANOTHER_CLUSTER_HERE));
    }
    Ok(())
}

struct Live {
    revision: i64,
    leader: bool,
    leads: bool,
    learners: bool,
    voters: Vec<Voter>,
}

/// What the running etcd says; nothing where it has no leader for some time.
///
/// # Errors
/// Kind `Forbidden`: it lets nobody ask who is not known to it.
async fn live(args: &EtcdArgs) -> Result<Option<Live>> {
    let until = tokio::time::Instant::now() + ANSWERS;
    loop {
        let asked = async {
            let said = door::usual_status(args).await?;
            let revision = door::usual_read(args).await?.max(said.revision);
            let members = door::usual_members(args).await?;
            Ok::<_, Error>((said, revision, members))
        };
        match asked.await {
            Ok((said, revision, members)) if said.has_leader() => {
                return Ok(Some(Live {
                    revision,
                    leader: true,
                    leads: said.leader == said.member_id,
                    learners: members.iter().any(|(_, is_learner)| *is_learner),
                    voters: members.into_iter().map(|(voter, _)| voter).collect(),
                }));
            }
            Err(e) if e.kind() == Kind::Forbidden => return Err(e),
            _ if tokio::time::Instant::now() >= until => return Ok(None),
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

fn voters(
    args: &EtcdArgs,
    live: Option<&Live>,
    offline: Option<&Facts>,
) -> Result<(Vec<Voter>, bool)> {
    if let Some(live) = live {
        return Ok((live.voters.clone(), true));
    }
    if let Some(facts) = offline.filter(|facts| !facts.members.is_empty()) {
        let voters = facts.members.iter().map(|member| {
            let mut peer_urls = member.peer_urls.clone();
            peer_urls.sort();
            Voter {
                id: member.id.clone(),
                name: member.name.clone(),
                peer_urls,
            }
        });
        return Ok((voters.collect(), true));
    }
    Ok((named(args)?, false))
}

/// The members that the arguments name, sorted.
fn named(args: &EtcdArgs) -> Result<Vec<Voter>> {
    let mut named: Vec<Voter> = Vec::new();
    for (name, url) in args.initial_cluster()? {
        match named.iter_mut().find(|voter| voter.name == name) {
            Some(voter) => voter.peer_urls.push(url),
            None => named.push(Voter {
                name,
                peer_urls: vec![url],
                ..Voter::default()
            }),
        }
    }
    for voter in &mut named {
        voter.peer_urls.sort();
    }
    named.sort();
    Ok(named)
}
