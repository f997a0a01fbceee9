//! Connects to the first host that fits, before a deadline: look the name up, open a socket, agree on TLS, log in, and
//! see whether the server can write.
//!
//! Hosts, and the addresses of a name, are tried in turn. Each gets an equal share of the time that is left, so that one
//! that does not answer leaves time for the others. As in libpq, a host that rejects the user ends the search.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::{self, ChannelBinding};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::address::{Address, Endpoint, Keepalives, ServerHost, SslMode, Target, socket_path};
use super::error::{Cause, PASSWORD_HINT, ServerFailure, lost};
use super::statement::quoted;
use super::tls::{HandshakeDone, REJECTED, Socket, TlsFailure, Wire, handshake, is_rejected};
use crate::store::deadline::Deadline;
use crate::store::error::{Code, Error};

type Connection = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// The half of a connection that reads and writes. Statements of the client make progress while this future is polled.
/// It ends when the client is dropped, or with the error that the connection was lost with.
#[must_use = "a connection makes no progress unless it is polled"]
pub(super) struct Driver {
    connection: Connection,
    /// Does the connection leave this machine without TLS?
    pub(super) is_exposed: bool,
}

impl Future for Driver {
    type Output = Result<(), tokio_postgres::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.connection.as_mut().poll(cx)
    }
}

const NO_TLS_HINT: &str = "Turn on TLS in the server (ssl = on), or set another sslmode.";

/// How long before its deadline a connection is given up, so that a caller that waits until then gets the cause.
const MARGIN: Duration = Duration::from_millis(5);

/// Connects. It has to run in a current-thread runtime of tokio with I/O and time. `asked`: the password that the
/// program's function has returned. It is called before, because it may wait, and may use another store.
pub(super) async fn connect(
    address: &Address,
    asked: Option<&str>,
    deadline: Deadline,
) -> Result<(Client, Driver), ServerFailure> {
    let mut hosts: Vec<&ServerHost> = address.hosts.iter().collect();
    if address.is_shuffled {
        fastrand::shuffle(&mut hosts);
    }
    let mut earlier = None;
    for (index, host) in hosts.iter().enumerate() {
        let Some(left) = deadline.left().map(|left| left.saturating_sub(MARGIN)) else { break };
        let login = Login { address, host, asked };
        let cause = match login.host(share(left, hosts.len() - index, None)).await {
            Ok(connected) => return Ok(connected),
            Err(ServerFailure::Final(error)) => return Err(ServerFailure::Final(error)),
            Err(ServerFailure::Lost(cause) | ServerFailure::Retry(cause)) => cause,
        };
        let cause = if hosts.len() > 1 { cause.of_host(&host.to_string()) } else { cause };
        earlier = Some(cause.or_earlier(earlier));
    }
    Err(earlier.map_or_else(ServerFailure::timeout, ServerFailure::Lost))
}

/// The end of the time for one of `count` hosts or addresses that are left to try.
fn share(left: Duration, count: usize, limit: Option<Duration>) -> Instant {
    Instant::now() + share_of(left, count, limit)
}

fn share_of(left: Duration, count: usize, limit: Option<Duration>) -> Duration {
    let share = left / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    limit.map_or(share, |limit| share.min(limit))
}

/// What to do about TLS in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encryption {
    Without,
    IfOffered,
    Required,
}

/// How an attempt failed, as far as another one with or without TLS may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// The server offers TLS, and the handshake failed.
    Handshake,
    /// The server rejected the connection before it asked for a password (28000). `pg_hba.conf` may have a line for
    /// connections with TLS, or for those without.
    Rejected,
    Other,
}

impl Encryption {
    const fn first(mode: SslMode) -> Self {
        match mode {
            SslMode::Disable | SslMode::Allow => Self::Without,
            SslMode::Prefer => Self::IfOffered,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Self::Required,
        }
    }

    /// The second attempt, if there is one.
    const fn second(mode: SslMode, obstacle: Obstacle) -> Option<Self> {
        match (mode, obstacle) {
            (SslMode::Allow, Obstacle::Rejected) => Some(Self::Required),
            (SslMode::Prefer, Obstacle::Handshake | Obstacle::Rejected) => Some(Self::Without),
            _ => None,
        }
    }
}

/// A failed attempt.
struct FailedLogin {
    obstacle: Obstacle,
    failure: ServerFailure,
}

impl From<ServerFailure> for FailedLogin {
    fn from(failure: ServerFailure) -> Self {
        Self { obstacle: Obstacle::Other, failure }
    }
}

impl From<Cause> for FailedLogin {
    fn from(cause: Cause) -> Self {
        ServerFailure::Lost(cause).into()
    }
}

