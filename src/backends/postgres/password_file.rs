//! The password file of libpq, usually `~/.pgpass` (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).

/// The lines of a file that are UTF-8. Another line has no password that a server could check.
pub(super) fn text(bytes: &[u8]) -> String {
    // An editor on Windows may have written this mark at the beginning.
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    lines.collect::<Vec<_>>().join("\n")
}

/// What a line of the file has to match.
pub(super) struct Entry<'a> {
    pub(super) host: &'a str,
    pub(super) port: &'a str,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// The password of the first line `host:port:database:user:password` that matches.
pub(super) fn find(text: &str, entry: &Entry<'_>) -> Option<String> {
    let wanted = [entry.host, entry.port, entry.database, entry.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line;
        for value in wanted {
            let (pattern, is_any, after) = field(rest);
            if !is_any && pattern != value {
                return None;
            }
            rest = after?;
        }
        Some(field(rest).0).filter(|password| !password.is_empty())
    })
}

/// The text before the next colon without its backslashes, whether it is the `*` that matches anything, and the text
/// after the colon, if there is one.
fn field(text: &str) -> (String, bool, Option<&str>) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            ':' => return (value, text.starts_with("*:"), text.get(at + 1..)),
            '\\' => value.push(characters.next().map_or('\\', |(_, character)| character)),
            _ => value.push(character),
        }
    }
    (value, false, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_has_the_password() {
        let entry = Entry { host: "db.example", port: "5432", database: "tokens", user: "app" };
        let table = [
            ("db.example:5432:tokens:app:made-up", Some("made-up")),
            ("*:*:*:*:made-up", Some("made-up")),
            ("other:*:*:*:first\ndb.example:*:*:*:second\n*:*:*:*:third", Some("second")),
            ("#*:*:*:*:comment\n*:*:*:app:made-up\r\n", Some("made-up")),
            (r"*:*:*:*:made\:up\\", Some(r"made:up\")),
            (r"db\.example:5432:tok\ens:app:made-up", Some("made-up")),
            ("*:*:*:*:made-up:more", Some("made-up")),
            ("*:*:*:*:with blanks ", Some("with blanks ")),
            (r"\*:*:*:*:made-up", None),
            ("*x:*:*:*:made-up", None),
            ("db.example:5433:*:*:made-up", None),
            ("db.example:5432:tokens:app", None),
            ("*:*:*:*:", None),
            ("", None),
        ];
        for (text, password) in table {
            assert_eq!(find(text, &entry).as_deref(), password, "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_not_utf_8_and_a_mark_at_the_beginning_do_not_hide_other_lines() {
        let table: [(&[u8], &str); 5] = [
            (b"*:*:*:*:one\r\n*:*:*:*:two\n", "*:*:*:*:one\r\n*:*:*:*:two\n"),
            (b"# M\xfcller\n*:*:*:*:one\n", "*:*:*:*:one\n"),
            (b"*:*:*:*:one\n*:*:*:*:p\xe4ss\n*:*:*:*:p\xc3\xa4ss", "*:*:*:*:one\n*:*:*:*:p\u{e4}ss"),
            (b"\xef\xbb\xbf*:*:*:*:one\n", "*:*:*:*:one\n"),
            (b"\xff", ""),
        ];
        for (bytes, expected) in table {
            assert_eq!(text(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn escaped_colons_match_an_address() {
        let entry = Entry { host: "::1", port: "5432", database: "tokens", user: "app" };
        assert_eq!(find(r"\:\:1:*:*:*:made-up", &entry).as_deref(), Some("made-up"));
    }
}
