//! The sole owner of standard output and standard error: colour, progress, questions. Whatever is printed is stripped of
//! control characters first, for it may come from a cluster or a bucket. A reader that went away is no error.

mod progress;

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::Error;
use clap::ValueEnum;
use owo_colors::{OwoColorize, Style};

use crate::error::{CommandError, Exit, Label, Result};

/// More warnings than that are printed without a look at those before.
const MOST_REMEMBERED: usize = 10_000;

/// `--color`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where it is a terminal.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

impl Color {
    fn on(self, terminal: bool) -> bool {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => terminal && set("NO_COLOR").is_none() && !is_dumb(),
        }
    }
}

/// Whether the terminal only knows how to write line below line.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// The terminal, or what stands in its place.
#[derive(Debug)]
pub struct Ui {
    color_out: bool,
    color_err: bool,
    terminal_out: bool,
    terminal_err: bool,
    /// Whether a line on standard error can be drawn anew.
    bars: bool,
    quiet: bool,
    /// What the lines on standard error are about, where several things are done side by side.
    label: Option<String>,
    broken: AtomicBool,
    last_line: Arc<Mutex<progress::Line>>,
    warned: Mutex<HashSet<String>>,
}

impl Ui {
    /// The process's own streams.
    pub fn new(color: Color, quiet: bool) -> Self {
        let terminal_out = io::stdout().is_terminal();
        let terminal_err = io::stderr().is_terminal();
        Self {
            color_out: color.on(terminal_out),
            color_err: color.on(terminal_err),
            terminal_out,
            terminal_err,
            bars: terminal_err && !is_dumb(),
            quiet,
            label: None,
            broken: AtomicBool::new(false),
            last_line: Arc::default(),
            warned: Mutex::default(),
        }
    }

    /// The same streams for one of several things that are done side by side: each line on standard error says which, and progress is told in
    /// lines, for bars would draw over each other.
    #[must_use]
    pub fn labelled(&self, label: &str) -> Self {
        Self {
            bars: false,
            label: Some(clean(label).replace('\n', " ")),
            broken: AtomicBool::new(false),
            last_line: Arc::default(),
            warned: Mutex::default(),
            ..*self
        }
    }

    /// Text of a result: a line on standard output.
    ///
    /// # Errors
    /// When it can not be written; a closed pipe is none, see [`Ui::is_broken`].
    pub fn line(&self, text: &str) -> Result<()> {
        self.out(format!("{}\n", clean(text)).as_bytes())
    }

    /// Lines of a log on standard output.
    ///
    /// # Errors
    /// As [`Ui::line`].
    pub fn lines(&self, log: &[u8]) -> Result<()> {
        let mut log = clean(&String::from_utf8_lossy(log)).into_owned();
        if !log.is_empty() && !log.ends_with('\n') {
            log.push('\n');
        }
        self.out(log.as_bytes())
    }

    /// A table on standard output; phases may carry colour.
    ///
    /// # Errors
    /// As [`Ui::line`].
    pub fn table(&self, table: &crate::output::Table) -> Result<()> {
        self.out(table.render(self.color_out).as_bytes())
    }

    /// An object as it is, on standard output: control characters are stripped only where a terminal would obey them.
    ///
    /// # Errors
    /// As [`Ui::line`].
    pub fn data(&self, bytes: &[u8]) -> Result<()> {
        if self.terminal_out {
            self.out(clean(&String::from_utf8_lossy(bytes)).as_bytes())
        } else {
            self.out(bytes)
        }
    }

