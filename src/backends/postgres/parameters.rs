//! The connection parameters of libpq (<https://www.postgresql.org/docs/current/libpq-connect.html>), and the two forms of
//! a text with them: a URL, and keywords with values.
//!
//! A text is never repeated in an error, because any part of it may be a password that was quoted or encoded wrongly.
//! `tokio_postgres::Config` reads such texts, too. It knows neither the six values of `sslmode` nor certificates, accepts
//! an unencoded `@` in places where it is part of a password, and cannot tell an absent value from a default.

use std::fmt;

use crate::store::error::{Error, Result};

/// A parameter that libpq has.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// The environment variable that it comes from if it is not given. Empty if there is none.
    pub(super) variable: &'static str,
    support: Support,
}

/// What this library does with a parameter.
#[derive(Clone, Copy, Debug)]
enum Support {
    Used,
    /// Nothing: these values, in lower case, ask for what it does anyway.
    Accepted(&'static [&'static str]),
    /// It rejects the parameter, because ignoring it would be wrong.
    Rejected(&'static str),
}

const fn used(name: &'static str, variable: &'static str) -> Parameter {
    Parameter { name, variable, support: Support::Used }
}

const fn accepted(name: &'static str, variable: &'static str, values: &'static [&'static str]) -> Parameter {
    Parameter { name, variable, support: Support::Accepted(values) }
}

const fn rejected(name: &'static str, variable: &'static str, instead: &'static str) -> Parameter {
    Parameter { name, variable, support: Support::Rejected(instead) }
}

/// Every parameter of libpq in PostgreSQL 18, and `schema`: the schema with the tables of a store.
pub(super) const PARAMETERS: &[Parameter] = &[
    used("host", "PGHOST"),
    used("hostaddr", "PGHOSTADDR"),
    used("port", "PGPORT"),
    used("dbname", "PGDATABASE"),
    used("user", "PGUSER"),
    used("password", "PGPASSWORD"),
    used("passfile", "PGPASSFILE"),
    used("channel_binding", "PGCHANNELBINDING"),
    used("connect_timeout", "PGCONNECT_TIMEOUT"),
    used("options", "PGOPTIONS"),
    used("application_name", "PGAPPNAME"),
    used("fallback_application_name", ""),
    used("keepalives", ""),
    used("keepalives_idle", ""),
    used("keepalives_interval", ""),
    used("keepalives_count", ""),
    used("tcp_user_timeout", ""),
    used("sslmode", "PGSSLMODE"),
    used("sslrootcert", "PGSSLROOTCERT"),
    used("sslcert", "PGSSLCERT"),
    used("sslkey", "PGSSLKEY"),
    used("target_session_attrs", "PGTARGETSESSIONATTRS"),
    used("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    used("schema", ""),
    accepted("client_encoding", "PGCLIENTENCODING", &["utf8", "utf-8", "auto"]),
    accepted("gssencmode", "PGGSSENCMODE", &["disable", "prefer"]),
    accepted("gssdelegation", "PGGSSDELEGATION", &["0"]),
    accepted("max_protocol_version", "PGMAXPROTOCOLVERSION", &["3.0", "3.2", "latest"]),
    accepted("min_protocol_version", "PGMINPROTOCOLVERSION", &["3.0"]),
    accepted("replication", "", &["false", "off", "no", "0"]),
    accepted("requiressl", "PGREQUIRESSL", &["0"]),
    accepted("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", &["tlsv1.3"]),
    accepted("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", &["tlsv1", "tlsv1.1", "tlsv1.2"]),
    accepted("sslcertmode", "PGSSLCERTMODE", &["allow"]),
    accepted("sslcompression", "PGSSLCOMPRESSION", &["0"]),
    accepted("sslnegotiation", "PGSSLNEGOTIATION", &["postgres"]),
    accepted("sslsni", "PGSSLSNI", &["1"]),
    rejected("gsslib", "PGGSSLIB", "use a password or a client certificate"),
    rejected("krbsrvname", "PGKRBSRVNAME", "use a password or a client certificate"),
    rejected("oauth_client_id", "", "pass a function as the password"),
    rejected("oauth_client_secret", "", "pass a function as the password"),
    rejected("oauth_issuer", "", "pass a function as the password"),
    rejected("oauth_scope", "", "pass a function as the password"),
    rejected("require_auth", "PGREQUIREAUTH", "use channel_binding=require or sslmode=verify-full"),
    rejected("requirepeer", "PGREQUIREPEER", "use a host with sslmode=verify-full"),
    rejected("scram_client_key", "", "use a password"),
    rejected("scram_server_key", "", "use a password"),
    rejected("service", "PGSERVICE", "give the values of the service themselves"),
    rejected("servicefile", "", "give the values of the service themselves"),
    rejected("sslcrl", "PGSSLCRL", "use an authority whose certificates expire soon"),
    rejected("sslcrldir", "PGSSLCRLDIR", "use an authority whose certificates expire soon"),
    rejected("sslkeylogfile", "", "leave it out"),
    rejected("sslpassword", "", "use a key file without a password"),
];

/// A parameter with its value.
pub(super) struct Setting {
    pub(super) parameter: &'static Parameter,
    pub(super) value: String,
}

impl Setting {
    /// Checks a value that was given for a parameter. `source` is what an error names: the parameter or its variable.
    pub(super) fn new(parameter: &'static Parameter, value: String, source: &str) -> Result<Self> {
        if value.contains('\0') {
            return Err(unusable(source, "has a NUL character"));
        }
        match parameter.support {
            Support::Accepted(values) if !value.is_empty() && !values.contains(&value.to_lowercase().as_str()) => {
                Err(unusable(source, format_args!("can only be {}", values.join(" or "))))
            }
            Support::Rejected(instead) if !value.is_empty() => {
                Err(unusable(source, format_args!("is not supported: {instead}")))
            }
            _ => Ok(Self { parameter, value }),
        }
    }
}

/// The error for a value that cannot be used. `source`: the parameter or its environment variable.
pub(super) fn unusable(source: &str, rule: impl fmt::Display) -> Error {
    let error = Error::invalid_argument(format!("{source} {rule}"));
    let is_variable = PARAMETERS.iter().any(|parameter| parameter.variable == source);
    if is_variable { error.with_hint("Correct or unset this environment variable, and try again.") } else { error }
}

/// The parameter with this name, if there is one.
pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

/// Is it the name of a connection parameter?
#[must_use]
pub fn is_parameter(name: &str) -> bool {
    find(name).is_some()
}

/// The error for a name that no parameter has. `name` is shown if it can only be a name.
pub(super) fn unknown(name: Option<&str>, number: usize) -> Error {
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase());
    let what = match name.filter(|name| name.len() <= 32).filter(is_name) {
        Some(name) => format!("{name} is not a connection parameter"),
        None => format!("parameter {number} is not a connection parameter"),
    };
    Error::invalid_argument(what)
}

