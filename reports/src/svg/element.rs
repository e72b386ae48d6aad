//! The two things that are drawn: figures made of paths, and words. Both work in pixels and in data coordinates.

use std::convert::Infallible;
use std::iter::Flatten;
use std::slice::Iter;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::element::{Drawable, PointCollection};
use plotters_backend::{BackendCoord, DrawingErrorKind};

use super::backend::{Paint, Setting, Svg};

/// A drawing area in pixels.
pub(super) type Canvas<'a> = DrawingArea<Svg<'a>, Shift>;

/// What can go wrong inside plotters.
pub(super) type Fault = DrawingAreaErrorKind<Infallible>;

/// Paths that share a title and a group.
pub(super) struct Figure<C> {
    pub(super) title: Option<String>,
    /// All points of all paths, path by path and part by part.
    parts: Vec<Vec<C>>,
    paths: Vec<Path>,
}

struct Path {
    paint: Paint,
    parts: usize,
    closed: bool,
}

impl<C> Figure<C> {
    pub(super) const fn new(title: Option<String>) -> Self {
        Self {
            title,
            parts: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// A figure of one path.
    pub(super) fn of(title: Option<String>, paint: Paint, parts: Vec<Vec<C>>, closed: bool) -> Self {
        Self::new(title).with(paint, parts, closed)
    }

    /// The same figure with one more path on top.
    pub(super) fn with(mut self, paint: Paint, parts: Vec<Vec<C>>, closed: bool) -> Self {
        self.paths.push(Path {
            paint,
            parts: parts.len(),
            closed,
        });
        self.parts.extend(parts);
        self
    }
}

impl<'a, C: 'a> PointCollection<'a, C> for &'a Figure<C> {
    type Point = &'a C;
    type IntoIter = Flatten<Iter<'a, Vec<C>>>;

    fn point_iter(self) -> Self::IntoIter {
        self.parts.iter().flatten()
    }
}

impl<C> Drawable<Svg<'_>> for Figure<C> {
    fn draw<I: Iterator<Item = BackendCoord>>(
        &self,
        pos: I,
        backend: &mut Svg<'_>,
        _: (u32, u32),
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let pixels: Vec<BackendCoord> = pos.collect();
        let mut rest = pixels.as_slice();
        let mut parts: Vec<&[BackendCoord]> = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let (head, tail) = rest.split_at_checked(part.len()).unwrap_or((rest, &[]));
            parts.push(head);
            rest = tail;
        }
        if self.title.is_some() {
            backend.open(self.title.as_deref());
        }
        let mut parts = parts.as_slice();
        for path in &self.paths {
            let (head, tail) = parts.split_at_checked(path.parts).unwrap_or((parts, &[]));
            backend.path(head, path.closed, &path.paint);
            parts = tail;
        }
        if self.title.is_some() {
            backend.close();
        }
        Ok(())
    }
}

/// Draws a figure whose points are pixels.
pub(super) fn draw(canvas: &Canvas<'_>, figure: &Figure<BackendCoord>) -> Result<(), Fault> {
    canvas.draw(figure)
}

/// A line of text at a pixel.
pub(super) struct Words {
    pub(super) at: BackendCoord,
    pub(super) text: String,
    pub(super) setting: Setting,
    /// What a viewer shows on hovering.
    pub(super) title: Option<String>,
}

impl<'a> PointCollection<'a, BackendCoord> for &'a Words {
    type Point = &'a BackendCoord;
    type IntoIter = std::iter::Once<&'a BackendCoord>;

    fn point_iter(self) -> Self::IntoIter {
        std::iter::once(&self.at)
    }
}

impl Drawable<Svg<'_>> for Words {
    fn draw<I: Iterator<Item = BackendCoord>>(
        &self,
        pos: I,
        backend: &mut Svg<'_>,
        _: (u32, u32),
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        for at in pos {
            if self.title.is_some() {
                backend.open(self.title.as_deref());
            }
            backend.text(at, &self.text, self.setting);
            if self.title.is_some() {
                backend.close();
            }
        }
        Ok(())
    }
}

/// Draws a line of text with its baseline at a pixel.
pub(super) fn write(
    canvas: &Canvas<'_>,
    at: BackendCoord,
    text: &str,
    setting: Setting,
) -> Result<(), Fault> {
    canvas.draw(&Words {
        at,
        text: text.to_owned(),
        setting,
        title: None,
    })
}

/// The corners of a rectangle.
pub(super) fn rectangle((left, top): BackendCoord, (right, bottom): BackendCoord) -> Vec<BackendCoord> {
    vec![(left, top), (right, top), (right, bottom), (left, bottom)]
}
