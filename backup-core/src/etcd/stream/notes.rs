//! What is kept of the pages that went by: a few bytes each, and their entries and children packed.

use super::super::bolt::Fault;

/// Bytes that the packed entries may take, and the packed children.
const MOST: usize = 32 << 20;

/// Bytes that are allocated at a time: nothing is copied when there are more.
const CHUNK: usize = 1 << 20;

/// What a block may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing that a tree consists of.
    Nothing,
    /// A branch.
    Branch,
    /// A leaf whose keys are revisions.
    Revisions,
    /// Any other leaf.
    Leaf,
    /// A leaf whose overflow could not be kept track of.
    Unread,
    /// Nothing that may be reached; why is in the note.
    Bad(Fault),
}

/// What is kept of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    /// The greatest revision of a leaf of revisions.
    pub last: i64,
    /// Where its entries or its children are packed.
    pub packed: Option<Packed>,
    pub overflow: u32,
    pub count: u16,
    kind: u8,
}

const _: () = assert!(size_of::<Note>() <= 32);

/// A place in a [`Pack`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed(std::num::NonZeroU32);

/// The notes of all pages, by number.
#[derive(Debug, Default)]
pub(super) struct Notes {
    chunks: Vec<Vec<Note>>,
    faults: Vec<Fault>,
}

/// Notes that are allocated at a time.
const NOTES: usize = 1 << 15;

/// Kinds below this are no faults.
const FAULTS: u8 = 8;

impl Notes {
    /// How many pages went by.
    pub(super) fn len(&self) -> u64 {
        let full = self.chunks.len().saturating_sub(1) * NOTES;
        (full + self.chunks.last().map_or(0, Vec::len)) as u64
    }

    pub(super) fn push(&mut self, kind: Kind, count: u16, overflow: u32) {
        let note = Note {
            last: 0,
            packed: None,
            overflow,
            count,
            kind: self.code(kind),
        };
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < NOTES => chunk.push(note),
            _ => {
                let mut chunk = Vec::with_capacity(NOTES);
                chunk.push(note);
                self.chunks.push(chunk);
            }
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<(Kind, &Note)> {
        let id = usize::try_from(id).ok()?;
        let note = self.chunks.get(id / NOTES)?.get(id % NOTES)?;
        Some((self.kind(note.kind), note))
    }

    /// Completes the note of a page whose overflow went by.
    pub(super) fn set(&mut self, id: u64, kind: Kind, last: i64, packed: Option<Packed>) {
        let code = self.code(kind);
        let id = id as usize;
        if let Some(note) = self
            .chunks
            .get_mut(id / NOTES)
            .and_then(|chunk| chunk.get_mut(id % NOTES))
        {
            note.kind = code;
            note.last = last;
            note.packed = packed;
        }
    }

    fn code(&mut self, kind: Kind) -> u8 {
        let fault = match kind {
            Kind::Nothing => return 0,
            Kind::Branch => return 1,
            Kind::Revisions => return 2,
            Kind::Leaf => return 3,
            Kind::Unread => return 4,
            Kind::Bad(fault) => fault,
        };
        let known = self.faults.iter().position(|known| *known == fault);
        let index = known.unwrap_or_else(|| {
            self.faults.push(fault);
            self.faults.len() - 1
        });
        // There are a dozen texts.
        FAULTS.saturating_add(u8::try_from(index).unwrap_or(u8::MAX))
    }

    fn kind(&self, code: u8) -> Kind {
        match code {
            0 => Kind::Nothing,
            1 => Kind::Branch,
            2 => Kind::Revisions,
            3 => Kind::Leaf,
            4 => Kind::Unread,
            code => {
                let index = usize::from(code.saturating_sub(FAULTS));
                Kind::Bad(self.faults.get(index).copied().unwrap_or("is damaged"))
            }
        }
    }
}

/// Numbers, packed: small ones take one byte.
#[derive(Debug, Default)]
pub(super) struct Pack {
    chunks: Vec<Vec<u8>>,
    /// Whether something did not fit any more.
    pub is_spent: bool,
}

impl Pack {
    /// Keeps what was packed for one page; nothing where no space is left.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> Option<Packed> {
        let fits = self
            .chunks
            .last()
            .is_some_and(|chunk| CHUNK - chunk.len() >= bytes.len());
        if !fits {
            if bytes.len() > CHUNK || (self.chunks.len() + 1) * CHUNK > MOST {
                self.is_spent = true;
                return None;
            }
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let index = self.chunks.len() - 1;
        let chunk = &mut self.chunks[index];
        let at = index * CHUNK + chunk.len();
        chunk.extend_from_slice(bytes);
        // Counted from one.
        let at = u32::try_from(at + 1).ok()?;
        std::num::NonZeroU32::new(at).map(Packed)
    }

    /// What was packed there, and all that follows.
    pub(super) fn read(&self, at: Packed) -> Unpack<'_> {
        let at = at.0.get() as usize - 1;
        let chunk = self.chunks.get(at / CHUNK);
        Unpack {
            rest: chunk
                .and_then(|chunk| chunk.get(at % CHUNK..))
                .unwrap_or_default(),
        }
    }
}

/// Appends a number.
pub(super) fn pack(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads numbers back, which were written here: nothing in them is hostile.
pub(super) struct Unpack<'a> {
    rest: &'a [u8],
}

impl Unpack<'_> {
    pub(super) fn next(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let Some((byte, rest)) = self.rest.split_first() else {
                break;
            };
            self.rest = rest;
            number |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_space_ends() {
        let mut pack_of = Pack::default();
        let mut places = Vec::new();
        for number in [0, 1, 127, 128, 300, u64::MAX] {
            let mut bytes = Vec::new();
            pack(number, &mut bytes);
            pack(number / 2, &mut bytes);
            places.push((number, pack_of.keep(&bytes).unwrap()));
        }
        for (number, place) in places {
            let mut read = pack_of.read(place);
            assert_eq!((read.next(), read.next()), (number, number / 2));
        }
        let mut kept = 0;
        while pack_of.keep(&[1; 1000]).is_some() {
            kept += 1;
        }
        assert!(pack_of.is_spent);
        assert!(kept * 1000 < MOST && kept * 1000 > MOST / 10 * 9);
    }

    #[test]
    fn notes_are_small_and_come_back() {
        let mut notes = Notes::default();
        for index in 0..NOTES + 10 {
            notes.push(Kind::Leaf, index as u16, 0);
        }
        assert_eq!(notes.len(), NOTES as u64 + 10);
        notes.set(NOTES as u64 + 3, Kind::Bad("is odd"), 7, None);
        let (kind, note) = notes.get(NOTES as u64 + 3).unwrap();
        assert_eq!((kind, note.last), (Kind::Bad("is odd"), 7));
        assert!(notes.get(NOTES as u64 + 10).is_none());
        assert!(size_of::<Note>() <= 24);
    }
}
