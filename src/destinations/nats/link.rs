//! Connections to a server of a cluster: made by the node's rules, signed in.
//!
//! Always true: only servers of the settings are dialled, never those that a server announces (`connect_urls`), each
//! through the guarded way out; with `tls://` nothing is said before the handshake but what the server says first, and a
//! name is proven by its certificate. Not here: how many there are (`destinations::pool`), what is published (`publish`).

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::settings::{Identity, Place, Way};
use super::verdict;
use super::wire::{Frame, Info, Message, Pipe, Wire};
use crate::destinations::driver::{Fault, Verdict};
use crate::destinations::pool::{self, Pool, Room};
use crate::domain::failure::Failure;
use crate::domain::trouble::Trouble;
use crate::outbound::Client;
use crate::outbound::raw::classify_tls;

/// Connections of one destination at once.
const OPEN_MAX: usize = 8;
/// For TCP, TLS and the first word of the server; and for signing in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For an answer to a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is signed in.
pub(super) struct Link {
    pub(super) wire: Wire,
    pub(super) info: Info,
    /// What answers come back on: `{inbox}{number}`.
    pub(super) inbox: String,
    /// The number of the next answer; none is used twice.
    pub(super) number: u64,
}

/// A connection in use. Unless it is given back it is closed.
pub(super) type Lease = pool::Lease<Link>;

/// A server that has introduced itself.
pub(super) struct Reached {
    wire: Wire,
    pub(super) info: Info,
}

/// The connections of one destination.
pub(super) struct Links {
    way: Way,
    pool: Arc<Pool<Link>>,
}

impl Links {
    pub(super) fn new(client: Client, way: Way) -> Self {
        Self { way, pool: Arc::new(Pool::new(client, OPEN_MAX)) }
    }

    /// A connection: one that is there, or a new one to the first server that lets us in.
    pub(super) async fn take(&self) -> Result<Lease, Verdict> {
        let room = self.room().await?;
        while let Some(mut link) = self.pool.kept(&room) {
            // A server that was restarted meanwhile is noticed here, and not in the middle of a batch.
            if link.lives().await.is_ok() {
                return Ok(room.holding(link));
            }
        }
        let mut last = verdict::way(Failure::ConnectFailed);
        for place in &self.way.places {
            last = match self.reach(place).await {
                Ok(reached) => match self.sign_in(reached).await {
                    Ok(link) => return Ok(room.holding(link)),
                    // The others of its cluster know no other users.
                    Err(verdict @ Verdict::Config(_)) => return Err(verdict),
                    Err(verdict) => verdict,
                },
                Err(verdict) => verdict,
            };
        }
        Err(last)
    }

    /// Gives a connection back on which nothing is under way.
    pub(super) fn give_back(&self, lease: Lease) {
        // A server that is about to stop wants no more of it.
        if !lease.connection.info.ldm {
            self.pool.give_back(lease);
        }
    }

    /// Room for one more connection.
    pub(super) async fn room(&self) -> Result<Room, Verdict> {
        self.pool.room().await
    }

    /// The first server that can be reached.
    pub(super) async fn reach_any(&self) -> Result<Reached, Verdict> {
        let mut last = verdict::way(Failure::ConnectFailed);
        for place in &self.way.places {
            match self.reach(place).await {
                Ok(reached) => return Ok(reached),
                Err(verdict) => last = verdict,
            }
        }
        Err(last)
    }

