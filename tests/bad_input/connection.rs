//! No way to the cluster.

use std::fs;

use harness::process::Folder;
use harness::run::kubectl_backup;

use crate::place::Place;

#[test]
fn no_kubeconfig_says_where_it_was_looked_for() {
    let home = Folder::new("home");
    let run = kubectl_backup(&["create", "b"])
        .home(home.path())
        .env("KUBECONFIG", home.join("absent"))
        .code(1);
    assert!(
        run.stderr.contains("kubeconfig") && run.stderr.contains("hint:"),
        "{}",
        run.stderr
    );
    let run = kubectl_backup(&["create", "b"])
        .home(home.path())
        .env_remove("KUBECONFIG")
        .code(1);
    assert!(run.stderr.contains("kubeconfig"), "{}", run.stderr);
}

#[test]
fn an_unknown_context_is_named_with_those_there_are() {
    let place = Place::new();
    let run = place.run(&["create", "b", "--context", "nope"]).code(1);
    assert!(
        run.stderr.contains("nope") && run.stderr.contains("test"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_server_that_does_not_answer_is_named() {
    let place = Place::new();
    let nowhere = place.folder.write(
        "nowhere",
        fs::read_to_string(place.cluster.kubeconfig())
            .unwrap()
            .replace(&place.cluster.api_url(), "https://127.0.0.1:1"),
    );
    let run = place.run(&["create", "b"]).kubeconfig(&nowhere).code(1);
    assert!(
        run.stderr.contains("127.0.0.1:1") && run.stderr.contains("hint:"),
        "{}",
        run.stderr
    );
    assert!(place.files("b").is_empty());
}

#[test]
fn an_expired_certificate_is_called_expired() {
    let place = Place::new();
    let run = place
        .run(&["create", "b"])
        .kubeconfig(&place.cluster.expired_user())
        .code(1);
    assert!(run.stderr.contains("expired"), "{}", run.stderr);
    assert!(run.stderr.contains("hint:"), "{}", run.stderr);
}

#[test]
fn an_exec_plugin_gives_the_credentials_and_one_that_fails_is_explained() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("exec");
    let token = place.cluster.token();
    let plugin = place.folder.write("plugin.sh", format!("#!/bin/sh\necho '{{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"{token}\"}}}}'\n"));
    let config = |command: &str| {
        let ca = place.folder.write("ca.pem", place.cluster.ca_pem());
        place.folder.write(
            "exec-kubeconfig",
            format!(
                "apiVersion: v1\nkind: Config\nclusters: [{{name: t, cluster: {{server: \"{}\", certificate-authority: {}}}}}]\nusers: [{{name: t, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: sh, args: [{command}], interactiveMode: Never}}}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\ncurrent-context: t\n",
                place.cluster.api_url(),
                ca.display()
            ),
        )
    };
    place
        .run(&["create", "b", "-n", &namespace])
        .kubeconfig(&config(&plugin.display().to_string()))
        .ok();
    let run = place
        .run(&["create", "c", "-n", &namespace])
        .kubeconfig(&config("/absent/plugin"))
        .code(1);
    assert!(run.stderr.contains("plugin"), "{}", run.stderr);
    let several = format!("{}/several", place.url());
    // What it is given and what it answers is secret; what it says to people is not.
    let script = "#!/bin/sh\necho '{\"token\": \"OUTPUT\"}'; echo 'log in first' >&2; exit 3\n";
    let failing = place.folder.write("failing.sh", script);
    let failing = config(&format!("{}, --secret=ARGUMENT", failing.display()));
    let content = std::fs::read_to_string(&failing).unwrap();
    let with_env = content.replace(
        "interactiveMode",
        "env: [{name: SECRET, value: ENVIRONMENT}], interactiveMode",
    );
    let failing = place.folder.write("failing-kubeconfig", with_env);
    for arguments in [
        &["create", "d", "-n", &namespace][..],
        &[
            "create",
            "e",
            "--contexts",
            "t",
            "--location",
            &several,
            "-n",
            &namespace,
        ],
    ] {
        let run = place.run(arguments).kubeconfig(&failing).code(1);
        let says = "the credential plugin ended with exit code 3: log in first";
        assert!(run.stderr.contains(says), "{}", run.stderr);
        for secret in ["OUTPUT", "ARGUMENT", "ENVIRONMENT"] {
            let told = format!("{}{}", run.stdout, run.stderr);
            assert!(!told.contains(secret), "{told}");
        }
    }
}

#[test]
fn impersonation_works_and_is_subject_to_the_other_users_rights() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("impersonated");
    place
        .run(&[
            "create",
            "b",
            "-n",
            &namespace,
            "--as",
            "admin",
            "--as-group",
            "system:masters",
        ])
        .ok();
    let run = place
        .run(&["create", "c", "-n", &namespace, "--as", "nobody"])
        .code(3);
    assert!(
        run.stderr.contains("orbidden") || run.stderr.contains("may not"),
        "{}",
        run.stderr
    );
}

#[test]
fn kubectl_finds_the_plugin() {
    let place = Place::new();
    let run = harness::run::through_kubectl(&["version", "--client"])
        .kubeconfig(place.cluster.kubeconfig())
        .ok();
    assert!(run.stdout.contains("0.1.0"), "{}", run.stdout);
}

#[test]
fn a_server_that_is_no_address_is_refused_as_usage() {
    let place = Place::new();
    for wrong in ["not-a-url", "ftp://x", "https://"] {
        let run = place.run(&["create", "b", "--server", wrong]).code(2);
        assert!(
            run.stderr.contains(wrong) && run.stderr.contains("https://"),
            "{}",
            run.stderr
        );
        assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    }
}

#[test]
fn a_kubeconfig_that_was_named_and_is_not_there_is_not_passed_over() {
    let place = Place::new();
    let named = place.run(&["create", "b", "-n", "default"]).ok();
    assert!(named.stderr.contains("restore create"), "{}", named.stderr);
    let home = Folder::new("home");
    let wrong = ["get", "--kubeconfig", "/nowhere/config"];
    // With nothing configured there is a folder per cluster, and this one can not be told.
    kubectl_backup(&["create", "b", "-n", "default"])
        .home(home.path())
        .kubeconfig(place.cluster.kubeconfig())
        .ok();
    let run = kubectl_backup(&wrong).home(home.path()).code(1);
    assert!(run.stderr.contains("/nowhere/config"), "{}", run.stderr);
    assert!(run.stdout.is_empty(), "{}", run.stdout);
}

#[test]
fn what_is_suggested_next_names_the_same_cluster_again() {
    let place = Place::new();
    let config = place.cluster.kubeconfig();
    let config = config.to_str().unwrap();
    let flags = ["--kubeconfig", config, "--context", "test"];
    let run = place
        .run(&["create", "b", "-n", "default"])
        .args(&flags)
        .ok();
    let next = run
        .stderr
        .lines()
        .find(|line| line.starts_with("bring it back:"))
        .unwrap_or_else(|| panic!("{}", run.stderr));
    assert!(
        next.contains(&format!("--kubeconfig {config} --context test")),
        "{next}"
    );
}
