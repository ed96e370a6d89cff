//! A caller of one simulated account, with a clock of its own that every call moves on.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; one that cannot go on says so by panicking"
)]

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use serde_json::Value;
use syncline_mock::{Account, AccountConfig, Answer, Change, Edit, ProviderKind, Reply, Request};

/// 2026-11-20T10:00:00Z.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_795_168_800);

pub(crate) const TOKEN: &str = "t-1";

pub(crate) struct Caller {
    pub(crate) account: Account,
    pub(crate) now: Duration,
    pub(crate) headers: HeaderMap,
}

/// An account at [`EPOCH`] that takes [`TOKEN`].
pub(crate) fn config(provider: ProviderKind) -> AccountConfig {
    let mut config = AccountConfig {
        provider,
        epoch: EPOCH,
        ..AccountConfig::default()
    };
    config.credentials.tokens.push(TOKEN.to_owned());
    config
}

impl Caller {
    pub(crate) fn new(provider: ProviderKind, faults: &str) -> Self {
        Self::of(AccountConfig {
            faults: faults.parse().unwrap(),
            ..config(provider)
        })
    }

    pub(crate) fn of(config: AccountConfig) -> Self {
        let mut caller = Self {
            account: Account::new(config),
            now: Duration::ZERO,
            headers: HeaderMap::new(),
        };
        caller.header("authorization", &format!("Bearer {TOKEN}"));
        caller
    }

    /// Sets a header of all calls to come.
    pub(crate) fn header(&mut self, name: &str, value: &str) {
        let name: HeaderName = name.parse().unwrap();
        self.headers.insert(name, value.parse().unwrap());
    }

    pub(crate) fn reply(&mut self, method: Method, target: &str, body: &Value) -> Reply {
        self.now += Duration::from_millis(1);
        let request = match body {
            Value::Null => Request::bare(method, target),
            Value::String(form) => Request {
                body: form.clone().into(),
                ..Request::bare(method, target)
            },
            body => Request::json(method, target, body),
        };
        let headers = self.headers.clone();
        match self.account.handle_with(self.now, &request, headers) {
            Answer::Reply(reply) => reply,
            Answer::Reset => panic!("reset"),
        }
    }

    /// Status and body of a call; the body is null when it is empty.
    pub(crate) fn call(&mut self, method: Method, target: &str, body: &Value) -> (u16, Value) {
        let reply = self.reply(method, target, body);
        let body = match reply.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&reply.body).unwrap(),
        };
        (reply.status, body)
    }

    pub(crate) fn get(&mut self, target: &str) -> (u16, Value) {
        self.call(Method::GET, target, &Value::Null)
    }

    pub(crate) fn post(&mut self, target: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, target, body)
    }

    pub(crate) fn patch(&mut self, target: &str, body: &Value) -> (u16, Value) {
        self.call(Method::PATCH, target, body)
    }

    pub(crate) fn delete(&mut self, target: &str) -> (u16, Value) {
        self.call(Method::DELETE, target, &Value::Null)
    }

    /// A change by somebody else; gives the record's id.
    pub(crate) fn edit(&mut self, object: &str, id: Option<&str>, change: Change) -> String {
        let edit = Edit {
            object: object.to_owned(),
            id: id.map(str::to_owned),
            change,
        };
        self.account.edit(self.now, &edit).unwrap().to_string()
    }

    /// The fields of a record, by its id.
    pub(crate) fn fields_of(&self, id: &str) -> Value {
        let mut records = self.account.records();
        let found = records.find(|(_, other, _)| other.to_string() == id);
        found.map_or(Value::Null, |(_, _, record)| record.fields.clone().into())
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
    }
}
