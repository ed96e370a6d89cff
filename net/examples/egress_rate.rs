//! Calls a second over plain HTTP, and what one costs in processor time of the calling thread.
//!
//! `cargo run --release -p syncline-net --example egress_rate -- [SECONDS] [IN_FLIGHT]`
//!
//! The server is a thread of this process and answers without looking, so the rate is bound by the
//! slower of the two; the processor time is the client's alone.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::provider::{CallKind, Method, Request};
use rustix::time::{ClockId, clock_gettime};
use syncline_net::egress::{
    Account, AccountSettings, AddressPolicy, Authorization, Egress, EgressSettings, HeaderSettings,
    Origin,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u32>());
    let seconds = arguments.next().and_then(Result::ok).unwrap_or(3);
    let in_flight = arguments.next().and_then(Result::ok).unwrap_or(32);
    let address = start_server()?;

    let egress = Rc::new(Egress::new(EgressSettings::default()));
    let settings = AccountSettings {
        origin: Origin::parse(&format!("http://{address}")).map_err(io::Error::other)?,
        addresses: AddressPolicy::Any,
        authorization: Authorization::Bearer {
            token: "t".repeat(64),
        },
        headers: HeaderSettings::default(),
        ca_file: None,
        connections_max: in_flight as usize,
        timeout: Duration::from_secs(30),
    };
    let account = Rc::new(egress.account(settings).map_err(io::Error::other)?);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        // Connections open and caches warm.
        calls_until(&egress, &account, in_flight, Duration::from_millis(300)).await;
        let (begun, processor) = (Instant::now(), processor_time());
        let calls = calls_until(&egress, &account, in_flight, Duration::from_secs(u64::from(seconds))).await;
        let (wall, processor) = (begun.elapsed(), processor_time() - processor);
        println!(
            "{calls} calls, {in_flight} in flight: {:.0}/s; client thread {:.2} us of processor a call, {:.0}/s if it had a core to itself",
            calls as f64 / wall.as_secs_f64(),
            processor.as_secs_f64() * 1e6 / calls as f64,
            calls as f64 / processor.as_secs_f64(),
        );
    }));
    Ok(())
}

async fn calls_until(
    egress: &Rc<Egress>,
    account: &Rc<Account>,
    in_flight: u32,
    time: Duration,
) -> u64 {
    let end = Instant::now() + time;
    let lanes: Vec<_> = (0..in_flight)
        .map(|lane| {
            let (egress, account) = (Rc::clone(egress), Rc::clone(account));
            spawn_local(async move {
                let mut calls = 0;
                while Instant::now() < end {
                    let reply = egress.call(&account, &request(lane, calls)).await;
                    assert_eq!(reply.expect("the server answers").status, 200);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let mut calls = 0;
    for lane in lanes {
        calls += lane.await.expect("no lane panics");
    }
    calls
}

fn request(lane: u32, number: u64) -> Request {
    Request {
        kind: CallKind::Update,
        method: Method::Patch,
        path_and_query: format!("/contact/{lane}-{number}"),
        body: Bytes::from_static(
            br#"{"first_name":"Ada","email":"ada@example.com","status":"active"}"#,
        ),
        idempotency_key: Some("01JD0000000000000000000000".to_owned()),
        request_id: format!("{lane}-{number}"),
        traceparent: None,
    }
}

fn start_server() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, async {
            let listener = TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                spawn_local(serve(stream));
            }
        })
    });
    Ok(address)
}

/// Takes whatever one read brings for one request: the client sends each in one piece.
async fn serve(mut stream: TcpStream) {
    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"id\":\"1234\"}";
    let mut buffer = vec![0; 16 * 1024];
    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
        if stream.write_all(REPLY).await.is_err() {
            return;
        }
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}
