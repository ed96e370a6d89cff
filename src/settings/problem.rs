//! What is wrong with a settings file, and where.

use std::ops::Range;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError,
    MietteSpanContents, Severity, SourceCode, SourceSpan, SpanContents,
};
use serde_json::json;

use super::source::{Place, Source};

/// Everything found wrong in one reading of the settings; nothing was started.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", self.one_liners())]
pub struct Problems {
    list: Vec<Problem>,
    /// Not named `source`: thiserror would take it for the cause.
    read_from: Box<Source>,
}

/// One thing that is wrong: `place`, then what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What was expected, and what was found.
    pub message: String,
    /// What to do about it, when there is more to say.
    pub help: Option<String>,
    /// Bytes of the source's text.
    range: Range<usize>,
    /// Whether the line may be shown: false where a secret may stand.
    quoted: bool,
}

impl Problems {
    /// Each problem, in the order of the file.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Plain text, one line each: `FILE:LINE:COLUMN: message`.
    pub fn one_liners(&self) -> String {
        let lines: Vec<String> = self
            .list
            .iter()
            .map(|p| format!("{}: {}", p.place, p.message))
            .collect();
        lines.join("\n")
    }

    /// For a person: the line itself, with the place marked.
    pub fn rendered(&self, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme);
        let mut out = String::new();
        for problem in &self.list {
            let shown = Shown {
                problem,
                line: self.line_of(problem),
            };
            if handler.render_report(&mut out, &shown).is_err() {
                out.push_str(&problem.message);
            }
        }
        out
    }

    /// As data, for `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        self.list
            .iter()
            .map(|problem| {
                let (file, line, column) = match &problem.place {
                    Place::File { name, line, column } => (name, Some(line), Some(column)),
                    Place::Variable(name) => (name, None, None),
                };
                json!({
                    "file": file, "line": line, "column": column,
                    "message": problem.message, "help": problem.help,
                })
            })
            .collect()
    }

    fn line_of<'p>(&'p self, problem: &'p Problem) -> Option<QuotedLine<'p>> {
        let Place::File { name, line, column } = &problem.place else {
            return None;
        };
        if !problem.quoted {
            return None;
        }
        let text = self.read_from.text();
        let start = text[..problem.range.start]
            .rfind('\n')
            .map_or(0, |at| at + 1);
        let end = text[problem.range.start..]
            .find('\n')
            .map_or(text.len(), |length| problem.range.start + length);
        let marked = problem.range.start..problem.range.end.min(end);
        let text = &text[start..end];
        Some(QuotedLine {
            name,
            text,
            start,
            line: line - 1,
            column: column - 1,
            marked,
        })
    }
}

/// Collects problems while the settings are read.
#[derive(Debug)]
pub(super) struct ProblemList<'s> {
    source: &'s Source,
    list: Vec<Problem>,
}

impl<'s> ProblemList<'s> {
    pub(super) fn new(source: &'s Source) -> ProblemList<'s> {
        ProblemList {
            source,
            list: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, range: Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.list.push(Problem {
            place: self.source.place(range.start),
            message: message.into(),
            help: None,
            range,
            quoted: true,
        });
        self.list.last_mut().expect("an element was just pushed")
    }

    /// Adds what the parser says; `quoted` as in [`Problem`].
    pub(super) fn add_parse_error(&mut self, error: &toml::de::Error, quoted: bool) {
        let range = error.span().unwrap_or(0..0);
        self.add(range, error.message().trim_end()).quoted = quoted;
    }

    /// `Ok` when nothing was found.
    pub(super) fn finish(mut self) -> Result<(), Problems> {
        if self.list.is_empty() {
            return Ok(());
        }
        self.list.sort_by_key(|problem| problem.range.start);
        Err(Problems {
            list: self.list,
            read_from: Box::new(self.source.clone()),
        })
    }
}

impl Problem {
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Problem {
        self.help = Some(help.into());
        self
    }

    pub(super) fn unquoted(&mut self) -> &mut Problem {
        self.quoted = false;
        self
    }
}

/// A problem as miette wants it.
#[derive(Debug)]
struct Shown<'p> {
    problem: &'p Problem,
    line: Option<QuotedLine<'p>>,
}

/// The line a problem starts on. Its neighbours are not shown: what stands
/// there may be a secret put in by mistake.
#[derive(Debug)]
struct QuotedLine<'p> {
    name: &'p str,
    text: &'p str,
    /// Offset of the line in the source.
    start: usize,
    /// From 0, as miette counts.
    line: usize,
    column: usize,
    /// The offsets in the source to mark.
    marked: Range<usize>,
}

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.line {
            Some(_) => f.write_str(&self.problem.message),
            None => write!(f, "{}: {}", self.problem.place, self.problem.message),
        }
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(Severity::Error)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.problem
            .help
            .as_ref()
            .map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.line.as_ref().map(|line| line as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let line = self.line.as_ref()?;
        let label = LabeledSpan::new_with_span(Some("here".to_owned()), line.marked.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

impl SourceCode for QuotedLine<'_> {
    fn read_span<'a>(
        &'a self,
        _span: &SourceSpan,
        _lines_before: usize,
        _lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.to_owned(),
            self.text.as_bytes(),
            (self.start, self.text.len()).into(),
            self.line,
            self.column,
            1,
        )))
    }
}
