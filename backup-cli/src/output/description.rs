//! `describe`: keys and values under headings, aligned as Velero and kubectl align them.

use std::fmt::Write as _;
use std::io::Write as _;

use tabwriter::TabWriter;

use crate::ui::clean;

/// Text that grows line by line.
#[derive(Debug, Default)]
pub struct Description {
    text: String,
}

impl Description {
    /// `Key:  value`; columns of lines that follow each other are aligned.
    pub fn field(&mut self, depth: usize, key: &str, value: impl AsRef<str>) {
        let value = clean(value.as_ref()).replace(['\n', '\t'], " ");
        let value = if value.is_empty() { "<none>" } else { &value };
        let _ = writeln!(self.text, "{}{}:\t{value}", "  ".repeat(depth), clean(key));
    }

    /// Keys and values below a heading, one per line.
    pub fn map<'a>(&mut self, key: &str, map: impl IntoIterator<Item = (&'a String, &'a String)>) {
        let mut key = Some(key);
        for (name, value) in map {
            let title = key.take().map_or_else(String::new, |key| format!("{key}:"));
            let pair = clean(&format!("{name}={value}")).replace(['\n', '\t'], " ");
            let _ = writeln!(self.text, "{title}\t{pair}");
        }
        if let Some(key) = key {
            self.field(0, key, "");
        }
    }

    /// An empty line, which also ends an alignment.
    pub fn gap(&mut self) {
        self.text.push('\n');
    }

    /// `Heading:` by itself.
    pub fn heading(&mut self, text: &str) {
        let _ = writeln!(self.text, "{}:", clean(text));
    }

    /// A line under a heading.
    pub fn item(&mut self, depth: usize, text: &str) {
        let text = clean(text).replace(['\n', '\t'], " ");
        let _ = writeln!(self.text, "{}{text}", "  ".repeat(depth));
    }

    /// The text, without the last line's end.
    pub fn render(&self) -> String {
        let mut writer = TabWriter::new(Vec::new()).minwidth(0).padding(2);
        // A vector takes everything.
        let _ = writer.write_all(self.text.as_bytes());
        let bytes = writer.into_inner().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_each_other() {
        let mut text = Description::default();
        text.field(0, "Name", "a");
        text.map(
            "Labels",
            [
                (&"k".to_owned(), &"v".to_owned()),
                (&"l".to_owned(), &"w".to_owned()),
            ],
        );
        text.gap();
        text.heading("Namespaces");
        text.field(1, "Excluded", "");
        assert_eq!(
            text.render(),
            "Name:    a\nLabels:  k=v\n         l=w\n\nNamespaces:\n  Excluded:  <none>"
        );
    }
}
