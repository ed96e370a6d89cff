//! `syncline explain`: the one reason why a record waits.

use std::io::{self, Write};

use serde_json::Value;

use super::client::{Api, ApiArguments, encoded, with_query};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};
use super::table::shown;

/// Tells why a record waits, its place in the queue and its expected time
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline explain c-42 --object contact")]
pub(crate) struct Arguments {
    /// The record's id in your system
    record_id: String,
    /// The record's object, when several have this id
    #[arg(long)]
    object: Option<String>,
    /// At this account only
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
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
    let path = format!("/v1/explain/{}", encoded(&arguments.record_id));
    let record = api.get(&with_query(
        &path,
        &[
            ("object", arguments.object.as_deref()),
            ("provider", arguments.provider.as_deref()),
        ],
    ))?;
    if arguments.json {
        print_json(out, &record)?;
        return Ok(Exit::Ok);
    }
    for target in record["providers"].as_array().into_iter().flatten() {
        explain(out, target)?;
    }
    Ok(Exit::Ok)
}

fn explain(out: &mut impl Write, target: &Value) -> io::Result<()> {
    let [provider, state, detail] = ["provider", "state", "detail"].map(|name| &target[name]);
    write!(out, "{}: {}", shown(provider), shown(state))?;
    if !target["reason"].is_null() {
        write!(out, " ({})", shown(&target["reason"]))?;
    }
    writeln!(out, ": {}", shown(detail))?;
    for (member, words) in [
        ("since", "since"),
        ("until", "not before"),
        ("ahead", "ahead of it, about"),
        ("expected_at", "expected at"),
    ] {
        if !target[member].is_null() {
            writeln!(out, "  {words} {}", shown(&target[member]))?;
        }
    }
    Ok(())
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
    fn the_reason_comes_first_and_what_is_not_known_is_left_out() {
        let answer = json!({"record_id": "c/1", "object": "contact", "providers": [{
            "provider": "crm", "state": "waiting", "reason": "quota",
            "detail": "the account's limit \"burst\" is used up",
            "since": "2026-11-20T10:00:00.000Z", "until": null, "ahead": 7,
            "expected_at": null}]});
        let (api, requests) = canned::node(vec![(200, answer)]);
        let line = Line::parse_from(["explain", "c/1", "--provider", "crm"]);
        let mut out = Vec::new();
        assert_eq!(show(&line.arguments, &api, &mut out).unwrap(), Exit::Ok);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "crm: waiting (quota): the account's limit \"burst\" is used up\n  \
             since 2026-11-20T10:00:00.000Z\n  ahead of it, about 7\n"
        );
        assert_eq!(
            requests.join().unwrap(),
            ["GET /v1/explain/c%2F1?provider=crm"]
        );
    }
}
