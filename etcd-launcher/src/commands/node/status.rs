//! `node status`: where a node stands. Reads only, whatever runs.

use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::output::{self, Format};
use backup_cli::ui::Ui;
use backup_core::Error;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{KubeletArgs, Node};
use crate::commands::status;
use crate::node::folders::Place;
use crate::node::gone::{self, Process};
use crate::node::manifest::Part;
use crate::node::stand::{self, Stand};
use crate::restore::dir::DataDir;
use crate::restore::plan::AttemptId;

/// Say what of the control plane runs, what is stopped, what was restored, and what can be done now
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    kubelet: KubeletArgs,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: Stand,
    next: String,
    static_pods: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<Fence>,
    manifests: Vec<Manifest>,
    processes: Vec<Process>,
    kubelet_runs: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<status::Status>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fence {
    folder: String,
    begun: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<AttemptId>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    part: Part,
    file: String,
    place: Place,
}

/// Runs the command.
pub(super) fn run(ui: &Ui, args: &StatusArgs) -> Result<Exit> {
    let node = Node::find(ui, &args.kubelet)?;
    let status = gather(&node)?;
    match args.output {
        Format::Table | Format::Wide => tell(ui, &node, &status)?,
        Format::Json | Format::Yaml => output::print(ui, args.output, &status)?,
        Format::Name => {
            return Err(CommandError::usage(Error::invalid(
                "-o name is not offered here",
            )));
        }
    }
    Ok(Exit::Done)
}

fn gather(node: &Node) -> Result<Status> {
    let dir = node
        .data_dir
        .exists()
        .then(|| DataDir::look(&node.data_dir))
        .transpose()?;
    let last = dir.as_ref().map(super::last).transpose()?.flatten();
    let record = node.found.record.as_ref();
    let state = stand::stand(record, last.as_ref());
    Ok(Status {
        state,
        next: stand::next(state, last.as_ref(), node.found.etcd_place()).to_owned(),
        static_pods: node.folders.pods().display().to_string(),
        fence: record.map(|record| Fence {
            folder: node.folders.fence().display().to_string(),
            begun: record.begun,
            attempt: record.attempt.clone(),
        }),
        manifests: node
            .found
            .manifests
            .iter()
            .map(|(manifest, place)| Manifest {
                part: manifest.part,
                file: manifest.file.display().to_string(),
                place: *place,
            })
            .collect(),
        processes: node.sought.processes()?,
        kubelet_runs: gone::kubelet_runs(),
        data: dir.as_ref().map(status::status).transpose()?,
    })
}

fn tell(ui: &Ui, node: &Node, status: &Status) -> Result<()> {
    let mut text = output::Description::default();
    text.field(0, "State", format!("{:?}", status.state));
    text.field(0, "Static pods", &status.static_pods);
    if let Some(fence) = &status.fence {
        text.field(0, "Fence", &fence.folder);
        text.field(1, "Since", output::time(Some(fence.begun)));
    }
    for manifest in &status.manifests {
        let pids: Vec<String> = status
            .processes
            .iter()
            .filter(|process| process.part == manifest.part)
            .map(|process| process.pid.to_string())
            .collect();
        let place = match manifest.place {
            Place::In => "in place",
            Place::Out => "moved out",
        };
        let runs = if pids.is_empty() {
            "does not run".to_owned()
        } else {
            format!("runs (process {})", pids.join(", "))
        };
        text.field(
            0,
            manifest.part.program(),
            format!("{}: {place}, {runs}", manifest.file),
        );
    }
    text.gap();
    match &status.data {
        Some(data) => status::describe(&mut text, data),
        None => text.field(
            0,
            "Data dir",
            format!("{} is absent", node.data_dir.display()),
        ),
    }
    text.gap();
    text.field(0, "Now", &status.next);
    ui.line(&text.render())?;
    if !status.kubelet_runs {
        ui.warn("no kubelet runs here: nobody starts or stops the control plane");
    }
    Ok(())
}
