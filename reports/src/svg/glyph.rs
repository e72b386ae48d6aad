//! The shape of each kind of mark. Kinds differ in shape, so that nobody needs to tell colours apart.

use plotters_backend::BackendCoord;

use super::backend::Paint;
use super::element::Figure;
use super::ink::Ink;
use crate::timeline::MarkKind;

/// A shape around (0, 0), about 12 pixels wide.
struct Glyph {
    parts: &'static [&'static [BackendCoord]],
    filled: bool,
    closed: bool,
}

const TRIANGLE_DOWN: &[BackendCoord] = &[(-6, -5), (6, -5), (0, 6)];
const TRIANGLE_UP: &[BackendCoord] = &[(-6, 5), (6, 5), (0, -6)];
const TRIANGLE_LEFT: &[BackendCoord] = &[(5, -6), (5, 6), (-6, 0)];
const TRIANGLE_RIGHT: &[BackendCoord] = &[(-5, -6), (-5, 6), (6, 0)];
const DIAMOND: &[BackendCoord] = &[(0, -6), (6, 0), (0, 6), (-6, 0)];
const SQUARE: &[BackendCoord] = &[(-5, -5), (5, -5), (5, 5), (-5, 5)];
const SMALL_SQUARE: &[BackendCoord] = &[(-3, -3), (3, -3), (3, 3), (-3, 3)];
const RING: &[BackendCoord] = &[
    (-2, -6),
    (2, -6),
    (5, -4),
    (6, 0),
    (5, 4),
    (2, 6),
    (-2, 6),
    (-5, 4),
    (-6, 0),
    (-5, -4),
];
const DOT: &[BackendCoord] = &[
    (-1, -3),
    (1, -3),
    (3, -1),
    (3, 1),
    (1, 3),
    (-1, 3),
    (-3, 1),
    (-3, -1),
];
const HEXAGON: &[BackendCoord] = &[(-3, -6), (3, -6), (6, 0), (3, 6), (-3, 6), (-6, 0)];
const BURST: &[BackendCoord] = &[
    (0, -7),
    (2, -3),
    (6, -5),
    (4, -1),
    (7, 2),
    (3, 3),
    (2, 7),
    (-1, 4),
    (-5, 6),
    (-4, 2),
    (-7, 0),
    (-4, -2),
    (-5, -6),
    (-2, -4),
];
const BOW_TIE: &[BackendCoord] = &[(-5, -6), (5, -6), (-5, 6), (5, 6)];
const CROSS: &[BackendCoord] = &[
    (-6, -4),
    (-4, -6),
    (0, -2),
    (4, -6),
    (6, -4),
    (2, 0),
    (6, 4),
    (4, 6),
    (0, 2),
    (-4, 6),
    (-6, 4),
    (-2, 0),
];
const PLUS: &[BackendCoord] = &[
    (-2, -6),
    (2, -6),
    (2, -2),
    (6, -2),
    (6, 2),
    (2, 2),
    (2, 6),
    (-2, 6),
    (-2, 2),
    (-6, 2),
    (-6, -2),
    (-2, -2),
];
const BAR_LEFT: &[BackendCoord] = &[(-5, -6), (-2, -6), (-2, 6), (-5, 6)];
const BAR_RIGHT: &[BackendCoord] = &[(2, -6), (5, -6), (5, 6), (2, 6)];
const SLASHES: &[&[BackendCoord]] = &[RING, &[(-4, 4), (4, -4)]];
const STACKED: &[&[BackendCoord]] = &[
    &[(-5, -2), (3, -2), (3, 6), (-5, 6)],
    &[(-2, -3), (-2, -6), (6, -6), (6, 2), (4, 2)],
];

const fn solid(parts: &'static [&'static [BackendCoord]]) -> Glyph {
    Glyph {
        parts,
        filled: true,
        closed: true,
    }
}

const fn hollow(parts: &'static [&'static [BackendCoord]]) -> Glyph {
    Glyph {
        parts,
        filled: false,
        closed: true,
    }
}

