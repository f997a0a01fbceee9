//! Connections to real servers, with and without TLS. These are unit tests of `src/backends/postgres/connect.rs`.
//!
//! `TEST_POSTGRES_BIN` names the folder of `postgres` and `initdb`. The tests start a primary and a standby of their own.
//! For what these cannot do, such as showing an expired certificate, there is a [`Terminator`] in front of them.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

use super::super::address::{Environment, PasswordFile};
use super::*;

/// A process without variables and without a password file.
struct Nothing;

impl Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }
    fn user_name(&self) -> Option<String> {
        Some("postgres".to_owned())
    }
    fn default_password_file(&self) -> Option<PathBuf> {
        None
    }
    fn read_password_file(&self, _: &Path) -> PasswordFile {
        PasswordFile::Missing
    }
    fn exists(&self, _: &Path) -> bool {
        false
    }
}

fn address(dsn: &str) -> Address {
    Address::new(Some(dsn), &[], &Nothing).unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

const TIMEOUT: Duration = Duration::from_mins(1);

/// Fails to connect, and returns the hint.
fn hint(address: &Address, deadline: Deadline) -> &'static str {
    let failure = runtime().block_on(connect(address, None, deadline)).err().unwrap();
    failure.into_error(address.location(), deadline, None).hint()
}

/// Connects, and returns the answer to a statement. An error is its code and detail.
fn ask(address: &Address, statement: &str, timeout: Duration) -> Result<String, (Code, String)> {
    let deadline = Deadline::after(timeout);
    let runtime = runtime();
    let result = runtime.block_on(async {
        let asked = address.ask_password().map_err(ServerFailure::Final)?;
        let (client, driver) = connect(address, asked.as_deref(), deadline).await?;
        tokio::spawn(driver);
        let messages = client.simple_query(statement).await;
        messages.map_err(|error| ServerFailure::from_client(address.location(), &error))
    });
    let messages = result.map_err(|failure| {
        let error = failure.into_error(address.location(), deadline, None);
        (error.code(), error.detail().to_owned())
    })?;
    let answer = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(answer.unwrap_or_default())
}

/// Connects and asks the server whether the connection has TLS, as `tls` or `plain`.
fn encryption(dsn: &str) -> Result<String, String> {
    const STATEMENT: &str =
        "SELECT CASE WHEN ssl THEN 'tls' ELSE 'plain' END FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    ask(&address(dsn), STATEMENT, TIMEOUT).map_err(|(_, detail)| detail)
}

/// A folder that is removed when the test program ends, also if it is killed.
struct Servers {
    folder: PathBuf,
    port: u16,
    standby_port: u16,
    has_tls: bool,
    /// Its stdin keeps the servers alive.
    _keeper: Child,
}

/// The servers of this test program.
fn servers() -> &'static Servers {
    static SERVERS: OnceLock<Option<Servers>> = OnceLock::new();
    // One failure is enough: the other tests do not try again.
    SERVERS.get_or_init(|| std::panic::catch_unwind(Servers::start).ok()).as_ref().unwrap()
}

/// A command that runs as a user other than root, because a server refuses to run as root.
fn unprivileged(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((user, group)) = owner() {
        command.uid(user).gid(group);
    }
    command
}

/// The user and the group of the servers, if this process is one of root.
fn owner() -> Option<(u32, u32)> {
    let is_root = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap()) == 0;
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let mut nobody = users.lines().find(|line| line.starts_with("nobody:")).unwrap().split(':').skip(2);
    let mut number = || nobody.next().unwrap().parse().unwrap();
    is_root.then(|| (number(), number()))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

