//! A static pod's manifest: which part of the control plane it starts, with which command, image and folders. Pure: text comes in.

use std::ffi::OsString;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::etcd_args::EtcdArgs;
use crate::restore::version::{Line, Version};

/// A part of the control plane, in the order in which they are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Part {
    /// `kube-apiserver`
    #[serde(rename = "kube-apiserver")]
    ApiServer,
    /// `kube-controller-manager`
    #[serde(rename = "kube-controller-manager")]
    ControllerManager,
    /// `kube-scheduler`
    #[serde(rename = "kube-scheduler")]
    Scheduler,
    /// `etcd`
    #[serde(rename = "etcd")]
    Etcd,
}

impl Part {
    /// The name of its program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Etcd => "etcd",
        }
    }

    /// The part that is started by this word: a name or a path.
    pub(crate) fn started_by(word: &str) -> Option<Self> {
        let name = Path::new(word).file_name()?.to_str()?;
        let all = [
            Self::ApiServer,
            Self::ControllerManager,
            Self::Scheduler,
            Self::Etcd,
        ];
        all.into_iter().find(|part| part.program() == name)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())
    }
}

/// A manifest of one of the four.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    /// What it starts.
    pub(crate) part: Part,
    /// Its file's name, which it keeps wherever it is moved.
    pub(crate) file: OsString,
    container: Container,
    volumes: Vec<Volume>,
    user: Option<Identity>,
}

/// A pod (core/v1), as far as it matters here; all else is left unread.
#[derive(Debug, Deserialize)]
struct Pod {
    kind: String,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    containers: Vec<Container>,
    volumes: Vec<Volume>,
    security_context: Option<Identity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    image: String,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<Variable>,
    ports: Vec<Port>,
    volume_mounts: Vec<Mount>,
    readiness_probe: Option<Probe>,
    security_context: Option<Identity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    name: String,
    container_port: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mount {
    name: String,
    mount_path: PathBuf,
    sub_path: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct HostPath {
    path: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    http_get: Option<HttpGet>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    path: Option<String>,
    port: serde_json::Value,
    #[serde(default)]
    scheme: Option<String>,
}

/// Who a container runs as.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Identity {
    /// The user's number.
    pub(crate) run_as_user: Option<u32>,
    /// The group's number.
    pub(crate) run_as_group: Option<u32>,
}

impl Manifest {
    /// Reads a manifest; none where it starts another program.
    ///
    /// # Errors
    /// Kind `Invalid` where it is no pod: the kubelet would not start it either.
    pub(crate) fn parse(file: OsString, text: &str) -> Result<Option<Self>> {
        let named = file.display().to_string();
        let pod: Pod = serde_saphyr::from_str(text)
            .map_err(|e| Error::invalid(format!("{named} is no manifest of a pod")).because(e))?;
        if pod.kind != "Pod" {
            return Err(Error::invalid(format!(
                "{named} is a {}, not a Pod",
                pod.kind
            )));
        }
        let found = pod.spec.containers.into_iter().find_map(|container| {
            let first = container.command.first().or(container.args.first())?;
            Some((Part::started_by(first)?, container))
        });
        Ok(found.map(|(part, container)| Self {
            part,
            file,
            user: container.security_context.or(pod.spec.security_context),
            container,
            volumes: pod.spec.volumes,
        }))
    }

    /// The command line of its process.
    pub(crate) fn command(&self) -> Vec<String> {
        let words = self.container.command.iter().chain(&self.container.args);
        words.cloned().collect()
    }

    /// Its image.
    pub(crate) fn image(&self) -> &str {
        &self.container.image
    }

    /// The release line that the image's tag names.
    pub(crate) fn line(&self) -> Option<Line> {
        let image = self.image().split('@').next()?;
        let (_, tag) = image.rsplit_once(':')?;
        Some(tag.parse::<Version>().ok()?.line)
    }

    /// Who it runs as, where the manifest says so.
    pub(crate) fn user(&self) -> Identity {
        self.user.unwrap_or_default()
    }

    /// How etcd is started.
    ///
    /// # Errors
    /// As [`EtcdArgs::parse`].
    pub(crate) fn etcd(&self) -> Result<EtcdArgs> {
        let line: Vec<OsString> = self.command().into_iter().map(OsString::from).collect();
        EtcdArgs::parse(&line, |name| {
            let found = self.container.env.iter().find(|v| v.name == name)?;
            Some(found.value.clone().into())
        })
        .map_err(|e| {
            e.context(format!(
                "the manifest {} can not be followed",
                self.file.display()
            ))
        })
    }

    /// Where a path inside the container is on this machine; none where it is not on a volume of the host.
    pub(crate) fn on_host(&self, inside: &Path) -> Option<PathBuf> {
        if !inside.is_absolute() || inside.components().any(|c| c == Component::ParentDir) {
            return None;
        }
        let mounts = self.container.volume_mounts.iter();
        let (mount, rest) = mounts
            .filter_map(|mount| Some((mount, inside.strip_prefix(&mount.mount_path).ok()?)))
            .max_by_key(|(mount, _)| mount.mount_path.as_os_str().len())?;
        let volume = self.volumes.iter().find(|v| v.name == mount.name)?;
        let mut path = volume.host_path.as_ref()?.path.clone();
        path.extend(&mount.sub_path);
        // Nothing is appended for the mount itself: a slash at the end would be followed through a link.
        path.extend(rest.components());
        Some(path)
    }

