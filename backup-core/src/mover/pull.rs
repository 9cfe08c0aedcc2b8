//! What can be done where the image of movers can not be pulled. Pure.

use super::MoverOptions;

/// In words, for a mover of this namespace, or in this pod of it.
pub(super) fn hint(options: &MoverOptions, namespace: &str, inside: Option<&str>) -> String {
    let MoverOptions {
        image, pulled_with, ..
    } = options;
    let whose = match inside {
        Some(pod) => format!("pod {pod} itself"),
        None => format!("account default of namespace {namespace}"),
    };
    let is_here = |secret: &str| secret.split('/').next() == Some(namespace);
    let secrets: Vec<&str> = pulled_with
        .iter()
        .map(String::as_str)
        .filter(|secret| inside.is_some() || !is_here(secret))
        .collect();
    if secrets.is_empty() {
        return format!(
            "--mover-image names an image of this program that the nodes can pull, and {image} was asked for; a registry that asks who pulls needs imagePullSecrets of {whose}"
        );
    }
    format!(
        "the controller pulls {image} with Secret {}, which pods of namespace {namespace} do not have: make a copy of it there and name that in imagePullSecrets of {whose}, or name an image with --mover-image that nodes pull without",
        secrets.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_image_that_can_not_be_pulled_is_told_with_the_secrets_that_are_elsewhere() {
        let told = |pulled_with: &[&str], inside: Option<&str>| {
            let options = MoverOptions {
                image: "r.example/i:1".into(),
                pulled_with: pulled_with.iter().map(ToString::to_string).collect(),
                timeout: Duration::ZERO,
                parallel: 1,
            };
            hint(&options, "shop", inside)
        };
        let said = told(&[], None);
        assert!(said.contains("--mover-image") && said.contains("r.example/i:1"));
        assert!(said.contains("account default of namespace shop"), "{said}");
        let said = told(&["kubectl-backup/pull"], None);
        assert!(said.contains("Secret kubectl-backup/pull"), "{said}");
        assert!(!told(&["shop/pull"], None).contains("the controller"));
        let said = told(&["kubectl-backup/pull"], Some("db-0"));
        assert!(said.contains("of pod db-0 itself"), "{said}");
    }
}
