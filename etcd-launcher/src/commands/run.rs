//! `run`: reads the command line and the environment of a pod, and runs what [`crate::run`] describes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::interrupt::interrupted;
use backup_cli::ui::Ui;
use backup_core::Error;
use clap::Args;

use super::data_dir::ToolArgs;
use crate::etcd_args::EtcdArgs;
use crate::restore::job;
use crate::run::Tools;
use crate::run::hosting::Names;
use crate::run::pace::Pace;
use crate::run::{self, Keeping, Settings};

/// Run etcd as its parent, and restore it when an EtcdRestore asks for it
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Name of the Cluster whose etcd this is
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Namespace of its control plane [default: cluster-NAME]
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "POD_NAMESPACE",
        hide_env_values = true
    )]
    namespace: Option<String>,
    /// File with the way to the hosting API; without it, the one of this pod
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// This pod's name, for messages
    #[arg(long, value_name = "NAME", env = "POD_NAME", hide_env_values = true)]
    pod_name: Option<String>,
    /// StatefulSet of etcd
    #[arg(long, value_name = "NAME", default_value = "etcd")]
    statefulset: String,
    /// Deployments that are scaled to 0 during a restore, the API server first
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "apiserver,controller-manager,scheduler"
    )]
    control_plane: Vec<String>,
    /// Where probes and the other launchers ask: /livez, /readyz, /state
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:2378")]
    listen: SocketAddr,
    /// Launcher of another member, as name=host:port [default: the host of its peer URL, with the port of --listen]
    #[arg(long = "peer", value_name = "NAME=ADDRESS")]
    peers: Vec<String>,
    /// Found a new empty cluster where there is none yet; never twice
    #[arg(long)]
    new_cluster: bool,
    /// etcdutl to restore with [default: the one beside etcd, beside this program, or in PATH]
    #[arg(long, value_name = "PATH")]
    etcdutl: Option<PathBuf>,
    /// How many of the states that restores replaced are kept in any case, to roll back to
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    keep_states: u16,
    /// For how long each of them is kept, whatever their number; older ones are removed by the next restore
    #[arg(long, value_name = "DURATION", default_value = "168h", value_parser = humantime::parse_duration)]
    keep_states_for: Duration,
    /// Variable of the launcher's environment that etcd is given besides ETCD_*, GRPC_*, OTEL_* and those of Go and TLS; can be repeated
    #[arg(long, value_name = "NAME", value_parser = variable)]
    etcd_env: Vec<String>,
    /// For tests: wait so many times less long
    #[arg(long, hide = true, default_value_t = 1)]
    hurry: u32,
    /// etcd's own command line
    #[arg(last = true, required = true, value_name = "ETCD")]
    etcd: Vec<OsString>,
}

/// A name; its value is in the environment alone.
fn variable(name: &str) -> std::result::Result<String, String> {
    if name.is_empty() || name.contains('=') {
        return Err("it is the name of a variable, without its value".to_owned());
    }
    Ok(name.to_owned())
}

/// Runs the command.
pub(crate) async fn run(ui: Arc<Ui>, args: RunArgs) -> Result<Exit> {
    let etcd =
        EtcdArgs::parse(&args.etcd, |name| std::env::var_os(name)).map_err(CommandError::usage)?;
    let peers = args
        .peers
        .iter()
        .map(|peer| {
            peer.split_once('=')
                .map(|(name, address)| {
                    let address = address.trim_start_matches("http://").trim_end_matches('/');
                    (name.to_owned(), address.to_owned())
                })
                .ok_or_else(|| {
                    CommandError::usage(Error::invalid(format!(
                        "--peer {peer:?} is not NAME=ADDRESS"
                    )))
                })
        })
        .collect::<Result<BTreeMap<_, _>>>()?;
    let settings = Settings {
        etcd,
        etcd_env: args.etcd_env,
        names: Names {
            namespace: args
                .namespace
                .unwrap_or_else(|| format!("cluster-{}", args.cluster)),
            cluster: args.cluster,
            set: args.statefulset,
            control_plane: args
                .control_plane
                .into_iter()
                .filter(|name| !name.is_empty())
                .collect(),
        },
        kubeconfig: args.kubeconfig,
        pod_uid: args.pod_name.map_or_else(
            || uuid::Uuid::new_v4().to_string(),
            |name| format!("{name}/{}", std::process::id()),
        ),
        listen: args.listen,
        peers,
        new_cluster: args.new_cluster,
        tools: Tools {
            etcdutl: args.etcdutl,
            search: ToolArgs::search(),
            stall: Pace::new(args.hurry).of(job::STALL),
        },
        keeping: Keeping {
            newest: args.keep_states.into(),
            least: args.keep_states_for,
        },
        hurry: args.hurry,
    };
    let said = move |text: &str| ui.say(text);
    run::run(settings, said, interrupted()).await?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn line(arguments: &[&str]) -> std::result::Result<RunArgs, clap::Error> {
        let line = ["run", "--cluster=c"].iter().chain(arguments);
        Line::try_parse_from(line.chain(&["--", "etcd"])).map(|line| line.run)
    }

    #[test]
    fn whoever_lacks_room_is_told_of_a_flag_that_there_is_and_the_newest_state_can_not_be_given_up()
    {
        let flag = run::MORE_ROOM
            .split(' ')
            .find(|word| word.starts_with("--"))
            .unwrap();
        assert_eq!(line(&[flag, "1"]).unwrap().keep_states, 1);
        assert_eq!(line(&[]).unwrap().keep_states, 2);
        assert!(line(&[flag, "0"]).is_err());
        let given = line(&["--etcd-env", "A", "--etcd-env", "B"]).unwrap();
        assert_eq!(given.etcd_env, ["A", "B"]);
        assert!(line(&["--etcd-env", "A=secret"]).is_err());
        let for_long = line(&[]).unwrap().keep_states_for;
        assert_eq!(for_long, Duration::from_secs(7 * 24 * 3600));
    }
}