/// Reads a text of connection parameters.
pub(super) fn parse(dsn: &str) -> Result<Vec<Setting>> {
    match dsn.split_once("://") {
        // Unlike libpq, which accepts lower case alone: RFC 3986, section 3.1, allows any.
        Some((scheme, rest)) if SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) => parse_url(rest),
        _ => parse_keywords(dsn),
    }
}

const SCHEMES: [&str; 2] = ["postgresql", "postgres"];

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("dsn {what}"))
}

/// The parameters that a text has so far.
#[derive(Default)]
struct SettingList(Vec<Setting>);

impl SettingList {
    fn add(&mut self, name: &str, value: String) -> Result<()> {
        let parameter = find(name).ok_or_else(|| unknown(Some(name), self.0.len() + 1))?;
        self.0.push(Setting::new(parameter, value, name)?);
        Ok(())
    }

    fn add_if_present(&mut self, name: &str, value: String) -> Result<()> {
        if value.is_empty() { Ok(()) } else { self.add(name, value) }
    }
}

/// Reads what follows `postgresql://`: `[user[:password]@][host[:port],…][/dbname][?name=value&…]`.
fn parse_url(text: &str) -> Result<Vec<Setting>> {
    let mut settings = SettingList::default();
    let credentials_end = text.find(['@', '/']).filter(|&end| text[end..].starts_with('@'));
    let (credentials, rest) = credentials_end.map_or(("", text), |end| (&text[..end], &text[end + 1..]));
    // What follows may be shown. With another `@`, the part before it may belong to the password.
    if rest.contains('@') {
        return Err(invalid("has an @ that does not end the password: write %40 instead, and %2F for a / before it"));
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    settings.add_if_present("user", decode(user, "the user")?)?;
    settings.add_if_present("password", decode(password, "the password")?)?;

    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (hosts, ports): (Vec<_>, Vec<_>) =
        hosts.split(',').map(host_and_port).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let has_port = ports.iter().any(|port: &String| !port.is_empty());
    if hosts.len() > 1 || !hosts.concat().is_empty() {
        settings.add("host", hosts.join(","))?;
    }
    if has_port {
        settings.add("port", ports.join(","))?;
    }
    settings.add_if_present("dbname", decode(database, "the database")?)?;

    let mut has_password = false;
    for (number, pair) in (1..).zip(query.split('&')).filter(|(_, pair)| !pair.is_empty()) {
        let what = format!("parameter {number} after the ?");
        let (name, value) = pair
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| invalid(format_args!("needs one = in {what}")))?;
        let (name, value) = (decode(name, &what)?, decode(value, &what)?);
        match (name.as_str(), value.as_str()) {
            // As libpq does, for URLs of JDBC.
            ("ssl", "true") => settings.add("sslmode", "require".to_owned())?,
            // After a password, a name may be a part of it that was not encoded.
            _ if has_password && find(&name).is_none() => return Err(unknown(None, number)),
            _ => settings.add(&name, value)?,
        }
        has_password |= name == "password";
    }
    Ok(settings.0)
}

