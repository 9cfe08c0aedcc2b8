//! Objects of Velero's kinds in a namespace: list, get, create, change, delete. Knows paths and verbs, and of Schedules what every command asks.

use backup_core::Error;
use backup_core::api::Schedule;
use backup_core::cluster::{ApiError, Call};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::context::Context;
use crate::flags;
use crate::install::NAMESPACE;
use backup_cli::error::Result;

/// Objects a page of a list holds.
const PAGE: usize = 500;

/// No answer about these kinds is larger.
const LARGEST: usize = 128 << 20;

/// A Schedule, and as the server sent it, with fields of newer programs.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) it: Schedule,
    pub(super) raw: Value,
}

impl Known {
    fn read(raw: Value) -> Result<Self> {
        let it = serde_json::from_value(raw.clone()).map_err(|e| {
            let name = raw["metadata"]["name"].as_str().unwrap_or_default();
            Error::corrupt(format!("schedule {name:?} can not be read")).because(e)
        })?;
        Ok(Self { it, raw })
    }

    pub(super) fn name(&self) -> &str {
        &self.it.metadata.name
    }

    /// `schedule/name`
    pub(super) fn title(&self) -> String {
        format!("schedule/{}", self.name())
    }

    pub(super) fn is_paused(&self) -> bool {
        self.it.spec.paused == Some(true)
    }

    /// When, and which of the slots count.
    pub(super) fn when(&self) -> String {
        let schedule = &self.it.spec.schedule;
        match self.it.every() {
            Ok(1) => schedule.clone(),
            Ok(every) => format!("{schedule} (one of {every})"),
            Err(_) => format!("{schedule} (?)"),
        }
    }

    /// How many backups stay.
    pub(super) fn keep(&self) -> String {
        match self.it.keep() {
            Ok(keep) => keep.map_or_else(String::new, |keep| keep.to_string()),
            Err(_) => "?".to_owned(),
        }
    }

    /// The next slot, as far as the object tells; nothing where none is taken.
    pub(super) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        if self.is_paused() || self.it.status.phase == "FailedValidation" {
            return None;
        }
        let (times, every) = (self.it.times().ok()?, self.it.every().ok()?);
        times.next_of(every, &self.it.past([], now), now)
    }
}

fn path(namespace: &str, plural: &str, name: &str) -> String {
    let mut path = format!("/apis/velero.io/v1/namespaces/{namespace}/{plural}");
    if !name.is_empty() {
        path.push_str(&format!("/{name}"));
    }
    path
}

/// A server that does not serve the kind says so in other words than one that has no such object.
fn refused(e: ApiError) -> Error {
    let unserved =
        e.reason.is_empty() || e.message.contains("could not find the requested resource");
    if e.is_not_found() && unserved {
        return Error::not_found("this cluster does not have Velero's kinds").hint(
            "`kubectl backup controller` brings them when it is started, and makes the backups",
        );
    }
    Error::from(e)
}

fn decode(body: &[u8]) -> Result<Value> {
    Ok(serde_json::from_slice(body)
        .map_err(|e| Error::other("the API server's answer is no JSON").because(e))?)
}

/// All objects of a kind, by name; those with this label alone, where one is given.
pub(super) async fn list(
    context: &Context,
    namespace: &str,
    plural: &str,
    label: Option<(&str, &str)>,
) -> Result<Vec<Value>> {
    let cluster = context.cluster().await?;
    let path = path(namespace, plural, "");
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        // Names and tokens are of letters that a URL takes.
        let chosen = label.map_or_else(String::new, |(key, value)| {
            format!("&labelSelector={key}%3D{value}")
        });
        let asked = format!("{path}?limit={PAGE}{chosen}{token}");
        let body = cluster
            .get_bounded(&asked, LARGEST)
            .await
            .map_err(refused)?;
        let mut page = decode(&body)?;
        if let Value::Array(items) = page["items"].take() {
            found.extend(items);
        }
        match page["metadata"]["continue"].as_str() {
            None | Some("") => return Ok(found),
            Some(next) => token = format!("&continue={next}"),
        }
    }
}

