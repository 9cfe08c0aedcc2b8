//! The age format, version 1 (<https://c2sp.org/age>), above all for files with one X25519 recipient: the only ones that stand in a vault beside `key.age`.
//! The `age` crate's own writer adds a stanza of random length to each header, and its reader wants the header in front of it; here such a header has always
//! [`HEAD`] bytes, so that sizes are known by arithmetic and any chunk can be read alone. A file for several recipients is only written here. What is secret
//! about it is the crate's: wrapping the file key is its recipients', and the chunks are sealed by the same library as TLS. Tests hold both directions against
//! the `age` crate and against the Go program.

use age::Identity as _;
use age_core::format::{FileKey, Stanza};
use age_core::primitives::hkdf;
use age_core::secrecy::ExposeSecret as _;
use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};

const VERSION: &str = "age-encryption.org/v1\n";
const BEGIN: &str = "age-encryption.org/v1\n-> X25519 ";
const END: &str = "\n--- ";
/// Letters of a line of a stanza's body; the last line of one has fewer.
const LINE: usize = 64;
/// 32 bytes in base64 without padding: the ephemeral share, the wrapped file key, the header's digest.
const WORD: usize = 43;
/// `age-encryption.org/v1`, one stanza, the digest.
const HEADER: usize = BEGIN.len() + WORD + 1 + WORD + END.len() + WORD + 1;
const NONCE: usize = 16;

/// Header and nonce: what stands before the first chunk.
pub(crate) const HEAD: u64 = (HEADER + NONCE) as u64;
/// Bytes of a chunk as they were given, and what sealing adds to each.
pub(crate) const CHUNK: u64 = 64 << 10;
const TAG: u64 = 16;
/// A chunk as it stands.
pub(crate) const SEALED_CHUNK: u64 = CHUNK + TAG;

/// The size of a sealed file.
#[cfg(test)]
pub(crate) fn sealed_size(plain: u64) -> u64 {
    HEAD + plain + TAG * plain.div_ceil(CHUNK).max(1)
}

/// How many chunks a sealed file of this size has, and what was sealed; nothing where no file can have this size.
pub(crate) fn plain_size(sealed: u64) -> Option<(u64, u64)> {
    let body = sealed.checked_sub(HEAD)?;
    let chunks = body.div_ceil(SEALED_CHUNK);
    let last = body.checked_sub(chunks.checked_sub(1)? * SEALED_CHUNK)?;
    // An empty chunk stands only where it is the only one.
    let whole = last > TAG || (last == TAG && chunks == 1);
    whole.then(|| (chunks, body - TAG * chunks))
}

/// The nonce of a chunk: its number, and whether it is the last.
fn nonce(number: u64, last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[3..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = last.into();
    Nonce::assume_unique_for_key(bytes)
}

fn payload_key(file_key: &FileKey, nonce: &[u8]) -> Result<LessSafeKey> {
    let key = hkdf(nonce, b"payload", file_key.expose_secret());
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key);
    key.map(LessSafeKey::new)
        .map_err(|_| Error::other("the key of a file can not be used"))
}

fn header_key(file_key: &FileKey) -> hmac::Key {
    hmac::Key::new(
        hmac::HMAC_SHA256,
        &hkdf(&[], b"header", file_key.expose_secret()),
    )
}

fn unmade() -> Error {
    Error::other("no key can be made for a file")
}

/// A stanza as it stands in a header.
fn write(head: &mut String, stanza: &Stanza) {
    head.push_str("-> ");
    head.push_str(&stanza.tag);
    for argument in &stanza.args {
        head.push(' ');
        head.push_str(argument);
    }
    head.push('\n');
    let body = STANDARD_NO_PAD.encode(&stanza.body);
    let mut rest = body.as_str();
    loop {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        head.push_str(line);
        head.push('\n');
        if line.len() < LINE {
            return;
        }
        rest = after;
    }
}

/// A file on its way into its sealed form, chunk by chunk; a chunk is held until it is known not to be the last.
pub(crate) struct Sealing {
    key: LessSafeKey,
    head: Option<Bytes>,
    pending: BytesMut,
    number: u64,
}

impl Sealing {
    /// Begins a file with a key of its own, whose head has [`HEAD`] bytes.
    pub(crate) fn begin(recipient: &age::x25519::Recipient) -> Result<Self> {
        let sealing = Self::begin_for([recipient as &dyn age::Recipient])?;
        if sealing.head.as_ref().map(|head| head.len() as u64) != Some(HEAD) {
            return Err(unmade());
        }
        Ok(sealing)
    }

