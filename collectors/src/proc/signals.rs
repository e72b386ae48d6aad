//! Signal masks in `/proc/PID/status`: 64 bits in hexadecimal, signal n is bit n-1.

/// The mask of signals for which the process has a handler.
pub(crate) fn caught(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether the mask contains the signal; `None` when there is no signal of that number.
pub(crate) fn contains(mask: u64, signal: i32) -> Option<bool> {
    let bit = u32::try_from(signal).ok().filter(|n| (1..=64).contains(n))? - 1;
    Some(mask >> bit & 1 == 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn signal_n_is_bit_n_minus_1() {
        let status =
            "Name:\tSigCgt: ffff\nSigIgn:\tffffffffffffffff\nSigCgt:\t8000000000014a01\nCapInh:\t0\n";
        let mask = caught(status).expect("mask");
        for (signal, expected) in [
            (1, Some(true)),
            (2, Some(false)),
            (10, Some(true)),
            (15, Some(true)),
            (64, Some(true)),
            (63, Some(false)),
            (0, None),
            (65, None),
            (-1, None),
            (i32::MIN, None),
        ] {
            assert_eq!(contains(mask, signal), expected, "{signal}");
        }
    }

    #[test]
    fn no_mask_is_unknown() {
        for status in [
            "",
            "SigCgt:",
            "SigCgt:\tx\n",
            "SigCgt:\t10000000000000000\n",
            "sigcgt:\t1\n",
        ] {
            assert_eq!(caught(status), None, "{status}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(SigCgt:)?.{0,40}", signal: i32) {
            let mask = caught(&text).unwrap_or(0);
            prop_assert_eq!(contains(mask, signal).is_some(), (1..=64).contains(&signal));
        }

        #[test]
        fn masks_read_back(mask: u64, signal in 1_i32..=64) {
            let read = caught(&format!("SigCgt:\t{mask:016x}\n"));
            prop_assert_eq!(read, Some(mask));
            prop_assert_eq!(contains(mask, signal), Some(mask & (1 << (signal - 1)) != 0));
        }
    }
}
