//! The addresses of servers, as libpq reads them. These are unit tests of `src/backends/postgres/address.rs`.

use super::*;

/// An environment of variables, paths that exist, and a password file.
#[derive(Default)]
struct MadeUp {
    variables: &'static [(&'static str, &'static str)],
    paths: &'static [&'static str],
    password_file: Option<(&'static str, &'static str)>,
    is_exposed: bool,
}

impl Environment for MadeUp {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    }

    fn user_name(&self) -> Option<String> {
        Some("os-user".to_owned())
    }

    fn default_password_file(&self) -> Option<PathBuf> {
        Some("/home/os-user/.pgpass".into())
    }

    fn read_password_file(&self, path: &Path) -> PasswordFile {
        match self.password_file.filter(|(name, _)| Path::new(name) == path) {
            Some(_) if self.is_exposed => PasswordFile::Exposed,
            Some((_, text)) => PasswordFile::Text(text.to_owned()),
            None => PasswordFile::Missing,
        }
    }

    fn exists(&self, path: &Path) -> bool {
        self.paths.iter().any(|exists| Path::new(exists) == path)
    }
}

const EMPTY: MadeUp = MadeUp { variables: &[], paths: &[], password_file: None, is_exposed: false };

/// Names with values.
type Given = &'static [(&'static str, &'static str)];

fn pairs(arguments: &[(&str, &str)]) -> Vec<(String, String)> {
    arguments.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn address(dsn: &str, environment: &dyn Environment) -> Address {
    Address::new(Some(dsn), &[], environment).unwrap()
}

fn error(dsn: &str, environment: &dyn Environment) -> String {
    Address::new(Some(dsn), &[], environment).unwrap_err().detail().to_owned()
}

#[test]
fn arguments_come_before_the_text_and_the_text_before_variables() {
    let variables = &[("PGHOST", "c"), ("PGPORT", "3"), ("PGDATABASE", "v"), ("PGUSER", "x"), ("PGAPPNAME", "n")];
    let environment = MadeUp { variables, ..EMPTY };
    let table: [(&str, Given, &str, &str); 5] = [
        ("", &[], "PostgreSQL c:3/v", "x"),
        ("postgresql://me@b:2/t", &[], "PostgreSQL b:2/t", "me"),
        ("host=b port=2 dbname=t user=me", &[], "PostgreSQL b:2/t", "me"),
        ("postgresql://me@b:2/t", &[("host", "a"), ("user", "other")], "PostgreSQL a:2/t", "other"),
        // An empty value counts as absent.
        ("dbname=t", &[("dbname", ""), ("port", "")], "PostgreSQL c:5432/x", "x"),
    ];
    for (dsn, arguments, location, user) in table {
        let address = Address::new(Some(dsn), &pairs(arguments), &environment).unwrap();
        assert_eq!((address.location().to_string().as_str(), address.user.as_str()), (location, user), "{dsn}");
        assert_eq!(address.application_name, "n");
    }
    let bare = Address::new(None, &[], &EMPTY).unwrap();
    assert_eq!(bare.location().to_string(), "PostgreSQL localhost:5432/os-user");
    assert_eq!((bare.user.as_str(), bare.application_name.as_str()), ("os-user", "zoho-token-store"));
}

#[cfg(unix)]
#[test]
fn the_default_host_is_a_socket_if_there_may_be_one() {
    let table: [(&'static [&'static str], &str, &str); 5] = [
        (&["/var/run/postgresql", "/tmp/.s.PGSQL.5432"], "", "PostgreSQL /var/run/postgresql:5432/db"),
        (&["/tmp/.s.PGSQL.5432"], "", "PostgreSQL /tmp:5432/db"),
        (&["/tmp/.s.PGSQL.5432"], "port=5433", "PostgreSQL localhost:5433/db"),
        (&["/var/run/postgresql"], "host=a,", "PostgreSQL a:5432,/var/run/postgresql:5432/db"),
        (&[], "host=/run/made-up", "PostgreSQL /run/made-up:5432/db"),
    ];
    for (paths, dsn, location) in table {
        let environment = MadeUp { paths, variables: &[("PGDATABASE", "db")], ..EMPTY };
        assert_eq!(address(dsn, &environment).location().to_string(), location);
    }
}

