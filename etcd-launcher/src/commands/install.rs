//! `install`: copies this program into a folder, and every etcdutl that lies beside it: what an init container does for an image of etcd, which has no
//! shell to copy with. Starts nothing, and replaces a file in one step.

use std::fs::{self, File};
use std::io::{self, SeekFrom, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use backup_cli::error::{Exit, Result};
use backup_cli::ui::Ui;
use backup_core::Error;
use clap::Args;

/// What is carried along where it is there: an image of etcd has its own etcdutl, which may be too old to raise revisions.
const TOOLS: [&str; 3] = ["etcdutl-3.6", "etcdutl-3.5", "etcdutl"];

const NAME: &str = "etcd-launcher";

/// Copy this program, and each etcdutl beside it, into a folder
///
/// For an init container: the folder is a volume that the container with etcd has, too.
#[derive(Clone, Debug, Args)]
pub(crate) struct InstallArgs {
    /// The folder; it is made where it is not there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Runs the command.
pub(crate) fn run(ui: &Ui, args: &InstallArgs) -> Result<Exit> {
    let ours = std::env::current_exe()
        .map_err(|e| Error::other("can not tell where this program is").because(e))?;
    let failed = |e: io::Error| Error::other(format!("can not read {}", ours.display())).because(e);
    let mut file = File::open(&ours).map_err(failed)?;
    if asks_for_a_loader(&mut file).map_err(failed)? {
        return Err(Error::invalid(
            "this etcd-launcher is linked to libraries of its machine, which an image of etcd does not have",
        )
        .hint("`make build` makes one that needs none")
        .into());
    }
    fs::create_dir_all(&args.folder)
        .map_err(|e| Error::other(format!("can not make {}", args.folder.display())).because(e))?;
    copy(ui, &ours, &args.folder.join(NAME))?;
    let beside = ours.parent().unwrap_or(Path::new("/"));
    for tool in TOOLS {
        let from = beside.join(tool);
        if from.is_file() {
            copy(ui, &from, &args.folder.join(tool))?;
        }
    }
    Ok(Exit::Done)
}

/// Whether an ELF file names a loader (a program header PT_INTERP): the dynamic loader of its machine starts it, and nothing else can.
fn asks_for_a_loader(file: &mut (impl io::Read + io::Seek)) -> io::Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut head = [0_u8; 64];
    file.read_exact(&mut head)?;
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    // Of 64 bits, the least significant byte first: what this program is built for.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::Error::other("it is no program of this kind of machine"));
    }
    let mut offset = [0_u8; 8];
    offset.copy_from_slice(&head[32..40]);
    let (size, count) = (u64::from(short(54)), u64::from(short(56)));
    for index in 0..count {
        file.seek(SeekFrom::Start(u64::from_le_bytes(offset) + index * size))?;
        let mut kind = [0_u8; 4];
        file.read_exact(&mut kind)?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Copies beside the place, then renames: whoever runs the old file keeps it.
fn copy(ui: &Ui, from: &Path, to: &Path) -> Result<()> {
    let staged = to.with_extension(format!("{}.new", std::process::id()));
    let copied = (|| {
        let mut source = File::open(from)?;
        let mut target = File::options()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(&staged)?;
        io::copy(&mut source, &mut target)?;
        // Whatever the umask says: the container with etcd may run as another user.
        target.set_permissions(fs::Permissions::from_mode(0o755))?;
        target.flush()?;
        target.sync_all()?;
        fs::rename(&staged, to)
    })();
    copied.map_err(|e| {
        let _ = fs::remove_file(&staged);
        Error::other(format!(
            "can not copy {} to {}",
            from.display(),
            to.display()
        ))
        .because(e)
    })?;
    ui.line(&format!("{} installed", to.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(kinds: &[u32]) -> io::Cursor<Vec<u8>> {
        let mut bytes = vec![0_u8; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; 52]);
        }
        io::Cursor::new(bytes)
    }

    #[test]
    fn a_program_that_needs_a_loader_is_told_from_one_that_does_not() {
        assert!(asks_for_a_loader(&mut elf(&[6, 3, 1])).unwrap());
        assert!(!asks_for_a_loader(&mut elf(&[6, 1])).unwrap());
        assert!(asks_for_a_loader(&mut io::Cursor::new(vec![0; 64])).is_err());
        assert!(asks_for_a_loader(&mut io::Cursor::new(b"#!/bin/sh\n".to_vec())).is_err());
    }
}
