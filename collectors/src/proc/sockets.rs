//! Who listens on a TCP port: `/proc/net/tcp{,6}` knows the socket's inode, `/proc/PID/fd` who holds it.

use std::collections::{BTreeMap, BTreeSet};

use super::path_of;

/// The state of a listening socket (`TCP_LISTEN`).
const LISTENING: &str = "0A";

/// The sockets that listen on one of the ports in this network namespace: inode and port. The kernel walks its table of
/// all connections for this, also where there are none, which takes milliseconds on a large machine.
pub(crate) fn listening(ports: &BTreeSet<u16>) -> BTreeMap<u64, u16> {
    let mut found = BTreeMap::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read(table).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let listeners = text.lines().filter_map(listener);
        found.extend(listeners.filter(|(_, port)| ports.contains(port)));
    }
    found
}

/// The inode and the port, if the line is of a socket that listens.
fn listener(line: &str) -> Option<(u64, u16)> {
    // "sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …", an address is HEX:PORT in hex.
    let mut fields = line.split_ascii_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let is_listening = fields.nth(1)? == LISTENING;
    let inode = fields.nth(5)?.parse().ok()?;
    is_listening.then_some((inode, port))
}

/// The inodes of all sockets that the process holds; none when its files may not be looked at.
pub(crate) fn held_by(pid: u32) -> impl Iterator<Item = u64> {
    let files = std::fs::read_dir(path_of(pid, "fd"))
        .into_iter()
        .flatten()
        .flatten();
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter_map(|link| socket(link.to_str()?))
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
        assert_eq!(listener(four), Some((31_337, 8080)));
        assert_eq!(listener(six), Some((4_711, 8080)));
        assert_eq!(listener(&four.replace(" 0A ", " 01 ")), None, "a connection");
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
        assert_eq!(listener(head), None);
    }

    #[test]
    fn finds_the_own_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let found = listening(&BTreeSet::from([port]));
        assert_eq!(found.values().collect::<Vec<_>>(), [&port]);
        let own = |inode: &u64| held_by(std::process::id()).any(|held| held == *inode);
        assert!(found.keys().all(own));
        drop(listener);
        assert!(!found.keys().any(own));
        assert_eq!(listening(&BTreeSet::new()).len(), 0);
        assert_eq!(held_by(1 << 23).count(), 0);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[0-9A-F: ]{0,120}|.{0,60}") {
            let _ = (listener(&text), socket(&text));
        }
    }
}
