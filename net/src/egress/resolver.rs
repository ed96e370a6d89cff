//! Addresses of one host, remembered for a while.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The name of one account's host. Calls that need it at once share one look-up.
#[derive(Debug)]
pub(crate) struct Resolver {
    host: String,
    port: u16,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    addresses: Vec<SocketAddr>,
    until: Instant,
}

impl Resolver {
    pub(crate) fn new(host: &str, port: u16) -> Resolver {
        Resolver {
            host: host.to_owned(),
            port,
            cached: Mutex::new(None),
        }
    }

    /// Addresses to try, in order; at least one.
    ///
    /// # Errors
    /// The name has no address now. That is not remembered: the back-off of the callers is what
    /// spares the name server.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        // Held across the look-up on purpose; a caller that gives up lets the next one try.
        let mut cached = self.cached.lock().await;
        if let Some(found) = cached.as_ref().filter(|found| found.until > Instant::now()) {
            return Ok(found.addresses.clone());
        }
        let addresses: Vec<_> = lookup_host((self.host.as_str(), self.port))
            .await?
            .take(ADDRESSES_MAX)
            .collect();
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the name has no address",
            ));
        }
        *cached = Some(Cached {
            addresses: addresses.clone(),
            until: Instant::now() + TTL,
        });
        Ok(addresses)
    }

    /// The address that answered is tried first from now on.
    pub(crate) fn prefer(&self, address: SocketAddr) {
        // A look-up under way will bring addresses of its own.
        if let Ok(mut cached) = self.cached.try_lock()
            && let Some(found) = cached.as_mut()
            && let Some(at) = found.addresses.iter().position(|known| *known == address)
        {
            found.addresses[..=at].rotate_right(1);
        }
    }

    /// None of the addresses answered: ask again next time.
    pub(crate) fn forget(&self) {
        if let Ok(mut cached) = self.cached.try_lock() {
            *cached = None;
        }
    }
}

/// The system's resolver tells no TTL. Short enough to follow a failover by DNS (commonly 60 s),
/// long enough that new connections do not depend on the name server.
const TTL: Duration = Duration::from_secs(30);

/// More are not tried within one connect timeout.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test)
    }

    #[test]
    fn an_address_needs_no_look_up() {
        run(async {
            let addresses = Resolver::new("::1", 9).addresses().await.unwrap();
            assert_eq!(addresses, ["[::1]:9".parse().unwrap()]);
        });
    }

    #[test]
    fn addresses_are_remembered_until_they_fail_and_the_answering_one_comes_first() {
        run(async {
            let resolver = Resolver::new("localhost", 9);
            let known: Vec<SocketAddr> = vec![
                "192.0.2.1:9".parse().unwrap(),
                "192.0.2.2:9".parse().unwrap(),
            ];
            *resolver.cached.lock().await = Some(Cached {
                addresses: known.clone(),
                until: Instant::now() + TTL,
            });
            assert_eq!(resolver.addresses().await.unwrap(), known);

            resolver.prefer(known[1]);
            assert_eq!(resolver.addresses().await.unwrap(), [known[1], known[0]]);

            resolver.forget();
            let found = resolver.addresses().await.unwrap();
            assert!(
                found.iter().all(|address| address.ip().is_loopback()),
                "{found:?}"
            );
        });
    }

    #[test]
    fn addresses_past_their_time_are_looked_up_again() {
        run(async {
            let resolver = Resolver::new("localhost", 9);
            let old = vec!["192.0.2.1:9".parse().unwrap()];
            *resolver.cached.lock().await = Some(Cached {
                addresses: old.clone(),
                until: Instant::now(),
            });
            assert_ne!(resolver.addresses().await.unwrap(), old);
        });
    }
}
