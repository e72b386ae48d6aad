//! The full report of a run: one page with the picture, what was decided and what happened. No script, nothing from
//! outside; it opens offline and prints.

use jiff::tz::TimeZone;

use crate::decisions::Decision;
use crate::instant::full;
use crate::show::{self, Shown};
use crate::text;

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:1060px;margin:2rem auto;padding:0 1rem;background:Canvas;color:CanvasText}\
h1{font-size:1.4rem;margin:0 0 .3rem}h2{font-size:1.1rem;margin:2rem 0 .5rem}\
svg{width:100%;height:auto}pre{overflow-x:auto;padding:.7rem;border:1px solid #8886;border-radius:4px;font-size:13px}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .7rem .25rem 0;border-bottom:1px solid #8884}\
.add{color:#0a7d33}.del{color:#c0392b}@media(prefers-color-scheme:dark){.add{color:#5fd38d}.del{color:#ff8a80}}\
@media print{body{margin:0;max-width:none}}";

/// The page. `picture` is the run's timeline as [`svg`](crate::svg()) draws it, `flame` its kernels as
/// [`flame::svg`](crate::flame::svg) does, if there are any.
#[must_use]
pub fn page(shown: &Shown, picture: &str, flame: Option<&str>, zone: &TimeZone, now_ns: i64) -> String {
    let (id, name) = (shown.run.id, escape(&shown.run.name));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Plimsoll: run {id} ({name})</title><style>{STYLE}</style></head><body>\n\
         <h1>Run {id} ({name})</h1>\n{picture}\n"
    );
    if let Some(flame) = flame {
        page += &format!("<h2>Where the GPU time went</h2>\n{flame}\n");
    }
    page += "<h2>Decisions</h2>\n";
    if shown.decisions.is_empty() {
        page += "<p>Nothing was decided in this run.</p>\n";
    }
    page.extend(shown.decisions.iter().map(|decision| section(decision, zone)));
    page += "<h2>What happened</h2>\n<table><tr><th>time</th><th>what</th><th></th></tr>\n";
    for event in &shown.events {
        let (at, kind, message) = (
            full(event.at_ns, zone),
            escape(&event.kind),
            escape(&event.message),
        );
        page += &format!("<tr><td>{at}</td><td>{kind}</td><td>{message}</td></tr>\n");
    }
    let figures = escape(&show::text(shown, zone, now_ns));
    page + "</table>\n<h2>Figures</h2>\n<pre>" + &figures + "</pre>\n</body></html>\n"
}

fn section(decision: &Decision, zone: &TimeZone) -> String {
    let (at, rule) = (full(decision.at_ns, zone), escape(&decision.rule));
    let (verdict, outcome) = (escape(&decision.verdict), escape(&decision.outcome));
    let said = escape(&decision.explanation);
    let mut section = format!("<h3>{at} · rule {rule} · {verdict}: {outcome}</h3>\n<p>{said}</p>\n");
    for change in &decision.changes {
        let (path, outcome, diff) = (escape(&change.path), escape(&change.outcome), diff(&change.diff));
        section += &format!("<p>{path} ({outcome})</p>\n<pre>{diff}</pre>\n");
    }
    section
}

fn diff(text: &str) -> String {
    let line = |line: &str| {
        let class = match line.as_bytes().first() {
            Some(b'+') => "add",
            Some(b'-') => "del",
            _ => return escape(line) + "\n",
        };
        format!("<span class=\"{class}\">{}</span>\n", escape(line))
    };
    text.lines().map(line).collect()
}

/// Text that may hold anything, as HTML text of several lines.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for line in text.split_inclusive(['\n', '\t']) {
        let end = line.strip_suffix(['\n', '\t']).unwrap_or(line);
        safe += &text::escape(end);
        safe += line.get(end.len()..).unwrap_or_default();
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text() {
        assert_eq!(
            escape("<script>\"&'\u{7}\n\tx\u{202e}y\r\n"),
            "&lt;script&gt;&quot;&amp;&#39;\u{fffd}\n\tx\u{fffd}y \n"
        );
        assert_eq!(
            diff("-a\n+<b>\n c"),
            "<span class=\"del\">-a</span>\n<span class=\"add\">+&lt;b&gt;</span>\n c\n"
        );
    }
}
