//! What kubeadm would have left on a node: its files, and the images its manifests name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::network::{ControlGroup, Network};
use super::{DNS, Image, Node, NodeOptions};
use crate::busybox;
use crate::http_client::Endpoint;
use crate::pki::Identity;
use crate::process::{Folder, Output};
use crate::tools;

/// The phases of `kubeadm init` that write files.
const PHASES: [[&str; 2]; 4] = [
    ["certs", "all"],
    ["kubeconfig", "all"],
    ["control-plane", "all"],
    ["etcd", "local"],
];

/// The folders and files the node is made of; `etc` is laid over this machine's `/etc`.
pub(super) fn write_files(
    folder: &Folder,
    options: &NodeOptions,
    network: &Network,
    group: &ControlGroup,
) {
    for part in [
        "var/lib/kubelet",
        "var/log",
        "kubernetes",
        "etc/kubernetes",
        "etc-work",
        "sysctl",
    ] {
        fs::create_dir_all(folder.join(part)).unwrap();
    }
    let (name, address) = (options.name.as_str(), network.inside());
    let rendered = |template: &str| {
        let mut text = template.to_owned();
        for (mark, value) in [
            ("@NAME@", name),
            ("@ADDRESS@", &address),
            ("@DNS@", DNS),
            ("@CGROUP@", group.name()),
        ] {
            text = text.replace(mark, value);
        }
        text
    };
    let kubeadm = rendered(include_str!("kubeadm.yaml"))
        .replace("@KUBERNETES@", kubernetes())
        .replace("@ETCD@", etcd());
    folder.write("etc/node/kubeadm.yaml", kubeadm);
    folder.write("etc/node/containerd.toml", include_str!("containerd.toml"));
    folder.write("etc/node/cni/pods.conflist", include_str!("pods.conflist"));
    folder.write(
        "var/lib/kubelet/config.yaml",
        rendered(include_str!("kubelet.yaml")),
    );
    folder.write("etc/resolv.conf", format!("nameserver {DNS}\n"));
    folder.write(
        "etc/hosts",
        format!("127.0.0.1 localhost\n{address} {name}\n"),
    );
    // Pods get them mounted, and not only root is to read them.
    for file in ["etc/resolv.conf", "etc/hosts"] {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
}

/// Makes certificates, kubeconfigs and manifests inside the node.
pub(super) fn run_kubeadm(node: &Node) {
    let kubeadm = tools::path("kubeadm").display().to_string();
    for [phase, part] in PHASES {
        let config = "--config=/etc/node/kubeadm.yaml";
        node.inside(&[&kubeadm, "init", "phase", phase, part, config])
            .ok();
    }
}

/// The administrator of a kubeconfig that kubeadm wrote.
pub(super) fn endpoint(kubeconfig: &Path) -> Endpoint {
    let text = fs::read_to_string(kubeconfig).unwrap();
    let config: Value = serde_saphyr::from_str(&text).unwrap();
    let pem = |value: &Value| {
        let decoded = BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        String::from_utf8(decoded).unwrap()
    };
    let (cluster, user) = (
        &config["clusters"][0]["cluster"],
        &config["users"][0]["user"],
    );
    Endpoint {
        url: cluster["server"].as_str().unwrap().to_owned(),
        ca: Some(pem(&cluster["certificate-authority-data"])),
        identity: Some(Identity {
            certificate: pem(&user["client-certificate-data"]),
            key: pem(&user["client-key-data"]),
        }),
        token: None,
    }
}

/// Gives the users of admin.conf, and the API server towards the kubelet, the rights that `kubeadm init` gives them.
pub(super) fn make_administrators(node: &Node) {
    node.apply(
        r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "kubeadm:cluster-admins"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: "kubeadm:cluster-admins"}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "kubeadm:apiserver-kubelet-client"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:kubelet-api-admin"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: kube-apiserver-kubelet-client}]
"#,
    );
}

/// The archives of all images a node begins with, written once in a test process.
pub(super) fn images() -> Vec<PathBuf> {
    static WRITTEN: OnceLock<(Folder, Vec<PathBuf>)> = OnceLock::new();
    let (_, paths) = WRITTEN.get_or_init(|| {
        let folder = Folder::new("images");
        let mut images = vec![
            // The control groups and the network of a pod need no more than a process that stays.
            Image::new("localhost/pause:1")
                .program("/bin/busybox", "/bin/busybox")
                .entrypoint(&["/bin/busybox", "sleep", "2147483647"]),
            Image::new(busybox::IMAGE).busybox().command(&["sh"]),
            Image::new(&etcd_image())
                .program(tools::path("etcd"), "/usr/local/bin/etcd")
                .program(tools::path("etcdctl"), "/usr/local/bin/etcdctl")
                .program(tools::path("etcdutl"), "/usr/local/bin/etcdutl"),
        ];
        for name in [
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
        ] {
            let image = Image::new(&format!("localhost/{name}:{}", kubernetes()));
            images.push(image.program(tools::path(name), &format!("/usr/local/bin/{name}")));
        }
        let paths = images
            .iter()
            .enumerate()
            .map(|(number, image)| {
                let path = folder.join(format!("{number}.tar"));
                image
                    .write(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", image.name()));
                path
            })
            .collect();
        (folder, paths)
    });
    paths.clone()
}

/// The name kubeadm gives the image of etcd.
pub(super) fn etcd_image() -> String {
    format!("localhost/etcd:{}", etcd())
}

/// The version of Kubernetes, as `v1.36.3`.
fn kubernetes() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut kubeadm = Command::new(tools::path("kubeadm"));
        let said = Output::of(kubeadm.args(["version", "--output=short"]).env_clear()).ok();
        said.stdout.trim().to_owned()
    })
}

/// The version of etcd, as `3.6.16`.
fn etcd() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let said = Output::of(Command::new(tools::path("etcd")).arg("--version")).ok();
        let first = said.stdout.lines().next().unwrap_or_default();
        first.rsplit(' ').next().unwrap_or_default().to_owned()
    })
}
