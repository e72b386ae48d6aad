//! x
use super::Outcome;
use crate::cli;
use plimsoll_store::Reader;
use std::path::Path;
pub(super) async fn draw(_: &Reader, _: &str, _: &Path) -> anyhow::Result<()> { Ok(()) }
pub(super) fn runs(_: &cli::Source, _: bool) -> Outcome { super::print("") }
pub(super) fn show(_: &str, _: &cli::Source, _: bool) -> Outcome { super::print("") }
pub(super) fn report(_: &cli::Report) -> Outcome { super::print("") }
pub(super) fn sql(_: &cli::Sql) -> Outcome { super::print("") }
pub(super) fn why(_: Option<&str>, _: Option<&serde_json::Value>, _: &cli::Source, _: bool) -> Outcome { super::print("") }
