//! What it means that a server refused a step that was only tried (`dryRun=All`). Pure.

use super::{Action, Done};
use crate::cluster::ApiError;

/// The refusal as what became of the object. Where the server misses another object, that is told with it: this restore may bring it.
pub(super) fn refused(error: &ApiError) -> Done {
    // A webhook with side effects: the server lets nobody try.
    if error.message.contains("does not support dry run") {
        return Done::new(Action::Untried, error.to_string());
    }
    Done {
        awaits: missed(&error.message),
        ..Done::new(Action::Failed, error.to_string())
    }
}

/// What a refusal says is not there, as `resource name`: `roles.rbac.authorization.k8s.io "x" not found`, `serviceaccount "x" not found`,
/// `RuntimeClass "x" not found`, `no PriorityClass with name x was found`.
fn missed(message: &str) -> Option<String> {
    if let Some((_, rest)) = message.split_once("no PriorityClass with name ")
        && let Some((name, _)) = rest.split_once(" was found")
    {
        return Some(format!("priorityclasses.scheduling.k8s.io {name}"));
    }
    let (before, _) = message.split_once("\" not found")?;
    let (before, name) = before.rsplit_once('"')?;
    let kind = before.trim_end().rsplit(' ').next()?;
    Some(match kind {
        "serviceaccount" => format!("serviceaccounts {name}"),
        "RuntimeClass" => format!("runtimeclasses.node.k8s.io {name}"),
        resource => format!("{resource} {name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_misses_is_read_from_what_it_says() {
        for (said, missing) in [
            (
                r#"pods "p" is forbidden: error looking up service account n/robot: serviceaccount "robot" not found"#,
                Some("serviceaccounts robot"),
            ),
            (
                r#"pods "p" is forbidden: no PriorityClass with name high was found"#,
                Some("priorityclasses.scheduling.k8s.io high"),
            ),
            (
                r#"pods "p" is forbidden: pod rejected: RuntimeClass "kata" not found"#,
                Some("runtimeclasses.node.k8s.io kata"),
            ),
            (
                r#"roles.rbac.authorization.k8s.io "reader" not found"#,
                Some("roles.rbac.authorization.k8s.io reader"),
            ),
            (r#"namespaces "n" not found"#, Some("namespaces n")),
            (r#"exceeded quota: "x""#, None),
            (r#"" not found"#, None),
        ] {
            assert_eq!(missed(said).as_deref(), missing, "{said}");
        }
    }

    #[test]
    fn a_webhook_that_can_not_be_tried_refuses_nothing() {
        let error = ApiError {
            code: 400,
            message: r#"admission webhook "w" does not support dry run"#.to_owned(),
            ..ApiError::default()
        };
        assert_eq!(refused(&error).action, Action::Untried);
    }
}
