//! A histogram of durations with buckets that grow: exact counts, quantiles within 10 %.

/// How many buckets there are: four to each doubling, from 1 ns to more than an hour.
pub const BUCKETS: usize = 168;

/// The bucket that a duration falls into. Durations below 4 ns have one each; above, each doubling is cut into four equal
/// parts; the last bucket takes all that is longer.
#[must_use]
#[inline]
pub const fn bucket(ns: u64) -> u8 {
    if ns < 4 {
        return ns.to_le_bytes()[0];
    }
    let octave = ns.ilog2();
    let quarter = (ns >> (octave - 2)) & 3;
    let index = (octave as u64 - 1) * 4 + quarter;
    if index < BUCKETS as u64 {
        index.to_le_bytes()[0]
    } else {
        (BUCKETS - 1).to_le_bytes()[0]
    }
}

/// The shortest duration of a bucket, ns.
#[must_use]
pub const fn lower(bucket: u8) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let (octave, quarter) = (bucket as u32 / 4 + 1, bucket as u64 % 4);
    (4 + quarter) << (octave - 2)
}

/// What stands for all durations of a bucket, ns: its middle.
#[must_use]
pub const fn middle(bucket: u8) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let width = 1_u64 << (bucket as u32 / 4 - 1);
    lower(bucket) + width / 2
}

/// The duration that the share `quantile` (0..1) of all lies at or below: nearest rank, within an eighth of a doubling.
/// `None` of nothing.
#[must_use]
pub fn quantile(buckets: &[(u8, u64)], quantile: f64) -> Option<u64> {
    let all: u64 = buckets.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return None;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank among fewer than 2^52"
    )]
    let rank = ((all as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
    let mut sorted = buckets.to_vec();
    sorted.sort_unstable();
    let mut seen = 0;
    sorted.into_iter().find_map(|(bucket, count)| {
        seen += count;
        (seen >= rank).then(|| middle(bucket))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_ordered_and_their_middle_is_near() {
        let mut last = 0;
        for exponent in 0..42_u32 {
            for step in 0..16_u64 {
                let ns = (1_u64 << exponent) + ((1_u64 << exponent) * step) / 16;
                let bucket = bucket(ns);
                assert!(bucket >= last, "{ns}");
                last = bucket;
                assert!(lower(bucket) <= ns, "{ns}");
                let off = middle(bucket).abs_diff(ns);
                assert!(off * 8 <= ns, "{ns} is shown as {}", middle(bucket));
            }
        }
        assert_eq!(usize::from(bucket(u64::MAX)), BUCKETS - 1);
    }

    #[test]
    fn quantiles_by_rank() {
        assert_eq!(quantile(&[], 0.5), None);
        let buckets = [(bucket(1000), 99), (bucket(5), 1)];
        assert_eq!(quantile(&buckets, 0.01), Some(5));
        assert_eq!(quantile(&buckets, 0.5), Some(middle(bucket(1000))));
    }
}
