//! The harness' own tests: what the stories rely on must be able to fail.

use std::time::Instant;

use harness::cluster::Cluster;
use harness::store::Minio;

#[test]
fn timing() {
    let t = Instant::now();
    let c = Cluster::start();
    eprintln!("cluster {:?}", t.elapsed());
    let t = Instant::now();
    let n = c.create_namespace("a");
    c.kubectl(&["-n", &n, "create", "configmap", "x"]);
    eprintln!("kubectl {:?}", t.elapsed());
    let t = Instant::now();
    let m = Minio::start_tls();
    eprintln!("minio {:?}", t.elapsed());
    m.bucket("abc");
    m.put("abc", "x/y", "hello");
    assert_eq!(m.list("abc", ""), ["x/y"]);
    assert_eq!(m.get("abc", "x/y"), "hello");
    let u = m.limited_user(r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::abc/*"]}]}"#);
    eprintln!("{u:?}");
    let t = Instant::now();
    drop(c);
    drop(m);
    eprintln!("stop {:?}", t.elapsed());
}
