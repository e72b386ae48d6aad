//! The engine's configuration file: YAML, JSON (comments allowed) or TOML by extension.
//!
//! Times in the file are times of the simulated world: at `--speed 10` a `load_secs` of 5 takes half a second.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Why a configuration was refused; the engine keeps the one it has.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The extension names no known format.
    #[error("{path}: the format is told by the extension; use .yaml, .yml, .json, .jsonc or .toml")]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The text is not valid in its format.
    #[error("invalid syntax: {0}")]
    Syntax(String),
    /// The text is valid, but holds no table of keys at this place.
    #[error("{0}: a section with keys is needed here")]
    NoSection(&'static str),
    /// A key that the engine does not know.
    #[error("unknown key {0}; the known ones are {known}", known = KEYS.join(", "))]
    UnknownKey(String),
    /// A key that has no default is missing.
    #[error("missing key {0}")]
    MissingKey(String),
    /// A value of the wrong type or out of range.
    #[error("invalid value of {key}: {reason}")]
    Value {
        /// The key's dotted path.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Every key of the file, by its dotted path.
pub const KEYS: [&str; 13] = [
    "model.name",
    "model.parameters_billions",
    "model.quantization",
    "gradient_checkpointing",
    "max_batch_size",
    "context_length",
    "kv_bytes_per_token",
    "kv_cache_dtype",
    "max_batch_total_tokens",
    "max_queue_secs",
    "gpu_memory_utilization",
    "listen",
    "load_secs",
];

/// How the weights are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 16 bits a weight.
    #[default]
    None,
    /// 8 bits a weight, the embeddings and the scales wider.
    Int8,
    /// 4 bits a weight, the embeddings and the scales wider.
    Int4,
}

/// How the KV cache is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KvCacheDtype {
    /// As the model computes, 16 bits.
    #[default]
    Auto,
    /// 8 bits: half of `kv_bytes_per_token`.
    Fp8,
}

/// The section `model`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Model {
    /// What clients call the model.
    pub name: String,
    /// Parameters in billions, 0.01 to 2000.
    pub parameters_billions: f64,
    /// How the weights are stored.
    pub quantization: Quantization,
}

