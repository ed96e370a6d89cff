//! `syncline subscribe`: prints changes as they come back.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use net::client::{Subscriber, SubscriberError, SubscriberOptions};

use super::exit::Exit;

/// Prints changes that come back from the providers, one line of JSON each
///
/// The node remembers the name: from the first time on it keeps every change for this consumer
/// until it is acknowledged, also while nobody is connected. A line is acknowledged once it is
/// flushed. A broken connection is made again. An API key is taken from the variable SYNCLINE_KEY.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  syncline subscribe --consumer billing
  syncline subscribe --consumer search --object contact --object account | indexer

Exit status: 0 the output was closed; 69 the node has nothing to subscribe to; 75 gave up, or the
consumer was connected elsewhere; 77 the key is missing or wrong")]
pub(crate) struct Arguments {
    /// The name under which the node remembers what was acknowledged
    #[arg(long, value_name = "NAME")]
    consumer: String,
    /// Only changes of this object; may be given several times
    #[arg(long = "object", value_name = "OBJECT")]
    objects: Vec<String>,
    /// The node's TCP address
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    tcp: String,
    /// Seconds without a connection after which to give up
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    give_up: u64,
}

/// Between two tries to connect.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Why it ended.
#[derive(Debug, thiserror::Error)]
enum SubscribeError {
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Node(SubscriberError),
}

pub(crate) fn run(arguments: &Arguments) -> Exit {
    let mut options = SubscriberOptions::new(&arguments.tcp, &arguments.consumer);
    options.objects.clone_from(&arguments.objects);
    options.key = std::env::var("SYNCLINE_KEY").ok();
    let give_up = Duration::from_secs(arguments.give_up);
    let Err(error) = print_changes(&options, give_up, &mut io::stdout().lock());
    let exit = error.exit();
    if exit != Exit::Ok && writeln!(io::stderr(), "syncline: {error}").is_err() {
        return Exit::Io;
    }
    exit
}

fn print_changes(
    options: &SubscriberOptions,
    give_up: Duration,
    out: &mut impl Write,
) -> Result<std::convert::Infallible, SubscribeError> {
    let mut failing_since = None;
    loop {
        let failure = match Subscriber::connect(options) {
            Ok(mut subscriber) => loop {
                match subscriber.next_change() {
                    Ok(change) => {
                        failing_since = None;
                        writeln!(out, "{}", change.line)?;
                        out.flush()?;
                        if let Err(failure) = subscriber.ack(change.seq) {
                            break failure;
                        }
                    }
                    Err(failure) => break failure,
                }
            },
            Err(failure) => failure,
        };
        let since = *failing_since.get_or_insert_with(Instant::now);
        if !may_pass(&failure) || since.elapsed() >= give_up {
            return Err(SubscribeError::Node(failure));
        }
        std::thread::sleep(RETRY_EVERY);
    }
}

/// Whether another connection may do better.
fn may_pass(failure: &SubscriberError) -> bool {
    match failure {
        SubscriberError::Broken(_) | SubscriberError::Closed => true,
        SubscriberError::Ended { code, retry, .. } => *retry || code == "timeout",
        SubscriberError::Protocol(_) => false,
    }
}

impl SubscribeError {
    fn exit(&self) -> Exit {
        match self {
            // `syncline subscribe | head` is no error.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Self::Output(_) => Exit::Io,
            Self::Node(SubscriberError::Broken(_) | SubscriberError::Closed) => Exit::TryLater,
            Self::Node(SubscriberError::Protocol(_)) => Exit::Protocol,
            Self::Node(SubscriberError::Ended { code, retry, .. }) => match code.as_str() {
                "unauthorized" => Exit::NoPermission,
                "not_available" | "removed" => Exit::Unavailable,
                "replaced" | "timeout" => Exit::TryLater,
                _ if *retry => Exit::TryLater,
                _ => Exit::Data,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn lines_are_printed_then_acknowledged_and_a_broken_connection_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let says = [
                "{\"change\":{\"seq\":1}}\n",
                "{\"change\":{\"seq\":2}}\n{\"error\":{\"code\":\"replaced\"}}\n",
            ];
            let mut heard = Vec::new();
            for said in says {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(said.as_bytes()).unwrap();
                let mut lines = BufReader::new(stream).lines();
                heard.extend(lines.by_ref().take(2).map(Result::unwrap));
            }
            heard
        });
        let mut out = Vec::new();
        let options = SubscriberOptions::new(addr, "billing");
        let Err(error) = print_changes(&options, Duration::from_secs(60), &mut out);
        assert_eq!(error.exit(), Exit::TryLater, "{error}");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"change\":{\"seq\":1}}\n{\"change\":{\"seq\":2}}\n"
        );
        let subscribe = "{\"subscribe\":{\"consumer\":\"billing\"}}";
        let ack = |seq| format!("{{\"ack\":{{\"seq\":{seq}}}}}");
        assert_eq!(
            server.join().unwrap(),
            [subscribe, &ack(1), subscribe, &ack(2)]
        );
    }

    #[test]
    fn an_output_that_is_closed_acknowledges_nothing() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"{\"change\":{\"seq\":1}}\n").unwrap();
            BufReader::new(stream).lines().map_while(Result::ok).count()
        });
        let options = SubscriberOptions::new(addr, "billing");
        let Err(error) = print_changes(&options, Duration::ZERO, &mut Closed);
        assert_eq!(error.exit(), Exit::Ok);
        assert_eq!(server.join().unwrap(), 1, "only the subscription");
    }
}
