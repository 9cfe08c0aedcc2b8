//! Where this user's files are: the XDG base directories. Reads the environment through a closure only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const OURS: &str = "kubectl-backup";

/// This plugin's folders; none of them need exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
    state: PathBuf,
}

impl Paths {
    /// From the environment; a relative XDG value is ignored, as the XDG specification asks.
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let home = variable("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = |name: &str, default: &str| {
            variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .unwrap_or_else(|| home.join(default))
                .join(OURS)
        };
        Self {
            config: folder("XDG_CONFIG_HOME", ".config"),
            data: folder("XDG_DATA_HOME", ".local/share"),
            cache: folder("XDG_CACHE_HOME", ".cache"),
            state: folder("XDG_STATE_HOME", ".local/state"),
        }
    }

    /// The file with the configured locations.
    pub fn locations(&self) -> PathBuf {
        self.config.join("locations.yaml")
    }

    /// The file with private keys that open encrypted backups.
    pub fn identities(&self) -> PathBuf {
        self.config.join("identities")
    }

    /// The folder with workspaces, a file each.
    pub fn workspaces(&self) -> PathBuf {
        self.config.join("workspaces")
    }

    /// The folder with a sub-folder of backups per cluster, used with nothing configured.
    pub fn backups(&self) -> &Path {
        &self.data
    }

    /// Which context was seen with which cluster; labels listings and decides nothing.
    pub fn clusters(&self) -> PathBuf {
        self.cache.join("clusters.json")
    }

    /// The folder with the keys of volumes' repositories that this user's backups made.
    pub fn volume_keys(&self) -> PathBuf {
        self.cache.join("volume-keys")
    }

    /// Where foreign archives are rewritten.
    pub fn spool(&self) -> &Path {
        &self.cache
    }

    /// Journals of restores from locations that are read-only or ask for signatures.
    pub fn state(&self) -> &Path {
        &self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_xdg_values_are_ignored() {
        let paths = Paths::new(|name| match name {
            "HOME" => Some("/home/u".into()),
            "XDG_DATA_HOME" => Some("relative".into()),
            "XDG_CONFIG_HOME" => Some("/etc/u".into()),
            _ => None,
        });
        assert_eq!(
            paths.locations(),
            Path::new("/etc/u/kubectl-backup/locations.yaml")
        );
        assert_eq!(
            paths.backups(),
            Path::new("/home/u/.local/share/kubectl-backup")
        );
    }
}
