//! Where a server is and who asks.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// A database and the role to use it with.
#[derive(Debug, Clone)]
pub struct Address {
    /// The machine, or the folder of the socket.
    pub host: Host,
    /// The port; of a socket it is part of the name.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password, if it needs one.
    pub password: Option<Password>,
    /// The database.
    pub database: String,
    /// Whether and how the connection is protected.
    pub tls: Tls,
}

/// The machine or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or address, by TCP.
    Name(String),
    /// The folder of a Unix socket.
    Socket(PathBuf),
}

/// A password, which nothing prints.
#[derive(Clone)]
pub struct Password(String);

/// Protection of a connection by TCP. Sockets need none.
#[derive(Clone)]
pub enum Tls {
    /// None; for this machine only.
    Off,
    /// TLS, the server's certificate checked for the host's name.
    Verified(Arc<ClientConfig>),
}

/// Why a URL is no address. It does not quote the URL, which may hold a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not `postgres://` or `postgresql://`.
    #[error("a PostgreSQL URL begins with postgres://")]
    Scheme,
    /// A part that cannot be read.
    #[error("{0} of the PostgreSQL URL cannot be read")]
    Part(&'static str),
    /// A parameter nobody knows, or one with a value nobody knows.
    #[error("parameter {0} of the PostgreSQL URL is not known, or its value")]
    Parameter(String),
    /// The role is missing.
    #[error("the PostgreSQL URL names no user")]
    User,
    /// The certificates to trust cannot be read.
    #[error("cannot read certificates from {}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// PostgreSQL's port.
const PORT: u16 = 5432;

impl Address {
    /// Reads `postgres://user:password@host:port/database?...`. Parameters: `host` (a folder
    /// with a socket), `sslmode` (`disable` or `verify-full`, the default away from this
    /// machine; `require` and `verify-ca` mean the same) and `sslrootcert` (a PEM file to trust
    /// beside the public roots).
    ///
    /// # Errors
    /// It cannot be read as such.
    pub fn from_url(url: &str) -> Result<Address, AddressError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or(AddressError::Scheme)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(decoded(password, "the password")?)),
            None => (login, None),
        };
        let user = decoded(user, "the user")?;
        if user.is_empty() {
            return Err(AddressError::User);
        }
        let (host, port) = host_and_port(place)?;
        let mut host = host;
        let (mut mode, mut roots) = (None, None);
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let unknown =
                || AddressError::Parameter(parameter.split('=').next().unwrap_or("").to_owned());
            let (name, value) = parameter.split_once('=').ok_or_else(unknown)?;
            let value = decoded(value, "a parameter")?;
            match name {
                "host" if value.starts_with('/') => host = Host::Socket(PathBuf::from(value)),
                "sslmode" if value == "disable" => mode = Some(false),
                "sslmode" if ["require", "verify-ca", "verify-full"].contains(&&*value) => {
                    mode = Some(true);
                }
                "sslrootcert" => roots = Some(PathBuf::from(value)),
                "application_name" => {}
                _ => return Err(unknown()),
            }
        }
        let on = mode.unwrap_or(!host.is_this_machine());
        let tls = match (&host, on) {
            (Host::Name(_), true) => Tls::verified(roots.as_deref())?,
            _ => Tls::Off,
        };
        let database = decoded(database, "the database")?;
        Ok(Address {
            host,
            port,
            database: if database.is_empty() {
                user.clone()
            } else {
                database
            },
            user,
            password: password.map(Password),
            tls,
        })
    }
}

