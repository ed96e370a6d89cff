//! The thread that asks for tokens: one task an account, which its next one waits for.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use net::auth::{Refresher, StoreError};
use net::egress::{Egress, EgressSettings};
use tokio::sync::{mpsc, watch};
use tokio::task;

use super::token_file::TokenFile;
use crate::runtime::shard_thread::chain;

/// A token's reply is a few KiB, with an identity token in it maybe ten.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// Orders that wait: at a start one for each account, and there are fewer accounts.
const ORDERS_MAX: usize = 64 * 1024;

/// Asks for tokens as they are needed.
#[derive(Debug)]
pub(crate) struct TokenThread {
    orders: mpsc::Sender<(Arc<str>, Order)>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is to be of an account's tokens.
pub(super) enum Order {
    /// They are asked for by this, once the former ones are not any more.
    Begin(Begin),
    /// They are not asked for any more.
    End,
    /// Nor is the last one kept.
    Forget(TokenFile),
}

/// Made on the thread, since it reads what the task before it kept last.
type Begin = Box<dyn FnOnce() -> Result<Refresher, StoreError> + Send>;

/// The task of one account.
struct Running {
    stop: watch::Sender<bool>,
    task: task::JoinHandle<()>,
}

impl TokenThread {
    pub(super) fn spawn() -> io::Result<Self> {
        let (orders, ordered) = mpsc::channel(ORDERS_MAX);
        let (stop, stopped) = watch::channel(false);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            match runtime {
                Ok(runtime) => runtime.block_on(serve(ordered, stopped)),
                Err(error) => tracing::error!(%error, "the token thread has no event loop"),
            }
        };
        let thread = thread::Builder::new().name("tokens".into()).spawn(run)?;
        Ok(Self {
            orders,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn order(&self, account: &str, order: Order) {
        if self.orders.try_send((account.into(), order)).is_err() {
            tracing::error!(
                account,
                "the token thread does not answer; its token stays as it is"
            );
        }
    }

    pub(super) fn stop(&self) -> bool {
        self.stop.send_replace(true);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.take().is_none_or(|thread| thread.join().is_ok())
    }
}

async fn serve(mut orders: mpsc::Receiver<(Arc<str>, Order)>, mut stopped: watch::Receiver<bool>) {
    let egress = Rc::new(Egress::new(EgressSettings {
        body_bytes_max: REPLY_BYTES_MAX,
        ..EgressSettings::default()
    }));
    let mut running: HashMap<Arc<str>, Running> = HashMap::new();
    loop {
        let (account, order) = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order,
                None => break,
            },
            // Its other side gone is a stop too.
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let before = running.remove(&account);
        let (stop, told) = watch::channel(false);
        let task = task::spawn_local(follow(egress.clone(), account.clone(), before, order, told));
        running.insert(account, Running { stop, task });
    }
    for task in running.values() {
        task.stop.send_replace(true);
    }
    for (account, running) in running {
        if let Err(error) = running.task.await {
            tracing::error!(account = &*account, %error, "its token was not renewed to the end");
        }
    }
}

/// Carries one order out, once the task before it has ended.
async fn follow(
    egress: Rc<Egress>,
    account: Arc<str>,
    before: Option<Running>,
    order: Order,
    stopped: watch::Receiver<bool>,
) {
    if let Some(before) = before {
        before.stop.send_replace(true);
        if let Err(error) = before.task.await {
            tracing::error!(account = &*account, %error, "its former token was not renewed to the end");
        }
    }
    match order {
        Order::Begin(begin) => match begin() {
            Ok(refresher) => {
                if let Err(error) = refresher.run(&egress, stopped).await {
                    tracing::error!(account = &*account, error = %chain(&error), "no token can be asked for");
                }
            }
            Err(error) => {
                tracing::error!(account = &*account, error = %chain(&*error), "its kept token cannot be read");
            }
        },
        Order::End => {}
        Order::Forget(store) => {
            if let Err(error) = store.remove() {
                tracing::error!(account = &*account, error = %chain(&error), "its token is still kept");
            }
        }
    }
}
