//! Trying CUPTI out, in a child process: some releases crash where there is no driver.

use std::ffi::c_void;
use std::path::{Path, PathBuf};

use crate::constant::kind;
use crate::library::Search;
use crate::locate::Place;
use crate::{Answer, Library};

/// One thing that was found out. They are told one by one, before what may crash is tried: a child that dies has said
/// how far it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The library was loaded from here.
    Loaded {
        /// Which file.
        path: PathBuf,
        /// Why this one.
        place: Place,
    },
    /// It could not be loaded; the text says why.
    NotLoaded(String),
    /// The one that was loaded is newer than the driver; what is loaded next is another.
    PassedOver {
        /// Which file.
        path: PathBuf,
        /// What it answered.
        answer: Answer,
    },
    /// A function beyond the needed ones is not there.
    Missing(&'static str),
    /// About to call this.
    Trying(&'static str),
    /// What a call answered.
    Answered(&'static str, Answer),
    /// The version.
    Version(u32),
}

/// All that was found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In order.
    pub findings: Vec<Finding>,
}

impl Report {
    /// What a call answered, if it came so far.
    #[must_use]
    pub fn answer(&self, call: &str) -> Option<Answer> {
        self.findings.iter().find_map(|finding| match finding {
            Finding::Answered(name, answer) if *name == call => Some(*answer),
            _ => None,
        })
    }
}

/// Loads CUPTI and tries what the agent does, without a context and without recording anything that stays. Meant for a
/// child process that does nothing else: the library may crash, and stays loaded.
pub fn probe(named: Option<&Path>, mut tell: impl FnMut(&Finding)) -> Report {
    let mut report = Report::default();
    let mut found = |finding: Finding| {
        tell(&finding);
        report.findings.push(finding);
    };
    let searched = Library::search(named, |step| {
        found(match step {
            Search::Loaded(candidate) => Finding::Loaded {
                path: candidate.path.clone(),
                place: candidate.place,
            },
            Search::Trying(call) => Finding::Trying(call),
            Search::PassedOver(candidate, answer) => Finding::PassedOver {
                path: candidate.path.clone(),
                answer,
            },
        });
    });
    let library = match searched {
        Ok(library) => library,
        Err(error) => {
            found(Finding::NotLoaded(error.to_string()));
            return report;
        }
    };
    library
        .missing()
        .for_each(|symbol| found(Finding::Missing(symbol)));

    let functions = library.functions();
    let mut try_call = |call: &'static str, answer: &mut dyn FnMut() -> Result<(), Answer>| {
        found(Finding::Trying(call));
        let answer = answer().err().unwrap_or(Answer::SUCCESS);
        found(Finding::Answered(call, answer));
        answer == Answer::SUCCESS
    };
    try_call("register callbacks", &mut || {
        functions.register_callbacks(request, complete)
    });
    for (call, kind) in [
        ("enable MEMORY2", kind::MEMORY2),
        ("enable MEMORY_POOL", kind::MEMORY_POOL),
        ("enable CONCURRENT_KERNEL", kind::CONCURRENT_KERNEL),
        ("enable GRAPH_TRACE", kind::GRAPH_TRACE),
    ] {
        if try_call(call, &mut || functions.enable(kind)) {
            functions.disable(kind).ok();
        }
    }
    let mut subscriber = None;
    if try_call("subscribe", &mut || {
        functions
            .subscribe(on_call)
            .map(|handle| subscriber = Some(handle))
    }) && let Some(subscriber) = subscriber
    {
        functions.unsubscribe(subscriber).ok();
    }
    // Last, because 13.2 crashes here where there is no driver.
    let mut version = None;
    try_call("version", &mut || {
        functions.version().map(|number| version = Some(number))
    });
    if let Some(version) = version {
        found(Finding::Version(version));
    }
    report
}

/// No context, no records: CUPTI asks for no buffer. Should it ask nevertheless, it gets one that stays.
extern "C" fn request(buffer: *mut *mut u8, size: *mut usize, max_records: *mut usize) {
    const BYTES: usize = 64 << 10;
    let memory: &'static mut [u64] = Box::leak(vec![0_u64; BYTES / 8].into_boxed_slice());
    // SAFETY: CUPTI passes three places to write to.
    unsafe {
        *buffer = memory.as_mut_ptr().cast();
        *size = BYTES;
        *max_records = 0;
    }
}

extern "C" fn complete(_: *mut c_void, _: u32, _: *mut u8, _: usize, _: usize) {}

extern "C" fn on_call(_: *mut c_void, _: u32, _: u32, _: *const crate::CallbackData) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_loaded_ends_the_report() {
        let mut told = 0;
        let report = probe(Some(Path::new("/nowhere/libcupti.so")), |_| told += 1);
        assert!(
            matches!(&report.findings[..], [Finding::NotLoaded(why)] if why.contains("/nowhere/libcupti.so"))
        );
        assert_eq!(told, 1);
        assert_eq!(report.answer("version"), None);
    }
}