/// Where and as whom to log in.
struct Login<'a> {
    address: &'a Address,
    host: &'a ServerHost,
    /// The password that a function returned.
    asked: Option<&'a str>,
}

impl Login<'_> {
    /// Tries every address of the host until `end`.
    async fn host(&self, end: Instant) -> Result<(Client, Driver), ServerFailure> {
        let addresses = match &self.host.endpoint {
            Endpoint::Socket(folder) => {
                let end = self.limited(end);
                return self.place(&Place::Socket(socket_path(folder, self.host.port).as_path()), end).await;
            }
            Endpoint::Address(address, _) => vec![SocketAddr::new(*address, self.host.port)],
            Endpoint::Name(name) => {
                let lookup = resolve(name.clone(), self.host.port);
                timeout_at(self.limited(end), lookup).await.unwrap_or_else(|_| {
                    Err(ServerFailure::Lost(Cause::timeout("its host name could not be resolved in time")))
                })?
            }
        };
        let mut earlier = None;
        for (index, address) in addresses.iter().enumerate() {
            let left = end.saturating_duration_since(Instant::now());
            let end = share(left, addresses.len() - index, self.address.connect_timeout);
            match self.place(&Place::Tcp(*address), end).await {
                Ok(connected) => return Ok(connected),
                Err(ServerFailure::Final(error)) => return Err(ServerFailure::Final(error)),
                Err(ServerFailure::Lost(cause) | ServerFailure::Retry(cause)) => {
                    earlier = Some(cause.or_earlier(earlier));
                }
            }
        }
        Err(ServerFailure::Lost(earlier.unwrap_or_else(|| Cause::misnamed("its host name has no address"))))
    }

    fn limited(&self, end: Instant) -> Instant {
        self.address.connect_timeout.map_or(end, |limit| end.min(Instant::now() + limit))
    }

    /// Connects to one place, with or without TLS.
    async fn place(&self, place: &Place<'_>, end: Instant) -> Result<(Client, Driver), ServerFailure> {
        let failed = match self.attempt(place, Encryption::first(self.host.mode), end).await {
            Ok(connected) => return Ok(connected),
            Err(failed) => failed,
        };
        let Some(second) = Encryption::second(self.host.mode, failed.obstacle) else { return Err(failed.failure) };
        self.attempt(place, second, end).await.map_err(|again| match again.failure {
            // That the server has no TLS says less than why it was asked for TLS.
            ServerFailure::Final(error) if error.code() == Code::InsecureConnection => failed.failure,
            failure => failure,
        })
    }

    async fn attempt(
        &self,
        place: &Place<'_>,
        encryption: Encryption,
        end: Instant,
    ) -> Result<(Client, Driver), FailedLogin> {
        let socket = match timeout_at(end, place.open(self.address.keepalives)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(self.not_opened(&error).into()),
            Err(_) => return Err(Cause::timeout("connecting to it took too long").into()),
        };
        match timeout_at(end, self.session(socket, encryption)).await {
            Ok(result) => result,
            Err(_) => Err(ServerFailure::timeout().into()),
        }
    }

    fn not_opened(&self, error: &io::Error) -> ServerFailure {
        if error.kind() == io::ErrorKind::PermissionDenied && matches!(self.host.endpoint, Endpoint::Socket(_)) {
            return self.denied("this user may not open its socket");
        }
        ServerFailure::Lost(lost(error))
    }

    fn denied(&self, detail: impl Into<String>) -> ServerFailure {
        ServerFailure::Final(Error::new(Code::AccessDenied, self.address.location()).with(detail))
    }

    fn insecure(&self, detail: impl Into<String>) -> ServerFailure {
        ServerFailure::Final(Error::new(Code::InsecureConnection, self.address.location()).with(detail))
    }

    /// Agrees on TLS, logs in, and checks that the server is the wanted one.
    async fn session(&self, socket: Box<dyn Socket>, encryption: Encryption) -> Result<(Client, Driver), FailedLogin> {
        let (wire, is_encrypted) = self.wire(socket, encryption).await?;
        let logged_in = self.config(is_encrypted).connect_raw(wire, HandshakeDone).await;
        let (client, connection) = logged_in.map_err(|error| self.not_logged_in(&error, is_encrypted))?;
        let state = ServerState {
            is_standby: flag(connection.parameter("in_hot_standby")),
            is_read_only: flag(connection.parameter("default_transaction_read_only")),
        };
        let is_exposed = !is_encrypted && !self.host.is_local();
        let mut driver = Driver { connection: Box::pin(connection), is_exposed };
        let fits = match state.fits(self.address.target) {
            Some(fits) => fits,
            None => self.asks_whether_it_fits(&client, &mut driver).await?,
        };
        if fits { Ok((client, driver)) } else { Err(Cause::read_only().into()) }
    }

    async fn wire(&self, mut socket: Box<dyn Socket>, encryption: Encryption) -> Result<(Wire, bool), FailedLogin> {
        // The length of the message, and the number that stands for this request
        // (https://www.postgresql.org/docs/current/protocol-message-formats.html, SSLRequest).
        const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

        let is_socket = matches!(self.host.endpoint, Endpoint::Socket(_));
        if encryption == Encryption::Without || is_socket {
            return Ok((Wire::plain(socket), false));
        }
        socket.write_all(&TLS_REQUEST).await.map_err(|error| lost(&error))?;
        match socket.read_u8().await.map_err(|error| lost(&error))? {
            b'S' => match handshake(socket, self.host, &self.address.certificates).await {
                Ok(wire) => Ok((wire, true)),
                Err(failure) => Err(FailedLogin {
                    obstacle: Obstacle::Handshake,
                    failure: match failure {
                        TlsFailure::Broken(detail) => ServerFailure::Lost(Cause::unreachable(detail)),
                        TlsFailure::Refused(detail) => self.insecure(detail),
                    },
                }),
            },
            b'N' if encryption == Encryption::Required => {
                let error = Error::new(Code::InsecureConnection, self.address.location()).with("the server has no TLS");
                Err(ServerFailure::Final(error.with_hint(NO_TLS_HINT)).into())
            }
            b'N' => Ok((Wire::plain(socket), false)),
            // An error, for example that there are too many connections. It came without TLS, so it proves nothing.
            _ => Err(Cause::unreachable("the server did not say whether it has TLS").into()),
        }
    }

    fn password(&self) -> &str {
        self.asked.or_else(|| self.address.password(self.host)).unwrap_or_default()
    }

    fn config(&self, is_encrypted: bool) -> Config {
        let mut config = Config::new();
        config
            .user(&self.address.user)
            // Without one, the server's answer says whether it needs one.
            .password(self.password())
            .dbname(&self.address.database)
            .application_name(&self.address.application_name)
            .channel_binding(self.address.channel_binding);
        if let Some(options) = &self.address.options {
            config.options(options);
        }
        if is_encrypted {
            // The handshake is done, so nothing is negotiated any more.
            config.ssl_mode(config::SslMode::Require).ssl_negotiation(config::SslNegotiation::Direct);
        } else {
            config.ssl_mode(config::SslMode::Disable);
        }
        config
    }

    fn not_logged_in(&self, error: &tokio_postgres::Error, is_encrypted: bool) -> FailedLogin {
        let failure = ServerFailure::from_client(self.address.location(), error);
        let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
        let failure = match error.code() {
            None if source.is_some_and(is_rejected) => self.insecure(REJECTED),
            Some(code) if *code == SqlState::INVALID_PASSWORD && self.password().is_empty() => {
                let (why, hint) = match self.address.exposed_password_file() {
                    Some(path) => {
                        let path = path.to_string_lossy();
                        let why = format!(
                            ", and others may read the password file {}, so it was ignored",
                            path.escape_debug()
                        );
                        (why, "Run chmod 600 on the password file.")
                    }
                    None => (String::new(), PASSWORD_HINT),
                };
                let detail = format!("no password was given{why} ({})", code.code());
                let error = Error::new(Code::AccessDenied, self.address.location()).with(detail);
                ServerFailure::Final(error.with_hint(hint))
            }
            None if matches!(&failure, ServerFailure::Final(error) if error.code() == Code::AccessDenied)
                && self.address.channel_binding == ChannelBinding::Require =>
            {
                self.insecure("channel_binding is required, and the server did not use it")
            }
            // A setting in the options may need a right, too.
            Some(_) if self.address.options.is_none() => {
                let database = quoted(&self.address.database);
                failure.lacking(self.address.location(), &format!("CONNECT ON DATABASE {database}"))
            }
            _ => failure,
        };
        let is_rejected = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        // Without TLS, `prefer` has tried both already.
        let may_help = is_encrypted || self.host.mode == SslMode::Allow;
        FailedLogin { obstacle: if is_rejected && may_help { Obstacle::Rejected } else { Obstacle::Other }, failure }
    }

    /// Asks a server that does not tell its state by itself: PostgreSQL 13, or a pooler.
    async fn asks_whether_it_fits(&self, client: &Client, driver: &mut Driver) -> Result<bool, ServerFailure> {
        let statement = match self.address.target {
            Target::Primary => "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'on' ELSE 'off' END",
            _ => "SHOW transaction_read_only",
        };
        let mut answer = pin!(client.simple_query(statement));
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(result));
            }
            Pin::new(&mut *driver).poll(cx).map(|result| result.err().map(Err))
        });
        match result.await {
            Some(Ok(messages)) => Ok(messages.iter().any(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
                _ => false,
            })),
            Some(Err(error)) => Err(ServerFailure::from_client(self.address.location(), &error)),
            None => Err(ServerFailure::Lost(Cause::unreachable("the server closed the connection"))),
        }
    }
}

