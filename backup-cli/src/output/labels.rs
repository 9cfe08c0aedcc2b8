//! What kubectl's lists do with labels: choose by them, and show them in columns. Pure.

use std::collections::BTreeMap;

use backup_core::Error;
use backup_core::filter::Selector;
use clap::Args;
use serde_json::Value;

/// `-l`, `-L` and `--show-labels`
#[derive(Clone, Debug, Default, Args)]
pub struct LabelArgs {
    /// Labels that they must have, in kubectl's syntax
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = selector)]
    pub selector: Option<Selector>,
    /// Labels to show in a column each (comma list, can be repeated)
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    pub label_columns: Vec<String>,
    /// Show all labels in the last column
    #[arg(long)]
    pub show_labels: bool,
}

fn selector(text: &str) -> Result<Selector, Error> {
    Selector::parse(text)
}

/// The labels of an object.
pub type Labels = BTreeMap<String, String>;

impl LabelArgs {
    /// Whether they ask for anything.
    pub fn is_given(&self) -> bool {
        self.selector.is_some() || self.has_columns()
    }

    /// Whether there are columns.
    pub fn has_columns(&self) -> bool {
        self.show_labels || !self.label_columns.is_empty()
    }

    /// Whether an object with these labels is meant.
    pub fn chooses(&self, labels: &Labels) -> bool {
        let selector = self.selector.as_ref();
        selector.is_none_or(|selector| selector.matches(labels))
    }

    /// Titles of the columns: of a label what stands after its slash, as kubectl has it.
    pub fn titles(&self) -> Vec<String> {
        let title = |label: &String| {
            let name = label.rsplit('/').next().unwrap_or_default();
            name.to_uppercase()
        };
        let mut titles: Vec<_> = self.label_columns.iter().map(title).collect();
        titles.extend(self.show_labels.then(|| "LABELS".to_owned()));
        titles
    }

    /// An object's cells in these columns.
    pub fn cells(&self, labels: &Labels) -> Vec<String> {
        let cell = |label| labels.get(label).cloned().unwrap_or_default();
        let mut cells: Vec<_> = self.label_columns.iter().map(cell).collect();
        if self.show_labels {
            let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
            cells.push(pairs.collect::<Vec<_>>().join(","));
        }
        cells
    }
}

/// The labels of an object as programs see it.
pub(super) fn of(object: &Value) -> Labels {
    let labels = object["metadata"]["labels"].as_object();
    let texts = labels.into_iter().flatten();
    texts
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn labels_are_shown_in_columns_as_kubectl_shows_them() {
        let args = LabelArgs {
            selector: Some(Selector::parse("tier").unwrap()),
            label_columns: vec!["app.kubernetes.io/name".into(), "tier".into()],
            show_labels: true,
        };
        assert_eq!(args.titles(), ["NAME", "TIER", "LABELS"]);
        let labels = of(&json!({"metadata": {"labels": {"tier": "web", "b": "c", "odd": 1}}}));
        assert!(args.chooses(&labels));
        assert_eq!(args.cells(&labels), ["", "web", "b=c,tier=web"]);
        let none = of(&json!({}));
        assert!(!args.chooses(&none));
        assert_eq!(args.cells(&none), ["", "", ""]);
    }
}