    async fn reach(&self, place: &Place) -> Result<Reached, Verdict> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        let way = &self.way;
        let tcp = self.pool.out().dial(&place.host, place.port, way.tls.is_some(), CONNECT_TIMEOUT).await;
        let tcp = tcp.map_err(verdict::way)?;
        tcp.set_nodelay(true).ok();
        let mut wire = Wire::new(tcp);
        if way.tls_first {
            wire = self.encrypted(wire, place, until).await?;
        }
        let info = introduced(&mut wire, until).await?;
        match &way.tls {
            None if info.tls_required => return Err(verdict::error("Secure Connection - TLS Required")),
            Some(_) if !way.tls_first => {
                if !info.tls_required && !info.tls_available {
                    let detail = "the server does not speak TLS: set it up there, or use nats:// in settings.servers";
                    return Err(Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)));
                }
                wire = self.encrypted(wire, place, until).await?;
            }
            _ => {}
        }
        if !info.headers {
            let detail = "the server knows no headers: nats-server has them from 2.2 on";
            return Err(Verdict::Config(Fault::new(Trouble::SettingsRefused, detail)));
        }
        Ok(Reached { wire, info })
    }

    async fn encrypted(&self, wire: Wire, place: &Place, until: Instant) -> Result<Wire, Verdict> {
        let Some(config) = self.way.tls.clone() else { return Ok(wire) };
        // Whatever came before the handshake could have been put there by anybody.
        let pipe: Box<dyn Pipe> = wire.into_pipe().ok_or_else(verdict::foreign)?;
        let host = place.host.strip_suffix('.').unwrap_or(&place.host).to_owned();
        let name = ServerName::try_from(host).map_err(|_| verdict::way(Failure::BadRequest))?;
        match timeout_at(until, TlsConnector::from(config).connect(name, pipe)).await {
            Ok(made) => made.map(Wire::new).map_err(|error| verdict::way(classify_tls(&error))),
            Err(_) => Err(verdict::way(Failure::ConnectTimeout)),
        }
    }

    /// Says who we are, and asks for the answers to what will be published.
    pub(super) async fn sign_in(&self, reached: Reached) -> Result<Link, Verdict> {
        let Reached { mut wire, info } = reached;
        let until = Instant::now() + CONNECT_TIMEOUT;
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Verdict::Retry(Fault::new(Trouble::Failed, "")))?;
        let inbox = format!("{}.{}.", self.way.inbox_prefix, hex::encode(random));
        let hello = self.hello(&info);
        wire.line(&format!("CONNECT {hello}"));
        wire.line(&format!("SUB {inbox}* 1"));
        let mut link = Link { wire, info, inbox, number: 0 };
        link.pong(until).await?;
        Ok(link)
    }

    /// NATS docs, "Client Protocol", section "CONNECT".
    fn hello(&self, info: &Info) -> serde_json::Value {
        let mut hello = json!({
            "verbose": false,
            "pedantic": false,
            "tls_required": self.way.tls.is_some(),
            "name": "tidemill",
            "lang": "rust",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": 1,
            "headers": true,
            "no_responders": true,
        });
        let nonce = info.nonce.as_deref().unwrap_or_default();
        let mut put = |name: &str, value: &str| {
            if let Some(hello) = hello.as_object_mut() {
                hello.insert(name.to_owned(), value.into());
            }
        };
        match &self.way.identity {
            Identity::Nobody => {}
            Identity::User(user, password) => {
                put("user", user);
                put("pass", password.expose());
            }
            Identity::Token(token) => put("auth_token", token.expose()),
            Identity::Key(key) => {
                put("nkey", &key.public);
                put("sig", &key.sign(nonce));
            }
            Identity::Jwt(jwt, key) => {
                put("jwt", jwt.expose());
                put("sig", &key.sign(nonce));
            }
        }
        hello
    }
}

/// What the server says first.
async fn introduced(wire: &mut Wire, until: Instant) -> Result<Info, Verdict> {
    match wire.read(until).await {
        Ok(Frame::Info(info)) => Ok(info),
        Ok(Frame::Error(text)) => Err(verdict::error(&text)),
        Ok(_) => Err(verdict::foreign()),
        // Encrypted servers that wait for us say nothing.
        Err(Verdict::Retry(fault)) if fault == Fault::way(Failure::ResponseTimeout) => {
            let detail = "the server says nothing: with `handshake_first` there, set tlsFirst";
            Err(Verdict::Retry(Fault::new(Trouble::Failed, detail)))
        }
        Err(verdict) => Err(verdict),
    }
}

impl Link {
    async fn lives(&mut self) -> Result<(), Verdict> {
        self.pong(Instant::now() + ANSWER_TIMEOUT).await
    }

    /// Waits until the server has read all that was sent to it, and had nothing against it.
    pub(super) async fn pong(&mut self, until: Instant) -> Result<(), Verdict> {
        self.wire.line("PING");
        loop {
            match self.wire.read(until).await? {
                Frame::Pong => return Ok(()),
                Frame::Error(text) => return Err(verdict::error(&text)),
                Frame::Info(info) => self.info.ldm |= info.ldm,
                _ => {}
            }
        }
    }

    /// The next subject for an answer.
    pub(super) fn reply(&mut self) -> (u64, String) {
        let number = self.number;
        self.number += 1;
        (number, format!("{}{number}", self.inbox))
    }

    /// The number of the answer that a message is.
    pub(super) fn number(&self, message: &Message) -> Option<u64> {
        message.subject.strip_prefix(&self.inbox)?.parse().ok()
    }

    /// Asks a question. A subject that may not be asked is a `Config`, and the connection can still be used.
    pub(super) async fn ask(&mut self, subject: &str, body: &[u8]) -> Result<Message, Verdict> {
        let until = Instant::now() + ANSWER_TIMEOUT;
        let (number, reply) = self.reply();
        self.wire.publish(subject, &reply, body);
        loop {
            match self.wire.read(until).await? {
                Frame::Message(message) if self.number(&message) == Some(number) => return Ok(message),
                Frame::Error(text) => return Err(verdict::error(&text)),
                _ => {}
            }
        }
    }
}
