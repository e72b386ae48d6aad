//! The formats that can be edited.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A format of configuration files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// YAML, one document; written so that readers of 1.1 and of 1.2 agree.
    Yaml,
    /// JSON, with or without comments and trailing commas.
    #[serde(alias = "jsonc")]
    Json,
    /// TOML.
    Toml,
}

impl Format {
    /// The format by its configured name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" | "jsonc" => Some(Self::Json),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }

    /// The format by a file's extension.
    #[must_use]
    pub fn from_path(path: &Path) -> Option<Self> {
        Self::from_name(path.extension()?.to_str()?)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yaml => "YAML",
            Self::Json => "JSON",
            Self::Toml => "TOML",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_name_formats() {
        assert_eq!(Format::from_path(Path::new("/etc/a.yml")), Some(Format::Yaml));
        assert_eq!(Format::from_path(Path::new("b.JSONC")), Some(Format::Json));
        assert_eq!(Format::from_path(Path::new("presets.ini")), None);
        assert_eq!(Format::from_path(Path::new("toml")), None);
    }
}
