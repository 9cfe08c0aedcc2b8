//! What the manifests let a launcher do. That it is enough, every story of hosted clusters shows: their launchers have no other rights.

use harness::hosted::Hosted;

#[test]
fn a_launcher_may_do_what_its_work_needs_and_nothing_else() {
    let hosted = Hosted::builder().start();
    let (cluster, namespace) = (&hosted.name, &hosted.namespace);
    let launcher = format!("--as=system:serviceaccount:{namespace}:etcd-launcher");
    let may = |words: &str| {
        let mut arguments = vec!["auth", "can-i", &launcher];
        arguments.extend(words.split(' '));
        let said = hosted.hosting.try_kubectl(&arguments);
        match said.stdout.lines().last() {
            Some("yes") => true,
            Some("no") => false,
            _ => panic!("{words}: {} {}", said.stdout, said.stderr),
        }
    };
    let here = format!("-n {namespace}");
    for allowed in [
        "get secrets/s3-credentials",
        "patch statefulsets/etcd",
        "patch deployments/apiserver",
        "update etcdrestores/x --subresource=status",
        "create events",
        "get backupstoragelocations",
    ] {
        assert!(may(&format!("{allowed} {here}")), "{allowed}");
    }
    for forbidden in [
        // The keys of the control plane lie in Secrets beside those of the store.
        "get secrets/control-plane",
        "list secrets",
        "watch secrets",
        "create secrets",
        "delete pods",
        "create pods",
        "create pods --subresource=exec",
        "delete statefulsets/etcd",
        "patch statefulsets/other",
        "delete persistentvolumeclaims",
        "patch deployments/other",
        "delete deployments/apiserver",
        "delete etcdrestores",
        "delete etcdbackupconfigs",
        "create etcdrestores",
        "list backupstoragelocations",
        "get leases/of-somebody-else",
    ] {
        assert!(!may(&format!("{forbidden} {here}")), "{forbidden}");
    }
    assert!(may(&format!("patch clusters/{cluster}")));
    for forbidden in [
        "patch clusters/another",
        "list clusters",
        "delete clusters",
        "get namespaces",
        "get nodes",
        "get secrets -n kube-system",
        "list etcdrestores -n default",
    ] {
        assert!(!may(forbidden), "{forbidden}");
    }
}
