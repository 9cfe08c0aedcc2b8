//! The key cache in a folder: a file for each key that this machine made, named by the digest of its sealed form, readable by its owner alone. One that is not whole is none.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::crypt::{ExposeSecret as _, SecretString};
use backup_core::volume::key::{Kept, KeptInMemory, KeptKey, KeyCache};

/// Keys in a folder, or until the process ends.
pub(crate) enum Keys {
    Folder(PathBuf),
    Memory(KeptInMemory),
}

impl Keys {
    pub(crate) fn new(folder: Option<&Path>) -> Self {
        folder.map_or_else(
            || Self::Memory(KeptInMemory::default()),
            |folder| Self::Folder(folder.to_owned()),
        )
    }
}

fn path(folder: &Path, digest: &str) -> PathBuf {
    folder.join(format!("{digest}.key"))
}

impl KeyCache for Keys {
    fn get(&self, volume: &str, digest: &str) -> backup_core::Result<Option<Kept>> {
        let folder = match self {
            Self::Memory(memory) => return memory.get(volume, digest),
            Self::Folder(folder) => folder,
        };
        let path = path(folder, digest);
        let failed = |e: std::io::Error| {
            Error::invalid(format!("can not read the key cache's {}", path.display())).because(e)
        };
        match fs::metadata(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
            Ok(known) if !known.is_file() => return Ok(None),
            Ok(_) => {}
        }
        let mut bytes = Vec::new();
        fs::File::open(&path)
            .and_then(|file| file.take(KeptKey::LONGEST + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        Ok(KeptKey::read(volume, digest, &bytes))
    }

    fn put(&self, volume: &str, digest: &str, password: &SecretString) -> backup_core::Result<()> {
        let folder = match self {
            Self::Memory(memory) => return memory.put(volume, digest, password),
            Self::Folder(folder) => folder,
        };
        let failed = |e: std::io::Error| {
            Error::invalid(format!("can not keep a key in {}", folder.display())).because(e)
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed)?;
        // Whole or not at all, and there before the key is used.
        let part = folder.join(format!("{digest}.{}.part", std::process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&part).map_err(failed)?;
        let kept = KeptKey::write(volume, digest, password);
        file.write_all(kept.expose_secret().as_bytes())
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&part, path(folder, digest)))
            .and_then(|()| fs::File::open(folder)?.sync_all())
            .map_err(failed)
    }
}
