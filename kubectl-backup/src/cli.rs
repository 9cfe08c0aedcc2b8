//! The command line: its commands and the flags that all of them share. Parsing touches nothing but the arguments.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use owo_colors::OwoColorize;

use crate::commands::{
    completion, contents, controller, copy, create, delete, describe, diff, doctor, download, etcd,
    get, install, location, logs, prune, rekey, restore, schedule, status, uninstall, verify,
    version,
};
use crate::connection::ConnectionArgs;
use crate::encryption::IdentityArgs;
use backup_cli::locations::LocationArgs;
use backup_cli::ui::Color;

const AFTER: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong command line, 3 finished but something is missing, 130 interrupted.
`diff` has those of diff: 0 the same, 1 different, 2 failed.
Flags beat their KUBECTL_BACKUP_* variables, and these beat the defaults.";

/// Back up and restore the cluster of the current context, with nothing installed in it
#[derive(Clone, Debug, Parser)]
#[command(name = "kubectl-backup", version, after_help = AFTER, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the user calls this program, for the commands that messages suggest.
    #[arg(skip)]
    pub(crate) program: String,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct GlobalArgs {
    /// Which API server, and as whom.
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    /// Where backups live.
    #[command(flatten)]
    pub(crate) location: LocationArgs,
    /// Who opens encrypted backups.
    #[command(flatten)]
    pub(crate) identity: IdentityArgs,
    /// Namespace of the cluster's Velero: of its schedules and policies, of the rewrites that restores take, and of its locations, used where you have none of your own; no other one is looked in [default: velero; for locations kubectl-backup, then velero]
    #[arg(
        long,
        global = true,
        value_name = "NS",
        env = "KUBECTL_BACKUP_VELERO_NAMESPACE",
        help_heading = "Location",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) velero_namespace: Option<String>,
    /// Context of the KKP master or seed whose ClusterBackupStorageLocations are meant: --location NAME/CLUSTER is the folder of a user cluster in the bucket of its project
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "KUBECTL_BACKUP_KKP_CONTEXT",
        help_heading = "Location",
        hide_short_help = true,
        hide_env_values = true
    )]
    pub(crate) kkp_context: Option<String>,
    /// The same as Velero's own command takes it.
    #[arg(skip = std::env::var("VELERO_NAMESPACE").ok().filter(|name| !name.is_empty()))]
    pub(crate) velero_namespace_of_velero: Option<String>,
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
    /// How much is told on standard error: from 6 on each request to the API server; never what was sent or answered
    #[arg(
        short,
        long = "v",
        global = true,
        value_name = "LEVEL",
        default_value_t = 0,
        help_heading = "Terminal",
        hide_short_help = true
    )]
    pub(crate) verbosity: u8,
    /// Print results, warnings and errors only
    #[arg(short, long, global = true, help_heading = "Terminal")]
    pub(crate) quiet: bool,
}

impl GlobalArgs {
    /// Whether the user said which cluster is meant: then another one is not shown in its place.
    pub(crate) fn is_cluster_named(&self) -> bool {
        self.connection.is_explicit() || self.velero_namespace.is_some()
    }
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Create(Box<create::CreateArgs>),
    Get(get::GetArgs),
    Describe(describe::DescribeArgs),
    Diff(Box<diff::DiffArgs>),
    Logs(logs::LogsArgs),
    Contents(contents::ContentsArgs),
    Download(download::DownloadArgs),
    Verify(verify::VerifyArgs),
    Copy(copy::CopyArgs),
    Delete(delete::DeleteArgs),
    Prune(prune::PruneArgs),
    Rekey(rekey::RekeyArgs),
    /// Bring backups back into a cluster
    #[command(subcommand)]
    Restore(restore::RestoreCommand),
    /// Manage where backups live
    #[command(subcommand)]
    Location(location::LocationCommand),
    Schedule(schedule::ScheduleArgs),
    Doctor(doctor::DoctorArgs),
    Etcd(etcd::EtcdArgs),
    Install(Box<install::InstallArgs>),
    Status(status::StatusArgs),
    Uninstall(uninstall::UninstallArgs),
    Controller(controller::ControllerArgs),
    /// Complete this plugin's command line in your shell
    #[command(subcommand)]
    Completion(completion::CompletionCommand),
    /// What runs beside a volume.
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Mover(crate::commands::mover::MoverArgs),
    Version(version::VersionArgs),
}

impl Cli {
    /// Parses the process's arguments; usage lines show what the user types.
    ///
    /// # Errors
    /// A wrong command line, and the help that was asked for.
    pub(crate) fn from_arguments(arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        let program = called_as(arguments.first().map(OsString::as_os_str));
        let mut command = grouped(Self::command(), &program);
        let arguments = without_values(&command, arguments);
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|e| e.format(&mut command))?;
        cli.program = program;
        // There, the flag names the hosted cluster whose etcd is meant.
        if matches!(cli.command, Command::Etcd(_)) {
            cli.global.connection.cluster = None;
        }
        Ok(cli)
    }
}