#[test]
fn hosts_addresses_and_ports_belong_together() {
    let table = [
        ("postgresql://a:1,b:2/db", "PostgreSQL a:1,b:2/db"),
        ("postgresql://a,b:2/db", "PostgreSQL a:5432,b:2/db"),
        ("host=a,b port=7 dbname=db", "PostgreSQL a:7,b:7/db"),
        ("postgresql://[::1]:7/db", "PostgreSQL [::1]:7/db"),
        ("hostaddr=10.0.0.1,10.0.0.2 dbname=db", "PostgreSQL 10.0.0.1:5432,10.0.0.2:5432/db"),
        ("host=a,b hostaddr=10.0.0.1,10.0.0.2 dbname=db", "PostgreSQL a:5432,b:5432/db"),
        ("host=a dbname='a b\tc'", "PostgreSQL a:5432/a b\\tc"),
        ("postgresql://a/db?schema=crm", "PostgreSQL a:5432/db, schema crm"),
        ("host=a dbname=db schema='a b\tc'", "PostgreSQL a:5432/db, schema a b\\tc"),
        ("host=a dbname=db schema=public", "PostgreSQL a:5432/db"),
    ];
    for (dsn, location) in table {
        assert_eq!(address(dsn, &EMPTY).location().to_string(), location);
    }
    let named = address("host=db.example hostaddr=10.0.0.1", &EMPTY);
    let ip = "10.0.0.1".parse().unwrap();
    assert_eq!(named.hosts[0].endpoint, Endpoint::Address(ip, Some("db.example".to_owned())));
    let errors = [
        ("host=a,b hostaddr=10.0.0.1", "hostaddr needs as many addresses as host has names"),
        ("host=a,b port=1,2,3", "port needs one number, or one for each host"),
        ("host=a port=0", "port has to be a number from 1 to 65535"),
        ("host=a port=65536", "port has to be a number from 1 to 65535"),
        ("postgresql://u:made-up", "port has to be a number from 1 to 65535"),
        ("hostaddr=made-up", "hostaddr has to be an IP address"),
        ("host='a b'", "host has a character that no host name has"),
        ("host=@a", "host has a character that no host name has"),
    ];
    for (dsn, text) in errors {
        assert_eq!(error(dsn, &EMPTY), text);
    }
}

#[test]
fn the_default_of_sslmode_depends_on_where_the_host_is() {
    use SslMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
    let table: [(&str, &[SslMode]); 22] = [
        ("host=db.example", &[VerifyFull]),
        ("host=10.0.0.1", &[VerifyFull]),
        ("host=localhost", &[Prefer]),
        ("host=LOCALHOST", &[Prefer]),
        ("host=localhost.example", &[VerifyFull]),
        ("host=127.0.0.1", &[Prefer]),
        ("host=127.8.9.1", &[Prefer]),
        ("host=::1", &[Prefer]),
        ("host=::ffff:127.0.0.1", &[Prefer]),
        ("hostaddr=127.0.0.1", &[Prefer]),
        // A tunnel to another machine.
        ("host=db.example hostaddr=127.0.0.1", &[VerifyFull]),
        ("host=localhost hostaddr=10.0.0.1", &[VerifyFull]),
        ("host=localhost,db.example", &[Prefer, VerifyFull]),
        ("host=localhost,db.example sslmode=disable", &[Disable, Disable]),
        ("host=db.example sslmode=allow", &[Allow]),
        ("host=db.example sslmode=prefer", &[Prefer]),
        ("host=db.example sslmode=require", &[Require]),
        ("host=db.example sslmode=require sslrootcert=/made/up", &[VerifyCa]),
        ("host=db.example sslmode=verify-ca", &[VerifyCa]),
        ("host=localhost sslmode=verify-full", &[VerifyFull]),
        ("host=localhost sslrootcert=system", &[VerifyFull]),
        ("host=localhost sslrootcert=/made/up", &[Prefer]),
    ];
    for (dsn, modes) in table {
        let address = address(dsn, &EMPTY);
        assert_eq!(address.hosts.iter().map(|host| host.mode).collect::<Vec<_>>(), modes, "{dsn}");
    }
    let errors = [
        ("sslmode=made-up", "sslmode can only be disable or allow or prefer or require or verify-ca or verify-full"),
        ("sslmode=require sslrootcert=system", "sslmode has to be verify-full with sslrootcert=system"),
        ("sslcert=/made/up", "sslcert and sslkey need each other"),
        ("target_session_attrs=standby", "target_session_attrs can only be any or read-write or primary"),
        ("channel_binding=made-up", "channel_binding can only be prefer or disable or require"),
        ("connect_timeout=soon", "connect_timeout has to be a whole number"),
    ];
    for (dsn, text) in errors {
        assert_eq!(error(dsn, &EMPTY), text);
    }
}

