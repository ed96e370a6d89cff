//! Columns of text for people.

use std::io::{self, Write};

/// Rows under a head, each column as wide as its widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Table {
        Table {
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// Cells of JSON; null and absent show as `-`.
    pub(crate) fn row(&mut self, cells: &[&serde_json::Value]) {
        self.rows
            .push(cells.iter().map(|cell| shown(cell)).collect());
    }

    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&format!("{cell:width$}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A value as a person reads it. Text from providers and producers may hold
/// control characters, which a terminal would obey: they are shown escaped.
pub(crate) fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text
            .chars()
            .flat_map(|c| {
                let escaped = c.is_control().then(|| c.escape_default());
                let plain = if escaped.is_some() { None } else { Some(c) };
                escaped.into_iter().flatten().chain(plain)
            })
            .collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_line_up_and_nothing_commands_the_terminal() {
        let mut table = Table::new(&["ID", "DETAIL"]);
        table.row(&[&json!("long-id"), &json!("a\u{1b}[2Jb\n")]);
        table.row(&[&json!(7), &json!(null)]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "ID       DETAIL\nlong-id  a\\u{1b}[2Jb\\n\n7        -\n"
        );
    }
}
