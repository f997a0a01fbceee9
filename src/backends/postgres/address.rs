//! Which server, database and user: from a text, arguments, variables and a password file.
//!
//! | what | the first that is given |
//! | --- | --- |
//! | a parameter | the argument, the text (`dsn`), the variable (`PGHOST`, …), the default |
//! | the password | a function, the argument, the text, `PGPASSWORD`, the password file |
//! | the host | …, the folder `/var/run/postgresql` or `/tmp` with a socket, `localhost` |
//! | the user | …, the user of the operating system |
//! | the database | …, one with the name of the user |
//! | `sslmode` | …, `verify-full` for another machine, `prefer` for this one |
//!
//! The default of `sslmode` differs from libpq, where it is always `prefer`: with that, who can redirect a connection can
//! read every token. It counts for each host: `localhost`, `127.0.0.0/8` and `::1` are this machine. A socket never uses
//! TLS. `sslmode=require` with `sslrootcert` means `verify-ca`, as in libpq.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::config::ChannelBinding;

use super::parameters::{self, PARAMETERS, Setting};
use super::password_file;
use crate::store::backend::Location;
use crate::store::error::{Error, Result};

/// What an address takes from the process that it is made in.
pub trait Environment {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// The name of the user of the operating system.
    fn user_name(&self) -> Option<String>;
    /// The path of the password file, if none is named.
    fn default_password_file(&self) -> Option<PathBuf>;
    /// Reads a password file.
    fn read_password_file(&self, path: &Path) -> PasswordFile;
    /// Is there a file or a folder with this path?
    fn exists(&self, path: &Path) -> bool;
}

/// The text of a password file, or why there is none.
pub enum PasswordFile {
    /// The file has this text.
    Text(String),
    /// There is no such file.
    Missing,
    /// Others than its owner may read it, so it does not count.
    Exposed,
}

/// The environment of this process.
pub struct OwnProcess;

impl Environment for OwnProcess {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn user_name(&self) -> Option<String> {
        whoami::username().ok()
    }

    fn default_password_file(&self) -> Option<PathBuf> {
        if cfg!(windows) {
            return Some(PathBuf::from(std::env::var_os("APPDATA")?).join("postgresql").join("pgpass.conf"));
        }
        Some(std::env::home_dir()?.join(".pgpass"))
    }

    fn read_password_file(&self, path: &Path) -> PasswordFile {
        let Ok(metadata) = path.metadata() else { return PasswordFile::Missing };
        if !metadata.is_file() {
            return PasswordFile::Missing;
        }
        if is_exposed(&metadata) {
            return PasswordFile::Exposed;
        }
        std::fs::read(path).map_or(PasswordFile::Missing, |bytes| PasswordFile::Text(password_file::text(&bytes)))
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }
}

/// May others than the owner read or write the file?
#[cfg(unix)]
pub(super) fn is_exposed(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.mode() & 0o077 != 0
}

#[cfg(not(unix))]
pub(super) fn is_exposed(_: &std::fs::Metadata) -> bool {
    false
}

/// A function that returns the password.
pub type AskPassword = Arc<dyn Fn() -> Result<String> + Send + Sync>;

/// Which server, database and user, and how to connect. Its `Debug` shows the location alone.
#[derive(Clone)]
pub struct Address {
    pub(super) hosts: Vec<ServerHost>,
    pub(super) user: String,
    pub(super) database: String,
    schema: Option<String>,
    pub(super) application_name: String,
    pub(super) options: Option<String>,
    pub(super) channel_binding: ChannelBinding,
    pub(super) target: Target,
    pub(super) is_shuffled: bool,
    /// The longest time for one host.
    pub(super) connect_timeout: Option<Duration>,
    pub(super) keepalives: Option<Keepalives>,
    pub(super) certificates: Certificates,
    ask_password: Option<AskPassword>,
    password: Option<String>,
    is_password_given: bool,
    /// A password file that was ignored because others may read it.
    exposed_password_file: Option<PathBuf>,
    location: Location,
}

