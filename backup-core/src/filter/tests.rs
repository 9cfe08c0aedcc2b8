use proptest::prelude::*;

use super::*;
use crate::api::{LabelSelector, Requirement};

fn resource(group: &str, plural: &str, kind: &str, namespaced: bool) -> ApiResource {
    ApiResource {
        group: group.into(),
        version: "v1".into(),
        plural: plural.into(),
        kind: kind.into(),
        singular: kind.to_lowercase(),
        short_names: match plural {
            "deployments" => vec!["deploy".into()],
            "persistentvolumes" => vec!["pv".into()],
            _ => vec![],
        },
        namespaced,
        verbs: vec![],
    }
}

fn served() -> Vec<Arc<ApiResource>> {
    [
        resource("", "pods", "Pod", true),
        resource("", "services", "Service", true),
        resource("", "namespaces", "Namespace", false),
        resource("", "persistentvolumes", "PersistentVolume", false),
        resource("apps", "deployments", "Deployment", true),
        resource("serving.knative.dev", "services", "Service", true),
        resource("storage.k8s.io", "storageclasses", "StorageClass", false),
        resource("coordination.k8s.io", "leases", "Lease", true),
    ]
    .into_iter()
    .map(Arc::new)
    .collect()
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

/// `+` in, `~` related, `-` out, in the order of `served()`.
fn verdicts(filter: &Filter) -> String {
    filter.validate().unwrap();
    let (filter, _) = filter.resolve(&served());
    served()
        .iter()
        .map(|r| match filter.resource(r) {
            Verdict::In => '+',
            Verdict::Related => '~',
            Verdict::Out(_) => '-',
        })
        .collect()
}

#[test]
fn no_filter_means_everything() {
    let filter = Filter::default();
    assert_eq!(verdicts(&filter), "++++++++");
    assert!(filter.all_namespaces() && filter.namespace("any"));
    assert!(filter.labels(&BTreeMap::new()));
}

#[test]
fn verdicts_are_those_of_velero() {
    let f = Filter::default;
    // Order: pods services namespaces PVs deployments knative-services storageclasses leases
    for (want, filter) in [
        (
            "++-+++++",
            Filter {
                not_resources: list(&["ns-does-not-exist", "namespaces"]),
                ..f()
            },
        ),
        (
            "+-~~--~-",
            Filter {
                resources: list(&["pods"]),
                ..f()
            }
            .with_namespaces(),
        ),
        (
            "--~~+-~-",
            Filter {
                resources: list(&["deploy"]),
                ..f()
            },
        ),
        (
            "--~++-~-",
            Filter {
                resources: list(&["Deployment", "PV"]),
                ..f()
            },
        ),
        // A bare name is the first group's kind of that name, as for kubectl.
        (
            "+-++++++",
            Filter {
                not_resources: list(&["services"]),
                ..f()
            },
        ),
        (
            "+++++-++",
            Filter {
                not_resources: list(&["services.serving.knative.dev"]),
                ..f()
            },
        ),
        (
            "+-+++-++",
            Filter {
                not_resources: list(&["services*"]),
                ..f()
            },
        ),
        (
            "+-+++-++",
            Filter {
                not_resources: list(&["services*", "*.knative.dev"]),
                ..f()
            },
        ),
        // Cluster-scoped objects of a part of the namespaces.
        ("+++~++~+", f().with_namespaces()),
        (
            "++++++++",
            Filter {
                include_cluster_resources: Some(true),
                ..f()
            }
            .with_namespaces(),
        ),
        (
            "+++-++-+",
            Filter {
                include_cluster_resources: Some(false),
                ..f()
            },
        ),
        // New style.
        (
            "++~~++~+",
            Filter {
                not_namespaced_resources: list(&["x"]),
                ..f()
            },
        ),
        (
            "++~+++~+",
            Filter {
                cluster_resources: list(&["persistentvolumes"]),
                ..f()
            },
        ),
        (
            "++++++++",
            Filter {
                cluster_resources: list(&["*"]),
                ..f()
            },
        ),
        (
            "++--++-+",
            Filter {
                not_cluster_resources: list(&["*"]),
                ..f()
            },
        ),
        (
            "+-~~--~-",
            Filter {
                namespaced_resources: list(&["pods"]),
                ..f()
            },
        ),
        (
            "--++--+-",
            Filter {
                not_namespaced_resources: list(&["*"]),
                cluster_resources: list(&["*"]),
                ..f()
            },
        ),
        (
            "+++++++-",
            Filter {
                skip_noise: true,
                ..f()
            },
        ),
    ] {
        assert_eq!(verdicts(&filter), want, "{filter:?}");
    }
}

impl Filter {
    fn with_namespaces(mut self) -> Self {
        self.namespaces = list(&["a"]);
        self
    }
}

#[test]
fn excluded_namespaces_win_and_globs_work() {
    let filter = Filter {
        namespaces: list(&["prod-*", "web"]),
        not_namespaces: list(&["prod-test"]),
        ..Filter::default()
    };
    filter.validate().unwrap();
    assert!(filter.namespace("prod-eu") && filter.namespace("web"));
    assert!(!filter.namespace("prod-test") && !filter.namespace("default"));
    assert!(filter.named_namespaces().is_none());
    let named = Filter {
        namespaces: list(&["b", "a", "b"]),
        ..Filter::default()
    };
    assert_eq!(named.named_namespaces().unwrap(), ["a", "b"]);
}

#[test]
fn what_can_not_be_meant_is_refused() {
    let f = Filter::default;
    for (filter, why) in [
        (
            Filter {
                resources: list(&["a"]),
                cluster_resources: list(&["b"]),
                ..f()
            },
            "can not be used together",
        ),
        (
            Filter {
                include_cluster_resources: Some(true),
                namespaced_resources: list(&["b"]),
                ..f()
            },
            "can not be used together",
        ),
        (
            Filter {
                namespaces: list(&["*", "a"]),
                ..f()
            },
            "'*' beside",
        ),
        (
            Filter {
                not_namespaces: list(&["*"]),
                ..f()
            },
            "leaves nothing",
        ),
        (
            Filter {
                resources: list(&["pods"]),
                not_resources: list(&["pods"]),
                ..f()
            },
            "\"pods\" is in",
        ),
        (
            Filter {
                namespaces: list(&["a", "b"]),
                not_namespaces: list(&["b"]),
                ..f()
            },
            "\"b\" is in",
        ),
        (
            Filter {
                cluster_resources: list(&["a"]),
                not_cluster_resources: list(&["*"]),
                ..f()
            },
            "can not hold anything",
        ),
        (
            Filter {
                namespaces: list(&["../x"]),
                ..f()
            },
            "name of a namespace",
        ),
        (
            Filter {
                namespaces: list(&["x["]),
                ..f()
            },
            "not closed",
        ),
        (
            Filter {
                resources: list(&[""]),
                ..f()
            },
            "is empty",
        ),
    ] {
        let error = filter.validate().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.kind(), crate::Kind::Invalid);
    }
}

