//! Files of volumes: the mover beside restic, on the same files, into MinIO and into a folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use harness::process::Folder;
use harness::run::{Backup, kubectl_backup, program};
use harness::store::Minio;
use harness::tools;

use super::memory::{measured, peak_of};
use super::table::{AtMost, Budget, Shown, Table};
use super::{BUCKET, RUNS, mebibytes, median, say, seconds};

/// restic's password; that of the mover's repositories is made anew each time.
const PASSWORD: &str = "bench";

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(length);
    bytes
}

fn prose(seed: usize, length: usize) -> Vec<u8> {
    let mut text = String::with_capacity(length + 40);
    let mut line = seed * 1000;
    while text.len() < length {
        text.push_str(&format!("line {line} of {seed}: nothing to see here\n"));
        line += 1;
    }
    text.truncate(length);
    text.into_bytes()
}

/// 985 MB in 3,001 files, two thirds of it random.
fn usual(folder: &Path) {
    part(folder, 0);
}

/// The same with other content for each seed.
fn part(folder: &Path, seed: u64) {
    let seed = seed * 1_000_000_000;
    for number in 0..3000 {
        let path = folder.join(format!("{}/{number}", number % 30));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = if number % 2 == 0 {
            noise(seed + number, 224_000)
        } else {
            prose((seed + number) as usize, 223_000)
        };
        fs::write(path, bytes).unwrap();
    }
    fs::write(folder.join("large"), noise(seed + 99_999, 315_000_000)).unwrap();
}

/// 31 of them are other ones now.
fn change(folder: &Path, round: u64) {
    for number in 0..31 {
        let number = number * 96;
        let path = folder.join(format!("{}/{number}", number % 30));
        fs::write(path, noise(number + 1_000_000 * (round + 1), 224_000)).unwrap();
    }
}

fn tiny(folder: &Path) {
    for number in 0..100_000 {
        let path = folder.join(format!("{}/{number}", number / 1000));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, noise(number, 1500)).unwrap();
    }
}

/// A repository of the mover and one of restic, side by side.
struct Two<'a> {
    minio: &'a Minio,
    home: Folder,
    source: std::path::PathBuf,
    location: String,
    repository: String,
}

impl<'a> Two<'a> {
    fn in_minio(minio: &'a Minio, name: &str, files: &Folder) -> Self {
        let endpoint = minio.endpoint();
        let location = format!("s3://{BUCKET}/{name}?endpoint={endpoint}");
        let repository = format!("s3:{endpoint}/{BUCKET}/{name}-restic");
        Self::new(
            minio,
            files,
            Folder::new("bench-volumes"),
            location,
            repository,
        )
    }

    fn in_folder(minio: &'a Minio, files: &Folder) -> Self {
        let home = Folder::new("bench-volumes");
        let location = format!("file://{}", home.join("ours").display());
        let repository = home.join("restic").display().to_string();
        Self::new(minio, files, home, location, repository)
    }

    fn new(
        minio: &'a Minio,
        files: &Folder,
        home: Folder,
        location: String,
        repository: String,
    ) -> Self {
        let two = Self {
            minio,
            source: files.join("source"),
            home,
            location,
            repository,
        };
        two.restic(&["init"]).ok();
        two
    }

    fn mover(&self, arguments: &[&str]) -> Backup {
        kubectl_backup(&[&["mover"], arguments].concat())
            .home(self.home.path())
            .credentials_of(self.minio)
            .location(&self.location)
    }

    fn restic(&self, arguments: &[&str]) -> Backup {
        program(tools::path("restic").to_str().unwrap(), arguments)
            .home(self.home.path())
            .env("AWS_ACCESS_KEY_ID", self.minio.access_key())
            .env("AWS_SECRET_ACCESS_KEY", self.minio.secret_key())
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD", PASSWORD)
    }

    fn source(&self) -> &str {
        self.source.to_str().unwrap()
    }

    /// One backup by each, of files that were written a moment ago.
    fn backup(&self) -> ([Duration; 2], u64, String) {
        let ours = ["backup", self.source(), "c/n/u", "--backup", "b"];
        let (ours, memory, said) = measured(self.mover(&ours), peak_of);
        let (theirs, their_memory, _) = measured(self.restic(&["backup", self.source()]), peak_of);
        say(&format!(
            "{}: {} MiB, restic {} MiB",
            self.location,
            memory >> 20,
            their_memory >> 20
        ));
        let snapshot = said.json()["snapshot"].as_str().unwrap().to_owned();
        ([ours, theirs], memory, snapshot)
    }

