//! Runs the protoc of the crate `protoc-bin-vendored` with the arguments it is given.

use std::os::unix::process::CommandExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protoc = protoc_bin_vendored::protoc_bin_path()?;
    Err(std::process::Command::new(protoc)
        .args(std::env::args_os().skip(1))
        .exec()
        .into())
}
