//! Runs the product as a user would: as a program, in an environment that holds only what the test gives it.
//!
//! Nothing of the developer's own settings leaks in: no home, no kubeconfig, no cloud credentials, no proxy.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use std::{env, fs};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::process::{self, Folder, Group, Output, PidSlot};
use crate::store::Minio;
use crate::tools;

/// A call of `kubectl-backup` with these arguments.
pub fn kubectl_backup<A: AsRef<OsStr>>(arguments: &[A]) -> Backup {
    let mut command = Command::new(tools::plugin());
    command.args(arguments);
    Backup::new(command, None)
}

/// The same call the way kubectl makes it: `kubectl backup`, found in PATH.
pub fn through_kubectl<A: AsRef<OsStr>>(arguments: &[A]) -> Backup {
    let mut command = Command::new(tools::path("kubectl"));
    command.arg("backup").args(arguments);
    Backup::new(command, tools::plugin().parent())
}

/// A call of `etcd-launcher` with these arguments.
pub fn etcd_launcher<A: AsRef<OsStr>>(arguments: &[A]) -> Backup {
    let mut command = Command::new(tools::launcher());
    command.args(arguments);
    Backup::new(command, None)
}

/// Another program in the same clean environment, such as a shell that starts the plugin.
pub fn program<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> Backup {
    let mut command = Command::new(name);
    command.args(arguments);
    Backup::new(command, None)
}

/// A call that is being prepared.
pub struct Backup {
    command: Command,
    stdin: Option<Vec<u8>>,
}

impl Backup {
    fn new(mut command: Command, plugin_folder: Option<&Path>) -> Self {
        // One home for all calls of a test process: what the plugin keeps there may not change its answers.
        static HOME: OnceLock<Folder> = OnceLock::new();
        let home = HOME.get_or_init(|| Folder::new("home")).path();
        let mut search: Vec<PathBuf> = plugin_folder.map(PathBuf::from).into_iter().collect();
        search.extend(["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from));
        command
            .env_clear()
            .env("PATH", env::join_paths(search).unwrap())
            .env("HOME", home)
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("TMPDIR", env::temp_dir())
            .env("LANG", "C.UTF-8")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(home);
        if env::var_os("KUBECTL_BACKUP_TEST_BACKTRACE").is_some() {
            command.env("RUST_BACKTRACE", "1");
        }
        Self {
            command,
            stdin: None,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: &[A]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// A home of the test's own, for what the plugin reads or keeps there.
    pub fn home(mut self, home: &Path) -> Self {
        self.command.env("HOME", home).current_dir(home);
        for name in [
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
            "XDG_STATE_HOME",
        ] {
            self.command.env_remove(name);
        }
        self
    }

    pub fn current_dir(mut self, folder: &Path) -> Self {
        self.command.current_dir(folder);
        self
    }

    pub fn kubeconfig(self, path: &Path) -> Self {
        self.env("KUBECONFIG", path)
    }

    /// `--location` with this value: a URL or the name of a stored one.
    pub fn location(self, location: &str) -> Self {
        self.arg("--location").arg(location)
    }

    /// The keys, region and authority of a store, in the variables every S3 tool reads.
    pub fn credentials_of(self, minio: &Minio) -> Self {
        let call = self
            .env("AWS_ACCESS_KEY_ID", minio.access_key())
            .env("AWS_SECRET_ACCESS_KEY", minio.secret_key())
            .env("AWS_REGION", minio.region())
            .env("AWS_ENDPOINT_URL", minio.endpoint());
        match minio.ca_file() {
            Some(ca) => call.env("AWS_CA_BUNDLE", ca),
            None => call,
        }
    }

    pub fn stdin(mut self, content: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(content.into());
        self
    }

    /// Its variables, program and arguments, as `env` takes them.
    pub(crate) fn words(&self) -> Vec<String> {
        let text = |text: &OsStr| text.to_str().expect("UTF-8").to_owned();
        let variables = self.command.get_envs();
        let set = variables.filter_map(|(key, value)| Some((text(key), text(value?))));
        let mut words: Vec<String> = set.map(|(key, value)| format!("{key}={value}")).collect();
        words.push(text(self.command.get_program()));
        words.extend(self.command.get_args().map(text));
        words
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Run {
        Output::with_stdin(&mut self.command, self.stdin.as_deref())
    }

    /// Runs it and fails the test, with both streams, unless it succeeds.
    #[track_caller]
    pub fn ok(self) -> Run {
        self.run().ok()
    }

    /// Runs it and fails the test, with both streams, unless it ends with this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Run {
        self.run().code(code)
    }

    /// Starts it, to be watched, fed or killed; its streams go to files.
    pub fn spawn(mut self) -> Running {
        let folder = Folder::new("run");
        let shown = process::shown(&self.command);
        let stream = |name: &str| File::create(folder.join(name)).unwrap();
        let mut group = Group::spawn(
            self.command
                .stdin(Stdio::piped())
                .stdout(stream("stdout"))
                .stderr(stream("stderr")),
        );
        let mut stdin = group.stdin();
        if let Some(content) = self.stdin {
            let _ = stdin.take().unwrap().write_all(&content);
        }
        Running {
            group,
            stdin,
            shown,
            folder,
        }
    }
}

/// What came of a call.
pub type Run = Output;

/// A call that is under way; dropping it kills it.
pub struct Running {
    group: Group,
    /// Its standard input, open until taken and dropped, unless [`Backup::stdin`] gave it all.
    pub stdin: Option<ChildStdin>,
    shown: String,
    folder: Folder,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// Lets something else, as a rule of a proxy, kill it.
    pub fn killed_by(&self, slot: &PidSlot) {
        slot.set(self.pid());
    }

    pub fn stdout(&self) -> String {
        fs::read_to_string(self.folder.join("stdout")).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.folder.join("stderr")).unwrap_or_default()
    }

    /// Sends it a signal, as Ctrl-C does with `Signal::INT`.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; fails the test when that takes longer than `timeout`.
    #[track_caller]
    pub fn wait(mut self, timeout: Duration) -> Run {
        drop(self.stdin.take());
        assert!(
            self.group.wait(timeout),
            "{} still runs after {timeout:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.shown,
            self.stdout(),
            self.stderr()
        );
        self.kill()
    }

    /// Kills it as the kernel would when memory is short, and returns what it had said by then.
    pub fn kill(mut self) -> Run {
        let status = self.group.end(Duration::ZERO);
        Run {
            command: self.shown.clone(),
            code: process::code_of(status),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}
