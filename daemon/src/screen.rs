//! What reaches a person's terminal: plain text. Names and messages come out of files, databases and foreign
//! processes, and must not be able to move the cursor, color the screen or reorder what is written around them.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// Says something on stderr. When nobody can hear it any more, that is no failure.
pub(crate) fn say(text: impl Display) {
    let text = text.to_string();
    drop(writeln!(io::stderr().lock(), "{}", harmless(&text)));
}

/// Prints data on stdout: byte for byte into a pipe or a file, harmless on a terminal. A reader that has gone away
/// (`| head`) is no failure.
///
/// # Errors
/// Anything else that stops it, such as a full disk.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() {
        harmless(text)
    } else {
        Cow::Borrowed(text)
    };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// The text without control characters other than ends of lines and tabs, and without marks that turn the direction
/// of writing around.
fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .map(|c| if is_harmful(c) { '\u{FFFD}' } else { c })
            .collect(),
    )
}

fn is_harmful(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_a_terminal() {
        assert!(matches!(harmless("ünï\n\t漢字"), Cow::Borrowed(_)));
        // ESC, the one-character CSI, a carriage return, a bell, a right-to-left override.
        assert_eq!(
            harmless("a\u{1b}[31m\u{9b}2J\r\u{7}\u{202e}b\n"),
            "a\u{fffd}[31m\u{fffd}2J\u{fffd}\u{fffd}\u{fffd}b\n"
        );
    }
}
