//! The controller for ten minutes of many schedules, and beside very many objects: what only time and numbers show. Prints tables; fails where a slot was
//! missed or taken twice, or memory grows.
//!
//! With arguments (`schedules`, `many`) only those parts run.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for developers that reports and ends"
)]

#[path = "soak/many.rs"]
mod many;
#[path = "soak/schedules.rs"]
mod schedules;

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let parts: [(&str, Part); 2] = [("schedules", schedules::run), ("many", many::run)];
    for part in &asked {
        let known = parts.map(|(name, _)| name);
        assert!(
            known.contains(&part.as_str()),
            "{part} is none of {known:?}"
        );
    }
    let mut rows = Vec::new();
    for (name, run) in parts {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            rows.extend(run());
        }
    }
    println!("\n| the controller | | has to hold | |\n|---|---|---|---|");
    for (what, is, must) in &rows {
        let (must, verdict) = match must {
            None => ("", ""),
            Some((must, true)) => (must.as_str(), "holds"),
            Some((must, false)) => (must.as_str(), "**does not hold**"),
        };
        println!("| {what} | {is} | {must} | {verdict} |");
    }
    let holds = rows
        .iter()
        .all(|(_, _, must)| must.as_ref().is_none_or(|(_, holds)| *holds));
    assert!(holds, "something does not hold");
}

/// Looks at something for a while.
type Part = fn() -> Vec<Row>;

/// What was looked at, how it is, and what it has to be and whether it is that.
type Row = (String, String, Option<(String, bool)>);

fn row(what: &str, is: impl std::fmt::Display) -> Row {
    (what.to_owned(), is.to_string(), None)
}

fn must(what: &str, is: impl std::fmt::Display, must: &str, holds: bool) -> Row {
    (
        what.to_owned(),
        is.to_string(),
        Some((must.to_owned(), holds)),
    )
}

fn say(text: &str) {
    println!("soak: {text}");
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
