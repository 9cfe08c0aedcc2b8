//! Images of one layer, written as OCI archives from programs of this machine: nothing is pulled from anywhere.
//!
//! The layer is not compressed: it is read once, by the containerd beside it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::process::Output;

const BUSYBOX: &str = "/bin/busybox";

/// An image that is being put together.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    files: Vec<(Content, String, u32)>,
    entrypoint: Vec<String>,
    command: Vec<String>,
}

#[derive(Debug, Clone)]
enum Content {
    Of(PathBuf),
    Is(Vec<u8>),
    LinkTo(String),
}

impl Image {
    /// An image of this name, as `localhost/name:tag`: where no registry is named, containerd would add one.
    pub fn new(name: &str) -> Self {
        assert!(
            name.contains('/') && name.contains(':'),
            "{name} is no full name of an image"
        );
        Self {
            name: name.to_owned(),
            files: Vec::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
        }
        .text(
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
        .text("/etc/nsswitch.conf", "hosts: files dns\n")
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A file of this machine, to be run; with the libraries it asks for, where it is linked to any.
    pub fn program(mut self, from: impl AsRef<Path>, to: &str) -> Self {
        let from = from.as_ref();
        for library in libraries(from) {
            let path = library.display().to_string();
            if !self.files.iter().any(|(_, to, _)| *to == path) {
                self.files.push((Content::Of(library), path, 0o755));
            }
        }
        self.files
            .push((Content::Of(from.to_owned()), to.to_owned(), 0o755));
        self
    }

    /// A folder of this machine with all of its files, at the same place.
    pub fn tree(mut self, folder: impl AsRef<Path>) -> Self {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                self = self.tree(path);
            } else if kind.is_file() {
                let to = path.display().to_string();
                self.files.push((Content::Of(path), to, 0o644));
            }
        }
        self
    }

    pub fn text(mut self, to: &str, text: &str) -> Self {
        let content = Content::Is(text.as_bytes().to_vec());
        self.files.push((content, to.to_owned(), 0o644));
        self
    }

    /// A shell and the usual commands.
    pub fn busybox(mut self) -> Self {
        let listed = Output::of(Command::new(BUSYBOX).arg("--list")).ok().stdout;
        for command in listed.lines().filter(|&command| command != "busybox") {
            let link = Content::LinkTo("busybox".to_owned());
            self.files.push((link, format!("/bin/{command}"), 0o777));
        }
        self.program(BUSYBOX, BUSYBOX)
    }

    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Writes the archive that `ctr images import` reads.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let layer_path = path.with_extension("layer");
        let mut layer = Hashing::new(
            File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&layer_path)?,
        );
        self.write_layer(&mut layer)?;
        let (mut file, layer) = layer.finish("application/vnd.oci.image.layer.v1.tar")?;
        file.seek(SeekFrom::Start(0))?;
        let (architecture, os) = (architecture(), "linux");
        let config = json!({
            "architecture": architecture, "os": os,
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": self.entrypoint, "Cmd": self.command,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let (config, config_descriptor) =
            blob(&config, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": config_descriptor, "layers": [layer],
        });
        let (manifest, mut manifest_descriptor) = blob(&manifest, MANIFEST)?;
        manifest_descriptor["platform"] = json!({"architecture": architecture, "os": os});
        manifest_descriptor["annotations"] = json!({"io.containerd.image.name": self.name});
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest_descriptor],
        });

        let mut archive = Builder::new(BufWriter::new(File::create(path)?));
        append(
            &mut archive,
            "oci-layout",
            br#"{"imageLayoutVersion":"1.0.0"}"#,
        )?;
        append(&mut archive, "index.json", index.to_string().as_bytes())?;
        append(&mut archive, &blob_path(&config_descriptor), &config)?;
        append(&mut archive, &blob_path(&manifest_descriptor), &manifest)?;
        let size = layer["size"].as_u64().unwrap_or_default();
        let mut header = header(EntryType::Regular, 0o644, size);
        archive.append_data(&mut header, blob_path(&layer), file)?;
        archive.into_inner()?.flush()?;
        std::fs::remove_file(&layer_path)
    }

    fn write_layer(&self, to: &mut Hashing) -> io::Result<()> {
        let mut layer = Builder::new(to);
        let mut folders = BTreeSet::new();
        for (folder, mode) in [
            ("tmp", 0o1777),
            ("root", 0o700),
            ("var", 0o755),
            ("usr/local/bin", 0o755),
        ] {
            append_folder(&mut layer, &mut folders, Path::new(folder), mode)?;
        }
        for (content, to, mode) in &self.files {
            let to = Path::new(to.trim_start_matches('/'));
            append_folder(&mut layer, &mut folders, to.parent().unwrap(), 0o755)?;
            match content {
                Content::Of(path) => {
                    let file = File::open(path)?;
                    let mut header = header(EntryType::Regular, *mode, file.metadata()?.len());
                    layer.append_data(&mut header, to, file)?;
                }
                Content::Is(bytes) => {
                    let mut header = header(EntryType::Regular, *mode, bytes.len() as u64);
                    layer.append_data(&mut header, to, bytes.as_slice())?;
                }
                Content::LinkTo(target) => {
                    let mut header = header(EntryType::Symlink, *mode, 0);
                    layer.append_link(&mut header, to, target)?;
                }
            }
        }
        layer.finish()
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The names Go gives them.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a program is linked to, its loader among it; nothing for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = Output::of(Command::new("/usr/bin/ldd").arg(program)).stdout;
    // "libc.so.6 => /lib/…/libc.so.6 (0x…)", or the path alone for the loader.
    let paths = listed.lines().filter_map(|line| {
        let found = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        let path = found.split(' ').next()?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(archive: &mut Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = header(EntryType::Regular, 0o644, content.len() as u64);
    archive.append_data(&mut header, name, content)
}

/// A folder and all above it, once.
fn append_folder(
    archive: &mut Builder<impl Write>,
    known: &mut BTreeSet<PathBuf>,
    folder: &Path,
    mode: u32,
) -> io::Result<()> {
    if folder.as_os_str().is_empty() || !known.insert(folder.to_owned()) {
        return Ok(());
    }
    append_folder(archive, known, folder.parent().unwrap(), 0o755)?;
    let mut header = header(EntryType::Directory, mode, 0);
    archive.append_data(&mut header, folder, io::empty())
}

fn blob(content: &Value, media_type: &str) -> io::Result<(Vec<u8>, Value)> {
    let bytes = serde_json::to_vec(content)?;
    let mut sum = Context::new(&SHA256);
    sum.update(&bytes);
    let descriptor = descriptor(media_type, sum, bytes.len() as u64);
    Ok((bytes, descriptor))
}

fn descriptor(media_type: &str, sum: Context, size: u64) -> Value {
    let hex: String = sum
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": size})
}

fn blob_path(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A file that is hashed while it is written.
struct Hashing {
    file: BufWriter<File>,
    sum: Context,
    size: u64,
}

impl Hashing {
    fn new(file: File) -> Self {
        Self {
            file: BufWriter::with_capacity(1 << 20, file),
            sum: Context::new(&SHA256),
            size: 0,
        }
    }

    fn finish(self, media_type: &str) -> io::Result<(File, Value)> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok((file, descriptor(media_type, self.sum, self.size)))
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.sum.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