/// A valid configuration. Serialized, it has the key paths of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// The model served.
    pub model: Model,
    /// Keep only checkpoints of the activations and compute the rest again: less memory, slower.
    pub gradient_checkpointing: bool,
    /// The most requests that run at once, 1 to 65536.
    pub max_batch_size: u32,
    /// The most tokens of one request, prompt and answer together.
    pub context_length: u32,
    /// KV cache of one token, in bytes; 128 KiB is 32 layers of 8 key-value heads of 128 at 16 bits.
    pub kv_bytes_per_token: u32,
    /// How the KV cache is stored.
    pub kv_cache_dtype: KvCacheDtype,
    /// The most tokens of the requests that run at once, prompts and answers as long as they may become; 0 sets no
    /// limit.
    pub max_batch_total_tokens: u32,
    /// A request that has waited this long is turned away, in seconds of the simulated world; 0 lets them wait.
    pub max_queue_secs: f64,
    /// Share of the card, 0..1, that the engine takes when it loads its model, and puts the KV cache into; what does not
    /// fit there is put off. At 0 it takes memory for the KV cache when tokens come.
    pub gpu_memory_utilization: f64,
    /// Address of the HTTP server; port 0 takes any free one. Read at start only.
    pub listen: SocketAddr,
    /// How long loading the weights takes, in seconds of the simulated world.
    pub load_secs: f64,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, its format is unknown, or its text is refused as by [`Config::parse`].
    pub fn read(path: &Path) -> Result<(Self, String), ConfigError> {
        let format = Format::of(path).ok_or_else(|| ConfigError::Format { path: path.into() })?;
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })?;
        Ok((Self::parse(&text, format)?, sha256(&text)))
    }

    /// Checks the text of a configuration.
    ///
    /// # Errors
    /// Wrong syntax, an unknown or missing key, a value of the wrong type or out of range: all with the key's name.
    pub fn parse(text: &str, format: Format) -> Result<Self, ConfigError> {
        let Value::Object(top) = format.parse(text)? else {
            return Err(ConfigError::NoSection("the file"));
        };
        let mut top = Section {
            prefix: "",
            keys: top,
        };
        let mut model = match top.keys.remove("model") {
            Some(Value::Object(keys)) => Section {
                prefix: "model.",
                keys,
            },
            Some(_) => return Err(ConfigError::NoSection("model")),
            None => return Err(ConfigError::MissingKey("model.name".into())),
        };
        let config = Self {
            model: Model {
                name: model.required("name")?,
                parameters_billions: model.within("parameters_billions", 8.0, 0.01, 2000.0)?,
                quantization: model.or("quantization", Quantization::None)?,
            },
            gradient_checkpointing: top.or("gradient_checkpointing", false)?,
            max_batch_size: top.within("max_batch_size", 256, 1, 65_536)?,
            context_length: top.within("context_length", 8192, 16, 10_000_000)?,
            kv_bytes_per_token: top.within("kv_bytes_per_token", 131_072, 1, 1 << 30)?,
            kv_cache_dtype: top.or("kv_cache_dtype", KvCacheDtype::Auto)?,
            max_batch_total_tokens: top.or("max_batch_total_tokens", 0)?,
            max_queue_secs: top.within("max_queue_secs", 0.0, 0.0, 3600.0)?,
            gpu_memory_utilization: top.within("gpu_memory_utilization", 0.0, 0.0, 1.0)?,
            listen: top.or("listen", SocketAddr::from(([127, 0, 0, 1], 0)))?,
            load_secs: top.within("load_secs", 10.0, 0.0, 3600.0)?,
        };
        model.nothing_left()?;
        top.nothing_left()?;
        Ok(config)
    }

    /// KV cache of one token as it is stored, in bytes.
    #[must_use]
    pub fn kv_token_bytes(&self) -> f64 {
        let share = match self.kv_cache_dtype {
            KvCacheDtype::Auto => 1.0,
            KvCacheDtype::Fp8 => 0.5,
        };
        f64::from(self.kv_bytes_per_token) * share
    }

    /// Whether memory for the KV cache is taken once, when the model is loaded.
    #[must_use]
    pub fn preallocates(&self) -> bool {
        self.gpu_memory_utilization > 0.0
    }
}

/// The formats that the engine reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `.yaml`, `.yml`
    Yaml,
    /// `.json`, `.jsonc`
    Json,
    /// `.toml`
    Toml,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" | "jsonc" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    fn parse(self, text: &str) -> Result<Value, ConfigError> {
        let parsed = match self {
            Self::Yaml => serde_saphyr::from_str(text).map_err(|e| e.to_string()),
            Self::Json => jsonc_parser::parse_to_serde_value(text, &jsonc_parser::ParseOptions::default())
                .map_err(|e| e.to_string()),
            Self::Toml => toml_edit::de::from_str(text).map_err(|e| e.to_string()),
        };
        // The parsers add a picture of the place on further lines; the first one has the position and the reason.
        parsed.map_err(|text| {
            let first = text.lines().next().unwrap_or_default();
            ConfigError::Syntax(first.strip_prefix("error: ").unwrap_or(first).to_owned())
        })
    }
}

/// Keys not yet taken from one table of the file. Taking them one by one gives each error the key's name.
struct Section {
    prefix: &'static str,
    keys: Map<String, Value>,
}

