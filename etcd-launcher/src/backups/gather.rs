//! What a plan is made from: the configs of the namespace, the cluster they are about, the destination they name, the members to ask. Reads only.

use std::path::PathBuf;

use backup_core::api::EtcdBackupConfig;
use backup_core::etcd::client::{Access, Connection};
use backup_core::location::Location;
use backup_core::{Error, Kind, Result};
use kube::api::{Api, DynamicObject, ListParams};
use serde_json::Value;

use super::plan::{FIELDS, Place, Plane};
use crate::destination::{self, Wanted};
use crate::etcd_args::EtcdArgs;
use crate::run::hosting::{Hosting, resource, told};
use crate::run::lease;

/// A config as it was listed.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) config: EtcdBackupConfig,
    /// Fields of its spec that nobody knows: where the definition lets them through, they are told instead of passed over.
    pub(super) unknown: Vec<String>,
}

/// The configs of this launcher's namespace that are about its cluster, or about none that has a launcher here. What can not be read is told.
///
/// # Errors
/// The hosting API's; none where the kind is not there.
pub(super) async fn configs(
    hosting: &Hosting,
    said: &(dyn Fn(&str) + Sync),
) -> Result<Vec<Listed>> {
    let api: Api<DynamicObject> = Api::namespaced_with(
        hosting.client.clone(),
        &hosting.names.namespace,
        &resource("EtcdBackupConfig", "etcdbackupconfigs"),
    );
    let listed = match api.list(&ListParams::default()).await {
        Ok(listed) => listed.items,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
        Err(e) => return Err(told("list EtcdBackupConfigs", e)),
    };
    let mut found = Vec::new();
    for object in listed {
        let name = object.metadata.name.clone().unwrap_or_default();
        let unknown = unknown(object.data.get("spec"));
        let config = serde_json::to_value(object).and_then(serde_json::from_value);
        let config: EtcdBackupConfig = match config {
            Ok(config) => config,
            Err(e) => {
                said(&format!("EtcdBackupConfig {name} can not be read: {e}"));
                continue;
            }
        };
        let of = &config.spec.cluster.name;
        if *of != hosting.names.cluster && lease::is_there(hosting, of).await? {
            continue;
        }
        found.push(Listed { config, unknown });
    }
    Ok(found)
}

fn unknown(spec: Option<&Value>) -> Vec<String> {
    let fields = spec.and_then(Value::as_object).into_iter().flatten();
    fields
        .filter(|(name, _)| !FIELDS.contains(&name.as_str()))
        .map(|(name, _)| name.clone())
        .collect()
}

/// The cluster, as its object says.
///
/// # Errors
/// The hosting API's.
pub(super) async fn plane(hosting: &Hosting) -> Result<Plane> {
    let cluster = hosting.cluster().await?;
    Ok(Plane {
        cluster: hosting.names.cluster.clone(),
        namespace: hosting.names.namespace.clone(),
        restoring: cluster
            .as_ref()
            .and_then(|cluster| cluster.active.as_ref())
            .map(|active| active.name.clone()),
        paused: cluster.as_ref().is_some_and(|cluster| cluster.paused),
        lives_in: cluster.map(|cluster| cluster.namespace),
    })
}

/// Opens the destination of a config; nothing is sent to the store.
pub(super) async fn place(
    hosting: &Hosting,
    config: &EtcdBackupConfig,
) -> (Place, Option<Location>) {
    let wanted = Wanted {
        namespace: &hosting.names.namespace,
        destination: &config.spec.destination,
        secret: "",
    };
    match destination::open(&hosting.client, &wanted).await {
        Ok(location) if location.is_read_only() => {
            let why = format!(
                "destination {:?} is read-only: spec.accessMode of the BackupStorageLocation says so",
                config.spec.destination
            );
            (Place::Unusable(why), None)
        }
        Ok(location) => (Place::Ready, Some(location)),
        Err(e) if e.kind() == Kind::Unreachable => (Place::Unknown, None),
        Err(e) => (Place::Unusable(e.sentence()), None),
    }
}

/// How the members are reached: by the certificates that etcd's own command line names.
///
/// # Errors
/// A file that can not be read.
pub(super) fn access(args: &EtcdArgs) -> Result<Access> {
    let (ca, certificate, key) = args.client_files();
    let read = |path: Option<PathBuf>| match path {
        Some(path) => std::fs::read(&path)
            .map(Some)
            .map_err(|e| Error::invalid(format!("can not read {}", path.display())).because(e)),
        None => Ok(None),
    };
    let own = args.client_urls().first().cloned().unwrap_or_default();
    if !own.starts_with("https://") {
        return Ok(Access::default());
    }
    Ok(Access {
        ca_pem: read(ca)?,
        identity: read(certificate)?.zip(read(key)?),
        user: None,
    })
}

/// Endpoints of all members, as this launcher's own one knows them.
///
/// # Errors
/// Where it does not say.
pub(super) async fn endpoints(args: &EtcdArgs, access: &Access) -> Result<Vec<String>> {
    let own = args
        .client_urls()
        .first()
        .ok_or_else(|| Error::invalid("etcd listens for no clients"))?
        .replace("0.0.0.0", "127.0.0.1")
        .replace("[::]", "[::1]");
    let members = Connection::open(&own, access).await?.members().await?;
    let mut endpoints: Vec<_> = members
        .into_iter()
        .filter(|member| !member.is_learner)
        .flat_map(|member| member.client_urls)
        .collect();
    if endpoints.is_empty() {
        endpoints.push(own);
    }
    Ok(endpoints)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misspelled_field_is_seen() {
        let spec = json!({"cluster": {}, "shedule": "@daily", "keep": 3});
        assert_eq!(unknown(Some(&spec)), ["shedule"]);
        assert_eq!(unknown(None), Vec::<String>::new());
    }
}