/// All schedules.
pub(super) async fn schedules(context: &Context, namespace: &str) -> Result<Vec<Known>> {
    let all = list(context, namespace, "schedules", None).await?;
    all.into_iter().map(Known::read).collect()
}

/// Names of schedules, for completion.
///
/// # Errors
/// Whatever keeps them from being read.
pub(crate) async fn names(context: &Context) -> Result<Vec<String>> {
    let all = schedules(context, NAMESPACE).await?;
    Ok(all.iter().map(|one| one.name().to_owned()).collect())
}

/// One schedule.
pub(super) async fn one(context: &Context, namespace: &str, name: &str) -> Result<Known> {
    let name = flags::known_name(name)?;
    match get(context, namespace, "schedules", name.as_str()).await? {
        Some(raw) => Known::read(raw),
        None => {
            let all = schedules(context, namespace).await.unwrap_or_default();
            let names: Vec<_> = all.iter().map(Known::name).collect();
            Err(
                Error::not_found(format!("schedule {name} is not in namespace {namespace}"))
                    .hint(if names.is_empty() {
                        "there is none; --controller-namespace names another namespace".to_owned()
                    } else {
                        format!("there are: {}", names.join(", "))
                    })
                    .into(),
            )
        }
    }
}

/// Several schedules, each once: nothing is done before every name was found.
pub(super) async fn several(
    context: &Context,
    namespace: &str,
    names: &[String],
) -> Result<Vec<Known>> {
    let mut found: Vec<Known> = Vec::new();
    for name in names {
        if found.iter().all(|other| other.name() != name) {
            found.push(one(context, namespace, name).await?);
        }
    }
    Ok(found)
}

/// An object; nothing where there is none of the name.
pub(crate) async fn get(
    context: &Context,
    namespace: &str,
    plural: &str,
    name: &str,
) -> Result<Option<Value>> {
    let cluster = context.cluster().await?;
    let path = path(namespace, plural, name);
    match cluster.get_bounded(&path, LARGEST).await {
        Ok(body) => Ok(Some(decode(&body)?)),
        Err(e) if e.is_not_found() && !e.reason.is_empty() => Ok(None),
        Err(e) => Err(refused(e).into()),
    }
}

/// Makes an object; a field that the kind does not have is an error.
pub(crate) async fn create(
    context: &Context,
    namespace: &str,
    plural: &str,
    object: &Value,
) -> Result<Value> {
    let cluster = context.cluster().await?;
    let path = format!(
        "{}?fieldValidation=Strict&fieldManager=kubectl-backup",
        path(namespace, plural, "")
    );
    let call = Call::post(&path, object.to_string().into());
    decode(&cluster.send(&call).await.map_err(refused)?)
}

/// Changes these fields of the schedule that was looked at, and of no other one of its name.
pub(super) async fn change(
    context: &Context,
    namespace: &str,
    known: &Known,
    mut patch: Value,
) -> Result<()> {
    let cluster = context.cluster().await?;
    let path = format!(
        "{}?fieldManager=kubectl-backup",
        path(namespace, "schedules", known.name())
    );
    patch["metadata"]["uid"] = known.raw["metadata"]["uid"].clone();
    let call = Call::merge_patch(&path, patch.to_string().into());
    cluster.send(&call).await.map_err(refused)?;
    Ok(())
}

/// Deletes the schedule that was looked at, and no other one of its name.
pub(super) async fn delete(context: &Context, namespace: &str, known: &Known) -> Result<()> {
    let cluster = context.cluster().await?;
    let path = path(namespace, "schedules", known.name());
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
        "preconditions": {"uid": known.raw["metadata"]["uid"]},
    });
    let call = Call::delete(&path, options.to_string().into());
    cluster.send(&call).await.map_err(refused)?;
    Ok(())
}
