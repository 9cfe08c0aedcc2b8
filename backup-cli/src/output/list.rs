//! What every listing command does with what it found: sort it, and print it in the format that is asked for. The table alone is the command's own.

use clap::Args;
use serde_json::Value;

use super::field::Field;
use super::labels::{self, LabelArgs};
use super::{Format, OutputArgs, Table, objects, print};
use crate::error::Result;
use crate::ui::Ui;

/// How a list is printed.
#[derive(Clone, Debug, Args)]
pub struct ListArgs {
    /// Format and titles.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Labels.
    #[command(flatten)]
    pub labels: LabelArgs,
    /// Sort by a field of the objects as -o json shows them, such as .metadata.name or .status.startTimestamp
    #[arg(long, value_name = "FIELD")]
    pub sort_by: Option<Field>,
}

/// What was found, and what programs are shown of it.
pub struct Listing<T> {
    /// In the order that is shown where none is asked for.
    pub items: Vec<T>,
    /// One was asked for by name: it stands by itself and not in a `List`.
    pub single: bool,
    /// `type/name`
    pub title: fn(&T) -> String,
    /// The object.
    pub value: fn(&T) -> Result<Value>,
    /// What is said where there is nothing.
    pub empty: String,
}

impl<T> Listing<T> {
    /// Prints it.
    ///
    /// # Errors
    /// A field to sort by that no object has; when it can not be written.
    pub fn print(
        mut self,
        ui: &Ui,
        args: &ListArgs,
        table: impl FnOnce(&[T]) -> Table,
    ) -> Result<()> {
        if args.labels.selector.is_some() {
            let mut chosen = Vec::new();
            for item in self.items {
                if args.labels.chooses(&labels::of(&(self.value)(&item)?)) {
                    chosen.push(item);
                }
            }
            self.items = chosen;
        }
        if let Some(field) = &args.sort_by {
            let values: Vec<_> = self.items.iter().map(self.value).collect::<Result<_>>()?;
            self.items = field.sort(self.items.into_iter().zip(values).collect())?;
        }
        match args.output.output {
            format @ (Format::Json | Format::Yaml) => {
                let values = self.items.iter().map(self.value).collect::<Result<_>>()?;
                print(ui, format, &objects(values, self.single))
            }
            Format::Name => self
                .items
                .iter()
                .try_for_each(|one| ui.line(&(self.title)(one))),
            Format::Table | Format::Wide if self.items.is_empty() => {
                ui.say(&self.empty);
                Ok(())
            }
            Format::Table | Format::Wide => {
                let mut rows = table(&self.items);
                if args.labels.has_columns() {
                    let of = |item| Ok(args.labels.cells(&labels::of(&(self.value)(item)?)));
                    let cells = self.items.iter().map(of).collect::<Result<_>>()?;
                    rows.widen(args.labels.titles(), cells);
                }
                ui.table(&rows)
            }
        }
    }
}
