//! How results look: tables, ages, sizes, JSON and YAML. Pure: text in, text out.

mod description;
mod field;
mod labels;
mod list;

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use owo_colors::OwoColorize;
use serde::Serialize;
use serde_json::Value;
use tabwriter::TabWriter;

use backup_core::Error;

use crate::error::Result;
use crate::ui::{Ui, clean};

pub use description::Description;
pub use field::Field;
pub use labels::{LabelArgs, Labels};
pub use list::{ListArgs, Listing};

/// `-o`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A row per object.
    #[default]
    Table,
    /// A row per object, with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// `type/name` only.
    Name,
}

/// How a result is printed.
#[derive(Clone, Debug, Args)]
pub struct OutputArgs {
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Leave out the titles of columns
    #[arg(long)]
    pub no_headers: bool,
}

/// Rows under titles, three spaces between columns as kubectl has them.
#[derive(Clone, Debug, Default)]
pub struct Table {
    titles: Option<Vec<String>>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table; without titles where the user does not want them.
    pub fn new(titles: &[&'static str], no_headers: bool) -> Self {
        Self {
            titles: (!no_headers).then(|| titles.iter().map(|title| (*title).to_owned()).collect()),
            rows: Vec::new(),
        }
    }

    /// Appends a row; an empty cell becomes `<none>`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.push(cells.into());
    }

    /// Appends a row whose number of cells is known at run time only.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(safe).collect());
    }

    /// Appends columns; the cells are those of the rows in their order.
    pub fn widen(&mut self, titles: Vec<String>, cells: Vec<Vec<String>>) {
        if let Some(all) = &mut self.titles {
            all.extend(titles.into_iter().map(safe));
        }
        for (row, cells) in self.rows.iter_mut().zip(cells) {
            row.extend(cells.into_iter().map(safe));
        }
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows wait to be printed.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Drops rows and titles: what follows goes on below what was printed.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.titles = None;
    }

    /// The text of the table.
    pub fn render(&self, color: bool) -> String {
        let mut writer = TabWriter::new(Vec::new())
            .minwidth(6)
            .padding(3)
            .ansi(color);
        for row in self.titles.iter().chain(&self.rows) {
            let cells: Vec<_> = row.iter().map(|cell| paint(cell, color)).collect();
            // A vector takes everything.
            let _ = writeln!(writer, "{}", cells.join("\t"));
        }
        let bytes = writer.into_inner().unwrap_or_default();
        String::from_utf8_lossy(&bytes)
            .lines()
            .fold(String::new(), |mut text, line| {
                let _ = writeln!(text, "{}", line.trim_end());
                text
            })
    }
}

/// A cell as it may be shown.
fn safe(cell: String) -> String {
    match clean(&cell).replace(['\n', '\t'], " ") {
        empty if empty.is_empty() => "<none>".to_owned(),
        cell => cell,
    }
}

fn paint(cell: &str, color: bool) -> String {
    if !color {
        return cell.to_owned();
    }
    match cell {
        "Completed" | "created" | "ok" => cell.green().to_string(),
        "PartiallyFailed" | "InProgress" | "updated" => cell.yellow().to_string(),
        "Failed" | "FailedValidation" | "failed" => cell.red().to_string(),
        _ => cell.to_owned(),
    }
}

/// Objects as `-o json|yaml` shows them: one by itself, several as a `List`.
pub fn objects(mut items: Vec<Value>, single: bool) -> Value {
    if single && items.len() == 1 {
        items.remove(0)
    } else {
        serde_json::json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items})
    }
}

/// An object of ours as programs see it, such as a description: what Kubernetes has no kind for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<'a, T> {
    api_version: &'static str,
    kind: &'a str,
    #[serde(flatten)]
    content: T,
}

impl<'a, T: Serialize> Document<'a, T> {
    /// One of this kind.
    pub fn new(kind: &'a str, content: T) -> Self {
        Self {
            api_version: "kubectl-backup/v1",
            kind,
            content,
        }
    }
}

/// Prints a value as JSON or YAML.
///
/// # Errors
/// When it can not be written.
pub fn print(ui: &Ui, format: Format, value: &impl Serialize) -> Result<()> {
    let text = if format == Format::Json {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::other("the result can not be written as JSON").because(e))?;
        text.push('\n');
        text
    } else {
        yaml(value)?
    };
    ui.data(text.as_bytes())
}

/// A value as YAML that YAML 1.1 and 1.2 read alike.
///
/// # Errors
/// When it can not be written as YAML.
pub fn yaml(value: &impl Serialize) -> Result<String, Error> {
    // Folded scalars would re-wrap long lines; one line stays one line.
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options)
        .map_err(|e| Error::other("the result can not be written as YAML").because(e))
}

