//! `syncline providers`: the accounts of a running node, and provider definitions.

mod definitions;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Api, ApiArguments, encoded};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};
use super::table::{Table, shown};

/// Shows the accounts of a running node; checks provider definitions
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline providers show crm\n  \
    syncline providers lint my-crm.toml")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists accounts and how each is doing
    #[command(after_help = "Example:\n  syncline providers list")]
    List {
        /// Lists the definitions that come with this version instead; needs no node
        #[arg(long)]
        definitions: bool,
        /// Prints JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Shows one account: its limits, its queue, its breaker
    #[command(after_help = "Example:\n  syncline providers show crm --json")]
    Show {
        /// The account's name
        name: String,
        /// Prints the definition of that name instead; needs no node
        #[arg(long)]
        definition: bool,
        /// Prints the API's answer as it is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Checks a provider definition, offline
    #[command(after_help = "Example:\n  syncline providers lint my-crm.toml\n\n\
        Exits with 0 when there is no fault, with 65 when there is.")]
    Lint {
        /// The definition's file
        file: PathBuf,
        /// Prints the findings as JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints the JSON Schema of provider definitions, for editors
    #[command(after_help = "Example:\n  syncline providers schema > definition.schema.json")]
    Schema,
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let mut out = io::stdout().lock();
    finish(|| match &arguments.action {
        Action::List {
            definitions: true,
            json,
            ..
        } => definitions::list(*json, &mut out),
        Action::List { json, api, .. } => list(*json, &api.api()?, &mut out),
        Action::Show {
            name,
            definition: true,
            ..
        } => definitions::show(name, &mut out),
        Action::Show {
            name, json, api, ..
        } => show(name, *json, &api.api()?, &mut out),
        Action::Lint { file, json } => definitions::lint(file, *json, &mut out),
        Action::Schema => definitions::schema(&mut out),
    })
}

fn list(as_json: bool, api: &Api, out: &mut impl Write) -> Result<Exit, Failure> {
    let accounts = api.get("/v1/providers")?;
    let mut statuses = Vec::new();
    for account in accounts["providers"].as_array().into_iter().flatten() {
        let name = account["name"].as_str().unwrap_or_default();
        statuses.push(api.get(&format!("/v1/providers/{}/status", encoded(name)))?);
    }
    if as_json {
        print_json(out, &json!({ "providers": statuses }))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[
        "NAME",
        "TYPE",
        "PAUSED",
        "BREAKER",
        "TOKEN",
        "QUEUED",
        "DEAD LETTERS",
    ]);
    let columns = [
        "name",
        "type",
        "paused",
        "breaker",
        "token",
        "queue_depth",
        "dead_letters",
    ];
    for status in &statuses {
        table.row(&columns.map(|column| &status[column]));
    }
    table.write(out)?;
    Ok(Exit::Ok)
}

fn show(name: &str, as_json: bool, api: &Api, out: &mut impl Write) -> Result<Exit, Failure> {
    let status = api.get(&format!("/v1/providers/{}/status", encoded(name)))?;
    if as_json {
        print_json(out, &status)?;
        return Ok(Exit::Ok);
    }
    for member in [
        "name",
        "type",
        "paused",
        "breaker",
        "token",
        "queue_depth",
        "dead_letters",
    ] {
        writeln!(out, "{member:14}{}", shown(&status[member]))?;
    }
    let mut table = Table::new(&["LIMIT", "ALLOWED", "USED", "LEFT", "WINDOW MS"]);
    let limits: Vec<&Value> = status["limits"].as_array().into_iter().flatten().collect();
    for limit in &limits {
        table.row(&["name", "limit", "used", "left", "window_ms"].map(|column| &limit[column]));
    }
    if !limits.is_empty() {
        writeln!(out)?;
        table.write(out)?;
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::super::client::canned;
    use super::*;

    #[test]
    fn a_list_shows_how_each_account_is_doing() {
        let status = json!({"name": "crm", "type": "rest", "paused": false, "breaker": "open",
            "token": "valid", "queue_depth": 7, "dead_letters": 0,
            "limits": [{"name": "burst", "limit": 100, "used": 25, "left": 75, "window_ms": 1000}]});
        let (api, requests) = canned::node(vec![
            (200, json!({"providers": [{"name": "crm"}]})),
            (200, status.clone()),
            (200, status),
        ]);
        let mut out = Vec::new();
        list(false, &api, &mut out).unwrap();
        show("crm", false, &api, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("crm   rest  false   open     valid  7       0\n"),
            "{text}"
        );
        assert!(
            text.contains("burst  100      25    75    1000\n"),
            "{text}"
        );
        assert_eq!(requests.join().unwrap()[1], "GET /v1/providers/crm/status");
    }
}
