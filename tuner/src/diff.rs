//! What changes in a file, for people.

use std::time::Duration;

use similar::TextDiff;

/// A diff that takes longer than this is made coarser; it stays a correct one.
const TIME_TO_FIND_THE_SHORTEST: Duration = Duration::from_millis(500);

/// A unified diff with three lines of context and the file's name above, as `diff -u` and `patch` know it; empty when
/// nothing changes. Bytes that are not UTF-8 are shown as U+FFFD.
#[must_use]
pub fn unified(path: &str, before: &[u8], after: &[u8]) -> String {
    if before == after {
        return String::new();
    }
    let (before, after) = (String::from_utf8_lossy(before), String::from_utf8_lossy(after));
    TextDiff::configure()
        .timeout(TIME_TO_FIND_THE_SHORTEST)
        .diff_lines(before.as_ref(), after.as_ref())
        .unified_diff()
        .header(path, path)
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_file_and_shows_the_lines_around() {
        let before = b"# head\nmodel:\n  path: x\n  dtype: fp16 # half\n  max: 3\n\n\nport: 1\n";
        let after = b"# head\nmodel:\n  path: x\n  dtype: \"int8\" # half\n  max: 3\n\n\nport: 1\n";
        insta::assert_snapshot!(unified("/etc/chat.yaml", before, after), @r#"
        --- /etc/chat.yaml
        +++ /etc/chat.yaml
        @@ -1,7 +1,7 @@
         # head
         model:
           path: x
        -  dtype: fp16 # half
        +  dtype: "int8" # half
           max: 3
         
         
        "#);
        insta::assert_snapshot!(unified("a", b"x: 1\r\ny: 2", b"x: 1\r\ny: 3"), @"
        --- a
        +++ a
        @@ -1,2 +1,2 @@
         x: 1
        -y: 2
        \\ No newline at end of file
        +y: 3
        \\ No newline at end of file
        ");
    }

    #[test]
    fn nothing_for_nothing() {
        assert_eq!(unified("a", b"x\n", b"x\n"), "");
        assert!(unified("a", b"\xff\n", b"\xfe\n").is_empty() || unified("a", b"\xff", b"x").contains('x'));
    }
}
