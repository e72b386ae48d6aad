//! Who listens on a TCP port: `/proc/net/tcp{,6}` knows the socket's inode, `/proc/PID/fd` who holds it.

use std::collections::BTreeSet;

use super::path_of;

/// The state of a listening socket (`TCP_LISTEN`).
const LISTENING: &str = "0A";

/// The inodes of the sockets that listen on `port`, in this network namespace. Empty when nobody does.
pub(crate) fn listening(port: u16) -> BTreeSet<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read(table).ok())
        .flat_map(|text| {
            let text = String::from_utf8_lossy(&text);
            text.lines()
                .filter_map(|line| inode(line, port))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The socket's inode, if the line is of one that listens on `port`.
fn inode(line: &str, port: u16) -> Option<u64> {
    // "sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …", an address is HEX:PORT in hex.
    let mut fields = line.split_ascii_whitespace();
    let (_, local) = fields.nth(1)?.rsplit_once(':')?;
    let matches = u16::from_str_radix(local, 16).ok()? == port && fields.nth(1)? == LISTENING;
    matches.then(|| fields.nth(5)?.parse().ok()).flatten()
}

/// Whether the process holds one of these sockets. `false` also when its files may not be looked at.
pub(crate) fn holds(pid: u32, inodes: &BTreeSet<u64>) -> bool {
    let Ok(files) = std::fs::read_dir(path_of(pid, "fd")) else {
        return false;
    };
    files
        .flatten()
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .filter_map(|target| socket(target.to_str()?))
        .any(|inode| inodes.contains(&inode))
}

/// The inode in a link such as `socket:[4711]`.
fn socket(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_both_tables() {
        let four = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 \
                    0000000000000000 100 0 0 10 0";
        let six = "   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A \
                   00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0";
        assert_eq!(inode(four, 8080), Some(31_337));
        assert_eq!(inode(six, 8080), Some(4_711));
        assert_eq!(inode(four, 8081), None);
        assert_eq!(inode(&four.replace(" 0A ", " 01 "), 8080), None, "a connection is not a listener");
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(inode(head, 8080), None);
    }

    #[test]
    fn finds_the_own_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let inodes = listening(port);
        assert_eq!(inodes.len(), 1);
        assert!(holds(std::process::id(), &inodes));
        assert!(!holds(std::process::id(), &BTreeSet::new()));
        drop(listener);
        assert!(!holds(std::process::id(), &inodes));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9A-F: ]{0,120}|.{0,60}", port: u16) {
            let _ = (inode(&text, port).is_some(), socket(&text).is_some());
        }
    }
}
