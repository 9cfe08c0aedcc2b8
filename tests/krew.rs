//! krew, as a user has it, installs what `make dist` makes.

use std::{env, fs};

use harness::process::Folder;
use harness::run::{Backup, program};
use harness::tools;

/// The name of this machine's platform in krew.
fn here() -> String {
    let arch = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{}/{arch}", env::consts::OS)
}

#[test]
fn krew_installs_the_archive_that_dist_makes_and_kubectl_runs_it() {
    let folder = Folder::new("krew");
    let plugin = format!("{}={}", here(), tools::plugin().display());
    let dist = |to: &str, programs: &[&str]| {
        let to = folder.join(to).display().to_string();
        let words = [&[to.as_str(), "https://example.com/v"], programs].concat();
        program(env!("CARGO_BIN_EXE_dist"), &words)
    };
    // The header of a program for another platform is enough to make a second archive.
    let mut header = [0; 64];
    header[..8].copy_from_slice(b"\xcf\xfa\xed\xfe\x0c\0\0\x01");
    let other = folder.write("other", header);
    let other = format!("darwin/arm64={}", other.display());
    let made = dist("dist", &[&plugin, &other]).ok().stdout;
    let made: Vec<&str> = made.lines().collect();
    let [archive, second, manifest] = made[..] else {
        panic!("{made:?}");
    };
    dist("again", &[&plugin, &other]).ok();
    for file in [archive, second, manifest] {
        let name = file.rsplit('/').next().unwrap();
        let again = fs::read(folder.join("again").join(name)).unwrap();
        assert!(fs::read(file).unwrap() == again, "{name} is not the same");
    }
    let listed = program("tar", &["-tvzf", archive]).ok().stdout;
    let entries: Vec<(&str, &str)> = listed
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(mode, rest)| (mode, rest.rsplit(' ').next().unwrap()))
        .collect();
    assert_eq!(
        entries,
        [("-rwxr-xr-x", "kubectl-backup"), ("-rw-r--r--", "LICENSE")]
    );

    let validate = tools::path("validate-krew-manifest").display().to_string();
    program(&validate, &["-skip-install", "-manifest", manifest]).ok();
    let root = folder.join("root");
    let search = env::join_paths([root.join("bin"), "/usr/bin".into(), "/bin".into()]);
    let search = search.unwrap();
    let krew = tools::path("krew").display().to_string();
    let kubectl = tools::path("kubectl").display().to_string();
    let run = |name: &str, words: &[&str]| -> Backup {
        program(name, words)
            .env("KREW_ROOT", &root)
            .env("KREW_NO_UPGRADE_CHECK", "1")
            .env("PATH", &search)
    };
    let install = |archive: &str| {
        let manifest = format!("--manifest={manifest}");
        run(
            &krew,
            &["install", &manifest, &format!("--archive={archive}")],
        )
    };
    // The other platform's archive has not the digest that the manifest says.
    let refused = install(second).code(1);
    assert!(refused.stderr.contains("checksum"), "{}", refused.stderr);
    let installed = install(archive).ok();
    assert!(
        installed.stderr.contains("completion install"),
        "{}",
        installed.stderr
    );
    let version = concat!("v", env!("CARGO_PKG_VERSION"));
    let store = root.join("store/backup").join(version);
    assert!(store.join("LICENSE").is_file());
    let said = run(&kubectl, &["backup", "version"]).ok().stdout;
    assert_eq!(said, format!("Client Version: {version}\n"));

    // What the caveats say works from there, and kubectl has no warning of what it finds.
    run(&kubectl, &["backup", "completion", "install"]).ok();
    let proposed = run(&kubectl, &["__complete", "backup", "descr"]).ok();
    assert!(
        proposed.stdout.starts_with("describe"),
        "{}",
        proposed.stdout
    );
    let listed = run(&kubectl, &["plugin", "list"]).ok();
    let link = root.join("bin/kubectl-backup").display().to_string();
    assert!(listed.stdout.contains(&link), "{}", listed.stdout);
    let all = format!("{}{}", listed.stdout, listed.stderr);
    assert!(!all.contains("warning"), "{all}");

    let elsewhere = plugin.replacen(&here(), "linux/arm64x", 1);
    for (programs, says) in [
        (&[elsewhere.as_str()][..], "no program for linux/arm64x"),
        (&[&plugin, &plugin], "given twice"),
        (&["linux/amd64=/proc/none"], "can not be read"),
        (&["linux"], "dist FOLDER URL"),
        (&[], "dist FOLDER URL"),
    ] {
        let refused = dist("refused", programs).code(1);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        assert!(!folder.join("refused/backup.yaml").exists());
    }
}
