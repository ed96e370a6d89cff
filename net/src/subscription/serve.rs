//! Moves the bytes of one subscriber on tokio.

use std::io;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use super::conversation::Conversation;
use super::{Feed, Handover};
use crate::ingest::TimeLimits;

/// Bytes of one read: a hundred acks.
const READ_BYTES: usize = 4 << 10;

/// Serves one subscriber until its connection ends.
///
/// The clocks are those of the ingest port: a line that has begun, silence, and a client that
/// does not read.
///
/// # Errors
/// The connection broke; what was not acknowledged comes again.
pub async fn serve<F: Feed>(handover: Handover, feed: &F, time: TimeLimits) -> io::Result<()> {
    handover.stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(handover.stream)?;
    {
        let mut conversation = Conversation::begin(feed, &handover.subscription);
        conversation.handle_bytes(&handover.unread);
        converse(&stream, &mut conversation, &time).await?;
        // The seat is free before the linger.
    }
    rustix::net::shutdown(&stream, Shutdown::Write)?;
    // Closing over unread bytes would destroy our last words on their way.
    let drained = timeout(time.linger, async {
        let mut scratch = [0; READ_BYTES];
        while read(&stream, &mut scratch).await? > 0 {}
        Ok(())
    });
    drained.await.unwrap_or(Ok(()))
}

async fn converse<F: Feed>(
    stream: &TcpStream,
    conversation: &mut Conversation<'_, F>,
    time: &TimeLimits,
) -> io::Result<()> {
    let wake = conversation.seat().map(|seat| seat.wake.clone());
    let wake = wake.unwrap_or_default();
    let mut scratch = [0; READ_BYTES];
    let mut out = Vec::new();
    let mut written = 0;
    let mut clocks = Clocks::new();
    clocks.on_line(conversation.is_mid_line());
    let mut half_closed = false;
    loop {
        if written == out.len() {
            out.clear();
            // A record of a megabyte now and then must not keep its memory.
            out.shrink_to(2 * super::OUTPUT_BYTES);
            written = 0;
            conversation.take_output(&mut out);
            clocks.written_at = Instant::now();
        }
        let writing = written < out.len();
        if !writing && conversation.is_over() {
            return Ok(());
        }
        let (deadline, detail) = clocks.next(time, writing);
        tokio::select! {
            read = read(stream, &mut scratch), if !half_closed => {
                let count = read?;
                clocks.read_at = Instant::now();
                if count == 0 {
                    half_closed = true;
                    conversation.handle_half_close();
                }
                conversation.handle_bytes(&scratch[..count]);
                clocks.on_line(conversation.is_mid_line());
            }
            wrote = write(stream, &out[written..]), if writing => {
                written += wrote?;
                clocks.written_at = Instant::now();
            }
            () = wake.notified(), if !writing => {}
            () = sleep_until(deadline) => match detail {
                Some(detail) if !conversation.is_over() => conversation.handle_timeout(detail),
                _ => return Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }
}

/// What the client is given time for.
struct Clocks {
    read_at: Instant,
    /// Since when a line of the client has begun and not ended.
    line_since: Option<Instant>,
    /// The last progress of a write.
    written_at: Instant,
}

impl Clocks {
    fn new() -> Clocks {
        let now = Instant::now();
        Clocks {
            read_at: now,
            line_since: None,
            written_at: now,
        }
    }

    fn on_line(&mut self, is_mid_line: bool) {
        self.line_since = is_mid_line.then(|| self.line_since.unwrap_or(self.read_at));
    }

    /// What runs out next, with what the client is told; `None`: it does not listen.
    fn next(&self, time: &TimeLimits, writing: bool) -> (Instant, Option<&'static str>) {
        if writing {
            return (after(self.written_at, time.write), None);
        }
        let idle = (
            after(self.read_at, time.idle),
            Some("nothing came for too long, not even a blank line"),
        );
        let line = self.line_since.map(|since| {
            let told = "a line that had begun did not end in time";
            (after(since, time.message), Some(told))
        });
        line.into_iter().fold(
            idle,
            |first, other| {
                if other.0 < first.0 { other } else { first }
            },
        )
    }
}

fn after(since: Instant, limit: Duration) -> Instant {
    // A limit beyond what a clock can say is none.
    let never = Duration::from_secs(365 * 24 * 3600);
    since + limit.min(never)
}

async fn read(stream: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(scratch) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn write(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
