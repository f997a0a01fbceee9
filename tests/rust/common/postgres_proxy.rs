//! A proxy between a store and the server: it counts round trips, loses answers, cuts connections and stops answering.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::Folder;
use super::postgres::dsn;

type IsLost = Box<dyn Fn(usize) -> bool + Send>;

#[derive(Default)]
struct ProxyState {
    /// The number of requests so far. Each one is a round trip.
    requests: AtomicUsize,
    /// Is the answer to the request with this number lost?
    is_lost: Mutex<Option<IsLost>>,
    lost: AtomicUsize,
    is_silent: AtomicBool,
    is_closed: AtomicBool,
    connections: Mutex<Vec<(UnixStream, Upstream)>>,
}

pub(crate) struct Proxy {
    folder: Folder,
    user: String,
    database: String,
    state: Arc<ProxyState>,
}

/// A connection to the server.
enum Upstream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Upstream {
    fn connect(config: &Config) -> std::io::Result<Self> {
        let port = config.get_ports().first().copied().unwrap_or(5432);
        match config.get_hosts().first() {
            Some(Host::Unix(folder)) => Ok(Self::Unix(UnixStream::connect(folder.join(format!(".s.PGSQL.{port}")))?)),
            Some(Host::Tcp(name)) => Ok(Self::Tcp(TcpStream::connect((name.as_str(), port))?)),
            None => panic!("TEST_POSTGRES_DSN names no host"),
        }
    }

    fn try_clone(&self) -> std::io::Result<Self> {
        Ok(match self {
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
        })
    }

    fn shutdown(&self) {
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Upstream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Upstream {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buffer),
            Self::Tcp(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let config: Config = dsn().parse().unwrap();
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.path(".s.PGSQL.5432")).unwrap();
        let state = Arc::new(ProxyState::default());
        let text = |value: Option<&str>| value.unwrap_or("postgres").to_owned();
        let (user, database) = (text(config.get_user()), text(config.get_dbname()));
        thread::spawn({
            let state = Arc::clone(&state);
            move || {
                for client in listener.incoming() {
                    if state.is_closed.load(Ordering::SeqCst) {
                        return;
                    }
                    let (Ok(client), Ok(server)) = (client, Upstream::connect(&config)) else { continue };
                    state.connections.lock().push((client.try_clone().unwrap(), server.try_clone().unwrap()));
                    forward(&state, client, server);
                }
            }
        });
        Self { folder, user, database, state }
    }

    pub(crate) fn dsn(&self) -> String {
        let Self { folder, user, database, .. } = self;
        format!("host={} user={user} dbname={database}", folder.0.path().display())
    }

    /// Runs `work`, and returns the number of its round trips.
    pub(crate) fn round_trips(&self, work: impl FnOnce()) -> usize {
        let before = self.state.requests.load(Ordering::SeqCst);
        work();
        self.state.requests.load(Ordering::SeqCst) - before
    }

    /// Loses the answers to the requests that match. Requests are counted from 0, from now on.
    pub(crate) fn lose(&self, is_lost: impl Fn(usize) -> bool + Send + 'static) {
        let first = self.state.requests.load(Ordering::SeqCst);
        *self.state.is_lost.lock() = Some(Box::new(move |number| is_lost(number - first)));
    }

    /// Loses no more answers. Returns how many were lost.
    pub(crate) fn lose_no_more(&self) -> usize {
        *self.state.is_lost.lock() = None;
        self.state.lost.swap(0, Ordering::SeqCst)
    }

    /// Passes on no answer, or goes on.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.state.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.state.cut();
    }

    /// The path of the socket.
    pub(crate) fn folder(&self) -> PathBuf {
        self.folder.0.path().to_owned()
    }
}

impl ProxyState {
    fn cut(&self) {
        for (client, server) in self.connections.lock().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            server.shutdown();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        self.be_silent(false);
        self.cut();
        // Wakes the thread that accepts.
        let _ = UnixStream::connect(self.folder.path(".s.PGSQL.5432"));
    }
}

/// Forwards both directions, each in a thread that ends with the connection.
fn forward(state: &Arc<ProxyState>, client: UnixStream, server: Upstream) {
    let pending = Arc::new(Mutex::new(VecDeque::new()));
    let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn({
        let (state, pending) = (Arc::clone(state), Arc::clone(&pending));
        move || {
            let (client, mut server) = up;
            // The first message has no type.
            let _ = each_message(client, false, |kind, message| {
                if [Some(b'S'), Some(b'Q')].contains(&kind) {
                    pending.lock().push_back(state.requests.fetch_add(1, Ordering::SeqCst));
                }
                server.write_all(message)
            });
            server.shutdown();
        }
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let (mut client, mut answer, mut is_ready) = (client, Vec::new(), false);
        let _ = each_message(server, true, |kind, message| {
            answer.extend_from_slice(message);
            let ends_answer = kind == Some(b'Z');
            if is_ready && ends_answer {
                let number = pending.lock().pop_front().unwrap_or_default();
                if state.is_lost.lock().as_ref().is_some_and(|is_lost| is_lost(number)) {
                    state.lost.fetch_add(1, Ordering::SeqCst);
                    answer.clear();
                    return Err(std::io::ErrorKind::ConnectionAborted.into());
                }
            }
            is_ready |= ends_answer;
            if !is_ready || ends_answer {
                while state.is_silent.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(2));
                }
                client.write_all(&answer)?;
                answer.clear();
            }
            Ok(())
        });
        // The end of a session, such as an error before it, reaches the client.
        let _ = client.write_all(&answer).map(|()| ends.0.shutdown(Shutdown::Both));
        ends.1.shutdown();
    });
}

/// Calls `pass_on` with the type and the bytes of each message, until the stream ends.
fn each_message(
    mut stream: impl Read,
    has_type: bool,
    mut pass_on: impl FnMut(Option<u8>, &[u8]) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut has_type = has_type;
    loop {
        let mut message = vec![0; 4 + usize::from(has_type)];
        stream.read_exact(&mut message)?;
        let length = u32::from_be_bytes(message[message.len() - 4..].try_into().unwrap()) as usize;
        let start = message.len();
        message.resize(start + length - 4, 0);
        stream.read_exact(&mut message[start..])?;
        pass_on(has_type.then(|| message[0]), &message)?;
        has_type = true;
    }
}
