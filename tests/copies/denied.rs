//! An admission rule of the cluster refuses what a copy or a restore needs: each claim is named, nothing is left of what was begun, and without the rule the same command goes on.

use harness::busybox;
use harness::node::Node;
use harness::wait_for;
use serde_json::{Value, json};

use super::chosen::{CLAIMS, NAMESPACE, opened};
use super::restored::{claims, delete_namespace, restore};
use super::{PATIENT, World, taken};

/// Into where things are restored.
const INTO: &str = "denied";

/// A rule that stands until its end: of these resources of a namespace the server takes only what fulfils an expression.
struct Rule<'a> {
    world: &'a World,
    /// What it refuses.
    path: String,
    probe: Value,
}

impl<'a> Rule<'a> {
    /// Movers are refused.
    fn of_movers(world: &'a World, namespace: &str) -> Self {
        let probe = json!({
            "metadata": {"name": "probe", "labels": {"app.kubernetes.io/component": "mover"}},
            "spec": {"containers": [{"name": "main", "image": busybox::IMAGE}]},
        });
        let label = "app.kubernetes.io/component";
        let others = format!(
            "!has(object.metadata.labels) || !('{label}' in object.metadata.labels) || object.metadata.labels['{label}'] != 'mover'"
        );
        Self::new(world, namespace, "pods", &others, "no movers here", probe)
    }

    /// Claims are refused that name their volume.
    fn of_held_claims(world: &'a World, namespace: &str) -> Self {
        let probe = json!({
            "metadata": {"name": "probe"},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v", "resources": {"requests": {"storage": "1Mi"}}},
        });
        let unnamed = "!has(object.spec.volumeName)";
        let message = "no claim names its volume";
        Self::new(
            world,
            namespace,
            "persistentvolumeclaims",
            unnamed,
            message,
            probe,
        )
    }

    fn new(
        world: &'a World,
        namespace: &str,
        resource: &str,
        expression: &str,
        message: &str,
        probe: Value,
    ) -> Self {
        let group = "admissionregistration.k8s.io/v1";
        let policy = json!({
            "apiVersion": group, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "refuses"},
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}],
                },
                "validations": [{"expression": expression, "message": message}],
            },
        });
        let binding = json!({
            "apiVersion": group, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "refuses"},
            "spec": {"policyName": "refuses", "validationActions": ["Deny"]},
        });
        world.node.apply(&format!("{policy}\n---\n{binding}\n"));
        let rule = Self {
            world,
            path: format!("/api/v1/namespaces/{namespace}/{resource}?dryRun=All"),
            probe,
        };
        wait_for("the rule", PATIENT, || {
            let (_, said) = rule.answer();
            said.contains("'refuses'").then_some(())
        });
        rule
    }

    /// What the server says to what is to be refused.
    fn answer(&self) -> (u16, String) {
        let mut client = self.world.node.client();
        let answer = client.post_json(&self.path, self.probe.to_string());
        let answer = answer.unwrap();
        (answer.status, answer.text())
    }

    fn ends(self) {
        let kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings";
        self.world.node.kubectl(&["delete", kinds, "--all"]);
        wait_for("the end of the rule", PATIENT, || {
            let (status, _) = self.answer();
            (status == 201).then_some(())
        });
    }
}

/// Names of the volumes of claims of a namespace.
fn volumes(world: &World, namespace: &str) -> Vec<String> {
    let all = world.node.kubectl(&["get", "pv", "-o", "json"]).json();
    let all = all["items"].as_array().unwrap().iter();
    let its = all.filter(|one| one["spec"]["claimRef"]["namespace"] == namespace);
    its.map(|one| one["metadata"]["name"].to_string()).collect()
}

#[test]
fn what_the_cluster_refuses_of_a_copy_or_a_restore_is_named_and_nothing_is_left_of_it() {
    if let Err(reason) = Node::available() {
        harness::skip!("{reason}");
    }
    let world = opened();
    taken::all(&world);
    world.create("whole", NAMESPACE).ok();
    copies(&world);
    restores(&world);
}

/// `whole` has copies of all claims of the namespace.
fn restores(world: &World) {
    world.namespace(INTO);
    let mapping = format!("{NAMESPACE}:{INTO}");
    let into = || {
        restore(
            world,
            "denied",
            "whole",
            &["--namespace-mappings", &mapping],
        )
    };
    let refused = |why: &[&str]| {
        let run = into().code(3);
        for (claim, ..) in CLAIMS {
            let name = format!("{INTO}/{claim}");
            let line = run.stderr.lines().find(|line| line.contains(&name));
            let line = line.unwrap_or_else(|| panic!("{name}: {}", run.stderr));
            for part in why {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
        let made = "pods,deployments,replicasets";
        let made = ["-n", INTO, "get", made, "-o", "name"];
        assert_eq!(world.node.kubectl(&made).stdout, "");
        run
    };

    let rule = Rule::of_held_claims(world, INTO);
    refused(&[
        "no claim names its volume",
        "it could not be made so that it names volume pvc-",
    ]);
    rule.ends();
    let is_empty =
        || (claims(world, INTO).is_empty() && volumes(world, INTO).is_empty()).then_some(());
    wait_for("the end of what was begun", PATIENT, is_empty);

    // Also of the class that makes volumes at once nothing was begun.
    let rule = Rule::of_movers(world, INTO);
    let run = refused(&["no movers here"]);
    rule.ends();
    assert!(!run.stderr.contains("stays Pending"), "{}", run.stderr);
    assert_eq!(is_empty(), Some(()));

    into().ok();
    world.is_rolled_out(INTO);
    assert_eq!(world.found(INTO), world.found(NAMESPACE));
    delete_namespace(world, INTO);
}

/// No mover: no copy, and all objects.
fn copies(world: &World) {
    let before = world.stored(NAMESPACE, "snapshots");
    let rule = Rule::of_movers(world, NAMESPACE);
    let run = world.create("denied", NAMESPACE).code(3);
    rule.ends();
    for (claim, ..) in CLAIMS {
        let row = world.row("denied", claim);
        assert_eq!(row["result"], "failed", "{row:#}");
        let why = row["why"].as_str().unwrap();
        for part in [
            "no movers here",
            "an admission rule of the cluster refuses it",
        ] {
            assert!(why.contains(part), "{part}: {why}");
        }
        let named = format!("the data of PersistentVolumeClaim {NAMESPACE}/{claim} is not saved");
        assert!(run.stderr.contains(&named), "{}", run.stderr);
    }
    assert_eq!(world.marker("denied")["status"]["phase"], "PartiallyFailed");
    assert_eq!(world.stored(NAMESPACE, "snapshots"), before);
    world.call(&["verify", "denied"]).ok();
    world.nothing_is_at_work();
}
