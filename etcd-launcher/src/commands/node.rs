//! `node`: break glass on a control-plane node, with no API server alive. What its commands share: flags, the node as it is found, and
//! stopping and starting its control plane. The page is `crate::node`.

mod fence;
mod moves;
mod restore;
mod rollback;
mod start;
mod status;

use std::path::{Path, PathBuf};

use backup_cli::error::{Exit, Result};
use backup_cli::locations::LocationArgs;
use backup_cli::ui::Ui;
use backup_core::error::quoted;
use backup_core::{Error, Kind};
use clap::{Args, Subcommand};

use super::data_dir;
use crate::etcd_args::EtcdArgs;
use crate::node::folders::{Folders, Found};
use crate::node::gone::{self, Sought};
use crate::node::kubelet;
use crate::node::manifest::{Manifest, Part};
use crate::restore::dir::DataDir;
use crate::restore::{decide, offline};

/// Stop, restore and start the control plane of a kubeadm node whose etcd is gone
///
/// Needs root, a kubelet that runs, and nothing else: no API server, no container tools. The control plane's static pods are stopped by moving
/// their manifests out of the kubelet's folder, etcd is restored as `restore` does it, and they are brought back, etcd first. Killed at
/// any moment, `node status` says where it stands; the same command goes on, `node rollback` goes back.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

/// What to do with the node.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    Fence(fence::FenceArgs),
    Restore(Box<restore::RestoreArgs>),
    Rollback(Box<rollback::RollbackArgs>),
    Start(start::StartArgs),
    Status(status::StatusArgs),
}

/// Which node.
#[derive(Clone, Debug, Args)]
pub(super) struct KubeletArgs {
    /// The kubelet's configuration, which names the folder of static pods
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/var/lib/kubelet/config.yaml"
    )]
    kubelet_config: PathBuf,
}

/// Runs one of them.
pub(crate) async fn run(ui: &Ui, location: &LocationArgs, command: NodeCommand) -> Result<Exit> {
    match command {
        NodeCommand::Fence(args) => fence::run(ui, &args).await,
        NodeCommand::Restore(args) => restore::run(ui, location, *args).await,
        NodeCommand::Rollback(args) => rollback::run(ui, &args).await,
        NodeCommand::Start(args) => start::run(ui, &args),
        NodeCommand::Status(args) => status::run(ui, &args),
    }
}

/// The node as it was found.
struct Node {
    folders: Folders,
    found: Found,
    etcd: Manifest,
    args: EtcdArgs,
    data_dir: PathBuf,
    sought: Sought,
}

impl Node {
    /// Looks at it, and changes nothing.
    fn find(ui: &Ui, args: &KubeletArgs) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(
                Kind::Forbidden,
                "only root can work on a node's static pods and on etcd's data",
            )
            .hint("run the same command with sudo")
            .into());
        }
        let folders = Folders::new(kubelet::static_pods(&args.kubelet_config)?)?;
        let found = folders.find()?;
        for error in &found.unread {
            ui.warn(&error.to_string());
        }
        let etcd = found
            .etcd()
            .map_err(|e| {
                e.context(format!(
                    "the etcd of this node can not be told by {}",
                    folders.pods().display()
                ))
            })?
            .clone();
        let args = etcd.etcd()?;
        if let Some(wal) = args.foreign_wal_dir() {
            return Err(Error::invalid(format!(
                "etcd's manifest {} has --wal-dir {}",
                etcd.file.display(),
                wal.display()
            ))
            .hint("an etcd with a --wal-dir of its own is not restored: move the log into the data dir first, and take the flag away")
            .into());
        }
        let inside = args.data_dir();
        let data_dir = etcd.on_host(&inside).ok_or_else(|| {
            Error::invalid(format!(
                "etcd's data dir {} is on no volume of the host, by the manifest {}",
                inside.display(),
                etcd.file.display()
            ))
            .hint("its data go away with the container; where they lie elsewhere, use `etcd-launcher restore`")
        })?;
        let clients = args.client_urls();
        let clients = clients
            .iter()
            .filter_map(|url| url.rsplit_once(':')?.1.parse().ok());
        let etcds = clients.chain(args.ports_that_are_no_clients());
        let servers = found.of(Part::ApiServer).map(Manifest::secure_port);
        let ports = servers
            .map(|port| (Part::ApiServer, port))
            .chain(etcds.map(|port| (Part::Etcd, port)))
            .collect();
        Ok(Self {
            sought: Sought {
                etcd: etcd.command(),
                ports,
            },
            folders,
            found,
            etcd,
            args,
            data_dir,
        })
    }

    /// Refuses where nobody would end or start a pod.
    fn check_kubelet(&self) -> Result<()> {
        if gone::kubelet_runs() {
            return Ok(());
        }
        Err(Error::other("no kubelet runs here: nobody would stop or start the control plane")
            .hint("start it (systemctl start kubelet), then the same command again; nothing was changed")
            .into())
    }

    /// Opens the data dir for this process alone; made where it is absent, as etcd's user has it.
    fn open(&self, spool: Option<&Path>) -> Result<DataDir> {
        if !self.data_dir.exists() {
            data_dir::make(&self.data_dir)?;
            let user = self.etcd.user();
            std::os::unix::fs::chown(&self.data_dir, user.run_as_user, user.run_as_group).map_err(
                |e| {
                    Error::other(format!(
                        "can not give {} to etcd's user",
                        self.data_dir.display()
                    ))
                    .because(e)
                },
            )?;
        }
        data_dir::open(&self.data_dir, spool)
    }

    /// What is in the folders now.
    fn look_again(&mut self) -> Result<()> {
        self.found = self.folders.find()?;
        Ok(())
    }
}

/// The data dir's last attempt.
fn last(dir: &DataDir) -> Result<Option<decide::Found>> {
    let last = dir.attempts().last();
    Ok(last.map(|last| offline::found(dir, last)).transpose()?)
}

fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy()).into_owned()
}
