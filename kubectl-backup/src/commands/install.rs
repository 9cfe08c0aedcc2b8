//! `install`: brings the controller into a cluster. Everything is looked at before anything is changed; what is there and not ours is not written over.

use std::time::{Duration, Instant};

use backup_core::api::crds;
use backup_core::cluster::{Call, Cluster};
use backup_core::definitions;
use backup_core::location::kkp;
use backup_core::schedule;
use backup_core::{Error, Kind};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::context::{Context, variable};
use crate::copies::CopyArgs;
use crate::flags::{ControllerFlags, ControllerNamespace, DryRun};
use crate::install::place::{self, Place};
use crate::install::{self, CONTROLLER, NAME, Piece, Wanted, is_ours};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations::Choice;
use backup_cli::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  kubectl backup install --image registry.example.com/kubectl-backup:0.1.0 --location offsite --wait
  kubectl backup install --location 's3://backups/prod?region=eu-central-1' --credentials-file ./credentials --schedule '0 1 * * *'
  kubectl backup install --no-restores --dry-run -o yaml";

/// What our writes are known by.
const MANAGER: &str = "kubectl-backup";

/// The schedule that is made along with it.
const SCHEDULE: &str = "cluster";

const OFTEN: Duration = Duration::from_millis(500);

/// No object of ours is larger.
const LARGEST: usize = 4 << 20;

/// Bring the controller into the cluster: backups are made there, on schedules and when Velero's objects ask for them
///
/// Applies Velero's kinds where they are absent, a namespace, an account with rights, a Deployment and roles for users. What is there already and is not of
/// an installation is not changed. The location that --location names goes along, its keys as a Secret; in the cluster, it is the default. The account may read
/// everything, for a backup is everything; with --no-restores it may write nothing outside of its namespace but the pods through which volumes are read. The same as files: manifests/controller.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    namespace: ControllerNamespace,
    /// Image of the controller, as the cluster's nodes pull it
    #[arg(long, value_name = "IMAGE", default_value_t = image())]
    image: String,
    /// Without the rights to write what restores bring back: Restores are refused
    #[arg(long)]
    no_restores: bool,
    /// Make a schedule `cluster` of the whole cluster: cron, such as '0 1 * * *', or @daily, '@every 6h'
    #[arg(long, value_name = "CRON")]
    schedule: Option<String>,
    /// Wait until the controller works and the location was found good
    #[arg(long)]
    wait: bool,
    /// No longer than this
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Change nothing
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    dry_run: DryRun,
    /// Print names, or with --dry-run the objects; these need no cluster, and no Secret is among them
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Output>,
    #[command(flatten)]
    how: ControllerFlags,
    #[command(flatten)]
    copies: CopyArgs,
}

/// `--output`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Json,
    Yaml,
    Name,
}

/// The image of this version: what the Dockerfile makes is called so by its user.
pub(crate) fn image() -> String {
    format!("{NAME}:{}", env!("CARGO_PKG_VERSION"))
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: InstallArgs) -> Result<Exit> {
    let format = match args.output {
        Some(Output::Json) => Some(Format::Json),
        Some(Output::Yaml) => Some(Format::Yaml),
        Some(Output::Name) | None => None,
    };
    let is_dry = args.dry_run == DryRun::Client;
    if format.is_some() && !is_dry {
        return Err(refused(
            "-o yaml and -o json show what would be applied",
            "give --dry-run with it",
        ));
    }
    if args.image.trim().is_empty() || args.image.contains(char::is_whitespace) {
        return Err(refused(
            &format!("--image {:?} is no image", args.image),
            "an image is named like registry.example.com/kubectl-backup:0.1.0",
        ));
    }
    let wanted = Wanted {
        namespace: args.namespace.as_str().to_owned(),
        image: args.image.clone(),
        restores: !args.no_restores,
        flags: [args.how.words(), args.copies.words(&args.image)].concat(),
    };
    let place = chosen(context, &wanted.namespace).await?;
    let mut pieces = install::controller(&wanted);
    pieces.extend(install::rights(&wanted));
    pieces.extend(install::users());
    pieces.extend(place.iter().flat_map(|place| place.pieces.clone()));
    if let Some(text) = &args.schedule {
        pieces.push(scheduled(text, &wanted.namespace)?);
    }
    if let Some(format) = format {
        return show(context, format, &pieces, place.as_ref());
    }
    let cluster = context.cluster().await?;
    apply(context, cluster, &pieces, &args).await?;
    if place.is_none() {
        context.ui.note(&format!(
            "no location was given: until the namespace {} has a BackupStorageLocation, no backup can be made",
            wanted.namespace
        ));
    }
    if args.wait && !is_dry {
        wait(cluster, &pieces, args.timeout).await?;
    }
    if !is_dry {
        context
            .ui
            .note(&format!("how it does: {} status", context.program));
    }
    Ok(Exit::Done)
}