impl Host {
    /// Whether nothing that is sent there leaves this machine.
    pub(crate) fn is_this_machine(&self) -> bool {
        match self {
            Host::Socket(_) => true,
            Host::Name(name) => {
                name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl Password {
    /// Keeps this one.
    pub fn new(text: impl Into<String>) -> Password {
        Password(text.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Tls {
    /// Trusts the public roots and the certificates in a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn verified(roots: Option<&Path>) -> Result<Tls, AddressError> {
        let mut trusted = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        if let Some(path) = roots {
            add_roots(&mut trusted, path).map_err(|source| AddressError::Roots {
                path: path.to_owned(),
                source,
            })?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_root_certificates(trusted)
            .with_no_client_auth();
        Ok(Tls::Verified(Arc::new(config)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tls::Off => "Off",
            Tls::Verified(_) => "Verified",
        })
    }
}

fn add_roots(trusted: &mut RootCertStore, path: &Path) -> std::io::Result<()> {
    let invalid = |reason: String| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
    let pem = std::fs::read(path)?;
    let public = trusted.len();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
        trusted
            .add(certificate)
            .map_err(|error| invalid(error.to_string()))?;
    }
    if trusted.len() == public {
        return Err(invalid("no certificate in it".to_owned()));
    }
    Ok(())
}

fn host_and_port(place: &str) -> Result<(Host, u16), AddressError> {
    let port = |text: &str| text.parse().map_err(|_| AddressError::Part("the port"));
    if let Some(rest) = place.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(AddressError::Part("the host"))?;
        let port = match rest.strip_prefix(':') {
            Some(text) => port(text)?,
            None if rest.is_empty() => PORT,
            None => return Err(AddressError::Part("the host")),
        };
        return Ok((Host::Name(host.to_owned()), port));
    }
    let (host, port) = match place.rsplit_once(':') {
        Some((host, text)) => (host, port(text)?),
        None => (place, PORT),
    };
    let host = decoded(host, "the host")?;
    Ok(match host.as_str() {
        "" => (Host::Name("localhost".to_owned()), port),
        folder if folder.starts_with('/') => (Host::Socket(PathBuf::from(folder)), port),
        _ => (Host::Name(host), port),
    })
}

fn decoded(text: &str, part: &'static str) -> Result<String, AddressError> {
    let text = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| AddressError::Part(part))?;
    if text.contains('\0') {
        return Err(AddressError::Part(part));
    }
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_all_of_it() {
        let address = Address::from_url("postgres://sync:p%40ss@127.0.0.1:6000/crm").unwrap();
        assert_eq!(address.host, Host::Name("127.0.0.1".to_owned()));
        assert_eq!((address.port, &*address.user), (6000, "sync"));
        assert_eq!(address.password.as_ref().unwrap().expose(), "p@ss");
        assert_eq!(address.database, "crm");
        assert!(matches!(address.tls, Tls::Off));
        assert!(!format!("{address:?}").contains("p@ss"));
    }

    #[test]
    fn a_socket_is_a_folder() {
        for url in [
            "postgres://sync@/crm?host=/run/postgresql",
            "postgresql://sync@%2Frun%2Fpostgresql/crm",
        ] {
            let address = Address::from_url(url).unwrap();
            assert_eq!(address.host, Host::Socket("/run/postgresql".into()));
            assert_eq!((address.port, &*address.database), (PORT, "crm"));
        }
    }

    #[test]
    fn away_from_this_machine_tls_is_the_default() {
        let tls = |url| Address::from_url(url).unwrap().tls;
        assert!(matches!(
            tls("postgres://u@db.example.com"),
            Tls::Verified(_)
        ));
        assert!(matches!(
            tls("postgres://u@db.example.com/d?sslmode=disable"),
            Tls::Off
        ));
        assert!(matches!(tls("postgres://u@[::1]:7/d"), Tls::Off));
        assert!(matches!(
            tls("postgres://u@[::1]:7/d?sslmode=require"),
            Tls::Verified(_)
        ));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_quoting_it() {
        for url in [
            "mysql://u@h/d",
            "postgres://h/d",
            "postgres://u@h:port/d",
            "postgres://u:secret@h/d?sslmode=allow",
            "postgres://u:secret@h/d?secret",
            "postgres://u:%00@h/d",
            "postgres://u@h/d?sslrootcert=/nowhere/ca.pem",
        ] {
            let error = Address::from_url(url).unwrap_err().to_string();
            assert!(!error.contains("u:secret"), "{error}");
        }
    }
}
