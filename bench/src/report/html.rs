//! A report as one HTML file that needs nothing else.

use std::fmt::Write as _;

use super::{Report, figure};
use crate::figures::{Figures, Sample};

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut body = String::new();
    let title = format!("syncline-bench {}", report.scenario);
    push(&mut body, format_args!("<h1>{}</h1>", escaped(&title)));
    let machine = &report.machine;
    push(
        &mut body,
        format_args!(
            "<p>Commit {} · {} × {} · {} MiB · Linux {} · {}</p>",
            escaped(&report.commit),
            machine.cores,
            escaped(&machine.cpu),
            machine.memory_mib,
            escaped(&machine.kernel),
            escaped(&machine.file_system),
        ),
    );
    body.push_str("<table><tr><th>figure<th>min<th>median<th>max</tr>");
    for (metric, spread) in &report.summary {
        push(
            &mut body,
            format_args!(
                "<tr><td>{}<td>{}<td>{}<td>{}</tr>",
                metric.label(),
                figure(spread.min),
                figure(spread.median),
                figure(spread.max)
            ),
        );
    }
    body.push_str("</table>");
    for (at, run) in report.runs.iter().enumerate() {
        push(&mut body, format_args!("<h2>Run {}</h2>", at + 1));
        push(&mut body, format_args!("<p>{}</p>", escaped(&remarks(run))));
        body.push_str("<div class=plots>");
        body.push_str(&rates(run).svg());
        body.push_str(&percentiles(run).svg());
        body.push_str("</div>");
    }
    body.push_str("<h2>Settings</h2><table>");
    for (name, value) in &report.settings {
        push(
            &mut body,
            format_args!("<tr><td>{}<td>{}</tr>", escaped(name), escaped(value)),
        );
    }
    body.push_str("</table>");
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>{}</title><style>{STYLE}</style>\
         <body>{body}</body></html>\n",
        escaped(&title)
    )
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;\
padding:0 1rem}table{border-collapse:collapse}td,th{padding:.15rem .8rem;text-align:right;\
border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}\
.plots{display:flex;flex-wrap:wrap;gap:1rem}svg{font:12px system-ui,sans-serif}";

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a String takes every write");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// What the table does not say.
fn remarks(run: &Figures) -> String {
    let mut text = format!(
        "{} of {} events accepted in {} s; generator CPU {} s",
        run.events_accepted,
        run.events_attempted,
        figure(run.intake_seconds),
        figure(run.generator_cpu_seconds)
    );
    if let Some(delivery) = &run.delivery {
        push(
            &mut text,
            format_args!(
                "; {} calls counted at {} in {} s{}",
                delivery.delivered,
                delivery.sink,
                figure(delivery.seconds),
                if delivery.drained {
                    ""
                } else {
                    ", backlog not drained"
                }
            ),
        );
    }
    for (code, count) in &run.refused {
        push(&mut text, format_args!("; {count} refused with {code}"));
    }
    for error in &run.broken_connections {
        push(&mut text, format_args!("; a connection broke: {error}"));
    }
    text
}

/// Events a second over time.
fn rates(run: &Figures) -> Plot {
    let rate = |of: fn(&Sample) -> u64| {
        run.timeline
            .windows(2)
            .filter(|pair| pair[1].at_ms > pair[0].at_ms)
            .map(|pair| {
                let seconds = (pair[1].at_ms - pair[0].at_ms) as f64 / 1000.0;
                let count = of(&pair[1]).saturating_sub(of(&pair[0])) as f64;
                (pair[1].at_ms as f64 / 1000.0, count / seconds)
            })
            .collect()
    };
    let mut lines = vec![Line {
        name: "acknowledged/s",
        colour: "#2563eb",
        points: rate(|sample| sample.acked),
    }];
    if run.delivery.is_some() {
        lines.push(Line {
            name: "delivered/s",
            colour: "#d97706",
            points: rate(|sample| sample.delivered),
        });
    }
    Plot {
        title: "Rate over time",
        x_label: |x| format!("{x:.1} s"),
        y_label: figure,
        lines,
    }
}

