//! The account that an API server keeps of every write: who wrote where, or tried to.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::ClusterBuilder;
use crate::process::Folder;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: Metadata}
";

/// Of one cluster; it lasts as long as this does.
pub struct Audit {
    folder: Folder,
}

impl Default for Audit {
    fn default() -> Self {
        let folder = Folder::new("audit");
        folder.write("policy.yaml", POLICY);
        Self { folder }
    }
}

impl Audit {
    /// Has a cluster keep it, from its start.
    pub fn of(&self, cluster: ClusterBuilder) -> ClusterBuilder {
        let policy = self.folder.join("policy.yaml");
        cluster
            .api_server_flag(&format!("--audit-policy-file={}", policy.display()))
            .api_server_flag(&format!("--audit-log-path={}", self.log().display()))
    }

    fn log(&self) -> PathBuf {
        self.folder.join("writes.log")
    }

    /// Where this one wrote, or tried to: `namespace resource`, of what is in no namespace ` resource`; each once. The answer to a write comes after its line.
    /// Who asks what he may do changes nothing, and is left out.
    pub fn writes(&self, is_by: impl Fn(&Value) -> bool) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap();
        // The last line may not be whole yet.
        let (whole, _) = log.rsplit_once('\n').unwrap();
        let events = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut places: Vec<String> = events
            .filter(|event| is_by(event))
            .map(|event| event["objectRef"].clone())
            .filter(|at| at["apiGroup"] != "authorization.k8s.io")
            .map(|at| {
                let of = |key: &str| at[key].as_str().unwrap_or_default().to_owned();
                // Who makes a namespace is not in it yet.
                let is_itself = at["namespace"].is_null() && at["resource"] == "namespaces";
                let namespace = of(if is_itself { "name" } else { "namespace" });
                format!("{namespace} {}", of("resource"))
            })
            .collect();
        places.sort();
        places.dedup();
        places
    }
}
