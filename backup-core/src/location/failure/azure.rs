//! What the codes of Azure Blob Storage and of Microsoft Entra mean.
//! <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>, <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>

use super::Words;
use crate::error::Kind;

/// Azure Blob Storage.
pub(crate) const AZURE: Words = Words {
    endpoint: "config.storageAccountURI",
    address: "config.storageAccount and config.storageAccountURI, and AZURE_CLOUD_NAME",
    rights: RIGHTS,
    nobody: "no credentials were given and this machine has no managed identity: give the location a credentials file with AZURE_STORAGE_ACCOUNT_ACCESS_KEY, or with AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
    code,
};

const RIGHTS: &str = "the identity is known but may not do this: it needs the role Storage Blob Data Contributor on the container or the storage account (with a SAS: the permissions racwdl on the container)";

fn code(code: &str, text: &str) -> Option<(Kind, String)> {
    let say = |kind: Kind, hint: &str| Some((kind, hint.to_owned()));
    match code {
        "AuthenticationFailed" if text.contains("Signature") || text.contains("signature") => say(
            Kind::Unauthorized,
            "the access key or the SAS is wrong or has expired: check AZURE_STORAGE_ACCOUNT_ACCESS_KEY (or the variable that config.storageAccountKeyEnvVar names) or AZURE_STORAGE_SAS_TOKEN, config.storageAccount, and this machine's clock",
        ),
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => {
            say(
                Kind::Unauthorized,
                "the store does not accept who we are: check the location's credentials, that its tenant is the storage account's, and this machine's clock",
            )
        }
        "AuthorizationFailure" | "IpAuthorizationError" => say(
            Kind::Forbidden,
            "the storage account refuses this: its firewall may not let this network in, or the SAS lacks a permission or has expired",
        ),
        "AuthorizationPermissionMismatch"
        | "InsufficientAccountPermissions"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch" => say(Kind::Forbidden, RIGHTS),
        "KeyBasedAuthenticationNotPermitted" => say(
            Kind::Forbidden,
            "the storage account takes no access keys: set config.useAAD to \"true\" and give a client secret, a workload identity or a managed identity",
        ),
        "AccountIsDisabled" => say(
            Kind::Forbidden,
            "the storage account is disabled: see its subscription (billing), or check config.storageAccount",
        ),
        "ContainerNotFound" => say(
            Kind::NotFound,
            "there is no such container: check objectStorage.bucket and config.storageAccount, or create the container",
        ),
        "ContainerBeingDeleted" => say(
            Kind::NotFound,
            "the container is being deleted: check objectStorage.bucket",
        ),
        "InvalidResourceName" => say(
            Kind::Invalid,
            "the store allows no container of this name: objectStorage.bucket has small letters, digits and single hyphens",
        ),
        "ResourceNotFound" | "InvalidUri" => say(
            Kind::NotFound,
            "the storage account is not there: check config.storageAccount and config.storageAccountURI",
        ),
        "BlobImmutableDueToPolicy" | "SnapshotsPresent" => say(
            Kind::Forbidden,
            "the container keeps this blob for now (an immutability policy, a legal hold or snapshots): it can be removed when that ends",
        ),
        "LeaseIdMissing" => say(
            Kind::Forbidden,
            "somebody holds a lease on this blob: break the lease",
        ),
        "invalid_client" => say(
            Kind::Unauthorized,
            "the client secret is wrong or has expired: check AZURE_CLIENT_ID and AZURE_CLIENT_SECRET in the location's credentials (the federated token's subject and audience where there is no secret)",
        ),
        "unauthorized_client" => say(
            Kind::Unauthorized,
            "the tenant does not know this client: check AZURE_CLIENT_ID and AZURE_TENANT_ID in the location's credentials",
        ),
        "invalid_request" if text.contains("Identity not found") => say(
            Kind::Unauthorized,
            "this machine has no managed identity of this AZURE_CLIENT_ID: assign one, or give the location a credentials file",
        ),
        "invalid_request" | "invalid_tenant" => say(
            Kind::Unauthorized,
            "the sign-in service does not know the tenant: check AZURE_TENANT_ID, AZURE_CLOUD_NAME and config.activeDirectoryAuthorityURI",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;

    fn answer(status: &str, body: &str) -> (Kind, String, String, bool) {
        let error = object_store::Error::Generic {
            store: "MicrosoftAzure",
            source: format!("Server returned non-2xx status code: {status}: {body}").into(),
        };
        let failure = of(&AZURE, "list x", "container \"c\"", error);
        let hint = failure.error.hint_text().unwrap_or_default().to_owned();
        let said = super::super::chain(&failure.error);
        (failure.error.kind(), hint, said, failure.transient)
    }

    fn xml(code: &str, message: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}\nRequestId:1\nTime:2026</Message></Error>"
        )
    }

    #[test]
    fn codes_of_azure_name_the_setting_and_are_not_tried_again() {
        for (status, code, message, kind, named) in [
            (
                "403 Forbidden",
                "AuthenticationFailed",
                "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
                Kind::Unauthorized,
                "AZURE_STORAGE_ACCOUNT_ACCESS_KEY",
            ),
            (
                "404 Not Found",
                "ContainerNotFound",
                "The specified container does not exist.",
                Kind::NotFound,
                "objectStorage.bucket",
            ),
            (
                "403 Forbidden",
                "AccountIsDisabled",
                "The specified account is disabled.",
                Kind::Forbidden,
                "billing",
            ),
            (
                "403 Forbidden",
                "AuthorizationPermissionMismatch",
                "This request is not authorized.",
                Kind::Forbidden,
                "Storage Blob Data Contributor",
            ),
            (
                "403 Forbidden",
                "KeyBasedAuthenticationNotPermitted",
                "Key based authentication is not permitted.",
                Kind::Forbidden,
                "useAAD",
            ),
            (
                "409 Conflict",
                "BlobImmutableDueToPolicy",
                "This operation is not permitted as the blob is immutable due to a policy.",
                Kind::Forbidden,
                "immutability",
            ),
        ] {
            let (found, hint, said, transient) = answer(status, &xml(code, message));
            assert_eq!(found, kind, "{code}");
            assert!(hint.contains(named), "{code}: {hint}");
            assert!(said.contains(code) && !said.contains("RequestId"), "{said}");
            assert!(!transient, "{code}");
        }
        let (.., transient) = answer("503 Service Unavailable", &xml("ServerBusy", "Busy."));
        assert!(transient);
    }

    #[test]
    fn an_answer_of_a_batch_and_one_of_the_sign_in_service_are_read_as_well() {
        let error = object_store::Error::Generic {
            store: "MicrosoftAzure",
            source: "Bulk delete request failed for key x: Service Unavailable (code: 503)".into(),
        };
        assert!(of(&AZURE, "remove x", "c", error).transient);
        let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided."}"#;
        let (kind, hint, said, transient) = answer("401 Unauthorized", body);
        assert_eq!(kind, Kind::Unauthorized);
        assert!(hint.contains("AZURE_CLIENT_SECRET"), "{hint}");
        assert!(
            said.ends_with("the sign-in service answered 401 invalid_client: AADSTS7000215: Invalid client secret provided"),
            "{said}"
        );
        assert!(!transient);
    }
}