#[test]
fn kinds_that_nothing_is_served_under_are_told() {
    let filter = Filter {
        resources: list(&["pods", "widgets", "foo*"]),
        ..Filter::default()
    };
    assert_eq!(filter.resolve(&served()).1, ["foo*", "widgets"]);
    assert!(filter.includes_unnamed_kinds());
    let filter = Filter {
        resources: list(&["pods"]),
        ..Filter::default()
    };
    assert!(!filter.includes_unnamed_kinds());
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).into(), (*v).into()))
        .collect()
}

#[test]
fn selectors_read_as_kubectl_reads_them() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("k8s.io/x", "")]);
    for (text, want) in [
        ("app=web", true),
        ("app==web,tier=front", true),
        ("app=web,app=api", false),
        ("app!=api", true),
        ("absent!=x", true),
        ("app in (api, web)", true),
        ("app notin (api,web)", false),
        ("absent notin (a)", true),
        ("tier", true),
        ("!tier", false),
        (" ! absent , app ", true),
        ("k8s.io/x=", true),
        ("k8s.io/x in ()", true),
        ("k8s.io/x in (,a)", true),
        ("app=", false),
        ("in=web", false),
    ] {
        assert_eq!(Selector::parse(text).unwrap().matches(&web), want, "{text}");
    }
    let any = Selector::parse_any("app=api or tier in (front,back)").unwrap();
    assert_eq!(any.len(), 2);
}

#[test]
fn selectors_that_can_not_be_read_say_where() {
    for (text, position) in [
        ("", "position 1"),
        ("app=web,", "position 9"),
        ("app in web", "position 8"),
        ("app=web tier=x", "position 9"),
        ("app in (web", "position 12"),
        ("=web", "position 1"),
        ("ä=web", "position 1"),
        ("app=we$b", "position 5"),
        ("-app", "position 1"),
        ("app>3", "position 4"),
        ("a/b/c=d", "position 1"),
    ] {
        let error = Selector::parse(text).unwrap_err();
        assert!(error.to_string().contains(position), "{text}: {error}");
    }
}

