//! GPU time as a flame graph: kinds of kernels, below them the names of kernels part by part; what is wide took long.

use std::collections::BTreeMap;

use plimsoll_store::{Reader, Value};

use crate::error::ReportError;
use crate::family::Family;
use crate::row::rows;
use crate::runs;
use crate::svg::Theme;

/// The kernels of one run, on all its devices.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Flame {
    /// The run's number in its store.
    pub run_id: i64,
    /// The run's name.
    pub name: String,
    /// Its kernels, in any order; a name may come more than once.
    pub kernels: Vec<Kernel>,
}

/// All launches of one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// As people write it: C++ names are demangled.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Sum of their durations, ns.
    pub total_ns: u64,
}

/// A box of the picture: a part of a name, and what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// The part of the name.
    pub(crate) label: String,
    pub(crate) family: Family,
    pub(crate) count: u64,
    pub(crate) total_ns: u64,
    /// Longest first.
    pub(crate) below: Vec<Node>,
}

/// Reads the kernels of a run.
///
/// # Errors
/// [`ReportError::UnknownRun`], or that the store cannot be read.
pub async fn load(reader: &Reader, run: i64) -> Result<Flame, ReportError> {
    let told = runs::one(reader, run).await?;
    let sql =
        "SELECT name, sum(count), sum(total_ns) FROM kernels WHERE run_id = ? GROUP BY name ORDER BY name";
    let found = reader.query(sql, &[Value::Integer(run)]).await?;
    let kernels = rows(&found).filter_map(|mut row| {
        Some(Kernel {
            name: row.word(),
            count: row.size()?,
            total_ns: row.size()?,
        })
    });
    Ok(Flame {
        run_id: run,
        name: told.name,
        kernels: kernels.collect(),
    })
}

/// Draws the kernels of a run; the same bytes for the same data.
#[must_use]
pub fn svg(flame: &Flame, theme: Theme) -> String {
    crate::svg::flame(flame, theme)
}

impl Flame {
    /// Time of all kernels together, ns.
    pub(crate) fn total_ns(&self) -> u64 {
        let times = self.kernels.iter().map(|kernel| kernel.total_ns);
        times.fold(0, u64::saturating_add)
    }

    /// The families with their kernels below, longest first.
    pub(crate) fn tree(&self) -> Vec<Node> {
        let mut families: BTreeMap<Family, Branch> = BTreeMap::new();
        for kernel in self.kernels.iter().filter(|kernel| kernel.total_ns > 0) {
            let family = Family::of(&kernel.name);
            let root = families.entry(family).or_default();
            root.add(&parts(&kernel.name), kernel);
        }
        let nodes = families.into_iter().map(|(family, branch)| Node {
            below: branch.nodes(family),
            label: family.label().to_owned(),
            family,
            count: branch.count,
            total_ns: branch.total_ns,
        });
        sorted(nodes.collect())
    }
}

/// Names while they are put together by their parts.
#[derive(Default)]
struct Branch {
    count: u64,
    total_ns: u64,
    below: BTreeMap<String, Branch>,
}

impl Branch {
    fn add(&mut self, parts: &[String], kernel: &Kernel) {
        self.count = self.count.saturating_add(kernel.count);
        self.total_ns = self.total_ns.saturating_add(kernel.total_ns);
        if let Some((first, rest)) = parts.split_first() {
            self.below.entry(first.clone()).or_default().add(rest, kernel);
        }
    }

    fn nodes(&self, family: Family) -> Vec<Node> {
        let nodes = self.below.iter().map(|(part, branch)| {
            let (mut label, mut end) = (part.clone(), branch);
            // A part that has only one below it is one box with it.
            while let (1, Some((part, only))) = (end.below.len(), end.below.first_key_value()) {
                label.push_str(part);
                end = only;
            }
            Node {
                label,
                family,
                count: branch.count,
                total_ns: branch.total_ns,
                below: end.nodes(family),
            }
        });
        sorted(nodes.collect())
    }
}

fn sorted(mut nodes: Vec<Node>) -> Vec<Node> {
    nodes.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then_with(|| a.label.cmp(&b.label)));
    nodes
}

