//! Where the programs are that the tests run: the pinned peers, and the plugin itself.
//!
//! Nothing is looked up in PATH but the shell and cargo: the versions are part of what is tested.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The pinned program of this name, built on first use.
pub fn path(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
        let output = Command::new(&script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        assert!(output.status.success(), "tests/tools/build failed");
        let printed = String::from_utf8(output.stdout).expect("a path in UTF-8");
        PathBuf::from(printed.lines().last().expect("the tools' folder"))
    });
    let path = folder.join(name);
    assert!(path.exists(), "no {}", path.display());
    path
}

/// The plugin under test, built on first use with the profile of `KUBECTL_BACKUP_PROFILE` (a name, default `dev`);
/// `KUBECTL_BACKUP_BIN` names one that is built already.
pub fn plugin() -> PathBuf {
    static PLUGIN: OnceLock<PathBuf> = OnceLock::new();
    PLUGIN
        .get_or_init(|| match env::var_os("KUBECTL_BACKUP_BIN") {
            Some(path) => PathBuf::from(path),
            None => build_plugin(),
        })
        .clone()
}

fn build_plugin() -> PathBuf {
    let profile = env::var("KUBECTL_BACKUP_PROFILE").unwrap_or_else(|_| "dev".to_owned());
    let output = Command::new(env!("CARGO"))
        .args(["build", "--package=kubectl-backup", "--bins"])
        .args(["--message-format=json-render-diagnostics", "--profile"])
        .arg(profile)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "the plugin does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kubectl-backup")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the program it built")
}
