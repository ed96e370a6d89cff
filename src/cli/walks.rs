//! `syncline backfill`, `syncline reconcile`: walks through all records of an object.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Api, ApiArguments, encoded};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};
use super::table::shown;

/// Loads an object's records for the first time, beside live changes, which win
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline backfill --provider crm --object contact --share 0.3")]
pub(crate) struct BackfillArguments {
    #[command(flatten)]
    walk: WalkArguments,
}

/// Compares both sides of an object; repairs differences only if told
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  syncline reconcile --provider crm --object contact\n  syncline reconcile --provider crm --object contact --repair --limit 500"
)]
pub(crate) struct ReconcileArguments {
    #[command(flatten)]
    walk: WalkArguments,
    /// Compares this part of the records only, 0 to 1
    #[arg(long, value_name = "PART")]
    sample: Option<f64>,
    /// Only reports, which is the default
    #[arg(long, conflicts_with = "repair")]
    dry_run: bool,
    /// Repairs what differs
    #[arg(long)]
    repair: bool,
    /// Repairs at most so many records
    #[arg(long, value_name = "N", requires = "repair")]
    limit: Option<u64>,
    /// Deletes nothing if a larger part of the linked records is absent at the account, 0 to 1
    #[arg(long, value_name = "PART", requires = "repair")]
    absent_max: Option<f64>,
}

#[derive(Debug, clap::Args)]
struct WalkArguments {
    /// The account
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// The object
    #[arg(long, value_name = "NAME")]
    object: String,
    /// Makes calls only while less than this part of each of the account's limits is used, 0 to 1
    #[arg(long, value_name = "PART")]
    share: Option<f64>,
    /// Does not wait for the end
    #[arg(long)]
    detach: bool,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArguments,
}

/// How often a walk under way is looked at.
const WALK_PERIOD: Duration = Duration::from_millis(500);

pub(crate) fn backfill(arguments: &BackfillArguments) -> Exit {
    let walk = &arguments.walk;
    finish(|| walk.run("/v1/backfill", walk.request(), &mut io::stdout().lock()))
}

pub(crate) fn reconcile(arguments: &ReconcileArguments) -> Exit {
    let walk = &arguments.walk;
    finish(|| {
        walk.run(
            "/v1/reconcile",
            arguments.request(),
            &mut io::stdout().lock(),
        )
    })
}

impl ReconcileArguments {
    fn request(&self) -> Value {
        let mut request = self.walk.request();
        request["repair"] = self.repair.into();
        for (name, part) in [("sample", self.sample), ("absent_max", self.absent_max)] {
            if let Some(part) = part {
                request[name] = part.into();
            }
        }
        if let Some(limit) = self.limit {
            request["limit"] = limit.into();
        }
        request
    }
}

impl WalkArguments {
    fn request(&self) -> Value {
        let mut request = json!({"provider": self.provider, "object": self.object});
        if let Some(share) = self.share {
            request["share"] = share.into();
        }
        request
    }

    fn run(&self, path: &str, request: Value, out: &mut impl Write) -> Result<Exit, Failure> {
        let api = self.api.api()?;
        self.walk(&api, path, &request, out)
    }

    fn walk(
        &self,
        api: &Api,
        path: &str,
        request: &Value,
        out: &mut impl Write,
    ) -> Result<Exit, Failure> {
        let mut walk = api.post(path, request)?;
        let id = walk["id"].as_str().unwrap_or_default();
        let path = format!("/v1/walks/{}", encoded(id));
        let mut told = String::new();
        while walk["state"] == "running" && !self.detach {
            // To stderr: what a script reads is the end alone.
            let progress = progress(&walk);
            if progress != told && !self.json {
                eprintln!("{progress}");
                told = progress;
            }
            std::thread::sleep(WALK_PERIOD);
            walk = api.get(&path)?;
        }
        if self.json {
            print_json(out, &walk)?;
        } else {
            report(&walk, out)?;
        }
        Ok(match walk["state"].as_str() {
            Some("failed") => Exit::TryLater,
            _ => Exit::Ok,
        })
    }
}

