//! A raw connection to the ingest port, for what no client library would send.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;

use super::patience::PATIENCE;

/// A connection that reads lines of JSON and writes anything.
#[derive(Debug)]
pub struct Lines {
    stream: BufReader<TcpStream>,
}

impl Lines {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn connect(at: SocketAddr) -> Lines {
        let stream = TcpStream::connect(at).expect("the node listens");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a time-out can be set");
        stream
            .set_nodelay(true)
            .expect("a connection can be hurried");
        Lines {
            stream: BufReader::new(stream),
        }
    }

    /// Writes; a connection the node has closed takes nothing, and reading tells why.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Lines {
        drop(self.stream.get_mut().write_all(bytes.as_ref()));
        self
    }

    /// Says that no more will come.
    pub fn half_close(&mut self) -> &mut Lines {
        drop(self.stream.get_mut().shutdown(Shutdown::Write));
        self
    }

    /// The next message; `None` when the node has closed.
    ///
    /// # Panics
    /// When nothing comes in time, or no JSON.
    pub fn next_message(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}")),
            ),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing to read: {error}"),
        }
    }

    /// Everything up to the end, or up to the ack of `seq`.
    pub fn read_to_ack(&mut self, seq: u64) -> Vec<Value> {
        let mut messages = Vec::new();
        while let Some(message) = self.next_message() {
            let acked = message["ack"]["seq"].as_u64();
            messages.push(message);
            if acked.is_some_and(|acked| acked >= seq) {
                break;
            }
        }
        messages
    }

    /// Everything up to the end.
    pub fn read_to_end(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next_message()).collect()
    }
}
