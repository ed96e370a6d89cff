//! A timer with microseconds, where the poll itself has milliseconds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Wakes the poll once, a while after it was armed.
#[derive(Debug)]
pub(crate) struct Tick {
    timer: OwnedFd,
}

impl Tick {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Tick> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Tick { timer })
    }

    /// Replaces what it was armed with.
    pub(crate) fn arm(&self, pause: Duration) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: pause.as_secs() as i64,
                tv_nsec: i64::from(pause.subsec_nanos()).max(1),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Takes note of a wake-up, so that the next one is told again.
    pub(crate) fn clear(&self) {
        let mut expirations = [0; 8];
        // Nothing to read means that it was armed again meanwhile, which is as good.
        rustix::io::read(&self.timer, &mut expirations).ok();
    }
}
