//! `/proc/PID/stat`: one line whose second field is a name in parentheses that may contain anything.

/// The flag of kernel threads in field 9 (`PF_KTHREAD`).
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What a process's `stat` line says about its place in the tree. Fields are numbered as in proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 3, a letter; `Z` for one that ended and was not waited for.
    pub(crate) state: char,
    /// Field 4; 0 for none.
    pub(crate) parent: u32,
    /// Field 5, the process group.
    pub(crate) group: u32,
    /// Field 6, the session.
    pub(crate) session: u32,
    /// From field 9.
    pub(crate) kernel_thread: bool,
    /// Field 20.
    pub(crate) threads: u64,
    /// Field 22, in clock ticks since boot. With the pid this is the process's identity.
    pub(crate) started_ticks: u64,
    /// Field 52, as waitpid(2) gives it. 0 also for those who may not know it, and on kernels before 3.5.
    pub(crate) exit_status: i32,
}

impl Stat {
    /// Whether the whole process has ended: a main thread may end before the others do.
    pub(crate) const fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }
}

/// Reads a `stat` line.
pub(crate) fn parse(line: &str) -> Option<Stat> {
    // The name may contain spaces and parentheses, what follows it may not: so the last parenthesis closes it.
    let (_, fields) = line.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    // `nth` counts from the field after the last one taken.
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Both are -1 for a process outside this pid namespace.
    let group = fields.next()?.parse().unwrap_or(0);
    let session = fields.next()?.parse().unwrap_or(0);
    let flags: u64 = fields.nth(2)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let started_ticks = fields.nth(1)?.parse().ok()?;
    let exit_status = fields.nth(29).and_then(|status| status.parse().ok()).unwrap_or(0);
    Some(Stat {
        state,
        parent,
        group,
        session,
        kernel_thread: flags & KERNEL_THREAD != 0,
        threads,
        started_ticks,
        exit_status,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A line with the figures that matter, in the kernel's layout.
    fn line(name: &str, state: char, flags: u64, threads: u64, status: i32) -> String {
        let mut fields: Vec<String> = (1..=52).map(|field| field.to_string()).collect();
        fields[1] = format!("({name})");
        fields[2] = state.to_string();
        fields[8] = flags.to_string();
        fields[19] = threads.to_string();
        fields[51] = status.to_string();
        fields.join(" ") + "\n"
    }

    #[test]
    fn names_may_contain_anything() {
        for name in [
            "sleep",
            "a) b (c",
            "(",
            ")",
            ") Z 1 (",
            "tmux: server",
            "",
            "a\nb",
        ] {
            let stat = parse(&line(name, 'S', 0x40_0100, 3, 0)).expect(name);
            assert_eq!(
                (stat.state, stat.parent, stat.group, stat.session),
                ('S', 4, 5, 6),
                "{name}"
            );
            assert_eq!((stat.threads, stat.started_ticks), (3, 22), "{name}");
            assert!(!stat.kernel_thread, "{name}");
        }
    }

    #[test]
    fn tells_the_dead_and_the_kernel_apart() {
        let zombie = parse(&line("x", 'Z', 0, 1, 0x0300)).expect("zombie");
        assert!(zombie.is_dead());
        assert_eq!(zombie.exit_status, 0x0300);
        assert!(
            !parse(&line("x", 'Z', 0, 4, 0))
                .expect("main thread ended")
                .is_dead()
        );
        assert!(
            parse(&line("kworker/0:1", 'I', 0x0420_8060, 1, 0))
                .expect("kernel")
                .kernel_thread
        );
    }

    #[test]
    fn a_real_line() {
        let text = "29697 (python3) R 29695 29695 9173 0 -1 4194304 2841 6516 0 0 4 1 4 2 20 0 1 0 241885 16961536 \
                    3358 18446744073709551615 94796754112512 94796754112853 140726191863936 0 0 0 0 16781312 2 0 0 0 \
                    17 1 0 0 0 0 0 94796754124208 94796754124824 94797045571584 140726191872184 140726191872266 \
                    140726191872266 140726191873999 9\n";
        let expected = Stat {
            state: 'R',
            parent: 29_695,
            group: 29_695,
            session: 9_173,
            kernel_thread: false,
            threads: 1,
            started_ticks: 241_885,
            exit_status: 9,
        };
        assert_eq!(parse(text), Some(expected));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}", cut in 0_usize..200) {
            let whole = line(&text, 'S', 0, 1, 0);
            let cut: String = whole.chars().take(cut).collect();
            prop_assert!(parse(&cut).is_none_or(|stat| stat.started_ticks <= 22));
            prop_assert!(parse(&text).is_none(), "too short for the fields of a line");
            prop_assert_eq!(parse(&whole).map(|stat| stat.started_ticks), Some(22));
        }
    }
}
