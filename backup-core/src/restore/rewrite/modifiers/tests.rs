use serde_json::json;

use super::*;

/// The object after these rules, and which of them changed it.
fn applied(rules: &str, resource: &str, object: &Value) -> Result<(Value, Vec<usize>)> {
    let modifiers = Modifiers::parse(&format!("version: v1\nresourceModifierRules:\n{rules}"))?;
    let text = object.to_string();
    let mut raw = RawObject::parse(&text)?;
    let text_of = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    let (namespace, name) = (text_of("namespace"), text_of("name"));
    let rules = modifiers.apply(resource, namespace, name, &mut raw, &Schemas::default())?;
    Ok((serde_json::from_slice(&raw.to_vec()).unwrap(), rules))
}

fn claim() -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "mysql-data", "namespace": "bar", "labels": {"foo": "bar"}},
        "spec": {"storageClassName": "premium", "accessModes": ["ReadWriteOnce"]}})
}

fn said(rules: &str) -> String {
    applied(rules, "persistentvolumeclaims", &claim())
        .unwrap_err()
        .sentence()
}

#[test]
fn conditions_are_all_to_hold() {
    let change = "mergePatches: [{patchData: '{\"spec\": {\"storageClassName\": \"x\"}}'}]";
    for (conditions, wanted) in [
        ("{groupResource: persistentvolumeclaims}", true),
        ("{groupResource: '*'}", true),
        (
            "{groupResource: 'persistent*', resourceNameRegex: '^mysql.*$'}",
            true,
        ),
        ("{groupResource: '{pods,persistentvolumeclaim[rs]}'}", true),
        ("{groupResource: 'persistentvolumeclaim?'}", true),
        ("{groupResource: persistentvolume}", false),
        ("{groupResource: '*.apps'}", false),
        ("{groupResource: '**', resourceNameRegex: sql}", true),
        ("{groupResource: '**', resourceNameRegex: '^sql'}", false),
        ("{groupResource: '**', namespaces: [foo, bar]}", true),
        ("{groupResource: '**', namespaces: ['*']}", true),
        ("{groupResource: '**', namespaces: ['b*']}", true),
        ("{groupResource: '**', namespaces: [foo]}", false),
        (
            "{groupResource: '**', labelSelector: {matchLabels: {foo: bar}}}",
            true,
        ),
        (
            "{groupResource: '**', labelSelector: {matchLabels: {foo: other}}}",
            false,
        ),
        (
            "{groupResource: '**', labelSelector: {matchExpressions: [{key: foo, operator: NotIn, values: [a]}]}}",
            true,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/storageClassName, value: premium}]}",
            true,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/storageClassName, value: other}]}",
            false,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/none, value: x}]}",
            false,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/none/deeper, value: x}]}",
            false,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/accessModes/0, value: ReadWriteOnce}]}",
            true,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/accessModes/7, value: ReadWriteOnce}]}",
            false,
        ),
        (
            "{groupResource: '**', matches: [{path: /spec/none, value: 'null'}]}",
            true,
        ),
        (
            "{groupResource: '**', resourceNameRegex: '', namespaces: null, matches: []}",
            true,
        ),
    ] {
        let (object, rules) = applied(
            &format!("- {{conditions: {conditions}, {change}}}"),
            "persistentvolumeclaims",
            &claim(),
        )
        .unwrap();
        assert_eq!(!rules.is_empty(), wanted, "{conditions}");
        assert_eq!(
            object["spec"]["storageClassName"] == "x",
            wanted,
            "{conditions}"
        );
    }
}

#[test]
fn groups_and_what_has_no_namespace_are_met_as_velero_meets_them() {
    let change = "mergePatches: [{patchData: '{\"metadata\": {\"labels\": {\"a\": \"b\"}}}'}]";
    for (resource, conditions, wanted) in [
        (
            "deployments.apps",
            "{groupResource: deployments.apps}",
            true,
        ),
        ("deployments.apps", "{groupResource: deployments}", false),
        ("deployments.apps", "{groupResource: '*'}", false),
        ("deployments.apps", "{groupResource: '*.apps'}", true),
        ("deployments.apps", "{groupResource: '**'}", true),
        (
            "ingresses.networking.k8s.io",
            "{groupResource: '*.networking.k8s.io'}",
            true,
        ),
        (
            "ingresses.networking.k8s.io",
            "{groupResource: '*.*'}",
            false,
        ),
        (
            "clusterroles.rbac.authorization.k8s.io",
            "{groupResource: '**', namespaces: [foo]}",
            true,
        ),
        // Velero's rules never reach namespaces: one that names them is meant.
        ("namespaces", "{groupResource: '*'}", false),
        ("namespaces", "{groupResource: namespaces}", true),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "n"}});
        let rules = format!("- {{conditions: {conditions}, {change}}}");
        let (object, _) = applied(&rules, resource, &object).unwrap();
        assert_eq!(
            object["metadata"]["labels"]["a"] == "b",
            wanted,
            "{resource} {conditions}"
        );
    }
}