/// Splits `host`, `host:port` or `[address]:port`.
fn host_and_port(text: &str) -> Result<(String, String)> {
    let (host, port) = match text.strip_prefix('[') {
        None => text.split_once(':').unwrap_or((text, "")),
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(|| invalid("has a [ without a ] in its host"))?;
            let port = rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""));
            (host, port.ok_or_else(|| invalid("has neither a : nor the end of the host after a ]"))?)
        }
    };
    Ok((decode(host, "the host")?, decode(port, "the port")?))
}

/// Replaces `%` and two hexadecimal digits by a byte.
fn decode(text: &str, what: &str) -> Result<String> {
    let wrong = || invalid(format_args!("needs two hexadecimal digits after each % in {what}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).map_err(|_| wrong())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid(format_args!("is not UTF-8 in {what}")))
}

/// Reads `name=value name='a value' …`. A backslash keeps the character after it.
fn parse_keywords(text: &str) -> Result<Vec<Setting>> {
    let mut settings = SettingList::default();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let number = settings.0.len() + 1;
        let name_end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(invalid(format_args!("needs a name, an = and a value in parameter {number}")));
        };
        let (value, after) = keyword_value(after.trim_start(), number)?;
        // After a password, a name may be a part of it that was not quoted. At the beginning, it may be the password alone.
        let may_be_password =
            settings.0.is_empty() || settings.0.iter().any(|setting| setting.parameter.name == "password");
        if may_be_password && find(name).is_none() {
            return Err(unknown(None, number));
        }
        settings.add(name, value)?;
        rest = after.trim_start();
    }
    Ok(settings.0)
}

