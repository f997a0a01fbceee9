//! Keys in a file or in an environment variable, and new keys in a file. They are read only if a program asks for it.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::atomic_write::{Existing, write_atomically};
use super::error::{Code, Error, Result};
use super::files::require_regular_file;
use super::keys::{GivenKey, KeySource, new_key, parse_keys};
use crate::domain::key_ring::Ring;
use crate::domain::seal_key::SealKey;

/// What stands for clear text in a file and in a variable.
const PLAINTEXT_WORD: &str = "PLAINTEXT";

/// The longest file of keys. A larger file is another file.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// Where the texts of keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPlace {
    /// A file, with one key per line.
    File(PathBuf),
    /// An environment variable, with keys that blanks or commas separate.
    Variable(String),
}

impl KeyPlace {
    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => format!("the key file {}", path.display()),
            Self::Variable(name) => format!("the variable {name}"),
        }
    }

    /// The texts there, one after the other.
    pub fn read(&self) -> Result<Zeroizing<String>> {
        let unavailable = |what: &str| keys_unavailable(format!("{} {what}", self.name()));
        match self {
            Self::File(path) => read_key_file(path).map_err(|what| unavailable(&what)),
            Self::Variable(name) => match env::var(name) {
                Ok(text) => Ok(Zeroizing::new(text)),
                Err(env::VarError::NotPresent) => Err(unavailable("is not set")),
                Err(env::VarError::NotUnicode(_)) => Err(unavailable("is not UTF-8 text")),
            },
        }
    }

    /// The entries in a text that was read there, in their order.
    pub fn entries<'a>(&self, text: &'a str) -> impl Iterator<Item = GivenKey<'a>> {
        let splits_words = matches!(self, Self::Variable(_));
        text.split(move |letter: char| {
            letter == '\n' || (splits_words && (letter == ',' || letter.is_ascii_whitespace()))
        })
        .map(str::trim_ascii)
        .filter(|entry| !entry.is_empty())
        .map(|entry| if entry == PLAINTEXT_WORD { GivenKey::ClearText } else { GivenKey::Text(entry) })
    }
}

impl KeySource for KeyPlace {
    fn keys(&self) -> Result<Ring> {
        let text = self.read()?;
        parse_keys(self.entries(&text))
            .map_err(|error| Error::invalid_key(format!("{}: {}", self.name(), error.problem())))
    }
}

/// Keys that cannot be read where the program says that they are.
pub fn keys_unavailable(what: impl Into<String>) -> Error {
    Error::new(Code::KeysUnavailable, "").with(what)
}

/// Makes a new key in a new private file, and returns the id of the key. Never replaces a file.
pub fn write_new_key(path: &Path) -> Result<String> {
    let text = new_key()?;
    write_atomically(path, Existing::Keep, |_, mut file: &File| {
        file.write_all(format_line(&text).as_bytes()).map_err(|error| Error::from_io(path, &error))
    })
    .map_err(|error| match error.code() {
        // Not that of the code: there is no way to allow it.
        Code::FileExists => {
            error.with_hint("Give another path. A file is never replaced: it may have the only copy of a key.")
        }
        _ => error,
    })?;
    key_id(&text)
}

/// Returns the id of the key with this text.
pub fn key_id(text: &str) -> Result<String> {
    let key =
        SealKey::parse(text).map_err(|flaw| Error::invalid_key(format!("the key cannot be used: {}", flaw.text())))?;
    Ok(key.id().to_string())
}

fn format_line(text: &str) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(text.len() + 1));
    line.push_str(text);
    line.push('\n');
    line
}

/// Returns the text of a file of keys, or why it cannot be used.
fn read_key_file(path: &Path) -> std::result::Result<Zeroizing<String>, String> {
    // Before it is opened: a pipe would block.
    require_regular_file(path).map_err(|error| predicate(&error))?;
    let of_io = |error: &io::Error| predicate(&Error::from_io(path, error));
    let file = File::open(path).map_err(|error| of_io(&error))?;
    let metadata = file.metadata().map_err(|error| of_io(&error))?;
    if let Some(who) = exposure(&metadata) {
        return Err(format!("can be read or written by {who}"));
    }
    if metadata.len() > MAX_KEY_FILE_BYTES {
        return Err("is too long to be a file of keys".to_owned());
    }
    // With room for everything, so that no part of it is moved and left behind.
    let room = usize::try_from(metadata.len()).unwrap_or_default() + 1;
    let mut text = Zeroizing::new(String::with_capacity(room));
    match file.take(metadata.len()).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("is not UTF-8 text".to_owned()),
        Err(error) => Err(of_io(&error)),
    }
}

/// What an error says about a file, without its path.
fn predicate(error: &Error) -> String {
    error.code().text().replacen("{}", error.detail(), 1)
}

/// Says who else can read or write a file of keys. `None`: no other user can.
///
/// If another user owns the file, such as root, its group may read it: a service gets a mounted secret in this way. The
/// group's bits are then also the mask of an access control list (`acl(5)`), which systemd gives to credentials.
#[cfg(unix)]
fn exposure(file: &fs::Metadata) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    match file.mode() {
        mode if mode & 0o007 != 0 => Some("every user of this machine (chmod 600)"),
        mode if mode & 0o020 != 0 || (mode & 0o070 != 0 && is_own(file)) => Some("its group (chmod 600)"),
        _ => None,
    }
}

/// Does this user own the file?
#[cfg(target_os = "linux")]
fn is_own(file: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(file) == nix::unistd::geteuid().as_raw()
}

/// Not known here.
#[cfg(all(unix, not(target_os = "linux")))]
fn is_own(_: &fs::Metadata) -> bool {
    true
}

/// Permission bits do not say who can read a file here.
#[cfg(not(unix))]
fn exposure(_: &fs::Metadata) -> Option<&'static str> {
    None
}
