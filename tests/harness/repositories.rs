//! Repositories of volumes as stories make them, and restic, which has to find no fault in any of them. What stands in a bucket when its story ends is looked at here, whoever looked
//! before: no story says by itself that its repositories are whole, and no two of them may have one password. Both numbers go to the file that `KUBECTL_BACKUP_REPOSITORIES` names, so that a run can end with them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::{env, thread};

use crate::process::{Folder, Output};
use crate::store::Minio;
use crate::tools;

/// Where repositories are.
#[derive(Clone, Copy)]
pub enum Bucket<'a> {
    /// A folder.
    Folder(&'a Path),
    /// A bucket of this name.
    Minio(&'a Minio, &'a str),
}

impl Bucket<'_> {
    /// Its keys, or those below a folder of it.
    fn keys(self, below: &str) -> Vec<String> {
        match self {
            Self::Minio(minio, bucket) => minio.list(bucket, below),
            Self::Folder(root) => {
                let mut keys = Vec::new();
                list(root, &root.join(below), &mut keys);
                keys.sort();
                keys
            }
        }
    }

    fn find(self, key: &str) -> Option<Vec<u8>> {
        match self {
            Self::Minio(minio, bucket) => minio.try_get(bucket, key).map(|bytes| bytes.to_vec()),
            Self::Folder(root) => fs::read(root.join(key)).ok(),
        }
    }

    /// Those that stand: `P/restic/CLUSTER/NAMESPACE/UID`, and what has a configuration there.
    fn repositories(self) -> Vec<String> {
        let keys = self.keys("");
        let configs = keys.iter().filter_map(|key| key.strip_suffix("/config"));
        let is_one = |place: &&str| place.rsplit('/').nth(3) == Some("restic");
        configs.filter(is_one).map(str::to_owned).collect()
    }

    /// restic 0.18.1 on the repository at this key, with what this file holds as its password.
    pub fn restic(self, repository: &str, password: &Path, words: &[&str]) -> Output {
        self.restic_of(&tools::path("restic"), repository, password, words)
    }

    /// The same with another program than the pinned one.
    fn restic_of(
        self,
        program: &Path,
        repository: &str,
        password: &Path,
        words: &[&str],
    ) -> Output {
        let mut command = Command::new(program);
        command.env_clear();
        let place = match self {
            Self::Folder(root) => root.join(repository).display().to_string(),
            Self::Minio(minio, bucket) => {
                command
                    .env("AWS_ACCESS_KEY_ID", minio.access_key())
                    .env("AWS_SECRET_ACCESS_KEY", minio.secret_key());
                format!("s3:{}/{bucket}/{repository}", minio.endpoint())
            }
        };
        command.args(["-r", &place, "--no-cache", "--no-lock", "-p"]);
        Output::of(command.arg(password).args(words))
    }

    /// restic reads every byte of it and finds no fault.
    #[track_caller]
    fn is_sound(self, repository: &str, password: &Path) {
        self.is_sound_for(&tools::path("restic"), repository, password);
    }

    #[track_caller]
    fn is_sound_for(self, program: &Path, repository: &str, password: &Path) {
        let words = ["check", "--read-data"];
        let said = self.restic_of(program, repository, password, &words);
        let said = said.ok().stdout;
        assert!(said.contains("no errors were found"), "{said}");
    }

    /// Another restic than the pinned one reads every byte of the repository as well, and brings this snapshot back into a folder.
    #[track_caller]
    pub fn comes_back_by(
        self,
        program: &Path,
        (repository, password): (&str, &Path),
        snapshot: &str,
        target: &Path,
    ) {
        self.is_sound_for(program, repository, password);
        let words = ["restore", snapshot, "--target", target.to_str().unwrap()];
        self.restic_of(program, repository, password, &words).ok();
    }
}

fn list(root: &Path, folder: &Path, keys: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, keys);
        } else if let Ok(key) = path.strip_prefix(root) {
            keys.push(key.display().to_string());
        }
    }
}

