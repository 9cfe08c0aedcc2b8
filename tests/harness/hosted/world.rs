//! What a kubelet and its controllers do with the Deployments of a control plane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::Hosted;

impl Hosted {
    /// Plays them until the flag is set.
    pub(super) fn play(&self) -> (Arc<AtomicBool>, JoinHandle<()>) {
        let end = Arc::new(AtomicBool::new(false));
        let (ended, api, endpoint) = (end.clone(), self.api.clone(), self.hosting.endpoint());
        let namespace = self.namespace.clone();
        let thread = thread::spawn(move || {
            let mut client = endpoint.client();
            while !ended.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(150));
                for name in ["apiserver", "controller-manager", "scheduler"] {
                    let path = format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}");
                    let Ok(answer) = client.get(&path) else {
                        continue;
                    };
                    if !answer.is_success() {
                        continue;
                    }
                    let mut deployment = answer.json();
                    let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
                    let mut ready = wanted;
                    if name == "apiserver" {
                        let mut api = api.lock().unwrap();
                        api.scale(wanted > 0);
                        if !(wanted > 0 && api.is_ready()) {
                            ready = 0;
                        }
                    }
                    let status = json!({"replicas": wanted, "readyReplicas": ready, "availableReplicas": ready,
                        "updatedReplicas": wanted, "observedGeneration": deployment["metadata"]["generation"]});
                    if deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) != ready
                        || deployment["status"]["observedGeneration"]
                            != status["observedGeneration"]
                    {
                        deployment["status"] = status;
                        let headers = [("content-type", "application/json")];
                        let _ = client.send(
                            Method::PUT,
                            &format!("{path}/status"),
                            &headers,
                            deployment.to_string(),
                        );
                    }
                }
            }
        });
        (end, thread)
    }
}
