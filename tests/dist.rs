//! Archives of the plugin for krew, and the manifest that names them: `dist FOLDER URL OS/ARCH=PROGRAM...`.
//!
//! The same programs make the same bytes: no time and no user is in an archive. It holds regular files only, for krew refuses links. The
//! manifest is manifests/krew/backup.yaml with what is known now: the version, and a platform for each archive.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers that reports and ends"
)]

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::digest;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

const USAGE: &str = "dist FOLDER URL OS/ARCH=PROGRAM...";
const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));
const BIN: &str = "kubectl-backup";

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [folder, url, programs @ ..] = arguments else {
        return Err(USAGE.into());
    };
    if programs.is_empty() {
        return Err(USAGE.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut manifest: Value =
        serde_saphyr::from_str(&read(&root.join("manifests/krew/backup.yaml"))?)?;
    let license = read(&root.join("LICENSE"))?;
    // What was made is shown when all of it is there.
    let mut made = Vec::new();
    let mut platforms: Vec<Value> = Vec::new();
    fs::create_dir_all(folder)?;
    for program in programs {
        let (platform, path) = program.split_once('=').ok_or(USAGE)?;
        let (os, arch) = platform.split_once('/').ok_or(USAGE)?;
        let selector = json!({"matchLabels": {"os": os, "arch": arch}});
        if platforms.iter().any(|one| one["selector"] == selector) {
            return Err(format!("{platform} is given twice").into());
        }
        let content = fs::read(path).map_err(|e| format!("{path} can not be read: {e}"))?;
        if built_for(&content) != Some((os, arch)) {
            return Err(format!("{path} is no program for {platform}").into());
        }
        let name = format!("{BIN}_{VERSION}_{os}_{arch}.tar.gz");
        let archive = PathBuf::from(folder).join(&name);
        let files = [
            (BIN, 0o755, &content[..]),
            ("LICENSE", 0o644, license.as_bytes()),
        ];
        let packed = pack(&files)?;
        replace(&archive, &packed)?;
        made.push(archive);
        platforms.push(json!({
            "selector": selector,
            "uri": format!("{}/{name}", url.trim_end_matches('/')),
            "sha256": hex(&packed),
            "bin": BIN,
        }));
    }
    manifest["spec"]["version"] = VERSION.into();
    manifest["spec"]["platforms"] = platforms.into();
    let path = PathBuf::from(folder).join("backup.yaml");
    replace(&path, serde_saphyr::to_string(&manifest)?.as_bytes())?;
    made.push(path);
    for path in made {
        println!("{}", path.display());
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|e| format!("{} can not be read: {e}", path.display()).into())
}

/// The file is the old one or the new one, whole.
fn replace(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_added_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    written.map_err(|e| format!("{} can not be written: {e}", path.display()).into())
}

/// The platform that a program's header names, in Go's words, which are krew's.
fn built_for(program: &[u8]) -> Option<(&'static str, &'static str)> {
    let number = |at: usize| program.get(at).copied();
    if program.starts_with(b"\x7fELF") {
        return match number(18)? {
            0x3e => Some(("linux", "amd64")),
            0xb7 => Some(("linux", "arm64")),
            _ => None,
        };
    }
    // Mach-O of 64 bits.
    if program.starts_with(b"\xcf\xfa\xed\xfe") {
        return match number(4)? {
            0x07 => Some(("darwin", "amd64")),
            0x0c => Some(("darwin", "arm64")),
            _ => None,
        };
    }
    None
}

/// A tar of regular files in a gzip stream.
fn pack(files: &[(&str, u32, &[u8])]) -> io::Result<Vec<u8>> {
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (name, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, *content)?;
    }
    tar.into_inner()?.finish()
}

fn hex(content: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, content);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
