use super::*;

const MIB: f64 = 1_048_576.0;
const USABLE: f64 = 24_576.0 * MIB;
const LONGEST: Duration = Duration::from_secs(10);

/// The forecasts after each reading, `every_ms` apart, of MiB in use.
fn forecasts(every_ms: i64, used_mib: impl IntoIterator<Item = f64>) -> Vec<Option<Forecast>> {
    let mut trend = Trend::default();
    let each = |(position, used): (usize, f64)| {
        let ns = i64::try_from(position).unwrap() * every_ms * 1_000_000;
        let at = Stamp {
            mono_ns: ns,
            unix_ns: ns,
        };
        let used = used * MIB;
        trend.push(at, used, USABLE, LONGEST);
        trend.forecast(USABLE - used)
    };
    used_mib.into_iter().enumerate().map(each).collect()
}

fn secs(forecast: &Option<Forecast>) -> f64 {
    forecast.expect("enough samples").full_in_secs()
}

/// Noise that is the same every time, -1..1.
fn noise() -> impl FnMut() -> f64 {
    let mut state = 7_u64;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / f64::from(1_u32 << 30) - 1.0
    }
}

#[test]
fn too_few_samples_say_nothing() {
    let seen = forecasts(1_000, (0..9).map(|step| f64::from(step) * 100.0));
    assert!(seen[..7].iter().all(Option::is_none));
    assert!(seen[7].is_some() && seen[8].is_some());
}

#[test]
fn a_straight_rise_is_met_at_any_rate_of_sampling() {
    for (every_ms, step_mib) in [(1_000, 100.0), (100, 10.0), (3_000, 300.0)] {
        let seen = forecasts(every_ms, (0..60).map(|step| f64::from(step) * step_mib));
        let rise = USABLE / MIB - 59.0 * step_mib;
        let last = seen.last().unwrap();
        let expected = rise / 100.0;
        assert!(
            (secs(last) / expected - 1.0).abs() < 0.02,
            "{every_ms} ms: {} instead of {expected}",
            secs(last)
        );
        let (earliest, latest) = last.unwrap().range_secs().unwrap();
        assert!(
            earliest < expected && expected < latest,
            "{every_ms} ms: {earliest}..{latest}"
        );
    }
}

#[test]
fn what_does_not_rise_does_not_fill() {
    let mut noise = noise();
    let at_rest = forecasts(1_000, [9_000.0; 30]);
    let falling = forecasts(1_000, (0..30).map(|step| 20_000.0 - f64::from(step) * 50.0));
    for seen in [at_rest, falling] {
        let last = seen.last().unwrap();
        assert_eq!(secs(last), NOT_FILLING_SECS);
        assert_eq!(last.unwrap().range_secs(), None);
    }
    // Noise without a trend is taken for a rise now and then, not often, and never for a fast one.
    let seen = forecasts(1_000, (0..2_000).map(|_| 9_000.0 + 300.0 * noise()));
    let rises: Vec<f64> = seen
        .iter()
        .skip(30)
        .map(secs)
        .filter(|secs| *secs < NOT_FILLING_SECS)
        .collect();
    assert!(rises.len() < 240, "{} of 1,970", rises.len());
    assert!(rises.iter().all(|secs| *secs > 60.0), "{rises:?}");
}

#[test]
fn a_rise_is_seen_through_noise_with_its_range() {
    let mut noise = noise();
    let seen = forecasts(
        1_000,
        (0..120).map(|step| 2_000.0 + 60.0 * f64::from(step) + 100.0 * noise()),
    );
    let within = |step: usize| {
        let truth = (USABLE / MIB - 2_000.0 - 60.0 * step as f64) / 60.0;
        let forecast = seen[step].unwrap();
        forecast
            .range_secs()
            .is_some_and(|(earliest, latest)| (earliest..=latest).contains(&truth))
    };
    let met = (40..120).filter(|step| within(*step)).count();
    assert!(met >= 56, "the range held the truth in {met} of 80 cases");
    let truth = (USABLE / MIB - 2_000.0 - 60.0 * 119.0) / 60.0;
    assert!((secs(&seen[119]) / truth - 1.0).abs() < 0.25);
}

#[test]
fn a_step_is_no_trend_and_two_are_one() {
    // A model of 4 GiB is loaded at once: nothing goes on rising.
    let used = [2_000.0; 20].into_iter().chain([6_000.0; 10]);
    let seen = forecasts(1_000, used);
    assert!(seen[20..].iter().all(|seen| secs(seen) >= NOT_FILLING_SECS));
    // Out of rest into a steep rise: known with the second reading of it.
    let used = [2_000.0; 20]
        .into_iter()
        .chain((1..=10).map(|step| 2_000.0 + 500.0 * f64::from(step)));
    let seen = forecasts(1_000, used);
    for (reading, seen) in seen.iter().enumerate().skip(21) {
        let truth = (24_576.0 - 2_000.0 - 500.0 * (reading - 19) as f64) / 500.0;
        assert!(
            (secs(seen) / truth - 1.0).abs() < 0.1,
            "{} instead of {truth}",
            secs(seen)
        );
    }
    // And as fast that it is over.
    let used = (0..20).map(|step| 500.0 * f64::from(step)).chain([9_500.0; 4]);
    assert_eq!(secs(forecasts(1_000, used).last().unwrap()), NOT_FILLING_SECS);
}

#[test]
fn nothing_from_before_a_gap_counts() {
    let mut trend = Trend::default();
    for at in 0..20 {
        trend.push(Stamp::at_secs(at), at as f64 * 100.0 * MIB, USABLE, LONGEST);
    }
    // Out of order, and twice the same instant: left out.
    trend.push(Stamp::at_secs(19), 0.0, USABLE, LONGEST);
    trend.push(Stamp::at_secs(3), 0.0, USABLE, LONGEST);
    assert!(trend.forecast(USABLE).unwrap().rise.is_some());
    trend.push(Stamp::at_secs(40), 0.0, USABLE, LONGEST);
    assert_eq!(trend.forecast(USABLE), None);
}

#[test]
fn more_room_takes_longer_to_fill() {
    let forecast = Forecast {
        room_bytes: 10.0,
        rise: Some(Rise {
            per_sec: 2.0,
            give_or_take: 1.0,
        }),
    };
    assert_eq!(forecast.full_in_secs(), 5.0);
    assert_eq!(forecast.with(10.0).full_in_secs(), 10.0);
    assert_eq!(forecast.with(-20.0).full_in_secs(), 0.0);
    assert_eq!(forecast.range_secs(), Some((10.0 / 3.0, 10.0)));
}
