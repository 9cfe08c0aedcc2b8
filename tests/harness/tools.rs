//! Where the programs are that the tests run: the pinned peers, and the two programs of the product.
//!
//! Nothing is looked up in PATH but the shell and cargo: the versions are part of what is tested.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

use crate::process::Folder;

/// The pinned program of this name, built on first use.
pub fn path(name: &str) -> PathBuf {
    static KNOWN: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    // Held while it is built: whoever asks meanwhile would only wait for the script's own lock.
    let mut known = KNOWN
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    known
        .entry(name.to_owned())
        .or_insert_with(|| build_tool(name))
        .clone()
}

/// Azurite's main file, which Node.js runs; nothing where that is missing.
pub fn azurite() -> Option<PathBuf> {
    Command::new("node").arg("--version").output().ok()?;
    let build = || {
        let folder = run_script("azurite");
        folder.join("azurite/node_modules/azurite/dist/src/blob/main.js")
    };
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let path = FOUND.get_or_init(build);
    path.exists().then(|| path.clone())
}

/// Debian's own restic, an older one than the pinned; nothing where its package is not installed.
pub fn debians_restic() -> Option<PathBuf> {
    let path = PathBuf::from("/usr/bin/restic");
    path.exists().then_some(path)
}

/// The folder that holds them, for whoever looks them up there.
pub fn folder() -> PathBuf {
    path("etcd").parent().unwrap().to_owned()
}

fn build_tool(name: &str) -> PathBuf {
    let path = run_script(name).join(name);
    assert!(path.exists(), "no {}", path.display());
    path
}

/// Builds a tool and returns the folder of all.
fn run_script(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build");
    let output = Command::new(&script)
        .arg(name)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    assert!(output.status.success(), "tests/tools/build {name} failed");
    let printed = String::from_utf8(output.stdout).expect("a path in UTF-8");
    PathBuf::from(printed.lines().last().expect("the tools' folder"))
}

/// The plugin under test; `KUBECTL_BACKUP_BIN` names one that is built already.
pub fn plugin() -> PathBuf {
    env::var_os("KUBECTL_BACKUP_BIN").map_or_else(|| built().plugin.clone(), PathBuf::from)
}

/// The launcher of etcd under test; `ETCD_LAUNCHER_BIN` names one that is built already.
pub fn launcher() -> PathBuf {
    env::var_os("ETCD_LAUNCHER_BIN").map_or_else(|| built().launcher.clone(), PathBuf::from)
}

/// The launcher as `make build` makes it, linked to nothing of this machine; `ETCD_LAUNCHER_BIN` names one that is built already.
pub fn static_launcher() -> PathBuf {
    static BUILT: OnceLock<(Folder, PathBuf)> = OnceLock::new();
    if let Some(named) = env::var_os("ETCD_LAUNCHER_BIN") {
        return PathBuf::from(named);
    }
    let (_, path) = BUILT.get_or_init(|| {
        // The programs that other stories start are built first: both lie in one place.
        built();
        let built = build(&[
            "rustc",
            "--package=etcd-launcher",
            "--bin=etcd-launcher",
            "--",
            "-Ctarget-feature=+crt-static",
        ]);
        let folder = Folder::new("static");
        let path = folder.join("etcd-launcher");
        std::fs::copy(built.of("etcd-launcher"), &path).expect("a copy");
        (folder, path)
    });
    path.clone()
}

struct Built {
    plugin: PathBuf,
    launcher: PathBuf,
}

/// Both programs, built together on first use.
fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = build(&[
            "build",
            "--package=kubectl-backup",
            "--package=etcd-launcher",
            "--bins",
        ]);
        Built {
            plugin: built.of("kubectl-backup"),
            launcher: built.of("etcd-launcher"),
        }
    })
}

/// What cargo said about a build.
struct Messages(Vec<serde_json::Value>);

impl Messages {
    fn of(&self, name: &str) -> PathBuf {
        let of_name = self
            .0
            .iter()
            .filter(|message| message["target"]["name"] == name);
        of_name
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
            .next()
            .unwrap_or_else(|| panic!("cargo does not say where {name} is"))
    }
}

/// Runs cargo with the profile of `KUBECTL_BACKUP_PROFILE` (a name, default `dev`).
fn build(arguments: &[&str]) -> Messages {
    let profile = env::var("KUBECTL_BACKUP_PROFILE").unwrap_or_else(|_| "dev".to_owned());
    let (command, rest) = arguments.split_first().expect("a command");
    let output = Command::new(env!("CARGO"))
        .args([command, "--message-format=json-render-diagnostics"])
        .args(["--profile", &profile])
        .args(rest)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "the programs do not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines();
    Messages(
        messages
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
    )
}
