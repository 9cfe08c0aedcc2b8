//! `describe`: what a snapshot says of itself.

use backup_cli::encryption::IdentityArgs;
use backup_cli::error::{Exit, Result};
use backup_cli::locations::LocationArgs;
use backup_cli::output::{self, Description, Format};
use backup_cli::ui::Ui;
use backup_core::etcd::Facts;
use backup_core::progress::Progress;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::origin::paths;
use crate::source::{Limits, Source, blocking};

const EXAMPLES: &str = "\
Examples:
  etcd-launcher describe snapshot.db
  etcd-launcher describe /var/lib/etcd/member/snap/db
  etcd-launcher describe 's3://backups/cluster-xyz/nightly.db.gz?region=eu-1' -o json";

/// Resources that are shown without --details.
const SHOWN: usize = 15;

/// A database that is written to while it is read.
pub(crate) const IN_USE: &str = "a running etcd has this file open: what it writes meanwhile may look like damage; take a snapshot of it instead";

/// Show what a snapshot says of itself
///
/// Takes a file, or the URL of an object: a snapshot or the database of a member, plain or packed by gzip or zstd, and encrypted with age around that. Changes nothing, and needs no
/// space. Shows revisions, versions, keys by resource, members, alarms, and which keys values are encrypted with.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DescribeArgs {
    /// File or URL of the snapshot
    #[arg(value_name = "FILE|URL")]
    snapshot: String,
    #[command(flatten)]
    identity: IdentityArgs,
    /// How the result is printed, in place of text
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Machine>,
    /// List every resource
    #[arg(long)]
    details: bool,
}

/// `-o` of commands whose usual result is text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Machine {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl From<Machine> for Format {
    fn from(machine: Machine) -> Self {
        match machine {
            Machine::Json => Self::Json,
            Machine::Yaml => Self::Yaml,
        }
    }
}

/// The result for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    snapshot: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missed: Vec<&'static str>,
    facts: &'a Facts,
}

/// Runs the command.
pub(crate) async fn run(ui: &Ui, location: &LocationArgs, args: &DescribeArgs) -> Result<Exit> {
    let identities = args.identity.read(&paths())?;
    let source = Source::parse(&args.snapshot, location, identities).await?;
    let source = source.encrypted(args.identity.is_named());
    if source.is_in_use() {
        ui.warn(IN_USE);
    }
    let bar = ui.progress();
    let (facts, missed) = if let Some(database) = source.in_place()? {
        bar.step(&format!("reading {source}"));
        bar.expect_bytes(database.bytes());
        (blocking(|| database.facts(&bar))?, Vec::new())
    } else {
        let walked = source.pass(&Limits::default(), &bar).await?.walked;
        (walked.facts, walked.missed)
    };
    drop(bar);
    if !missed.is_empty() {
        ui.warn(&format!(
            "could not be read in passing, and may be more than is shown: {}; unpack the snapshot to see it",
            missed.join(", ")
        ));
    }
    if let Some(machine) = args.output {
        let described = Described {
            snapshot: source.to_string(),
            missed,
            facts: &facts,
        };
        output::print(ui, machine.into(), &described)?;
    } else {
        ui.line(&text(&source.to_string(), &facts, args.details))?;
    }
    Ok(Exit::Done)
}

fn text(name: &str, facts: &Facts, details: bool) -> String {
    let mut text = Description::default();
    text.field(0, "Snapshot", name);
    text.field(0, "Revision", facts.revision.to_string());
    text.field(0, "Compacted", compacted(facts));
    text.field(0, "Storage Version", storage_version(facts));
    text.field(
        0,
        "Cluster Version",
        facts.cluster_version.as_deref().unwrap_or_default(),
    );
    text.field(0, "Raft Index", facts.consistent_index.to_string());
    text.field(0, "Raft Term", facts.term.to_string());
    text.field(
        0,
        "Size",
        format!(
            "{}, {} in use, pages of {}",
            output::size(facts.bytes),
            output::size(facts.bytes_in_use),
            output::size(u64::from(facts.page_size))
        ),
    );
    text.field(
        0,
        "Authentication",
        if facts.auth_enabled { "on" } else { "off" },
    );
    text.field(
        0,
        "Encrypted With",
        output::joined(&facts.encryption_keys, ""),
    );
    keys(&mut text, facts, details);
    text.gap();
    text.heading("Members");
    for member in &facts.members {
        let learner = if member.is_learner { ", learner" } else { "" };
        let name = if member.name.is_empty() {
            "(never started)"
        } else {
            &member.name
        };
        text.field(
            1,
            &member.id,
            format!("{name}{learner}, {}", member.peer_urls.join(" ")),
        );
    }
    if facts.members.is_empty() {
        text.item(1, "none");
    }
    text.gap();
    text.heading("Alarms");
    for alarm in &facts.alarms {
        text.field(1, &alarm.member, &alarm.kind);
    }
    if facts.alarms.is_empty() {
        text.item(1, "none");
    }
    text.render()
}

fn keys(text: &mut Description, facts: &Facts, details: bool) {
    let keys = &facts.keys;
    text.gap();
    text.heading("Keys");
    let live = keys.live.map_or_else(
        || "not known: a compaction is under way; `verify` counts them".to_owned(),
        output::count,
    );
    text.field(1, "Live", live);
    text.field(1, "Revisions", output::count(keys.revisions));
    let mut resources: Vec<_> = keys.resources.iter().flatten().collect();
    if resources.is_empty() {
        return;
    }
    resources.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let hidden = if details {
        0
    } else {
        resources.len().saturating_sub(SHOWN)
    };
    text.gap();
    text.heading("Resources");
    for (name, count) in &resources[..resources.len() - hidden] {
        text.field(1, name, output::count(**count));
    }
    if hidden > 0 {
        text.item(1, &format!("and {hidden} more, see --details"));
    }
}

fn compacted(facts: &Facts) -> String {
    match (facts.compact_revision, facts.scheduled_compact_revision) {
        (0, 0) => "never".to_owned(),
        (done, scheduled) if scheduled > done => {
            format!("up to {done}, going on up to {scheduled}")
        }
        (done, _) => format!("up to {done}"),
    }
}

fn storage_version(facts: &Facts) -> String {
    facts
        .storage_version
        .clone()
        .unwrap_or_else(|| "3.5 or older".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unusual_is_said_in_words() {
        let mut facts = Facts {
            revision: 1234,
            ..Facts::default()
        };
        let shown = text("a.db", &facts, false);
        assert!(shown.contains("Compacted:        never\n"), "{shown}");
        assert!(
            shown.contains("Storage Version:  3.5 or older\n"),
            "{shown}"
        );
        assert!(shown.contains("Alarms:\n  none"), "{shown}");
        facts.compact_revision = 5;
        facts.scheduled_compact_revision = 9;
        let resources = (0..20_u64).map(|index| (format!("r{index:02}"), 20 - index));
        facts.keys.resources = Some(resources.collect());
        facts.keys.live = Some(210);
        let shown = text("a.db", &facts, false);
        assert!(shown.contains("up to 5, going on up to 9"), "{shown}");
        assert!(
            shown.contains("r14:  6\n  and 5 more, see --details"),
            "{shown}"
        );
        assert!(text("a.db", &facts, true).contains("r19:  1"));
    }
}
