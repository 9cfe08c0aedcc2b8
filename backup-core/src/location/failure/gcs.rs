//! What the codes of Google Cloud Storage and of Google's sign-in mean.
//! <https://cloud.google.com/storage/docs/xml-api/reference-status>, <https://www.rfc-editor.org/rfc/rfc6749#section-5.2>

use super::Words;
use crate::error::Kind;

/// Google Cloud Storage.
pub(crate) const GCS: Words = Words {
    endpoint: "config.storeEndpoint",
    address: "config.storeEndpoint and config.universeDomain",
    rights: RIGHTS,
    nobody: "no credentials were given and this machine has no service account of its own: give the location a credentials file, or set GOOGLE_APPLICATION_CREDENTIALS",
    code,
};

const RIGHTS: &str = "the service account is known but may not do this: it needs storage.objects.list, get, create and delete and storage.multipartUploads.create, abort and list on the bucket (the role Storage Object User has them)";

fn code(code: &str, text: &str) -> Option<(Kind, String)> {
    let say = |kind: Kind, hint: &str| Some((kind, hint.to_owned()));
    match code {
        "NoSuchBucket" => say(
            Kind::NotFound,
            "there is no such bucket: check objectStorage.bucket, or create the bucket",
        ),
        "InvalidBucketName" => say(
            Kind::Invalid,
            "the store allows no bucket of this name: check objectStorage.bucket",
        ),
        "RetentionPolicyNotMet" | "ObjectUnderActiveHold" | "ObjectRetentionNotMet" => say(
            Kind::Forbidden,
            "the bucket keeps this object for now (a retention policy or a hold): it can be removed when that ends",
        ),
        "AccessDenied" if text.contains("Cloud KMS") || text.contains("cloudkms") => say(
            Kind::Forbidden,
            "the store's own service agent may not use the key: check config.kmsKeyName, and grant the agent the role Cloud KMS CryptoKey Encrypter/Decrypter",
        ),
        "AccessDenied" => say(Kind::Forbidden, RIGHTS),
        "AuthenticationRequired" | "InvalidSecurity" | "ExpiredToken" | "SignatureDoesNotMatch" => {
            say(
                Kind::Unauthorized,
                "the store does not accept who we are: the key of the location's credentials file may be deleted or disabled, or this machine's clock wrong",
            )
        }
        "AccountProblem" | "UserProjectAccountProblem" | "BillingDisabled" => say(
            Kind::Forbidden,
            "the project of the bucket has no billing account that pays: see its billing",
        ),
        "invalid_grant" => say(
            Kind::Unauthorized,
            "the credentials are no longer good: renew them (`gcloud auth application-default login`, or a new key), and check this machine's clock",
        ),
        "invalid_client" | "unauthorized_client" | "invalid_request" => say(
            Kind::Unauthorized,
            "Google does not accept the credentials file: check its client_id, client_secret and audience",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;

    #[test]
    fn codes_of_google_name_the_setting_and_are_not_tried_again() {
        for (status, body, kind, named) in [
            (
                "404 Not Found",
                "<Error><Code>NoSuchBucket</Code><Message>x</Message></Error>",
                Kind::NotFound,
                "objectStorage.bucket",
            ),
            (
                "403 Forbidden",
                "<Error><Code>AccessDenied</Code><Message>Access denied.</Message><Details>x does not have storage.objects.list access</Details></Error>",
                Kind::Forbidden,
                "Storage Object User",
            ),
            (
                "403 Forbidden",
                "<Error><Code>AccessDenied</Code><Message>Permission denied on Cloud KMS key.</Message></Error>",
                Kind::Forbidden,
                "kmsKeyName",
            ),
            (
                "401 Unauthorized",
                "<Error><Code>AuthenticationRequired</Code><Message>x</Message></Error>",
                Kind::Unauthorized,
                "credentials file",
            ),
            (
                "400 Bad Request",
                r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
                Kind::Unauthorized,
                "gcloud auth",
            ),
        ] {
            let error = object_store::Error::Generic {
                store: "GCS",
                source: format!("Server returned non-2xx status code: {status}: {body}").into(),
            };
            let failure = of(&GCS, "list x", "bucket \"b\"", error);
            assert_eq!(failure.error.kind(), kind, "{body}");
            let hint = failure.error.hint_text().unwrap_or_default();
            assert!(hint.contains(named), "{body}: {hint}");
            assert!(!failure.transient, "{body}");
        }
    }
}
