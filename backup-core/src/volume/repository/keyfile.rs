//! The key file of a repository, and what key files may ask of whoever opens it. They stand in the clear and unsigned, and name the work of scrypt and its memory themselves: who
//! writes the bucket could have every reader take all that its machine has. Pure.

use aes256ctr_poly1305aes::Aes256CtrPoly1305Aes;
use aes256ctr_poly1305aes::aead::{Aead as _, Nonce};
use aws_lc_rs::rand;
use rustic_core::repofile::{KeyFile, MasterKey};
use serde::Deserialize;

use crate::error::{Error, Result};

/// No key file is longer, in bytes; ours have some 500.
pub(super) const LONGEST: u64 = 64 << 10;

/// A repository has one key of ours, and those that somebody added with restic.
pub(super) const MOST: usize = 16;

/// What scrypt is asked for by keys of ours: 1 MiB of memory. More would be of no use: what it slows down is guessing, and a password of ours has 256 random bits. rustic's own keys
/// ask for 128 MiB and a third of a second of everyone who opens a repository.
const WORK: [u32; 3] = [1 << 10, 8, 1];

/// `N` times `r`: 128 bytes of memory each. rustic's own keys have half of this, restic's an eighth or less.
const MOST_MEMORY: u64 = 1 << 21;

/// `N` times `r` times `p`: the work. rustic's own keys have a quarter of this.
const MOST_WORK: u64 = 1 << 22;

/// A key file by which this password, one of 256 random bits, opens this master key; in restic's format:
/// <https://restic.readthedocs.io/en/stable/100_references.html#keys-encryption-and-mac>.
///
/// # Errors
/// Without random bytes.
pub(super) fn made(master: &MasterKey, password: &str, host: &str) -> Result<Vec<u8>> {
    let unmade = || Error::other("the key of the repository can not be made");
    let [n, r, p] = WORK;
    let (mut salt, mut nonce) = (vec![0; 64], [0; 16]);
    rand::fill(&mut salt).map_err(|_| unmade())?;
    rand::fill(&mut nonce).map_err(|_| unmade())?;
    let mut file = KeyFile {
        hostname: Some(host.to_owned()),
        username: None,
        created: None,
        kdf: "scrypt".to_owned(),
        n,
        r,
        p,
        data: nonce.to_vec(),
        salt,
    };
    let derived = file.kdf_key(&password);
    let derived = derived.map_err(|e| unmade().because(e))?;
    let (encrypt, k, r) = derived.to_keys();
    let key = [encrypt, k, r].concat();
    let plain = serde_json::to_vec(master).map_err(|e| unmade().because(e))?;
    let nonce = Nonce::<Aes256CtrPoly1305Aes>::from(nonce);
    let sealed = Aes256CtrPoly1305Aes::new(key.as_slice().into()).encrypt(&nonce, plain.as_slice());
    file.data.extend(sealed.map_err(|_| unmade())?);
    serde_json::to_vec(&file).map_err(|e| unmade().because(e))
}

/// What scrypt is given: <https://restic.readthedocs.io/en/stable/100_references.html#keys-encryption-and-mac>.
#[derive(Deserialize)]
struct Scrypt {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

/// Whether a key file asks for no more than a key of restic's or rustic's needs.
pub(super) fn is_bearable(bytes: &[u8]) -> bool {
    let Ok(Scrypt { n, r, p }) = serde_json::from_slice(bytes) else {
        return false;
    };
    let memory = u64::from(n).saturating_mul(r.into());
    let work = memory.saturating_mul(p.into());
    n > 1 && r > 0 && p > 0 && memory <= MOST_MEMORY && work <= MOST_WORK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_ours_opens_for_its_password_alone_and_asks_for_little() {
        let master = MasterKey::new();
        let bytes = made(&master, "a password", "host").unwrap();
        assert!(is_bearable(&bytes) && bytes.len() < 1024);
        let file: KeyFile = serde_json::from_slice(&bytes).unwrap();
        assert_eq!([file.n, file.r, file.p], WORK);
        let (encrypt, k, r) = file.key_from_password(&"a password").unwrap().to_keys();
        assert_eq!(
            (encrypt, k, r),
            (master.encrypt, master.mac.k, master.mac.r)
        );
        assert!(file.key_from_password(&"another").is_err());
        let again = made(&MasterKey::new(), "a password", "host").unwrap();
        let again: KeyFile = serde_json::from_slice(&again).unwrap();
        assert!(again.salt != file.salt && again.data[..16] != file.data[..16]);
    }

    #[test]
    fn a_key_file_that_asks_for_more_than_a_key_needs_is_not_opened() {
        let is = |n: u64, r: u64, p: u64| {
            let text = format!(r#"{{"kdf":"scrypt","N":{n},"r":{r},"p":{p},"data":"","salt":""}}"#);
            is_bearable(text.as_bytes())
        };
        // rustic's, restic's, and one of restic's on a fast machine.
        for (n, r, p) in [(1 << 17, 8, 1), (1 << 15, 8, 1), (1 << 16, 8, 6)] {
            assert!(is(n, r, p), "{n} {r} {p}");
        }
        let many = u64::from(u32::MAX);
        for (n, r, p) in [
            (1 << 24, 64, 1),
            (1 << 19, 8, 1),
            (1 << 17, 8, 5),
            (2, 1, many),
            (many, many, many),
            (0, 8, 1),
            (1, 8, 1),
            (1 << 15, 0, 1),
            (1 << 15, 8, 0),
            (many + 1, 8, 1),
        ] {
            assert!(!is(n, r, p), "{n} {r} {p}");
        }
        assert!(!is_bearable(b"{}") && !is_bearable(b"x"));
    }
}