    fn restore(&self, snapshot: &str, round: usize) -> ([Duration; 2], u64) {
        let to = |who: &str| {
            let target = self.home.join(format!("{who}-{round}"));
            fs::create_dir(&target).unwrap();
            target
        };
        let (mine, theirs) = (to("ours"), to("theirs"));
        let text = mine.to_str().unwrap();
        let ours = ["restore", text, "c/n/u", "--snapshot", snapshot];
        let (ours, memory, _) = measured(self.mover(&ours), peak_of);
        let restore = ["restore", "latest", "--target", theirs.to_str().unwrap()];
        let (restic, _, _) = measured(self.restic(&restore), peak_of);
        for target in [mine, theirs] {
            fs::remove_dir_all(target).unwrap();
        }
        ([ours, restic], memory)
    }
}

fn row(table: &mut Table, work: &str, all: &[[Duration; 2]], budget: Budget) {
    say(&format!("{work}: {all:?}"));
    let [ours, theirs] = [0, 1].map(|who| median(all.iter().map(|both| both[who]).collect()));
    let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
    let peer = format!("restic 0.18.1: {}", seconds(theirs));
    table.row(work, ours, &peer, ratio, budget);
}

/// First, unchanged, 1 % changed, restored; then unchanged in a folder, 100,000 tiny files, and ten times as much for the memory it takes.
pub(super) fn beside_restic(minio: &'static Minio, table: &mut Table) {
    let most = changing(minio, table);
    in_a_folder(minio, table);
    many_tiny(minio, table);
    ten_times(minio, table, most);
}

/// The most memory that a backup took, in bytes.
fn changing(minio: &'static Minio, table: &mut Table) -> u64 {
    let files = files_by(usual);
    let mut times: [Vec<[Duration; 2]>; 4] = Default::default();
    let (mut peak, mut restored) = (0, 0);
    for round in 0..RUNS {
        let two = Two::in_minio(minio, &format!("volumes-{round}"), &files);
        let mut snapshot = String::new();
        for (step, times) in times.iter_mut().take(3).enumerate() {
            if step == 2 {
                change(&files.join("source"), round as u64);
            }
            let (time, memory, id) = two.backup();
            times.push(time);
            peak = peak.max(memory);
            snapshot = id;
        }
        let (time, memory) = two.restore(&snapshot, round);
        times[3].push(time);
        restored = restored.max(memory);
    }
    let works = [
        ("files of a volume, 985 MB in 3,001, to MinIO: first", 1.1),
        ("the same, unchanged", 0.9),
        ("the same, 1 % changed", 1.4),
        ("the same, restored", 1.6),
    ];
    for ((work, most), times) in works.into_iter().zip(&times) {
        row(table, work, times, AtMost(most));
    }
    let peer = format!("restoring: {}", mebibytes(restored));
    table.memory("peak memory of the mover, 985 MB", peak, &peer, 220 << 20);
    peak
}

fn in_a_folder(minio: &'static Minio, table: &mut Table) {
    let files = files_by(usual);
    let mut times: [Vec<[Duration; 2]>; 2] = Default::default();
    for _ in 0..RUNS {
        let two = Two::in_folder(minio, &files);
        for times in &mut times {
            times.push(two.backup().0);
        }
    }
    row(table, "the same, to a folder: first", &times[0], Shown);
    row(
        table,
        "the same, to a folder: unchanged",
        &times[1],
        AtMost(0.5),
    );
}

fn many_tiny(minio: &'static Minio, table: &mut Table) {
    let files = files_by(tiny);
    let mut times: [Vec<[Duration; 2]>; 2] = Default::default();
    for round in 0..RUNS {
        let two = Two::in_minio(minio, &format!("tiny-{round}"), &files);
        for times in &mut times {
            times.push(two.backup().0);
        }
    }
    row(
        table,
        "100,000 files of 1.5 kB: first",
        &times[0],
        AtMost(7.0),
    );
    row(table, "the same, unchanged", &times[1], Shown);
}

/// Memory may not grow with the volume.
fn ten_times(minio: &'static Minio, table: &mut Table, most: u64) {
    let files =
        files_by(|folder| (0..10).for_each(|seed| part(&folder.join(seed.to_string()), seed)));
    let two = Two::in_minio(minio, "ten-times", &files);
    let (time, memory, _) = two.backup();
    row(
        table,
        "9.85 GB in 30,010 files: first, once",
        &[time],
        Shown,
    );
    let peer = format!("985 MB: {}", mebibytes(most));
    table.memory(
        "peak memory of the mover, 9.85 GB",
        memory,
        &peer,
        most * 12 / 10,
    );
}

fn files_by(write: impl FnOnce(&Path)) -> Folder {
    let files = Folder::new("bench-files");
    fs::create_dir(files.join("source")).unwrap();
    write(&files.join("source"));
    files
}
