//! The kubelet's configuration: where static pods come from. Reads one file.

use std::path::{Path, PathBuf};

use backup_core::{Error, Kind, Result};
use serde::Deserialize;

/// More is no configuration of a kubelet.
const LARGEST: u64 = 1 << 20;

/// What matters here of a KubeletConfiguration (kubelet.config.k8s.io).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    kind: String,
    #[serde(default)]
    static_pod_path: Option<PathBuf>,
}

/// The folder of static pods, with no link in it.
///
/// # Errors
/// Kind `NotFound` where there is no configuration or no such folder; kind `Invalid` where it is no kubelet's or names none.
pub(crate) fn static_pods(config: &Path) -> Result<PathBuf> {
    let hint = "this works on a control-plane node as kubeadm sets it up; name the kubelet's configuration with --kubelet-config";
    let text = super::folders::read_text(config, LARGEST).map_err(|e| {
        Error::new(
            e.kind(),
            format!(
                "can not read the kubelet's configuration {}",
                config.display()
            ),
        )
        .because(e)
        .hint(hint)
    })?;
    let parsed: Configuration = serde_saphyr::from_str(&text).map_err(|e| {
        Error::invalid(format!(
            "{} is no configuration of a kubelet",
            config.display()
        ))
        .because(e)
        .hint(hint)
    })?;
    if parsed.kind != "KubeletConfiguration" {
        return Err(Error::invalid(format!(
            "{} is a {}, not a KubeletConfiguration",
            config.display(),
            parsed.kind
        ))
        .hint(hint));
    }
    let folder = parsed
        .static_pod_path
        .filter(|path| path.is_absolute())
        .ok_or_else(|| {
            Error::invalid(format!("{} names no staticPodPath", config.display())).hint(
                "etcd is no static pod here; `etcd-launcher restore` restores a data dir whose etcd you stop yourself",
            )
        })?;
    folder.canonicalize().map_err(|e| {
        Error::new(
            Kind::NotFound,
            format!(
                "can not find the folder of static pods {}",
                folder.display()
            ),
        )
        .because(e)
        .hint(hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_one_that_the_configuration_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let config = root.join("config.yaml");
        let of = |text: &str| {
            std::fs::write(&config, text).unwrap();
            static_pods(&config)
        };
        let named = format!(
            "kind: KubeletConfiguration\nstaticPodPath: {}\n",
            root.display()
        );
        assert_eq!(of(&named).unwrap(), root);
        for wrong in [
            "kind: KubeletConfiguration\n",
            "kind: KubeletConfiguration\nstaticPodPath: relative\n",
            "kind: Pod\nstaticPodPath: /tmp\n",
            "kind: KubeletConfiguration\nstaticPodPath: /no/such/folder\n",
            "",
            "[",
        ] {
            let refused = of(wrong).unwrap_err();
            assert!(refused.hint_text().is_some(), "{wrong:?}: {refused}");
        }
        std::fs::remove_file(&config).unwrap();
        assert_eq!(static_pods(&config).unwrap_err().kind(), Kind::NotFound);
    }
}
