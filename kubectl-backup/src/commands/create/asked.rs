//! What a backup is asked beside its filters, in Velero's words: a schedule to follow, resource policies, ordered resources.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::api::Schedule;
use backup_core::backup::{self, BackupOptions, Policies};
use backup_core::catalog::{self, Keep, PruneOptions};
use backup_core::location::Location;
use backup_core::name::Name;
use backup_core::snapshot::heirs::Heirs;
use backup_core::{Error, Kind};
use clap::Args;

use super::CreateArgs;
use crate::commands::{csi, prune};
use crate::context::Context;
use crate::flags;
use crate::in_cluster::InClusterArgs;
use backup_cli::error::{CommandError, Exit, Result};

/// The annotation with the name of the file that held the resource policies; a ConfigMap's name stands in the spec.
const POLICIES_FILE: &str = "kubectl-backup/resource-policies-file";

/// A ConfigMap is not larger.
const LARGEST_FILE: u64 = 2 << 20;

/// Flags that a schedule's template stands for.
const FILTERS: [&str; 16] = [
    "namespace",
    "include_namespaces",
    "exclude_namespaces",
    "include_resources",
    "exclude_resources",
    "include_cluster_resources",
    "selector",
    "or_selector",
    "include_cluster_scoped_resources",
    "exclude_cluster_scoped_resources",
    "include_namespace_scoped_resources",
    "exclude_namespace_scoped_resources",
    "ordered_resources",
    "resource_policies_configmap",
    "resource_policies_file",
    "workspace",
];

/// A schedule to follow, resource policies, ordered resources.
#[derive(Clone, Debug, Args)]
pub(super) struct AskedArgs {
    /// Make the backup of this schedule of Velero's, of the namespace velero or --velero-namespace: its template says what is saved
    #[arg(long, value_name = "SCHEDULE", value_parser = Name::foreign, conflicts_with_all = FILTERS)]
    pub(super) from_schedule: Option<Name>,
    /// Then prune the schedule's backups so that the N newest good ones stay
    #[arg(long, value_name = "N", requires = "from_schedule", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// ConfigMap in the namespace velero or --velero-namespace with resource policies: which volumes need not be saved, and kinds to take or leave
    #[arg(long, value_name = "NAME", value_parser = Name::foreign, help_heading = "Which objects", conflicts_with = "resource_policies_file")]
    resource_policies_configmap: Option<Name>,
    /// File with resource policies, or with the ConfigMap that holds them
    #[arg(long, value_name = "FILE", help_heading = "Which objects")]
    resource_policies_file: Option<PathBuf>,
    /// Order of objects, as pods=NS/A,NS/B;persistentvolumeclaims=NS/C; it is recorded, and since all is read at one moment it changes nothing
    #[arg(
        long,
        value_name = "ORDER",
        help_heading = "Which objects",
        hide_short_help = true
    )]
    ordered_resources: Option<String>,
}

/// The options of a backup, and the location that a schedule names for it where the user names none.
///
/// # Errors
/// A schedule or policies that are not there, or can not be meant.
pub(super) async fn resolve(
    context: &Context,
    args: &CreateArgs,
) -> Result<(BackupOptions, Option<String>)> {
    let mut options = super::options(context, args)?;
    let schedule = match &args.asked.from_schedule {
        Some(name) => {
            let cluster = context.cluster().await?;
            Some(backup::schedule(cluster, context.velero(), name).await?)
        }
        None => None,
    };
    let asked = &args.asked;
    asked
        .apply(context, schedule.as_ref(), &mut options)
        .await?;
    args.volumes.put(&mut options.template.rest);
    let Some(schedule) = schedule else {
        return Ok((options, None));
    };
    if args.ttl.is_none() && args.expires.is_none() {
        options.expires = schedule.expires(context.now).or(options.expires);
    }
    let location = schedule.spec.template.storage_location;
    let location = location.filter(|name| !name.is_empty() && !context.is_location_asked());
    Ok((options, location))
}

