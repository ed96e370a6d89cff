//! `syncline replay`: sends what was changed in a span of time once more.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Api, ApiArguments, encoded};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};
use super::table::shown;

/// Sends the current state of the records changed in a span of time; counts them first
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  syncline replay --provider crm --from 2026-11-20T10:00:00Z --to 2026-11-20T12:00:00Z"
)]
pub(crate) struct Arguments {
    /// To this account
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// Changes taken from this instant on
    #[arg(long, value_name = "T")]
    from: String,
    /// Up to and without this one
    #[arg(long, value_name = "T")]
    to: String,
    /// Of this object only
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// At most so many records a second
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Counts, and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArguments,
}

/// How often a replay under way is looked at.
const JOB_PERIOD: Duration = Duration::from_millis(200);

pub(crate) fn run(arguments: &Arguments) -> Exit {
    finish(|| {
        let api = arguments.api.api()?;
        arguments.replay(&api, ask_person, &mut io::stdout().lock())
    })
}

impl Arguments {
    /// `confirm` is asked with a question, and may not know.
    fn replay(
        &self,
        api: &Api,
        confirm: impl FnOnce(&str) -> io::Result<Option<bool>>,
        out: &mut impl Write,
    ) -> Result<Exit, Failure> {
        let mut request = json!({"provider": self.provider, "from": self.from, "to": self.to});
        if let Some(object) = &self.object {
            request["object"] = object.as_str().into();
        }
        let mut counting = request.clone();
        counting["dry_run"] = true.into();
        let counted = api.post("/v1/replay", &counting)?;
        let matched = counted["matched"].as_u64().unwrap_or(0);
        let go = matched > 0 && !self.dry_run && (self.yes || self.agreed(matched, confirm)?);
        if !go {
            return self.report(&counted, out);
        }
        if let Some(rate) = self.rate {
            request["rate"] = rate.into();
        }
        let mut job = api.post("/v1/replay", &request)?;
        let path = format!(
            "/v1/replay/{}",
            encoded(job["id"].as_str().unwrap_or_default())
        );
        while job["state"] == "running" {
            std::thread::sleep(JOB_PERIOD);
            job = api.get(&path)?;
        }
        self.report(&job, out)?;
        Ok(if job["state"] == "failed" {
            Exit::TryLater
        } else {
            Exit::Ok
        })
    }

    fn agreed(
        &self,
        matched: u64,
        confirm: impl FnOnce(&str) -> io::Result<Option<bool>>,
    ) -> Result<bool, Failure> {
        let question = format!("send {matched} records to {} again?", self.provider);
        confirm(&question)?.ok_or(Failure::Usage("nobody to ask here; add --yes"))
    }

    fn report(&self, answer: &Value, out: &mut impl Write) -> Result<Exit, Failure> {
        if self.json {
            print_json(out, answer)?;
            return Ok(Exit::Ok);
        }
        let [matched, done, not_kept, detail] =
            ["matched", "done", "not_kept", "detail"].map(|name| &answer[name]);
        write!(out, "{} matched", shown(matched))?;
        if !done.is_null() {
            write!(out, ", {} sent again", shown(done))?;
        }
        writeln!(out)?;
        if not_kept.as_u64().is_some_and(|cut| cut > 0) {
            let cut = shown(not_kept);
            writeln!(out, "of {cut} records the log does not keep all of it")?;
        }
        if !detail.is_null() {
            writeln!(out, "{}", shown(detail))?;
        }
        Ok(Exit::Ok)
    }
}

/// `None` when nobody sits there.
fn ask_person(question: &str) -> io::Result<Option<bool>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim(), "y" | "Y" | "yes")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::client::canned;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn run_with(
        more: &[&str],
        answers: Vec<Value>,
    ) -> (Result<Exit, Failure>, String, Vec<String>) {
        let line = [
            &["replay", "--provider", "crm", "--from", "T1", "--to", "T2"],
            more,
        ]
        .concat();
        let answers = answers.into_iter().map(|answer| (200, answer)).collect();
        let (api, requests) = canned::node(answers);
        let mut out = Vec::new();
        let arguments = Line::parse_from(line).arguments;
        let result = arguments.replay(&api, |_| Ok(None), &mut out);
        let out = String::from_utf8(out).unwrap();
        (result, out, requests.join().unwrap())
    }

    #[test]
    fn a_replay_counts_first_and_is_followed_to_its_end() {
        let answers = vec![
            json!({"matched": 3, "not_kept": 0}),
            json!({"id": "j1", "state": "running", "matched": 0, "done": 0}),
            json!({"id": "j1", "state": "done", "matched": 3, "done": 2, "detail": null}),
        ];
        let (result, out, requests) = run_with(&["--yes", "--rate", "5"], answers);
        assert_eq!(result.unwrap(), Exit::Ok);
        assert_eq!(out, "3 matched, 2 sent again\n");
        assert_eq!(
            requests,
            [
                r#"POST /v1/replay {"provider":"crm","from":"T1","to":"T2","dry_run":true}"#,
                r#"POST /v1/replay {"provider":"crm","from":"T1","to":"T2","rate":5}"#,
                "GET /v1/replay/j1",
            ]
        );
    }

    #[test]
    fn nothing_is_sent_without_a_yes() {
        let (result, ..) = run_with(&[], vec![json!({"matched": 3, "not_kept": 0})]);
        assert!(matches!(result, Err(Failure::Usage(_))));
        let counted = vec![json!({"matched": 3, "not_kept": 2})];
        let (result, out, requests) = run_with(&["--dry-run"], counted);
        assert_eq!(result.unwrap(), Exit::Ok);
        assert_eq!(
            out,
            "3 matched\nof 2 records the log does not keep all of it\n"
        );
        assert_eq!(requests.len(), 1);
    }
}
