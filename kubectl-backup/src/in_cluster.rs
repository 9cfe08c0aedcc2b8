//! `--in-cluster`: work that is handed to a controller in place of being done here. Looks whether it can be (gather, then a pure decision), makes the object
//! that asks for it, and follows it to its end. What becomes of the object is the controller's.
//!
//! `auto` hands over only what comes out the same: the user may make the object, the Lease of the controller is fresh, every option can be said by the
//! object, and the location that is meant from here is the very one of the controller's namespace. Else the work is done here, and why is told. With
//! `always` the controller's locations alone are meant, and what keeps it from doing the work is the error.

mod follow;

use std::time::Duration;

use backup_core::api::{AccessMode, BackupStorageLocation};
use backup_core::cluster::{Call, Cluster};
use backup_core::location::object;
use backup_core::{Error, Kind};
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::commands::schedule::objects;
use crate::context::Context;
use crate::controller::sealed;
use crate::flags::ControllerNamespace;
use crate::install::{LEASE, SILENT};
use backup_cli::error::{CommandError, Exit, Result};
use backup_cli::locations::{self, Choice, Source};
use backup_cli::output::{self, Format, OutputArgs};

pub(crate) use follow::{Ended, follow};

/// A Lease that looks stale by this machine's clock is watched for so long: a controller renews it every four seconds.
const RENEWAL: Duration = Duration::from_secs(10);

const OFTEN: Duration = Duration::from_millis(500);

/// An answer is not larger.
const LARGEST: usize = 4 << 20;

/// `--in-cluster`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// This program does the work
    Never,
    /// The controller where it can do the same, else this program; which one, and why, is told
    Auto,
    /// The controller, or nobody
    Always,
}

/// Who does the work.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "In the cluster")]
pub(crate) struct InClusterArgs {
    /// Let a controller do the work, with an object of Velero's kind, and follow it to its end. Ctrl-C ends the following alone (exit code 130): the controller goes on, until the object is deleted
    #[arg(long, value_enum, value_name = "WHEN", default_value = "never", conflicts_with_all = ["contexts", "workspace"])]
    in_cluster: When,
    #[command(flatten)]
    namespace: ControllerNamespace,
}

/// What is to be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A Backup.
    Backup,
    /// A Restore.
    Restore,
}

impl Work {
    /// As the API's paths have it.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Backup => "backups",
            Self::Restore => "restores",
        }
    }

    /// As messages have it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
    }
}

/// A controller that can do it.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Who holds its Lease.
    pub(crate) holder: String,
    /// The location that is meant; nothing where the object does not say one.
    pub(crate) location: Option<String>,
}

impl Controller {
    /// `the controller of namespace kubectl-backup (pod_1)`
    pub(crate) fn title(&self) -> String {
        format!(
            "the controller of namespace {} ({})",
            self.namespace, self.holder
        )
    }
}

impl InClusterArgs {
    /// Whether a controller is not even thought of.
    pub(crate) fn is_never(&self) -> bool {
        self.in_cluster == When::Never
    }

    /// Whether nobody but a controller is to do it.
    pub(crate) fn is_always(&self) -> bool {
        self.in_cluster == When::Always
    }

    /// The controller's namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    /// The controller that does the work; nothing where this program does it, and then why is told. `unfit` says what its object can not say.
    ///
    /// # Errors
    /// With `always`, what keeps the controller from it: usage for what no controller ever does.
    pub(crate) async fn controller(
        &self,
        context: &Context,
        work: Work,
        unfit: Option<String>,
    ) -> Result<Option<Controller>> {
        if self.is_never() {
            return Ok(None);
        }
        let (namespace, is_always) = (self.namespace(), self.is_always());
        let unfit = unfit.or_else(|| credentials(context).map(str::to_owned));
        let found = match unfit {
            Some(why) if is_always => {
                return Err(CommandError::usage(
                    Error::invalid(format!("--in-cluster=always: {why}"))
                        .hint("leave --in-cluster out, or the other flag"),
                ));
            }
            Some(why) => Err(Error::invalid(why)),
            None => look(context, namespace, work, is_always).await?,
        };
        match found {
            Ok(controller) => Ok(Some(controller)),
            Err(why) => self.decline(context, why).map(|()| None),
        }
    }

    /// The controller does not do it, and why.
    ///
    /// # Errors
    /// That reason, where nobody else is to do it.
    pub(crate) fn decline(&self, context: &Context, why: Error) -> Result<()> {
        let namespace = self.namespace();
        if self.is_always() {
            let title = format!("the controller of namespace {namespace} can not do it");
            return Err(why.context(title).into());
        }
        context.ui.note(&format!(
            "done from here, not by the controller of namespace {namespace}: {}",
            why.sentence()
        ));
        Ok(())
    }
}