/// Splits a value, which may be quoted, from what follows it.
fn keyword_value(text: &str, number: usize) -> Result<(String, &str)> {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            '\'' if quoted.is_some() => return Ok((value, &text[at + 1..])),
            _ if quoted.is_none() && character.is_ascii_whitespace() => return Ok((value, &text[at..])),
            _ => value.push(character),
        }
    }
    match quoted {
        Some(_) => Err(invalid(format_args!("has no ' at the end of the value of parameter {number}"))),
        None => Ok((value, "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of a text as `name=value`, or the error.
    fn read(dsn: &str) -> std::result::Result<String, String> {
        let settings = parse(dsn).map_err(|error| error.detail().to_owned())?;
        let shown: Vec<_> =
            settings.iter().map(|setting| format!("{}={}", setting.parameter.name, setting.value)).collect();
        Ok(shown.join(" | "))
    }

    #[test]
    fn a_url_and_keywords_give_parameters() {
        let table = [
            ("postgresql://", ""),
            ("postgres://localhost", "host=localhost"),
            ("PostgreSQL://Ada@localhost/Tokens", "user=Ada | host=localhost | dbname=Tokens"),
            ("POSTGRES://localhost", "host=localhost"),
            ("postgresql://localhost:5433", "host=localhost | port=5433"),
            ("postgresql://localhost/mydb", "host=localhost | dbname=mydb"),
            ("postgresql://user@localhost", "user=user | host=localhost"),
            ("postgresql://user:made-up@localhost", "user=user | password=made-up | host=localhost"),
            ("postgresql://user:made%40up%2F%3a@h", "user=user | password=made@up/: | host=h"),
            ("postgresql://user:made:up?#[]@h", "user=user | password=made:up?#[] | host=h"),
            ("postgresql://:made-up@h", "password=made-up | host=h"),
            ("postgresql://a:123,b:456/db", "host=a,b | port=123,456 | dbname=db"),
            ("postgresql://a,b:456/db", "host=a,b | port=,456 | dbname=db"),
            ("postgresql://a,b", "host=a,b"),
            ("postgresql:///mydb?host=localhost&port=5433", "dbname=mydb | host=localhost | port=5433"),
            ("postgresql://?host=/var/run/postgresql", "host=/var/run/postgresql"),
            ("postgresql://%2Fvar%2Frun%2Fpostgresql/db", "host=/var/run/postgresql | dbname=db"),
            ("postgresql://[2001:db8::1234]:5433/db", "host=2001:db8::1234 | port=5433 | dbname=db"),
            ("postgresql://[::1],b/db", "host=::1,b | dbname=db"),
            (
                "postgresql://h/?sslmode=require&application_name=a%20b",
                "host=h | sslmode=require | application_name=a b",
            ),
            ("postgresql://h/db?ssl=true", "host=h | dbname=db | sslmode=require"),
            ("postgresql://h/db?user=me%40example.com", "host=h | dbname=db | user=me@example.com"),
            ("postgresql://h/a/b", "host=h | dbname=a/b"),
            ("", ""),
            ("host=localhost port=5432 dbname=mydb", "host=localhost | port=5432 | dbname=mydb"),
            (" host = localhost\n port= 5432 ", "host=localhost | port=5432"),
            ("password='made up' user=u", "password=made up | user=u"),
            (r"password='it\'s \\ up' user=a\ b", r"password=it's \ up | user=a b"),
            ("user='' host=h", "user= | host=h"),
            (
                "host=h gssencmode=disable sslcompression=0 client_encoding=UTF8",
                "host=h | gssencmode=disable | sslcompression=0 | client_encoding=UTF8",
            ),
        ];
        for (dsn, settings) in table {
            assert_eq!(read(dsn).as_deref(), Ok(settings), "{dsn}");
        }
    }

    #[test]
    fn the_hint_says_whether_an_argument_or_a_variable_is_wrong() {
        let error = |source| {
            let parameter = find("service").unwrap();
            Setting::new(parameter, "made-up".to_owned(), source).err().unwrap()
        };
        assert!(error("PGSERVICE").to_string().starts_with("PGSERVICE is not supported"));
        assert!(error("PGSERVICE").hint().contains("unset this environment variable"));
        assert!(error("service").hint().contains("Correct the argument"));
    }

    #[test]
    fn an_error_names_the_place_and_not_the_text() {
        let many_at = "dsn has an @ that does not end the password: write %40 instead, and %2F for a / before it";
        let table = [
            ("made-up", "dsn needs a name, an = and a value in parameter 1"),
            ("mysql://u:made-up@h/db", "dsn needs a name, an = and a value in parameter 1"),
            ("host=h made-up", "dsn needs a name, an = and a value in parameter 2"),
            ("host=h password='made up", "dsn has no ' at the end of the value of parameter 2"),
            ("host=h password=made up=1", "parameter 3 is not a connection parameter"),
            ("made=up", "parameter 1 is not a connection parameter"),
            ("host=h sslmod=require", "sslmod is not a connection parameter"),
            ("host=h Made-Up=require", "parameter 2 is not a connection parameter"),
            ("postgresql://u:made@up@h/db", many_at),
            ("postgresql://u:made/up@h/db", many_at),
            ("postgresql://h/db?user=u@up", many_at),
            ("postgresql://u:made%up@h/db", "dsn needs two hexadecimal digits after each % in the password"),
            ("postgresql://u:made%F@h/db", "dsn needs two hexadecimal digits after each % in the password"),
            ("postgresql://u:made%ff@h/db", "dsn is not UTF-8 in the password"),
            ("postgresql://u:made%00up@h/db", "password has a NUL character"),
            ("postgresql://u%zz@h/db", "dsn needs two hexadecimal digits after each % in the user"),
            ("postgresql://[::1/db", "dsn has a [ without a ] in its host"),
            ("postgresql://[::1]x/db", "dsn has neither a : nor the end of the host after a ]"),
            ("postgresql://h/db?sslmode", "dsn needs one = in parameter 1 after the ?"),
            ("postgresql://h/db?port=1&user=a=b", "dsn needs one = in parameter 2 after the ?"),
            ("postgresql://h/db?sslmod=require", "sslmod is not a connection parameter"),
            ("postgresql://u:made-up@h/db?sslmod=require", "sslmod is not a connection parameter"),
            ("postgresql://h/db?password=made&up=1", "parameter 2 is not a connection parameter"),
            ("service=made-up", "service is not supported: give the values of the service themselves"),
            ("servicefile=made-up", "servicefile is not supported: give the values of the service themselves"),
            ("postgresql:///?service=made-up", "service is not supported: give the values of the service themselves"),
            ("sslcrl=made-up", "sslcrl is not supported: use an authority whose certificates expire soon"),
            ("gssencmode=require", "gssencmode can only be disable or prefer"),
            ("client_encoding=LATIN1", "client_encoding can only be utf8 or utf-8 or auto"),
        ];
        for (dsn, error) in table {
            assert_eq!(read(dsn), Err(error.to_owned()), "{dsn}");
        }
    }
}