#[test]
fn values_are_read_as_velero_reads_them() {
    for (value, want) in [
        ("standard", json!("standard")),
        ("''", json!("")),
        ("'3'", json!(3)),
        ("3", json!(3)),
        ("1.5", json!(1.5)),
        ("'true'", json!(true)),
        ("true", json!(true)),
        ("'null'", json!(null)),
        ("'{\"a\": [1]}'", json!({"a": [1]})),
        ("'[1, \"b\"]'", json!([1, "b"])),
        ("'\"3\"'", json!("3")),
        ("'\"true\"'", json!("true")),
        ("'1.2.3'", json!("1.2.3")),
        ("'10Gi'", json!("10Gi")),
        ("'a\\nb'", json!("a\nb")),
        ("'a \\\" b'", json!("a \" b")),
    ] {
        let rules = format!(
            "- {{conditions: {{groupResource: '**'}}, patches: [{{operation: add, path: /spec/x, value: {value}}}]}}"
        );
        let (object, _) = applied(&rules, "persistentvolumeclaims", &claim()).unwrap();
        assert_eq!(object["spec"]["x"], want, "{value}");
    }
    for value in ["'{'", "'[1,'", "'True'", "'inf'", "'a \" b'", "'a\\q'"] {
        let rules = format!(
            "- {{conditions: {{groupResource: '**'}}, patches: [{{operation: add, path: /spec/x, value: {value}}}]}}"
        );
        assert!(said(&rules).contains("is no JSON"), "{value}");
    }
}

#[test]
fn rules_follow_each_other_and_look_at_what_was_there_before_the_first() {
    let rules = r#"
- conditions: {groupResource: persistentvolumeclaims, matches: [{path: /spec/storageClassName, value: premium}]}
  patches:
  - {operation: test, path: /spec/storageClassName, value: premium}
  - {operation: replace, path: /spec/storageClassName, value: standard}
  - {operation: add, path: /metadata/labels/a~1b, value: c}
- conditions: {groupResource: persistentvolumeclaims, matches: [{path: /spec/storageClassName, value: premium}]}
  mergePatches:
  - patchData: |
      metadata:
        labels: {foo: null, mode: 0644}
- conditions: {groupResource: persistentvolumeclaims, matches: [{path: /spec/storageClassName, value: standard}]}
  patches: [{operation: remove, path: /spec}]
- conditions: {groupResource: persistentvolumeclaims}
  patches:
  - {operation: remove, path: /metadata/labels}
  - {operation: test, path: /spec/storageClassName, value: something}
"#;
    let (object, rules) = applied(rules, "persistentvolumeclaims", &claim()).unwrap();
    // The third does not match the original, the fourth's test undoes all of it.
    assert_eq!(rules, [1, 2]);
    assert_eq!(object["spec"]["storageClassName"], "standard");
    assert_eq!(
        object["metadata"]["labels"],
        json!({"a/b": "c", "mode": 420})
    );
}

