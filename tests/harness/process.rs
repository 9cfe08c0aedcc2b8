//! Folders and child processes that are gone when the test is.
//!
//! A process is stopped by the pid it was started with, never by name. What `Drop` does not get to do, the
//! guardian does.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

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

/// A child that leads a process group of its own; dropping it kills the group.
///
/// It is reaped last: until then its number belongs to nobody else, so that what is killed is ours.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    id: String,
    ended: Option<ExitStatus>,
}

impl Group {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", shown(command)));
        let id = guardian::process_made(child.id());
        Self {
            child,
            id,
            ended: None,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn is_running(&self) -> bool {
        if self.ended.is_some() {
            return false;
        }
        // Asks without reaping. /proc would not do: while a program of many threads executes another one, as kubectl does, it shows
        // a zombie for a moment.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let ended = waitid(WaitId::Pid(Pid::from_child(&self.child)), options);
        matches!(ended, Ok(None))
    }

    /// Whether it ended by itself in time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        !self.is_running()
    }

    /// TERM, and after `patience` KILL for what is left of the group; no patience, no TERM.
    pub(crate) fn end(&mut self, patience: Duration) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let group = Pid::from_child(&self.child);
        if !patience.is_zero() {
            let _ = kill_process(group, Signal::TERM);
            self.wait(patience);
        }
        let _ = kill_process_group(group, Signal::KILL);
        let status = self.child.wait().expect("a child of ours");
        guardian::process_gone(&self.id);
        self.ended = Some(status);
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// A server that runs in the background and writes its log into a folder.
#[derive(Debug)]
pub struct Process {
    name: String,
    group: Group,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, which must not be touched by anybody else; its two streams go to `<name>.log`.
    pub fn start(name: &str, folder: &Folder, command: &Command) -> Self {
        Self::start_in(name, folder.path(), command)
    }

    /// The same in a folder that somebody else looks after.
    pub(crate) fn start_in(name: &str, folder: &Path, command: &Command) -> Self {
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
            .env("HOME", folder)
            .env("TMPDIR", folder);
        let given = command
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?)));
        shell.envs(given);
        shell
            .current_dir(command.get_current_dir().unwrap_or(folder))
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let mut group = Group::spawn(&mut shell);
        group.stdin().unwrap().write_all(b"go\n").unwrap();
        Self {
            name: name.to_owned(),
            group,
            log,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// Whether it ended by itself in time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.group.wait(timeout)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn has_ended(&self) -> bool {
        !self.group.is_running()
    }

    /// Fails the test with the end of the log when the process has ended.
    pub fn assert_runs(&self) {
        if self.has_ended() {
            panic!("{} has ended:\n{}", self.name, self.log_tail());
        }
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// KILL, for its whole process group.
    pub fn kill(mut self) {
        self.group.end(Duration::ZERO);
    }

    /// TERM, and KILL for what is left of its process group after five seconds.
    pub fn stop(&mut self) {
        self.group.end(Duration::from_secs(5));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
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

/// How long a command may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(300);

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

    /// Runs `command` to its end; fails the test when that does not come.
    pub fn with_stdin(command: &mut Command, stdin: Option<&[u8]>) -> Self {
        let shown = shown(command);
        let mut group = Group::spawn(
            command
                .stdin(stdin.map_or_else(Stdio::null, |_| Stdio::piped()))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        );
        let stdout = group.child.stdout.take().map(read_aside).unwrap();
        let stderr = group.child.stderr.take().map(read_aside).unwrap();
        if let (Some(bytes), Some(mut pipe)) = (stdin, group.stdin()) {
            let bytes = bytes.to_vec();
            // A program may end without reading: that is its right.
            thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let is_in_time = group.wait(PATIENCE);
        let code = code_of(group.end(Duration::ZERO));
        let output = Self {
            command: shown,
            code,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        };
        assert!(is_in_time, "no end after {PATIENCE:?}: {output:#?}");
        output
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

fn read_aside(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What has been said by the time of an error is still worth showing.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let arguments = command.get_args().map(OsStr::to_string_lossy);
    arguments.fold(name.into_owned(), |line, argument| line + " " + &argument)
}
