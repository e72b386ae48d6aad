//! A change of a configuration file in a few words.

use plimsoll_trace::units::show_bytes;

/// "gradient_checkpointing: false → true in server.yaml"; the file alone when the diff shows no single lines.
pub(crate) fn told(path: &str, diff: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let lines = |sign: char, header: &str| -> Vec<String> {
        diff.lines()
            .filter(|line| !line.starts_with(header))
            .filter_map(|line| line.strip_prefix(sign))
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect()
    };
    let (before, after) = (lines('-', "--- "), lines('+', "+++ "));
    let pairs: Vec<String> = after
        .iter()
        .map(|new| {
            match key(new).and_then(|key| Some((key, before.iter().find(|old| self::key(old) == Some(key))?)))
            {
                Some((key, old)) => format!("{key}: {} → {}", value(old), value(new)),
                None => format!("+ {new}"),
            }
        })
        .chain(
            before
                .iter()
                .filter(|old| key(old).is_none_or(|key| !after.iter().any(|new| self::key(new) == Some(key))))
                .map(|old| format!("- {old}")),
        )
        .collect();
    match pairs.as_slice() {
        [] => file.to_owned(),
        [one] => format!("{one} in {file}"),
        [one, two] => format!("{one}, {two} in {file}"),
        [one, two, rest @ ..] => format!("{one}, {two} and {} more in {file}", rest.len()),
    }
}

/// The name before the first `:` or `=`.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once([':', '='])?;
    Some(key.trim().trim_matches('"'))
}

/// What is behind it, without a trailing comment or comma.
fn value(line: &str) -> &str {
    let value = line.split_once([':', '=']).map_or(line, |(_, value)| value);
    let value = value.split_once(" #").map_or(value, |(value, _)| value);
    value.trim().trim_end_matches(',')
}

/// "6.2 GiB freed", "1.1 GiB more in use".
pub(crate) fn freed(bytes: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float becomes the nearest whole number, never a negative one"
    )]
    let size = show_bytes(bytes.abs() as u64);
    if bytes < 0.0 {
        format!("{size} more in use")
    } else {
        format!("{size} freed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_becomes_a_phrase() {
        let diff = "--- server.yaml\n+++ server.yaml\n@@ -1,3 +1,3 @@\n # quantization\n-  quantization: none # of the weights\n+  quantization: int8 # of the weights\n";
        assert_eq!(
            told("/etc/deepseek/server.yaml", diff),
            "quantization: none → int8 in server.yaml"
        );
        let diff = "-  \"batch\": 32,\n+  \"batch\": 16,\n+  \"fp8\": true\n-old\n";
        assert_eq!(
            told("a.json", diff),
            "batch: 32 → 16, + \"fp8\": true and 1 more in a.json"
        );
        assert_eq!(told("a.json", ""), "a.json");
    }

    #[test]
    fn effects_have_a_direction() {
        assert_eq!(freed(1_610_612_736.0), "1.5 GiB freed");
        assert_eq!(freed(-1024.0), "1.0 KiB more in use");
        assert_eq!(freed(f64::NAN), "0 B freed");
    }
}
