//! `syncline dlq`: dead letters, by filter, counted before anything is done to them.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::client::{Api, ApiArguments, ApiError, encoded, with_query};
use super::exit::Exit;
use super::outcome::{Failure, finish, print_json};
use super::table::{Table, shown};

/// Lists, shows, edits, retries and drops dead letters
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  syncline dlq retry --provider crm --code permanent")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists dead letters, the oldest first
    #[command(after_help = "Example:\n  syncline dlq list --provider crm --limit 20")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// Shows at most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        /// Counts them by what they died of instead
        #[arg(long)]
        group: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Shows one dead letter
    #[command(after_help = "Example:\n  syncline dlq show 01jd3k0s2m")]
    Show {
        /// Its id
        id: String,
        /// Prints the API's answer as it is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Gives one other data, as an event of your system would have it
    #[command(
        after_help = "Example:\n  syncline dlq edit 01jd3k0s2m@crm --data '{\"email\":\"a@b.c\"}' --retry"
    )]
    Edit {
        /// Its id
        id: String,
        /// The whole of its data: a JSON object, or - to read it from standard input
        #[arg(long, value_name = "JSON")]
        data: String,
        /// Queues it again at once
        #[arg(long)]
        retry: bool,
        /// Prints the API's answer as it is
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Queues dead letters again
    #[command(after_help = "Example:\n  syncline dlq retry --provider crm --yes")]
    Retry {
        #[command(flatten)]
        change: Change,
        /// At most so many a second
        #[arg(long, value_name = "N")]
        rate: Option<u32>,
    },
    /// Ends dead letters as dropped; they are not delivered
    #[command(after_help = "Example:\n  syncline dlq drop --code record_deleted --yes")]
    Drop(Change),
}

#[derive(Debug, clap::Args)]
struct Change {
    #[command(flatten)]
    filter: Filter,
    /// Means every dead letter when no filter is given
    #[arg(long)]
    all: bool,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    /// Counts, and does nothing
    #[arg(long)]
    dry_run: bool,
    /// Prints the result as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArguments,
}

#[derive(Debug, clap::Args)]
struct Filter {
    /// Of this account
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Of this object
    #[arg(long, value_name = "NAME")]
    object: Option<String>,
    /// That failed for this reason
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Of this record
    #[arg(long = "record", value_name = "RECORD_ID")]
    record_id: Option<String>,
    /// That failed in these words; see list --group
    #[arg(long, value_name = "TEXT")]
    signature: Option<String>,
}

/// Items the API gives at once, at most.
const PAGE_MAX: usize = 1000;
/// How often a redrive under way is looked at.
const JOB_PERIOD: Duration = Duration::from_millis(200);

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let mut out = io::stdout().lock();
    finish(|| match &arguments.action {
        Action::List {
            filter,
            limit,
            group,
            json,
            api,
        } => {
            if *group {
                groups(filter, *json, &api.api()?, &mut out)
            } else {
                list(filter, *limit, *json, &api.api()?, &mut out)
            }
        }
        Action::Show { id, json, api } => show(id, *json, &api.api()?, &mut out),
        Action::Edit {
            id,
            data,
            retry,
            json,
            api,
        } => edit(id, data, *retry, *json, &api.api()?, &mut out),
        Action::Retry { change, rate } => {
            let verb = Verb::Retry { rate: *rate };
            change.run(verb, &change.api.api()?, ask_person, &mut out)
        }
        Action::Drop(change) => change.run(Verb::Drop, &change.api.api()?, ask_person, &mut out),
    })
}

fn list(
    filter: &Filter,
    limit: usize,
    json: bool,
    api: &Api,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let columns = [
        "id",
        "record_id",
        "object",
        "provider",
        "code",
        "attempts",
        "dead_at",
        "detail",
    ];
    let mut table = Table::new(&[
        "ID", "RECORD", "OBJECT", "PROVIDER", "CODE", "ATTEMPTS", "DEAD AT", "DETAIL",
    ]);
    let mut left = limit;
    let mut after = None;
    while left > 0 {
        let page = page(filter, left.min(PAGE_MAX), after.as_deref(), api)?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        for item in &items {
            if json {
                print_json(out, item)?;
            } else {
                table.row(&columns.map(|column| &item[column]));
            }
        }
        left = left.saturating_sub(items.len());
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || items.is_empty() {
            break;
        }
    }
    if !json {
        table.write(out)?;
        if after.is_some() {
            writeln!(out, "there are more; see --limit")?;
        }
    }
    Ok(Exit::Ok)
}