/// What a server says about itself when a connection begins (since PostgreSQL 14).
#[derive(Clone, Copy, Debug)]
struct ServerState {
    is_standby: Option<bool>,
    is_read_only: Option<bool>,
}

impl ServerState {
    /// Is it a server for this target? `None` if it has to be asked.
    const fn fits(self, target: Target) -> Option<bool> {
        match (target, self.is_standby, self.is_read_only) {
            (Target::Primary, Some(is_standby), _) => Some(!is_standby),
            (Target::ReadWrite, Some(true), _) | (Target::ReadWrite, _, Some(true)) => Some(false),
            (Target::Any, _, _) | (Target::ReadWrite, Some(false), Some(false)) => Some(true),
            (Target::Primary, None, _) | (Target::ReadWrite, _, _) => None,
        }
    }
}

fn flag(value: Option<&str>) -> Option<bool> {
    match value {
        Some("on") => Some(true),
        Some("off") => Some(false),
        _ => None,
    }
}

/// What a socket is opened to.
enum Place<'a> {
    Socket(&'a Path),
    Tcp(SocketAddr),
}

impl Place<'_> {
    async fn open(&self, keepalives: Option<Keepalives>) -> io::Result<Box<dyn Socket>> {
        match self {
            #[cfg(unix)]
            Self::Socket(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            Self::Socket(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                if let Some(keepalives) = keepalives {
                    keep_alive(&stream, keepalives)?;
                }
                Ok(Box::new(stream))
            }
        }
    }
}