impl Section {
    fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.keys.remove(key) else {
            return Ok(None);
        };
        serde_json::from_value(value)
            .map(Some)
            .map_err(|e| self.invalid(key, e.to_string()))
    }

    fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, ConfigError> {
        self.take(key)?
            .ok_or_else(|| ConfigError::MissingKey(format!("{}{key}", self.prefix)))
    }

    fn or<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T, ConfigError> {
        Ok(self.take(key)?.unwrap_or(default))
    }

    fn within<T>(&mut self, key: &str, default: T, min: T, max: T) -> Result<T, ConfigError>
    where
        T: DeserializeOwned + PartialOrd + std::fmt::Display,
    {
        let value = self.or(key, default)?;
        if min <= value && value <= max {
            Ok(value)
        } else {
            Err(self.invalid(key, format!("{value} is not within {min} and {max}")))
        }
    }

    fn invalid(&self, key: &str, reason: String) -> ConfigError {
        ConfigError::Value {
            key: format!("{}{key}", self.prefix),
            reason,
        }
    }

    fn nothing_left(self) -> Result<(), ConfigError> {
        match self.keys.keys().next() {
            Some(key) => Err(ConfigError::UnknownKey(format!("{}{key}", self.prefix))),
            None => Ok(()),
        }
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YAML: &str = "# who we are\nmodel:\n  name: small  # as clients say it\n  quantization: int8\nmax_batch_size: 12\n";

    #[test]
    fn the_three_formats_say_the_same() {
        let yaml = Config::parse(YAML, Format::Yaml).expect("yaml");
        let json = "{ // who we are\n \"model\": {\"name\": \"small\", \"quantization\": \"int8\"}, \"max_batch_size\": 12,\n}";
        let toml = "max_batch_size = 12\n[model]\nname = \"small\"\nquantization = \"int8\"\n";
        assert_eq!(yaml, Config::parse(json, Format::Json).expect("json"));
        assert_eq!(yaml, Config::parse(toml, Format::Toml).expect("toml"));
        assert_eq!(yaml.model.quantization, Quantization::Int8);
        assert_eq!(yaml.max_batch_size, 12);
        assert_eq!(yaml.kv_bytes_per_token, 131_072);
    }

    #[test]
    fn serialized_it_has_exactly_the_documented_key_paths() {
        let value = serde_json::to_value(Config::parse(YAML, Format::Yaml).expect("valid")).expect("json");
        for key in KEYS {
            assert!(
                value.pointer(&format!("/{}", key.replace('.', "/"))).is_some(),
                "{key}"
            );
        }
        assert_eq!(value["model"]["quantization"], "int8");
    }

    #[track_caller]
    fn refused(text: &str, expect: &str) {
        let error = Config::parse(text, Format::Yaml)
            .expect_err("refused")
            .to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    }

    #[test]
    fn errors_name_the_key() {
        refused("", "the file");
        refused("model: big", "model: a section");
        refused("max_batch_size: 4", "missing key model.name");
        refused(
            "model: {name: a, quantisation: int8}",
            "unknown key model.quantisation",
        );
        refused(
            "model: {name: a}\ncheckpointing: true",
            "unknown key checkpointing",
        );
        refused(
            "model: {name: a, quantization: int3}",
            "invalid value of model.quantization",
        );
        refused(
            "model: {name: a}\nmax_batch_size: banana",
            "invalid value of max_batch_size",
        );
        refused(
            "model: {name: a}\nmax_batch_size: 0",
            "0 is not within 1 and 65536",
        );
        refused(
            "model: {name: a}\nmax_batch_size: -3",
            "invalid value of max_batch_size",
        );
        refused("model: {name: a}\nload_secs: .nan", "invalid syntax: line 2");
        refused("model: {name: a}\nlisten: localhost", "invalid value of listen");
        refused(
            "model: {name: a}\ngradient_checkpointing: 1",
            "invalid value of gradient_checkpointing",
        );
        refused("model: {name: a\n", "invalid syntax");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,60}|[a-z_:\\-\\[\\]{}&*!|> \n\"']{0,60}") {
            for format in [Format::Yaml, Format::Json, Format::Toml] {
                let refused = Config::parse(&text, format).is_err();
                prop_assert!(refused || text.contains("model"));
            }
        }
    }
}