fn groups(filter: &Filter, json: bool, api: &Api, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut members = filter.pairs().to_vec();
    members.push(("group", Some("signature")));
    let answer = api.get(&with_query("/v1/dlq", &members))?;
    if json {
        print_json(out, &answer)?;
        return Ok(Exit::Ok);
    }
    let columns = ["count", "provider", "object", "code", "newest", "signature"];
    let mut table = Table::new(&["COUNT", "PROVIDER", "OBJECT", "CODE", "NEWEST", "SIGNATURE"]);
    for group in answer["groups"].as_array().into_iter().flatten() {
        table.row(&columns.map(|column| &group[column]));
    }
    table.write(out)?;
    Ok(Exit::Ok)
}

fn show(id: &str, json: bool, api: &Api, out: &mut impl Write) -> Result<Exit, Failure> {
    let dead_letter = api.get(&format!("/v1/dlq/{}", encoded(id)))?;
    print_letter(&dead_letter, json, out)
}

fn edit(
    id: &str,
    data: &str,
    retry: bool,
    json: bool,
    api: &Api,
    out: &mut impl Write,
) -> Result<Exit, Failure> {
    let text = if data == "-" {
        io::read_to_string(io::stdin().lock())?
    } else {
        data.to_owned()
    };
    // As text, so that numbers arrive digit for digit.
    let Ok(data) = serde_json::value::RawValue::from_string(text.trim().to_owned()) else {
        return Err(Failure::Usage("the data is not JSON"));
    };
    let path = format!("/v1/dlq/{}", encoded(id));
    let edited = api.patch(&path, &format!(r#"{{"data":{data},"retry":{retry}}}"#))?;
    print_letter(&edited, json, out)
}

/// A letter's members, its attempts a line each.
fn print_letter(letter: &Value, json: bool, out: &mut impl Write) -> Result<Exit, Failure> {
    if json {
        print_json(out, letter)?;
        return Ok(Exit::Ok);
    }
    for (member, value) in letter.as_object().into_iter().flatten() {
        match value.as_array() {
            Some(attempts) => {
                for attempt in attempts {
                    let [at, status, class, detail] =
                        ["at", "status", "class", "detail"].map(|name| shown(&attempt[name]));
                    writeln!(out, "  {at} {status} {class} {detail}")?;
                }
            }
            None => writeln!(out, "{member:17}{}", shown(value))?,
        }
    }
    Ok(Exit::Ok)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// At most so many a second.
    Retry {
        rate: Option<u32>,
    },
    Drop,
}

impl Verb {
    fn imperative(self) -> &'static str {
        match self {
            Verb::Retry { .. } => "retry",
            Verb::Drop => "drop",
        }
    }

    /// The member of the answer that counts what was done.
    fn participle(self) -> &'static str {
        match self {
            Verb::Retry { .. } => "redriven",
            Verb::Drop => "dropped",
        }
    }
}

impl Change {
    /// `confirm` is asked with a question, and may not know.
    fn run(
        &self,
        verb: Verb,
        api: &Api,
        confirm: impl FnOnce(&str) -> io::Result<Option<bool>>,
        out: &mut impl Write,
    ) -> Result<Exit, Failure> {
        if self.filter.members().is_empty() && !self.all {
            return Err(Failure::Usage(
                "name a filter, or --all for every dead letter",
            ));
        }
        let counted = api.post(
            "/v1/dlq/retry",
            &json!({"filter": self.filter.members(), "dry_run": true}),
        )?;
        let matched = counted["matched"].as_u64().unwrap_or(0);
        if self.dry_run || matched == 0 {
            return self.report(verb, matched, 0, out);
        }
        if !self.yes {
            let question = format!("{} {matched} dead letters?", verb.imperative());
            match confirm(&question)? {
                Some(true) => {}
                Some(false) => return self.report(verb, matched, 0, out),
                None => return Err(Failure::Usage("nobody to ask here; add --yes")),
            }
        }
        let done = match verb {
            Verb::Retry { rate } => self.redrive(rate, api)?,
            Verb::Drop => self.drop_each(matched, api)?,
        };
        self.report(verb, matched, done, out)
    }

