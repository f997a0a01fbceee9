//! Locks of an open file description on a range of a file (`F_OFD_SETLK` in `fcntl(2)`). Only Linux has them.
//!
//! A POSIX lock belongs to a process, and is lost as soon as any code of the process closes any handle of the file. A
//! lock of an open file description belongs to one handle.

use std::fs::File;

/// Locked bytes of a file: the first byte, and the number of bytes.
pub type ByteRange = (i64, i64);

/// What to do with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Acquire a lock that others may share.
    Share,
    /// Acquire a lock that excludes all others.
    Exclude,
    /// Release the lock.
    Release,
}

/// The result of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockResult {
    /// Done.
    Done,
    /// Another handle has a lock that conflicts.
    Conflict,
    /// There is no file, or it cannot be locked in this way.
    Unavailable,
}

/// Acquires or releases a lock without waiting.
#[cfg(target_os = "linux")]
pub fn lock(file: Option<&File>, operation: Operation, range: ByteRange) -> LockResult {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};

    let Some(file) = file else { return LockResult::Unavailable };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&description(operation, range))) {
        Ok(_) => LockResult::Done,
        Err(Errno::EAGAIN | Errno::EACCES) => LockResult::Conflict,
        Err(_) => LockResult::Unavailable,
    }
}

/// Does any other handle have a lock in this range? Acquires none.
#[cfg(target_os = "linux")]
pub fn is_locked(file: &File, range: ByteRange) -> bool {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let mut found = description(Operation::Exclude, range);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).is_ok() && i32::from(found.l_type) != libc::F_UNLCK
}

/// Returns the id of a process that has a POSIX lock in this range. `None`: there is none, or it cannot be told. If
/// several locks conflict, this sees one of them.
#[cfg(target_os = "linux")]
pub fn posix_holder(file: &File, range: ByteRange) -> Option<u32> {
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let mut found = description(Operation::Exclude, range);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)).ok()?;
    // -1 for a lock of an open file description, 0 for a process that is not visible here (fcntl(2)).
    if i32::from(found.l_type) == libc::F_UNLCK { None } else { u32::try_from(found.l_pid).ok().filter(|&pid| pid > 0) }
}

#[cfg(target_os = "linux")]
fn description(operation: Operation, (start, length): ByteRange) -> nix::libc::flock {
    use nix::libc;
    let kind = match operation {
        Operation::Share => libc::F_RDLCK,
        Operation::Exclude => libc::F_WRLCK,
        Operation::Release => libc::F_UNLCK,
    };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0, // SEEK_SET
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// There are no such locks here.
#[cfg(not(target_os = "linux"))]
pub fn lock(_: Option<&File>, _: Operation, _: ByteRange) -> LockResult {
    LockResult::Unavailable
}

/// There are no such locks here.
#[cfg(not(target_os = "linux"))]
pub fn is_locked(_: &File, _: ByteRange) -> bool {
    false
}