    /// Begins a file for these recipients, whose head is as long as they are many. A passphrase has to stand alone.
    pub(crate) fn begin_for<'a>(
        recipients: impl IntoIterator<Item = &'a dyn age::Recipient>,
    ) -> Result<Self> {
        let file_key = FileKey::try_init_with_mut(|key| rand::fill(key)).map_err(|_| unmade())?;
        let mut head = VERSION.to_owned();
        for recipient in recipients {
            let (stanzas, _) = recipient.wrap_file_key(&file_key).map_err(|_| unmade())?;
            stanzas.iter().for_each(|stanza| write(&mut head, stanza));
        }
        if head.len() == VERSION.len() {
            return Err(Error::invalid("a file is to be encrypted for nobody"));
        }
        head.push_str("---");
        let digest = hmac::sign(&header_key(&file_key), head.as_bytes());
        head.push(' ');
        head.push_str(&STANDARD_NO_PAD.encode(digest));
        head.push('\n');
        let mut head = head.into_bytes();
        let mut nonce = [0; NONCE];
        rand::fill(&mut nonce).map_err(|_| unmade())?;
        head.extend_from_slice(&nonce);
        Ok(Self {
            key: payload_key(&file_key, &nonce)?,
            head: Some(head.into()),
            pending: BytesMut::new(),
            number: 0,
        })
    }

    fn chunk(&mut self, at: usize, last: bool, out: &mut BytesMut) -> Result<()> {
        let nonce = nonce(self.number, last);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[at..])
            .map_err(|_| Error::other("a chunk could not be encrypted"))?;
        out.extend_from_slice(tag.as_ref());
        self.number += 1;
        Ok(())
    }

    /// What can be written once these bytes are there, too.
    pub(crate) fn seal(&mut self, mut bytes: Bytes) -> Result<Bytes> {
        let chunks = (self.pending.len() + bytes.len()) as u64 / CHUNK;
        let mut out = BytesMut::with_capacity((HEAD + chunks * SEALED_CHUNK) as usize);
        out.extend_from_slice(&self.head.take().unwrap_or_default());
        // Whether a full chunk is the last is not known before another byte comes.
        while self.pending.len() + bytes.len() > CHUNK as usize {
            let more = bytes.split_to(CHUNK as usize - self.pending.len());
            let at = out.len();
            out.extend_from_slice(&self.pending);
            out.extend_from_slice(&more);
            self.pending.clear();
            self.chunk(at, false, &mut out)?;
        }
        self.pending.extend_from_slice(&bytes);
        Ok(out.freeze())
    }

    /// The rest.
    pub(crate) fn finish(mut self) -> Result<Bytes> {
        let mut out = BytesMut::new();
        out.extend_from_slice(&self.head.take().unwrap_or_default());
        let at = out.len();
        out.extend_from_slice(&std::mem::take(&mut self.pending));
        self.chunk(at, true, &mut out)?;
        Ok(out.freeze())
    }
}

/// A small file, sealed.
pub(crate) fn seal(recipient: &age::x25519::Recipient, bytes: Bytes) -> Result<Bytes> {
    let mut sealing = Sealing::begin(recipient)?;
    let first = sealing.seal(bytes)?;
    let rest = sealing.finish()?;
    Ok([first, rest].concat().into())
}

/// The key to a sealed file's chunks.
pub(crate) struct Opening {
    key: LessSafeKey,
}