/// The commands as the first page shows them: by what one wants. One that is not named here stands with the last.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Back up and restore",
        &["create", "schedule", "restore", "etcd"],
    ),
    (
        "Look at backups",
        &[
            "get", "describe", "diff", "logs", "contents", "download", "verify",
        ],
    ),
    (
        "Keep the place tidy",
        &["copy", "delete", "prune", "rekey", "location"],
    ),
    (
        "The controller in a cluster",
        &["install", "status", "uninstall", "controller"],
    ),
    ("This plugin", &["doctor", "completion", "version"]),
];

/// The command with its own first page; nothing else of it changes.
fn grouped(mut command: clap::Command, program: &str) -> clap::Command {
    let abouts: Vec<(String, String)> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .map(|sub| {
            let about = sub.get_about().map(ToString::to_string);
            (sub.get_name().to_owned(), about.unwrap_or_default())
        })
        .collect();
    let named = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let mut page = String::new();
    for (at, (title, names)) in GROUPS.iter().enumerate() {
        let last = at + 1 == GROUPS.len();
        let others = abouts.iter().map(|(name, _)| name.as_str());
        let others = others.filter(|name| last && !named(name));
        page.push_str(&format!("{}\n", format!("{title}:").bold().underline()));
        for name in names.iter().copied().chain(others) {
            let about = abouts.iter().find(|(known, _)| known == name);
            let about = about.map_or("", |(_, about)| about);
            page.push_str(&format!("  {}  {about}\n", format!("{name:<10}").bold()));
        }
        page.push('\n');
    }
    for (name, _) in &abouts {
        command = command.mut_subcommand(name, |sub| sub.hide(true));
    }
    command
        .bin_name(program)
        .override_usage(format!("{program} [OPTIONS] <COMMAND>"))
        .help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{page}{{all-args}}{{after-help}}"
        ))
}

/// Flags that are given a value as kubectl takes it, such as `--yes=true`: with true the flag alone, with false nothing.
fn without_values(command: &clap::Command, arguments: Vec<OsString>) -> Vec<OsString> {
    let mut flags = (BTreeSet::new(), BTreeSet::new());
    collect(command, &mut flags);
    let (plain, valued) = flags;
    let mut ended = false;
    let kept = arguments.into_iter().filter_map(|word| {
        ended |= word == "--";
        let Some((flag, value)) = word.to_str().and_then(|text| text.split_once('=')) else {
            return Some(word);
        };
        let name = flag.strip_prefix("--").unwrap_or_default();
        match value {
            _ if ended || !plain.contains(name) || valued.contains(name) => Some(word),
            "true" => Some(flag.into()),
            "false" => None,
            _ => Some(word),
        }
    });
    kept.collect()
}

/// Names of flags without a value, and of those with one, anywhere below.
fn collect(command: &clap::Command, found: &mut (BTreeSet<String>, BTreeSet<String>)) {
    for arg in command.get_arguments() {
        let names = arg.get_long_and_visible_aliases().unwrap_or_default();
        let (plain, valued) = &mut *found;
        let of = match arg.get_action() {
            clap::ArgAction::SetTrue => plain,
            _ => valued,
        };
        of.extend(names.into_iter().map(str::to_owned));
    }
    for sub in command.get_subcommands() {
        collect(sub, found);
    }
}

/// When help and refusals are coloured: they are printed before the flags are known.
pub(crate) fn color(arguments: &[OsString]) -> Color {
    let mut asked = std::env::var("KUBECTL_BACKUP_COLOR").ok();
    let mut words = arguments.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        match word.strip_prefix("--color") {
            Some("") => asked = words.next().map(str::to_owned),
            Some(value) => asked = value.strip_prefix('=').map(str::to_owned).or(asked),
            None => {}
        }
    }
    let asked = asked.and_then(|text| Color::from_str(&text, false).ok());
    asked.unwrap_or_default()
}

