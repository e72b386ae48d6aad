//! Command lines are stored and shown; keys and tokens that were given on them are not.

/// Names that end like this hold a secret, whatever the case and whether written with '-' or '_'.
const SECRET: [&str; 6] = ["api-key", "apikey", "token", "secret", "password", "passwd"];

const HIDDEN: &str = "***";

/// The command line with `--api-key ***`, `--token=***`, `HF_TOKEN=***` in the place of secrets. An option may take several
/// values (`--api-key a b`), so all words up to the next option are hidden.
pub(super) fn without_secrets(command: &str) -> String {
    let mut hiding = false;
    let shown = command.split(' ').map(|word| match word.split_once('=') {
        Some((name, _)) if is_secret(name) => {
            hiding = false;
            format!("{name}={HIDDEN}")
        }
        _ if word.starts_with('-') => {
            hiding = is_secret(word);
            word.to_owned()
        }
        _ if hiding && !word.is_empty() => HIDDEN.to_owned(),
        _ => word.to_owned(),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    SECRET.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        for (command, shown) in [
            (
                "vllm serve m --api-key abc --port 1",
                "vllm serve m --api-key *** --port 1",
            ),
            (
                "vllm serve --api-key a b --max-tokens 9",
                "vllm serve --api-key *** *** --max-tokens 9",
            ),
            ("serve --hf_token=abc=d x", "serve --hf_token=*** x"),
            ("env HF_TOKEN=abc serve", "env HF_TOKEN=*** serve"),
            (
                "serve --tokenizer t --ssl-keyfile f",
                "serve --tokenizer t --ssl-keyfile f",
            ),
            ("serve  a", "serve  a"),
            ("serve --token", "serve --token"),
        ] {
            assert_eq!(without_secrets(command), shown);
        }
    }
}
