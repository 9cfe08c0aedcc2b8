//! The command line: its commands and the flags that all of them share. Parsing touches nothing but the arguments.

use backup_cli::locations::LocationArgs;
use backup_cli::ui::Color;
use clap::{Args, Parser, Subcommand};

use crate::commands::{
    crds, describe, exec, install, node, restore, rollback, run, snapshot, status, verify, version,
};

const AFTER: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong command line, 3 finished but something is missing, 130 interrupted.
Flags beat their KUBECTL_BACKUP_* variables, and these beat the defaults.";

/// Take snapshots of etcd, and restore them without losing what is there
// `--cacert` is etcd's here, as etcdctl has it, and the location's goes by a longer name.
#[derive(Clone, Debug, Parser)]
#[command(mut_arg("cacert", |arg| arg.long("location-cacert")), name = "etcd-launcher", version, after_help = AFTER, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Where snapshots live.
    #[command(flatten)]
    pub(crate) location: LocationArgs,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        env = "KUBECTL_BACKUP_COLOR",
        help_heading = "Terminal",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) color: Color,
    /// Print results, warnings and errors only
    #[arg(short, long, global = true, help_heading = "Terminal")]
    pub(crate) quiet: bool,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Crds(crds::CrdsArgs),
    Describe(describe::DescribeArgs),
    Exec(exec::ExecArgs),
    Install(install::InstallArgs),
    Node(node::NodeArgs),
    Restore(Box<restore::RestoreArgs>),
    Rollback(Box<rollback::RollbackArgs>),
    Run(Box<run::RunArgs>),
    Snapshot(Box<snapshot::SnapshotArgs>),
    Status(status::StatusArgs),
    Verify(verify::VerifyArgs),
    Version(version::VersionArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
