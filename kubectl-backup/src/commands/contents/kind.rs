//! Which kind and which object a user means. Pure.

use backup_core::Error;
use backup_core::archive::row::ResourceRow;

use backup_cli::error::{CommandError, Result};

/// kubectl's short names of built-in kinds; an archive does not carry them.
const SHORT: [(&str, &str); 25] = [
    ("cm", "configmaps"),
    ("crd", "customresourcedefinitions"),
    ("crds", "customresourcedefinitions"),
    ("csr", "certificatesigningrequests"),
    ("cj", "cronjobs"),
    ("deploy", "deployments"),
    ("ds", "daemonsets"),
    ("ep", "endpoints"),
    ("ev", "events"),
    ("hpa", "horizontalpodautoscalers"),
    ("ing", "ingresses"),
    ("limits", "limitranges"),
    ("netpol", "networkpolicies"),
    ("no", "nodes"),
    ("ns", "namespaces"),
    ("pc", "priorityclasses"),
    ("pdb", "poddisruptionbudgets"),
    ("po", "pods"),
    ("pv", "persistentvolumes"),
    ("pvc", "persistentvolumeclaims"),
    ("quota", "resourcequotas"),
    ("rs", "replicasets"),
    ("sa", "serviceaccounts"),
    ("sts", "statefulsets"),
    ("svc", "services"),
];

/// The resource of a backup that is meant by a plural, a kind, a short name, with or without its group.
///
/// # Errors
/// None or several; the candidates are named.
pub(crate) fn find<'a>(rows: &'a [ResourceRow], asked: &str) -> Result<&'a ResourceRow> {
    let asked = asked.to_lowercase();
    let (word, group) = asked
        .split_once('.')
        .map_or((asked.as_str(), None), |(w, g)| (w, Some(g)));
    let long = SHORT
        .iter()
        .find(|(short, _)| *short == word)
        .map_or(word, |(_, long)| long);
    let matches: Vec<_> = rows
        .iter()
        .filter(|row| {
            let (plural, own) = row.resource.split_once('.').unwrap_or((&row.resource, ""));
            (plural == word || plural == long || row.kind.to_lowercase() == word)
                && group.is_none_or(|group| group == own)
        })
        .collect();
    // A kind that is there beats one that is only known; the core group beats the others, as for kubectl.
    let saved: Vec<_> = matches
        .iter()
        .filter(|row| row.objects() > 0)
        .copied()
        .collect();
    let best = if saved.is_empty() { &matches } else { &saved };
    let core = best.iter().find(|row| !row.resource.contains('.'));
    match (best.as_slice(), core) {
        ([one], _) => Ok(one),
        (_, Some(core)) => Ok(core),
        ([], None) => Err(
            Error::not_found(format!("the backup knows no kind {asked:?}"))
                .hint("`contents NAME -o wide` lists all kinds")
                .into(),
        ),
        (several, None) => {
            let names: Vec<_> = several.iter().map(|row| row.resource.as_str()).collect();
            Err(CommandError::usage(
                Error::invalid(format!("kind {asked:?} may be one of several"))
                    .hint(format!("use one of: {}", names.join(", "))),
            ))
        }
    }
}

/// Namespace and name of one object.
///
/// # Errors
/// A namespaced kind without a namespace, or two of them.
pub(crate) fn object<'a>(
    asked: &'a str,
    namespace: Option<&'a str>,
    resource: &ResourceRow,
) -> Result<(Option<&'a str>, &'a str)> {
    let (before, name) = asked
        .split_once('/')
        .map_or((None, asked), |(ns, name)| (Some(ns), name));
    match (before, namespace) {
        _ if !resource.namespaced && before.is_none() => Ok((None, name)),
        (Some(one), Some(other)) if one != other => Err(CommandError::usage(Error::invalid(
            format!("{asked:?} is not in namespace {other:?}"),
        ))),
        (Some(one), _) | (None, Some(one)) if resource.namespaced => Ok((Some(one), name)),
        (None, None) => Err(CommandError::usage(
            Error::invalid(format!("{} {asked:?} needs a namespace", resource.resource))
                .hint(format!("write NAMESPACE/{asked}, or add -n NAMESPACE")),
        )),
        _ => Err(CommandError::usage(Error::invalid(format!(
            "{} are not in namespaces",
            resource.resource
        )))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(resource: &str, kind: &str, count: u64) -> ResourceRow {
        ResourceRow {
            resource: resource.into(),
            kind: kind.into(),
            namespaced: kind != "Node",
            count,
            ..ResourceRow::default()
        }
    }

    #[test]
    fn kinds_are_found_by_plural_kind_short_name_and_group() {
        let rows = [
            row("deployments.apps", "Deployment", 2),
            row("events", "Event", 0),
            row("events.events.k8s.io", "Event", 3),
            row("pods", "Pod", 1),
            row("pods.metrics.k8s.io", "PodMetrics", 1),
            row("widgets.a.io", "Widget", 1),
            row("widgets.b.io", "Widget", 1),
        ];
        for (asked, want) in [
            ("deploy", "deployments.apps"),
            ("Deployment", "deployments.apps"),
            ("deployments.apps", "deployments.apps"),
            ("pods", "pods"),
            ("po", "pods"),
            ("ev", "events.events.k8s.io"),
            ("widget.b.io", "widgets.b.io"),
        ] {
            assert_eq!(find(&rows, asked).unwrap().resource, want, "{asked}");
        }
        assert!(find(&rows, "gadgets").unwrap_err().is_not_found());
        let several = find(&rows, "widgets").unwrap_err();
        assert!(
            several
                .error()
                .hint_text()
                .unwrap()
                .contains("widgets.a.io, widgets.b.io")
        );
    }

    #[test]
    fn objects_are_namespaced_as_their_kind_is() {
        let (pod, node) = (row("pods", "Pod", 1), row("nodes", "Node", 1));
        assert_eq!(object("a/b", None, &pod).unwrap(), (Some("a"), "b"));
        assert_eq!(object("b", Some("a"), &pod).unwrap(), (Some("a"), "b"));
        assert_eq!(object("n", None, &node).unwrap(), (None, "n"));
        for (asked, namespace, of) in [
            ("b", None, &pod),
            ("a/b", Some("c"), &pod),
            ("a/n", None, &node),
        ] {
            assert!(object(asked, namespace, of).is_err(), "{asked}");
        }
    }
}