#[test]
fn an_object_stays_itself_and_a_rule_that_fails_leaves_it_as_it_was() {
    for (patch, part) in [
        (
            "{operation: remove, path: /metadata/name}",
            "the object's name",
        ),
        (
            "{operation: replace, path: /metadata/name, value: other}",
            "the object's name",
        ),
        ("{operation: remove, path: /metadata}", "the object's name"),
        (
            "{operation: replace, path: /metadata, value: '\"x\"'}",
            "the object's name",
        ),
        (
            "{operation: replace, path: /kind, value: Secret}",
            "the object's kind",
        ),
        (
            "{operation: remove, path: /apiVersion}",
            "the object's apiVersion",
        ),
        (
            "{operation: remove, path: /spec/none}",
            "there is no /spec/none",
        ),
        (
            "{operation: replace, path: /spec/none, value: x}",
            "there is no /spec/none",
        ),
        (
            "{operation: add, path: /none/x, value: x}",
            "there is no /none/x",
        ),
        (
            "{operation: add, path: /spec/accessModes/1000000000, value: x}",
            "no place of a list of 1",
        ),
        (
            "{operation: test, path: /none/x, value: x}",
            "there is no /none/x",
        ),
        (
            "{operation: copy, from: '', path: /spec/all}",
            "its from is empty",
        ),
    ] {
        let rules = format!(
            "- {{conditions: {{groupResource: '**'}}, patches: [{{operation: add, path: /spec/first, value: x}}, {patch}]}}"
        );
        let said = self::said(&rules);
        assert!(said.contains(part), "{patch}: {said}");
    }
    // All of them are told, and none is applied.
    let rules = "
- {conditions: {groupResource: '**'}, mergePatches: [{patchData: '{\"spec\": {\"a\": 1}}'}]}
- {conditions: {groupResource: '**'}, patches: [{operation: remove, path: /spec/none}]}
- {conditions: {groupResource: '**'}, strategicPatches: [{patchData: '{\"spec\": {\"a\": 1}}'}]}
";
    let said = self::said(rules);
    assert!(
        said.contains("rule 2: there is no /spec/none; rule 3: the target does not tell"),
        "{said}"
    );
    let modifiers =
        Modifiers::parse(&format!("version: v1\nresourceModifierRules:\n{rules}")).unwrap();
    let text = claim().to_string();
    let mut raw = RawObject::parse(&text).unwrap();
    let failed = modifiers.apply(
        "persistentvolumeclaims",
        "bar",
        "mysql-data",
        &mut raw,
        &Schemas::default(),
    );
    assert!(failed.is_err());
    assert_eq!(raw.to_vec(), text.as_bytes());
}

#[test]
fn what_no_rule_touched_stays_byte_for_byte() {
    let modifiers = Modifiers::parse(
        "version: V1\nresourceModifierRules: [{conditions: {groupResource: '**'}, patches: [{operation: add, path: /metadata/labels, value: '{}'}]}]",
    )
    .unwrap();
    let text = r#"{"kind":"K","spec":{"big":123456789012345678901234567890,"f": 1e2},"metadata":{"name":"n"}}"#;
    let mut raw = RawObject::parse(text).unwrap();
    modifiers
        .apply("ks.x", "", "n", &mut raw, &Schemas::default())
        .unwrap();
    let want = r#"{"kind":"K","spec":{"big":123456789012345678901234567890,"f": 1e2},"metadata":{"labels":{},"name":"n"}}"#;
    assert_eq!(String::from_utf8(raw.to_vec()).unwrap(), want);
}

