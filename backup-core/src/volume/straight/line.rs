//! What the two sides say: a JSON object a line, bounded, and nothing that is not known. Neither side believes the other: what is told is bounded again where it is used.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::BackupStorageLocation;
use crate::error::{Error, Kind, Result};
use crate::location::lend::LentKeys;

/// What is said first has it; another one is refused before anything is written.
pub(super) const VERSION: u32 = 1;

/// No line is longer, in bytes: the certificates of a location are the most that one holds.
pub(super) const LONGEST: usize = 1 << 20;

/// A text that is for people is not longer, in characters.
const LONGEST_TEXT: usize = 2000;

/// So many causes are told.
const CAUSES: usize = 8;

/// A password, as it goes over a line.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Word(pub(super) String);

/// Without it.
impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a password")
    }
}

/// What the run says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum ToPod {
    /// First, and once.
    Begin(Box<Begin>),
    /// The store was reached: now it is written to.
    Go,
    /// Newer keys than those before.
    Credentials(LentKeys),
    /// Answers [`ToRun::Password`].
    Password(Result<Option<Word>, Told>),
    /// Answers [`ToRun::Make`].
    Made(Result<Made, Told>),
    /// Answers [`ToRun::Same`].
    Same(Result<(), Told>),
    /// Somebody is there.
    Beat,
    /// Nothing more is to be written, and the claim is to go.
    Stop,
}

/// What is archived, where to, and with what.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Begin {
    pub(super) version: u32,
    pub(super) location: BackupStorageLocation,
    pub(super) credentials: LentKeys,
    /// `CLUSTER/NAMESPACE/UID`
    pub(super) volume: String,
    /// Its repositories that are known: of the namespace's folder these credentials list nothing.
    pub(super) repositories: Vec<u32>,
    /// For whom its keys are encrypted, one a line; nobody, where they stand in the clear.
    pub(super) recipients: String,
    pub(super) backup: String,
    pub(super) backup_uid: String,
    /// Who makes the backup, for the claim.
    pub(super) host: String,
    /// Whether a pod is kept quiet meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) quiet: bool,
}

/// A fresh password and its sealed form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Made {
    pub(super) password: Word,
    /// Base64.
    pub(super) sealed: String,
}

/// What the pod says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum ToRun {
    /// The store answers to these credentials from here. Nothing is written before [`ToPod::Go`].
    Reached,
    /// It does not, or can not be begun with; nothing was written, and the pod's side has ended.
    Refused(Told),
    /// Asks for the password whose sealed form has this digest.
    Password(String),
    /// Asks for a fresh one.
    Make,
    /// Asks whether the volume still is the one that is meant.
    Same,
    /// So many bytes were read so far.
    Progress(u64),
    /// The snapshot stands. The last line.
    Saved(SavedText),
    /// There is none, and why. The last line.
    Failed(Told),
}

/// A snapshot, as it is told.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SavedText {
    pub(super) repository: u32,
    pub(super) snapshot: String,
    pub(super) base: Option<String>,
    pub(super) run: String,
    pub(super) entries: u64,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) read_bytes: u64,
    pub(super) added_bytes: u64,
    pub(super) changed: u64,
    pub(super) vanished: u64,
    pub(super) begun_because: Option<String>,
}

/// An error, as it is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Told {
    kind: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    causes: Vec<String>,
}

const KINDS: [(Kind, &str); 9] = [
    (Kind::Invalid, "invalid"),
    (Kind::NotFound, "notFound"),
    (Kind::AlreadyExists, "alreadyExists"),
    (Kind::Unauthorized, "unauthorized"),
    (Kind::Forbidden, "forbidden"),
    (Kind::Unreachable, "unreachable"),
    (Kind::Corrupt, "corrupt"),
    (Kind::Interrupted, "interrupted"),
    (Kind::Other, "other"),
];

/// A text of the other side, for people.
pub(super) fn shown(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(LONGEST_TEXT).collect()
}

impl From<&Error> for Told {
    fn from(error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next
            && causes.len() < CAUSES
        {
            causes.push(shown(&cause.to_string()));
            next = cause.source();
        }
        let kind = KINDS.iter().find(|(kind, _)| *kind == error.kind());
        Self {
            kind: kind.map_or("other", |(_, word)| word).to_owned(),
            message: shown(&error.to_string()),
            hint: error.hint_text().map(shown),
            causes,
        }
    }
}

impl From<Told> for Error {
    fn from(told: Told) -> Self {
        let kind = KINDS.iter().find(|(_, word)| *word == told.kind);
        let kind = kind.map_or(Kind::Other, |(kind, _)| *kind);
        let mut below: Option<Self> = None;
        for cause in told.causes.iter().take(CAUSES).rev() {
            let error = Self::other(shown(cause));
            below = Some(match below {
                Some(below) => error.because(below),
                None => error,
            });
        }
        let mut error = Self::new(kind, shown(&told.message));
        if let Some(hint) = &told.hint {
            error = error.hint(shown(hint));
        }
        match below {
            Some(below) => error.because(below),
            None => error,
        }
    }
}

/// A line.
///
/// # Errors
/// What is longer than a line may be.
pub(super) fn written(message: &impl Serialize) -> Result<Vec<u8>> {
    // What is wrong with it is not repeated: it may hold keys.
    let line = serde_json::to_vec(message);
    let mut line = line.map_err(|_| Error::other("a line can not be written"))?;
    if line.len() > LONGEST {
        return Err(Error::invalid(
            "what is to be said is longer than a line may be",
        ));
    }
    line.push(b'\n');
    Ok(line)
}

/// Bytes of the other side, as they come, and the lines that they are.
#[derive(Default)]
pub(super) struct Lines {
    held: Vec<u8>,
    /// So much of it was looked at, and holds no end of a line.
    seen: usize,
}

impl Lines {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole line, where it has come.
    ///
    /// # Errors
    /// `Corrupt`: one that is too long, or says what is not known.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let end = self.held[self.seen..].iter().position(|b| *b == b'\n');
        let length = end.map_or(self.held.len(), |end| self.seen + end);
        if length > LONGEST {
            return Err(Error::corrupt("the other side says more than a line holds"));
        }
        if end.is_none() {
            self.seen = length;
            return Ok(None);
        }
        let read = serde_json::from_slice(&self.held[..length]);
        self.held.drain(..=length);
        self.seen = 0;
        // What it was is not repeated: it may hold keys.
        read.map(Some)
            .map_err(|_| Error::corrupt("the other side says what is not known here").hint("both sides have to be of one version of kubectl-backup: look at the image of the movers"))
    }
}
