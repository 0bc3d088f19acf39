//! Medians, percentiles, ratios.

/// The middle value; of an even number of values, the mean of the two in the middle. `None` of nothing; values that
/// are no numbers are left out.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let high = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(high);
    }
    sorted.get(middle.checked_sub(1)?).map(|low| (low + high) / 2.0)
}

/// The value below which `share` (0 to 1) of a sorted list lies, by nearest rank. `None` of nothing.
pub fn percentile(sorted: &[u64], share: f64) -> Option<u64> {
    let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

/// `a / b`, when both are numbers above 0.
pub fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) if a > 0.0 && b > 0.0 && (a / b).is_finite() => Some(a / b),
        _ => None,
    }
}

/// The geometric mean, the mean that suits ratios. `None` of nothing.
pub fn geometric_mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values.into_iter().filter(|v| *v > 0.0 && v.is_finite()) {
        sum += value.ln();
        count += 1;
    }
    (count > 0).then(|| (sum / f64::from(count)).exp())
}

/// Three digits that matter: `12345`, `123`, `12.3`, `1.23`, `0.012`.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Seconds for people: `0.4 s`, `42 s`, `3 min`, `1 h 20 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..120 => format!("{whole} s"),
        120..3600 => format!("{} min", (whole + 30) / 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median([f64::NAN, 5.0, f64::INFINITY]), Some(5.0));
    }

    #[test]
    fn percentiles_are_values_of_the_list() {
        let list: Vec<u64> = (1..=200).collect();
        assert_eq!(percentile(&list, 0.5), Some(100));
        assert_eq!(percentile(&list, 0.99), Some(198));
        assert_eq!(percentile(&list, 1.0), Some(200));
        assert_eq!(percentile(&list, 0.0), Some(1));
        assert_eq!(percentile(&[7], 0.99), Some(7));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn ratios_need_two_numbers() {
        assert_eq!(ratio(Some(10.0), Some(4.0)), Some(2.5));
        assert_eq!(ratio(Some(10.0), Some(0.0)), None);
        assert_eq!(ratio(Some(0.0), Some(3.0)), None);
        assert_eq!(ratio(None, Some(1.0)), None);
        let mean = geometric_mean([2.0, 8.0]).unwrap();
        assert!((mean - 4.0).abs() < 1e-9);
        assert_eq!(geometric_mean([0.0]), None);
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(
            [12345.6, 123.4, 12.34, 1.234, 0.01234, 0.0].map(short),
            ["12346", "123", "12.3", "1.23", "0.012", "0.00"]
        );
        assert_eq!([0.42, 42.4, 180.0, 4800.0].map(duration), ["0.4 s", "42 s", "3 min", "1 h 20 min"]);
    }
}
