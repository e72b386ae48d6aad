use plimsoll_trace::wire::{KernelStats, Kernels};

use super::*;

#[test]
fn a_text_has_one_number() {
    let mut names = Names::default();
    assert_eq!(names.number(b"first"), Some(0));
    assert_eq!(names.number(b"\xff\xfe"), Some(1));
    assert_eq!(names.number(b"first"), Some(0));
    assert_eq!(names.number(b""), Some(2));
    assert!(names.is(0, b"first") && !names.is(0, b"firsts") && !names.is(1, b"first") && !names.is(9, b""));
}

#[test]
fn long_names_are_cut_and_stay_apart() {
    let mut names = Names::default();
    let long = |last: u8| [vec![b'n'; 64 << 10], vec![last]].concat();
    assert_eq!(names.number(&long(b'a')), Some(0));
    assert_eq!(names.number(&long(b'b')), Some(1));
    let mut lengths = Vec::new();
    names.tell(|frame| {
        let Frame::Name { name, .. } = frame else {
            return false;
        };
        lengths.push(name.len());
        true
    });
    assert_eq!(lengths, [MAX_NAME, MAX_NAME]);
}

#[test]
fn there_is_an_end_to_new_names_and_none_to_old_ones() {
    let mut names = Names::default();
    for number in 0..MOST {
        assert!(names.number(format!("kernel_{number}").as_bytes()).is_some());
    }
    assert_eq!(names.number(b"one more"), None);
    assert_eq!(names.number(b"kernel_7"), Some(7));
    assert!(names.are_crowded());
}

#[test]
fn long_texts_are_bounded_by_their_bytes() {
    let mut names = Names::default();
    let long = |number: usize| format!("{number:0MAX_NAME$}");
    let taken = (0..).take_while(|number| names.number(long(*number).as_bytes()).is_some());
    assert_eq!(taken.count(), MOST_BYTES / MAX_NAME);
    names.tell(|_| true);
    names.forget(&HashSet::new(), |_| true);
    assert_eq!(names.by_text.len(), KEPT_BYTES / MAX_NAME);
}

fn mention(names: &mut Names, number: u32, position: u64) {
    let stats = vec![KernelStats {
        name: number,
        ..KernelStats::default()
    }];
    let frame = Frame::Kernels(Kernels {
        start_ns: 0,
        end_ns: 0,
        stats,
    });
    names.mentioned(&frame, position);
}

#[test]
fn what_was_not_seen_for_longest_is_forgotten_once_all_of_it_is_read() {
    let mut names = Names::default();
    let all = u32::try_from(KEPT).unwrap() + 10;
    for number in 0..all {
        names.number(format!("kernel_{number}").as_bytes());
        mention(&mut names, number, 100 + u64::from(number));
    }
    let nobody = HashSet::new();
    assert!(
        names.forget(&nobody, |_| true).is_empty(),
        "nobody knows them yet"
    );
    names.tell(|_| true);
    mention(&mut names, 0, 9_000);
    // 1 is in use, and from 8 on nothing is read.
    let in_use = HashSet::from([1]);
    let forgotten = names.forget(&in_use, |position| position < 108);
    assert_eq!(forgotten, (2..8).collect());
    assert!(!names.is(2, b"kernel_2") && names.is(1, b"kernel_1"));
    let rest = names.forget(&nobody, |_| true);
    assert_eq!(rest, HashSet::from([1, 8, 9, 10]));

    // What is seen again is told again, under a number that was free.
    let again = names.number(b"kernel_2").unwrap();
    assert!(again < all, "{again}");
    let mut told = Vec::new();
    names.tell(|frame| {
        told.push(frame.clone());
        true
    });
    let name = b"kernel_2".to_vec();
    assert_eq!(told, [Frame::Name { id: again, name }]);
}

#[test]
fn names_are_told_once_to_each_listener_and_again_when_refused() {
    let mut names = Names::default();
    (0..3_u8).for_each(|name| assert!(names.number(&[name]).is_some()));
    let mut told = Vec::new();
    let mut tell = |names: &mut Names, most: usize| {
        told.clear();
        names.tell(|frame| {
            let Frame::Name { id, .. } = frame else {
                return false;
            };
            told.push(*id);
            told.len() <= most
        });
        told.clone()
    };
    assert_eq!(tell(&mut names, 1), [0, 1]);
    assert_eq!(tell(&mut names, 9), [1, 2]);
    assert!(tell(&mut names, 9).is_empty());
    names.tell_again();
    assert_eq!(tell(&mut names, 9), [0, 1, 2]);
}

#[test]
fn a_text_ends_at_its_zero_or_where_nobody_would_read_on() {
    let long = vec![b'x'; LONGEST + 10];
    let mut long = long;
    long.push(0);
    // SAFETY: both are C strings that live on.
    let (short, long) = unsafe {
        (
            text_at(c"abc".as_ptr().expose_provenance() as u64),
            text_at(long.as_ptr().expose_provenance() as u64),
        )
    };
    assert_eq!((short, long.len()), (&b"abc"[..], LONGEST));
    // SAFETY: nothing is read at 0.
    assert_eq!(unsafe { text_at(0) }, b"(unnamed)");
}
