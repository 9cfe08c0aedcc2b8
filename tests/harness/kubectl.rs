//! kubectl as an administrator runs it: one kubeconfig, and nothing of whoever runs the tests.

use std::path::Path;
use std::process::Command;

use crate::process::Output;
use crate::tools;

pub(crate) fn command(kubeconfig: &Path, home: &Path) -> Command {
    let mut command = Command::new(tools::path("kubectl"));
    command
        .env_clear()
        .env("HOME", home)
        .env("KUBECONFIG", kubeconfig)
        .current_dir(home);
    command
}

/// Applies manifests on the server's side; fails the test unless that succeeds.
#[track_caller]
pub(crate) fn apply(kubectl: &mut Command, yaml: &str) -> Output {
    let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    Output::with_stdin(kubectl.args(arguments), Some(yaml.as_bytes())).ok()
}
