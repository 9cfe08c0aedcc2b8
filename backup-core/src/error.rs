//! The one error of the library: what failed, on what, what to do now, and the cause below.
//! It prints nothing and decides no exit code: `kind` lets the caller do that.

use std::error::Error as StdError;
use std::fmt;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A word as a shell takes it, for commands that hints suggest.
pub fn quoted(word: &str) -> std::borrow::Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', "'\\''")).into()
}

/// What sort of failure it is, as far as a caller may act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller asked for something that can not be: a bad name, selector, flag or file.
    Invalid,
    /// The named thing is not there.
    NotFound,
    /// The name is taken, or somebody else is at work on it.
    AlreadyExists,
    /// Who we are is not accepted (wrong keys, expired certificate).
    Unauthorized,
    /// Who we are may not do this.
    Forbidden,
    /// Nobody answers, or TLS can not be agreed on.
    Unreachable,
    /// What was read is not what was written: truncated, altered, or hostile.
    Corrupt,
    /// The user stopped it.
    Interrupted,
    /// Anything else.
    Other,
}

/// An error that answers: what failed, on which object, what to do now.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind; the message is lower case, names the object and has no full stop.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    /// Adds what the user can do now.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts a sentence of the caller above this error; kind and hint stay.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        Self {
            kind: self.kind,
            message: message.into(),
            hint: self.hint.clone(),
            source: Some(Box::new(Self { hint: None, ..self })),
        }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the user can do now, where that is known.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message and its causes in one line.
    pub(crate) fn one_line(&self) -> String {
        let mut text = self.to_string();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }

    /// All of it in one line, for the message of an object: the causes, and what to do.
    pub fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut next = StdError::source(self);
        while let Some(cause) = next {
            let said = cause.to_string();
            if !said.is_empty() && !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            next = cause.source();
        }
        match self.hint_text() {
            Some(hint) => format!("{text} ({hint})"),
            None => text,
        }
    }

    /// Short for `Error::new(Kind::Invalid, ..)`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Short for `Error::new(Kind::NotFound, ..)`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Short for `Error::new(Kind::Corrupt, ..)`.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// Short for `Error::new(Kind::Other, ..)`.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_tear_it_apart() {
        for plain in ["a", "/x/y-1_2.yaml", "s3://b/p", "user@cluster:1"] {
            assert_eq!(quoted(plain), plain);
        }
        assert_eq!(quoted("s3://b?a=1&b=2"), "'s3://b?a=1&b=2'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
