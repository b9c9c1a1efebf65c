//! The figures, as tables or as one JSON object.

use serde_json::{Map, Value, json};

/// Everything that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    notes: Vec<(&'static str, String)>,
    sections: Vec<Section>,
    tables: Vec<Table>,
    bars: Vec<Bar>,
}

/// Words and figures for a document.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
pub(crate) enum Cell {
    Code(String),
    Text(String),
    /// NaN where there is none.
    Number(f64),
}

/// Figures that belong together: a row for each thing, a column for each figure.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) rows: Vec<(String, Vec<(&'static str, f64)>)>,
}

/// A promised limit beside its figure.
#[derive(Debug)]
pub(crate) struct Bar {
    /// docs/security.md
    pub(crate) promise: &'static str,
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) bound: Bound,
    pub(crate) limit: f64,
    pub(crate) unit: &'static str,
}

/// On which side of its limit a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

impl Report {
    pub(crate) fn note(&mut self, what: &'static str, text: impl Into<String>) {
        self.notes.push((what, text.into()));
    }

    pub(crate) fn section(&mut self, name: &'static str, rows: Vec<(String, Vec<(&'static str, f64)>)>) {
        self.sections.push(Section { name, rows });
    }

    pub(crate) fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(crate) fn bar(
        &mut self,
        promise: &'static str,
        what: &str,
        value: f64,
        limit: f64,
        unit: &'static str,
    ) {
        self.bars.push(Bar { promise, what: what.to_owned(), value, bound: Bound::AtMost, limit, unit });
    }

    pub(crate) fn bar_at_least(
        &mut self,
        promise: &'static str,
        what: &str,
        value: f64,
        limit: f64,
        unit: &'static str,
    ) {
        self.bars.push(Bar { promise, what: what.to_owned(), value, bound: Bound::AtLeast, limit, unit });
    }

    pub(crate) fn print(&self, json: bool) {
        if json { println!("{}", self.json()) } else { print!("{}", self.text()) }
    }

    fn json(&self) -> Value {
        let mut whole = Map::new();
        for (what, text) in &self.notes {
            whole.insert((*what).to_owned(), json!(text));
        }
        for section in &self.sections {
            let rows: Map<_, _> = section
                .rows
                .iter()
                .map(|(name, figures)| {
                    let figures: Map<_, _> = figures
                        .iter()
                        .map(|(column, value)| ((*column).to_owned(), json!(rounded(*value))))
                        .collect();
                    (name.clone(), Value::Object(figures))
                })
                .collect();
            whole.insert(section.name.to_owned(), Value::Object(rows));
        }
        for table in &self.tables {
            let rows = table.rows.iter().map(|row| {
                let cells = table.columns.iter().zip(row);
                Value::Object(cells.map(|(column, cell)| ((*column).to_owned(), cell.json())).collect())
            });
            whole.insert(table.name.to_owned(), rows.collect());
        }
        let bars = self.bars.iter().map(|bar| {
            json!({
                "promise": bar.promise, "what": bar.what, "value": rounded(bar.value), "bound": bar.bound.words(),
                "limit": bar.limit, "unit": bar.unit, "met": bar.is_met(),
            })
        });
        whole.insert("bars".to_owned(), bars.collect());
        Value::Object(whole)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (what, note) in &self.notes {
            text += &format!("{what}: {note}\n");
        }
        for section in &self.sections {
            text += &section.text();
        }
        for table in &self.tables {
            text += &format!("\n{}\n\n{}", table.name, table.markdown());
        }
        if !self.bars.is_empty() {
            text += "\nbars\n";
        }
        for bar in &self.bars {
            let Bar { promise, what, value, bound, limit, unit } = bar;
            let (bound, verdict) = (bound.words(), if bar.is_met() { "met" } else { "MISSED" });
            text += &format!("  {promise:3} {what:58} {value:9.3} {unit:4} ({bound} {limit}) {verdict}\n");
        }
        text
    }
}

impl Bar {
    /// A figure that could not be measured (NaN) is on neither side.
    fn is_met(&self) -> bool {
        match self.bound {
            Bound::AtMost => self.value <= self.limit,
            Bound::AtLeast => self.value >= self.limit,
        }
    }
}

impl Bound {
    fn words(self) -> &'static str {
        match self {
            Self::AtMost => "at most",
            Self::AtLeast => "at least",
        }
    }
}

impl Table {
    fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(self.columns.iter().map(|column| (*column).to_owned()).collect());
        text += &line(self.columns.iter().map(|_| "---".to_owned()).collect());
        for row in &self.rows {
            text += &line(row.iter().map(Cell::markdown).collect());
        }
        text
    }
}

impl Cell {
    fn markdown(&self) -> String {
        match self {
            Self::Code(text) => format!("`{text}`"),
            Self::Text(text) => text.replace('|', "\\|"),
            Self::Number(value) if value.is_nan() => String::new(),
            Self::Number(value) => format!("{value:.1}"),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Code(text) | Self::Text(text) => json!(text),
            Self::Number(value) => json!(rounded(*value)),
        }
    }
}

impl Section {
    fn text(&self) -> String {
        let columns: Vec<_> =
            self.rows.first().map(|(_, row)| row.iter().map(|(name, _)| *name).collect()).unwrap_or_default();
        let mut text = format!("\n{:36}", self.name);
        for column in &columns {
            text += &format!(" {column:>14}");
        }
        text.push('\n');
        for (name, figures) in &self.rows {
            text += &format!("  {name:34}");
            for (_, value) in figures {
                text += &format!(" {value:14.3}");
            }
            text.push('\n');
        }
        text
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
