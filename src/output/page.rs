//! Text under construction: what a report's human form is written into.

use std::fmt::{Display, Write};
use std::io::{self, IsTerminal};

use anstyle::{AnsiColor, Style};
use comfy_table::{Attribute, Cell, CellAlignment, ContentArrangement, Table};
use jiff::Timestamp;

use super::units;

pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const HINT: Style = AnsiColor::Cyan.on_default().bold();
/// For what is as it should be.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// For what deserves attention.
pub const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
/// For what is wrong.
pub const BAD: Style = AnsiColor::Red.on_default();
/// For what is secondary.
pub const FAINT: Style = Style::new().dimmed();

/// A value with a form for people.
pub trait Human {
    fn human(&self, page: &mut Page);
}

/// Text for one stream.
#[derive(Debug)]
pub struct Page {
    text: String,
    color: bool,
    /// Columns of the terminal; `None`: not a terminal, nothing is wrapped.
    width: Option<u16>,
    now: Timestamp,
}

impl Page {
    pub(super) fn for_stdout(color: bool) -> Self {
        Self::new(color, terminal_width(io::stdout().is_terminal()))
    }

    pub(super) fn for_stderr(color: bool) -> Self {
        Self::new(color, terminal_width(io::stderr().is_terminal()))
    }

    /// For a file: no colours, lines as long as they are.
    pub(super) fn for_file() -> Self {
        Self::new(false, None)
    }

    fn new(color: bool, width: Option<u16>) -> Self {
        Self { text: String::new(), color, width, now: Timestamp::now() }
    }

    /// A line of text.
    pub fn line(&mut self, text: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{text}");
    }

    /// The text in a style, if this page has colours.
    pub fn styled(&self, style: Style, text: impl Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    /// `label: text`, as errors and warnings have it.
    pub(super) fn labelled(&mut self, style: Style, label: &str, text: &str) {
        let label = self.styled(style, format!("{label}:"));
        self.line(format!("{label} {text}"));
    }

    /// `3 days ago`, seen from when the page was begun.
    pub fn ago(&self, time: Timestamp) -> String {
        units::ago(time, self.now)
    }

    /// A table without lines around its cells. Numbers stand right-aligned in the columns named in `right`
    /// (counted from 0). Texts from files or servers are shown with control characters escaped.
    pub fn table<const N: usize>(
        &mut self,
        head: [&str; N],
        right: &[usize],
        rows: impl IntoIterator<Item = [String; N]>,
    ) {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(head.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        for row in rows {
            table.add_row(row.map(|text| Cell::new(printable(&text))));
        }
        for column in right {
            if let Some(column) = table.column_mut(*column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self.render(table);
    }

    /// Rows of a name and a value.
    pub fn pairs<'a>(&mut self, rows: impl IntoIterator<Item = (&'a str, String)>) {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        for (name, value) in rows {
            table.add_row([Cell::new(name).add_attribute(Attribute::Bold), Cell::new(printable(&value))]);
        }
        self.render(table);
    }

    fn render(&mut self, mut table: Table) {
        match self.width {
            Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for line in table.lines() {
            // The first column needs no gap on its left, be it inside a style, and no line blanks at its end.
            let style = if line.starts_with('\u{1b}') { line.find('m').map_or(0, |end| end + 1) } else { 0 };
            let (style, cells) = line.split_at(style);
            self.line(format!("{style}{}", cells.strip_prefix(' ').unwrap_or(cells)).trim_end());
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// The text with control characters as escapes: a model's name must not move the cursor.
pub fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

/// Enough of a revision to tell it from another.
pub fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

fn terminal_width(is_terminal: bool) -> Option<u16> {
    if !is_terminal {
        return None;
    }
    terminal_size::terminal_size().map(|(width, _)| width.0)
}
