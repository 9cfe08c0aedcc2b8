//! Slots, time zones and daylight saving, against times worked out by hand and against a walk over every minute.

use proptest::prelude::*;

use super::*;

fn t(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text, None).unwrap()
}

/// The next slots from then on, by repeated asking.
fn slots(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    let mut now = t(from);
    let mut all = Vec::new();
    for _ in 0..count {
        now = schedule.next(t(from), now).unwrap();
        all.push(now.to_string());
    }
    all
}

#[test]
fn cron_runs_in_utc_where_no_time_zone_is_named() {
    let daily = schedule("0 1 * * *");
    assert_eq!(
        slots(&daily, "2026-11-20T01:00:00Z", 2),
        ["2026-11-21T01:00:00Z", "2026-11-22T01:00:00Z"]
    );
    assert_eq!(
        slots(&schedule("30 4 1,15 * 5"), "2026-10-01T00:00:00Z", 4),
        [
            "2026-10-01T04:30:00Z",
            "2026-10-02T04:30:00Z",
            "2026-10-09T04:30:00Z",
            "2026-10-15T04:30:00Z"
        ],
        "the 1st, the 15th and Fridays"
    );
    assert_eq!(
        slots(&schedule("0 0 29 2 *"), "2026-01-01T00:00:00Z", 1),
        ["2028-02-29T00:00:00Z"]
    );
}

#[test]
fn presets_are_midnight_sunday_and_the_first() {
    let from = "2026-11-20T12:00:00Z";
    for (preset, want) in [
        (Preset::Daily, "2026-11-21T00:00:00Z"),
        (Preset::Weekly, "2026-11-22T00:00:00Z"),
        (Preset::Monthly, "2026-12-01T00:00:00Z"),
    ] {
        assert_eq!(slots(&schedule(preset.schedule()), from, 1), [want]);
    }
    assert_eq!(
        slots(&schedule("@hourly"), from, 1),
        ["2026-11-20T13:00:00Z"]
    );
    assert_eq!(
        slots(&schedule("@yearly"), from, 1),
        ["2027-01-01T00:00:00Z"]
    );
}

#[test]
fn an_interval_is_counted_from_its_anchor() {
    let every = schedule("@every 20m");
    let created = "2026-11-20T12:07:31Z";
    assert_eq!(
        slots(&every, created, 2),
        ["2026-11-20T12:27:31Z", "2026-11-20T12:47:31Z"]
    );
    assert_eq!(every.due(t(created), t("2026-11-20T12:27:30Z")), None);
    assert_eq!(
        every.due(t(created), t("2026-11-20T12:27:31Z")),
        Some(t("2026-11-20T12:27:31Z"))
    );
}

#[test]
fn missed_slots_collapse_into_the_newest() {
    let last = t("2026-11-01T01:00:00Z");
    let back = t("2026-11-20T08:00:00Z");
    let newest = schedule("0 1 * * *").due(last, back).unwrap();
    assert_eq!(newest, t("2026-11-20T01:00:00Z"));
    assert_eq!(schedule("0 1 * * *").due(newest, back), None);
    let newest = schedule("@every 20m").due(last, back).unwrap();
    assert_eq!(newest, t("2026-11-20T08:00:00Z"));
}

#[test]
fn a_slot_taken_by_a_clock_that_was_ahead_does_not_hold_up_the_next() {
    let (created, now) = (t("2026-11-20T00:00:00Z"), t("2026-11-21T12:00:00Z"));
    let taken = [t("2099-01-01T01:00:00Z"), t("2026-11-20T01:00:00Z")];
    let anchor = anchor(created, taken, now);
    assert_eq!(anchor, t("2026-11-20T01:00:00Z"));
    assert_eq!(
        schedule("0 1 * * *").due(anchor, now),
        Some(t("2026-11-21T01:00:00Z"))
    );
    // Nor does a clock that goes back make a slot due twice.
    assert_eq!(
        schedule("@every 1h").due(now, t("2026-11-21T11:00:00Z")),
        None
    );
}

#[test]
fn time_zones_come_from_the_field_or_the_prefix_and_not_from_both() {
    let want = ["2026-11-20T23:30:00Z"];
    let from = "2026-11-20T12:00:00Z";
    let by_field = Schedule::parse("30 0 * * *", Some("Europe/Berlin")).unwrap();
    assert_eq!(slots(&by_field, from, 1), want);
    for text in [
        "CRON_TZ=Europe/Berlin 30 0 * * *",
        "TZ=Europe/Berlin   30 0 * * *",
    ] {
        assert_eq!(slots(&schedule(text), from, 1), want);
        assert!(Schedule::parse(text, Some("UTC")).is_err());
    }
    assert_eq!(
        slots(&schedule("TZ=Asia/Kolkata @daily"), from, 1),
        ["2026-11-20T18:30:00Z"]
    );
    assert!(Schedule::parse("TZ=UTC @every 20m", Some("")).is_ok());
    for bad in [
        "TZ=UTC",
        "TZ= 0 0 * * *",
        "TZ=Mars/Olympus 0 0 * * *",
        "TZ=Local 0 0 * * *",
        "TZ=../../etc/passwd 0 0 * * *",
    ] {
        assert!(Schedule::parse(bad, None).is_err(), "{bad}");
    }
    assert!(Schedule::parse("@daily", Some("Mars/Olympus")).is_err());
}

