//! `plimsoll export`: a run for other tools.

use std::io::{BufWriter, ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use jiff::tz::TimeZone;
use plimsoll_reports::export::{ExportError, Format, Request};
use plimsoll_reports::{export, find_run, runs};

use super::super::{Outcome, runtime};
use super::report::{WholeFile, unwritable, window};
use super::{failed, now_ns, open};
use crate::cli::{self, ExportFormat};
use crate::failure::{Failure, Status};
use crate::screen::say;

pub(in crate::commands) fn export(arguments: &cli::Export) -> Outcome {
    let format = match arguments.format {
        ExportFormat::Perfetto => Format::Perfetto,
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Ndjson => Format::Ndjson,
    };
    let output = arguments.output.as_deref().filter(|path| path.as_os_str() != "-");
    if arguments.output.is_none() && std::io::stdout().is_terminal() {
        let text = "an export is not for a terminal; add -o FILE, or `-o -` to have it here all the same";
        return Err(Failure::usage(text));
    }
    let whole = output.map(WholeFile::beside).transpose()?;
    let out: Box<dyn Write + Send> = match &whole {
        Some(whole) => Box::new(BufWriter::new(whole.file()?)),
        None => Box::new(BufWriter::new(std::io::stdout())),
    };
    runtime()?.block_on(write(arguments, format, out, output))?;
    if let (Some(whole), Some(path)) = (whole, output) {
        whole.put_in_place()?;
        say(format_args!("{} written", path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(
    arguments: &cli::Export,
    format: Format,
    out: Box<dyn Write + Send>,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let reader = open(&arguments.source).await?;
    let run = find_run(&reader, &arguments.run.run).await.map_err(failed)?;
    let told = runs::one(&reader, run).await.map_err(failed)?;
    let zone = TimeZone::system();
    let (from_ns, to_ns) = window(&told, arguments.from.as_deref(), arguments.to.as_deref(), &zone)?;
    let request = Request {
        run,
        from_ns,
        to_ns,
        now_ns: now_ns(),
    };
    let written = export::write(&reader, &request, format, out).await;
    written.or_else(|error| match (error, output) {
        (ExportError::Report(error), _) => Err(failed(error)),
        (ExportError::Write(error), Some(path)) => Err(unwritable(path, &error)),
        // Whoever reads has seen enough.
        (ExportError::Write(error), None) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        (ExportError::Write(error), None) => {
            let error = anyhow::Error::from(error).context("stdout cannot be written");
            Err(Failure::new(Status::Failed, error))
        }
    })
}