impl AskedArgs {
    /// What a Backup object can not say of these, in words.
    pub(super) fn unfit(&self, context: &Context, place: &InClusterArgs) -> Option<String> {
        if self.from_schedule.is_some() {
            return Some(
                "`schedule trigger` asks the controller for a backup of a schedule, not --from-schedule"
                    .to_owned(),
            );
        }
        if self.resource_policies_file.is_some() {
            return Some("a Backup can not say --resource-policies-file".to_owned());
        }
        let (here, there) = (context.velero(), place.namespace());
        // Who says that it is the controller in any case means what that sees.
        let is_other = self.resource_policies_configmap.is_some() && !place.is_always();
        (is_other && here != there).then(|| {
            format!("--resource-policies-configmap is of namespace {here}, and that of namespace {there} would count")
        })
    }

    /// The ConfigMap with resource policies.
    pub(super) fn policies(&self) -> Option<&Name> {
        self.resource_policies_configmap.as_ref()
    }

    /// Which objects come first.
    ///
    /// # Errors
    /// Usage.
    pub(super) fn order(&self) -> Result<Option<BTreeMap<String, String>>> {
        let order = self.ordered_resources.as_deref();
        let order = order
            .map(|text| flags::of_flag("--ordered-resources", backup::ordered_resources(text)));
        order.transpose()
    }

    /// Puts what is asked into the options.
    ///
    /// # Errors
    /// What can not be read or meant.
    async fn apply(
        &self,
        context: &Context,
        schedule: Option<&Schedule>,
        options: &mut BackupOptions,
    ) -> Result<()> {
        let mut config_map = self.resource_policies_configmap.clone();
        if let Some(schedule) = schedule {
            options.follow(schedule)?;
            config_map = schedule.policies()?;
        }
        if let Some(order) = self.order()? {
            options
                .template
                .rest
                .insert("orderedResources".to_owned(), serde_json::json!(order));
        }
        if options
            .template
            .rest
            .get("orderedResources")
            .is_some_and(|order| !order.is_null())
        {
            context.ui.note(
                "ordered resources are recorded; all objects are read at one moment, so that their order changes nothing",
            );
        }
        if let Some(name) = config_map {
            let cluster = context.cluster().await?;
            let policies = Policies::read(cluster, context.velero(), &name).await?;
            options.policies = Some(Arc::new(policies));
        }
        if let Some(path) = &self.resource_policies_file {
            let read = read(path).and_then(|text| Policies::of_file(&text));
            let policies = flags::of_flag("--resource-policies-file", read)?;
            options.policies = Some(Arc::new(policies));
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            options
                .annotations
                .insert(POLICIES_FILE.to_owned(), name.unwrap_or_default());
        }
        options.validate().map_err(CommandError::usage)
    }

    /// Prunes the schedule's backups, where that is asked; results are no result of `create` and are told beside it.
    ///
    /// # Errors
    /// As `prune`.
    pub(super) async fn prune(&self, context: &Context, location: &Location) -> Result<Exit> {
        let (Some(schedule), Some(keep)) = (&self.from_schedule, self.keep) else {
            return Ok(Exit::Done);
        };
        context.guard(location, "prune", true).await?;
        let reached = csi::reached(context).await;
        let stop = context.cancel("what was not come to stays");
        let options = PruneOptions {
            now: context.now,
            host: &context.host(),
            dry_run: false,
            keep: Keep::Each(keep as usize),
            schedule: Some(schedule.as_str()),
            cluster: context.identity().await?,
            own_only: false,
            longer: None,
            stopped: Some(&stop),
            going: None,
            wanted: None,
            heirs: Some(Heirs {
                cluster: reached.as_ref().ok().copied(),
                stop: Some(&stop),
            }),
            leaves: None,
        };
        let done = catalog::prune(location, &options).await?;
        for one in &done {
            context.ui.say(&prune::sentence(one, "pruned"));
        }
        context.was_not_stopped()?;
        Ok(prune::exit_after(&done))
    }
}

fn read(path: &std::path::Path) -> Result<String, Error> {
    use std::io::Read as _;
    let failed = |e: std::io::Error| {
        Error::new(Kind::Invalid, format!("{} can not be read", path.display())).because(e)
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(LARGEST_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(text)
}
