//! How the files of volumes are copied, from flags: of `create` and of the controller, which `install` tells it.

use std::sync::Arc;
use std::time::Duration;

use backup_core::backup::CopyOptions;
use backup_core::crypt::{Identities, Recipients, SecretString};
use backup_core::mover::{self, MoverOptions};
use backup_core::volume::key::KeyCache;
use clap::Args;

use crate::commands::install;

/// The movers' flags.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Volumes")]
pub(crate) struct CopyArgs {
    /// Image of the pods through which volumes are read: this program, as the cluster's nodes pull it [default: that of `install`]
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    mover_image: Option<String>,
    /// How long such a pod may take until it runs [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    mover_timeout: Option<Duration>,
    /// Volumes that are copied at a time [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    parallel_volumes: Option<u16>,
}

fn image(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(char::is_whitespace) {
        return Err("an image is named like registry.example.com/kubectl-backup:0.1.0".to_owned());
    }
    Ok(text.to_owned())
}

/// Whose keys are made and opened.
pub(crate) struct Keys {
    pub(crate) recipients: Recipients,
    pub(crate) passphrase: Option<SecretString>,
    pub(crate) identities: Identities,
    pub(crate) cache: Arc<dyn KeyCache>,
}

impl CopyArgs {
    /// As the library takes it; `uid` is that of the Backup's object, where there is one.
    pub(crate) fn options(&self, keys: Keys, uid: Option<String>) -> CopyOptions {
        CopyOptions {
            movers: self.movers(),
            recipients: keys.recipients,
            passphrase: keys.passphrase,
            identities: keys.identities,
            cache: keys.cache,
            uid,
        }
    }

    /// The pods through which volumes are read and filled.
    pub(crate) fn movers(&self) -> MoverOptions {
        MoverOptions {
            image: self.mover_image.clone().unwrap_or_else(install::image),
            timeout: self.mover_timeout.unwrap_or(mover::TIMEOUT),
            parallel: self.parallel_volumes.map_or(mover::PARALLEL, usize::from),
        }
    }

    /// The first that was given, for where nobody heeds them.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let all = [
            (self.mover_image.is_some(), "--mover-image"),
            (self.mover_timeout.is_some(), "--mover-timeout"),
            (self.parallel_volumes.is_some(), "--parallel-volumes"),
        ];
        all.into_iter()
            .find(|(given, _)| *given)
            .map(|(_, name)| name)
    }

    /// As arguments of a controller that is installed with this image.
    pub(crate) fn words(&self, installed: &str) -> Vec<String> {
        let image = self.mover_image.as_deref().unwrap_or(installed);
        let timeout = self.mover_timeout.map(|timeout| {
            let text = humantime::format_duration(timeout).to_string();
            format!("--mover-timeout={}", text.replace(' ', ""))
        });
        let parallel = self
            .parallel_volumes
            .map(|many| format!("--parallel-volumes={many}"));
        let image = Some(format!("--mover-image={image}"));
        [image, timeout, parallel].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        how: CopyArgs,
    }

    fn line<W: AsRef<str>>(words: &[W]) -> Option<CopyArgs> {
        let words = words.iter().map(|word| word.as_ref().to_owned());
        let line = std::iter::once("controller".to_owned()).chain(words);
        let line = <Line as clap::Parser>::try_parse_from(line);
        line.ok().map(|line| line.how)
    }

    #[test]
    fn the_controller_copies_with_the_image_it_was_installed_with_unless_another_is_named() {
        let words = line::<&str>(&[]).unwrap().words("own:1");
        assert_eq!(words, ["--mover-image=own:1"]);
        assert_eq!(line(&words).unwrap().given(), Some("--mover-image"));
        let given = [
            "--mover-image=other:2",
            "--mover-timeout=1h 30m",
            "--parallel-volumes=8",
        ];
        let words = line(&given).unwrap().words("own:1");
        let told = [
            "--mover-image=other:2",
            "--mover-timeout=1h30m",
            "--parallel-volumes=8",
        ];
        assert_eq!(words, told);
        for odd in [
            "--mover-image=",
            "--mover-image=a b",
            "--parallel-volumes=0",
            "--parallel-volumes=33",
        ] {
            assert!(line(&[odd]).is_none(), "{odd}");
        }
    }
}
