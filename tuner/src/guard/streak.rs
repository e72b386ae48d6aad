//! One reading decides nothing.

use super::Finding;

/// So many failures in a row are one.
const FAILS: u32 = 2;
/// So many passes in a row are one.
const PASSES: u32 = 3;

/// Counts findings until they say something together. One that cannot tell ends either row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streak {
    fails: u32,
    passes: u32,
}

impl Streak {
    /// Takes in the next finding; answers when enough of one kind came in a row.
    pub(crate) fn add(&mut self, finding: Finding) -> Option<Finding> {
        match finding {
            Finding::Fail => (self.fails, self.passes) = (self.fails + 1, 0),
            Finding::Pass => (self.fails, self.passes) = (0, self.passes + 1),
            Finding::Inconclusive => (self.fails, self.passes) = (0, 0),
        }
        if self.fails >= FAILS {
            Some(Finding::Fail)
        } else if self.passes >= PASSES {
            Some(Finding::Pass)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Finding::{Fail, Inconclusive, Pass};

    #[test]
    fn two_failures_or_three_passes_in_a_row() {
        for (findings, says) in [
            (&[Fail, Fail][..], Some(Fail)),
            (&[Fail, Pass, Fail], None),
            (&[Fail, Inconclusive, Fail], None),
            (&[Pass, Pass, Fail, Pass, Pass, Pass], Some(Pass)),
            (&[Pass, Pass, Inconclusive, Pass, Pass], None),
        ] {
            let mut streak = Streak::default();
            let last = findings.iter().map(|finding| streak.add(*finding)).last();
            assert_eq!(last.flatten(), says, "{findings:?}");
        }
    }
}
