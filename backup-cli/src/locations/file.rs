//! The client's own file of locations: a YAML document per location, readable by its owner only, replaced whole.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use backup_core::Error;
use backup_core::api::BackupStorageLocation;

use super::Source;
use crate::error::Result;
use crate::output;

/// Reads the file; nothing is configured where it is not there.
///
/// # Errors
/// When it can not be read, or holds something else.
pub fn read(path: &Path) -> Result<Source> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => {
            return Err(Error::other(format!("can not read {}", path.display()))
                .because(e)
                .into());
        }
    };
    let locations: Vec<BackupStorageLocation> =
        serde_saphyr::from_multiple(&text).map_err(|e| {
            Error::invalid(format!(
                "{} does not hold BackupStorageLocations",
                path.display()
            ))
            .because(e)
            .hint("repair the file or move it away")
        })?;
    Ok(Source {
        title: path.display().to_string(),
        locations,
        in_cluster: false,
    })
}

/// Changes what the file holds. Two programs that do so at once wait for each other, so that neither loses what the other wrote.
///
/// # Errors
/// What `change` refuses, and when the file can not be read or written; then the old one stands.
pub fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut Vec<BackupStorageLocation>) -> Result<T>,
) -> Result<T> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)
        .map_err(|e| Error::other(format!("can not make {}", folder.display())).because(e))?;
    let lock = std::fs::File::open(folder);
    if let Ok(lock) = &lock {
        // Some file systems know no locks; there the file is replaced whole all the same.
        let _ = lock.lock();
    }
    let mut locations = read(path)?.locations;
    let done = change(&mut locations)?;
    write(path, &locations)?;
    drop(lock);
    Ok(done)
}

/// What a change would come to; nothing is written.
///
/// # Errors
/// What `change` refuses, and when the file can not be read.
pub fn consider<T>(
    path: &Path,
    change: impl FnOnce(&mut Vec<BackupStorageLocation>) -> Result<T>,
) -> Result<T> {
    change(&mut read(path)?.locations)
}

/// Replaces the file: written beside it, synced, renamed.
fn write(path: &Path, locations: &[BackupStorageLocation]) -> Result<()> {
    let mut text = String::new();
    for location in locations {
        text.push_str("---\n");
        text.push_str(&output::yaml(location)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    replace(path, text.as_bytes())
        .map_err(|e| Error::other(format!("can not write {}", path.display())).because(e))?;
    Ok(())
}

/// Puts these bytes in the place of a file, readable by its owner only.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    private_folder(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = create_private(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    });
    if written.is_err() {
        // The error below says what went wrong; a leftover is harmless.
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// A new file that only its owner may read.
pub fn create_private(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A folder, and those above it, that only their owner may enter where they are made here.
fn private_folder(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_survive_the_file_and_only_their_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubectl-backup/locations.yaml");
        assert!(read(&path).unwrap().locations.is_empty());
        let mut one = super::super::folder(Path::new("/a b/c: d"));
        one.metadata
            .annotations
            .insert(super::super::CREDENTIALS_FILE.into(), "/k".into());
        one.spec
            .config
            .insert("s3ForcePathStyle".into(), "true".into());
        one.spec.object_storage.ca_cert = Some("LS0t".repeat(60));
        let mut two = one.clone();
        two.metadata.name = "yes".into();
        two.spec.default = true;
        let both = [one, two];
        write(&path, &both).unwrap();
        assert_eq!(read(&path).unwrap().locations, both);
        write(&path, &both[..1]).unwrap();
        assert_eq!(read(&path).unwrap().locations, both[..1]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            assert_eq!(mode(path.parent().unwrap()), 0o700);
        }
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1
        );
    }

    #[test]
    fn of_many_who_change_the_file_at_once_none_loses_what_another_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubectl-backup/locations.yaml");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    let mut one = super::super::folder(Path::new("/x"));
                    one.metadata.name = format!("n{number}");
                    change(path, |all| {
                        all.push(one);
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(read(&path).unwrap().locations.len(), 16);
        // A change that is only considered, or refused, changes nothing.
        let considered = consider(&path, |all| {
            all.clear();
            Ok(all.len())
        });
        assert_eq!(considered.unwrap(), 0);
        assert_eq!(read(&path).unwrap().locations.len(), 16);
        let refused = change(&path, |all| {
            all.clear();
            Err::<(), _>(Error::invalid("no").into())
        });
        assert!(refused.is_err());
        assert_eq!(read(&path).unwrap().locations.len(), 16);
    }

    #[test]
    fn a_file_with_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locations.yaml");
        std::fs::write(&path, "[1, 2]").unwrap();
        let refused = read(&path).unwrap_err();
        assert!(refused.error().to_string().contains("locations.yaml"));
    }
}
