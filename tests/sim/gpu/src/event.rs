//! Xid errors: a ring that any process may write and every reader follows with a place of its own, and the bell that
//! wakes those who wait.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use rustix::thread::futex;

use crate::gpu::Gpu;
use crate::layout::{XIDS, place_in};

/// An Xid error of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidEvent {
    /// Index of the device.
    pub device: usize,
    /// The Xid, as NVIDIA numbers them (79: fallen off the bus).
    pub xid: u32,
}

/// An entry carries its own sequence number, so that a reader sees by itself whether it is the one it waits for:
/// bits 0..32 are the Xid, 32..40 the device, 40..64 the sequence number plus one.
fn entry(sequence: u64, device: usize, xid: u32) -> u64 {
    tag(sequence) | (device as u64 & 0xFF) << 32 | u64::from(xid)
}

fn tag(sequence: u64) -> u64 {
    (sequence + 1) << 40
}

const TAG_MASK: u64 = !0 << 40;

impl Gpu {
    /// Raises an Xid on a device; event sets that listen for it wake up.
    pub fn raise_xid(&self, device: usize, xid: u32) {
        let layout = self.layout();
        loop {
            let sequence = layout.xid_head.load(SeqCst);
            let place = &layout.xids[place_in(XIDS, sequence)];
            let old = place.load(SeqCst);
            // Only over the entry of a whole round ago: a writer that slept for long must not undo a later one.
            let round_ago = sequence.checked_sub(XIDS as u64).map_or(0, tag);
            let written = old & TAG_MASK == round_ago
                && place
                    .compare_exchange(old, entry(sequence, device, xid), SeqCst, SeqCst)
                    .is_ok();
            // Whoever finds the head still on a written entry moves it on, so a writer that died here costs nothing.
            let _moved = layout
                .xid_head
                .compare_exchange(sequence, sequence + 1, SeqCst, SeqCst);
            if written {
                break;
            }
        }
        self.ring();
    }

    /// Where the next Xid will stand: a reader that starts here sees only what comes.
    pub fn xid_cursor(&self) -> u64 {
        self.layout().xid_head.load(SeqCst)
    }

    /// The next Xid from `cursor` on, which moves past it. A reader that fell a whole ring behind goes on with the
    /// oldest that is left.
    pub fn next_xid(&self, cursor: &mut u64) -> Option<XidEvent> {
        let layout = self.layout();
        let oldest = layout.xid_head.load(SeqCst).saturating_sub(XIDS as u64 - 1);
        *cursor = (*cursor).max(oldest);
        let word = layout.xids[place_in(XIDS, *cursor)].load(SeqCst);
        if word & TAG_MASK != tag(*cursor) {
            return None;
        }
        *cursor += 1;
        let xid = u32::try_from(word & 0xFFFF_FFFF).unwrap_or_default();
        Some(XidEvent {
            device: (word >> 32 & 0xFF) as usize,
            xid,
        })
    }

    /// The bell's number now; look at the state after this and then [`Gpu::wait`] with it, and nothing is missed.
    pub fn bell(&self) -> u32 {
        self.layout().bell.load(SeqCst)
    }

    /// Sleeps until the bell has another number than `heard`, at most for `timeout`. May wake early.
    pub fn wait(&self, heard: u32, timeout: Duration) {
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // Every way to return (rung, another number already, timed out, a signal) means the same: look again.
        let _woken = futex::wait(&self.layout().bell, futex::Flags::empty(), heard, Some(&timeout));
    }

    /// Wakes everybody who waits.
    pub(crate) fn ring(&self) {
        self.layout().bell.fetch_add(1, SeqCst);
        let everybody = i32::MAX.unsigned_abs();
        let _woken = futex::wake(&self.layout().bell, futex::Flags::empty(), everybody);
    }
}
