//! Who is let in, and whom we talk to.

use syncline_postgres::{Connection, Error};

use crate::cluster::{Cluster, value};
use crate::run;

#[test]
fn passwords_are_proved_and_wrong_ones_refused() {
    run("passwords_are_proved_and_wrong_ones_refused", async {
        let cluster = Cluster::shared()?;
        for host in ["127.0.0.1", "localhost"] {
            let mut address = cluster.tcp_address(host);
            let mut sql = Connection::open(&address).await.unwrap();
            assert_eq!(value(&mut sql, "SELECT 1").await.as_deref(), Some("1"));
            address.password = Some(syncline_postgres::Password::new("wrong"));
            let error = Connection::open(&address).await.unwrap_err();
            assert!(
                matches!(&error, Error::Server(error) if error.code == "28P01"),
                "{error}"
            );
            address.password = None;
            let error = Connection::open(&address).await.unwrap_err();
            assert!(matches!(error, Error::PasswordMissing), "{error}");
        }
        let mut elsewhere = cluster.tcp_address("127.0.0.1");
        elsewhere.host = syncline_postgres::Host::Name("db.example.com".to_owned());
        let error = Connection::open(&elsewhere).await.unwrap_err();
        assert!(matches!(error, Error::Insecure { .. }), "{error}");
        Ok(())
    });
}

#[test]
fn tls_is_spoken_with_a_server_that_proves_its_name_only() {
    run(
        "tls_is_spoken_with_a_server_that_proves_its_name_only",
        async {
            let cluster = Cluster::start()?;
            let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            cluster.install("server.crt", &issued.cert.pem());
            cluster.install("server.key", &issued.signing_key.serialize_pem());
            let mut sql = Connection::open(&cluster.address("postgres"))
                .await
                .unwrap();
            sql.query("ALTER SYSTEM SET ssl = on").await.unwrap();
            sql.query("SELECT pg_reload_conf()").await.unwrap();
            drop(sql);
            cluster.shut_down();
            cluster.run()?;
            let folder = tempfile::tempdir().unwrap();
            let roots = folder.path().join("ca.pem");
            std::fs::write(&roots, issued.cert.pem()).unwrap();
            let mut address = cluster.tcp_address("localhost");
            address.tls = syncline_postgres::Tls::verified(Some(&roots)).unwrap();
            let mut sql = Connection::open(&address).await.unwrap();
            let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            assert_eq!(value(&mut sql, encrypted).await.as_deref(), Some("t"));
            // The certificate is not of that name, and these roots did not sign it.
            let mut other = cluster.tcp_address("127.0.0.1");
            other.tls = address.tls.clone();
            assert!(matches!(
                Connection::open(&other).await,
                Err(Error::Connect { .. })
            ));
            address.tls = syncline_postgres::Tls::verified(None).unwrap();
            assert!(matches!(
                Connection::open(&address).await,
                Err(Error::Connect { .. })
            ));
            Ok(())
        },
    );
}
