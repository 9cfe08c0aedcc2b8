//! What is about terminals, in a real one.

use std::time::Duration;

use harness::process::Folder;
use harness::proxy::{Action, Match, Proxy};
use harness::run::program;
use harness::terminal::Terminal;
use harness::tools;

use crate::place::Place;

/// What a bar begins with.
fn has_bar(screen: &str) -> bool {
    screen
        .chars()
        .any(|c| ('\u{2800}'..='\u{28ff}').contains(&c))
}

fn wait_for_bar(terminal: &Terminal) {
    harness::wait_for("the bar", Duration::from_secs(60), || {
        has_bar(&terminal.screen()).then_some(())
    });
}

#[test]
fn in_a_terminal_there_are_colours_a_bar_a_question_and_a_way_out() {
    let place = Place::new();
    let cluster = place.cluster;
    let namespace = cluster.create_namespace("terminal");
    place.run(&["create", "one", "-n", &namespace]).ok();
    let proxy = Proxy::start(&cluster.endpoint());
    proxy.every(
        Match::path("/configmaps"),
        Action::Delay(Duration::from_secs(2)),
    );
    let slow = cluster.token_kubeconfig(&proxy.url());
    let folder = Folder::new("path");
    std::os::unix::fs::symlink(tools::plugin(), folder.join("kubectl-backup")).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let shell = program("sh", &["-i"])
        .env("PATH", path)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("SLOW", &slow)
        .env("NS", &namespace)
        .env("OUT", folder.path())
        .env("KUBECTL_BACKUP_LOCATION", place.url());
    let Some(terminal) = Terminal::start(150, 80, &shell) else {
        return;
    };

    // Colour on a terminal; none in a pipe, none where it is not wanted.
    terminal.run("kubectl-backup get", 0);
    assert!(terminal.coloured().contains("\u{1b}[32mCompleted"));
    for plain in [
        "kubectl-backup get | cat",
        "NO_COLOR=1 kubectl-backup get",
        "TERM=dumb kubectl-backup get",
        "kubectl-backup get --color never",
        "kubectl-backup get -o yaml",
        "kubectl-backup delete -h --color=never",
    ] {
        terminal.run(plain, 0);
        let screen = terminal.coloured();
        assert!(!screen.contains("\u{1b}[32m"), "{plain}\n{screen}");
        assert!(!screen.contains("\u{1b}[1m"), "{plain}\n{screen}");
    }
    terminal.run("kubectl-backup get --color always | cat", 0);
    assert!(terminal.coloured().contains("\u{1b}[32mCompleted"));
    terminal.run("kubectl-backup delete -h", 0);
    assert!(terminal.coloured().contains("\u{1b}[1m"));
    // The table is the same in both, and no line of it breaks.
    let shown = terminal.run("kubectl-backup get", 0);
    let piped = place.run(&["get"]).ok().stdout;
    for line in piped.lines() {
        assert!(shown.lines().any(|seen| seen == line), "{line}\n{shown}");
    }

    // A question, and both answers.
    terminal.begin("kubectl-backup delete one");
    terminal.wait_for("[y/N]");
    terminal.line("n");
    let screen = terminal.ended(1);
    assert!(screen.contains("nothing was changed"), "{screen}");
    assert!(!place.files("one").is_empty());
    terminal.begin("kubectl-backup delete one");
    terminal.wait_for("[y/N]");
    // Whoever gives up answers nothing.
    terminal.press("C-c");
    terminal.ended(130);
    assert!(!place.files("one").is_empty());
    terminal.begin("kubectl-backup delete one");
    terminal.wait_for("[y/N]");
    terminal.line("yes");
    let screen = terminal.ended(0);
    assert!(screen.contains("backup/one deleted"), "{screen}");
    assert!(place.files("one").is_empty());

    // The same before a restore that deletes or lacks something, and nothing was begun where nobody agreed.
    cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: fixed, namespace: {namespace}}}\nimmutable: true\ndata: {{a: old}}\n"));
    place.run(&["create", "kept", "-n", &namespace]).ok();
    cluster.kubectl(&["-n", &namespace, "delete", "configmap", "fixed"]);
    cluster.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: fixed, namespace: {namespace}}}\nimmutable: true\ndata: {{a: new}}\n"));
    let fixed = || {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/fixed");
        cluster.get_raw(&path)["data"]["a"].take()
    };
    let recreate = "kubectl-backup restore create --from-backup kept --include-resources configmaps --existing-resource-policy recreate";
    let question = || {
        terminal.begin(recreate);
        let screen = terminal.wait_for("[y/N]");
        assert!(screen.contains("deleted and created anew"), "{screen}");
    };
    question();
    terminal.line("n");
    let screen = terminal.ended(1);
    assert!(screen.contains("nothing was changed"), "{screen}");
    question();
    terminal.press("C-c");
    terminal.ended(130);
    assert_eq!(fixed(), "new");
    assert!(!place.folder.join("restores").exists());
    question();
    terminal.line("y");
    let screen = terminal.ended(0);
    assert!(screen.contains("1 updated"), "{screen}");
    assert_eq!(fixed(), "old");
    // It holds the only copy of what it deleted.
    terminal
        .begin("kubectl-backup restore delete $(kubectl-backup restore get -o name | cut -d/ -f2)");
    let screen = terminal.wait_for("[y/N]");
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("with 1 original of what it recreated"),
        "{screen}"
    );
    terminal.line("y");
    terminal.ended(0);

    // A bar where it takes longer, and nothing is left of it.
    let create = "kubectl-backup create -n $NS --kubeconfig $SLOW";
    terminal.begin(&format!("stty -a > $OUT/before; {create} two"));
    wait_for_bar(&terminal);
    let screen = terminal.ended(0);
    assert!(!has_bar(&screen), "{screen}");
    assert!(screen.contains("backup/two created"), "{screen}");
    // Not with --quiet, and not where the terminal can not draw a line anew.
    for quiet in [
        format!("{create} three -q"),
        format!("TERM=dumb {create} four"),
    ] {
        terminal.begin(&quiet);
        while !terminal.is_ended() {
            let screen = terminal.screen();
            assert!(!has_bar(&screen), "{screen}");
        }
        terminal.ended(0);
    }

    // Ctrl-C: it stops, says what stays, and the terminal is as it was.
    terminal.begin(&format!("{create} five"));
    wait_for_bar(&terminal);
    terminal.press("C-c");
    let screen = terminal.ended(130);
    assert!(screen.contains("nothing half-written stays"), "{screen}");
    assert!(!has_bar(&screen), "{screen}");
    assert!(place.files("five").is_empty(), "{:?}", place.files("five"));
    terminal.run("stty -a | cmp - $OUT/before", 0);
}