/// What is given for the store from here stays here.
fn credentials(context: &Context) -> Option<&'static str> {
    let given = context.location_args();
    match (&given.credentials_file, &given.cacert) {
        (Some(_), _) => Some("--credentials-file is of this machine"),
        (None, Some(_)) => Some("--cacert is of this machine"),
        (None, None) => None,
    }
}

/// Looks whether it can be done there; the inner error says why not.
async fn look(
    context: &Context,
    namespace: &str,
    work: Work,
    is_always: bool,
) -> Result<Result<Controller, Error>> {
    let cluster = context.cluster().await?;
    let may = match may_create(cluster, namespace, work).await {
        Ok(may) => may,
        Err(e) => return Ok(Err(e.into_error())),
    };
    if !may {
        return Ok(Err(Error::new(
            Kind::Forbidden,
            format!(
                "this user may not create {} in namespace {namespace}",
                work.plural()
            ),
        )));
    }
    let holder = match works(cluster, namespace).await? {
        Ok(holder) => holder,
        Err(why) => return Ok(Err(why)),
    };
    let here = match is_always {
        true => None,
        false => Some(match context.choose(context.asked_location()).await {
            Ok(here) => here,
            Err(e) => return Ok(Err(e.into_error())),
        }),
    };
    let there = match object::list(cluster, Some(namespace)).await {
        Ok(there) => there,
        Err(e) if e.is_not_found() => Vec::new(),
        Err(e) => {
            return Ok(Err(Error::from(e).context(format!(
                "can not list BackupStorageLocations in namespace {namespace}"
            ))));
        }
    };
    let meant = Meant {
        asked: context.asked_location(),
        here: here.as_ref(),
        namespace,
        work,
    };
    Ok(meant.of(&there).map(|location| Controller {
        namespace: namespace.to_owned(),
        holder,
        location,
    }))
}

/// Whether this user may make the object.
async fn may_create(cluster: &Cluster, namespace: &str, work: Work) -> Result<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {
            "verb": "create", "group": "velero.io", "resource": work.plural(), "namespace": namespace,
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let call = Call::post(path, review.to_string().into());
    let answer = cluster.send(&call).await.map_err(Error::from)?;
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|e| Error::other("the answer about rights is no JSON").because(e))?;
    Ok(answer["status"]["allowed"] == true)
}

/// The Lease of a namespace; nothing where there is none.
async fn lease(cluster: &Cluster, namespace: &str) -> Result<Option<Value>, Error> {
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}");
    match cluster.get_bounded(&path, LARGEST).await {
        Ok(body) => Ok(serde_json::from_slice(&body).ok()),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(Error::from(e).context(format!(
            "can not look at the Lease {LEASE} in namespace {namespace}"
        ))),
    }
}

/// The holder of a Lease that is fresh by this clock; clocks that differ make it look stale.
fn holder(lease: &Value, now: Timestamp) -> Option<&str> {
    let renewed: Timestamp = lease["spec"]["renewTime"].as_str()?.parse().ok()?;
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    let is_fresh = now.duration_since(renewed).abs() < SILENT;
    (is_fresh && !holder.is_empty()).then_some(holder)
}

/// Who works in a namespace; the inner error says that nobody does.
async fn works(cluster: &Cluster, namespace: &str) -> Result<Result<String, Error>> {
    let silent = |why: String| {
        Error::new(Kind::Unreachable, why).hint(format!(
            "`kubectl backup status --controller-namespace {namespace}` tells more; `kubectl backup install` brings a controller"
        ))
    };
    let seen = match lease(cluster, namespace).await {
        Ok(Some(seen)) => seen,
        Ok(None) => {
            return Ok(Err(silent(format!(
                "no controller works in namespace {namespace}: there is no Lease {LEASE}"
            ))));
        }
        Err(e) => return Ok(Err(e)),
    };
    if let Some(holder) = holder(&seen, Timestamp::now()) {
        return Ok(Ok(holder.to_owned()));
    }
    let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
    let until = tokio::time::Instant::now() + RENEWAL;
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(OFTEN).await;
        let now = lease(cluster, namespace).await.ok().flatten();
        let Some(now) = now.filter(|now| version(now) != version(&seen)) else {
            continue;
        };
        match now["spec"]["holderIdentity"].as_str() {
            Some(holder) if !holder.is_empty() => return Ok(Ok(holder.to_owned())),
            _ => {}
        }
    }
    Ok(Err(silent(format!(
        "no controller works in namespace {namespace}: nobody renews the Lease {LEASE}"
    ))))
}

