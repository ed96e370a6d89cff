//! A blocking subscriber to changes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::ingest::ErrorBody;

/// Receives the changes of one consumer over one connection.
///
/// A change that is not acknowledged comes again, on the next connection or from the next start of
/// the server: acknowledge it once its effect is durable.
#[derive(Debug)]
pub struct Subscriber {
    lines: BufReader<TcpStream>,
    /// The line under way.
    line: Vec<u8>,
}

/// How to connect.
#[derive(Clone, Debug)]
pub struct SubscriberOptions {
    /// `HOST:PORT`.
    pub addr: String,
    /// The name under which the server remembers what is acknowledged.
    pub consumer: String,
    /// Whose changes; none: of every object.
    pub objects: Vec<String>,
    /// The API key, where the server wants one.
    pub key: Option<String>,
    /// For the connection to open.
    pub connect_timeout: Duration,
    /// After this long without a change a blank line keeps the connection; below the server's ten
    /// minutes.
    pub keep_alive: Duration,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What acknowledges it, and everything before it.
    pub seq: u64,
    /// The whole line as it came, without its end: `{"change":{...}}`.
    pub line: String,
}

/// Why there are no more changes on this connection.
#[derive(Debug, thiserror::Error)]
pub enum SubscriberError {
    /// The connection could not be made, or broke. Connect again.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The server closed it. Connect again.
    #[error("the server closed the connection")]
    Closed,
    /// The server ended it with a reason.
    #[error("the server ended the subscription: {code}{}", .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Ended {
        /// From the server's code table.
        code: String,
        /// For a person.
        detail: Option<String>,
        /// Time can cure it: connect again later.
        retry: bool,
    },
    /// What came is not the protocol.
    #[error("the server does not speak this protocol: {0}")]
    Protocol(String),
}

/// An event has at most a megabyte, and its change names its fields once more.
const LINE_BYTES_MAX: u64 = 4 << 20;

#[derive(Deserialize)]
struct Heard<'a> {
    #[serde(borrow, default)]
    change: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<ErrorBody<'a>>,
    #[serde(borrow, default)]
    welcome: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl SubscriberOptions {
    /// All changes for a consumer.
    pub fn new(addr: impl Into<String>, consumer: impl Into<String>) -> SubscriberOptions {
        SubscriberOptions {
            addr: addr.into(),
            consumer: consumer.into(),
            objects: Vec::new(),
            key: None,
            connect_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
        }
    }
}