/// Has the system notice that the other end is gone, also while no statement waits for an answer.
fn keep_alive(stream: &TcpStream, keepalives: Keepalives) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let settings = TcpKeepalive::new().with_time(keepalives.idle).with_interval(keepalives.interval);
    #[cfg(unix)]
    let settings = settings.with_retries(keepalives.count);
    socket.set_tcp_keepalive(&settings)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(keepalives.user_timeout))?;
    Ok(())
}

/// How many lookups may run at once. One that does not get an answer ends after about 30 s (resolv.conf(5)).
const LOOKUPS: u64 = 16;

/// The process, and how many of its lookups run. A forked child has none of its parent's threads.
static RUNNING_LOOKUPS: AtomicU64 = AtomicU64::new(0);

/// A lookup that runs.
struct RunningLookup(u32);

impl RunningLookup {
    fn start() -> Option<Self> {
        let process = std::process::id();
        let started = RUNNING_LOOKUPS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
            let (owner, count) = (running >> 32, running & 0xffff_ffff);
            let count = if owner == u64::from(process) { count } else { 0 };
            (count < LOOKUPS).then_some(u64::from(process) << 32 | (count + 1))
        });
        // Not `then_some`: that would make one in any case, and drop it.
        started.is_ok().then(|| Self(process))
    }
}

impl Drop for RunningLookup {
    fn drop(&mut self) {
        let process = u64::from(self.0);
        let _ = RUNNING_LOOKUPS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
            (running >> 32 == process).then(|| running.saturating_sub(1))
        });
    }
}

/// Looks a name up.
async fn resolve(name: String, port: u16) -> Result<Vec<SocketAddr>, ServerFailure> {
    in_thread(move || Ok((name.as_str(), port).to_socket_addrs()?.collect())).await
}

/// Looks a name up in a thread of its own. The system's lookup cannot be interrupted, and a runtime waits at its end for
/// the lookups of its own thread pool, which this thread does not belong to.
async fn in_thread(
    system_lookup: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> Result<Vec<SocketAddr>, ServerFailure> {
    let lost = |detail| ServerFailure::Lost(Cause::unreachable(detail));
    let running = RunningLookup::start().ok_or_else(|| lost("too many host names are being looked up already"))?;
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        let _running = running;
        // The receiver is gone if the deadline has passed.
        let _ = sender.send(system_lookup());
    };
    let spawned = thread::Builder::new().name("zoho-token-store lookup".to_owned()).spawn(work);
    spawned.map_err(|_| lost("this system has too many threads"))?;
    match receiver.await {
        Ok(Ok(addresses)) => Ok(addresses),
        _ => Err(ServerFailure::Lost(Cause::misnamed("its host name cannot be resolved"))),
    }
}

#[cfg(test)]
#[cfg(unix)]
#[path = "../../../tests/rust/postgres_connect.rs"]
mod tests;
