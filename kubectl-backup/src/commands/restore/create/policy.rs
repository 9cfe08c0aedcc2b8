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

    /// What is done to objects that the backup does not say.
    pub(super) fn risk(&self) -> Option<&'static str> {
        (self.existing_resource_policy == Existing::Recreate)
            .then_some("objects that differ are deleted and created anew")
    }

    /// Asks before anything is changed, where there is something to ask. Of several clusters that was done before the work began; what one of them
    /// lacks is known only in its midst, and a question there would hold the others.
    ///
    /// # Errors
    /// Where the answer is no, and where there is nobody to ask and no --yes.
    pub(super) fn ask(&self, context: &Context, target: &str, lacks: &[Lack]) -> Result<()> {
        tell(context, lacks);
        let lacked = (!lacks.is_empty()).then(|| {
            let lacks = counted(lacks.len() as u64, "thing");
            format!("the target lacks {lacks}")
        });
        if let Some(member) = &context.member {
            return match lacked {
                Some(lacked) if !self.yes => Err(Error::invalid(format!(
                    "{lacked}: nothing is restored into {member}, for no question is asked while others are at work"
                ))
                .hint("see what it lacks with --dry-run=client; add --yes to go ahead, or restore into it by itself")
                .into()),
                _ => Ok(()),
            };
        }
        let mut questions = Vec::from_iter(lacked);
        questions.extend(self.risk().map(str::to_owned));
        if questions.is_empty() {
            return Ok(());
        }
        let question = format!("{}; restore into {target}?", questions.join("; "));
        context.ui.confirm(self.yes, &question)
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: crate::cli::GlobalArgs,
        #[command(flatten)]
        policy: PolicyArgs,
    }

    #[test]
    fn nobody_is_asked_about_one_of_several_while_the_others_are_at_work() {
        let lacks = [Lack {
            kind: "StorageClass".to_owned(),
            name: "fast".to_owned(),
            reason: "2 claims want it".to_owned(),
        }];
        let ask = |line: &[&str], lacks: &[Lack]| {
            let line = Line::parse_from([&["x", "--quiet"], line].concat());
            let context = Context::new(line.global, "x".to_owned());
            let member = context.of_member("eu", "prod-eu", None);
            line.policy.ask(&member, "context \"prod-eu\"", lacks)
        };
        let refused = ask(&[], &lacks).unwrap_err();
        assert!(refused.error().to_string().contains("1 thing"));
        assert!(refused.error().hint_text().unwrap().contains("--yes"));
        assert!(ask(&["--yes"], &lacks).is_ok());
        // What is asked about all of them was asked before the work began.
        let recreate = ["--existing-resource-policy=recreate"];
        assert!(ask(&recreate, &[]).is_ok());
        assert!(ask(&recreate, &lacks).is_err());
        let risk = |line: &[&str]| Line::parse_from([&["x"], line].concat()).policy.risk();
        assert!(risk(&recreate).is_some() && risk(&[]).is_none());
    }
}
