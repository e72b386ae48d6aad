//! The number of a group.

use std::fs;

/// Finds a group in /etc/group; a number is one already.
pub(super) fn number(name: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string("/etc/group").map_err(|error| {
        format!(
            "agent.group: /etc/group cannot be read ({error}); give the group's number instead of '{name}'"
        )
    })?;
    find(&groups, name).ok_or_else(|| {
        format!(
            "agent.group: there is no group '{name}' in /etc/group; create it, or give the number of one that is kept elsewhere"
        )
    })
}

/// Lines are `name:password:number:members` (group(5)).
fn find(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_found_by_name_or_number() {
        let groups = "root:x:0:\nbroken\ngpu:x:44:alice,bob\ngpu2:x:no:\n";
        assert_eq!(find(groups, "gpu"), Some(44));
        assert_eq!(find(groups, "gpu2"), None);
        assert_eq!(find(groups, "broken"), None);
        assert_eq!(find(groups, "gp"), None);
        assert_eq!(number("1000"), Ok(1000));
        assert!(number("no such group").is_err_and(|message| message.contains("agent.group")));
    }
}
