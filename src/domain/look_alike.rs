//! Texts that look like the path of a file, but that other programs read in another way. One kind of them is the
//! address of a database server, where a store can be.

/// What a text looks like that is given as the path of a file, but that some other program reads in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookAlike {
    /// `~/tokens.db`, `~ada/tokens.db`: a shell expands it to a home folder.
    Home,
    /// `file:tokens.db?mode=ro`, `sqlite:///tokens.db`, `https://…`: a URI.
    Uri,
    /// `postgresql://host/database`, `postgres://…`: the address of a database server. A store can be there.
    Server,
    /// `C:\tokens.db`, `\\server\share\tokens.db`: a path of Windows, on another system.
    Windows,
    /// `:memory:`: SQLite's name for a database in memory.
    Memory,
}

/// Returns what `given` looks like, if taking it for the path of a file would be a surprise. On Windows (`on_windows`)
/// its own paths are no surprise.
///
/// Nothing expands these texts, so a file or folder with this literal name would be made, and nothing would be found in
/// it. A file that has such a name can still be named: `./~x/tokens.db`, `./file:x`. Texts that only resemble these
/// stay usable: `a~b`, `~tokens.db` (no user's folder, because no slash follows), `tokens:1.db`, and `C:tokens.db`
/// outside Windows.
#[must_use]
pub fn look_alike(given: &str, on_windows: bool) -> Option<LookAlike> {
    let is_separator = |byte: u8| byte == b'/' || (on_windows && byte == b'\\');
    if given == ":memory:" {
        return Some(LookAlike::Memory);
    }
    if given == "~" || (given.starts_with('~') && given.bytes().any(is_separator)) {
        return Some(LookAlike::Home);
    }
    let is_drive = |scheme: &str, rest: &str| scheme.len() == 1 && rest.starts_with(['\\', '/']);
    if let Some((scheme, rest)) = given.split_once(':')
        && is_scheme(scheme)
    {
        if is_drive(scheme, rest) {
            return if on_windows { None } else { Some(LookAlike::Windows) };
        }
        let is_one_of = |known: [&str; 2]| known.iter().any(|known| scheme.eq_ignore_ascii_case(known));
        if rest.starts_with("//") && is_one_of(SERVER_SCHEMES) {
            return Some(LookAlike::Server);
        }
        // Without slashes a colon is common in names of files, so only two schemes count that tutorials use this way.
        let is_known = is_one_of(["file", "sqlite"]);
        if scheme.len() > 1 && (rest.starts_with("//") || is_known) {
            return Some(LookAlike::Uri);
        }
    }
    if !on_windows && given.starts_with(r"\\") { Some(LookAlike::Windows) } else { None }
}

/// Is `given` a text of connection parameters for a database server, such as `host=db.example.com dbname=tokens`? Each of
/// its words has to be the name of a parameter, an `=` and a value. `is_parameter` knows the names. A text with a password
/// is one whatever its other words are.
///
/// It may hold a password, which would become a part of the name of a file. A file that has such a name can still be
/// named: `./user=ada`.
#[must_use]
pub fn is_keyword_text(given: &str, is_parameter: impl Fn(&str) -> bool) -> bool {
    let mut rest = given.trim_start();
    if rest.is_empty() {
        return false;
    }
    // Whatever the other words are.
    let secrets = ["password=", "sslpassword="];
    let has_prefix =
        |word: &str, prefix: &str| word.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix));
    if given.split_whitespace().any(|word| secrets.iter().any(|secret| has_prefix(word, secret))) {
        return true;
    }
    while !rest.is_empty() {
        let Some((name, after)) = rest.split_once('=') else { return false };
        if !is_parameter(name.trim_end()) {
            return false;
        }
        rest = after_value(after.trim_start()).trim_start();
    }
    true
}

/// What follows a value, which may be quoted. A backslash keeps the character after it.
fn after_value(text: &str) -> &str {
    let quoted = text.strip_prefix('\'');
    let text = quoted.unwrap_or(text);
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '\'' if quoted.is_some() => return &text[at + 1..],
            _ if quoted.is_none() && character.is_ascii_whitespace() => return &text[at..],
            _ => {}
        }
    }
    ""
}

/// The schemes of the addresses that a store can have on a server (PostgreSQL's "Connection URIs").
const SERVER_SCHEMES: [&str; 2] = ["postgresql", "postgres"];

