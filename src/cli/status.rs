//! `syncline status`: where a record stands.

use std::io::{self, Write};

use serde_json::Value;

use super::client::{Api, ApiArguments, encoded, with_query};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};
use super::table::{Table, shown};

/// Shows where a record stands at each provider
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline status c-42 --object contact")]
pub(crate) struct Arguments {
    /// The record's id in your system
    record_id: String,
    /// The record's object, when several have this id
    #[arg(long)]
    object: Option<String>,
    /// Prints the API's answer as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    finish(|| show(arguments, &arguments.api.api()?, &mut io::stdout().lock()))
}

fn show(arguments: &Arguments, api: &Api, out: &mut impl Write) -> Result<Exit, Failure> {
    let path = format!("/v1/sync/status/{}", encoded(&arguments.record_id));
    let record = api.get(&with_query(
        &path,
        &[("object", arguments.object.as_deref())],
    ))?;
    if arguments.json {
        print_json(out, &record)?;
    } else {
        print_record(out, &record)?;
    }
    Ok(Exit::Ok)
}

fn print_record(out: &mut impl Write, record: &Value) -> io::Result<()> {
    writeln!(
        out,
        "{} {}",
        shown(&record["object"]),
        shown(&record["record_id"])
    )?;
    let columns = [
        "provider",
        "state",
        "reason",
        "attempts",
        "remote_id",
        "updated_at",
        "operation_id",
    ];
    let mut table = Table::new(
        &columns
            .map(|column| column.to_ascii_uppercase())
            .each_ref()
            .map(String::as_str),
    );
    for target in record["providers"].as_array().into_iter().flatten() {
        table.row(&columns.map(|column| &target[column]));
    }
    table.write(out)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::client::canned;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn a_record_is_shown_with_each_provider() {
        let answer = json!({"record_id": "c/1", "object": "contact", "providers": [{
            "provider": "crm", "state": "synced", "operation_id": "op1", "attempts": 1,
            "reason": null, "remote_id": "003", "updated_at": "2026-11-20T10:00:00.000Z"}]});
        let (api, requests) = canned::node(vec![(200, answer)]);
        let line = Line::parse_from(["status", "c/1", "--object", "contact"]);
        let mut out = Vec::new();
        assert_eq!(show(&line.arguments, &api, &mut out).unwrap(), Exit::Ok);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("contact c/1\nPROVIDER  STATE   REASON  ATTEMPTS"),
            "{text}"
        );
        assert!(
            text.contains("crm       synced  -       1         003"),
            "{text}"
        );
        assert_eq!(
            requests.join().unwrap(),
            ["GET /v1/sync/status/c%2F1?object=contact"]
        );
    }
}
