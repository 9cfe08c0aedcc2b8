use serde_json::{Value, json};

use super::*;
use crate::backup::server::{Answer, Server, refuse};

fn status(value: Value) -> Status {
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_exit_status_is_the_servers() {
    let of = |value: Value| exit_of(&status(value), &["sh".into(), "secret-word".into()]);
    assert_eq!(
        of(json!({"metadata": {}, "status": "Success"})),
        Ended::Exit(0)
    );
    let failed = json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
        "details": {"causes": [{"reason": "ExitCode", "message": "37"}]}});
    assert_eq!(of(failed), Ended::Exit(37));
    let said = |message: &str| {
        of(
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message}),
        )
    };
    for absent in [
        "exec: \"secret-word\": executable file not found in $PATH",
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"secret-word\": stat secret-word: no such file or directory",
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"secret-word\": permission denied",
        "crun: executable file `secret-word` not found in $PATH: No such file or directory: OCI runtime attempted to invoke a command that was not found",
    ] {
        let ended = said(absent);
        let Ended::NotStarted { why, is_final } = &ended else {
            panic!("{ended:?}")
        };
        assert!(*is_final && !why.contains("secret-word"), "{ended:?}");
    }
    // It may have begun, and may end otherwise another time.
    for odd in [
        "error executing command in container: context deadline exceeded",
        "failed to open log: no such file or directory",
        "task not found: permission denied by the runtime",
        "",
    ] {
        let ended = said(odd);
        assert!(matches!(ended, Ended::Broken(_)), "{ended:?}");
    }
}

const POD: &str = "/api/v1/namespaces/n/pods/p";

fn running(id: &str) -> Value {
    json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "containerID": id, "state": {"running": {}}}]}})
}

/// A server with this pod, which answers exec with this status.
fn server(code: u16, pods: fn(usize) -> Option<Value>) -> Server {
    let mut server = Server::new();
    server.fault = Box::new(move |asked| match asked.path.as_str() {
        POD => Some(match pods(asked.before) {
            Some(pod) => Answer {
                status: 200,
                body: pod.to_string(),
            },
            None => refuse(404, "NotFound", "it is not there"),
        }),
        _ => Some(refuse(code, "Odd", "what it says")),
    });
    server
}

fn target(cluster: &Cluster) -> Target<'_> {
    Target {
        cluster,
        namespace: "n",
        name: "p",
        uid: "u",
        even_deleted: true,
    }
}

