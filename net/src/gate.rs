//! Wakes one thread from many, with at most one system call per time that it drains its rings.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool, Ordering};

/// Wakes the thread that holds the [`WakeReceiver`]; any thread may, any number of times.
#[derive(Clone, Debug)]
pub struct WakeGate {
    shared: Arc<Shared>,
}

/// The side that is woken. Its socket is an ordinary descriptor for any event loop, so no waker
/// of a runtime ever crosses threads.
#[derive(Debug)]
pub struct WakeReceiver {
    shared: Arc<Shared>,
    bell: UnixStream,
}

/// Arms the gate again after a wake-up.
#[derive(Clone, Debug)]
pub struct Rearm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    latch: Latch<AtomicBool>,
    bell: UnixStream,
}

/// A gate and the side that it wakes.
///
/// # Errors
/// No socket pair could be made.
pub fn wake_gate() -> io::Result<(WakeGate, WakeReceiver)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let shared = Arc::new(Shared {
        latch: Latch::default(),
        bell: ours,
    });
    let receiver = WakeReceiver {
        shared: Arc::clone(&shared),
        bell: theirs,
    };
    Ok((WakeGate { shared }, receiver))
}

impl WakeGate {
    /// Makes the receiver look at its rings; call it after the push. Costs a system call only for
    /// the first caller since the receiver last armed the gate.
    pub fn wake(&self) {
        if !self.shared.latch.notify() {
            return;
        }
        loop {
            match (&self.shared.bell).write(&[1]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A full socket holds unread bytes: the receiver will wake. A closed one has no
                // receiver.
                Ok(_) | Err(_) => return,
            }
        }
    }
}

impl WakeReceiver {
    /// The socket that becomes readable, in blocking mode, and what arms the gate again.
    ///
    /// After each wake-up: read what is there, [`Rearm::rearm`], then drain every ring. In this
    /// order no push is missed.
    pub fn into_parts(self) -> (UnixStream, Rearm) {
        let rearm = Rearm {
            shared: self.shared,
        };
        (self.bell, rearm)
    }

    /// Another handle of the gate that wakes this receiver.
    pub fn gate(&self) -> WakeGate {
        WakeGate {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Rearm {
    /// Lets the next [`WakeGate::wake`] ring again. What was pushed before is seen by a drain
    /// that begins after this call; what is pushed after the drain rings.
    pub fn rearm(&self) {
        self.shared.latch.rearm();
    }
}

/// Set by the first notifier, cleared by the receiver.
///
/// Why nothing is missed: the notifier pushes, then swaps; the receiver clears, then drains; a
/// sequentially consistent fence stands between the two steps of each. So either the swap comes
/// after the clearing and returns `false`, and the notifier rings, or the push comes before the
/// drain and is seen.
#[derive(Debug, Default)]
struct Latch<F> {
    notified: F,
}

impl<F: Flag> Latch<F> {
    /// `true`: the caller is the first and has to ring.
    fn notify(&self) -> bool {
        F::fence();
        !self.notified.raise()
    }

    fn rearm(&self) {
        self.notified.lower();
        F::fence();
    }
}

/// The memory that the latch needs; the model checker brings its own.
trait Flag {
    /// Sets it and returns what it was.
    fn raise(&self) -> bool;
    fn lower(&self);
    fn fence();
}

impl Flag for AtomicBool {
    fn raise(&self) -> bool {
        self.swap(true, Ordering::AcqRel)
    }

    fn lower(&self) {
        self.store(false, Ordering::Release);
    }

    fn fence() {
        atomic::fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use shuttle::sync::atomic::{AtomicBool as ModelBool, AtomicUsize as ModelCount};
    use shuttle::sync::{Condvar, Mutex};

    use super::*;

    impl Flag for ModelBool {
        fn raise(&self) -> bool {
            self.swap(true, Ordering::SeqCst)
        }

        fn lower(&self) {
            self.store(false, Ordering::SeqCst);
        }

        fn fence() {
            shuttle::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    const NOTIFIERS: usize = 3;
    const PUSHES: usize = 3;

    /// Notifiers push into a counter that stands for the rings; the receiver sleeps on a bell
    /// that stands for the socket. A lost wake-up is a deadlock, which the checker reports.
    fn exchange() {
        let latch = Arc::new(Latch::<ModelBool>::default());
        let ring = Arc::new(ModelCount::new(0));
        let bell = Arc::new((Mutex::new(0usize), Condvar::new()));
        let notifiers: Vec<_> = (0..NOTIFIERS)
            .map(|_| {
                let (latch, ring, bell) = (latch.clone(), ring.clone(), bell.clone());
                shuttle::thread::spawn(move || {
                    for _ in 0..PUSHES {
                        ring.fetch_add(1, Ordering::SeqCst);
                        if latch.notify() {
                            *bell.0.lock().unwrap() += 1;
                            bell.1.notify_one();
                        }
                    }
                })
            })
            .collect();
        let (mut drained, mut drains) = (0, 0);
        while drained < NOTIFIERS * PUSHES {
            let mut rings = bell.0.lock().unwrap();
            while *rings == 0 {
                rings = bell.1.wait(rings).unwrap();
            }
            // More than one ring can wait: one from before the last rearm was read, one after.
            assert!(*rings <= 2, "{rings} rings for one drain");
            *rings = 0;
            drop(rings);
            latch.rearm();
            drains += 1;
            drained += ring.swap(0, Ordering::SeqCst);
        }
        assert!(drains <= NOTIFIERS * PUSHES + 1);
        for notifier in notifiers {
            notifier.join().unwrap();
        }
    }

    #[test]
    fn no_wake_up_is_lost_under_random_schedules() {
        shuttle::check_random(exchange, 2_000);
    }

    #[test]
    fn no_wake_up_is_lost_under_schedules_that_favour_rare_orders() {
        shuttle::check_pct(exchange, 2_000, 4);
    }

    #[test]
    fn draining_before_rearming_would_lose_one() {
        let lost = std::panic::catch_unwind(|| {
            shuttle::check_random(
                || {
                    let latch = Arc::new(Latch::<ModelBool>::default());
                    let ring = Arc::new(ModelCount::new(0));
                    latch.notify();
                    let other = (latch.clone(), ring.clone());
                    let notifier = shuttle::thread::spawn(move || {
                        other.1.fetch_add(1, Ordering::SeqCst);
                        other.0.notify()
                    });
                    let drained = ring.swap(0, Ordering::SeqCst);
                    latch.rearm();
                    let rang = notifier.join().unwrap();
                    assert!(drained == 1 || rang, "pushed, not drained, not rung");
                },
                500,
            );
        });
        assert!(
            lost.is_err(),
            "the model must be able to tell the wrong order"
        );
    }

    #[test]
    fn many_wakes_between_two_drains_ring_once() {
        let (gate, receiver) = wake_gate().unwrap();
        let (mut bell, rearm) = receiver.into_parts();
        for _ in 0..100 {
            gate.wake();
        }
        let mut bytes = [0; 128];
        assert_eq!(bell.read(&mut bytes).unwrap(), 1);
        rearm.rearm();
        gate.clone().wake();
        assert_eq!(bell.read(&mut bytes).unwrap(), 1);
    }

    #[test]
    fn waking_a_receiver_that_is_gone_does_nothing() {
        let (gate, receiver) = wake_gate().unwrap();
        drop(receiver);
        gate.wake();
        gate.wake();
    }
}