/// The rule of kubectl's ages (apimachinery's HumanDuration): two units at most, fewer as it grows.
pub fn duration(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let years = days / 365;
    let two = |first: u64, unit: &str, second: u64, below: &str| match second {
        0 => format!("{first}{unit}"),
        second => format!("{first}{unit}{second}{below}"),
    };
    match (minutes, hours, days) {
        (..2, _, _) => format!("{seconds}s"),
        (..10, _, _) => two(minutes, "m", seconds % 60, "s"),
        (..180, _, _) => format!("{minutes}m"),
        (_, ..8, _) => two(hours, "h", minutes % 60, "m"),
        (_, ..48, _) => format!("{hours}h"),
        (_, _, ..8) => two(days, "d", hours % 24, "h"),
        (_, _, ..730) => format!("{days}d"),
        (_, _, ..2920) => two(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

/// How long a piece of work took: with a decimal below a minute.
pub fn took(time: Duration) -> String {
    if time < Duration::from_secs(60) {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        duration(time)
    }
}

/// Time since then, as kubectl writes it; up to two seconds ahead is now, for clocks differ.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    match now.as_second() - then.as_second() {
        past @ 0.. => duration(Duration::from_secs(past.unsigned_abs())),
        -1 => "0s".to_owned(),
        _ => "<invalid>".to_owned(),
    }
}

/// Time until then, or for how long it has been over.
pub fn until(then: Timestamp, now: Timestamp) -> String {
    let seconds = then.as_second() - now.as_second();
    let text = duration(Duration::from_secs(seconds.unsigned_abs()));
    if seconds < 0 {
        format!("{text} ago")
    } else {
        text
    }
}

/// A moment in Velero's and kubectl's writing: `2026-11-21 02:00:00 +0000 UTC`.
pub fn time(moment: Option<Timestamp>) -> String {
    moment.map_or_else(
        || "<n/a>".to_owned(),
        |moment| moment.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
    )
}

/// Bytes for people: `512 B`, `1.2 MiB`.
pub fn size(bytes: u64) -> String {
    let mut unit = 0;
    let mut whole = bytes;
    let mut rest = 0;
    while whole >= 1024 && unit < 5 {
        rest = whole % 1024;
        whole /= 1024;
        unit += 1;
    }
    let unit_name = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
    if unit == 0 || whole >= 100 {
        format!("{whole} {unit_name}")
    } else {
        format!("{whole}.{} {unit_name}", rest * 10 / 1024)
    }
}

/// A number with thousands apart: `26,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 object`, `2 objects`; the plural is the noun with an s.
pub fn counted(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {noun}{s}", count(number))
}

/// A list for people, or `<none>`.
pub fn joined(items: &[String], none: &str) -> String {
    if items.is_empty() {
        none.to_owned()
    } else {
        items.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        let of = |seconds| duration(Duration::from_secs(seconds));
        let (m, h, d) = (60, 3600, 86_400);
        for (seconds, want) in [
            (0, "0s"),
            (47, "47s"),
            (119, "119s"),
            (2 * m, "2m"),
            (200, "3m20s"),
            (10 * m, "10m"),
            (3 * h - 1, "179m"),
            (3 * h, "3h"),
            (5 * h + 10 * m, "5h10m"),
            (8 * h, "8h"),
            (25 * h, "25h"),
            (2 * d, "2d"),
            (2 * d + 5 * h, "2d5h"),
            (8 * d, "8d"),
            (400 * d, "400d"),
            (730 * d, "2y"),
            (735 * d, "2y5d"),
            (8 * 365 * d, "8y"),
            (10 * 365 * d, "10y"),
        ] {
            assert_eq!(of(seconds), want, "{seconds} s");
        }
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(age(Timestamp::from_second(1001).unwrap(), now), "0s");
        assert_eq!(age(Timestamp::from_second(1010).unwrap(), now), "<invalid>");
        assert_eq!(until(Timestamp::from_second(940).unwrap(), now), "60s ago");
    }

    #[test]
    fn columns_stand_three_spaces_apart_and_cells_can_not_break_them() {
        let mut table = Table::new(&["NAME", "STATUS"], false);
        table.row(["a-longer-name".into(), "Completed".into()]);
        table.row(["b\n\tc\u{1b}[2J".into(), String::new()]);
        assert_eq!(
            table.render(false),
            "NAME            STATUS\na-longer-name   Completed\nb  c[2J         <none>\n"
        );
        table.widen(
            vec!["APP".into()],
            vec![vec!["x".into()], vec![String::new()]],
        );
        assert_eq!(
            table.render(false),
            "NAME            STATUS      APP\na-longer-name   Completed   x\nb  c[2J         <none>      <none>\n"
        );
        let mut bare = Table::new(&["NAME"], true);
        bare.row(["x".into()]);
        assert_eq!(bare.render(false), "x\n");
    }

    #[test]
    fn sizes_and_counts_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(150 << 20), "150 MiB");
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "object"), "1 object");
    }

    #[test]
    fn yaml_keeps_strings_that_look_like_something_else() {
        let value = serde_json::json!({"a": "yes", "b": "0777", "c": "1e3", "d": "x\ny\n", "e": "~", "f": "\u{1b}[2J",
            "g": "2001-01-01", "h": "12:30:45", "i": "- a", "j": "", "k": " x", "l": "null", "m": "a: b", "n": "# c"});
        let text = yaml(&value).unwrap();
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value);
        for looks_like_something_else in [
            "a: yes\n",
            "b: 0777\n",
            "c: 1e3\n",
            "g: 2001-01-01\n",
            "h: 12:30:45\n",
        ] {
            assert!(!text.contains(looks_like_something_else), "{text}");
        }
    }
}