#[cfg(unix)]
#[test]
fn a_socket_has_no_tls() {
    let address = address("host=/run/made-up,db.example", &EMPTY);
    assert_eq!(address.hosts.iter().map(|host| host.mode).collect::<Vec<_>>(), [SslMode::Disable, SslMode::VerifyFull]);
}

#[test]
fn a_wrong_variable_is_named() {
    let table: [(Given, &str); 4] = [
        (&[("PGSERVICE", "made-up")], "PGSERVICE is not supported: give the values of the service themselves"),
        (&[("PGPORT", "made-up")], "PGPORT has to be a number from 1 to 65535"),
        (
            &[("PGSSLMODE", "made-up")],
            "PGSSLMODE can only be disable or allow or prefer or require or verify-ca or verify-full",
        ),
        (&[("PGGSSENCMODE", "require")], "PGGSSENCMODE can only be disable or prefer"),
    ];
    for (variables, text) in table {
        assert_eq!(error("", &MadeUp { variables, ..EMPTY }), text);
    }
}

#[test]
fn an_unknown_argument_is_named() {
    let unknown = |name: &str| Address::new(None, &pairs(&[(name, "made-up")]), &EMPTY).unwrap_err();
    assert_eq!(unknown("sslmod").detail(), "sslmod is not a connection parameter");
    assert_eq!(unknown("Made Up").detail(), "parameter 1 is not a connection parameter");
    assert_eq!(unknown("service").detail(), "service is not supported: give the values of the service themselves");
}

#[test]
fn a_password_comes_from_the_first_place_that_has_one() {
    const FILE: &str = "db.example:*:*:*:of-file\nlocalhost:*:*:*:of-socket\n*:*:*:app:of-user";
    let file = Some(("/home/os-user/.pgpass", FILE));
    let table: [(Given, &str, Option<&str>); 8] = [
        (&[("PGPASSWORD", "of-variable")], "postgresql://u:of-url@db.example", Some("of-url")),
        (&[("PGPASSWORD", "of-variable")], "postgresql://u@db.example", Some("of-variable")),
        (&[], "postgresql://u@db.example", Some("of-file")),
        (&[], "postgresql://u:@db.example", Some("of-file")),
        (&[], "postgresql://app@other.example", Some("of-user")),
        (&[], "postgresql://u@other.example", None),
        (&[("PGPASSFILE", "/made/up")], "postgresql://u@db.example", None),
        (&[], "host=db.example passfile=/made/up", None),
    ];
    for (variables, dsn, password) in table {
        let address = address(dsn, &MadeUp { variables, password_file: file, ..EMPTY });
        assert_eq!(address.password(&address.hosts[0]), password, "{dsn}");
    }
    let several = address("host=db.example,other.example user=app", &MadeUp { password_file: file, ..EMPTY });
    let passwords: Vec<_> = several.hosts.iter().map(|host| several.password(host)).collect();
    assert_eq!(passwords, [Some("of-file"), Some("of-user")]);
    let exposed = address("host=db.example", &MadeUp { password_file: file, is_exposed: true, ..EMPTY });
    assert!(exposed.exposed_password_file().is_some() && exposed.password(&exposed.hosts[0]).is_none());
}

#[cfg(unix)]
#[test]
fn the_default_sockets_are_localhost_in_a_password_file() {
    let file = Some(("/home/os-user/.pgpass", "localhost:*:*:*:of-socket\n/run/other:*:*:*:of-other"));
    let environment = MadeUp { password_file: file, ..EMPTY };
    let table = [("/var/run/postgresql", "of-socket"), ("/tmp", "of-socket"), ("/run/other", "of-other")];
    for (folder, password) in table {
        let address = address(&format!("host={folder}"), &environment);
        assert_eq!(address.password(&address.hosts[0]), Some(password));
    }
}

