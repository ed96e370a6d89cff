//! Two reports side by side.

use std::fmt::Write as _;

use crate::report::{Report, figure};

/// The medians of `a` and `b`, and `b / a`. Ratios mean something between runs of one machine.
pub(crate) fn table(a: &Report, b: &Report) -> String {
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| {
        text.write_fmt(words).expect("a String takes every write");
        text.push('\n');
    };
    if a.scenario != b.scenario {
        line(format_args!(
            "warning: scenarios differ: {} and {}",
            a.scenario, b.scenario
        ));
    }
    if a.machine != b.machine {
        line(format_args!("warning: the machines differ"));
    }
    for (name, value) in &a.settings {
        let other = b.settings.get(name);
        if other != Some(value) {
            let other = other.map_or("absent", String::as_str);
            line(format_args!(
                "settings differ: {name} = {value} and {other}"
            ));
        }
    }
    line(format_args!(
        "{:<26} {:>14} {:>14} {:>8}",
        "median",
        short(&a.commit),
        short(&b.commit),
        "B/A"
    ));
    for (metric, in_a) in &a.summary {
        let Some(in_b) = b.summary.get(metric) else {
            continue;
        };
        let (ratio, verdict) = if in_a.median > 0.0 {
            let ratio = in_b.median / in_a.median;
            let apart = in_b.min > in_a.max || in_b.max < in_a.min;
            let verdict = match (apart, (ratio > 1.0) == metric.more_is_better()) {
                // Within the spread of the runs nothing is said.
                (false, _) => "",
                (true, true) => " better",
                (true, false) => " worse",
            };
            (format!("{ratio:.3}"), verdict)
        } else {
            ("-".to_owned(), "")
        };
        line(format_args!(
            "{:<26} {:>14} {:>14} {:>8}{verdict}",
            metric.label(),
            figure(in_a.median),
            figure(in_b.median),
            ratio
        ));
    }
    text
}

/// As much of a commit as tells it apart.
fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn ratios_are_of_medians_and_verdicts_only_beyond_the_spread() {
        let (slow, fast) = (report(&[100.0, 110.0]), report(&[200.0, 220.0]));
        let text = table(&slow, &fast);
        let row = text
            .lines()
            .find(|row| row.starts_with("events accepted/s"));
        let words: Vec<&str> = row.unwrap().split_whitespace().collect();
        assert_eq!(words[2..], ["105.0", "210.0", "2.000", "better"]);
        assert!(!text.contains("worse"));
        let overlapping = table(&report(&[100.0, 300.0]), &report(&[200.0]));
        assert!(!overlapping.contains("better"), "{overlapping}");
    }

    #[test]
    fn what_differs_is_said_first() {
        let (a, mut b) = (report(&[1.0]), report(&[1.0]));
        b.settings.insert("seed".to_owned(), "8".to_owned());
        b.machine.cores += 1;
        let text = table(&a, &b);
        assert!(
            text.starts_with("warning: the machines differ\nsettings differ: seed = 7 and 8\n")
        );
    }
}