impl Servers {
    fn start() -> Self {
        let programs = std::env::var("TEST_POSTGRES_BIN").unwrap_or_else(|_| {
            panic!(
                "These tests need the programs of a PostgreSQL server: python tests/postgres_server.py -- cargo test … \
                 finds them, or set TEST_POSTGRES_BIN to their folder"
            )
        });
        let programs = PathBuf::from(programs);
        // A path of a socket has at most 107 bytes, so this is not the folder for temporary files of the user.
        let folder = tempfile::Builder::new().prefix("zts-connect-").tempdir_in("/tmp").unwrap().keep();
        let (data, standby) = (folder.join("data"), folder.join("standby"));
        give(&folder);
        let mut initdb = unprivileged(programs.join("initdb"), &folder);
        let options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"];
        run(initdb.arg("--pgdata").arg(&data).args(options));

        let postgres = programs.join("postgres");
        // The command prints the setting, and fails if this build has no TLS.
        let mut probe = unprivileged(&postgres, &folder);
        let has_tls = probe.arg("-D").arg(&data).args(["-C", "ssl", "-c", "ssl=on"]).output().unwrap().status.success();
        let authority = authority();
        for (name, text) in [
            ("server.crt", authority.good.chain()),
            ("server.key", authority.good.key.serialize_pem()),
            ("root.crt", authority.root.pem()),
        ] {
            write(&data.join(name), &text);
        }
        let sql = "CREATE ROLE tls_only LOGIN; CREATE ROLE plain_only LOGIN; CREATE ROLE by_certificate LOGIN; \
                   CREATE ROLE by_password LOGIN PASSWORD 'made-up it''s'; CREATE ROLE other LOGIN; \
                   CREATE ROLE by_md5 LOGIN; SET password_encryption = 'md5'; ALTER ROLE by_md5 PASSWORD 'made-up';";
        // In single-user mode each line is one statement.
        write(&folder.join("roles.sql"), &sql.replace("; ", ";\n"));
        let mut single = unprivileged(&postgres, &folder);
        let input = fs::File::open(folder.join("roles.sql")).unwrap();
        run(single.arg("--single").arg("-D").arg(&data).arg("postgres").stdin(input));
        run(unprivileged("cp", &folder).arg("-a").arg(&data).arg(&standby));
        write(&standby.join("standby.signal"), "");

        let with_tls = "hostssl all tls_only 127.0.0.1/32 trust\nhostssl all by_certificate 127.0.0.1/32 cert\n";
        let access = format!(
            "local all all trust\n{}hostnossl all plain_only 127.0.0.1/32 trust\n\
             host all by_password 127.0.0.1/32 scram-sha-256\nhost all by_md5 127.0.0.1/32 md5\n\
             host all postgres 127.0.0.1/32 trust\n",
            if has_tls { with_tls } else { "" }
        );
        let (port, standby_port) = (free_port(), free_port());
        for (data, port) in [(&data, port), (&standby, standby_port)] {
            write(&data.join("pg_hba.conf"), &access);
            let settings = format!(
                "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n\
                 shared_buffers = 16MB\nssl = {}\nssl_ca_file = 'root.crt'\n",
                folder.display(),
                if has_tls { "on" } else { "off" },
            );
            let settings = if has_tls { settings } else { settings.replace("ssl_ca_file = 'root.crt'\n", "") };
            write(&data.join("postgresql.conf"), &settings);
        }

        // The servers end when the pipe does, which this process has the other end of.
        let script = "trap '' INT TERM; \"$1\" -D \"$2/data\" >>\"$2/log\" 2>&1 & first=$!; \
                      \"$1\" -D \"$2/standby\" >>\"$2/log\" 2>&1 & second=$!; \
                      cat >/dev/null; kill -QUIT $first $second; wait; rm -rf \"$2\"/* \"$2\"";
        let mut keeper = unprivileged("/bin/sh", &folder);
        let keeper =
            keeper.args(["-c", script, "keeper"]).arg(&postgres).arg(&folder).stdin(Stdio::piped()).spawn().unwrap();
        let servers = Self { folder, port, standby_port, has_tls, _keeper: keeper };
        servers.wait_for(servers.port);
        servers.wait_for(servers.standby_port);
        servers
    }

    /// Waits until a server answers.
    fn wait_for(&self, port: u16) {
        let address = address(&format!("host={} port={port}", self.folder.display()));
        let end = std::time::Instant::now() + TIMEOUT;
        while let Err(error) = ask(&address, "SELECT 1", Duration::from_secs(5)) {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(std::time::Instant::now() < end, "{error:?}: {}", log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A text of parameters for the primary, by TCP.
    fn dsn(&self, more: &str) -> String {
        format!("host=localhost hostaddr=127.0.0.1 port={} user=postgres dbname=postgres {more}", self.port)
    }
}

/// Gives a file to the user of the servers, for that user alone.
fn give(path: &Path) {
    if let Some((user, group)) = owner() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    give(path);
}

/// A certificate with its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Identity {
    fn chain(&self) -> String {
        self.certificate.pem()
    }

    fn config(&self, version: &'static SupportedProtocolVersion) -> ServerConfig {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        let key = ring::sign::any_supported_type(&key).unwrap();
        // This does not check that the two belong together.
        let certified = CertifiedKey::new(vec![self.certificate.der().clone()], key);
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
    }
}

/// An authority, and certificates of every kind.
struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    good: Identity,
    other_host: Identity,
    expired: Identity,
    not_yet: Identity,
    unknown_issuer: Identity,
    same_name: Identity,
    self_signed: Identity,
    wrong_key: Identity,
    client: Identity,
    /// Files that parameters name.
    folder: tempfile::TempDir,
}

fn new_root(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn identity(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> Identity {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Identity { certificate: params.signed_by(&key, issuer).unwrap(), key }
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let root = new_root("a made-up authority");
        let names = ["localhost", "127.0.0.1"];
        let self_signed_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.map(str::to_owned)).unwrap();
        let authority = Authority {
            good: identity(&root, &names, |_| {}),
            other_host: identity(&root, &["db.example"], |_| {}),
            expired: identity(&root, &names, |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1)),
            not_yet: identity(&root, &names, |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1)),
            unknown_issuer: identity(&new_root("another authority"), &names, |_| {}),
            same_name: identity(&new_root("a made-up authority"), &names, |_| {}),
            self_signed: Identity { certificate: params.self_signed(&self_signed_key).unwrap(), key: self_signed_key },
            wrong_key: Identity { key: KeyPair::generate().unwrap(), ..identity(&root, &names, |_| {}) },
            client: identity(&root, &[], |params| {
                params.distinguished_name.push(rcgen::DnType::CommonName, "by_certificate");
            }),
            root,
            folder: tempfile::tempdir().unwrap(),
        };
        for (name, text) in [
            ("root.crt", authority.root.pem()),
            ("client.crt", authority.client.chain()),
            ("client.key", authority.client.key.serialize_pem()),
            ("other.key", KeyPair::generate().unwrap().serialize_pem()),
            ("stranger.crt", authority.unknown_issuer.chain()),
            ("stranger.key", authority.unknown_issuer.key.serialize_pem()),
            ("empty.crt", String::new()),
        ] {
            let path = authority.folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        authority
    })
}