/// What becomes of a hook where exec is answered with this status.
async fn run(code: u16, pods: fn(usize) -> Option<Value>) -> Ran {
    let (cluster, _server) = server(code, pods).start();
    let hook = Hook {
        origin: "a".into(),
        container: "c".into(),
        command: vec!["x".into()],
        on_error: crate::hooks::ask::OnError::Fail,
        timeout: Duration::from_secs(20),
    };
    target(&cluster).run(&hook, std::future::pending()).await
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_end_the_server_tells_late_is_waited_for_a_moment() {
    let pods = |before| {
        let is_old = before < 3;
        Some(running(if is_old { "x://1" } else { "x://2" }))
    };
    for (late, known) in [(LATE, true), (Duration::ZERO, false)] {
        let (cluster, _server) = server(500, pods).start();
        let fate = target(&cluster).fate("c", "x://1", late).await;
        assert_eq!(fate, known.then(|| Unfit::for_now(ANEW)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_stands_while_it_is_the_one_that_it_was() {
    let of = |pods: fn(usize) -> Option<Value>, id: &'static str| async move {
        let (cluster, _server) = server(500, pods).start();
        target(&cluster).stands("c", id).await
    };
    let runs = |_| Some(running("x://1"));
    assert_eq!(of(runs, "x://1").await, Ok(()));
    assert_eq!(of(runs, "x://0").await, Err(ANEW.to_owned()));
    // Which it was is not known.
    assert_eq!(of(runs, "").await, Ok(()));
    let gone = of(|_| None, "x://1").await.unwrap_err();
    assert!(gone.contains("is gone"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn only_who_refuses_a_command_did_not_start_it() {
    for (code, was_started) in [
        (403, false),
        (404, false),
        (408, true),
        (500, true),
        (504, true),
    ] {
        let ran = run(code, |_| Some(running("x://1"))).await;
        assert_eq!(ran.was_started(), was_started, "{code}: {ran:?}");
        assert!(!ran.is_settled(), "{code}: {ran:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_pod_that_stays_away_is_owed_nothing() {
    let gone = run(500, |before| (before == 0).then(|| running("x://1"))).await;
    assert!(gone.is_settled() && gone.was_started(), "{gone:?}");
    let replaced = run(500, |before| {
        let mut pod = running("x://1");
        pod["metadata"]["uid"] = if before == 0 { "u" } else { "v" }.into();
        Some(pod)
    });
    assert!(replaced.await.is_settled());
    let restarting = run(500, |before| {
        let mut pod = running("x://1");
        if before > 0 {
            pod["status"]["containerStatuses"][0]["state"] = json!({"waiting": {}});
        }
        Some(pod)
    });
    let restarting = restarting.await;
    assert!(!restarting.is_settled(), "{restarting:?}");
    // What answers with no pod says nothing of it.
    let odd = run(500, |before| {
        Some(if before == 0 {
            running("x://1")
        } else {
            json!({"kind": "Status"})
        })
    })
    .await;
    assert!(!odd.is_settled(), "{odd:?}");
}

#[test]
fn a_time_that_is_over_settles_only_what_began() {
    let kept = Kept::default();
    let over = |kept: &Kept| Ran {
        ended: kept.over(Duration::from_secs(1)),
        output: String::new(),
        more: false,
        took: Duration::ZERO,
        id: String::new(),
    };
    assert!(over(&kept).was_started() && !over(&kept).is_settled());
    kept.begun.store(true, Ordering::SeqCst);
    assert!(over(&kept).was_started() && over(&kept).is_settled());
    let anew = Unfit::for_now(ANEW).gone("");
    assert_eq!(
        anew,
        Ended::Gone {
            why: ANEW.to_owned(),
            is_final: false
        }
    );
    assert!(is_anew("a", "b") && !is_anew("", "b") && !is_anew("a", "") && !is_anew("a", "a"));
}

#[test]
fn a_pod_in_which_nothing_can_be_run_says_why() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    let (cluster, _worker) = {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _entered = runtime.enter();
        (
            Cluster::new(
                kube::Client::new(service, "default"),
                "test",
                "https://server",
            ),
            runtime,
        )
    };
    let target = Target {
        cluster: &cluster,
        namespace: "n",
        name: "p",
        uid: "u",
        even_deleted: false,
    };
    let pod = |change: fn(&mut Value)| {
        let mut pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "c"}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": "c", "containerID": "x://1", "state": {"running": {"startedAt": "t"}}}]}});
        change(&mut pod);
        let pod = Pod::read(pod.to_string().as_bytes()).unwrap();
        judge(&pod, &target, "c")
    };
    assert_eq!(pod(|_| {}), Ok("x://1".to_owned()));
    for (change, part) in [
        (
            (|p| p["metadata"]["uid"] = "v".into()) as fn(&mut Value),
            "another one",
        ),
        (
            |p| p["metadata"]["deletionTimestamp"] = "t".into(),
            "being deleted",
        ),
        (
            |p| p["spec"]["containers"] = json!([{"name": "d"}]),
            "no container",
        ),
        (|p| p["status"]["phase"] = "Failed".into(), "has ended"),
        (
            |p| {
                p["status"]["containerStatuses"][0]["state"] =
                    json!({"waiting": {"reason": "CrashLoopBackOff"}});
            },
            "does not run",
        ),
        (
            |p| p["status"]["containerStatuses"] = Value::Null,
            "does not run",
        ),
    ] {
        let why = pod(change).unwrap_err().why;
        assert!(why.contains(part), "{part}: {why}");
    }
}

#[tokio::test]
async fn output_is_read_to_its_end_and_kept_in_part() {
    let kept = Kept::default();
    let text = vec![b'x'; 10_000];
    kept.read(Some(text.as_slice())).await;
    let (text, more) = kept.text();
    assert_eq!((text.len(), more), (KEPT, true));
    let kept = Kept::default();
    futures::join!(kept.read(Some(&b"a\xff\n"[..])), kept.read(None::<&[u8]>));
    assert_eq!(kept.text(), ("a\u{fffd}".to_owned(), false));
}
