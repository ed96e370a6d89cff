//! Where ingest threads leave their subscribers, and who serves them.

use std::sync::Arc;

use engine::refusal::{Code, Refusal};
use engine::view::{Admission, Scope};
use net::ingest::TimeLimits;
use net::subscription::{Handover, NeverSent, Seat, Subscription, Subscriptions, Taken};
use tokio::sync::mpsc;

use super::super::clock;
use super::super::keys::Keys;
use super::Feed;

/// Subscribers on their way to the control thread at most; each is a connection that was counted
/// where it arrived.
const ARRIVALS_MAX: usize = 256;

/// The ingest threads' side.
#[derive(Debug)]
pub(crate) struct Desk {
    handovers: mpsc::Sender<Handover>,
}

/// The control thread's side.
#[derive(Debug)]
pub(crate) struct Arrivals {
    handovers: mpsc::Receiver<Handover>,
}

/// A feed that asks for keys.
struct Guarded<'f> {
    feed: &'f Feed,
    keys: &'f Keys,
}

impl Desk {
    pub(crate) fn new() -> (Desk, Arrivals) {
        let (sender, receiver) = mpsc::channel(ARRIVALS_MAX);
        (
            Desk { handovers: sender },
            Arrivals {
                handovers: receiver,
            },
        )
    }
}

impl Subscriptions for Desk {
    fn take_over(&self, handover: Handover) {
        if let Err(refused) = self.handovers.try_send(handover) {
            let refusal = Refusal::new(Code::Overloaded, "no subscriber can be served now");
            refused.into_inner().turn_away(&refusal);
        }
    }
}

impl Arrivals {
    /// Serves subscribers as they come, until the ingest threads are gone.
    pub(crate) async fn serve(mut self, feed: Arc<Feed>, keys: Arc<Keys>) {
        while let Some(handover) = self.handovers.recv().await {
            let (feed, keys) = (feed.clone(), keys.clone());
            tokio::spawn(async move {
                let consumer = handover.subscription.consumer.clone();
                let guarded = Guarded {
                    feed: &feed,
                    keys: &keys,
                };
                let served =
                    net::subscription::serve(handover, &guarded, TimeLimits::default()).await;
                if let Err(error) = served {
                    tracing::debug!(consumer, %error, "a subscriber's connection broke");
                }
            });
        }
    }
}

