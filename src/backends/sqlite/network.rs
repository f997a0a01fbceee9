//! File systems on which SQLite's locks and shared memory do not always reach everybody.

use std::path::Path;

/// File systems that more than one machine may use, by Linux's numbers for them (`statfs(2)`, and the file systems' own
/// headers), and what to call them.
#[cfg(any(target_os = "linux", test))]
const NETWORK: [(u32, &str); 12] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x7375_7245, "Coda"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x786F_4256, "a shared folder of VirtualBox"),
    // Anything at all: sshfs and s3fs as well as a local disk.
    (0x6573_5546, "FUSE"),
];

/// What the file system with this number is called, if more than one machine may use it.
#[cfg(any(target_os = "linux", test))]
fn network_of(number: u32) -> Option<&'static str> {
    NETWORK.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

/// What the file system that `path` is on is called, if more than one machine may use it.
#[cfg(target_os = "linux")]
pub(super) fn network(path: &Path) -> Option<&'static str> {
    let found = nix::sys::statfs::statfs(path).ok()?;
    // Its type differs between platforms, and so does whether it is sign-extended.
    network_of(u32::try_from(i128::from(found.filesystem_type().0) & 0xFFFF_FFFF).ok()?)
}

/// Not asked elsewhere.
#[cfg(not(target_os = "linux"))]
pub(super) fn network(_: &Path) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_a_network_are_known_by_their_numbers() {
        let [ext4, tmpfs, overlay, btrfs, xfs] = [0xEF53, 0x0102_1994, 0x794C_7630, 0x9123_683E, 0x5846_5342];
        for local in [ext4, tmpfs, overlay, btrfs, xfs] {
            assert_eq!(network_of(local), None);
        }
        assert_eq!(network_of(0x6969), Some("NFS"));
        assert_eq!(network_of(0xFF53_4D42), Some("CIFS"));
    }
}