#[cfg(unix)]
#[test]
fn a_password_file_counts_only_if_it_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "*:*:*:*:of-file").unwrap();
    for (mode, is_text) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        match OwnProcess.read_password_file(file.path()) {
            PasswordFile::Text(text) => assert!(is_text && text == "*:*:*:*:of-file", "{mode:o}"),
            PasswordFile::Exposed => assert!(!is_text, "{mode:o}"),
            PasswordFile::Missing => panic!("{mode:o}"),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(OwnProcess.read_password_file(folder.path()), PasswordFile::Missing));
}

#[test]
fn a_password_is_given_if_the_text_or_an_argument_has_it() {
    // The key of a certificate comes from a variable, so these texts are no addresses by themselves.
    let variables = &[("PGPASSWORD", "of-variable"), ("PGSSLKEY", "key.pem")];
    let environment = MadeUp { variables, ..EMPTY };
    let nothing: Given = &[];
    let table = [
        ("postgresql://u@h/db?sslcert=c.pem", nothing, false),
        ("postgresql://u:@h/db?sslcert=c.pem", nothing, false),
        ("postgresql://u:made-up@h/db?sslcert=c.pem", nothing, true),
        ("postgresql://u@h/db?sslcert=c.pem&password=made-up", nothing, true),
        ("host=h sslcert=c.pem password=made-up", nothing, true),
        ("host=h sslcert=c.pem", &[("password", "made-up")], true),
        ("host=h sslcert=c.pem", &[("password", "")], false),
    ];
    for (dsn, arguments, expected) in table {
        let address = Address::new(Some(dsn), &pairs(arguments), &environment).unwrap();
        assert_eq!(address.is_password_given(), expected, "{dsn} {arguments:?}");
    }
}

#[test]
fn a_function_is_asked_for_the_password_each_time() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let calls = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&calls);
    let address = address("postgresql://u:of-url@h", &EMPTY)
        .with_password(Arc::new(move || Ok(format!("made-up-{}", counter.fetch_add(1, Ordering::Relaxed)))));
    assert_eq!(address.ask_password().unwrap().as_deref(), Some("made-up-0"));
    assert_eq!(address.clone().ask_password().unwrap().as_deref(), Some("made-up-1"));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

/// Whatever is wrong with a text, no part of its password is shown.
#[test]
fn no_part_of_a_password_is_shown() {
    const SPECIAL: &[&str] =
        &["", "@", "/", "?", "#", "&", "=", ":", ",", "[", "]", "%", "%4", "%40", "'", "\\", " ", "+", "\0", "é"];
    let mut wrong = 0;
    for first in SPECIAL {
        for second in SPECIAL {
            let password = format!("{second}qjx{first}wvk{second}zhu");
            let texts = [
                format!("postgresql://u:{password}@db.example:5432/db?sslmode=require"),
                format!("postgresql://:{password}@/db?host=/tmp"),
                format!("postgresql://u:{password}@[::1/db"),
                format!("postgresql://u:{password}@db.example:port/db"),
                format!("postgresql://u:{password}@db.example/db?made=up"),
                format!("postgresql://u:{password}@db.example/db?sslmode"),
                format!("postgresql://db.example/db?password={password}"),
                format!("postgresql://db.example/db?password={password}&port=none"),
                format!("host=db.example password={password} dbname=db"),
                format!("host=db.example password='{password}' dbname=db"),
                format!("host=db.example password={password} port=none"),
                password.clone(),
            ];
            for text in texts {
                let shown = match Address::new(Some(&text), &[], &EMPTY) {
                    Ok(address) => format!("{address:?} {}", address.location()),
                    Err(error) => {
                        wrong += 1;
                        format!("{error} {error:?}")
                    }
                };
                for part in ["qjx", "wvk", "zhu"] {
                    assert!(!shown.contains(part), "{text:?} is shown as {shown}");
                }
            }
        }
    }
    assert!(wrong > 1_000, "{wrong}");
}
