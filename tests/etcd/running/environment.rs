//! What etcd sees of its launcher's environment.

use std::fs;

use harness::hosted::Hosted;

/// The variables of a process.
fn environment(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let variables = bytes.split(|byte| *byte == 0);
    variables
        .filter(|one| !one.is_empty())
        .map(|one| String::from_utf8(one.to_vec()).unwrap())
        .collect()
}

#[test]
fn etcd_is_given_its_own_settings_and_no_key_of_its_launcher() {
    let mut hosted = Hosted::builder().start();
    let its_own = [
        ("ETCD_MAX_WALS", "7"),
        ("GODEBUG", "netdns=go"),
        ("GOGC", "90"),
        ("GRPC_ENFORCE_ALPN_ENABLED", "false"),
        ("CLOUD_ZONE", "eu-1a"),
        ("GOMEMLIMIT", "512MiB"),
        ("SSL_CERT_DIR", "/etc/ssl/certs"),
        ("TZ", "UTC"),
    ];
    let others = [
        ("AWS_ACCESS_KEY_ID", "hidden-key"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-secret"),
        ("KUBECTL_BACKUP_IDENTITY", "/hidden/identity"),
        ("ETCD_LAUNCHER_OWN", "hidden-own"),
        ("SOMETHING_ELSE", "hidden-else"),
    ];
    let all = its_own.iter().chain(&others);
    hosted.how.environment = all
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    hosted.how.flags.push("--etcd-env=CLOUD_ZONE".to_owned());
    hosted.start_again();
    hosted.wait_until_etcd_serves();
    let launcher = environment(hosted.members[0].pid().unwrap());
    assert!(launcher.iter().any(|one| one.ends_with("hidden-secret")));
    let etcd = environment(hosted.members[0].etcd_pid().unwrap());
    for (name, value) in its_own {
        assert!(
            etcd.contains(&format!("{name}={value}")),
            "{name}: {etcd:?}"
        );
    }
    assert!(etcd.iter().any(|one| one.starts_with("PATH=")), "{etcd:?}");
    assert!(!etcd.iter().any(|one| one.contains("hidden")), "{etcd:?}");
    // What it does not get is told, by name alone.
    let log = hosted.members[0].log();
    // The last one: it was started before, with other variables.
    let mut lines = log.lines().rev();
    let told = lines.find(|line| line.contains("--etcd-env NAME"));
    let told = told.unwrap_or_else(|| panic!("{log}"));
    assert!(told.contains("SOMETHING_ELSE"), "{told}");
    assert!(!told.contains("CLOUD_ZONE"), "{told}");
    assert!(!log.contains("hidden-"), "{log}");
}
