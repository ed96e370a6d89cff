//! `syncline mock PROVIDER`: a simulated provider account on a port.

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ::mock::{
    AccountConfig, Credentials, FaultSpec, Limit, ProviderKind, Scenario, Server, ServerConfig,
};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a simulated provider account that enforces its limits and counts what callers do wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  syncline mock rest --listen 127.0.0.1:9100 --limit 100/1s --limit 5000/1h \\
      --fault 5xx=0.05,reset_after=0.02,latency=50ms --seed 7

What it counted: GET /__mock/journal, /__mock/violations, /__mock/records, /__mock/webhooks
While it runs:   POST /__mock/fault {\"fault\":\"5xx=1\",\"for_ms\":5000}
                 POST /__mock/limit {\"limits\":[\"10/1s\"]}
                 POST /__mock/edit {\"object\":\"contact\",\"operation\":\"delete\",\"id\":\"r1\"}
                 POST /__mock/expire (every token handed out)
Faults: chances (0 to 1) reset_before, reset_after, 401, 429, 5xx, 5xx_after, garbage, late, slow,
maintenance, daily, empty, lock, item_4xx, item_5xx, item_missing, item_lost, shuffle, hook_lost,
hook_repeat, hook_late; durations latency, jitter, slow_for, stale, retry_after; poison=PREFIX")]
pub(crate) struct MockArgs {
    /// The provider to play; a name that is not known lists those that are
    provider: ProviderKind,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,

    /// Serve TLS under a fresh CA, whose certificate is written to FILE
    #[arg(
        long,
        value_name = "FILE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "syncline-mock-ca.pem"
    )]
    tls: Option<PathBuf>,

    /// A limit as COUNT/WINDOW, such as 100/1s, or 8/open for calls at a time; NAME=COUNT/WINDOW
    /// changes one of the provider's own; may be given several times
    #[arg(long = "limit", value_name = "[NAME=]COUNT/WINDOW")]
    limits: Vec<Limit>,

    /// Faults as NAME=VALUE,…; may be given several times
    #[arg(long = "fault", value_name = "FAULTS")]
    faults: Vec<FaultSpec>,

    /// Faults laid out in time: a TOML file of [[window]] tables with at_ms, for_ms and fault
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,

    /// What the dice start from
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Append each ended call to FILE, a line of JSON each
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,

    /// Answer a repeated Idempotency-Key with its first answer
    #[arg(long)]
    honour_keys: bool,

    /// Refuse a create whose external id is taken, with 409
    #[arg(long)]
    unique: bool,

    /// An access token that is taken as it is; may be given several times
    #[arg(long = "token", value_name = "TOKEN")]
    tokens: Vec<String>,

    /// The one application that gets tokens; without it every one does
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// Its secret; notifications are signed with it
    #[arg(long, value_name = "SECRET")]
    client_secret: Option<String>,

    /// The refresh token to begin with; without it the first one presented
    #[arg(long, value_name = "TOKEN")]
    refresh_token: Option<String>,

    /// How long tokens are good, instead of the provider's own time
    #[arg(long, value_name = "DURATION", value_parser = ::mock::duration::parse)]
    token_ttl: Option<Duration>,

    /// A further field that holds the caller's key, as FIELD or OBJECT.FIELD; may be given several
    /// times
    #[arg(long = "key", value_name = "[OBJECT.]FIELD")]
    key_fields: Vec<String>,

    /// Where notifications of changes are sent
    #[arg(long, value_name = "URL")]
    webhook: Option<String>,
}

/// Exit status of input that cannot be opened (`EX_NOINPUT`).
const EX_NOINPUT: u8 = 66;
/// Exit status of something the system refused (`EX_OSERR`).
const EX_OSERR: u8 = 71;
/// Exit status of a file with wrong content (`EX_CONFIG`).
const EX_CONFIG: u8 = 78;

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: MockArgs) -> ExitCode {
    match prepare(args).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { status, message }) => {
            eprintln!("syncline mock: {message}");
            ExitCode::from(status)
        }
    }
}

/// What the user is told, and the status that tells a script.
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn new(status: u8, what: &str, error: &dyn Error) -> Self {
        let mut message = if what.is_empty() {
            String::new()
        } else {
            format!("{what}: ")
        };
        message.push_str(&error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self { status, message }
    }
}

fn prepare(args: MockArgs) -> Result<ServerConfig, Failure> {
    let mut faults = FaultSpec::default();
    for more in args.faults {
        faults.extend(more);
    }
    let scenario = match args.scenario {
        None => Scenario::default(),
        Some(path) => {
            let what = path.display().to_string();
            let toml = std::fs::read_to_string(&path)
                .map_err(|error| Failure::new(EX_NOINPUT, &what, &error))?;
            Scenario::parse(&toml).map_err(|error| Failure::new(EX_CONFIG, &what, &error))?
        }
    };
    Ok(ServerConfig {
        listen: args.listen,
        tls_ca: args.tls,
        journal: args.journal,
        account: AccountConfig {
            provider: args.provider,
            seed: args.seed,
            limits: args.limits,
            faults,
            scenario,
            unique: args.unique,
            honour_keys: args.honour_keys,
            credentials: Credentials {
                client_id: args.client_id,
                client_secret: args.client_secret,
                refresh_token: args.refresh_token,
                tokens: args.tokens,
                token_ttl: args.token_ttl,
            },
            key_fields: args.key_fields,
            webhook: args.webhook,
            ..AccountConfig::default()
        },
    })
}

fn serve(config: ServerConfig) -> Result<(), Failure> {
    let system = |what| move |error: io::Error| Failure::new(EX_OSERR, what, &error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(system("starting"))?.block_on(async {
        let ca = config.tls_ca.clone();
        let server = Server::bind(config)
            .await
            .map_err(|error| Failure::new(EX_OSERR, "", &error))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("signals"))?;
        announce(server.addr(), ca).map_err(system("stdout"))?;
        server
            .run(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await;
        Ok(())
    })
}

fn announce(addr: SocketAddr, ca: Option<PathBuf>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match ca {
        None => writeln!(stdout, "listening http://{addr}")?,
        Some(ca) => writeln!(stdout, "listening https://{addr}\nca {}", ca.display())?,
    }
    stdout.flush()
}