    /// Whether the reader of standard output went away: long output may stop.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn out(&self, bytes: &[u8]) -> Result<()> {
        if self.is_broken() {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let written = self.suspended(|| out.write_all(bytes).and_then(|()| out.flush()));
        match written {
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                self.broken.store(true, Ordering::Relaxed);
                Ok(())
            }
            written => Ok(written?),
        }
    }

    /// What the user may like to know, on standard error; not with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.err("", Style::new(), text);
        }
    }

    /// What the user should know, on standard error; a warning that came while the work went on is not repeated after it.
    pub fn warn(&self, text: &str) {
        let is_new = self.warned.lock().is_ok_and(|mut warned| {
            warned.len() >= MOST_REMEMBERED || warned.insert(text.to_owned())
        });
        if !is_new {
            return;
        }
        self.err("warning: ", Style::new().yellow().bold(), text);
    }

    /// What the user must be told even with `--quiet`, on standard error.
    pub fn say(&self, text: &str) {
        self.err("", Style::new(), text);
    }

    /// An error with its causes and its hint, on standard error.
    pub fn error(&self, error: &CommandError) {
        for (label, text) in error.lines() {
            // kubectl's own wording of a refusal stands by itself.
            if let (Label::Error, Some(rest)) = (label, text.strip_prefix("error from server")) {
                self.err("Error from server", Style::new().red().bold(), rest);
                continue;
            }
            let style = match label {
                Label::Error => Style::new().red().bold(),
                Label::Cause => Style::new().dimmed(),
                Label::Hint => Style::new().cyan(),
            };
            self.err(label.text(), style, &text);
        }
    }

    fn err(&self, label: &str, style: Style, text: &str) {
        let text = clean(text);
        let about = self.about();
        let line = if self.color_err && !label.is_empty() {
            format!("{about}{}{text}\n", label.style(style))
        } else {
            format!("{about}{label}{text}\n")
        };
        // Where standard error is gone there is nobody left to tell.
        let _ = self.suspended(|| io::stderr().lock().write_all(line.as_bytes()));
    }

    /// `eu: `
    fn about(&self) -> String {
        self.label
            .as_ref()
            .map_or_else(String::new, |label| format!("{label}: "))
    }

    /// Writes where no bar stands, and none comes meanwhile.
    fn suspended<T>(&self, write: impl FnOnce() -> T) -> T {
        let mut line = self.last_line.lock();
        if let Ok(line) = &mut line {
            line.clear();
        }
        write()
    }

    /// Asks before something that can not be undone. Without a terminal there is nobody to ask: `--yes` is needed.
    ///
    /// # Errors
    /// Where there is nobody to ask, and where the answer is no.
    pub fn confirm(&self, yes: bool, question: &str) -> Result<()> {
        if yes {
            return Ok(());
        }
        if !(io::stdin().is_terminal() && self.terminal_err) {
            return Err(CommandError::usage(
                Error::invalid(format!("there is no terminal to ask on: {question}"))
                    .hint("add --yes to go ahead"),
            ));
        }
        let mut answer = String::new();
        self.suspended(|| {
            let _ = write!(io::stderr().lock(), "{} [y/N] ", clean(question));
            io::stdin().lock().read_line(&mut answer)
        })?;
        if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
            Ok(())
        } else {
            Err(Error::other("nothing was changed: the answer was not yes").into())
        }
    }
}

/// What clap has to say: help on standard output, a refused command line on standard error.
pub fn print_usage(refused: &clap::Error, color: Color) -> Exit {
    let wrong = refused.use_stderr();
    let terminal = if wrong {
        io::stderr().is_terminal()
    } else {
        io::stdout().is_terminal()
    };
    let text = refused.render();
    let text = if color.on(terminal) {
        text.ansi().to_string()
    } else {
        text.to_string()
    };
    // A closed pipe here is as quiet as anywhere else.
    let _ = if wrong {
        io::stderr().lock().write_all(text.as_bytes())
    } else {
        io::stdout().lock().write_all(text.as_bytes())
    };
    if wrong { Exit::Usage } else { Exit::Done }
}

/// Text without what a terminal would obey: control characters but for line ends and tabs, and the marks that turn
/// the direction of writing.
pub fn clean(text: &str) -> Cow<'_, str> {
    let bad = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.contains(bad) {
        Cow::Owned(text.chars().filter(|c| !bad(*c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_stripped() {
        assert_eq!(
            clean("a\u{1b}[31mb\u{7}\r\nc\td\u{9b}e\u{202e}\u{200f}"),
            "a[31mb\nc\tde"
        );
        assert!(matches!(clean("plain ä 字"), Cow::Borrowed(_)));
    }

    #[test]
    fn without_a_terminal_a_destructive_verb_needs_yes() {
        let ui = Ui::new(Color::Never, true);
        assert!(ui.confirm(true, "delete?").is_ok());
        if !io::stdin().is_terminal() {
            let refused = ui.confirm(false, "delete?").unwrap_err();
            assert_eq!(refused.exit(), Exit::Usage);
        }
    }
}