/// The location that was named, ready for the cluster. None is taken that was not named: its keys would go where others can read them.
async fn chosen(context: &Context, namespace: &str) -> Result<Option<Place>> {
    let Some(asked) = context.asked_location() else {
        return Ok(None);
    };
    let location = match context.choose(Some(asked)).await? {
        Choice::One(location) => *location,
        Choice::Object(location) if location.kind == kkp::KIND => {
            Context::refuse_to_write_to_kkp(&location)?;
            let keys = context.kkp_credentials(&location).await?;
            let none = |_: &str| None;
            let flags = context.location_args();
            return place::of(*location, flags, keys.file, &none, namespace).map(Some);
        }
        Choice::Object(_) | Choice::PerCluster => {
            return Err(refused(
                &format!("location {asked:?} is an object of the cluster already"),
                "name one of your own, or a URL; Velero's locations are copied with kubectl",
            ));
        }
    };
    // Settings that nobody could open go nowhere.
    context.open(&location)?;
    place::of(
        location,
        context.location_args(),
        None,
        &variable,
        namespace,
    )
    .map(Some)
}

fn scheduled(text: &str, namespace: &str) -> Result<Piece> {
    schedule::Schedule::parse(text, None).map_err(CommandError::usage)?;
    Ok(Piece::new(
        format!("/apis/velero.io/v1/namespaces/{namespace}/schedules"),
        json!({
            "apiVersion": "velero.io/v1", "kind": "Schedule",
            "metadata": {"name": SCHEDULE, "namespace": namespace, "labels": install::labels(CONTROLLER)},
            "spec": {"schedule": text, "template": {}},
        }),
    ))
}

fn refused(why: &str, hint: &str) -> CommandError {
    CommandError::usage(Error::invalid(why).hint(hint))
}

/// Prints what would be applied, but for Secrets.
fn show(
    context: &Context,
    format: Format,
    pieces: &[Piece],
    place: Option<&Place>,
) -> Result<Exit> {
    let mut objects = Vec::new();
    for crd in crds::velero()? {
        let crd = serde_json::to_value(&crd)
            .map_err(|e| Error::other("the definition can not be written").because(e))?;
        objects.push(crd);
    }
    let shown = pieces.iter().filter(|piece| !piece.is_secret());
    objects.extend(shown.map(|piece| piece.object.clone()));
    let by_hand = place.and_then(|place| place.by_hand.as_ref());
    if format == Format::Json {
        output::print(&context.ui, format, &output::objects(objects, false))?;
    } else {
        let mut text = String::new();
        for object in &objects {
            text += &format!("---\n{}", output::yaml(object)?);
        }
        if let Some(by_hand) = by_hand {
            text += &format!("# The location's Secret is not shown. It is made so:\n# {by_hand}\n");
        }
        context.ui.data(text.as_bytes())?;
    }
    if let Some(by_hand) = by_hand {
        context.ui.note(&format!(
            "the location's Secret is not shown; make it so: {by_hand}"
        ));
    }
    Ok(Exit::Done)
}

