//! Mounts of one command's own: they are seen by nobody else, and gone when it ends.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Folder, Output};

const UNSHARE: [&str; 3] = ["unshare", "--mount", "--propagation=private"];

/// The words before a command that make it see what this shell script mounts. `$0` in it is `place`; all else the command is given stays its own.
pub fn through(script: &str, place: &str) -> Vec<String> {
    let script = format!("{script}; exec \"$@\"");
    let words = UNSHARE.into_iter().chain(["sh", "-euc", &script, place]);
    words.map(str::to_owned).collect()
}

/// Runs a shell script with these arguments in mounts of its own.
pub fn run(script: &str, arguments: &[&Path]) -> Output {
    let mut command = Command::new(UNSHARE[0]);
    command
        .args(&UNSHARE[1..])
        .args(["sh", "-euc", script, "sh"])
        .args(arguments)
        .stdin(Stdio::null());
    Output::of(&mut command)
}

/// Whether there can be any here.
///
/// # Errors
/// The reason, for a test that is skipped.
pub fn available() -> Result<(), String> {
    let folder = Folder::new("mounts");
    let mounted = run("mount -t tmpfs -o size=1m none \"$1\"", &[folder.path()]);
    if mounted.code == 0 {
        Ok(())
    } else {
        Err("mounting needs root and namespaces".to_owned())
    }
}
