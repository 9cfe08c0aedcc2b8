//! What is written on a volume when it is full: for which claim of which restore it is kept. Pure.

use crate::location::sha256;

/// Such a note: `<restore>/<backup's uid>/<namespace>/<claim>/<claim's uid>/<snapshot>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// The restore's name.
    pub(super) restore: String,
    pub(super) backup_uid: String,
    /// The claim, in the target.
    pub(super) namespace: String,
    pub(super) claim: String,
    /// The uid of that claim.
    pub(super) uid: String,
    pub(super) snapshot: String,
}

impl Note {
    /// As it is written.
    pub(super) fn text(&self) -> String {
        let parts = [
            &self.restore,
            &self.backup_uid,
            &self.namespace,
            &self.claim,
            &self.uid,
            &self.snapshot,
        ];
        parts.map(String::as_str).join("/")
    }

    /// The name of the claim under which it was filled.
    pub(super) fn staging(&self) -> String {
        let parts = [
            &self.restore,
            &self.backup_uid,
            &self.snapshot,
            &self.namespace,
            &self.claim,
        ];
        let digest = sha256(parts.map(String::as_str).join("\n").as_bytes());
        format!("restore-{}", &digest[..16])
    }

    /// Reads one; nothing of what this version does not write.
    pub(super) fn read(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let [restore, backup_uid, namespace, claim, uid, snapshot] = parts[..] else {
            return None;
        };
        let is_whole = parts.iter().all(|part| !part.is_empty());
        is_whole.then(|| Self {
            restore: restore.to_owned(),
            backup_uid: backup_uid.to_owned(),
            namespace: namespace.to_owned(),
            claim: claim.to_owned(),
            uid: uid.to_owned(),
            snapshot: snapshot.to_owned(),
        })
    }

    /// Whether a text is of a restore of this name, as far as versions before this one wrote it.
    pub(super) fn is_named(text: &str, restore: &str) -> bool {
        text.strip_prefix(restore)
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_nothing_else_is() {
        let note = Note {
            restore: "again".into(),
            backup_uid: "b".into(),
            namespace: "n".into(),
            claim: "data".into(),
            uid: "u".into(),
            snapshot: "5".into(),
        };
        assert_eq!(note.text(), "again/b/n/data/u/5");
        assert_eq!(Note::read(&note.text()), Some(note));
        for text in [
            "",
            "again/n/data/u/5",
            "again/b/n/data//5",
            "again/b/n/data/u/5/6",
        ] {
            assert_eq!(Note::read(text), None, "{text}");
        }
        assert!(Note::is_named("again/n/data/u/5", "again"));
        assert!(!Note::is_named("again2/n/data/u/5", "again"));
    }
}
