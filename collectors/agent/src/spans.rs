//! Single kernels, while a window is open.

use plimsoll_trace::wire::{Frame, Span, Spans};

/// So many in one window at most; those beyond are counted.
const MOST: usize = 50_000;
/// Spans in one frame: each takes 35 bytes at most.
const IN_FRAME: usize = 1_800;

/// The window and what fell into it. Times are CUPTI's.
#[derive(Debug, Default)]
pub(crate) struct Window {
    from_ns: u64,
    until_ns: u64,
    room: usize,
    waiting: Vec<Span>,
    /// What one frame takes, kept so that telling allocates once.
    part: Vec<Span>,
    skipped: u64,
    refused: u64,
}

impl Window {
    /// Opens a window. What began in it belongs to it, whenever its record comes.
    pub(crate) const fn open(&mut self, from_ns: u64, until_ns: u64) {
        (self.from_ns, self.until_ns) = (from_ns, until_ns);
        self.room = MOST;
    }

    /// Whether something that began then is wanted.
    #[inline]
    pub(crate) const fn wants(&self, start_ns: u64) -> bool {
        start_ns >= self.from_ns && start_ns < self.until_ns
    }

    pub(crate) fn push(&mut self, span: Span) {
        if self.room == 0 {
            self.skipped += 1;
        } else {
            self.room -= 1;
            self.waiting.push(span);
        }
    }

    /// Hands the spans to `tell`. What it refuses is gone, and counted: spans are the first that may be missed.
    pub(crate) fn tell(&mut self, mut tell: impl FnMut(&Frame) -> bool) {
        for waiting in self.waiting.chunks(IN_FRAME) {
            self.part.clear();
            self.part.extend_from_slice(waiting);
            let spans = std::mem::take(&mut self.part);
            let frame = Frame::Spans(Spans { spans });
            if !tell(&frame) {
                self.refused += waiting.len() as u64;
            }
            if let Frame::Spans(Spans { spans }) = frame {
                self.part = spans;
            }
        }
        if self.waiting.is_empty() {
            // Between windows nothing is held.
            (self.waiting, self.part) = (Vec::new(), Vec::new());
        }
        self.waiting.clear();
    }

    /// How many were too many for a window since this was last asked.
    pub(crate) const fn take_skipped(&mut self) -> u64 {
        std::mem::replace(&mut self.skipped, 0)
    }

    /// How many could not be told since this was last asked.
    pub(crate) const fn take_refused(&mut self) -> u64 {
        std::mem::replace(&mut self.refused, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start_ns: u64) -> Span {
        Span {
            name: 0,
            device: 0,
            stream: 0,
            start_ns,
            end_ns: start_ns + 1,
        }
    }

    #[test]
    fn a_window_has_an_end_and_a_bound() {
        let mut window = Window::default();
        assert!(!window.wants(0));
        window.open(100, 200);
        assert!(!window.wants(99) && window.wants(100) && window.wants(199) && !window.wants(200));
        for _ in 0..MOST + 7 {
            window.push(span(150));
        }
        assert_eq!(window.take_skipped(), 7);
        let mut told = 0;
        let mut frames = 0;
        window.tell(|frame| {
            let Frame::Spans(spans) = frame else { return false };
            frames += 1;
            told += spans.spans.len();
            frames > 1
        });
        assert_eq!(told, MOST);
        assert_eq!(
            (window.take_skipped(), window.take_refused()),
            (0, IN_FRAME as u64)
        );
        window.open(300, 400);
        window.push(span(300));
        assert_eq!(window.take_skipped(), 0);
    }
}
