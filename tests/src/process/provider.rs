//! A provider: `syncline mock PROVIDER`, and what it counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use super::http::{Answer, request, request_with};
use super::program::program;
use super::running::Running;

/// A simulated provider account.
#[derive(Debug)]
pub struct Provider {
    _running: Running,
    addr: SocketAddr,
}

/// A caller beside the node.
#[derive(Debug, Clone)]
pub struct Application {
    addr: SocketAddr,
    authorization: String,
}

impl Application {
    /// Gets a path of the account.
    ///
    /// # Panics
    /// When nobody answers.
    #[must_use]
    pub fn call(&self, path: &str) -> Answer {
        let answer = request_with(self.addr, "GET", path, &self.authorization, b"");
        answer.unwrap_or_else(|| panic!("{path}: the provider does not answer"))
    }
}

/// What the provider holds against its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Violations {
    /// Calls over a limit.
    pub over_limit: u64,
    /// Creates that made a second record.
    pub duplicate_creates: u64,
    /// Writes begun while another of the same record was open.
    pub overlaps: u64,
}

/// One call of the journal.
#[derive(Debug, Clone)]
pub struct Call {
    /// When the whole request had arrived, Unix time in ms.
    pub at_ms: u64,
    /// When it ended; the same instant while it is open.
    pub done_ms: u64,
    /// The HTTP method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query as it was sent; empty when there is none.
    pub query: String,
    /// 0: no answer left.
    pub status: u64,
    /// The record written, as `object/external_id`; empty when the call names none.
    pub record: String,
    /// The body, null when there is none.
    pub body: Value,
}

impl Call {
    /// Whether it was to change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }
}

impl Provider {
    /// Starts one with the options of `syncline mock rest`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(options: &[&str]) -> Provider {
        Provider::start_as("rest", options)
    }

    /// Starts one that behaves as this provider does, with the options of `syncline mock`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_as(provider: &str, options: &[&str]) -> Provider {
        let mut command = Command::new(program());
        command
            .args(["mock", provider, "--listen", "127.0.0.1:0"])
            .args(options);
        let mut running = Running::start(&mut command);
        let line = running.next_line();
        let addr = line
            .strip_prefix("listening http://")
            .and_then(|addr| addr.parse().ok());
        let addr = addr.unwrap_or_else(|| panic!("{line:?} names no address"));
        Provider {
            _running: running,
            addr,
        }
    }

    /// For `base_url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Replaces its standing faults.
    ///
    /// # Panics
    /// When it does not take them.
    pub fn set_faults(&self, faults: &str) {
        let body = json!({ "fault": faults }).to_string();
        let answer = request(self.addr, "POST", "/__mock/fault", body.as_bytes());
        assert_eq!(answer.map(|answer| answer.status), Some(204), "{faults}");
    }

    /// Somebody else makes a record; its id.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn make(&self, object: &str, fields: &Value) -> String {
        let edit = json!({"operation": "create", "object": object, "fields": fields});
        let id = self.edit(&edit)["id"].clone();
        id.as_str().map_or_else(|| id.to_string(), str::to_owned)
    }

    /// Somebody else changes or deletes a record; what the provider says of it.
    ///
    /// # Panics
    /// When it does not take it.
    pub fn edit(&self, edit: &Value) -> Value {
        let body = edit.to_string();
        let answer = request(self.addr, "POST", "/__mock/edit", body.as_bytes());
        let answer = answer.expect("the provider answers");
        assert_eq!(answer.status, 200, "{edit}");
        answer.json()
    }

    /// What it counted.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn violations(&self) -> Violations {
        let counted = self.get("/__mock/violations").json();
        let count = |name: &str| counted[name].as_u64().expect("a count");
        Violations {
            over_limit: count("total"),
            duplicate_creates: count("duplicate_creates"),
            overlaps: count("overlaps"),
        }
    }

    /// Every live record, by `object/external_id`; the first of those that share one.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn records(&self) -> BTreeMap<String, Value> {
        let mut records = BTreeMap::new();
        let shown = self.get("/__mock/records").json();
        for record in shown["records"].as_array().expect("a list") {
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            let name = format!("{}/{}", text("object"), text("external_id"));
            records
                .entry(name)
                .or_insert_with(|| record["fields"].clone());
        }
        records
    }

    /// The id of every live record, by `object/external_id`.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn ids(&self) -> BTreeMap<String, String> {
        let shown = self.get("/__mock/records").json();
        let records = shown["records"].as_array().expect("a list").iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        records
            .map(|record| {
                let name = format!(
                    "{}/{}",
                    text(&record["object"]),
                    text(&record["external_id"])
                );
                (name, text(&record["id"]))
            })
            .collect()
    }

    /// Every call, in the order of arrival.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn journal(&self) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/__mock/journal?after={after}")).json();
            calls.extend(page["calls"].as_array().expect("a list").iter().map(call));
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return calls,
            }
        }
    }

    /// Another application, which calls the same account with this token.
    #[must_use]
    pub fn another_application(&self, token: &str) -> Application {
        Application {
            addr: self.addr,
            authorization: format!("Authorization: Bearer {token}\r\n"),
        }
    }

    fn get(&self, path: &str) -> Answer {
        let answer = request(self.addr, "GET", path, b"");
        answer.unwrap_or_else(|| panic!("{path}: the provider does not answer"))
    }
}

fn call(row: &Value) -> Call {
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let at_ms = row["at_ms"].as_u64().expect("an instant");
    let record = match (row["object"].as_str(), row["external_id"].as_str()) {
        (Some(object), Some(id)) => format!("{object}/{id}"),
        _ => String::new(),
    };
    Call {
        at_ms,
        done_ms: row["done_ms"].as_u64().unwrap_or(at_ms),
        method: text("method"),
        path: text("path"),
        query: text("query"),
        status: row["status"].as_u64().unwrap_or(0),
        record,
        body: row["body"].clone(),
    }
}
