//! A source driven for good, over restarts and while nobody takes its events.

use std::sync::Arc;

use syncline_postgres::{Connection, Event, Lsn, follow};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cluster::{Cluster, Unavailable, value};
use crate::run;
use crate::source::{contacts, settings};

#[test]
fn a_restart_of_the_server_in_the_middle_loses_and_doubles_nothing() {
    run(
        "a_restart_of_the_server_in_the_middle_loses_and_doubles_nothing",
        async {
            let cluster = Arc::new(Cluster::start()?);
            let address = cluster.database("restart").await;
            drop(contacts(&address).await);
            // Room for little, so that the source is held back by us again and again.
            let (events, mut told) = mpsc::channel(4);
            let (confirm, confirmed) = watch::channel(Lsn::default());
            let settings = settings(&address, "restart", &["contacts"]);
            let following = tokio::spawn(follow(settings, events, confirmed));
            while let Some(event) = told.recv().await {
                if let Event::SnapshotEnded { lsn } = event {
                    confirm.send_replace(lsn);
                    break;
                }
            }
            let mut sql = Connection::open(&address).await.unwrap();
            let streams = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'";
            while value(&mut sql, streams).await.is_none() {
                tokio::task::yield_now().await;
            }
            drop(sql);
            let mut keys: Vec<u64> = Vec::new();
            let mut interruptions = 0;
            for round in 0..4_u64 {
                let mut sql = Connection::open(&address).await.unwrap();
                for chunk in 0..10 {
                    let first = round * 1000 + chunk * 100;
                    let insert = format!(
                        "INSERT INTO contacts SELECT generate_series({first}, {first} + 99)"
                    );
                    sql.query(&insert).await.unwrap();
                }
                drop(sql);
                let stop_at = round * 1000 + 550;
                let told_until = 1000 * (round as usize + 1);
                let mut restart: Option<JoinHandle<Result<(), Unavailable>>> = None;
                let mut restarted = false;
                while keys.len() < told_until || !restarted {
                    let event = tokio::select! {
                        event = told.recv() => event.expect("the source goes on"),
                        result = async { restart.as_mut().expect("begun").await }, if restart.is_some() && !restarted => {
                            result.unwrap()?;
                            restarted = true;
                            continue;
                        }
                    };
                    match event {
                        Event::Change(change) => keys.push(change.key.parse().unwrap()),
                        Event::Committed { lsn } => drop(confirm.send_replace(lsn)),
                        Event::Interrupted { .. } => interruptions += 1,
                        other => panic!("unexpected: {other:?}"),
                    }
                    if restart.is_none() && keys.last() == Some(&stop_at) {
                        let cluster = Arc::clone(&cluster);
                        // Beside us: to stop in order, the server wants all it told to be confirmed.
                        restart = Some(spawn_blocking(move || {
                            if round % 2 == 0 {
                                cluster.crash()
                            } else {
                                cluster.shut_down()
                            }
                            cluster.run()
                        }));
                    }
                }
            }
            let expected: Vec<u64> = (0..4000).collect();
            let differs = keys
                .iter()
                .zip(&expected)
                .find(|(told, expected)| told != expected);
            assert_eq!((keys.len(), differs), (expected.len(), None));
            assert!(interruptions > 0);
            drop(told);
            following.await.unwrap().unwrap();
            Ok(())
        },
    );
}

#[test]
fn a_source_that_is_held_back_reads_no_further_and_is_not_given_up() {
    run(
        "a_source_that_is_held_back_reads_no_further_and_is_not_given_up",
        async {
            let cluster = Cluster::start()?;
            let address = cluster.database("held").await;
            let mut sql = contacts(&address).await;
            sql.query("ALTER DATABASE held SET wal_sender_timeout = '1s'")
                .await
                .unwrap();
            let (events, mut told) = mpsc::channel(16);
            let (confirm, confirmed) = watch::channel(Lsn::default());
            let settings = settings(&address, "held", &["contacts"]);
            let following = tokio::spawn(follow(settings, events, confirmed));
            while let Some(event) = told.recv().await {
                if let Event::SnapshotEnded { lsn } = event {
                    confirm.send_replace(lsn);
                    break;
                }
            }
            // More than any buffer on the way holds, in transactions of their own, so that the
            // server's position says how far it got.
            for first in (1..=50_000).step_by(1000) {
                let rows = format!("generate_series({first}, {first} + 999) n");
                let insert = format!("INSERT INTO contacts SELECT n, repeat('x', 200) FROM {rows}");
                sql.query(&insert).await.unwrap();
            }
            // Three times the server's patience, in which nobody takes an event.
            sql.query("SELECT pg_sleep(3)").await.unwrap();
            let sent = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), sent_lsn) > 1000000
                FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid
                WHERE slot_name = 'held'";
            assert_eq!(value(&mut sql, sent).await.as_deref(), Some("t"));
            // Nor does it lose the event it holds when the connection breaks meanwhile.
            cluster.crash();
            cluster.run()?;
            let mut sql = Connection::open(&address).await.unwrap();
            sql.query("SELECT pg_sleep(1)").await.unwrap();
            let mut next_key = 1;
            while next_key <= 50_000 {
                match told.recv().await.expect("the source goes on") {
                    Event::Change(change) => {
                        assert_eq!(change.key, next_key.to_string());
                        next_key += 1;
                    }
                    Event::Committed { .. } | Event::Interrupted { .. } => {}
                    other => panic!("unexpected: {other:?}"),
                }
            }
            drop(told);
            following.await.unwrap().unwrap();
            Ok(())
        },
    );
}
