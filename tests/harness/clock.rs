//! Clocks for one process that a story sets as it likes, while the machine's go on: the wall clock, and the one that goes on in a sleeping machine. Needs the C compiler that Rust links with,
//! and a program that is linked to the system's libc, as those of the stories are.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use jiff::SignedDuration;

use crate::process::{Folder, Output};
use crate::run::Backup;

/// How large a number in its file is.
const NUMBER: usize = size_of::<i64>();

/// The clock of the processes that are started with it.
pub struct Clock {
    folder: Folder,
}

impl Clock {
    /// A clock that goes as the machine's.
    pub fn new() -> Self {
        let clock = Self {
            folder: Folder::new("clock"),
        };
        let source = clock.folder.write("clock.c", include_str!("clock.c"));
        Output::of(
            Command::new("cc")
                .args(["-O1", "-shared", "-fPIC", "-o"])
                .arg(clock.library())
                .arg(source),
        )
        .ok();
        clock.folder.write("apart", [0_u8; 2 * NUMBER]);
        clock
    }

    fn library(&self) -> PathBuf {
        self.folder.join("clock.so")
    }

    /// The call with this clock.
    pub fn of(&self, call: Backup) -> Backup {
        call.env("LD_PRELOAD", self.library())
            .env("HARNESS_CLOCK", self.folder.join("apart"))
    }

    /// The same where a folder is the store: files are as old as they would be on a machine that has this clock.
    pub fn of_folders(&self, call: Backup) -> Backup {
        self.of(call).env("HARNESS_CLOCK_OF_FILES", "yes")
    }

    /// From now on it is so far from the machine's.
    pub fn is_apart(&self, apart: SignedDuration) {
        self.set(0, apart);
    }

    /// As if the machine had slept for so long by now. The wall clock is set by its own word.
    pub fn has_slept(&self, so_long: SignedDuration) {
        self.set(NUMBER, so_long);
    }

    fn set(&self, at: usize, apart: SignedDuration) {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(self.folder.join("apart"))
            .unwrap();
        // In place: it is mapped.
        file.write_all_at(&apart.as_secs().to_ne_bytes(), at as u64)
            .unwrap();
    }
}

/// As if this was written so long ago: in a folder that is a store, the store's word for it.
pub fn age(file: &Path, so_long: SignedDuration) {
    let then = SystemTime::now() - so_long.unsigned_abs();
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_modified(then).unwrap();
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