/// One host of an address.
#[derive(Clone)]
pub(super) struct ServerHost {
    pub(super) endpoint: Endpoint,
    pub(super) port: u16,
    pub(super) mode: SslMode,
    /// The password of the password file.
    password: Option<String>,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// The folder of a socket.
    Socket(PathBuf),
    /// A name to look up, which its certificate has to have.
    Name(String),
    /// An IP address. The name, if there is one, is for its certificate.
    Address(IpAddr, Option<String>),
}

/// The values of `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The values of `target_session_attrs` with which a store can save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Any,
    ReadWrite,
    Primary,
}

/// When the system looks whether an idle connection is still alive, and how long sent data may stay unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keepalives {
    pub(super) idle: Duration,
    pub(super) interval: Duration,
    pub(super) count: u32,
    pub(super) user_timeout: Duration,
}

/// The files with certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificates {
    /// The certificates of authorities. `None` stands for those of the system.
    pub(super) roots: Option<PathBuf>,
    /// The client's certificate and its key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

impl Address {
    /// `dsn` is a `postgresql://` URL or keyword text; `arguments` override it; what is missing comes from
    /// `environment`. An error repeats no part of a text that may be a password.
    pub fn new(dsn: Option<&str>, arguments: &[(String, String)], environment: &dyn Environment) -> Result<Self> {
        let values = ParameterValues::collect(dsn, arguments, environment)?;
        let user = match values.get("user") {
            Some(user) => user.to_owned(),
            None => environment.user_name().ok_or_else(|| Error::invalid_argument("user is missing"))?,
        };
        let database = values.get("dbname").unwrap_or(&user).to_owned();
        // psql takes these for an address, which may hold a password. The location shows the name of the database.
        if database.contains("://") || database.contains('=') {
            return Err(Error::invalid_argument("dbname must be the name of a database, not an address"));
        }
        let roots = values.get("sslrootcert");
        let certificates = Certificates {
            roots: roots.filter(|&roots| roots != "system").map(PathBuf::from),
            client: match (values.get("sslcert"), values.get("sslkey")) {
                (None, None) => None,
                (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
                _ => return Err(Error::invalid_argument("sslcert and sslkey need each other")),
            },
        };
        let mut hosts = hosts(&values, ssl_mode(&values, roots)?, environment)?;
        if roots.is_some() && certificates.roots.is_none() {
            // As in libpq: every owner of a domain has a certificate of the system's authorities.
            for host in &mut hosts {
                host.mode = SslMode::VerifyFull;
            }
        }
        let location = location_of(&hosts, &database, values.get("schema"));
        let mut address = Self {
            application_name: ["application_name", "fallback_application_name"]
                .iter()
                .find_map(|name| values.get(name))
                .unwrap_or("zoho-token-store")
                .to_owned(),
            schema: values.get("schema").map(str::to_owned),
            options: values.get("options").map(str::to_owned),
            channel_binding: values.one_of(
                "channel_binding",
                &[
                    ("prefer", ChannelBinding::Prefer),
                    ("disable", ChannelBinding::Disable),
                    ("require", ChannelBinding::Require),
                ],
            )?,
            target: values.one_of(
                "target_session_attrs",
                &[("any", Target::Any), ("read-write", Target::ReadWrite), ("primary", Target::Primary)],
            )?,
            is_shuffled: values.one_of("load_balance_hosts", &[("disable", false), ("random", true)])?,
            connect_timeout: values.seconds("connect_timeout")?,
            keepalives: keepalives(&values)?,
            ask_password: None,
            password: values.get("password").map(str::to_owned),
            is_password_given: values.is_given("password"),
            exposed_password_file: None,
            hosts,
            user,
            database,
            certificates,
            location,
        };
        if address.password.is_none() {
            address.read_password_file(values.get("passfile"), environment);
        }
        Ok(address)
    }

    /// The same address with a function that returns the password. It is called for each new connection.
    #[must_use]
    pub fn with_password(self, ask: AskPassword) -> Self {
        Self { ask_password: Some(ask), ..self }
    }

    /// The same address, whose location names this schema. `None`: the schema that it names.
    #[must_use]
    pub fn in_schema(self, schema: Option<&str>) -> Self {
        let location = location_of(&self.hosts, &self.database, schema.or(self.schema()));
        Self { location, ..self }
    }

    /// The location, which displays as `PostgreSQL host:port/db`, or as `PostgreSQL host:port/db, schema name`.
    #[must_use]
    pub const fn location(&self) -> &Location {
        &self.location
    }

    /// The schema that it names.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Is there a password, or a function that returns one?
    #[must_use]
    pub fn has_password(&self) -> bool {
        let is_known = self.password.is_some() || self.hosts.iter().any(|host| host.password.is_some());
        is_known || self.ask_password.is_some()
    }

    /// Is there a password in the text or the arguments, and not only in the environment?
    #[must_use]
    pub const fn is_password_given(&self) -> bool {
        self.is_password_given
    }

    /// Asks for the password, if there is a function for that. Otherwise returns `None`.
    pub(super) fn ask_password(&self) -> Result<Option<String>> {
        self.ask_password.as_ref().map(|ask| ask()).transpose()
    }

    /// The password for a host from the address, the variables or the password file.
    pub(super) fn password<'a>(&'a self, host: &'a ServerHost) -> Option<&'a str> {
        self.password.as_deref().or(host.password.as_deref())
    }

    /// The password file that was ignored because others may read it.
    pub(super) fn exposed_password_file(&self) -> Option<&Path> {
        self.exposed_password_file.as_deref()
    }

    fn read_password_file(&mut self, path: Option<&str>, environment: &dyn Environment) {
        let Some(path) = path.map(PathBuf::from).or_else(|| environment.default_password_file()) else { return };
        match environment.read_password_file(&path) {
            PasswordFile::Missing => {}
            PasswordFile::Exposed => self.exposed_password_file = Some(path),
            PasswordFile::Text(text) => {
                for host in &mut self.hosts {
                    let entry = password_file::Entry {
                        host: &host.name_in_password_file(),
                        port: &host.port.to_string(),
                        database: &self.database,
                        user: &self.user,
                    };
                    host.password = password_file::find(&text, &entry);
                }
            }
        }
    }
}

/// `public` is the schema that users do not name, so messages do not, either.
fn location_of(hosts: &[ServerHost], database: &str, schema: Option<&str>) -> Location {
    let hosts: Vec<_> = hosts.iter().map(ServerHost::to_string).collect();
    let schema = schema.filter(|&schema| schema != "public");
    let schema = schema.map_or_else(String::new, |schema| format!(", schema {}", schema.escape_debug()));
    Location::on_server(format!("PostgreSQL {}/{}{schema}", hosts.join(","), database.escape_debug()))
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&format_args!("{}", self.location)).finish()
    }
}