/// `kubectl-backup` is called through kubectl, which passes its path on; another name is called by itself.
fn called_as(first: Option<&OsStr>) -> String {
    let name = first
        .and_then(|first| Path::new(first).file_name())
        .map_or_else(|| "kubectl-backup".into(), OsStr::to_string_lossy);
    let name = name.strip_suffix(".exe").unwrap_or(&name);
    match name.strip_prefix("kubectl-") {
        Some(plugin) if !plugin.is_empty() => format!("kubectl {}", plugin.replace('_', "-")),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::from_arguments(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_shows_what_the_user_types() {
        assert_eq!(
            called_as(Some(OsStr::new("/usr/bin/kubectl-backup"))),
            "kubectl backup"
        );
        assert_eq!(called_as(Some(OsStr::new("backup"))), "backup");
        let help = parse(&["/x/kubectl-backup", "restore", "create", "--help"]).unwrap_err();
        let text = help.to_string();
        assert!(
            text.contains("Usage: kubectl backup restore create"),
            "{text}"
        );
        assert_eq!(help.exit_code(), 0);
    }

    /// The words of a line as a shell takes them; single quotes are all that examples use.
    fn words(line: &str) -> Vec<String> {
        let (mut found, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars().chain([' ']) {
            match c {
                '\'' => quoted = !quoted,
                ' ' if !quoted => {
                    if !word.is_empty() {
                        found.push(std::mem::take(&mut word));
                    }
                }
                c => word.push(c),
            }
        }
        found
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        fn visit(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                // Nobody calls it by hand.
                if sub.is_hide_set() {
                    continue;
                }
                if sub.has_subcommands() {
                    visit(sub, &path);
                    continue;
                }
                let examples = sub
                    .get_after_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let lines: Vec<_> = examples
                    .lines()
                    .filter(|l| l.trim().starts_with("kubectl"))
                    .collect();
                assert!(lines.len() >= 2, "{path} has no examples");
                for line in lines {
                    assert!(
                        line.trim().starts_with(&format!("kubectl backup{path}")),
                        "{line}"
                    );
                    let words = words(line);
                    let words: Vec<_> = words.iter().skip(1).map(String::as_str).collect();
                    let parsed = parse(&words);
                    assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
                }
            }
        }
        visit(&Cli::command(), "");
    }

    #[test]
    fn the_first_page_has_every_command_once_under_what_one_wants() {
        let help = parse(&["/x/kubectl-backup", "--help"]).unwrap_err();
        let text = help.to_string();
        let page = text.split_once("Back up and restore:\n").unwrap().1;
        let mut shown: Vec<_> = page
            .lines()
            .take_while(|line| *line != "Options:")
            .filter_map(|line| line.strip_prefix("  ")?.split_once("  "))
            .map(|(name, _)| name.trim_end().to_owned())
            .collect();
        shown.sort();
        let mut all: Vec<_> = Cli::command()
            .get_subcommands()
            .filter(|sub| !sub.is_hide_set())
            .map(|sub| sub.get_name().to_owned())
            .collect();
        all.sort();
        assert_eq!(shown, all, "{text}");
        assert!(
            text.contains("Usage: kubectl backup [OPTIONS] <COMMAND>"),
            "{text}"
        );
        assert!(text.contains("Keep the place tidy:") && text.contains("--context"));
    }

    #[test]
    fn flags_take_true_and_false_as_for_kubectl() {
        let deletes = |line: &[&str]| match parse(line).unwrap().command {
            Command::Delete(args) => format!("{args:?}"),
            _ => panic!("not delete"),
        };
        let of = |words: &[&str]| deletes(&[&["kubectl-backup", "delete", "x"], words].concat());
        assert_eq!(of(&["--yes=true", "--force=false"]), of(&["-y"]));
        assert_eq!(of(&["--confirm=false"]), of(&[]));
        assert!(parse(&["kubectl-backup", "delete", "x", "--yes=maybe"]).is_err());
        assert!(parse(&["kubectl-backup", "get", "--no-headers=false"]).is_ok());
        assert!(parse(&["kubectl-backup", "create", "--point-in-time=false"]).is_ok());
        assert!(parse(&["kubectl-backup", "delete", "--", "--yes=true"]).is_ok());
    }

    #[test]
    fn colour_of_help_follows_the_flag() {
        let of = |words: &[&str]| color(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of(&["x", "--color=never", "--help"]), Color::Never);
        assert_eq!(of(&["x", "--color", "always"]), Color::Always);
        assert_eq!(of(&["x", "--color", "pink"]), Color::Auto);
    }

    #[test]
    fn under_etcd_the_cluster_is_the_hosted_one() {
        let of = |line: &[&str]| match parse(line).unwrap() {
            Cli {
                global,
                command: Command::Etcd(args),
                ..
            } => (global.connection.cluster, args.scope.cluster),
            _ => panic!("not etcd"),
        };
        let hosted = (None, Some("c".to_owned()));
        for line in [
            &["kubectl-backup", "etcd", "get", "--cluster", "c"][..],
            &["kubectl-backup", "etcd", "--cluster", "c", "restore", "get"],
        ] {
            assert_eq!(of(line), hosted);
        }
        assert_eq!(of(&["kubectl-backup", "etcd", "get"]), (None, None));
        let cli = parse(&["kubectl-backup", "get", "--cluster", "k"]).unwrap();
        assert_eq!(cli.global.connection.cluster.as_deref(), Some("k"));
    }

    #[test]
    fn connection_flags_stand_anywhere_after_the_plugins_name() {
        let cli = parse(&[
            "kubectl-backup",
            "get",
            "--context",
            "a",
            "--location",
            "b",
            "-q",
        ])
        .unwrap();
        assert_eq!(cli.global.connection.context.as_deref(), Some("a"));
        assert_eq!(cli.global.location.location.as_deref(), Some("b"));
        let cli = parse(&["kubectl-backup", "--context", "a", "restore", "get"]).unwrap();
        assert_eq!(cli.global.connection.context.as_deref(), Some("a"));
        assert!(parse(&["kubectl-backup", "create", "--storage-location", "x"]).is_ok());
    }
}
