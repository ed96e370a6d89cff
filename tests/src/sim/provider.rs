//! The simulated accounts, what they were asked, and what they must never have been asked.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use engine::id::OperationId;
use http::Method;
use mock::{Account, AccountConfig, Answer, FaultSpec};
use serde_json::Value;

use super::clock::WALL_START_MS;
use super::fold::Broken;
use super::isolation;
use super::options::{AccountOptions, Bucket, FixedWindow, Options};
use super::oracle::Carried;

/// One account with its own clock.
pub(super) struct Provider {
    pub(super) options: AccountOptions,
    pub(super) account: Account,
    /// Arrivals, on its own clock.
    arrivals: Vec<Duration>,
    /// Operations of which some write may have taken effect.
    pub(super) applied: BTreeSet<OperationId>,
    pub(super) calls: u64,
    /// Writing calls that took effect, by the operations that they may have carried.
    pub(super) written: Vec<Vec<OperationId>>,
    pub(super) answered_well: u64,
}

impl Provider {
    pub(super) fn new(options: &Options, at: usize) -> Self {
        let account = options.accounts[at].clone();
        let mut provider = Self {
            account: Account::new(AccountConfig {
                seed: options.seed ^ (at as u64 + 1),
                limits: account
                    .limits
                    .iter()
                    .map(|(count, window_ms)| {
                        format!("{count}/{window_ms}ms")
                            .parse()
                            .expect("a limit as typed")
                    })
                    .collect(),
                ..AccountConfig::default()
            }),
            options: account,
            arrivals: Vec::new(),
            applied: BTreeSet::new(),
            calls: 0,
            written: Vec::new(),
            answered_well: 0,
        };
        let spec = options.faults.provider_spec(&provider.options);
        provider.account.replace_faults(&faults(&spec));
        if options.ill && at == 0 {
            provider.set_faults(isolation::ill_of(options.seed));
        }
        provider
    }

    /// A request of these operations is there.
    pub(super) fn arrive(
        &mut self,
        now: Duration,
        request: &engine::provider::Request,
        carried: &[Carried],
    ) -> mock::Arrival {
        self.arrivals.push(now);
        self.calls += 1;
        let told = self.options.system_a.then(|| self.told(&request.body));
        let own = || Told {
            method: request.method.as_str().parse().expect("a method of HTTP"),
            target: request.path_and_query.clone(),
            body: request.body.clone(),
        };
        let Told {
            method,
            target,
            body,
        } = told.unwrap_or_else(own);
        let asked = mock::Request {
            method,
            target: &target,
            idempotency_key: request.idempotency_key.as_deref(),
            body,
        };
        let arrival = self.account.arrive(now, &asked);
        let applied = self
            .account
            .journal()
            .get(arrival.call.seq())
            .is_some_and(|call| call.applied);
        if applied && request.kind.is_write() {
            let carried: Vec<OperationId> =
                carried.iter().flat_map(Carried::longest).copied().collect();
            self.applied.extend(&carried);
            self.written.push(carried);
        }
        arrival
    }

    /// What System A does with a change that it is told, as a request to the model of it.
    fn told(&self, change: &Bytes) -> Told {
        let change: Value = serde_json::from_slice(change).expect("a change is JSON");
        let text = |name: &str| change[name].as_str().unwrap_or_default();
        let (object, record_id) = (text("object"), text("record_id"));
        let look_up = Told {
            method: Method::GET,
            target: format!("/{object}?external_id={record_id}"),
            body: Bytes::new(),
        };
        let upsert = Told {
            method: Method::PUT,
            target: format!("/{object}/external/{record_id}"),
            body: change["data"].to_string().into(),
        };
        if text("operation") != "DELETE" {
            return upsert;
        }
        let mut records = self.account.records();
        let known = records.find(|(of, _, record)| {
            *of == object && record.external_id.as_deref() == Some(record_id)
        });
        let (method, target) = match known {
            Some((_, id, _)) => (Method::DELETE, format!("/{object}/{id}")),
            None => return look_up,
        };
        Told {
            method,
            target,
            body: Bytes::new(),
        }
    }

