//! Definitions of kinds in a cluster: whose they are, and bringing one. What may be brought over what is the caller's to decide; nothing is ever
//! removed here.

use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use tokio::time::Instant;

use crate::api::hosted::{Ownership, ownership};
use crate::cluster::{ApiError, Call, Cluster};
use crate::error::{Error, Kind, Result};

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The server's answer to a kind it can not serve yet comes within a second or so.
const SERVED_WITHIN: Duration = Duration::from_secs(30);

/// What the cluster has under a definition's name.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The definition's name.
    pub name: String,
    /// Nothing, where it is absent.
    pub whose: Option<Ownership>,
    /// The version that was seen.
    pub version: String,
}

/// Looks at what is there.
///
/// # Errors
/// The API server's.
pub async fn look(cluster: &Cluster, crd: &CustomResourceDefinition) -> Result<Seen> {
    let name = crd.metadata.name.clone().unwrap_or_default();
    let found = match cluster.get(&format!("{PATH}/{name}")).await {
        Ok(body) => read(&name, &body)?,
        Err(e) if e.is_not_found() => {
            return Ok(Seen {
                name,
                whose: None,
                version: String::new(),
            });
        }
        Err(e) => return Err(doing(e, "look at", &name)),
    };
    Ok(Seen {
        whose: Some(ownership(&found)),
        version: found.metadata.resource_version.unwrap_or_default(),
        name,
    })
}

fn doing(e: ApiError, what: &str, name: &str) -> Error {
    Error::from(e).context(format!("can not {what} the definition {name}"))
}

fn read(name: &str, body: &[u8]) -> Result<CustomResourceDefinition, Error> {
    serde_json::from_slice(body)
        .map_err(|e| Error::other(format!("the definition {name} can not be read")).because(e))
}

/// Brings a definition that is absent; tells whether it was.
///
/// # Errors
/// The API server's.
pub async fn create(
    cluster: &Cluster,
    crd: &CustomResourceDefinition,
    manager: &str,
) -> Result<bool> {
    let name = crd.metadata.name.clone().unwrap_or_default();
    let path = format!("{PATH}?fieldManager={manager}");
    match cluster.send(&Call::post(&path, json(crd, &name)?)).await {
        Ok(_) => Ok(true),
        Err(e) if e.is_already_exists() => Ok(false),
        Err(e) => Err(doing(e, "create", &name)),
    }
}

fn json(crd: &CustomResourceDefinition, name: &str) -> Result<Bytes> {
    serde_json::to_vec(crd)
        .map(Bytes::from)
        .map_err(|e| Error::other(format!("the definition {name} can not be written")).because(e))
}

/// Server-side apply, known by this manager. What was looked at may not have changed since, and what was absent may not have come: then nothing is
/// written. Tells what was done, in kubectl's words.
///
/// # Errors
/// `AlreadyExists`, where it was changed meanwhile; the API server's.
pub async fn apply(
    cluster: &Cluster,
    crd: &CustomResourceDefinition,
    seen: &Seen,
    manager: &str,
) -> Result<&'static str> {
    let name = &seen.name;
    let mut crd = crd.clone();
    let mut path = format!("{PATH}/{name}?fieldManager={manager}");
    if seen.whose.is_some() {
        crd.metadata.resource_version = Some(seen.version.clone());
        path.push_str("&force=true");
    }
    // With the version that was seen, a second one changes nothing.
    let call = Call::apply(&path, json(&crd, name)?);
    let answer = match cluster.send(&call).await {
        Ok(answer) => answer,
        Err(e) if e.is_conflict() => {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("the definition {name} was changed by somebody else right now"),
            )
            .because(Error::from(e))
            .hint("give the same command again"));
        }
        Err(e) => return Err(doing(e, "apply", name)),
    };
    let written = read(name, &answer)?.metadata.resource_version;
    Ok(match seen.whose {
        None => "created",
        Some(_) if written.as_ref() == Some(&seen.version) => "unchanged",
        Some(_) => "configured",
    })
}

/// Until the server serves the kind.
///
/// # Errors
/// Where it does not within half a minute.
pub async fn wait(cluster: &Cluster, name: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let found = cluster.get(&format!("{PATH}/{name}")).await;
        let found = read(name, &found.map_err(|e| doing(e, "look at", name))?)?;
        let conditions = found.status.and_then(|status| status.conditions);
        let holds = |kind: &str, status: &str| {
            let all = conditions.iter().flatten();
            all.into_iter()
                .find(|c| c.type_ == kind && c.status == status)
        };
        if holds("Established", "True").is_some() {
            return Ok(());
        }
        if let Some(refused) = holds("NamesAccepted", "False") {
            let why = refused.message.clone().unwrap_or_default();
            return Err(Error::other(format!(
                "the kind of {name} can not be served: {why}"
            )));
        }
        if started.elapsed() > SERVED_WITHIN {
            return Err(Error::other(format!(
                "the definition {name} is there, but its kind is not served after {} s",
                SERVED_WITHIN.as_secs()
            ))
            .hint("see its conditions: kubectl describe crd"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
