//! Probes of etcd's pod that look at etcd itself: in a restore it is away for minutes, and a kubelet that kills the pod then would end the
//! launcher in the middle. Pure.

use k8s_openapi::api::core::v1::{Container, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The first probe that ends containers and looks at one of etcd's ports, for people.
pub(crate) fn that_look_at_etcd(pod: &PodSpec, ports: &[u16]) -> Option<String> {
    pod.containers.iter().find_map(|container| {
        let probes = [
            ("livenessProbe", &container.liveness_probe),
            ("startupProbe", &container.startup_probe),
        ];
        probes.into_iter().find_map(|(name, probe)| {
            let looked_at = looks_at(probe.as_ref()?, container, ports)?;
            Some(format!(
                "the {name} of container {} {looked_at}",
                container.name
            ))
        })
    })
}

fn looks_at(probe: &Probe, container: &Container, ports: &[u16]) -> Option<String> {
    let command = probe.exec.as_ref().and_then(|exec| exec.command.as_ref());
    if let Some(command) = command
        && command.iter().any(|word| word.contains("etcdctl"))
    {
        return Some("asks etcd with etcdctl".to_owned());
    }
    let asked = [
        probe.http_get.as_ref().map(|http| &http.port),
        probe.tcp_socket.as_ref().map(|tcp| &tcp.port),
    ];
    let numbers = asked.into_iter().flatten().filter_map(|port| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => named(container, name),
    });
    let grpc = probe
        .grpc
        .as_ref()
        .and_then(|grpc| u16::try_from(grpc.port).ok());
    let port = numbers.chain(grpc).find(|port| ports.contains(port))?;
    Some(format!("looks at port {port}, which is etcd's"))
}

fn named(container: &Container, name: &str) -> Option<u16> {
    let ports = container.ports.as_deref().unwrap_or_default();
    let port = ports.iter().find(|port| port.name.as_deref() == Some(name));
    port.map_or_else(
        || name.parse().ok(),
        |port| u16::try_from(port.container_port).ok(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(probe: Value) -> PodSpec {
        serde_json::from_value(json!({"containers": [{
            "name": "etcd", "ports": [{"name": "client", "containerPort": 2379}, {"name": "launcher", "containerPort": 2378}],
            "livenessProbe": probe,
        }]}))
        .unwrap()
    }

    #[test]
    fn a_probe_may_look_at_the_launcher_and_not_at_etcd() {
        for good in [
            json!({"httpGet": {"port": 2378, "path": "/livez"}}),
            json!({"httpGet": {"port": "launcher", "path": "/livez"}}),
            json!({"exec": {"command": ["true"]}}),
            json!({}),
        ] {
            assert_eq!(
                that_look_at_etcd(&pod(good.clone()), &[2379, 2381]),
                None,
                "{good}"
            );
        }
        for (bad, why) in [
            (
                json!({"httpGet": {"port": 2381, "path": "/health"}}),
                "2381",
            ),
            (
                json!({"httpGet": {"port": "client", "path": "/health"}}),
                "2379",
            ),
            (json!({"tcpSocket": {"port": 2379}}), "2379"),
            (json!({"grpc": {"port": 2379}}), "2379"),
            (
                json!({"exec": {"command": ["/usr/local/bin/etcdctl", "endpoint", "health"]}}),
                "etcdctl",
            ),
        ] {
            let told = that_look_at_etcd(&pod(bad.clone()), &[2379, 2381]);
            assert!(told.is_some_and(|told| told.contains(why)), "{bad}");
        }
    }
}
