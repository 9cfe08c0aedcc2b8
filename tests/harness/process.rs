//! Folders and child processes that are gone when the test is.
//!
//! A process is stopped by the pid it was started with, never by name. What `Drop` does not get to do, the
//! guardian does.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::guardian;

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new(what: &str) -> Self {
        let path = tempfile::Builder::new()
            .prefix(&format!("kubectl-backup-{what}-"))
            .tempdir_in(env::temp_dir())
            .expect("a temporary folder")
            .keep();
        guardian::folder_made(&path);
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only its owner may read: most of what tests write here is a credential.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        file.write_all(content.as_ref()).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A process that was just killed may still have written a file: the guardian tries again at the end.
        if fs::remove_dir_all(&self.path).is_ok() {
            guardian::folder_gone(&self.path);
        }
    }
}

/// A server that runs in the background and writes its log into a folder.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    id: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which must not be touched by anybody else; its two streams go to `<name>.log`.
    pub fn start(name: &str, folder: &Folder, command: &Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        // The shell waits until the guardian knows its pid, and then becomes the program: no moment is left in
        // which we could die and leave it behind.
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", r#"read -r go || exit 1; exec "$@" </dev/null"#, "sh"])
            .arg(command.get_program())
            .args(command.get_args());
        // Whoever runs the tests has settings of their own, and none of them is for these servers.
        shell
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path());
        let given = command
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?)));
        shell.envs(given);
        let mut child = shell
            .current_dir(command.get_current_dir().unwrap_or(folder.path()))
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let id = guardian::process_made(child.id());
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        Self {
            name: name.to_owned(),
            child,
            id,
            log,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails the test with the end of the log when the process has ended.
    pub fn assert_runs(&mut self) {
        if self.has_ended() {
            panic!("{} has ended:\n{}", self.name, self.log_tail());
        }
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// TERM, and KILL for what is left of its process group after five seconds.
    pub fn stop(&mut self) {
        end(&mut self.child, &self.id, Duration::from_secs(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ends a child that leads its process group, and reaps it.
pub(crate) fn end(child: &mut Child, id: &str, patience: Duration) -> Option<ExitStatus> {
    let group = Pid::from_raw(child.id() as i32);
    if let Ok(None) = child.try_wait() {
        if !patience.is_zero() {
            let _ = group.map(|group| kill_process(group, Signal::TERM));
        }
        let deadline = Instant::now() + patience;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = child.try_wait();
    }
    // While the group has members its number is not given to a new process, so this reaches only ours.
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
    let status = child.wait().ok();
    guardian::process_gone(id);
    status
}

/// How a process ended: its exit code, or 128 and the signal, as a shell reports it.
pub(crate) fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// A place for the pid of a process that is to be killed later, from somewhere else.
#[derive(Debug, Default)]
pub struct PidSlot(AtomicU32);

impl PidSlot {
    pub fn set(&self, pid: u32) {
        self.0.store(pid, Ordering::SeqCst);
    }

    /// Sends KILL once; returns whether there was a process to send it to.
    pub fn kill(&self) -> bool {
        let pid = self.0.swap(0, Ordering::SeqCst) as i32;
        Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }
}

/// The end of a command whose output matters: exit code and both streams.
#[derive(Debug, Clone)]
pub struct Output {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Runs `command` to its end, with nothing on stdin.
    pub fn of(command: &mut Command) -> Self {
        Self::with_stdin(command, None)
    }

    pub fn with_stdin(command: &mut Command, stdin: Option<&[u8]>) -> Self {
        let shown = shown(command);
        let mut child = command
            .stdin(if stdin.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let id = guardian::process_made(child.id());
        let feeder = stdin.map(|bytes| {
            let mut pipe = child.stdin.take().unwrap();
            let bytes = bytes.to_vec();
            // A program may end without reading: that is its right.
            thread::spawn(move || drop(pipe.write_all(&bytes)))
        });
        let output = child.wait_with_output().expect("the end of a command");
        guardian::process_gone(&id);
        if let Some(feeder) = feeder {
            feeder.join().unwrap();
        }
        Self {
            command: shown,
            code: code_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test, with both streams, unless the exit code was 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Fails the test, with both streams, unless the exit code was `expected`.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert!(
            self.code == expected,
            "{} ended with {}, not with {expected}\n--- stdout\n{}\n--- stderr\n{}",
            self.command,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", self.command, self.stdout))
    }
}

pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(OsStr::to_string_lossy);
    arguments.fold(name.into_owned(), |line, argument| line + " " + &argument)
}
