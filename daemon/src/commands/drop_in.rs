//! What makes a service's process load the agent: what to write where, and then to do. Plimsoll writes it nowhere: a unit
//! is its owner's.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use serde_json::{Value, json};

use super::injection::{self, CHAIN, INJECTION};

/// A drop-in of one unit.
#[derive(Debug)]
pub(in crate::commands) struct DropIn {
    /// What the unit is: the engine's name in the configuration, if it has one.
    engine: Option<String>,
    unit: String,
    text: String,
}

impl DropIn {
    /// The unit that stands for any.
    pub(in crate::commands) const ANY: &str = "SERVER.service";

    /// `present` is what the unit has in the agent's place now. Or why there is no agent.
    pub(in crate::commands) fn new(
        engine: Option<&str>,
        unit: &str,
        socket: &Path,
        present: Option<OsString>,
    ) -> Result<Self, String> {
        let agent = injection::agent()?;
        let socket = std::path::absolute(socket).unwrap_or_else(|_| socket.to_owned());
        let chain = injection::foreign(present, &agent);
        let variables = [
            (INJECTION, Some(agent.as_os_str())),
            (CHAIN, chain.as_deref()),
            ("PLIMSOLL_SOCKET", Some(socket.as_os_str())),
            ("PLIMSOLL_TRACE", Some(OsStr::new("graph"))),
        ];
        let lines = variables
            .into_iter()
            .filter_map(|(name, value)| Some(assignment(name, value?)));
        Ok(Self {
            engine: engine.map(str::to_owned),
            unit: unit.to_owned(),
            text: format!("[Service]\n{}", lines.collect::<String>()),
        })
    }

    fn path(&self) -> String {
        format!("/etc/systemd/system/{}.d/plimsoll.conf", self.unit)
    }

    pub(in crate::commands) fn to_json(&self) -> Value {
        json!({
            "engine": self.engine,
            "unit": self.unit,
            "path": self.path(),
            "text": self.text,
        })
    }
}

impl fmt::Display for DropIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let engine = self.engine.as_deref().unwrap_or("the engine");
        let Self { unit, text, .. } = self;
        writeln!(f, "To trace {engine}, put this into {}:", self.path())?;
        f.write_str(text)?;
        writeln!(f, "Then: systemctl daemon-reload && systemctl restart {unit}")
    }
}

/// A line of a unit as systemd reads it (systemd.syntax(7)): a percent sign begins a specifier, what has spaces is quoted.
fn assignment(name: &str, value: &OsStr) -> String {
    let mut escaped = String::new();
    for character in value.to_string_lossy().chars() {
        match character {
            '%' => escaped.push_str("%%"),
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    if escaped.contains([' ', '\t', '\'', '"', '\\', ';', '#']) {
        format!("Environment=\"{name}={escaped}\"\n")
    } else {
        format!("Environment={name}={escaped}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_systemd_reads_them() {
        for (value, line) in [
            ("/run/p.sock", "Environment=A=/run/p.sock\n"),
            ("/a b/p.sock", "Environment=\"A=/a b/p.sock\"\n"),
            ("/50%/p.sock", "Environment=A=/50%%/p.sock\n"),
            ("/a\"b\\c", "Environment=\"A=/a\\\"b\\\\c\"\n"),
        ] {
            assert_eq!(assignment("A", value.as_ref()), line);
        }
    }
}