impl net::subscription::Feed for Guarded<'_> {
    fn subscribe(&self, subscription: &Subscription) -> Result<Seat, Refusal> {
        let key = subscription.key.as_deref();
        match self.keys.admit(clock::now().mono, key, Scope::Read) {
            Admission::Granted(_) => self.feed.subscribe(subscription),
            Admission::NoKey => {
                let detail = "a key is needed, in the hello before the subscription";
                Err(Refusal::new(Code::Unauthorized, detail))
            }
            Admission::OtherScope => {
                let detail = "the key has no scope `read`";
                Err(Refusal::new(Code::Unauthorized, detail))
            }
            Admission::TooFast => {
                let detail = "the key asks faster than its own limit";
                Err(Refusal::new(Code::RateLimited, detail))
            }
        }
    }

    fn take(&self, seat: &Seat, out: &mut Vec<u8>) -> Taken {
        self.feed.take(seat, out)
    }

    fn ack(&self, seat: &Seat, seq: u64) -> Result<(), NeverSent> {
        self.feed.ack(seat, seq)
    }

    fn leave(&self, seat: &Seat) {
        self.feed.leave(seat);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use bytes::Bytes;
    use net::client::{Subscriber, SubscriberError, SubscriberOptions};
    use net::gate::wake_gate;
    use net::ingest::{
        BatchId, Busy, Driver, Greeting, Intake, Limits, Producer, Server, SessionId, Settled,
        StopSignal, Welcome,
    };

    use super::super::super::keys::KeyFile;
    use super::*;

    /// An ingest port that takes no events.
    struct NoEvents;

    impl Intake for NoEvents {
        fn hello(&mut self, _: SessionId, _: Option<&str>, _: Option<&str>) -> Greeting {
            Greeting::Welcome(Welcome::default())
        }

        fn stage(&mut self, _: SessionId, _: &Producer, _: u64, _: &[u8]) -> Result<(), Refusal> {
            Err(Refusal::new(Code::ShardDown, "there is no shard"))
        }

        fn dispatch(&mut self, _: SessionId, _: u64, _: &[(u64, Code)]) -> Result<BatchId, Busy> {
            Err(Busy)
        }

        fn poll_settled(&mut self) -> Option<Settled> {
            None
        }

        fn poll_fenced(&mut self) -> Option<SessionId> {
            None
        }

        fn closed(&mut self, _: SessionId) {}
    }

    /// A feed behind an ingest thread and a control thread, as in the engine.
    struct Node {
        feed: Arc<Feed>,
        tcp: SocketAddr,
        stop: StopSignal,
        ingest: JoinHandle<()>,
        control: JoinHandle<()>,
    }

    impl Node {
        fn start(data_dir: &std::path::Path) -> Node {
            let feed = Arc::new(Feed::open(data_dir, Duration::MAX).unwrap());
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let tcp = listener.local_addr().unwrap();
            let keys = Arc::new(Keys::new(data_dir, tcp));
            let (desk, arrivals) = Desk::new();
            let (gate, wake) = wake_gate().unwrap();
            let stop = StopSignal::new(gate);
            let server = Server {
                listener,
                intake: NoEvents,
                subscriptions: Some(Arc::new(desk)),
                wake,
                stop: stop.clone(),
                limits: Limits::default(),
                first_session: SessionId(1),
            };
            let ingest = std::thread::spawn(move || Driver::Tokio.run(server).unwrap());
            let served = feed.clone();
            let control = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    tokio::spawn(served.clone().keep());
                    arrivals.serve(served, keys).await;
                });
            });
            Node {
                feed,
                tcp,
                stop,
                ingest,
                control,
            }
        }

        fn offer(&self, record_id: &str) -> JoinHandle<Option<u16>> {
            let feed = self.feed.clone();
            let change = format!(r#"{{"object":"contact","record_id":"{record_id}"}}"#);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                let offered = runtime.block_on(feed.offer(Bytes::from(change)));
                offered.ok().map(|reply| reply.status)
            })
        }

        fn subscribe(&self, key: Option<&str>) -> Subscriber {
            let mut options = SubscriberOptions::new(self.tcp.to_string(), "billing");
            options.key = key.map(str::to_owned);
            Subscriber::connect(&options).unwrap()
        }

        fn stop(self) {
            self.stop.stop();
            self.ingest.join().unwrap();
            self.feed.stop();
            self.control.join().unwrap();
            self.feed.close().unwrap();
        }
    }

    #[test]
    fn an_offer_ends_with_the_ack_of_a_subscriber_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path());
        let first = node.offer("c-1");
        let mut subscriber = node.subscribe(None);
        let change = subscriber.next_change().unwrap();
        assert_eq!(
            change.line,
            r#"{"change":{"seq":1,"object":"contact","record_id":"c-1"}}"#
        );
        subscriber.ack(change.seq).unwrap();
        assert_eq!(first.join().unwrap(), Some(200));

        let second = node.offer("c-2");
        assert_eq!(subscriber.next_change().unwrap().seq, 2);
        drop(subscriber);
        // It is known by name: nobody else has to be there for this one to wait for it.
        let mut again = node.subscribe(None);
        assert_eq!(again.next_change().unwrap().seq, 2);
        node.stop();
        assert_eq!(second.join().unwrap(), None, "not sent");
        let closed = again.next_change().unwrap_err();
        assert!(matches!(closed, SubscriberError::Closed), "{closed}");

        let node = Node::start(folder.path());
        let again = node.offer("c-2");
        let mut subscriber = node.subscribe(None);
        let change = subscriber.next_change().unwrap();
        assert_eq!(change.seq, 3);
        subscriber.ack(3).unwrap();
        assert_eq!(again.join().unwrap(), Some(200));
        node.stop();
    }

    #[test]
    fn where_keys_exist_a_subscription_needs_one_that_may_read() {
        let folder = tempfile::tempdir().unwrap();
        let keys = KeyFile::of(folder.path());
        let (_, reads) = keys.create("billing", &[Scope::Read], None).unwrap();
        let (_, sends) = keys.create("erp", &[Scope::Ingest], None).unwrap();
        let node = Node::start(folder.path());
        for key in [None, Some("sk_guess"), Some(&*sends)] {
            let error = node.subscribe(key).next_change().unwrap_err();
            let told =
                matches!(&error, SubscriberError::Ended { code, .. } if code == "unauthorized");
            assert!(told, "{error}");
        }
        let offered = node.offer("c-1");
        let mut subscriber = node.subscribe(Some(&reads));
        let change = subscriber.next_change().unwrap();
        subscriber.ack(change.seq).unwrap();
        assert_eq!(offered.join().unwrap(), Some(200));
        node.stop();
    }
}