    /// Where the kubelet asks whether it is ready; else the usual place of an API server.
    pub(crate) fn ready_url(&self) -> String {
        let probe = self.container.readiness_probe.as_ref();
        if let Some(get) = probe.and_then(|probe| probe.http_get.as_ref())
            && let Some(port) = self.port(&get.port)
        {
            let host = get.host.as_deref().unwrap_or("127.0.0.1");
            let scheme = get.scheme.as_deref().unwrap_or("http").to_lowercase();
            let path = get.path.as_deref().unwrap_or("/readyz");
            return format!("{scheme}://{}:{port}{path}", bracketed(host));
        }
        let host = self.flag("advertise-address").unwrap_or("127.0.0.1");
        format!("https://{}:{}/readyz", bracketed(host), self.secure_port())
    }

    fn port(&self, port: &serde_json::Value) -> Option<u16> {
        if let Some(number) = port.as_u64() {
            return u16::try_from(number).ok();
        }
        let name = port.as_str()?;
        let named = self.container.ports.iter().find(|p| p.name == name);
        named
            .map(|p| p.container_port)
            .or_else(|| name.parse().ok())
    }

    /// The port on which an API server serves.
    pub(crate) fn secure_port(&self) -> u16 {
        self.flag("secure-port")
            .and_then(|port| port.parse().ok())
            .unwrap_or(6443)
    }

    fn flag(&self, name: &str) -> Option<&str> {
        let words = self.container.command.iter().chain(&self.container.args);
        let mut values = words.filter_map(|word| {
            let (flag, value) = word.strip_prefix("--")?.split_once('=')?;
            (flag == name).then_some(value)
        });
        values.next_back()
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETCD: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  containers:
  - name: etcd
    image: registry.k8s.io/etcd:3.6.5-0
    command: [etcd, --name=n1, --data-dir=/var/lib/etcd, '--initial-cluster=n1=https://10.0.0.1:2380']
    resources: {requests: {cpu: 100m, memory: 100Mi}}
    env: [{name: ETCD_QUOTA_BACKEND_BYTES, value: '77'}]
    volumeMounts: [{mountPath: /var/lib/etcd, name: data}, {mountPath: /etc/kubernetes/pki/etcd, name: certs}]
  hostNetwork: true
  securityContext: {seccompProfile: {type: RuntimeDefault}, runAsUser: 5, runAsGroup: 6}
  volumes:
  - {name: certs, hostPath: {path: /etc/kubernetes/pki/etcd, type: DirectoryOrCreate}}
  - {name: data, hostPath: {path: /data/etcd}}
";

    fn parsed(text: &str) -> Manifest {
        Manifest::parse("x.yaml".into(), text).unwrap().unwrap()
    }

    #[test]
    fn etcds_manifest_says_all_that_a_restore_needs() {
        let etcd = parsed(ETCD);
        assert_eq!(etcd.part, Part::Etcd);
        assert_eq!(etcd.line().unwrap().to_string(), "3.6");
        assert_eq!(etcd.user().run_as_user, Some(5));
        let args = etcd.etcd().unwrap();
        assert_eq!((args.name(), args.quota_bytes()), ("n1", 77));
        let host = |path: &str| etcd.on_host(path.as_ref());
        assert_eq!(host("/var/lib/etcd"), Some("/data/etcd".into()));
        assert_eq!(
            host("/var/lib/etcd/member"),
            Some("/data/etcd/member".into())
        );
        assert_eq!(host("/var/lib/etcd2"), None);
        assert_eq!(host("/var/lib/etcd/../x"), None);
        assert_eq!(host("relative"), None);
    }

    #[test]
    fn a_part_is_known_by_its_command_and_nothing_else() {
        let of = |command: &str| {
            let text =
                format!("kind: Pod\nspec: {{containers: [{{image: etcd, command: {command}}}]}}");
            Manifest::parse("etcd.yaml".into(), &text)
                .unwrap()
                .map(|m| m.part)
        };
        assert_eq!(
            of("[/usr/local/bin/kube-apiserver, --x]"),
            Some(Part::ApiServer)
        );
        assert_eq!(of("[kube-scheduler]"), Some(Part::Scheduler));
        assert_eq!(
            of("[kube-controller-manager]"),
            Some(Part::ControllerManager)
        );
        assert_eq!(of("[etcd-metrics-proxy]"), None);
        assert_eq!(of("[]"), None);
        for wrong in [
            "kind: ConfigMap",
            "",
            "[",
            "kind: Pod\nspec: {containers: 5}",
        ] {
            assert!(Manifest::parse("x".into(), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_api_server_is_asked_where_the_kubelet_asks_it() {
        let of = |container: &str| {
            parsed(&format!(
                "kind: Pod\nspec: {{containers: [{{command: [kube-apiserver, --advertise-address=10.0.0.1, --secure-port=7443]{container}}}]}}"
            ))
        };
        assert_eq!(of("").ready_url(), "https://10.0.0.1:7443/readyz");
        assert_eq!(of("").secure_port(), 7443);
        let probed = of(
            ", ports: [{name: probe-port, containerPort: 8443}], readinessProbe: {httpGet: {host: 'fd00::1', path: /readyz, port: probe-port, scheme: HTTPS}}",
        );
        assert_eq!(probed.ready_url(), "https://[fd00::1]:8443/readyz");
        let number = of(
            ", readinessProbe: {httpGet: {host: 10.0.0.2, path: /readyz, port: 6443, scheme: HTTPS}}",
        );
        assert_eq!(number.ready_url(), "https://10.0.0.2:6443/readyz");
    }
}
