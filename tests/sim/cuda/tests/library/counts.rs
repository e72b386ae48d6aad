//! Nothing is lost, whoever launches.

use std::collections::BTreeMap;

use crate::agent::{self, text_at, u64_at};
use crate::world::*;

const THREADS: usize = 4;
const LAUNCHES: usize = 20_000;
const NAMES: usize = 7;

#[test]
fn counts_and_times_are_exact_over_threads() {
    // Buffers for all threads together, and for each.
    for release in ["12.0", "13.0"] {
        let world = World::new(release, "");
        let cuda = world.cuda;
        cuda.init().unwrap();
        world.cupti.collect(&[CONCURRENT_KERNEL]);
        let names: Vec<String> = (0..NAMES).map(|number| format!("kernel_{number}")).collect();
        let duration = |number: usize| 100 + number as u64 * 10;
        let functions: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(number, name)| cuda.function(name, Some(duration(number))).unwrap())
            .collect();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let functions = &functions;
                scope.spawn(move || {
                    let stream = cuda.stream().unwrap();
                    for launch in 0..LAUNCHES {
                        cuda.launch(functions[(launch + thread) % NAMES], stream).unwrap();
                    }
                });
            }
            // Flushes while others launch lose nothing and give nothing twice.
            for _ in 0..20 {
                assert_eq!(world.cupti.flush(), 0);
            }
        });
        cuda.synchronize().unwrap();
        assert_eq!(world.cupti.flush(), 0);

        let mut found: BTreeMap<Vec<u8>, (usize, u64)> = BTreeMap::new();
        let records = agent::take();
        for record in &records {
            let entry = found.entry(text_at(record, 104)).or_default();
            entry.0 += 1;
            entry.1 += u64_at(record, 24) - u64_at(record, 16);
        }
        let mut expected: BTreeMap<Vec<u8>, (usize, u64)> = BTreeMap::new();
        for launch in (0..THREADS).flat_map(|thread| (0..LAUNCHES).map(move |launch| launch + thread)) {
            let entry = expected
                .entry(names[launch % NAMES].clone().into_bytes())
                .or_default();
            entry.0 += 1;
            entry.1 += duration(launch % NAMES);
        }
        assert_eq!(found, expected, "{release}");
        assert_eq!(world.cupti.dropped(), 0);
    }
}