fn a_requirement() -> impl Strategy<Value = Requirement> {
    let values = prop::collection::btree_set("[a-c]{0,1}", 1..3);
    ("[k-m]", 0..4, values).prop_map(|(key, operator, values)| {
        let operator = ["In", "NotIn", "Exists", "DoesNotExist"][operator as usize];
        let takes = operator == "In" || operator == "NotIn";
        Requirement {
            key,
            operator: operator.into(),
            values: if takes {
                values.into_iter().collect()
            } else {
                vec![]
            },
        }
    })
}

fn some_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[k-m]", "[a-c]{0,1}", 0..4)
}

proptest! {
    #[test]
    fn a_selector_means_the_same_after_being_written_and_read(
        match_labels in some_labels(),
        match_expressions in prop::collection::vec(a_requirement(), 0..4),
        labels in prop::collection::vec(some_labels(), 1..20),
    ) {
        let selector = Selector(LabelSelector { match_labels, match_expressions });
        let text = selector.to_query();
        prop_assume!(!text.is_empty());
        let again = Selector::parse(&text).unwrap();
        for labels in &labels {
            prop_assert_eq!(selector.matches(labels), again.matches(labels), "{}", &text);
        }
    }

    #[test]
    fn each_operator_has_its_negation(key in "[k-m]", values in prop::collection::btree_set("[a-c]", 1..3), labels in some_labels()) {
        let values: Vec<_> = values.into_iter().collect();
        let parse = |text: String| Selector::parse(&text).unwrap().matches(&labels);
        let list = values.join(",");
        prop_assert_ne!(parse(format!("{key} in ({list})")), parse(format!("{key} notin ({list})")));
        prop_assert_ne!(parse(key.clone()), parse(format!("!{key}")));
        prop_assert_ne!(parse(format!("{key}={}", values[0])), parse(format!("{key}!={}", values[0])));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
        let _ = Selector::parse_any(&text);
    }

    #[test]
    fn a_star_is_any_text(text in "[a-z-]{0,12}", at in 0usize..12) {
        let at = at.min(text.len());
        let pattern = format!("{}*{}", &text[..at], &text[at..]);
        prop_assert!(super::glob::matches(&pattern, &text));
    }
}

#[test]
fn a_group_is_left_out_by_its_name_and_by_a_glob_over_groups() {
    let without = |pattern: &str| Filter {
        not_resources: vec![pattern.to_owned()],
        ..Filter::default()
    };
    for pattern in ["*.metrics.k8s.io", "*.k8s.io", "*.*"] {
        assert!(
            without(pattern).excludes_group("metrics.k8s.io"),
            "{pattern}"
        );
    }
    for pattern in [
        "pods.metrics.k8s.io",
        "po*.metrics.k8s.io",
        "*.apps",
        "metrics.k8s.io",
    ] {
        assert!(
            !without(pattern).excludes_group("metrics.k8s.io"),
            "{pattern}"
        );
    }
    let namespaced_only = Filter {
        not_namespaced_resources: vec!["*.metrics.k8s.io".to_owned()],
        ..Filter::default()
    };
    assert!(!namespaced_only.excludes_group("metrics.k8s.io"));
}

#[test]
fn a_filter_whose_kinds_are_all_unknown_is_told_from_one_that_chooses_none() {
    let of = |kinds: &[&str]| Filter {
        resources: kinds.iter().map(ToString::to_string).collect(),
        ..Filter::default()
    };
    let unknown = ["bars".to_owned(), "foos".to_owned()];
    assert!(of(&["foos"]).names_only(&unknown));
    assert!(of(&["foos", "bars"]).names_only(&unknown));
    assert!(!of(&["foos", "pods"]).names_only(&unknown));
    assert!(!of(&[]).names_only(&unknown));
    assert!(!of(&[]).names_only(&[]));
}

#[test]
fn a_weaker_filters_kinds_count_where_the_stronger_says_nothing_of_them() {
    let list = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let strong = Filter {
        namespaced_resources: list(&["pods.", "deploy*"]),
        not_namespaced_resources: list(&["secrets."]),
        ..Filter::default()
    };
    let weak = Filter {
        namespaced_resources: list(&["secrets.", "services."]),
        not_namespaced_resources: list(&["pods.", "deployments.apps", "events."]),
        not_cluster_resources: list(&["nodes."]),
        ..Filter::default()
    };
    let both = strong.over(&weak);
    assert_eq!(both.namespaced_resources, ["pods.", "deploy*", "services."]);
    assert_eq!(both.not_namespaced_resources, ["secrets.", "events."]);
    assert_eq!(both.not_cluster_resources, ["nodes."]);
}
