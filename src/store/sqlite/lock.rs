//! Locks of an open file description, on a part of a file. Only Linux has them.

use std::fs::File;

/// Bytes of a file that are locked: where they begin, and how many.
pub(super) type Range = (i64, i64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Shared,
    Exclusive,
    Unlock,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Locked,
    /// Somebody else has it.
    Taken,
    /// There is no file, or none that can be locked so.
    Impossible,
}

#[cfg(target_os = "linux")]
pub(super) fn lock(file: Option<&File>, kind: Kind, range: Range) -> Outcome {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};

    let Some(file) = file else { return Outcome::Impossible };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&description(kind, range))) {
        Ok(_) => Outcome::Locked,
        Err(Errno::EAGAIN | Errno::EACCES) => Outcome::Taken,
        Err(_) => Outcome::Impossible,
    }
}

/// Does anybody else hold a lock in this range? Takes none.
#[cfg(target_os = "linux")]
pub(super) fn is_locked(file: &File, range: Range) -> bool {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let mut found = description(Kind::Exclusive, range);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && i32::from(found.l_type) != libc::F_UNLCK
}

#[cfg(target_os = "linux")]
fn description(kind: Kind, (start, length): Range) -> nix::libc::flock {
    use nix::libc;
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
        Kind::Unlock => libc::F_UNLCK,
    };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0, // from the file's beginning
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn lock(_: Option<&File>, _: Kind, _: Range) -> Outcome {
    Outcome::Impossible
}
