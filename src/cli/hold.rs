//! `syncline pause` and `syncline resume`: holds calls, keeps the queue.

use std::io::{self, Write};

use serde_json::json;

use super::client::{Api, ApiArguments};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};

/// Holds calls; what is queued stays, and events are still taken
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline pause --provider crm")]
pub(crate) struct PauseArguments {
    #[command(flatten)]
    hold: Hold,
}

/// Lets calls go that `pause` holds
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline resume --provider crm")]
pub(crate) struct ResumeArguments {
    #[command(flatten)]
    hold: Hold,
}

#[derive(Debug, clap::Args)]
struct Hold {
    /// Of this account
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Of this object
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// Of this record
    #[arg(long = "record", value_name = "RECORD_ID")]
    record_id: Option<String>,
    /// Of everything
    #[arg(long, conflicts_with_all = ["provider", "object", "record_id"])]
    all: bool,
    /// Prints the API's answer as it is
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArguments,
}

pub(crate) fn pause(arguments: &PauseArguments) -> Exit {
    let hold = &arguments.hold;
    finish(|| {
        hold.ask(
            "/v1/pause",
            "held",
            &hold.api.api()?,
            &mut io::stdout().lock(),
        )
    })
}

pub(crate) fn resume(arguments: &ResumeArguments) -> Exit {
    let hold = &arguments.hold;
    finish(|| {
        hold.ask(
            "/v1/resume",
            "let go",
            &hold.api.api()?,
            &mut io::stdout().lock(),
        )
    })
}

impl Hold {
    fn ask(
        &self,
        path: &str,
        done: &str,
        api: &Api,
        out: &mut impl Write,
    ) -> Result<Exit, Failure> {
        let named = [
            ("provider", &self.provider),
            ("object", &self.object),
            ("record_id", &self.record_id),
        ];
        let mut request = json!({});
        for (member, value) in named {
            if let Some(value) = value {
                request[member] = value.as_str().into();
            }
        }
        let is_everything = request.as_object().is_none_or(serde_json::Map::is_empty);
        if is_everything && !self.all {
            return Err(Failure::Usage(
                "name what is meant, or --all for everything",
            ));
        }
        let answer = api.post(path, &request)?;
        if self.json {
            print_json(out, &answer)?;
        } else if is_everything {
            writeln!(out, "{done}: everything")?;
        } else {
            let parts = named.iter().filter_map(|(member, value)| {
                value.as_ref().map(|value| format!("{member} {value:?}"))
            });
            writeln!(out, "{done}: {}", parts.collect::<Vec<_>>().join(", "))?;
        }
        Ok(Exit::Ok)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::client::canned;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        hold: Hold,
    }

    #[test]
    fn what_is_named_is_asked_for() {
        let (api, requests) = canned::node(vec![(200, json!({"paused": true}))]);
        let line = Line::parse_from(["pause", "--provider", "crm", "--record", "c-1"]);
        let mut out = Vec::new();
        line.hold.ask("/v1/pause", "held", &api, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "held: provider \"crm\", record_id \"c-1\"\n"
        );
        assert_eq!(
            requests.join().unwrap(),
            [r#"POST /v1/pause {"provider":"crm","record_id":"c-1"}"#]
        );
    }

    #[test]
    fn everything_is_meant_only_when_said() {
        let (api, requests) = canned::node(Vec::new());
        let line = Line::parse_from(["pause"]);
        let refused = line.hold.ask("/v1/pause", "held", &api, &mut Vec::new());
        assert!(matches!(refused, Err(Failure::Usage(_))));
        assert!(requests.join().unwrap().is_empty());
        assert!(Line::try_parse_from(["pause", "--all", "--provider", "crm"]).is_err());
    }
}
