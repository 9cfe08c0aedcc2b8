//! A real terminal: tmux on a socket of its own, whose screen is read as its user sees it.

use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use crate::process::{Folder, Output, Process};
use crate::run::Backup;
use crate::{skip, wait_for};

/// How long something may take to stand on the screen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The shell says how a command ended, even where that ended the line.
const PROMPT: &str = "PS1=[ended $?] ";

/// A terminal with a shell in it; dropping it closes it, as closing a window does.
pub struct Terminal {
    folder: Folder,
    _server: Process,
    commands: Cell<u32>,
}

impl Terminal {
    /// Opens one of this size with a shell, `sh -i` with variables, in it; nothing, and reported as skipped, where there is no tmux.
    pub fn start(columns: u16, lines: u16, call: &Backup) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            skip::report("there is no tmux; `tests/tools/build packages` brings it");
            return None;
        }
        let folder = Folder::new("terminal");
        let socket = folder.join("socket");
        let mut server = Command::new("tmux");
        server
            .args(["-u", "-D", "-f", "/dev/null", "-S"])
            .arg(&socket);
        server.env("LANG", "C.UTF-8");
        let server = Process::start("tmux", &folder, &server);
        wait_for("tmux", PATIENCE, || {
            server.assert_runs();
            socket.exists().then_some(())
        });
        let terminal = Self {
            folder,
            _server: server,
            commands: Cell::new(0),
        };
        let size = (columns.to_string(), lines.to_string());
        let mut words = vec![
            "new-session",
            "-d",
            "-s",
            "main",
            "-x",
            &size.0,
            "-y",
            &size.1,
        ];
        let shell = call.words();
        words.extend(["--", "env", "-i", "TERM=screen", PROMPT]);
        words.extend(shell.iter().map(String::as_str));
        terminal.tmux(&words);
        Some(terminal)
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(self.folder.join("socket"));
        command
            .args(words)
            .env("LANG", "C.UTF-8")
            .env_remove("TMUX");
        Output::of(&mut command).ok()
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-t", "main", "-l", text]);
        self.press("Enter");
    }

    /// Presses a key by tmux's name for it, such as `C-c`.
    pub fn press(&self, key: &str) {
        self.tmux(&["send-keys", "-t", "main", key]);
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-t", "main"]).stdout
    }

    /// The same with the escapes that colour it.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-t", "main"])
            .stdout
    }

    /// Waits until this stands on the screen, and returns the screen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    #[track_caller]
    fn wait_until(&self, what: &str, is_there: impl Fn(&str) -> bool) -> String {
        let mut last = String::new();
        for _ in 0..PATIENCE.as_millis() / 50 {
            last = self.screen();
            if is_there(&last) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{what:?} did not come in {PATIENCE:?}:\n{last}");
    }

    /// Types a command, waits for its end with this exit code, and returns the screen, which holds nothing else.
    #[track_caller]
    pub fn run(&self, command: &str, code: i32) -> String {
        self.begin(command);
        self.ended(code)
    }

    /// Types a command, and waits until it has the screen for itself.
    #[track_caller]
    pub fn begin(&self, command: &str) {
        let number = self.commands.get() + 1;
        self.commands.set(number);
        // What is typed stands on the screen as well, and must not look like what is waited for.
        self.line(&format!(
            "clear; printf '[%s began]\\n' {number}; {command}"
        ));
        self.wait_for(&format!("[{number} began]"));
    }

    /// How the command ended, where it has.
    fn code(screen: &str) -> Option<&str> {
        let mut lines = screen.lines();
        lines.find_map(|line| line.strip_prefix("[ended ")?.strip_suffix(']'))
    }

    /// Whether the command is at its end.
    pub fn is_ended(&self) -> bool {
        Self::code(&self.screen()).is_some()
    }

    /// Waits for the end of the command with this exit code, and returns the screen.
    #[track_caller]
    pub fn ended(&self, code: i32) -> String {
        let screen = self.wait_until("the end", |screen| Self::code(screen).is_some());
        let ended = Self::code(&screen).unwrap_or_default();
        assert_eq!(ended, code.to_string(), "\n{screen}");
        screen
    }
}
