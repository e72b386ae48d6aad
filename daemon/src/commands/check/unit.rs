//! What systemd says of an engine's unit: whether its user may use the control socket, and whether another tool has the
//! place that the agent takes.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::super::child;
use super::super::injection::{self, INJECTION};
use super::Finding;

/// `systemctl` answers in a few milliseconds, or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of a unit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// By name or number; none is root.
    user: Option<String>,
    /// By name or number, those of the unit.
    groups: Vec<String>,
    /// What stands in the agent's place.
    pub(super) injection: Option<OsString>,
}

/// Who may use the control socket beside root.
pub(super) struct Door<'a> {
    pub(super) socket: &'a Path,
    pub(super) group: Option<u32>,
}

impl Unit {
    /// Asks systemd; `None` where there is none, or it does not know.
    pub(super) fn ask(unit: &str) -> Option<Self> {
        let mut command = Command::new("systemctl");
        command.args([
            "show",
            "--no-pager",
            "--property",
            "User,Group,SupplementaryGroups,Environment",
            "--",
            unit,
        ]);
        match child::answer(&mut command, PATIENCE) {
            Ok((text, None)) => Some(Self::read(&text)),
            problem => {
                tracing::debug!(unit, ?problem, "systemctl show failed");
                None
            }
        }
    }

    fn read(text: &str) -> Self {
        let property = |name: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default()
        };
        let groups = property("Group")
            .split(' ')
            .chain(property("SupplementaryGroups").split(' '));
        let injection = words(property("Environment")).into_iter().find_map(|word| {
            word.strip_prefix(INJECTION)?
                .strip_prefix('=')
                .map(OsString::from)
        });
        Self {
            user: Some(property("User").to_owned()).filter(|user| !user.is_empty()),
            groups: groups
                .filter(|group| !group.is_empty())
                .map(str::to_owned)
                .collect(),
            injection,
        }
    }

    pub(super) fn findings(&self, unit: &str, door: &Door<'_>) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(user) = &self.user
            && !self.may_enter(user, door)
        {
            let what = format!("{unit} runs as {user}, who may not use {}", door.socket.display());
            found.push(
                Finding::note("agent", what)
                    .why("an agent in it has nobody to tell what it sees")
                    .remedy("name a group that this user is in as [agent] group, and restart the daemon"),
            );
        }
        let agent = injection::agent().unwrap_or_default();
        let foreign = injection::foreign(self.injection.clone(), &agent);
        if let Some(other) = foreign {
            let what = format!("{unit} loads {} by {INJECTION}", other.to_string_lossy());
            found.push(
                Finding::note("agent", what)
                    .why("there is one such place for all tools; the text below hands the other on in PLIMSOLL_CHAIN, and the agent loads it"),
            );
        }
        found
    }

    /// As the daemon decides it: its own user, root, or a member of the group.
    fn may_enter(&self, user: &str, door: &Door<'_>) -> bool {
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let account = Account::of(user, &accounts);
        let owner = fs::metadata(door.socket).map_or_else(
            // Where no daemon runs it is assumed to be this user's.
            |_| rustix::process::geteuid().as_raw(),
            |socket| socket.uid(),
        );
        if account.uid == Some(0) || account.uid == Some(owner) {
            return true;
        }
        let Some(wanted) = door.group else { return false };
        let is_wanted = |group: &String| number(group, &groups) == Some(wanted);
        account.gid == Some(wanted)
            || self.groups.iter().any(is_wanted)
            || members(wanted, &groups).any(|member| member == account.name)
    }
}

/// A user of this machine, as far as /etc/passwd knows it; one of another directory, or one that systemd makes up, is
/// nobody's.
struct Account<'a> {
    name: &'a str,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl<'a> Account<'a> {
    /// Lines are `name:password:uid:gid:…` (passwd(5)).
    fn of(user: &'a str, accounts: &'a str) -> Self {
        let fields = |line: &'a str| {
            let mut fields = line.split(':');
            let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            (name == user || uid == user).then(|| Self {
                name,
                uid: uid.parse().ok(),
                gid: gid.parse().ok(),
            })
        };
        accounts.lines().find_map(fields).unwrap_or(Self {
            name: user,
            uid: user.parse().ok(),
            gid: None,
        })
    }
}

/// The number of a group, by its name or number; lines are `name:password:number:members` (group(5)).
fn number(group: &str, groups: &str) -> Option<u32> {
    let named = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok())?
    };
    group.parse().ok().or_else(|| groups.lines().find_map(named))
}

fn members(group: u32, groups: &str) -> impl Iterator<Item = &str> {
    let of = move |line: &'_ str| {
        let mut fields = line.split(':').skip(2);
        (fields.next()?.parse() == Ok(group)).then_some(())
    };
    groups
        .lines()
        .filter(move |line| of(line).is_some())
        .filter_map(|line| line.split(':').nth(3))
        .flat_map(|members| members.split(','))
}

/// The words of a line as a shell has them, in double or single quotes where they need it: so systemd shows them.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(characters.next()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_read_as_systemctl_shows_them() {
        let text = "User=chat\nGroup=\nSupplementaryGroups=video gpu\nEnvironment=A=b \"CUDA_INJECTION64_PATH=/opt/a b.so\" C=\n";
        let unit = Unit::read(text);
        assert_eq!(
            unit,
            Unit {
                user: Some("chat".to_owned()),
                groups: vec!["video".to_owned(), "gpu".to_owned()],
                injection: Some("/opt/a b.so".into()),
            }
        );
        assert_eq!(Unit::read(""), Unit::default());
        assert_eq!(words(r#"a\ b 'c "d' "e\"f" """#), ["a b", "c \"d", "e\"f", ""]);
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        let accounts = "root:x:0:0::/:/bin/sh\nbroken\nchat:x:998:990::/:/bin/false\n";
        let account = Account::of("chat", accounts);
        assert_eq!((account.uid, account.gid), (Some(998), Some(990)));
        assert_eq!(Account::of("998", accounts).name, "chat");
        assert_eq!(Account::of("made-up", accounts).uid, None);
        let groups = "gpu:x:44:alice,chat\nvideo:x:45:\n";
        assert_eq!(
            (number("gpu", groups), number("45", groups)),
            (Some(44), Some(45))
        );
        assert_eq!(members(44, groups).collect::<Vec<_>>(), ["alice", "chat"]);
    }
}