#[test]
fn in_the_skipped_hour_one_time_a_day_runs_right_after_it() {
    // Berlin, 29 March 2026: from 02:00 to 03:00 in one step.
    let nightly = schedule("TZ=Europe/Berlin 30 2 * * *");
    assert_eq!(
        slots(&nightly, "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
    );
    let quarters = schedule("TZ=Europe/Berlin */30 * * * *");
    assert_eq!(
        slots(&quarters, "2026-03-29T00:00:00Z", 3),
        [
            "2026-03-29T00:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-29T01:30:00Z"
        ]
    );
}

#[test]
fn in_the_repeated_hour_one_time_a_day_runs_once() {
    // Berlin, 25 October 2026: 02:30 comes at 00:30Z and at 01:30Z.
    let nightly = schedule("TZ=Europe/Berlin 30 2 * * *");
    assert_eq!(
        slots(&nightly, "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    );
    let hourly = schedule("TZ=Europe/Berlin @hourly");
    assert_eq!(
        slots(&hourly, "2026-10-24T23:30:00Z", 3),
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z"
        ]
    );
    // Looked at from later, the same slots were due.
    for (now, want) in [
        ("2026-10-25T00:31:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-25T01:31:00Z", "2026-10-25T00:30:00Z"),
        ("2026-10-26T01:29:00Z", "2026-10-25T00:30:00Z"),
    ] {
        assert_eq!(
            nightly.due(t("2026-10-24T12:00:00Z"), t(now)),
            Some(t(want)),
            "{now}"
        );
    }
}

#[test]
fn what_can_not_be_meant_is_an_error_with_a_hint() {
    for text in [
        "",
        "   ",
        "daily",
        "@Daily",
        "@fortnightly",
        "@every",
        "@every ",
        "@every soon",
        "@every -5m",
        "@every 0s",
        "0 1 * *",
        "0 1 * * * *",
        "61 * * * *",
        "0 0 31 2 *",
        "@reboot",
    ] {
        let refused = Schedule::parse(text, None).unwrap_err();
        assert_eq!(refused.kind(), crate::Kind::Invalid, "{text:?}");
        assert!(refused.hint_text().is_some(), "{text:?}");
    }
    assert!(Schedule::parse(&"*".repeat(LONGEST + 1), None).is_err());
}

/// Whether a cron field of numbers, lists and steps allows a value: the plain reading, for comparison.
fn allows(field: &str, value: i64, least: i64) -> bool {
    field.split(',').any(|part| match part.split_once('/') {
        Some((_, step)) => (value - least) % step.parse::<i64>().unwrap() == 0,
        None => part == "*" || part.parse() == Ok(value),
    })
}

fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        (2..=most / 2).prop_map(|step| format!("*/{step}")),
        proptest::collection::vec(least..=most, 1..4).prop_map(|values| {
            let values: Vec<_> = values.iter().map(ToString::to_string).collect();
            values.join(",")
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_next_slot_is_the_first_minute_that_matches(
        minute in field(0, 59), hour in field(0, 23), day in field(1, 28), start in 0_i64..4_000_000_000,
    ) {
        let schedule = schedule(&format!("{minute} {hour} {day} * *"));
        let start = Timestamp::from_second(start).unwrap();
        let next = schedule.next(start, start).unwrap();
        prop_assert!(next > start);
        let mut minutes = start.as_second() / 60 + 1;
        loop {
            let here = Timestamp::from_second(minutes * 60).unwrap();
            let civil = here.to_zoned(TimeZone::UTC);
            if allows(&minute, civil.minute().into(), 0)
                && allows(&hour, civil.hour().into(), 0)
                && allows(&day, civil.day().into(), 1)
            {
                prop_assert_eq!(here, next);
                break;
            }
            minutes += 1;
        }
    }

    #[test]
    fn what_is_due_is_the_last_of_the_slots_that_came(
        minute in field(0, 59), hour in field(0, 23), zone in prop_oneof![Just("UTC"), Just("Europe/Berlin"), Just("Australia/Lord_Howe")],
        start in 1_700_000_000_i64..1_900_000_000, hours in 1_i64..200,
    ) {
        let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), Some(zone)).unwrap();
        let start = Timestamp::from_second(start).unwrap();
        let now = Timestamp::from_second(start.as_second() + hours * 3600).unwrap();
        let mut last = None;
        let mut slot = start;
        loop {
            slot = schedule.next(start, slot).unwrap();
            if slot > now {
                break;
            }
            last = Some(slot);
        }
        prop_assert_eq!(schedule.due(start, now), last);
    }

    #[test]
    fn an_interval_never_drifts_and_never_repeats(seconds in 1_i64..1_000_000, start in 0_i64..4_000_000_000, later in 0_i64..100_000_000) {
        let schedule = schedule(&format!("@every {seconds}s"));
        let (start, now) = (Timestamp::from_second(start).unwrap(), Timestamp::from_second(start + later).unwrap());
        let next = schedule.next(start, now).unwrap();
        prop_assert!(next > now && next.as_second() - now.as_second() <= seconds);
        prop_assert_eq!((next.as_second() - start.as_second()) % seconds, 0);
        match schedule.due(start, now) {
            None => prop_assert!(later < seconds),
            Some(due) => {
                prop_assert_eq!(next.as_second() - due.as_second(), seconds);
                prop_assert_eq!(schedule.due(due, now), None);
            }
        }
    }

    #[test]
    fn any_text_is_answered(text in ".{0,80}", zone in proptest::option::of(".{0,20}")) {
        let _ = Schedule::parse(&text, zone.as_deref());
    }
}
