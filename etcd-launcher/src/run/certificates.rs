//! When certificates end: a member that is started with an expired one finds neither peers nor clients. Reads PEM files; decides nothing.
//!
//! Of a certificate (RFC 5280) only `tbsCertificate.validity.notAfter` is read: the fifth field where the version is given, which it is in every
//! certificate of version 3, else the fourth.

use std::path::Path;

use backup_core::{Error, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Checks that the first certificate of a file, its owner's, is valid at `now`.
///
/// # Errors
/// Kind `Invalid`: it has expired, or can not be read.
pub(crate) fn check(path: &Path, now: Timestamp) -> Result<()> {
    let odd = || Error::invalid(format!("{} holds no certificate", path.display()));
    let pem = std::fs::read(path)
        .map_err(|e| Error::invalid(format!("can not read {}", path.display())).because(e))?;
    let first = CertificateDer::from_pem_slice(&pem).map_err(|e| odd().because(e.to_string()))?;
    let end = not_after(&first).ok_or_else(odd)?;
    if end <= now {
        return Err(Error::invalid(format!(
            "the certificate {} expired at {end}",
            path.display()
        ))
        .hint("renew it: etcd would be started with it, and nobody could reach it"));
    }
    Ok(())
}

fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = skip(fields)?;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        fields = skip(fields)?;
    }
    let (validity, _) = element(fields, SEQUENCE)?;
    time(skip(validity)?)
}

/// The content of the element that comes first, where it is of this kind, and what follows it.
fn element(der: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    if *der.first()? != kind {
        return None;
    }
    let (length, rest) = length(der.get(1..)?)?;
    (length <= rest.len()).then(|| rest.split_at(length))
}

fn skip(der: &[u8]) -> Option<&[u8]> {
    element(der, *der.first()?).map(|(_, rest)| rest)
}

fn length(der: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = der.split_first()?;
    match first {
        0..=0x7f => Some((usize::from(*first), rest)),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0, |all, byte| all << 8 | usize::from(*byte));
            Some((length, rest))
        }
        _ => None,
    }
}

/// `YYMMDDhhmmssZ` from 1950 to 2049, else `YYYYMMDDhhmmssZ`.
fn time(der: &[u8]) -> Option<Timestamp> {
    let text = match *der.first()? {
        UTC_TIME => {
            let (content, _) = element(der, UTC_TIME)?;
            let short = std::str::from_utf8(content).ok()?;
            let century = if *content.first()? >= b'5' {
                "19"
            } else {
                "20"
            };
            format!("{century}{short}")
        }
        _ => {
            let (content, _) = element(der, GENERALIZED_TIME)?;
            std::str::from_utf8(content).ok()?.to_owned()
        }
    };
    let civil = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate with this end, as far as it is read.
    fn with_end(time: &[u8]) -> Vec<u8> {
        let wrap = |kind: u8, content: &[u8]| {
            let mut all = vec![kind, 0x82];
            all.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            all.extend(content);
            all
        };
        let start = b"\x17\x0d200101000000Z";
        let validity = wrap(SEQUENCE, &[&start[..], time].concat());
        let mut fields = b"\xa0\x03\x02\x01\x02\x02\x01\x07".to_vec();
        fields.extend(wrap(SEQUENCE, b""));
        fields.extend(wrap(SEQUENCE, b""));
        fields.extend(validity);
        wrap(SEQUENCE, &wrap(SEQUENCE, &fields))
    }

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms() {
        for (time, end) in [
            (&b"\x17\x0d210101000000Z"[..], "2021-01-01T00:00:00Z"),
            (b"\x17\x0d991231235959Z", "1999-12-31T23:59:59Z"),
            (b"\x18\x0f20991231235959Z", "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(not_after(&with_end(time)), Some(end.parse().unwrap()));
        }
    }

    #[test]
    fn what_is_no_certificate_is_none_wherever_it_is_cut() {
        let whole = with_end(b"\x17\x0d210101000000Z");
        for cut in 0..whole.len() {
            assert_eq!(not_after(&whole[..cut]), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] = 0xff;
            let _ = not_after(&bent);
        }
    }
}
