//! What `restore create` does with objects that exist, and what it asks before it begins.

use backup_core::Error;
use backup_core::restore::{ExistingPolicy, Lack};
use clap::{Args, ValueEnum};

use crate::context::Context;
use backup_cli::error::{CommandError, Result};
use backup_cli::output::counted;

/// Lacks that are listed.
const MOST: usize = 100;

/// `--existing-resource-policy`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Existing {
    /// Leave it alone.
    None,
    /// Make it as it was in the backup; fields added since are removed.
    Update,
    /// As update, but what the server does not let change is deleted and created anew. That is done with configmaps, secrets, pods,
    /// workloads and classes; what would take more along (namespaces, definitions, claims, volumes, services, roles, custom
    /// objects, pods with volumes of their own), has finalizers or a controller, or is a job that runs, is only updated. What it
    /// owns stays. What is deleted is kept beside the record of the restore.
    Recreate,
    /// Apply the fields of the backup (server-side apply); fields that others added stay.
    Apply,
}

/// What to do with objects that exist, and whether to ask.
#[derive(Clone, Debug, Args)]
pub(super) struct PolicyArgs {
    /// What to do with objects that exist
    #[arg(long, value_enum, value_name = "POLICY", default_value = "none")]
    existing_resource_policy: Existing,
    /// With --existing-resource-policy=apply: take over fields that another manager owns with another value
    #[arg(long)]
    force_conflicts: bool,
    /// Do not ask where the target lacks something, objects are deleted to be created anew, or several clusters are restored into
    #[arg(short, long, visible_alias = "confirm")]
    pub(super) yes: bool,
    /// Somebody knows what is lacking and agreed already.
    #[arg(skip)]
    pub(super) agreed: bool,
}

impl PolicyArgs {
    /// As the library takes it.
    ///
    /// # Errors
    /// Flags that do not go together.
    pub(super) fn existing(&self) -> Result<ExistingPolicy> {
        let force = self.force_conflicts;
        Ok(match self.existing_resource_policy {
            Existing::Apply => ExistingPolicy::Apply { force },
            _ if force => {
                return Err(CommandError::usage(
                    Error::invalid("--force-conflicts is about conflicts of server-side apply")
                        .hint("add --existing-resource-policy=apply, or leave it out"),
                ));
            }
            Existing::None => ExistingPolicy::None,
            Existing::Update => ExistingPolicy::Update,
            Existing::Recreate => ExistingPolicy::Recreate,
        })
    }

    /// Asks before anything is changed, where there is something to ask.
    ///
    /// # Errors
    /// Where the answer is no, and where there is nobody to ask and no --yes.
    pub(super) fn ask(&self, context: &Context, target: &str, lacks: &[Lack]) -> Result<()> {
        if self.agreed {
            return Ok(());
        }
        tell(context, lacks);
        let questions = self.questions("the target lacks", lacks.len());
        if questions.is_empty() {
            return Ok(());
        }
        let question = format!("{}; restore into {target}?", questions.join("; "));
        context.ui.confirm(self.yes, &question)
    }

    /// What somebody should know who agrees.
    pub(super) fn questions(&self, lacks: &str, count: usize) -> Vec<String> {
        let lacked = (count > 0).then(|| format!("{lacks} {}", counted(count as u64, "thing")));
        let mut questions = Vec::from_iter(lacked);
        if self.existing_resource_policy == Existing::Recreate {
            questions.push("objects that differ are deleted and created anew".to_owned());
        }
        questions
    }
}

/// Says what the target lacks.
pub(super) fn tell(context: &Context, lacks: &[Lack]) {
    for lack in lacks.iter().take(MOST) {
        context.ui.say(&format!("the target lacks {lack}"));
    }
    if lacks.len() > MOST {
        context
            .ui
            .say(&format!("the target lacks {} more", lacks.len() - MOST));
    }
}
