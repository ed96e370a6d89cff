//! From an address to a connection that has been let in.

use std::io;
use std::time::Duration;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustix::net::sockopt;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Connection, Duplex};
use crate::address::{Address, Host, Tls};
use crate::error::Error;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Statements.
    Statements,
    /// Statements and the commands of logical replication.
    Replication,
}

/// For name look-up, connection, TLS and authentication together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Idle time after which the system asks the peer whether it is there.
const SILENT_MAX: Duration = Duration::from_secs(60);

/// How values are to be written whatever the role's or the database's settings are: the mapping
/// to JSON reads these forms. And no time-out may end a long snapshot or an idle follower.
const PARAMETERS: [(&str, &str); 10] = [
    ("application_name", "syncline"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

impl Connection {
    /// Connects for statements.
    ///
    /// # Errors
    /// The server cannot be reached, is not protected although it is elsewhere, or refuses.
    pub async fn open(address: &Address) -> Result<Connection, Error> {
        Connection::open_for(address, Purpose::Statements).await
    }

    pub(crate) async fn open_for(address: &Address, purpose: Purpose) -> Result<Connection, Error> {
        let opening = async {
            let mut connection = Connection::new(reach(address).await?);
            connection.introduce(address, purpose)?;
            connection.authenticate(address).await?;
            connection.check_version()?;
            Ok(connection)
        };
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(failed(address, io::ErrorKind::TimedOut.into())),
        }
    }

    fn introduce(&mut self, address: &Address, purpose: Purpose) -> Result<(), Error> {
        let who = [
            ("user", address.user.as_str()),
            ("database", address.database.as_str()),
        ];
        let replication = (purpose == Purpose::Replication).then_some(("replication", "database"));
        let parameters = who.into_iter().chain(PARAMETERS).chain(replication);
        frontend::startup_message(parameters, self.outgoing())
            .map_err(|_| Error::Protocol("a NUL in the user or the database"))
    }

    /// Answers until the server is ready for statements.
    async fn authenticate(&mut self, address: &Address) -> Result<(), Error> {
        let mut scram = None;
        loop {
            let frame = self.read().await?.accepted()?;
            match frame.tag {
                b'R' => self.answer(address, &frame.body, &mut scram)?,
                b'Z' => return Ok(()),
                // The key to cancel with.
                b'K' => {}
                _ => return Err(Error::Protocol("an unexpected message at the start")),
            }
        }
    }

    fn answer(
        &mut self,
        address: &Address,
        body: &[u8],
        scram: &mut Option<ScramSha256>,
    ) -> Result<(), Error> {
        let password = || {
            let password = address.password.as_ref().ok_or(Error::PasswordMissing)?;
            Ok::<_, Error>(password.expose().as_bytes())
        };
        let bad = |_| Error::Protocol("an authentication that does not add up");
        let Some((code, body)) = body.split_first_chunk() else {
            return Err(Error::Protocol("an authentication without its kind"));
        };
        match (u32::from_be_bytes(*code), scram) {
            // A server that was asked to prove that it knows the password has to do it first.
            (0, None) => Ok(()),
            (3, None) => frontend::password_message(password()?, self.outgoing()).map_err(bad),
            (5, None) => {
                let salt = body
                    .try_into()
                    .map_err(|_| Error::Protocol("a salt that is none"))?;
                let hash = md5_hash(address.user.as_bytes(), password()?, salt);
                frontend::password_message(hash.as_bytes(), self.outgoing()).map_err(bad)
            }
            (10, scram @ None) => {
                let mut offered = body.split(|byte| *byte == 0);
                if !offered.any(|name| name == SCRAM_SHA_256.as_bytes()) {
                    return Err(Error::Authentication("SASL without SCRAM-SHA-256"));
                }
                let exchange = ScramSha256::new(password()?, ChannelBinding::unsupported());
                let first = exchange.message();
                frontend::sasl_initial_response(SCRAM_SHA_256, first, self.outgoing())
                    .map_err(bad)?;
                *scram = Some(exchange);
                Ok(())
            }
            (11, Some(exchange)) => {
                exchange.update(body).map_err(bad)?;
                frontend::sasl_response(exchange.message(), self.outgoing()).map_err(bad)
            }
            (12, scram @ Some(_)) => {
                let mut exchange = scram.take().expect("matched as there");
                exchange.finish(body).map_err(bad)
            }
            (2 | 7 | 8 | 9, _) => Err(Error::Authentication("Kerberos, GSSAPI or SSPI")),
            _ => Err(Error::Protocol("an authentication out of turn")),
        }
    }

    fn check_version(&self) -> Result<(), Error> {
        let major = self
            .server_version
            .split(|c: char| !c.is_ascii_digit())
            .next();
        let major: u32 = major.and_then(|text| text.parse().ok()).unwrap_or(0);
        if major < crate::SERVER_VERSION_MIN {
            return Err(Error::TooOld {
                found: self.server_version.clone(),
            });
        }
        Ok(())
    }
}

/// The bare or protected stream.
async fn reach(address: &Address) -> Result<Box<dyn Duplex>, Error> {
    let fail = |source| failed(address, source);
    match (&address.host, &address.tls) {
        (Host::Socket(folder), _) => {
            let path = folder.join(format!(".s.PGSQL.{}", address.port));
            Ok(Box::new(UnixStream::connect(path).await.map_err(fail)?))
        }
        (Host::Name(name), tls) => {
            if matches!(tls, Tls::Off) && !address.host.is_this_machine() {
                return Err(Error::Insecure { host: name.clone() });
            }
            let stream = TcpStream::connect((name.as_str(), address.port))
                .await
                .map_err(fail)?;
            stream.set_nodelay(true).map_err(fail)?;
            watch_over(&stream).map_err(fail)?;
            match tls {
                Tls::Off => Ok(Box::new(stream)),
                Tls::Verified(config) => protect(stream, name, config.clone()).await.map_err(fail),
            }
        }
    }
}

/// A peer that vanished without a word is noticed while something is waited for.
fn watch_over(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT_MAX)?;
    sockopt::set_tcp_keepintvl(stream, SILENT_MAX / 4)?;
    Ok(())
}

/// Asks for TLS in PostgreSQL's way, then speaks it.
async fn protect(
    mut stream: TcpStream,
    name: &str,
    config: std::sync::Arc<rustls::ClientConfig>,
) -> io::Result<Box<dyn Duplex>> {
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "no name for a certificate"))?;
    let mut request = bytes::BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await?;
    // One byte and no more: bytes sent ahead of TLS are not the server's.
    if stream.read_u8().await? != b'S' {
        let reason = "the server has TLS switched off";
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    Ok(Box::new(
        TlsConnector::from(config).connect(name, stream).await?,
    ))
}

fn failed(address: &Address, source: io::Error) -> Error {
    let to = match &address.host {
        Host::Name(name) => format!("{name}:{}", address.port),
        Host::Socket(folder) => format!("{}:{}", folder.display(), address.port),
    };
    Error::Connect { to, source }
}
