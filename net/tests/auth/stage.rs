//! A refresher on a thread of its own, and calls on others.

use std::rc::Rc;
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use engine::provider::{CallKind, Method, Reply, Request, SendFailure};
use engine::time::{Mono, Now, WallMs};
use syncline_net::auth::{
    Client, Grant, KeptToken, Refresher, RenewalRules, StoreError, TokenCell, TokenEndpoint,
    TokenStanding, TokenStore,
};
use syncline_net::egress::{
    Account, AccountSettings, AddressPolicy, Authorization, Egress, EgressSettings, HeaderSettings,
    Origin,
};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::watch;

use super::provider::Provider;

/// Longer than anything here takes, even on a machine with better things to do.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn clock() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now {
        // Late enough that a token of this boot fits in before.
        mono: Mono(1_000_000_000_000).saturating_add(since),
        wall: WallMs(wall.as_millis() as i64),
    }
}

pub(crate) fn client() -> Client {
    Client {
        id: "app".to_owned(),
        secret: Some("client-s3cret".to_owned()),
        scope: None,
    }
}

pub(crate) fn refresh(token: &str) -> Grant {
    Grant::Refresh {
        client: client(),
        refresh_token: token.to_owned(),
    }
}

/// Keeps in memory what a disk would.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    state: Arc<Mutex<(Option<KeptToken>, bool)>>,
    /// A bug planted on purpose: it says that a token is kept, and keeps the one before.
    late: Option<Arc<Mutex<Option<KeptToken>>>>,
}

impl Memory {
    pub(crate) fn late() -> Memory {
        Memory {
            late: Some(Arc::default()),
            ..Memory::default()
        }
    }

    pub(crate) fn kept(&self) -> Option<KeptToken> {
        self.state.lock().unwrap().0.clone()
    }

    pub(crate) fn fail_next(&self) {
        self.state.lock().unwrap().1 = true;
    }
}

impl TokenStore for Memory {
    fn load(&mut self) -> Result<Option<KeptToken>, StoreError> {
        Ok(self.kept())
    }

    fn keep(&mut self, token: &KeptToken) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap();
        if std::mem::take(&mut state.1) {
            return Err("the disk is full".into());
        }
        match &self.late {
            None => state.0 = Some(token.clone()),
            Some(before) => state.0 = before.lock().unwrap().replace(token.clone()),
        }
        Ok(())
    }
}

pub(crate) struct Stage {
    url: String,
    cell: TokenCell,
    stop: watch::Sender<bool>,
    refresher: Option<JoinHandle<()>>,
    /// The refresher's `Debug`.
    pub(crate) shown: String,
}

impl Stage {
    pub(crate) fn start(provider: &Provider, grant: Grant, store: Memory) -> Stage {
        let rules = RenewalRules {
            ask_interval: Duration::ZERO,
            ..RenewalRules::default()
        };
        let cell = TokenCell::new(rules, clock);
        let endpoint = TokenEndpoint::new(
            &format!("{}/token", provider.url()),
            AddressPolicy::Any,
            None,
            PATIENCE,
        );
        let refresher = Refresher::new(
            cell.clone(),
            grant,
            endpoint.unwrap(),
            "Bearer",
            Box::new(store),
            || 0,
        );
        let refresher = refresher.unwrap();
        let shown = format!("{refresher:?}");
        let (stop, stopped) = watch::channel(false);
        let run = move || {
            let egress = Egress::new(EgressSettings::default());
            runtime().block_on(refresher.run(&egress, stopped)).unwrap();
        };
        Stage {
            url: provider.url(),
            cell,
            stop,
            refresher: Some(std::thread::spawn(run)),
            shown,
        }
    }

    pub(crate) fn cell(&self) -> &TokenCell {
        &self.cell
    }

    pub(crate) fn standing(&self) -> TokenStanding {
        self.cell.standing()
    }

    pub(crate) fn until(&self, standing: TokenStanding) {
        let end = Instant::now() + PATIENCE;
        while self.standing() != standing {
            assert!(Instant::now() < end, "still {:?}", self.standing());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// As the engine calls: once more when the token was refused.
    pub(crate) fn call(&self) -> Result<Reply, SendFailure> {
        match self.call_once() {
            Err(SendFailure::TokenRefused) => self.call_once(),
            answered => answered,
        }
    }

    pub(crate) fn call_once(&self) -> Result<Reply, SendFailure> {
        let egress = Egress::new(EgressSettings::default());
        let account = account(&egress, &self.url, &self.cell);
        runtime().block_on(egress.call(&account, &request()))
    }

    /// All of them at once; their statuses.
    pub(crate) fn call_from_threads(&self, threads: usize, calls: usize) -> Vec<u16> {
        let barrier = Arc::new(Barrier::new(threads));
        let started: Vec<_> = (0..threads)
            .map(|_| {
                let (barrier, url, cell) = (barrier.clone(), self.url.clone(), self.cell.clone());
                std::thread::spawn(move || {
                    let runtime = runtime();
                    let egress = Rc::new(Egress::new(EgressSettings::default()));
                    let account = Rc::new(account(&egress, &url, &cell));
                    barrier.wait();
                    runtime.block_on(async move {
                        let tasks: Vec<_> = (0..calls)
                            .map(|_| {
                                let (egress, account) = (egress.clone(), account.clone());
                                tokio::task::spawn_local(async move {
                                    let mut result = egress.call(&account, &request()).await;
                                    if result == Err(SendFailure::TokenRefused) {
                                        result = egress.call(&account, &request()).await;
                                    }
                                    result.unwrap().status
                                })
                            })
                            .collect();
                        let mut statuses = Vec::new();
                        for task in tasks {
                            statuses.push(task.await.unwrap());
                        }
                        statuses
                    })
                })
            })
            .collect();
        started
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let ended = self.refresher.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap()
}

fn account(egress: &Egress, url: &str, cell: &TokenCell) -> Account {
    let settings = AccountSettings {
        origin: Origin::parse(url).unwrap(),
        addresses: AddressPolicy::Any,
        authorization: Authorization::Token(cell.clone()),
        headers: HeaderSettings::default(),
        ca_file: None,
        connections_max: 16,
        timeout: PATIENCE,
    };
    egress.account(settings).unwrap()
}

fn request() -> Request {
    Request {
        kind: CallKind::Update,
        method: Method::Post,
        path_and_query: "/things".to_owned(),
        body: Bytes::from_static(b"{}"),
        idempotency_key: Some("key-1".to_owned()),
        request_id: String::new(),
        traceparent: None,
    }
}