/// Is it a scheme (RFC 3986, section 3.1)?
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_another_program_would_expand_is_no_path_of_a_file() {
        use LookAlike::{Home, Memory, Server, Uri, Windows};
        // given, elsewhere, on Windows
        let table = [
            ("tokens.db", None, None),
            ("/srv/tokens.db", None, None),
            ("~", Some(Home), Some(Home)),
            ("~/tokens.db", Some(Home), Some(Home)),
            ("~ada/tokens.db", Some(Home), Some(Home)),
            (r"~\tokens.db", None, Some(Home)),
            ("~tokens.db", None, None),
            ("a~b", None, None),
            ("a~/b", None, None),
            ("./~", None, None),
            ("./~x/tokens.db", None, None),
            ("file:tokens.db", Some(Uri), Some(Uri)),
            ("file:tokens.db?mode=memory", Some(Uri), Some(Uri)),
            ("FILE:///srv/tokens.db", Some(Uri), Some(Uri)),
            ("file::memory:?cache=shared", Some(Uri), Some(Uri)),
            ("sqlite:tokens.db", Some(Uri), Some(Uri)),
            ("sqlite:///tokens.db", Some(Uri), Some(Uri)),
            ("sqlite+pysqlite:///tokens.db", Some(Uri), Some(Uri)),
            ("postgresql://ada:made-up@localhost/tokens", Some(Server), Some(Server)),
            ("postgres://localhost", Some(Server), Some(Server)),
            ("PostgreSQL://localhost/tokens", Some(Server), Some(Server)),
            ("postgresql://", Some(Server), Some(Server)),
            ("postgresql:///tokens?host=/run/postgresql", Some(Server), Some(Server)),
            ("postgresql+psycopg://localhost/tokens", Some(Uri), Some(Uri)),
            ("postgresql2://localhost/tokens", Some(Uri), Some(Uri)),
            ("mysql://localhost/tokens", Some(Uri), Some(Uri)),
            ("postgresql:tokens.db", None, None),
            ("postgresql:/tokens.db", None, None),
            ("./postgresql://localhost", None, None),
            ("dbname=tokens", None, None),
            ("https://example.com/tokens.db", Some(Uri), Some(Uri)),
            ("./file:tokens.db", None, None),
            ("backups/file:tokens.db", None, None),
            ("tokens:1.db", None, None),
            ("2026-11-29T02:00.db", None, None),
            ("files:x", None, None),
            (r"C:\tokens.db", Some(Windows), None),
            ("c:/tokens.db", Some(Windows), None),
            (r"C:tokens.db", None, None),
            (r"\\server\share\tokens.db", Some(Windows), None),
            (r"folder\tokens.db", None, None),
            (":memory:", Some(Memory), Some(Memory)),
            (":memory:x", None, None),
            ("./:memory:", None, None),
        ];
        for (given, elsewhere, on_windows) in table {
            assert_eq!((look_alike(given, false), look_alike(given, true)), (elsewhere, on_windows), "{given}");
        }
    }
    #[test]
    fn a_text_of_connection_parameters_has_a_known_name_in_each_word() {
        let table = [
            ("host=db.example.com dbname=tokens", true),
            (" host = db.example.com\n dbname = tokens ", true),
            ("dbname=tokens", true),
            ("password=made-up", true),
            ("host=h password='made up'", true),
            (r"password='it\'s made-up' host=h", true),
            (r"password=made\ up host=h", true),
            ("host='h'dbname=tokens", true),
            ("host= dbname=tokens", true),
            // A quote without an end would not be accepted, but it is no name of a file either.
            ("host=h password='made up", true),
            ("", false),
            ("tokens.db", false),
            ("size=3.db", false),
            ("HOST=h", false),
            ("host=h tokens.db", false),
            ("host=h size=3", false),
            ("my host=h", false),
            // Whatever else it says: it has a password.
            ("my password=made-up", true),
            ("hostname=h Password=made-up", true),
            ("size=3 sslpassword=made-up", true),
            ("mypassword=made-up", false),
            ("./password=made-up", false),
            ("password", false),
            ("./host=h", false),
            ("tokens/host=h", false),
        ];
        for (given, expected) in table {
            let is_parameter = |name: &str| ["host", "dbname", "password"].contains(&name);
            assert_eq!(is_keyword_text(given, is_parameter), expected, "{given:?}");
        }
    }
}
