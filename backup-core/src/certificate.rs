//! When a certificate ends: a server says no more than "Unauthorized" of a client's that has expired, and an etcd that is started with one finds no
//! peers. Reads the one field and judges nothing else: whether the certificate is any good is for whoever is shown it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// When the first certificate of a PEM file ended, if it did.
pub fn expired(pem: &[u8], now: Timestamp) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    not_after(&der).filter(|end| *end < now)
}

/// `notAfter`, by the order of fields in RFC 5280, 4.1.
fn not_after(der: &[u8]) -> Option<Timestamp> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let within = |tag, content| (tag == SEQUENCE).then_some(content);
    let (tag, certificate, _) = element(der)?;
    let (tag, body, _) = element(within(tag, certificate)?)?;
    let mut rest = within(tag, body)?;
    // The version may be absent; after it come serial number, algorithm and issuer.
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (tag, validity, _) = element(rest)?;
    let (_, _, after) = element(within(tag, validity)?)?;
    let (tag, time, _) = element(after)?;
    moment(tag, std::str::from_utf8(time).ok()?)
}

/// One DER element: its tag, its content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = bytes.iter().try_fold(0_usize, |length, byte| {
            Some(length.checked_mul(256)? | usize::from(*byte))
        })?;
        (length, rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `UTCTime`, whose years from 50 on are those of the last century, or `GeneralizedTime`.
fn moment(tag: u8, text: &str) -> Option<Timestamp> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let text = match tag {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl ca -selfsign -startdate 20200101000000Z -enddate 20210203040506Z`, an Ed25519 key and the subject CN=a.
    const PEM: &str = "\
-----BEGIN CERTIFICATE-----
MIG+MHICAQEwBQYDK2VwMAwxCjAIBgNVBAMMAWEwHhcNMjAwMTAxMDAwMDAwWhcN
MjEwMjAzMDQwNTA2WjAMMQowCAYDVQQDDAFhMCowBQYDK2VwAyEAT1NI5fLdL2OU
u5eBAeUaiHvRWwySwZIhfWc1P6TL9aQwBQYDK2VwA0EA+bQ/L923F0UVnSYuAA+l
7PTbWL7os8M3pzLP6YxfegbI1iA0EHlXYwmmjll4MsKJ/1Ks5zXSC/8Msrqp64PI
Aw==
-----END CERTIFICATE-----
";

    #[test]
    fn the_end_of_a_certificate_is_read_and_rubbish_is_no_certificate() {
        let end: Timestamp = "2021-02-03T04:05:06Z".parse().unwrap();
        let at = |text: &str| expired(PEM.as_bytes(), text.parse().unwrap());
        assert_eq!(at("2026-01-01T00:00:00Z"), Some(end));
        assert_eq!(at("2020-06-01T00:00:00Z"), None);
        let der = CertificateDer::from_pem_slice(PEM.as_bytes()).unwrap();
        for length in 0..der.len() {
            let _ = not_after(&der[..length]);
        }
        assert_eq!(not_after(&[0x30, 0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1]), None);
        assert_eq!(expired(b"nothing", end), None);
    }

    #[test]
    fn both_ways_to_write_a_time_are_known() {
        let year = |tag, text| moment(tag, text).map(|t| t.to_string());
        assert_eq!(
            year(0x17, "491231235959Z").as_deref(),
            Some("2049-12-31T23:59:59Z")
        );
        assert_eq!(
            year(0x17, "500101000000Z").as_deref(),
            Some("1950-01-01T00:00:00Z")
        );
        assert_eq!(
            year(0x18, "20500101000000Z").as_deref(),
            Some("2050-01-01T00:00:00Z")
        );
        assert_eq!(year(0x18, "2050"), None);
        assert_eq!(year(0x02, "x"), None);
    }
}
