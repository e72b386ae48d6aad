//! The manual page and the command line that completions are made for: what `--help` says, in one page.

use std::io::{self, Write};

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Cli;

/// What no single option says.
const BEHIND: &str = r#".SH "EXIT STATUS"
0 ok; 1 failed; 2 wrong usage or configuration, or a query that is not SQL; 3 no GPU or driver (\fBcheck\fR); 4 the
daemon is not reachable; 5 a query that is refused or goes over its limit; 6 \fBcheck\fR found a problem. \fBplimsoll run\fR exits with the status of its command,
128 and the signal's number after a signal, 127 when it cannot be started.
.SH FILES
.TP
\fI$XDG_CONFIG_HOME/plimsoll/plimsoll.toml\fR, \fI/etc/plimsoll/plimsoll.toml\fR
The configuration; the first that is there. The daemon applies an edit without a restart.
.TP
\fI/var/lib/plimsoll/plimsoll.db\fR, \fI$XDG_DATA_HOME/plimsoll/plimsoll.db\fR
The database of root and of other users, unless the configuration names another. The daemon's control socket,
\fIplimsoll.sock\fR, lies beside it and is its user's only.
.SH ENVIRONMENT
.TP
\fBPLIMSOLL_CONFIG\fR
The configuration, as \fB\-\-config\fR.
.TP
\fBPLIMSOLL_DB\fR
The database, as \fB\-\-db\fR; for the daemon too.
.TP
\fBPLIMSOLL_SOCKET\fR
The control socket.
.TP
\fBPLIMSOLL_NVML_LIBRARY\fR
The driver's library, by name or path; it wins over the configuration's.
.TP
\fBPLIMSOLL_LOG\fR
What the daemon says on stderr: error, warn, info (the default), debug, or directives such as plimsoll=debug.
.TP
\fBNO_COLOR\fR
No colors on stderr when it is not empty.
.SH "SEE ALSO"
.BR nvidia-smi (1),
.BR sqlite3 (1)
"#;

/// The command line without what is only for the program itself.
pub(super) fn command() -> Command {
    let whole = Cli::command();
    let shown: Vec<Command> = whole
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .cloned()
        .collect();
    let bare = Command::new("plimsoll")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true);
    bare.about(whole.get_about().cloned().unwrap_or_default())
        .subcommands(shown)
}

/// The manual page, in roff: one page for the program and all its commands.
pub(super) fn page() -> io::Result<String> {
    let mut command = command();
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for command in shown(&command) {
        section(command, "", &mut page)?;
    }
    page.extend(BEHIND.bytes());
    Ok(String::from_utf8_lossy(&page).into_owned())
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
}

/// A command, and those below it.
fn section(command: &Command, above: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut section = Vec::new();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let synopsis = command.clone().render_usage().to_string();
    let synopsis = synopsis
        .trim_start_matches("Usage: ")
        .replace('\\', "\\\\")
        .replace('-', "\\-");
    let name = format!("{above}{}", command.get_name());
    writeln!(
        section,
        ".SS \"{name}\"\n{}.\n.PP\n.nf\n{synopsis}\n.fi",
        about.replace('\\', "\\\\")
    )?;
    Man::new(command.clone().mut_arg("help", |help| help.hide(true))).render_options_section(&mut section)?;
    page.extend(
        String::from_utf8_lossy(&section)
            .replace(".SH OPTIONS\n", "")
            .bytes(),
    );
    shown(command).try_for_each(|below| self::section(below, &format!("{name} "), page))
}