fn progress(walk: &Value) -> String {
    let [phase, listed, rows, taken] =
        ["phase", "listed", "rows", "taken"].map(|name| shown(&walk[name]));
    let waits = walk["waits_for"].as_str();
    let waits = waits.map_or(String::new(), |why| format!("; waits: {why}"));
    format!("{phase}: {listed} listed, {rows} rows, {taken} taken{waits}")
}

fn report(walk: &Value, out: &mut impl Write) -> io::Result<()> {
    let [id, state] = ["id", "state"].map(|name| shown(&walk[name]));
    writeln!(out, "{id} {state}, {}", progress(walk))?;
    if let Some(report) = walk["report"].as_object() {
        for cause in [
            "equal",
            "missing_here",
            "missing_there",
            "unlinked",
            "missing_row",
            "differs",
            "waits",
            "held",
            "repaired",
        ] {
            let count = report.get(cause).and_then(Value::as_u64).unwrap_or(0);
            writeln!(out, "  {cause:<14}{count}")?;
        }
        for (field, count) in report["fields"].as_object().into_iter().flatten() {
            writeln!(out, "  field {field}: {}", shown(count))?;
        }
    }
    if !walk["detail"].is_null() {
        writeln!(out, "{}", shown(&walk["detail"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::client::canned;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: ReconcileArguments,
    }

    fn parse(more: &[&str]) -> ReconcileArguments {
        let line = [
            &["reconcile", "--provider", "crm", "--object", "contact"],
            more,
        ]
        .concat();
        Line::try_parse_from(line).unwrap().arguments
    }

    #[test]
    fn a_reconcile_is_followed_to_its_end_and_told_by_cause_and_field() {
        let arguments = parse(&["--repair", "--limit", "5", "--sample", "0.1"]);
        let running = json!({"id": "w1", "state": "running", "phase": "listing", "listed": 0,
            "rows": 0, "taken": 0, "detail": null});
        let done = json!({"id": "w1", "state": "done", "phase": "rows", "listed": 9, "rows": 0,
            "taken": 2, "detail": "a note", "report": {"equal": 7, "differs": 2, "repaired": 2,
            "fields": {"/email": 2}}});
        let (api, requests) = canned::node(vec![(202, running), (200, done)]);
        let mut out = Vec::new();
        let walk = &arguments.walk;
        let exit = walk.walk(&api, "/v1/reconcile", &arguments.request(), &mut out);
        assert_eq!(exit.unwrap(), Exit::Ok);
        let out = String::from_utf8(out).unwrap();
        for line in [
            "w1 done, rows: 9 listed, 0 rows, 2 taken",
            "  equal         7",
            "  differs       2",
            "  field /email: 2",
            "a note",
        ] {
            assert!(out.lines().any(|told| told == line), "{line}: {out}");
        }
        assert_eq!(
            requests.join().unwrap(),
            [
                r#"POST /v1/reconcile {"provider":"crm","object":"contact","repair":true,"sample":0.1,"limit":5}"#,
                "GET /v1/walks/w1",
            ]
        );
    }

    #[test]
    fn a_walk_that_waits_says_for_what() {
        let walk = json!({"phase": "listing", "listed": 3, "rows": 0, "taken": 2,
            "waits_for": "others use it"});
        assert_eq!(
            progress(&walk),
            "listing: 3 listed, 0 rows, 2 taken; waits: others use it"
        );
    }

    #[test]
    fn nothing_is_repaired_unless_it_is_asked_for() {
        assert_eq!(parse(&[]).request()["repair"], false);
        assert_eq!(parse(&["--dry-run"]).request()["repair"], false);
        for wrong in [&["--limit", "5"][..], &["--dry-run", "--repair"]] {
            let line = [&["x", "--provider", "crm", "--object", "contact"], wrong].concat();
            assert!(Line::try_parse_from(line).is_err(), "{wrong:?}");
        }
    }
}