/// Latency by percentile, both axes logarithmic: p90 lies at 1, p99 at 2.
fn percentiles(run: &Figures) -> Plot {
    let histogram = &run.ack_latency.histogram;
    let total: u64 = histogram.iter().map(|(_, count)| count).sum();
    let mut below = 0;
    let points = histogram
        .iter()
        .map(|&(us, count)| {
            // The share of events at least this slow.
            let slower = 1.0 - below as f64 / total as f64;
            below += count;
            (-slower.log10(), (us as f64 / 1000.0).log10())
        })
        .collect();
    Plot {
        title: "Ack latency by percentile",
        x_label: |x| format!("p{}", (100.0 - 10f64.powf(2.0 - x)).max(0.0)),
        y_label: |y| format!("{} ms", figure(10f64.powf(y))),
        lines: vec![Line {
            name: "ack latency",
            colour: "#2563eb",
            points,
        }],
    }
}

struct Plot {
    title: &'static str,
    x_label: fn(f64) -> String,
    y_label: fn(f64) -> String,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 40.0;
const GRID_LINES: u32 = 4;

impl Plot {
    fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (x_min, x_max) = bounds(points().map(|point| point.0));
        let (y_min, y_max) = bounds(points().map(|point| point.1));
        let y_min = if y_min > 0.0 { 0.0 } else { y_min };
        let x_at = |x: f64| LEFT + (x - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);
        let y_at =
            |y: f64| HEIGHT - BOTTOM - (y - y_min) / (y_max - y_min) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width={WIDTH} height={HEIGHT} role=img \
             aria-label='{title}'><text x={LEFT} y=18 font-weight=bold>{title}</text>",
            title = self.title
        );
        for step in 0..=GRID_LINES {
            let share = f64::from(step) / f64::from(GRID_LINES);
            let (x, y) = (
                x_min + share * (x_max - x_min),
                y_min + share * (y_max - y_min),
            );
            push(
                &mut svg,
                format_args!(
                    "<path d='M{LEFT:.0} {at:.1}H{end:.0}' stroke='#ddd'/>\
                     <text x={label:.0} y={at:.1} text-anchor=end dy=4>{y}</text>\
                     <text x={x_at:.1} y={foot:.0} text-anchor=middle>{x}</text>",
                    at = y_at(y),
                    end = WIDTH - RIGHT,
                    label = LEFT - 6.0,
                    y = escaped(&(self.y_label)(y)),
                    x_at = x_at(x),
                    foot = HEIGHT - BOTTOM + 18.0,
                    x = escaped(&(self.x_label)(x)),
                ),
            );
        }
        for (at, line) in self.lines.iter().enumerate() {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|&(x, y)| format!("{:.1} {:.1}", x_at(x), y_at(y)))
                .collect();
            if !path.is_empty() {
                push(
                    &mut svg,
                    format_args!(
                        "<path d='M{}' fill=none stroke='{}' stroke-width=1.5 />",
                        path.join("L"),
                        line.colour
                    ),
                );
            }
            push(
                &mut svg,
                format_args!(
                    "<text x={} y={:.0} text-anchor=end fill='{}'>{}</text>",
                    WIDTH - RIGHT,
                    18.0 + 14.0 * at as f64,
                    line.colour,
                    line.name
                ),
            );
        }
        svg.push_str("</svg>");
        svg
    }
}

/// Least and most, never the same.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.filter(|value| value.is_finite()).fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), value| (least.min(value), most.max(value)),
    );
    if least > most {
        (0.0, 1.0)
    } else if least == most {
        (least, least + 1.0)
    } else {
        (least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_shows_every_run() {
        let page = page(&report(&[10.0, 20.0]));
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("Run 2") && page.contains("delivered/s"));
        assert!(page.contains("abc&lt;def"));
        for outside in ["<script", "<link", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf "));
    }

    #[test]
    fn a_run_without_answers_has_empty_plots() {
        let mut empty = report(&[0.0]);
        empty.runs[0].ack_latency.histogram.clear();
        empty.runs[0].timeline.clear();
        assert!(!page(&empty).contains("NaN"));
    }
}
