//! `run`: the parent of etcd, and the restore of a hosted cluster. (The protocol's page follows here.)

mod act;
mod coordinator;
mod decide;
mod door;
mod fitness;
pub(crate) mod hosting;
mod http;
mod keeper;
mod lease;
mod listening;
mod memory;
mod pause;
mod peers;
mod plan;
pub(crate) mod records;
mod row;
mod startup;
mod watch_writers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::time::Duration;

use backup_core::progress::Progress;
use backup_core::{Error, Result};

use crate::etcd_args::EtcdArgs;
use crate::health::Health;
use crate::member::Member;
use crate::restore::dir::DataDir;
use coordinator::{Coordinator, Seen};
use decide::Patience;
use fitness::Tools;
use hosting::{Hosting, Names};
use keeper::{Config, Keeper};
use lease::Turn;
use peers::Peers;
use row::{Rows, Told};

/// All that `run` is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// etcd's own command line.
    pub(crate) etcd: EtcdArgs,
    /// What things are called in the hosting API.
    pub(crate) names: Names,
    /// How to reach it; as a pod where there is none.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Which pod this is; another one of the same member has another.
    pub(crate) pod_uid: String,
    /// Where probes and other launchers ask.
    pub(crate) listen: SocketAddr,
    /// `host:port` of other members' launchers, by name; the host of the peer URL and the own port for who is not in it.
    pub(crate) peers: BTreeMap<String, String>,
    /// A new empty cluster may be founded.
    pub(crate) new_cluster: bool,
    /// `--etcdutl`
    pub(crate) etcdutl: Option<PathBuf>,
    /// All waiting is shorter by so much; for tests.
    pub(crate) hurry: u32,
}

/// Runs until it is told to end, then stops etcd. What should be known on the way is given to `said`.
///
/// # Errors
/// What keeps it from beginning at all.
pub(crate) async fn run(
    settings: Settings,
    said: impl Fn(&str) + Clone + Send + Sync + 'static,
    interrupted: impl Future<Output = bool>,
) -> Result<()> {
    let name = settings.etcd.name().to_owned();
    let data_dir = settings.etcd.data_dir();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&data_dir)
        .map_err(|e| Error::other(format!("can not make {}", data_dir.display())).because(e))?;
    let dir = DataDir::take(&data_dir)?;

    let health = Health::new(&name);
    let bound = health.serve(settings.listen).await?;
    let hosting = Hosting::connect(settings.kubeconfig.as_deref(), settings.names.clone()).await?;
    let peers = Peers(peers(&settings, bound.port())?);
    let rows = Rows::new(&name, health.clone());
    // As long as the process; what is restored with it lives in several tasks.
    let progress: &'static dyn Progress = Box::leak(Box::new(Told::new(rows.clone())));
    let hurry = settings.hurry.max(1);
    let patience = Patience::default().divided_by(hurry);

    tokio::spawn(rows.clone().keep_written(hosting.clone()));
    let coordinator = Coordinator {
        me: name.clone(),
        args: settings.etcd.clone(),
        hosting: hosting.clone(),
        peers: peers.clone(),
        health: health.clone(),
        turn: Turn::new(&settings.names.cluster, &name, Duration::from_secs(20)),
        patience,
        said: Box::new(said.clone()),
        seen: Seen::default(),
    };
    tokio::spawn(coordinator.coordinate());

    let config = Config {
        name,
        pod_uid: settings.pod_uid,
        new_cluster: settings.new_cluster,
        tools: Tools {
            etcdutl: settings.etcdutl,
        },
        turn: Duration::from_secs(60) / hurry,
    };
    let member = Member::new(settings.etcd);
    let keeper = Keeper::new(
        config,
        dir,
        member,
        hosting,
        peers,
        rows,
        health,
        progress,
        Box::new(said),
    )?;
    let (end, ended) = tokio::sync::watch::channel(false);
    let keeping = keeper.keep(ended);
    tokio::pin!(keeping);
    tokio::select! {
        kept = &mut keeping => return kept,
        _ = interrupted => {}
    }
    let _ = end.send(true);
    keeping.await
}

/// Where the launchers of the other members are.
fn peers(settings: &Settings, port: u16) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for (name, url) in settings.etcd.initial_cluster()? {
        if name == settings.etcd.name() {
            continue;
        }
        let host = url
            .split_once("://")
            .and_then(|(_, rest)| rest.rsplit_once(':'))
            .map_or(url.as_str(), |(host, _)| host);
        found
            .entry(name)
            .or_insert_with(|| format!("{host}:{port}"));
    }
    found.extend(settings.peers.clone());
    found.remove(settings.etcd.name());
    Ok(found)
}