/// Which location is meant.
struct Meant<'a> {
    asked: Option<&'a str>,
    /// What is meant from here, where it has to be the same.
    here: Option<&'a Choice>,
    namespace: &'a str,
    work: Work,
}

impl Meant<'_> {
    /// Its name; nothing where a restore does not name one. Pure.
    fn of(&self, there: &[BackupStorageLocation]) -> Result<Option<String>, Error> {
        let namespace = self.namespace;
        let elsewhere = |what: String| Err(Error::invalid(what));
        match self.here {
            None => {}
            Some(Choice::Object(here)) if here.metadata.namespace.as_deref() == Some(namespace) => {
            }
            Some(Choice::Object(here)) => {
                return elsewhere(format!(
                    "location {:?} of namespace {} is meant",
                    here.metadata.name,
                    here.metadata.namespace.as_deref().unwrap_or_default()
                ));
            }
            Some(Choice::One(here)) => {
                return elsewhere(format!(
                    "location {:?} is known here, and not there",
                    here.metadata.name
                ));
            }
            Some(Choice::PerCluster) => {
                return elsewhere("a folder of this machine is meant".to_owned());
            }
        }
        let source = Source {
            title: format!("namespace {namespace}"),
            locations: there.to_vec(),
            in_cluster: true,
        };
        let found = match locations::choose(self.asked, std::slice::from_ref(&source)) {
            Ok(Choice::Object(location)) => *location,
            Ok(Choice::One(location)) => {
                return Err(Error::invalid(format!(
                    "{:?} is no BackupStorageLocation of namespace {namespace}",
                    location.metadata.name
                )));
            }
            // A restore finds its backup's.
            Ok(Choice::PerCluster) if self.work == Work::Restore => return Ok(None),
            Ok(Choice::PerCluster) => {
                return Err(Error::not_found(format!(
                    "namespace {namespace} has no default BackupStorageLocation"
                )));
            }
            Err(e) => return Err(e.into_error()),
        };
        let name = found.metadata.name.clone();
        if found.status["phase"] == "Unavailable" {
            let why = found.status["message"].as_str();
            return Err(Error::new(
                Kind::Unreachable,
                format!(
                    "location {name} is Unavailable there: {}",
                    why.unwrap_or("no reason is given")
                ),
            ));
        }
        if self.work == Work::Backup && found.spec.access_mode == Some(AccessMode::ReadOnly) {
            return Err(Error::new(
                Kind::Forbidden,
                format!("location {name} is read-only"),
            ));
        }
        if self.work == Work::Backup {
            sealed::may_be_made(&found)?;
        }
        // A restore that names no location finds its backup's, wherever that is.
        let is_said = self.work == Work::Backup || self.asked.is_some() || self.here.is_some();
        Ok(is_said.then_some(name))
    }
}

/// Makes the object.
///
/// # Errors
/// The API server's; a name that is taken.
pub(crate) async fn create(
    context: &Context,
    controller: &Controller,
    work: Work,
    object: &Value,
) -> Result<Value> {
    let namespace = &controller.namespace;
    objects::create(context, namespace, work.plural(), object)
        .await
        .map_err(|e| {
            let e = e.into_error();
            match e.kind() {
                Kind::AlreadyExists => Error::new(
                    Kind::AlreadyExists,
                    format!(
                        "{} {} stands in namespace {namespace} already",
                        work.title(),
                        object["metadata"]["name"].as_str().unwrap_or_default()
                    ),
                )
                .hint("choose another name"),
                _ => e,
            }
            .into()
        })
}

/// An object as it is sent: its status is the controller's to say.
pub(crate) fn object(wanted: &impl Serialize) -> Value {
    let mut object = json!(wanted);
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}

/// Prints an object; where nothing else is asked for, one that would be made whole, and of one that was made the name.
pub(crate) fn print(
    context: &Context,
    output: &OutputArgs,
    work: Work,
    object: &Value,
    is_planned: bool,
) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let title = work.title();
    match output.output {
        Format::Name => context.ui.line(&format!("{title}/{name}")),
        Format::Table | Format::Wide if !is_planned => {
            context.ui.line(&format!("{title}/{name} created"))
        }
        Format::Table | Format::Wide => output::print(&context.ui, Format::Yaml, object),
        format => output::print(&context.ui, format, object),
    }
}