    /// Redrives, and stays until it is done.
    fn redrive(&self, rate: Option<u32>, api: &Api) -> Result<u64, ApiError> {
        let mut request = json!({ "filter": self.filter.members() });
        if let Some(rate) = rate {
            request["rate"] = rate.into();
        }
        let answer = api.post("/v1/dlq/retry", &request)?;
        let mut done = answer["redriven"].as_u64().unwrap_or(0);
        let mut state = answer["state"].clone();
        let job = answer["redrive"].as_str().unwrap_or_default();
        while state == "running" {
            std::thread::sleep(JOB_PERIOD);
            let job = api.get(&format!("/v1/dlq/redrives/{}", encoded(job)))?;
            done = job["done"].as_u64().unwrap_or(done);
            state = job["state"].clone();
        }
        Ok(done)
    }

    /// Drops page by page, never more than were counted: what died since was
    /// not agreed to.
    fn drop_each(&self, matched: u64, api: &Api) -> Result<u64, ApiError> {
        let mut dropped = 0;
        let mut after: Option<String> = None;
        while dropped < matched {
            let page = page(&self.filter, PAGE_MAX, after.as_deref(), api)?;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            for item in &items {
                if dropped == matched {
                    break;
                }
                let id = item["id"].as_str().unwrap_or_default();
                match api.delete(&format!("/v1/dlq/{}", encoded(id))) {
                    Ok(_) => dropped += 1,
                    // Retried or dropped by somebody else meanwhile.
                    Err(ApiError::Refused { status: 404, .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        Ok(dropped)
    }

    fn report(
        &self,
        verb: Verb,
        matched: u64,
        done: u64,
        out: &mut impl Write,
    ) -> Result<Exit, Failure> {
        if self.json {
            let mut answer = json!({ "matched": matched });
            answer[verb.participle()] = done.into();
            print_json(out, &answer)?;
        } else {
            writeln!(out, "{matched} matched, {done} {}", verb.participle())?;
        }
        Ok(Exit::Ok)
    }
}

impl Filter {
    fn members(&self) -> Map<String, Value> {
        self.pairs()
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))))
            .collect()
    }

    fn pairs(&self) -> [(&'static str, Option<&str>); 5] {
        [
            ("provider", self.provider.as_deref()),
            ("object", self.object.as_deref()),
            ("code", self.code.as_deref()),
            ("record_id", self.record_id.as_deref()),
            ("signature", self.signature.as_deref()),
        ]
    }
}

fn page(filter: &Filter, limit: usize, after: Option<&str>, api: &Api) -> Result<Value, ApiError> {
    let limit = limit.to_string();
    let mut members = filter.pairs().to_vec();
    members.extend([("limit", Some(limit.as_str())), ("after", after)]);
    api.get(&with_query("/v1/dlq", &members))
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

    const RETRY: Verb = Verb::Retry { rate: None };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn change(line: &[&str]) -> Change {
        let line = [&["dlq"], line].concat();
        match Line::parse_from(line).arguments.action {
            Action::Retry { change, .. } | Action::Drop(change) => change,
            other => panic!("{other:?}"),
        }
    }

    fn run_with(
        change: &Change,
        verb: Verb,
        person: Option<bool>,
        answers: Vec<Value>,
    ) -> (Result<Exit, Failure>, String, Vec<String>) {
        let answers = answers.into_iter().map(|answer| (200, answer)).collect();
        let (api, requests) = canned::node(answers);
        let mut out = Vec::new();
        let result = change.run(verb, &api, |_| Ok(person), &mut out);
        (
            result,
            String::from_utf8(out).unwrap(),
            requests.join().unwrap(),
        )
    }

    #[test]
    fn a_retry_counts_asks_and_then_acts() {
        let change = change(&["retry", "--provider", "crm"]);
        let answers = vec![json!({"matched": 2}), json!({"matched": 2, "redriven": 2})];
        let (result, out, requests) = run_with(&change, RETRY, Some(true), answers);
        assert_eq!(
            (result.unwrap(), out.as_str()),
            (Exit::Ok, "2 matched, 2 redriven\n")
        );
        assert_eq!(
            requests,
            [
                r#"POST /v1/dlq/retry {"filter":{"provider":"crm"},"dry_run":true}"#,
                r#"POST /v1/dlq/retry {"filter":{"provider":"crm"}}"#,
            ]
        );
    }

    #[test]
    fn a_long_redrive_is_followed_to_its_end() {
        let change = change(&["retry", "--all", "--yes"]);
        let answers = vec![
            json!({"matched": 9}),
            json!({"matched": 9, "redriven": 4, "redrive": "j1", "state": "running"}),
            json!({"id": "j1", "state": "done", "done": 9}),
        ];
        let verb = Verb::Retry { rate: Some(4) };
        let (result, out, requests) = run_with(&change, verb, None, answers);
        assert_eq!(result.unwrap(), Exit::Ok);
        assert_eq!(out, "9 matched, 9 redriven\n");
        assert_eq!(
            requests[1..],
            [
                r#"POST /v1/dlq/retry {"filter":{},"rate":4}"#,
                "GET /v1/dlq/redrives/j1"
            ]
        );
    }

    #[test]
    fn an_edit_carries_its_numbers_digit_for_digit() {
        let (api, requests) = canned::node(vec![(
            200,
            json!({"id": "a@crm", "history": [{"at": "now", "status": 400,
                "class": "permanent", "detail": "no"}]}),
        )]);
        let mut out = Vec::new();
        edit("a@crm", r#"{"n":1.10}"#, true, false, &api, &mut out).unwrap();
        assert_eq!(
            requests.join().unwrap(),
            [r#"PATCH /v1/dlq/a%40crm {"data":{"n":1.10},"retry":true}"#]
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\n  now 400 permanent no\n"), "{text}");
    }

    #[test]
    fn nothing_is_done_without_a_yes() {
        let change = change(&["retry", "--provider", "crm"]);
        let answers = vec![json!({"matched": 2})];
        let (result, out, _) = run_with(&change, RETRY, Some(false), answers.clone());
        assert_eq!(
            (result.unwrap(), out.as_str()),
            (Exit::Ok, "2 matched, 0 redriven\n")
        );
        let (result, ..) = run_with(&change, RETRY, None, answers);
        assert!(matches!(result, Err(Failure::Usage(_))));
    }

    #[test]
    fn everything_is_meant_only_when_said() {
        let (result, _, requests) =
            run_with(&change(&["drop", "--yes"]), Verb::Drop, None, Vec::new());
        assert!(matches!(result, Err(Failure::Usage(_))));
        assert!(requests.is_empty());
    }

    #[test]
    fn a_drop_ends_no_more_than_were_counted() {
        let change = change(&["drop", "--all", "--yes", "--json"]);
        let page = json!({"items": [{"id": "a"}, {"id": "b"}, {"id": "c"}], "next": null});
        let answers = vec![json!({"matched": 2}), page, json!({}), json!({})];
        let (result, out, requests) = run_with(&change, Verb::Drop, None, answers);
        assert_eq!(result.unwrap(), Exit::Ok);
        assert_eq!(out, "{\"matched\":2,\"dropped\":2}\n");
        assert_eq!(
            requests[1..],
            [
                "GET /v1/dlq?limit=1000",
                "DELETE /v1/dlq/a",
                "DELETE /v1/dlq/b"
            ]
        );
    }

    #[test]
    fn a_list_goes_on_from_page_to_page() {
        let answers = vec![
            (
                200,
                json!({"items": [{"id": "a", "detail": "x"}], "next": "a"}),
            ),
            (
                200,
                json!({"items": [{"id": "b", "detail": "y"}], "next": null}),
            ),
        ];
        let (api, requests) = canned::node(answers);
        let filter = Filter {
            provider: None,
            object: None,
            code: Some("gone".into()),
            record_id: None,
            signature: None,
        };
        let mut out = Vec::new();
        list(&filter, 5, false, &api, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(
            requests.join().unwrap(),
            [
                "GET /v1/dlq?code=gone&limit=5",
                "GET /v1/dlq?code=gone&limit=4&after=a"
            ]
        );
    }
}