fn file(name: &str) -> String {
    authority().folder.path().join(name).display().to_string()
}

/// What a terminator does with TLS.
enum Offer {
    No,
    Yes(&'static Identity),
    /// It has TLS 1.2, the lowest version that is still safe.
    Old(&'static Identity),
    /// It answers the request, and then sends something else than TLS.
    Broken,
}

/// A program between client and server, which decrypts.
struct Terminator {
    port: u16,
    /// How many connections had TLS.
    encrypted: Arc<AtomicU32>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Terminator {
    /// `upstream` is the TLS of its own connection to the server.
    fn start(offer: Offer, upstream: Encryption) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let encrypted = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&encrypted);
        let server = servers().dsn("sslmode=require");
        let thread = thread::spawn(move || {
            let offer = Arc::new(offer);
            runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::spawn(async move {
                    while let Ok((socket, _)) = listener.accept().await {
                        let (offer, counter, server) = (Arc::clone(&offer), Arc::clone(&counter), address(&server));
                        tokio::spawn(async move { forward(socket, &offer, &counter, upstream, &server).await });
                    }
                });
                // It ends when the terminator is dropped.
                let _ = stopped.await;
            });
        });
        Self { port, encrypted, stop: Some(stop), thread: Some(thread) }
    }

    fn dsn(&self, more: &str) -> String {
        format!("host=localhost hostaddr=127.0.0.1 port={} user=postgres dbname=postgres {more}", self.port)
    }

    /// Connects, and returns whether the connection had TLS.
    fn encryption(&self, more: &str) -> Result<String, String> {
        let before = self.encrypted.load(Ordering::Relaxed);
        ask(&address(&self.dsn(more)), "SELECT 1", TIMEOUT).map_err(|(_, detail)| detail)?;
        let had_tls = self.encrypted.load(Ordering::Relaxed) > before;
        Ok(if had_tls { "tls" } else { "plain" }.to_owned())
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Forwards one connection. Errors end it.
async fn forward(
    mut socket: TcpStream,
    offer: &Offer,
    encrypted: &AtomicU32,
    upstream: Encryption,
    server: &Address,
) -> Option<()> {
    let login = Login { address: server, host: &server.hosts[0], asked: None };
    let to_server = TcpStream::connect((Ipv4Addr::LOCALHOST, server.hosts[0].port)).await.ok()?;
    let (mut to_server, _) = login.wire(Box::new(to_server), upstream).await.ok()?;
    let mut first = [0; 8];
    socket.read_exact(&mut first).await.ok()?;
    if first == [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f] {
        match offer {
            Offer::No => socket.write_all(b"N").await.ok()?,
            Offer::Broken => return socket.write_all(b"Sno TLS at all").await.ok(),
            Offer::Yes(identity) | Offer::Old(identity) => {
                socket.write_all(b"S").await.ok()?;
                let version = if matches!(offer, Offer::Old(_)) { &TLS12 } else { &TLS13 };
                let acceptor = TlsAcceptor::from(Arc::new(identity.config(version)));
                let mut stream = acceptor.accept(socket).await.ok()?;
                encrypted.fetch_add(1, Ordering::Relaxed);
                tokio::io::copy_bidirectional(&mut stream, &mut to_server).await.ok()?;
                return Some(());
            }
        }
    } else {
        to_server.write_all(&first).await.ok()?;
    }
    tokio::io::copy_bidirectional(&mut socket, &mut to_server).await.ok()?;
    Some(())
}

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

const NO_TLS: &str = "the server has no TLS";
const OTHER_HOST: &str = "its certificate is for another host";
const EXPIRED: &str = "its certificate has expired";
const NOT_YET: &str = "its certificate is not valid yet, or the clock of this machine is wrong";
const UNKNOWN: &str = "its certificate is from an authority that is not trusted";
const NO_AUTHORITIES: &str =
    "this system has no certificates of authorities: install them (ca-certificates), or set sslrootcert";

/// A certificate, and the result of each mode with the roots of our authority and with those of the system.
type CertificateCase = (&'static str, Option<&'static Identity>, [[&'static str; 6]; 2]);

#[test]
fn sslmode_decides_which_certificates_are_accepted() {
    let authority = authority();
    let (plain, tls) = ("plain", "tls");
    // A system may have no authorities.
    let unknown = if rustls_native_certs::load_native_certs().certs.is_empty() { NO_AUTHORITIES } else { UNKNOWN };
    // The dates are checked before the authority.
    let [expired, not_yet] = [EXPIRED, NOT_YET].map(|text| if unknown == UNKNOWN { text } else { unknown });
    // `allow` begins without TLS, and this server accepts that. `require` means `verify-ca` where roots are given.
    let table: [CertificateCase; 8] = [
        ("no TLS", None, [[plain, plain, plain, NO_TLS, NO_TLS, NO_TLS]; 2]),
        (
            "good",
            Some(&authority.good),
            [[plain, plain, tls, tls, tls, tls], [plain, plain, tls, tls, unknown, unknown]],
        ),
        (
            "other host",
            Some(&authority.other_host),
            [[plain, plain, tls, tls, tls, OTHER_HOST], [plain, plain, tls, tls, unknown, unknown]],
        ),
        (
            "expired",
            Some(&authority.expired),
            [[plain, plain, tls, EXPIRED, EXPIRED, EXPIRED], [plain, plain, tls, tls, expired, expired]],
        ),
        (
            "not yet valid",
            Some(&authority.not_yet),
            [[plain, plain, tls, NOT_YET, NOT_YET, NOT_YET], [plain, plain, tls, tls, not_yet, not_yet]],
        ),
        (
            "unknown authority",
            Some(&authority.unknown_issuer),
            [[plain, plain, tls, UNKNOWN, UNKNOWN, UNKNOWN], [plain, plain, tls, tls, unknown, unknown]],
        ),
        (
            "another authority of the same name",
            Some(&authority.same_name),
            [[plain, plain, tls, UNKNOWN, UNKNOWN, UNKNOWN], [plain, plain, tls, tls, unknown, unknown]],
        ),
        (
            "self-signed",
            Some(&authority.self_signed),
            [[plain, plain, tls, UNKNOWN, UNKNOWN, UNKNOWN], [plain, plain, tls, tls, unknown, unknown]],
        ),
    ];
    let roots = [format!("sslrootcert={}", file("root.crt")), String::new()];
    for (what, certificate, expected) in table {
        let terminator = Terminator::start(certificate.map_or(Offer::No, Offer::Yes), Encryption::Without);
        if certificate.is_none() {
            let address = address(&terminator.dsn("sslmode=require"));
            assert_eq!(hint(&address, Deadline::after(TIMEOUT)), NO_TLS_HINT);
        }
        for (roots, expected) in roots.iter().zip(expected) {
            for (mode, expected) in MODES.iter().zip(expected) {
                let result = terminator.encryption(&format!("sslmode={mode} {roots}"));
                let result = result.unwrap_or_else(|detail| detail);
                assert_eq!(result, expected, "{what}, sslmode={mode} {roots}");
            }
        }
    }
}

#[test]
fn a_failed_handshake_is_reported_or_prefer_goes_on_without_tls() {
    let terminator = Terminator::start(Offer::Broken, Encryption::Without);
    let failed = "the server sent something that is not TLS";
    for (mode, expected) in MODES.iter().zip(["plain", "plain", "plain", failed, failed, failed]) {
        let roots = file("root.crt");
        let result = terminator.encryption(&format!("sslmode={mode} sslrootcert={roots}"));
        assert_eq!(result.unwrap_or_else(|detail| detail), expected, "{mode}");
    }
}

/// Otherwise a program that has only seen the certificate could pose as the server, also towards channel binding.
#[test]
fn a_server_has_to_prove_that_it_has_the_key_of_its_certificate() {
    let roots = file("root.crt");
    let wrong = "the server does not have the key of its certificate";
    for offer in [Offer::Yes(&authority().wrong_key), Offer::Old(&authority().wrong_key)] {
        let terminator = Terminator::start(offer, Encryption::Without);
        for (mode, expected) in MODES.iter().zip(["plain", "plain", "plain", wrong, wrong, wrong]) {
            let result = terminator.encryption(&format!("sslmode={mode} sslrootcert={roots}"));
            assert_eq!(result.unwrap_or_else(|detail| detail), expected, "{mode}");
        }
        assert_eq!(terminator.encryption("sslmode=require").unwrap_err(), wrong);
    }
    let old = Terminator::start(Offer::Old(&authority().good), Encryption::Without);
    assert_eq!(old.encryption(&format!("sslmode=verify-full sslrootcert={roots}")).as_deref(), Ok("tls"));
}

#[test]
fn an_address_is_checked_as_an_address() {
    let authority = authority();
    let verify = format!("sslmode=verify-full sslrootcert={}", file("root.crt"));
    let by_address = |terminator: &Terminator| {
        let dsn = format!("host=127.0.0.1 port={} dbname=postgres {verify}", terminator.port);
        ask(&address(&dsn), "SELECT 1", TIMEOUT).map_err(|(_, detail)| detail)
    };
    let good = Terminator::start(Offer::Yes(&authority.good), Encryption::Without);
    assert_eq!(by_address(&good).as_deref(), Ok("1"));
    let other = Terminator::start(Offer::Yes(&authority.other_host), Encryption::Without);
    assert_eq!(by_address(&other).unwrap_err(), OTHER_HOST);
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let terminator = Terminator::start(Offer::Yes(&authority().good), Encryption::Without);
    let missing = file("missing");
    let exposed = file("exposed.key");
    fs::copy(file("client.key"), &exposed).unwrap();
    fs::set_permissions(&exposed, fs::Permissions::from_mode(0o640)).unwrap();
    let (certificate, key, other) = (file("client.crt"), file("client.key"), file("other.key"));
    let table = [
        (format!("sslmode=verify-full sslrootcert={missing}"), "sslrootcert cannot be read"),
        (format!("sslmode=verify-full sslrootcert={}", file("empty.crt")), "sslrootcert has no certificate"),
        (format!("sslmode=require sslcert={missing} sslkey={key}"), "sslcert cannot be read"),
        (format!("sslmode=require sslcert={certificate} sslkey={missing}"), "sslkey cannot be read, or has a password"),
        (
            format!("sslmode=require sslcert={certificate} sslkey={exposed}"),
            "others may read sslkey: set its mode to 600",
        ),
        (
            format!("sslmode=require sslcert={certificate} sslkey={other}"),
            "the key in sslkey does not belong to the certificate in sslcert",
        ),
    ];
    for (more, detail) in table {
        let expected = (Code::InsecureConnection, detail.to_owned());
        assert_eq!(ask(&address(&terminator.dsn(&more)), "SELECT 1", TIMEOUT), Err(expected));
    }
}

/// The server's own TLS. A build without it shows the same with a terminator, in the tests above.
#[test]
fn the_server_itself_has_tls() {
    let servers = servers();
    let expected = if servers.has_tls {
        ["plain", "plain", "tls", "tls", "tls", "tls"].map(|text| Ok(text.to_owned()))
    } else {
        let none = || Err(NO_TLS.to_owned());
        [Ok("plain".to_owned()), Ok("plain".to_owned()), Ok("plain".to_owned()), none(), none(), none()]
    };
    for (mode, expected) in MODES.iter().zip(expected) {
        let more = format!("sslmode={mode} sslrootcert={}", file("root.crt"));
        assert_eq!(encryption(&servers.dsn(&more)), expected, "{mode}");
    }
}

/// `pg_hba.conf` has lines for connections with TLS, and for those without.
#[test]
fn allow_and_prefer_try_the_other_way_if_they_are_rejected() {
    let servers = servers();
    let rejected = || Err("the server accepts no such connection (28000)".to_owned());
    let user = |user: &str, mode: &str| encryption(&servers.dsn(&format!("user={user} sslmode={mode}")));
    for mode in ["disable", "allow", "prefer"] {
        assert_eq!(user("plain_only", mode), Ok("plain".to_owned()), "{mode}");
        assert_eq!(user("other", mode), rejected(), "{mode}");
    }
    if servers.has_tls {
        assert_eq!(user("plain_only", "require"), rejected());
        assert_eq!(user("tls_only", "disable"), rejected());
        for mode in ["allow", "prefer", "require"] {
            assert_eq!(user("tls_only", mode), Ok("tls".to_owned()), "{mode}");
        }
    } else {
        assert_eq!(user("tls_only", "allow"), rejected());
    }
}

#[test]
fn a_client_can_have_a_certificate() {
    let servers = servers();
    if !servers.has_tls {
        return; // Only a server with TLS can ask for one.
    }
    let with = format!("sslmode=require sslcert={} sslkey={}", file("client.crt"), file("client.key"));
    let who = |more: &str| ask(&address(&servers.dsn(more)), "SELECT current_user", TIMEOUT);
    assert_eq!(who(&format!("user=by_certificate {with}")).as_deref(), Ok("by_certificate"));
    assert_eq!(who("user=by_certificate sslmode=require").unwrap_err().0, Code::AccessDenied);
    // Of an authority that the server does not trust.
    let stranger = format!("sslmode=require sslcert={} sslkey={}", file("stranger.crt"), file("stranger.key"));
    let rejected = "the server rejected the handshake, or the client's certificate";
    assert_eq!(who(&stranger), Err((Code::InsecureConnection, rejected.to_owned())));
}

const RIGHT: &str = r"user=by_password password='made-up it\'s'";

#[test]
fn a_password_is_checked_and_never_shown() {
    let servers = servers();
    let denied = |detail: &str| Err((Code::AccessDenied, detail.to_owned()));
    let who = |more: &str| ask(&address(&servers.dsn(more)), "SELECT current_user", TIMEOUT);
    for mode in if servers.has_tls { &["disable", "require"][..] } else { &["disable"][..] } {
        assert_eq!(who(&format!("{RIGHT} sslmode={mode}")).as_deref(), Ok("by_password"));
        assert_eq!(who(&format!("user=by_md5 password=made-up sslmode={mode}")).as_deref(), Ok("by_md5"));
        let wrong = format!("user=by_password password=made-up-wrong sslmode={mode}");
        assert_eq!(who(&wrong), denied("the user or the password is wrong (28P01)"));
        assert_eq!(who(&format!("user=by_password sslmode={mode}")), denied("no password was given (28P01)"));
    }
    let without = address(&servers.dsn("user=by_password sslmode=disable"));
    assert_eq!(hint(&without, Deadline::after(TIMEOUT)), "Correct the user or the password.");
    let missing = ask(&address(&servers.dsn("dbname=made_up")), "SELECT 1", TIMEOUT);
    assert_eq!(missing, Err((Code::WrongDatabase, "the database does not exist (3D000)".to_owned())));
}

#[test]
fn a_function_is_asked_for_the_password_at_each_connection() {
    let servers = servers();
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let address = address(&servers.dsn("user=by_password password=made-up-wrong"));
    let asking = address.clone().with_password(Arc::new(move || {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        Ok(if number == 1 { "made-up-wrong".to_owned() } else { "made-up it's".to_owned() })
    }));
    let results = [(); 3].map(|()| ask(&asking, "SELECT current_user", TIMEOUT).map_err(|(code, _)| code));
    let right = || Ok("by_password".to_owned());
    assert_eq!(results, [right(), Err(Code::AccessDenied), right()]);
    assert_eq!(calls.load(Ordering::Relaxed), 3);

    let failing = address.with_password(Arc::new(|| Err(Error::invalid_argument("the function raised an error"))));
    let expected = (Code::InvalidArgument, "the function raised an error".to_owned());
    assert_eq!(ask(&failing, "SELECT 1", TIMEOUT), Err(expected));
}

#[test]
fn channel_binding_needs_tls_to_the_server_itself() {
    let servers = servers();
    let who = |dsn: &str| ask(&address(dsn), "SELECT current_user", TIMEOUT);
    let not_used =
        Err((Code::InsecureConnection, "channel_binding is required, and the server did not use it".to_owned()));
    let required = format!("{RIGHT} channel_binding=require");
    assert_eq!(who(&servers.dsn(&format!("{required} sslmode=disable"))), not_used);

    // In the middle, towards the server without TLS: the server does not offer channel binding.
    let plain = Terminator::start(Offer::Yes(&authority().good), Encryption::Without);
    assert_eq!(who(&plain.dsn(&format!("{required} sslmode=require"))), not_used);
    assert_eq!(who(&plain.dsn(&format!("{RIGHT} sslmode=require"))).as_deref(), Ok("by_password"));

    if servers.has_tls {
        assert_eq!(who(&servers.dsn(&format!("{required} sslmode=require"))).as_deref(), Ok("by_password"));
        // In the middle, with TLS towards both: the server sees that the client has seen another certificate.
        let middle = Terminator::start(Offer::Yes(&authority().other_host), Encryption::Required);
        for binding in ["require", "prefer"] {
            let caught = who(&middle.dsn(&format!("{RIGHT} channel_binding={binding} sslmode=require")));
            assert_eq!(caught.unwrap_err().0, Code::AccessDenied, "{binding}");
        }
        // This shows that the middle works, and that it is channel binding that catches it.
        let unbound = who(&middle.dsn(&format!("{RIGHT} channel_binding=disable sslmode=require")));
        assert_eq!(unbound.as_deref(), Ok("by_password"));
    }
}

#[test]
fn a_socket_is_used_without_tls() {
    let servers = servers();
    let dsn = format!("host={} port={} user=postgres sslmode=verify-full", servers.folder.display(), servers.port);
    assert_eq!(encryption(&dsn), Ok("plain".to_owned()));
    let missing = format!("host={} port=1", servers.folder.display());
    let expected = (Code::Unreachable, "there is no socket in that folder".to_owned());
    assert_eq!(ask(&address(&missing), "SELECT 1", TIMEOUT), Err(expected));
}

#[test]
fn read_write_and_primary_find_the_primary() {
    let servers = servers();
    let ports = format!("{},{}", servers.standby_port, servers.port);
    let port = |more: &str| {
        let dsn = format!("host=127.0.0.1,127.0.0.1 port={ports} dbname=postgres {more}");
        ask(&address(&dsn), "SHOW port", TIMEOUT).unwrap()
    };
    assert_eq!(port(""), servers.standby_port.to_string());
    for target in ["read-write", "primary"] {
        assert_eq!(port(&format!("target_session_attrs={target}")), servers.port.to_string(), "{target}");
    }
    // A server that is no standby, but begins every transaction read-only.
    let read_only = "options='-c default_transaction_read_only=on' target_session_attrs";
    assert_eq!(port(&format!("{read_only}=primary")), servers.port.to_string());
    let standby = (Code::ReadOnly, "it is a standby, or its transactions are read-only".to_owned());
    for dsn in [
        servers.dsn(&format!("{read_only}=read-write")),
        format!("host=127.0.0.1 port={} dbname=postgres target_session_attrs=read-write", servers.standby_port),
        format!("host=127.0.0.1 port={} dbname=postgres target_session_attrs=primary", servers.standby_port),
    ] {
        assert_eq!(ask(&address(&dsn), "SELECT 1", TIMEOUT), Err(standby.clone()), "{dsn}");
    }
}

/// Servers before PostgreSQL 14, and poolers, do not tell their state by themselves.
#[test]
fn a_server_that_does_not_tell_its_state_is_asked() {
    let servers = servers();
    for (port, expected) in [(servers.port, true), (servers.standby_port, false)] {
        for target in ["read-write", "primary"] {
            let asked = address(&format!("host=127.0.0.1 port={port} dbname=postgres target_session_attrs={target}"));
            let any = address(&format!("host=127.0.0.1 port={port} dbname=postgres"));
            let fits = runtime().block_on(async {
                let (client, mut driver) = connect(&any, None, Deadline::after(TIMEOUT)).await.unwrap();
                let login = Login { address: &asked, host: &asked.hosts[0], asked: None };
                login.asks_whether_it_fits(&client, &mut driver).await.unwrap()
            });
            assert_eq!(fits, expected, "{target} {port}");
        }
    }
}

#[test]
fn hosts_are_tried_in_turn_and_share_the_time() {
    let servers = servers();
    // One that refuses, one that accepts and never answers, and the server.
    let refusing = free_port();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let port = |ports: &str, more: &str, timeout| {
        let hosts = vec!["127.0.0.1"; ports.split(',').count()].join(",");
        let dsn = format!("host={hosts} port={ports} dbname=postgres sslmode=disable {more}");
        ask(&address(&dsn), "SHOW port", timeout)
    };
    let ports = format!("{refusing},{silent_port},{}", servers.port);
    assert_eq!(port(&ports, "", Duration::from_secs(6)), Ok(servers.port.to_string()));
    assert_eq!(port(&ports, "connect_timeout=1", TIMEOUT), Ok(servers.port.to_string()));

    // A timeout does not hide that a host has refused.
    let refused = (Code::Unreachable, format!("127.0.0.1:{refusing}: connection refused"));
    let short = Duration::from_millis(600);
    for ports in [format!("{silent_port},{refusing}"), format!("{refusing},{silent_port}")] {
        assert_eq!(port(&ports, "", short), Err(refused.clone()), "{ports}");
    }
    let no_answer = (Code::Unreachable, "the server did not answer in time".to_owned());
    assert_eq!(port(&silent_port.to_string(), "", short), Err(no_answer));

    // A host that rejects the user ends the search.
    let ports = format!("{},{}", servers.port, servers.standby_port);
    assert_eq!(port(&ports, "user=other", TIMEOUT).unwrap_err().0, Code::AccessDenied);
    // `random` uses each host.
    let mut used = std::collections::BTreeSet::new();
    for _ in 0..200 {
        used.insert(port(&ports, "load_balance_hosts=random", TIMEOUT).unwrap());
        if used.len() == 2 {
            break;
        }
    }
    assert_eq!(used.len(), 2);
}

#[test]
fn nothing_is_tried_after_the_deadline() {
    let address = address(&servers().dsn(""));
    let failure = runtime().block_on(connect(&address, None, Deadline::now())).err();
    assert_eq!(failure, Some(ServerFailure::timeout()));
}

/// A lookup that does not end holds up neither its caller nor the end of the runtime. One test has all lookups, because
/// their number is limited for the whole process.
#[test]
fn a_name_is_looked_up_for_a_limited_time() {
    // Names below `.invalid` never exist (RFC 6761).
    let (code, detail) = ask(&address("host=made-up.invalid"), "SELECT 1", TIMEOUT).unwrap_err();
    let expected = ["its host name cannot be resolved", "its host name could not be resolved in time"];
    assert!(code == Code::Unreachable && expected.contains(&detail.as_str()), "{detail}");
    let hint = hint(&address("host=made-up.invalid"), Deadline::after(TIMEOUT));
    assert!(hint.starts_with("Correct the host name") || detail == expected[1], "{hint}");
    let by_name = format!("host=localhost port={} dbname=postgres sslmode=disable", servers().port);
    assert_eq!(ask(&address(&by_name), "SELECT 1", TIMEOUT).as_deref(), Ok("1"));

    let (finish, finished) = mpsc::channel::<()>();
    let (ended, end) = mpsc::channel();
    let runtime = runtime();
    let result = runtime.block_on(async {
        let lookup = in_thread(move || {
            // Until the test has seen the timeout.
            let _ = finished.recv_timeout(TIMEOUT);
            let _ = ended.send(());
            Ok(Vec::new())
        });
        tokio::time::timeout(Duration::from_millis(50), lookup).await
    });
    assert!(result.is_err());
    drop(runtime);
    assert!(end.try_recv().is_err(), "the lookup still runs");
    drop(finish);
    end.recv_timeout(TIMEOUT).unwrap();

    // The threads of the lookups above may still be about to end.
    let mut running = Vec::new();
    let limit = std::time::Instant::now() + TIMEOUT;
    while running.len() < 16 && std::time::Instant::now() < limit {
        running.extend(RunningLookup::start());
        thread::sleep(Duration::from_millis(1));
    }
    assert!(RunningLookup::start().is_none());
    let refused = self::runtime().block_on(resolve("localhost".to_owned(), 1)).unwrap_err();
    assert_eq!(refused, ServerFailure::Lost(Cause::unreachable("too many host names are being looked up already")));
    running.pop();
    assert!(RunningLookup::start().is_some());
}

#[test]
fn a_connection_without_tls_to_another_machine_is_marked() {
    let servers = servers();
    let is_exposed = |more: &str| {
        let address = address(&servers.dsn(more));
        runtime().block_on(async { connect(&address, None, Deadline::after(TIMEOUT)).await.unwrap().1.is_exposed })
    };
    // The name says that it is another machine.
    assert!(is_exposed("host=db.example sslmode=disable"));
    assert!(!is_exposed("sslmode=disable"));
    if servers.has_tls {
        assert!(!is_exposed("host=db.example sslmode=require"));
    }
}

#[test]
fn sslmode_decides_how_a_connection_begins_and_goes_on() {
    use Encryption::{IfOffered, Required, Without};
    use Obstacle::{Handshake, Other, Rejected};
    let table = [
        (SslMode::Disable, Without, [None, None]),
        (SslMode::Allow, Without, [None, Some(Required)]),
        (SslMode::Prefer, IfOffered, [Some(Without), Some(Without)]),
        (SslMode::Require, Required, [None, None]),
        (SslMode::VerifyCa, Required, [None, None]),
        (SslMode::VerifyFull, Required, [None, None]),
    ];
    for (mode, first, second) in table {
        assert_eq!(Encryption::first(mode), first, "{mode:?}");
        assert_eq!([Handshake, Rejected].map(|obstacle| Encryption::second(mode, obstacle)), second, "{mode:?}");
        assert_eq!(Encryption::second(mode, Other), None, "{mode:?}");
    }
}

#[test]
fn a_target_decides_which_server_fits() {
    let table = [
        (Target::Any, None, None, Some(true)),
        (Target::Any, Some(true), Some(true), Some(true)),
        (Target::Primary, Some(true), Some(false), Some(false)),
        (Target::Primary, Some(false), Some(true), Some(true)),
        (Target::Primary, None, Some(false), None),
        (Target::ReadWrite, Some(true), None, Some(false)),
        (Target::ReadWrite, None, Some(true), Some(false)),
        (Target::ReadWrite, Some(false), Some(true), Some(false)),
        (Target::ReadWrite, Some(false), Some(false), Some(true)),
        (Target::ReadWrite, Some(false), None, None),
        (Target::ReadWrite, None, Some(false), None),
    ];
    for (target, is_standby, is_read_only, fits) in table {
        assert_eq!(ServerState { is_standby, is_read_only }.fits(target), fits, "{target:?}");
    }
}

#[test]
fn the_time_is_shared_equally() {
    let second = Duration::from_secs;
    let table = [
        (second(6), 3, None, second(2)),
        (second(6), 1, None, second(6)),
        (second(6), 2, Some(second(1)), second(1)),
        (second(6), 2, Some(second(10)), second(3)),
        (second(6), 0, None, second(6)),
    ];
    for (left, count, limit, share) in table {
        assert_eq!(share_of(left, count, limit), share);
    }
}