/// Notes one for the end of all tests.
fn count(what: &str, repository: &str) {
    let Some(path) = env::var_os("KUBECTL_BACKUP_REPOSITORIES") else {
        return;
    };
    let story = thread::current();
    let story = story.name().unwrap_or("a story");
    let line = format!("{what} {story}: {repository}\n");
    let file = File::options().create(true).append(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// What restic found in the repositories of a story, and what the story did to them.
#[derive(Debug, Default)]
pub struct Repositories {
    /// By its key, what stood in it when restic read all of it and brought a snapshot back. What it is made of is named by its content.
    whole: Mutex<BTreeMap<String, Vec<String>>>,
    damaged: Mutex<BTreeMap<String, &'static str>>,
    identity: Option<PathBuf>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Repositories {
    /// Those whose keys are encrypted are opened with the identity in this file.
    pub fn opened_by(identity: PathBuf) -> Self {
        Self {
            identity: Some(identity),
            ..Self::default()
        }
    }

    /// restic reads every byte of the repository, and brings this snapshot back into a folder.
    #[track_caller]
    pub fn comes_back(
        &self,
        bucket: Bucket<'_>,
        (repository, password): (&str, &Path),
        snapshot: &str,
        target: &Path,
    ) {
        bucket.is_sound(repository, password);
        let target = target.to_str().unwrap();
        let words = ["restore", snapshot, "--target", target];
        bucket.restic(repository, password, &words).ok();
        let stands = bucket.keys(repository);
        locked(&self.whole).insert(repository.to_owned(), stands);
    }

    /// The story leaves it damaged, and says why: it counts as such.
    pub fn damages(&self, repository: &str, why: &'static str) {
        locked(&self.damaged).insert(repository.to_owned(), why);
    }

    /// The end of a story: restic finds no fault in whatever stands in the bucket, and brings its newest snapshot back, unless it did so since anything changed there.
    pub fn all_are_whole(&self, bucket: Bucket<'_>) {
        // A story that failed has said so.
        if !thread::panicking() {
            self.look(bucket, &mut count);
        }
    }

    /// The same for a test of it: told of are those that were `made`, and those that are `whole` or `damaged`.
    pub fn look(&self, bucket: Bucket<'_>, tell: &mut dyn FnMut(&str, &str)) {
        let all = bucket.repositories();
        all.iter().for_each(|repository| tell("made", repository));
        let mut passwords = BTreeMap::new();
        for repository in &all {
            if let Some(why) = locked(&self.damaged).remove(repository) {
                tell("damaged", &format!("{repository}, for {why}"));
                continue;
            }
            let password = self.password(bucket, repository);
            if locked(&self.whole).get(repository) != Some(&bucket.keys(repository)) {
                self.is_whole(bucket, repository, &password);
            }
            if let Some(other) = passwords.insert(password, repository) {
                panic!("{repository} has the password of {other}");
            }
            tell("whole", repository);
        }
        // Those that went with their last backup, when restic had looked at them.
        for repository in locked(&self.whole).keys() {
            if !all.contains(repository) {
                tell("made", repository);
                tell("whole", repository);
            }
        }
        let unknown = locked(&self.damaged).clone();
        assert!(unknown.is_empty(), "no repository stands at {unknown:?}");
    }

    fn is_whole(&self, bucket: Bucket<'_>, repository: &str, password: &[u8]) {
        let home = Folder::new("restic");
        let password = home.write("password", password);
        let listed = bucket.restic(repository, &password, &["snapshots", "--json"]);
        if listed.ok().json() == serde_json::json!([]) {
            // That of a run that ended before its first snapshot: what it stored is sound, and nothing is to be brought back.
            bucket.is_sound(repository, &password);
            return;
        }
        let target = home.join("back");
        self.comes_back(bucket, (repository, &password), "latest", &target);
        assert!(target.exists(), "nothing came back of {repository}");
    }

    /// As it stands beside the repository, or encrypted for the story's identity.
    pub fn password(&self, bucket: Bucket<'_>, repository: &str) -> Vec<u8> {
        if let Some(password) = bucket.find(&format!("{repository}.key")) {
            return password;
        }
        let sealed = bucket.find(&format!("{repository}.key.age"));
        let sealed = sealed.unwrap_or_else(|| panic!("{repository} has no key"));
        let identity = self.identity.as_ref().expect("an identity of the story");
        let home = Folder::new("sealed-key");
        let mut age = Command::new(tools::path("age"));
        let age = age.arg("-d").arg("-i").arg(identity);
        let opened = Output::of(age.arg(home.write("key.age", sealed)));
        opened.ok().stdout.into_bytes()
    }
}