impl Subscriber {
    /// Connects and subscribes; an older connection of the consumer ends.
    ///
    /// # Errors
    /// [`SubscriberError::Broken`]; whether the consumer is let in shows with the first change.
    pub fn connect(options: &SubscriberOptions) -> Result<Subscriber, SubscriberError> {
        let mut stream = open(options)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(options.keep_alive))?;
        stream.set_write_timeout(Some(options.connect_timeout))?;
        let mut first = String::new();
        if let Some(key) = &options.key {
            first.push_str(&json!({"hello": {"key": key}}).to_string());
            first.push('\n');
        }
        let mut wish = json!({"subscribe": {"consumer": options.consumer}});
        if !options.objects.is_empty() {
            wish["subscribe"]["objects"] = json!(options.objects);
        }
        first.push_str(&wish.to_string());
        first.push('\n');
        stream.write_all(first.as_bytes())?;
        Ok(Subscriber {
            lines: BufReader::new(stream),
            line: Vec::new(),
        })
    }

    /// Waits for the next change.
    ///
    /// # Errors
    /// [`SubscriberError`]; there are no more on this connection.
    pub fn next_change(&mut self) -> Result<Change, SubscriberError> {
        loop {
            self.read_line()?;
            let bytes = std::mem::take(&mut self.line);
            let line = String::from_utf8(bytes)
                .map_err(|_| SubscriberError::Protocol("a line is not UTF-8".to_owned()))?;
            let wrong = |error: serde_json::Error| SubscriberError::Protocol(error.to_string());
            let heard: Heard<'_> = serde_json::from_str(&line).map_err(wrong)?;
            if let Some(error) = heard.error {
                return Err(SubscriberError::Ended {
                    code: error.code.into_owned(),
                    detail: error.detail.map(|detail| detail.into_owned()),
                    retry: error.retry,
                });
            }
            if let Some(change) = heard.change {
                let Numbered { seq } = serde_json::from_str(change.get()).map_err(wrong)?;
                let line = line.trim_end().to_owned();
                return Ok(Change { seq, line });
            }
            if heard.welcome.is_none() {
                return Err(SubscriberError::Protocol(
                    "neither a change nor an error".to_owned(),
                ));
            }
        }
    }

    /// Acknowledges a change and all before it.
    ///
    /// # Errors
    /// [`SubscriberError::Broken`]: it may come again.
    pub fn ack(&mut self, seq: u64) -> Result<(), SubscriberError> {
        let line = format!("{{\"ack\":{{\"seq\":{seq}}}}}\n");
        self.lines.get_mut().write_all(line.as_bytes())?;
        Ok(())
    }

    fn read_line(&mut self) -> Result<(), SubscriberError> {
        loop {
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len() as u64);
            let read = (&mut self.lines)
                .take(room)
                .read_until(b'\n', &mut self.line);
            match read {
                Ok(_) if self.line.ends_with(b"\n") => return Ok(()),
                Ok(_) if self.line.len() as u64 >= LINE_BYTES_MAX => {
                    let fault = "a line is longer than any change".to_owned();
                    return Err(SubscriberError::Protocol(fault));
                }
                Ok(_) => return Err(SubscriberError::Closed),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    self.lines.get_mut().write_all(b"\n")?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open(options: &SubscriberOptions) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in options.addr.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, options.connect_timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that says this and hears all; what it heard.
    fn server(says: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(says.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            heard
        });
        (addr, thread)
    }

    #[test]
    fn changes_come_in_order_and_are_acknowledged_by_their_numbers() {
        let (addr, heard) = server(
            "{\"welcome\":{\"last_seq\":0}}\n\
             {\"change\":{\"seq\":7,\"record_id\":\"c-1\"}}\n{\"change\":{\"seq\":9}}\n",
        );
        let mut options = SubscriberOptions::new(addr, "billing");
        options.key = Some("k".into());
        options.objects = vec!["contact".into()];
        let mut subscriber = Subscriber::connect(&options).unwrap();
        let change = subscriber.next_change().unwrap();
        assert_eq!(change.seq, 7);
        assert_eq!(
            change.line,
            "{\"change\":{\"seq\":7,\"record_id\":\"c-1\"}}"
        );
        assert_eq!(subscriber.next_change().unwrap().seq, 9);
        subscriber.ack(9).unwrap();
        let closed = subscriber.next_change().unwrap_err();
        assert!(matches!(closed, SubscriberError::Closed), "{closed}");
        drop(subscriber);
        assert_eq!(
            heard.join().unwrap(),
            "{\"hello\":{\"key\":\"k\"}}\n\
             {\"subscribe\":{\"consumer\":\"billing\",\"objects\":[\"contact\"]}}\n\
             {\"ack\":{\"seq\":9}}\n"
        );
    }

    #[test]
    fn the_servers_last_word_is_the_error() {
        let (addr, _) = server("{\"error\":{\"code\":\"replaced\"}}\n");
        let mut subscriber = Subscriber::connect(&SubscriberOptions::new(addr, "c")).unwrap();
        let error = subscriber.next_change().unwrap_err();
        assert!(
            matches!(&error, SubscriberError::Ended { code, retry: false, .. } if code == "replaced"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_change_is_not_taken_for_one() {
        for says in [
            "HTTP/1.1 400\r\n",
            "{\"ack\":{\"seq\":1}}\n",
            "{\"change\":{}}\n",
        ] {
            let (addr, _) = server(says);
            let mut subscriber = Subscriber::connect(&SubscriberOptions::new(addr, "c")).unwrap();
            let error = subscriber.next_change().unwrap_err();
            assert!(matches!(error, SubscriberError::Protocol(_)), "{says}");
        }
    }
}
