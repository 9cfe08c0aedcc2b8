//! What a member's refusals mean: who should change which setting. Pure.

use std::error::Error as StdError;

use crate::error::{Error, Kind};

/// What went wrong while `doing` ("reach the member at") something to an endpoint.
pub(super) fn refusal(doing: &str, endpoint: &str, error: &etcd_client::Error) -> Error {
    let (code, text) = words(error);
    let (kind, hint) = meaning(code, &text);
    let said = Error::new(kind, format!("can not {doing} {endpoint}")).because(cause(&text));
    match hint {
        Some(hint) => said.hint(hint),
        None => said,
    }
}

/// What a member said about a TLS handshake.
pub(super) fn refused_handshake(endpoint: &str, complaint: &str) -> Error {
    let (kind, hint) = meaning(UNAVAILABLE, complaint);
    let said = Error::new(kind, format!("can not reach the member at {endpoint}"))
        .because(cause(complaint));
    match hint {
        Some(hint) => said.hint(hint),
        None => said,
    }
}

/// The gRPC code, and all causes in one line: the client's own error hides them.
fn words(error: &etcd_client::Error) -> (i32, String) {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            let mut text = status.message().to_owned();
            append(&mut text, status.source());
            (status.code() as i32, text)
        }
        etcd_client::Error::TransportError(transport) => {
            let mut text = transport.to_string();
            append(&mut text, transport.source());
            (UNAVAILABLE, text)
        }
        other => (UNKNOWN, other.to_string()),
    }
}

fn append(text: &mut String, mut next: Option<&(dyn StdError + 'static)>) {
    while let Some(error) = next {
        let this = error.to_string();
        if !text.contains(&this) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&this);
        }
        next = error.source();
    }
}

const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// The cause as a user reads it: without the layers that only say that something below them failed.
fn cause(text: &str) -> String {
    let layers = [
        "transport error",
        "tcp connect error",
        "error trying to connect",
        "client error (Connect)",
        "error reading a body from connection",
        "h2 protocol error",
    ];
    let told: Vec<&str> = text
        .split(": ")
        .filter(|part| !layers.contains(part))
        .collect();
    let told = told.join(": ");
    let told = if told.is_empty() { text } else { &told };
    told.chars().take(500).collect()
}

fn meaning(code: i32, text: &str) -> (Kind, Option<&'static str>) {
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if text.contains("user name is empty") {
        return (
            Kind::Unauthorized,
            Some(
                "etcd has auth on: name a user with the role root with --user, and give the password in ETCDCTL_PASSWORD or with --password-file",
            ),
        );
    }
    if code == UNAUTHENTICATED || has(&["authentication failed", "invalid auth token"]) {
        return (
            Kind::Unauthorized,
            Some("check the user's name and the password in ETCDCTL_PASSWORD or --password-file"),
        );
    }
    if code == PERMISSION_DENIED || text.contains("permission denied") {
        return (
            Kind::Forbidden,
            Some("only a user with the role root may take a snapshot: name one with --user"),
        );
    }
    if text.contains("received fatal alert") {
        let hint = if has(&["CertificateExpired"]) {
            "the member does not take the client's certificate: it has expired; renew it (kubeadm: `kubeadm certs renew`) and give it with --cert and --key"
        } else if has(&["CertificateRequired", "HandshakeFailure"]) {
            "the member wants to see a client's certificate: give one with --cert and --key"
        } else {
            "the member does not take the client's certificate: give one with --cert and --key that is of etcd's client CA and has not expired"
        };
        return (Kind::Unauthorized, Some(hint));
    }
    if has(&["UnknownIssuer", "unknown issuer"]) {
        return (
            Kind::Unreachable,
            Some("the member's certificate is not of the CA in --cacert: give etcd's own"),
        );
    }
    if has(&["Expired", "certificate expired"]) && text.contains("certificate") {
        return (
            Kind::Unreachable,
            Some("the member's own certificate has expired: renew it on the member"),
        );
    }
    if text.contains("certificate") {
        return (
            Kind::Unreachable,
            Some(
                "the member's certificate does not fit: check the host in --endpoints, the certificate's dates, and --cacert",
            ),
        );
    }
    if has(&[
        "corrupt message",
        "InvalidContentType",
        "frame with invalid size",
    ]) {
        return (
            Kind::Unreachable,
            Some(
                "what answers there does not speak TLS, or not etcd's protocol: check http and https in --endpoints",
            ),
        );
    }
    if code == INVALID_ARGUMENT {
        return (Kind::Invalid, None);
    }
    if has(&["required revision has been compacted"]) {
        return (Kind::NotFound, None);
    }
    if code == UNAVAILABLE || has(&["connection", "Connection", "broken pipe", "dns error"]) {
        return (
            Kind::Unreachable,
            Some("check the address in --endpoints and http or https, and whether etcd runs there"),
        );
    }
    (Kind::Other, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_only_say_that_one_below_failed_are_left_out() {
        assert_eq!(
            cause("transport error: tcp connect error: Connection refused (os error 111)"),
            "Connection refused (os error 111)"
        );
        assert_eq!(cause("transport error"), "transport error");
    }

    #[test]
    fn each_refusal_names_the_flag_that_helps() {
        for (code, text, kind, flag) in [
            (
                INVALID_ARGUMENT,
                "etcdserver: user name is empty",
                Kind::Unauthorized,
                "--user",
            ),
            (
                UNAUTHENTICATED,
                "etcdserver: invalid auth token",
                Kind::Unauthorized,
                "--password-file",
            ),
            (
                INVALID_ARGUMENT,
                "etcdserver: authentication failed, invalid user ID or password",
                Kind::Unauthorized,
                "--password-file",
            ),
            (
                PERMISSION_DENIED,
                "etcdserver: permission denied",
                Kind::Forbidden,
                "root",
            ),
            (
                UNAVAILABLE,
                "received fatal alert: CertificateExpired",
                Kind::Unauthorized,
                "expired",
            ),
            (
                UNAVAILABLE,
                "received fatal alert: BadCertificate",
                Kind::Unauthorized,
                "--cert",
            ),
            (
                UNAVAILABLE,
                "invalid peer certificate: UnknownIssuer",
                Kind::Unreachable,
                "--cacert",
            ),
            (
                UNAVAILABLE,
                "invalid peer certificate: certificate expired: verified at time",
                Kind::Unreachable,
                "on the member",
            ),
            (
                UNAVAILABLE,
                "Connection refused (os error 111)",
                Kind::Unreachable,
                "--endpoints",
            ),
        ] {
            let (said, hint) = meaning(code, text);
            assert_eq!(said, kind, "{text}");
            assert!(hint.unwrap().contains(flag), "{text}: {hint:?}");
        }
    }
}
