//! A session under test, with its engine and without a socket.

use syncline_net::ingest::frame::{FrameReader, Kind};
use syncline_net::ingest::{Intake, Session, SessionId, SessionLimits};

use super::engine::Engine;

pub(crate) struct Talk {
    pub(crate) session: Session,
    pub(crate) engine: Engine,
}

impl Talk {
    pub(crate) fn new() -> Talk {
        Talk::with(Engine::default(), SessionLimits::default())
    }

    pub(crate) fn with(engine: Engine, limits: SessionLimits) -> Talk {
        Talk {
            session: Session::new(SessionId(1), limits),
            engine,
        }
    }

    /// A session whose client may subscribe.
    pub(crate) fn subscribable() -> Talk {
        let mut talk = Talk::new();
        let limits = SessionLimits::default();
        talk.session = Session::new(SessionId(1), limits).with_subscriptions();
        talk
    }

    /// The client sends; what the engine settles meanwhile reaches the session.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Talk {
        self.session.handle_bytes(&mut self.engine, bytes.as_ref());
        self.turn()
    }

    /// A wake-up.
    pub(crate) fn turn(&mut self) -> &mut Talk {
        while let Some(settled) = self.engine.poll_settled() {
            self.session.handle_settled(settled);
        }
        self.session.resume(&mut self.engine);
        while let Some(settled) = self.engine.poll_settled() {
            self.session.handle_settled(settled);
        }
        self
    }

    pub(crate) fn half_close(&mut self) -> &mut Talk {
        self.session.handle_half_close();
        self
    }

    /// The client reads all there is.
    pub(crate) fn read(&mut self) -> Vec<u8> {
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while self.session.take_output(&mut piece) {
            all.extend_from_slice(&piece);
            self.session.handle_written();
            self.turn();
        }
        all
    }

    pub(crate) fn read_text(&mut self) -> String {
        String::from_utf8(self.read()).unwrap()
    }

    /// Frames as `KIND seq payload`.
    pub(crate) fn read_frames(&mut self) -> Vec<String> {
        frames(&self.read())
    }
}

pub(crate) fn frames(bytes: &[u8]) -> Vec<String> {
    let mut reader = FrameReader::default();
    let mut input = bytes;
    let mut found = Vec::new();
    while let Some(frame) = reader.next(&mut input).unwrap() {
        let kind = match frame.kind {
            Kind::Hello => "HELLO",
            Kind::Welcome => "WELCOME",
            Kind::Events => "EVENTS",
            Kind::Ack => "ACK",
            Kind::Reject => "REJECT",
            Kind::Error => "ERROR",
            Kind::Credit => "CREDIT",
        };
        let text = format!(
            "{kind} {} {}",
            frame.seq,
            String::from_utf8_lossy(frame.payload())
        );
        found.push(text.trim_end().to_owned());
    }
    assert!(!reader.is_mid_frame());
    found
}