#[test]
fn pages_that_are_none_are_refused_and_say_where() {
    let page = |text: &str| Modifiers::parse(text).unwrap_err().sentence();
    for (text, part) in [
        ("", "version"),
        ("version: v2\nresourceModifierRules: []", "version \"v2\""),
        ("version: v1", "hold no rule"),
        (
            "version: v1\nresourceModifierRules: {}",
            "no resource modifiers",
        ),
        ("version: v1\nrules: []", "no resource modifiers"),
        ("[1]", "no resource modifiers"),
        (
            "version: v1\nversion: v1\nresourceModifierRules: []",
            "no resource modifiers",
        ),
    ] {
        assert!(page(text).contains(part), "{text}: {}", page(text));
    }
    let long = "a".repeat(5000);
    for (rule, part) in [
        (
            "{conditions: {}, patches: [{operation: add, path: /a}]}",
            "groupResource is empty",
        ),
        ("{conditions: {groupResource: a}}", "no patches"),
        (
            "{conditions: {groupResource: a}, patches: [{operation: add, path: /a}], mergePatches: [{patchData: 'a: 1'}]}",
            "more than one of",
        ),
        (
            "{conditions: {groupResource: a}, patches: [{operation: jump, path: /a}]}",
            "\"jump\" is no operation",
        ),
        (
            "{conditions: {groupResource: a}, patches: [{operation: add, path: ''}]}",
            "path is empty",
        ),
        (
            "{conditions: {groupResource: a}, patches: [{operation: add, path: spec/a}]}",
            "no path in an object",
        ),
        (
            "{conditions: {groupResource: a}, patches: [{operation: add, pfad: /a}]}",
            "no resource modifiers",
        ),
        (
            "{conditions: {groupResource: a}, patches: [{operation: move, path: /a}]}",
            "from is empty",
        ),
        (
            "{conditions: {groupResource: a}, mergePatches: [{patchData: 'x'}]}",
            "patchData is no object",
        ),
        (
            "{conditions: {groupResource: a}, mergePatches: [{patchData: ''}]}",
            "patchData is no object",
        ),
        (
            "{conditions: {groupResource: a}, mergePatches: [{patchData: '{'}]}",
            "not the YAML",
        ),
        (
            "{conditions: {groupResource: a, resourceNameRegex: '('}, mergePatches: [{patchData: 'a: 1'}]}",
            "resourceNameRegex",
        ),
        (
            "{conditions: {groupResource: a, resourceNameRegex: '(a{1000}){1000}'}, mergePatches: [{patchData: 'a: 1'}]}",
            "resourceNameRegex",
        ),
        (
            "{conditions: {groupResource: a, resourceNameRegex: LONG}, mergePatches: [{patchData: 'a: 1'}]}",
            "longer than 4096",
        ),
        (
            "{conditions: {groupResource: '[a'}, mergePatches: [{patchData: 'a: 1'}]}",
            "not finished",
        ),
        (
            "{conditions: {groupResource: '{a'}, mergePatches: [{patchData: 'a: 1'}]}",
            "not finished",
        ),
        (
            "{conditions: {groupResource: a, namespaces: [A_B]}, mergePatches: [{patchData: 'a: 1'}]}",
            "namespace",
        ),
        (
            "{conditions: {groupResource: a, matches: [{value: x}]}, mergePatches: [{patchData: 'a: 1'}]}",
            "path is empty",
        ),
        (
            "{conditions: {groupResource: a, labelSelector: {matchExpressions: [{key: k, operator: Like}]}}, mergePatches: [{patchData: 'a: 1'}]}",
            "labelSelector",
        ),
    ] {
        let rule = rule.replace("LONG", &long);
        let said = page(&format!(
            "version: v1\nresourceModifierRules:\n- {{conditions: {{groupResource: a}}, mergePatches: [{{patchData: 'a: 1'}}]}}\n- {rule}"
        ));
        assert!(said.contains(part), "{rule:.100}: {said}");
        let syntax = said.contains("no resource modifiers");
        assert!(syntax || said.contains("rule 2"), "{rule:.100}: {said}");
    }
}

#[test]
fn a_full_config_map_is_read_and_a_larger_text_is_not() {
    // As many rules as a ConfigMap can hold.
    let rule = "- {conditions: {groupResource: pods}, patches: [{operation: add, path: /spec/x, value: y}]}\n";
    let mut text = String::from("version: v1\nresourceModifierRules:\n");
    while text.len() + rule.len() < 1 << 20 {
        text.push_str(rule);
    }
    let modifiers = Modifiers::parse(&text).unwrap();
    assert!(modifiers.count() > 10_000);
    text.push_str(&"#".repeat(1 << 20));
    assert!(
        Modifiers::parse(&text)
            .unwrap_err()
            .to_string()
            .contains("1 MiB")
    );
}

#[test]
fn an_object_can_not_be_made_to_grow_or_nest_without_end() {
    // An object that would grow without end.
    let grows: String = (0..40)
        .map(|n| format!("- {{conditions: {{groupResource: '**'}}, patches: [{{operation: copy, from: /spec, path: /spec/n{n}}}]}}\n"))
        .collect();
    let said = self::said(&grows);
    assert!(
        said.contains("copies more than") || said.contains("larger than"),
        "{said:.300}"
    );
    // Nor nest without end.
    let deep: String = (0..120)
        .map(|n| format!("{{operation: add, path: /metadata/new, value: '{{}}'}}, {{operation: move, from: /spec, path: /metadata/new/n{n}}}, {{operation: move, from: /metadata/new, path: /spec}}, "))
        .collect();
    let said = applied(
        &format!("- {{conditions: {{groupResource: '**'}}, patches: [{deep}]}}"),
        "persistentvolumeclaims",
        &claim(),
    )
    .unwrap_err()
    .sentence();
    assert!(said.contains("nests the object deeper"), "{said:.300}");
}
