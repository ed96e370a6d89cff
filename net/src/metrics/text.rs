//! Prometheus' text format, version 0.0.4.

use std::fmt::{Display, Write};

use super::histogram::Totals;

/// Writes metrics one after another.
#[derive(Debug, Default)]
pub(super) struct TextWriter(String);

/// One metric whose samples are being written.
pub(super) struct MetricWriter<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl TextWriter {
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> MetricWriter<'_> {
        self.metric(name, help, "counter")
    }

    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> MetricWriter<'_> {
        self.metric(name, help, "gauge")
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &str, totals: &Totals) {
        let text = self.metric(name, help, "histogram").text;
        for (bound, count) in &totals.buckets {
            line(
                text,
                format_args!("{name}_bucket{{le=\"{bound}\"}} {count}"),
            );
        }
        line(
            text,
            format_args!("{name}_bucket{{le=\"+Inf\"}} {}", totals.count),
        );
        line(text, format_args!("{name}_sum {}", totals.sum));
        line(text, format_args!("{name}_count {}", totals.count));
    }

    pub(super) fn finish(self) -> String {
        self.0
    }

    fn metric(&mut self, name: &'static str, help: &str, kind: &str) -> MetricWriter<'_> {
        line(&mut self.0, format_args!("# HELP {name} {help}"));
        line(&mut self.0, format_args!("# TYPE {name} {kind}"));
        MetricWriter {
            text: &mut self.0,
            name,
        }
    }
}

impl MetricWriter<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            push_escaped(self.text, text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        line(self.text, format_args!(" {value}"));
    }

    /// A series that never counted anything is left out: most never will.
    pub(super) fn sample_above_zero(&mut self, labels: &[(&str, &str)], value: u64) {
        if value > 0 {
            self.sample(labels, value);
        }
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    writeln!(text, "{content}").expect("a String takes all that is written to it");
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}