    /// The answer leaves.
    pub(super) fn finish(&mut self, now: Duration, call: mock::CallId) -> Answer {
        let answer = self.account.finish(now, call);
        if matches!(&answer, Answer::Reply(reply) if reply.status < 300) {
            self.answered_well += 1;
        }
        answer
    }

    /// Puts other standing faults in place.
    pub(super) fn set_faults(&mut self, spec: &str) {
        self.account.replace_faults(&faults(spec));
    }

    /// Nothing of what was to go wrong for a time goes on.
    pub(super) fn end_troubles(&mut self) {
        self.account.end_windows();
    }

    /// What it holds against its callers.
    pub(super) fn check(&self) -> Result<(), Broken> {
        let found = self.account.violations();
        let name = &self.options.name;
        if found.total > 0 {
            return Err(format!(
                "I6 {name} counted calls over its limits: {:?}",
                found.by_limit
            ));
        }
        if found.duplicate_creates > 0 {
            return Err(format!(
                "I11 {name} holds a duplicate: {} creates too many",
                found.duplicate_creates
            ));
        }
        // Its own people edit while it is told.
        if found.overlaps > 0 && !self.options.system_a {
            return Err(format!(
                "I4 {name} saw {} writes begin while another of the record was open",
                found.overlaps
            ));
        }
        Ok(())
    }

    /// The limits again, by brute force over all arrivals, windows closed at one end.
    pub(super) fn check_windows(&self) -> Result<(), Broken> {
        for &(count, window_ms) in &self.options.limits {
            let window = Duration::from_millis(window_ms);
            for (at, first) in self.arrivals.iter().enumerate() {
                let over = self
                    .arrivals
                    .get(at + count as usize)
                    .filter(|next| **next < *first + window);
                if let Some(next) = over {
                    return Err(format!(
                        "I6 {}: more than {count} calls in {window:?}, from {first:?} to {next:?}",
                        self.options.name
                    ));
                }
            }
        }
        if let Some(fixed) = self.options.fixed {
            self.check_fixed(fixed)?;
        }
        self.options
            .bucket
            .map_or(Ok(()), |it| self.check_bucket(it))
    }

    /// The windows as its wall clock cuts them.
    fn check_fixed(&self, fixed: FixedWindow) -> Result<(), Broken> {
        let shift_ms = WALL_START_MS + fixed.ahead_ms + 1_000 * i64::from(fixed.zone_s);
        let index = |at: &Duration| {
            let wall_ms = shift_ms + at.as_millis() as i64;
            wall_ms.div_euclid(fixed.window_ms as i64)
        };
        let mut windows = self.arrivals.chunk_by(|a, b| index(a) == index(b));
        match windows.find(|calls| calls.len() > fixed.limit as usize) {
            Some(calls) => Err(format!(
                "I6 {}: {} calls in a window of {fixed:?}, from {:?} on",
                self.options.name,
                calls.len(),
                calls[0]
            )),
            None => Ok(()),
        }
    }

    /// The bucket, in units of a token by the period in ns: exact.
    fn check_bucket(&self, bucket: Bucket) -> Result<(), Broken> {
        let token = u128::from(bucket.period_ms) * 1_000_000;
        let full = u128::from(bucket.burst) * token;
        let (mut level, mut seen) = (full, Duration::ZERO);
        for &at in &self.arrivals {
            let since = at.saturating_sub(seen).as_nanos();
            level = full.min(level + since * u128::from(bucket.refill));
            seen = at;
            level = level.checked_sub(token).ok_or(format!(
                "I6 {}: {bucket:?} is dry at {at:?}",
                self.options.name
            ))?;
        }
        Ok(())
    }
}

/// A request to the model of System A.
struct Told {
    method: Method,
    target: String,
    body: Bytes,
}

pub(super) fn faults(spec: &str) -> FaultSpec {
    spec.parse()
        .expect("the simulator spells faults as the mock does")
}
