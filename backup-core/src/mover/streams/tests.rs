use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, StatusDetails};
use tokio::io::{duplex, empty};

use super::*;

fn status(code: Option<&str>) -> Status {
    let cause = |code: &str| StatusCause {
        reason: Some("ExitCode".to_owned()),
        message: Some(code.to_owned()),
        ..StatusCause::default()
    };
    Status {
        status: Some(code.map_or("Success", |_| "Failure").to_owned()),
        details: code.map(|code| StatusDetails {
            causes: Some(vec![cause(code)]),
            ..StatusDetails::default()
        }),
        ..Status::default()
    }
}

struct Sides {
    input: Input,
    output: Output,
    pump: Pump,
}

fn sides() -> Sides {
    let (to, to_program) = mpsc::channel(GOING);
    let (from_program, from) = mpsc::channel(COMING);
    Sides {
        input: Input {
            to,
            held: Vec::new(),
        },
        output: Output {
            from,
            held: Bytes::new(),
            broke: Arc::default(),
        },
        pump: Pump {
            to_program,
            from_program,
            activity: Activity::new(Arc::default()),
            is_cut: true,
        },
    }
}

#[tokio::test]
async fn bytes_go_both_ways_and_the_exit_status_comes_after_the_last_of_them() {
    let Sides {
        mut input,
        mut output,
        mut pump,
    } = sides();
    let (stdin, mut theirs) = duplex(16);
    let (stdout, mut says) = duplex(16);
    let program = async move {
        let mut asked = [0; 5];
        theirs.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"files");
        says.write_all(&[7; 1000]).await.unwrap();
        drop(says);
        Some(status(None))
    };
    let threads = tokio::task::spawn_blocking(move || {
        input.write_all(b"files").unwrap();
        input.flush().unwrap();
        let mut all = Vec::new();
        output.read_to_end(&mut all).unwrap();
        all
    });
    let carried = async {
        let carried = pump
            .carry(Some(stdin), stdout, empty(), program, &Owes::default())
            .await;
        drop(pump);
        carried
    };
    let (carried, all) = tokio::join!(carried, threads);
    carried.unwrap();
    assert_eq!(all.unwrap(), [7; 1000]);
}

#[tokio::test]
async fn a_program_that_fails_is_told_with_the_beginning_of_what_it_said() {
    let Sides {
        output: _output,
        mut pump,
        ..
    } = sides();
    let said = "no such folder\n".repeat(1000);
    let owes = Owes::default();
    let carried = pump.carry(
        None::<tokio::io::Sink>,
        empty(),
        said.as_bytes(),
        std::future::ready(Some(status(Some("1")))),
        &owes,
    );
    let why = carried.await.unwrap_err();
    assert!(
        why.starts_with("exit status 1: no such folder no such"),
        "{why}"
    );
    assert!(why.len() <= KEPT + 20, "{}", why.len());
}

#[tokio::test]
async fn what_it_could_not_read_it_has_told_itself_and_a_lost_connection_is_no_end() {
    for (status, is_good) in [(Some(status(Some("3"))), true), (None, false)] {
        let Sides {
            output: _output,
            mut pump,
            ..
        } = sides();
        let none = None::<tokio::io::Sink>;
        let status = std::future::ready(status);
        let owes = Owes::default();
        let carried = pump.carry(none, empty(), empty(), status, &owes).await;
        assert_eq!(carried.is_ok(), is_good, "{carried:?}");
    }
}

#[test]
fn who_reads_a_stream_that_broke_off_learns_why() {
    let Sides {
        mut output, pump, ..
    } = sides();
    pump.from_program.blocking_send(Bytes::from("abc")).unwrap();
    output.broke = Arc::new(Mutex::new(Some("its pod was deleted".to_owned())));
    drop(pump);
    let mut all = Vec::new();
    let why = output.read_to_end(&mut all).unwrap_err();
    assert_eq!(all, b"abc");
    assert_eq!(why.to_string(), "its pod was deleted");
}

#[tokio::test(start_paused = true)]
async fn what_owes_nothing_and_what_waits_for_us_does_not_stall() {
    let looks = Duration::from_millis(5);
    let stall = Duration::from_millis(50);
    // The clock of activity is the machine's: it stands still for the paused one of tokio but for these sleeps.
    let wait = async || {
        for _ in 0..40 {
            tokio::time::sleep(looks).await;
            std::thread::sleep(Duration::from_millis(3));
        }
    };
    for (owes, waits) in [(false, false), (true, true)] {
        let activity = Activity::new(Arc::default());
        activity.waits_for_us.store(waits, Ordering::Relaxed);
        tokio::select! {
            why = activity.stalls(|| owes, stall, looks) => panic!("{why}"),
            () = wait() => {}
        }
    }
    let activity = Activity::new(Arc::default());
    tokio::select! {
        _ = activity.stalls(|| true, stall, looks) => {}
        () = wait() => panic!("a program that owes and is silent was not seen"),
    }
}