/// Deeper than this a name is not taken apart.
const DEEPEST: usize = 8;

/// `void at::native::fill<int, float>(int*)` as `at::`, `native::`, `fill`, `<int, float>`: name spaces, the name, and
/// what the template was made for. The type of the result and of the arguments say little and are left out.
fn parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut part = String::new();
    let mut depth = 0_usize;
    let mut rest = name.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let here = &name[at..];
        match c {
            // A name space without a name is no list of arguments.
            '(' if depth == 0 && here.starts_with("(anonymous namespace)") => {
                part.push_str("(anonymous namespace)");
                while rest.next_if(|(_, c)| *c != ')').is_some() {}
                rest.next();
                continue;
            }
            '(' if depth == 0 && !part.is_empty() => break,
            '<' if depth == 0 && !part.is_empty() && !part.ends_with("operator") => {
                parts.push(std::mem::take(&mut part));
                depth = 1;
            }
            '<' | '(' | '[' | '{' => depth += 1,
            '>' | ')' | ']' | '}' => depth = depth.saturating_sub(1),
            // The type of the result stands before the name.
            ' ' if depth == 0
                && parts.is_empty()
                && here.contains('(')
                && (!here.starts_with(" (") || here.starts_with(" (anonymous namespace)")) =>
            {
                part.clear();
                continue;
            }
            ':' if depth == 0 && here.starts_with("::") && parts.len() < DEEPEST => {
                rest.next();
                part.push_str("::");
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    let part = part.trim();
    if !part.is_empty() {
        parts.push(part.to_owned());
    }
    if parts.is_empty() {
        parts.push("unnamed kernel".to_owned());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_at_name_spaces_and_templates() {
        for (name, wanted) in [
            (
                "void at::native::fill<int, std::pair<a, b>>(int*, float)",
                &["at::", "native::", "fill", "<int, std::pair<a, b>>"][..],
            ),
            ("ampere_sgemm_128x64", &["ampere_sgemm_128x64"]),
            ("[CUDA memset]", &["[CUDA memset]"]),
            ("CUDA graph 7", &["CUDA graph 7"]),
            (
                "void (anonymous namespace)::softmax_warp<float>(float*)",
                &["(anonymous namespace)::", "softmax_warp", "<float>"],
            ),
            ("flash_fwd_kernel(float*)", &["flash_fwd_kernel"]),
            ("void gemv2T<int, 128>(P)", &["gemv2T", "<int, 128>"]),
            ("", &["unnamed kernel"]),
            ("<<<((", &["<<<(("]),
            ("é::ü", &["é::", "ü"]),
        ] {
            assert_eq!(parts(name), wanted, "{name}");
        }
    }

    #[test]
    fn what_has_one_below_it_is_one_box() {
        let kernel = |name: &str, total_ns| Kernel {
            name: name.to_owned(),
            count: 1,
            total_ns,
        };
        let flame = Flame {
            kernels: vec![
                kernel("void at::native::fill<int>(int*)", 10),
                kernel("void at::native::fill<float>(float*)", 30),
                kernel("void at::native::add<int>(int*)", 25),
                kernel("sgemm", 500),
                kernel("never", 0),
            ],
            ..Flame::default()
        };
        let told = |nodes: &[Node]| -> Vec<(String, u64)> {
            nodes
                .iter()
                .map(|node| (node.label.clone(), node.total_ns))
                .collect()
        };
        let tree = flame.tree();
        assert_eq!(told(&tree), [("GEMM".to_owned(), 500), ("other".to_owned(), 65)]);
        assert_eq!(told(&tree[0].below), [("sgemm".to_owned(), 500)]);
        let at = &tree[1].below;
        assert_eq!(told(at), [("at::native::".to_owned(), 65)]);
        assert_eq!(
            told(&at[0].below),
            [("fill".to_owned(), 40), ("add<int>".to_owned(), 25)]
        );
        assert_eq!(
            told(&at[0].below[0].below),
            [("<float>".to_owned(), 30), ("<int>".to_owned(), 10)]
        );
    }
}