impl ServerHost {
    fn name_in_password_file(&self) -> String {
        match &self.endpoint {
            Endpoint::Socket(folder) if SOCKET_FOLDERS.iter().any(|default| Path::new(default) == folder) => {
                "localhost".to_owned()
            }
            Endpoint::Socket(folder) => folder.to_string_lossy().into_owned(),
            Endpoint::Name(name) | Endpoint::Address(_, Some(name)) => name.clone(),
            Endpoint::Address(address, None) => address.to_string(),
        }
    }

    /// Does everything that connects to this host stay on this machine?
    pub(super) fn is_local(&self) -> bool {
        match &self.endpoint {
            Endpoint::Socket(_) => true,
            Endpoint::Name(name) => is_localhost(name),
            Endpoint::Address(address, name) => {
                address.to_canonical().is_loopback() && name.as_deref().is_none_or(is_localhost)
            }
        }
    }
}

/// As messages name it: `host:port`, `[address]:port` or `/folder:port`.
impl fmt::Display for ServerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Socket(folder) => write!(f, "{}", folder.to_string_lossy().escape_debug())?,
            Endpoint::Name(name) | Endpoint::Address(_, Some(name)) => f.write_str(name)?,
            Endpoint::Address(IpAddr::V6(address), None) => write!(f, "[{address}]")?,
            Endpoint::Address(IpAddr::V4(address), None) => write!(f, "{address}")?,
        }
        write!(f, ":{}", self.port)
    }
}

