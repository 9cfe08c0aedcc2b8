//! What a command fails with, how it reads, and which exit code it is. Decides nothing else and prints nothing.

use std::error::Error as StdError;
use std::io;
use std::process::ExitCode;

use backup_core::{Error, Kind};

/// How the process ends: kept stable, scripts depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line was wrong.
    Usage = 2,
    /// It finished, and something is missing.
    Incomplete = 3,
    /// The user stopped it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Result of a command.
pub type Result<T, E = CommandError> = std::result::Result<T, E>;

/// An error on its way to the user.
#[derive(Debug)]
pub struct CommandError {
    error: Error,
    exit: Exit,
}

impl CommandError {
    /// The command line asks for something that can not be.
    pub fn usage(error: Error) -> Self {
        Self {
            error,
            exit: Exit::Usage,
        }
    }

    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether it says that something is not there.
    pub fn is_not_found(&self) -> bool {
        self.error.kind() == Kind::NotFound
    }

    /// The error below, for a library that goes on with it.
    pub fn into_error(self) -> Error {
        self.error
    }

    /// The error below.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Title, causes and hint, a line each; a cause whose text stands above already is left out, for many libraries
    /// print their source and expose it too.
    pub fn lines(&self) -> Vec<(Label, String)> {
        let mut seen = self.error.to_string();
        let mut lines = vec![(Label::Error, seen.clone())];
        let mut next = self.error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !text.is_empty() && !seen.contains(&text) {
                seen.push('\n');
                seen.push_str(&text);
                lines.push((Label::Cause, text));
            }
            next = cause.source();
        }
        if let Some(hint) = self.error.hint_text() {
            lines.push((Label::Hint, hint.to_owned()));
        }
        lines
    }
}

/// What a line of an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// `error: `
    Error,
    /// `  caused by: `
    Cause,
    /// `hint: `
    Hint,
}

impl Label {
    /// The text before the line.
    pub fn text(self) -> &'static str {
        match self {
            Self::Error => "error: ",
            Self::Cause => "  caused by: ",
            Self::Hint => "hint: ",
        }
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        let exit = if error.kind() == Kind::Interrupted {
            Exit::Interrupted
        } else {
            Exit::Failed
        };
        Self { error, exit }
    }
}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Error::other("can not write the output")
            .because(error)
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_the_line_above_contains_is_not_repeated() {
        let error = Error::other("can not list s3://b/p: access denied")
            .because(Error::other("access denied").because("status 403"))
            .hint("check the keys");
        let lines = CommandError::from(error).lines();
        assert_eq!(
            lines,
            [
                (
                    Label::Error,
                    "can not list s3://b/p: access denied".to_owned()
                ),
                (Label::Cause, "status 403".to_owned()),
                (Label::Hint, "check the keys".to_owned()),
            ]
        );
    }

    #[test]
    fn exit_codes_follow_who_is_at_fault() {
        let of = |kind| CommandError::from(Error::new(kind, "x")).exit();
        assert_eq!(of(Kind::NotFound), Exit::Failed);
        assert_eq!(of(Kind::Invalid), Exit::Failed);
        assert_eq!(of(Kind::Interrupted), Exit::Interrupted);
        assert_eq!(CommandError::usage(Error::invalid("x")).exit(), Exit::Usage);
    }
}
