//! What workloads want of a cluster beside its control plane: addresses of services, their names, and volumes.
//!
//! The three run as processes of the node, not as pods: it is the pods that use them which are tested.

use std::time::Duration;

use super::{DNS, Node};
use crate::process::Process;
use crate::{busybox, tools, wait_for};

const READY: Duration = Duration::from_secs(120);

/// Starts kube-proxy, CoreDNS and the provisioner of local volumes, and waits until names are answered.
pub(super) fn start(node: &Node) -> Vec<Process> {
    let services = vec![start_proxy(node), start_dns(node), start_provisioner(node)];
    wait_for("the DNS of the node", READY, || {
        services.iter().for_each(Process::assert_runs);
        let url = format!("http://{DNS}:8181/ready");
        let answer = node.run_inside(&["busybox", "wget", "-q", "-O", "/dev/null", &url]);
        (answer.code == 0).then_some(())
    });
    services
}

fn start_proxy(node: &Node) -> Process {
    let kubeadm = tools::path("kubeadm").display().to_string();
    let user = "--client-name=system:kube-proxy";
    let config = "--config=/etc/node/kubeadm.yaml";
    let kubeconfig = node
        .inside(&[&kubeadm, "kubeconfig", "user", user, config])
        .ok()
        .stdout;
    node.folder()
        .write("var/lib/kube-proxy/kubeconfig.conf", kubeconfig);
    let config = include_str!("kube-proxy.yaml")
        .replace("@NAME@", node.name())
        .replace("@ADDRESS@", &node.address());
    node.folder()
        .write("var/lib/kube-proxy/config.conf", config);
    let program = tools::path("kube-proxy").display().to_string();
    node.spawn(
        "kube-proxy",
        &[&program, "--config=/var/lib/kube-proxy/config.conf"],
    )
}

fn start_dns(node: &Node) -> Process {
    let corefile = include_str!("Corefile").replace("@DNS@", DNS);
    node.folder().write("var/lib/coredns/Corefile", corefile);
    let program = tools::path("coredns").display().to_string();
    node.spawn("coredns", &[&program, "-conf", "/var/lib/coredns/Corefile"])
}

/// Volumes are folders of `/var/lib/local-path` inside the node.
fn start_provisioner(node: &Node) -> Process {
    node.apply(include_str!("local-path.yaml"));
    let folder = node.folder();
    folder.write(
        "var/lib/provisioner/config.json",
        include_str!("local-path.json"),
    );
    folder.write(
        "var/lib/provisioner/helper.yaml",
        include_str!("local-path-helper.yaml"),
    );
    let program = tools::path("local-path-provisioner").display().to_string();
    node.spawn(
        "local-path-provisioner",
        &[
            "env",
            &format!("NODE_NAME={}", node.name()),
            &program,
            "start",
            "--kubeconfig=/etc/kubernetes/super-admin.conf",
            "--config=/var/lib/provisioner/config.json",
            "--namespace=local-path-storage",
            "--service-account-name=default",
            "--configmap-name=local-path-config",
            &format!("--helper-image={}", busybox::IMAGE),
            "--helper-pod-file=/var/lib/provisioner/helper.yaml",
        ],
    )
}
