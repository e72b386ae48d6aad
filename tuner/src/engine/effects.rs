//! What a rung was seen to free holds for what the rung sets, in a file with these values of the person, for this model.
//! When any of that is another, it is forgotten, and the rule's `saves` counts until the effect was seen again.

use serde_json::{Value, json};

use super::Engine;
use crate::edit::{self, Format, KeyPath};
use crate::file;
use crate::rule::Rule;
use crate::setting::SetValue;

/// Keys that say which model is served, and how it lies in memory, in the words of the engines that are known. They are looked
/// for beside each key that the rule sets, and at the top of the file.
const OF_THE_MODEL: [&str; 14] = [
    "model",
    "model-path",
    "model_path",
    "hf-repo",
    "hf-file",
    "revision",
    "dtype",
    "quantization",
    "load-format",
    "tensor-parallel-size",
    "tensor_parallel_size",
    "tp-size",
    "max-model-len",
    "ctx-size",
];

impl Engine {
    /// Takes note of what the effect of these rungs was seen with.
    pub(super) fn seen_with(&mut self, rungs: &[String]) {
        for rung in rungs {
            let context = self.ladder.rule(rung).and_then(|rule| self.context(rule));
            match context {
                Some(context) => self.memo.seen_with.insert(rung.clone(), context),
                None => self.memo.seen_with.remove(rung),
            };
        }
    }

    /// Forgets effects that were seen with something else than what is there now. What cannot be read says nothing.
    pub(super) fn forget_effects(&mut self) {
        let others: Vec<String> = self
            .ladder
            .rules
            .iter()
            .filter(|rule| {
                let known = self.memo.seen_with.get(&rule.name);
                known.is_some_and(|known| self.context(rule).is_some_and(|now| now != *known))
            })
            .map(|rule| rule.name.clone())
            .collect();
        for rule in others {
            tracing::info!(
                engine = self.name(),
                rule,
                "what its rung was seen to free is forgotten: the rule, the model or what it changes is another now"
            );
            self.memo.seen_with.remove(&rule);
            self.memo.ladder.rule_mut(&rule).effects_bytes.clear();
        }
    }

    /// A hash of all that the effect of a rule depends on; `None` without a file that can be read.
    fn context(&self, rule: &Rule) -> Option<String> {
        let format = self.spec.config.as_ref()?.format;
        let text = match (&self.memo.base, &self.seen) {
            (Some(base), _) => base.text.as_str(),
            (None, Some(seen)) => edit::text(seen).ok()?,
            (None, None) => return None,
        };
        Some(file::hash(context(rule, text, format).to_string().as_bytes()))
    }
}

fn context(rule: &Rule, text: &str, format: Format) -> Value {
    let sets = rule.set.iter().map(|setting| match &setting.value {
        SetValue::Value(value) => json!([setting.path, value]),
        SetValue::Scale { factor, min, max } => json!([setting.path, factor, min, max]),
    });
    let value = |path: &KeyPath| edit::get(text, format, path).ok().flatten();
    let own = rule.set.iter().map(|setting| value(&setting.path));
    let top: &[String] = &[];
    let mut sections: Vec<&[String]> = rule.set.iter().map(|setting| section(&setting.path)).collect();
    sections.push(top);
    sections.sort_unstable();
    sections.dedup();
    let of_the_model = sections.iter().flat_map(|section| {
        OF_THE_MODEL.iter().filter_map(move |name| {
            let keys = section.iter().cloned().chain([(*name).to_owned()]);
            value(&KeyPath::new(keys).ok()?)
        })
    });
    json!({
        "sets": sets.collect::<Vec<_>>(),
        "base": own.collect::<Vec<_>>(),
        "model": of_the_model.collect::<Vec<_>>(),
    })
}

fn section(path: &KeyPath) -> &[String] {
    path.keys().split_last().map_or(&[], |(_, section)| section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::tests::rule;

    #[test]
    fn an_effect_is_of_the_settings_the_model_and_the_base() {
        let when = "name='a'\nengine='e'\nwhen={signal='vram.used_ratio',enter=0.8}\n";
        let int8 = rule(&format!(
            "{when}set={{quantization='int8', chat.batch={{scale=0.5}}}}"
        ))
        .unwrap();
        let int4 = rule(&format!(
            "{when}set={{quantization='int4', chat.batch={{scale=0.5}}}}"
        ))
        .unwrap();
        let third = rule(&format!(
            "{when}set={{quantization='int8', chat.batch={{scale=0.3}}}}"
        ))
        .unwrap();
        let person = "model: llama\nport: 80\nquantization: none\nchat:\n  batch: 8\n";
        let seen = context(&int8, person, Format::Yaml);
        assert_ne!(seen, context(&int4, person, Format::Yaml));
        assert_ne!(seen, context(&third, person, Format::Yaml));
        for (edit, same) in [
            (person.replace("port: 80", "port: 81 # another"), true),
            (person.replace("llama", "mistral"), false),
            (person.replace("none", "fp8"), false),
            (person.replace("batch: 8", "batch: 16"), false),
            (format!("{person}  model: other\n"), false),
        ] {
            let now = context(&int8, &edit, Format::Yaml);
            assert_eq!(now == seen, same, "{edit}");
        }
    }
}
