//! Text from foreign sources (process names, rule names, command lines) made safe to print, and its width.

use std::borrow::Cow;

/// What stands for a character that must not be printed.
const REPLACEMENT: char = '\u{FFFD}';

/// Removes line breaks, control characters and characters that reorder the text around them.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let replace = |c| match c {
        '\t' | '\n' | '\r' => ' ',
        c if is_unsafe(c) => REPLACEMENT,
        c => c,
    };
    Cow::Owned(text.chars().map(replace).collect())
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Line and paragraph separators, then the marks, embeddings, overrides and isolates of bidirectional text.
            '\u{2028}' | '\u{2029}' | '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
            // Not allowed in XML 1.0, or a byte order mark.
            | '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}')
}

/// Cleaned, and with the five characters replaced that XML gives a meaning.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Enough of each text's beginning to tell it from the others, and at least `least` characters of it.
pub(crate) fn told_apart<'t>(texts: &[&'t str], least: usize) -> Vec<&'t str> {
    let begun = |text: &'t str, length: usize| {
        text.char_indices()
            .nth(length)
            .map_or(text, |(end, _)| &text[..end])
    };
    let longest = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
    let is_enough = |length: &usize| {
        let mut short: Vec<&str> = texts.iter().map(|text| begun(text, *length)).collect();
        short.sort_unstable();
        short.windows(2).all(|pair| pair[0] != pair[1])
    };
    let length = (least..longest).find(is_enough).unwrap_or(longest);
    texts.iter().map(|text| begun(text, length)).collect()
}

/// The width of a text in the wider ones of the usual sans-serif fonts, rounded up, in pixels.
pub(crate) fn width(text: &str, size_px: u32, bold: bool) -> i32 {
    let thousandths: u64 = text.chars().map(advance).map(u64::from).sum();
    let thousandths = if bold { thousandths * 11 / 10 } else { thousandths };
    i32::try_from((thousandths * u64::from(size_px)).div_ceil(1000)).unwrap_or(i32::MAX)
}

/// The text, or as much of it as fits into `room_px` with an ellipsis behind it.
pub(crate) fn fit(text: &str, size_px: u32, bold: bool, room_px: i32) -> Cow<'_, str> {
    let text = clean(text);
    if width(&text, size_px, bold) <= room_px {
        return text;
    }
    let mut short: String = text.chars().take(512).collect();
    while short.pop().is_some() {
        let trimmed = format!("{}…", short.trim_end());
        if width(&trimmed, size_px, bold) <= room_px {
            return Cow::Owned(trimmed);
        }
    }
    Cow::Borrowed("")
}

/// Width of a character in thousandths of the font size, after DejaVu Sans, the widest of the usual fallbacks.
fn advance(c: char) -> u32 {
    match c {
        ' ' | 'i' | 'j' | 'l' | 'I' | '!' | '\'' | '.' | ',' | ':' | ';' | '|' | '·' => 330,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' | '"' => 410,
        'm' | 'w' | 'M' | 'W' | '@' | '%' | '…' | '—' => 980,
        '0'..='9' | 'a'..='z' => 630,
        'A'..='Z' => 720,
        '→' | '≥' | '+' | '=' | '<' | '>' | '~' => 840,
        '\u{300}'..='\u{36F}'
        | '\u{200B}'..='\u{200D}'
        | '\u{20D0}'..='\u{20FF}'
        | '\u{FE00}'..='\u{FE0F}' => 0,
        '\u{1100}'..='\u{115F}'
        | '\u{2E80}'..='\u{A4CF}'
        | '\u{AC00}'..='\u{D7A3}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{FE30}'..='\u{FE6F}'
        | '\u{FF00}'..='\u{FF60}'
        | '\u{FFE0}'..='\u{FFE6}'
        | '\u{1F300}'..='\u{1FAFF}'
        | '\u{20000}'..='\u{3FFFD}' => 1000,
        _ => 680,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_text_is_harmless() {
        assert_eq!(
            escape("<script>\"a\"&'b'\u{1b}[31m\n\u{202e}x\0"),
            "&lt;script&gt;&quot;a&quot;&amp;&#39;b&#39;\u{fffd}[31m \u{fffd}x\u{fffd}"
        );
        assert!(matches!(clean("llama-server"), Cow::Borrowed(_)));
    }

    #[test]
    fn texts_are_told_apart_by_as_little_as_goes() {
        assert_eq!(
            told_apart(&["GPU-1234-a", "GPU-5678-b"], 8),
            ["GPU-1234", "GPU-5678"]
        );
        assert_eq!(
            told_apart(&["GPU-1234-a", "GPU-1234-b"], 4),
            ["GPU-1234-a", "GPU-1234-b"]
        );
        assert_eq!(told_apart(&["GPU-12é4-a", "GPU-12"], 6), ["GPU-12é", "GPU-12"]);
        assert_eq!(told_apart(&["same", "same"], 2), ["same", "same"]);
        assert_eq!(told_apart(&["GPU-1234"], 20), ["GPU-1234"]);
        assert_eq!(told_apart(&[], 2), [""; 0]);
    }

    #[test]
    fn long_text_is_cut_to_its_room() {
        assert_eq!(fit("llama-server", 12, false, 200), "llama-server");
        let cut = fit("a-very-long-process-name-that-goes-on", 12, false, 100);
        assert!(cut.ends_with('…') && width(&cut, 12, false) <= 100, "{cut}");
        assert_eq!(fit("模型服务器", 10, false, 50), "模型服务器");
        assert_eq!(fit("abc", 12, false, 3), "");
    }

    proptest! {
        #[test]
        fn escaped_text_holds_nothing_special(text in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(!escaped.chars().any(char::is_control));
        }
    }
}