/// Follows the object to its end and says what came of it.
///
/// # Errors
/// As [`follow`].
pub(crate) async fn finish(
    context: &Context,
    controller: &Controller,
    work: Work,
    made: &Value,
    output: &OutputArgs,
) -> Result<Exit> {
    let (object, exit) = match follow(context, &controller.namespace, work, made).await? {
        Ended::Done(object, exit) => (object, exit),
        Ended::Left => return Ok(Exit::Interrupted),
    };
    print(context, output, work, &object, false)?;
    let describe = match work {
        Work::Backup => "describe",
        Work::Restore => "restore describe",
    };
    context.ui.note(&format!(
        "look at it: {} {describe} {} --details{}",
        context.program,
        object["metadata"]["name"].as_str().unwrap_or_default(),
        context.flags_again_with(controller.location.as_deref())
    ));
    Ok(exit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(
        name: &str,
        change: impl FnOnce(&mut BackupStorageLocation),
    ) -> BackupStorageLocation {
        let mut location = BackupStorageLocation::default();
        location.metadata.name = name.to_owned();
        change(&mut location);
        location
    }

    fn found(
        asked: Option<&str>,
        here: Option<&Choice>,
        there: &[BackupStorageLocation],
        work: Work,
    ) -> Result<Option<String>, String> {
        let meant = Meant {
            asked,
            here,
            namespace: "ns",
            work,
        };
        meant.of(there).map_err(|e| e.sentence())
    }

    #[test]
    fn a_controller_does_it_only_where_its_own_location_is_the_one_that_is_meant() {
        let there = [
            location("default", |_| {}),
            location("second", |_| {}),
            location("reading", |one| {
                one.spec.access_mode = Some(AccessMode::ReadOnly);
            }),
            location("away", |one| {
                one.status = json!({"phase": "Unavailable", "message": "no such bucket"});
            }),
        ];
        let object = |namespace: &str| {
            Choice::Object(Box::new(location("second", |one| {
                one.metadata.namespace = Some(namespace.to_owned());
            })))
        };
        let of = |asked, here: Option<&Choice>| found(asked, here, &there, Work::Backup);
        assert_eq!(of(None, None), Ok(Some("default".to_owned())));
        let same = object("ns");
        assert_eq!(
            of(Some("second"), Some(&same)),
            Ok(Some("second".to_owned()))
        );
        let own = Choice::One(Box::new(location("mine", |_| {})));
        for (here, why) in [
            (&own, "known here, and not there"),
            (&object("velero"), "of namespace velero is meant"),
            (&Choice::PerCluster, "a folder of this machine"),
        ] {
            let refused = of(None, Some(here)).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        // Who says `always` means what is there, whatever has the name here.
        for (asked, why) in [
            (Some("s3://b/p"), "no BackupStorageLocation"),
            (Some("nowhere"), "not in namespace ns"),
            (Some("second/eu"), "no folders"),
            (Some("reading"), "read-only"),
            (Some("away"), "no such bucket"),
        ] {
            let refused = of(asked, None).unwrap_err();
            assert!(refused.contains(why), "{asked:?}: {refused}");
        }
        let refused = found(None, None, &[], Work::Backup).unwrap_err();
        assert!(refused.contains("no default"), "{refused}");
        // A restore finds its backup's location, and reads from one that takes no writes.
        assert_eq!(found(None, None, &[], Work::Restore), Ok(None));
        assert_eq!(
            found(Some("reading"), None, &there, Work::Restore),
            Ok(Some("reading".to_owned()))
        );
    }

    #[test]
    fn a_lease_counts_while_somebody_holds_it_and_renewed_it() {
        let lease = |holder: &str, renewed: &str| json!({"spec": {"holderIdentity": holder, "renewTime": renewed}});
        let now = "2026-11-21T02:00:30Z".parse().unwrap();
        let of =
            |holder_: &str, renewed: &str| holder(&lease(holder_, renewed), now).map(str::to_owned);
        assert_eq!(
            of("pod", "2026-11-21T02:00:00.000000Z").as_deref(),
            Some("pod")
        );
        assert_eq!(of("", "2026-11-21T02:00:00.000000Z"), None);
        assert_eq!(of("pod", "2026-11-21T01:59:00.000000Z"), None);
        // The clocks differ: whether it is renewed is seen, then.
        assert_eq!(of("pod", "2026-11-21T02:05:00.000000Z"), None);
        assert_eq!(holder(&Value::Null, now), None);
    }
}