/// The colour of a kind.
pub(super) const fn ink(kind: MarkKind) -> Ink {
    match kind {
        MarkKind::Kept | MarkKind::Released | MarkKind::DeviceBack => Ink::Good,
        MarkKind::RolledBack | MarkKind::Refused | MarkKind::Throttle | MarkKind::SamplingGap => Ink::Warn,
        MarkKind::Failed | MarkKind::OutOfMemory | MarkKind::Xid | MarkKind::DeviceLost => Ink::Bad,
        MarkKind::Applied
        | MarkKind::Proposed
        | MarkKind::Restart
        | MarkKind::HumanEdit
        | MarkKind::ProcessStart
        | MarkKind::ProcessExit
        | MarkKind::Note => Ink::Neutral,
    }
}

const fn glyph(kind: MarkKind) -> Glyph {
    match kind {
        MarkKind::Kept => solid(&[TRIANGLE_DOWN]),
        MarkKind::Released => solid(&[TRIANGLE_UP]),
        MarkKind::Applied => hollow(&[TRIANGLE_DOWN]),
        MarkKind::RolledBack => solid(&[TRIANGLE_LEFT]),
        MarkKind::Failed => solid(&[DIAMOND]),
        MarkKind::Refused => Glyph {
            parts: SLASHES,
            filled: false,
            closed: true,
        },
        MarkKind::Proposed => hollow(&[DIAMOND]),
        MarkKind::Restart => hollow(&[RING]),
        MarkKind::OutOfMemory => solid(&[BURST]),
        MarkKind::Xid => solid(&[HEXAGON]),
        MarkKind::Throttle => solid(&[BOW_TIE]),
        MarkKind::HumanEdit => hollow(&[SQUARE]),
        MarkKind::ProcessStart => hollow(&[TRIANGLE_RIGHT]),
        MarkKind::ProcessExit => solid(&[SMALL_SQUARE]),
        MarkKind::SamplingGap => solid(&[BAR_LEFT, BAR_RIGHT]),
        MarkKind::DeviceLost => solid(&[CROSS]),
        MarkKind::DeviceBack => solid(&[PLUS]),
        MarkKind::Note => solid(&[DOT]),
    }
}

/// The shape of a kind around a pixel.
pub(super) fn of_kind(kind: MarkKind, at: BackendCoord) -> Figure<BackendCoord> {
    shape(&glyph(kind), ink(kind), at)
}

/// The shape of several kinds in one place, in the colour of the worst.
pub(super) fn of_several(ink: Ink, at: BackendCoord) -> Figure<BackendCoord> {
    let glyph = Glyph {
        parts: STACKED,
        filled: false,
        closed: false,
    };
    shape(&glyph, ink, at)
}

fn shape(glyph: &Glyph, ink: Ink, (x, y): BackendCoord) -> Figure<BackendCoord> {
    let parts = glyph
        .parts
        .iter()
        .map(|part| part.iter().map(|(dx, dy)| (x + dx, y + dy)).collect())
        .collect();
    let paint = if glyph.filled {
        Paint::fill(ink).outlined(Ink::Background, 1, "")
    } else {
        Paint::fill(Ink::Background).outlined(ink, 2, "")
    };
    Figure::of(None, paint, parts, glyph.closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_shape_of_its_own() {
        let kinds = [
            MarkKind::Kept,
            MarkKind::Released,
            MarkKind::Applied,
            MarkKind::RolledBack,
            MarkKind::Failed,
            MarkKind::Refused,
            MarkKind::Proposed,
            MarkKind::Restart,
            MarkKind::OutOfMemory,
            MarkKind::Xid,
            MarkKind::Throttle,
            MarkKind::HumanEdit,
            MarkKind::ProcessStart,
            MarkKind::ProcessExit,
            MarkKind::SamplingGap,
            MarkKind::DeviceLost,
            MarkKind::DeviceBack,
            MarkKind::Note,
        ];
        for (index, a) in kinds.iter().enumerate() {
            for b in &kinds[..index] {
                let (a, b) = (glyph(*a), glyph(*b));
                assert!(a.parts != b.parts || a.filled != b.filled);
            }
        }
    }
}