async fn apply(
    context: &Context,
    cluster: &Cluster,
    pieces: &[Piece],
    args: &InstallArgs,
) -> Result<()> {
    let is_dry = args.dry_run == DryRun::Client;
    let tell = |title: &str, done: &str| {
        let dry = if is_dry { " (dry run)" } else { "" };
        if args.output == Some(Output::Name) {
            return context.ui.line(title);
        }
        context.ui.line(&format!("{title} {done}{dry}"))
    };
    refuse_beside_velero(cluster, args.namespace.as_str()).await?;
    let crds = crds::velero()?;
    let mut absent = Vec::new();
    for crd in &crds {
        if definitions::look(cluster, crd).await?.whose.is_none() {
            absent.push(crd);
        }
    }
    let mut seen = Vec::new();
    for piece in pieces {
        seen.push(look(cluster, piece).await?);
    }
    for (piece, there) in pieces.iter().zip(&seen) {
        if there
            .as_ref()
            .is_some_and(|there| !is_ours(there) && !piece.is_namespace())
        {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!(
                    "{} is there already and is not of an installation; nothing was changed",
                    piece.title()
                ),
            )
            .hint("remove it, or choose other names: --controller-namespace, --location")
            .into());
        }
    }
    for crd in &crds {
        let name = crd.metadata.name.as_deref().unwrap_or_default();
        let is_absent = absent
            .iter()
            .any(|one| one.metadata.name == crd.metadata.name);
        let made = is_absent && (is_dry || definitions::create(cluster, crd, MANAGER).await?);
        tell(
            &format!("customresourcedefinition/{name}"),
            if made { "created" } else { "unchanged" },
        )?;
    }
    if !is_dry {
        for crd in &absent {
            let name = crd.metadata.name.as_deref().unwrap_or_default();
            definitions::wait(cluster, name).await?;
        }
    }
    for (piece, there) in pieces.iter().zip(&seen) {
        let done = match there {
            Some(there) if !is_ours(there) => "unchanged",
            None if is_dry => "created",
            Some(_) if is_dry => "configured",
            there => apply_one(cluster, piece, there.as_ref()).await?,
        };
        tell(&piece.title(), done)?;
    }
    Ok(())
}

/// Two servers that follow the same objects make everything twice.
async fn refuse_beside_velero(cluster: &Cluster, namespace: &str) -> Result<()> {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/velero");
    let velero = match cluster.get_bounded(&path, LARGEST).await {
        Ok(body) => serde_json::from_slice::<Value>(&body).unwrap_or_default(),
        Err(e) if e.is_not_found() => return Ok(()),
        Err(e) => return Err(Error::from(e).context("can not look for a Velero").into()),
    };
    if velero["spec"]["replicas"] == 0 {
        return Ok(());
    }
    Err(Error::new(
        Kind::AlreadyExists,
        format!("a Velero works in namespace {namespace}; nothing was changed"),
    )
    .hint("choose another namespace with --controller-namespace, or scale it to 0 first: kubectl scale deployment/velero --replicas=0")
    .into())
}

/// What is there of an object; nothing where it, or its kind, is absent.
pub(super) async fn look(cluster: &Cluster, piece: &Piece) -> Result<Option<Value>> {
    match cluster.get_bounded(&piece.path(), LARGEST).await {
        Ok(body) => Ok(Some(serde_json::from_slice(&body).map_err(|e| {
            Error::other(format!("{} can not be read", piece.title())).because(e)
        })?)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(Error::from(e)
            .context(format!("can not look at {}", piece.title()))
            .into()),
    }
}

/// Server-side apply; tells what was done, in kubectl's words.
async fn apply_one(
    cluster: &Cluster,
    piece: &Piece,
    there: Option<&Value>,
) -> Result<&'static str> {
    // What was absent a moment ago and is somebody's now makes a conflict.
    let force = if there.is_some() { "&force=true" } else { "" };
    let path = format!("{}?fieldManager={MANAGER}{force}", piece.path());
    let call = Call::apply(&path, piece.object.to_string().into());
    let answer = cluster.send(&call).await.map_err(|e| {
        let is_forbidden = e.is_forbidden();
        let error = Error::from(e).context(format!("can not apply {}", piece.title()));
        if is_forbidden {
            return error.hint(
                "who installs gives rights away, and needs them himself: cluster-admin, as a rule",
            );
        }
        error
    })?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|e| Error::other(format!("{} can not be read", piece.title())).because(e))?;
    Ok(match there {
        None => "created",
        Some(there) if wanted_part(there) == wanted_part(&answer) => "unchanged",
        Some(_) => "configured",
    })
}

