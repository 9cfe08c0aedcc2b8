//! Whether KKP's own controllers act on these kinds here. Then the launcher leaves them alone: two that restore one etcd would destroy it.
//!
//! Two signs, each read with rights that every launcher has. The kind EtcdRestore as the API describes it has no `status.attempt`: the definition is
//! not ours, and decisions would be dropped on their way to etcd. And the Cluster carries a finalizer of KKP's: a controller of its has promised
//! to work on it.

use backup_core::{Error, Result};
use serde_json::Value;

use super::hosting::{Hosting, soon};

/// What the API describes our kinds at.
const OPENAPI: &str = "/openapi/v3/apis/kubermatic.k8c.io/v1";

/// What KKP's finalizers begin with.
const FINALIZERS: &str = "kubermatic.k8c.io/";

/// That KKP acts on the kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Managed {
    /// How that is known.
    pub(crate) why: String,
    /// Whether the definitions are ours all the same.
    pub(crate) kinds_are_ours: bool,
}

impl Hosting {
    /// Whether KKP acts on the kinds here, and how that is known.
    ///
    /// # Errors
    /// The hosting API's.
    pub(crate) async fn managed_by_kkp(&self) -> Result<Option<Managed>> {
        let request = http::Request::get(OPENAPI)
            .body(Vec::new())
            .map_err(|e| Error::other("can not ask for the kinds").because(e))?;
        let described: Value =
            soon("read what kinds there are", self.client.request(request)).await?;
        if keeps_decisions(&described) == Some(false) {
            return Ok(Some(Managed {
                why: "the kind EtcdRestore is not the one of etcd-launcher".to_owned(),
                kinds_are_ours: false,
            }));
        }
        let cluster = self.cluster().await?;
        let finalizer = cluster.and_then(|cluster| {
            let mut finalizers = cluster.finalizers.into_iter();
            finalizers.find(|name| name.starts_with(FINALIZERS))
        });
        Ok(finalizer.map(|name| Managed {
            why: format!(
                "Cluster {} carries KKP's finalizer {name}",
                self.names.cluster
            ),
            kinds_are_ours: true,
        }))
    }
}

/// Whether an EtcdRestore keeps `status.attempt`; nothing where the kind is not described.
fn keeps_decisions(described: &Value) -> Option<bool> {
    let schemas = described["components"]["schemas"].as_object()?;
    let restore = schemas.values().find(|schema| {
        schema["x-kubernetes-group-version-kind"]
            .as_array()
            .is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"] == "EtcdRestore"))
    })?;
    Some(restore["properties"]["status"]["properties"]["attempt"].is_object())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_kind_is_ours_where_it_keeps_decisions() {
        let kind = |status: Value| {
            json!({"components": {"schemas": {"a": {"type": "object"}, "b": {
                "x-kubernetes-group-version-kind": [{"kind": "EtcdRestore"}],
                "properties": {"status": {"properties": status}},
            }}}})
        };
        assert_eq!(
            keeps_decisions(&kind(json!({"attempt": {"type": "object"}}))),
            Some(true)
        );
        assert_eq!(
            keeps_decisions(&kind(json!({"phase": {"type": "string"}}))),
            Some(false)
        );
        assert_eq!(keeps_decisions(&json!({})), None);
    }
}
