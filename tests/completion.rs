//! Completion, as kubectl asks for it.

use std::env;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use harness::process::Folder;
use harness::run::{Backup, program};
use harness::{tools, wait_for};

use crate::place::Place;

#[test]
fn kubectl_completes_commands_flags_and_live_names() {
    let place = Place::new();
    let namespace = place.cluster.create_namespace("complete");
    for name in ["nightly-1", "nightly-2"] {
        let labels = "velero.io/schedule-name=nightly";
        place
            .run(&["create", name, "-n", &namespace, "--labels", labels])
            .ok();
    }
    place
        .run(&["restore", "create", "back", "--from-backup", "nightly-1"])
        .ok();
    let folder = Folder::new("path");
    symlink(tools::plugin(), folder.join("kubectl-backup")).unwrap();
    let search = env::join_paths([folder.path(), "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap();
    let run = |name: &str, arguments: &[&str]| -> Backup {
        program(name, arguments)
            .env("PATH", &search)
            .kubeconfig(place.cluster.kubeconfig())
            .env("KUBECTL_BACKUP_LOCATION", place.url())
    };
    let plugin = folder.join("kubectl-backup").display().to_string();
    let made = run(&plugin, &["completion", "install"]).ok().stdout;
    assert!(
        made.ends_with("kubectl_complete-backup created\n"),
        "{made}"
    );
    let again = run(&plugin, &["completion", "install"]).ok().stdout;
    assert!(again.ends_with("unchanged\n"), "{again}");

    let kubectl = tools::path("kubectl").display().to_string();
    let proposed = |words: &[&str]| {
        let asked = [&["__complete", "backup"], words].concat();
        let mut lines: Vec<String> = run(&kubectl, &asked)
            .ok()
            .stdout
            .lines()
            .map(|line| line.split('\t').next().unwrap_or_default().to_owned())
            .collect();
        let directive = lines.pop().unwrap_or_default();
        (lines, directive)
    };
    let names = |words: &[&str]| {
        let (names, directive) = proposed(words);
        assert_eq!(directive, ":4", "{words:?}: no files besides {names:?}");
        names
    };
    assert_eq!(names(&["descr"]), ["describe"]);
    assert_eq!(names(&["describe", ""]), ["nightly-1", "nightly-2"]);
    assert_eq!(names(&["delete", "nightly-1", ""]), ["nightly-2"]);
    assert_eq!(names(&["restore", "describe", ""]), ["back"]);
    assert_eq!(
        names(&["restore", "create", "--from-schedule", ""]),
        ["nightly"]
    );
    assert_eq!(names(&["get", "--output=y"]), ["--output=yaml"]);
    assert_eq!(names(&["create", "-n", &namespace]), [namespace.as_str()]);
    let two = format!("default,{namespace}");
    assert_eq!(
        names(&["create", "--include-namespaces", &two]),
        [two.as_str()]
    );
    assert_eq!(names(&["get", "--context", ""]), ["test"]);
    assert_eq!(names(&["create", ""]), Vec::<String>::new());
    let (files, directive) = proposed(&["get", "--kubeconfig", ""]);
    assert_eq!((files.len(), directive.as_str()), (0, ":0"));
    // What can not be asked is not proposed, and is no error.
    assert_eq!(
        names(&["create", "--server", "https://127.0.0.1:1", "-n", ""]),
        Vec::<String>::new()
    );
    // A program that brings credentials and hangs holds nobody, and does not stay.
    let hangs = folder.write("hangs", format!(
        "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: c, user: u}}}}],
          clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}],
          users: [{{name: u, user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh,
            args: [-c, 'echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 1; done']}}}}}}]}}",
        folder.join("pid").display()
    ));
    let hangs = hangs.display().to_string();
    assert_eq!(
        names(&["create", "--kubeconfig", &hangs, "-n", ""]),
        Vec::<String>::new()
    );
    let pid = std::fs::read_to_string(folder.join("pid")).unwrap();
    wait_for("the end of the program", Duration::from_secs(60), || {
        (!Path::new("/proc").join(pid.trim()).exists()).then_some(())
    });

    let other = folder.write("kubectl_complete-backup.sh", "");
    std::fs::rename(other, folder.join("kubectl_complete-backup")).unwrap();
    let refused = run(&plugin, &["completion", "install"]).code(1);
    assert!(
        refused.stderr.contains("something else"),
        "{}",
        refused.stderr
    );
}