/// An object without what others write of it all the time.
fn wanted_part(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(all) = object.as_object_mut() {
        all.remove("status");
    }
    if let Some(meta) = object["metadata"].as_object_mut() {
        for key in ["managedFields", "resourceVersion", "generation"] {
            meta.remove(key);
        }
        if let Some(annotations) = meta.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("deployment.kubernetes.io/revision");
        }
    }
    object
}

/// Until the controller is there, and has found its location good.
async fn wait(cluster: &Cluster, pieces: &[Piece], timeout: Duration) -> Result<()> {
    let started = Instant::now();
    for piece in pieces {
        let lacks: fn(&Value) -> Option<String> = match piece.object["kind"].as_str() {
            Some("Deployment") => is_not_available,
            Some("BackupStorageLocation") => is_not_good,
            _ => continue,
        };
        loop {
            let there = look(cluster, piece).await?.unwrap_or_default();
            let Some(why) = lacks(&there) else {
                break;
            };
            if started.elapsed() >= timeout {
                return Err(Error::other(format!(
                    "{} is not ready after {}: {why}",
                    piece.title(),
                    output::duration(timeout)
                ))
                .hint("see `kubectl backup status`, and the events of its namespace")
                .into());
            }
            tokio::time::sleep(OFTEN).await;
        }
    }
    Ok(())
}

/// Why the newest form of a Deployment does not serve yet.
pub(super) fn is_not_available(deployment: &Value) -> Option<String> {
    let number = |pointer: &str| {
        deployment
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let is_seen = number("/status/observedGeneration") >= number("/metadata/generation");
    let (updated, available) = (
        number("/status/updatedReplicas"),
        number("/status/availableReplicas"),
    );
    let is_there = is_seen && wanted > 0 && updated >= wanted && available >= wanted;
    (!is_there).then(|| format!("{available} of {wanted} pods are available"))
}

/// Why a location is not good, or not yet.
fn is_not_good(location: &Value) -> Option<String> {
    let status = &location["status"];
    match status["phase"].as_str() {
        Some("Available") => None,
        None => Some("it was not checked yet".to_owned()),
        Some(phase) => Some(match status["message"].as_str() {
            Some(message) => format!("{phase}: {message}"),
            None => phase.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_all_the_time_makes_nothing_configured() {
        let there = json!({
            "metadata": {"name": "x", "resourceVersion": "1", "generation": 1, "annotations": {"deployment.kubernetes.io/revision": "1"}},
            "spec": {"replicas": 1}, "status": {"replicas": 1},
        });
        let mut now = there.clone();
        now["metadata"]["resourceVersion"] = "2".into();
        now["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "2".into();
        now["status"] = json!({});
        assert_eq!(wanted_part(&there), wanted_part(&now));
        now["spec"]["replicas"] = 2.into();
        assert_ne!(wanted_part(&there), wanted_part(&now));
    }

    #[test]
    fn a_deployment_counts_when_its_newest_form_is_available() {
        let deployment = |generation: u64, updated: u64, available: u64| {
            json!({
                "metadata": {"generation": generation}, "spec": {"replicas": 1},
                "status": {"observedGeneration": 2, "updatedReplicas": updated, "availableReplicas": available},
            })
        };
        assert_eq!(is_not_available(&deployment(2, 1, 1)), None);
        for lacking in [
            deployment(3, 1, 1),
            deployment(2, 0, 1),
            deployment(2, 1, 0),
            json!({}),
        ] {
            assert!(is_not_available(&lacking).is_some(), "{lacking}");
        }
    }

    #[test]
    fn a_schedule_that_can_not_be_followed_is_refused() {
        for text in ["", "soon", "61 * * * *"] {
            let refused = scheduled(text, "ns").unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage, "{text}");
        }
        assert!(scheduled("@every 1h", "ns").is_ok());
    }
}