fn is_localhost(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// The folders in which a server makes its socket: as Debian, Ubuntu and Fedora build it, and as PostgreSQL does.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

const DEFAULT_PORT: u16 = 5432;

/// The parameters that were given. An empty value counts as absent, as in libpq.
struct ParameterValues(BTreeMap<&'static str, ParameterValue>);

struct ParameterValue {
    text: String,
    /// What an error names: the parameter or its variable.
    source: String,
}

impl ParameterValues {
    fn collect(dsn: Option<&str>, arguments: &[(String, String)], environment: &dyn Environment) -> Result<Self> {
        let mut values = Self(BTreeMap::new());
        for parameter in PARAMETERS.iter().filter(|parameter| !parameter.variable.is_empty()) {
            if let Some(value) = environment.variable(parameter.variable) {
                values.set(Setting::new(parameter, value, parameter.variable)?, parameter.variable);
            }
        }
        for setting in dsn.map(parameters::parse).transpose()?.unwrap_or_default() {
            let name = setting.parameter.name;
            values.set(setting, name);
        }
        for (number, (name, value)) in (1..).zip(arguments) {
            let parameter = parameters::find(name).ok_or_else(|| parameters::unknown(Some(name), number))?;
            values.set(Setting::new(parameter, value.clone(), name)?, name);
        }
        Ok(values)
    }

    fn set(&mut self, setting: Setting, source: &str) {
        let value = ParameterValue { text: setting.value, source: source.to_owned() };
        self.0.insert(setting.parameter.name, value);
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Does the value come from the text or the arguments, and not from a variable?
    fn is_given(&self, name: &str) -> bool {
        self.get(name).is_some() && self.0.get(name).is_some_and(|value| value.source == name)
    }

    fn error(&self, name: &str, rule: impl fmt::Display) -> Error {
        let source = self.0.get(name).map_or(name, |value| &value.source);
        parameters::unusable(source, rule)
    }

    /// The first choice is the default.
    fn one_of<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T> {
        let text = self.get(name).unwrap_or(choices[0].0);
        choices.iter().find(|(choice, _)| *choice == text).map(|&(_, value)| value).ok_or_else(|| {
            let choices: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            self.error(name, format_args!("can only be {}", choices.join(" or ")))
        })
    }

    fn number(&self, name: &str) -> Result<Option<u32>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        // libpq takes a negative number for "not given".
        let number = text.trim().parse::<i32>().map_err(|_| self.error(name, "has to be a whole number"))?;
        Ok(u32::try_from(number).ok())
    }

    /// A positive number of seconds.
    fn seconds(&self, name: &str) -> Result<Option<Duration>> {
        Ok(self.number(name)?.filter(|&seconds| seconds > 0).map(|seconds| Duration::from_secs(seconds.into())))
    }
}

fn keepalives(values: &ParameterValues) -> Result<Option<Keepalives>> {
    // With the system's own values, a connection that a firewall forgot would count as alive for two hours.
    let keepalives = Keepalives {
        idle: values.seconds("keepalives_idle")?.unwrap_or(Duration::from_secs(30)),
        interval: values.seconds("keepalives_interval")?.unwrap_or(Duration::from_secs(5)),
        count: values.number("keepalives_count")?.filter(|&count| count > 0).unwrap_or(3),
        user_timeout: values
            .number("tcp_user_timeout")?
            .filter(|&milliseconds| milliseconds > 0)
            .map_or(Duration::from_secs(10), |milliseconds| Duration::from_millis(milliseconds.into())),
    };
    Ok((values.number("keepalives")? != Some(0)).then_some(keepalives))
}

/// The value of `sslmode`, if there is one.
fn ssl_mode(values: &ParameterValues, roots: Option<&str>) -> Result<Option<SslMode>> {
    let mode = values.get("sslmode").map(|_| {
        values.one_of(
            "sslmode",
            &[
                ("disable", SslMode::Disable),
                ("allow", SslMode::Allow),
                ("prefer", SslMode::Prefer),
                ("require", SslMode::Require),
                ("verify-ca", SslMode::VerifyCa),
                ("verify-full", SslMode::VerifyFull),
            ],
        )
    });
    match mode.transpose()? {
        Some(mode) if roots == Some("system") && mode != SslMode::VerifyFull => {
            Err(values.error("sslmode", "has to be verify-full with sslrootcert=system"))
        }
        Some(SslMode::Require) if roots.is_some() => Ok(Some(SslMode::VerifyCa)),
        mode => Ok(mode),
    }
}

fn hosts(values: &ParameterValues, mode: Option<SslMode>, environment: &dyn Environment) -> Result<Vec<ServerHost>> {
    let list = |name| values.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port").unwrap_or_else(|| vec![""]));
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    if names.as_ref().is_some_and(|names| names.len() != count) {
        return Err(values.error("hostaddr", "needs as many addresses as host has names"));
    }
    if ports.len() != 1 && ports.len() != count {
        return Err(values.error("port", "needs one number, or one for each host"));
    }
    let item = |list: &Option<Vec<&str>>, index: usize| {
        list.as_ref().and_then(|list| list.get(index).copied()).unwrap_or_default().to_owned()
    };
    (0..count)
        .map(|index| {
            let port = match ports.get(if ports.len() == 1 { 0 } else { index }) {
                None | Some(&"") => DEFAULT_PORT,
                Some(text) => text
                    .parse()
                    .ok()
                    .filter(|&port| port != 0)
                    .ok_or_else(|| values.error("port", "has to be a number from 1 to 65535"))?,
            };
            let name = item(&names, index);
            let endpoint = match item(&addresses, index).as_str() {
                "" => endpoint(values, name, port, environment)?,
                address => {
                    let address = address.parse().map_err(|_| values.error("hostaddr", "has to be an IP address"))?;
                    Endpoint::Address(address, host_name(values, name)?)
                }
            };
            let mut host = ServerHost { endpoint, port, mode: SslMode::Disable, password: None };
            if !matches!(host.endpoint, Endpoint::Socket(_)) {
                let default = if host.is_local() { SslMode::Prefer } else { SslMode::VerifyFull };
                host.mode = mode.unwrap_or(default);
            }
            Ok(host)
        })
        .collect()
}

/// Where the host with this name is. An empty name stands for the default.
fn endpoint(values: &ParameterValues, name: String, port: u16, environment: &dyn Environment) -> Result<Endpoint> {
    if name.is_empty() {
        return Ok(default_endpoint(port, environment));
    }
    if name.starts_with('/') {
        return if cfg!(unix) {
            Ok(Endpoint::Socket(name.into()))
        } else {
            Err(values.error("host", "cannot be a socket on this system"))
        };
    }
    if let Ok(address) = name.parse() {
        return Ok(Endpoint::Address(address, None));
    }
    Ok(host_name(values, name)?.map_or_else(|| default_endpoint(port, environment), Endpoint::Name))
}

fn default_endpoint(port: u16, environment: &dyn Environment) -> Endpoint {
    let [system, temporary] = SOCKET_FOLDERS.map(PathBuf::from);
    if cfg!(unix) && environment.exists(&system) {
        return Endpoint::Socket(system);
    }
    if cfg!(unix) && environment.exists(&socket_path(&temporary, port)) {
        return Endpoint::Socket(temporary);
    }
    Endpoint::Name("localhost".to_owned())
}

/// The path of the socket that a server makes in `folder`.
pub(super) fn socket_path(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

/// Checks the characters of a host name, because messages show it.
fn host_name(values: &ParameterValues, name: String) -> Result<Option<String>> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:%".contains(&byte);
    if !name.bytes().all(is_allowed) {
        return Err(values.error("host", "has a character that no host name has"));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

#[cfg(test)]
#[path = "../../../tests/rust/postgres_address.rs"]
mod tests;
