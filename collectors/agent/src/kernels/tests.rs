use proptest::prelude::*;

use super::*;

fn told(counts: &mut Counts, now: u64) -> Vec<Kernels> {
    let mut frames = Vec::new();
    counts.tell(now, Silence::Unrecorded, |frame| {
        let Frame::Kernels(kernels) = frame else {
            return false;
        };
        frames.push(kernels.clone());
        true
    });
    frames
}

#[test]
fn one_text_at_two_addresses_is_one_kernel() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    for (address, device, ns) in [(0x5000, 0, 10), (0x6000, 0, 30), (0x5000, 0, 20), (0x5000, 1, 5)] {
        counts
            .kernel(&mut names, (address, device), ns, || b"gemm")
            .unwrap();
    }
    let frames = told(&mut counts, 100);
    assert_eq!(frames.len(), 1);
    let stats = &frames[0].stats;
    assert_eq!(stats.len(), 2);
    let first = &stats[0];
    assert_eq!(
        (first.count, first.total_ns, first.min_ns, first.max_ns),
        (3, 60, 10, 30)
    );
    assert_eq!(first.buckets.iter().map(|(_, count)| count).sum::<u64>(), 3);
    assert_eq!((stats[1].device, stats[1].count), (1, 1));
    assert!(told(&mut counts, 200).is_empty());
}

#[test]
fn an_address_with_another_text_is_another_kernel_from_the_next_buffer_on() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    let mut count = |counts: &mut Counts, text: &'static [u8]| {
        counts.kernel(&mut names, (0x5000, 0), 1, || text).unwrap()
    };
    assert_eq!(count(&mut counts, b"old"), 0);
    counts.next_buffer();
    assert_eq!(count(&mut counts, b"new"), 1);
    counts.next_buffer();
    assert_eq!(count(&mut counts, b"old"), 0);
}

#[test]
fn what_is_refused_for_very_long_is_told_whole() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    let most = u64::from(u32::MAX);
    let mut kernel = |counts: &mut Counts| counts.kernel(&mut names, (0x5000, 0), 7, || b"a").unwrap();
    kernel(&mut counts);
    let entry = &mut counts.entries[0];
    entry.count = most;
    entry.buckets[usize::from(bucket(7))] = u32::MAX;
    kernel(&mut counts);
    counts.next_buffer();
    kernel(&mut counts);
    let stat = &told(&mut counts, 100)[0].stats[0];
    assert_eq!(stat.count, most + 2);
    assert_eq!(stat.buckets, [(bucket(7), most + 2)]);

    let mut graph = |counts: &mut Counts| counts.other(&mut names, Other::Memset, 0, 7).unwrap();
    graph(&mut counts);
    for entry in counts.entries.iter_mut().filter(|entry| entry.count == 1) {
        entry.count = most;
        entry.buckets[usize::from(bucket(7))] = u32::MAX;
    }
    graph(&mut counts);
    let stat = &told(&mut counts, 200)[0].stats[0];
    assert_eq!(
        (stat.count, &stat.buckets[..]),
        (most + 1, &[(bucket(7), most + 1)][..])
    );
}

#[test]
fn what_is_refused_is_told_later_and_whole() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    counts.begin(50);
    counts.kernel(&mut names, (0x5000, 0), 10, || b"a").unwrap();
    counts.tell(100, Silence::Unrecorded, |_| false);
    counts.kernel(&mut names, (0x5000, 0), 20, || b"a").unwrap();
    let frames = told(&mut counts, 200);
    assert_eq!((frames[0].start_ns, frames[0].end_ns), (50, 200));
    assert_eq!((frames[0].stats[0].count, frames[0].stats[0].total_ns), (2, 30));
    counts.kernel(&mut names, (0x5000, 0), 1, || b"a").unwrap();
    assert_eq!(told(&mut counts, 300)[0].start_ns, 200);
}

#[test]
fn nothing_is_told_as_nothing_only_where_it_is_known() {
    let mut counts = Counts::new();
    counts.begin(10);
    let mut periods = Vec::new();
    use Silence::{Quiet, Unrecorded, Withheld};
    for (now, silence) in [(20, Quiet), (30, Unrecorded), (35, Withheld), (40, Quiet)] {
        counts.tell(now, silence, |frame| {
            let Frame::Kernels(kernels) = frame else {
                return false;
            };
            periods.push((kernels.start_ns, kernels.end_ns, kernels.stats.len()));
            true
        });
    }
    assert_eq!(periods, [(10, 20, 0), (30, 40, 0)]);
}

#[test]
fn no_more_than_so_many_names() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    let texts: Vec<_> = (0..=crate::names::MOST)
        .map(|number| format!("kernel_{number}"))
        .collect();
    let results: Vec<_> = (4096..)
        .zip(&texts)
        .map(|(address, text)| counts.kernel(&mut names, (address, 0), 1, || text.as_bytes()))
        .collect();
    assert_eq!(
        results.iter().filter(|result| result.is_ok()).count(),
        crate::names::MOST
    );
    assert_eq!(results.last(), Some(&Err(Full)));
}

