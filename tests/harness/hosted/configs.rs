//! EtcdBackupConfigs of a hosted control plane, their destinations, and the time that passes for them.

use serde_json::{Value, json};

use super::{BUCKET, Hosted};
use crate::etcd::Keys;
use crate::http_client::Endpoint;

impl Hosted {
    pub fn backup_config(&self, name: &str) -> Option<Value> {
        let namespace = &self.namespace;
        self.hosting_object(&format!(
            "/apis/kubermatic.k8c.io/v1/namespaces/{namespace}/etcdbackupconfigs/{name}"
        ))
    }

    /// An EtcdBackupConfig of this cluster with these fields, as `schedule: "@every 1s", keep: 2`.
    pub fn apply_backup_config(&self, name: &str, fields: &str) {
        let (cluster, namespace) = (&self.name, &self.namespace);
        self.hosting.apply(&format!(
            "apiVersion: kubermatic.k8c.io/v1
kind: EtcdBackupConfig
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{cluster: {{apiVersion: kubermatic.k8c.io/v1, kind: Cluster, name: {cluster}}}, {fields}}}
"
        ));
    }

    /// Credentials that may do all in its store, as a destination takes them.
    pub fn owner(&self) -> String {
        format!(
            "[default]\naws_access_key_id={}\naws_secret_access_key={}\n",
            self.minio.access_key(),
            self.minio.secret_key()
        )
    }

    /// A destination with the credentials of the Secret `NAME-credentials`, which launchers may read from now on; `url` is where its store is
    /// reached.
    pub fn apply_destination(&self, name: &str, url: &str, credentials: &str) {
        let namespace = &self.namespace;
        let credentials = credentials.replace('\n', "\n    ");
        self.hosting.apply(&format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: {name}-credentials, namespace: {namespace}}}
stringData:
  cloud: |
    {credentials}
---
apiVersion: velero.io/v1
kind: BackupStorageLocation
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  provider: aws
  objectStorage: {{bucket: {BUCKET}}}
  config: {{region: us-east-1, s3Url: \"{url}\", s3ForcePathStyle: \"true\"}}
  credential: {{name: {name}-credentials, key: cloud}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: destination-{name}, namespace: {namespace}}}
rules:
- {{apiGroups: [\"\"], resources: [secrets], resourceNames: [{name}-credentials], verbs: [get]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: destination-{name}, namespace: {namespace}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: destination-{name}}}
subjects: [{{kind: ServiceAccount, name: etcd-launcher, namespace: {namespace}}}]
"
        ));
    }

    /// Lets time pass for an EtcdBackupConfig: its creation and the slots of its snapshots move so many seconds back, as only etcd can say.
    pub fn age_backup_config(&self, name: &str, seconds: i64) {
        let key = format!(
            "/registry/kubermatic.k8c.io/etcdbackupconfigs/{}/{name}",
            self.namespace
        );
        let mut keys = Keys::of(&Endpoint::plain(self.hosting.etcd_endpoint()));
        let earlier = |time: &mut Value| {
            if let Some(Ok(then)) = time.as_str().map(str::parse::<jiff::Timestamp>) {
                *time = json!((then - jiff::SignedDuration::from_secs(seconds)).to_string());
            }
        };
        let stored = keys.get(&key).expect("the config").value;
        let mut object: Value = serde_json::from_slice(&stored).expect("JSON");
        earlier(&mut object["metadata"]["creationTimestamp"]);
        for list in ["lastBackups", "currentBackups"] {
            let rows = object["status"].get_mut(list).and_then(Value::as_array_mut);
            for row in rows.into_iter().flatten() {
                earlier(&mut row["scheduledTime"]);
            }
        }
        keys.put(&key, object.to_string().as_bytes());
    }

    /// Events about an object of the cluster's namespace: `reason: message` of each.
    pub fn events_about(&self, name: &str) -> Vec<String> {
        let events = self.hosting_object(&format!("/api/v1/namespaces/{}/events", self.namespace));
        let items = events.and_then(|mut list| list["items"].as_array_mut().map(std::mem::take));
        let about = items.unwrap_or_default().into_iter();
        about
            .filter(|event| event["involvedObject"]["name"] == name)
            .map(|event| {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                format!("{}: {}", text("reason"), text("message"))
            })
            .collect()
    }
}
