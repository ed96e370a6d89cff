//! A provider with a token endpoint that rotates refresh tokens, and counts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

type Watch = Box<dyn Fn(&str) + Send>;

pub(crate) struct Provider {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    refresh: String,
    access: Option<String>,
    asked: u32,
    calls: u32,
    refused: u32,
    accepts: bool,
    quotes: bool,
    status: u16,
    lifetime: Option<Duration>,
    form: String,
    watch: Option<Watch>,
    watched: Result<(), String>,
}

impl Provider {
    /// One whose first refresh token is this.
    pub(crate) fn start(refresh: &str) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            refresh: refresh.to_owned(),
            access: None,
            asked: 0,
            calls: 0,
            refused: 0,
            accepts: true,
            quotes: false,
            status: 200,
            lifetime: None,
            form: String::new(),
            watch: None,
            watched: Ok(()),
        }));
        let serving = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&serving);
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Provider { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the access token that is good now.
    pub(crate) fn expire(&self) {
        self.with(|state| state.access = None);
    }

    /// No access token is good from now on.
    pub(crate) fn accept_nothing(&self) {
        self.with(|state| state.accepts = false);
    }

    /// Errors repeat what was sent.
    pub(crate) fn quote_requests(&self) {
        self.with(|state| state.quotes = true);
    }

    /// Of the token endpoint.
    pub(crate) fn answer_with(&self, status: u16) {
        self.with(|state| state.status = status);
    }

    pub(crate) fn lifetime(&self, lifetime: Duration) {
        self.with(|state| state.lifetime = Some(lifetime));
    }

    /// Looks at the token of each call.
    pub(crate) fn watch(&self, watch: impl Fn(&str) + Send + 'static) {
        self.with(|state| state.watch = Some(Box::new(watch)));
    }

    /// Tokens asked for.
    pub(crate) fn asked(&self) -> u32 {
        self.with(|state| state.asked)
    }

    /// Calls that came, refused ones too.
    pub(crate) fn calls(&self) -> u32 {
        self.with(|state| state.calls)
    }

    /// Calls that got a 401.
    pub(crate) fn refused(&self) -> u32 {
        self.with(|state| state.refused)
    }

    pub(crate) fn until_asked(&self, times: u32) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.asked() < times {
            assert!(Instant::now() < end, "asked {} times", self.asked());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The claims of the assertion that was shown, if its signature verifies.
    pub(crate) fn assertion(&self, public: &[u8]) -> Value {
        let form = self.with(|state| state.form.clone());
        let (_, assertion) = form.split_once("&assertion=").unwrap();
        let assertion = assertion
            .replace("%2E", ".")
            .replace("%2D", "-")
            .replace("%5F", "_");
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let decode = |text| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(signed.as_bytes(), &decode(signature))
            .unwrap();
        let (head, claims) = signed.split_once('.').unwrap();
        let head: Value = serde_json::from_slice(&decode(head)).unwrap();
        assert_eq!(head["alg"], "RS256");
        serde_json::from_slice(&decode(claims)).unwrap()
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.with(|state| state.watched.clone()).unwrap();
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut out = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = read_request(&mut reader) {
        let (status, reply) = {
            let mut state = state.lock().unwrap();
            if head.starts_with("POST /token ") {
                state.token(body)
            } else {
                state.call(&head)
            }
        };
        let reply = reply.to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{reply}",
            reply.len()
        );
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let prefix = format!("{name}: ");
    head.lines()
        .find_map(|line| line.strip_prefix(prefix.as_str()))
}

impl State {
    fn token(&mut self, form: String) -> (u16, Value) {
        self.asked += 1;
        self.form = form;
        if self.status != 200 {
            return (self.status, json!({}));
        }
        let shown = self.form.split_once("&refresh_token=");
        // Letters and digits only, but for the dash.
        if shown.is_some_and(|(_, token)| token.replace("%2D", "-") != self.refresh) {
            let error = if self.quotes {
                json!({ "error": self.form, "error_description": self.form })
            } else {
                json!({ "error": "invalid_grant" })
            };
            return (400, error);
        }
        self.refresh = format!("rotated-{}", self.asked);
        let access = format!("access-{}", self.asked);
        self.access = Some(access.clone());
        let mut reply = json!({ "access_token": access, "refresh_token": self.refresh });
        if let Some(lifetime) = self.lifetime {
            reply["expires_in"] = json!(lifetime.as_secs());
        }
        (200, reply)
    }

    fn call(&mut self, head: &str) -> (u16, Value) {
        self.calls += 1;
        let bearer = header(head, "authorization").and_then(|value| value.strip_prefix("Bearer "));
        let bearer = bearer.unwrap_or_default();
        if let Some(watch) = &self.watch {
            let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| watch(bearer)));
            if looked.is_err() {
                self.watched = Err(format!("a call with {bearer}"));
            }
        }
        if self.accepts && self.access.as_deref() == Some(bearer) {
            (200, json!({ "id": 1 }))
        } else {
            self.refused += 1;
            (401, json!({}))
        }
    }
}