#[test]
fn a_table_that_is_crowded_with_old_addresses_begins_anew() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    let mut count =
        |counts: &mut Counts, address: u64| counts.kernel(&mut names, (address, 0), 1, || b"same");
    for address in 0..MOST as u64 {
        assert_eq!(counts.is_crowded(), address > CROWDED as u64);
        assert!(count(&mut counts, 4096 + address).is_ok());
    }
    assert_eq!(count(&mut counts, 1), Err(Full));
    let frames = told(&mut counts, 1);
    assert_eq!(
        (frames[0].stats.len(), frames[0].stats[0].count),
        (1, MOST as u64)
    );
    assert!(count(&mut counts, 1).is_ok() && !counts.is_crowded());
}

#[test]
fn a_graph_whose_name_was_forgotten_gets_another() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    let first = counts.other(&mut names, Other::Graph(5), 0, 1).unwrap();
    assert_eq!(counts.names_in_use(), HashSet::from([first]));
    told(&mut counts, 1);
    assert_eq!(counts.names_in_use(), HashSet::new());
    counts.forget(&HashSet::from([first]));
    let other = names.number(b"another").unwrap();
    let again = counts.other(&mut names, Other::Graph(5), 0, 1).unwrap();
    assert!(names.is(again, b"CUDA graph 5") && again != other);
}

#[test]
fn graphs_beyond_a_number_share_a_name() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    for graph in 0..u32::try_from(MOST_GRAPHS).unwrap() + 100 {
        counts.other(&mut names, Other::Graph(graph), 0, 1).unwrap();
    }
    counts.other(&mut names, Other::Graph(7), 0, 1).unwrap();
    let frames = told(&mut counts, 1);
    let stats: Vec<_> = frames.iter().flat_map(|frame| &frame.stats).collect();
    assert_eq!(stats.len(), MOST_GRAPHS + 1);
    assert_eq!((stats[7].count, stats[MOST_GRAPHS].count), (2, 100));
}

#[test]
fn more_than_fits_in_a_frame_is_told_in_several() {
    let (mut names, mut counts) = (Names::default(), Counts::new());
    for number in 0..2_000_u64 {
        let text = format!("kernel_{number}");
        for ns in [1, 1_000, 1_000_000] {
            counts
                .kernel(&mut names, (4096 + number, 0), ns * number, || text.as_bytes())
                .unwrap();
        }
    }
    let mut bytes = Vec::new();
    let mut stats = 0;
    counts.tell(1, Silence::Unrecorded, |frame| {
        frame.encode(&mut bytes);
        assert!(bytes.len() <= MOST_FRAME, "{}", bytes.len());
        let Frame::Kernels(kernels) = frame else {
            return false;
        };
        stats += kernels.stats.len();
        true
    });
    assert_eq!(stats, 2_000);
}

proptest! {
    /// However the records come, whatever is refused meanwhile: the sums are those of the records.
    #[test]
    fn counts_and_totals_are_exact(
        records in proptest::collection::vec((0..40_u64, 0..3_u32, any::<u32>(), any::<bool>()), 0..400),
    ) {
        let texts: Vec<_> = (0..10).map(|number| format!("kernel_{number}")).collect();
        let (mut names, mut counts) = (Names::default(), Counts::new());
        let mut expected = HashMap::<(u32, u32), (u64, u64)>::new();
        let mut found = HashMap::<(u32, u32), (u64, u64)>::new();
        let take = |frame: &Frame, found: &mut HashMap<(u32, u32), (u64, u64)>| {
            let Frame::Kernels(kernels) = frame else { return false };
            for stat in &kernels.stats {
                let sum = found.entry((stat.name, stat.device)).or_default();
                *sum = (sum.0 + stat.count, sum.1 + stat.total_ns);
                assert_eq!(stat.buckets.iter().map(|(_, count)| count).sum::<u64>(), stat.count);
                assert!(stat.min_ns <= stat.max_ns);
            }
            true
        };
        for (address, device, ns, flush) in records {
            let text = &texts[usize::try_from(address % 10).unwrap()];
            let name = counts
                .kernel(&mut names, (4096 + address, device), ns.into(), || text.as_bytes())
                .unwrap();
            let sum = expected.entry((name, device)).or_default();
            *sum = (sum.0 + 1, sum.1 + u64::from(ns));
            if flush {
                counts.next_buffer();
                counts.tell(ns.into(), Silence::Unrecorded, |frame| !ns.is_multiple_of(3) && take(frame, &mut found));
            }
        }
        counts.tell(u64::MAX, Silence::Unrecorded, |frame| take(frame, &mut found));
        prop_assert_eq!(found, expected);
    }
}