impl Opening {
    /// From the first [`HEAD`] bytes of a file.
    ///
    /// # Errors
    /// `Corrupt`, where it is no such file, was altered, or is sealed for another key.
    pub(crate) fn begin(identity: &age::x25519::Identity, head: &[u8]) -> Result<Self> {
        let odd = || Error::corrupt("it does not begin as an encrypted file of this program does");
        let (header, nonce) = head
            .split_at_checked(HEADER)
            .filter(|(_, nonce)| nonce.len() == NONCE)
            .ok_or_else(odd)?;
        let text = std::str::from_utf8(header).map_err(|_| odd())?;
        let parts = (|| {
            let (share, rest) = text.strip_prefix(BEGIN)?.split_once('\n')?;
            let (wrapped, rest) = rest.split_once(END)?;
            let digest = rest.strip_suffix('\n')?;
            Some((
                share,
                STANDARD_NO_PAD.decode(wrapped).ok()?,
                STANDARD_NO_PAD.decode(digest).ok()?,
            ))
        })();
        let (share, body, digest) = parts.ok_or_else(odd)?;
        let stanza = Stanza {
            tag: "X25519".to_owned(),
            args: vec![share.to_owned()],
            body,
        };
        let file_key = match identity.unwrap_stanza(&stanza) {
            Some(Ok(file_key)) => file_key,
            Some(Err(_)) => return Err(odd()),
            None => {
                return Err(Error::corrupt(
                    "it is encrypted with another key: a file of another backup was put in its place, or its header was altered",
                ));
            }
        };
        // Up to the dashes.
        let covered = &header[..HEADER - WORD - 2];
        hmac::verify(&header_key(&file_key), covered, &digest)
            .map_err(|_| Error::corrupt("its header was altered"))?;
        Ok(Self {
            key: payload_key(&file_key, nonce)?,
        })
    }

    /// Opens a chunk where it stands.
    ///
    /// # Errors
    /// `Corrupt`, where it is not what was written there.
    pub(crate) fn chunk<'a>(
        &self,
        number: u64,
        last: bool,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8]> {
        self.key
            .open_in_place(nonce(number, last), Aad::empty(), sealed)
            .map(|plain| &*plain)
            .map_err(|_| {
                Error::corrupt(format!(
                    "the 64 KiB from byte {} on were altered, moved or cut",
                    number * CHUNK
                ))
            })
    }
}

/// A sealed file on its way back, in pieces of any size: nothing comes out that was not proved.
pub(crate) struct Unsealing {
    identity: age::x25519::Identity,
    opening: Option<Opening>,
    buffer: BytesMut,
    number: u64,
}

impl Unsealing {
    pub(super) fn new(identity: &age::x25519::Identity) -> Self {
        Self {
            identity: identity.clone(),
            opening: None,
            buffer: BytesMut::new(),
            number: 0,
        }
    }

    /// What is proved once these bytes are there, too.
    ///
    /// # Errors
    /// `Corrupt`, where it is not what was written, or is sealed for another key.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<Bytes> {
        self.buffer.extend_from_slice(bytes);
        let opening = match &self.opening {
            Some(opening) => opening,
            None if (self.buffer.len() as u64) < HEAD => return Ok(Bytes::new()),
            None => {
                let head = self.buffer.split_to(HEAD as usize);
                let opening = Opening::begin(&self.identity, &head)?;
                self.opening.insert(opening)
            }
        };
        let mut out = BytesMut::with_capacity(self.buffer.len());
        // Whether a whole chunk is the last is not known before another byte comes.
        while self.buffer.len() as u64 > SEALED_CHUNK {
            let mut chunk = self.buffer.split_to(SEALED_CHUNK as usize);
            out.extend_from_slice(opening.chunk(self.number, false, &mut chunk)?);
            self.number += 1;
        }
        Ok(out.freeze())
    }

    /// The rest, after the last byte.
    ///
    /// # Errors
    /// As [`Unsealing::feed`]; a file that was cut.
    pub(crate) fn finish(mut self) -> Result<Bytes> {
        let cut = || Error::corrupt("it was cut");
        let opening = self.opening.ok_or_else(cut)?;
        let plain = opening.chunk(self.number, true, &mut self.buffer)?;
        // An empty chunk stands only where it is the only one.
        if plain.is_empty() && self.number > 0 {
            return Err(cut());
        }
        Ok(Bytes::copy_from_slice(plain))
    }
}

/// Opens a small file.
///
/// # Errors
/// `Corrupt`, where it is not what was written, or is sealed for another key.
pub(crate) fn open(identity: &age::x25519::Identity, sealed: &[u8]) -> Result<Bytes> {
    let cut = || Error::corrupt("it has a size that no encrypted file has: it was cut");
    let (chunks, plain) = plain_size(sealed.len() as u64).ok_or_else(cut)?;
    let (head, body) = sealed.split_at_checked(HEAD as usize).ok_or_else(cut)?;
    let opening = Opening::begin(identity, head)?;
    let mut out = BytesMut::with_capacity(plain as usize);
    for (number, chunk) in (0..).zip(body.chunks(SEALED_CHUNK as usize)) {
        let mut chunk = chunk.to_vec();
        out.extend_from_slice(opening.chunk(number, number + 1 == chunks, &mut chunk)?);
    }
    Ok(out.freeze())
}
