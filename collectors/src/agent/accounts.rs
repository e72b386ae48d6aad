//! The accounts of processes, over all their connections: whoever connects again goes on with what it has told.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use plimsoll_trace::Stamp;

use super::quota::Account;
use crate::proc;
use crate::processes::ProcessId;

/// So many are remembered before those of processes that are gone are let go of.
const MANY: usize = 512;

/// An account that all connections of one process share.
pub(super) type SharedAccount = Rc<RefCell<Account>>;

/// By process.
#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<ProcessId, SharedAccount>);

impl Accounts {
    /// The account of a process that can be seen.
    pub(super) fn of(&mut self, process: ProcessId, now: Stamp) -> SharedAccount {
        if self.0.len() >= MANY && !self.0.contains_key(&process) {
            let lives = |process: &ProcessId| proc::identity(process.pid) == Some(*process);
            self.0
                .retain(|process, account| Rc::strong_count(account) > 1 || lives(process));
        }
        let account = self.0.entry(process);
        Rc::clone(account.or_insert_with(|| Rc::new(RefCell::new(Account::new(process.began(now))))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_keeps_its_account_as_long_as_it_lives() {
        let mut accounts = Accounts::default();
        let now = Stamp::now();
        let pid = std::process::id();
        let own = proc::identity(pid).unwrap();
        let first = accounts.of(own, now);
        let kept = Rc::downgrade(&first);
        drop(first);
        // Beyond any process's number.
        for pid in (1_u32 << 23..).take(4 * MANY) {
            accounts.of(ProcessId { pid, ..own }, now);
        }
        assert!(accounts.0.len() <= MANY, "{}", accounts.0.len());
        let again = accounts.of(own, now);
        assert!(kept.upgrade().is_some_and(|kept| Rc::ptr_eq(&kept, &again)));
    }
}
