//! Numbers and texts as bytes: LEB128 for numbers, a length before each text.

use thiserror::Error;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed frame: {0}")]
pub struct Malformed(pub &'static str);

/// Appends values to a buffer that is kept, so that writing allocates only while it grows.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(low_bits(value) | 0x80);
            value >>= 7;
        }
        self.0.push(low_bits(value));
    }

    pub(super) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    /// Nothing is 0, a value is itself and one more: unknown is not zero.
    pub(super) fn maybe(&mut self, value: Option<u64>) {
        self.number(value.map_or(0, |value| value.saturating_add(1)));
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text);
    }
}

const fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}

/// Takes values off the front of bytes that may be anything.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed("ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number of more than 64 bits"))
    }

    pub(super) fn small(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.number()?).map_err(|_| Malformed("a number of more than 32 bits"))
    }

    pub(super) fn maybe(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(self.number()?.checked_sub(1))
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed("a text that is too long"))?;
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(Malformed("a text that is longer than its frame"))?;
        self.0 = rest;
        Ok(text)
    }

    /// How many items follow; each takes at least a byte, so no claim can make the reader reserve more than there is.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        let count = usize::try_from(self.number()?).map_err(|_| Malformed("too many items"))?;
        if count > self.0.len() {
            return Err(Malformed("more items than bytes"));
        }
        Ok(count)
    }
}
